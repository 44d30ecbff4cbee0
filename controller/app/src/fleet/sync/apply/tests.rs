//! What happens to hosts between the plan and its writing.

use fleetward_domain::fleet::inventory::{self, Found};
use fleetward_store::on_both_engines;
use fleetward_store::page::{Direction, PageRequest};
use fleetward_store::people::tenant;
use fleetward_store::people::tenant::DEFAULT as TENANT;
use fleetward_store::testing::{NOW, STATEMENTS};

use super::*;

fn entry(client: u32) -> InventoryHost {
    let hosts = entries(std::iter::once(("web-1".to_owned(), client)), "[]");
    hosts.into_iter().next().unwrap()
}

fn entries(hosts: impl Iterator<Item = (String, u32)>, tags: &str) -> Vec<InventoryHost> {
    inventory(hosts, tags).hosts
}

/// Hosts of these names and client IDs, each with these tags.
fn inventory(hosts: impl Iterator<Item = (String, u32)>, tags: &str) -> Inventory {
    let hosts = hosts.map(|(name, client)| {
        format!(
            "{name}: {{type: VM, host: 192.0.2.1, port: 22, user: ops, tags: {tags}, \
             enrollment: {{clientId: FLEET-00000000-0000-4000-8000-{client:012}}}}}"
        )
    });
    let text = format!("links: {{{}}}\n", hosts.collect::<Vec<_>>().join(", "));
    let file = |path: &str| match path {
        "links.yaml" => Found::File { content: text.clone().into(), executable: false },
        _ => Found::Missing,
    };
    inventory::parse(&|path, _| file(path.as_str())).unwrap()
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

    async fn a_large_inventory_is_put_in_force_in_few_statements(store: Store) {
        const HOSTS: u32 = 2500;
        let fleet = |tags| entries((1..=HOSTS).map(|number| (format!("web-{number}"), number)), tags);
        let mut tx = store.write().await.unwrap();
        let tags_of = async |conn: &mut Connection| {
            let hosts = host::all_declared(conn, TENANT).await.unwrap();
            let filter = |tag: &str| host::Filter { tags: vec![tag.parse().unwrap()], ..host::Filter::default() };
            let page = PageRequest { limit: 1000, after: None };
            let mut found = Vec::new();
            for tag in ["a", "b", "c"] {
                let order = (host::Sort::Name, Direction::Ascending);
                let hosts = host::list(conn, &Scope::of(TENANT), &filter(tag), order, &page).await.unwrap();
                found.push(hosts.next.is_some());
            }
            (hosts.len(), hosts[7].declared.tags.len(), found)
        };
        for (tags, expected) in [
            ("[a, b]", (2500, 2, vec![true, true, false])),
            ("[b, c]", (2500, 2, vec![false, true, true])),
        ] {
            let entries = fleet(tags);
            let declared = host::all_declared(&mut tx, TENANT).await.unwrap();
            let before = STATEMENTS.get();
            let plan = plan_hosts(declared, &entries, false);
            write_hosts(&mut tx, TENANT, plan, &mut Applied::default(), NOW).await.unwrap();
            // One per host at the most, whatever each has.
            assert!(STATEMENTS.get() - before < u64::from(HOSTS) + 100, "{}", STATEMENTS.get() - before);
            assert_eq!(tags_of(&mut tx).await, expected);
        }
    }

    async fn a_client_id_of_another_tenant_is_a_problem_of_its_entry(store: Store) {
        let other = tenant::Tenant {
            id: TenantId::from_uuid(Uuid::now_v7()),
            name: "other".parse().unwrap(),
            title: "Other".to_owned(),
            created_at: NOW,
        };
        let host = |tenant, client: u32| NewHost {
            id: HostId::from_uuid(Uuid::now_v7()),
            tenant,
            declared: declaration(&entry(client)),
            source: Source::Git,
            enrolment: Enrolment::Pending,
        };
        let mut tx = store.write().await.unwrap();
        tenant::insert(&mut tx, &other).await.unwrap();
        host::insert_all(&mut tx, &[host(other.id, 2), host(TENANT, 1)], NOW).await.unwrap();
        // Of a host that is new here, and of one that is there under another client ID.
        for name in ["web-2", "web-1"] {
            let wanted = inventory(std::iter::once((name.to_owned(), 2)), "[]");
            let applied = apply(&mut tx, TENANT, &wanted, "c", Acceptance::Given, NOW).await.unwrap();
            let Err(Refused::Problems(problems)) = applied else { panic!("{applied:?}") };
            assert_eq!(problems[0].field, format!("links.{name}.enrollment.clientId"));
            assert!(problems[0].message.ends_with("belongs to a host of another tenant"), "{problems:?}");
        }
    }
}
