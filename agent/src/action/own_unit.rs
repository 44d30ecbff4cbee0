//! What would take the agent away from its host is not done from afar: nobody could take it back.

use fleetward_protocol::action::unit::UnitName;

use crate::perform::Problem;
use crate::platform::systemd::carries::{Carries, Change};
use crate::platform::systemd::{Systemd, SystemdError};

/// Refuses what would stop the unit that this process and the agent belong to, or keep it from starting: by itself, or by way
/// of what that unit needs, of what starts it, or of what cannot be active together with it.
///
/// # Errors
/// With [`Problem`], if it would; with the other, if systemd does not tell.
pub(super) fn ensure_kept(
    systemd: &Systemd,
    unit: &UnitName,
    verb: &str,
    change: Change,
) -> Result<Result<(), Problem>, SystemdError> {
    let carries = systemd.read_carries(unit, change)?;
    let by_hand = format!("run `systemctl {verb} {unit}` on the host itself if that is meant");
    let when = match change {
        Change::Disable => "after the next boot no controller could reach the host any more",
        Change::Stop | Change::Start | Change::Restart => "no controller could reach the host any more",
    };
    let (why, advice) = match carries {
        Carries::Nothing => return Ok(Ok(())),
        Carries::Us if change == Change::Stop => (
            format!("it is the unit of this host's agent, and {when}"),
            format!("restart it if that is enough, or {by_hand}"),
        ),
        Carries::Us => (format!("it is the unit of this host's agent, and {when}"), by_hand),
        Carries::Needed { own, how } if change == Change::Stop => (
            format!("{own}, the unit of this host's agent, would be stopped with it ({how}), and {when}"),
            by_hand,
        ),
        Carries::Needed { own, how } if change == Change::Restart => (
            format!(
                "{own}, the unit of this host's agent, would be stopped with it ({how}); should the start fail, {when}"
            ),
            by_hand,
        ),
        Carries::Needed { own, how } => (
            format!("{own}, the unit of this host's agent, would not start without it ({how}): {when}"),
            by_hand,
        ),
        Carries::Starter { own, how } => {
            (format!("{own}, the unit of this host's agent, is started by it ({how}): {when}"), by_hand)
        }
        Carries::Boot { own, how } => (
            format!("{own}, the unit of this host's agent, would not be started without it ({how}): {when}"),
            by_hand,
        ),
        Carries::Unknown => (
            "so many units hang together with it, or with this host's agent, that it cannot be told whether the agent would go on"
                .to_owned(),
            by_hand,
        ),
        Carries::Conflict { own, how } => (
            format!("{own}, the unit of this host's agent, would be stopped by it ({how}), and {when}"),
            by_hand,
        ),
        Carries::BusConflict { how } => (
            format!(
                "the message bus, through which this host's agent asks systemd, would be stopped by it ({how}), and nobody could take \
                 that back from afar"
            ),
            by_hand,
        ),
        Carries::Missing { own, needs } => (
            format!("{own}, the unit of this host's agent, needs {needs}, which is not active; should its start fail, {when}"),
            format!("start {needs} before, or {by_hand}"),
        ),
        Carries::Bus => {
            ("this host's agent asks systemd through it, and could not take that back".to_owned(), by_hand)
        }
    };
    Ok(Err(Problem::new(format_args!("`{verb} {unit}` is refused: {why}"), advice)))
}
