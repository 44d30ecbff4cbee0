//! What stands in a run's row of its state, and of what it left running.
//!
//! These are the store's own words: what the wire or the domain calls something may change, what is stored may not. Reading is
//! tolerant: a field that is not known here is passed over, and a value that is not (a newer build's) is read as *unknown*, so that
//! one row never keeps a list, an operation or a start from going on; so is one that is no JSON, or of another type. Nothing is written back over it: an
//! unknown state is final.

use fleetward_domain::work::run::{Cause, Custody, Failure, RunState, RunStatus};
use fleetward_protocol::id::JournalId;
use fleetward_protocol::run::{Fate, Left, LostCause, Refusal};
use fleetward_protocol::text::{Line, Text};
use serde::Serialize;
use serde_json::Value;

/// The JSON of a state: its status, and what belongs to that.
#[derive(Debug, Serialize)]
struct Stored {
    status: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    journal: Option<JournalId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cancel: Option<String>,
    /// Of a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exit: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signal: Option<i32>,
    /// Of the other ends: why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cause: Option<String>,
    /// Of some refusals: what it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    about: Option<String>,
}

/// A state as it is stored.
pub(crate) fn write(state: &RunState) -> String {
    let mut stored = Stored {
        status: state.status().as_str().to_owned(),
        journal: None,
        cancel: None,
        exit: None,
        signal: None,
        cause: None,
        about: None,
    };
    match state {
        RunState::Queued | RunState::Succeeded | RunState::TimedOut | RunState::Expired => {}
        RunState::Dispatched(custody) | RunState::Accepted(custody) | RunState::Running(custody) => {
            stored.journal = Some(custody.journal);
            stored.cancel = custody.cancel.map(|cause| cause_word(cause).to_owned());
        }
        RunState::Failed(Failure::Exit(code)) => stored.exit = Some(*code),
        RunState::Failed(Failure::Signal(signal)) => stored.signal = Some(*signal),
        RunState::Cancelled(cause) => stored.cause = Some(cause_word(*cause).to_owned()),
        RunState::Refused(refusal) => {
            let (word, about) = refusal_words(refusal);
            stored.cause = Some(word.to_owned());
            stored.about = about.map(|about| about.as_str().to_owned());
        }
        RunState::Lost(cause) => stored.cause = Some(lost_word(*cause).to_owned()),
    }
    // Strings and numbers only: nothing that JSON could not hold.
    serde_json::to_string(&stored).unwrap_or_default()
}

/// Reads a state, whatever is there.
pub(crate) fn read(text: &str) -> RunState {
    const UNKNOWN: RunState = RunState::Lost(LostCause::Unknown);
    let stored: Value = serde_json::from_str(text).unwrap_or_default();
    let word = |name: &str| stored[name].as_str().unwrap_or_default();
    let number = |name: &str| stored[name].as_i64().and_then(|number| i32::try_from(number).ok());
    let Ok(status) = word("status").parse() else { return UNKNOWN };
    let journal = serde_json::from_value::<JournalId>(stored["journal"].clone()).ok();
    // What is to be stopped is, whatever for.
    let cancel = (!stored["cancel"].is_null()).then(|| cause_of(word("cancel")));
    let held = journal.map(|journal| Custody { journal, cancel });
    let (exit, signal, cause) = (number("exit"), number("signal"), word("cause"));
    let state = match status {
        RunStatus::Queued => Some(RunState::Queued),
        RunStatus::Dispatched => held.map(RunState::Dispatched),
        RunStatus::Accepted => held.map(RunState::Accepted),
        RunStatus::Running => held.map(RunState::Running),
        RunStatus::Succeeded => Some(RunState::Succeeded),
        RunStatus::Failed => exit.map(Failure::Exit).or(signal.map(Failure::Signal)).map(RunState::Failed),
        RunStatus::TimedOut => Some(RunState::TimedOut),
        RunStatus::Cancelled => Some(RunState::Cancelled(cause_of(cause))),
        RunStatus::Refused => Some(RunState::Refused(refusal_of(cause, word("about")))),
        RunStatus::Expired => Some(RunState::Expired),
        RunStatus::Lost => Some(RunState::Lost(lost_of(cause))),
    };
    state.unwrap_or(UNKNOWN)
}

/// The status in a column of its own; that of an unknown state if it is none of this build.
pub(crate) fn read_status(word: &str) -> RunStatus {
    word.parse().unwrap_or(RunStatus::Lost)
}

