//! Who has answered, as far as it was told.

use std::collections::{BTreeMap, BTreeSet};

use fleetward_api::work::query::{QueryCut, QueryEnd, QueryHost, QueryState};
use fleetward_protocol::name::HostName;
use serde::de::DeserializeOwned;

use super::Sink;
use crate::client::sse::ServerEvent;
use crate::failure::Failure;
use crate::render::table::Tone;
use crate::render::{Out, neutral, words};

/// The most hosts that are named when they did not answer.
const MAX_NAMED: usize = 50;
/// How often a host that was followed may fail again before it is given up: with the pauses between, about half a minute, in which
/// one that was busy has a place again.
const MAX_FAILURES: u32 = 10;

/// What became of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum News {
    /// All there is now was told; what follows is what changes.
    Followed(HostName),
    /// It did not answer, or not any more.
    Trouble(HostName, QueryState, String),
    /// It is not asked any more.
    LeftOut(HostName, String),
}

/// Who has answered, as far as it was told.
#[derive(Debug, Default)]
pub(super) struct Answer {
    trouble: BTreeMap<HostName, (QueryState, String)>,
    /// The hosts that go on to tell what changes.
    followed: BTreeSet<HostName>,
    /// Those that did once and do not any more, and how often they have failed since.
    missing: BTreeMap<HostName, u32>,
    /// The hosts of which the last answer told that they do not answer.
    away: BTreeSet<HostName>,
    /// The hosts that told all there was, and did not break off later.
    told: BTreeSet<HostName>,
    /// The end of the answer, when everybody was asked at once.
    pub(super) end: Option<QueryEnd>,
}

impl Answer {
    /// Takes an event; the end of an answer, if it is one.
    pub(super) fn take(
        &mut self,
        event: &ServerEvent,
        sink: &mut impl Sink,
    ) -> Result<Option<QueryEnd>, Failure> {
        match event.name.as_str() {
            "item" => sink.item(read(event)?)?,
            "host" => {
                if let Some(news) = self.host(read(event)?) {
                    sink.host(&news)?;
                }
            }
            "end" => return read(event).map(Some),
            // A newer controller may say more.
            _ => {}
        }
        Ok(None)
    }

    fn host(&mut self, told: QueryHost) -> Option<News> {
        let QueryHost { host, state, detail } = told;
        match state {
            QueryState::Complete => {
                self.trouble.remove(&host);
                self.away.remove(&host);
                self.missing.remove(&host);
                self.told.insert(host.clone());
                self.followed.insert(host.clone());
                Some(News::Followed(host))
            }
            QueryState::Ended => {
                self.trouble.remove(&host);
                self.followed.remove(&host);
                self.missing.remove(&host);
                self.told.insert(host);
                None
            }
            QueryState::Offline | QueryState::Refused | QueryState::Failed => {
                if self.followed.remove(&host) {
                    self.missing.insert(host.clone(), 0);
                }
                self.told.remove(&host);
                self.missed(&host, state);
                self.away.insert(host.clone());
                let how = (state, detail.unwrap_or_default());
                let before = self.trouble.insert(host.clone(), how.clone());
                // It is asked again and again: what was said is not said twice.
                (before.as_ref() != Some(&how)).then_some(News::Trouble(host, how.0, how.1))
            }
        }
    }

    /// A host that is asked again has not answered: who is away may come back, who refuses does not.
    fn missed(&mut self, host: &HostName, state: QueryState) {
        let Some(failures) = self.missing.get_mut(host) else { return };
        *failures += u32::from(state == QueryState::Failed);
        if state == QueryState::Refused || *failures > MAX_FAILURES {
            self.missing.remove(host);
        }
    }

    /// All hosts are asked again, or these.
    pub(super) fn again(&mut self, hosts: Option<&BTreeSet<HostName>>) {
        let Some(hosts) = hosts else {
            let followed = std::mem::take(&mut self.followed);
            self.missing.extend(followed.into_iter().map(|host| (host, 0)));
            self.away.clear();
            self.told.clear();
            self.end = None;
            return;
        };
        for host in hosts {
            if self.followed.remove(host) {
                self.missing.insert(host.clone(), 0);
            }
            self.away.remove(host);
            self.told.remove(host);
        }
    }

    /// These were to be asked again, and were not.
    pub(super) fn not_asked(&mut self, hosts: &BTreeSet<HostName>) {
        self.away.extend(hosts.iter().filter(|host| self.missing.contains_key(*host)).cloned());
    }

    /// A host is not asked any more; what is told of it.
    pub(super) fn give_up(&mut self, host: &HostName, why: String) -> News {
        self.missing.remove(host);
        self.followed.remove(host);
        self.told.remove(host);
        self.trouble.insert(host.clone(), (QueryState::Refused, why.clone()));
        News::LeftOut(host.clone(), why)
    }

