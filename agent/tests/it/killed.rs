//! Only the process of a typed action dies, in the middle of a step: another one goes on in its place.

use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use fleetward_agent::run::{Progress, Stage};
use fleetward_protocol::action::unit::{Unit, Verb};
use fleetward_protocol::action::unit_content::UnitContent;
use fleetward_protocol::action::unit_file::{FileVerb, UnitFile};
use fleetward_protocol::action::{ActionRequest, Contract};
use fleetward_protocol::digest::Digest;
use fleetward_protocol::id::RunId;
use fleetward_protocol::run::{CancelCause, Outcome};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::watch;

use crate::host::{Life, Machine, Output, Request, boot, finished, script, written};
use crate::resume::supervisor;
use crate::systemd::{Bus, Shared, World, machine};

/// A machine with a bus, our systemd on it, and a directory for its units.
struct Site {
    machine: Machine,
    _bus: Bus,
    world: Shared,
}

/// `None` where there can be none here.
fn site(test: &str) -> Option<Site> {
    let mut world = World { result: Some("done"), ..World::default() };
    world.units.insert("app.service".into(), ("loaded", "active".into(), 40));
    world.units.insert("off.service".into(), ("loaded", "inactive".into(), 0));
    world.units.insert("once.service".into(), ("loaded", "inactive".into(), 0));
    let (machine, _bus, world, _) = machine(test, world)?;
    let units = machine.path("etc/systemd/system");
    std::fs::create_dir_all(&units).unwrap();
    world.send_modify(|world| world.directory = Some(units.display().to_string()));
    Some(Site { machine, _bus, world })
}

fn asking(action: &impl Contract) -> Request {
    Request { typed: Some(ActionRequest::new(action).unwrap()), content: String::new(), ..script("") }
}

