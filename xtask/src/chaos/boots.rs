//! How often a host was booted, by its own record: a unit writes the id of each boot down, durably.
//!
//! Nobody boots a host but a fault that the diary has, and a run of kind `reboot`, which tells the boot before and the one after.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::action::UNITS;
use super::typed::Facts;
use crate::lab::Host;

/// Where boots are recorded, a line each. No script's record has a name without a dot.
pub const BOOTS: &str = "/var/lib/chaos/boots";
const UNIT: &str = "chaos-boots.service";

/// Has a host record its boots from the next one on.
///
/// # Errors
/// When its files cannot be written, or a command on it fails.
pub(super) fn install(host: &Host) -> Result<()> {
    let file = host.root().join(UNITS.trim_start_matches('/')).join(UNIT);
    let text = format!(
        "[Unit]\nDescription=Record this boot\n\n[Service]\nType=oneshot\n\
         ExecStart=/bin/sh -c 'cat /proc/sys/kernel/random/boot_id >> {BOOTS} && sync {BOOTS}'\n\n\
         [Install]\nWantedBy=multi-user.target\n"
    );
    std::fs::write(&file, text).with_context(|| file.display().to_string())?;
    host.run(&["systemctl", "enable", "--quiet", UNIT]).map(drop)
}

/// The boots that were recorded, in their order.
///
/// # Errors
/// When the record cannot be read.
pub fn read(root: &Path) -> Result<Vec<String>> {
    let file = root.join(BOOTS.trim_start_matches('/'));
    match std::fs::read_to_string(&file) {
        Ok(text) => Ok(text.lines().map(str::to_owned).collect()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| file.display().to_string()),
    }
}

/// Judges a host's boots: one for each of so many faults, one for each run that tells of one, and perhaps one for each run that
/// may have asked for one and whose end nobody knows.
///
/// The agent has ids of its own for boots, by which runs tell them: they are compared with each other alone.
///
/// # Errors
/// With what is wrong.
pub fn judge(recorded: &[String], faults: usize, runs: &[Facts]) -> Result<(), String> {
    let told: Vec<(String, String)> = runs.iter().filter_map(|run| run.boots()).collect();
    let perhaps = runs.iter().filter(|run| run.perhaps_booted()).count();
    let sure = faults + told.len();
    if !(sure..=sure + perhaps).contains(&recorded.len()) {
        return Err(format!(
            "{} boots are recorded; {faults} faults and {} runs brought one about, and {perhaps} runs may have",
            recorded.len(),
            told.len()
        ));
    }
    let different = recorded.iter().collect::<BTreeSet<_>>().len();
    if different < recorded.len() {
        return Err(format!("{} boots are recorded, and {different} are different", recorded.len()));
    }
    let after: BTreeSet<&String> = told.iter().map(|(_, after)| after).collect();
    if after.len() < told.len() || told.iter().any(|(before, after)| before == after) {
        return Err(format!("a run tells of a boot that it did not bring about: {told:?}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use fleetward_api::work::run::RunState;
    use serde_json::json;

    use super::*;
    use crate::chaos::action::Action;

    fn run(state: RunState, boots: Option<(&str, &str)>) -> Facts {
        let report =
            boots.map(|(before, after)| json!({"changed": true, "boot_before": before, "boot_after": after}));
        Facts {
            action: Action::Reboot,
            state,
            refusal: None,
            started: true,
            cut_off: false,
            dropped: 0,
            report: report.and_then(|report| report.as_object().cloned()),
        }
    }

    fn recorded(ids: &[&str]) -> Vec<String> {
        ids.iter().map(|id| (*id).to_owned()).collect()
    }

    #[test]
    fn each_boot_has_its_reason_and_each_reason_its_boot() {
        let all = recorded(&["a-1", "a-2", "a-3"]);
        let told = run(RunState::Succeeded, Some(("a", "b")));
        assert_eq!(judge(&all, 3, &[]), Ok(()));
        assert_eq!(judge(&all, 2, std::slice::from_ref(&told)), Ok(()));
        judge(&all, 2, &[]).unwrap_err();
        judge(&all, 4, &[]).unwrap_err();
        judge(&all, 3, &[told]).unwrap_err();
        for state in [RunState::Lost, RunState::Failed] {
            assert_eq!(judge(&all, 2, &[run(state, None)]), Ok(()), "{state:?}");
            assert_eq!(judge(&all, 3, &[run(state, None)]), Ok(()), "{state:?}");
            judge(&all, 1, &[run(state, None)]).unwrap_err();
        }
        let refused = Facts { started: false, ..run(RunState::Refused, None) };
        judge(&all, 2, &[refused]).unwrap_err();
        let failed = run(RunState::Failed, Some(("a", "b")));
        judge(&all, 3, std::slice::from_ref(&failed)).unwrap_err();
        assert_eq!(judge(&all, 2, &[failed]), Ok(()), "a host that is back without a service was booted");
    }

    #[test]
    fn no_two_runs_tell_of_one_boot_and_none_of_the_one_it_began_in() {
        let all = recorded(&["x", "y", "z"]);
        let told = |before, after| run(RunState::Succeeded, Some((before, after)));
        assert_eq!(judge(&all, 1, &[told("a", "b"), told("b", "c")]), Ok(()));
        judge(&all, 1, &[told("a", "b"), told("a", "b")]).unwrap_err();
        judge(&all, 2, &[told("a", "a")]).unwrap_err();
        judge(&recorded(&["x", "y", "y"]), 2, &[told("a", "b")]).unwrap_err();
    }
}
