//! What became of packages: whether it is what was asked for, and the report.

use std::collections::BTreeMap;

use fleetward_protocol::action::package::{Package, PackageChange, PackageReport, PackageVerb};
use fleetward_protocol::text::{List, Text};

use super::{goal, problem};
use crate::config::Allowed;
use crate::perform::{Problem, Steps};
use crate::platform::apt::Apt;
use crate::platform::apt::installed::Installed;
use crate::platform::apt::policy::Policy;
use crate::platform::apt::wanted::{self, RebootWanted};

/// The most bytes that changes take in a report. With all else that is in it, it fits into a record.
const MAX_BYTES: usize = 32 << 10;

/// Whether what was asked for is so now.
///
/// # Errors
/// What is not.
pub(super) async fn verify(
    asked: &Package,
    apt: &Apt,
    (before, installed): (&BTreeMap<String, Installed>, &BTreeMap<String, Installed>),
    allowed: &Allowed,
) -> Result<(), Problem> {
    ensure_whole(asked, before, installed)?;
    if asked.verb == PackageVerb::Refresh {
        return Ok(());
    }
    match goal::find(asked, apt, installed, allowed).await? {
        goal::Goal::Reached => Ok(()),
        goal::Goal::Change { .. } => Err(Problem::new(
            format_args!("`{}` came to its end, and not all is as it was asked for", asked.verb),
            "the lines above say more; ask again, for something else may have changed packages meanwhile",
        )),
    }
}

/// Whether dpkg came to its end with all that this is about. What was not whole before, and was not asked for, is no failure of it.
///
/// # Errors
/// What is not whole.
pub(super) fn ensure_whole(
    asked: &Package,
    before: &BTreeMap<String, Installed>,
    installed: &BTreeMap<String, Installed>,
) -> Result<(), Problem> {
    // These set nothing up, and somebody else may be at it.
    if matches!(asked.verb, PackageVerb::Refresh | PackageVerb::Hold | PackageVerb::Unhold) {
        return Ok(());
    }
    let is_named = |package: &Installed| asked.names.iter().any(|spec| spec.name.as_str() == package.name);
    // Asked for without names, it is all.
    let is_asked_for = |package: &Installed| asked.names.is_empty() || is_named(package);
    let was_whole = |package: &Installed| before.get(&package.full).is_none_or(Installed::is_whole);
    let broken: Vec<&str> = installed
        .values()
        .filter(|package| !package.is_whole() && (is_asked_for(package) || was_whole(package)))
        .map(|package| package.full.as_str())
        .take(10)
        .collect();
    if broken.is_empty() {
        return Ok(());
    }
    Err(Problem::new(
        format_args!("dpkg did not come to an end with {}", broken.join(", ")),
        "run `dpkg --configure -a` on the host: it says what is in the way",
    ))
}

/// The report: what is not as it was, and what the host wants now.
pub(super) async fn report(
    apt: &Apt,
    before: &BTreeMap<String, Installed>,
    after: &BTreeMap<String, Installed>,
    changed: bool,
    counts: bool,
) -> PackageReport {
    let (changes, more) = fitting(changes(before, after));
    // Looking for what wants a restart takes seconds.
    let restarts = if changes.is_empty() { None } else { wanted::read_restarts().await };
    let RebootWanted { is_wanted, packages } = wanted::read_reboot();
    PackageReport {
        changed,
        changes: List::of(changes),
        more,
        pending: if counts { read_pending(apt, after).await } else { None },
        restarts,
        reboot_required: is_wanted,
        reboot_for: List::of(packages),
    }
}

/// How many packages have a newer version; `None` if apt does not tell.
async fn read_pending(apt: &Apt, installed: &BTreeMap<String, Installed>) -> Option<u32> {
    let there = installed.values().filter(|package| package.is_there());
    let names: Vec<&str> = there.map(|package| package.full.as_str()).collect();
    let policies = apt.read_policies(&names).await.map_err(|error| problem(&error)).ok()?;
    u32::try_from(policies.values().filter_map(Policy::newer).count()).ok()
}