fn writing(text: &str, then: &str) -> Request {
    let params = format!(r#"{{"unit":"app","verb":"write","text":"{text}","then":"{then}","settle_s":0}}"#);
    asking(&serde_json::from_str::<UnitContent>(&params).unwrap())
}

/// What the run's supervisor has started.
fn process(supervisor: i32) -> Pid {
    let children = std::fs::read_to_string(format!("/proc/{supervisor}/task/{supervisor}/children")).unwrap();
    Pid::from_raw(children.split_ascii_whitespace().next().expect("a process").parse().unwrap())
}

impl Site {
    /// Waits until systemd was asked for so much, and kills who asked.
    async fn kill(&self, life: &Life, run: RunId, asked: usize) {
        drop(self.world.subscribe().wait_for(|world| world.asked.len() == asked).await.unwrap());
        kill(process(supervisor(life, run)), Signal::SIGKILL).unwrap();
    }

    fn asked(&self) -> Vec<String> {
        self.world.borrow().asked.clone()
    }

    fn ignores(&self, is_ignored: bool) {
        self.world.send_modify(|world| world.ignores_reload = is_ignored);
    }
}

async fn end(life: &Life, run: RunId, progress: watch::Receiver<Progress>) -> (Outcome, Output) {
    let end = finished(progress).await;
    let output = life.output(run, &end);
    (end.outcome, output)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

const FIRST: &str = r"[Service]\nExecStart=/bin/true\n";
const SECOND: &str = r"[Service]\nExecStart=/bin/false\n";

#[tokio::test]
async fn the_file_of_a_unit_is_put_to_use_by_the_next_process() {
    let Some(site) = site("a process that is killed") else { return };
    let life = site.machine.start(boot(1));
    site.ignores(true);
    let request = writing(FIRST, "nothing");
    let progress = life.begin(&request).await;
    site.world.subscribe().wait_for(|world| world.asked.len() == 1).await.unwrap();
    site.ignores(false);
    site.kill(&life, request.run, 1).await;
    let (outcome, output) = end(&life, request.run, progress).await;
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(outcome, Outcome::Exited(0), "{stderr}");
    let place = "in its step `daemon-reload`, which may have happened";
    assert!(
        stdout.contains(&format!("the process of this run was killed; taken up again {place}\n")),
        "{stdout}"
    );
    let told = format!(
        "fleetward: the process of this run was killed (SIGKILL) {place}; it is started again, to come to an end (1 of 2)\n"
    );
    assert_eq!(stderr, told);
    assert_eq!(site.asked(), ["Reload", "Reload"], "whether systemd had read it nobody knows");
    assert_eq!(output.report.unwrap()["changed"], true);
    let units = site.machine.path("etc/systemd/system");
    assert_eq!(std::fs::read_to_string(units.join("app.service")).unwrap(), FIRST.replace(r"\n", "\n"));
    assert_eq!(std::fs::read_dir(&units).unwrap().count(), 1, "nothing else stands there");
    // Its unit is free.
    let later = writing(FIRST, "nothing");
    assert_eq!(life.finish(&later).await.outcome, Outcome::Exited(0));
}

/// Whether a unit was started anew cannot be told: what was written is taken back, and the unit is brought back with that.
#[tokio::test]
async fn what_cannot_be_finished_is_undone() {
    let Some(site) = site("a process that is killed while it waits for a job") else { return };
    let life = site.machine.start(boot(1));
    assert_eq!(life.finish(&writing(FIRST, "nothing")).await.outcome, Outcome::Exited(0));
    site.world.send_modify(|world| (world.asked, world.result) = (Vec::new(), None));
    let request = writing(SECOND, "restart");
    let progress = life.begin(&request).await;
    site.world.subscribe().wait_for(|world| world.asked.len() == 2).await.unwrap();
    site.world.send_modify(|world| world.result = Some("done"));
    site.kill(&life, request.run, 2).await;
    let (outcome, output) = end(&life, request.run, progress).await;
    let stderr = text(&output.stderr);
    assert_eq!(outcome, Outcome::Exited(2), "{stderr}");
    assert!(
        stderr.contains("`restart app.service` had begun before the process of this run was killed, and whether it was done cannot be told"),
        "{stderr}"
    );
    let restart = "RestartUnit app.service replace";
    let forgotten = "ResetFailedUnit app.service";
    assert_eq!(site.asked(), ["Reload", restart, "Reload", "Reload", forgotten, restart]);
    let units = site.machine.path("etc/systemd/system");
    assert_eq!(std::fs::read_to_string(units.join("app.service")).unwrap(), FIRST.replace(r"\n", "\n"));
    assert_eq!(std::fs::read_dir(&units).unwrap().count(), 1, "nothing else stands there");
}

#[tokio::test]
async fn a_process_that_dies_each_time_comes_to_an_end_and_says_what_may_be_half_done() {
    let Some(site) = site("a process that is killed each time") else { return };
    let life = site.machine.start(boot(1));
    site.ignores(true);
    let request = writing(FIRST, "nothing");
    let progress = life.begin(&request).await;
    for asked in 1..=3 {
        site.kill(&life, request.run, asked).await;
    }
    let (outcome, output) = end(&life, request.run, progress).await;
    let stderr = text(&output.stderr);
    assert_eq!(outcome, Outcome::Signalled(9), "{stderr}");
    let told = "fleetward: the process of this run was killed (SIGKILL) in its step `daemon-reload`, which may have happened; \
                it was started again 2 times, and is not once more; what it had begun may be half done: look at it on the host\n";
    assert!(stderr.ends_with(told) && stderr.contains("(2 of 2)"), "{stderr}");
    assert_eq!(site.asked(), ["Reload"; 3]);
    site.ignores(false);
    assert_eq!(life.finish(&writing(FIRST, "nothing")).await.outcome, Outcome::Exited(0), "its unit is free");
}

/// Who does not end when asked to is killed; that is what was wanted.
#[tokio::test]
async fn what_a_stop_has_killed_stays_dead() {
    let Some(site) = site("a process that does not hear") else { return };
    let life = site.machine.start(boot(1));
    site.ignores(true);
    let request = writing(FIRST, "nothing");
    let progress = life.begin(&request).await;
    site.world.subscribe().wait_for(|world| world.asked.len() == 1).await.unwrap();
    life.runs.cancel(request.run, CancelCause::Requested);
    let (outcome, output) = end(&life, request.run, progress).await;
    let stderr = text(&output.stderr);
    assert_eq!(outcome, Outcome::Cancelled, "{stderr}");
    assert!(stderr.contains("(SIGKILL) in its step `daemon-reload`, which may have happened; the run was being stopped, and does not go on; what it had begun may be half done"), "{stderr}");
    assert_eq!(site.asked(), ["Reload"]);
}

/// The host has not restarted, so nothing was done by a boot.
#[tokio::test]
async fn a_unit_is_looked_at_as_it_is() {
    for (verb, name, outcome, asked, told) in [
        (Verb::Start, "off.service", 0, 2, "off.service is active"),
        (Verb::Stop, "app.service", 0, 2, "app.service is inactive"),
        (Verb::Restart, "app.service", 1, 1, "whether it was done cannot be told"),
        (Verb::Start, "once.service", 1, 1, "it is a service that does its work once"),
    ] {
        let Some(site) = site("a process that is killed while a unit changes") else { return };
        let life = site.machine.start(boot(1));
        site.world.send_modify(|world| world.result = None);
        let unit = Unit { settle_s: 0, ..Unit::new(name.parse().unwrap(), verb) };
        let request = asking(&unit);
        let progress = life.begin(&request).await;
        site.world.subscribe().wait_for(|world| world.asked.len() == 1).await.unwrap();
        site.world.send_modify(|world| world.result = Some("done"));
        site.kill(&life, request.run, 1).await;
        let (ended, output) = end(&life, request.run, progress).await;
        let said = text(&output.stdout) + &text(&output.stderr);
        assert_eq!(ended, Outcome::Exited(outcome), "{verb}: {said}");
        assert!(said.contains(told) && !said.contains("host restarted"), "{verb}: {said}");
        assert_eq!(site.asked().len(), asked, "{verb}: {:?}", site.asked());
    }
}

/// Links that were made have to be read: no boot does that.
#[tokio::test]
async fn systemd_reads_links_that_may_have_been_made() {
    let Some(site) = site("a process that is killed while links are made") else { return };
    let life = site.machine.start(boot(1));
    site.world.send_modify(|world| {
        world.files.insert("off.service".into(), "disabled");
        world.holds_links = true;
    });
    let unit = UnitFile { unit: "off.service".parse().unwrap(), verb: FileVerb::Enable };
    let request = asking(&unit);
    let progress = life.begin(&request).await;
    site.world.subscribe().wait_for(|world| world.asked.len() == 1).await.unwrap();
    site.world.send_modify(|world| {
        world.files.insert("off.service".into(), "enabled");
        world.holds_links = false;
    });
    site.kill(&life, request.run, 1).await;
    let (outcome, output) = end(&life, request.run, progress).await;
    assert_eq!(outcome, Outcome::Exited(0), "{output:?}");
    assert_eq!(site.asked(), ["EnableUnitFiles off.service", "Reload"]);
    assert_eq!(output.report.unwrap()["changed"], true);
}

/// Waits until it was said so often that the host was asked to reboot.
async fn said(life: &Life, run: RunId, progress: &mut watch::Receiver<Progress>, times: usize) {
    loop {
        let length = progress.borrow().output;
        let log = life.runs.read_output(run, 0, length.try_into().unwrap(), Vec::new()).unwrap();
        if String::from_utf8_lossy(&log).matches("the host was asked to reboot").count() == times {
            return;
        }
        written(progress, length + 1).await;
    }
}

/// Who waited for the host to go down is killed, by a shutdown that has no patience for example: it goes down all the same, and the
/// next boot goes on with it.
#[test]
fn a_host_that_was_asked_to_reboot_goes_down_once() {
    let Some(site) = site("a process that is killed while it waits for a reboot") else { return };
    let typed = Some(ActionRequest { kind: "reboot".into(), params: "{}".into() });
    let request = Request { typed, content: String::new(), ..script("") };
    for is_going_down in [false, true] {
        let request = Request { operation: script("").operation, ..request.clone() };
        let request =
            Request { run: RunId::derived(request.operation, &crate::host::client(), 0), ..request };
        site.world.send_modify(|world| world.asked.clear());
        crate::resume::runtime().block_on(async {
            let life = site.machine.start(boot(if is_going_down { 3 } else { 1 }));
            let mut progress = life.begin(&request).await;
            site.world.subscribe().wait_for(|world| world.asked.len() == 1).await.unwrap();
            said(&life, request.run, &mut progress, 1).await;
            site.world.send_modify(|world| world.stopping = is_going_down);
            site.kill(&life, request.run, 1).await;
            // The next process has asked again, or has seen that this is not needed.
            said(&life, request.run, &mut progress, 2).await;
            crate::resume::cut_power(&life, request.run);
        });
        assert_eq!(site.asked(), vec!["Reboot"; if is_going_down { 1 } else { 2 }]);
        site.world.send_modify(|world| world.stopping = false);
        crate::resume::runtime().block_on(async {
            let life = site.machine.start(boot(if is_going_down { 4 } else { 2 }));
            let progress = life.resume(request.run).await;
            let (outcome, output) = end(&life, request.run, progress).await;
            assert_eq!(outcome, Outcome::Exited(0), "{output:?}");
            assert_eq!(output.report.unwrap()["changed"], true);
        });
    }
}

/// Tells when a name of ours appears in a directory.
struct Eye(OwnedFd);

impl Eye {
    fn on(directory: &Path) -> Self {
        let path = std::ffi::CString::new(directory.as_os_str().as_bytes()).unwrap();
        // SAFETY: takes integers; the descriptor is ours alone.
        let eye = unsafe { OwnedFd::from_raw_fd(libc::inotify_init1(libc::IN_CLOEXEC)) };
        // SAFETY: the path ends with a zero.
        let watch = unsafe { libc::inotify_add_watch(eye.as_raw_fd(), path.as_ptr(), libc::IN_CREATE) };
        assert!(watch >= 0, "{}", std::io::Error::last_os_error());
        Self(eye)
    }

    /// Blocks until something was made.
    fn sees(&self) {
        let mut event = [0; 4096];
        assert!(nix::unistd::read(&self.0, &mut event).unwrap() > 0);
    }
}

/// The process is killed when the new file stands beside its place, which is before that is whole. Should it have been quicker, it
/// is tried again.
#[tokio::test]
async fn a_file_that_was_half_written_is_written() {
    if !nix::unistd::geteuid().is_root() {
        return crate::host::skipped("a process that is killed while it writes", "files need root");
    }
    let machine = Machine::new();
    let life = machine.start(boot(1));
    let mut hits = 0;
    for attempt in 0..30 {
        let place = machine.path(&format!("place-{attempt}"));
        std::fs::create_dir(&place).unwrap();
        let path = place.join("app.conf");
        std::fs::write(&path, "old").unwrap();
        let content = "x".repeat(256 << 10);
        let params = format!(
            r#"{{"path":"{}","state":"present","content":"{content}","backup":true}}"#,
            path.display()
        );
        let request =
            asking(&serde_json::from_str::<fleetward_protocol::action::file::File>(&params).unwrap());
        let resource =
            serde_json::from_str::<fleetward_protocol::action::file::File>(&params).unwrap().needs();
        // It waits for this lock, so that its process is known before it begins.
        let lock = Digest::of(resource.resources[0].as_str().as_bytes()).to_string();
        let locks = machine.paths().state.join("locks");
        std::fs::create_dir_all(&locks).unwrap();
        let held = std::fs::File::create(locks.join(&lock[..2])).unwrap();
        held.lock().unwrap();
        let mut progress = life.begin(&request).await;
        written(&mut progress, 1).await;
        assert!(matches!(progress.borrow().stage, Stage::Running { .. }));
        let process = process(supervisor(&life, request.run));
        let eye = Eye::on(&place);
        drop(held);
        eye.sees();
        // It may have ended by now.
        let _ = kill(process, Signal::SIGKILL);
        let (outcome, output) = end(&life, request.run, progress).await;
        let said = text(&output.stdout);
        assert_eq!(outcome, Outcome::Exited(0), "{output:?}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
        let report = output.report.unwrap();
        assert_eq!((&report["changed"], report["backup"].is_string()), (&true.into(), true), "{report}");
        let kept = std::fs::read_to_string(report["backup"].as_str().unwrap()).unwrap();
        assert_eq!((kept.as_str(), std::fs::read_dir(&place).unwrap().count()), ("old", 2));
        hits += usize::from(
            said.contains("was killed; taken up again in its step `write`, which may have happened"),
        );
        if hits >= 3 {
            return;
        }
    }
    panic!("it was never killed in the middle of it");
}
