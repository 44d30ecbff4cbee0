//! The use case against real repositories and both databases.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future as _;

use fleetward_domain::fleet::inventory::Found;
use fleetward_protocol::client_id::ClientId;
use fleetward_protocol::id::{BootId, HostId, JournalId};
use fleetward_protocol::time::Timestamp;
use fleetward_repo::testing::{GitServer, Origin, SshServer, Tls};
use fleetward_repo::{Credentials, HostKeys};
use fleetward_store::fleet::host::{self, Declared, Enrolment, Lifecycle, Source};
use fleetward_store::fleet::script::{self, Listed};
use fleetward_store::on_both_engines;
use fleetward_store::people::tenant::DEFAULT as TENANT;
use fleetward_store::testing::NOW;
use proptest::prelude::*;

use super::apply::{Acceptance, Refused, apply};
use super::*;
use crate::fleet::online::{CloseReason, HostCommand, Newcomer};

struct Lab {
    _directory: tempfile::TempDir,
    origin: Origin,
    clock: Clock,
    fleet: Fleet,
    store: Store,
    syncer: Syncer,
}

fn lab(store: &Store) -> Lab {
    let directory = tempfile::tempdir().unwrap();
    let (clock, fleet) = (Clock::manual(NOW), Fleet::new());
    let parts = Parts {
        store: store.clone(),
        secrets: SecretBox::load_or_create(&directory.path().join("secret.key")).unwrap(),
        mirrors: directory.path().join("repo"),
        clock: clock.clone(),
        fleet: fleet.clone(),
        dispatcher: Dispatcher::new().0,
        limits: Limits { reach: fleetward_repo::Reach::Anywhere, ..Limits::DEFAULT },
        retry: Retry { times: 2, pause: Duration::ZERO },
    };
    let origin = Origin::new(&directory.path().join("origin"));
    Lab { origin, clock, fleet, store: store.clone(), syncer: Syncer::new(parts), _directory: directory }
}

impl Lab {
    async fn set(&self, url: &str, credentials: Option<Credentials>) -> Settings {
        let change = SettingsChange { url: url.to_owned(), branch: None, interval: None, credentials };
        self.syncer.set(TENANT, change, &ada()).await.unwrap()
    }

    async fn sync(&self) -> Sync {
        self.syncer.sync(TENANT, &ada(), None).await.unwrap()
    }

    async fn hosts(&self) -> BTreeMap<String, Declared> {
        let mut conn = self.store.read().await.unwrap();
        let hosts = host::all_declared(&mut conn, TENANT).await.unwrap();
        hosts.into_iter().map(|host| (host.declared.name.to_string(), host)).collect()
    }

    async fn scripts(&self) -> Vec<script::Script> {
        let mut conn = self.store.read().await.unwrap();
        script::list(&mut conn, &Scope::of(TENANT), Listed::WithRetired).await.unwrap()
    }

    async fn history(&self) -> Vec<Sync> {
        self.syncer.history(&Scope::of(TENANT), &PageRequest::first(100)).await.unwrap().items
    }

    async fn audited(&self) -> Vec<String> {
        let mut conn = self.store.read().await.unwrap();
        let filter =
            store::people::audit::Filter { kind: Some("repository.".to_owned()), ..Default::default() };
        let page = PageRequest::first(100);
        let events = store::people::audit::list(&mut conn, &Scope::Everything, &filter, &page).await.unwrap();
        events.items.into_iter().rev().map(|event| event.event.kind).collect()
    }

    async fn add_by_api(&self, name: &str, client: &str) -> HostId {
        let inventory = inventory(&links(&[(name, client, "192.0.2.1")]), None).unwrap();
        let mut tx = self.store.write().await.unwrap();
        apply(&mut tx, TENANT, &inventory, "-", Acceptance::Wanting, NOW).await.unwrap().unwrap();
        let added = host::get(&mut tx, &Scope::of(TENANT), &name.parse().unwrap()).await.unwrap();
        host::update_source(&mut tx, added.id, Source::Git, Source::Api, NOW).await.unwrap();
        tx.commit().await.unwrap();
        added.id
    }
}

fn ada() -> Actor {
    Actor::User { name: "ada".parse().unwrap(), remote: None }
}

fn client(number: u32) -> String {
    format!("FLEET-00000000-0000-4000-8000-{number:012}")
}

fn links(hosts: &[(&str, &str, &str)]) -> String {
    if hosts.is_empty() {
        return "links: {}\n".to_owned();
    }
    let mut text = "links:\n".to_owned();
    for (name, client, address) in hosts {
        text.push_str(&format!(
            "  '{name}': {{type: VM, host: {address}, port: 22, user: ops, tags: [lab], enrollment: {{clientId: {client}}}}}\n"
        ));
    }
    text
}

fn scripts(names: &[&str]) -> String {
    if names.is_empty() {
        return "scripts: {}\n".to_owned();
    }
    let mut text = "scripts:\n".to_owned();
    for name in names {
        text.push_str(&format!(
            "  {name}: {{name: Run {name}, description: It runs, path: {name}.sh, timeout: 90s}}\n"
        ));
    }
    text
}