/// Says what the report says, for people.
pub(super) fn tell(report: &PackageReport, steps: &mut Steps) {
    let count = report.changes.len() + usize::try_from(report.more).unwrap_or(usize::MAX);
    if count > 0 {
        steps.say(format_args!("changed: {count}"));
    }
    if let Some(pending) = report.pending {
        steps.say(format_args!("to upgrade: {pending}"));
    }
    for service in report.restarts.iter().flat_map(|restarts| &restarts.services) {
        steps.say(format_args!("{service} runs with files of before, and wants a restart"));
    }
    if report.reboot_required {
        let packages: Vec<&str> = report.reboot_for.iter().map(|name| name.as_str()).collect();
        let why = if packages.is_empty() { String::new() } else { format!(", for {}", packages.join(", ")) };
        steps.say(format_args!("this host wants to be rebooted{why}"));
    }
}

/// What is not as it was.
fn changes(before: &BTreeMap<String, Installed>, after: &BTreeMap<String, Installed>) -> Vec<PackageChange> {
    let mut names: Vec<&String> = before.keys().chain(after.keys()).collect();
    names.sort_unstable();
    names.dedup();
    let change = |name: &String| {
        let (was, is) = (before.get(name), after.get(name));
        let version = |package: Option<&Installed>| {
            package.filter(|package| package.is_there()).map(|package| Text::of(&package.version))
        };
        let held = |package: Option<&Installed>| package.is_some_and(Installed::is_held);
        let is_held = (held(was) != held(is)).then(|| held(is));
        let change =
            PackageChange { name: Text::of(name), before: version(was), after: version(is), held: is_held };
        (change.before != change.after || change.held.is_some()).then_some(change)
    };
    names.into_iter().filter_map(change).collect()
}

/// As many as fit into a report, and how many do not.
fn fitting(mut changes: Vec<PackageChange>) -> (Vec<PackageChange>, u32) {
    let mut bytes = 0;
    let fit = changes.iter().take(fleetward_protocol::action::package::MAX_CHANGES).take_while(|change| {
        bytes += serde_json::to_vec(change).map_or(MAX_BYTES, |json| json.len() + 1);
        bytes <= MAX_BYTES
    });
    let fit = fit.count();
    let more = u32::try_from(changes.len() - fit).unwrap_or(u32::MAX);
    changes.truncate(fit);
    (changes, more)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn installed(name: &str, version: &str, want: &str, state: &str) -> (String, Installed) {
        let package = Installed {
            full: name.into(),
            name: name.into(),
            architecture: "all".into(),
            version: version.into(),
            want: want.into(),
            state: state.into(),
            needs: String::new(),
        };
        (name.to_owned(), package)
    }

    #[test]
    fn what_is_not_as_it_was_is_told() {
        let before = BTreeMap::from([
            installed("gone", "1", "install", "installed"),
            installed("kept", "1", "install", "installed"),
            installed("newer", "1", "install", "installed"),
            installed("held", "1", "install", "installed"),
        ]);
        let after = BTreeMap::from([
            installed("gone", "1", "deinstall", "config-files"),
            installed("kept", "1", "install", "installed"),
            installed("newer", "2", "install", "installed"),
            installed("held", "1", "hold", "installed"),
            installed("new", "3", "install", "installed"),
        ]);
        let told: Vec<String> = changes(&before, &after)
            .into_iter()
            .map(|change| {
                let version = |version: Option<fleetward_protocol::text::Word>| {
                    version.map(String::from).unwrap_or_default()
                };
                format!(
                    "{} {}>{} {:?}",
                    change.name,
                    version(change.before),
                    version(change.after),
                    change.held
                )
            })
            .collect();
        assert_eq!(told, ["gone 1> None", "held 1>1 Some(true)", "new >3 None", "newer 1>2 None"]);
    }

    #[test]
    fn a_report_fits_however_much_has_changed() {
        let name = |number: usize| format!("\\\"{number:0>200}");
        let after: BTreeMap<_, _> = (0..5000)
            .map(|number| installed(&name(number), &"\\".repeat(300), "hold", "installed"))
            .collect();
        let (fit, more) = fitting(changes(&BTreeMap::new(), &after));
        assert_eq!(fit.len() + usize::try_from(more).unwrap(), 5000);
        assert!(!fit.is_empty() && serde_json::to_vec(&fit).unwrap().len() <= MAX_BYTES + 1);
    }
}
