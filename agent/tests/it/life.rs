//! What a run sees, and what is seen of it.

use fleetward_agent::platform::cgroup::Delegated;
use fleetward_agent::run::outcome::End;
use fleetward_agent::run::{Opened, Stage};
use fleetward_protocol::message::{Dispatch, OpenRun};
use fleetward_protocol::order::Authority;
use fleetward_protocol::run::{Outcome, Refusal};
use fleetward_protocol::text::{List, Text};

use crate::delegation::Service;
use crate::host::{Machine, asking, boot, last, run_id, script, skipped, written};

#[tokio::test]
async fn exit_codes_and_signals_are_told_as_they_are() {
    let machine = Machine::new();
    let life = machine.start(boot(1));
    for (body, outcome) in [
        ("exit 0", Outcome::Exited(0)),
        ("exit 255", Outcome::Exited(255)),
        ("kill -9 $$", Outcome::Signalled(9)),
        ("kill -34 $$", Outcome::Signalled(34)),
        ("nonexistent-command", Outcome::Exited(127)),
    ] {
        assert_eq!(life.finish(&script(body)).await.outcome, outcome, "{body}");
    }
}

/// One line of a script: what it writes, byte by byte, and where.
type Line = (bool, Vec<u8>);

/// Whatever a script writes, to whichever stream, and however it ends: both streams arrive byte for byte, with the exit
/// code or the signal, and with a time that it can have taken.
#[test]
fn p16_streams_code_and_duration_are_what_the_script_did() {
    use proptest::prelude::*;
    use proptest::test_runner::TestRunner;

    let line = (any::<bool>(), prop::collection::vec(any::<u8>(), 1..40));
    let end = prop_oneof![
        4 => (0..256_i32).prop_map(Outcome::Exited),
        1 => prop::sample::select(vec![1, 9, 15, 40]).prop_map(Outcome::Signalled),
    ];
    let machine = Machine::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let life = runtime.block_on(async { machine.start(boot(1)) });
    TestRunner::new(ProptestConfig { max_shrink_iters: 100, ..ProptestConfig::with_cases(100) })
        .run(&(prop::collection::vec(line, 0..8), end), |(lines, outcome): (Vec<Line>, Outcome)| {
            let (mut body, mut stdout, mut stderr) = (String::new(), Vec::new(), Vec::new());
            for (to_stderr, bytes) in &lines {
                let octal: String = bytes.iter().map(|byte| format!("\\{byte:03o}")).collect();
                body.push_str(&format!("printf '{octal}'{}\n", if *to_stderr { " >&2" } else { "" }));
                if *to_stderr { &mut stderr } else { &mut stdout }.extend_from_slice(bytes);
            }
            body.push_str(&match outcome {
                Outcome::Exited(code) => format!("exit {code}"),
                Outcome::Signalled(signal) => format!("kill -{signal} $$"),
                _ => unreachable!(),
            });
            let request = script(&body);
            let began = std::time::Instant::now();
            let end = runtime.block_on(life.finish(&request));
            prop_assert!(
                u128::from(end.duration_ms) <= began.elapsed().as_millis() + 1,
                "{}",
                end.duration_ms
            );
            prop_assert_eq!(&end.outcome, &outcome);
            let output = runtime.block_on(async { life.output(request.run, &end) });
            prop_assert_eq!((output.stdout, output.stderr, output.dropped), (stdout, stderr, 0));
            Ok(())
        })
        .unwrap();
}

#[tokio::test]
async fn arguments_arrive_as_they_were_sent() {
    let machine = Machine::new();
    let life = machine.start(boot(1));
    let mut request = script("printf '%s\\n' \"$#\" \"$@\"");
    request.script.arguments = ["a b", "", "$(id)", "`id`", "'\"\\", "*", "--", "ä\n"].map(Into::into).into();
    assert_eq!(life.stdout(&request).await, "8\na b\n\n$(id)\n`id`\n'\"\\\n*\n--\nä\n\n");
}

