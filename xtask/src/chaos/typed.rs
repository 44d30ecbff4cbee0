//! Whether the runs of typed actions are accounted for: a pure function of what the controller says, what their unit
//! recorded on its host, and what was done to both.
//!
//! Their output is for people and is not looked at; what they promise is in their report. What they left on their host is
//! judged by itself ([`remains`](super::remains)).

use fleetward_api::work::run::RunState;
use serde_json::{Map, Value};

use super::action::{Action, DROP_IN_FILE, DROP_INS, HELD, Object, Unit};
use super::verdict::{Around, Refusal};

/// How long what a run that was ended from outside was at, or asked systemd or apt for, may go on or come still, in
/// milliseconds.
pub const SETTLES: i64 = 10_000;

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

/// What the runs on the same object have left behind that were near.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Neighbours {
    /// Nothing: each was waited for.
    Settled,
    /// One was ended from outside. What it was at, or asked systemd or apt for, goes on, or comes still.
    Unsettled,
}

/// What a run has done to its object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing: it was not started.
    Nothing,
    /// What was asked for, or nothing: nobody knows.
    Perhaps,
    /// What was asked for.
    Certain,
}

impl Facts {
    /// Whether what it asked systemd for may go on after its end, because it was ended from outside.
    pub fn leaves_work(&self) -> bool {
        self.may_have_started() && matches!(self.state, RunState::Lost | RunState::Cancelled)
    }

    /// Whether it says that nginx has read what it has put in place.
    pub fn is_reloaded(&self) -> bool {
        self.state == RunState::Succeeded && self.told("/reloaded") == true
    }

    /// What it has done to its object.
    pub fn effect(&self) -> Effect {
        match self.state {
            RunState::Succeeded => Effect::Certain,
            _ if self.may_have_started() => Effect::Perhaps,
            _ => Effect::Nothing,
        }
    }

    /// The boots that it tells of, before and after, if it is of kind `reboot`.
    pub fn boots(&self) -> Option<(String, String)> {
        let told = |pointer| self.told(pointer).as_str().map(str::to_owned);
        told("/boot_before").zip(told("/boot_after"))
    }

    /// Whether it may have rebooted its host, and nobody knows.
    pub fn perhaps_booted(&self) -> bool {
        self.action.object() == Object::Host && self.effect() != Effect::Nothing && self.boots().is_none()
    }

    /// A unit that was started by a boot and is not enabled any more is missed in the next one, and that is the truth.
    fn is_back_without_what_was_disabled(&self) -> bool {
        let missing = self.told("/missing");
        let is_another = self.boots().is_some_and(|(before, after)| before != after);
        is_another
            && missing.as_array().is_some_and(|units| units.len() == 1 && units[0] == Unit::Boot.name())
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
        self.action.object() == Object::Unit(Unit::Worker)
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
        RunState::Failed if facts.is_back_without_what_was_disabled() => Ok(()),
        // Whoever installs a package at the same time leaves it in the middle for a moment, which is seen, and told as wrong.
        RunState::Failed if is_beside_an_install(facts, around) => Ok(()),
        RunState::Failed => Err("failed, and nothing that was done explains it".into()),
        RunState::Lost => around.explain_loss(),
        RunState::Cancelled if around.stop_asked => Ok(()),
        RunState::Cancelled => Err("cancelled, but nobody asked for that".into()),
        RunState::Refused if facts.started => Err("refused, but it was started".into()),
        RunState::Refused
            if facts.action == Action::Reboot
                && facts.refusal == Some(Refusal::Busy)
                && around.others_at_work =>
        {
            Ok(())
        }
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

/// Whether somebody else was at work with packages.
fn is_beside_an_install(facts: &Facts, around: &Around) -> bool {
    facts.action.object() == Object::Package && around.package_installed
}

/// Whether the report of a run that succeeded says what was asked for.
fn as_asked(facts: &Facts, around: &Around, neighbours: Neighbours) -> Result<(), String> {
    let Some(report) = &facts.report else { return Err("succeeded without a report".into()) };
    let Some(changed) = facts.told("/changed").as_bool() else {
        return Err(format!(
            "succeeded, but its report does not say whether it changed anything: {report:?}"
        ));
    };
    let judged = match facts.action.object() {
        Object::Unit(_) => unit_as_asked(facts, changed, around, neighbours),
        Object::File => file_as_asked(facts, changed),
        Object::DropIn => drop_in_as_asked(facts, changed),
        Object::Package => package_as_asked(facts, changed, around, neighbours),
        Object::Site => site_as_asked(facts, changed, around),
        Object::Host => reboot_as_asked(facts, changed),
    };
    judged.map_err(|what| format!("succeeded, but its report says {what}: {}", Value::Object(report.clone())))
}

/// Whether what was changed was not as asked before, and what was left alone was. A run that was cut off and has gone on may
/// find that the boot or itself has done it before.
fn changed_as_needed(facts: &Facts, changed: bool, was_as_asked: bool) -> Result<(), &'static str> {
    match (changed, was_as_asked) {
        (true, true) if !facts.cut_off => Err("that it changed what was as asked"),
        (false, false) => Err("that it left alone what was not as asked"),
        _ => Ok(()),
    }
}

fn unit_as_asked(
    facts: &Facts,
    changed: bool,
    around: &Around,
    neighbours: Neighbours,
) -> Result<(), &'static str> {
    let is_as_asked = |when: &str| {
        let pointer = match facts.action.kind() {
            "unit" => format!("/{when}/active"),
            _ => format!("/{when}"),
        };
        facts.told(&pointer).as_str().is_some_and(|state| match facts.action {
            Action::Restart | Action::Start => state == "active",
            Action::Enable => state == "enabled",
            Action::Disable => state == "disabled",
            Action::Mask => state == "masked",
            Action::Unmask => !state.is_empty() && !state.starts_with("masked"),
            _ => false,
        })
    };
    match facts.action {
        Action::Restart if !changed && !facts.cut_off => return Err("that it restarted nothing"),
        Action::Restart => {}
        _ => changed_as_needed(facts, changed, is_as_asked("before"))?,
    }
    // A unit was active when its start ended, and may have been stopped again before it was looked at.
    let stopped_again =
        facts.action.kind() == "unit" && (around.shut_down || neighbours == Neighbours::Unsettled);
    if !is_as_asked("after") && !stopped_again {
        return Err("that the unit is not as asked");
    }
    Ok(())
}

