//! Queries about files: what is told of them, as whom, and where their owner does not let anybody look.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fleetward_agent::query::{Answer, Queries};
use fleetward_protocol::action::ActionRequest;
use fleetward_protocol::message::{OpenQuery, QueryUp};
use fleetward_protocol::order::Authority;
use fleetward_protocol::path::HostPath;
use fleetward_protocol::query::file_list::FileItem;
use fleetward_protocol::query::file_read::{Became, PIECE, ReadItem};
use fleetward_protocol::query::file_stat::StatItem;
use fleetward_protocol::query::read_item;
use fleetward_protocol::run::Refusal;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::host::{Machine, Request, asking, boot, script, skipped};

/// A machine with a directory of its own to look at.
struct Site {
    machine: Machine,
    queries: Queries,
    top: PathBuf,
}

fn site() -> Site {
    let machine = Machine::new();
    let queries = Queries::new(machine.start(boot(1)).runs);
    let top = machine.path("files");
    fs::create_dir(&top).unwrap();
    Site { top: top.canonicalize().unwrap(), machine, queries }
}

fn text(path: &Path) -> String {
    HostPath::of_bytes(path.as_os_str().as_bytes()).unwrap().to_string()
}

fn open(kind: &str, params: &Value, follow: bool) -> OpenQuery {
    let typed = Some(ActionRequest { kind: kind.to_owned(), params: params.to_string() });
    let request = Request { typed, ..script("") };
    let order = asking(&crate::host::client(), Authority::Query, &request).dispatch.unwrap().order;
    OpenQuery { order, remaining_ms: 60_000, follow }
}

impl Site {
    async fn begin(&self, kind: &str, params: &Value, follow: bool) -> Answer {
        self.queries.open(&open(kind, params, follow)).await.unwrap()
    }

    /// The whole answer, or why it broke off.
    async fn ask<I: DeserializeOwned>(&self, kind: &str, params: Value) -> Result<Vec<I>, String> {
        let mut answer = self.begin(kind, &params, false).await;
        let mut items = Vec::new();
        loop {
            match next(&mut answer).await {
                QueryUp::Items(told) => items.extend(told.into_iter().map(read)),
                QueryUp::Complete => {}
                QueryUp::Ended => return Ok(items),
                QueryUp::Failed { detail } => return Err(detail.into()),
                other => panic!("{other:?}"),
            }
        }
    }

    async fn names(&self, params: Value) -> Vec<String> {
        let items: Vec<FileItem> = self.ask("file-list", params).await.unwrap();
        items.into_iter().map(|item| item.name.into()).collect()
    }

    async fn refused(&self, kind: &str, params: Value) -> String {
        match self.queries.open(&open(kind, &params, false)).await {
            Ok(_) => panic!("{kind} {params} is answered"),
            Err(refusal) => format!("{refusal:?}"),
        }
    }
}

async fn next(answer: &mut Answer) -> QueryUp {
    let said = tokio::time::timeout(Duration::from_secs(60), answer.next()).await;
    said.expect("it goes on within a minute").expect("it goes on")
}

fn read<I: DeserializeOwned>(item: &fleetward_protocol::message::QueryItem) -> I {
    let json = read_item(&item.item).expect("an item is what the controller takes");
    serde_json::from_value(Value::Object(json)).unwrap()
}

/// The content that pieces make, which follow each other without a gap.
fn content(items: &[ReadItem]) -> Vec<u8> {
    let from = items[0].file.as_ref().expect("what the file is like comes first").from;
    let mut content = Vec::new();
    for item in &items[1..] {
        let (offset, bytes) = item.read_piece().unwrap();
        assert_eq!(offset, from + content.len() as u64);
        content.extend(bytes);
    }
    content
}

