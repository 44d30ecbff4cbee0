//! Another machine with this host's identity: how its agent knows. Pure: the time comes from the caller.
//!
//! An agent that hears that a newer connection took over, and has only one itself, is one of two. Once may be an
//! accident of a restart; several times within minutes are not.

use std::time::Duration;

use fleetward_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};

/// Longer apart, they are not counted together.
const WITHIN: Duration = Duration::from_secs(15 * 60);
/// So many are no accident.
const REPEATED: u32 = 2;

/// How often another connection with this identity took over lately.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Takeovers {
    /// How often.
    pub count: u32,
    /// When it last did, in milliseconds since the epoch.
    pub last_ms: Option<i64>,
}

impl Takeovers {
    /// With one more.
    #[must_use]
    pub fn with_one(self, now: Timestamp) -> Self {
        let count = if self.is_recent(now) { self.count.saturating_add(1) } else { 1 };
        Self { count, last_ms: Some(now.as_millis()) }
    }

    /// What the host's owner is to be told, if it happens again and again.
    #[must_use]
    pub fn warning(self, now: Timestamp) -> Option<String> {
        let last = self.last_ms.filter(|_| self.count >= REPEATED && self.is_recent(now))?;
        let minutes = now.since(Timestamp::from_millis(last)).as_secs() / 60;
        let when =
            if minutes == 0 { "less than a minute ago".to_owned() } else { format!("{minutes} min ago") };
        Some(format!(
            "another machine uses this host's identity: it took over {} times, last {when}",
            self.count
        ))
    }

    fn is_recent(self, now: Timestamp) -> bool {
        self.last_ms.is_some_and(|last| now.since(Timestamp::from_millis(last)) < WITHIN)
    }
}

/// What to do about it.
pub const REMEDY: &str = "on the machine that is to go, stop the agent (`systemctl disable --now fleetward-agent`), or \
     make it a host of its own: remove /etc/fleetward/client_id there, run the command that `fleetward host add NAME` \
     prints with --force, and `systemctl restart fleetward-agent`. If you do not know that machine: run the command \
     that `fleetward host token NAME` prints here with --force, and restart the agent; the other one's certificate is \
     revoked by it";

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    #[test]
    fn only_what_happens_again_within_minutes_is_told() {
        let minute = |minutes: u64| START + Duration::from_secs(minutes * 60);
        let once = Takeovers::default().with_one(minute(0));
        assert_eq!(once.warning(minute(0)), None, "an accident of a restart");
        let twice = once.with_one(minute(2));
        assert_eq!(
            twice.warning(minute(5)).unwrap(),
            "another machine uses this host's identity: it took over 2 times, last 3 min ago"
        );
        assert_eq!(twice.warning(minute(17)), None, "it is over");
        assert_eq!(twice.with_one(minute(40)).warning(minute(40)), None, "another accident");
        assert_eq!(Takeovers::default().warning(minute(0)), None);
    }
}
