//! What is told of a journal: by a journalctl of our own, and by the real one where it is installed.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use fleetward_protocol::message::QueryUp;
use fleetward_protocol::query::unit_log::Moment;
use fleetward_protocol::query::{MAX_ITEM, read_item};
use fleetward_protocol::wire::{self, MAX_QUERY_FRAME};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe::{self, Receiver};

use super::*;
use crate::config::Allowed;

/// A journalctl of our own in a directory of its own: it writes down what it is asked, and says what stands in `back` when it
/// goes back and in `on` when it goes on; then it does what `then` says.
struct Double {
    directory: tempfile::TempDir,
}

impl Double {
    fn new(back: &[u8], on: &[u8], then: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("back"), back).unwrap();
        std::fs::write(directory.path().join("on"), on).unwrap();
        let at = directory.path().display();
        let script = format!(
            "#!/bin/sh\nPATH=/usr/bin:/bin\nprintf '%s\\n' \"$@\" >> {at}/asked\necho >> {at}/asked\n\
             case \" $* \" in *' --reverse '*) cat {at}/back; exit;; esac\ncat {at}/on\n{then}\n"
        );
        let double = Self { directory };
        let program = double.program();
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        double
    }

    fn program(&self) -> PathBuf {
        self.directory.path().join("journalctl")
    }

    fn journal(&self) -> Journal {
        Journal::through(&self.program(), [], self.directory.path())
    }

    /// What it was asked, each time.
    fn asked(&self) -> Vec<Vec<String>> {
        let text = std::fs::read_to_string(self.directory.path().join("asked")).unwrap();
        text.trim_end().split("\n\n").map(|call| call.lines().map(str::to_owned).collect()).collect()
    }
}

fn entry(number: u32, message: &str) -> String {
    format!(
        "__CURSOR=s=1;i={number:x}\n__REALTIME_TIMESTAMP=17673230450{number:05}\n_BOOT_ID=0b\n_SYSTEMD_UNIT=web.service\n\
         SYSLOG_IDENTIFIER=web\n_PID=7\nPRIORITY=3\nMESSAGE={message}\n\n"
    )
}

/// What is told, message by message, as it is asked for.
struct Told {
    receiver: Receiver,
}

impl Told {
    async fn next(&mut self) -> QueryUp {
        let mut prefix = [0; 4];
        self.receiver.read_exact(&mut prefix).await.unwrap();
        let mut body = vec![0; wire::frame_length(prefix, MAX_QUERY_FRAME).unwrap()];
        self.receiver.read_exact(&mut body).await.unwrap();
        wire::decode(&body, MAX_QUERY_FRAME).unwrap()
    }

    async fn items(&mut self) -> Vec<LogEntry> {
        match self.next().await {
            QueryUp::Items(items) => items.into_iter().map(|item| of(&item.item)).collect(),
            other => panic!("{other:?}"),
        }
    }
}

fn of(item: &Text<MAX_ITEM>) -> LogEntry {
    let fields = read_item(item).expect("an item is what the controller takes");
    serde_json::from_value(serde_json::Value::Object(fields)).unwrap()
}

fn teller() -> (Teller<UnitLog>, Told) {
    let (sender, receiver) = pipe::pipe().unwrap();
    (Teller::new(sender, Allowed::of(None)), Told { receiver })
}

/// All that is told, and how it ended, where it is not followed.
async fn all(journal: &Journal, asked: &UnitLog) -> (Vec<LogEntry>, Result<(), Stop>) {
    let (mut teller, mut told) = teller();
    let telling = async {
        let how = tell(journal, asked, false, &mut teller).await;
        teller.complete().await.unwrap();
        how
    };
    let hearing = async {
        let mut items = Vec::new();
        loop {
            match told.next().await {
                QueryUp::Items(more) => items.extend(more.into_iter().map(|item| of(&item.item))),
                QueryUp::Complete => return items,
                other => panic!("{other:?}"),
            }
        }
    };
    let (how, items) = tokio::join!(telling, hearing);
    (items, how)
}

