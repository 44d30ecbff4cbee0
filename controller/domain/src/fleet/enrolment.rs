//! Enrolment: who may become a host of the fleet, and whether a host is who it says it is.

use fleetward_protocol::client_id::ClientId;
use fleetward_protocol::digest::Digest;
use fleetward_protocol::enrol::EnrolRefusal;
use fleetward_protocol::id::TenantId;
use fleetward_protocol::name::HostName;
use fleetward_protocol::printable::to_line;
use fleetward_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};

/// How far a host has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// In the inventory; no agent has enrolled yet.
    Pending,
    /// An agent enrolled with an unbound token; it waits for approval and is given nothing to do.
    Quarantined,
    /// An agent is enrolled.
    Enrolled,
    /// Its certificate is revoked; only a token made for it can enrol it again.
    Revoked,
    /// It left the inventory; it cannot enrol.
    Retired,
}

impl Standing {
    /// Every standing.
    pub const ALL: [Self; 5] =
        [Self::Pending, Self::Quarantined, Self::Enrolled, Self::Revoked, Self::Retired];

    /// The stable name, in the store and in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Quarantined => "quarantined",
            Self::Enrolled => "enrolled",
            Self::Revoked => "revoked",
            Self::Retired => "retired",
        }
    }

    /// The standing of this name.
    #[must_use]
    pub fn named(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|standing| standing.as_str() == text)
    }

    /// Whether runs may be dispatched to it.
    #[must_use]
    pub const fn may_run(self) -> bool {
        matches!(self, Self::Enrolled)
    }
}

/// A token as the store knows it, found by its secret's digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownToken {
    /// The tenant it was made in.
    pub tenant: TenantId,
    /// The host it was made for; `None` if it was made for any.
    pub client: Option<ClientId>,
    /// Not good from here on.
    pub expires: Timestamp,
    /// The public key (digest of its SPKI) of the request that used it up.
    pub used_by: Option<Digest>,
}

/// The inventory's host with a request's client ID, in whatever tenant it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownHost {
    /// The tenant it belongs to.
    pub tenant: TenantId,
    /// How far it has come.
    pub standing: Standing,
}

/// A certificate request whose signature was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedRequest {
    /// The client ID in its only name.
    pub client: ClientId,
    /// The digest of its public key (SPKI).
    pub key: Digest,
}

/// What to do with a request to enrol that is granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enrol {
    /// Issue a certificate; the host is enrolled.
    Issue,
    /// Issue a certificate; the host waits for approval.
    Quarantine,
}

/// Decides on a request. `host` is the inventory's host with the request's client ID.
///
/// A token enrols hosts of its own tenant only. Of a host of another one the answer tells no more than that the client
/// ID is taken, however far that host has come.
///
/// A token is used up by the first key it enrols. The same key may use it again while it lasts, so that a reply
/// that was lost on its way strands nobody.
///
/// # Errors
/// [`EnrolRefusal`], for the host's log and for the audit.
pub fn decide(
    token: Option<&KnownToken>,
    request: &VerifiedRequest,
    host: Option<KnownHost>,
    now: Timestamp,
) -> Result<Enrol, EnrolRefusal> {
    let token = token.ok_or(EnrolRefusal::UnknownToken)?;
    let is_repetition = token.used_by == Some(request.key);
    if token.used_by.is_some() && !is_repetition {
        return Err(EnrolRefusal::UsedToken);
    }
    if now >= token.expires {
        return Err(EnrolRefusal::ExpiredToken);
    }
    let is_bound = match &token.client {
        Some(client) if *client != request.client => return Err(EnrolRefusal::WrongClient),
        bound => bound.is_some(),
    };
    if host.is_some_and(|host| host.tenant != token.tenant) {
        return Err(EnrolRefusal::NeedsBoundToken);
    }
    match (host.map(|host| host.standing), is_bound) {
        (Some(Standing::Retired), _) | (None, true) => Err(EnrolRefusal::Retired),
        (Some(Standing::Pending | Standing::Enrolled | Standing::Revoked), true) => Ok(Enrol::Issue),
        // A quarantine ends by approval only.
        (Some(Standing::Quarantined), true) | (None | Some(Standing::Pending), false) => {
            Ok(Enrol::Quarantine)
        }
        (Some(Standing::Quarantined), false) if is_repetition => Ok(Enrol::Quarantine),
        (Some(Standing::Enrolled), false) if is_repetition => Ok(Enrol::Issue),
        (Some(Standing::Quarantined | Standing::Enrolled | Standing::Revoked), false) => {
            Err(EnrolRefusal::NeedsBoundToken)
        }
    }
}

