//! The host dies in the middle of a typed action, and the next boot goes on with it.

use std::path::Path;

use fleetward_agent::journal::steps::{STEPS, Step, StepJournal};
use fleetward_agent::journal::{Entry, Journal};
use fleetward_agent::platform::clock;
use fleetward_agent::run::spool::SPOOL;
use fleetward_agent::run::{Opened, Stage};
use fleetward_protocol::action::ActionRequest;
use fleetward_protocol::action::unit::{Unit, Verb};
use fleetward_protocol::action::unit_file::{FileVerb, UnitFile};
use fleetward_protocol::event::StepState;
use fleetward_protocol::id::{JournalId, RunId};
use fleetward_protocol::message::{Finished, OpenRun};
use fleetward_protocol::run::{CancelCause, LostCause, Outcome};
use fleetward_protocol::text::Text;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use crate::host::{Life, Machine, Output, Request, boot, client, dispatch, finished, script, written};
use crate::restart::kill_with_children;
use crate::systemd::{Bus, Event, Shared, World, machine};

/// A machine with a bus, and our systemd on it: its jobs do not end.
struct Site {
    machine: Machine,
    world: Shared,
    _bus: Bus,
    /// Ends a job that does not end by itself.
    happens: mpsc::UnboundedSender<Event>,
}

/// `None` where there can be none here.
fn site(test: &str) -> Option<Site> {
    let mut world = World::default();
    world.units.insert("web.service".into(), ("loaded", "active".into(), 40));
    world.units.insert("off.service".into(), ("loaded", "inactive".into(), 0));
    let (machine, _bus, world, happens) = machine(test, world)?;
    Some(Site { machine, world, _bus, happens })
}

pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn unit(verb: Verb, unit: &str) -> Request {
    let unit = Unit { settle_s: 0, ..Unit::new(unit.parse().unwrap(), verb) };
    Request { typed: Some(ActionRequest::new(&unit).unwrap()), content: String::new(), ..script("") }
}

impl Site {
    /// Begins the run, and cuts the host's power as soon as systemd has its job.
    fn cut_off(&self, request: &Request) {
        runtime().block_on(async {
            let life = self.machine.start(boot(1));
            let mut progress = life.begin(request).await;
            drop(self.world.subscribe().wait_for(|world| world.open == 1).await.unwrap());
            written(&mut progress, 1).await;
            cut_power(&life, request.run);
        });
        self.world.send_modify(|world| (world.open, world.result) = (0, Some("done")));
    }

    fn is(&self, unit: &str, active: &str, pid: u32) {
        self.world.send_modify(|world| {
            world.units.insert(unit.into(), ("loaded", active.into(), pid));
        });
    }

    /// The run's end and output in a boot, for a controller that has this much of its output.
    fn end(&self, number: u128, run: RunId, offset: u64, cancel: Option<CancelCause>) -> (Finished, Output) {
        runtime().block_on(async {
            let life = self.machine.start(boot(number));
            let open = OpenRun { run, offset, started: true, cancel, dispatch: None };
            let Opened::Held(progress) = life.runs.open(open).await else { panic!("unknown") };
            let end = finished(progress).await;
            let output = life.output(run, &end);
            (end, output)
        })
    }

    fn asked(&self) -> Vec<String> {
        self.world.borrow().asked.clone()
    }

    fn directory(&self, run: RunId) -> std::path::PathBuf {
        self.machine.paths().runs().join(run.to_string())
    }
}

/// Kills the run's supervisor, and what it started.
pub(crate) fn cut_power(life: &Life, run: RunId) {
    kill_with_children(supervisor(life, run));
}

