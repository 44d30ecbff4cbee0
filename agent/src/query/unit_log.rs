//! Tells what units have logged, and what they log.

use std::time::Duration;

use fleetward_protocol::action::unit::UnitName;
use fleetward_protocol::printable::in_line;
use fleetward_protocol::query::unit_log::{LogEntry, Priority, UnitLog};
use fleetward_protocol::text::{Line, Text, Word};
use fleetward_protocol::time::Timestamp;
use tokio::time::{Instant, timeout_at};

use super::look::Look;
use super::teller::{Stop, Teller};
use crate::platform::clock;
use crate::platform::journal::export::{Entry, Field, Value};
use crate::platform::journal::{From, Journal, JournalError, Until};
use crate::platform::systemd::units::Units;

/// How long an entry may wait for others, so that they are told together.
const TOGETHER: Duration = Duration::from_millis(100);
/// The most bytes that a message has in JSON: with the other fields it fits into an item.
const MAX_MESSAGE: usize = 5632;

impl Look for UnitLog {
    async fn look(&self, follow: bool, teller: &mut Teller<Self>) -> Result<(), Stop> {
        tell(&Journal::system(), self, follow, teller).await
    }
}

/// Tells what this journal has.
async fn tell(
    journal: &Journal,
    asked: &UnitLog,
    follow: bool,
    teller: &mut Teller<UnitLog>,
) -> Result<(), Stop> {
    if follow && (asked.until.is_some() || asked.boot.is_some_and(|boot| boot != 0)) {
        return Err(Stop::failed(
            "what is followed goes on in the present boot; leave `until` and `boot` out, or ask without following",
        ));
    }
    let now = clock::now();
    // journalctl follows in the present boot alone, and what there is has to be counted as it will be told.
    let present = UnitLog { boot: Some(0), ..asked.clone() };
    let (asked, until) = if follow { (&present, Until::Ever) } else { (asked, Until::Now) };
    let found = journal.find(asked, now).await.map_err(problem)?;
    let (from, mut left) = match &found {
        Some(found) => (From::Cursor(&found.oldest), found.count),
        None => {
            explain_nothing(journal, asked, now).await?;
            if !follow {
                return Ok(());
            }
            teller.complete().await?;
            (From::Time(now), 0)
        }
    };
    let mut reading = journal.read(asked, now, from, until).map_err(problem)?;
    // When what was not told yet has waited long enough.
    let mut due: Option<Instant> = None;
    loop {
        let next = match due {
            Some(at) => timeout_at(at, reading.next()).await,
            None => Ok(reading.next().await),
        };
        let Ok(next) = next else {
            teller.flush().await?;
            due = None;
            continue;
        };
        let Some(entry) = next.map_err(problem)? else { break };
        let item = item(&entry);
        teller.item(&item).await?;
        due = teller.holds().then(|| due.unwrap_or_else(|| Instant::now() + TOGETHER));
        if left > 0 {
            // Old ones may be gone by now: the last that was found is the last in any case.
            let is_last = found.as_ref().is_some_and(|found| found.newest == item.cursor.as_str());
            left = if is_last { 0 } else { left - 1 };
            if left == 0 && !follow {
                // What came meanwhile was not asked for.
                return Ok(());
            }
            if left == 0 {
                teller.complete().await?;
                due = None;
            }
        }
    }
    match follow {
        true => Err(Stop::failed("journalctl has ended; ask again")),
        false => Ok(()),
    }
}

/// Why there is nothing, where that is no answer: a name that no unit has, or a host without a journal.
async fn explain_nothing(journal: &Journal, asked: &UnitLog, now: Timestamp) -> Result<(), Stop> {
    if !journal.is_kept() {
        return Err(Stop::failed(
            "this host keeps no journal; see `systemctl status systemd-journald` on the host",
        ));
    }
    if asked.units.is_empty() {
        return Ok(());
    }
    let everything = UnitLog { units: asked.units.clone(), lines: 1, ..UnitLog::default() };
    if *asked != everything && journal.find(&everything, now).await.map_err(problem)?.is_some() {
        return Ok(());
    }
    match unknown(&asked.units).await {
        Some(unit) => Err(Stop::failed(format_args!(
            "this host has no unit `{unit}`, and nothing in its journal is of one of that name; `fleetward unit list` shows what it has"
        ))),
        None => Ok(()),
    }
}

/// The first of these units that systemd does not know; `None` if it knows all, or cannot be asked.
async fn unknown(units: &[UnitName]) -> Option<&UnitName> {
    let bus = Units::connect().await.ok()?;
    for unit in units {
        if !bus.knows(unit).await.ok()? {
            return Some(unit);
        }
    }
    None
}