fn inventory(
    links: &str,
    scripts: Option<(&str, &BTreeMap<String, String>)>,
) -> Result<Inventory, Vec<Problem>> {
    let file = |text: &str| Found::File { content: text.into(), executable: true };
    inventory::parse(&|path, _| match (path.as_str(), scripts) {
        ("links.yaml", _) => file(links),
        ("scripts.yaml", Some((text, _))) => file(text),
        (name, Some((_, files))) => files.get(name).map_or(Found::Missing, |text| file(text)),
        _ => Found::Missing,
    })
}

on_both_engines! {
    async fn a_good_commit_is_put_in_force_and_a_broken_one_changes_nothing(store: Store) {
        let lab = lab(&store);
        assert!(matches!(lab.syncer.sync(TENANT, &ada(), None).await, Err(SyncError::NotConfigured)));
        assert!(lab.syncer.settings(TENANT).await.unwrap().is_none());
        let changes = lab.syncer.changes();
        lab.origin.write("up.sh", "#!/bin/bash\nuptime\n");
        let two = links(&[("web-1", &client(1), "192.0.2.1"), ("web-2", &client(2), "192.0.2.2")]);
        let first = lab.origin.commit(&[("links.yaml", &two), ("scripts.yaml", &scripts(&["up"]))]);
        lab.set(&lab.origin.url(), None).await;
        let sync = lab.sync().await;
        assert_eq!((sync.status, sync.failure.as_deref(), sync.commit.as_deref()), (SyncStatus::Succeeded, None, Some(first.as_str())));
        assert_eq!((sync.counts.hosts, sync.counts.scripts), (2, 1));
        assert_eq!((sync.counts.changes.hosts_added, sync.counts.changes.scripts_added), (2, 1));
        assert!(sync.problems.iter().all(|problem| problem.severity == Severity::Warning), "{:?}", sync.problems);
        assert!(changes.has_changed().unwrap());
        let up = lab.scripts().await.remove(0);
        assert_eq!((up.path.as_deref(), up.timeout), (Some("up.sh"), Some(Duration::from_secs(90))));
        {
            let mut conn = store.read().await.unwrap();
            assert_eq!(script::get_content(&mut conn, &up.digest).await.unwrap(), b"#!/bin/bash\nuptime\n");
        }

        let broken = two.replace("port: 22, user: ops", "port: x, user: ops").replacen("port: x", "port: 22", 1);
        let bad = lab.origin.commit(&[("links.yaml", &broken), ("scripts.yaml", "scripts:\n  up: {path: [}\n")]);
        let sync = lab.sync().await;
        assert_eq!((sync.status, sync.commit.as_deref()), (SyncStatus::Failed, Some(bad.as_str())));
        let told: Vec<String> = sync.problems.iter().map(ToString::to_string).collect();
        assert!(told[0].starts_with("links.yaml:3:") && told[0].contains("links.web-2.port"), "{told:?}");
        assert!(told[1].starts_with("scripts.yaml:2:"), "{told:?}");
        assert_eq!(lab.hosts().await.len(), 2);
        let settings = lab.syncer.settings(TENANT).await.unwrap().unwrap();
        assert_eq!(settings.good.as_ref().map(|good| good.commit.as_str()), Some(first.as_str()));
        assert_eq!(settings.last.unwrap(), sync);
        assert_eq!(lab.history().await.len(), 2);
        assert_eq!(lab.audited().await, ["repository.set", "repository.synced", "repository.sync_failed"]);
    }

    async fn a_host_that_leaves_is_retired_and_taken_back(store: Store) {
        let lab = lab(&store);
        lab.set(&lab.origin.url(), None).await;
        let (one, two) = (("web-1", client(1)), ("web-2", client(2)));
        let both = links(&[(one.0, &one.1, "192.0.2.1"), (two.0, &two.1, "192.0.2.2")]);
        lab.origin.commit(&[("links.yaml", &both)]);
        lab.sync().await;
        let id = lab.hosts().await["web-2"].id;
        let newcomer = Newcomer {
            host: id,
            tenant: TENANT,
            journal: JournalId::from_uuid(Uuid::now_v7()),
            boot: BootId::from_uuid(Uuid::nil()),
            remote: "192.0.2.2:1".parse().unwrap(),
            clock_skew_ms: 0,
        };
        let mut seat = lab.fleet.join(newcomer, NOW);
        lab.origin.commit(&[("links.yaml", &links(&[(one.0, &one.1, "192.0.2.1")]))]);
        let sync = lab.sync().await;
        assert_eq!(sync.counts.changes.hosts_retired, 1);
        let hosts = lab.hosts().await;
        assert_eq!((hosts["web-2"].lifecycle, hosts["web-1"].lifecycle), (Lifecycle::Retired, Lifecycle::Active));
        assert!(matches!(seat.commands.try_recv(), Ok(HostCommand::Close(CloseReason::Revoked))));
        lab.origin.commit(&[("links.yaml", &both)]);
        let sync = lab.sync().await;
        assert_eq!(sync.counts.changes.hosts_added, 1);
        let back = lab.hosts().await["web-2"].clone();
        assert_eq!((back.id, back.lifecycle), (id, Lifecycle::Active));
        // A commit without the file says nothing; it must not retire the fleet.
        lab.origin.git(&["rm", "-q", "links.yaml"]);
        lab.origin.commit(&[("scripts.yaml", "scripts: {}\n")]);
        let sync = lab.sync().await;
        assert!(sync.problems[0].to_string().starts_with("links.yaml: is missing"), "{:?}", sync.problems);
        assert_eq!(lab.hosts().await["web-1"].lifecycle, Lifecycle::Active);
    }

    async fn identity_is_the_client_id(store: Store) {
        let lab = lab(&store);
        lab.set(&lab.origin.url(), None).await;
        lab.origin.commit(&[("links.yaml", &links(&[("web-1", &client(1), "192.0.2.1")]))]);
        lab.sync().await;
        let before = lab.hosts().await["web-1"].clone();
        {
            let mut tx = store.write().await.unwrap();
            host::update_enrolment(&mut tx, before.id, Enrolment::Pending, Enrolment::Enrolled, NOW).await.unwrap();
            tx.commit().await.unwrap();
        }
        lab.origin.commit(&[("links.yaml", &links(&[("www", &client(1), "192.0.2.1")]))]);
        assert_eq!(lab.sync().await.counts.changes.hosts_changed, 1);
        let renamed = lab.hosts().await["www"].clone();
        assert_eq!((renamed.id, renamed.enrolment), (before.id, Enrolment::Enrolled));
        // A new identity under the old name has to prove itself anew.
        lab.origin.commit(&[("links.yaml", &links(&[("www", &client(9), "192.0.2.1")]))]);
        lab.sync().await;
        let rebuilt = lab.hosts().await["www"].clone();
        assert_eq!((rebuilt.id, rebuilt.enrolment), (before.id, Enrolment::Pending));
        assert_eq!(rebuilt.declared.client_id, client(9).parse::<ClientId>().unwrap());
        // Two hosts exchange their names, and a new one takes one that is left.
        lab.origin.commit(&[("links.yaml", &links(&[("www", &client(9), "192.0.2.1"), ("db", &client(2), "192.0.2.2")]))]);
        lab.sync().await;
        lab.origin.commit(&[("links.yaml", &links(&[("db", &client(9), "192.0.2.1"), ("www", &client(2), "192.0.2.2")]))]);
        let was = lab.hosts().await;
        let sync = lab.sync().await;
        assert_eq!((sync.status, sync.counts.changes.hosts_changed), (SyncStatus::Succeeded, 2), "{:?}", sync.problems);
        let is = lab.hosts().await;
        assert_eq!((is["db"].id, is["www"].id), (was["www"].id, was["db"].id));
        lab.origin.commit(&[("links.yaml", &links(&[("db2", &client(9), "192.0.2.1"), ("db", &client(3), "192.0.2.3")]))]);
        let sync = lab.sync().await;
        assert_eq!(sync.status, SyncStatus::Succeeded, "{:?}", sync.problems);
        let now = lab.hosts().await;
        assert_eq!((now["db2"].id, now["www"].id), (is["db"].id, is["www"].id));
        // A host that left the inventory keeps its name for its history only.
        assert_eq!(now["www"].lifecycle, Lifecycle::Retired);
        lab.origin.commit(&[("links.yaml", &links(&[("www", &client(9), "192.0.2.1"), ("db", &client(3), "192.0.2.3")]))]);
        let sync = lab.sync().await;
        assert_eq!(sync.status, SyncStatus::Succeeded, "{:?}", sync.problems);
    }

    async fn a_name_is_free_when_its_host_is_retired(store: Store) {
        let lab = lab(&store);
        lab.set(&lab.origin.url(), None).await;
        let put = async |hosts: &[(&str, u32)]| {
            let clients: Vec<String> = hosts.iter().map(|(_, number)| client(*number)).collect();
            let entries: Vec<_> = hosts.iter().zip(&clients).map(|((name, _), id)| (*name, id.as_str(), "192.0.2.1")).collect();
            lab.origin.commit(&[("links.yaml", &links(&entries))]);
            let sync = lab.sync().await;
            assert_eq!(sync.status, SyncStatus::Succeeded, "{hosts:?} {:?} {:?}", sync.failure, sync.problems);
            let mut conn = store.read().await.unwrap();
            let rows = host::all_declared(&mut conn, TENANT).await.unwrap();
            rows.into_iter().map(|row| (row.declared.client_id.to_string(), row)).collect::<BTreeMap<_, _>>()
        };
        let first = put(&[("web-1", 1), ("db", 2)]).await[&client(1)].clone();
        // Gone, and another machine gets its name: a new host, and the old one keeps its own.
        put(&[("db", 2)]).await;
        let both = put(&[("web-1", 3), ("db", 2)]).await;
        let (old, new) = (&both[&client(1)], &both[&client(3)]);
        assert_eq!((old.id, old.lifecycle, old.declared.name.as_str()), (first.id, Lifecycle::Retired, "web-1"));
        assert_eq!((new.lifecycle, new.declared.name.as_str()), (Lifecycle::Active, "web-1"));
        assert_ne!(old.id, new.id);
        {
            let mut conn = store.read().await.unwrap();
            let name = "web-1".parse().unwrap();
            assert_eq!(host::get(&mut conn, &Scope::of(TENANT), &name).await.unwrap().id, new.id, "the living comes first");
            let by_id = old.id.to_string().parse().unwrap();
            assert_eq!(host::get(&mut conn, &Scope::of(TENANT), &by_id).await.unwrap().id, old.id);
        }
        // Renamed onto the name of one that leaves in the same commit, and onto one that left before.
        let moved = put(&[("web-1", 2)]).await;
        assert_eq!((moved[&client(2)].lifecycle, moved[&client(3)].lifecycle), (Lifecycle::Active, Lifecycle::Retired));
        // The first comes back with its client ID: it is the same host, under whatever name.
        let back = put(&[("web-1", 1), ("db", 2)]).await;
        assert_eq!((back[&client(1)].id, back[&client(1)].lifecycle), (first.id, Lifecycle::Active));
        // A name that only retired hosts have is deleted with them, one by one.
        put(&[("db", 2)]).await;
        let mut tx = store.write().await.unwrap();
        let scope = Scope::of(TENANT);
        let gone = host::list_retired(&mut tx, &scope, &"web-1".parse().unwrap()).await.unwrap();
        assert_eq!(gone.iter().map(|host| host.id).collect::<BTreeSet<_>>(), BTreeSet::from([first.id, new.id]));
        let living = host::get(&mut tx, &scope, &"db".parse().unwrap()).await.unwrap();
        assert!(!host::delete(&mut tx, &scope, living.id, NOW).await.unwrap(), "only what is retired");
        for host in gone {
            assert!(host::delete(&mut tx, &scope, host.id, NOW).await.unwrap());
        }
        assert!(host::find(&mut tx, &scope, &"web-1".parse().unwrap()).await.unwrap().is_none());
        tx.commit().await.unwrap();
        // Deleted is not retired: the same client ID is a new host.
        assert_ne!(put(&[("web-1", 1), ("db", 2)]).await[&client(1)].id, first.id);
    }

    async fn a_commit_that_takes_much_away_waits_until_it_is_accepted(store: Store) {
        let lab = lab(&store);
        lab.set(&lab.origin.url(), None).await;
        let names: Vec<String> = (0..10).map(|n| format!("h{n}")).collect();
        let clients: Vec<String> = (0..10).map(client).collect();
        let hosts: Vec<_> = names.iter().zip(&clients).map(|(name, id)| (name.as_str(), id.as_str(), "192.0.2.1")).collect();
        for name in ["a", "b", "c"] {
            lab.origin.write(&format!("{name}.sh"), "#!/bin/bash\n");
        }
        lab.origin.commit(&[("links.yaml", &links(&hosts)), ("scripts.yaml", &scripts(&["a", "b", "c"]))]);
        assert_eq!(lab.sync().await.status, SyncStatus::Succeeded, "the first import takes nothing away");
        let first = lab.origin.commit(&[("links.yaml", &links(&hosts[3..]))]);
        let sync = lab.sync().await;
        assert_eq!((sync.status, sync.commit.as_deref(), sync.failure.as_deref()), (SyncStatus::Waiting, Some(first.as_str()), None));
        let leaving = sync.departures.clone().unwrap();
        assert_eq!((leaving.hosts.names.as_slice(), leaving.hosts.count, leaving.hosts.of), (&names[..3], 3, 10));
        assert_eq!((leaving.scripts.count, leaving.scripts.of), (0, 3));
        // It is written down, and told once.
        assert_eq!(lab.syncer.sync(TENANT, &Actor::System, None).await.unwrap().status, SyncStatus::Waiting);
        let settings = lab.syncer.settings(TENANT).await.unwrap().unwrap();
        assert_eq!(settings.last.unwrap().departures, Some(leaving));
        assert_ne!(settings.good.unwrap().commit, first);
        assert_eq!(lab.audited().await, ["repository.set", "repository.synced", "repository.sync_waits"]);
        assert!(lab.hosts().await.values().all(|host| host.lifecycle == Lifecycle::Active));
        // The acceptance of one commit is not that of another.
        let second = lab.origin.commit(&[("links.yaml", "links: {}\n"), ("scripts.yaml", "scripts: {}\n")]);
        let sync = lab.syncer.sync(TENANT, &ada(), Some(first)).await.unwrap();
        let leaving = sync.departures.unwrap();
        assert_eq!((sync.status, leaving.hosts.count, leaving.scripts.count), (SyncStatus::Waiting, 10, 3));
        let sync = lab.syncer.sync(TENANT, &ada(), Some(second)).await.unwrap();
        assert_eq!((sync.status, sync.counts.changes.hosts_retired, sync.counts.changes.scripts_retired), (SyncStatus::Succeeded, 10, 3));
        // An identity that is replaced is a host that is cut off.
        lab.origin.commit(&[("links.yaml", &links(&hosts))]);
        lab.sync().await;
        let mut tx = store.write().await.unwrap();
        for host in host::all_declared(&mut tx, TENANT).await.unwrap() {
            host::update_enrolment(&mut tx, host.id, Enrolment::Pending, Enrolment::Enrolled, NOW).await.unwrap();
        }
        tx.commit().await.unwrap();
        let others: Vec<String> = (100..110).map(client).collect();
        let replaced: Vec<_> = names.iter().zip(&others).map(|(name, id)| (name.as_str(), id.as_str(), "192.0.2.1")).collect();
        lab.origin.commit(&[("links.yaml", &links(&replaced))]);
        let sync = lab.sync().await;
        assert_eq!((sync.status, sync.departures.unwrap().hosts.count), (SyncStatus::Waiting, 10));
    }

    async fn what_is_in_force_is_told_from_what_is_set_and_what_was_tried(store: Store) {
        let lab = lab(&store);
        let first = lab.origin.commit(&[("links.yaml", &links(&[("web-1", &client(1), "192.0.2.1")]))]);
        lab.set(&lab.origin.url(), None).await;
        lab.sync().await;
        lab.clock.advance(Duration::from_secs(60));
        lab.sync().await;
        // Another repository, which fails: what is in force came from the first, and is still there.
        let gone = format!("{}-gone", lab.origin.url());
        let settings = lab.set(&gone, None).await;
        let good = settings.good.clone().unwrap();
        assert_eq!((good.url.as_str(), good.branch.as_str(), good.commit.as_str(), good.at), (lab.origin.url().as_str(), "main", first.as_str(), NOW));
        assert_eq!((settings.url.as_str(), settings.last), (gone.as_str(), None), "nothing was tried there yet");
        assert_eq!(lab.sync().await.status, SyncStatus::Failed);
        let failed = lab.syncer.settings(TENANT).await.unwrap().unwrap();
        assert_eq!((failed.good, failed.last.unwrap().url), (settings.good, gone));
        // And back: the failure of the other one is not shown here.
        let back = lab.set(&lab.origin.url(), None).await;
        assert_eq!((back.good.unwrap().commit, back.last), (first, None));
        let sync = lab.sync().await;
        assert_eq!((sync.status, sync.counts.hosts, sync.counts.changes), (SyncStatus::Succeeded, 1, store::fleet::sync::Changes::default()));
    }

    async fn a_host_of_the_api_is_taken_over_by_client_id_only(store: Store) {
        let lab = lab(&store);
        lab.set(&lab.origin.url(), None).await;
        let id = lab.add_by_api("web-1", &client(1)).await;
        lab.origin.commit(&[("links.yaml", &links(&[("web-1", &client(2), "192.0.2.1")]))]);
        let sync = lab.sync().await;
        assert_eq!(sync.status, SyncStatus::Failed);
        assert!(sync.problems[0].to_string().starts_with("links.yaml:2:1: links.web-1: the name belongs to a host that was added through the API"), "{:?}", sync.problems);
        lab.origin.commit(&[("links.yaml", "links: {}\n")]);
        assert_eq!(lab.sync().await.status, SyncStatus::Succeeded);
        assert_eq!(lab.hosts().await["web-1"].lifecycle, Lifecycle::Active, "git retires only its own");
        lab.origin.commit(&[("links.yaml", &links(&[("www", &client(1), "192.0.2.1")]))]);
        assert_eq!(lab.sync().await.status, SyncStatus::Succeeded);
        let taken = lab.hosts().await["www"].clone();
        assert_eq!((taken.id, taken.source), (id, Source::Git));
    }

    async fn scripts_keep_what_ran_and_follow_what_is_written(store: Store) {
        let lab = lab(&store);
        lab.set(&lab.origin.url(), None).await;
        lab.origin.write("a.sh", "#!/bin/bash\necho 1\n");
        lab.origin.write("b.sh", "#!/bin/bash\n");
        let first = lab.origin.commit(&[("scripts.yaml", &scripts(&["a", "b"]))]);
        lab.sync().await;
        let old = lab.scripts().await[0].digest;
        let second = lab.origin.commit(&[("a.sh", "#!/bin/bash\necho 2\n"), ("scripts.yaml", &scripts(&["a"]))]);
        let changes = lab.sync().await.counts.changes;
        assert_eq!((changes.scripts_changed, changes.scripts_retired, changes.scripts_added), (1, 1, 0));
        let now = lab.scripts().await;
        assert_eq!((now[0].commit.as_str(), now[1].commit.as_str()), (second.as_str(), first.as_str()));
        assert!(now[0].retired_at.is_none() && now[1].retired_at.is_some());
        let mut conn = store.read().await.unwrap();
        assert_eq!(script::get_content(&mut conn, &old).await.unwrap(), b"#!/bin/bash\necho 1\n");
        drop(conn);
        lab.origin.commit(&[("scripts.yaml", &scripts(&["a", "b"]))]);
        assert_eq!(lab.sync().await.counts.changes.scripts_added, 1);
        lab.origin.commit(&[]);
        assert_eq!(lab.sync().await.counts.changes, store::fleet::sync::Changes::default());
    }

    async fn requests_that_meet_share_one_attempt(store: Store) {
        let lab = lab(&store);
        lab.set(&lab.origin.url(), None).await;
        lab.origin.commit(&[("links.yaml", "links: {}\n")]);
        let mut requests = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let syncer = lab.syncer.clone();
            requests.spawn(async move { syncer.sync(TENANT, &ada(), None).await.unwrap().id });
        }
        let ids: BTreeSet<_> = requests.join_all().await.into_iter().collect();
        assert_eq!(lab.history().await.len(), ids.len());
        assert!(ids.len() <= 2, "{ids:?}");
    }

    async fn an_attempt_outlives_who_asked_for_it(store: Store) {
        let lab = lab(&store);
        lab.set(&lab.origin.url(), None).await;
        lab.origin.commit(&[("links.yaml", &links(&[("web-1", &client(1), "192.0.2.1")]))]);
        let mut changes = lab.syncer.changes();
        let ada = ada();
        let mut request = Box::pin(lab.syncer.sync(TENANT, &ada, None));
        assert!(request.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_pending());
        drop(request);
        changes.changed().await.unwrap();
        let last = lab.history().await.remove(0);
        assert_eq!((last.status, last.ended_at), (SyncStatus::Succeeded, Some(NOW)));
    }

    async fn what_is_due_is_read_from_the_history(store: Store) {
        let lab = lab(&store);
        assert_eq!(lab.syncer.sync_due().await.unwrap(), None);
        lab.origin.commit(&[("links.yaml", "links: {}\n")]);
        lab.set(&lab.origin.url(), None).await;
        let quarter = Duration::from_secs(900);
        assert_eq!(lab.syncer.sync_due().await.unwrap(), Some(quarter));
        lab.clock.advance(Duration::from_secs(300));
        assert_eq!(lab.syncer.sync_due().await.unwrap(), Some(Duration::from_secs(600)));
        assert_eq!(lab.history().await.len(), 1);
        lab.clock.advance(Duration::from_secs(601));
        std::fs::remove_dir_all(lab.origin.path()).unwrap();
        lab.syncer.sync_due().await.unwrap();
        lab.clock.advance(quarter);
        lab.syncer.sync_due().await.unwrap();
        let history = lab.history().await;
        assert_eq!(history.len(), 3);
        assert!(history[0].failure.as_deref().unwrap().contains("there is no repository at"), "{history:?}");
        // A repository that stays away is audited once, not every quarter of an hour.
        assert_eq!(lab.audited().await, ["repository.set", "repository.synced", "repository.sync_failed"]);
        let change = SettingsChange { url: lab.origin.url(), branch: None, interval: Some(Duration::ZERO), credentials: None };
        lab.syncer.set(TENANT, change, &ada()).await.unwrap();
        assert_eq!(lab.syncer.sync_due().await.unwrap(), None);
        assert!(lab.syncer.remove(TENANT, &ada()).await.unwrap());
        assert!(!lab.syncer.remove(TENANT, &ada()).await.unwrap());
    }

    async fn a_clock_that_was_ahead_for_a_while_holds_nothing_up(store: Store) {
        let lab = lab(&store);
        let first = lab.origin.commit(&[("links.yaml", "links: {}\n")]);
        lab.set(&lab.origin.url(), None).await;
        let year = Duration::from_secs(365 * 86_400);
        lab.clock.advance(year);
        assert_eq!(lab.sync().await.commit.as_deref(), Some(first.as_str()));
        lab.clock.set(NOW);
        let second = lab.origin.commit(&[("links.yaml", "links: {} # again\n")]);
        let quarter = Duration::from_secs(900);
        assert_eq!(lab.syncer.sync_due().await.unwrap(), Some(quarter));
        let last = lab.syncer.settings(TENANT).await.unwrap().unwrap().last.unwrap();
        assert_eq!((last.commit.as_deref(), last.started_at), (Some(second.as_str()), NOW));
        let commits: Vec<_> = lab.history().await.into_iter().map(|sync| sync.commit.unwrap()).collect();
        assert_eq!(commits, [second, first]);
        // From then on the interval counts again.
        lab.clock.advance(Duration::from_secs(300));
        assert_eq!(lab.syncer.sync_due().await.unwrap(), Some(Duration::from_secs(600)));
    }

    async fn credentials_are_sealed_and_stay_with_their_server(store: Store) {
        let lab = lab(&store);
        let commit = lab.origin.commit(&[("links.yaml", "links: {}\n")]);
        let server = GitServer::start(lab.origin.path(), Some("ops:hunter2"), Tls::Off);
        let password = Credentials::Password { username: "ops".to_owned(), password: "hunter2".to_owned() };
        assert_eq!(lab.set(&server.url(), Some(password)).await.credentials, CredentialKind::Password);
        assert_eq!(lab.sync().await.commit, Some(commit));
        {
            let mut conn = store.read().await.unwrap();
            let row = store::fleet::repository::find(&mut conn, &Scope::of(TENANT), TENANT).await.unwrap().unwrap();
            let sealed = row.credentials.unwrap();
            assert!(!sealed.windows(7).any(|window| window == b"hunter2"));
        }
        // The same server, another repository: kept. Another server: dropped, and it says so.
        assert_eq!(lab.set(&server.url_of("other"), None).await.credentials, CredentialKind::Password);
        let other = GitServer::start(lab.origin.path(), Some("ops:hunter2"), Tls::Off);
        assert_eq!(lab.set(&other.url(), None).await.credentials, CredentialKind::None);
        let failure = lab.sync().await.failure.unwrap();
        assert!(failure.contains("asks for credentials, but none are configured"), "{failure}");
        let wrong = Credentials::Password { username: "ops".to_owned(), password: "wrong".to_owned() };
        lab.set(&other.url(), Some(wrong)).await;
        let failure = lab.sync().await.failure.unwrap();
        assert!(failure.contains("refuses the configured credentials"), "{failure}");
        let change = |url: &str, interval| SettingsChange { url: url.to_owned(), branch: None, interval, credentials: None };
        for (url, interval) in [("https://ops:hunter2@git.example.com/x", None), ("/srv/x", Some(Duration::from_secs(5)))] {
            let error = lab.syncer.set(TENANT, change(url, interval), &ada()).await.unwrap_err();
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }
}

