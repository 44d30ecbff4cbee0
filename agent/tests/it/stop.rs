//! Stopping: the whole tree, however it hid, and telling what really ended it.

use std::time::{Duration, Instant};

use fleetward_agent::run::attach::Attachment;
use fleetward_agent::run::{Opened, Stage};
use fleetward_protocol::message::OpenRun;
use fleetward_protocol::run::{CancelCause, Outcome, Refusal};

use crate::delegation::Service;
use crate::host::{Machine, boot, finished, last, lives, numbers, script};

#[tokio::test]
async fn cancel_ends_children_that_left_session_and_parent() {
    let machine = Machine::new();
    let life = machine.start(boot(1));
    // A child, one in its own session, and a double-forked orphan that ignores SIGTERM in a session of its own.
    let request = script(
        "sleep 1000 & echo $!\n\
         setsid bash -c 'echo $$; exec sleep 1000' &\n\
         (setsid bash -c 'trap \"\" TERM; echo $$; while :; do sleep 1000; done' &)\n\
         wait",
    );
    let (progress, pids) = numbers(&life, &request, 3).await;
    assert!(pids.iter().all(|&pid| lives(pid)));
    life.runs.cancel(request.run, CancelCause::Requested);
    assert_eq!(finished(progress).await.outcome, Outcome::Cancelled);
    assert!(pids.iter().all(|&pid| !lives(pid)), "{pids:?}");
}

/// The supervisor hears the newest connection only. What came over an older one, and was not read by then, is lost.
#[tokio::test]
async fn a_cancel_that_was_lost_with_its_connection_is_sent_over_the_next() {
    let machine = Machine::new();
    let life = machine.start(boot(1));
    let request = script("echo $PPID; exec sleep 1000");
    let (progress, pids) = numbers(&life, &request, 1).await;
    let tell = |signal| nix::sys::signal::kill(nix::unistd::Pid::from_raw(pids[0]), signal).unwrap();
    tell(nix::sys::signal::Signal::SIGSTOP);
    life.runs.cancel(request.run, CancelCause::Requested);
    // The run's task shares this thread: it has its turn, and the word is on its way.
    for _ in 0..8 {
        tokio::task::yield_now().await;
    }
    let newer = Attachment::connect(&life.directory(request.run)).unwrap();
    tell(nix::sys::signal::Signal::SIGCONT);
    assert_eq!(finished(progress).await.outcome, Outcome::Cancelled);
    drop(newer);
}

#[tokio::test]
async fn a_timeout_ends_a_script_that_ignores_being_asked() {
    let machine = Machine::new();
    let life = machine.start(boot(1));
    let mut request = script("trap '' TERM; echo $$; while :; do sleep 1000; done");
    request.limits.timeout_ms = 200;
    let began = Instant::now();
    let (progress, pids) = numbers(&life, &request, 1).await;
    let end = finished(progress).await;
    assert_eq!(end.outcome, Outcome::TimedOut);
    assert!(end.duration_ms >= 500, "timeout and grace");
    assert!(began.elapsed() < Duration::from_secs(10));
    assert!(!lives(pids[0]));
}

#[tokio::test]
async fn a_script_may_use_its_grace_to_clean_up() {
    let machine = Machine::new();
    let life = machine.start(boot(1));
    let mut request = script("trap 'echo cleaned; exit 3' TERM; echo $$; while :; do sleep 0.05; done");
    request.limits.grace_ms = 20_000;
    let (progress, _) = numbers(&life, &request, 1).await;
    life.runs.cancel(request.run, CancelCause::Requested);
    let end = finished(progress).await;
    assert_eq!(end.outcome, Outcome::Cancelled);
    assert!(life.output(request.run, &end).stdout.ends_with(b"cleaned\n"));
}

#[tokio::test]
async fn a_cancel_after_the_end_changes_nothing() {
    let machine = Machine::new();
    let life = machine.start(boot(1));
    let request = script("exit 4");
    let progress = life.begin(&request).await;
    assert_eq!(finished(progress.clone()).await.outcome, Outcome::Exited(4));
    life.runs.cancel(request.run, CancelCause::Requested);
    assert_eq!(finished(progress).await.outcome, Outcome::Exited(4));
}

#[tokio::test]
async fn runs_wait_their_turn_and_a_waiting_one_can_be_cancelled() {
    let machine = Machine::new();
    std::fs::write(machine.paths().config, "[runs]\nconcurrent = 1").unwrap();
    let life = machine.start(boot(1));
    let first = script("echo $$; while :; do sleep 1000; done");
    let (running, _) = numbers(&life, &first, 1).await;
    let second = script("echo second");
    let third = script("echo third");
    let waiting = life.begin(&second).await;
    let cancelled = life.begin(&third).await;
    assert_eq!(waiting.borrow().stage, Stage::Waiting);
    assert_eq!((life.runs.load().running, life.runs.load().waiting), (1, 2));
    life.runs.cancel(third.run, CancelCause::Requested);
    let refused = Stage::Refused { refusal: Refusal::CancelledBeforeStart, accepted: true };
    assert_eq!(last(cancelled).await, refused);
    life.runs.cancel(first.run, CancelCause::Halted);
    assert_eq!(finished(running).await.outcome, Outcome::Cancelled);
    assert_eq!(finished(waiting).await.outcome, Outcome::Exited(0));
    assert_eq!((life.runs.load().running, life.runs.load().waiting), (0, 0));
}

