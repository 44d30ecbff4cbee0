//! The API's states in words that a person understands.

use std::net::{IpAddr, SocketAddr};

use fleetward_api::fleet::host::{Enrolment, Host, Lifecycle, Status};
use fleetward_api::work::operation::{Offline, OperationStatus, Rollout};
use fleetward_api::work::run::{Run, RunState};

use super::table::Tone;
use super::time::span;
use super::{neutral, size};

/// What the controller says of a queued run whose host is away.
pub(crate) const WAITING: &str = "waiting for host";

/// `count` of something whose plural ends in `s`.
pub(crate) fn count(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// Where a request came from. An IPv4 address that an IPv6 socket took is shown as what it is.
pub(crate) fn peer(text: &str) -> String {
    let mapped = |address: IpAddr| match address.to_canonical() {
        plain if plain == address => text.to_owned(),
        plain => plain.to_string(),
    };
    match (text.parse(), text.parse::<SocketAddr>()) {
        (Ok(address), _) => mapped(address),
        (_, Ok(socket)) => SocketAddr::new(socket.ip().to_canonical(), socket.port()).to_string(),
        _ => text.to_owned(),
    }
}

/// A run's state, as a word.
pub(crate) const fn run_state(state: RunState) -> &'static str {
    match state {
        RunState::Queued => "queued",
        RunState::Dispatched => "sent",
        RunState::Accepted => "accepted",
        RunState::Running => "running",
        RunState::Succeeded => "succeeded",
        RunState::Failed => "failed",
        RunState::TimedOut => "timed out",
        RunState::Cancelled => "cancelled",
        RunState::Refused => "refused",
        RunState::Expired => "expired",
        RunState::Lost => "lost",
    }
}

/// The tone of a run's state.
pub(crate) const fn run_tone(state: RunState) -> Tone {
    match state {
        RunState::Succeeded => Tone::Good,
        RunState::Queued | RunState::Dispatched | RunState::Accepted => Tone::Warn,
        RunState::Running => Tone::Plain,
        RunState::Cancelled => Tone::Dim,
        RunState::Failed | RunState::TimedOut | RunState::Refused | RunState::Expired | RunState::Lost => {
            Tone::Bad
        }
    }
}

/// Whether a run has ended.
pub(crate) const fn run_ended(state: RunState) -> bool {
    !matches!(state, RunState::Queued | RunState::Dispatched | RunState::Accepted | RunState::Running)
}

/// Where a run stands: its state, and why where that is not plain. `waiting for host`, `failed: exit code 3`,
/// `lost: host was rebooted`.
pub(crate) fn run(run: &Run) -> String {
    let state = run_state(run.state);
    match run.state_detail.as_deref() {
        None | Some("") => match (run.state, run.exit_code, run.signal) {
            (RunState::Failed, Some(code), _) => format!("{state}: exit code {code}"),
            (RunState::Failed, None, Some(signal)) => format!("{state}: ended by signal {signal}"),
            _ => state.to_owned(),
        },
        // What a queued run waits for says it all.
        Some(detail) if run.state == RunState::Queued => detail.to_owned(),
        Some(detail)
            if detail == state
                || detail.starts_with(&format!("{state} "))
                || detail.starts_with(&format!("{state}; ")) =>
        {
            detail.to_owned()
        }
        Some(detail) => format!("{state}: {detail}"),
    }
}

/// The most hosts that are named with one reason.
const MAX_NAMED: usize = 5;
/// The longest that is said of a run's state in a table.
const MAX_STATE: usize = 40;

/// The same as [`run`] where it has room in a table, and the state alone where it has not.
pub(crate) fn run_in_short(run: &Run) -> String {
    let whole = self::run(run);
    if whole.chars().count() <= MAX_STATE { whole } else { run_state(run.state).to_owned() }
}

/// Below a table of runs: what had no room in it, once for all hosts of which it is said.
pub(crate) fn run_reasons<'a>(runs: impl IntoIterator<Item = &'a Run>) -> String {
    let mut reasons: Vec<(String, Vec<&str>)> = Vec::new();
    for run in runs {
        let whole = self::run(run);
        if whole == run_in_short(run) {
            continue;
        }
        match reasons.iter_mut().find(|(known, _)| *known == whole) {
            Some((_, hosts)) if hosts.last() == Some(&run.host.as_str()) => {}
            Some((_, hosts)) => hosts.push(run.host.as_str()),
            None => reasons.push((whole, vec![run.host.as_str()])),
        }
    }
    let line = |(reason, hosts): &(String, Vec<&str>)| {
        let named = hosts.iter().take(MAX_NAMED).copied().collect::<Vec<_>>().join(", ");
        let more = match hosts.len().saturating_sub(MAX_NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!("{named}{more}: {}\n", neutral::text(reason))
    };
    reasons.iter().map(line).collect()
}

/// What else is worth knowing of a run: that its host was away, that output is missing.
pub(crate) fn run_remarks(run: &Run) -> String {
    let mut remarks = Vec::new();
    match run.reattached {
        0 => {}
        1 => remarks.push("re-attached".to_owned()),
        times => remarks.push(format!("re-attached {times} times")),
    }
    if run.output_dropped > 0 {
        remarks.push(format!("{} of output dropped", size::bytes(run.output_dropped)));
    }
    remarks.join(", ")
}

/// The line that stands where output was dropped.
pub(crate) fn dropped(bytes: u64) -> String {
    format!("[… {} dropped by the output limit or a full disk …]", size::bytes(bytes))
}

/// An operation's status, as a word.
pub(crate) const fn operation_status(status: OperationStatus) -> &'static str {
    match status {
        OperationStatus::Queued => "queued",
        OperationStatus::Running => "running",
        OperationStatus::Success => "success",
        OperationStatus::Failed => "failed",
        OperationStatus::Partial => "partial",
        OperationStatus::Stopped => "stopped",
    }
}

