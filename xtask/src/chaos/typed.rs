//! Whether the runs of typed actions are accounted for: a pure function of what the controller says, what their unit
//! recorded on its host, and what was done to both.
//!
//! Their output is for people and is not looked at; what they promise is in their report.

use fleetward_api::work::run::RunState;
use serde_json::{Map, Value};

use super::action::{Action, Unit};
use super::verdict::{Around, Refusal};

/// A run of a typed action, by everything that is known of it.
#[derive(Debug, Clone)]
pub struct Facts {
    /// What was asked for.
    pub action: Action,
    /// By the controller.
    pub state: RunState,
    /// Why it was refused, if it was.
    pub refusal: Option<Refusal>,
    /// Whether it was started, by the controller.
    pub started: bool,
    /// Whether its host restarted while it was under way: it may have gone on in the next boot.
    pub cut_off: bool,
    /// Bytes of output that are missing, by the controller.
    pub dropped: u64,
    /// What it told when it ended.
    pub report: Option<Map<String, Value>>,
}

/// What the runs on the same unit have left to systemd that were near.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Neighbours {
    /// Nothing: each was waited for.
    Settled,
    /// One was ended from outside. What it asked systemd for goes on, or comes still.
    Unsettled,
}

impl Facts {
    /// Whether what it asked systemd for may go on after its end, because it was ended from outside.
    pub fn leaves_work(&self) -> bool {
        self.may_have_started() && matches!(self.state, RunState::Lost | RunState::Cancelled)
    }

    /// Whether it is known that it started the unit that records its starts.
    fn started_the_worker(&self) -> bool {
        self.is_of_the_worker()
            && self.state == RunState::Succeeded
            && self.told("/changed") == true
            && self.told("/after/active") == "active"
    }

    /// Whether it may have started that unit, and nobody knows.
    fn perhaps_started_the_worker(&self) -> bool {
        let left_alone = self.state == RunState::Succeeded && self.told("/changed") == false;
        self.is_of_the_worker() && self.may_have_started() && !self.started_the_worker() && !left_alone
    }

    fn is_of_the_worker(&self) -> bool {
        self.action.unit() == Unit::Worker
    }

    /// What is lost may have been started though the controller did not hear of it.
    fn may_have_started(&self) -> bool {
        self.started || self.state == RunState::Lost
    }

    /// A field of its report; null without one.
    fn told(&self, pointer: &str) -> Value {
        let report = self.report.clone().map_or(Value::Null, Value::Object);
        report.pointer(pointer).cloned().unwrap_or_default()
    }
}

/// Judges a run by itself.
///
/// # Errors
/// With what is wrong.
pub fn judge(facts: &Facts, around: &Around, neighbours: Neighbours) -> Result<(), String> {
    if facts.dropped > 0 && !around.disk_filled {
        return Err(format!("{} bytes of output were dropped, but its host had room", facts.dropped));
    }
    match facts.state {
        RunState::Succeeded => as_asked(facts, around, neighbours),
        // systemd takes no more work when it shuts down, and what was done before a restart of the host may be gone after it;
        // a step that cannot be written down is not begun; and whoever comes after a run that was ended from outside may find
        // its work replaced by what that one asked for.
        RunState::Failed if around.rebooted || around.disk_filled || neighbours == Neighbours::Unsettled => {
            Ok(())
        }
        RunState::Failed => Err("failed, and nothing that was done explains it".into()),
        RunState::Lost => around.explain_loss(),
        RunState::Cancelled if around.stop_asked => Ok(()),
        RunState::Cancelled => Err("cancelled, but nobody asked for that".into()),
        RunState::Refused if facts.started => Err("refused, but it was started".into()),
        RunState::Refused => around.explain_refusal(facts.refusal),
        state => Err(format!("not accounted for: {state:?}")),
    }
}

/// Judges how often the unit that records its starts was started on one host, by all runs there. Each started it once at
/// most; nobody else starts it.
///
/// # Errors
/// With what is wrong.
pub fn judge_starts(recorded: usize, runs: &[Facts]) -> Result<(), String> {
    let sure = runs.iter().filter(|facts| facts.started_the_worker()).count();
    let perhaps = runs.iter().filter(|facts| facts.perhaps_started_the_worker()).count();
    if (sure..=sure + perhaps).contains(&recorded) {
        return Ok(());
    }
    let unit = Unit::Worker.name();
    Err(format!(
        "{unit} recorded {recorded} starts; {sure} runs say that they started it, and {perhaps} may have"
    ))
}

