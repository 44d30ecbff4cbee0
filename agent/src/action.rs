//! How each kind of action is carried out: from a parsed action to the [`Plan`] of one process.
//!
//! To add a kind: a file beside `script.rs`, one `mod` and one arm here.

pub mod script;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use fleetward_protocol::action::{Action, InvalidAction};
use fleetward_protocol::name::ResourceName;
use fleetward_protocol::order::Order;
use fleetward_protocol::run::Refusal;
use fleetward_protocol::text::Text;

use crate::platform::users::Account;

/// One process to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The executable, by absolute path.
    pub program: String,
    /// Its argv; where [`Argument::Script`] stands, the path of the run's script file goes.
    pub arguments: Vec<Argument>,
    /// Its whole environment.
    pub environment: BTreeMap<String, String>,
    /// The names of those variables that the request set: what the host's policy is asked about.
    pub requested: BTreeSet<String>,
    /// Where it starts.
    pub directory: PathBuf,
    /// The account to become; `None` to stay the agent's own.
    pub account: Option<Account>,
    /// Resources it holds while it runs.
    pub resources: Vec<ResourceName>,
}

/// One element of an argv.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Argument {
    /// As it stands.
    Text(String),
    /// The path of the file that holds the order's content.
    Script,
}

/// How the order's action is carried out with this content, by a host where `own` is the agent's account.
///
/// # Errors
/// The reason why it cannot be.
pub fn plan(order: &Order, content: &[u8], own: &Account) -> Result<Plan, Refusal> {
    match Action::parse(&order.action) {
        Ok(Action::Script(script)) => script::plan(order, &script, content, own),
        Err(InvalidAction::Unsupported { kind }) => Err(Refusal::Unsupported { kind: Text::of(&kind) }),
        Err(error @ InvalidAction::Malformed { .. }) => Err(Refusal::Malformed { detail: Text::of(error) }),
    }
}
