//! What the use cases are told from outside. Whoever starts an [`App`](crate::App) fills it in.

use std::path::PathBuf;
use std::time::Duration;

use fleetward_protocol::text::Word;
use fleetward_repo::Reach;

/// What the use cases are told from outside.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where agents reach the controller, as enrol commands name it: `name:port`.
    pub advertise: String,
    /// Where agents are told that the fleet's controllers are; empty where each keeps what its enrolment used.
    pub controllers: Vec<Word>,
    /// Logins tried per minute from one address; above it they are refused unseen.
    pub logins_per_minute: u32,
    /// Enrolment and certificates of hosts.
    pub enrolment: Enrolment,
    /// What is kept of the audit log.
    pub audit: AuditRetention,
    /// For how long ended operations are kept.
    pub operations_kept: Duration,
    /// For how long hosts keep what they have delivered.
    pub kept_on_hosts: Duration,
    /// Where the mirrors of the inventory repositories are.
    pub mirrors: PathBuf,
    /// Where inventory repositories may be.
    pub reach: Reach,
}

/// Enrolment and certificates of hosts.
#[derive(Debug, Clone)]
pub struct Enrolment {
    /// How long a token is good when its maker does not say.
    pub token_lifetime: Duration,
    /// Attempts per minute from one address; above it they are refused unseen.
    pub attempts_per_minute: u32,
    /// How long a host's certificate is valid. Agents renew at two thirds.
    pub certificate_lifetime: Duration,
}

/// What is kept of the audit log.
#[derive(Debug, Clone)]
pub struct AuditRetention {
    /// Events older than this are removed.
    pub age: Duration,
    /// Above about this many bytes of events the oldest are removed.
    pub size: u64,
}
