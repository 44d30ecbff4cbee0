//! The inventory repository and its synchronisations.

use fleetward_protocol::id::SyncId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::time::Time;

/// `GET /repo`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Repo {
    /// Where it is; user information is removed.
    pub url: String,
    /// The branch followed.
    pub branch: String,
    /// How it is authenticated.
    pub credentials: CredentialKind,
    /// Minutes between synchronisations; 0 means on demand only.
    pub interval_minutes: u32,
    /// The inventory in force; absent while none is.
    pub in_force: Option<InForce>,
    /// The last attempt with this URL and branch, good or not.
    pub last_sync: Option<Sync>,
}

/// The inventory in force, and where it came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InForce {
    /// The repository; another one than is set, until the one that is set was synchronised.
    pub url: String,
    /// Its branch.
    pub branch: String,
    /// The commit.
    pub commit: String,
    /// Since when.
    pub since: Time,
}

/// `POST /repo/sync`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct SyncRequest {
    /// The commit of a synchronisation that is `waiting`: what it takes away is accepted. Another commit needs an
    /// acceptance of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accept: Option<String>,
}

/// How a repository is authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CredentialKind {
    /// Not at all.
    None,
    /// User and password or token over HTTPS.
    Password,
    /// A private key over SSH.
    SshKey,
}

/// `PUT /repo`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RepoUpdate {
    /// `https://…`, `ssh://…`, `user@host:path`, or `file:///…`.
    pub url: String,
    /// The branch to follow; `main` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// Minutes between synchronisations; 15 when absent, 0 for on demand only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval_minutes: Option<u32>,
    /// Replaces the credentials; absent keeps those stored if the URL's host stays the same, and drops them otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Credentials>,
}

/// What authenticates a repository. Kept encrypted, never returned.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Credentials {
    /// Nothing.
    None,
    /// Over HTTPS.
    Password {
        /// User; `git` or anything else for most token schemes.
        username: String,
        /// Password or token.
        password: String,
    },
    /// Over SSH.
    SshKey {
        /// The private key, OpenSSH or PEM text.
        private_key: String,
        /// Its passphrase.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        passphrase: Option<String>,
        /// The server's key as a `known_hosts` line or a `SHA256:` fingerprint; when absent the first one seen
        /// is recorded and required from then on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        host_key: Option<String>,
    },
}

/// One synchronisation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Sync {
    /// Its id.
    #[schema(value_type = String)]
    pub id: SyncId,
    /// Whether it took.
    pub status: SyncStatus,
    /// The repository it asked.
    pub url: String,
    /// The branch.
    pub branch: String,
    /// When it began.
    pub started_at: Time,
    /// When it ended.
    pub ended_at: Option<Time>,
    /// Who or what asked for it.
    pub triggered_by: String,
    /// The commit it read.
    pub commit: Option<String>,
    /// What failed before any file was read: the remote, the branch, the credentials.
    pub error: Option<String>,
    /// What is wrong in the files. The last good inventory stays in force.
    pub problems: Vec<Problem>,
    /// What is odd in the files, and was taken all the same.
    pub warnings: Vec<Problem>,
    /// What changed.
    pub changes: SyncChanges,
    /// Hosts that the commit has.
    pub hosts: u32,
    /// Scripts that the commit has.
    pub scripts: u32,
    /// What the commit takes away, while it is `waiting` to be accepted.
    pub departures: Option<Departures>,
}

/// What a commit takes away if it is accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Departures {
    /// Hosts that are retired, or lose the identity they enrolled with.
    pub hosts: Leaving,
    /// Scripts that are retired.
    pub scripts: Leaving,
}

/// What leaves, of how many.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Leaving {
    /// The first 200 names.
    pub names: Vec<String>,
    /// How many leave.
    pub count: u32,
    /// How many are in force.
    pub of: u32,
}

/// How a synchronisation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SyncStatus {
    /// Not yet.
    Running,
    /// The commit is in force.
    Succeeded,
    /// Nothing changed.
    Failed,
    /// Nothing changed: the commit takes so much away that a person has to accept it first.
    Waiting,
}

/// Something wrong in a file of the repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// The file, from the repository's root.
    pub file: String,
    /// The line, from 1.
    pub line: Option<u32>,
    /// The field, such as `links.web-1.port`.
    pub field: Option<String>,
    /// What is wrong and what is expected.
    pub message: String,
}

/// What a synchronisation changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct SyncChanges {
    /// Hosts that are new or back.
    pub hosts_added: u32,
    /// Hosts whose entry differs.
    pub hosts_changed: u32,
    /// Hosts that left.
    pub hosts_retired: u32,
    /// Scripts that are new or back.
    pub scripts_added: u32,
    /// Scripts whose entry or content differs.
    pub scripts_changed: u32,
    /// Scripts that left.
    pub scripts_retired: u32,
}
