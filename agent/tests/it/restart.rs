//! The agent dies, the host dies; the truth survives.

use std::io::{BufRead as _, BufReader};
use std::time::{Duration, Instant};

use fleetward_agent::journal::{Entry, Journal};
use fleetward_agent::platform::clock;
use fleetward_agent::run::outcome::End;
use fleetward_agent::run::{Opened, Stage};
use fleetward_protocol::id::JournalId;
use fleetward_protocol::message::{Finished, OpenRun};
use fleetward_protocol::run::{CancelCause, LostCause, Outcome, Refusal};
use tokio::runtime::Runtime;

use crate::host::{Life, Machine, Request, boot, exited, finished, lives, run_id, script, written};

/// A runtime whose end is the agent's death: nothing is told, nothing is cleaned up.
fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn a_script_outlives_the_agent_and_is_found_again() {
    let machine = Machine::new();
    let gate = machine.path("gate");
    let starts = machine.path("starts");
    let request = script(&format!(
        "mkfifo {gate}; echo x >> {starts}; echo before; read < {gate}; echo after; exit 7",
        gate = gate.display(),
        starts = starts.display()
    ));
    let first = runtime();
    let journal = first.block_on(async {
        let life = machine.start(boot(1));
        let mut progress = life.begin(&request).await;
        written(&mut progress, 13 + 7).await;
        life.journal
    });
    drop(first);
    let second = runtime();
    second.block_on(async {
        let life = machine.start(boot(1));
        assert_eq!(life.journal, journal);
        assert_eq!(life.runs.held(), [request.run]);
        // The controller did not hear the acceptance, and dispatches again.
        let progress = life.begin(&request).await;
        assert!(matches!(progress.borrow().stage, Stage::Running { .. }));
        tokio::fs::write(&gate, "go\n").await.unwrap();
        let end = finished(progress).await;
        assert_eq!(end.outcome, Outcome::Exited(7));
        assert_eq!(life.output(request.run, &end).stdout, b"before\nafter\n");
    });
    assert_eq!(std::fs::read_to_string(starts).unwrap(), "x\n");
}

/// While its script is silent and its agent away, a supervisor does not wake up, and has at most 2 MiB of memory of its
/// own. Its share of the program's file is many times larger in this build than in what is installed; what is installed
/// is measured by `cargo xtask bench --only supervisor`, against the same 2 MiB.
#[test]
fn an_idle_supervisor_is_small_and_does_nothing() {
    let machine = Machine::new();
    let (gate, done) = (machine.path("gate"), machine.path("done"));
    let request = script(&format!(
        "mkfifo {gate}; mkfifo {done}; echo $PPID; read < {gate}; sleep 1; echo over > {done}; read < {gate}",
        gate = gate.display(),
        done = done.display()
    ));
    let first = runtime();
    let supervisor: i32 = first.block_on(async {
        let life = machine.start(boot(1));
        told_supervisor(&life, &request).await
    });
    drop(first);
    let field = |file: &str, name: &str| -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{supervisor}/{file}")).unwrap();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let waits = || field("status", "voluntary_ctxt_switches");
    // The script sleeps for a second between these two words; what woke the supervisor meanwhile was nothing of it.
    std::fs::write(&gate, "go\n").unwrap();
    let before = waits();
    assert_eq!(std::fs::read_to_string(&done).unwrap(), "over\n");
    let woken = waits() - before;
    let memory = field("smaps_rollup", "Anonymous:");
    std::fs::write(&gate, "go\n").unwrap();
    exited(supervisor);
    assert!(woken <= 3, "woken {woken} times within a second of silence");
    assert!(memory <= 2048, "{memory} KiB");
}

#[test]
fn a_run_that_ended_while_there_was_no_agent_is_told_by_the_next() {
    let machine = Machine::new();
    let (gate, done) = (machine.path("gate"), machine.path("done"));
    let request = script(&format!(
        "mkfifo {done}; mkfifo {gate}; echo ready; read < {gate}; echo $PPID > {done}",
        gate = gate.display(),
        done = done.display()
    ));
    let first = runtime();
    first.block_on(async {
        let mut progress = machine.start(boot(1)).begin(&request).await;
        written(&mut progress, 13 + 6).await;
    });
    drop(first);
    std::fs::write(&gate, "go\n").unwrap();
    let mut supervisor = String::new();
    BufReader::new(std::fs::File::open(&done).unwrap()).read_line(&mut supervisor).unwrap();
    // The supervisor's end is an event: its process file becomes readable.
    exited(supervisor.trim().parse().unwrap());
    // Even a reboot between the end and the next agent changes nothing.
    for boot in [boot(1), boot(2)] {
        runtime().block_on(async {
            let life = machine.start(boot);
            let end = finished(life.resume(request.run).await).await;
            assert_eq!(end.outcome, Outcome::Exited(0));
            assert_eq!(life.output(request.run, &end).stdout, b"ready\n");
        });
    }
}

