//! A message bus of our own, and a systemd of our own on it: the methods, properties and signals of
//! org.freedesktop.systemd1(5) that the kinds use.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use futures_util::StreamExt as _;
use tokio::sync::{mpsc, watch};
use zbus::message::Type;
use zbus::{Connection, Message, MessageStream, ObjectPath, OwnedVariant, Variant};

use crate::host::{Machine, skipped};

/// A message bus in a directory of its own, until it is dropped.
pub(crate) struct Bus {
    daemon: Child,
    pub(crate) address: String,
}

impl Drop for Bus {
    fn drop(&mut self) {
        drop(self.daemon.kill());
        drop(self.daemon.wait());
    }
}

/// Starts a bus on which everybody may be anybody.
pub(crate) fn bus(directory: &Path) -> Option<Bus> {
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

/// A machine with a bus, and our systemd on it; `None` where there is no dbus-daemon, or no root, whom units need.
pub(crate) fn machine(
    test: &str,
    world: World,
) -> Option<(Machine, Bus, Shared, mpsc::UnboundedSender<Event>)> {
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
    let world = Arc::new(watch::channel(world).0);
    let happens = play(bus.address.clone(), Arc::clone(&world));
    Some((machine, bus, world, happens))
}

/// What the units of our systemd are, and what was asked of it.
#[derive(Default)]
pub(crate) struct World {
    /// Load state, active state and main process, by unit.
    pub(crate) units: HashMap<String, (&'static str, String, u32)>,
    /// Where they stand in the boot; `enabled` where nothing is said.
    pub(crate) files: HashMap<String, &'static str>,
    /// Whether it never answers who changes links.
    pub(crate) holds_links: bool,
    /// Whether what failed is not started again before it is forgotten that it did, as behind too many starts.
    pub(crate) limits_starts: bool,
    /// Whether it has not come to the end of reading its files again.
    pub(crate) holds_reload: bool,
    /// Whether it never answers who has it read its files.
    pub(crate) ignores_reload: bool,
    /// Whether it does not read its files again.
    pub(crate) refuses_reload: bool,
    pub(crate) asked: Vec<String>,
    /// The result of the next jobs; none while they do not end.
    pub(crate) result: Option<&'static str>,
    /// Jobs that have not ended.
    pub(crate) open: u32,
    /// Whether such a job waits for others, and has not been begun.
    pub(crate) waits: bool,
    /// Whether there was a job like those that are asked for before.
    pub(crate) had_job: bool,
    /// Whether it stops everything, for the host goes down.
    pub(crate) stopping: bool,
    /// The directory of the host's own units, if it has one.
    pub(crate) directory: Option<String>,
    /// Whether somebody has looked how often a service was started again.
    pub(crate) watched: bool,
    /// Whether it has not come to the end of the boot.
    pub(crate) starting: bool,
    /// What logind was asked to wait for: what, by whom, and whether it has to.
    pub(crate) inhibitors: Vec<(&'static str, &'static str, &'static str)>,
    /// Who is logged in: the session, its class and its user.
    pub(crate) sessions: Vec<(&'static str, &'static str, &'static str)>,
    /// Units whose files were changed since they were read.
    pub(crate) changed: Vec<&'static str>,
    /// The unit that the agent's processes belong to.
    pub(crate) own: Option<&'static str>,
    /// What a dependency of a unit names: `Requires` of `a.service`.
    pub(crate) dependencies: HashMap<(&'static str, &'static str), Vec<&'static str>>,
    /// The same, from the next time on that all files are read.
    pub(crate) next_dependencies: HashMap<(&'static str, &'static str), Vec<&'static str>>,
    /// Whether it has not come to the start of a service for its work that is asked for.
    pub(crate) holds_service: bool,
    /// Whether somebody waits for that.
    pub(crate) wants_service: bool,
    /// The process of the service that was started for its work.
    pub(crate) service: Option<u32>,
    /// What is not met of what the file of a unit asks for before a start.
    pub(crate) unmet: HashMap<&'static str, &'static str>,
    /// Units that end as soon as they were started, without an error.
    pub(crate) ends: Vec<&'static str>,
    /// Units that were found in the directory of the host's own.
    pub(crate) read: Vec<String>,
    /// Other names of units.
    pub(crate) aliases: HashMap<&'static str, &'static str>,
    /// How much memory the last unit had that was asked about.
    pub(crate) memory: u64,
    /// How often services were started again.
    pub(crate) restarts: u32,
    /// The file of a unit, and those that are put on top of it.
    pub(crate) paths: HashMap<&'static str, (String, Vec<String>)>,
    /// Of timers: when they were due, when they are by the wall clock and by the time of the boot, in microseconds.
    pub(crate) due: HashMap<&'static str, [u64; 3]>,
}

pub(crate) type Shared = Arc<watch::Sender<World>>;

/// What happens on the host.
pub(crate) enum Event {
    /// A job that does not end by itself ends.
    JobDone,
    /// A unit is so now: its active state and its main process.
    Is(&'static str, &'static str, u32),
    /// A unit is loaded.
    New(&'static str),
    /// A unit is no longer loaded.
    Removed(&'static str),
    /// systemd has read all files again.
    Reloaded,
}

/// Plays systemd. In a thread of its own: it goes on while a test puts one agent in another's place.
pub(crate) fn play(address: String, world: Shared) -> mpsc::UnboundedSender<Event> {
    let (happens, mut happened) = mpsc::unbounded_channel();
    let (ready, is_ready) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let connection = zbus::connection::Builder::address(address.as_str()).build().await.unwrap();
            let mut messages = MessageStream::from(connection.clone());
            connection.request_name("org.freedesktop.systemd1").await.unwrap();
            connection.request_name("org.freedesktop.login1").await.unwrap();
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
                    Some(event) = happened.recv() => happen(&connection, &world, event).await,
                }
            }
        });
    });
    is_ready.recv().unwrap();
    happens
}

