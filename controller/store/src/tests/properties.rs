//! Properties of the contract, by number, on both engines; a tenant of its own for each case.

use std::collections::{BTreeSet, HashSet};
use std::future::Future;

use fleetward_domain::work::operation::OperationStatus;
use fleetward_domain::work::run::RunState;
use fleetward_protocol::id::{HostId, OperationId, TenantId};
use fleetward_protocol::run::{Fate, Left};
use fleetward_protocol::text::Text;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::sample::*;
use crate::fleet::host;
use crate::fleet::host::{Enrolment, Filter, Host, NewHost, Presence, Sort, Status};
use crate::page::{Direction, Page, PageRequest};
use crate::work::batch::{RunChange, Write};
use crate::work::{batch, operation, output, run};
use crate::{Connection, Scope, Store, StoreError};

/// Checks the property on 100 cases. A case that fails is made smaller and told of.
pub(super) fn check<S: Strategy, F: Future<Output = ()>>(
    runtime: &tokio::runtime::Runtime,
    store: &Store,
    strategy: &S,
    property: impl Fn(Store, S::Value) -> F,
) {
    let mut runner = TestRunner::new(Config { cases: 100, failure_persistence: None, ..Config::default() });
    let run = |case| {
        runtime.block_on(property(store.clone(), case));
        Ok(())
    };
    if let Err(failure) = runner.run(strategy, run) {
        panic!("{failure}");
    }
}