fn file_as_asked(facts: &Facts, changed: bool) -> Result<(), &'static str> {
    let size = facts.action.content().map(|content| content.len());
    let is_as_asked = |when: &str| match size {
        Some(size) => {
            facts.told(&format!("/{when}/type")) == "file" && facts.told(&format!("/{when}/size")) == size
        }
        None => facts.told(&format!("/{when}")).is_null(),
    };
    changed_as_needed(facts, changed, is_as_asked("before"))?;
    if !is_as_asked("after") {
        return Err("that the file is not as asked");
    }
    let was_there = !facts.told("/before").is_null();
    if changed && was_there && !facts.cut_off && !facts.told("/backup").is_string() {
        return Err("not where the file as it was is kept");
    }
    Ok(())
}

/// Its report says less: neither how the file was nor how it is. The host does, in the end.
fn drop_in_as_asked(facts: &Facts, changed: bool) -> Result<(), &'static str> {
    if facts.told("/path") != format!("{DROP_INS}/{DROP_IN_FILE}") {
        return Err("another file");
    }
    if !facts.told("/unit").is_null() {
        return Err("that something was done with the unit");
    }
    let is_kept = facts.told("/kept").is_string();
    match (changed, facts.action) {
        (false, _) if is_kept => Err("that it kept what it left alone"),
        (true, Action::RemoveDropIn) if !is_kept && !facts.cut_off => {
            Err("not where the removed file is kept")
        }
        _ => Ok(()),
    }
}

fn package_as_asked(
    facts: &Facts,
    changed: bool,
    around: &Around,
    neighbours: Neighbours,
) -> Result<(), &'static str> {
    let changes = facts.told("/changes");
    let own = |change: &&Value| change.get("name").is_some_and(|name| name == HELD);
    let own = changes.as_array().and_then(|changes| changes.iter().find(own));
    let held = own.and_then(|change| change.get("held")).and_then(Value::as_bool);
    // What else changed packages may have done it, or be all that was changed.
    let is_alone =
        !facts.cut_off && !is_beside_an_install(facts, around) && neighbours == Neighbours::Settled;
    match (changed, held) {
        (_, Some(held)) if held != (facts.action == Action::Hold) => Err("that the package is not as asked"),
        (false, Some(_)) => Err("that it changed nothing, and what it changed"),
        (true, None) if is_alone => Err("that it changed something, and not the package"),
        _ => Ok(()),
    }
}

