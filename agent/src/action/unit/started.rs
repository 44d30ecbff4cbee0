//! Whether a unit that was to be started has been: also where it is inactive when it is looked at.

use fleetward_protocol::action::unit::{Unit, UnitState, Verb};
use fleetward_protocol::text::Line;

use super::{look_into_it, problem};
use crate::perform::{Problem, Steps};
use crate::platform::systemd::{Lasting, Systemd};

/// Refuses to call it done where systemd has not started the unit at all, or where it has ended that should last. Only a service that
/// does its work once is inactive behind it: of every other the moment of the look decides whether it is seen running before it ends,
/// and that tells nothing.
///
/// # Errors
/// Why it is not done.
pub(super) fn ensure(
    asked: &Unit,
    systemd: &Systemd,
    now: &UnitState,
    steps: &mut Steps,
) -> Result<(), Problem> {
    let Unit { unit, verb, settle_s, .. } = asked;
    if matches!(verb, Verb::Stop | Verb::ResetFailed) || now.active.as_str() != "inactive" {
        return Ok(());
    }
    let unmet = systemd.read_unmet(unit).map_err(|error| problem(asked, &error))?;
    if !unmet.is_empty() {
        return Err(not_started(asked, &unmet));
    }
    match systemd.read_lasting(unit).map_err(|error| problem(asked, &error))? {
        Lasting::Ends => steps.say(format_args!("{unit} has done its work and ended")),
        // Nobody asked for it to be watched.
        Lasting::Lasts | Lasting::StaysActive if *settle_s == 0 => {
            steps.say(format_args!("{unit} has ended already, without an error"));
        }
        Lasting::Lasts | Lasting::StaysActive => return Err(ended(asked)),
    }
    Ok(())
}

/// It came up, and went down without an error.
pub(super) fn ended(asked: &Unit) -> Problem {
    let settle_s = asked.settle_s;
    look_into_it(
        asked,
        &format!(
            "it started, and did not stay up for {settle_s} s: it ended without an error, and is no service that does its work once \
             (`Type=oneshot`)"
        ),
    )
}

/// systemd passed over it (`Condition…=`), or said that it must be (`Assert…=`, systemd.unit(5)).
pub(super) fn not_started(asked: &Unit, unmet: &[Line]) -> Problem {
    let Unit { unit, verb, .. } = asked;
    let unmet: Vec<&str> = unmet.iter().map(|line| line.as_str()).collect();
    Problem::new(
        format_args!(
            "`{verb} {unit}` failed: systemd did not start it, for this is not so on this host: {}",
            unmet.join(", ")
        ),
        format_args!(
            "make it so, or take that out of its file: `systemctl cat {unit}` shows where it stands"
        ),
    )
}
