//! What others on the host can see of a run, change of it, or do to it; and what a copy of its files tells.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use fleetward_agent::platform::users;
use fleetward_agent::run::Stage;
use fleetward_protocol::run::{Outcome, Refusal};
use nix::sys::stat::{Mode, umask};
use tokio::io::AsyncWriteExt as _;

use crate::host::{Life, Machine, Request, boot, finished, last, script, skipped, written};

/// A machine that other users may pass through, as the package makes it.
fn open_machine() -> Machine {
    let machine = Machine::new();
    for path in [machine.directory.path(), &machine.paths().state, &machine.paths().runs()] {
        fs::set_permissions(path, Permissions::from_mode(0o711)).unwrap();
    }
    machine
}

fn as_daemon(body: &str) -> Request {
    let mut request = script(body);
    request.script.user = Some("daemon".parse().unwrap());
    request
}

async fn refused_to_spawn(life: &Life, request: &Request) -> String {
    match life.refusal(request).await {
        Refusal::SpawnFailed { detail } => detail.into(),
        refusal => panic!("{refusal:?}"),
    }
}

/// One process per test: the umask is the whole process's, and its supervisors inherit it.
#[tokio::test]
async fn modes_do_not_depend_on_the_umask() {
    let machine = Machine::new();
    let life = machine.start(boot(1));
    for mask in [0o000, 0o077] {
        umask(Mode::from_bits_truncate(mask));
        let gate = machine.path(&format!("gate.{mask:o}"));
        let request = script(&format!("umask; mkfifo {0}; read < {0}", gate.display()));
        let mut progress = life.begin(&request).await;
        written(&mut progress, 13 + 5).await;
        let directory = life.directory(request.run);
        let mode = |name: &str| fs::metadata(directory.join(name)).unwrap().mode() & 0o7777;
        let modes = ["", "control", "spec", "script", "spool"].map(mode);
        assert_eq!(modes, [0o711, 0o600, 0o600, 0o500, 0o600], "umask {mask:o}");
        tokio::fs::write(gate, "go\n").await.unwrap();
        let end = finished(progress).await;
        assert_eq!(life.output(request.run, &end).stdout, b"0022\n", "the script's own");
        assert_eq!(mode("result"), 0o600);
    }
}

/// Connects as another user and asks for a stop; returns whether somebody took it.
fn stop_as(uid: u32, socket: &Path) -> bool {
    std::thread::scope(|scope| {
        let stop = scope.spawn(|| {
            // SAFETY: integers; the raw call changes this thread alone, which ends here.
            let became = unsafe { libc::syscall(libc::SYS_setresuid, u32::MAX, uid, u32::MAX) };
            assert_eq!(became, 0);
            let Ok(mut stream) = UnixStream::connect(socket) else { return false };
            std::io::Write::write_all(&mut stream, b"c").ok();
            // Whoever is not heard sees the end of the connection; whoever is, is told that the script runs.
            matches!(std::io::Read::read(&mut stream, &mut [0]), Ok(1..))
        });
        stop.join().unwrap()
    })
}

#[tokio::test]
async fn nobody_else_can_stop_a_run_through_its_socket() {
    if !users::may_change_user() {
        return skipped("becoming another user", "only root may");
    }
    let machine = open_machine();
    umask(Mode::empty());
    let life = machine.start(boot(1));
    let gate = machine.path("gate");
    let request = script(&format!("mkfifo {0}; echo ready; read < {0}", gate.display()));
    let mut progress = life.begin(&request).await;
    written(&mut progress, 13 + 6).await;
    let socket = life.directory(request.run).join("control");
    assert!(!stop_as(1, &socket), "by its mode");
    // Whatever happens to the mode, the kernel says who asks.
    fs::set_permissions(&socket, Permissions::from_mode(0o666)).unwrap();
    assert!(!stop_as(1, &socket), "by its peer's user");
    tokio::fs::write(gate, "go\n").await.unwrap();
    assert_eq!(finished(progress).await.outcome, Outcome::Exited(0));
}