#[tokio::test]
async fn the_environment_is_the_base_and_what_was_asked_for() {
    let machine = Machine::new();
    let life = machine.start(boot(1));
    let mut request =
        script("/usr/bin/env -0 | sort -z | tr '\\0' '\\n'; pwd; umask; cat; ls /proc/self/fd | wc -l");
    request.script.environment.insert("COLOUR".into(), "blue; reboot".into());
    request.script.directory = Some("/usr".into());
    let account = fleetward_agent::platform::users::read_own_account();
    let text = life.stdout(&request).await;
    let mut lines: Vec<_> = text.lines().collect();
    lines.retain(|line| !line.starts_with("FLEETWARD_OPERATION_ID="));
    let (name, home, shell) = (&account.name, account.home.display(), account.shell.display());
    assert_eq!(
        lines.join("\n"),
        format!(
            "COLOUR=blue; reboot\nFLEETWARD_CLIENT_ID={}\nFLEETWARD_RUN_ID={}\nFLEETWARD_SCRIPT=test\n\
             HOME={home}\nLANG=C.UTF-8\nLOGNAME={name}\n\
             PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nPWD=/usr\nSHELL={shell}\n\
             SHLVL=1\nUSER={name}\n_=/usr/bin/env\n/usr\n0022\n4",
            machine.client, request.run
        )
    );
}

#[tokio::test]
async fn a_run_as_another_user_is_that_user_in_everything() {
    if !fleetward_agent::platform::users::may_change_user() {
        return skipped("becoming another user", "only root may");
    }
    let machine = Machine::new();
    std::os::unix::fs::chown(machine.directory.path(), None, None).unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o711);
    std::fs::set_permissions(machine.directory.path(), open).unwrap();
    let life = machine.start(boot(1));
    let mut request = script("id -un; id -gn; id -G; echo $HOME; cat /proc/self/status | grep ^CapEff");
    request.script.user = Some("daemon".parse().unwrap());
    assert_eq!(life.stdout(&request).await, "daemon\ndaemon\n1\n/usr/sbin\nCapEff:\t0000000000000000\n");
}

#[tokio::test]
async fn output_arrives_byte_for_byte() {
    let machine = Machine::new();
    let life = machine.start(boot(1));
    let none = script("true");
    let end = life.finish(&none).await;
    assert_eq!((end.outcome, end.log_length), (Outcome::Exited(0), 0));

    let binary = script("printf '\\0\\377\\376\\1\\200'; printf '\\303\\050' >&2");
    let end = life.finish(&binary).await;
    let output = life.output(binary.run, &end);
    assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"\0\xff\xfe\x01\x80"[..], &b"\xc3\x28"[..]));

    let long = script("head -c 50000000 /dev/zero | tr '\\0' x");
    let end = life.finish(&long).await;
    let output = life.output(long.run, &end);
    assert_eq!((output.stdout.len(), output.dropped), (50_000_000, 0));
    assert!(output.stdout.iter().all(|&byte| byte == b'x'));
}

#[tokio::test]
async fn above_its_limit_a_run_keeps_head_and_tail_and_says_how_much_is_missing() {
    let machine = Machine::new();
    let life = machine.start(boot(1));
    let mut request = script("seq 1 200000");
    request.limits.output = 100_000;
    let end = life.finish(&request).await;
    let output = life.output(request.run, &end);
    let whole: String = (1..=200_000).map(|number| format!("{number}\n")).collect();
    assert_eq!(output.stdout.len(), 100_000);
    assert_eq!(output.dropped, whole.len() as u64 - 100_000);
    assert!(whole.as_bytes().starts_with(&output.stdout[..50_000]));
    assert!(whole.as_bytes().ends_with(&output.stdout[50_000..]));
}

