//! What a script leaves running: it lives, it may write, and it holds nothing of the run.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::time::{Duration, Instant};

use fleetward_agent::run::drain::{self, Drained};
use fleetward_protocol::run::{CancelCause, Fate, Left, Outcome};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::delegation::Service;
use crate::host::{Machine, Request, boot, exited, finished, lives, numbers, script};

/// Says its supervisor's number and that of a process that it leaves, which waits for the word to write, and for the word
/// to end. What it writes would end it, were nobody there to read it.
fn leaves_a_writer(machine: &Machine, name: &str) -> Request {
    let at = |what: &str| machine.path(&format!("{name}.{what}")).display().to_string();
    let (write, wrote, end) = (at("write"), at("wrote"), at("end"));
    script(&format!(
        "mkfifo {write} {wrote} {end}\n\
         nohup bash -c 'read < {write}; echo one; echo two >&2; echo three; echo wrote > {wrote}; read < {end}' &\n\
         echo $PPID; echo $!"
    ))
}

fn say(machine: &Machine, name: &str, what: &str) {
    std::fs::write(machine.path(&format!("{name}.{what}")), "go\n").unwrap();
}

fn hear(machine: &Machine, name: &str) -> String {
    let mut line = String::new();
    let fifo = std::fs::File::open(machine.path(&format!("{name}.wrote"))).unwrap();
    BufReader::new(fifo).read_line(&mut line).unwrap();
    line
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(20), wait).await.is_ok(), "waited in vain: {what}");
}

fn end(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
}

fn drained(directory: &Path) -> Vec<Drained> {
    drain::read_all(directory)
}

#[tokio::test]
async fn what_is_left_running_writes_on_and_lives() {
    let machine = Machine::new();
    let life = machine.start(boot(1));
    let request = leaves_a_writer(&machine, "left");
    let (progress, pids) = numbers(&life, &request, 2).await;
    let over = finished(progress).await;
    assert_eq!(over.outcome, Outcome::Exited(0));
    let Some(Left { processes: 1, held_ms, fate: Fate::Unkept }) = over.left else { panic!("{over:?}") };
    assert!((4900..30_000).contains(&held_ms) && over.duration_ms < held_ms, "{over:?}");
    assert_eq!(life.runs.load().running, 0);
    let [drain] = drained(&machine.paths().drains())[..] else { panic!("it is not told") };
    let [supervisor, writer] = pids[..] else { panic!("{pids:?}") };
    assert_eq!((drain.run, drain.pid, drain.bytes), (request.run, supervisor, 0));

    // The run is over for everybody: its directory may go, and the next life of the agent knows of no orphan.
    life.runs.forget(request.run).await;
    assert!(!life.directory(request.run).exists());
    drop(life);
    let next = machine.start(boot(1));
    assert_eq!(next.notices, Vec::<String>::new());

    say(&machine, "left", "write");
    assert_eq!(hear(&machine, "left"), "wrote\n");
    assert!(lives(writer), "what a script leaves running on purpose goes on");
    let counted = || drained(&machine.paths().drains()).first().is_some_and(|drain| drain.bytes == 14);
    until("what it wrote is counted", counted).await;
    say(&machine, "left", "end");
    exited(drain.pid);
    assert!(drained(&machine.paths().drains()).is_empty());
}

/// It writes all the time, so that its pipes are never quiet.
#[tokio::test]
async fn what_is_left_running_does_not_hold_the_run_beyond_its_time_limit() {
    let machine = Machine::new();
    let life = machine.start(boot(1));
    for writer in ["while :; do echo x; sleep 0.2; done", "while :; do echo x; done"] {
        let mut request = script(&format!("echo $PPID\n( {writer} ) &\necho $!"));
        request.limits.timeout_ms = 3_000;
        request.limits.output = 1 << 20;
        let began = Instant::now();
        let over = finished(life.begin(&request).await).await;
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        assert_eq!(over.outcome, Outcome::Exited(0), "the script had ended in time");
        assert!(matches!(over.left, Some(Left { processes: 1.., fate: Fate::Unkept, .. })), "{over:?}");
        assert_eq!(life.runs.load().running, 0, "its place is free");
        let output = String::from_utf8(life.output(request.run, &over).stdout).unwrap();
        let pids: Vec<i32> = output.lines().filter_map(|line| line.parse().ok()).collect();
        let [supervisor, writer] = pids[..] else { panic!("{output}") };
        assert!(lives(writer));
        end(writer);
        exited(supervisor);
    }
}

