//! The kind `unit`, with a real message bus and a systemd of our own on it: what it does, what it tells, what it reports.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use fleetward_agent::run::Stage;
use fleetward_protocol::action::ActionRequest;
use fleetward_protocol::action::unit::{Unit, UnitReport, Verb};
use fleetward_protocol::event::StepState;
use fleetward_protocol::message::Finished;
use fleetward_protocol::run::{CancelCause, Outcome, Refusal};
use futures_util::StreamExt as _;
use tokio::sync::{mpsc, watch};
use zbus::message::Type;
use zbus::{Connection, Message, MessageStream, ObjectPath, Variant};

use crate::host::{Life, Machine, Output, Request, boot, finished, script, skipped, written};

/// A message bus in a directory of its own, until it is dropped.
struct Bus {
    daemon: Child,
    address: String,
}

impl Drop for Bus {
    fn drop(&mut self) {
        drop(self.daemon.kill());
        drop(self.daemon.wait());
    }
}

/// Starts a bus on which everybody may be anybody.
fn bus(directory: &Path) -> Option<Bus> {
    let config = directory.join("bus.conf");
    let address = format!("unix:path={}", directory.join("bus").display());
    let text = format!(
        "<busconfig><listen>{address}</listen><policy context='default'><allow send_destination='*'/>\
         <allow eavesdrop='true'/><allow own='*'/></policy></busconfig>"
    );
    std::fs::write(&config, text).unwrap();
    let daemon = Command::new("dbus-daemon")
        .arg(format!("--config-file={}", config.display()))
        .args(["--nofork", "--print-address"])
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    let mut bus = Bus { daemon, address };
    let mut line = String::new();
    // It prints its address when it listens.
    BufReader::new(bus.daemon.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("unix:"), "{line}");
    Some(bus)
}

/// What the units of our systemd are, and what was asked of it.
#[derive(Default)]
struct World {
    /// Load state, active state and main process, by unit.
    units: HashMap<String, (&'static str, String, u32)>,
    asked: Vec<String>,
    /// The result of the next jobs; none while they do not end.
    result: Option<&'static str>,
    /// Jobs that have not ended.
    open: u32,
}

type Shared = Arc<watch::Sender<World>>;

/// Plays systemd: the methods, properties and signals of org.freedesktop.systemd1(5) that the kind uses. In a thread of its
/// own: it goes on while a test puts one agent in another's place.
fn play(address: String, world: Shared) -> mpsc::UnboundedSender<()> {
    let (ends, mut ended) = mpsc::unbounded_channel();
    let (ready, is_ready) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let connection = zbus::connection::Builder::address(address.as_str()).build().await.unwrap();
            let mut messages = MessageStream::from(connection.clone());
            connection.request_name("org.freedesktop.systemd1").await.unwrap();
            ready.send(()).unwrap();
            loop {
                tokio::select! {
                    message = messages.next() => match message {
                        Some(Ok(message)) if message.header().message_type() == Type::MethodCall => {
                            answer(&connection, &world, &message).await;
                        }
                        Some(Ok(_)) => {}
                        _ => return,
                    },
                    Some(()) = ended.recv() => {
                        world.send_modify(|world| world.open = 0);
                        job_removed(&connection, JOB, "done").await;
                    }
                }
            }
        });
    });
    is_ready.recv().unwrap();
    ends
}

const JOB: &str = "/org/freedesktop/systemd1/job/7";

async fn job_removed(connection: &Connection, job: &str, result: &str) {
    let (path, interface) = ("/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager");
    let body = (7_u32, ObjectPath::try_from(job).unwrap(), "a.service", result);
    connection.emit_signal(None::<&str>, path, interface, "JobRemoved", &body).await.unwrap();
}

fn path(unit: &str) -> ObjectPath<'static> {
    let name: String = unit.bytes().map(|byte| format!("_{byte:02x}")).collect();
    format!("/org/freedesktop/systemd1/unit/{name}").try_into().unwrap()
}

fn unit_at(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or_default();
    let bytes = name.split('_').skip(1).map(|byte| u8::from_str_radix(byte, 16).unwrap());
    String::from_utf8(bytes.collect()).unwrap()
}