    /// The hosts that are followed, or were and are waited for.
    pub(super) fn known(&self) -> impl Iterator<Item = &HostName> {
        self.followed.iter().chain(self.missing.keys())
    }

    /// The end of all answers together.
    pub(super) fn sum(&mut self, cut: Option<(QueryCut, Option<String>)>) -> QueryEnd {
        let whole = self.end.take();
        let known = self.told.iter().chain(self.trouble.keys()).chain(self.missing.keys());
        let known = count(known.collect::<BTreeSet<_>>().len());
        let (cut, detail) = cut.unzip();
        let end = QueryEnd {
            hosts: whole.as_ref().map_or(known, |end| end.hosts.max(known)),
            left_out: whole.map_or(0, |end| end.left_out),
            answered: count(self.told.len()),
            cut,
            detail: detail.flatten(),
        };
        self.end = Some(end.clone());
        end
    }

    /// The hosts that were followed and are not any more, by this answer: what an earlier one told says nothing of now.
    pub(super) fn missing(&self) -> impl Iterator<Item = &HostName> {
        self.missing.keys().filter(|host| self.away.contains(*host))
    }

    /// How many hosts told all there was.
    pub(super) fn answered(&self) -> usize {
        self.end.as_ref().map_or(0, |end| end.answered as usize)
    }

    pub(super) fn is_whole(&self) -> bool {
        let is_end = |end: &QueryEnd| end.answered >= end.hosts && end.cut != Some(QueryCut::Unread);
        self.trouble.is_empty() && self.end.as_ref().is_some_and(is_end)
    }

    /// Names the hosts that did not answer, and why.
    pub(super) fn tell(&self, out: &Out) {
        for (host, (state, detail)) in self.trouble.iter().take(MAX_NAMED) {
            out.warn(Tone::Bad.paint(&trouble(host, *state, detail), out.colour_notes));
        }
        if self.trouble.len() > MAX_NAMED {
            out.warn(format_args!("and {} more", self.trouble.len() - MAX_NAMED));
        }
    }

    /// How many did, if not all, and how many were not asked.
    pub(super) fn sum_up(&self, out: &Out) {
        let Some(&QueryEnd { hosts, left_out, answered, .. }) = self.end.as_ref() else { return };
        if answered < hosts {
            out.note(format_args!("{answered} of {} answered.", words::count(hosts as usize, "host")));
        }
        if left_out > 0 {
            out.note(format_args!("{} not enrolled, left out.", words::count(left_out as usize, "host")));
        }
    }
}

/// A host that did not answer, in words.
pub(super) fn trouble(host: &HostName, state: QueryState, detail: &str) -> String {
    let state = match state {
        QueryState::Complete | QueryState::Ended => "answered",
        QueryState::Offline => "offline",
        QueryState::Refused => "refused",
        QueryState::Failed => "failed",
    };
    if detail.is_empty() {
        format!("{host} {state}")
    } else {
        format!("{host} {state}: {}", neutral::quote(detail))
    }
}

fn count(hosts: usize) -> u32 {
    u32::try_from(hosts).unwrap_or(u32::MAX)
}

fn read<T: DeserializeOwned>(event: &ServerEvent) -> Result<T, Failure> {
    serde_json::from_str(&event.data).map_err(|error| {
        let what = format!("cannot read the controller's `{}` event", neutral::text(&event.name));
        Failure::Other(anyhow::Error::new(error).context(what))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(answer: &mut Answer, host: &str, state: QueryState) -> Option<News> {
        answer.host(QueryHost { host: host.parse().unwrap(), state, detail: None })
    }

    #[test]
    fn who_was_followed_is_waited_for_and_who_never_was_is_not() {
        use QueryState::{Complete, Failed, Offline, Refused};
        let mut answer = Answer::default();
        let missing = |answer: &Answer| answer.missing().map(ToString::to_string).collect::<Vec<_>>();
        assert!(told(&mut answer, "web-1", Complete).is_some());
        assert!(told(&mut answer, "web-2", Complete).is_some());
        assert!(told(&mut answer, "web-3", Offline).is_some());
        assert!(missing(&answer).is_empty(), "it was never there");
        told(&mut answer, "web-1", Failed);
        assert_eq!(missing(&answer), ["web-1"]);
        answer.again(None);
        assert!(missing(&answer).is_empty(), "what an earlier answer told says nothing of now");
        assert!(told(&mut answer, "web-3", Offline).is_none(), "that was said");
        told(&mut answer, "web-1", Complete);
        told(&mut answer, "web-2", Refused);
        assert!(missing(&answer).is_empty(), "who refuses is not asked again");
        for _ in 0..MAX_FAILURES {
            told(&mut answer, "web-1", Failed);
            assert_eq!(missing(&answer), ["web-1"]);
        }
        told(&mut answer, "web-1", Failed);
        assert!(missing(&answer).is_empty(), "it fails each time");
    }
}