fn problem(error: JournalError) -> Stop {
    let advice = match &error {
        JournalError::Missing => "this kind needs a host that runs systemd",
        JournalError::Io(_) => "ask again",
        JournalError::Refused(_) => {
            "see `journalctl --verify` on the host, and whether the agent's user may read the journal"
        }
        JournalError::Malformed(_) => "see `journalctl --version` on the host, and update it",
    };
    Stop::failed(format_args!("{error}; {advice}"))
}

/// An entry as it is told.
fn item(entry: &Entry) -> LogEntry {
    let pid = entry.text(Field::Pid).and_then(|pid| pid.parse().ok());
    // What systemd says of a unit has the unit's name beside its own.
    let about = || word(entry, Field::Unit).filter(|_| pid == Some(1));
    let message = Message::of(entry.get(Field::Message));
    LogEntry {
        time: Timestamp::from_millis(
            entry.text(Field::Time).and_then(|at| at.parse::<i64>().ok()).unwrap_or(0) / 1000,
        ),
        unit: about().or_else(|| word(entry, Field::SystemdUnit)),
        identifier: word(entry, Field::Identifier).or_else(|| word(entry, Field::Comm)),
        pid,
        priority: entry.text(Field::Priority).and_then(|number| number.parse().ok()).and_then(Priority::of),
        message: message.lines,
        truncated: message.is_cut,
        binary: message.is_binary,
        boot: word(entry, Field::Boot).unwrap_or_default(),
        cursor: word(entry, Field::Cursor).unwrap_or_default(),
    }
}

fn word(entry: &Entry, field: Field) -> Option<Word> {
    let value = entry.get(field).filter(|value| !value.bytes.is_empty())?;
    Some(Text::of(String::from_utf8_lossy(&value.bytes)))
}

/// A message, line by line.
#[derive(Debug, Default)]
struct Message {
    lines: Vec<Line>,
    is_cut: bool,
    is_binary: bool,
    /// What it takes in JSON.
    size: usize,
}

impl Message {
    fn of(value: Option<&Value>) -> Self {
        let mut message = Self::default();
        let Some(Value { bytes, is_cut }) = value else { return message };
        let mut bytes = bytes.as_slice();
        if *is_cut {
            message.is_cut = true;
            bytes = whole_characters(bytes);
        }
        let ends = |byte: &u8| matches!(byte, b'\n' | b'\r');
        while bytes.last().is_some_and(ends) {
            bytes = bytes.split_last().map_or(&[], |(_, rest)| rest);
        }
        for line in bytes.split(|byte| *byte == b'\n') {
            if !message.push(line.strip_suffix(b"\r").unwrap_or(line)) {
                message.is_cut = true;
                break;
            }
        }
        message
    }

    /// Takes one more line; whether all of it had room.
    fn push(&mut self, bytes: &[u8]) -> bool {
        // Two quotation marks and a comma.
        self.size += 3;
        if self.size > MAX_MESSAGE {
            return false;
        }
        let mut line = String::new();
        let has_room = self.fill(&mut line, bytes);
        self.lines.push(Text::of(line));
        has_room
    }

    fn fill(&mut self, line: &mut String, bytes: &[u8]) -> bool {
        // A `Line` has no more.
        let most = 4096;
        for chunk in bytes.utf8_chunks() {
            for c in chunk.valid().chars().map(in_line) {
                let escaped = usize::from(matches!(c, '"' | '\\'));
                self.size += c.len_utf8() + escaped;
                if self.size > MAX_MESSAGE || line.len() + c.len_utf8() > most {
                    return false;
                }
                line.push(c);
            }
            for byte in chunk.invalid() {
                self.is_binary = true;
                let escape = format!("\\x{byte:02x}");
                self.size += escape.len() + 1;
                if self.size > MAX_MESSAGE || line.len() + escape.len() > most {
                    return false;
                }
                line.push_str(&escape);
            }
        }
        true
    }
}

/// Without the beginning of a character at the end, where a text was cut.
fn whole_characters(bytes: &[u8]) -> &[u8] {
    let begins = |at: &usize| {
        let rest = bytes.get(*at..).unwrap_or_default();
        str::from_utf8(rest).is_err_and(|error| error.error_len().is_none() && error.valid_up_to() == 0)
    };
    // A character has four bytes at the most.
    let cut = (bytes.len().saturating_sub(3)..bytes.len()).find(begins);
    bytes.get(..cut.unwrap_or(bytes.len())).unwrap_or(bytes)
}

#[cfg(test)]
mod tests;