/// What the host's client-ID file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientIdFile {
    /// There is none.
    Missing,
    /// It could not be read; the host's reason.
    Unreadable(String),
    /// Its content.
    Content(String),
}

/// Whether a host is who the inventory says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verification {
    /// Whether the file could be read.
    pub client_id_found: bool,
    /// Whether it names the inventory's client ID.
    pub client_id_matches: bool,
    /// Why it is not enrolled; `None` exactly if it is.
    pub reason: Option<VerificationFailure>,
}

/// Why a host is not who the inventory says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerificationFailure {
    /// No file.
    #[error(
        "/etc/fleetward/client_id is missing on the host; enrol it again with `fleetward host token <host>`"
    )]
    Missing,
    /// No access.
    #[error("/etc/fleetward/client_id could not be read on the host: {0}")]
    Unreadable(String),
    /// Another client ID, or none.
    #[error("/etc/fleetward/client_id holds `{found}`, but the inventory says `{expected}`")]
    Different {
        /// The beginning of what the file holds.
        found: String,
        /// What the inventory says.
        expected: ClientId,
    },
}

impl Verification {
    /// Enrolled if and only if the file's content is the inventory's client ID (P11); one line end may follow it.
    #[must_use]
    pub fn of(inventory: &ClientId, file: &ClientIdFile) -> Self {
        let reason = match file {
            ClientIdFile::Missing => Some(VerificationFailure::Missing),
            ClientIdFile::Unreadable(reason) => Some(VerificationFailure::Unreadable(reason.clone())),
            ClientIdFile::Content(content) => {
                let line = content.strip_suffix('\n').unwrap_or(content);
                let matches = line.parse::<ClientId>().is_ok_and(|found| found == *inventory);
                (!matches).then(|| VerificationFailure::Different {
                    found: to_line(line, 80),
                    expected: inventory.clone(),
                })
            }
        };
        Self {
            client_id_found: matches!(file, ClientIdFile::Content(_)),
            client_id_matches: reason.is_none(),
            reason,
        }
    }

    /// Whether the host is who the inventory says.
    #[must_use]
    pub const fn is_enrolled(&self) -> bool {
        self.reason.is_none()
    }
}

/// Targets that may not be given anything to run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} of the targets {} not enrolled: {}", .hosts.len(), if .hosts.len() == 1 { "is" } else { "are" }, listed(.hosts))]
pub struct NotEnrolled {
    /// Every one of them, with its standing, in the given order.
    pub hosts: Vec<(HostName, Standing)>,
}

/// Checks that every target may be given something to run (P13).
///
/// # Errors
/// [`NotEnrolled`] with all that may not.
pub fn require_enrolled<'a>(
    targets: impl IntoIterator<Item = (&'a HostName, Standing)>,
) -> Result<(), NotEnrolled> {
    let refused = targets.into_iter().filter(|(_, standing)| !standing.may_run());
    let hosts: Vec<_> = refused.map(|(name, standing)| (name.clone(), standing)).collect();
    if hosts.is_empty() { Ok(()) } else { Err(NotEnrolled { hosts }) }
}

fn listed(hosts: &[(HostName, Standing)]) -> String {
    /// An error text is read by people; the whole list is in the error's details.
    const SHOWN: usize = 10;
    let mut text = hosts
        .iter()
        .take(SHOWN)
        .map(|(name, standing)| format!("{name} ({})", standing.as_str()))
        .collect::<Vec<_>>()
        .join(", ");
    if hosts.len() > SHOWN {
        text.push_str(&format!(" and {} more", hosts.len() - SHOWN));
    }
    text
}

#[cfg(test)]
mod tests;