async fn happen(connection: &Connection, world: &Shared, event: Event) {
    match event {
        Event::JobDone => {
            world.send_modify(|world| world.open = 0);
            job_removed(connection, JOB, "done").await;
        }
        Event::Is(unit, active, pid) => {
            world.send_modify(|world| {
                world.units.insert(unit.into(), ("loaded", active.into(), pid));
            });
            let changed: HashMap<&str, Variant<'_>> = HashMap::from([("ActiveState", active.into())]);
            let body = ("org.freedesktop.systemd1.Unit", changed, Vec::<&str>::new());
            let interface = "org.freedesktop.DBus.Properties";
            let told =
                connection.emit_signal(None::<&str>, path(unit), interface, "PropertiesChanged", &body);
            told.await.unwrap();
        }
        Event::New(unit) => {
            world.send_modify(|world| {
                world.units.insert(unit.into(), ("loaded", "inactive".into(), 0));
            });
            manager(connection, "UnitNew", &(unit, path(unit))).await;
        }
        Event::Removed(unit) => {
            world.send_modify(|world| drop(world.units.remove(unit)));
            manager(connection, "UnitRemoved", &(unit, path(unit))).await;
        }
        Event::Reloaded => {
            manager(connection, "Reloading", &(true,)).await;
            manager(connection, "Reloading", &(false,)).await;
        }
    }
}

async fn manager(connection: &Connection, signal: &str, body: &(impl serde::Serialize + zbus::DynamicType)) {
    let (path, interface) = ("/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager");
    connection.emit_signal(None::<&str>, path, interface, signal, body).await.unwrap();
}

const JOB: &str = "/org/freedesktop/systemd1/job/7";

