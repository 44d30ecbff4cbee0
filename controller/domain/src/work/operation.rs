//! An operation: one request, its status, and the policy of its rollout.
//!
//! The status is never set: it is computed from the runs (P17), so it cannot disagree with them.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::work::run::RunStatus;

/// Where an operation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationStatus {
    /// No run was handed to its host yet.
    Queued,
    /// Some runs have not ended.
    Running,
    /// Every run succeeded.
    Success,
    /// No run succeeded.
    Failed,
    /// Some succeeded and some did not.
    Partial,
    /// It was stopped on request before every run had ended by itself.
    Stopped,
}

impl OperationStatus {
    /// Every status.
    pub const ALL: [Self; 6] =
        [Self::Queued, Self::Running, Self::Success, Self::Failed, Self::Partial, Self::Stopped];

    /// The stable name, in the store and in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Success => "success",
            Self::Failed => "failed",
            Self::Partial => "partial",
            Self::Stopped => "stopped",
        }
    }

    /// Whether it never changes any more.
    #[must_use]
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Queued | Self::Running)
    }
}

impl fmt::Display for OperationStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Text that is not an operation's status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a status of an operation; they are queued, running, success, failed, partial and stopped"
)]
pub struct InvalidOperationStatus(String);

impl FromStr for OperationStatus {
    type Err = InvalidOperationStatus;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = |status: &Self| status.as_str() == text;
        Self::ALL
            .into_iter()
            .find(named)
            .ok_or_else(|| InvalidOperationStatus(text.chars().take(40).collect()))
    }
}

/// Whether somebody asked for an operation to be stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Intent {
    /// Let it go on.
    Proceed,
    /// It should stop.
    Stop,
}

/// How many runs an operation has in each status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RunCounts([u64; RunStatus::ALL.len()]);

impl RunCounts {
    /// How many runs are in the status.
    #[must_use]
    pub fn get(&self, status: RunStatus) -> u64 {
        self.0.get(status as usize).copied().unwrap_or(0)
    }

    /// Counts `runs` more runs in the status, such as a `GROUP BY` gives them.
    pub fn add(&mut self, status: RunStatus, runs: u64) {
        if let Some(count) = self.0.get_mut(status as usize) {
            *count += runs;
        }
    }

    /// A run went from one status to another.
    pub fn handle_moved(&mut self, from: RunStatus, to: RunStatus) {
        if let Some(count) = self.0.get_mut(from as usize) {
            *count = count.saturating_sub(1);
        }
        self.add(to, 1);
    }

    /// All runs.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Runs that have ended.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.sum(RunStatus::is_final)
    }

    /// The operation's status (P17): all succeeded is `success`, none is `failed`, some is `partial`;
    /// `stopped` if it was stopped and a run was cut off by that. An operation has at least one run; none at
    /// all counts as `failed`, for nothing was done.
    #[must_use]
    pub fn aggregate(&self, intent: Intent) -> OperationStatus {
        let (total, ended, succeeded) = (self.total(), self.ended(), self.get(RunStatus::Succeeded));
        if ended < total {
            let untouched = self.get(RunStatus::Queued) == total;
            return if untouched { OperationStatus::Queued } else { OperationStatus::Running };
        }
        match intent {
            Intent::Stop if self.get(RunStatus::Cancelled) > 0 => OperationStatus::Stopped,
            _ if total > 0 && succeeded == total => OperationStatus::Success,
            _ if succeeded == 0 => OperationStatus::Failed,
            _ => OperationStatus::Partial,
        }
    }

    fn sum(&self, wanted: fn(RunStatus) -> bool) -> u64 {
        RunStatus::ALL.into_iter().filter(|&status| wanted(status)).map(|status| self.get(status)).sum()
    }
}

impl FromIterator<RunStatus> for RunCounts {
    fn from_iter<I: IntoIterator<Item = RunStatus>>(runs: I) -> Self {
        runs.into_iter().fold(Self::default(), |mut counts, status| {
            counts.add(status, 1);
            counts
        })
    }
}

/// A number of hosts, or a share of them: `10` or `25%`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Share {
    /// This many.
    Count(u32),
    /// This many of a hundred, 0 to 100.
    Percent(u8),
}

impl Share {
    /// How many of `total` hosts, rounded up, and `total` at most.
    #[must_use]
    pub fn of_at_least(self, total: u32) -> u32 {
        match self {
            Self::Count(count) => count.min(total),
            Self::Percent(percent) => percent_of(percent, total, u64::div_ceil),
        }
    }

    /// Whether it means no host, however many there are.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        matches!(self, Self::Count(0) | Self::Percent(0))
    }

    /// How many of `total` hosts, rounded down, and `total` at most.
    #[must_use]
    pub fn of_at_most(self, total: u32) -> u32 {
        match self {
            Self::Count(count) => count.min(total),
            Self::Percent(percent) => percent_of(percent, total, |a, b| a / b),
        }
    }
}

