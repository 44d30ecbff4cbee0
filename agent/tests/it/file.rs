//! The kind `file`: what is written, made and removed, what is refused, and what is left when something goes wrong.

use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fleetward_agent::journal::steps::{Step, StepJournal};
use fleetward_agent::run::Stage;
use fleetward_protocol::action::ActionRequest;
use fleetward_protocol::action::file::FileReport;
use fleetward_protocol::event::StepState;
use fleetward_protocol::order::Authority;
use fleetward_protocol::path::HostPath;
use fleetward_protocol::run::{Outcome, Refusal};
use fleetward_protocol::text::Text;
use serde_json::{Value, json};

use crate::host::{Life, Machine, Output, Request, asking, boot, finished, last, script, skipped};
use crate::resume::{runtime, started_before};

/// A machine with a directory of its own to change.
struct Site {
    machine: Machine,
    life: Life,
    top: PathBuf,
}

/// `None` where this is not root: the kind acts as root unless it is told otherwise.
fn site(test: &str) -> Option<Site> {
    if !nix::unistd::geteuid().is_root() {
        skipped(test, "only root changes files of others");
        return None;
    }
    let machine = Machine::new();
    let life = machine.start(boot(1));
    let top = machine.path("files");
    fs::create_dir(&top).unwrap();
    Some(Site { top: top.canonicalize().unwrap(), machine, life })
}

impl Site {
    fn path(&self, name: &str) -> PathBuf {
        self.top.join(name)
    }

    fn request(&self, name: &str, params: &Value) -> Request {
        let mut params = params.clone();
        let path = self.path(name);
        params["path"] = HostPath::of_bytes(path.as_os_str().as_bytes()).unwrap().to_string().into();
        let typed = Some(ActionRequest { kind: "file".into(), params: params.to_string() });
        Request { typed, content: String::new(), ..script("") }
    }

    async fn ask(&self, name: &str, params: Value) -> (Outcome, Output) {
        self.carry_out(&self.request(name, &params)).await
    }

    async fn carry_out(&self, request: &Request) -> (Outcome, Output) {
        let end = self.life.finish(request).await;
        let output = self.life.output(request.run, &end);
        (end.outcome, output)
    }

    /// What it reports, when it comes out well.
    async fn done(&self, name: &str, params: Value) -> FileReport {
        let (outcome, output) = self.ask(name, params).await;
        assert_eq!((outcome, text(&output.stderr)), (Outcome::Exited(0), String::new()));
        serde_json::from_value(output.report.expect("a report")).unwrap()
    }

    /// What it says when it does not.
    async fn fails(&self, name: &str, params: Value) -> String {
        let (outcome, output) = self.ask(name, params).await;
        assert!(matches!(outcome, Outcome::Exited(1..)), "{outcome:?} {}", text(&output.stdout));
        text(&output.stderr)
    }

    /// A dry run.
    async fn rehearse(&self, name: &str, params: &Value) -> (Value, String) {
        let request = self.request(name, params);
        let open = asking(&crate::host::client(), Authority::Rehearse, &request);
        let progress = match self.life.runs.open(open).await {
            fleetward_agent::run::Opened::Held(progress) => progress,
            fleetward_agent::run::Opened::Unknown => panic!("the run is unknown"),
        };
        let Stage::Finished { end, .. } = last(progress).await else { panic!("it did not finish") };
        let output = self.life.output(request.run, &end);
        assert_eq!((end.outcome, text(&output.stderr)), (Outcome::Exited(0), String::new()));
        (output.report.expect("a preview"), text(&output.stdout))
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.top).unwrap().flatten();
        let mut names: Vec<_> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn content(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

#[tokio::test]
async fn a_file_is_written_replaced_and_left_alone_the_second_time() {
    let Some(site) = site("writing a file") else { return };
    let path = site.path("motd");
    let params = json!({ "state": "present", "content": "one\n" });
    let report = site.done("motd", params.clone()).await;
    assert!(report.changed && report.before.is_none());
    assert_eq!((content(&path), mode(&path)), ("one\n".to_owned(), 0o644));
    let before = fs::metadata(&path).unwrap();
    let (_, output) = site.ask("motd", params).await;
    assert_eq!(output.events.last().unwrap().state, StepState::Unchanged);
    assert_eq!(output.report.unwrap()["changed"], false);
    let after = fs::metadata(&path).unwrap();
    assert_eq!((before.ino(), before.ctime_nsec()), (after.ino(), after.ctime_nsec()), "it was touched");
    // Owner and mode stay, and a mode that is asked for is there.
    chown(&path, Some(1), Some(2)).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o4750)).unwrap();
    let report = site.done("motd", json!({ "state": "present", "content_base64": "AP8=" })).await;
    assert_eq!(fs::read(&path).unwrap(), b"\0\xff");
    let found = fs::metadata(&path).unwrap();
    assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (1, 2, 0o4750));
    assert_eq!(report.after.unwrap().owner.as_str(), "daemon");
    let report =
        site.done("motd", json!({ "state": "present", "owner": "root", "group": "0", "mode": "0600" })).await;
    assert!(report.changed);
    let found = fs::metadata(&path).unwrap();
    assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777, found.len()), (0, 0, 0o600, 2));
    // Nothing stays beside it.
    assert_eq!(site.names(), ["motd"]);
    let error = site.fails("motd", json!({ "state": "present", "owner": "no-such-user" })).await;
    assert!(error.contains("there is no user no-such-user"), "{error}");
}

