//! The kind `unit-content`, with a real message bus and a systemd of our own on it, and real files.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use fleetward_agent::journal::steps::{Step, StepJournal};
use fleetward_protocol::action::unit_content::{UnitContent, UnitContentReport};
use fleetward_protocol::action::{ActionRequest, Preview};
use fleetward_protocol::digest::Digest;
use fleetward_protocol::id::RunId;
use fleetward_protocol::order::Authority;
use fleetward_protocol::order::Limits;
use fleetward_protocol::run::{CancelCause, Outcome};
use fleetward_protocol::text::Text;
use tokio::sync::mpsc;

use crate::host::{Life, Machine, Output, Request, boot, finished, script, written};
use crate::resume::{runtime, started_before, supervisor};
use crate::systemd::{Bus, Event, Shared, World, machine};

/// A machine with a bus, our systemd on it, and a directory for its units.
struct Site {
    machine: Machine,
    _bus: Bus,
    world: Shared,
    units: PathBuf,
    happens: mpsc::UnboundedSender<Event>,
}

/// `None` where there can be none here.
fn site(test: &str) -> Option<Site> {
    let mut world = World { result: Some("done"), own: Some("agent.service"), ..World::default() };
    world.units.insert("app.service".into(), ("loaded", "active".into(), 40));
    world.units.insert("agent.service".into(), ("loaded", "active".into(), 41));
    let (machine, bus, world, happens) = machine(test, world)?;
    let units = machine.path("etc/systemd/system");
    std::fs::create_dir_all(&units).unwrap();
    world.send_modify(|world| world.directory = Some(units.display().to_string()));
    Some(Site { machine, _bus: bus, world, units, happens })
}

fn asking(params: &str) -> Request {
    let content: UnitContent = serde_json::from_str(params).unwrap();
    let content = UnitContent { settle_s: 0, ..content };
    Request { typed: Some(ActionRequest::new(&content).unwrap()), content: String::new(), ..script("") }
}

async fn done(life: &Life, request: &Request) -> (Outcome, Output) {
    let end = life.finish(request).await;
    let output = life.output(request.run, &end);
    (end.outcome, output)
}

fn report(output: &Output) -> UnitContentReport {
    serde_json::from_value(output.report.clone().expect("a report")).unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

const ONE: &str = r#"{"unit":"app","verb":"write","text":"[Service]\nExecStart=/bin/true\n"}"#;
const TWO: &str =
    r#"{"unit":"app","verb":"write","text":"[Service]\nExecStart=/bin/false\n","then":"restart"}"#;
const REVERT: &str = r#"{"unit":"app","verb":"revert"}"#;

#[tokio::test]
async fn a_file_is_written_once_and_what_was_there_is_kept_and_brought_back() {
    let Some(Site { machine, _bus, world, units, .. }) = site("writing a unit's file") else { return };
    let life = machine.start(boot(1));
    let file = units.join("app.service");
    let read = || std::fs::read_to_string(&file).unwrap();
    let (outcome, output) = done(&life, &asking(ONE)).await;
    assert_eq!(outcome, Outcome::Exited(0), "{}", text(&output.stderr));
    assert!(report(&output).changed && report(&output).kept.is_none());
    assert_eq!(read(), "[Service]\nExecStart=/bin/true\n");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
    let (_, output) = done(&life, &asking(ONE)).await;
    assert!(!report(&output).changed && text(&output.stdout).contains("unchanged"), "{output:?}");
    assert_eq!(world.borrow().asked, ["Reload"]);
    let (outcome, output) = done(&life, &asking(TWO)).await;
    assert_eq!(outcome, Outcome::Exited(0), "{}", text(&output.stderr));
    let kept = report(&output).kept.unwrap();
    assert_eq!(std::fs::read_to_string(kept.as_str()).unwrap(), "[Service]\nExecStart=/bin/true\n");
    assert_eq!(report(&output).unit.unwrap().after.main_pid, Some(41));
    assert_eq!(world.borrow().asked, ["Reload", "Reload", "RestartUnit app.service replace"]);
    for wanted in ["true", "false"] {
        let (outcome, output) = done(&life, &asking(REVERT)).await;
        assert_eq!(outcome, Outcome::Exited(0), "{}", text(&output.stderr));
        assert_eq!(read(), format!("[Service]\nExecStart=/bin/{wanted}\n"), "the other one was kept");
    }
}

#[tokio::test]
async fn a_file_with_which_the_unit_does_not_come_up_is_taken_back() {
    let Some(Site { machine, _bus, world, units, .. }) = site("taking a unit's file back") else { return };
    let life = machine.start(boot(1));
    done(&life, &asking(ONE)).await;
    world.send_modify(|world| {
        world.asked.clear();
        world.result = Some("failed");
        // It failed so often that it is started no more, until that is forgotten.
        world.limits_starts = true;
    });
    let request = asking(TWO);
    // What is brought back comes up.
    let recovers = async {
        let mut seen = world.subscribe();
        drop(seen.wait_for(|world| world.asked.len() == 2).await.unwrap());
        world.send_modify(|world| world.result = Some("done"));
    };
    let ((outcome, output), ()) = tokio::join!(done(&life, &request), recovers);
    assert_eq!(outcome, Outcome::Exited(2), "{}", text(&output.stderr));
    assert_eq!(
        std::fs::read_to_string(units.join("app.service")).unwrap(),
        "[Service]\nExecStart=/bin/true\n"
    );
    assert_eq!(
        world.borrow().asked,
        [
            "Reload",
            "RestartUnit app.service replace",
            "Reload",
            "ResetFailedUnit app.service",
            "RestartUnit app.service replace"
        ]
    );
    let unit = report(&output).unit.unwrap();
    assert!(
        !report(&output).changed && unit.after.active.as_str() == "active",
        "as it is in the end: {unit:?}"
    );
    let left: Vec<_> = std::fs::read_dir(&units).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["app.service"], "nothing else stands there");
}

