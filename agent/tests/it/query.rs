//! Queries: what passes the gate, what is told and how often, and what ends with whom. With a real message bus and a systemd
//! of our own on it.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fleetward_agent::config::Allowed;
use fleetward_agent::query::{Answer, MAX_AT_ONCE, Queries};
use fleetward_protocol::action::ActionRequest;
use fleetward_protocol::message::{OpenQuery, QueryUp, StreamKind};
use fleetward_protocol::order::{Authority, Limits};
use fleetward_protocol::query::read_item;
use fleetward_protocol::query::units::UnitItem;
use fleetward_protocol::run::Refusal;
use fleetward_protocol::wire::{MAX_QUERY_FRAME, MAX_RUN_FRAME, close};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::sync::{mpsc, watch};

use crate::controller::{read, write};
use crate::host::{Machine, Request, asking, boot, exited, lives, script, skipped};
use crate::link::{YEAR, enrolled, start};
use crate::systemd::{Bus, Event, World, bus, play};

/// What a controller sends to ask for units.
fn open(params: &str, follow: bool) -> OpenQuery {
    of(Authority::Query, "units", params, follow, Duration::from_secs(60))
}

pub(crate) fn of(
    authority: fn(ActionRequest) -> Authority,
    kind: &str,
    params: &str,
    follow: bool,
    remaining: Duration,
) -> OpenQuery {
    let typed = Some(ActionRequest { kind: kind.to_owned(), params: params.to_owned() });
    let request = Request { typed, remaining: Duration::from_secs(60), ..script("") };
    let order = asking(&crate::host::client(), authority, &request).dispatch.unwrap().order;
    OpenQuery { order, remaining_ms: u64::try_from(remaining.as_millis()).unwrap(), follow }
}

/// A machine whose bus has our systemd, with some units.
struct Site {
    machine: Machine,
    _bus: Bus,
    happens: mpsc::UnboundedSender<Event>,
}

fn site(test: &str) -> Option<Site> {
    let mut machine = Machine::new();
    let happens = equip(&mut machine);
    let Some((bus, happens)) = happens else {
        skipped(test, "dbus-daemon is not installed");
        return None;
    };
    Some(Site { machine, _bus: bus, happens })
}

fn equip(machine: &mut Machine) -> Option<(Bus, mpsc::UnboundedSender<Event>)> {
    let bus = bus(machine.directory.path())?;
    machine.bus = Some(bus.address.clone());
    let mut world = World::default();
    for (name, load, active, pid) in [
        ("web.service", "loaded", "active", 40),
        ("off.service", "loaded", "inactive", 0),
        ("broken.service", "loaded", "failed", 0),
        ("masked.service", "masked", "inactive", 0),
        ("spoken-of.service", "not-found", "inactive", 0),
        ("backup.timer", "loaded", "active", 0),
    ] {
        world.units.insert(name.into(), (load, active.into(), pid));
    }
    let happens = play(bus.address.clone(), Arc::new(watch::channel(world).0));
    Some((bus, happens))
}

pub(crate) async fn next(answer: &mut Answer) -> Option<QueryUp> {
    tokio::time::timeout(Duration::from_secs(60), answer.next()).await.expect("it goes on within a minute")
}

/// What is known after this many messages more that are no item are told.
async fn until(answer: &mut Answer, known: &mut BTreeMap<String, UnitItem>, last: &QueryUp) {
    loop {
        match next(answer).await {
            Some(QueryUp::Items(items)) => items.into_iter().for_each(|item| learn(known, item)),
            Some(QueryUp::Gone(keys)) => keys.into_iter().for_each(|key| drop(known.remove(key.as_str()))),
            Some(said) => return assert_eq!(&said, last),
            None => panic!("it ended before {last:?}"),
        }
    }
}

fn learn(known: &mut BTreeMap<String, UnitItem>, item: &fleetward_protocol::message::QueryItem) {
    let json = read_item(&item.item).expect("an item is what the controller takes");
    let unit: UnitItem = serde_json::from_value(Value::Object(json)).unwrap();
    assert_eq!(unit.name, item.key);
    known.insert(item.key.to_string(), unit);
}

