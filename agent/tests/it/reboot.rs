//! The kind `reboot`, with a real message bus, a systemd and a logind of our own on it: the host goes down, and the next boot goes
//! on with the run.

use fleetward_agent::run::spool::SPOOL;
use fleetward_agent::run::{Opened, Stage};
use fleetward_protocol::action::reboot::RebootReport;
use fleetward_protocol::action::{ActionRequest, Preview};
use fleetward_protocol::message::{Finished, OpenRun};
use fleetward_protocol::order::Authority;
use fleetward_protocol::run::{CancelCause, Outcome, Refusal};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::runtime::Runtime;

use crate::host::{Life, Machine, Output, Request, boot, exited, finished, last, script};
use crate::resume::supervisor;
use crate::systemd::{Bus, Shared, World, machine};

struct Site {
    machine: Machine,
    world: Shared,
    _bus: Bus,
}

/// Services that a boot brings back, one that somebody needs now and then, and one that belongs to nobody.
fn site(test: &str) -> Option<Site> {
    let mut world = World::default();
    for (unit, active, file) in [
        ("web.service", "active", "enabled"),
        ("by-hand.service", "active", "disabled"),
        ("on-demand.service", "active", "static"),
        ("of-a-run.service", "active", "transient"),
        ("user@0.service", "active", "static"),
        ("worn.service", "failed", "enabled"),
        ("off.service", "inactive", "enabled"),
    ] {
        world.units.insert(unit.into(), ("loaded", active.into(), 4));
        world.files.insert(unit.into(), file);
    }
    world.dependencies.insert(("web.service", "WantedBy"), vec!["multi-user.target"]);
    world.dependencies.insert(("on-demand.service", "TriggeredBy"), vec!["on-demand.socket"]);
    world.dependencies.insert(("user@0.service", "WantedBy"), vec!["session-1.scope"]);
    let (machine, _bus, world, _) = machine(test, world)?;
    Some(Site { machine, world, _bus })
}