/// What a run left running, as it is stored.
pub(crate) fn write_left(left: &Left) -> String {
    let fate = match left.fate {
        Fate::LetGo => "let_go",
        Fate::Unkept => "unkept",
        Fate::CutOff => "cut_off",
        Fate::Stopped => "stopped",
        Fate::Unstoppable => "unstoppable",
    };
    serde_json::json!({ "processes": left.processes, "held_ms": left.held_ms, "fate": fate }).to_string()
}

/// Reads what a run left running; nothing if it is not understood.
pub(crate) fn read_left(text: &str) -> Option<Left> {
    let stored: Value = serde_json::from_str(text).ok()?;
    let fate = match stored["fate"].as_str()? {
        "let_go" => Fate::LetGo,
        "unkept" => Fate::Unkept,
        "cut_off" => Fate::CutOff,
        "stopped" => Fate::Stopped,
        "unstoppable" => Fate::Unstoppable,
        _ => return None,
    };
    let processes = stored["processes"].as_u64().and_then(|count| u32::try_from(count).ok()).unwrap_or(0);
    Some(Left { processes, held_ms: stored["held_ms"].as_u64().unwrap_or(0), fate })
}

const fn cause_word(cause: Cause) -> &'static str {
    match cause {
        Cause::Requested => "requested",
        Cause::Halted => "halted",
        Cause::HostRevoked => "host_revoked",
        Cause::PreviousStepFailed => "previous_step_failed",
        Cause::HostOffline => "host_offline",
        Cause::Unknown => "unknown",
    }
}

fn cause_of(word: &str) -> Cause {
    match word {
        "requested" => Cause::Requested,
        "halted" => Cause::Halted,
        "host_revoked" => Cause::HostRevoked,
        "previous_step_failed" => Cause::PreviousStepFailed,
        "host_offline" => Cause::HostOffline,
        _ => Cause::Unknown,
    }
}

const fn lost_word(cause: LostCause) -> &'static str {
    match cause {
        LostCause::Reboot => "reboot",
        LostCause::SupervisorGone => "supervisor_gone",
        LostCause::JournalGone => "journal_gone",
        LostCause::SpoolUnreadable => "spool_unreadable",
        LostCause::HostGone => "host_gone",
        LostCause::Unknown => "unknown",
    }
}

fn lost_of(word: &str) -> LostCause {
    match word {
        "reboot" => LostCause::Reboot,
        "supervisor_gone" => LostCause::SupervisorGone,
        "journal_gone" => LostCause::JournalGone,
        "spool_unreadable" => LostCause::SpoolUnreadable,
        "host_gone" => LostCause::HostGone,
        _ => LostCause::Unknown,
    }
}

const fn refusal_words(refusal: &Refusal) -> (&'static str, Option<&Line>) {
    match refusal {
        Refusal::ClientIdMissing => ("client_id_missing", None),
        Refusal::ClientIdMismatch { found } => ("client_id_mismatch", Some(found)),
        Refusal::Unsupported { kind } => ("unsupported", Some(kind)),
        Refusal::Malformed { detail } => ("malformed", Some(detail)),
        Refusal::DigestMismatch => ("digest_mismatch", None),
        Refusal::NotAllowed { rule } => ("not_allowed", Some(rule)),
        Refusal::NoSuchUser { user } => ("no_such_user", Some(user)),
        Refusal::NoSuchDirectory { path } => ("no_such_directory", Some(path)),
        Refusal::NotBash => ("not_bash", None),
        Refusal::DeadlinePassed => ("deadline_passed", None),
        Refusal::DiskFull => ("disk_full", None),
        Refusal::SpawnFailed { detail } => ("spawn_failed", Some(detail)),
        Refusal::CancelledBeforeStart => ("cancelled_before_start", None),
        Refusal::NotYet => ("not_yet", None),
        Refusal::NotARun => ("not_a_run", None),
        Refusal::NotOrdered { detail } => ("not_ordered", Some(detail)),
        Refusal::Busy { detail } => ("busy", Some(detail)),
    }
}

