//! The options that say how an operation spreads over its hosts.

use std::time::Duration;

use clap::{Args, ValueEnum};
use fleetward_api::work::operation::{self, Offline};

use crate::render::time::parse_span;

/// How an operation spreads over its hosts.
#[derive(Debug, Clone, Args)]
pub(crate) struct Rollout {
    /// Hosts at the same time, 1 to 10000; 50 when absent
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=10_000), help_heading = "Rollout")]
    concurrency: Option<u32>,
    /// Hosts per batch, as a count from 1 or a share from 1% to 100%; all at once when absent
    #[arg(long, value_name = "HOSTS", value_parser = parse_hosts, help_heading = "Rollout")]
    batch: Option<String>,
    /// Hosts that go first and must all succeed, as a count from 1 or a share from 1% to 100%
    #[arg(long, value_name = "HOSTS", value_parser = parse_hosts, help_heading = "Rollout")]
    canary: Option<String>,
    /// Hosts that may fail, as a count or a share; when one more has failed, nothing more is started, and hosts that
    /// are under way go on. 0 stops at the first failure; all may fail when absent
    #[arg(long, value_name = "HOSTS", value_parser = parse_share, help_heading = "Rollout")]
    max_failures: Option<String>,
    /// How long each run may take, such as 5m; what the script or the kind says when absent
    #[arg(long, value_name = "SPAN", value_parser = parse_span, help_heading = "Rollout")]
    timeout: Option<Duration>,
    /// How long from now runs may still be started, such as 2h; a day when absent
    #[arg(long, value_name = "SPAN", value_parser = parse_span, help_heading = "Rollout")]
    deadline: Option<Duration>,
    /// What to do with hosts that are offline: wait until the deadline (when absent), or skip them
    #[arg(long, value_name = "POLICY", help_heading = "Rollout")]
    offline: Option<OfflineChoice>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum OfflineChoice {
    Wait,
    Skip,
}

impl From<Rollout> for operation::Rollout {
    fn from(rollout: Rollout) -> Self {
        let seconds = |span: Duration| u32::try_from(span.as_secs()).unwrap_or(u32::MAX);
        Self {
            concurrency: rollout.concurrency,
            batch: rollout.batch,
            canary: rollout.canary,
            max_failures: rollout.max_failures,
            timeout_s: rollout.timeout.map(seconds),
            deadline_s: rollout.deadline.map(seconds),
            offline: rollout.offline.map(|offline| match offline {
                OfflineChoice::Wait => Offline::Wait,
                OfflineChoice::Skip => Offline::Skip,
            }),
            continue_on_failure: None,
        }
    }
}

/// A count of hosts or a share of them, as the API takes it.
fn parse_share(text: &str) -> Result<String, String> {
    share(text, 0)
}

/// As [`parse_share`], and at least one host.
fn parse_hosts(text: &str) -> Result<String, String> {
    share(text, 1)
}

fn share(text: &str, least: u32) -> Result<String, String> {
    let (digits, most) = match text.strip_suffix('%') {
        Some(digits) => (digits, 100),
        None => (text, u32::MAX),
    };
    let count = digits.parse::<u32>().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()));
    match count {
        Some(count) if count >= least && count <= most => Ok(text.to_owned()),
        _ => Err(format!(
            "`{}` is neither a count of {least} or more, such as 10, nor a share from {least}% to 100%, such as 25%",
            text.escape_debug()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_have_the_ranges_of_the_api() {
        for text in ["0", "0%", "3", "100%", "4294967295"] {
            assert_eq!(parse_share(text), Ok(text.to_owned()));
        }
        for text in ["1", "1%", "100%"] {
            assert_eq!(parse_hosts(text), Ok(text.to_owned()));
        }
        for text in ["0", "0%", "150%", "", "%", "-1", "+1", "1.5", "4294967296"] {
            let refusal = parse_hosts(text).unwrap_err();
            assert!(
                refusal.contains("a count of 1 or more") && refusal.contains("from 1% to 100%"),
                "{refusal}"
            );
        }
        assert!(parse_share("150%").unwrap_err().contains("from 0% to 100%"));
    }
}