#[tokio::test]
async fn a_script_cannot_be_changed_by_the_user_it_runs_as() {
    if !users::may_change_user() {
        return skipped("becoming another user", "only root may");
    }
    let machine = open_machine();
    let life = machine.start(boot(1));
    let gate = machine.path("gate");
    nix::unistd::mkfifo(&gate, Mode::from_bits_truncate(0o600)).unwrap();
    fs::set_permissions(&gate, Permissions::from_mode(0o644)).unwrap();
    let request = as_daemon(&format!(
        "stat -c %U \"$0\"; grep -c changed \"$0\"\n\
         echo 'echo changed' 2>/dev/null >> \"$0\" && echo appended\n\
         chmod u+w \"$0\" 2>/dev/null && echo opened\n\
         rm -f \"$0\" 2>/dev/null && echo removed\n\
         mv \"$0\" /tmp 2>/dev/null && echo moved\n\
         touch \"${{0%/*}}/x\" 2>/dev/null && echo made\n\
         ls \"${{0%/*}}\" 2>/dev/null\n\
         echo ready; read < {}",
        gate.display()
    ));
    let progress = life.begin(&request).await;
    // Opened when the script does so too: all that it tried before is done then.
    let mut gate = tokio::fs::OpenOptions::new().write(true).open(&gate).await.unwrap();
    let path = life.directory(request.run).join("script");
    let reads = |uid, gid| Command::new("/usr/bin/test").arg("-r").arg(&path).uid(uid).gid(gid).status();
    assert!(reads(1, 1).unwrap().success());
    assert!(!reads(65534, 65534).unwrap().success(), "a third user reads the script");
    assert_eq!(fs::read(&path).unwrap(), request.content.as_bytes());
    gate.write_all(b"go\n").await.unwrap();
    gate.flush().await.unwrap();
    let end = finished(progress).await;
    let output = life.output(request.run, &end);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "root\n2\nready\n");
    assert_eq!(end.outcome, Outcome::Exited(0));
}

#[tokio::test]
async fn a_user_who_cannot_reach_what_it_needs_is_refused_with_user_and_path() {
    if !users::may_change_user() {
        return skipped("becoming another user", "only root may");
    }
    let machine = open_machine();
    let life = machine.start(boot(1));
    let state = machine.paths().state;

    fs::set_permissions(&state, Permissions::from_mode(0o700)).unwrap();
    let request = as_daemon("echo started");
    let told = refused_to_spawn(&life, &request).await;
    let script_path = life.directory(request.run).join("script");
    for part in [
        format!("read the script {} as user daemon: Permission denied", script_path.display()),
        format!("daemon may not pass through {0}: run `chmod o+x {0}`", state.display()),
    ] {
        assert!(told.contains(&part), "{told}");
    }
    // Its own user needs no way.
    assert_eq!(life.finish(&script("true")).await.outcome, Outcome::Exited(0));
    fs::set_permissions(&state, Permissions::from_mode(0o711)).unwrap();

    let closed = machine.path("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, Permissions::from_mode(0o700)).unwrap();
    let mut elsewhere = as_daemon("echo started");
    elsewhere.script.directory = Some(closed.display().to_string());
    let told = refused_to_spawn(&life, &elsewhere).await;
    let wanted =
        format!("enter the working directory {0} as user daemon: Permission denied", closed.display());
    assert!(told.contains(&wanted) && told.contains("chmod o+x"), "{told}");
}

/// Neither the journal nor any file of the run tells what it was given, while it waits, while it runs, and afterwards.
#[tokio::test]
async fn what_a_run_is_given_is_in_no_file() {
    let machine = Machine::new();
    fs::write(machine.paths().config, "[runs]\nconcurrent = 1").unwrap();
    let life = machine.start(boot(1));
    let gate = machine.path("gate");
    let with_secret = |body: &str| {
        let mut request = script(body);
        request.script.environment.insert("TOKEN".into(), "hunter2-hunter2".into());
        request
    };
    let first = with_secret(&format!("mkfifo {0}; echo ${{#TOKEN}}; read < {0}", gate.display()));
    let mut progress = life.begin(&first).await;
    written(&mut progress, 13 + 3).await;
    let second = with_secret("echo ${#TOKEN}");
    let waiting = life.begin(&second).await;
    assert_eq!(waiting.borrow().stage, Stage::Waiting);
    assert_eq!(files_with(&machine.paths().state, b"hunter2"), Vec::<String>::new(), "running and waiting");
    tokio::fs::write(gate, "go\n").await.unwrap();
    for (request, progress) in [(&first, progress), (&second, waiting)] {
        let end = finished(progress).await;
        assert_eq!(life.output(request.run, &end).stdout, b"15\n", "the script has it all the same");
    }
    assert_eq!(files_with(&machine.paths().state, b"hunter2"), Vec::<String>::new(), "afterwards");
}

fn files_with(directory: &Path, needle: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if kind.is_dir() {
            found.extend(files_with(&path, needle));
        } else if kind.is_file() && fs::read(&path).unwrap().windows(needle.len()).any(|part| part == needle)
        {
            found.push(path.display().to_string());
        }
    }
    found
}

