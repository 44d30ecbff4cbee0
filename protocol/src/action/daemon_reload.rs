//! Have systemd read all its files again.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Actor, Contract, Needs, Privilege};
use crate::object::{Class, Object};
use crate::text::{Text, Word};

/// A daemon-reload action takes no parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct DaemonReload {}

/// What a daemon-reload action tells when it ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct DaemonReloadReport {
    /// Whether systemd has read its files again; not if it did when the host restarted meanwhile.
    pub changed: bool,
}

impl Contract for DaemonReload {
    const KIND: &'static str = "daemon-reload";
    const SUMMARY: &'static str = "Have systemd read all unit files again.";
    const IDEMPOTENT: bool = true;
    const RESUMABLE: bool = true;
    const REHEARSES: bool = true;
    const OBJECTS: &'static [Class] = &[];
    const DEFAULT_TIMEOUT: Duration = Duration::from_secs(120);
    const PRIVILEGE: Privilege = Privilege::Operate;

    type Asked = Self;
    type Report = DaemonReloadReport;

    fn subject(&self) -> Word {
        Text::of(Self::KIND)
    }

    fn needs(&self) -> Needs {
        Needs { actor: Actor::Root, resources: Vec::new(), contents: Vec::new() }
    }

    fn touches(&self) -> Vec<Object> {
        Vec::new()
    }

    fn validate(&self) -> Result<(), String> {
        Ok(())
    }
}
