//! Scripts from the inventory repository.

use fleetward_protocol::digest::Digest;
use fleetward_protocol::name::{LinuxUser, ResourceName, ScriptName, Tag};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::time::Time;

/// A script that can be run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Script {
    /// Its id in `scripts.yaml`.
    #[schema(value_type = String)]
    pub name: ScriptName,
    /// What people call it.
    pub title: String,
    /// What it does.
    pub description: String,
    /// A pictogram; may be empty.
    pub emoji: String,
    /// Its file in the repository.
    pub path: String,
    /// SHA-256 of its content: what a run names.
    #[schema(value_type = String)]
    pub digest: Digest,
    /// Its size, in bytes.
    pub size: u64,
    /// The flags it takes: if there are any, no others.
    pub flags: Vec<Flag>,
    /// Whether it takes arguments beside its flags. Without flags it then takes anything.
    pub free_arguments: bool,
    /// The environment variables it takes.
    pub environment: Vec<ScriptVariable>,
    /// How long it takes, in seconds, by its author's word.
    pub estimated_duration_s: Option<u32>,
    /// Its own time limit, in seconds.
    pub timeout_s: Option<u32>,
    /// As whom it runs; root when absent.
    #[schema(value_type = Option<String>)]
    pub user: Option<LinuxUser>,
    /// As whom else it may be run.
    #[schema(value_type = Vec<String>)]
    pub users: Vec<LinuxUser>,
    /// Resources no other run may hold meanwhile.
    #[schema(value_type = Vec<String>)]
    pub resources: Vec<ResourceName>,
    /// Labels.
    #[schema(value_type = Vec<String>)]
    pub tags: Vec<Tag>,
    /// The commit it was read from.
    pub commit: String,
    /// When that was.
    pub synced_at: Time,
}

/// An argument a script offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Flag {
    /// The literal argument, such as `--dry-run` or `--keep`.
    pub flag: String,
    /// The value when the user gives none, for flags of the form `--option=value`.
    pub default: Option<String>,
    /// Whether it must be given, with a value (`--option=REQUIRED`).
    pub requires_value: bool,
}

/// An environment variable a script takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScriptVariable {
    /// Its name.
    pub name: String,
    /// What it is for; may be empty.
    pub description: String,
    /// Whether it has to be given.
    pub required: bool,
    /// Whether its value is shown to nobody.
    pub secret: bool,
}

/// `GET /scripts/{name}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScriptDetail {
    /// The script.
    pub script: Script,
    /// Its text. Invalid UTF-8 is shown as U+FFFD.
    pub content: String,
}