#[tokio::test]
async fn output_is_there_while_the_script_runs() {
    let machine = Machine::new();
    let life = machine.start(boot(1));
    let gate = machine.path("gate");
    let request = script(&format!("mkfifo {0}; echo first; read < {0}; echo second", gate.display()));
    let mut progress = life.begin(&request).await;
    written(&mut progress, 13 + 6).await;
    assert!(matches!(progress.borrow().stage, Stage::Running { .. }));
    tokio::fs::write(gate, "go\n").await.unwrap();
    let Stage::Finished { end, .. } = last(progress).await else { panic!("it did not finish") };
    assert_eq!(life.output(request.run, &end).stdout, b"first\nsecond\n");
}

#[tokio::test]
async fn what_a_process_substitution_writes_after_the_script_is_kept() {
    let machine = Machine::new();
    let life = machine.start(boot(1));
    let body = "exec > >(sleep 0.5; cat); echo late";
    assert_eq!(life.stdout(&script(body)).await, "late\n");
}

#[tokio::test]
async fn one_run_is_started_once_however_often_it_is_dispatched() {
    let machine = Machine::new();
    let life = machine.start(boot(1));
    let starts = machine.path("starts");
    let request = script(&format!("echo started >> {}", starts.display()));
    let (first, second) = tokio::join!(life.begin(&request), life.begin(&request));
    assert_eq!(last(first).await, last(second).await);
    last(life.begin(&request).await).await;
    life.runs.forget(request.run).await;
    assert!(!life.directory(request.run).exists());
    assert!(matches!(life.runs.open(life.dispatch(&request)).await, Opened::Unknown));
    drop(life);
    let life = machine.start(boot(1));
    assert!(matches!(life.runs.open(life.dispatch(&request)).await, Opened::Unknown));
    assert_eq!(std::fs::read_to_string(starts).unwrap(), "started\n");
}