#[test]
fn a_reboot_and_a_killed_supervisor_are_told_as_what_they_are() {
    for (next, cause) in [(boot(1), LostCause::SupervisorGone), (boot(2), LostCause::Reboot)] {
        let machine = Machine::new();
        let request = script("echo $PPID; exec sleep 1000");
        let first = runtime();
        let supervisor: i32 = first.block_on(async {
            let life = machine.start(boot(1));
            told_supervisor(&life, &request).await
        });
        drop(first);
        kill_with_children(supervisor);
        // The answer does not change with the next restart.
        for _ in 0..2 {
            runtime().block_on(async {
                let life = machine.start(next);
                let end = finished(life.resume(request.run).await).await;
                assert_eq!(end.outcome, Outcome::Lost(cause));
                assert_eq!(life.output(request.run, &end).stdout, format!("{supervisor}\n").as_bytes());
            });
        }
    }
}

#[test]
fn a_thousand_finished_runs_are_taken_up_within_a_second() {
    let machine = Machine::new();
    let outcome = Outcome::Exited(3);
    let ended = Finished { outcome, at: clock::now(), duration_ms: 1, log_length: 0, left: None };
    End::Finished(ended.clone()).write(machine.directory.path()).unwrap();
    runtime().block_on(async {
        let fresh = JournalId::from_uuid(uuid::Uuid::now_v7());
        let (journal, _) = Journal::open(&machine.paths().journal(), fresh, clock::now()).unwrap();
        for _ in 0..1000 {
            let run = run_id();
            let (order, contents) = (vec![1; 300], vec![vec![2; 2000].into()]);
            let accepted = Entry::Accepted { run, order, contents, deadline: clock::now() };
            let started = Entry::Started { run, at: clock::now(), boot: boot(1), resumable: false };
            drop(journal.append(vec![accepted, started], clock::now()));
            let directory = machine.paths().runs().join(run.to_string());
            std::fs::create_dir(&directory).unwrap();
            std::fs::copy(machine.path("result"), directory.join("result")).unwrap();
        }
        journal.append(vec![], clock::now()).await.unwrap();
    });
    runtime().block_on(async {
        let began = Instant::now();
        let life = machine.start(boot(2));
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        let held = life.runs.held();
        assert_eq!(held.len(), 1000);
        for run in held {
            assert_eq!(finished(life.resume(run).await).await, ended);
        }
    });
}

#[test]
fn a_run_that_waited_starts_in_the_next_life() {
    let machine = Machine::new();
    std::fs::write(machine.paths().config, "[runs]\nconcurrent = 1").unwrap();
    let gate = machine.path("gate");
    let first = script(&format!("mkfifo {0}; echo ready; read < {0}", gate.display()));
    let second = script("echo second");
    let life = runtime();
    life.block_on(async {
        let life = machine.start(boot(1));
        let mut progress = life.begin(&first).await;
        written(&mut progress, 13 + 6).await;
        let waiting = life.begin(&second).await;
        assert_eq!(waiting.borrow().stage, Stage::Waiting);
    });
    drop(life);
    runtime().block_on(async {
        let life = machine.start(boot(1));
        let waiting = life.resume(second.run).await;
        assert_eq!(waiting.borrow().stage, Stage::Waiting);
        tokio::fs::write(&gate, "go\n").await.unwrap();
        assert_eq!(finished(waiting).await.outcome, Outcome::Exited(0));
    });
}