/// What nginx made of it. An nginx that does not run is what a boot explains, and reads what is there when it starts.
fn site_as_asked(facts: &Facts, changed: bool, around: &Around) -> Result<(), &'static str> {
    let is_ensured = matches!(facts.action, Action::EnsureSite(_));
    let asked = if is_ensured { "enabled" } else { "absent" };
    if facts.told("/after") != asked {
        return Err("that the site is not as asked");
    }
    // One that was enabled may have had the other content.
    if !is_ensured || !changed {
        changed_as_needed(facts, changed, facts.told("/before") == asked)?;
    }
    match (facts.told("/running") == true, facts.told("/reloaded") == true) {
        (false, _) if !around.booted => Err("that nginx does not run"),
        (false, true) => Err("that an nginx has read it that does not run"),
        (true, false) if changed => Err("that nginx has not read it"),
        (true, true) if !changed => Err("that nginx has read again what was left alone"),
        (true, true) if is_ensured && facts.told("/probed") != 200 => Err("not that the site answers"),
        _ => Ok(()),
    }
}

fn reboot_as_asked(facts: &Facts, changed: bool) -> Result<(), &'static str> {
    let is_empty = |list: &str| facts.told(list).as_array().is_none_or(Vec::is_empty);
    match facts.boots() {
        _ if !changed => Err("that it rebooted nothing"),
        None => Err("not which boot came after which"),
        Some((before, after)) if before == after => Err("that the boot is the same"),
        _ if !is_empty("/missing") => Err("that services are missing"),
        _ if !is_empty("/failed") => Err("that units failed"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::chaos::action::Content;

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

    fn reported(action: Action, report: Value) -> Facts {
        Facts { report: report.as_object().cloned(), ..facts(action, RunState::Succeeded) }
    }

    /// What a report says however much went on around it.
    fn is_never_right(wrong: &Facts) {
        let much = Around {
            rebooted: true,
            shut_down: true,
            supervisor_killed: true,
            agent_ended: true,
            package_installed: true,
            disk_filled: true,
            ..Around::default()
        };
        assert!(judged(wrong, Around::default()).is_err(), "{wrong:?}");
        let cut_off = Facts { cut_off: true, ..wrong.clone() };
        assert!(judge(&cut_off, &much, Neighbours::Unsettled).is_err(), "{wrong:?}");
    }

    #[test]
    fn what_succeeded_reports_that_the_file_is_as_asked() {
        let none = Around::default();
        let (short, long) = (Content::Short, Content::Long);
        let file = |content: Content| json!({"type": "file", "size": content.of_file().len()});
        let kept = "/etc/chaos/.settings.fleetward-20260102T030405Z";
        let write = |changed: bool, before: Value, after: Value, backup: Value| {
            let report = json!({"changed": changed, "before": before, "after": after, "backup": backup});
            reported(Action::WriteFile(short), report)
        };
        let remove = |changed: bool, before: Value, after: Value, backup: Value| Facts {
            action: Action::RemoveFile,
            ..write(changed, before, after, backup)
        };
        for right in [
            write(true, Value::Null, file(short), Value::Null),
            write(true, file(long), file(short), kept.into()),
            write(false, file(short), file(short), Value::Null),
            remove(true, file(long), Value::Null, kept.into()),
            remove(false, Value::Null, Value::Null, Value::Null),
        ] {
            assert_eq!(judged(&right, none), Ok(()));
            assert_eq!(judge_starts(0, &[right]), Ok(()));
        }
        for wrong in [
            facts(Action::WriteFile(short), RunState::Succeeded),
            reported(Action::RemoveFile, json!({})),
            write(true, file(long), file(long), kept.into()),
            write(true, Value::Null, Value::Null, Value::Null),
            write(true, Value::Null, json!({"type": "link", "size": short.of_file().len()}), Value::Null),
            write(false, file(long), file(short), Value::Null),
            remove(true, file(long), file(long), kept.into()),
            remove(false, file(long), Value::Null, Value::Null),
        ] {
            is_never_right(&wrong);
        }
        // One that was cut off had done it before.
        for unless_cut_off in [
            write(true, file(short), file(short), kept.into()),
            write(true, file(long), file(short), Value::Null),
            remove(true, Value::Null, Value::Null, Value::Null),
        ] {
            judged(&unless_cut_off, none).unwrap_err();
            assert_eq!(judged(&Facts { cut_off: true, ..unless_cut_off }, none), Ok(()));
        }
    }

    #[test]
    fn what_succeeded_reports_the_drop_in_that_was_asked_for() {
        let path = format!("{DROP_INS}/{DROP_IN_FILE}");
        let report =
            |changed: bool, kept: Option<&str>| json!({"changed": changed, "path": path, "kept": kept});
        let kept = Some("/etc/systemd/system/chaos-tuned.service.d/.words.conf.fleetward-20260102T030405Z");
        let write = |changed, kept| reported(Action::WriteDropIn(Content::Long), report(changed, kept));
        let remove = |changed, kept| reported(Action::RemoveDropIn, report(changed, kept));
        for right in [
            write(true, None),
            write(true, kept),
            write(false, None),
            remove(true, kept),
            remove(false, None),
        ] {
            assert_eq!(judged(&right, Around::default()), Ok(()));
        }
        let elsewhere = json!({"changed": true, "path": "/etc/systemd/system/chaos-tuned.service"});
        let restarted = json!({"changed": true, "path": path, "unit": {"changed": true}});
        for wrong in [
            write(false, kept),
            remove(false, kept),
            reported(Action::WriteDropIn(Content::Long), elsewhere),
            reported(Action::WriteDropIn(Content::Long), restarted),
            reported(Action::RemoveDropIn, json!({"path": path})),
        ] {
            is_never_right(&wrong);
        }
        let unkept = remove(true, None);
        judged(&unkept, Around::default()).unwrap_err();
        assert_eq!(judged(&Facts { cut_off: true, ..unkept }, Around::default()), Ok(()));
    }

    #[test]
    fn what_succeeded_reports_that_the_package_is_as_asked() {
        let none = Around::default();
        let upgraded = Around { package_installed: true, agent_ended: true, ..none };
        let report = |changed: bool, held: Option<bool>| {
            let own = held.map(|held| json!({"name": HELD, "held": held}));
            let other = json!({"name": "fleetward-agent", "after": "1.0"});
            json!({"changed": changed, "changes": own.into_iter().chain([other]).collect::<Vec<_>>()})
        };
        for (action, asked) in [(Action::Hold, true), (Action::Unhold, false)] {
            let told = |changed, held| reported(action, report(changed, held));
            assert_eq!(judged(&told(true, Some(asked)), none), Ok(()));
            assert_eq!(judged(&told(false, None), none), Ok(()));
            for wrong in [told(true, Some(!asked)), told(false, Some(asked)), told(false, Some(!asked))] {
                is_never_right(&wrong);
            }
            let others = told(true, None);
            judged(&others, none).unwrap_err();
            assert_eq!(judged(&others, upgraded), Ok(()));
            assert_eq!(judge(&others, &none, Neighbours::Unsettled), Ok(()));
            assert_eq!(judged(&Facts { cut_off: true, ..others }, none), Ok(()));
        }
        let installed = Around { package_installed: true, ..none };
        assert_eq!(judged(&facts(Action::Hold, RunState::Failed), installed), Ok(()));
        judged(&facts(Action::Hold, RunState::Failed), none).unwrap_err();
        judged(&facts(Action::RemoveFile, RunState::Failed), installed).unwrap_err();
        judged(&facts(Action::Hold, RunState::Lost), installed).unwrap_err();
    }

    #[test]
    fn what_succeeded_reports_that_nginx_works_with_the_site() {
        let told = |action, before: &str, changed: bool, after: &str, running: bool| {
            let probed = (changed && running && after == "enabled").then_some(200);
            let report = json!({
                "changed": changed, "before": before, "after": after,
                "running": running, "reloaded": changed && running, "probed": probed,
            });
            reported(action, report)
        };
        let ensure = Action::EnsureSite(Content::Long);
        let booted = Around { booted: true, ..Around::default() };
        for right in [
            told(ensure, "absent", true, "enabled", true),
            told(ensure, "enabled", true, "enabled", true),
            told(ensure, "enabled", false, "enabled", true),
            told(Action::RemoveSite, "enabled", true, "absent", true),
            told(Action::RemoveSite, "absent", false, "absent", true),
        ] {
            assert_eq!(judged(&right, Around::default()), Ok(()));
            let mut stopped = right.clone();
            for (field, value) in
                [("running", json!(false)), ("reloaded", json!(false)), ("probed", Value::Null)]
            {
                stopped.report.as_mut().unwrap().insert(field.to_owned(), value);
            }
            judged(&stopped, Around { rebooted: true, ..Around::default() }).unwrap_err();
            assert_eq!(judged(&stopped, booted), Ok(()));
        }
        let but = |field: &str, value: Value| {
            let mut facts = told(ensure, "absent", true, "enabled", true);
            facts.report.as_mut().unwrap().insert(field.to_owned(), value);
            facts
        };
        for wrong in [
            told(ensure, "absent", false, "enabled", true),
            told(ensure, "absent", true, "absent", true),
            told(Action::RemoveSite, "enabled", true, "enabled", true),
            told(Action::RemoveSite, "enabled", false, "absent", true),
            but("reloaded", json!(false)),
            but("probed", json!(502)),
            but("probed", Value::Null),
            but("changed", json!(false)),
            but("running", Value::Null),
        ] {
            is_never_right(&wrong);
        }
        let again = told(Action::RemoveSite, "absent", true, "absent", true);
        judged(&again, Around::default()).unwrap_err();
        assert_eq!(judged(&Facts { cut_off: true, ..again }, Around::default()), Ok(()));
        assert!(told(ensure, "absent", true, "enabled", true).is_reloaded());
        assert!(!told(ensure, "absent", true, "enabled", false).is_reloaded());
        let lost = Facts { state: RunState::Lost, ..told(ensure, "absent", true, "enabled", true) };
        assert!(!lost.is_reloaded());
    }

    #[test]
    fn a_reboot_is_another_boot_with_all_that_was_there() {
        let told = |before: &str, after: Option<&str>, missing: &[&str]| json!({"changed": true, "boot_before": before, "boot_after": after, "missing": missing, "failed": []});
        for action in [Action::Reboot, Action::RebootWhileBusy] {
            let right = reported(action, told("a", Some("b"), &[]));
            assert_eq!(judged(&right, Around::default()), Ok(()));
            assert!(right.boots().is_some() && !right.perhaps_booted());
            let failed =
                json!({"changed": true, "boot_before": "a", "boot_after": "b", "failed": ["nginx.service"]});
            let unchanged = json!({"changed": false, "boot_before": "a"});
            for wrong in [
                facts(action, RunState::Succeeded),
                reported(action, told("a", Some("a"), &[])),
                reported(action, told("a", None, &[])),
                reported(action, told("a", Some("b"), &["nginx.service"])),
                reported(action, failed),
                reported(action, unchanged),
            ] {
                is_never_right(&wrong);
            }
            let back = |missing: &[&str]| Facts {
                state: RunState::Failed,
                ..reported(action, told("a", Some("b"), missing))
            };
            assert_eq!(judged(&back(&[Unit::Boot.name()]), Around::default()), Ok(()));
            judged(&back(&[Unit::Boot.name(), "nginx.service"]), Around::default()).unwrap_err();
            judged(&back(&["nginx.service"]), Around::default()).unwrap_err();
            judged(&back(&[]), Around::default()).unwrap_err();
            let same = told("a", Some("a"), &[Unit::Boot.name()]);
            let same = Facts { state: RunState::Failed, ..reported(action, same) };
            judged(&same, Around::default()).unwrap_err();
            assert!(facts(action, RunState::Lost).perhaps_booted());
        }
        assert!(!facts(Action::Start, RunState::Lost).perhaps_booted());
    }

    #[test]
    fn a_reboot_that_cuts_nobody_off_is_refused_for_others_alone() {
        let refused = |action, refusal| Facts {
            refusal: Some(refusal),
            started: false,
            ..facts(action, RunState::Refused)
        };
        let others = Around { others_at_work: true, ..Around::default() };
        assert_eq!(judged(&refused(Action::Reboot, Refusal::Busy), others), Ok(()));
        judged(&refused(Action::Reboot, Refusal::Busy), Around::default()).unwrap_err();
        judged(&refused(Action::Reboot, Refusal::Other), others).unwrap_err();
        judged(&refused(Action::RebootWhileBusy, Refusal::Busy), others).unwrap_err();
        judged(&refused(Action::Start, Refusal::Busy), others).unwrap_err();
    }

    #[test]
    fn what_a_run_has_done_is_known_of_those_that_succeeded_and_of_those_that_never_began() {
        let effect =
            |state, started| Facts { started, ..facts(Action::WriteFile(Content::Short), state) }.effect();
        assert_eq!(effect(RunState::Succeeded, true), Effect::Certain);
        for state in [RunState::Failed, RunState::Cancelled, RunState::TimedOut, RunState::Running] {
            assert_eq!(effect(state, true), Effect::Perhaps, "{state:?}");
        }
        assert_eq!(effect(RunState::Lost, false), Effect::Perhaps, "the controller may not have heard");
        for state in [RunState::Cancelled, RunState::Refused, RunState::Expired] {
            assert_eq!(effect(state, false), Effect::Nothing, "{state:?}");
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