/// The whole answer to a query that does not follow.
async fn list(queries: &Queries, params: &str) -> BTreeMap<String, UnitItem> {
    let mut answer = queries.open(&open(params, false)).await.unwrap();
    let mut known = BTreeMap::new();
    until(&mut answer, &mut known, &QueryUp::Complete).await;
    assert_eq!(next(&mut answer).await, Some(QueryUp::Ended));
    assert_eq!(next(&mut answer).await, None);
    known
}

#[tokio::test]
async fn units_are_listed_as_they_were_asked_for() {
    let Some(Site { machine, _bus, happens: _happens }) = site("listing units") else { return };
    let queries = Queries::new(machine.start(boot(1)).runs);
    let known = list(&queries, "{}").await;
    let names: Vec<_> = known.keys().map(String::as_str).collect();
    assert_eq!(names, ["broken.service", "masked.service", "off.service", "web.service"]);
    let web = &known["web.service"];
    assert_eq!((web.active.as_str(), web.sub.as_str(), web.main_pid), ("active", "running", Some(40)));
    assert_eq!((web.file.as_deref(), web.result.as_deref()), (Some("enabled"), Some("success")));
    assert_eq!((web.description.as_str(), web.since.is_some()), ("What it is for", true));
    assert_eq!(known["masked.service"].load, "masked");
    assert!(web.memory.is_some_and(|bytes| bytes >= 4096), "{:?}", web.memory);
    assert_eq!(
        (web.cpu_ms, web.tasks, web.restarts),
        (Some(2), None, Some(0)),
        "what is not counted is not told"
    );
    let broken = &known["broken.service"];
    assert_eq!((broken.memory, broken.restarts), (None, Some(0)));
    assert_eq!(known["off.service"].restarts, None);
    for (params, expected) in [
        (r#"{"states":["failed"]}"#, vec!["broken.service"]),
        (r#"{"pattern":"*.timer"}"#, vec!["backup.timer"]),
        (r#"{"pattern":"w*"}"#, vec!["web.service"]),
        (r#"{"types":["timer","service"],"states":["active"]}"#, vec!["backup.timer", "web.service"]),
        (r#"{"pattern":"no-such*"}"#, vec![]),
    ] {
        let known = list(&queries, params).await;
        assert_eq!(known.keys().map(String::as_str).collect::<Vec<_>>(), expected, "{params}");
    }
}

#[tokio::test]
async fn whoever_follows_is_told_what_becomes_of_units() {
    let Some(Site { machine, _bus, happens }) = site("following units") else { return };
    let queries = Queries::new(machine.start(boot(1)).runs);
    let mut answer = queries.open(&open("{}", true)).await.unwrap();
    let mut known = BTreeMap::new();
    until(&mut answer, &mut known, &QueryUp::Complete).await;
    assert_eq!(known.len(), 4);

    happens.send(Event::Is("web.service", "failed", 0)).unwrap();
    while known["web.service"].active != "failed" {
        change(&mut answer, &mut known).await;
    }
    assert_eq!(known["web.service"].result.as_deref(), Some("exit-code"));
    happens.send(Event::New("fresh.service")).unwrap();
    while !known.contains_key("fresh.service") {
        change(&mut answer, &mut known).await;
    }
    happens.send(Event::Removed("off.service")).unwrap();
    while known.contains_key("off.service") {
        change(&mut answer, &mut known).await;
    }
    // What is not meant is not told; what is behind it is.
    happens.send(Event::Is("backup.timer", "failed", 0)).unwrap();
    happens.send(Event::Is("broken.service", "active", 7)).unwrap();
    while known["broken.service"].main_pid != Some(7) {
        change(&mut answer, &mut known).await;
    }
    assert!(!known.contains_key("backup.timer"));
}

/// A unit that comes into a state that was asked for appears, and one that leaves it is gone.
#[tokio::test]
async fn a_state_that_is_asked_for_is_followed_too() {
    let Some(Site { machine, _bus, happens }) = site("following a state") else { return };
    let queries = Queries::new(machine.start(boot(1)).runs);
    let mut answer = queries.open(&open(r#"{"states":["failed"]}"#, true)).await.unwrap();
    let mut known = BTreeMap::new();
    until(&mut answer, &mut known, &QueryUp::Complete).await;
    assert_eq!(known.len(), 1);
    happens.send(Event::Is("web.service", "failed", 0)).unwrap();
    while known.len() < 2 {
        change(&mut answer, &mut known).await;
    }
    happens.send(Event::Is("broken.service", "active", 7)).unwrap();
    while known.contains_key("broken.service") {
        change(&mut answer, &mut known).await;
    }
    // A reload may have changed any of them, silently.
    happens.send(Event::Reloaded).unwrap();
    happens.send(Event::Is("web.service", "active", 8)).unwrap();
    while !known.is_empty() {
        change(&mut answer, &mut known).await;
    }
}

/// One message of a query that follows.
async fn change(answer: &mut Answer, known: &mut BTreeMap<String, UnitItem>) {
    match next(answer).await {
        Some(QueryUp::Items(items)) => items.into_iter().for_each(|item| learn(known, item)),
        Some(QueryUp::Gone(keys)) => {
            for key in &keys {
                assert!(known.remove(key.as_str()).is_some(), "{key} was not there");
            }
        }
        other => panic!("{other:?}"),
    }
}

/// A unit that changes all the time is told a few times in a second, and its last state always.
#[tokio::test]
async fn a_unit_that_changes_all_the_time_does_not_flood() {
    let Some(Site { machine, _bus, happens }) = site("a restless unit") else { return };
    let queries = Queries::new(machine.start(boot(1)).runs);
    let mut answer = queries.open(&open("{}", true)).await.unwrap();
    let mut known = BTreeMap::new();
    until(&mut answer, &mut known, &QueryUp::Complete).await;
    let began = Instant::now();
    for pid in 1000..=6000 {
        happens.send(Event::Is("web.service", "active", pid)).unwrap();
    }
    let mut told = 0;
    while known["web.service"].main_pid != Some(6000) {
        change(&mut answer, &mut known).await;
        told += 1;
    }
    let most = began.elapsed().as_millis() / 250 + 2;
    assert!(told <= most, "{told} in {:?}", began.elapsed());
}

/// Memory changes all the time: it is told with a state that changes, and not by itself.
#[tokio::test]
async fn what_a_unit_uses_is_told_with_its_state_alone() {
    let mut machine = Machine::new();
    let Some(bus) = bus(machine.directory.path()) else {
        return skipped("following what units use", "dbus-daemon is not installed");
    };
    machine.bus = Some(bus.address.clone());
    let mut world = World::default();
    world.units.insert("web.service".into(), ("loaded", "active".into(), 40));
    let world = Arc::new(watch::channel(world).0);
    let happens = play(bus.address.clone(), Arc::clone(&world));
    let queries = Queries::new(machine.start(boot(1)).runs);
    let mut answer = queries.open(&open(r#"{"pattern":"web"}"#, true)).await.unwrap();
    let mut known = BTreeMap::new();
    until(&mut answer, &mut known, &QueryUp::Complete).await;
    let before = known["web.service"].memory.unwrap();
    let mut looked = world.subscribe();
    for _ in 0..3 {
        let before = world.borrow().memory;
        happens.send(Event::Is("web.service", "active", 40)).unwrap();
        looked.wait_for(|world| world.memory > before).await.unwrap();
    }
    happens.send(Event::Is("web.service", "active", 41)).unwrap();
    change(&mut answer, &mut known).await;
    let web = &known["web.service"];
    assert_eq!(web.main_pid, Some(41), "nothing was told before it");
    assert!(web.memory.unwrap() > before);
}

/// Three hundred units are looked at in a moment, and not one after the other.
#[tokio::test]
async fn many_units_are_asked_about_at_the_same_time() {
    let mut machine = Machine::new();
    let Some(bus) = bus(machine.directory.path()) else {
        return skipped("many units", "dbus-daemon is not installed");
    };
    machine.bus = Some(bus.address.clone());
    let mut world = World::default();
    for number in 0..300 {
        world.units.insert(format!("unit-{number:03}.service"), ("loaded", "active".into(), number + 1));
    }
    let _happens = play(bus.address.clone(), Arc::new(watch::channel(world).0));
    let queries = Queries::new(machine.start(boot(1)).runs);
    let began = Instant::now();
    let known = list(&queries, "{}").await;
    println!("300 units in {:?}", began.elapsed());
    assert_eq!(known.len(), 300);
    for (number, (name, unit)) in (1..).zip(&known) {
        assert_eq!((unit.name.as_str(), unit.main_pid), (name.as_str(), Some(number)), "of one unit");
    }
}

#[tokio::test]
async fn what_looks_ends_with_whoever_listens_and_its_own_end_is_told() {
    let Some(Site { machine, _bus, happens: _happens }) = site("ending a query") else { return };
    let queries = Queries::new(machine.start(boot(1)).runs);
    let mut answer = queries.open(&open("{}", true)).await.unwrap();
    until(&mut answer, &mut BTreeMap::new(), &QueryUp::Complete).await;
    let process = i32::try_from(answer.process().unwrap()).unwrap();
    drop(answer);
    exited(process);
    assert!(!lives(process));

    let mut answer = queries.open(&open("{}", true)).await.unwrap();
    until(&mut answer, &mut BTreeMap::new(), &QueryUp::Complete).await;
    let process = i32::try_from(answer.process().unwrap()).unwrap();
    kill(Pid::from_raw(process), Signal::SIGKILL).unwrap();
    match next(&mut answer).await {
        Some(QueryUp::Failed { detail }) => {
            assert!(detail.contains("signal: 9") && detail.contains("ask again"), "{detail}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(next(&mut answer).await, None);
}

#[tokio::test]
async fn a_host_without_a_bus_says_so() {
    let mut machine = Machine::new();
    machine.bus = Some(format!("unix:path={}", machine.path("none").display()));
    let queries = Queries::new(machine.start(boot(1)).runs);
    let mut answer = queries.open(&open("{}", false)).await.unwrap();
    match next(&mut answer).await {
        Some(QueryUp::Failed { detail }) => {
            assert!(detail.contains("no connection") && detail.contains("systemctl status dbus"), "{detail}");
        }
        other => panic!("{other:?}"),
    }
}

/// An agent that is killed leaves nobody behind: what looks ends with its input, wherever it waits.
#[test]
fn what_looks_ends_with_the_agent() {
    let directory = tempfile::tempdir().unwrap();
    let silent = directory.path().join("silent");
    let listener = UnixListener::bind(&silent).unwrap();
    let mut looking = Command::new(env!("CARGO_BIN_EXE_fleetward-agent"))
        .arg(fleetward_agent::query::LOOK)
        .env("DBUS_SYSTEM_BUS_ADDRESS", format!("unix:path={}", silent.display()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let request = ActionRequest { kind: "units".into(), params: "{}".into() };
    let asked = (request, true, Allowed::default(), None::<u32>, (0_u32, String::new()));
    let mut input = looking.stdin.take().unwrap();
    input.write_all(&fleetward_protocol::wire::frame(&asked, MAX_QUERY_FRAME).unwrap()).unwrap();
    // It has read what it is asked, and waits for the bus.
    let _connection = listener.accept().unwrap();
    drop(input);
    // Sooner than it gives up waiting for the bus.
    let process = i32::try_from(looking.id()).unwrap();
    exited(process);
    assert!(!lives(process));
    assert!(looking.wait().unwrap().success());
}

/// A bus that takes connections and says nothing.
#[tokio::test]
async fn an_answer_does_not_take_longer_than_was_agreed() {
    let mut machine = Machine::new();
    let silent = machine.path("silent");
    let _listener = UnixListener::bind(&silent).unwrap();
    machine.bus = Some(format!("unix:path={}", silent.display()));
    let queries = Queries::new(machine.start(boot(1)).runs);
    let typed = Some(ActionRequest { kind: "units".into(), params: "{}".into() });
    let limits = Limits { timeout_ms: 300, ..Limits::DEFAULT };
    let request = Request { typed, limits, ..script("") };
    let order = asking(&machine.client, Authority::Query, &request).dispatch.unwrap().order;
    let open = OpenQuery { order, remaining_ms: 1000, follow: true };
    let mut answer = queries.open(&open).await.unwrap();
    match next(&mut answer).await {
        Some(QueryUp::Failed { detail }) => assert!(detail.contains("did not tell all within"), "{detail}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn only_so_many_are_answered_at_once() {
    let mut machine = Machine::new();
    machine.bus = Some(format!("unix:path={}", machine.path("none").display()));
    let queries = Queries::new(machine.start(boot(1)).runs);
    let mut answers = Vec::new();
    for _ in 0..MAX_AT_ONCE {
        answers.push(queries.open(&open("{}", true)).await.unwrap());
    }
    match queries.open(&open("{}", false)).await {
        Err(Refusal::Busy { detail }) => assert!(detail.contains("8 queries"), "{detail}"),
        other => panic!("{other:?}"),
    }
    drop(answers.pop());
    drop(queries.open(&open("{}", false)).await.unwrap());
}

/// A query passes the same gate as a run.
#[tokio::test]
async fn what_a_run_would_be_refused_for_refuses_a_query() {
    let machine = Machine::new();
    let queries = Queries::new(machine.start(boot(1)).runs);
    let refused = async |open: OpenQuery| queries.open(&open).await.map(|_| ()).unwrap_err();
    let (minute, long) = (Duration::from_secs(60), Duration::from_secs(3600));
    assert_eq!(refused(of(Authority::Query, "units", "{}", false, long)).await, Refusal::NotYet);
    let late = of(Authority::Query, "units", "{}", false, Duration::ZERO);
    assert_eq!(refused(late).await, Refusal::DeadlinePassed);
    let levitate = of(Authority::Query, "levitate", "{}", false, minute);
    assert_eq!(refused(levitate).await, Refusal::Unsupported { kind: "levitate".parse().unwrap() });
    for (open, told) in [
        (of(Authority::Run, "units", "{}", false, minute), "something else than a query"),
        (of(Authority::Query, "units", "{\"x\":1}", false, minute), "unknown field `x`"),
        (OpenQuery { order: vec![1, 2, 3], remaining_ms: 1, follow: false }, "the order"),
    ] {
        match refused(open).await {
            Refusal::Malformed { detail } => assert!(detail.contains(told), "{detail}"),
            refusal => panic!("{refusal:?}"),
        }
    }
    let not_allowed = async |policy: &str, rule: &str| {
        std::fs::write(machine.paths().config, policy).unwrap();
        let refusal = refused(open("{}", false)).await;
        assert_eq!(refusal, Refusal::NotAllowed { rule: rule.parse().unwrap() });
    };
    let file = machine.paths().config.display().to_string();
    let add = "its owner can add it there, on the host";
    let rule = format!("policy.kinds in {file}, line 2, does not name `units`; {add}");
    not_allowed("[policy]\nkinds = ['script', 'unit']", &rule).await;
    let user = fleetward_agent::platform::users::read_own_account().name;
    let rule = format!("policy.users in {file}, line 3, does not name `{user}`; {add}");
    not_allowed("[policy]\nkinds = ['units']\nusers = ['another-one']", &rule).await;
    std::fs::write(machine.paths().config, "").unwrap();
    machine.write_client_id("00000000-0000-4000-8000-0000000000ff");
    assert!(matches!(refused(open("{}", false)).await, Refusal::ClientIdMismatch { .. }));
    std::fs::remove_file(machine.paths().client_id).unwrap();
    assert_eq!(refused(open("{}", false)).await, Refusal::ClientIdMissing);
}

/// The processes of this test that look.
fn lookers() -> Vec<i32> {
    let own = std::process::id().to_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse() else { continue };
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let parent =
            stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1).map(str::to_owned));
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if parent.as_deref() == Some(&own) && line.ends_with(b"\0look\0") {
            found.push(pid);
        }
    }
    found
}

/// Over real QUIC, by a whole agent: the answer, a slow reader's too, and the end of whoever stops listening.
#[tokio::test]
async fn a_query_lasts_as_long_as_its_stream() {
    let (mut machine, controller) = enrolled(YEAR).await;
    let Some((_bus, happens)) = equip(&mut machine) else {
        return skipped("queries over QUIC", "dbus-daemon is not installed");
    };
    let agent = start(&machine);
    let session = controller.session().await;
    let (mut send, mut receive) = session.connection.open_bi().await.unwrap();
    write(&mut send, &StreamKind::Query, MAX_RUN_FRAME).await;
    write(&mut send, &open("{}", true), MAX_QUERY_FRAME).await;
    let mut known = BTreeMap::new();
    loop {
        match read(&mut receive, MAX_QUERY_FRAME).await.unwrap() {
            QueryUp::Items(items) => items.into_iter().for_each(|item| learn(&mut known, item)),
            QueryUp::Complete => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(known.len(), 4);
    happens.send(Event::Is("web.service", "failed", 0)).unwrap();
    assert!(
        matches!(read(&mut receive, MAX_QUERY_FRAME).await, Some(QueryUp::Items(items)) if items.len() == 1)
    );
    let looking = lookers();
    assert_eq!(looking.len(), 1);
    send.finish().unwrap();
    let looking = looking[0];
    // Aside: the agent works on this thread.
    tokio::task::spawn_blocking(move || exited(looking)).await.unwrap();
    assert!(!lives(looking));
    assert_eq!(read::<QueryUp>(&mut receive, MAX_QUERY_FRAME).await, None);

    // Refused in words, and a second message is a fault of that stream alone.
    let (mut send, mut receive) = session.connection.open_bi().await.unwrap();
    write(&mut send, &StreamKind::Query, MAX_RUN_FRAME).await;
    write(&mut send, &of(Authority::Run, "units", "{}", false, Duration::from_secs(60)), MAX_QUERY_FRAME)
        .await;
    assert!(matches!(
        read(&mut receive, MAX_QUERY_FRAME).await,
        Some(QueryUp::Refused(Refusal::Malformed { .. }))
    ));
    let (mut send, mut receive) = session.connection.open_bi().await.unwrap();
    write(&mut send, &StreamKind::Query, MAX_RUN_FRAME).await;
    write(&mut send, &open("{}", true), MAX_QUERY_FRAME).await;
    write(&mut send, &open("{}", true), MAX_QUERY_FRAME).await;
    let mut chunk = [0; 4096];
    let reset = loop {
        match receive.read(&mut chunk).await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ends as if it were whole"),
            Err(error) => break error,
        }
    };
    assert_eq!(reset, quinn::ReadError::Reset(close::PROTOCOL.into()));
    assert!(session.connection.close_reason().is_none());
    agent.shutdown().await;
}

/// What the owner keeps to himself is not listed, and nothing tells that it is there.
#[tokio::test]
async fn the_owner_decides_which_units_are_shown() {
    let Some(Site { machine, _bus, happens: _happens }) = site("the owner's rule for units") else { return };
    let policy = "[policy.rules.units]\nunits = ['web', '*.timer']\n";
    std::fs::write(machine.paths().config, policy).unwrap();
    let queries = Queries::new(machine.start(boot(1)).runs);
    let types = r#"{"types":["service","timer"]}"#;
    let known = list(&queries, types).await;
    assert_eq!(known.keys().map(String::as_str).collect::<Vec<_>>(), ["backup.timer", "web.service"]);
}