fn failure(how: Result<(), Stop>) -> String {
    match how {
        Err(Stop::Failed(detail)) => detail.into(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_last_entries_are_told_in_their_order() {
    let back: String = (1..=3).rev().map(|number| entry(number, "")).collect();
    // One more came meanwhile.
    let on: String = (1..=4).map(|number| entry(number, &format!("line {number}"))).collect();
    let double = Double::new(back.as_bytes(), on.as_bytes(), "");
    let moment = |text: &str| Some(text.parse::<Moment>().unwrap());
    let asked = UnitLog {
        units: vec!["web".parse().unwrap(), "db.socket".parse().unwrap()],
        since: moment("2026-01-02T03:04:05.25Z"),
        until: moment("2027-01-02T03:04:05Z"),
        lines: 3,
        priority: Some(Priority::Warning),
        grep: Some(Text::of("--follow $(reboot)")),
        boot: Some(-1),
    };
    let (items, how) = all(&double.journal(), &asked).await;
    how.unwrap();
    let messages: Vec<&str> = items.iter().map(|item| item.message[0].as_str()).collect();
    assert_eq!(messages, ["line 1", "line 2", "line 3"]);
    let first = &items[0];
    assert_eq!(
        (first.time.as_millis(), first.pid, first.priority),
        (1_767_323_045_000, Some(7), Some(Priority::Error))
    );
    assert_eq!((first.unit.as_deref(), first.identifier.as_deref()), (Some("web.service"), Some("web")));
    assert_eq!((first.boot.as_str(), first.cursor.as_str()), ("0b", "s=1;i=1"));
    let common = |fields: &str| {
        vec![
            "--output=export".to_owned(),
            "--no-pager".to_owned(),
            "--quiet".to_owned(),
            format!("--output-fields={fields}"),
            "--unit=web.service".to_owned(),
            "--unit=db.socket".to_owned(),
            "--until=@1798859045.000".to_owned(),
            "--priority=warning".to_owned(),
            "--grep=--follow $(reboot)".to_owned(),
            "--boot=-1".to_owned(),
        ]
    };
    let mut back = common("_BOOT_ID");
    back.extend(["--reverse", "--lines=3", "--since=@1767323045.250"].map(str::to_owned));
    let mut on = common("_BOOT_ID,_SYSTEMD_UNIT,UNIT,SYSLOG_IDENTIFIER,_COMM,_PID,PRIORITY,MESSAGE");
    on.push("--cursor=s=1;i=1".to_owned());
    assert_eq!(double.asked(), [back, on]);
}

/// What is there is told, that it was all, and then what is written: together where it comes together, and soon where it
/// does not.
#[tokio::test]
async fn what_is_written_is_told_as_it_comes() {
    let back = entry(2, "") + &entry(1, "");
    let on = entry(1, "one") + &entry(2, "two");
    let double = Double::new(back.as_bytes(), on.as_bytes(), "exec cat \"$(dirname \"$0\")\"/fifo");
    let fifo = double.directory.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let (mut teller, mut told) = teller();
    let journal = double.journal();
    let asked = UnitLog::default();
    let hearing = async {
        assert_eq!(told.items().await.len(), 2);
        assert_eq!(told.next().await, QueryUp::Complete);
        // It is open for reading by now, or will be: opening waits for that.
        let mut write = tokio::fs::OpenOptions::new().write(true).open(&fifo).await.unwrap();
        write.write_all(entry(3, "three").as_bytes()).await.unwrap();
        write.flush().await.unwrap();
        assert_eq!(told.items().await[0].message[0], "three");
        // What comes at once fills messages.
        let many: String = (4..2004).map(|number| entry(number, "more")).collect();
        let writes = async {
            write.write_all(many.as_bytes()).await.unwrap();
            write.flush().await.unwrap();
        };
        let (mut items, mut messages) = (0, 0);
        let reads = async {
            while items < 2000 {
                items += told.items().await.len();
                messages += 1;
            }
        };
        tokio::join!(writes, reads);
        assert!(messages <= 2000 / 64, "{messages} messages");
    };
    tokio::select! {
        how = tell(&journal, &asked, true, &mut teller) => panic!("{how:?}"),
        () = hearing => {}
    }
    let on = double.asked().pop().unwrap();
    assert_eq!(on[4..], ["--boot=0", "--cursor=s=1;i=1", "--follow", "--no-tail"]);
    assert!(double.asked()[0].contains(&"--boot=0".to_owned()), "what is counted is what is told");
}

/// Entries that are gone when they are to be told are not waited for.
#[tokio::test]
async fn what_was_removed_meanwhile_holds_nobody_up() {
    let back: String = (1..=5).rev().map(|number| entry(number, "")).collect();
    let on: String = (4..=5).map(|number| entry(number, "left")).collect();
    let double = Double::new(back.as_bytes(), on.as_bytes(), "exec sleep 600");
    let (mut teller, mut told) = teller();
    let (journal, asked) = (double.journal(), UnitLog::default());
    let hearing = async {
        assert_eq!(told.items().await.len(), 2);
        assert_eq!(told.next().await, QueryUp::Complete);
    };
    tokio::select! {
        how = tell(&journal, &asked, true, &mut teller) => panic!("{how:?}"),
        () = hearing => {}
    }
}

/// Whoever reads slowly slows journalctl down, and misses nothing.
#[tokio::test]
async fn nothing_is_dropped_and_little_is_kept_for_a_slow_reader() {
    let count = 8000;
    let on: String = (1..=count).map(|number| entry(number, &"x".repeat(200))).collect();
    let double = Double::new(entry(1, "").as_bytes(), on.as_bytes(), "exec sleep 600");
    let (mut teller, mut told) = teller();
    let journal = double.journal();
    let asked = UnitLog::default();
    let hearing = async {
        let mut next = 1;
        while next <= count {
            tokio::task::yield_now().await;
            match told.next().await {
                QueryUp::Items(items) => {
                    for item in items.into_iter().map(|item| of(&item.item)) {
                        assert_eq!(item.cursor, format!("s=1;i={next:x}").as_str());
                        next += 1;
                    }
                }
                QueryUp::Complete => {}
                other => panic!("{other:?}"),
            }
        }
    };
    tokio::select! {
        how = tell(&journal, &asked, true, &mut teller) => panic!("{how:?}"),
        () = hearing => {}
    }
}

#[tokio::test]
async fn what_cannot_be_told_is_told_in_words() {
    let missing = Journal::through(Path::new("/nonexistent/journalctl"), [], Path::new("/"));
    let (_, how) = all(&missing, &UnitLog::default()).await;
    assert!(failure(how).contains("no `journalctl` here; this kind needs a host that runs systemd"));
    let double = Double::new(b"", b"", "");
    let says = "echo 'No such boot ID in journal' >&2; exit 1";
    std::fs::write(double.program(), format!("#!/bin/sh\n{says}\n")).unwrap();
    let (_, how) = all(&double.journal(), &UnitLog { boot: Some(-5), ..UnitLog::default() }).await;
    let told = failure(how);
    assert!(told.starts_with("journalctl: No such boot ID in journal; see"), "{told}");
    // A flood of complaints is heard, and little of it is kept.
    let flood =
        "i=0; while [ $i -lt 20000 ]; do echo complaint >&2; i=$((i+1)); done; echo the last >&2; exit 3";
    std::fs::write(double.program(), format!("#!/bin/sh\n{flood}\n")).unwrap();
    let told = failure(all(&double.journal(), &UnitLog::default()).await.1);
    assert!(told.contains("the last") && told.len() <= 4096, "{told}");
    std::fs::write(double.program(), "#!/bin/sh\nkill -9 $$\n").unwrap();
    assert!(failure(all(&double.journal(), &UnitLog::default()).await.1).contains("signal: 9"));
    std::fs::write(double.program(), "#!/bin/sh\nprintf 'MESSAGE\\n\\1\\0\\0\\0\\0\\0\\0\\0abc'\n").unwrap();
    assert!(
        failure(all(&double.journal(), &UnitLog::default()).await.1)
            .contains("not the Journal Export Format")
    );
    let empty = tempfile::tempdir().unwrap();
    std::fs::write(double.program(), "#!/bin/sh\n").unwrap();
    let nowhere = Journal::through(&double.program(), [], empty.path());
    assert!(failure(all(&nowhere, &UnitLog::default()).await.1).contains("keeps no journal"));
    let (items, how) = all(&double.journal(), &UnitLog::default()).await;
    assert!(items.is_empty() && how.is_ok(), "nothing is an answer");
    let (mut teller, _told) = teller();
    for asked in [
        UnitLog { boot: Some(-1), ..UnitLog::default() },
        UnitLog { until: Some("1h".parse().unwrap()), ..UnitLog::default() },
    ] {
        let how = tell(&double.journal(), &asked, true, &mut teller).await;
        assert!(failure(how).contains("ask without following"));
    }
}

/// A follower of a journal without entries is told so, and then what is written from now on.
#[tokio::test]
async fn what_has_nothing_yet_is_followed_from_now_on() {
    let double = Double::new(b"", entry(1, "first").as_bytes(), "exec sleep 600");
    let (mut teller, mut told) = teller();
    let before = clock::now();
    let (journal, asked) = (double.journal(), UnitLog::default());
    let hearing = async {
        assert_eq!(told.next().await, QueryUp::Complete);
        assert_eq!(told.items().await[0].message[0], "first");
    };
    tokio::select! {
        how = tell(&journal, &asked, true, &mut teller) => panic!("{how:?}"),
        () = hearing => {}
    }
    let on = double.asked().pop().unwrap();
    let since = on.iter().find_map(|argument| argument.strip_prefix("--since=@")).unwrap();
    assert!(since.parse::<f64>().unwrap() * 1000.0 >= before.as_millis() as f64 - 1.0, "{since}");
}

fn message(bytes: &[u8], is_cut: bool) -> (Vec<String>, bool, bool) {
    let message = Message::of(Some(&Value { bytes: bytes.to_vec(), is_cut }));
    (message.lines.into_iter().map(Into::into).collect(), message.is_cut, message.is_binary)
}

#[test]
fn a_message_is_lines_of_what_can_be_shown() {
    let lines = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
    assert_eq!(message(b"one\r\n\n two\n\n", false), (lines(&["one", "", " two"]), false, false));
    assert_eq!(message(b"a\tb\x1b[31m\0", false), (lines(&["a b\u{fffd}[31m\u{fffd}"]), false, false));
    assert_eq!(message(b"\xc3\xa9 \xff\xfe!", false), (lines(&["\u{e9} \\xff\\xfe!"]), false, true));
    assert_eq!(message(b"", false), (lines(&[""]), false, false));
    // Where it was cut no half of a character is taken for what is no text.
    assert_eq!(message(b"a\xe2\x82", true), (lines(&["a"]), true, false));
    assert_eq!(message(b"a\xe2\x82", false), (lines(&["a\\xe2\\x82"]), false, true));
    let (shown, is_cut, _) = message(&[b'"'; 6000], false);
    assert!(is_cut && shown[0].len() > 2500, "{}", shown[0].len());
    assert!(message(&[b'\n', b'x'].repeat(3000), false).1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Whatever a process writes: an entry fits into an item, which is what a controller takes.
    #[test]
    fn every_entry_is_an_item(
        message in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..6200),
            prop::collection::vec(prop::sample::select(b"\"\\\n\xff".to_vec()), 0..6200),
        ],
        names in prop::collection::vec(prop_oneof![Just(b'"'), Just(b'\\'), Just(0xff), any::<u8>()], 0..600),
        is_cut in any::<bool>(),
    ) {
        let mut text = Vec::new();
        let fields = ["__CURSOR", "_BOOT_ID", "_SYSTEMD_UNIT", "SYSLOG_IDENTIFIER"].map(|name| (name, &names));
        for (name, value) in fields.into_iter().chain([("MESSAGE", &message)]) {
            text.extend_from_slice(name.as_bytes());
            text.push(b'\n');
            text.extend_from_slice(&(value.len() as u64).to_le_bytes());
            text.extend_from_slice(value);
            text.push(b'\n');
        }
        text.extend_from_slice(b"_PID=4294967295\nPRIORITY=4\n\n");
        let mut export = crate::platform::journal::export::Export::default();
        let entry = export.take(&mut text.as_slice()).unwrap().unwrap();
        let mut told = item(&entry);
        told.truncated |= is_cut;
        let json = serde_json::to_string(&told).unwrap();
        prop_assert!(json.len() <= MAX_ITEM, "{}", json.len());
        prop_assert_eq!(of(&json.parse().unwrap()), told);
    }
}

/// A journal of the real thing, with entries of two boots; `None` where it cannot be made.
fn real() -> Option<(tempfile::TempDir, Journal)> {
    let remote = Path::new("/usr/lib/systemd/systemd-journal-remote");
    let there = Command::new("journalctl").arg("--version").stdout(Stdio::null()).status();
    if !remote.exists() || there.is_err() {
        return None;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut text = Vec::new();
    for number in 0..500_u32 {
        let boot = if number < 100 { "0a" } else { "0b" }.repeat(16);
        let (unit, priority) = if number % 2 == 0 { ("web", 6) } else { ("db", 3) };
        let fields = format!(
            "__REALTIME_TIMESTAMP={}\n__MONOTONIC_TIMESTAMP={}\n_BOOT_ID={boot}\n_SYSTEMD_UNIT={unit}.service\n\
             SYSLOG_IDENTIFIER={unit}\n_PID={number}\nPRIORITY={priority}\n",
            1_767_323_000_000_000_u64 + u64::from(number) * 1_000_000,
            1_000_000 + number,
        );
        text.extend_from_slice(fields.as_bytes());
        let message = format!("line {number}\nof two");
        text.extend_from_slice(b"MESSAGE\n");
        text.extend_from_slice(&(message.len() as u64).to_le_bytes());
        text.extend_from_slice(message.as_bytes());
        text.extend_from_slice(b"\n\n");
    }
    let source = directory.path().join("source");
    std::fs::write(&source, text).unwrap();
    let files = directory.path().join("journal");
    std::fs::create_dir(&files).unwrap();
    let output = format!("--output={}", files.join("system.journal").display());
    let made = Command::new(remote).arg(output).arg(&source).stderr(Stdio::null()).status().unwrap();
    assert!(made.success());
    let argument = OsString::from(format!("--directory={}", files.display()));
    let journal = Journal::through(Path::new("journalctl"), [argument], &files);
    Some((directory, journal))
}

/// What we ask journalctl for is what it understands, whatever its version.
#[tokio::test]
async fn the_real_journalctl_tells_what_is_asked_for() {
    let Some((_directory, journal)) = real() else {
        return crate::testing::skipped(
            "the real journalctl",
            "journalctl or systemd-journal-remote is not installed",
        );
    };
    let pids = async |asked: UnitLog| {
        let (items, how) = all(&journal, &asked).await;
        how.unwrap();
        items.iter().map(|item| item.pid.unwrap()).collect::<Vec<_>>()
    };
    let some = |lines| UnitLog { lines, ..UnitLog::default() };
    let moment = |text: &str| Some(text.parse::<Moment>().unwrap());
    assert_eq!(pids(some(3)).await, [497, 498, 499]);
    assert_eq!(pids(some(10_000)).await, (0..500).collect::<Vec<_>>());
    assert_eq!(pids(UnitLog { units: vec!["db".parse().unwrap()], ..some(2) }).await, [497, 499]);
    assert_eq!(pids(UnitLog { priority: Some(Priority::Warning), ..some(2) }).await, [497, 499]);
    assert_eq!(pids(UnitLog { boot: Some(-1), ..some(2) }).await, [98, 99]);
    assert_eq!(
        pids(UnitLog { grep: Some(Text::of("line 1.$")), ..some(9) }).await,
        [10, 11, 12, 13, 14, 15, 16, 17, 18, 19][..0]
    );
    assert_eq!(
        pids(UnitLog { grep: Some(Text::of("LINE 4[0-2]\\n")), ..some(9) }).await,
        [0; 0],
        "a capital counts"
    );
    assert_eq!(pids(UnitLog { grep: Some(Text::of("line 4[0-2]\\n")), ..some(2) }).await, [41, 42]);
    // The base is 2026-01-02T03:03:20Z, one entry in a second: the last ones that are not too old, and not the first ones.
    let (since, until) = (moment("2026-01-02T03:05:00Z"), moment("2026-01-02T03:05:09.5Z"));
    assert_eq!(pids(UnitLog { since: since.clone(), ..some(2) }).await, [498, 499]);
    assert_eq!(
        pids(UnitLog { since: since.clone(), until: until.clone(), ..some(3) }).await,
        [107, 108, 109]
    );
    assert_eq!(pids(UnitLog { since, until, ..some(50) }).await, (100..110).collect::<Vec<_>>());
    let (items, _) = all(&journal, &some(1)).await;
    assert_eq!((items[0].message.len(), items[0].message[1].as_str()), (2, "of two"));
    let told = failure(all(&journal, &UnitLog { boot: Some(-7), ..some(1) }).await.1);
    assert!(told.contains("boot"), "{told}");
    let told = failure(all(&journal, &UnitLog { grep: Some(Text::of("(")), ..some(1) }).await.1);
    assert!(told.contains("journalctl"), "{told}");

    // Followed, all of the last boot is told, and then it waits: of an earlier one nothing is, and nothing is waited for.
    let (mut teller, mut told) = teller();
    let asked = some(10_000);
    let hearing = async {
        let mut count = 0;
        loop {
            match told.next().await {
                QueryUp::Items(items) => count += items.len(),
                QueryUp::Complete => return count,
                other => panic!("{other:?}"),
            }
        }
    };
    tokio::select! {
        how = tell(&journal, &asked, true, &mut teller) => panic!("{how:?}"),
        count = hearing => assert_eq!(count, 400),
    }
}