fn refusal_of(word: &str, about: &str) -> Refusal {
    let about = Text::of(about);
    match word {
        "client_id_missing" => Refusal::ClientIdMissing,
        "client_id_mismatch" => Refusal::ClientIdMismatch { found: about },
        "unsupported" => Refusal::Unsupported { kind: about },
        "malformed" => Refusal::Malformed { detail: about },
        "digest_mismatch" => Refusal::DigestMismatch,
        "not_allowed" => Refusal::NotAllowed { rule: about },
        "no_such_user" => Refusal::NoSuchUser { user: about },
        "no_such_directory" => Refusal::NoSuchDirectory { path: about },
        "not_bash" => Refusal::NotBash,
        "deadline_passed" => Refusal::DeadlinePassed,
        "disk_full" => Refusal::DiskFull,
        "spawn_failed" => Refusal::SpawnFailed { detail: about },
        "cancelled_before_start" => Refusal::CancelledBeforeStart,
        "not_yet" => Refusal::NotYet,
        "not_a_run" => Refusal::NotARun,
        "not_ordered" => Refusal::NotOrdered { detail: about },
        "busy" => Refusal::Busy { detail: about },
        newer => {
            let said = format!("for a reason that this version does not know ({newer}) {}", about.as_str());
            Refusal::NotOrdered { detail: Text::of(said.trim_end()) }
        }
    }
}

#[cfg(test)]
mod tests {
    use fleetward_domain::work::run::{Cause, Custody, Failure, RunState};
    use uuid::Uuid;

    use super::*;

    fn custody(cancel: Option<Cause>) -> Custody {
        Custody { journal: JournalId::from_uuid(Uuid::from_u128(7)), cancel }
    }

    /// Every state and every value in it.
    fn states() -> Vec<RunState> {
        use Refusal as R;
        let about = || Text::of("x");
        let causes = [
            Cause::Requested,
            Cause::Halted,
            Cause::HostRevoked,
            Cause::PreviousStepFailed,
            Cause::HostOffline,
            Cause::Unknown,
        ];
        let lost = [
            LostCause::Reboot,
            LostCause::SupervisorGone,
            LostCause::JournalGone,
            LostCause::SpoolUnreadable,
            LostCause::HostGone,
            LostCause::Unknown,
        ];
        let refusals = [
            R::ClientIdMissing,
            R::ClientIdMismatch { found: about() },
            R::Unsupported { kind: about() },
            R::Malformed { detail: about() },
            R::DigestMismatch,
            R::NotAllowed { rule: about() },
            R::NoSuchUser { user: about() },
            R::NoSuchDirectory { path: about() },
            R::NotBash,
            R::DeadlinePassed,
            R::DiskFull,
            R::SpawnFailed { detail: about() },
            R::CancelledBeforeStart,
            R::NotYet,
            R::NotARun,
            R::NotOrdered { detail: about() },
            R::Busy { detail: about() },
        ];
        let plain = [
            RunState::Queued,
            RunState::Dispatched(custody(None)),
            RunState::Accepted(custody(Some(Cause::Requested))),
            RunState::Running(custody(Some(Cause::Halted))),
            RunState::Succeeded,
            RunState::Failed(Failure::Exit(3)),
            RunState::Failed(Failure::Signal(9)),
            RunState::TimedOut,
            RunState::Expired,
        ];
        plain
            .into_iter()
            .chain(causes.into_iter().map(RunState::Cancelled))
            .chain(refusals.into_iter().map(RunState::Refused))
            .chain(lost.into_iter().map(RunState::Lost))
            .collect()
    }

