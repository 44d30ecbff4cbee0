//! Kinds of action: what a run does on its host.
//!
//! An action travels as its kind and its parameters in JSON ([`ActionRequest`]), so that the controller, its
//! store, the CLI and the console stay generic, and so that an agent that does not know a kind can say which.
//! [`Action`] is the parsed form that the agent executes.
//!
//! To add a kind: a file beside `script.rs` that implements [`Contract`], one `mod`, one variant and one arm
//! here. `docs/architecture.md` has the whole list.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::time::Duration;

use crate::name::ResourceName;

pub mod script;

/// What every kind of action must declare.
pub trait Contract: Serialize + DeserializeOwned {
    /// The kind's name on the wire and in the store. Never reused.
    const KIND: &'static str;
    /// Whether executing it twice has the effect of executing it once.
    const IDEMPOTENT: bool;
    /// How long a run of this kind may take when the request does not say.
    const DEFAULT_TIMEOUT: Duration;

    /// The resources that no other run may hold at the same time.
    fn resources(&self) -> &[ResourceName];

    /// Checks what serde cannot: limits and combinations. Pure.
    ///
    /// # Errors
    /// The first rule that the parameters break, in words for the person who wrote them.
    fn validate(&self) -> Result<(), String>;
}

/// An action as it travels and as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionRequest {
    /// [`Contract::KIND`] of the action.
    pub kind: String,
    /// The parameters as JSON text.
    pub params: String,
}

/// A parsed action.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Run an enrolled bash script.
    Script(script::Script),
}

/// Why an [`ActionRequest`] is not an [`Action`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAction {
    /// This build knows no such kind.
    #[error("unsupported kind of action `{kind}`")]
    Unsupported {
        /// The kind asked for.
        kind: String,
    },
    /// The parameters do not fit the kind.
    #[error("invalid parameters for `{kind}`: {detail}")]
    Malformed {
        /// The kind asked for.
        kind: String,
        /// What is wrong with them.
        detail: String,
    },
}

/// Every kind this build knows, in a stable order.
pub const KINDS: &[&str] = &[script::Script::KIND];

impl Action {
    /// Parses and validates a request.
    ///
    /// # Errors
    /// [`InvalidAction::Unsupported`] for an unknown kind, [`InvalidAction::Malformed`] for bad parameters.
    pub fn parse(request: &ActionRequest) -> Result<Self, InvalidAction> {
        match request.kind.as_str() {
            script::Script::KIND => parse(request).map(Self::Script),
            kind => Err(InvalidAction::Unsupported { kind: kind.chars().take(64).collect() }),
        }
    }

    /// The resources that no other run may hold at the same time.
    #[must_use]
    pub fn resources(&self) -> &[ResourceName] {
        match self {
            Self::Script(script) => script.resources(),
        }
    }
}

impl ActionRequest {
    /// The request that carries `params`.
    ///
    /// # Errors
    /// [`InvalidAction::Malformed`] if the parameters do not validate.
    pub fn new<C: Contract>(params: &C) -> Result<Self, InvalidAction> {
        let malformed = |detail| InvalidAction::Malformed { kind: C::KIND.to_owned(), detail };
        params.validate().map_err(malformed)?;
        let params = serde_json::to_string(params).map_err(|error| malformed(error.to_string()))?;
        Ok(Self { kind: C::KIND.to_owned(), params })
    }
}

fn parse<C: Contract>(request: &ActionRequest) -> Result<C, InvalidAction> {
    let malformed = |detail| InvalidAction::Malformed { kind: C::KIND.to_owned(), detail };
    let params: C = serde_json::from_str(&request.params).map_err(|error| malformed(error.to_string()))?;
    params.validate().map_err(malformed)?;
    Ok(params)
}
