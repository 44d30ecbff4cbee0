//! What is there and what changes, a line each as it comes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use fleetward_api::work::kind::schema::Field;
use fleetward_api::work::query::{QueryItem, QueryState};
use fleetward_protocol::name::HostName;
use serde_json::{Map, Value};

use super::Sink;
use super::answer::{News, trouble};
use super::items::MAX_ITEMS;
use crate::failure::Failure;
use crate::kind::columns::flat;
use crate::render::table::Tone;
use crate::render::{Out, neutral, words};

type Place = (HostName, String);

/// What a line says of an item, and of what it was before where that is known; nothing if there is nothing to say.
pub(crate) type Line = fn(Option<&Map<String, Value>>, &Map<String, Value>, &Out) -> Option<String>;

/// Tells items and what becomes of hosts, in the order in which they come.
#[derive(Debug)]
pub(crate) struct Changes<'a> {
    out: &'a Out,
    fields: &'a [Field],
    line: Option<Line>,
    known: BTreeMap<Place, Map<String, Value>>,
    /// What is known of an earlier answer, and was not told again yet.
    stale: BTreeSet<Place>,
    /// The lines that were not written yet.
    pub(super) text: String,
}

impl<'a> Changes<'a> {
    pub(crate) const fn new(out: &'a Out, fields: &'a [Field]) -> Self {
        Self { out, fields, line: None, known: BTreeMap::new(), stale: BTreeSet::new(), text: String::new() }
    }

    /// With lines of a layout of their own.
    pub(crate) fn with(self, line: Line) -> Self {
        Self { line: Some(line), ..self }
    }

    fn tell(&mut self, (host, key): &Place, told: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "{host}  {}  {told}", neutral::text(key));
    }

    fn gone(&mut self, place: &Place) {
        self.known.remove(place);
        let gone = Tone::Dim.paint("gone", self.out.colour);
        self.tell(place, &gone);
    }
}

impl Sink for Changes<'_> {
    fn item(&mut self, QueryItem { host, key, item }: QueryItem) -> Result<(), Failure> {
        let place = (host, key);
        self.stale.remove(&place);
        let Some(item) = item else {
            self.gone(&place);
            return Ok(());
        };
        let before = self.known.get(&place);
        let told = match self.line {
            Some(line) => line(before, &item, self.out),
            None => Some(changes(self.fields, before.unwrap_or(&Map::new()), &item, self.out))
                .filter(|told| !told.is_empty()),
        };
        if let Some(told) = told {
            self.tell(&place, &told);
        }
        // What is beyond is told whole each time.
        if self.known.len() < MAX_ITEMS || self.known.contains_key(&place) {
            self.known.insert(place, item);
        }
        Ok(())
    }

    fn tells_of_hosts(&self) -> bool {
        true
    }

    fn host(&mut self, news: &News) -> Result<(), Failure> {
        let (tone, text) = self.settled(news);
        // What was told before it is written before it.
        self.flush()?;
        let painted = tone.paint(&text, self.out.colour_notes);
        if tone == Tone::Bad {
            self.out.warn(painted)
        } else {
            self.out.note(painted)
        }
        Ok(())
    }

    fn again(&mut self, hosts: Option<&BTreeSet<HostName>>) -> Result<(), Failure> {
        let is_asked = |place: &&Place| hosts.is_none_or(|hosts| hosts.contains(&place.0));
        self.stale.extend(self.known.keys().filter(is_asked).cloned());
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Failure> {
        let text = std::mem::take(&mut self.text);
        if text.is_empty() { Ok(()) } else { self.out.print(text) }
    }
}

impl Changes<'_> {
    /// What is said of a host; with it goes what the host has no more.
    pub(super) fn settled(&mut self, news: &News) -> (Tone, String) {
        match news {
            News::Followed(host) => {
                let of_host = |place: &&Place| place.0 == *host;
                // It was there before the hosts were asked again.
                let gone: Vec<Place> = self.stale.iter().filter(of_host).cloned().collect();
                for place in &gone {
                    self.stale.remove(place);
                    self.gone(place);
                }
                let count = words::count(self.known.keys().filter(of_host).count(), "item");
                (Tone::Dim, format!("{host} told all there is now ({count}); what changes follows"))
            }
            News::LeftOut(host, why) => (Tone::Bad, trouble(host, QueryState::Refused, why)),
            News::Trouble(host, state, detail) => (Tone::Bad, trouble(host, *state, detail)),
        }
    }
}

/// The properties that are others than before: `active=failed (was active)`.
fn changes(fields: &[Field], before: &Map<String, Value>, after: &Map<String, Value>, out: &Out) -> String {
    let old: Vec<(String, String)> = flat(fields, before, &out.clock);
    let new: Vec<(String, String)> = flat(fields, after, &out.clock);
    let of = |all: &[(String, String)], name: &str| {
        all.iter().find(|(known, _)| known == name).map(|(_, text)| text.clone()).unwrap_or_default()
    };
    let lost = old.iter().filter(|(name, _)| new.iter().all(|(known, _)| known != name));
    let told = new.iter().chain(lost).filter_map(|(name, _)| {
        let (old, new) = (of(&old, name), of(&new, name));
        match (old == new, old.is_empty()) {
            (true, _) => None,
            (false, true) => Some(neutral::text(&format!("{name}={new}"))),
            (false, false) => Some(neutral::text(&format!("{name}={new} (was {old})"))),
        }
    });
    told.collect::<Vec<_>>().join(" ")
}