    /// What is stored is read for good: a line here is never changed, whatever the domain or the wire calls it.
    #[test]
    fn stored_states_keep_their_text() {
        let stored: Vec<_> = states().iter().map(write).collect();
        expect_test::expect![[r#"
            {"status":"queued"}
            {"status":"dispatched","journal":"00000000-0000-0000-0000-000000000007"}
            {"status":"accepted","journal":"00000000-0000-0000-0000-000000000007","cancel":"requested"}
            {"status":"running","journal":"00000000-0000-0000-0000-000000000007","cancel":"halted"}
            {"status":"succeeded"}
            {"status":"failed","exit":3}
            {"status":"failed","signal":9}
            {"status":"timed_out"}
            {"status":"expired"}
            {"status":"cancelled","cause":"requested"}
            {"status":"cancelled","cause":"halted"}
            {"status":"cancelled","cause":"host_revoked"}
            {"status":"cancelled","cause":"previous_step_failed"}
            {"status":"cancelled","cause":"host_offline"}
            {"status":"cancelled","cause":"unknown"}
            {"status":"refused","cause":"client_id_missing"}
            {"status":"refused","cause":"client_id_mismatch","about":"x"}
            {"status":"refused","cause":"unsupported","about":"x"}
            {"status":"refused","cause":"malformed","about":"x"}
            {"status":"refused","cause":"digest_mismatch"}
            {"status":"refused","cause":"not_allowed","about":"x"}
            {"status":"refused","cause":"no_such_user","about":"x"}
            {"status":"refused","cause":"no_such_directory","about":"x"}
            {"status":"refused","cause":"not_bash"}
            {"status":"refused","cause":"deadline_passed"}
            {"status":"refused","cause":"disk_full"}
            {"status":"refused","cause":"spawn_failed","about":"x"}
            {"status":"refused","cause":"cancelled_before_start"}
            {"status":"refused","cause":"not_yet"}
            {"status":"refused","cause":"not_a_run"}
            {"status":"refused","cause":"not_ordered","about":"x"}
            {"status":"refused","cause":"busy","about":"x"}
            {"status":"lost","cause":"reboot"}
            {"status":"lost","cause":"supervisor_gone"}
            {"status":"lost","cause":"journal_gone"}
            {"status":"lost","cause":"spool_unreadable"}
            {"status":"lost","cause":"host_gone"}
            {"status":"lost","cause":"unknown"}"#]]
        .assert_eq(&stored.join("\n"));
        for state in states() {
            assert_eq!(read(&write(&state)), state, "{state}");
        }
    }

    #[test]
    fn what_a_newer_build_stored_is_read_as_unknown() {
        let unknown = RunState::Lost(LostCause::Unknown);
        for (text, state) in [
            (r#"{"status":"paused","since":7}"#, unknown.clone()),
            (r#"{"status":"failed","oom":true}"#, unknown.clone()),
            (r#"{"status":"running","seat":3}"#, unknown.clone()),
            (r#"{"status":"lost","cause":"stolen"}"#, unknown.clone()),
            // Of another type, or not even JSON.
            (r#"{"status":"running","journal":7}"#, unknown.clone()),
            (r#"{"status":"failed","exit":"three"}"#, unknown.clone()),
            (r#"{"status":"failed","exit":3000000000}"#, unknown.clone()),
            (r#"{"status":{"is":"running"}}"#, unknown.clone()),
            ("[]", unknown.clone()),
            ("queued", unknown),
            (r#"{"status":"cancelled","cause":["requested"]}"#, RunState::Cancelled(Cause::Unknown)),
            (
                r#"{"status":"running","journal":"00000000-0000-0000-0000-000000000007","cancel":7}"#,
                RunState::Running(custody(Some(Cause::Unknown))),
            ),
            (r#"{"status":"succeeded","warnings":[1]}"#, RunState::Succeeded),
            (r#"{"status":"cancelled","cause":"budget"}"#, RunState::Cancelled(Cause::Unknown)),
        ] {
            assert_eq!(read(text), state, "{text}");
        }
        let refused = read(r#"{"status":"refused","cause":"no_licence","about":"ten hosts"}"#);
        assert!(refused.to_string().contains("(no_licence) ten hosts"), "{refused}");
        assert_eq!(read_status("paused"), RunStatus::Lost);
    }

    #[test]
    fn stored_remains_keep_their_text() {
        let fates = [Fate::LetGo, Fate::Unkept, Fate::CutOff, Fate::Stopped, Fate::Unstoppable];
        let left: Vec<_> = fates.into_iter().map(|fate| Left { processes: 2, held_ms: 3, fate }).collect();
        let stored: Vec<_> = left.iter().map(write_left).collect();
        expect_test::expect![[r#"
            {"fate":"let_go","held_ms":3,"processes":2}
            {"fate":"unkept","held_ms":3,"processes":2}
            {"fate":"cut_off","held_ms":3,"processes":2}
            {"fate":"stopped","held_ms":3,"processes":2}
            {"fate":"unstoppable","held_ms":3,"processes":2}"#]]
        .assert_eq(&stored.join("\n"));
        for (left, stored) in left.iter().zip(&stored) {
            assert_eq!(read_left(stored), Some(*left));
        }
        assert_eq!(read_left(r#"{"fate":"adopted","held_ms":3,"processes":2}"#), None);
    }
}