/// A unit that is new is no more when its file is gone, and that is how it was before.
#[tokio::test]
async fn a_new_unit_that_is_not_started_is_taken_back_whole() {
    let Some(Site { machine, _bus, world, units, .. }) = site("taking a new unit back") else { return };
    let life = machine.start(boot(1));
    world.send_modify(|world| {
        world.unmet.insert("new.service", "ConditionPathExists=/srv/app");
    });
    let new = r#"{"unit":"new","verb":"write","text":"[Service]\nExecStart=/bin/true\n","then":"start"}"#;
    let (outcome, output) = done(&life, &asking(new)).await;
    assert_eq!(outcome, Outcome::Exited(2), "{output:?}");
    assert!(text(&output.stderr).contains("ConditionPathExists=/srv/app"), "{output:?}");
    assert_eq!(report(&output).unit.unwrap().after.load.as_str(), "not-found", "it is looked at again");
    assert_eq!(std::fs::read_dir(&units).unwrap().count(), 0, "nothing is left");
}

#[tokio::test]
async fn a_failed_unit_goes_with_its_file() {
    let Some(Site { machine, _bus, world, .. }) = site("removing a failed unit") else { return };
    let life = machine.start(boot(1));
    done(&life, &asking(&ONE.replace("app", "new"))).await;
    world.send_modify(|world| {
        world.units.insert("new.service".into(), ("loaded", "failed".into(), 0));
        world.files.insert("new.service".into(), "static");
        world.asked.clear();
    });
    let (outcome, output) = done(&life, &asking(r#"{"unit":"new","verb":"remove"}"#)).await;
    assert_eq!(outcome, Outcome::Exited(0), "{output:?}");
    assert_eq!(world.borrow().asked, ["Reload", "ResetFailedUnit new.service"]);
}

/// Asks the run to stop, and returns when its process has heard of it: the signal waits there to be looked at.
fn cancel(life: &Life, run: RunId) {
    let supervisor = supervisor(life, run);
    let children = format!("/proc/{supervisor}/task/{supervisor}/children");
    let child = std::fs::read_to_string(children).unwrap();
    let child = child.split_ascii_whitespace().next().unwrap().to_owned();
    life.runs.cancel(run, CancelCause::Requested);
    let is_asked = || {
        let status = std::fs::read_to_string(format!("/proc/{child}/status")).unwrap();
        let pending = status.lines().find_map(|line| line.strip_prefix("ShdPnd:")).unwrap();
        u64::from_str_radix(pending.trim(), 16).unwrap() & (1 << (libc::SIGTERM - 1)) != 0
    };
    while !is_asked() {
        std::thread::yield_now();
    }
}

/// Asked to stop, what was done is undone, and what was not begun is not begun for that.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_before_the_restart_leaves_the_unit_alone() {
    let Some(Site { machine, _bus, world, units, .. }) = site("a stop before the restart of a unit") else {
        return;
    };
    let life = machine.start(boot(1));
    done(&life, &asking(ONE)).await;
    world.send_modify(|world| {
        world.asked.clear();
        world.holds_reload = true;
    });
    let request = Request { limits: Limits { grace_ms: 20_000, ..script("").limits }, ..asking(TWO) };
    let progress = life.begin(&request).await;
    drop(world.subscribe().wait_for(|world| world.asked == ["Reload"]).await.unwrap());
    cancel(&life, request.run);
    world.send_modify(|world| world.holds_reload = false);
    let end = finished(progress).await;
    let output = life.output(request.run, &end);
    assert_eq!(end.outcome, Outcome::Cancelled, "{output:?}");
    let file = std::fs::read_to_string(units.join("app.service")).unwrap();
    assert_eq!(file, "[Service]\nExecStart=/bin/true\n");
    assert_eq!(world.borrow().asked, ["Reload", "Reload"], "nobody touched the unit");
}

/// What brings back how the host was comes to its end, also when it is asked to stop.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_cut_short_what_brings_the_unit_back() {
    let Some(Site { machine, _bus, world, units, happens }) = site("a stop while a unit is brought back")
    else {
        return;
    };
    let life = machine.start(boot(1));
    done(&life, &asking(ONE)).await;
    world.send_modify(|world| {
        world.asked.clear();
        world.result = Some("failed");
    });
    let request = Request { limits: Limits { grace_ms: 20_000, ..script("").limits }, ..asking(TWO) };
    let progress = life.begin(&request).await;
    let mut seen = world.subscribe();
    drop(seen.wait_for(|world| world.asked.len() == 2).await.unwrap());
    world.send_modify(|world| world.result = None);
    drop(seen.wait_for(|world| world.asked.len() == 5).await.unwrap());
    cancel(&life, request.run);
    world.send_modify(|world| {
        world.units.insert("app.service".into(), ("loaded", "active".into(), 60));
    });
    happens.send(Event::JobDone).unwrap();
    let end = finished(progress).await;
    let output = life.output(request.run, &end);
    let told = text(&output.stderr);
    assert_eq!(end.outcome, Outcome::Cancelled, "{told}");
    let file = std::fs::read_to_string(units.join("app.service")).unwrap();
    assert_eq!(file, "[Service]\nExecStart=/bin/true\n");
    assert!(text(&output.stdout).contains("app.service is active"), "{output:?}");
    assert!(!told.contains("was active before, and is"), "{told}");
}