/// A cancel request that comes with the order is obeyed before it: nothing is started, and never will be.
#[tokio::test]
async fn what_is_stopped_when_its_order_comes_never_starts() {
    let machine = Machine::new();
    let mark = machine.path("started");
    let life = machine.start(boot(1));
    let request = script(&format!("touch {}", mark.display()));
    let stopped = OpenRun { cancel: Some(CancelCause::Requested), ..life.dispatch(&request) };
    let Opened::Held(progress) = life.runs.open(stopped).await else { panic!("the run is unknown") };
    let refused = Stage::Refused { refusal: Refusal::CancelledBeforeStart, accepted: false };
    assert_eq!(last(progress).await, refused);
    // It is in the journal: the same order without the request is answered from it, in this life and the next.
    assert_eq!(last(life.begin(&request).await).await, refused);
    drop(life);
    let life = machine.start(boot(1));
    assert_eq!(life.refusal(&request).await, Refusal::CancelledBeforeStart);
    assert!(!mark.exists() && !life.directory(request.run).exists());
}

/// An earlier life of the agent accepted it; the controller opens it, and has it stopped.
#[test]
fn what_waits_for_the_controllers_word_and_is_stopped_never_starts() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let machine = Machine::new();
    std::fs::write(machine.paths().config, "[runs]\nconcurrent = 1").unwrap();
    let mark = machine.path("started");
    let first = script("echo $$; while :; do sleep 1000; done");
    let second = script(&format!("touch {}", mark.display()));
    let earlier = runtime();
    earlier.block_on(async {
        let life = machine.start(boot(1));
        drop(numbers(&life, &first, 1).await);
        assert_eq!(life.begin(&second).await.borrow().stage, Stage::Waiting);
        life.runs.release().await;
    });
    drop(earlier);
    runtime().block_on(async {
        let life = machine.start(boot(1));
        let running = life.resume(first.run).await;
        life.runs.cancel(first.run, CancelCause::Requested);
        assert_eq!(finished(running).await.outcome, Outcome::Cancelled);
        // There is room for it now: only the word is missing.
        let open = OpenRun {
            run: second.run,
            offset: 0,
            started: false,
            cancel: Some(CancelCause::Halted),
            dispatch: None,
        };
        let Opened::Held(progress) = life.runs.open(open).await else { panic!("the run is unknown") };
        let refused = Stage::Refused { refusal: Refusal::CancelledBeforeStart, accepted: true };
        assert_eq!(last(progress).await, refused);
        assert!(!mark.exists());
    });
}

#[tokio::test]
async fn a_run_that_waits_past_its_deadline_is_refused() {
    let machine = Machine::new();
    let life = machine.start(boot(1));
    let mut first = script("echo $$; while :; do sleep 1000; done");
    first.script.resources = vec!["apt".parse().unwrap()];
    let (running, _) = numbers(&life, &first, 1).await;
    let mut second = script("echo second");
    second.script.resources = vec!["apt".parse().unwrap()];
    second.remaining = Duration::from_millis(300);
    let late = life.begin(&second).await;
    assert_eq!(last(late).await, Stage::Refused { refusal: Refusal::DeadlinePassed, accepted: true });
    life.runs.cancel(first.run, CancelCause::Requested);
    finished(running).await;
}

/// A process that nobody below the supervisor is the parent of: only the group knows that it belongs to the run.
async fn a_stop_ends_whoever_is_in_the_runs_group(service: Service, tasks: u32) {
    let machine = Machine::new();
    let life = machine.start_with(boot(1), service.delegated.clone());
    let mut request = script("echo $$; while :; do sleep 1000; done");
    request.limits.tasks = tasks;
    let (progress, pids) = numbers(&life, &request, 1).await;
    let mut adopted = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let members = service.directory.join(format!("run-{}/cgroup.procs", request.run));
    std::fs::write(members, adopted.id().to_string()).unwrap();
    life.runs.cancel(request.run, CancelCause::Requested);
    assert_eq!(finished(progress).await.outcome, Outcome::Cancelled);
    assert!(!lives(pids[0]));
    let adopted_lives = adopted.try_wait().unwrap().is_none();
    adopted.kill().unwrap();
    adopted.wait().unwrap();
    assert!(!adopted_lives, "a member of the run's group went on");
    service.remove().await;
}

#[tokio::test]
async fn a_stop_ends_the_group_in_the_unified_hierarchy() {
    if let Some(service) = Service::new("") {
        a_stop_ends_whoever_is_in_the_runs_group(service, 0).await;
    }
}

#[tokio::test]
async fn a_stop_ends_the_group_in_an_older_hierarchy() {
    if let Some(service) = Service::new("pids") {
        a_stop_ends_whoever_is_in_the_runs_group(service, 50).await;
    }
}