#[tokio::test]
async fn directories_are_made_and_what_is_removed_is_gone() {
    let Some(site) = site("making directories") else { return };
    let error = site.fails("a/b/file", json!({ "state": "present" })).await;
    assert!(error.contains("a/b is not there") && error.contains("create_parents"), "{error}");
    site.done("a/b/file", json!({ "state": "present", "create_parents": true })).await;
    assert_eq!(
        (mode(&site.path("a")), mode(&site.path("a/b")), mode(&site.path("a/b/file"))),
        (0o755, 0o755, 0o644)
    );
    let report = site.done("a/c", json!({ "state": "directory", "mode": "2750", "owner": "1" })).await;
    assert!(report.changed);
    assert_eq!((mode(&site.path("a/c")), fs::metadata(site.path("a/c")).unwrap().uid()), (0o2750, 1));
    assert!(!site.done("a/c", json!({ "state": "directory", "mode": "2750" })).await.changed);
    assert!(site.done("a/c", json!({ "state": "directory", "mode": "0755" })).await.changed);
    // What a link in it leads to is not removed with it.
    fs::write(site.path("kept"), "kept").unwrap();
    symlink(site.path("kept"), site.path("a/link")).unwrap();
    symlink(&site.top, site.path("a/b/up")).unwrap();
    let error = site.fails("a", json!({ "state": "absent" })).await;
    assert!(error.contains("is a directory with something in it") && error.contains("recursive"), "{error}");
    let report = site.done("a", json!({ "state": "absent", "recursive": true })).await;
    assert!(report.changed && report.after.is_none());
    assert_eq!(site.names(), ["kept"]);
    assert!(!site.done("a", json!({ "state": "absent", "recursive": true })).await.changed);
    assert!(!site.done("a/b/c/d", json!({ "state": "absent" })).await.changed);
    assert!(site.done("kept", json!({ "state": "absent" })).await.changed);
    assert!(site.names().is_empty());
}