fn request(params: &str) -> Request {
    let typed = Some(ActionRequest { kind: "reboot".into(), params: params.into() });
    Request { typed, content: String::new(), ..script("") }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn report(output: &Output) -> RebootReport {
    serde_json::from_value(output.report.clone().expect("a report")).unwrap()
}

impl Site {
    /// Begins the run and returns when systemd was asked.
    async fn ask(
        &self,
        life: &Life,
        request: &Request,
    ) -> tokio::sync::watch::Receiver<fleetward_agent::run::Progress> {
        let progress = life.begin(request).await;
        let asked = |world: &World| world.asked.iter().any(|asked| asked.starts_with("Reboot"));
        drop(self.world.subscribe().wait_for(asked).await.unwrap());
        progress
    }

    /// Reboots: the agent is stopped first, then everything is told to end, and then there is another boot.
    fn reboot(&self, request: &Request) {
        let runtime = runtime();
        let supervisor = runtime.block_on(async {
            let life = self.machine.start(boot(1));
            drop(self.ask(&life, request).await);
            supervisor(&life, request.run)
        });
        drop(runtime);
        self.world.send_modify(|world| world.stopping = true);
        // As systemd-shutdown(8) does. The supervisor does not listen to it, and must not be waited for all the same.
        let children =
            std::fs::read_to_string(format!("/proc/{supervisor}/task/{supervisor}/children")).unwrap();
        let child = children.split_ascii_whitespace().next().unwrap().parse().unwrap();
        for pid in [supervisor, child] {
            kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
        }
        exited(supervisor);
        let directory = self.machine.paths().runs().join(request.run.to_string());
        assert!(!directory.join("result").exists(), "it has no end yet");
        self.world.send_modify(|world| world.stopping = false);
    }

    fn is(&self, unit: &str, active: &str) {
        self.world.send_modify(|world| {
            world.units.insert(unit.into(), ("loaded", active.into(), 9));
        });
    }

    /// The run's end in the next boot.
    fn end(&self, request: &Request) -> (Finished, Output) {
        runtime().block_on(async {
            let life = self.machine.start(boot(2));
            let open = OpenRun { run: request.run, offset: 0, started: true, cancel: None, dispatch: None };
            let Opened::Held(progress) = life.runs.open(open).await else { panic!("unknown") };
            let end = finished(progress).await;
            let output = life.output(request.run, &end);
            (end, output)
        })
    }
}

#[test]
fn a_host_goes_down_and_comes_back_with_all_that_ran() {
    let Some(site) = site("a reboot") else { return };
    let request = request("{}");
    site.reboot(&request);
    // What starts when it is needed, and what somebody ran, is not waited for.
    site.is("on-demand.service", "inactive");
    site.is("of-a-run.service", "inactive");
    site.is("user@0.service", "inactive");
    let (end, output) = site.end(&request);
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!((end.outcome, stderr), (Outcome::Exited(0), String::new()), "{stdout}");
    let told = report(&output);
    assert_eq!((told.changed, told.missing.len(), told.failed.len()), (true, 0, 0));
    assert_eq!(told.boot_before.as_str(), boot(1).to_string());
    assert_eq!(told.boot_after.as_deref(), Some(boot(2).to_string().as_str()));
    assert_eq!((told.system.as_deref(), told.down_for_ms.is_some()), (Some("running"), true));
    assert!(stdout.contains("5 services are active, 2 of them are to come back"), "{stdout}");
    assert!(stdout.contains("not done again after the restart of the host: reboot"), "{stdout}");
    assert_eq!(site.world.borrow().asked, ["Reboot"], "once");
}

#[test]
fn what_does_not_come_back_is_named_and_the_run_fails() {
    let Some(site) = site("services that stay away") else { return };
    let request = request("{}");
    site.reboot(&request);
    site.is("by-hand.service", "inactive");
    site.is("web.service", "failed");
    site.world.send_modify(|world| world.starting = true);
    let world = std::sync::Arc::clone(&site.world);
    // The boot comes to its end only when somebody has looked.
    let (end, output) = std::thread::scope(|scope| {
        scope.spawn(|| {
            let directory = site.machine.paths().runs().join(request.run.to_string());
            let says = |words: &str| {
                let log = std::fs::read(directory.join(SPOOL)).unwrap_or_default();
                String::from_utf8_lossy(&log).contains(words)
            };
            while !says("systemd is starting") {
                std::thread::yield_now();
            }
            world.send_modify(|world| world.starting = false);
        });
        site.end(&request)
    });
    assert_eq!(end.outcome, Outcome::Exited(1));
    let (told, stderr) = (report(&output), text(&output.stderr));
    let names = |names: &[fleetward_protocol::text::Word]| {
        names.iter().map(|name| name.to_string()).collect::<Vec<_>>()
    };
    let mut missing = names(&told.missing);
    missing.sort();
    assert_eq!(missing, ["by-hand.service", "web.service"]);
    assert_eq!(names(&told.failed), ["web.service"], "what had failed before is no news");
    assert!(stderr.contains("the host is back without") && stderr.contains("wants `enable`"), "{stderr}");
}

#[tokio::test]
async fn whoever_wants_the_host_to_stay_up_is_heard() {
    let Some(site) = site("inhibitors") else { return };
    site.world.send_modify(|world| {
        world.inhibitors = vec![
            ("sleep", "nobody", "block"),
            ("shutdown:sleep", "backup", "block"),
            ("shutdown", "editor", "delay"),
        ];
    });
    let life = site.machine.start(boot(1));
    let refused = request("{}");
    let end = life.finish(&refused).await;
    let output = life.output(refused.run, &end);
    assert_eq!(end.outcome, Outcome::Exited(1));
    let told = text(&output.stderr);
    assert!(told.contains("somebody wants the host to stay up: backup (process 4): at work\n"), "{told}");
    assert!(text(&output.stdout).contains("wait a moment: editor"), "{output:?}");
    // A dry run says so as well.
    let rehearsal = Request { authority: Authority::Rehearse, ..request("{}") };
    assert_eq!(life.finish(&rehearsal).await.outcome, Outcome::Exited(1));
    let rehearsal = Request { authority: Authority::Rehearse, ..request(r#"{"force":true}"#) };
    let end = life.finish(&rehearsal).await;
    let preview: Preview = serde_json::from_value(life.output(rehearsal.run, &end).report.unwrap()).unwrap();
    assert_eq!((end.outcome, preview.changes[0].what.as_str()), (Outcome::Exited(0), "reboot this host"));
    assert_eq!(site.world.borrow().asked, Vec::<String>::new());
    let forced = request(r#"{"force":true}"#);
    let progress = site.ask(&life, &forced).await;
    // Stopped before the host goes down, it says that it may.
    life.runs.cancel(forced.run, CancelCause::Requested);
    let end = finished(progress).await;
    let output = life.output(forced.run, &end);
    assert_eq!(end.outcome, Outcome::Cancelled);
    assert!(text(&output.stderr).contains("it may still go down"), "{output:?}");
    assert_eq!(site.world.borrow().asked, ["RebootWithFlags"]);
}

#[tokio::test]
async fn a_reboot_wants_the_host_alone() {
    let Some(site) = site("a busy host") else { return };
    let life = site.machine.start(boot(1));
    let busy = script("read -r line < pipe");
    let pipe = site.machine.path("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let busy = Request { content: busy.content.replace("pipe", &pipe.display().to_string()), ..busy };
    let busy = Request {
        script: fleetward_protocol::action::script::Script {
            digest: fleetward_protocol::digest::Digest::of(busy.content.as_bytes()),
            ..busy.script.clone()
        },
        ..busy
    };
    let mut running = life.begin(&busy).await;
    drop(running.wait_for(|progress| matches!(progress.stage, Stage::Running { .. })).await.unwrap());
    match life.refusal(&request("{}")).await {
        Refusal::Busy { detail } => assert!(detail.contains("1 run is under way"), "{detail}"),
        other => panic!("{other:?}"),
    }
    // A dry run says so as well, unless it does not matter.
    let rehearsal = |params| Request { authority: Authority::Rehearse, ..request(params) };
    match life.refusal(&rehearsal("{}")).await {
        Refusal::Busy { detail } => assert!(detail.contains("1 run is under way"), "{detail}"),
        other => panic!("{other:?}"),
    }
    let end = life.finish(&rehearsal(r#"{"while_busy":true}"#)).await;
    assert_eq!(end.outcome, Outcome::Exited(0));
    assert_eq!(site.world.borrow().asked, Vec::<String>::new());
    std::fs::write(&pipe, "go\n").unwrap();
    assert_eq!(finished(running).await.outcome, Outcome::Exited(0));
    // While it is at it nobody else starts.
    let reboot = request("{}");
    let progress = site.ask(&life, &reboot).await;
    let waits = script("echo late");
    let waiting = life.begin(&waits).await;
    assert_eq!(waiting.borrow().stage, Stage::Waiting);
    life.runs.cancel(reboot.run, CancelCause::Requested);
    last(progress).await;
    assert_eq!(finished(waiting).await.outcome, Outcome::Exited(0));
    // Who says that it does not matter is not kept.
    let busy = Request { operation: script("").operation, ..busy };
    let busy = Request {
        run: fleetward_protocol::id::RunId::derived(busy.operation, &crate::host::client(), 0),
        ..busy
    };
    let mut running = life.begin(&busy).await;
    drop(running.wait_for(|progress| matches!(progress.stage, Stage::Running { .. })).await.unwrap());
    site.world.send_modify(|world| world.asked.clear());
    let forced = request(r#"{"while_busy":true}"#);
    let progress = site.ask(&life, &forced).await;
    life.runs.cancel(forced.run, CancelCause::Requested);
    last(progress).await;
    std::fs::write(&pipe, "go\n").unwrap();
    finished(running).await;
}

#[tokio::test]
async fn where_no_reboot_is_wanted_nothing_is_done() {
    let Some(site) = site("a reboot that is not required") else { return };
    let life = site.machine.start(boot(1));
    let request = request(r#"{"only_if_required":true}"#);
    let end = life.finish(&request).await;
    let output = life.output(request.run, &end);
    assert_eq!((end.outcome, report(&output).changed), (Outcome::Exited(0), false));
    assert!(text(&output.stdout).contains("nothing on this host asks for a reboot"), "{output:?}");
    assert_eq!(site.world.borrow().asked, Vec::<String>::new());
    // A package asks for one.
    std::fs::write(&site.machine.reboot, "").unwrap();
    let wanted =
        Request { authority: Authority::Rehearse, ..crate::reboot::request(r#"{"only_if_required":true}"#) };
    let end = life.finish(&wanted).await;
    let preview: Preview = serde_json::from_value(life.output(wanted.run, &end).report.unwrap()).unwrap();
    assert_eq!((end.outcome, preview.changes[0].what.as_str()), (Outcome::Exited(0), "reboot this host"));
}