#[tokio::test]
async fn a_drop_in_is_written_and_removed() {
    let Some(Site { machine, _bus, world, units, .. }) = site("a drop-in") else { return };
    let life = machine.start(boot(1));
    let write = r#"{"unit":"app","drop_in":"limits","verb":"write","sections":{"Service":{"MemoryMax":"1G"}},"then":"try-restart"}"#;
    let rehearsal = Request { authority: Authority::Rehearse, ..asking(write) };
    let (outcome, output) = done(&life, &rehearsal).await;
    assert_eq!(outcome, Outcome::Exited(0), "{}", text(&output.stderr));
    let preview: Preview = serde_json::from_value(output.report.unwrap()).unwrap();
    let changes: Vec<&str> = preview.changes.iter().map(|change| change.what.as_str()).collect();
    let file = units.join("app.service.d/limits.conf");
    assert_eq!(changes, [&format!("write {}", file.display()), "daemon-reload", "restart app.service"]);
    let diff: Vec<&str> = preview.changes[0].diff.iter().map(|line| line.as_str()).collect();
    assert_eq!(diff, ["@@ -0,0 +1,2 @@", "+[Service]", "+MemoryMax=1G"]);
    assert!(world.borrow().asked.is_empty() && !file.exists(), "it was a dry run");
    let (outcome, output) = done(&life, &asking(write)).await;
    assert_eq!(outcome, Outcome::Exited(0), "{}", text(&output.stderr));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "[Service]\nMemoryMax=1G\n");
    let remove = r#"{"unit":"app","drop_in":"limits","verb":"remove"}"#;
    for changed in [true, false] {
        let (outcome, output) = done(&life, &asking(remove)).await;
        assert_eq!(
            (outcome, report(&output).changed),
            (Outcome::Exited(0), changed),
            "{}",
            text(&output.stderr)
        );
        assert!(!file.exists());
    }
}