async fn job_removed(connection: &Connection, job: &str, result: &str) {
    manager(connection, "JobRemoved", &(7_u32, ObjectPath::try_from(job).unwrap(), "a.service", result))
        .await;
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
            let path = path(world.borrow().aliases.get(unit.as_str()).copied().unwrap_or(&unit));
            connection.reply(&header, &path).await.unwrap()
        }
        "GetUnit" => {
            let (unit,): (String,) = message.body().deserialize().unwrap();
            if world.borrow().units.contains_key(&unit) {
                connection.reply(&header, &path(&unit)).await.unwrap()
            } else {
                let name = "org.freedesktop.systemd1.NoSuchUnit";
                connection.reply_error(&header, name, &"not loaded").await.unwrap()
            }
        }
        "GetUnitByPID" => {
            let own = world.borrow().own;
            match own {
                Some(own) => connection.reply(&header, &path(own)).await.unwrap(),
                None => {
                    let name = "org.freedesktop.systemd1.NoUnitForPID";
                    connection.reply_error(&header, name, &"no unit").await.unwrap()
                }
            }
        }
        "ResetFailedUnit" => {
            let (unit,): (String,) = message.body().deserialize().unwrap();
            world.send_modify(|world| {
                world.asked.push(format!("{member} {unit}"));
                if let Some((_, active, _)) = world.units.get_mut(&unit) {
                    *active = "inactive".into();
                }
            });
            connection.reply(&header, &()).await.unwrap()
        }
        "CancelJob" => {
            let (job,): (u32,) = message.body().deserialize().unwrap();
            world.send_modify(|world| {
                world.asked.push(format!("CancelJob {job}"));
                world.open = 0;
            });
            connection.reply(&header, &()).await.unwrap();
            job_removed(connection, JOB, "canceled").await;
        }
        "ListInhibitors" => {
            let listed: Vec<_> = world.borrow().inhibitors.clone();
            let listed: Vec<_> = listed
                .into_iter()
                .map(|(what, who, mode)| (what, who, "at work", mode, 0_u32, 4_u32))
                .collect();
            connection.reply(&header, &listed).await.unwrap()
        }
        "Reboot" | "RebootWithFlags" => {
            world.send_modify(|world| world.asked.push(member.clone()));
            connection.reply(&header, &()).await.unwrap()
        }
        "StartTransientUnit" => start_transient(connection, world, message).await,
        "KillUnit" => {
            let (unit, who, signal): (String, String, i32) = message.body().deserialize().unwrap();
            assert!(unit.starts_with("fleetward-apt-"), "{unit}");
            world.send_modify(|world| world.asked.push(format!("KillUnit {who} {signal}")));
            connection.reply(&header, &()).await.unwrap()
        }
        "ListUnitsByPatterns" => {
            let (states, names): (Vec<String>, Vec<String>) = message.body().deserialize().unwrap();
            let rows = rows(&world.borrow(), &states, &names);
            connection.reply(&header, &rows).await.unwrap()
        }
        "EnableUnitFiles" | "DisableUnitFiles" | "MaskUnitFiles" | "UnmaskUnitFiles" => {
            if world.borrow().holds_links {
                world.send_modify(|world| {
                    world.asked.push("EnableUnitFiles off.service".into());
                    world.open += 1;
                });
                return;
            }
            set_links(connection, world, message, &member).await;
        }
        "Reload" => {
            let (mut refuses, mut ignores) = (false, false);
            world.send_modify(|world| {
                world.asked.push(member.clone());
                ignores = world.ignores_reload;
                refuses = world.refuses_reload;
                if !refuses {
                    world.changed.clear();
                    let next = std::mem::take(&mut world.next_dependencies);
                    world.dependencies.extend(next);
                    read_directory(world);
                }
            });
            if ignores {
                return;
            }
            // Whoever asks waits for it, and nobody else asks meanwhile.
            drop(world.subscribe().wait_for(|world| !world.holds_reload).await.unwrap());
            if refuses {
                let name = "org.freedesktop.DBus.Error.LimitsExceeded";
                connection.reply_error(&header, name, &"not now").await.unwrap()
            } else {
                connection.reply(&header, &()).await.unwrap()
            }
        }
        "ListSessions" => {
            let listed: Vec<_> = world.borrow().sessions.clone();
            let listed: Vec<_> =
                listed.into_iter().map(|(id, _, user)| (id, 1000_u32, user, "", session_path(id))).collect();
            connection.reply(&header, &listed).await.unwrap()
        }
        "GetAll" if at.starts_with(SESSIONS) => {
            let all = session_properties(&world.borrow(), &at);
            connection.reply(&header, &all).await.unwrap()
        }
        "GetAll" => {
            let all = all_properties(&world.borrow(), &at);
            connection.reply(&header, &all).await.unwrap()
        }
        "Get" => {
            let (_, name): (String, String) = message.body().deserialize().unwrap();
            match name.as_str() {
                "NRestarts" => world.send_modify(|world| world.watched = true),
                // It is another one each time that it is looked at.
                "MemoryCurrent" => world.send_modify(|world| world.memory += 4096),
                _ => {}
            }
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
            let is_there = match world.borrow().units.get(&unit) {
                Some((load, active, _)) => *load != "not-found" || active != "inactive",
                None => false,
            };
            if verb == "StopUnit" && !is_there {
                let (name, text) =
                    ("org.freedesktop.systemd1.NoSuchUnit", format!("Unit {unit} not loaded."));
                return connection.reply_error(&header, name, &text).await.unwrap();
            }
            let mut result = None;
            world.send_modify(|world| {
                world.asked.push(format!("{verb} {unit} {mode}"));
                world.open += 1;
                result = world.result;
                let limits = world.limits_starts && verb != "StopUnit";
                let is_over = world.unmet.contains_key(unit.as_str()) || world.ends.contains(&unit.as_str());
                let Some((_, active, pid)) = world.units.get_mut(&unit) else { return };
                if limits && active == "failed" {
                    result = Some("failed");
                }
                match (verb, result) {
                    (_, Some("done")) if verb == "StopUnit" => (*active, *pid) = ("inactive".into(), 0),
                    (_, Some("done" | "assert")) if is_over => (*active, *pid) = ("inactive".into(), 0),
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

/// Finds the services whose files are in the directory of the host's own, and forgets those whose files are gone; one that failed is known
/// as that until somebody has it forgotten.
fn read_directory(world: &mut World) {
    let Some(directory) = world.directory.clone() else { return };
    let entries = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name());
    let files: Vec<String> = entries.map(|name| name.into_string().unwrap()).collect();
    for name in std::mem::take(&mut world.read) {
        if files.contains(&name) {
            world.read.push(name);
        } else if world.units.get(&name).is_some_and(|(_, active, _)| active == "failed") {
            world.units.insert(name, ("not-found", "failed".into(), 0));
        } else {
            world.units.remove(&name);
        }
    }
    for name in files.into_iter().filter(|name| name.ends_with(".service") && !name.starts_with('.')) {
        if !world.units.contains_key(&name) {
            world.units.insert(name.clone(), ("loaded", "inactive".into(), 0));
            world.read.push(name);
        }
    }
}

type Properties = Vec<(String, OwnedVariant)>;

/// A service that does its work once, as systemd has it done: with these files for what it says, and a job that ends when it does.
async fn start_transient(connection: &Connection, world: &Shared, message: &Message) {
    let (unit, mode, properties, _): (String, String, Properties, Vec<(String, Properties)>) =
        message.body().deserialize().unwrap();
    world.send_modify(|world| world.wants_service = true);
    drop(world.subscribe().wait_for(|world| !world.holds_service).await.unwrap());
    assert_eq!((unit.ends_with(".service"), mode.as_str()), (true, "fail"));
    let mut properties: HashMap<String, OwnedVariant> = properties.into_iter().collect();
    let mut take = |name: &str| Variant::from(properties.remove(name).unwrap());
    assert_eq!(String::try_from(take("Type")).unwrap(), "oneshot");
    let mut exec = Vec::<(String, Vec<String>, bool)>::try_from(take("ExecStart")).unwrap();
    let (program, argv, _) = exec.remove(0);
    let environment = Vec::<String>::try_from(take("Environment")).unwrap();
    let file = |variant: Variant<'static>| match variant {
        Variant::Fd(fd) => std::os::fd::OwnedFd::try_from(fd).unwrap(),
        other => panic!("{other:?}"),
    };
    let (out, wrong) =
        (file(take("StandardOutputFileDescriptor")), file(take("StandardErrorFileDescriptor")));
    let mut child = tokio::process::Command::new(program)
        .args(&argv[1..])
        .env_clear()
        .envs(environment.iter().map(|variable| variable.split_once('=').unwrap()))
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(wrong)
        .spawn()
        .unwrap();
    world.send_modify(|world| {
        world.asked.push("StartTransientUnit".into());
        world.service = child.id();
        world.open += 1;
    });
    connection.reply(&message.header(), &ObjectPath::try_from(JOB).unwrap()).await.unwrap();
    let (connection, world) = (connection.clone(), Arc::clone(world));
    tokio::spawn(async move {
        let result = if child.wait().await.unwrap().success() { "done" } else { "failed" };
        world.send_modify(|world| (world.open, world.service) = (0, None));
        job_removed(&connection, JOB, result).await;
    });
}

/// A unit `static.service` does not say where in the boot it belongs; `stubborn.service` stays as it is, and
/// `also.service` names another one.
async fn set_links(connection: &Connection, world: &Shared, message: &Message, member: &str) {
    let header = message.header();
    let body = message.body();
    let names: Vec<String> = match member {
        "EnableUnitFiles" | "MaskUnitFiles" => body.deserialize::<(Vec<String>, bool, bool)>().unwrap().0,
        _ => body.deserialize::<(Vec<String>, bool)>().unwrap().0,
    };
    let unit = names.concat();
    let says_where = unit != "static.service";
    world.send_modify(|world| {
        world.asked.push(format!("{member} {unit}"));
        let state = match member {
            "EnableUnitFiles" if unit == "also.service" => "indirect",
            "EnableUnitFiles" if says_where => "enabled",
            "MaskUnitFiles" => "masked",
            "EnableUnitFiles" => "static",
            _ => "disabled",
        };
        if unit != "stubborn.service" {
            world.files.insert(unit.clone(), state);
        }
    });
    let called = match unit.as_str() {
        "thief.service" => "web.service",
        "needed.service" => "web.service.requires/needed.service",
        unit => unit,
    };
    let change =
        ("symlink", format!("/etc/systemd/system/{called}"), format!("/usr/lib/systemd/system/{unit}"));
    let changes = if says_where { vec![change] } else { Vec::new() };
    if member == "EnableUnitFiles" {
        connection.reply(&header, &(says_where, changes)).await.unwrap();
    } else {
        connection.reply(&header, &(changes,)).await.unwrap();
    }
}

type Row = (
    String,
    &'static str,
    &'static str,
    String,
    &'static str,
    &'static str,
    ObjectPath<'static>,
    u32,
    &'static str,
    ObjectPath<'static>,
);

/// The list of those units that are in one of these states and have one of these names, in which a star is anything; or of all.
fn rows(world: &World, states: &[String], names: &[String]) -> Vec<Row> {
    let is_named = |name: &str| {
        names.iter().any(|pattern| match pattern.split_once('*') {
            Some((begin, end)) => name.starts_with(begin) && name.ends_with(end),
            None => pattern == name,
        })
    };
    let meant = world.units.iter().filter(|(name, (_, active, _))| {
        (states.is_empty() || states.contains(active)) && (names.is_empty() || is_named(name))
    });
    let row = |(name, (load, active, _)): (&String, &(&'static str, String, u32))| {
        let sub = if active == "active" { "running" } else { "dead" };
        let none = ObjectPath::try_from("/").unwrap();
        (name.clone(), "What it is for", *load, active.clone(), sub, "", path(name), 0, "", none)
    };
    meant.map(row).collect()
}

/// Below it stand the sessions of our logind.
const SESSIONS: &str = "/org/freedesktop/login1/session/";

fn session_path(id: &str) -> ObjectPath<'static> {
    format!("{SESSIONS}_3{id}").try_into().unwrap()
}

fn session_properties(world: &World, at: &str) -> HashMap<String, Variant<'static>> {
    let session = world.sessions.iter().find(|(id, ..)| session_path(id).as_str() == at);
    let (_, class, _) = session.copied().unwrap();
    [
        ("Class", Variant::from(class)),
        ("Timestamp", Variant::from(1_700_000_000_000_000_u64)),
        ("RemoteHost", Variant::from("192.0.2.10")),
        ("TTY", Variant::from("pts/0")),
        ("Service", Variant::from("sshd")),
        ("State", Variant::from("active")),
        ("Leader", Variant::from(4711_u32)),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

/// Of a unit: its own name, its state, and what its dependencies name.
fn all_properties(world: &World, at: &str) -> HashMap<String, Variant<'static>> {
    let unit = unit_at(at);
    let names = [
        "Id",
        "LoadState",
        "ActiveState",
        "SubState",
        "UnitFileState",
        "StateChangeTimestamp",
        "MainPID",
        "TasksCurrent",
    ];
    let states = names.map(|name| (name.to_owned(), property(world, at, name).unwrap()));
    let paths = world.paths.get(unit.as_str()).map(|(own, more)| {
        [("FragmentPath", Variant::from(own.clone())), ("DropInPaths", Variant::from(more.clone()))]
            .map(|(name, value)| (name.to_owned(), value))
    });
    let states = states.into_iter().chain(paths.into_iter().flatten());
    let named = world.dependencies.iter().filter(|((of, _), _)| *of == unit);
    let named = named.map(|((_, name), units)| {
        let units: Vec<String> = units.iter().map(|unit| (*unit).to_owned()).collect();
        ((*name).to_owned(), Variant::from(units))
    });
    named.chain(states).collect()
}

fn property(world: &World, at: &str, name: &str) -> Option<Variant<'static>> {
    if at.contains("/job/") {
        let value = match name {
            "Id" => Variant::from(7_u32),
            "JobType" => Variant::from("restart"),
            _ => Variant::from(if world.waits { "waiting" } else { "running" }),
        };
        return (world.open > 0).then_some(value);
    }
    if name == "UnitPath" {
        let own = world.directory.clone().into_iter();
        return Some(Variant::from(own.collect::<Vec<String>>()));
    }
    if name == "NFailedUnits" {
        let failed = world.units.values().filter(|(_, active, _)| active == "failed").count();
        return Some(Variant::from(u32::try_from(failed).unwrap()));
    }
    if name == "SystemState" {
        let state = match (world.stopping, world.starting) {
            (true, _) => "stopping",
            (false, true) => "starting",
            (false, false) => "running",
        };
        return Some(Variant::from(state));
    }
    let unit = unit_at(at);
    match name {
        "Id" => return Some(Variant::from(unit)),
        "NeedDaemonReload" => return Some(Variant::from(world.changed.contains(&unit.as_str()))),
        "Type" => return Some(Variant::from(if unit.starts_with("once") { "oneshot" } else { "simple" })),
        "ConditionTimestampMonotonic" | "AssertTimestampMonotonic" => return Some(Variant::from(1_u64)),
        "ConditionResult" | "AssertResult" => {
            return Some(Variant::from(
                !world.unmet.get(unit.as_str()).is_some_and(|unmet| is_of(unmet, name)),
            ));
        }
        "Conditions" | "Asserts" => {
            let unmet = world.unmet.get(unit.as_str()).filter(|unmet| is_of(unmet, name));
            let part = |unmet: &&str| {
                let (name, value) = unmet.split_once('=').unwrap();
                (name.to_owned(), false, false, value.to_owned(), -1)
            };
            let parts: Vec<(String, bool, bool, String, i32)> =
                unmet.iter().map(|unmet| part(unmet)).collect();
            return Some(Variant::from(parts));
        }
        "RemainAfterExit" => return Some(Variant::from(unit == "once-stays.service")),
        "Job" if world.had_job => {
            return Some(Variant::from((7_u32, ObjectPath::try_from(JOB).unwrap())));
        }
        _ => {}
    }
    if let Some([last, next, of_boot]) = world.due.get(unit.as_str()) {
        match name {
            "LastTriggerUSec" => return Some(Variant::from(*last)),
            "NextElapseUSecRealtime" => return Some(Variant::from(*next)),
            "NextElapseUSecMonotonic" => return Some(Variant::from(*of_boot)),
            "Unit" => return Some(Variant::from(unit.replace(".timer", ".service"))),
            _ => {}
        }
    }
    let (load, active, pid) =
        world.units.get(&unit_at(at)).cloned().unwrap_or(("not-found", "inactive".into(), 0));
    let sub = if active == "active" { "running" } else { "dead" };
    Some(match name {
        "LoadState" => Variant::from(load),
        "ActiveState" => Variant::from(active),
        "SubState" => Variant::from(sub),
        "UnitFileState" => Variant::from(world.files.get(&unit_at(at)).copied().unwrap_or("enabled")),
        "StateChangeTimestamp" => Variant::from(1_700_000_000_000_000_u64 + u64::from(pid)),
        "MainPID" => Variant::from(pid),
        "Result" => Variant::from(if active == "failed" { "exit-code" } else { "success" }),
        "NRestarts" => Variant::from(world.restarts),
        "MemoryCurrent" => Variant::from(world.memory),
        "CPUUsageNSec" => Variant::from(2_500_000_u64),
        // What is not counted is the greatest number.
        "TasksCurrent" => Variant::from(u64::MAX),
        _ => return None,
    })
}

/// Whether what is not met is a condition, or an assertion, as the property of this name is.
fn is_of(unmet: &str, property: &str) -> bool {
    unmet.starts_with("Assert") == property.starts_with("Assert")
}