#[tokio::test]
async fn the_first_ssh_host_key_is_recorded_and_then_required() {
    let Some(server) = SshServer::start() else { return };
    let test = fleetward_store::testing::sqlite().await;
    let lab = lab(&test.store);
    lab.origin.commit(&[("links.yaml", "links: {}\n")]);
    let key = |host_keys| Credentials::SshKey {
        private_key: server.client_key("ed25519"),
        passphrase: None,
        host_keys,
    };
    let url = server.url(lab.origin.path());
    assert_eq!(lab.set(&url, Some(key(None))).await.host_keys, None);
    assert_eq!(lab.sync().await.failure, None);
    let recorded = lab.syncer.settings(TENANT).await.unwrap().unwrap().host_keys.unwrap();
    let scanned: HostKeys = server.host_key_line().parse().unwrap();
    assert_eq!(recorded, scanned);
    assert_eq!(lab.audited().await, ["repository.set", "repository.synced", "repository.host_key_recorded"]);
    assert_eq!(lab.sync().await.failure, None);
    lab.set(&url, Some(key(Some(HostKeys::of_key(b"another"))))).await;
    let failure = lab.sync().await.failure.unwrap();
    assert!(failure.contains("is expected") && failure.contains("SHA256:"), "{failure}");
}

#[tokio::test]
async fn a_fetch_that_fails_on_the_network_is_tried_again() {
    let test = fleetward_store::testing::sqlite().await;
    let lab = lab(&test.store);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    lab.set(&format!("http://{}/x.git", listener.local_addr().unwrap()), None).await;
    let counting = tokio::spawn(async move {
        for _ in 0..3 {
            drop(listener.accept().await.unwrap());
        }
    });
    let failure = lab.sync().await.failure.unwrap();
    assert!(failure.contains("cannot be reached"), "{failure}");
    // It ends only after the third connection.
    counting.await.unwrap();
}