#[tokio::test]
async fn what_cannot_be_is_told_before_anything_is_written() {
    let Some(Site { machine, _bus, world, units, .. }) = site("refusing a unit's file") else { return };
    let life = machine.start(boot(1));
    std::os::unix::fs::symlink("/dev/null", units.join("masked.service")).unwrap();
    std::os::unix::fs::symlink("app.service", units.join("linked-other.service")).unwrap();
    std::fs::write(units.join("many@.service"), "[Service]\n").unwrap();
    std::fs::write(units.join("app.service"), "[Service]\n").unwrap();
    let drop_in = |unit: &str| {
        format!(
            r#"{{"unit":"{unit}","drop_in":"x","verb":"write","text":"[Service]\nExecStart=/bin/false\n"}}"#
        )
    };
    world.send_modify(|world| {
        world.own = Some("fleetward-agent.service");
        world.aliases.insert("other-name.service", "app.service");
        world.units.insert("masked-today.service".into(), ("masked", "inactive".into(), 0));
        world.units.insert("many@4.service".into(), ("loaded", "inactive".into(), 0));
        world.units.insert("many@5.service".into(), ("loaded", "active".into(), 53));
        for (unit, pid) in
            [("fleetward-agent.service", 50), ("needed-by-agent.service", 51), ("needed@x.service", 52)]
        {
            world.units.insert(unit.into(), ("loaded", "active".into(), pid));
        }
        world.dependencies.insert(
            ("fleetward-agent.service", "Requires"),
            vec!["needed-by-agent.service", "needed@x.service"],
        );
        world.dependencies.insert(("needed-by-agent.service", "Names"), vec!["also-needed.service"]);
    });
    let with_text = |unit: &str, text: &str| format!(r#"{{"unit":"{unit}","verb":"write","text":"{text}"}}"#);
    for (params, told) in [
        (with_text("fleetward-agent", "[Service]"), "this host's agent is started by it"),
        // systemd puts these on the agent's unit, on one that it needs, and on one that it knows by another name.
        (drop_in("fleetward-"), "is for fleetward-agent.service, too"),
        (drop_in("needed-by-"), "is for needed-by-agent.service, too"),
        (drop_in("also-"), "is for also-needed.service, too"),
        (with_text("needed@", "[Service]"), "is for needed@x.service, too"),
        (drop_in("needed@"), "is for needed@x.service, too"),
        (drop_in("dbus-"), "is for dbus-broker.service, too"),
        (with_text("masked", "[Service]"), "is a link, or no file"),
        // A drop-in of it would be read for another unit, or for none.
        (drop_in("masked"), "is a link, or no file"),
        (drop_in("linked-other"), "is a link, or no file"),
        (drop_in("other-name"), "other-name.service is another name of app.service"),
        (drop_in("masked-today"), "masked-today.service is masked"),
        (
            with_text("new", r"[Service]\nExecStart=/nonexistent/app"),
            "systemd would not take this file of new.service",
        ),
        (r#"{"unit":"app","verb":"remove"}"#.to_owned(), "app.service is active, and has no other file"),
        (r#"{"unit":"app","verb":"revert"}"#.to_owned(), "no earlier version"),
        (
            r#"{"unit":"many@","verb":"remove"}"#.to_owned(),
            "many@5.service is active, and many@.service is its only file",
        ),
    ] {
        let (outcome, output) = done(&life, &asking(&params)).await;
        assert_eq!(outcome, Outcome::Exited(1), "{params}: {output:?}");
        assert!(text(&output.stderr).contains(told), "{params}: {}", text(&output.stderr));
    }
    assert!(world.borrow().asked.is_empty() && !units.join("new.service").exists());
}

/// A host that lost power in the middle of a change, in its next boot.
#[test]
fn a_run_that_a_power_cut_ended_goes_on_and_does_nothing_twice() {
    let digest = Digest::of(b"app.service").to_string();
    let (began, done) = (Step::Began(Text::of("write")), Step::Done(Text::of("write")));
    let (old, new) = ("[Service]\nExecStart=/bin/false\n", "[Service]\nExecStart=/bin/true\n");
    // What is asked for, what its steps say, what is in the place, what is beside it, and what is kept already.
    for (params, steps, there, beside, kept) in [
        (ONE, vec![], old, None, None),
        (ONE, vec![began.clone()], old, Some("linked"), None),
        (ONE, vec![began.clone()], new, Some(old), None),
        (ONE, vec![began.clone(), done.clone()], new, Some(old), None),
        (ONE, vec![began.clone(), done.clone()], new, None, Some(old)),
        (REVERT, vec![began.clone()], old, Some("linked"), Some(new)),
        (REVERT, vec![began, done], new, None, Some(new)),
    ] {
        let Some(Site { machine, _bus, world, units, .. }) =
            site("a power cut while a unit's file is written")
        else {
            return;
        };
        let file = units.join("app.service");
        std::fs::write(&file, there).unwrap();
        let near = |what: &str| units.join(format!(".fleetward-{}.{what}", &digest[..16]));
        match beside {
            Some("linked") => {
                std::fs::hard_link(&file, near("old")).unwrap();
                std::fs::write(near("new"), "[Serv").unwrap();
            }
            Some(text) => std::fs::write(near("old"), text).unwrap(),
            None => {}
        }
        let name = ".app.service.fleetward-20260101T000000Z";
        if let Some(text) = kept {
            std::fs::write(units.join(name), text).unwrap();
        }
        let request = asking(params);
        started_before(&machine, &request, Duration::from_secs(1), true);
        let directory = machine.paths().runs().join(request.run.to_string());
        let (mut journal, _) = StepJournal::open(&directory).unwrap();
        steps.iter().for_each(|step| journal.append(step).unwrap());
        if params == REVERT {
            journal.remember(&serde_json::to_vec(name).unwrap()).unwrap();
            // What it put in the place of is kept by now, behind what it brought back.
            std::fs::write(units.join(".app.service.fleetward-20260102T000000Z"), old).unwrap();
        }
        let (end, output) = runtime().block_on(async {
            let life = machine.start(boot(2));
            let end = finished(life.resume(request.run).await).await;
            let output = life.output(request.run, &end);
            (end, output)
        });
        let case = format!("{params} {steps:?} {beside:?}: {output:?}");
        assert_eq!(end.outcome, Outcome::Exited(0), "{case}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), new, "{case}");
        assert!(!near("old").exists() && !near("new").exists(), "{case}");
        assert!(report(&output).changed, "{case}");
        assert!(world.borrow().asked.iter().all(|asked| asked == "Reload"), "{case}");
    }
}

/// The process of a run whose supervisor was killed works on: whoever comes next waits for it.
#[tokio::test]
async fn what_a_killed_supervisor_left_at_work_is_waited_for() {
    let Some(Site { machine, _bus, world, units, .. }) = site("an orphan at work") else { return };
    let life = machine.start(boot(1));
    let lock = Digest::of(b"unit/app.service").to_string();
    let locks = machine.paths().state.join("locks");
    std::fs::create_dir(&locks).unwrap();
    let held = std::fs::File::create(locks.join(&lock[..16])).unwrap();
    held.lock().unwrap();
    let request = asking(ONE);
    let mut progress = life.begin(&request).await;
    written(&mut progress, 1).await;
    assert!(!units.join("app.service").exists() && world.borrow().asked.is_empty());
    drop(held);
    let end = finished(progress).await;
    let output = life.output(request.run, &end);
    assert_eq!(end.outcome, Outcome::Exited(0));
    assert!(text(&output.stdout).starts_with("waiting for what an earlier run"), "{output:?}");
    assert!(units.join("app.service").exists());
}

/// Two units are two things, whatever their names: who works on one does not wait for who works on the other.
#[tokio::test]
async fn runs_for_different_units_do_not_wait_for_each_other() {
    let Some(Site { machine, _bus, world, units, happens }) = site("runs for different units") else {
        return;
    };
    let life = machine.start(boot(1));
    let digest = |unit: &str| Digest::of(format!("unit/{unit}.service").as_bytes()).to_string();
    let other =
        (0..).map(|number| format!("other{number}")).find(|name| digest(name)[..2] == digest("app")[..2]);
    let other = other.unwrap();
    world.send_modify(|world| world.result = None);
    let first = asking(TWO);
    let working = life.begin(&first).await;
    drop(world.subscribe().wait_for(|world| world.asked.len() == 2).await.unwrap());
    // What nobody has had for long goes, unless somebody has it.
    let locks = machine.paths().state.join("locks");
    let old = |name: &str| {
        let file = std::fs::File::create(locks.join(name)).unwrap();
        file.set_modified(std::time::SystemTime::now() - Duration::from_secs(2 * 24 * 3600)).unwrap();
        file
    };
    drop(old("unused"));
    let held = old("held");
    held.lock().unwrap();
    let second = Request {
        limits: Limits { timeout_ms: 20_000, ..script("").limits },
        ..asking(&ONE.replace("app", &other))
    };
    let (outcome, output) = done(&life, &second).await;
    assert_eq!(outcome, Outcome::Exited(0), "{output:?}");
    assert!(!text(&output.stdout).contains("waiting"), "{output:?}");
    assert!(units.join(format!("{other}.service")).exists());
    let mut left: Vec<_> =
        std::fs::read_dir(&locks).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    let mut wanted = [&digest("app")[..16], &digest(&other)[..16], "held"];
    wanted.sort();
    assert_eq!(left, wanted);
    happens.send(Event::JobDone).unwrap();
    finished(working).await;
}