#[tokio::test]
async fn a_stop_after_the_scripts_end_ends_what_it_left_and_says_both() {
    let machine = Machine::new();
    let life = machine.start(boot(1));
    let request = script("echo $$; sleep 1000 & echo $!");
    let (progress, pids) = numbers(&life, &request, 2).await;
    until("the script ends", || !lives(pids[0])).await;
    life.runs.cancel(request.run, CancelCause::Requested);
    let over = finished(progress).await;
    assert_eq!(over.outcome, Outcome::Exited(0), "the stop came after its end");
    assert!(matches!(over.left, Some(Left { processes: 1, fate: Fate::Stopped, .. })), "{over:?}");
    assert!(!lives(pids[1]));
}

#[tokio::test]
async fn the_oldest_makes_room_and_each_has_its_time() {
    let machine = Machine::new();
    std::fs::write(machine.paths().config, "[runs]\ndrains = 1").unwrap();
    let life = machine.start(boot(1));
    let drains = machine.paths().drains();
    let old = leaves_a_writer(&machine, "old");
    let (progress, older) = numbers(&life, &old, 2).await;
    finished(progress).await;
    assert_eq!(drained(&drains).len(), 1);

    std::fs::write(machine.paths().config, "[runs]\ndrains = 1\ndrain_s = 1").unwrap();
    let new = leaves_a_writer(&machine, "new");
    let (progress, newer) = numbers(&life, &new, 2).await;
    finished(progress).await;
    exited(older[0]);
    say(&machine, "old", "write");
    exited(older[1]);
    // A second later nobody reads from the newer one either.
    until("its time is over", || drained(&drains).is_empty()).await;
    say(&machine, "new", "write");
    exited(newer[1]);

    std::fs::write(machine.paths().config, "[runs]\ndrains = 0").unwrap();
    let none = leaves_a_writer(&machine, "none");
    let (progress, pids) = numbers(&life, &none, 2).await;
    let over = finished(progress).await;
    assert!(matches!(over.left, Some(Left { processes: 1, fate: Fate::CutOff, .. })), "{over:?}");
    assert!(drained(&drains).is_empty());
    say(&machine, "none", "write");
    exited(pids[1]);
}

#[tokio::test]
async fn who_lets_go_of_the_output_is_not_spoken_of_or_in_time_only() {
    let machine = Machine::new();
    let life = machine.start(boot(1));
    assert_eq!(life.finish(&script("echo done")).await.left, None);
    let daemon = life.finish(&script("sleep 1 > /dev/null 2>&1 &")).await;
    assert_eq!((daemon.outcome, daemon.left), (Outcome::Exited(0), None));
    let late = script("(sleep 1; echo last) &\necho first");
    let over = life.finish(&late).await;
    assert!(matches!(over.left, Some(Left { held_ms: 500.., fate: Fate::LetGo, .. })), "{over:?}");
    assert_eq!(life.output(late.run, &over).stdout, b"first\nlast\n");
}

/// The run's limits go on for what it left, and its control group goes with the last of them.
#[tokio::test]
async fn the_runs_group_stays_with_what_is_left_and_goes_with_it() {
    let Some(service) = Service::new("") else { return };
    let machine = Machine::new();
    let life = machine.start_with(boot(1), service.delegated.clone());
    let request = script("sleep 1000 & echo $!");
    let (progress, pids) = numbers(&life, &request, 1).await;
    let over = finished(progress).await;
    assert!(matches!(over.left, Some(Left { processes: 1, fate: Fate::Unkept, .. })), "{over:?}");
    let members = service.directory.join(format!("run-{}/cgroup.procs", request.run));
    assert_eq!(std::fs::read_to_string(members).unwrap(), format!("{}\n", pids[0]));
    end(pids[0]);
    service.remove().await;
}