async fn answer(connection: &Connection, world: &Shared, message: &Message) {
    let header = message.header();
    let member = header.member().unwrap().to_string();
    let at = header.path().unwrap().to_string();
    match member.as_str() {
        "Subscribe" => connection.reply(&header, &()).await.unwrap(),
        "LoadUnit" => {
            let (unit,): (String,) = message.body().deserialize().unwrap();
            connection.reply(&header, &path(&unit)).await.unwrap()
        }
        "Get" => {
            let (_, name): (String, String) = message.body().deserialize().unwrap();
            let value = property(&world.borrow(), &at, &name);
            match value {
                Some(value) => connection.reply(&header, &value).await.unwrap(),
                None => {
                    let name = "org.freedesktop.DBus.Error.UnknownProperty";
                    connection.reply_error(&header, name, &"no such property").await.unwrap()
                }
            }
        }
        verb => {
            let (unit, mode): (String, String) = message.body().deserialize().unwrap();
            let mut result = None;
            world.send_modify(|world| {
                world.asked.push(format!("{verb} {unit} {mode}"));
                world.open += 1;
                result = world.result;
                let Some((_, active, pid)) = world.units.get_mut(&unit) else { return };
                match (verb, result) {
                    (_, Some("done")) if verb == "StopUnit" => (*active, *pid) = ("inactive".into(), 0),
                    (_, Some("done")) => (*active, *pid) = ("active".into(), *pid + 1),
                    (_, Some(_)) => (*active, *pid) = ("failed".into(), 0),
                    (_, None) => {}
                }
            });
            connection.reply(&header, &ObjectPath::try_from(JOB).unwrap()).await.unwrap();
            if let Some(result) = result {
                // Another's first: it is not the one that is waited for.
                job_removed(connection, "/org/freedesktop/systemd1/job/6", "failed").await;
                job_removed(connection, JOB, result).await;
            }
        }
    }
}

fn property(world: &World, at: &str, name: &str) -> Option<Variant<'static>> {
    if at.contains("/job/") {
        return (world.open > 0).then(|| Variant::from("running"));
    }
    let (load, active, pid) =
        world.units.get(&unit_at(at)).cloned().unwrap_or(("not-found", "inactive".into(), 0));
    let sub = if active == "active" { "running" } else { "dead" };
    Some(match name {
        "LoadState" => Variant::from(load),
        "ActiveState" => Variant::from(active),
        "SubState" => Variant::from(sub),
        "UnitFileState" => Variant::from("enabled"),
        "StateChangeTimestamp" => Variant::from(1_700_000_000_000_000_u64 + u64::from(pid)),
        "MainPID" => Variant::from(pid),
        "Result" => Variant::from(if active == "failed" { "exit-code" } else { "success" }),
        _ => return None,
    })
}

/// A machine with a bus, and our systemd on it.
struct Site {
    machine: Machine,
    bus: Bus,
    world: Shared,
    /// Ends a job that does not end by itself.
    ends: mpsc::UnboundedSender<()>,
}

/// `None` where there is no dbus-daemon, or no root, whom units need.
fn site(test: &str) -> Option<Site> {
    if !nix::unistd::geteuid().is_root() {
        skipped(test, "units need root");
        return None;
    }
    let mut machine = Machine::new();
    let Some(bus) = bus(machine.directory.path()) else {
        skipped(test, "dbus-daemon is not installed");
        return None;
    };
    machine.bus = Some(bus.address.clone());
    let mut world = World { result: Some("done"), ..World::default() };
    world.units.insert("web.service".into(), ("loaded", "active".into(), 40));
    world.units.insert("off.service".into(), ("loaded", "inactive".into(), 0));
    world.units.insert("masked.service".into(), ("masked", "inactive".into(), 0));
    let world = Arc::new(watch::channel(world).0);
    let ends = play(bus.address.clone(), Arc::clone(&world));
    Some(Site { machine, bus, world, ends })
}

fn unit(verb: Verb, unit: &str) -> Request {
    let typed = ActionRequest::new(&Unit { unit: unit.parse().unwrap(), verb }).unwrap();
    Request { typed: Some(typed), content: String::new(), ..script("") }
}

fn report(output: &Output) -> UnitReport {
    serde_json::from_value(output.report.clone().expect("a report")).unwrap()
}

fn told(output: &Output) -> Vec<(String, StepState)> {
    output.events.iter().map(|event| (event.step.to_string(), event.state)).collect()
}

