//! What happens to hosts between the plan and its writing.

use fleetward_domain::inventory::{self, Found};

use super::*;
use crate::on_both_engines;
use crate::store::tenant::DEFAULT as TENANT;
use crate::store::testing::NOW;

fn entry(client: u32) -> InventoryHost {
    let text = format!(
        "links: {{web-1: {{type: VM, host: 192.0.2.1, port: 22, user: ops, \
         enrollment: {{clientId: FLEET-00000000-0000-4000-8000-{client:012}}}}}}}\n"
    );
    let file = |path: &str| match path {
        "links.yaml" => Found::File { content: text.clone().into(), executable: false },
        _ => Found::Missing,
    };
    inventory::parse(&|path, _| file(path.as_str())).unwrap().hosts.remove(0)
}

async fn plan_and_write(
    conn: &mut Connection,
    entry: &InventoryHost,
    meanwhile: impl AsyncFnOnce(&mut Connection, HostId),
) -> Result<(), StoreError> {
    let declared = host::all_declared(conn, TENANT).await.unwrap();
    let id = declared.first().map(|host| host.id);
    let plan = plan_hosts(declared, std::slice::from_ref(entry), false);
    if let Some(id) = id {
        meanwhile(conn, id).await;
    }
    write_hosts(conn, TENANT, plan, &mut Applied::default(), NOW).await
}

on_both_engines! {
    async fn a_host_that_enrols_while_its_identity_is_replaced_has_to_enrol_again(store: Store) {
        let mut tx = store.write().await.unwrap();
        plan_and_write(&mut tx, &entry(1), async |_, _| ()).await.unwrap();
        plan_and_write(&mut tx, &entry(2), async |conn, id| {
            assert!(host::update_enrolment(conn, id, Enrolment::Pending, Enrolment::Enrolled, NOW).await.unwrap());
        }).await.unwrap();
        let hosts = host::all_declared(&mut tx, TENANT).await.unwrap();
        assert_eq!((hosts.len(), hosts[0].enrolment), (1, Enrolment::Pending));
    }

    async fn a_host_that_is_deleted_meanwhile_is_not_taken_for_changed(store: Store) {
        let mut tx = store.write().await.unwrap();
        plan_and_write(&mut tx, &entry(1), async |_, _| ()).await.unwrap();
        let failed = plan_and_write(&mut tx, &entry(2), async |conn, id| {
            assert!(host::update_retired(conn, id, NOW).await.unwrap());
            assert!(host::delete(conn, &Scope::of(TENANT), id, NOW).await.unwrap());
        }).await.unwrap_err();
        assert_eq!(failed.to_string(), "conflict with existing data: `web-1` was changed meanwhile; synchronise again");
    }
}