/// A host that is set back to a snapshot or a backup has the journal of before, under its id. What it holds as waiting may
/// have been started since: only the controller can tell.
#[test]
fn an_older_state_of_the_host_starts_nothing_a_second_time() {
    let machine = Machine::new();
    std::fs::write(machine.paths().config, "[runs]\nconcurrent = 1").unwrap();
    let (gate, starts) = (machine.path("gate"), machine.path("starts"));
    let first = script(&format!("mkfifo {0}; echo ready; read < {0}", gate.display()));
    let count = format!("echo x >> {}", starts.display());
    // The controller will know of these: started, ended, only that it was accepted, and that it was to be stopped.
    let [started, ended, accepted, stopped] = [0; 4].map(|_| script(&count));
    let requests = [&started, &ended, &accepted, &stopped];
    let copy = |to: &str| {
        let mut copy = std::process::Command::new("cp");
        copy.arg("-a").arg(machine.paths().state).arg(machine.path(to));
        assert!(copy.status().unwrap().success());
    };
    let life = runtime();
    life.block_on(async {
        let life = machine.start(boot(1));
        let mut progress = life.begin(&first).await;
        written(&mut progress, 13 + 6).await;
        for request in requests {
            assert_eq!(life.begin(request).await.borrow().stage, Stage::Waiting);
        }
        copy("snapshot");
        tokio::fs::write(&gate, "go\n").await.unwrap();
        for request in [&started, &ended] {
            assert_eq!(finished(life.resume(request.run).await).await.outcome, Outcome::Exited(0));
        }
    });
    drop(life);
    let lines = || std::fs::read_to_string(&starts).unwrap().lines().count();
    std::fs::remove_file(&starts).unwrap();
    std::fs::remove_dir_all(machine.paths().state).unwrap();
    std::fs::rename(machine.path("snapshot"), machine.paths().state).unwrap();
    runtime().block_on(async {
        let life = machine.start(boot(2));
        assert_eq!(life.runs.load().waiting, 4);
        let open = OpenRun { run: started.run, offset: 0, started: true, cancel: None, dispatch: None };
        assert!(matches!(life.runs.open(open).await, Opened::Unknown));
        life.runs.forget(ended.run).await;
        // The one whose turn it is starts; the others leave it the place.
        assert_eq!(finished(life.resume(accepted.run).await).await.outcome, Outcome::Exited(0));
        life.runs.cancel(stopped.run, CancelCause::Requested);
        let refused = Stage::Refused { refusal: Refusal::CancelledBeforeStart, accepted: true };
        let mut progress = life.resume(stopped.run).await;
        progress.wait_for(|progress| progress.stage == refused).await.unwrap();
        assert_eq!(lines(), 1);
    });
    // Neither does the next life.
    runtime().block_on(async {
        let life = machine.start(boot(3));
        assert!(!life.runs.held().contains(&started.run) && !life.runs.held().contains(&ended.run));
        assert_eq!(life.runs.load().waiting, 0);
        assert_eq!(lines(), 1);
    });
}

#[test]
fn a_journal_that_was_wiped_has_another_id_and_does_not_start_what_it_forgot() {
    let machine = Machine::new();
    let request = script("echo once");
    let journal = runtime().block_on(async {
        let life = machine.start(boot(1));
        finished(life.begin(&request).await).await;
        life.journal
    });
    std::fs::write(machine.paths().journal(), "garbage").unwrap();
    runtime().block_on(async {
        let life = machine.start(boot(1));
        assert_ne!(life.journal, journal);
        assert!(life.runs.held().is_empty());
        let open = OpenRun { run: request.run, offset: 0, started: false, cancel: None, dispatch: None };
        assert!(matches!(life.runs.open(open).await, Opened::Unknown));
    });
}

#[test]
fn a_supervisor_that_the_journal_does_not_know_is_told_and_dead_runs_are_cleared_away() {
    let machine = Machine::new();
    let gate = machine.path("gate");
    let request = script(&format!("mkfifo {0}; echo $PPID; read < {0}", gate.display()));
    let first = runtime();
    let supervisor: i32 = first.block_on(async {
        let life = machine.start(boot(1));
        assert!(life.notices.is_empty());
        told_supervisor(&life, &request).await
    });
    drop(first);
    std::fs::remove_file(machine.paths().journal()).unwrap();
    let directory = machine.paths().runs().join(request.run.to_string());
    // One that nobody supervises any more, as a crash in the middle of a removal leaves it.
    let dead = machine.paths().runs().join(run_id().to_string());
    std::fs::create_dir(&dead).unwrap();
    std::fs::write(dead.join("spool"), "x").unwrap();
    runtime().block_on(async {
        let life = machine.start(boot(1));
        let [notice] = life.notices.as_slice() else { panic!("{:?}", life.notices) };
        for told in [request.run.to_string().as_str(), directory.to_str().unwrap()] {
            assert!(notice.contains(told), "{notice}");
        }
        assert!(directory.exists() && lives(supervisor), "it is told, not ended");
        assert!(!dead.exists());
    });
    std::fs::write(&gate, "go\n").unwrap();
    exited(supervisor);
    runtime().block_on(async {
        let life = machine.start(boot(1));
        assert!(life.notices.is_empty());
        assert_eq!(life.runs.held(), [request.run], "it is told, so that no order starts it again");
        life.runs.forget(request.run).await;
        assert!(!directory.exists());
    });
}

