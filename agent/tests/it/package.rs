//! The kind `package` and the query `packages`, with the real apt and dpkg on a root of their own.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::sync::Arc;

use fleetward_agent::query::{Counted, Queries};
use fleetward_agent::run::{Opened, Progress};
use fleetward_protocol::action::package::PackageReport;
use fleetward_protocol::action::{ActionRequest, Preview};
use fleetward_protocol::event::StepState;
use fleetward_protocol::message::{OpenRun, QueryUp};
use fleetward_protocol::order::{Authority, Limits};
use fleetward_protocol::output::Records;
use fleetward_protocol::query::packages::PackageItem;
use fleetward_protocol::query::read_item;
use fleetward_protocol::run::{CancelCause, Outcome, Refusal};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::watch;

use crate::debian::{Deb, Debian, MAIN, SECURITY, deb, machine};
use crate::host::{
    Life, Machine, Output, Request, asking, boot, client, exited, finished, script, skipped, written,
};
use crate::systemd::{Bus, Shared, World, bus, play};

/// What is asked of a host, as a person writes it.
fn request(params: &str) -> Request {
    let typed = Some(ActionRequest { kind: "package".into(), params: params.into() });
    Request { typed, content: String::new(), ..script("") }
}

async fn ask(life: &Life, params: &str) -> (Outcome, Output) {
    let request = request(params);
    let end = life.finish(&request).await;
    let output = life.output(request.run, &end);
    (end.outcome, output)
}

/// What has to go well.
async fn done(life: &Life, params: &str) -> PackageReport {
    let (outcome, output) = ask(life, params).await;
    assert_eq!(outcome, Outcome::Exited(0), "{params}: {}{}", text(&output.stdout), text(&output.stderr));
    report(&output)
}

/// What has to fail, and what is said of it.
async fn fails(life: &Life, params: &str) -> String {
    let (outcome, output) = ask(life, params).await;
    assert_eq!(outcome, Outcome::Exited(1), "{params}: {}", text(&output.stdout));
    text(&output.stderr)
}