#[tokio::test]
async fn a_lost_key_file_is_told_in_words() {
    let test = fleetward_store::testing::sqlite().await;
    let lab = lab(&test.store);
    let password = Credentials::Password { username: "ops".to_owned(), password: "hunter2".to_owned() };
    lab.set("https://git.example.com/x.git", Some(password)).await;
    let other = self::lab(&test.store);
    let failure = other.sync().await.failure.unwrap();
    assert!(failure.contains("secret.key"), "{failure}");
}

#[test]
fn a_rewritten_history_is_taken_with_a_note() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let test = fleetward_store::testing::sqlite().await;
        let lab = lab(&test.store);
        lab.set(&lab.origin.url(), None).await;
        let base = lab.origin.commit(&[("links.yaml", "links: {}\n")]);
        let lost = lab.origin.commit(&[("links.yaml", &links(&[("web-1", &client(1), "192.0.2.1")]))]);
        lab.sync().await;
        lab.origin.git(&["reset", "--hard", &base]);
        lab.origin.commit(&[("links.yaml", "links: {} # none\n")]);
        let sync = lab.sync().await;
        assert_eq!((sync.status, sync.counts.changes.hosts_retired), (SyncStatus::Succeeded, 1));
        let told = sync.problems[0].to_string();
        assert!(
            told.starts_with("refs/heads/main: the history was rewritten") && told.contains(&lost),
            "{told}"
        );
    });
}