#[test]
fn a_supervisor_that_is_never_told_to_go_starts_nothing_and_says_so() {
    use fleetward_agent::run::attach::Attachment;
    use fleetward_agent::run::given::Given;
    let machine = Machine::new();
    let starts = machine.path("starts");
    let request = script(&format!("echo x >> {}; echo ready", starts.display()));
    runtime().block_on(async {
        let life = machine.start(boot(1));
        finished(life.begin(&request).await).await;
        let directory = life.directory(request.run);
        // Before it knows what the script is given, and after.
        for handed_over in [false, true] {
            for made in ["result", "spool", "control"] {
                std::fs::remove_file(directory.join(made)).unwrap();
            }
            let program = env!("CARGO_BIN_EXE_fleetward-agent");
            let (mut attachment, mut child) = Attachment::start(program.as_ref(), &directory).unwrap();
            if handed_over {
                let environment = vec![("PATH".into(), "/bin".into())];
                attachment.hand_over(&Given { environment, input: None, again: false }).await.unwrap();
            }
            drop(attachment);
            assert!(child.wait().await.unwrap().success());
            let end = End::read(&directory).unwrap().unwrap();
            assert!(matches!(end, End::Refused(Refusal::SpawnFailed { .. })), "{end:?}");
        }
    });
    assert_eq!(std::fs::read_to_string(starts).unwrap(), "x\n");
}

#[test]
fn a_supervisor_whose_directory_was_removed_ends_with_its_script() {
    let machine = Machine::new();
    let gate = machine.path("gate");
    let request = script(&format!("mkfifo {0}; echo $PPID; read < {0}", gate.display()));
    let life = runtime();
    let supervisor: i32 = life.block_on(async {
        let life = machine.start(boot(1));
        let supervisor = told_supervisor(&life, &request).await;
        std::fs::remove_dir_all(life.directory(request.run)).unwrap();
        supervisor
    });
    drop(life);
    std::fs::write(&gate, "go\n").unwrap();
    exited(supervisor);
    assert!(!lives(supervisor));
}

/// Starts a script whose first word is `$PPID`: its supervisor.
async fn told_supervisor(life: &Life, request: &Request) -> i32 {
    let mut progress = life.begin(request).await;
    written(&mut progress, 13 + 2).await;
    let length = progress.borrow().output.try_into().unwrap();
    let log = life.runs.read_output(request.run, 0, length, Vec::new()).unwrap();
    String::from_utf8(log[13..].to_vec()).unwrap().trim().parse().unwrap()
}

/// What a power cut does to a supervisor and its script.
pub(crate) fn kill_with_children(supervisor: i32) {
    let children = std::fs::read_to_string(format!("/proc/{supervisor}/task/{supervisor}/children")).unwrap();
    let kill = |pid: i32| {
        let pid = nix::unistd::Pid::from_raw(pid);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    };
    kill(supervisor);
    exited(supervisor);
    for child in children.split_ascii_whitespace() {
        kill(child.parse().unwrap());
    }
}

/// Otherwise a run could be reported as refused and be executed, when its order comes again.
#[test]
fn a_refusal_stands_when_its_reason_has_passed() {
    let machine = Machine::new();
    let starts = machine.path("starts");
    let request = script(&format!("echo x >> {}", starts.display()));
    let first = runtime();
    first.block_on(async {
        let life = machine.start(boot(1));
        std::fs::remove_file(machine.paths().client_id).unwrap();
        assert_eq!(life.refusal(&request).await, Refusal::ClientIdMissing);
        machine.write_client_id(machine.client.as_str());
        assert_eq!(life.refusal(&request).await, Refusal::ClientIdMissing);
    });
    drop(first);
    let second = runtime();
    second.block_on(async {
        let life = machine.start(boot(1));
        assert_eq!(life.runs.held(), [request.run]);
        assert_eq!(life.refusal(&request).await, Refusal::ClientIdMissing);
        life.runs.forget(request.run).await;
        assert_eq!(life.runs.held(), []);
    });
    assert!(!starts.exists());
}

/// A result whose output is gone is not told as one: its stream would wait for bytes that never come.
#[test]
fn a_result_without_its_output_is_lost() {
    let machine = Machine::new();
    let request = script("echo one; echo two >&2; exit 0");
    let first = runtime();
    let whole = first.block_on(async {
        let life = machine.start(boot(1));
        life.finish(&request).await.log_length
    });
    drop(first);
    let spool = machine.paths().runs().join(request.run.to_string()).join("spool");
    std::fs::OpenOptions::new().write(true).open(spool).unwrap().set_len(whole - 1).unwrap();
    let second = runtime();
    second.block_on(async {
        let life = machine.start(boot(2));
        let end = finished(life.resume(request.run).await).await;
        assert_eq!(end.outcome, Outcome::Lost(LostCause::SpoolUnreadable));
        let output = life.output(request.run, &end);
        assert_eq!(output.stdout.len() + output.stderr.len(), 4, "what is whole is still there");
    });
}