/// Makes each property a test on SQLite and a test on PostgreSQL.
macro_rules! properties {
    ($($(#[$attribute:meta])* async fn $name:ident($store:ident: Store, $case:pat in $strategy:expr) $body:block)+) => {$(
        $(#[$attribute])*
        mod $name {
            use super::*;

            fn on(test: $crate::testing::TestStore, runtime: &tokio::runtime::Runtime) {
                $crate::tests::properties::check(runtime, &test.store, &$strategy, async |$store, $case| $body);
                runtime.block_on(test.finish());
            }

            #[test]
            fn sqlite() {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let test = runtime.block_on($crate::testing::sqlite());
                on(test, &runtime);
            }

            #[test]
            fn postgres() {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                if let Some(test) = runtime.block_on($crate::testing::postgres(stringify!($name))) {
                    on(test, &runtime);
                }
            }
        }
    )+};
}

pub(super) use properties;

/// What is drawn of a host; few values, so that they often meet.
#[derive(Debug, Clone)]
pub(super) struct Drawn {
    name: String,
    host_type: &'static str,
    tags: BTreeSet<&'static str>,
    enrolment: Enrolment,
    online: Option<(i64, u64)>,
}

prop_compose! {
    fn drawn()(
        name in "[a-cA-C_][a-c._%-]{0,3}",
        host_type in prop::sample::select(vec!["VPS", "Proxmox", "VM"]),
        tags in prop::collection::btree_set(prop::sample::select(vec!["prod", "web", "db"]), 0..3),
        enrolment in prop::sample::select(Enrolment::ALL),
        online in prop::option::of((0..4_i64, 0..3_u64)),
    ) -> Drawn {
        Drawn { name: name.replace('%', "-"), host_type, tags, enrolment, online }
    }
}

pub(super) fn fleet(size: usize) -> impl Strategy<Value = Vec<Drawn>> {
    prop::collection::vec(drawn(), 0..size).prop_map(|mut hosts| {
        let mut names = HashSet::new();
        hosts.retain(|host| names.insert(host.name.clone()));
        hosts
    })
}

/// Writes the drawn hosts into a tenant of their own.
pub(super) async fn settle(store: &Store, drawn: &[Drawn]) -> (TenantId, Vec<NewHost>) {
    let of = tenant(store).await;
    let mut tx = store.write().await.unwrap();
    let mut hosts = Vec::new();
    let mut presences = Vec::new();
    for drawn in drawn {
        let mut host = new_host(of, &drawn.name);
        host.enrolment = drawn.enrolment;
        host.declared.host_type = drawn.host_type.to_owned();
        host.declared.tags = drawn.tags.iter().map(|tag| tag.parse().unwrap()).collect();
        host::insert(&mut tx, &host, at(0)).await.unwrap();
        if let Some((seen, rtt)) = drawn.online {
            let (last_seen, rtt_us) = (at(seen), Some(rtt));
            presences.push(Presence {
                host: host.id,
                seat: 0,
                status: Status::Online,
                last_seen,
                rtt_us,
                clock_skew_ms: None,
            });
        }
        hosts.push(host);
    }
    host::update_presence(&mut tx, &presences).await.unwrap();
    tx.commit().await.unwrap();
    (of, hosts)
}

async fn every_host(
    conn: &mut Connection,
    scope: &Scope,
    filter: &Filter,
    sort: (Sort, Direction),
    size: u32,
) -> Vec<Host> {
    let mut hosts = Vec::new();
    let mut page = PageRequest::first(size);
    loop {
        let Page { items, next } = host::list(conn, scope, filter, sort, &page).await.unwrap();
        assert!(items.len() <= size as usize);
        hosts.extend(items);
        let Some(cursor) = next else { return hosts };
        page.after = Some(cursor);
    }
}

fn sorts() -> impl Strategy<Value = (Sort, Direction)> {
    (prop::sample::select(Sort::ALL), directions())
}

pub(super) fn directions() -> impl Strategy<Value = Direction> {
    prop::sample::select(vec![Direction::Ascending, Direction::Descending])
}

fn filters() -> impl Strategy<Value = Filter> {
    let host_type = prop::option::of(prop::sample::select(vec!["VPS", "VM", "none"]));
    let status = prop::option::of(prop::sample::select(Status::ALL));
    let enrolment = prop::option::of(prop::sample::select(Enrolment::ALL));
    let tags = prop::collection::vec(prop::sample::select(vec!["prod", "web", "db"]), 0..3);
    let text = prop::option::of("[a-cA-C._%!-]{0,2}");
    (host_type, status, enrolment, tags, text).prop_map(|(host_type, status, enrolment, tags, text)| Filter {
        host_type: host_type.map(str::to_owned),
        status,
        enrolment,
        lifecycle: None,
        tags: tags.iter().map(|tag| tag.parse().unwrap()).collect(),
        text,
    })
}

/// The filter once more, in Rust.
fn passes(filter: &Filter, host: &Host) -> bool {
    let text = |text: &String| {
        let text = text.to_ascii_lowercase();
        let declared = &host.declared;
        [declared.name.as_str(), &declared.provider, declared.address.as_deref().unwrap_or("")]
            .iter()
            .any(|field| field.to_ascii_lowercase().contains(&text))
    };
    filter.host_type.as_ref().is_none_or(|wanted| *wanted == host.declared.host_type)
        && filter.status.is_none_or(|wanted| wanted == host.status)
        && filter.enrolment.is_none_or(|wanted| wanted == host.enrolment)
        && filter.tags.iter().all(|tag| host.declared.tags.contains(tag))
        && filter.text.as_ref().is_none_or(text)
}

/// A sort key as it compares.
fn key(sort: Sort, host: &Host) -> (i64, String) {
    match sort {
        Sort::Name => (0, host.declared.name.to_string()),
        Sort::Type => (0, host.declared.host_type.clone()),
        Sort::Provider => (0, host.declared.provider.clone()),
        Sort::Status => (0, host.status.to_string()),
        Sort::Enrolment => (0, host.enrolment.to_string()),
        Sort::LastSeen => (host.last_seen.map_or(-1, |at| at.as_millis()), String::new()),
        Sort::Latency => (host.rtt_us.map_or(-1, |rtt| i64::try_from(rtt).unwrap()), String::new()),
        Sort::Created => (host.created_at.as_millis(), String::new()),
        Sort::Os | Sort::AgentVersion => (0, String::new()),
    }
}

const STATUSES: [OperationStatus; 6] = OperationStatus::ALL;

/// Operations asked for at these seconds, moved to these statuses.
async fn history(store: &Store, drawn: &[(i64, OperationStatus)]) -> (TenantId, Vec<OperationId>) {
    let of = tenant(store).await;
    let mut tx = store.write().await.unwrap();
    let mut ids = Vec::new();
    for &(seconds, status) in drawn {
        let new = new_operation(of);
        operation::insert(&mut tx, &new, at(seconds)).await.unwrap();
        if status != OperationStatus::Queued {
            let took =
                operation::update_status(&mut tx, new.id, OperationStatus::Queued, status, at(seconds)).await;
            assert!(took.unwrap().is_some());
        }
        ids.push(new.id);
    }
    tx.commit().await.unwrap();
    (of, ids)
}

async fn every_operation(
    conn: &mut Connection,
    scope: &Scope,
    filter: &operation::Filter,
    size: u32,
) -> Vec<operation::Operation> {
    let mut operations = Vec::new();
    let mut page = PageRequest::first(size);
    loop {
        let Page { items, next } = operation::list(conn, scope, filter, &page).await.unwrap();
        operations.extend(items);
        let Some(cursor) = next else { return operations };
        page.after = Some(cursor);
    }
}

fn histories() -> impl Strategy<Value = Vec<(i64, OperationStatus)>> {
    prop::collection::vec((0..6_i64, prop::sample::select(STATUSES.to_vec())), 0..10)
}

/// Every way in which a run may end.
/// Something, or nothing, that a script left running.
fn left(took: u64) -> Option<Left> {
    (took % 2 == 1).then_some(Left { processes: 1, held_ms: took, fate: Fate::Unkept })
}

fn final_states() -> impl Strategy<Value = RunState> {
    use fleetward_domain::work::run::{Cause, Failure};
    use fleetward_protocol::run::{LostCause, Refusal};
    prop_oneof![
        Just(RunState::Succeeded),
        (1..256_i32).prop_map(|code| RunState::Failed(Failure::Exit(code))),
        (1..65_i32).prop_map(|signal| RunState::Failed(Failure::Signal(signal))),
        Just(RunState::TimedOut),
        Just(RunState::Cancelled(Cause::Halted)),
        "[a-z ]{0,20}".prop_map(|rule| RunState::Refused(Refusal::NotAllowed { rule: Text::of(&rule) })),
        Just(RunState::Expired),
        prop::sample::select(vec![LostCause::Reboot, LostCause::SupervisorGone]).prop_map(RunState::Lost),
    ]
}

properties! {
    async fn p7_the_list_is_the_whole_inventory(store: Store, (fleet, sort, size) in (fleet(12), sorts(), 1..8_u32)) {
        let (of, hosts) = settle(&store, &fleet).await;
        let mut conn = store.read().await.unwrap();
        let listed = every_host(&mut conn, &Scope::of(of), &Filter::default(), sort, size).await;
        assert_eq!(listed.len(), hosts.len());
        for (host, drawn) in hosts.iter().zip(&fleet) {
            let row = listed.iter().find(|row| row.id == host.id).unwrap();
            assert_eq!((&row.declared, row.enrolment, row.source), (&host.declared, drawn.enrolment, host.source));
            assert_eq!(row.status == Status::Online, drawn.online.is_some());
            assert_eq!(row.rtt_us, drawn.online.map(|(_, rtt)| rtt));
            assert_eq!(row.last_seen, drawn.online.map(|(seen, _)| at(seen)));
        }
    }

    async fn p8_a_lookup_gives_exactly_that_host(store: Store, fleet in fleet(6)) {
        let (of, hosts) = settle(&store, &fleet).await;
        let (mut conn, scope, elsewhere) = (store.read().await.unwrap(), Scope::of(of), Scope::of(TenantId::from_uuid(uuid())));
        for host in &hosts {
            assert_eq!(host::get_by_id(&mut conn, &scope, host.id).await.unwrap().declared, host.declared);
            assert_eq!(host::get(&mut conn, &scope, &host.declared.name).await.unwrap().id, host.id);
            let found = host::find_by_client(&mut conn, &host.declared.client_id).await.unwrap();
            assert_eq!(found.map(|found| found.id), Some(host.id));
            assert!(matches!(host::get_by_id(&mut conn, &elsewhere, host.id).await, Err(StoreError::NotFound { .. })));
        }
        let nobody = host::get_by_id(&mut conn, &scope, HostId::from_uuid(uuid())).await;
        assert!(matches!(nobody, Err(StoreError::NotFound { .. })));
    }

    async fn p9_a_filter_gives_all_that_match_and_nothing_else(store: Store, (fleet, filter, size) in (fleet(12), filters(), 1..8_u32)) {
        let (of, _) = settle(&store, &fleet).await;
        let (mut conn, scope, sort) = (store.read().await.unwrap(), Scope::of(of), (Sort::Name, Direction::Ascending));
        let all = every_host(&mut conn, &scope, &Filter::default(), sort, 100).await;
        let expected: Vec<_> = all.iter().filter(|host| passes(&filter, host)).map(|host| host.id).collect();
        let found: Vec<_> = every_host(&mut conn, &scope, &filter, sort, size).await.iter().map(|host| host.id).collect();
        assert_eq!(found, expected);
    }

    async fn p10_lists_are_sorted_and_ties_are_always_broken_the_same_way(store: Store, (fleet, sort, size) in (fleet(12), sorts(), 1..8_u32)) {
        let (of, _) = settle(&store, &fleet).await;
        let mut conn = store.read().await.unwrap();
        let listed = every_host(&mut conn, &Scope::of(of), &Filter::default(), sort, size).await;
        let mut expected = listed.clone();
        expected.sort_by(|a, b| {
            let order = key(sort.0, a).cmp(&key(sort.0, b));
            let order = if sort.1 == Direction::Descending { order.reverse() } else { order };
            order.then(a.id.cmp(&b.id))
        });
        let ids = |hosts: &[Host]| hosts.iter().map(|host| host.id).collect::<Vec<_>>();
        assert_eq!(ids(&listed), ids(&expected));
        let again = every_host(&mut conn, &Scope::of(of), &Filter::default(), sort, 100).await;
        assert_eq!(ids(&again), ids(&listed));
    }

    async fn p14_an_accepted_request_is_a_queued_row_with_an_id(store: Store, (hosts, before) in (1..4_u32, 0..3_u64)) {
        let of = tenant(&store).await;
        for _ in 0..before {
            operation(&store, of, 1).await;
        }
        let (id, runs) = operation(&store, of, hosts).await;
        let mut conn = store.read().await.unwrap();
        let row = operation::get(&mut conn, &Scope::of(of), id).await.unwrap();
        assert_eq!((row.id, row.status, row.number, row.runs), (id, OperationStatus::Queued, before + 1, u64::from(hosts)));
        assert_eq!(operation::find_by_number(&mut conn, &Scope::of(of), before + 1).await.unwrap(), Some(row));
        let rows = run::list_all(&mut conn, id).await.unwrap();
        assert!(rows.iter().all(|run| run.state == RunState::Queued));
        assert_eq!(rows.iter().map(|run| run.id).collect::<Vec<_>>(), runs);
    }

    async fn p31_a_finished_operation_is_stored_with_every_result_and_every_byte(
        store: Store,
        ends in prop::collection::vec((final_states(), prop::collection::vec(any::<u8>(), 0..200), 0..1_u64 << 40), 1..5)
    ) {
        let of = tenant(&store).await;
        let (id, runs) = operation(&store, of, u32::try_from(ends.len()).unwrap()).await;
        for (&run, (end, log, took)) in runs.iter().zip(&ends) {
            let held = custody();
            let Write::Run(last) = change(id, run, RunState::Dispatched(held), end.clone()) else { unreachable!() };
            let done = write(&store, vec![
                change(id, run, RunState::Queued, RunState::Dispatched(held)),
                append(id, run, 0, log),
                Write::Run(RunChange { duration_ms: Some(*took), left: left(*took), ..last }),
            ]).await;
            assert!(!done.written.contains(&batch::Written::Missing));
        }
        let mut tx = store.write().await.unwrap();
        operation::update_status(&mut tx, id, OperationStatus::Queued, OperationStatus::Partial, at(9)).await.unwrap();
        tx.commit().await.unwrap();
        let (mut conn, scope) = (store.read().await.unwrap(), Scope::of(of));
        let row = operation::get(&mut conn, &scope, id).await.unwrap();
        assert_eq!((row.status, row.ended_at), (OperationStatus::Partial, Some(at(9))));
        let good = ends.iter().filter(|(end, ..)| *end == RunState::Succeeded).count() as u64;
        assert_eq!((row.succeeded, row.failed), (good, ends.len() as u64 - good));
        for (&run, (end, log, took)) in runs.iter().zip(&ends) {
            let stored = run::get(&mut conn, &scope, run).await.unwrap();
            assert_eq!((&stored.state, stored.duration_ms, stored.ended_at), (end, Some(*took), Some(at(1))));
            assert_eq!(stored.left, left(*took));
            assert_eq!(output::read(&mut conn, store.files(), &scope, run, 0, usize::MAX).await.unwrap(), *log);
        }
    }

    async fn p32_history_is_newest_first(store: Store, (drawn, size) in (histories(), 1..5_u32)) {
        let (of, ids) = history(&store, &drawn).await;
        let mut conn = store.read().await.unwrap();
        let listed = every_operation(&mut conn, &Scope::of(of), &operation::Filter::default(), size).await;
        assert_eq!(listed.len(), ids.len());
        assert!(listed.is_sorted_by(|a, b| (a.created_at, a.id) > (b.created_at, b.id)));
    }

    async fn p33_the_view_is_complete_for_all_targets(store: Store, (hosts, size) in (1..8_u32, 1..5_u32)) {
        let of = tenant(&store).await;
        let (id, runs) = operation(&store, of, hosts).await;
        let (mut conn, mut page, mut seen) = (store.read().await.unwrap(), PageRequest::first(size), Vec::new());
        loop {
            let Page { items, next } = run::list(&mut conn, &Scope::of(of), id, &[], None, &page).await.unwrap();
            seen.extend(items.iter().map(|run| run.id));
            let Some(cursor) = next else { break };
            page.after = Some(cursor);
        }
        assert_eq!(seen, runs);
        assert_eq!(run::count(&mut conn, &Scope::of(of), id).await.unwrap().total(), u64::from(hosts));
    }

    async fn p34_filters_on_history_are_exact(
        store: Store,
        (drawn, statuses, from, to) in (
            histories(), prop::collection::vec(prop::sample::select(STATUSES.to_vec()), 0..3),
            prop::option::of(0..7_i64), prop::option::of(0..7_i64),
        )
    ) {
        let (of, ids) = history(&store, &drawn).await;
        let filter = operation::Filter { statuses: statuses.clone(), from: from.map(at), to: to.map(at), ..operation::Filter::default() };
        let mut conn = store.read().await.unwrap();
        let found: BTreeSet<_> = every_operation(&mut conn, &Scope::of(of), &filter, 3).await.iter().map(|found| found.id).collect();
        let expected: BTreeSet<_> = ids.iter().zip(&drawn).filter(|(_, (seconds, status))| {
            (statuses.is_empty() || statuses.contains(status))
                && from.is_none_or(|from| *seconds >= from)
                && to.is_none_or(|to| *seconds < to)
        }).map(|(id, _)| *id).collect();
        assert_eq!(found, expected);
    }
}
