//! What a unit has written to the system's journal, through journalctl(1): it is the journal's own reader, and its JSON is
//! an interface (systemd.journal-fields(7), "Journal JSON Format" of systemd).

use std::process::Stdio;
use std::time::Duration;

use fleetward_protocol::action::unit::UnitName;
use fleetward_protocol::text::{Line, Text};
use serde_json::{Map, Value};
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;

use super::Systemd;

/// The most that is read of a log, in bytes.
const MAX_LOG: u64 = 256 << 10;
/// How long it may take to read.
const PATIENCE: Duration = Duration::from_secs(5);
/// The fields that are shown, beside those that stand in every entry.
const FIELDS: &str = "MESSAGE,SYSLOG_IDENTIFIER,_COMM,_PID";

impl Systemd {
    /// The last lines that the unit has logged since this time of the boot ([`clock::uptime`](crate::platform::clock::uptime)),
    /// in the order in which the journal took them; `None` if there is none in what could be read, and that is not all.
    #[must_use]
    pub fn read_log(&self, unit: &UnitName, since: Duration, lines: u8) -> Option<Vec<Line>> {
        let (text, is_whole) = self.runtime.block_on(async {
            let mut command = Command::new("journalctl");
            command
                .arg(format!("--unit={unit}"))
                .arg(format!("--lines={lines}"))
                .args(["--boot", "--no-pager", "--quiet", "--output=json"])
                .arg(format!("--output-fields={FIELDS}"))
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .kill_on_drop(true);
            let mut child = command.spawn().ok()?;
            let mut text = Vec::new();
            let mut out = child.stdout.take()?.take(MAX_LOG);
            let ended = tokio::time::timeout(PATIENCE, async {
                out.read_to_end(&mut text).await?;
                // It may have more to say than is read, and then waits for a reader until it is killed.
                if out.limit() == 0 { Ok(None) } else { child.wait().await.map(Some) }
            });
            let is_whole = matches!(ended.await, Ok(Ok(Some(status))) if status.success());
            Some((text, is_whole))
        })?;
        let lines = read(&text, since);
        // What was read is worth showing; that it is nothing proves nothing.
        (is_whole || !lines.is_empty()).then_some(lines)
    }
}

/// An entry, and its place in the journal.
struct Entry {
    /// When the journal took it: time of the boot, in microseconds.
    at: u64,
    /// Its number in the order of its journal file, which decides between two of one moment.
    number: u64,
    line: Line,
}

/// The entries since this time of the boot, in order. By the clock that never steps: the wall clock may have been set, and
/// what several files hold is merged by it.
fn read(text: &[u8], since: Duration) -> Vec<Line> {
    let since = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
    let mut entries: Vec<Entry> = text.split(|byte| *byte == b'\n').filter_map(read_one).collect();
    entries.retain(|entry| entry.at >= since);
    entries.sort_by_key(|entry| (entry.at, entry.number));
    entries.into_iter().map(|entry| entry.line).collect()
}

/// An entry of one line of JSON; what is none (cut off at the end of what was read) is passed over.
fn read_one(line: &[u8]) -> Option<Entry> {
    let entry: Map<String, Value> = serde_json::from_slice(line).ok()?;
    let field = |name| entry.get(name).and_then(words);
    let at: u64 = field("__MONOTONIC_TIMESTAMP")?.parse().ok()?;
    let who = field("SYSLOG_IDENTIFIER").or_else(|| field("_COMM")).unwrap_or_else(|| "?".to_owned());
    let pid = field("_PID").map(|pid| format!("[{pid}]")).unwrap_or_default();
    let message = field("MESSAGE").unwrap_or_else(|| "(too long to be shown here)".to_owned());
    let number = field("__CURSOR").as_deref().and_then(number).unwrap_or(0);
    Some(Entry { at, number, line: Text::of(format_args!("{who}{pid}: {message}")) })
}

/// A field's text: a string, or its bytes where they are no text. A field that an entry has twice is told by its first.
fn words(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(all) => match all.first() {
            Some(Value::String(text)) => Some(text.clone()),
            Some(Value::Number(_)) => {
                let byte = |value: &Value| value.as_u64().and_then(|byte| u8::try_from(byte).ok());
                let bytes: Vec<u8> = all.iter().map(byte).collect::<Option<_>>()?;
                Some(String::from_utf8_lossy(&bytes).into_owned())
            }
            _ => None,
        },
        _ => None,
    }
}

/// The sequence number in a cursor, such as `s=6b1…;i=1f3;b=…`, which is hexadecimal.
fn number(cursor: &str) -> Option<u64> {
    let number = cursor.split(';').find_map(|part| part.strip_prefix("i="))?;
    u64::from_str_radix(number, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(at: u64, number: u64, message: &str) -> String {
        format!(
            r#"{{"__CURSOR":"s=0a;i={number:x};b=0b;m=1;t=2;x=3","__REALTIME_TIMESTAMP":"1","__MONOTONIC_TIMESTAMP":"{at}","_PID":"7","SYSLOG_IDENTIFIER":"web","MESSAGE":{message}}}"#
        )
    }

    #[test]
    fn only_what_was_logged_since_is_shown_in_the_journals_order() {
        let text = [
            entry(900, 1, r#""of an earlier failure""#),
            // Of one moment, and from several files: the order of the text is not that of the journal.
            entry(1_500, 32, r#""third""#),
            entry(1_500, 9, r#""second""#),
            entry(1_000, 8, r#""first""#),
            entry(1_700, 33, r#"[104,105,255,27]"#),
            entry(1_800, 34, "null"),
            r#"{"__MONOTONIC_TIMESTAMP":"1900","MES"#.to_owned(),
        ];
        let lines = read(text.join("\n").as_bytes(), Duration::from_micros(1_000));
        let lines: Vec<_> = lines.iter().map(|line| line.as_str()).collect();
        assert_eq!(lines[..3], ["web[7]: first", "web[7]: second", "web[7]: third"]);
        assert!(lines[3].starts_with("web[7]: hi") && lines[4].contains("too long"), "{lines:?}");
        assert_eq!(lines.len(), 5);
        let twice = r#"{"__MONOTONIC_TIMESTAMP":"1","_COMM":"sh","MESSAGE":["a","b"]}"#;
        assert_eq!(read(twice.as_bytes(), Duration::ZERO)[0].as_str(), "sh: a");
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(text in prop::collection::vec(any::<u8>(), 0..300), json in "[\\[\\]{}\",:a-z0-9_\n]{0,200}") {
            let _ = (read(&text, Duration::ZERO), read(json.as_bytes(), Duration::ZERO));
        }
    }
}