/// Flips a bit of the journal's last record, as a failing disk may.
fn damage_last_record(journal: &std::path::Path) {
    let mut bytes = std::fs::read(journal).unwrap();
    let last = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[last] ^= 0x40;
    std::fs::write(journal, bytes).unwrap();
}

/// Whatever the journal lost at its end (one record, or the run as a whole), the run's directory still tells that it was
/// started: while it runs, when its supervisor was killed without a word of output, and when it has ended.
#[test]
fn a_run_whose_start_the_journal_lost_is_not_started_again() {
    for (now, whole) in [
        ("runs", false),
        ("runs", true),
        ("killed", false),
        ("killed", true),
        ("ended", false),
        ("ended", true),
    ] {
        let machine = Machine::new();
        let (gate, starts) = (machine.path("gate"), machine.path("starts"));
        let request = script(&format!(
            "mkfifo {gate}; echo $PPID >> {starts}; read < {gate}",
            gate = gate.display(),
            starts = starts.display()
        ));
        let journal = machine.paths().journal();
        let first = runtime();
        let (before, supervisor) = first.block_on(async {
            let life = machine.start(boot(1));
            let before = std::fs::read(&journal).unwrap();
            let mut progress = life.begin(&request).await;
            drop(
                progress.wait_for(|progress| matches!(progress.stage, Stage::Running { .. })).await.unwrap(),
            );
            // Opened for writing when the script opens it for reading.
            let opened = gate.clone();
            let text = loop {
                match std::fs::read_to_string(&starts) {
                    Ok(text) if text.ends_with('\n') && opened.exists() => break text,
                    _ => tokio::task::yield_now().await,
                }
            };
            (before, text.trim().parse::<i32>().unwrap())
        });
        drop(first);
        match now {
            "killed" => kill_with_children(supervisor),
            "ended" => {
                std::fs::write(&gate, "go\n").unwrap();
                exited(supervisor);
            }
            _ => {}
        }
        if whole {
            std::fs::write(&journal, before).unwrap()
        } else {
            damage_last_record(&journal)
        }
        let second = runtime();
        second.block_on(async {
            let life = machine.start(boot(1));
            assert_eq!(life.runs.held(), [request.run], "{now} {whole}");
            // The controller may not have heard the acceptance, and dispatches again.
            let progress = life.begin(&request).await;
            if now == "runs" {
                tokio::fs::write(&gate, "go\n").await.unwrap();
            }
            let lost = Outcome::Lost(LostCause::SupervisorGone);
            let wanted = if now == "killed" { lost } else { Outcome::Exited(0) };
            assert_eq!(finished(progress).await.outcome, wanted, "{now} {whole}");
        });
        assert_eq!(std::fs::read_to_string(&starts).unwrap(), format!("{supervisor}\n"), "{now} {whole}");
    }
}

/// Otherwise the controller would refuse the same damaged bytes again and again, and the run would never end.
#[test]
fn a_damaged_spool_costs_output_and_not_the_result() {
    for has in [0, 17, 34] {
        let machine = Machine::new();
        let request = script("echo one; echo two >&2; exit 3");
        let first = runtime();
        let length = first.block_on(async { machine.start(boot(1)).finish(&request).await.log_length });
        drop(first);
        assert_eq!(length, 34, "two records of four bytes");
        let spool = machine.paths().runs().join(request.run.to_string()).join("spool");
        let mut bytes = std::fs::read(&spool).unwrap();
        bytes[17..33].fill(0xff);
        std::fs::write(&spool, bytes).unwrap();
        // The answer does not change with the next restart.
        for _ in 0..2 {
            runtime().block_on(async {
                let life = machine.start(boot(1));
                let open =
                    OpenRun { run: request.run, offset: has, started: false, cancel: None, dispatch: None };
                let Opened::Held(progress) = life.runs.open(open).await else { panic!("unknown") };
                let end = finished(progress).await;
                assert_eq!(end.outcome, Outcome::Exited(3));
                if has == length {
                    assert_eq!(end.log_length, length, "the controller has it all");
                    return;
                }
                let output = life.output(request.run, &end);
                assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"one\n"[..], &b""[..]));
                assert_eq!(output.dropped, 4, "the marker counts what is missing");
            });
        }
    }
}