/// The run's supervisor, which stands in the run's directory.
pub(crate) fn supervisor(life: &Life, run: RunId) -> i32 {
    let directory = life.directory(run);
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let stands_there = |process: &std::fs::DirEntry| {
        std::fs::read_link(process.path().join("cwd")).is_ok_and(|at| at == directory)
    };
    let found = processes.filter(stands_there).find_map(|process| process.file_name().to_str()?.parse().ok());
    found.expect("a supervisor")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn steps(output: &Output) -> Vec<(&str, StepState)> {
    output.events.iter().map(|event| (event.step.as_str(), event.state)).collect()
}

#[test]
fn a_restart_that_was_begun_is_not_done_again_when_the_boot_has_started_the_unit() {
    let Some(site) = site("taking a restart up") else { return };
    let request = unit(Verb::Restart, "web.service");
    site.cut_off(&request);
    site.is("web.service", "active", 90);
    let has = std::fs::metadata(site.directory(request.run).join(SPOOL)).unwrap().len();
    for _ in 0..2 {
        let (end, output) = site.end(2, request.run, has, None);
        assert_eq!((end.outcome, text(&output.stderr)), (Outcome::Exited(0), String::new()));
        assert_eq!(site.asked(), ["RestartUnit web.service replace"]);
        let stdout = text(&output.stdout);
        assert!(stdout.starts_with("web.service is active (running), main process 40"), "{stdout}");
        assert!(
            stdout.contains(
                "the host restarted; taken up again in its step `restart`, which may have happened\n"
            ),
            "{stdout}"
        );
        assert!(
            stdout.contains(
                "started anew with the host, and not by this run: web.service is active (running), main process 90"
            ),
            "{stdout}"
        );
        let (began, done) = (StepState::Began, StepState::Done);
        let wanted = [
            ("check", began),
            ("check", done),
            ("restart", began),
            ("take-up", done),
            ("check", began),
            ("check", done),
            ("restart", StepState::Unchanged),
        ];
        assert_eq!(steps(&output), wanted);
        assert_eq!(output.report.unwrap()["changed"], true);
    }
}

#[test]
fn a_step_that_was_begun_is_done_if_the_host_is_not_so_yet() {
    let Some(site) = site("taking a start up") else { return };
    for (verb, asked) in [(Verb::Start, "StartUnit"), (Verb::ReloadOrRestart, "ReloadOrRestartUnit")] {
        site.world.send_modify(|world| (world.result, world.asked, world.open) = (None, vec![], 0));
        site.is("off.service", "inactive", 0);
        let request = unit(verb, "off.service");
        site.cut_off(&request);
        let (end, output) = site.end(2, request.run, 0, None);
        assert_eq!((end.outcome, text(&output.stderr)), (Outcome::Exited(0), String::new()));
        let asked = format!("{asked} off.service replace");
        assert_eq!(site.asked(), [asked.as_str(), "StartUnit off.service replace"], "{verb}");
        assert_eq!(output.report.unwrap()["after"]["active"], "active");
    }
}

#[test]
fn a_step_that_was_done_is_not_done_twice() {
    let Some(site) = site("a step that was done") else { return };
    let request = unit(Verb::Start, "off.service");
    site.cut_off(&request);
    let (mut journal, _) = StepJournal::open(&site.directory(request.run)).unwrap();
    journal.append(&Step::Done(Text::of("start"))).unwrap();
    let (end, output) = site.end(2, request.run, 0, None);
    assert_eq!(end.outcome, Outcome::Exited(1));
    let stderr = text(&output.stderr);
    assert!(
        stderr.contains(
            "`start off.service` was done before the host restarted, and the host is not so any more"
        ),
        "{stderr}"
    );
    assert_eq!(site.asked(), ["StartUnit off.service replace"]);
    assert_eq!(output.report.unwrap()["changed"], true);
}

/// A service that does its work once is inactive in a new boot whether it had done it or not. One that would still be active
/// (`RemainAfterExit=yes`) is not as it was asked for, even if it had.
#[test]
fn what_leaves_no_trace_is_not_done_again() {
    for (name, is_done, outcome) in [
        ("once.service", false, Outcome::Exited(1)),
        ("once.service", true, Outcome::Exited(0)),
        ("once-stays.service", false, Outcome::Exited(1)),
        ("once-stays.service", true, Outcome::Exited(1)),
    ] {
        let Some(site) = site("a service that ends by itself") else { return };
        site.is(name, "inactive", 0);
        let request = unit(Verb::Start, name);
        site.cut_off(&request);
        if is_done {
            let (mut journal, _) = StepJournal::open(&site.directory(request.run)).unwrap();
            journal.append(&Step::Done(Text::of("start"))).unwrap();
        }
        let (end, output) = site.end(2, request.run, 0, None);
        assert_eq!(end.outcome, outcome, "{output:?}");
        let stderr = text(&output.stderr);
        let told = format!("whether {name} had done its work cannot be told");
        assert_eq!(stderr.contains(&told) && stderr.contains("--boot=-1"), !is_done, "{stderr}");
        assert_eq!(site.asked(), [format!("StartUnit {name} replace")]);
    }
}

/// The boot starts it, too: its work is done once by that, and not once more by the run.
#[test]
fn what_the_boot_is_starting_is_waited_for() {
    for (name, asked) in [("once.service", 1), ("once-stays.service", 2), ("off.service", 2)] {
        let Some(site) = site("a boot that starts it") else { return };
        site.is(name, "inactive", 0);
        let request = unit(Verb::Start, name);
        site.cut_off(&request);
        site.is(name, "activating", 0);
        let (end, output) = site.end(2, request.run, 0, None);
        assert_eq!((end.outcome, text(&output.stderr)), (Outcome::Exited(0), String::new()));
        // Of one that will be active afterwards systemd is asked for the start that it is at.
        assert_eq!(site.asked(), vec![format!("StartUnit {name} replace"); asked]);
        assert_eq!(output.report.unwrap()["changed"], true);
    }
}

#[test]
fn links_of_a_unit_are_made_in_the_next_boot() {
    for (now, asked, changed) in [("enabled", 1, true), ("disabled", 2, true)] {
        let Some(site) = site("taking an enabling up") else { return };
        let unit = UnitFile { unit: "off.service".parse().unwrap(), verb: FileVerb::Enable };
        let typed = Some(ActionRequest::new(&unit).unwrap());
        let request = Request { typed, content: String::new(), ..script("") };
        site.world.send_modify(|world| {
            world.files.insert("off.service".into(), "disabled");
            world.holds_links = true;
        });
        site.cut_off(&request);
        site.world.send_modify(|world| {
            world.files.insert("off.service".into(), now);
            world.holds_links = false;
        });
        let (end, output) = site.end(2, request.run, 0, None);
        assert_eq!((end.outcome, text(&output.stderr)), (Outcome::Exited(0), String::new()));
        let links = site.asked().iter().filter(|asked| *asked == "EnableUnitFiles off.service").count();
        assert_eq!(links, asked);
        let report = output.report.unwrap();
        assert_eq!((&report["changed"], &report["after"]), (&changed.into(), &"enabled".into()));
    }
}

/// Without a step in its journal nothing was changed.
#[test]
fn what_had_not_begun_is_begun() {
    let Some(site) = site("a run that had not begun") else { return };
    let request = unit(Verb::Start, "off.service");
    site.cut_off(&request);
    std::fs::write(site.directory(request.run).join(STEPS), "").unwrap();
    let (end, output) = site.end(2, request.run, 0, None);
    assert_eq!(end.outcome, Outcome::Exited(0));
    let stdout = text(&output.stdout);
    assert!(stdout.contains("the host restarted; taken up again before its first change\n"), "{stdout}");
}

#[test]
fn what_was_cancelled_while_the_host_was_away_changes_nothing_more() {
    let Some(site) = site("a cancel while the host is away") else { return };
    let request = unit(Verb::Start, "off.service");
    site.cut_off(&request);
    // The answer does not change with the next restart.
    for number in [2, 3] {
        let (end, output) = site.end(number, request.run, 0, Some(CancelCause::Requested));
        assert_eq!(end.outcome, Outcome::Cancelled);
        let told = "fleetward: the host restarted while this run was in its step `start`, which may have happened; \
                    cancelled meanwhile, and nothing more was done\n";
        assert_eq!(text(&output.stderr), told);
    }
    assert_eq!(site.asked(), ["StartUnit off.service replace"]);
}

/// Offsets never go back: what the controller has and the host lost is not replaced by something else.
#[test]
fn a_run_whose_output_the_host_lost_is_lost() {
    let Some(site) = site("output that was lost") else { return };
    let request = unit(Verb::Start, "off.service");
    site.cut_off(&request);
    let spool = site.directory(request.run).join(SPOOL);
    let whole = std::fs::metadata(&spool).unwrap().len();
    std::fs::OpenOptions::new().write(true).open(&spool).unwrap().set_len(whole - 1).unwrap();
    let (end, _) = site.end(2, request.run, whole, None);
    assert_eq!(end.outcome, Outcome::Lost(LostCause::Reboot));
    assert_eq!(site.asked(), ["StartUnit off.service replace"]);
}

/// What was torn is cut off, and what follows stands behind it.
#[test]
fn a_spool_goes_on_where_it_is_whole() {
    let Some(site) = site("a torn spool") else { return };
    let request = unit(Verb::Start, "off.service");
    site.cut_off(&request);
    let spool = site.directory(request.run).join(SPOOL);
    let mut bytes = std::fs::read(&spool).unwrap();
    let whole = bytes.len();
    bytes.extend([0; 4096]);
    std::fs::write(&spool, &bytes).unwrap();
    let (end, output) = site.end(2, request.run, whole as u64, None);
    assert_eq!(end.outcome, Outcome::Exited(0));
    assert_eq!(std::fs::read(&spool).unwrap()[..whole], bytes[..whole]);
    assert!(text(&output.stdout).contains("taken up again"), "{output:?}");
}

/// Until the controller has opened it, nothing is done; and what it knows the end of is dropped.
#[test]
fn a_run_waits_for_the_controller_and_leaves_when_it_is_forgotten() {
    let Some(site) = site("a controller that is away") else { return };
    let request = unit(Verb::Start, "off.service");
    site.cut_off(&request);
    runtime().block_on(async {
        let life = site.machine.start(boot(2));
        assert_eq!(life.runs.held(), [request.run]);
        // It holds its place and its unit meanwhile, which another run wants.
        let later = unit(Verb::Stop, "off.service");
        let progress = life.begin(&later).await;
        assert_eq!(progress.borrow().stage, Stage::Waiting);
        assert_eq!(site.asked(), ["StartUnit off.service replace"]);
        life.runs.forget(request.run).await;
        assert!(!life.directory(request.run).exists());
        assert_eq!(finished(progress).await.outcome, Outcome::Exited(0));
        assert_eq!(life.runs.held(), [later.run]);
    });
}

/// A controller that lost the operation never opens it: others do not wait for that.
#[test]
fn a_run_whose_time_is_over_holds_no_place_while_it_waits() {
    for has_limit in [true, false] {
        let Some(site) = site("a controller that forgot") else { return };
        let mut request = unit(Verb::Start, "off.service");
        let soon = Duration::from_millis(300);
        if has_limit {
            request.limits.timeout_ms = 300;
        } else {
            (request.limits.timeout_ms, request.remaining) = (0, soon);
        }
        started_before(&site.machine, &request, Duration::ZERO, true);
        std::fs::write(site.machine.paths().config, "[runs]\nconcurrent = 1").unwrap();
        let (end, output) = runtime().block_on(async {
            let life = site.machine.start(boot(2));
            let later = life.begin(&unit(Verb::Stop, "off.service")).await;
            assert_eq!(later.borrow().stage, Stage::Waiting);
            assert_eq!(finished(later).await.outcome, Outcome::Exited(0));
            let end = finished(life.resume(request.run).await).await;
            let output = life.output(request.run, &end);
            (end, output)
        });
        let (outcome, told) = match has_limit {
            true => (Outcome::TimedOut, "its time limit passed meanwhile"),
            false => (Outcome::Lost(LostCause::Reboot), "its deadline passed meanwhile"),
        };
        assert_eq!(end.outcome, outcome);
        assert!(text(&output.stderr).contains(told), "{output:?}");
        assert_eq!(site.asked(), Vec::<String>::new());
    }
}

/// Its end is there and cannot be told: it had ended, and does not go on.
#[test]
fn a_run_that_had_ended_is_not_taken_up() {
    let Some(site) = site("an end without its output") else { return };
    let request = unit(Verb::Start, "web.service");
    runtime().block_on(async {
        let life = site.machine.start(boot(1));
        life.finish(&request).await;
    });
    let spool = site.directory(request.run).join(SPOOL);
    let file = std::fs::OpenOptions::new().write(true).open(spool).unwrap();
    file.set_len(file.metadata().unwrap().len() - 1).unwrap();
    site.is("web.service", "inactive", 0);
    let (end, _) = site.end(2, request.run, 0, None);
    assert_eq!(end.outcome, Outcome::Lost(LostCause::SpoolUnreadable));
    assert_eq!(site.asked(), Vec::<String>::new());
}

#[test]
fn a_run_that_takes_its_host_down_each_time_comes_to_an_end() {
    let Some(site) = site("a host that goes down again and again") else { return };
    let request = unit(Verb::Start, "off.service");
    site.cut_off(&request);
    for number in 2..5 {
        site.world.send_modify(|world| world.result = None);
        runtime().block_on(async {
            let life = site.machine.start(boot(number));
            let progress = life.resume(request.run).await;
            drop(site.world.subscribe().wait_for(|world| world.open == 1).await.unwrap());
            assert!(matches!(progress.borrow().stage, Stage::Running { .. }));
            cut_power(&life, request.run);
        });
        site.world.send_modify(|world| world.open = 0);
    }
    let (end, output) = site.end(5, request.run, 0, None);
    assert_eq!(end.outcome, Outcome::Lost(LostCause::Reboot));
    assert_eq!(site.asked().len(), 4);
    assert!(text(&output.stderr).contains("it was taken up 3 times, and is not again"), "{output:?}");
    assert_eq!(text(&output.stdout).matches("the host restarted; taken up again").count(), 3);
}

/// An agent that is restarted after a boot took the run up finds it as any other.
#[test]
fn a_run_that_was_taken_up_outlives_the_agent() {
    let Some(site) = site("taken up, and the agent restarted") else { return };
    let request = unit(Verb::Start, "off.service");
    site.cut_off(&request);
    site.world.send_modify(|world| world.result = None);
    runtime().block_on(async {
        let life = site.machine.start(boot(2));
        let _progress = life.resume(request.run).await;
        drop(site.world.subscribe().wait_for(|world| world.open == 1).await.unwrap());
    });
    runtime().block_on(async {
        let life = site.machine.start(boot(2));
        let progress = life.resume(request.run).await;
        site.happens.send(Event::JobDone).unwrap();
        assert_eq!(finished(progress).await.outcome, Outcome::Exited(0));
        assert_eq!(site.asked().len(), 2);
    });
}

/// What a run of another kind of restart finds: one that was started so long ago, with this order and this policy.
pub(crate) fn started_before(machine: &Machine, request: &Request, ago: Duration, directory: bool) {
    runtime().block_on(async {
        let fresh = JournalId::from_uuid(uuid::Uuid::now_v7());
        let (journal, _) = Journal::open(&machine.paths().journal(), fresh, clock::now()).unwrap();
        let order = dispatch(&client(), request).dispatch.unwrap().order;
        let at = clock::now() - ago;
        let (run, contents) = (request.run, Vec::new());
        let accepted = Entry::Accepted { run, order, contents, deadline: at + request.remaining };
        let started = Entry::Started { run, at, boot: boot(1), resumable: true };
        journal.append(vec![accepted, started], clock::now()).await.unwrap();
    });
    if directory {
        std::fs::create_dir(machine.paths().runs().join(request.run.to_string())).unwrap();
    }
}

/// What it took is what a person has waited for it.
#[test]
fn a_run_that_goes_on_took_as_long_as_it_did_with_the_restart() {
    let Some(site) = site("the time that a run took") else { return };
    site.world.send_modify(|world| world.result = Some("done"));
    let request = unit(Verb::Start, "off.service");
    started_before(&site.machine, &request, Duration::from_secs(1), true);
    let mark = site.machine.paths().runs().join(request.run.to_string()).join("started");
    let began = std::time::SystemTime::now() - Duration::from_secs(50);
    std::fs::File::create(mark).unwrap().set_modified(began).unwrap();
    let (end, output) = site.end(2, request.run, 0, None);
    assert_eq!(end.outcome, Outcome::Exited(0), "{output:?}");
    assert!((50_000..100_000).contains(&end.duration_ms), "{}", end.duration_ms);
}

#[test]
fn a_run_whose_time_limit_passed_while_the_host_was_off_is_timed_out() {
    let Some(site) = site("a time limit that passed") else { return };
    let request = unit(Verb::Start, "off.service");
    started_before(&site.machine, &request, Duration::from_millis(request.limits.timeout_ms + 1), true);
    let (end, output) = site.end(2, request.run, 0, None);
    assert_eq!(end.outcome, Outcome::TimedOut);
    assert!(
        text(&output.stderr).contains("its time limit passed meanwhile, and nothing more was done"),
        "{output:?}"
    );
    assert_eq!(site.asked(), Vec::<String>::new());
}

/// The owner may have changed the policy since; and the directory may be gone.
#[test]
fn what_cannot_be_taken_up_is_lost_with_the_reason() {
    for (policy, directory, told) in
        [("[policy]\nkinds = ['script']", true, "policy.kinds in"), ("", false, "")]
    {
        let Some(site) = site("a run that may not go on") else { return };
        let request = unit(Verb::Start, "off.service");
        started_before(&site.machine, &request, Duration::from_secs(1), directory);
        std::fs::write(site.machine.paths().config, policy).unwrap();
        let read = |run: RunId| std::fs::read(site.directory(run).join(SPOOL)).unwrap_or_default();
        runtime().block_on(async {
            let life = site.machine.start(boot(2));
            let end = finished(life.resume(request.run).await).await;
            assert_eq!(end.outcome, Outcome::Lost(LostCause::Reboot), "{policy}");
        });
        let log = String::from_utf8_lossy(&read(request.run)).into_owned();
        assert!(log.contains(told), "{log}");
        assert_eq!(site.asked(), Vec::<String>::new());
    }
}

/// Its supervisor could not go on: that is no refusal, for the run was started.
#[test]
fn a_supervisor_that_cannot_go_on_has_not_refused_its_run() {
    let Some(site) = site("a supervisor that cannot go on") else { return };
    let request = unit(Verb::Start, "off.service");
    site.cut_off(&request);
    let tail: &Path = &site.directory(request.run).join("tail.1");
    std::fs::write(tail, "").unwrap();
    let (end, _) = site.end(2, request.run, 0, None);
    assert_eq!(end.outcome, Outcome::Lost(LostCause::Reboot));
    assert_eq!(site.asked(), ["StartUnit off.service replace"]);
}