/// The tone of an operation's status.
pub(crate) const fn operation_tone(status: OperationStatus) -> Tone {
    match status {
        OperationStatus::Success => Tone::Good,
        OperationStatus::Failed | OperationStatus::Partial => Tone::Bad,
        OperationStatus::Queued | OperationStatus::Stopped => Tone::Warn,
        OperationStatus::Running => Tone::Plain,
    }
}

/// Whether an operation has ended.
pub(crate) const fn operation_ended(status: OperationStatus) -> bool {
    !matches!(status, OperationStatus::Queued | OperationStatus::Running)
}

/// Whether a host can be run on, in a word.
pub(crate) fn host_status(host: &Host) -> (&'static str, Tone) {
    if host.duplicate_identity.is_some() && host.lifecycle == Lifecycle::Active {
        return match host.status {
            Status::Online => ("online, duplicate", Tone::Bad),
            Status::Offline => ("offline, duplicate", Tone::Bad),
        };
    }
    match (host.lifecycle, host.enrolment, host.status) {
        (Lifecycle::Retired, _, _) => ("retired", Tone::Dim),
        (_, Enrolment::Enrolled, Status::Online) => ("online", Tone::Good),
        (_, Enrolment::Enrolled, Status::Offline) => ("offline", Tone::Bad),
        (_, Enrolment::Pending, _) => ("not enrolled", Tone::Warn),
        (_, Enrolment::Quarantined, _) => ("quarantined", Tone::Warn),
        (_, Enrolment::Revoked, _) => ("revoked", Tone::Bad),
    }
}

/// A host's enrolment, as a word.
pub(crate) const fn enrolment(enrolment: Enrolment) -> &'static str {
    match enrolment {
        Enrolment::Pending => "not enrolled",
        Enrolment::Enrolled => "enrolled",
        Enrolment::Quarantined => "quarantined until approved",
        Enrolment::Revoked => "revoked",
    }
}

/// Arguments as one would type them.
pub(crate) fn typed(arguments: &[String]) -> String {
    let quote = |word: &String| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_=./:,+@%".contains(&byte);
        if !word.is_empty() && word.bytes().all(plain) {
            word.clone()
        } else {
            format!("'{}'", neutral::text(word).replace('\'', "'\\''"))
        }
    };
    arguments.iter().map(quote).collect::<Vec<_>>().join(" ")
}

/// A rollout in words.
pub(crate) fn rollout(rollout: &Rollout) -> String {
    let seconds = |seconds: u32| span(u64::from(seconds) * 1000);
    let parts = [
        rollout.concurrency.map(|count| match count {
            1 => "one host at a time".to_owned(),
            count => format!("{count} hosts at once"),
        }),
        rollout.canary.as_ref().map(|share| format!("canary {share}")),
        rollout.batch.as_ref().map(|share| format!("batches of {share}")),
        rollout.max_failures.as_ref().map(|share| match share.as_str() {
            "0" | "0%" => "starts nothing more after the first failure".to_owned(),
            share => format!("starts nothing more when more than {share} fail"),
        }),
        rollout.timeout_s.map(|limit| format!("{} per run", seconds(limit))),
        rollout.offline.map(|offline| match offline {
            Offline::Wait => "waits for offline hosts".to_owned(),
            Offline::Skip => "skips offline hosts".to_owned(),
        }),
        (rollout.continue_on_failure == Some(true)).then(|| "goes on after failures".to_owned()),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reason_is_told_once_below_the_table() {
        let run = |host: &str, state: &str, detail: &str| -> Run {
            serde_json::from_value(serde_json::json!({
                "id": "01890000-0000-7000-8000-000000000001", "operation": "01890000-0000-7000-8000-00000000000a",
                "host": host, "step": 0, "kind": "k", "subject": "s", "digest": "0".repeat(64), "state": state,
                "state_detail": detail, "output_bytes": 0, "output_dropped": 0, "reattached": 0, "seq": 1,
            }))
            .unwrap()
        };
        let long = "the owner of the host does not allow the kind `unit`; see agent.toml there \u{1b}[2J";
        let mut runs = vec![run("web-1", "refused", long), run("web-2", "lost", "host was rebooted")];
        runs.extend(
            ["web-2", "web-3", "web-4", "web-5", "web-6", "web-7"].map(|host| run(host, "refused", long)),
        );
        let short: Vec<String> = runs.iter().take(2).map(run_in_short).collect();
        assert_eq!(short, ["refused", "lost: host was rebooted"]);
        let told = run_reasons(&runs);
        assert_eq!(told.lines().count(), 1, "{told}");
        assert!(
            told.starts_with("web-1, web-2, web-3, web-4, web-5 and 2 more: refused: the owner"),
            "{told}"
        );
        assert!(told.contains("␛[2J"), "{told}");
    }

    #[test]
    fn an_address_of_the_old_protocol_is_shown_as_one() {
        for (text, shown) in [
            ("::ffff:192.0.2.4", "192.0.2.4"),
            ("[::ffff:192.0.2.4]:99", "192.0.2.4:99"),
            ("2001:db8::1", "2001:db8::1"),
            ("192.0.2.4", "192.0.2.4"),
            ("others", "others"),
            ("", ""),
        ] {
            assert_eq!(peer(text), shown);
        }
    }
}