fn report(output: &Output) -> PackageReport {
    serde_json::from_value(output.report.clone().expect("a report")).unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// `name before>after`, of each change.
fn changes(report: &PackageReport) -> Vec<String> {
    let version = |version: &Option<fleetward_protocol::text::Word>| {
        version.as_ref().map(|version| version.to_string()).unwrap_or_default()
    };
    let change = |change: &fleetward_protocol::action::package::PackageChange| {
        format!("{} {}>{}", change.name, version(&change.before), version(&change.after))
    };
    report.changes.iter().map(change).collect()
}

/// The packages that the query lists.
async fn list(machine: &Machine, params: &str) -> BTreeMap<String, PackageItem> {
    let queries = Queries::new(machine.start(boot(9)).runs);
    let typed = Some(ActionRequest { kind: "packages".into(), params: params.into() });
    let order = asking(&client(), Authority::Query, &Request { typed, ..script("") }).dispatch.unwrap().order;
    let open = fleetward_protocol::message::OpenQuery { order, remaining_ms: 60_000, follow: false };
    let mut answer = queries.open(&open).await.unwrap();
    let mut found = BTreeMap::new();
    while let Some(said) = answer.next().await {
        match said {
            QueryUp::Items(items) => {
                for item in &items {
                    let fields = read_item(&item.item).expect("an item is what the controller takes");
                    let item: PackageItem =
                        serde_json::from_value(serde_json::Value::Object(fields)).unwrap();
                    found.insert(item.name.to_string(), item);
                }
            }
            QueryUp::Complete | QueryUp::Ended => {}
            other => panic!("{other:?}"),
        }
    }
    found
}

#[tokio::test]
async fn packages_come_are_upgraded_and_go_and_are_left_alone_the_second_time() {
    let Some((machine, debian)) = machine("packages") else { return };
    let needs = Deb { control: "Depends: base\n", ..deb("tool", "1.0-1") };
    debian.publish(MAIN, &[deb("base", "1.0-1"), needs, deb("other", "1.0-1")]);
    let life = machine.start(boot(1));
    let told = done(&life, r#"{"verb":"refresh"}"#).await;
    assert_eq!((told.changed, told.pending), (true, Some(0)));
    assert!(!done(&life, r#"{"verb":"refresh"}"#).await.changed, "the lists are as they were");

    let told = done(&life, r#"{"verb":"install","names":["tool"]}"#).await;
    assert_eq!(
        (told.changed, changes(&told)),
        (true, vec!["base >1.0-1".to_owned(), "tool >1.0-1".to_owned()])
    );
    assert_eq!(debian.installed("tool.version").as_deref(), Some("1.0-1"));
    let (outcome, output) = ask(&life, r#"{"verb":"install","names":["tool"]}"#).await;
    assert_eq!((outcome, report(&output).changed), (Outcome::Exited(0), false));
    assert_eq!(output.events.last().unwrap().state, StepState::Unchanged);

    debian.publish(MAIN, &[deb("base", "1.0-2"), Deb { control: "Depends: base\n", ..deb("tool", "1.1-1") }]);
    assert_eq!(done(&life, r#"{"verb":"refresh"}"#).await.pending, Some(2));
    let told = done(&life, r#"{"verb":"hold","names":["base"]}"#).await;
    assert_eq!((changes(&told), told.changes[0].held), (vec!["base 1.0-1>1.0-1".to_owned()], Some(true)));
    assert!(!done(&life, r#"{"verb":"hold","names":["base"]}"#).await.changed);

    let listed = list(&machine, r#"{"pending":true}"#).await;
    assert_eq!(listed.keys().map(String::as_str).collect::<Vec<_>>(), ["base", "tool"]);
    let base = &listed["base"];
    assert_eq!((base.version.as_str(), base.candidate.as_deref()), ("1.0-1", Some("1.0-2")));
    assert_eq!((base.origin.as_deref(), base.suite.as_deref()), (Some("Debian"), Some("stable")));
    assert_eq!((base.held, base.automatic, base.security), (true, true, false));
    assert!(!listed["tool"].held && !listed["tool"].automatic);
    assert_eq!(list(&machine, r#"{"held":true}"#).await.len(), 1);
    let queries = || Queries::new(machine.start(boot(9)).runs);
    assert_eq!(queries().count_updates().await, Some(Counted { updates: 2, security: 0 }));
    let config = machine.paths().config;
    let before = std::fs::read_to_string(&config).ok();
    std::fs::write(&config, "[policy]\nkinds = ['package']\n").unwrap();
    assert_eq!(queries().count_updates().await, None, "the owner does not let it be asked how it is");
    match before {
        Some(before) => std::fs::write(&config, before).unwrap(),
        None => std::fs::remove_file(&config).unwrap(),
    }
    assert_eq!(list(&machine, r#"{"pattern":"t*"}"#).await.len(), 1);

    // A dry run says so, and changes nothing.
    let rehearsal = Request { authority: Authority::Rehearse, ..request(r#"{"verb":"upgrade"}"#) };
    let end = life.finish(&rehearsal).await;
    let preview: Preview = serde_json::from_value(life.output(rehearsal.run, &end).report.unwrap()).unwrap();
    let told: Vec<_> = preview.changes.iter().map(|change| change.what.as_str()).collect();
    assert_eq!((end.outcome, told), (Outcome::Exited(0), vec!["change tool"]));
    assert_eq!(debian.status()["tool"], "install installed 1.0-1");

    assert_eq!(
        changes(&done(&life, r#"{"verb":"upgrade"}"#).await),
        ["tool 1.0-1>1.1-1"],
        "what is held stays"
    );
    let told = fails(&life, r#"{"verb":"upgrade","names":["base"]}"#).await;
    assert!(told.contains("base is held") && told.contains("`unhold`"), "{told}");
    assert!(done(&life, r#"{"verb":"unhold","names":["base"]}"#).await.changed);
    assert_eq!(changes(&done(&life, r#"{"verb":"upgrade","names":["base"]}"#).await), ["base 1.0-1>1.0-2"]);
    assert!(
        list(&machine, r#"{"pattern":"base"}"#).await["base"].automatic,
        "it was installed for another one"
    );
    assert!(!done(&life, r#"{"verb":"upgrade"}"#).await.changed);

    let told = fails(&life, r#"{"verb":"remove","names":["base"]}"#).await;
    assert!(told.contains("tool would be removed as well"), "{told}");
    let told = done(&life, r#"{"verb":"remove","names":["tool"],"autoremove":true}"#).await;
    assert_eq!(changes(&told), ["base 1.0-2>", "tool 1.1-1>"]);
    assert!(!done(&life, r#"{"verb":"remove","names":["tool"]}"#).await.changed);
    assert_eq!(list(&machine, "{}").await.len(), 0);
}

/// By lists that were not fetched nobody knows what there is to upgrade.
#[tokio::test]
async fn lists_that_cannot_be_fetched_tell_of_no_upgrades() {
    let Some((machine, debian)) = machine("lists that cannot be fetched") else { return };
    let life = machine.start(boot(1));
    std::fs::remove_dir_all(debian.path(MAIN)).unwrap();
    let (outcome, output) = ask(&life, r#"{"verb":"refresh"}"#).await;
    assert_eq!(outcome, Outcome::Exited(1), "{}", text(&output.stdout));
    assert_eq!(report(&output).pending, None);
    assert!(!text(&output.stdout).contains("to upgrade:"), "{}", text(&output.stdout));
}

#[tokio::test]
async fn what_cannot_be_is_told_before_anything_is_done() {
    let Some((machine, debian)) = machine("packages that cannot be had") else { return };
    let broken = Deb { control: "Depends: nothing-has-it\n", ..deb("broken", "1") };
    let virtually = Deb { control: "Provides: mailer\n", ..deb("postman", "1") };
    let taking = Deb { control: "Conflicts: postman\n", ..deb("rival", "1") };
    debian.publish(MAIN, &[broken, virtually, taking, deb("abc", "1.0-1"), deb("abc", "1.0-2")]);
    let life = machine.start(boot(1));
    done(&life, r#"{"verb":"refresh"}"#).await;
    done(&life, r#"{"verb":"install","names":["postman"]}"#).await;
    for (params, told) in [
        (r#"{"verb":"install","names":["no-such"]}"#, "apt knows no package no-such"),
        // To apt-get that would be a pattern, and each of these a word of its own.
        (r#"{"verb":"install","names":["a.c"]}"#, "apt knows no package a.c"),
        (r#"{"verb":"install","names":["abc+"]}"#, "apt knows no package abc+"),
        (r#"{"verb":"install","names":["mailer"]}"#, "others provide it"),
        (r#"{"verb":"install","names":["abc=3"]}"#, "there is 1.0-2 and 1.0-1"),
        (r#"{"verb":"install","names":["broken"]}"#, "nothing-has-it"),
        (r#"{"verb":"install","names":["rival"]}"#, "nothing is removed that was not named"),
        (r#"{"verb":"upgrade","names":["abc"]}"#, "abc is not installed"),
        (r#"{"verb":"hold","names":["abc"]}"#, "abc is not installed"),
    ] {
        let said = fails(&life, params).await;
        assert!(said.contains(told), "{params}: {said}");
    }
    assert_eq!(debian.status().len(), 1);
    // A version that is named is meant, also an older one.
    done(&life, r#"{"verb":"install","names":["abc"]}"#).await;
    let told = done(&life, r#"{"verb":"install","names":["abc=1.0-1"]}"#).await;
    assert_eq!(changes(&told), ["abc 1.0-2>1.0-1"]);
}

#[tokio::test]
async fn the_agent_and_what_it_needs_stay() {
    let Some((machine, debian)) = machine("the agent's own package") else { return };
    let agent =
        |version| Deb { control: "Depends: helper\nRecommends: friend\n", ..deb("fleetward-agent", version) };
    debian.publish(
        MAIN,
        &[agent("1.0"), agent("1.1"), deb("helper", "1"), deb("helper", "2"), deb("friend", "1")],
    );
    let life = machine.start(boot(1));
    done(&life, r#"{"verb":"refresh"}"#).await;
    done(&life, r#"{"verb":"install","names":["fleetward-agent=1.0"]}"#).await;
    let told = done(&life, r#"{"verb":"upgrade"}"#).await;
    assert_eq!(changes(&told), ["fleetward-agent 1.0>1.1"], "its own upgrade goes through it");
    for params in [
        r#"{"verb":"remove","names":["fleetward-agent"]}"#,
        r#"{"verb":"purge","names":["fleetward-agent"]}"#,
        r#"{"verb":"remove","names":["fleetward-agent","helper"]}"#,
        r#"{"verb":"install","names":["fleetward-agent=1.0"]}"#,
    ] {
        let told = fails(&life, params).await;
        assert!(
            told.contains("fleetward-agent would be") && told.contains("it is this host's agent"),
            "{told}"
        );
    }
    let told = fails(&life, r#"{"verb":"install","names":["helper=1"]}"#).await;
    assert!(told.contains("helper would be brought back"), "{told}");
    for needed in ["helper", "friend"] {
        let told = fails(&life, &format!(r#"{{"verb":"remove","names":["{needed}"]}}"#)).await;
        assert!(told.contains(&format!("{needed} would be removed: fleetward-agent needs it")), "{told}");
    }
    assert_eq!(debian.status().len(), 3);
}

#[tokio::test]
async fn only_what_fixes_security_is_upgraded_and_no_further() {
    let Some((machine, debian)) = machine("security upgrades") else { return };
    debian.publish(MAIN, &["one", "two", "three"].map(|name| deb(name, "1")));
    let life = machine.start(boot(1));
    done(&life, r#"{"verb":"refresh"}"#).await;
    done(&life, r#"{"verb":"install","names":["one","two","three"]}"#).await;
    debian.publish(SECURITY, &[deb("one", "2"), deb("three", "2")]);
    debian.publish(MAIN, &[deb("one", "3"), deb("two", "3")]);
    done(&life, r#"{"verb":"refresh"}"#).await;
    let listed = list(&machine, r#"{"security":true}"#).await;
    let told = |name: &str| (listed[name].candidate.as_deref(), listed[name].origin.as_deref());
    assert_eq!((listed.len(), told("one")), (2, (Some("3"), Some("Debian"))));
    assert_eq!(told("three"), (Some("2"), Some("Debian-Security")));
    let told = done(&life, r#"{"verb":"upgrade","security":true,"names":["three","two"]}"#).await;
    assert_eq!(changes(&told), ["three 1>2"]);
    assert_eq!(changes(&done(&life, r#"{"verb":"upgrade","security":true}"#).await), ["one 1>2"]);
    assert!(!done(&life, r#"{"verb":"upgrade","security":true}"#).await.changed);
    assert_eq!(changes(&done(&life, r#"{"verb":"upgrade"}"#).await), ["one 2>3", "two 1>3"]);
}

#[tokio::test]
async fn a_configuration_file_that_was_changed_stays_unless_told_otherwise() {
    let Some((machine, debian)) = machine("configuration files") else { return };
    let with = |version, content| Deb { conffile: Some(content), ..deb("web", version) };
    debian.publish(MAIN, &[with("1", "first\n")]);
    let life = machine.start(boot(1));
    done(&life, r#"{"verb":"refresh"}"#).await;
    done(&life, r#"{"verb":"install","names":["web"]}"#).await;
    std::fs::write(debian.path("system/etc/web.conf"), "mine\n").unwrap();
    for (version, content, params, expected) in [
        ("2", "second\n", r#"{"verb":"upgrade"}"#, "mine\n"),
        ("3", "third\n", r#"{"verb":"upgrade","conffiles":"replace"}"#, "third\n"),
    ] {
        debian.publish(MAIN, &[with(version, content)]);
        done(&life, r#"{"verb":"refresh"}"#).await;
        assert_eq!(done(&life, params).await.changes.len(), 1);
        assert_eq!(debian.installed("etc/web.conf").as_deref(), Some(expected));
    }
    // Removed it stays, and purged it goes.
    done(&life, r#"{"verb":"remove","names":["web"]}"#).await;
    assert!(debian.installed("etc/web.conf").is_some());
    assert!(done(&life, r#"{"verb":"purge","names":["web"]}"#).await.changed);
    assert_eq!(debian.installed("etc/web.conf"), None);
    assert!(!done(&life, r#"{"verb":"purge","names":["web"]}"#).await.changed);
}

/// A package that would ask is told that nobody is there, and reads nothing.
#[tokio::test]
async fn nobody_is_asked_anything() {
    let Some((machine, debian)) = machine("packages that ask") else { return };
    let asked = debian.path("asked");
    let script = format!(
        "read -r line && echo said; env | grep -E '^(DEBIAN|APT_LIST|NEEDRESTART|UCF)' | sort > {}",
        asked.display()
    );
    // `set -e` ends a list at its last command only.
    debian.publish(MAIN, &[Deb { postinst: Some(&script), ..deb("asking", "1") }]);
    let life = machine.start(boot(1));
    done(&life, r#"{"verb":"refresh"}"#).await;
    for (params, ucf) in [
        (r#"{"verb":"install","names":["asking"]}"#, "UCF_FORCE_CONFFOLD=1"),
        (r#"{"verb":"upgrade","conffiles":"replace"}"#, "UCF_FORCE_CONFFNEW=1"),
    ] {
        let told = done(&life, params).await;
        assert_eq!(told.changes.len(), 1);
        let seen = std::fs::read_to_string(&asked).unwrap();
        let seen: Vec<&str> = seen.lines().filter(|line| !line.starts_with("DEBIAN_HAS")).collect();
        let expected = [
            "APT_LISTBUGS_FRONTEND=none",
            "APT_LISTCHANGES_FRONTEND=none",
            "DEBIAN_FRONTEND=noninteractive",
            "DEBIAN_PRIORITY=critical",
            "NEEDRESTART_MODE=l",
            ucf,
        ];
        assert_eq!(seen, expected);
        debian.publish(MAIN, &[Deb { postinst: Some(&script), ..deb("asking", "2") }]);
        done(&life, r#"{"verb":"refresh"}"#).await;
    }
}

/// Whatever is asked for: somebody decided that it stays as it is.
#[tokio::test]
async fn what_is_held_stays() {
    let Some((machine, debian)) = machine("held packages") else { return };
    debian.publish(MAIN, &[deb("kept", "1")]);
    let life = machine.start(boot(1));
    done(&life, r#"{"verb":"refresh"}"#).await;
    done(&life, r#"{"verb":"install","names":["kept"]}"#).await;
    done(&life, r#"{"verb":"hold","names":["kept"]}"#).await;
    debian.publish(MAIN, &[deb("kept", "2")]);
    debian.publish(SECURITY, &[deb("kept", "3")]);
    done(&life, r#"{"verb":"refresh"}"#).await;
    for params in [
        r#"{"verb":"remove","names":["kept"]}"#,
        r#"{"verb":"purge","names":["kept"]}"#,
        r#"{"verb":"install","names":["kept"]}"#,
        r#"{"verb":"install","names":["kept=2"]}"#,
        r#"{"verb":"upgrade","names":["kept"]}"#,
    ] {
        let told = fails(&life, params).await;
        assert!(told.contains("kept is held") && told.contains("`unhold`"), "{params}: {told}");
    }
    assert!(!done(&life, r#"{"verb":"upgrade","security":true}"#).await.changed);
    assert_eq!(debian.status()["kept"], "hold installed 1");
}

/// Waits until the run has said this.
async fn says(life: &Life, request: &Request, progress: &mut watch::Receiver<Progress>, words: &str) {
    loop {
        let length = progress.borrow().output;
        let log = match life.runs.read_output(request.run, 0, length.try_into().unwrap(), Vec::new()) {
            // It is not there yet.
            Err(error) if length == 0 => {
                assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
                Vec::new()
            }
            log => log.unwrap(),
        };
        let said: Vec<u8> = Records::new(&log).flat_map(|record| record.unwrap().payload.to_vec()).collect();
        if String::from_utf8_lossy(&said).contains(words) {
            return;
        }
        written(progress, length + 1).await;
    }
}

/// Takes a lock as apt and dpkg do, until the file is closed.
fn lock(path: &Path) -> File {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path).unwrap();
    // SAFETY: all fields of a flock may be zero.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK.try_into().unwrap();
    // SAFETY: one valid structure.
    assert_eq!(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLK, &raw const lock) }, 0);
    file
}

#[tokio::test]
async fn whoever_holds_a_lock_is_named_and_waited_for() {
    let Some((machine, debian)) = machine("locks") else { return };
    debian.publish(MAIN, &[deb("one", "1")]);
    let life = machine.start(boot(1));
    done(&life, r#"{"verb":"refresh"}"#).await;
    let lock = |name: &str| lock(&debian.path(name));
    for (file, params) in [
        ("var/lib/dpkg/lock-frontend", r#"{"verb":"install","names":["one"]}"#),
        ("var/lib/apt/lists/lock", r#"{"verb":"refresh"}"#),
    ] {
        let held = lock(file);
        let request = request(params);
        let mut progress = life.begin(&request).await;
        let holder = format!("{file} is held by");
        says(&life, &request, &mut progress, &holder).await;
        says(&life, &request, &mut progress, &format!("(process {})", std::process::id())).await;
        assert!(debian.status().is_empty() || file.contains("lists"));
        drop(held);
        assert_eq!(finished(progress).await.outcome, Outcome::Exited(0));
    }
    // Who waits longer than the run may take has changed nothing, and says what it waited for.
    let held = lock("var/lib/dpkg/lock");
    let mut late = request(r#"{"verb":"remove","names":["one"]}"#);
    (late.limits.timeout_ms, late.limits.grace_ms) = (8_000, 20_000);
    let end = life.finish(&late).await;
    let output = life.output(late.run, &end);
    let told = text(&output.stderr);
    assert_eq!(end.outcome, Outcome::TimedOut, "{told}");
    assert!(text(&output.stdout).contains("var/lib/dpkg/lock is held by"), "{output:?}");
    assert!(told.contains("stopped because the run's time limit passed while a lock was held"), "{told}");
    assert_eq!(debian.status().len(), 1);
    drop(held);
    // Who only looks waits for nobody.
    let held = lock("var/lib/dpkg/lock-frontend");
    assert_eq!(list(&machine, "{}").await.len(), 1);
    // Asked to stop, it does.
    let request = request(r#"{"verb":"remove","names":["one"]}"#);
    let mut progress = life.begin(&request).await;
    says(&life, &request, &mut progress, "is held by").await;
    life.runs.cancel(request.run, CancelCause::Requested);
    assert_eq!(finished(progress).await.outcome, Outcome::Cancelled);
    drop(held);
    assert_eq!(debian.status().len(), 1);
}

/// A script of a package that waits until somebody writes into a pipe, but only the first time.
fn waiting(debian: &Debian) -> String {
    let (pipe, mark, count) = (debian.path("pipe"), debian.path("mark"), debian.path("count"));
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    format!(
        "if ! [ -e {0} ]; then touch {0}; echo x >> {2}; echo waits $(wc -l < {2}); read -r word < {1}; fi",
        mark.display(),
        pipe.display(),
        count.display()
    )
}

/// Kills what else runs for this run, as a power cut does: everything of it has its id in its environment.
fn kill_all_of(run: fleetward_protocol::id::RunId) {
    let mark = format!("FLEETWARD_RUN_ID={run}");
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let is_of_run = |process: &std::fs::DirEntry| {
        let environment = std::fs::read(process.path().join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
    };
    let found: Vec<i32> = processes
        .filter(is_of_run)
        .filter_map(|process| process.file_name().to_str()?.parse().ok())
        .collect();
    assert!(!found.is_empty(), "dpkg and its script are at work");
    for pid in found {
        // It may be gone with another one.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        exited(pid);
    }
}

/// However often that happens: dpkg is set right each time.
#[test]
fn what_was_cut_off_in_the_middle_of_dpkg_is_set_right_in_the_next_boot() {
    let Some((machine, debian)) = machine("a power cut in dpkg") else { return };
    let waits = waiting(&debian);
    debian.publish(MAIN, &[deb("base", "1"), Deb { postinst: Some(&waits), ..deb("slow", "1") }]);
    let mark = debian.path("mark");
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let request = request(r#"{"verb":"install","names":["slow"]}"#);
    let resume = OpenRun { run: request.run, offset: 0, started: true, cancel: None, dispatch: None };
    for number in 1..=2 {
        runtime().block_on(async {
            let life = machine.start(boot(number));
            let mut progress = match number {
                1 => {
                    done(&life, r#"{"verb":"refresh"}"#).await;
                    life.begin(&request).await
                }
                _ => {
                    let Opened::Held(progress) = life.runs.open(resume.clone()).await else {
                        panic!("unknown")
                    };
                    progress
                }
            };
            says(&life, &request, &mut progress, &format!("waits {number}")).await;
            crate::resume::cut_power(&life, request.run);
            kill_all_of(request.run);
        });
        assert_eq!(debian.status()["slow"], "install half-configured 1");
        if number == 1 {
            std::fs::remove_file(&mark).unwrap();
        }
    }
    runtime().block_on(async {
        let life = machine.start(boot(3));
        let Opened::Held(progress) = life.runs.open(resume).await else { panic!("unknown") };
        let end = finished(progress).await;
        let output = life.output(request.run, &end);
        assert_eq!(end.outcome, Outcome::Exited(0), "{}{}", text(&output.stdout), text(&output.stderr));
        assert!(text(&output.stdout).contains("dpkg --configure -a, for dpkg was interrupted"), "{output:?}");
        assert!(report(&output).changed);
        assert_eq!(changes(&report(&output)), ["slow >1"], "also what it had changed before");
        assert_eq!(debian.status()["slow"], "install installed 1");
        assert!(!done(&life, r#"{"verb":"install","names":["slow"]}"#).await.changed);
    });
}

#[tokio::test]
async fn the_owner_decides_which_packages() {
    let Some((machine, debian)) = machine("the owner's rule for packages") else { return };
    debian.publish(MAIN, &[deb("one", "1"), deb("two", "1")]);
    let rules = "[policy.rules.package]\npackages = ['one']\n[policy.rules.packages]\npackages = ['one']\n";
    let life = machine.start(boot(1));
    done(&life, r#"{"verb":"refresh"}"#).await;
    done(&life, r#"{"verb":"install","names":["one","two"]}"#).await;
    std::fs::write(machine.paths().config, rules).unwrap();
    for (params, told) in [
        (r#"{"verb":"remove","names":["one","two"]}"#, "does not name `two`"),
        (r#"{"verb":"upgrade"}"#, "allows some packages only"),
    ] {
        match life.refusal(&request(params)).await {
            Refusal::NotAllowed { rule } => assert!(rule.contains(told), "{rule}"),
            other => panic!("{other:?}"),
        }
    }
    assert!(!done(&life, r#"{"verb":"upgrade","names":["one"]}"#).await.changed);
    done(&life, r#"{"verb":"refresh"}"#).await;
    assert_eq!(list(&machine, "{}").await.len(), 1);
}

/// What goes is judged by what apt would do, and not by what is named; what comes is needed by what is.
#[tokio::test]
async fn nothing_goes_that_the_owner_does_not_name() {
    let Some((machine, debian)) = machine("what the owner does not name") else { return };
    let leaf = |version| Deb { control: "Depends: base\n", ..deb("leaf", version) };
    debian.publish(MAIN, &[leaf("1"), deb("base", "1")]);
    let rules = |names: &str| {
        let text = format!("[policy.rules.package]\npackages = [{names}]\n");
        std::fs::write(machine.paths().config, text).unwrap();
    };
    let life = machine.start(boot(1));
    rules("'leaf'");
    done(&life, r#"{"verb":"refresh"}"#).await;
    let told = done(&life, r#"{"verb":"install","names":["leaf"]}"#).await;
    assert_eq!(changes(&told), ["base >1", "leaf >1"]);
    debian.publish(MAIN, &[deb("leaf", "2"), deb("base", "1")]);
    done(&life, r#"{"verb":"refresh"}"#).await;
    for params in [
        r#"{"verb":"remove","names":["leaf"],"autoremove":true}"#,
        r#"{"verb":"purge","names":["leaf"],"autoremove":true}"#,
        r#"{"verb":"upgrade","names":["leaf"],"autoremove":true}"#,
    ] {
        let rehearsal = Request { authority: Authority::Rehearse, ..request(params) };
        assert_eq!(life.finish(&rehearsal).await.outcome, Outcome::Exited(1), "{params}");
        let told = fails(&life, params).await;
        assert!(told.contains("base would be removed as well, and policy.rules.package.packages"), "{told}");
    }
    assert_eq!(debian.status().len(), 2);
    rules("'leaf', 'ba*'");
    let told = done(&life, r#"{"verb":"purge","names":["leaf"],"autoremove":true}"#).await;
    assert_eq!(changes(&told), ["base 1>", "leaf 1>"]);
}

/// The message bus may be restarted by what is changed: nobody tells of the end any more, and it is looked for.
#[tokio::test]
async fn a_bus_that_is_restarted_meanwhile_keeps_nobody_waiting() {
    let Some((mut machine, debian)) = machine("a bus that is restarted") else { return };
    let Some(first) = bus(machine.directory.path()) else {
        return skipped("a bus that is restarted", "dbus-daemon is not installed");
    };
    machine.bus = Some(first.address.clone());
    let world = Arc::new(watch::channel(World::default()).0);
    let _happens = play(first.address.clone(), Arc::clone(&world));
    let waits = waiting(&debian);
    debian.publish(MAIN, &[Deb { postinst: Some(&waits), ..deb("slow", "1") }]);
    let life = machine.start(boot(1));
    done(&life, r#"{"verb":"refresh"}"#).await;
    let request = request(r#"{"verb":"install","names":["slow"]}"#);
    let mut progress = life.begin(&request).await;
    says(&life, &request, &mut progress, "waits").await;
    let service = i32::try_from(world.borrow().service.unwrap()).unwrap();
    drop(first);
    let second = bus(machine.directory.path()).unwrap();
    let _happens = play(second.address.clone(), Arc::clone(&world));
    std::fs::write(debian.path("pipe"), "go\n").unwrap();
    exited(service);
    world.send_modify(|world| world.open = 0);
    let end = finished(progress).await;
    let output = life.output(request.run, &end);
    assert_eq!(end.outcome, Outcome::Exited(0), "{}{}", text(&output.stdout), text(&output.stderr));
    assert_eq!(debian.status()["slow"], "install installed 1");
}

/// What apt itself says when it fails is the reason, and what was done up to then is told.
#[tokio::test]
async fn a_package_that_cannot_be_set_up_is_told_with_what_was_done() {
    let Some((machine, debian)) = machine("a package that cannot be set up") else { return };
    let broken =
        Deb { control: "Depends: base\n", postinst: Some("echo no luck >&2; exit 3"), ..deb("broken", "1") };
    debian.publish(MAIN, &[deb("base", "1"), broken, deb("other", "1")]);
    let life = machine.start(boot(1));
    done(&life, r#"{"verb":"refresh"}"#).await;
    let (outcome, output) = ask(&life, r#"{"verb":"install","names":["broken"]}"#).await;
    let stderr = text(&output.stderr);
    assert_eq!(outcome, Outcome::Exited(1));
    assert!(
        text(&output.stdout).contains("no luck\n") && stderr.contains("post-installation script"),
        "{output:?}"
    );
    assert_eq!(changes(&report(&output)), ["base >1", "broken >1"]);
    // Who asks for nothing that is set up is not told of it.
    for params in [
        r#"{"verb":"hold","names":["base"]}"#,
        r#"{"verb":"unhold","names":["base"]}"#,
        r#"{"verb":"refresh"}"#,
    ] {
        let (outcome, output) = ask(&life, params).await;
        assert_eq!(outcome, Outcome::Exited(0), "{output:?}");
        assert!(!text(&output.stdout).contains("dpkg --configure -a"), "{output:?}");
    }
    // What else is asked for is done, as far as apt-get does it: it tries to set right all that hangs there.
    let told = fails(&life, r#"{"verb":"install","names":["other"]}"#).await;
    assert!(told.contains("post-installation script") && told.contains("tried all the same"), "{told}");
    assert_eq!(debian.status()["other"], "install installed 1");
    assert!(!done(&life, r#"{"verb":"install","names":["other"]}"#).await.changed);
    let told = fails(&life, r#"{"verb":"install","names":["broken"]}"#).await;
    assert!(told.contains("dpkg did not come to an end with broken"), "{told}");
    // What mends it can be done: another version, or none.
    debian.publish(MAIN, &[Deb { control: "Depends: base\n", ..deb("broken", "2") }]);
    done(&life, r#"{"verb":"refresh"}"#).await;
    assert_eq!(changes(&done(&life, r#"{"verb":"install","names":["broken"]}"#).await), ["broken 1>2"]);
    assert_eq!(debian.status()["broken"], "install installed 2");
    let (outcome, _) = ask(&life, r#"{"verb":"install","names":["broken=1"]}"#).await;
    assert_eq!(
        (outcome, debian.status()["broken"].as_str()),
        (Outcome::Exited(1), "install half-configured 1")
    );
    assert_eq!(changes(&done(&life, r#"{"verb":"remove","names":["broken"]}"#).await), ["broken 1>"]);
}

/// A machine on which services are started for their work, as late as a test wants.
fn machine_with_bus(test: &str) -> Option<(Machine, Debian, Bus, Shared)> {
    let (mut machine, debian) = machine(test)?;
    let Some(bus) = bus(machine.directory.path()) else {
        skipped(test, "dbus-daemon is not installed");
        return None;
    };
    machine.bus = Some(bus.address.clone());
    let world = Arc::new(watch::channel(World::default()).0);
    drop(play(bus.address.clone(), Arc::clone(&world)));
    Some((machine, debian, bus, world))
}

/// Somebody who is quicker than apt or dpkg, and what was changed until they have ended.
async fn overtaken(
    life: &Life,
    (debian, world): (&Debian, &Shared),
    request: &Request,
    meanwhile: impl FnOnce(),
) -> (Outcome, Output) {
    world.send_modify(|world| (world.holds_service, world.wants_service) = (true, false));
    let mut progress = life.begin(request).await;
    drop(world.subscribe().wait_for(|world| world.wants_service).await.unwrap());
    meanwhile();
    let held = lock(&debian.path("var/lib/dpkg/lock-frontend"));
    world.send_modify(|world| world.holds_service = false);
    says(life, request, &mut progress, "lock-frontend is held by").await;
    drop(held);
    let end = finished(progress).await;
    let output = life.output(request.run, &end);
    (end.outcome, output)
}

/// What was found to be right before somebody else had the lock is looked at again.
#[tokio::test]
async fn no_more_is_removed_than_was_named_whoever_was_quicker() {
    let Some((machine, debian, _bus, world)) = machine_with_bus("being overtaken") else { return };
    debian.publish(MAIN, &[deb("tool", "1"), Deb { control: "Depends: tool\n", ..deb("user", "1") }]);
    let life = machine.start(boot(1));
    done(&life, r#"{"verb":"refresh"}"#).await;
    done(&life, r#"{"verb":"install","names":["tool"]}"#).await;
    let remove = request(r#"{"verb":"remove","names":["tool"]}"#);
    let by_hand = || debian.install_by_hand(MAIN, "user", "1");
    let (outcome, output) = overtaken(&life, (&debian, &world), &remove, by_hand).await;
    let told = text(&output.stderr);
    assert_eq!((outcome, debian.status().len()), (Outcome::Exited(1), 2), "{told}");
    assert!(told.contains("user would be removed as well"), "{told}");
    // Where nothing else came, it is done.
    let remove = request(r#"{"verb":"remove","names":["tool","user"]}"#);
    let (outcome, output) = overtaken(&life, (&debian, &world), &remove, || ()).await;
    assert_eq!(outcome, Outcome::Exited(0), "{}", text(&output.stderr));
    assert_eq!(changes(&report(&output)), ["tool 1>", "user 1>"]);
}

/// dpkg does not wait for its lock, and says so in other words than apt.
#[tokio::test]
async fn dpkg_waits_for_whoever_was_quicker_and_a_refresh_for_nobody_who_changes_packages() {
    let Some((machine, debian, _bus, world)) = machine_with_bus("overtaking dpkg") else { return };
    let mark = debian.path("mark");
    let postinst = format!("test -e {}", mark.display());
    debian.publish(MAIN, &[Deb { postinst: Some(&postinst), ..deb("late", "1") }, deb("one", "1")]);
    let life = machine.start(boot(1));
    done(&life, r#"{"verb":"refresh"}"#).await;
    fails(&life, r#"{"verb":"install","names":["late"]}"#).await;
    let held = lock(&debian.path("var/lib/dpkg/lock-frontend"));
    assert!(!done(&life, r#"{"verb":"refresh"}"#).await.changed);
    let rehearsal =
        Request { authority: Authority::Rehearse, ..request(r#"{"verb":"install","names":["one"]}"#) };
    let end = life.finish(&rehearsal).await;
    let preview: Preview = serde_json::from_value(life.output(rehearsal.run, &end).report.unwrap()).unwrap();
    let told: Vec<_> = preview.changes.iter().map(|change| change.what.as_str()).collect();
    assert_eq!(told, ["install one 1"], "who is at work now was not interrupted");
    drop(held);
    std::fs::write(&mark, "").unwrap();
    let install = request(r#"{"verb":"install","names":["one"]}"#);
    let (outcome, output) = overtaken(&life, (&debian, &world), &install, || ()).await;
    assert_eq!(outcome, Outcome::Exited(0), "{}{}", text(&output.stdout), text(&output.stderr));
    assert!(text(&output.stderr).contains("locked by another process"), "{output:?}");
    assert_eq!(debian.status()["late"], "install installed 1");
}

/// Where there is systemd, apt is out of the run's reach: a stop does not kill dpkg in the middle of a package.
#[tokio::test]
async fn a_stop_lets_dpkg_come_to_its_end() {
    let Some((mut machine, debian)) = machine("stopping in the middle of dpkg") else { return };
    let Some(bus) = bus(machine.directory.path()) else {
        return skipped("stopping in the middle of dpkg", "dbus-daemon is not installed");
    };
    machine.bus = Some(bus.address.clone());
    let world = Arc::new(watch::channel(World::default()).0);
    let _happens = play(bus.address.clone(), Arc::clone(&world));
    let waits = waiting(&debian);
    debian.publish(MAIN, &[Deb { postinst: Some(&waits), ..deb("slow", "1") }]);
    let life = machine.start(boot(1));
    assert!(done(&life, r#"{"verb":"refresh"}"#).await.changed);
    assert!(fails(&life, r#"{"verb":"install","names":["none"]}"#).await.contains("knows no package"));
    let request = Request {
        limits: Limits { grace_ms: 20_000, ..script("").limits },
        ..request(r#"{"verb":"install","names":["slow"]}"#)
    };
    let mut progress = life.begin(&request).await;
    says(&life, &request, &mut progress, "waits").await;
    life.runs.cancel(request.run, CancelCause::Requested);
    let end = finished(progress).await;
    let output = life.output(request.run, &end);
    let told = text(&output.stderr);
    assert_eq!(end.outcome, Outcome::Cancelled);
    assert!(
        told.contains("goes on until the end of what dpkg is at: see `systemctl status fleetward-apt-"),
        "{told}"
    );
    assert!(report(&output).changed, "{output:?}");
    let asked = world.borrow().asked.clone();
    assert_eq!(asked, ["StartTransientUnit", "StartTransientUnit", "KillUnit main 2"]);
    // What the package waits for comes, and dpkg ends as if nobody had asked for anything.
    assert_eq!(debian.status()["slow"], "install half-configured 1");
    // It is open for reading already: nobody waits here.
    std::fs::write(debian.path("pipe"), "go\n").unwrap();
    drop(world.subscribe().wait_for(|world| world.service.is_none()).await.unwrap());
    assert_eq!(debian.status()["slow"], "install installed 1");
}
