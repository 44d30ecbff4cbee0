//! What is said of hosts that are away while their runs are waited for: once each, when no other host is at work.

use std::time::{Duration, Instant};

use fleetward_api::fleet::host::{Host, Status};
use fleetward_api::work::run::RunState;
use fleetward_protocol::name::HostName;

use super::Screen;
use crate::render::table::Tone;

/// How long no run must have changed before hosts that are away are spoken of.
pub(super) const SETTLED: Duration = Duration::from_secs(2);
/// The most hosts that are waited for by name.
const MAX_AWAY: usize = 20;

impl Screen<'_> {
    /// The hosts that are waited for, as long as not all of them have been spoken of.
    pub(super) fn unspoken(&self, now: Instant) -> Vec<HostName> {
        if self.out.quiet || now.saturating_duration_since(self.changed) < SETTLED {
            return Vec::new();
        }
        let open = self.tally.open(MAX_AWAY);
        let mut names: Vec<HostName> = open.into_iter().map(|run| run.host.clone()).collect();
        names.dedup();
        if names.iter().all(|name| self.away.contains(name)) { Vec::new() } else { names }
    }

    /// Says once of each host that is away what becomes of its run, as soon as no other host is at work.
    pub(super) fn take_hosts(&mut self, hosts: &[Host]) {
        let since = |name: &HostName| {
            let host = hosts.iter().find(|host| host.name == *name && host.status == Status::Offline)?;
            Some(
                host.last_seen
                    .map_or_else(String::new, |seen| format!(", last seen {}", self.out.clock.ago(seen))),
            )
        };
        let open = self.tally.open(MAX_AWAY);
        // As long as one is at work, there is something to see.
        let Some(all) = open.iter().map(|run| since(&run.host)).collect::<Option<Vec<_>>>() else {
            return;
        };
        let deadline = self.operation.as_ref().map(|operation| self.out.clock.at(operation.deadline));
        let mut lines = Vec::new();
        for (run, since) in open.iter().zip(all) {
            if !self.away.insert(run.host.clone()) {
                continue;
            }
            let fate = match (run.state, &deadline) {
                (RunState::Queued, Some(deadline)) => {
                    format!("its run starts when it is back, or expires at {deadline}")
                }
                (RunState::Queued, None) => "its run starts when it is back".to_owned(),
                _ => "it may have its run, and only the host can tell when it is back".to_owned(),
            };
            lines.push((run.id, format!("waiting: offline{since}; {fate}")));
        }
        for (id, text) in lines {
            if let Some(run) = self.tally.get(id).cloned() {
                self.announce(&run, Tone::Warn, "…", &text);
            }
        }
    }
}
