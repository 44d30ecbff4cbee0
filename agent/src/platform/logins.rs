//! Who can log in, and who has: shadow(5), lastlog(8) and utmp(5).
//!
//! The files of logins are arrays of one structure each, the same on every architecture with a time of 32 bits in them.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use fleetward_protocol::query::logins::{Password, password};
use fleetward_protocol::time::Timestamp;

/// The most of such a file that is read.
const MAX_FILE: u64 = 4 << 20;
/// `struct lastlog`: a time, a terminal of 32 bytes, a host of 256.
const LAST: usize = 292;
/// `struct utmp`.
const ENTRY: usize = 384;
/// `USER_PROCESS` of utmp(5): somebody is logged in.
const LOGGED_IN: i16 = 7;

/// When and from where a user logged in last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Last {
    /// When.
    pub at: Timestamp,
    /// On which terminal.
    pub terminal: Option<String>,
    /// From where.
    pub from: Option<String>,
}

/// One who is logged in, as the list of logins has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The user's name.
    pub user: String,
    /// Since when.
    pub since: Timestamp,
    /// On which terminal.
    pub terminal: Option<String>,
    /// From where.
    pub from: Option<String>,
    /// The process that lets the user in.
    pub pid: Option<u32>,
}

/// What the passwords of users are like, by their names. None where we may not look.
#[must_use]
pub fn read_passwords() -> HashMap<String, Password> {
    let shadow = String::from_utf8_lossy(&read("/etc/shadow")).into_owned();
    // name:password:…
    let line = |line: &str| {
        let mut fields = line.split(':');
        Some((fields.next()?.to_owned(), password(fields.next()?)))
    };
    shadow.lines().filter_map(line).collect()
}

/// The list of last logins, if the host keeps one.
#[must_use]
pub fn open_last() -> Option<File> {
    File::open("/var/log/lastlog").ok()
}

/// When the user of this number logged in last. It stands where the number says, so the file has holes.
#[must_use]
pub fn read_last(list: &File, uid: u32) -> Option<Last> {
    let mut entry = [0; LAST];
    list.read_exact_at(&mut entry, u64::from(uid).checked_mul(LAST as u64)?).ok()?;
    parse_last(&entry)
}

fn parse_last(entry: &[u8; LAST]) -> Option<Last> {
    let at = u32_at(entry, 0)?;
    (at > 0).then(|| Last { at: seconds(at), terminal: text(entry, 4, 32), from: text(entry, 36, 256) })
}

/// Those who are logged in, by the list that programs keep that let users in.
#[must_use]
pub fn read_entries() -> Vec<Entry> {
    entries(&read("/run/utmp"))
}

fn entries(list: &[u8]) -> Vec<Entry> {
    let lives = |entry: &Entry| entry.pid.is_none_or(|pid| Path::new(&format!("/proc/{pid}")).exists());
    list.chunks_exact(ENTRY).filter_map(parse_entry).filter(lives).collect()
}

fn parse_entry(entry: &[u8]) -> Option<Entry> {
    let kind = i16::from_ne_bytes(*entry.first_chunk()?);
    let user = text(entry, 44, 32).filter(|_| kind == LOGGED_IN)?;
    let pid = u32_at(entry, 4).filter(|pid| *pid > 0);
    let since = seconds(u32_at(entry, 340)?);
    Some(Entry { user, since, terminal: text(entry, 8, 32), from: text(entry, 76, 256), pid })
}

fn read(path: &str) -> Vec<u8> {
    let mut content = Vec::new();
    if let Ok(file) = File::open(path) {
        // What was read so far is better than nothing.
        drop(file.take(MAX_FILE).read_to_end(&mut content));
    }
    content
}

fn u32_at(entry: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*entry.get(at..)?.first_chunk()?))
}

/// The text of a field, up to its first zero; nothing where it is empty.
fn text(entry: &[u8], at: usize, length: usize) -> Option<String> {
    let field = entry.get(at..at + length)?;
    let text = field.split(|byte| *byte == 0).next().unwrap_or_default();
    (!text.is_empty()).then(|| String::from_utf8_lossy(text).into_owned())
}

fn seconds(at: u32) -> Timestamp {
    Timestamp::from_millis(i64::from(at) * 1000)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    fn entry(kind: i16, user: &str, from: &str) -> Vec<u8> {
        let mut entry = vec![0; ENTRY];
        let mut put = |at: usize, bytes: &[u8]| entry[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &kind.to_ne_bytes());
        put(4, &4711_u32.to_ne_bytes());
        put(8, b"pts/0");
        put(44, user.as_bytes());
        put(76, from.as_bytes());
        put(340, &1_700_000_000_u32.to_ne_bytes());
        entry
    }

    #[test]
    fn who_is_logged_in_is_told_from_who_was() {
        let found = parse_entry(&entry(LOGGED_IN, "deploy", "192.0.2.10")).unwrap();
        let expected = Entry {
            user: "deploy".into(),
            since: Timestamp::from_millis(1_700_000_000_000),
            terminal: Some("pts/0".into()),
            from: Some("192.0.2.10".into()),
            pid: Some(4711),
        };
        assert_eq!(found, expected);
        assert_eq!(parse_entry(&entry(8, "deploy", "")), None, "an entry of one who left stays");
        assert_eq!(parse_entry(&entry(LOGGED_IN, "", "")), None);
    }

    #[test]
    fn one_whose_process_is_gone_is_not_logged_in() {
        let of = |pid: u32| {
            let mut entry = entry(LOGGED_IN, "deploy", "192.0.2.10");
            entry[4..8].copy_from_slice(&pid.to_ne_bytes());
            entry
        };
        // No process has such a number (PID_MAX_LIMIT). What is cut off at the end is no entry.
        let list = [of(std::process::id()), of(1 << 30), of(0), vec![0; ENTRY - 1]].concat();
        let pids: Vec<_> = entries(&list).into_iter().map(|entry| entry.pid).collect();
        assert_eq!(pids, [Some(std::process::id()), None]);
    }

    #[test]
    fn no_more_of_a_list_is_read_than_may_be() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(MAX_FILE + 9).unwrap();
        assert_eq!(read(file.path().to_str().unwrap()).len() as u64, MAX_FILE);
    }

    #[test]
    fn the_last_login_stands_where_the_number_says() {
        let mut file = tempfile::tempfile().unwrap();
        let mut last = [0; LAST];
        last[..4].copy_from_slice(&1_700_000_000_u32.to_ne_bytes());
        last[4..9].copy_from_slice(b"pts/1");
        last[36..46].copy_from_slice(b"192.0.2.10");
        file.write_all(&[[0; LAST], last].concat()).unwrap();
        assert_eq!(read_last(&file, 0), None, "it never logged in");
        let found = read_last(&file, 1).unwrap();
        assert_eq!(
            (found.at, found.from.as_deref()),
            (Timestamp::from_millis(1_700_000_000_000), Some("192.0.2.10"))
        );
        assert_eq!(read_last(&file, 2), None);
        assert_eq!(read_last(&file, u32::MAX), None);
    }

    proptest! {
        #[test]
        fn whatever_stands_there_is_read_or_passed_over(bytes in prop::collection::vec(any::<u8>(), 0..=ENTRY)) {
            if let Some(entry) = parse_entry(&bytes) {
                prop_assert!(!entry.user.contains('\0') && !entry.user.is_empty());
            }
            if let Some(last) = bytes.first_chunk() {
                parse_last(last);
            }
        }
    }
}
