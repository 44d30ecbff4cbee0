//! A kind of action that no host has and no other code names: whatever deals with kinds must deal with it too.

use std::time::Duration;

use fleetward_protocol::action::{Actor, Contract, Needs, Privilege};
use fleetward_protocol::object::{Class, Object};
use fleetward_protocol::text::{Text, Word};
use serde::{Deserialize, Serialize};

/// Parameters of the kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Levitate {
    /// In metres, 100 at most.
    pub height: u32,
}

/// What it tells when it ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LevitateReport {
    /// The height that was reached.
    pub reached: u32,
}

impl Contract for Levitate {
    const KIND: &'static str = "levitate";
    const SUMMARY: &'static str = "Lift the host off the ground.";
    const IDEMPOTENT: bool = true;
    const RESUMABLE: bool = true;
    const REHEARSES: bool = true;
    const OBJECTS: &'static [Class] = &[];
    const DEFAULT_TIMEOUT: Duration = Duration::from_secs(7);
    const PRIVILEGE: Privilege = Privilege::Administer;

    type Asked = Self;
    type Report = LevitateReport;

    fn subject(&self) -> Word {
        Text::of(format_args!("to {} m", self.height))
    }

    fn needs(&self) -> Needs {
        Needs { actor: Actor::Root, resources: Vec::new(), contents: Vec::new() }
    }

    fn touches(&self) -> Vec<Object> {
        Vec::new()
    }

    fn validate(&self) -> Result<(), String> {
        if self.height > 100 {
            Err(format!("{} m is too high, 100 m are allowed", self.height))
        } else {
            Ok(())
        }
    }
}
