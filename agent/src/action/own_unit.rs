//! What would take the agent away from its host is not done from afar: nobody could take it back.

use fleetward_protocol::action::unit::UnitName;

use crate::perform::Problem;
use crate::platform::systemd::{Carries, Systemd, SystemdError};

/// What is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Danger {
    /// The unit is stopped, and what needs it with it.
    Stop,
    /// The unit is not started at the next boot.
    NextBoot,
}

/// Refuses what would stop the unit that this process and the agent belong to, or keep it from starting.
///
/// # Errors
/// With [`Problem`], if that is the unit; with the other, if systemd does not tell.
pub(super) fn ensure_kept(
    systemd: &Systemd,
    unit: &UnitName,
    verb: &str,
    danger: Danger,
) -> Result<Result<(), Problem>, SystemdError> {
    let by_hand = format!("run `systemctl {verb} {unit}` on the host itself if that is meant");
    Ok(match (systemd.read_carries(unit)?, danger) {
        (Carries::Us, Danger::Stop) => Err(Problem::new(
            format_args!(
                "`{verb} {unit}` is refused: it is the unit of this host's agent, and no controller could reach the host any more"
            ),
            format_args!("ask for `restart` if that is enough, or {by_hand}"),
        )),
        (Carries::Us, Danger::NextBoot) => Err(Problem::new(
            format_args!(
                "`{verb} {unit}` is refused: it is the unit of this host's agent, and after the next boot no controller could reach the host any more"
            ),
            by_hand,
        )),
        (Carries::Needed(own), Danger::Stop) => Err(Problem::new(
            format_args!(
                "`{verb} {unit}` is refused: {own}, the unit of this host's agent, would be stopped with it, and no controller could reach the host any more"
            ),
            by_hand,
        )),
        (Carries::Needed(_), Danger::NextBoot) | (Carries::Nothing, _) => Ok(()),
    })
}