async fn done(life: &Life, request: &Request) -> (Finished, Output) {
    let end = life.finish(request).await;
    let output = life.output(request.run, &end);
    (end, output)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn a_unit_is_restarted_step_by_step_and_reported() {
    let Some(Site { machine, bus: _bus, world, ends: _ends }) = site("restarting a unit") else { return };
    let life = machine.start(boot(1));
    let request = unit(Verb::Restart, "web.service");
    let (end, output) = done(&life, &request).await;
    assert_eq!((end.outcome, text(&output.stderr)), (Outcome::Exited(0), String::new()));
    let steps = ["check", "restart", "verify"];
    let wanted: Vec<_> = steps
        .into_iter()
        .flat_map(|step| [(step.to_owned(), StepState::Began), (step.to_owned(), StepState::Done)])
        .collect();
    assert_eq!(told(&output), wanted);
    assert_eq!(
        text(&output.stdout),
        "web.service is active (running), main process 40, enabled\nrestart web.service\n\
         web.service is active (running), main process 41, enabled\n"
    );
    let report = report(&output);
    assert!(report.changed);
    assert_eq!((report.before.main_pid, report.after.main_pid), (Some(40), Some(41)));
    assert_eq!((report.after.active.as_str(), report.after.result.as_deref()), ("active", Some("success")));
    assert_eq!(world.borrow().asked, ["RestartUnit web.service replace"]);
    // Words and events stand in the log as they were told, and the report is its end.
    let log = life.runs.read_output(request.run, 0, end.log_length.try_into().unwrap(), vec![]).unwrap();
    let streams: Vec<_> = fleetward_protocol::output::Records::new(&log)
        .map(|record| format!("{:?}", record.unwrap().stream))
        .collect();
    let wanted = "Event Stdout Event Event Stdout Event Event Stdout Event Report";
    assert_eq!(streams.join(" "), wanted);
    // What was done is in the step journal, durable; what was asked for is in no file.
    let files: Vec<_> = std::fs::read_dir(life.directory(request.run)).unwrap().flatten().collect();
    assert!(files.iter().any(|file| file.file_name() == "steps"), "{files:?}");
    assert!(files.iter().all(|file| file.file_name() != "script"), "{files:?}");
}

#[tokio::test]
async fn a_unit_that_is_as_wanted_is_not_touched() {
    let Some(Site { machine, bus: _bus, world, ends: _ends }) = site("leaving a unit alone") else { return };
    let life = machine.start(boot(1));
    for (verb, name) in [(Verb::Start, "web.service"), (Verb::Stop, "off.service")] {
        let (end, output) = done(&life, &unit(verb, name)).await;
        assert_eq!(end.outcome, Outcome::Exited(0));
        assert!(text(&output.stdout).contains(&format!("unchanged: {name} is ")), "{output:?}");
        assert_eq!(told(&output).last().unwrap(), &(verb.to_string(), StepState::Unchanged));
        let report = report(&output);
        assert!(!report.changed && report.before == report.after);
    }
    assert_eq!(world.borrow().asked, Vec::<String>::new());
    let (end, output) = done(&life, &unit(Verb::Start, "off.service")).await;
    assert_eq!((end.outcome, report(&output).changed), (Outcome::Exited(0), true));
    let (end, output) = done(&life, &unit(Verb::Stop, "off.service")).await;
    assert_eq!((end.outcome, report(&output).after.active.as_str()), (Outcome::Exited(0), "inactive"));
    assert_eq!(world.borrow().asked.len(), 2);
}

#[tokio::test]
async fn what_goes_wrong_is_told_with_what_to_do_next() {
    let Some(Site { machine, bus, world, ends: _ends }) = site("a unit that fails") else { return };
    let life = machine.start(boot(1));
    for (name, parts) in [
        ("gone.service", ["there is no unit gone.service on this host", "systemctl list-unit-files"]),
        ("masked.service", ["masked.service is masked", "systemctl unmask masked.service"]),
        ("off.service", ["only an active unit can reload", "`reload-or-restart`"]),
    ] {
        let verb = if name == "off.service" { Verb::Reload } else { Verb::Start };
        let (end, output) = done(&life, &unit(verb, name)).await;
        assert_eq!(end.outcome, Outcome::Exited(1));
        let stderr = text(&output.stderr);
        assert!(parts.iter().all(|part| stderr.contains(part)), "{stderr}");
        assert_eq!(
            told(&output),
            [("check".to_owned(), StepState::Began), ("check".to_owned(), StepState::Failed)]
        );
        assert_eq!(output.report, None);
    }
    assert_eq!(world.borrow().asked, Vec::<String>::new());

    world.send_modify(|world| world.result = Some("failed"));
    let (end, output) = done(&life, &unit(Verb::Restart, "web.service")).await;
    assert_eq!(end.outcome, Outcome::Exited(1));
    let stderr = text(&output.stderr);
    assert!(
        stderr.contains("`restart web.service` failed: its process ended with an error (exit-code)\nsee `journalctl --unit=web.service`"),
        "{stderr}"
    );
    let report = report(&output);
    assert!(report.changed);
    assert_eq!((report.before.active.as_str(), report.after.active.as_str()), ("active", "failed"));
    assert_eq!(report.after.result.as_deref(), Some("exit-code"));

    drop(bus);
    let (end, output) = done(&life, &unit(Verb::Restart, "web.service")).await;
    let stderr = text(&output.stderr);
    assert_eq!(end.outcome, Outcome::Exited(1));
    assert!(
        stderr.contains("no connection to the message bus") && stderr.contains("systemctl status dbus"),
        "{stderr}"
    );
}

#[tokio::test]
async fn whoever_waits_for_systemd_can_be_stopped() {
    let Some(Site { machine, bus: _bus, world, ends: _ends }) = site("stopping a unit action") else {
        return;
    };
    world.send_modify(|world| world.result = None);
    let life = machine.start(boot(1));
    let request = Request {
        limits: fleetward_protocol::order::Limits { grace_ms: 20_000, ..script("").limits },
        ..unit(Verb::Restart, "web.service")
    };
    let progress = life.begin(&request).await;
    let mut asked = world.subscribe();
    drop(asked.wait_for(|world| world.open == 1).await.unwrap());
    life.runs.cancel(request.run, CancelCause::Requested);
    let end = finished(progress).await;
    let output = life.output(request.run, &end);
    let stderr = text(&output.stderr);
    assert_eq!(end.outcome, Outcome::Cancelled);
    assert!(
        stderr.contains("stopped on request") && stderr.contains("systemctl status web.service"),
        "{stderr}"
    );
    assert!(!report(&output).changed);
}

/// The agent goes away while systemd works. The action goes on, is not done twice, and all that it told arrives.
#[test]
fn an_agent_that_is_restarted_half_way_finds_all_that_was_told() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let Some(Site { machine, bus: _bus, world, ends }) = site("restarting the agent") else { return };
    world.send_modify(|world| world.result = None);
    let request = unit(Verb::Restart, "web.service");
    let first = runtime();
    first.block_on(async {
        let life = machine.start(boot(1));
        let mut progress = life.begin(&request).await;
        drop(world.subscribe().wait_for(|world| world.open == 1).await.unwrap());
        written(&mut progress, 1).await;
    });
    drop(first);
    runtime().block_on(async {
        let life = machine.start(boot(1));
        let progress = life.resume(request.run).await;
        ends.send(()).unwrap();
        let end = finished(progress).await;
        let output = life.output(request.run, &end);
        assert_eq!((end.outcome, text(&output.stderr)), (Outcome::Exited(0), String::new()));
        assert_eq!(told(&output).len(), 6);
        assert!(report(&output).changed);
        assert_eq!(world.borrow().asked, ["RestartUnit web.service replace"]);
        // And a controller that sends it again is answered from the journal.
        assert!(matches!(life.begin(&request).await.borrow().stage, Stage::Finished { .. }));
        assert_eq!(world.borrow().asked.len(), 1);
    });
}

#[tokio::test]
async fn the_owner_decides_about_typed_kinds_as_about_scripts() {
    let machine = Machine::new();
    std::fs::write(machine.paths().config, "[policy]\nkinds = ['script']").unwrap();
    let life = machine.start(boot(1));
    match life.refusal(&unit(Verb::Stop, "web.service")).await {
        Refusal::NotAllowed { rule } => assert_eq!(rule, "policy.kinds in agent.toml does not name `unit`"),
        refusal => panic!("{refusal:?}"),
    }
    std::fs::write(machine.paths().config, "[policy]\nkinds = ['unit']\nusers = ['nobody']").unwrap();
    assert!(matches!(life.refusal(&unit(Verb::Stop, "web.service")).await, Refusal::NotAllowed { .. }));
}
