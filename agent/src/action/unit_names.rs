//! Whether the owner's list of units names what an action really touches: a name may be another unit's, and a unit may be enabled
//! with others.

use std::collections::BTreeSet;

use fleetward_protocol::action::Contract;
use fleetward_protocol::action::unit::UnitName;
use fleetward_protocol::action::unit_file::UnitFile;
use fleetward_protocol::object::{Class, Object};

use crate::config::Allowed;
use crate::perform::{Problem, Steps};
use crate::platform::systemd::install::Install;
use crate::platform::systemd::{Systemd, SystemdError};

/// Through so many units `Also=` is followed. What names more is not known to be allowed.
const MOST: usize = 64;

/// Refuses a name that is another unit's (a link, `Alias=`) which the list does not name.
///
/// # Errors
/// With [`Problem`], if it is refused; with the other, if systemd does not tell.
pub(super) fn ensure_allowed<K: Contract>(
    systemd: &Systemd,
    unit: &UnitName,
    steps: &Steps,
) -> Result<Result<(), Problem>, SystemdError> {
    let id = systemd.read_id(unit)?;
    Ok(match allows(steps.allowed(), &id) {
        true => Ok(()),
        false => Err(refused::<K>(&format!("{unit} is another name of {id}"), &id)),
    })
}

/// Refuses to enable or disable with a unit what the list does not name: its other names, what is enabled with it (`Also=`), and what
/// starts it from then on and is no target.
///
/// # Errors
/// With [`Problem`], if it is refused; with the other, if systemd does not tell.
pub(super) fn ensure_install_allowed(
    systemd: &Systemd,
    unit: &UnitName,
    steps: &Steps,
) -> Result<Result<(), Problem>, SystemdError> {
    let allowed = steps.allowed();
    if allowed.allows(&Object::any(Class::Units)) {
        return Ok(Ok(()));
    }
    let directories = systemd.read_directories()?;
    Ok(ensure_all_allowed(unit.as_str(), allowed, |name| Install::read(name, &directories)))
}

fn ensure_all_allowed(unit: &str, allowed: &Allowed, read: impl Fn(&str) -> Install) -> Result<(), Problem> {
    let mut known = BTreeSet::from([unit.to_owned()]);
    let mut ahead = vec![unit.to_owned()];
    while let Some(unit) = ahead.pop() {
        let Install { aliases, also, starters } = read(&unit);
        let starters =
            starters.into_iter().filter(|name| name.as_ref().is_none_or(|name| !name.ends_with(".target")));
        let also_named = also.iter().cloned();
        for (setting, name) in (aliases.into_iter().map(|name| ("Alias=", name)))
            .chain(also_named.map(|name| ("Also=", name)))
            .chain(starters.map(|name| ("WantedBy=, RequiredBy= or UpheldBy=", name)))
        {
            let is_allowed = name.as_ref().is_some_and(|name| allows(allowed, name));
            if !is_allowed {
                let name = name.as_deref().unwrap_or("a unit that cannot be told before");
                let why = format!("the file of {unit} names {name} in its [Install] section ({setting})");
                return Err(refused::<UnitFile>(&why, name));
            }
        }
        for name in also.into_iter().flatten() {
            if known.len() == MOST {
                return Err(refused::<UnitFile>(
                    "more units hang on it by `Also=` than are looked at",
                    &name,
                ));
            }
            if known.insert(name.clone()) {
                ahead.push(name);
            }
        }
    }
    Ok(())
}

fn allows(allowed: &Allowed, name: &str) -> bool {
    allowed.allows(&Object::named(Class::Units, name))
}

fn refused<K: Contract>(why: &str, name: &str) -> Problem {
    Problem::new(
        format_args!("{why}, and policy.rules.{}.units in agent.toml does not name {name}", K::KIND),
        "its owner can add it there, on the host",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_enabled_with_what_the_list_names_alone() {
        let allowed: Allowed = serde_json::from_value(serde_json::json!({ "units": ["app*"] })).unwrap();
        let some = |names: &[&str]| names.iter().map(|name| Some((*name).to_owned())).collect::<Vec<_>>();
        let none = Install::default;
        let check = |first: Install, second: Install| {
            let read = |name: &str| if name == "app.service" { first.clone() } else { second.clone() };
            ensure_all_allowed("app.service", &allowed, read).map_err(|problem| problem.reason.to_string())
        };
        let fine = Install {
            aliases: some(&["app-alias.service"]),
            also: some(&["app.socket"]),
            starters: some(&["multi-user.target", "app-all.service"]),
        };
        assert_eq!(check(fine.clone(), none()), Ok(()));
        for (first, second) in [
            (Install { aliases: some(&["sshd.service"]), ..none() }, none()),
            (Install { also: some(&["sshd.service"]), ..none() }, none()),
            (Install { starters: some(&["sshd.service"]), ..none() }, none()),
            (fine.clone(), Install { aliases: some(&["sshd.service"]), ..none() }),
        ] {
            let told = check(first, second).unwrap_err();
            assert!(
                told.contains("policy.rules.unit-file.units in agent.toml does not name sshd.service"),
                "{told}"
            );
        }
        check(Install { aliases: vec![None], ..none() }, none()).unwrap_err();
        assert_eq!(check(fine.clone(), fine), Ok(()), "round in a circle");
    }
}