/// Whatever fails of a synchronisation, the log says when, of which repository, and why: what cannot be fetched with
/// its reason, what is wrong in the files with file and line.
#[test]
fn p35_failed_synchronisations_are_logged_with_url_and_reason() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let log = crate::testing::Log::default();
    let _guard = tracing::subscriber::set_default(log.subscriber());
    let test = runtime.block_on(fleetward_store::testing::sqlite());
    let lab = lab(&test.store);
    let broken = prop::sample::select(vec!["  x: [1, 2\n", "  x: {type: VM}\n", "  x: \"open\n", "\tx: 1\n"]);
    let fault = prop_oneof![
        "[a-z]{1,12}".prop_map(Err),
        (0..20_usize, broken)
            .prop_map(|(good, bad)| Ok(format!("# first\n{}{bad}", "\n".repeat(good) + "links:\n"))),
    ];
    proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(100))
        .run(&fault, |fault| {
            let url = match &fault {
                Err(name) => format!("file:///nonexistent/{name}.git"),
                Ok(text) => {
                    lab.origin.commit(&[("links.yaml", text)]);
                    lab.origin.url()
                }
            };
            let sync = runtime.block_on(async {
                lab.set(&url, None).await;
                lab.sync().await
            });
            prop_assert_eq!(sync.status, SyncStatus::Failed);
            let logged = log.take("sync.failed");
            prop_assert_eq!(logged.len(), 1);
            let fields = &logged[0]["fields"];
            prop_assert_eq!(fields["url"].as_str(), Some(url.as_str()));
            match fault {
                Err(_) => {
                    prop_assert!(sync.failure.is_some());
                    prop_assert_eq!(fields["failure"].as_str(), sync.failure.as_deref());
                }
                Ok(_) => {
                    let told = fields["first_problem"].as_str().unwrap_or_default();
                    prop_assert!(told.starts_with("links.yaml:"), "{}", logged[0]);
                    prop_assert_eq!(told, sync.problems[0].to_string());
                }
            }
            Ok(())
        })
        .unwrap();
}

