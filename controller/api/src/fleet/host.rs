//! Hosts.

use std::collections::BTreeMap;
use std::net::IpAddr;

use fleetward_protocol::client_id::ClientId;
use fleetward_protocol::facts::{Facts, Upkeep};
use fleetward_protocol::id::HostId;
use fleetward_protocol::name::{HostName, Tag, TenantName};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::time::Time;

/// A managed machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Host {
    /// Its row.
    #[schema(value_type = String)]
    pub id: HostId,
    /// Its name, unique in the tenant.
    #[schema(value_type = String)]
    pub name: HostName,
    /// Whose it is.
    #[schema(value_type = String)]
    pub tenant: TenantName,
    /// Its identity towards the fleet.
    #[schema(value_type = String)]
    pub client_id: ClientId,
    /// `VPS`, `VM`, `LXC`, `Proxmox`, `Metal` or any other word.
    #[serde(rename = "type")]
    pub kind: String,
    /// Who runs the machine; may be empty.
    pub provider: String,
    /// Labels.
    #[schema(value_type = Vec<String>)]
    pub tags: Vec<Tag>,
    /// Where the entry comes from; only the other side may change it.
    pub source: Source,
    /// Whether it is in the inventory in force.
    pub lifecycle: Lifecycle,
    /// Whether it is bound to its client ID and key.
    pub enrolment: Enrolment,
    /// Whether its agent is connected.
    pub status: Status,
    /// Connected since, or last connected until.
    pub status_since: Option<Time>,
    /// When something was last heard of it.
    pub last_seen: Option<Time>,
    /// Round-trip time of its connection, in milliseconds; absent while offline.
    pub latency_ms: Option<f64>,
    /// How far its clock is ahead of the controller's, in milliseconds.
    pub clock_skew_ms: Option<i64>,
    /// The agent's package version.
    pub agent_version: Option<String>,
    /// What the agent reports of the machine.
    pub facts: Option<Facts>,
    /// What the machine needs of those who look after it, as far as its agent tells.
    #[serde(default)]
    pub upkeep: Option<Upkeep>,
    /// How the machine is reached by SSH where it has no agent; from `links.yaml`.
    pub ssh: Option<Ssh>,
    /// Free-form data from `links.yaml`.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, Object>)]
    pub metadata: BTreeMap<String, serde_json::Value>,
    /// The latest thing the agent wanted an operator to know.
    pub notice: Option<String>,
    /// Present while two machines use the host's identity and take the connection from each other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duplicate_identity: Option<DuplicateIdentity>,
    /// Since when the inventory has it.
    pub created_at: Time,
}

/// One identity on two machines, such as a copied disk image makes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DuplicateIdentity {
    /// Both machines; the one that connected last is the second.
    pub machines: Vec<Machine>,
    /// Since when it is known.
    pub since: Time,
    /// When the one last took over from the other. It is over 15 minutes later.
    pub at: Time,
    /// How often, as far as it was counted.
    pub changes: u64,
    /// What to do about it.
    pub remedy: String,
}

/// One of the machines that use one identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Machine {
    /// From where it connected last.
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// Its boot; containers of one machine have the same.
    pub boot_id: String,
    /// The life of its agent's journal; copies have the same.
    pub journal_id: String,
    /// When it first connected.
    pub first_seen: Time,
    /// When it last connected.
    pub last_seen: Time,
}

/// Where a host's entry comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The inventory repository.
    Git,
    /// The API.
    Api,
    /// The host enrolled itself with an unbound token.
    Agent,
}

/// Whether a host is in the inventory in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Lifecycle {
    /// It is.
    Active,
    /// It left; its history stays.
    Retired,
}

/// Whether a host is bound to its client ID and key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Enrolment {
    /// No agent has enrolled yet.
    Pending,
    /// Its agent holds a certificate.
    Enrolled,
    /// Its agent holds a certificate, and nothing is dispatched until a person approves it.
    Quarantined,
    /// Its certificates were revoked.
    Revoked,
}

/// Whether a host's agent is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It is.
    Online,
    /// Nothing was heard of it for ten seconds, or ever.
    Offline,
}

/// How a machine is reached by SSH.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Ssh {
    /// Name or address.
    pub address: String,
    /// TCP port.
    pub port: u16,
    /// Account.
    pub user: String,
    /// The key's file name under the keys directory.
    pub key_ref: Option<String>,
    /// The host to jump through.
    #[schema(value_type = Option<String>)]
    pub proxy_jump: Option<HostName>,
}

/// `GET /hosts`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct HostQuery {
    /// Only hosts of this type.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    #[param(rename = "type")]
    pub kind: Option<String>,
    /// Only hosts in this status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(inline)]
    pub status: Option<Status>,
    /// Only hosts in this state of enrolment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(inline)]
    pub enrolment: Option<Enrolment>,
    /// Only hosts with all these labels, separated by commas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Only hosts whose name, address, system or provider contains this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<String>,
    /// A target expression; only hosts it selects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<String>,
    /// `active` (when absent), `retired` or `all`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifecycle: Option<String>,
    /// The column to sort by: `name` (when absent), `type`, `status`, `last-seen`, `latency`, `enrolment`,
    /// `provider`, `os`, `created`; with a leading `-` in descending order. Ties are broken by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sort: Option<String>,
    /// Rows at most: 1 to 1000, 100 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// `POST /hosts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HostCreate {
    /// Its name.
    #[schema(value_type = String)]
    pub name: HostName,
    /// Its client ID, where it has one already; a new one is issued when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub client_id: Option<ClientId>,
    /// `VPS`, `VM`, `LXC`, `Proxmox`, `Metal` or any other word.
    #[serde(rename = "type")]
    pub kind: String,
    /// Who runs the machine.
    #[serde(default)]
    pub provider: String,
    /// Labels.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub tags: Vec<Tag>,
}

/// `PATCH /hosts/{name}`: absent fields stay.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct HostUpdate {
    /// The new type.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The new provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The new labels, all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub tags: Option<Vec<Tag>>,
}

/// The answer to `POST /hosts`.
#[derive(Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HostCreated {
    /// The new host.
    pub host: Host,
    /// How its agent enrols; its fields stand beside the host, as in the other answers that hold a token.
    #[serde(flatten)]
    pub token: EnrolToken,
}

/// A single-use enrolment token. Shown only here.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EnrolToken {
    /// What the agent is given.
    pub token: String,
    /// Where the agent connects to: `name:port`.
    pub controller: String,
    /// The command to run on the host, whole.
    pub command: String,
    /// When the token stops working.
    pub expires_at: Time,
}

/// `POST /hosts/{name}/token` and `POST /enrolment-tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct TokenCreate {
    /// Seconds until it expires: 60 to 604800, 86400 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime_s: Option<u32>,
}

/// The answer to `POST /hosts/{name}/verify`: what the host's own client-ID file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Verification {
    /// Whether the host is enrolled and its file names the same client ID as the inventory.
    pub enrolled: bool,
    /// Whether the file exists and holds a client ID.
    pub client_id_found: bool,
    /// Whether it is the one in the inventory.
    pub client_id_matches: bool,
    /// Why it is not enrolled; absent when it is.
    pub error: Option<String>,
    /// When it was looked at.
    pub verified_at: Time,
}