fn percent_of(percent: u8, total: u32, divide: fn(u64, u64) -> u64) -> u32 {
    let share = divide(u64::from(total) * u64::from(percent), 100);
    u32::try_from(share).unwrap_or(total).min(total)
}

/// Text that is neither a number of hosts nor a percentage.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is neither a number of hosts, such as 10, nor a share of them from 0% to 100%, such as 25%")]
pub struct InvalidShare(String);

impl FromStr for Share {
    type Err = InvalidShare;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidShare(text.chars().take(40).collect());
        let digits =
            |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then_some(()).ok_or_else(invalid);
        let text = text.trim();
        match text.strip_suffix('%') {
            Some(percent) => {
                digits(percent)?;
                let percent = percent.parse().ok().filter(|&percent| percent <= 100);
                percent.map(Self::Percent).ok_or_else(invalid)
            }
            None => {
                digits(text)?;
                text.parse().map(Self::Count).map_err(|_| invalid())
            }
        }
    }
}

impl TryFrom<String> for Share {
    type Error = InvalidShare;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Share> for String {
    fn from(share: Share) -> Self {
        share.to_string()
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// What to do with a host that is offline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Offline {
    /// Its runs wait for it until the deadline.
    #[default]
    Wait,
    /// Its runs are cancelled.
    Skip,
}

/// What a run that does not succeed means for the later steps on its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// They are cancelled.
    #[default]
    StopHost,
    /// They run all the same.
    Continue,
}

/// How an operation proceeds over its hosts. A field that is absent in JSON has its default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RolloutPolicy {
    /// How many hosts at once.
    pub concurrency: NonZeroU32,
    /// Hosts per batch: the next batch begins when every host of the one before has ended. One batch if absent.
    pub batch: Option<Share>,
    /// This many hosts first, alone; the others begin when so many have succeeded, and never if one fails.
    pub canary: u32,
    /// How many hosts may fail: when one more has failed, the runs that were not started are cancelled; 0 stops at
    /// the first failure. Hosts that are under way then go on, and may fail too. All may fail if absent.
    pub max_failures: Option<Share>,
    /// What was not started this long after the request expires. In milliseconds.
    pub deadline_ms: u64,
    /// What to do with hosts that are offline.
    pub offline: Offline,
    /// What a failure means for the later steps on the same host.
    pub on_failure: OnFailure,
    /// How long one run may take, in milliseconds; the action's own default if absent.
    pub timeout_ms: Option<u64>,
    /// Whether each host tells only what it would change.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

/// The longest time from an operation's request to its deadline.
pub const MAX_DEADLINE: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// The longest a run may take.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// The most hosts that may be busy at once for one operation.
pub const MAX_CONCURRENCY: u32 = 10_000;

impl Default for RolloutPolicy {
    /// Ten hosts at once, one batch, no canary, no threshold, an hour for offline hosts to come back.
    fn default() -> Self {
        Self {
            concurrency: const { NonZeroU32::MIN.saturating_add(9) },
            batch: None,
            canary: 0,
            max_failures: None,
            deadline_ms: 60 * 60 * 1000,
            offline: Offline::Wait,
            on_failure: OnFailure::StopHost,
            timeout_ms: None,
            dry_run: false,
        }
    }
}

/// A policy that makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPolicy {
    /// More at once than the controller allows.
    #[error("a concurrency of {0} is not between 1 and {MAX_CONCURRENCY}")]
    Concurrency(u32),
    /// A batch without hosts.
    #[error("a batch of {0} has no hosts; give 1 or more, or 1% to 100%")]
    EmptyBatch(Share),
    /// Canaries that are no hosts.
    #[error("a canary of {0} has no hosts; give 1 or more, or 1% to 100%, or leave it out")]
    EmptyCanary(Share),
    /// No deadline, or one too far away.
    #[error("the deadline must be between 1 ms and {} days after the request", MAX_DEADLINE.as_secs() / 86_400)]
    Deadline,
    /// No time limit, or one too long.
    #[error("the timeout must be between 1 ms and {} days", MAX_TIMEOUT.as_secs() / 86_400)]
    Timeout,
}