/// What one commit says: client number to (name, address), and script name to text.
type Wanted = (BTreeMap<u32, (String, u8)>, BTreeMap<String, u8>);

fn any_inventory() -> impl Strategy<Value = Wanted> {
    let hosts = proptest::collection::btree_map(0u32..6, any::<u8>(), 0..6);
    let named = hosts.prop_map(|hosts| {
        hosts.into_iter().map(|(number, octet)| (number, (format!("h{number}"), octet))).collect()
    });
    (named, proptest::collection::btree_map("[a-c]", any::<u8>(), 0..3))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Whatever was in force before, after a synchronisation the active rows are what the files say.
    #[test]
    fn p4_the_database_says_what_the_last_good_commit_says(commits in proptest::collection::vec(any_inventory(), 1..5)) {
        RUNTIME.with(|(runtime, test)| runtime.block_on(follow(&test.store, &commits)))?;
    }
}

thread_local! {
    /// One database for all cases: each has a tenant and client IDs of its own.
    static RUNTIME: (tokio::runtime::Runtime, fleetward_store::testing::TestStore) = {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let test = runtime.block_on(fleetward_store::testing::sqlite());
        (runtime, test)
    };
}

/// The client IDs of active hosts, and the names of active scripts.
async fn living(conn: &mut store::Connection, tenant: TenantId) -> (BTreeSet<String>, BTreeSet<String>) {
    let hosts = host::all_declared(conn, tenant).await.unwrap();
    let hosts = hosts.into_iter().filter(|host| host.lifecycle == Lifecycle::Active);
    let scripts = script::list(conn, &Scope::of(tenant), Listed::Active).await.unwrap();
    let scripts = scripts.into_iter().map(|script| script.name.to_string()).collect();
    (hosts.map(|host| host.declared.client_id.to_string()).collect(), scripts)
}

