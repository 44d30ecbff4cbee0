//! Entries as they come, such as lines of a log: each is told once, and none is kept.
//!
//! Hosts that are asked again tell the last of their entries once more. So of each host it is kept by what keys it told its last
//! ones, as hashes: of so few an equal hash of two is nothing to expect.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::fmt::Write as _;
use std::hash::BuildHasher as _;

use fleetward_api::work::kind::schema::Field;
use fleetward_api::work::query::{QueryItem, QueryState};
use fleetward_protocol::name::HostName;
use serde_json::{Map, Value};

use super::Sink;
use super::answer::{News, trouble};
use crate::failure::Failure;
use crate::kind::columns::flat;
use crate::render::table::Tone;
use crate::render::{Out, neutral};

/// So many keys are kept of each host: as many as one that is asked again tells at the most.
pub(super) const RECENT: usize = 10_000;
/// So many lines are written at once, at the most.
const MAX_TEXT: usize = 64 << 10;

/// Tells entries and what becomes of hosts, in the order in which they come.
pub(crate) struct Entries<'a, F> {
    out: &'a Out,
    /// Writes the lines of an entry.
    write: F,
    /// The hashes of the keys of the last entries of each host, the oldest first.
    recent: BTreeMap<HostName, VecDeque<u64>>,
    hasher: RandomState,
    /// The hosts that were asked again and have not told all since.
    again: BTreeMap<HostName, Again>,
    /// The lines that were not written yet.
    pub(super) text: String,
}

/// A host that was asked again.
#[derive(Debug, Default)]
struct Again {
    /// What it had told before. What it tells meanwhile takes the place of none of it.
    known: HashSet<u64>,
    /// Whether it has told some of that once more.
    overlaps: bool,
}

impl<'a, F: FnMut(&HostName, &Map<String, Value>, &mut String)> Entries<'a, F> {
    /// With what writes the lines of an entry.
    pub(crate) fn new(out: &'a Out, write: F) -> Self {
        let (recent, again) = (BTreeMap::new(), BTreeMap::new());
        Self { out, write, recent, hasher: RandomState::new(), again, text: String::new() }
    }

    /// Takes note of an entry; whether it was told before its host was asked again.
    fn is_known(&mut self, host: &HostName, key: &str) -> bool {
        let hash = self.hasher.hash_one(key);
        if let Some(again) = self.again.get_mut(host)
            && again.known.contains(&hash)
        {
            again.overlaps = true;
            return true;
        }
        let recent = match self.recent.get_mut(host) {
            Some(recent) => recent,
            None => self.recent.entry(host.clone()).or_default(),
        };
        if recent.len() >= RECENT {
            recent.pop_front();
        }
        recent.push_back(hash);
        false
    }

    /// What is said of a host.
    pub(super) fn settled(&mut self, news: &News) -> Option<(Tone, String)> {
        match news {
            News::Followed(host) => {
                let Again { known, overlaps } = self.again.remove(host)?;
                (!known.is_empty() && !overlaps).then(|| {
                    let what = "is back; of what was written meanwhile only the last is told";
                    (Tone::Warn, format!("{host} {what}"))
                })
            }
            News::LeftOut(host, why) => Some((Tone::Bad, trouble(host, QueryState::Refused, why))),
            News::Trouble(host, state, detail) => Some((Tone::Bad, trouble(host, *state, detail))),
        }
    }
}

impl<F: FnMut(&HostName, &Map<String, Value>, &mut String)> Sink for Entries<'_, F> {
    fn item(&mut self, QueryItem { host, key, item }: QueryItem) -> Result<(), Failure> {
        // An entry is never gone.
        let Some(item) = item else { return Ok(()) };
        if self.is_known(&host, &key) {
            return Ok(());
        }
        (self.write)(&host, &item, &mut self.text);
        if self.text.len() >= MAX_TEXT { self.flush() } else { Ok(()) }
    }

    fn tells_of_hosts(&self) -> bool {
        true
    }

    fn host(&mut self, news: &News) -> Result<(), Failure> {
        let Some((tone, text)) = self.settled(news) else { return Ok(()) };
        // What was told before it is written before it.
        self.flush()?;
        self.out.warn(tone.paint(&text, self.out.colour_notes));
        Ok(())
    }

    fn again(&mut self, hosts: Option<&BTreeSet<HostName>>) -> Result<(), Failure> {
        let is_asked = |host: &&HostName| hosts.is_none_or(|hosts| hosts.contains(*host));
        let asked = self.recent.iter().filter(|(host, _)| is_asked(host));
        let again = |(host, recent): (&HostName, &VecDeque<u64>)| {
            (host.clone(), Again { known: recent.iter().copied().collect(), overlaps: false })
        };
        self.again.extend(asked.map(again));
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Failure> {
        let text = std::mem::take(&mut self.text);
        if text.is_empty() { Ok(()) } else { self.out.print(text) }
    }
}

/// Writes an entry of any kind: its host, and each of its values by its name.
pub(crate) fn flat_lines<'a>(
    fields: &'a [Field],
    out: &'a Out,
) -> impl FnMut(&HostName, &Map<String, Value>, &mut String) + 'a {
    |host, item, text| {
        let values = flat(fields, item, &out.clock);
        let values: Vec<String> =
            values.iter().map(|(name, value)| neutral::text(&format!("{name}={value}"))).collect();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{host}  {}", values.join(" "));
    }
}