/// A large environment is more than a socket takes at once.
#[tokio::test]
async fn a_large_environment_arrives_whole() {
    let machine = Machine::new();
    let life = machine.start(boot(1));
    for _ in 0..2 {
        let mut request = script("cat /proc/$$/environ | wc -c");
        for number in 0..7 {
            request.script.environment.insert(format!("V{number}"), "x".repeat(60_000));
        }
        let bytes: usize = life.stdout(&request).await.trim().parse().unwrap();
        assert!(bytes > 420_000, "{bytes}");
        // The next has a spare supervisor.
        life.runs.forget(request.run).await;
    }
}

/// Without its key an order that waits cannot be read: it is refused with the reason, and never started without what it
/// was given.
#[test]
fn what_was_sealed_with_a_lost_key_is_refused() {
    let machine = Machine::new();
    fs::write(machine.paths().config, "[runs]\nconcurrent = 1").unwrap();
    let (gate, starts) = (machine.path("gate"), machine.path("starts"));
    let holder = script(&format!("mkfifo {0}; echo ready; read < {0}", gate.display()));
    let waiting = script(&format!("echo started >> {}", starts.display()));
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let first = runtime();
    first.block_on(async {
        let life = machine.start(boot(1));
        let mut progress = life.begin(&holder).await;
        written(&mut progress, 13 + 6).await;
        assert_eq!(life.begin(&waiting).await.borrow().stage, Stage::Waiting);
    });
    drop(first);
    fs::remove_file(machine.paths().journal().with_extension("key")).unwrap();
    runtime().block_on(async {
        let life = machine.start(boot(1));
        let Stage::Refused { refusal: Refusal::SpawnFailed { detail }, accepted: true } =
            last(life.resume(waiting.run).await).await
        else {
            panic!("it was not refused");
        };
        assert!(detail.contains("journal.key") && detail.contains("ask for the run again"), "{detail}");
        tokio::fs::write(&gate, "go\n").await.unwrap();
        // What runs already needs no key.
        assert_eq!(finished(life.resume(holder.run).await).await.outcome, Outcome::Exited(0));
    });
    assert!(!starts.exists());
}

/// What the host itself never takes from a request, whoever sends it, and what its owner narrows.
#[tokio::test]
async fn variables_are_narrowed_by_the_host() {
    let machine = Machine::new();
    let life = machine.start(boot(1));
    let with = |variable: &str| {
        let mut request = script("echo \"$TZ\"");
        request.script.environment.insert(variable.into(), "UTC".into());
        request
    };
    for variable in ["BASH_ENV", "LD_PRELOAD", "PATH", "PS4", "FLEETWARD_RUN_ID"] {
        match life.refusal(&with(variable)).await {
            Refusal::Malformed { detail } => assert!(detail.contains(variable), "{detail}"),
            refusal => panic!("{variable}: {refusal:?}"),
        }
    }
    assert_eq!(life.stdout(&with("TZ")).await, "UTC\n");
    fs::write(machine.paths().config, "[policy]\nenvironment = ['LC_ALL']").unwrap();
    match life.refusal(&with("TZ")).await {
        Refusal::NotAllowed { rule } => {
            let wanted = format!(
                "policy.environment in {}, line 2, does not name `TZ`; ",
                machine.paths().config.display()
            );
            assert!(rule.starts_with(&wanted), "{rule}");
        }
        refusal => panic!("{refusal:?}"),
    }
    assert_eq!(life.stdout(&script("echo ok")).await, "ok\n", "what asks for none");
    fs::write(machine.paths().config, "[policy]\nenvironment = ['TZ']").unwrap();
    assert_eq!(life.stdout(&with("TZ")).await, "UTC\n");
}

#[tokio::test]
async fn a_policy_that_others_could_have_written_allows_nothing() {
    let machine = Machine::new();
    let life = machine.start(boot(1));
    let config = machine.paths().config;
    fs::write(&config, "").unwrap();
    assert_eq!(life.stdout(&script("echo ok")).await, "ok\n");
    fs::set_permissions(&config, Permissions::from_mode(0o666)).unwrap();
    match life.refusal(&script("echo ok")).await {
        Refusal::NotAllowed { rule } => {
            let wanted = format!("run `chmod go-w {}`", config.display());
            assert!(rule.contains("mode 0666") && rule.contains(&wanted), "{rule}");
        }
        refusal => panic!("{refusal:?}"),
    }
    fs::write(&config, "[policy]\nkinds = ['Script']").unwrap();
    fs::set_permissions(&config, Permissions::from_mode(0o644)).unwrap();
    match life.refusal(&script("echo ok")).await {
        Refusal::NotAllowed { rule } => assert!(rule.contains("did you mean `script`?"), "{rule}"),
        refusal => panic!("{refusal:?}"),
    }
}