/// What the controller has committed stays for as long as the host's owner says, and not longer.
#[tokio::test]
async fn a_forgotten_run_leaves_the_host_after_the_set_time() {
    let machine = Machine::new();
    let life = machine.start(boot(1));
    let at_once = script("echo output");
    life.finish(&at_once).await;
    assert!(life.directory(at_once.run).join("spool").exists());
    life.runs.forget(at_once.run).await;
    assert!(!life.directory(at_once.run).exists());

    std::fs::write(machine.paths().config, "[runs]\nkeep_s = 1").unwrap();
    let later = script("echo output");
    life.finish(&later).await;
    let began = std::time::Instant::now();
    let kept = async {
        while began.elapsed() < std::time::Duration::from_millis(900) {
            assert!(life.directory(later.run).join("spool").exists(), "gone after {:?}", began.elapsed());
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(life.runs.forget(later.run), kept);
    assert!(began.elapsed() >= std::time::Duration::from_secs(1), "it was not kept");
    assert!(!life.directory(later.run).exists(), "it was kept for longer");
    assert!(life.runs.held().is_empty());

    // Without a word of the owner's the controller's counts; until then the run can be asked for, as after a restored backup.
    std::fs::write(machine.paths().config, "").unwrap();
    life.runs.keep(3600);
    let asked = script("echo output");
    life.finish(&asked).await;
    let (runs, id) = (life.runs.clone(), asked.run);
    let waits = tokio::spawn(async move { runs.forget(id).await });
    assert_eq!(life.runs.held(), [asked.run]);
    // Who says it again waits for nothing, and changes nothing.
    tokio::task::yield_now().await;
    life.runs.forget(asked.run).await;
    assert!(!waits.is_finished());
    let open = OpenRun { run: asked.run, offset: 0, started: true, cancel: None, dispatch: None };
    // Who asks for it needs it: it stays until it is said again that it may go.
    assert!(matches!(life.runs.open(open).await, Opened::Held(_)));
    waits.await.unwrap();
    assert_eq!(life.runs.held(), [asked.run]);
    // So it is when the controller goes: its time does not run while nobody could ask for it.
    let (runs, id) = (life.runs.clone(), asked.run);
    let waits = tokio::spawn(async move { runs.forget(id).await });
    while !waits.is_finished() {
        life.runs.hold_kept();
        tokio::task::yield_now().await;
    }
    assert_eq!(life.runs.held(), [asked.run]);
    assert!(life.directory(asked.run).join("spool").exists());
    // Kept or not, it is never started again.
    assert!(matches!(life.runs.open(life.dispatch(&later)).await, Opened::Unknown));
}

/// What was done and told comes behind what is still to do.
#[tokio::test]
async fn what_is_kept_goes_before_a_run_is_refused_for_want_of_room() {
    let machine = Machine::new();
    let life = machine.start(boot(1));
    life.runs.keep(3600);
    let done = [script("echo older"), script("echo newer")];
    let mut waits = Vec::new();
    for request in &done {
        life.finish(request).await;
        let (runs, run) = (life.runs.clone(), request.run);
        waits.push(tokio::spawn(async move { runs.forget(run).await }));
        // Until it is kept: who says it again waits for nothing.
        tokio::task::yield_now().await;
        life.runs.forget(run).await;
    }
    assert_eq!(life.runs.held().len(), 2);
    // There is room.
    life.finish(&script("echo another")).await;
    assert_eq!(life.runs.held().len(), 3);
    // More than any disk has: all of them must go, and then it is refused.
    std::fs::write(machine.paths().config, format!("[runs]\nmin_free_mib = {}", u64::MAX >> 20)).unwrap();
    assert_eq!(life.refusal(&script("echo more")).await, Refusal::DiskFull);
    for (request, wait) in done.iter().zip(waits) {
        wait.await.unwrap();
        assert!(!life.directory(request.run).exists());
        assert!(!life.runs.held().contains(&request.run));
        // And is never started again.
        assert!(matches!(life.runs.open(life.dispatch(request)).await, Opened::Unknown));
    }
}

#[tokio::test]
async fn an_unknown_run_without_a_dispatch_is_unknown() {
    let machine = Machine::new();
    let life = machine.start(boot(1));
    let open = OpenRun { run: run_id(), offset: 0, started: false, cancel: None, dispatch: None };
    assert!(matches!(life.runs.open(open).await, Opened::Unknown));
}

/// An order that is none, or not for this run, or for later, starts nothing.
#[tokio::test]
async fn an_order_means_one_host_one_step_and_a_time() {
    let machine = Machine::new();
    let life = machine.start(boot(1));
    let starts = machine.path("starts");
    let request = script(&format!("echo started >> {}", starts.display()));
    let refusal = async |open: OpenRun| {
        let Opened::Held(progress) = life.runs.open(open).await else { panic!("it is unknown") };
        match last(progress).await {
            Stage::Refused { refusal, .. } => refusal,
            stage => panic!("{stage:?}"),
        }
    };
    let with = |change: fn(&mut Dispatch)| {
        let mut open = life.dispatch(&request);
        change(open.dispatch.as_mut().unwrap());
        open
    };
    let malformed = |detail: &str| Refusal::Malformed { detail: Text::of(detail) };

    let elsewhere = OpenRun { run: run_id(), ..life.dispatch(&request) };
    assert_eq!(refusal(elsewhere).await, malformed("the order is for another run"));
    let Refusal::Malformed { detail } = refusal(with(|dispatch| dispatch.order.truncate(50))).await else {
        panic!("half an order was taken")
    };
    assert!(detail.starts_with("the order: "), "{detail}");
    let changed = with(|dispatch| *dispatch.order.last_mut().unwrap() ^= 1);
    assert_eq!(refusal(changed).await, malformed("the order: the step is not the one of the plan"));
    let early = with(|dispatch| dispatch.remaining_ms += 1000);
    assert_eq!(refusal(early).await, Refusal::NotYet);
    let without = with(|dispatch| dispatch.contents = List::default());
    assert_eq!(refusal(without).await, Refusal::DigestMismatch);
    for authority in [Authority::Query, Authority::Session] {
        assert_eq!(refusal(asking(&machine.client, authority, &request)).await, Refusal::NotARun);
    }
    assert!(!starts.exists());
    assert_eq!(life.finish(&request).await.outcome, Outcome::Exited(0));
}

#[tokio::test]
async fn what_the_host_does_not_allow_is_refused_with_the_rule() {
    let machine = Machine::new();
    let life = machine.start(boot(1));
    let starts = machine.path("starts");
    let body = format!("echo started >> {}", starts.display());

    machine.write_client_id("FLEET-00000000-0000-4000-8000-000000000001");
    let found = "FLEET-00000000-0000-4000-8000-000000000001".to_owned();
    assert_eq!(life.refusal(&script(&body)).await, Refusal::ClientIdMismatch { found: Text::of(&found) });
    machine.write_client_id("not a client id");
    let found = "not a client id".to_owned();
    assert_eq!(life.refusal(&script(&body)).await, Refusal::ClientIdMismatch { found: Text::of(&found) });
    std::fs::set_permissions(machine.paths().client_id, std::os::unix::fs::PermissionsExt::from_mode(0o666))
        .unwrap();
    match life.refusal(&script(&body)).await {
        Refusal::NotAllowed { rule } => {
            assert!(rule.contains("client ID cannot be used") && rule.contains("chmod"), "{rule}")
        }
        refusal => panic!("{refusal:?}"),
    }
    std::fs::remove_file(machine.paths().client_id).unwrap();
    assert_eq!(life.refusal(&script(&body)).await, Refusal::ClientIdMissing);
    machine.write_client_id(machine.client.as_str());

    for (policy, word) in [
        ("[policy]\nkinds = []", "policy.kinds"),
        ("[policy]\nusers = ['nobody-else']", "policy.users"),
        ("[policy]\nkind = []", "kind"),
    ] {
        std::fs::write(machine.paths().config, policy).unwrap();
        match life.refusal(&script(&body)).await {
            Refusal::NotAllowed { rule } => assert!(rule.contains(word), "{rule}"),
            refusal => panic!("{refusal:?}"),
        }
    }
    std::fs::write(machine.paths().config, "[runs]\nmin_free_mib = 1000000000000").unwrap();
    assert_eq!(life.refusal(&script(&body)).await, Refusal::DiskFull);
    // Whoever takes the file away does not take the owner's "no" away.
    std::fs::remove_file(machine.paths().config).unwrap();
    match life.refusal(&script(&body)).await {
        Refusal::NotAllowed { rule } => assert!(rule.contains("agent.toml is missing"), "{rule}"),
        refusal => panic!("{refusal:?}"),
    }
    std::fs::write(machine.paths().config, "").unwrap();

    let mut late = script(&body);
    late.remaining = std::time::Duration::ZERO;
    assert_eq!(life.refusal(&late).await, Refusal::DeadlinePassed);
    let mut altered = script(&body);
    altered.content.push_str("reboot\n");
    assert_eq!(life.refusal(&altered).await, Refusal::DigestMismatch);
    assert!(!starts.exists());
    // What may be refused for a passing reason is held until the controller has committed the refusal.
    assert_eq!(life.runs.load().held, 9);
    assert_eq!(life.finish(&script(&body)).await.outcome, Outcome::Exited(0));
}

#[tokio::test]
async fn limits_hold_or_the_run_is_refused() {
    let machine = Machine::new();
    let life = machine.start(boot(1));
    let mut request = script("grep ':pids:' /proc/self/cgroup | cut -d: -f3");
    request.limits.tasks = 50;
    let Refusal::NotAllowed { rule } = life.refusal(&request).await else { panic!("it was not refused") };
    assert!(rule.contains("tasks"), "{rule}");

    for (controller, file, held) in [
        ("pids", "pids.max", 50),
        ("memory", "memory.limit_in_bytes", 64 << 20),
        ("cpu", "cpu.cfs_quota_us", 50_000),
    ] {
        let Some(service) = Service::new(controller) else { continue };
        let life = machine.start_with(boot(1), service.delegated.clone());
        let mut request = script(&format!(
            "grep -E ':([^:]*,)?{controller}(,[^:]*)?:' /proc/self/cgroup | cut -d: -f3; cat {}/run-*/{file}",
            service.directory.display()
        ));
        match controller {
            "pids" => request.limits.tasks = 50,
            "memory" => request.limits.memory = 64 << 20,
            _ => request.limits.cpu_milli = 500,
        }
        let text = life.stdout(&request).await;
        assert_eq!(text, format!("{}/run-{}\n{held}\n", service.path, request.run));
        service.remove().await;
    }
}

#[tokio::test]
async fn a_script_that_takes_more_memory_than_it_may_is_ended_alone() {
    let Some(service) = Service::new("memory") else { return };
    let machine = Machine::new();
    let life = machine.start_with(boot(1), service.delegated.clone());
    let mut request = script("echo begun; exec tail /dev/zero");
    request.limits.memory = 64 << 20;
    let end = life.finish(&request).await;
    assert_eq!(end.outcome, Outcome::Signalled(9));
    assert_eq!(life.output(request.run, &end).stdout, b"begun\n");
    service.remove().await;
}

/// A supervisor that cannot prepare its run says so before it goes: the run was not started, and is not lost.
#[test]
fn a_run_that_cannot_be_prepared_is_refused_and_not_lost() {
    let directory = tempfile::tempdir().unwrap();
    let (_agent, end) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut supervisor = std::process::Command::new(env!("CARGO_BIN_EXE_fleetward-agent"));
    supervisor.arg("supervise").arg(directory.path()).stdin(std::os::fd::OwnedFd::from(end));
    assert!(!supervisor.output().unwrap().status.success());
    let told = End::read(directory.path()).unwrap();
    let Some(End::Refused(Refusal::SpawnFailed { detail })) = told else {
        panic!("it ended as {told:?}");
    };
    assert!(detail.starts_with("prepare the run: "), "{detail}");
}

/// What is ignored or blocked stays so across execve(2), from whoever started the agent down to every script. A
/// supervisor that inherited an ignored SIGCHLD would not even hear of its script's end.
#[tokio::test]
async fn a_script_handles_all_signals_whatever_its_agent_ignores_and_blocks() {
    use std::os::unix::fs::PermissionsExt as _;

    let machine = Machine::new();
    let supervisor = machine.path("supervisor");
    let program = env!("CARGO_BIN_EXE_fleetward-agent");
    let wrapper = format!("#!/bin/sh\nexec env --ignore-signal --block-signal '{program}' \"$@\"\n");
    std::fs::write(&supervisor, wrapper).unwrap();
    std::fs::set_permissions(&supervisor, std::fs::Permissions::from_mode(0o755)).unwrap();
    let life = machine.start_supervised_by(boot(1), Delegated::default(), supervisor);
    let told = life.stdout(&script("exec grep -E '^Sig(Blk|Ign)' /proc/self/status")).await;
    assert_eq!(told, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
    assert_eq!(life.finish(&script("kill -HUP $$")).await.outcome, Outcome::Signalled(1));
}

#[tokio::test]
async fn a_supervisor_that_dies_before_its_run_costs_nothing() {
    use std::os::unix::fs::PermissionsExt as _;

    let machine = Machine::new();
    let supervisor = machine.path("supervisor");
    let (program, died) = (env!("CARGO_BIN_EXE_fleetward-agent"), machine.path("died"));
    let wrapper = format!("#!/bin/sh\nmkdir '{}' && exit\nexec '{program}' \"$@\"\n", died.display());
    std::fs::write(&supervisor, wrapper).unwrap();
    std::fs::set_permissions(&supervisor, std::fs::Permissions::from_mode(0o755)).unwrap();
    let life = machine.start_supervised_by(boot(1), Delegated::default(), supervisor);
    let mut request = script("echo ${#V0}");
    // More than a socket holds: the agent is still handing it over when the supervisor dies.
    let value = "x".repeat(60 << 10);
    request.script.environment = (0..7).map(|number| (format!("V{number}"), value.clone())).collect();
    assert_eq!(life.stdout(&request).await, "61440\n");
    assert!(died.exists());
}