/// Whether the report of a run that succeeded says what was asked for.
fn as_asked(facts: &Facts, around: &Around, neighbours: Neighbours) -> Result<(), String> {
    let Some(report) = &facts.report else { return Err("succeeded without a report".into()) };
    let wrong =
        |what: &str| Err(format!("succeeded, but its report says {what}: {}", Value::Object(report.clone())));
    let Some(changed) = facts.told("/changed").as_bool() else {
        return wrong("not whether it changed anything");
    };
    let is_as_asked = |when: &str| {
        facts
            .told(&facts.action.reported(when))
            .as_str()
            .is_some_and(|state| facts.action.is_content_with(state))
    };
    match facts.action {
        // A run that was cut off and has gone on may find that the boot or itself has done it before.
        Action::Restart if !changed && !facts.cut_off => return wrong("that it restarted nothing"),
        Action::Restart => {}
        _ if changed && is_as_asked("before") && !facts.cut_off => {
            return wrong("that it changed what was as asked");
        }
        _ if !changed && !is_as_asked("before") => return wrong("that it left alone what was not as asked"),
        _ => {}
    }
    // A unit was active when its start ended, and may have been stopped again before it was looked at.
    let stopped_again =
        facts.action.kind() == "unit" && (around.shut_down || neighbours == Neighbours::Unsettled);
    if !is_as_asked("after") && !stopped_again {
        return wrong("that the unit is not as asked");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn facts(action: Action, state: RunState) -> Facts {
        Facts { action, state, refusal: None, started: true, cut_off: false, dropped: 0, report: None }
    }

    fn succeeded(action: Action, before: &str, changed: bool, after: &str) -> Facts {
        let report = json!({
            "changed": changed,
            "before": {"load": "loaded", "active": before},
            "after": {"load": "loaded", "active": after},
        });
        let report = report.as_object().cloned();
        Facts { report, ..facts(action, RunState::Succeeded) }
    }

    fn judged(facts: &Facts, around: Around) -> Result<(), String> {
        judge(facts, &around, Neighbours::Settled)
    }

    #[test]
    fn what_succeeded_reports_that_the_unit_is_as_asked() {
        let nothing = Around::default();
        for right in [
            succeeded(Action::Restart, "active", true, "active"),
            succeeded(Action::Restart, "inactive", true, "active"),
            succeeded(Action::Start, "inactive", true, "active"),
            succeeded(Action::Start, "active", false, "active"),
        ] {
            assert_eq!(judged(&right, nothing), Ok(()));
        }
        for wrong in [
            facts(Action::Restart, RunState::Succeeded),
            succeeded(Action::Restart, "active", false, "active"),
            succeeded(Action::Start, "active", true, "active"),
            succeeded(Action::Start, "inactive", false, "active"),
            succeeded(Action::Start, "inactive", true, "inactive"),
            succeeded(Action::Restart, "active", true, "failed"),
            Facts { report: Some(Map::new()), ..facts(Action::Start, RunState::Succeeded) },
        ] {
            assert!(judged(&wrong, nothing).is_err(), "{wrong:?}");
            let excused = Around { disk_filled: true, supervisor_killed: true, agent_ended: true, ..nothing };
            assert!(judged(&wrong, excused).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn what_succeeded_reports_that_the_links_are_as_asked() {
        let linked = |action, before: &str, changed: bool, after: &str| Facts {
            report: json!({"changed": changed, "before": before, "after": after}).as_object().cloned(),
            ..facts(action, RunState::Succeeded)
        };
        for (action, other, asked) in [
            (Action::Enable, "disabled", "enabled"),
            (Action::Disable, "enabled", "disabled"),
            (Action::Mask, "static", "masked"),
            (Action::Unmask, "masked", "static"),
        ] {
            assert_eq!(judged(&linked(action, other, true, asked), Around::default()), Ok(()));
            assert_eq!(judged(&linked(action, asked, false, asked), Around::default()), Ok(()));
            for wrong in [
                linked(action, other, true, other),
                linked(action, other, false, asked),
                linked(action, asked, true, asked),
                linked(action, other, true, ""),
            ] {
                let shut_down = Around { rebooted: true, shut_down: true, ..Around::default() };
                assert!(judged(&wrong, Around::default()).is_err(), "{wrong:?}");
                assert!(judge(&wrong, &shut_down, Neighbours::Unsettled).is_err(), "{wrong:?}");
            }
            assert_eq!(judge_starts(0, &[linked(action, other, true, asked)]), Ok(()));
        }
    }

    #[test]
    fn a_unit_that_was_stopped_again_is_excused_by_a_shutdown_or_by_an_earlier_runs_work_alone() {
        let stopped = succeeded(Action::Restart, "active", true, "deactivating");
        let shut_down = Around { rebooted: true, shut_down: true, ..Around::default() };
        assert_eq!(judged(&stopped, shut_down), Ok(()));
        assert_eq!(judge(&stopped, &Around::default(), Neighbours::Unsettled), Ok(()));
        assert!(
            judged(&stopped, Around { rebooted: true, ..Around::default() }).is_err(),
            "nobody saw the end"
        );
        let cut_off = Facts { cut_off: true, ..succeeded(Action::Restart, "active", false, "active") };
        assert_eq!(judged(&cut_off, Around { rebooted: true, ..Around::default() }), Ok(()));
        let cut_off = Facts { cut_off: true, ..succeeded(Action::Start, "inactive", true, "active") };
        judge_starts(1, std::slice::from_ref(&cut_off)).unwrap();
        judge_starts(2, &[cut_off]).unwrap_err();
        let nothing_done = succeeded(Action::Restart, "active", false, "active");
        assert!(judge(&nothing_done, &shut_down, Neighbours::Unsettled).is_err());
    }

    #[test]
    fn an_end_is_excused_by_what_explains_it_and_by_nothing_else() {
        use RunState::{Cancelled, Expired, Failed, Lost, Refused, Running, TimedOut};
        let none = Around::default();
        let rebooted = Around { rebooted: true, ..none };
        let shut_down = Around { rebooted: true, shut_down: true, ..none };
        let killed = Around { supervisor_killed: true, ..none };
        let ended = Around { agent_ended: true, ..none };
        let full = Around { disk_filled: true, ..none };
        let asked = Around { stop_asked: true, ..none };
        let all = [none, rebooted, shut_down, killed, ended, full, asked];
        for (state, excuses) in [
            (Failed, vec![rebooted, shut_down, full]),
            (Lost, vec![rebooted, shut_down, killed]),
            (Cancelled, vec![asked]),
            (TimedOut, vec![]),
            (Expired, vec![]),
            (Running, vec![]),
            (Refused, vec![]),
        ] {
            for around in all {
                let verdict = judged(&facts(Action::Restart, state), around);
                assert_eq!(verdict.is_ok(), excuses.contains(&around), "{state:?} {around:?}");
            }
        }
        let beside = |state| judge(&facts(Action::Start, state), &none, Neighbours::Unsettled);
        assert_eq!(beside(Failed), Ok(()));
        for state in [Lost, Cancelled, TimedOut, Refused, Expired] {
            assert!(beside(state).is_err(), "{state:?}");
        }
    }

    #[test]
    fn a_refusal_is_excused_by_the_fault_that_it_names_and_only_without_a_start() {
        let refused = |refusal, started| Facts {
            refusal: Some(refusal),
            started,
            ..facts(Action::Start, RunState::Refused)
        };
        let full = Around { disk_filled: true, ..Around::default() };
        let ended = Around { agent_ended: true, ..Around::default() };
        assert_eq!(judged(&refused(Refusal::DiskFull, false), full), Ok(()));
        assert_eq!(judged(&refused(Refusal::AgentStopped, false), ended), Ok(()));
        judged(&refused(Refusal::DiskFull, true), full).unwrap_err();
        judged(&refused(Refusal::DiskFull, false), ended).unwrap_err();
        judged(&refused(Refusal::Other, false), full).unwrap_err();
    }

    #[test]
    fn output_is_dropped_for_a_full_disk_alone() {
        let dropped = Facts { dropped: 1, ..succeeded(Action::Start, "inactive", true, "active") };
        assert_eq!(judged(&dropped, Around { disk_filled: true, ..Around::default() }), Ok(()));
        judged(&dropped, Around { output_capped: true, ..Around::default() }).unwrap_err();
    }

    #[test]
    fn each_run_starts_the_unit_once_at_most() {
        let started = || succeeded(Action::Restart, "active", true, "active");
        let left_alone = || succeeded(Action::Start, "active", false, "active");
        assert_eq!(judge_starts(0, &[]), Ok(()));
        judge_starts(1, &[]).unwrap_err();
        let sure = [started(), left_alone(), started()];
        assert_eq!(judge_starts(2, &sure), Ok(()));
        judge_starts(1, &sure).unwrap_err();
        judge_starts(3, &sure).unwrap_err();
        for state in [RunState::Lost, RunState::Failed, RunState::TimedOut, RunState::Cancelled] {
            let runs = [started(), facts(Action::Start, state)];
            assert_eq!(judge_starts(1, &runs), Ok(()), "{state:?}");
            assert_eq!(judge_starts(2, &runs), Ok(()), "{state:?}");
            judge_starts(0, &runs).unwrap_err();
            judge_starts(3, &runs).unwrap_err();
        }
        let unstarted = |state| Facts { started: false, ..facts(Action::Restart, state) };
        for state in [RunState::Cancelled, RunState::Refused, RunState::Expired] {
            judge_starts(1, &[unstarted(state)]).unwrap_err();
        }
        assert_eq!(
            judge_starts(1, &[unstarted(RunState::Lost)]),
            Ok(()),
            "the controller may not have heard"
        );
    }

    #[test]
    fn a_unit_that_is_not_active_after_its_run_need_not_have_been_started() {
        let runs = [succeeded(Action::Restart, "active", true, "inactive")];
        assert_eq!(judge_starts(0, &runs), Ok(()));
        assert_eq!(judge_starts(1, &runs), Ok(()));
        judge_starts(2, &runs).unwrap_err();
    }

    #[test]
    fn only_what_was_ended_from_outside_leaves_work_behind() {
        let leaves = |state, started| Facts { started, ..facts(Action::Restart, state) }.leaves_work();
        assert!(leaves(RunState::Lost, true) && leaves(RunState::Cancelled, true));
        assert!(leaves(RunState::Lost, false) && !leaves(RunState::Cancelled, false));
        assert!(!leaves(RunState::Failed, true) && !leaves(RunState::Succeeded, true));
    }
}