impl RolloutPolicy {
    /// Checks the limits.
    ///
    /// # Errors
    /// The first rule that is broken, in words for the person who wrote it.
    pub fn validate(&self) -> Result<(), InvalidPolicy> {
        let within = |millis: u64, limit: Duration| millis > 0 && u128::from(millis) <= limit.as_millis();
        if self.concurrency.get() > MAX_CONCURRENCY {
            return Err(InvalidPolicy::Concurrency(self.concurrency.get()));
        }
        if let Some(batch) = self.batch.filter(|batch| batch.is_empty()) {
            return Err(InvalidPolicy::EmptyBatch(batch));
        }
        if !within(self.deadline_ms, MAX_DEADLINE) {
            return Err(InvalidPolicy::Deadline);
        }
        if self.timeout_ms.is_some_and(|timeout| !within(timeout, MAX_TIMEOUT)) {
            return Err(InvalidPolicy::Timeout);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn status() -> impl Strategy<Value = RunStatus> {
        prop::sample::select(&RunStatus::ALL[..])
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1024))]

        #[test]
        fn p17_status_is_the_aggregate_of_runs(
            runs in prop::collection::vec(status(), 1..12),
            stopped in any::<bool>(),
        ) {
            let counts: RunCounts = runs.iter().copied().collect();
            let intent = if stopped { Intent::Stop } else { Intent::Proceed };
            let any = |wanted: RunStatus| runs.contains(&wanted);
            let all = |wanted: RunStatus| runs.iter().all(|&run| run == wanted);
            let expected = if runs.iter().any(|run| !run.is_final()) {
                if all(RunStatus::Queued) { OperationStatus::Queued } else { OperationStatus::Running }
            } else if all(RunStatus::Succeeded) {
                OperationStatus::Success
            } else if stopped && any(RunStatus::Cancelled) {
                OperationStatus::Stopped
            } else if any(RunStatus::Succeeded) {
                OperationStatus::Partial
            } else {
                OperationStatus::Failed
            };
            prop_assert_eq!(counts.aggregate(intent), expected);
            prop_assert_eq!(counts.aggregate(intent).is_final(), counts.ended() == counts.total());
        }

        #[test]
        fn p17_counting_changes_equals_counting_afresh(
            mut runs in prop::collection::vec(status(), 1..8),
            changes in prop::collection::vec((any::<prop::sample::Index>(), status()), 0..20),
        ) {
            let mut counts: RunCounts = runs.iter().copied().collect();
            for (index, to) in changes {
                let run = index.get_mut(&mut runs[..]);
                counts.handle_moved(std::mem::replace(run, to), to);
            }
            prop_assert_eq!(counts, runs.into_iter().collect());
        }

        #[test]
        fn a_share_reads_back_and_stays_within_the_whole(
            share in prop_oneof![any::<u32>().prop_map(Share::Count), (0u8..=100).prop_map(Share::Percent)],
            total in any::<u32>(),
        ) {
            prop_assert_eq!(share.to_string().parse(), Ok(share));
            prop_assert!(share.of_at_most(total) <= share.of_at_least(total));
            prop_assert!(share.of_at_least(total) <= total);
            prop_assert!(share.of_at_least(total) - share.of_at_most(total) <= 1);
        }

        #[test]
        fn a_share_never_panics(text in any::<String>()) {
            let _ = text.parse::<Share>();
        }
    }

    #[test]
    fn shares_in_text() {
        assert_eq!("25%".parse(), Ok(Share::Percent(25)));
        assert_eq!(" 10 ".parse(), Ok(Share::Count(10)));
        for text in ["", "%", "-1", "+1", "101%", "1.5", "25 %", "ten", "4294967296"] {
            assert!(text.parse::<Share>().is_err(), "{text:?}");
        }
        assert_eq!(
            "150%".parse::<Share>().unwrap_err().to_string(),
            "`150%` is neither a number of hosts, such as 10, nor a share of them from 0% to 100%, such as 25%"
        );
        assert_eq!(Share::Percent(25).of_at_least(9), 3);
        assert_eq!(Share::Percent(25).of_at_most(9), 2);
    }

    #[test]
    fn a_policy_is_checked_and_reads_back() {
        let policy = RolloutPolicy::default();
        assert_eq!(policy.validate(), Ok(()));
        let text = serde_json::to_string(&policy).unwrap();
        assert_eq!(serde_json::from_str::<RolloutPolicy>(&text).unwrap(), policy);
        assert_eq!(serde_json::from_str::<RolloutPolicy>("{}").unwrap(), policy);
        let with = |change: fn(&mut RolloutPolicy)| {
            let mut policy = RolloutPolicy::default();
            change(&mut policy);
            policy.validate().unwrap_err().to_string()
        };
        assert_eq!(
            with(|policy| policy.batch = Some(Share::Percent(0))),
            "a batch of 0% has no hosts; give 1 or more, or 1% to 100%"
        );
        assert_eq!(
            with(|policy| policy.deadline_ms = 0),
            "the deadline must be between 1 ms and 30 days after the request"
        );
        assert_eq!(
            with(|policy| policy.timeout_ms = Some(u64::MAX)),
            "the timeout must be between 1 ms and 7 days"
        );
    }
}