#[tokio::test]
async fn a_directory_is_listed_in_the_order_of_its_names() {
    let site = site();
    let Site { top, .. } = &site;
    let odd = top.join(std::ffi::OsStr::from_bytes(b"odd\xff\n"));
    fs::write(top.join("b"), "four").unwrap();
    fs::set_permissions(top.join("b"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::create_dir(top.join("a")).unwrap();
    fs::write(top.join(".hidden"), "").unwrap();
    fs::write(&odd, "odd").unwrap();
    symlink("../b", top.join("link")).unwrap();
    nix::unistd::mkfifo(&top.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let items: Vec<FileItem> = site.ask("file-list", json!({ "path": text(top) })).await.unwrap();
    let told: Vec<_> = items.iter().map(|item| (item.name.as_str(), item.kind.as_str())).collect();
    let expected = [
        (".", "directory"),
        ("a", "directory"),
        ("b", "file"),
        ("fifo", "fifo"),
        ("link", "link"),
        ("odd\\xff\\x0a", "file"),
    ];
    assert_eq!(told, expected);
    assert_eq!((items[0].entries, items[0].left_out), (Some(5), None));
    let b = &items[2];
    assert_eq!((b.size, b.mode.to_string(), b.bytes.is_none()), (4, "0640".into(), true));
    assert_eq!(b.owner.as_str(), fleetward_agent::platform::users::read_own_account().name);
    assert_eq!(b.modified.as_millis() / 1000, fs::metadata(top.join("b")).unwrap().mtime());
    assert_eq!(items[4].target.as_deref(), Some("../b"));
    // What nobody could write is asked for as it was told.
    let path = items[5].path.clone().expect("a way to ask for it");
    let read: Vec<ReadItem> = site.ask("file-read", json!({ "path": path })).await.unwrap();
    assert_eq!(content(&read), b"odd");
    let names = site.names(json!({ "path": text(top), "hidden": true, "after": ".a" })).await;
    assert_eq!(names[1..3], [".hidden", "a"]);
    let names = site.names(json!({ "path": text(top), "after": "link" })).await;
    assert_eq!(names, [".", "odd\\xff\\x0a"]);
}

#[tokio::test]
async fn a_path_is_shown_as_it_is_or_as_what_it_leads_to() {
    let site = site();
    let Site { top, .. } = &site;
    fs::write(top.join("file"), vec![0; 5000]).unwrap();
    symlink("file", top.join("link")).unwrap();
    for (params, kind, path) in [
        (json!({ "path": text(&top.join("link")) }), "link", "link"),
        (json!({ "path": text(&top.join("link")), "dereference": true }), "file", "file"),
        (json!({ "path": format!("/{}//./file/", text(top)) }), "file", "file"),
    ] {
        let items: Vec<StatItem> = site.ask("file-stat", params).await.unwrap();
        let [item] = &items[..] else { panic!("{items:?}") };
        assert_eq!((item.kind.as_str(), item.path.as_str()), (kind, &*text(&top.join(path))));
        assert_eq!(item.inode, fs::symlink_metadata(top.join(path)).unwrap().ino());
        assert_eq!(item.target.as_deref(), (kind == "link").then_some("file"));
    }
    let items: Vec<StatItem> = site.ask("file-stat", json!({ "path": "/dev/null" })).await.unwrap();
    assert_eq!((items[0].kind.as_str(), items[0].number.as_deref()), ("character-device", Some("1:3")));
    for (kind, path, told) in [
        ("file-stat", text(&top.join("none")), "No such file"),
        ("file-stat", text(&top.join("file/x")), "Not a directory"),
        ("file-list", text(&top.join("file")), "is a regular file, and no directory"),
        ("file-read", text(top), "is a directory, and no regular file"),
        ("file-read", "/dev/zero".into(), "is a device, and no regular file"),
    ] {
        let error = site.ask::<Value>(kind, json!({ "path": path })).await.unwrap_err();
        assert!(error.contains(told) && error.contains("; "), "{error}");
    }
}

#[tokio::test]
async fn a_file_is_read_in_parts_whatever_is_in_it_and_however_long_it_is() {
    let site = site();
    let path = site.top.join("file");
    let bytes: Vec<u8> = (0..20_000_u32).map(|number| (number % 251) as u8).collect();
    fs::write(&path, &bytes).unwrap();
    for (range, expected) in [
        (json!({}), &bytes[..]),
        (json!({ "offset": 6001, "length": 6000 }), &bytes[6001..12_001]),
        (json!({ "offset": 19_999 }), &bytes[19_999..]),
        (json!({ "offset": 30_000 }), &[]),
        (json!({ "tail": 7 }), &bytes[19_993..]),
        (json!({ "tail": 0 }), &[]),
        (json!({ "tail": 30_000 }), &bytes[..]),
    ] {
        let mut params = range.clone();
        params["path"] = text(&path).into();
        let items: Vec<ReadItem> = site.ask("file-read", params).await.unwrap();
        assert_eq!(items[0].file.as_ref().unwrap().size, 20_000);
        assert_eq!(content(&items), expected, "{range}");
    }
    // Ten gigabytes, of which the disk holds a page.
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(10 << 30).unwrap();
    file.write_all_at(b"the end", (10 << 30) - 7).unwrap();
    let params = json!({ "path": text(&path), "offset": (10_u64 << 30) - 10, "length": 100 });
    let items: Vec<ReadItem> = site.ask("file-read", params).await.unwrap();
    assert_eq!(items[0].file.as_ref().unwrap().size, 10 << 30);
    assert_eq!(content(&items), b"\0\0\0the end");
    let params = json!({ "path": text(&path), "length": 2 << 20 });
    let items: Vec<ReadItem> = site.ask("file-read", params).await.unwrap();
    assert_eq!(content(&items).len(), 2 << 20);
    // Files of the kernel do not say how long they are.
    let items: Vec<ReadItem> = site.ask("file-read", json!({ "path": "/proc/version" })).await.unwrap();
    assert_eq!(items[0].file.as_ref().unwrap().size, 0);
    assert!(content(&items).starts_with(b"Linux version"));
}

/// What is told until the content behind the last change of the file is this; the words of each change.
async fn until(answer: &mut Answer, expected: &[u8]) -> Vec<Option<Became>> {
    let (mut changes, mut content, mut is_complete) = (Vec::new(), Vec::new(), false);
    while content != expected || !is_complete {
        match next(answer).await {
            QueryUp::Items(items) => {
                for item in items.into_iter().map(read::<ReadItem>) {
                    if let Some(file) = item.file {
                        changes.push(file.became);
                        content.clear();
                        is_complete |= file.became.is_some();
                    } else {
                        content.extend(item.read_piece().unwrap().1);
                        is_complete |= changes.is_empty();
                    }
                }
            }
            QueryUp::Complete => is_complete = true,
            other => panic!("{other:?}"),
        }
        assert!(content.len() <= expected.len(), "{:?}", String::from_utf8_lossy(&content));
    }
    changes
}

#[tokio::test]
async fn a_log_is_followed_over_its_rotation() {
    let site = site();
    let path = site.top.join("log");
    fs::write(&path, "one\ntwo\n").unwrap();
    let mut answer = site.begin("file-read", &json!({ "path": text(&path), "tail": 4 }), true).await;
    assert_eq!(until(&mut answer, b"two\n").await, [None]);
    let mut log = OpenOptions::new().append(true).open(&path).unwrap();
    log.write_all(b"three\n").unwrap();
    assert!(until(&mut answer, b"three\n").await.is_empty());
    // Renamed, written to once more, and a new one made: nothing of either is lost, and it is said where one ends.
    fs::rename(&path, site.top.join("log.1")).unwrap();
    log.write_all(b"last\n").unwrap();
    assert!(until(&mut answer, b"last\n").await.is_empty());
    fs::write(&path, "new\n").unwrap();
    assert_eq!(until(&mut answer, b"new\n").await, [Some(Became::Replaced)]);
    // Emptied, and written anew.
    let log = OpenOptions::new().write(true).truncate(true).open(&path).unwrap();
    assert_eq!(until(&mut answer, b"").await, [Some(Became::Truncated)]);
    log.write_all_at(b"again\n", 0).unwrap();
    assert!(until(&mut answer, b"again\n").await.is_empty());
    // More than goes into one message, at once.
    let many = vec![b'x'; PIECE * 40];
    log.write_all_at(&many, 6).unwrap();
    assert!(until(&mut answer, &many).await.is_empty());
}

/// Who reads a file that grows is told a part of it that was there, and comes to an end.
#[tokio::test]
async fn a_file_that_grows_is_read_to_an_end() {
    let site = site();
    let path = site.top.join("log");
    let mut log = File::create(&path).unwrap();
    log.write_all(&vec![b'x'; 1 << 20]).unwrap();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let growing = std::thread::spawn(move || {
        // Until nobody waits any more, and not without an end.
        for _ in 0..200 {
            if stopped.try_recv() != Err(std::sync::mpsc::TryRecvError::Empty) {
                break;
            }
            log.write_all(&[b'x'; 4096]).unwrap();
        }
    });
    let items: Vec<ReadItem> = site.ask("file-read", json!({ "path": text(&path) })).await.unwrap();
    drop(stop);
    growing.join().unwrap();
    let read = content(&items);
    assert!(read.len() >= 1 << 20 && read.iter().all(|byte| *byte == b'x'));
}

#[tokio::test]
async fn who_is_asked_for_is_who_looks() {
    let site = site();
    if !nix::unistd::geteuid().is_root() {
        return skipped("looking as another user", "only root can become one");
    }
    fs::set_permissions(site.machine.directory.path(), fs::Permissions::from_mode(0o711)).unwrap();
    for (name, mode) in [("open", 0o644), ("closed", 0o600)] {
        fs::write(site.top.join(name), name).unwrap();
        fs::set_permissions(site.top.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let as_nobody = |name| json!({ "path": text(&site.top.join(name)), "user": "nobody" });
    let items: Vec<ReadItem> = site.ask("file-read", as_nobody("open")).await.unwrap();
    assert_eq!(content(&items), b"open");
    let error = site.ask::<ReadItem>("file-read", as_nobody("closed")).await.unwrap_err();
    assert!(error.contains("Permission denied") && error.contains("ask as a user who may"), "{error}");
    // Its groups are its own: root's are gone.
    let status = json!({ "path": "/proc/self/status", "user": "nobody" });
    let items: Vec<ReadItem> = site.ask("file-read", status).await.unwrap();
    let status = String::from_utf8(content(&items)).unwrap();
    let line =
        |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    assert_eq!(line("Uid:"), ["65534"; 4].join("\t"));
    assert_eq!((line("Gid:"), line("CapEff:")), (["65534"; 4].join("\t"), "0".repeat(16)));
    assert!(!line("Groups:").split(' ').any(|group| group == "0"), "{status}");
    let told = site.refused("file-read", json!({ "path": "/", "user": "no-such-user" })).await;
    assert!(told.contains("NoSuchUser"), "{told}");
    // The owner's list is asked for that user, and no longer for the agent's own.
    fs::write(site.machine.paths().config, "[policy]\nusers = ['nobody']").unwrap();
    assert!(site.ask::<ReadItem>("file-read", as_nobody("open")).await.is_ok());
    let told = site.refused("file-read", json!({ "path": "/etc/hosts" })).await;
    assert!(told.contains("policy.users") && told.contains("`root`"), "{told}");
}

#[tokio::test]
async fn nobody_looks_where_the_owner_does_not_let_them() {
    let site = site();
    let Site { top, machine, .. } = &site;
    for name in ["in", "out"] {
        fs::create_dir(top.join(name)).unwrap();
        fs::write(top.join(name).join("file"), name).unwrap();
    }
    symlink("../out/file", top.join("in/escape")).unwrap();
    let rule = ["file-list", "file-stat", "file-read"]
        .map(|kind| format!("[policy.rules.{kind}]\npaths = ['{}']\n", text(&top.join("in"))));
    fs::write(machine.paths().config, rule.concat()).unwrap();
    let read = |name: &str| json!({ "path": text(&top.join(name)) });
    let items: Vec<ReadItem> = site.ask("file-read", read("in/file")).await.unwrap();
    assert_eq!(content(&items), b"in");
    for kind in ["file-list", "file-stat", "file-read"] {
        let told = site.refused(kind, read("out/file")).await;
        assert!(told.contains(&format!("policy.rules.{kind}.paths")), "{told}");
    }
    let error = site.ask::<ReadItem>("file-read", read("in/escape")).await.unwrap_err();
    assert!(error.contains("is not beneath what this host's owner allows"), "{error}");
    let odd = top.join("in").join(std::ffi::OsStr::from_bytes(b"\xff"));
    fs::write(&odd, "odd").unwrap();
    let items: Vec<ReadItem> = site.ask("file-read", json!({ "path": text(&odd) })).await.unwrap();
    assert_eq!(content(&items), b"odd");
    assert!(matches!(
        site.queries.open(&open("file-read", &json!({ "path": "/etc/../x" }), false)).await,
        Err(Refusal::Malformed { .. })
    ));
}