async fn follow(store: &Store, commits: &[Wanted]) -> Result<(), TestCaseError> {
    let tenant = TenantId::from_uuid(Uuid::now_v7());
    let mut tx = store.write().await.unwrap();
    let name = format!("t{}", tenant.as_uuid().simple()).parse().unwrap();
    let row = store::people::tenant::Tenant { id: tenant, name, title: String::new(), created_at: NOW };
    store::people::tenant::insert(&mut tx, &row).await.unwrap();
    tx.commit().await.unwrap();
    let clients: Vec<String> = (0..6).map(|_| ClientId::issued(Uuid::now_v7()).to_string()).collect();
    let content = |n: u8| format!("#!/bin/bash\necho {n}\n");
    let mut ids: BTreeMap<String, HostId> = BTreeMap::new();
    for (at, (hosts, texts)) in commits.iter().enumerate() {
        let addresses: Vec<String> = hosts.values().map(|(_, octet)| format!("192.0.2.{octet}")).collect();
        let entries: Vec<(&str, &str, &str)> = hosts
            .iter()
            .zip(&addresses)
            .map(|((number, (name, _)), address)| (&**name, &*clients[*number as usize], &**address))
            .collect();
        let names: Vec<&str> = texts.keys().map(String::as_str).collect();
        let files = texts.iter().map(|(name, n)| (format!("{name}.sh"), content(*n))).collect();
        let inventory = inventory(&links(&entries), Some((&scripts(&names), &files))).unwrap();
        let mut tx = store.write().await.unwrap();
        let now = Timestamp::from_millis(NOW.as_millis() + i64::try_from(at).unwrap());
        // Whatever the files say, no more than the share leaves before somebody accepts it.
        let before = living(&mut tx, tenant).await;
        let commit = format!("c{at}");
        let mut applied =
            apply(&mut tx, tenant, &inventory, &commit, Acceptance::Wanting, now).await.unwrap();
        let after = living(&mut tx, tenant).await;
        for (before, after) in [(&before.0, &after.0), (&before.1, &after.1)] {
            let left = before.difference(after).count();
            prop_assert!(left < 3 || left * 5 <= before.len(), "{} of {} left", left, before.len());
        }
        if let Err(Refused::Waits(_)) = &applied {
            prop_assert_eq!(&before, &after, "what waits changes nothing");
            applied = apply(&mut tx, tenant, &inventory, &commit, Acceptance::Given, now).await.unwrap();
        }
        let applied = applied.unwrap();
        let rows = host::all_declared(&mut tx, tenant).await.unwrap();
        let written = script::list(&mut tx, &Scope::of(tenant), Listed::WithRetired).await.unwrap();
        tx.commit().await.unwrap();

        prop_assert_eq!(applied.counts.hosts as usize, hosts.len());
        let active: BTreeMap<&str, &Declared> = rows
            .iter()
            .filter(|row| row.lifecycle == Lifecycle::Active)
            .map(|row| (row.declared.name.as_str(), row))
            .collect();
        prop_assert_eq!(
            active.keys().copied().collect::<BTreeSet<_>>(),
            hosts.values().map(|(name, _)| name.as_str()).collect::<BTreeSet<_>>()
        );
        for (number, (name, octet)) in hosts {
            let row = active[name.as_str()];
            prop_assert_eq!(row.declared.client_id.as_str(), clients[*number as usize].as_str());
            prop_assert_eq!(row.declared.address.clone(), Some(format!("192.0.2.{octet}")));
            prop_assert_eq!(*ids.entry(name.clone()).or_insert(row.id), row.id, "a host keeps its id");
        }
        prop_assert_eq!(rows.len(), ids.len(), "nothing is deleted");
        let kept: BTreeMap<&str, _> = written
            .iter()
            .filter(|row| row.retired_at.is_none())
            .map(|row| (row.name.as_str(), row.digest))
            .collect();
        let wanted: BTreeMap<&str, _> = texts
            .iter()
            .map(|(name, n)| (name.as_str(), fleetward_protocol::digest::Digest::of(content(*n).as_bytes())))
            .collect();
        prop_assert_eq!(kept, wanted);
    }
    Ok(())
}