#[tokio::test]
async fn what_stands_in_the_way_is_not_replaced() {
    let Some(site) = site("links and other files in the way") else { return };
    fs::write(site.path("file"), "content").unwrap();
    symlink("file", site.path("link")).unwrap();
    fs::hard_link(site.path("file"), site.path("second")).unwrap();
    fs::create_dir(site.path("directory")).unwrap();
    nix::unistd::mkfifo(&site.path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let written = json!({ "state": "present", "content": "new" });
    for (name, params, told) in [
        ("link", written.clone(), "is a link to file"),
        ("directory", written.clone(), "is a directory"),
        ("fifo", written.clone(), "is a FIFO"),
        ("file", written.clone(), "has 2 names (hard links)"),
        ("file", json!({ "state": "present", "mode": "0600" }), "has 2 names (hard links)"),
        ("file", json!({ "state": "directory" }), "is a regular file"),
        ("file/x", written.clone(), "Not a directory"),
    ] {
        let error = site.fails(name, params).await;
        assert!(error.contains(told) && error.lines().count() == 2, "{name}: {error}");
    }
    assert_eq!(
        (content(&site.path("file")), content(&site.path("second"))),
        ("content".into(), "content".into())
    );
    // A link that somebody else may change does not lead root's hand; the link itself is removed, not what it leads to.
    symlink("directory", site.path("bait")).unwrap();
    std::os::unix::fs::lchown(site.path("bait"), Some(1), None).unwrap();
    let error = site.fails("bait/new", written.clone()).await;
    assert!(error.contains("is a link of user 1, who could make it lead elsewhere"), "{error}");
    site.done("link", json!({ "state": "absent" })).await;
    assert!(site.path("file").exists() && !site.path("link").exists());
    // Nothing of the agent's own, whatever it is called.
    let config = site.machine.paths().state.join("runs");
    symlink(&config, site.path("inside")).unwrap();
    for (name, params) in [
        ("inside/new", written),
        ("../state/journal", json!({ "state": "absent" })),
        ("../state", json!({ "state": "absent", "recursive": true })),
    ] {
        let name = name.strip_prefix("../").map_or_else(|| site.path(name), |name| site.machine.path(name));
        let mut request = site.request("x", &params);
        let mut typed: Value = serde_json::from_str(&request.typed.as_ref().unwrap().params).unwrap();
        typed["path"] = name.display().to_string().into();
        request.typed.as_mut().unwrap().params = typed.to_string();
        let (outcome, output) = site.carry_out(&request).await;
        let error = text(&output.stderr);
        assert_eq!(outcome, Outcome::Exited(1));
        assert!(error.contains("belongs to this host's agent"), "{error}");
    }
}

#[tokio::test]
async fn the_last_versions_are_kept_where_they_are_found() {
    let Some(site) = site("keeping versions") else { return };
    fs::write(site.path("motd"), "0").unwrap();
    fs::set_permissions(site.path("motd"), Permissions::from_mode(0o4755)).unwrap();
    let mut kept = Vec::new();
    for number in 1..=7 {
        let params = json!({ "state": "present", "content": number.to_string(), "backup": true });
        let report = site.done("motd", params).await;
        let backup = report.backup.expect("where it is kept").to_string();
        assert_eq!(content(Path::new(&backup)), (number - 1).to_string());
        assert_eq!(
            mode(Path::new(&backup)),
            0o755,
            "a program of an earlier version is no way to become its owner"
        );
        kept.push(backup);
    }
    let left: Vec<_> = kept.iter().filter(|path| Path::new(path).exists()).collect();
    assert_eq!(left, kept.iter().skip(2).collect::<Vec<_>>(), "the last five");
    assert!(left[0].contains("/.motd.fleetward-20"), "{left:?}");
    let report = site.done("motd", json!({ "state": "absent", "backup": true })).await;
    assert_eq!(content(Path::new(report.backup.unwrap().as_str())), "7");
    assert_eq!(site.names().len(), 5);
}

#[tokio::test]
async fn a_dry_run_tells_the_lines_and_changes_nothing() {
    let Some(site) = site("a dry run of a file") else { return };
    fs::write(site.path("motd"), "a\nb\n").unwrap();
    let params = json!({ "state": "present", "content": "a\nc\n" });
    let (preview, said) = site.rehearse("motd", &params).await;
    assert_eq!(preview["changes"][0]["diff"], json!(["@@ -1,2 +1,2 @@", " a", "-b", "+c"]));
    assert!(said.contains("would write") && said.contains("+c"), "{said}");
    let (preview, _) = site.rehearse("motd", &json!({ "state": "present", "content": "a\nb\n" })).await;
    assert_eq!(preview["changes"], json!([]));
    let hushed = json!({ "state": "present", "content": "a\nc\n", "show": "nothing" });
    let (preview, said) = site.rehearse("motd", &hushed).await;
    assert!(preview["changes"][0].get("diff").is_none() && !said.contains("+c"), "{said}");
    let (preview, _) = site.rehearse("x/y", &json!({ "state": "directory", "create_parents": true })).await;
    assert_eq!(preview["changes"].as_array().unwrap().len(), 2);
    let (preview, _) = site.rehearse("motd", &json!({ "state": "absent" })).await;
    assert_eq!(preview["changes"][0]["after"], "nothing");
    assert_eq!((site.names(), content(&site.path("motd"))), (vec!["motd".to_owned()], "a\nb\n".to_owned()));
}

#[tokio::test]
async fn who_is_asked_for_is_who_acts() {
    let Some(site) = site("acting as another user") else { return };
    fs::set_permissions(site.machine.directory.path(), Permissions::from_mode(0o711)).unwrap();
    let as_nobody = |content: &str| json!({ "state": "present", "content": content, "user": "nobody" });
    let error = site.fails("motd", as_nobody("x")).await;
    assert!(error.contains("Permission denied") && error.contains("nothing was changed"), "{error}");
    chown(&site.top, Some(65534), Some(65534)).unwrap();
    site.done("motd", as_nobody("x")).await;
    assert_eq!(fs::metadata(site.path("motd")).unwrap().uid(), 65534);
    let error = site.fails("other", json!({ "state": "present", "owner": "root", "user": "nobody" })).await;
    assert!(error.contains("Operation not permitted"), "{error}");
    assert_eq!(site.names(), ["motd"], "nothing is left of what failed");
    // The owner's lists are asked: who, and where.
    fs::write(site.machine.paths().config, "[policy]\nusers = ['nobody']").unwrap();
    site.done("motd", as_nobody("y")).await;
    let refusal = site.life.refusal(&site.request("motd", &json!({ "state": "absent" }))).await;
    assert!(matches!(&refusal, Refusal::NotAllowed { rule } if rule.contains("policy.users")), "{refusal:?}");
    let rule = format!("[policy.rules.file]\npaths = ['{}']", site.path("in").display());
    fs::create_dir(site.path("in")).unwrap();
    symlink("..", site.path("in/out")).unwrap();
    fs::write(site.machine.paths().config, rule).unwrap();
    site.done("in/new", json!({ "state": "present" })).await;
    let refusal = site.life.refusal(&site.request("motd", &json!({ "state": "absent" }))).await;
    assert!(
        matches!(&refusal, Refusal::NotAllowed { rule } if rule.contains("policy.rules.file.paths")),
        "{refusal:?}"
    );
    let error = site.fails("in/out/new", json!({ "state": "present" })).await;
    assert!(error.contains("is not beneath what this host's owner allows"), "{error}");
}

/// The kernel takes set-group-ID away without a word where who acts is not of the group: what was written is not as asked for.
#[tokio::test]
async fn what_does_not_come_out_is_put_back() {
    let Some(site) = site("putting a file back") else { return };
    fs::set_permissions(site.machine.directory.path(), Permissions::from_mode(0o711)).unwrap();
    fs::write(site.path("motd"), "old").unwrap();
    chown(site.path("motd"), Some(65534), Some(4)).unwrap();
    chown(&site.top, Some(65534), Some(4)).unwrap();
    fs::set_permissions(&site.top, Permissions::from_mode(0o2755)).unwrap();
    let before = fs::metadata(site.path("motd")).unwrap().ino();
    let params = |content: Option<&str>| {
        let mut params =
            json!({ "state": "present", "mode": "2755", "user": "nobody", "create_parents": true });
        content.into_iter().for_each(|content| params["content"] = content.into());
        params
    };
    for (name, params) in
        [("motd", params(Some("new"))), ("motd", params(None)), ("new", params(Some("new")))]
    {
        let (outcome, output) = site.ask(name, params).await;
        assert_eq!(outcome, Outcome::Exited(2), "{output:?}");
        assert!(text(&output.stderr).contains("is not as it was written"), "{output:?}");
        assert_eq!(output.events.last().unwrap().state, StepState::Undone);
        assert_eq!(output.report.unwrap()["changed"], false);
        assert_eq!(site.names(), ["motd"]);
    }
    // Not even a directory on the way is left.
    let params = json!({ "state": "present", "owner": "root", "user": "nobody", "create_parents": true });
    let error = site.fails("x/y/new", params).await;
    assert!(error.contains("nothing was changed"), "{error}");
    assert_eq!(site.names(), ["motd"]);
    let after = fs::metadata(site.path("motd")).unwrap();
    assert_eq!(
        (content(&site.path("motd")), after.ino(), after.mode() & 0o7777),
        ("old".to_owned(), before, 0o644)
    );
}

/// What a power cut leaves beside a file is no part of anything: the new one not whole, and the old one perhaps replaced.
#[tokio::test]
async fn what_an_interrupted_run_left_is_removed_or_kept() {
    let Some(site) = site("what an interrupted run left") else { return };
    let digest = fleetward_protocol::digest::Digest::of(b"motd").to_string();
    let beside = |what: &str| site.path(&format!(".fleetward-{}.{what}", &digest[..16]));
    // Before the new one was put there.
    fs::write(site.path("motd"), "old").unwrap();
    fs::hard_link(site.path("motd"), beside("old")).unwrap();
    fs::write(beside("new"), "hal").unwrap();
    site.done("motd", json!({ "state": "present", "content": "new" })).await;
    assert_eq!((site.names(), content(&site.path("motd"))), (vec!["motd".to_owned()], "new".to_owned()));
    // After that: the one that it replaced is kept if that is wanted.
    fs::write(beside("old"), "old").unwrap();
    let report = site.done("motd", json!({ "state": "present", "content": "new", "backup": true })).await;
    assert_eq!(content(Path::new(report.backup.unwrap().as_str())), "old");
    assert_eq!(site.names().len(), 2);
    File::create(beside("old")).unwrap();
    site.done("motd", json!({ "state": "present", "content": "new" })).await;
    assert!(!beside("old").exists());
}

/// A host that lost power in the middle of writing a file, in its next boot.
#[test]
fn a_run_that_a_power_cut_ended_goes_on_and_does_nothing_twice() {
    if !nix::unistd::geteuid().is_root() {
        return skipped("a power cut while a file is written", "only root changes files of others");
    }
    let digest = fleetward_protocol::digest::Digest::of(b"motd").to_string();
    let wanted = json!({ "state": "present", "content": "new", "backup": true });
    let write = || Text::of("write");
    // What the journal of its steps says, what is in the place, and what is beside it.
    for (steps, there, old, exit, told) in [
        (vec![], "old", None, 0, "taken up again before its first change"),
        (vec![Step::Began(write())], "old", Some("linked"), 0, "write "),
        (vec![Step::Began(write())], "new", Some("old"), 0, "not done again after the restart of the host"),
        (vec![Step::Began(write()), Step::Done(write())], "new", None, 0, "not done again after the restart"),
        (vec![Step::Began(write()), Step::Done(write())], "theirs", None, 1, ""),
    ] {
        let machine = Machine::new();
        let top = machine.path("files");
        fs::create_dir(&top).unwrap();
        let path = top.canonicalize().unwrap().join("motd");
        fs::write(&path, there).unwrap();
        let beside = |what: &str| path.with_file_name(format!(".fleetward-{}.{what}", &digest[..16]));
        match old {
            Some("linked") => {
                fs::hard_link(&path, beside("old")).unwrap();
                fs::write(beside("new"), "ne").unwrap();
            }
            Some(old) => fs::write(beside("old"), old).unwrap(),
            None => {}
        }
        let mut params = wanted.clone();
        params["path"] = path.display().to_string().into();
        let typed = Some(ActionRequest { kind: "file".into(), params: params.to_string() });
        let request = Request { typed, content: String::new(), ..script("") };
        started_before(&machine, &request, Duration::from_secs(1), true);
        let directory = machine.paths().runs().join(request.run.to_string());
        let (mut journal, _) = StepJournal::open(&directory).unwrap();
        steps.iter().for_each(|step| journal.append(step).unwrap());
        let (end, output) = runtime().block_on(async {
            let life = machine.start(boot(2));
            let end = finished(life.resume(request.run).await).await;
            let output = life.output(request.run, &end);
            (end, output)
        });
        let case = format!("{steps:?} {there} {old:?}: {output:?}");
        assert_eq!(end.outcome, Outcome::Exited(exit), "{case}");
        assert!(text(&output.stdout).contains(told), "{case}");
        assert!(!beside("old").exists() && !beside("new").exists(), "{case}");
        if exit == 1 {
            assert!(text(&output.stderr).contains("was done before the host restarted"), "{case}");
            assert_eq!(content(&path), "theirs");
            continue;
        }
        assert_eq!(content(&path), "new", "{case}");
        let report: FileReport = serde_json::from_value(output.report.unwrap()).unwrap();
        assert!(report.changed, "{case}");
        if there == "old" || old.is_some() {
            assert_eq!(content(Path::new(report.backup.expect("a version").as_str())), "old", "{case}");
        }
    }
}

/// What a dry run says is what would come of it.
#[tokio::test]
async fn a_file_system_that_takes_no_changes_is_told_before_anything_is_begun() {
    let Some(site) = site("a read-only file system") else { return };
    fs::create_dir(site.path("fixed")).unwrap();
    let at = site.path("fixed");
    let mounted =
        std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "ro", "none"]).arg(&at).output();
    if !mounted.is_ok_and(|mounted| mounted.status.success()) {
        return skipped("a read-only file system", "nothing can be mounted here");
    }
    let request = site.request("fixed/new", &json!({ "state": "present", "content": "x" }));
    let rehearsal = Request { authority: Authority::Rehearse, ..request };
    let (outcome, output) = site.carry_out(&rehearsal).await;
    let said = site.fails("fixed/new", json!({ "state": "present", "content": "x" })).await;
    assert!(std::process::Command::new("umount").arg(&at).status().unwrap().success());
    assert_eq!(outcome, Outcome::Exited(1), "{output:?}");
    for said in [said, text(&output.stderr)] {
        assert!(said.contains("changing") && said.contains("ead-only"), "{said}");
        assert!(!said.contains("removing"), "{said}");
    }
}
