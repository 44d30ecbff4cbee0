//! The gate: what every order passes before anything is done for it, whatever it asks of the host.
//!
//! **What it promises.** Nobody runs or looks at anything here whose order was not opened, in time, meant for this host by its
//! file, its certificate and the order alike, and of a kind that the owner's policy allows as the policy stands now.

use std::time::Duration;

use fleetward_protocol::client_id::ClientId;
use fleetward_protocol::object::{Object, Which};
use fleetward_protocol::order::Order;
use fleetward_protocol::run::Refusal;
use fleetward_protocol::text::Text;
use fleetward_protocol::time::Timestamp;

use crate::config::{Names, Paths, Settings, SettingsError};
use crate::identity::{self, ClientIdError};
use crate::link::chain;

/// Reads the bytes of an order.
///
/// # Errors
/// If they are none.
pub(crate) fn open(order: &[u8]) -> Result<Order, Refusal> {
    Order::open(order).map_err(|error| Refusal::Malformed {
        detail: Text::of(format_args!("the order: {}", chain(&error))),
    })
}

/// Whether it is time, by the controller's clock.
///
/// # Errors
/// If it is too early or too late.
pub(crate) fn check_time(order: &Order, remaining: Duration) -> Result<(), Refusal> {
    if order.wait(remaining).is_none() {
        return Err(Refusal::NotYet);
    }
    if remaining.is_zero() { Err(Refusal::DeadlinePassed) } else { Ok(()) }
}

/// Whether the order may be carried out here now: by the host where `client` is in the certificate, and by its owner.
/// Returns the settings that it was checked against.
///
/// # Errors
/// The first rule that says no. Settings that cannot be used allow nothing.
pub(crate) fn check(
    paths: &Paths,
    client: &ClientId,
    settings: Result<Settings, SettingsError>,
    order: &Order,
    kind: &str,
    now: Timestamp,
) -> Result<Settings, Refusal> {
    check_client(paths, client, &order.client)?;
    if now > order.deadline {
        return Err(Refusal::DeadlinePassed);
    }
    let settings = settings.map_err(|error| not_allowed(&chain(&error)))?;
    if let Some(kinds) = &settings.policy.kinds
        && !kinds.contains(kind)
    {
        return Err(not_named(paths, "policy.kinds", kinds, kind));
    }
    Ok(settings)
}

/// Whether the owner allows that this kind touches these.
///
/// # Errors
/// The first that is not allowed, with the list that would have to name it.
pub(crate) fn check_objects(
    paths: &Paths,
    settings: &Settings,
    kind: &str,
    objects: &[Object],
) -> Result<(), Refusal> {
    let allowed = settings.policy.allowed(kind);
    let Some(object) = objects.iter().find(|object| !allowed.allows(object)) else { return Ok(()) };
    let class = object.class();
    let list = format!("policy.rules.{kind}.{class}");
    let Some(names) = settings.policy.rules.get(kind).and_then(|rule| rule.get(&class)) else {
        return Ok(());
    };
    Err(match object.which() {
        Which::Named(name) => not_named(paths, &list, names, name),
        Which::Between(begin, end) => not_allowed(&format!(
            "{list} in {} does not name all {class} that this touches: `{begin}*{end}`",
            place(paths, names)
        )),
        Which::Any => not_allowed(&format!(
            "{list} in {} allows some {class} only, and this may touch any; name those that are meant",
            place(paths, names)
        )),
    })
}

/// Whether the owner allows that something is done as this user.
///
/// # Errors
/// If not.
pub(crate) fn check_user(paths: &Paths, settings: &Settings, user: &str) -> Result<(), Refusal> {
    if let Some(users) = &settings.policy.users
        && !users.contains(user)
    {
        return Err(not_named(paths, "policy.users", users, user));
    }
    Ok(())
}

/// A list of the owner's does not name this.
pub(crate) fn not_named(paths: &Paths, list: &str, names: &Names, name: &str) -> Refusal {
    let place = place(paths, names);
    not_allowed(&format!("{list} in {place} does not name `{name}`; its owner can add it there, on the host"))
}

/// Where the owner wrote it.
fn place(paths: &Paths, names: &Names) -> String {
    format!("{}, line {},", paths.config.display(), names.line())
}

/// The owner's rule says no.
pub(crate) fn not_allowed(rule: &str) -> Refusal {
    Refusal::NotAllowed { rule: Text::of(rule) }
}

/// The file, the certificate and the order must name the same host.
fn check_client(paths: &Paths, own: &ClientId, ordered: &ClientId) -> Result<(), Refusal> {
    let mismatch = |found: &str| Refusal::ClientIdMismatch { found: Text::of(found) };
    let found = match identity::read_client_id(&paths.client_id) {
        Ok(Some(found)) => found,
        Ok(None) => return Err(Refusal::ClientIdMissing),
        Err(ClientIdError::Invalid { found, .. }) => return Err(mismatch(&found)),
        // Whom others could pass off as another host runs nothing.
        Err(ClientIdError::File(error)) => {
            return Err(not_allowed(&format!("the file with the host's client ID cannot be used: {error}")));
        }
    };
    if found == *own && found == *ordered { Ok(()) } else { Err(mismatch(found.as_str())) }
}
