//! What an operation asks for, as the store keeps it, and the orders that are made of it.
//!
//! An order is a function of what is stored: made again after a restart, it has the same bytes.

use std::collections::HashMap;

use bytes::Bytes;
use fleetward_protocol::action::{Action, ActionRequest};
use fleetward_protocol::client_id::ClientId;
use fleetward_protocol::digest::Digest;
use fleetward_protocol::id::{OperationId, RunId};
use fleetward_protocol::order::{Limits, Order};
use fleetward_protocol::time::Timestamp;
use fleetward_protocol::wire::EncodeError;
use serde::{Deserialize, Serialize};

use super::fleet::PreparedDispatch;
use crate::store::operation::Operation;
use crate::store::{Connection, StoreError, run, script};

/// What an operation asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// What each host does, in this order.
    pub steps: Vec<Step>,
    /// Why, in the words of whoever asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// One step on each host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What to do.
    pub action: ActionRequest,
    /// What it may use.
    pub limits: Limits,
}

/// A step with the content its orders travel with.
#[derive(Debug, Clone)]
pub struct LoadedStep {
    step: Step,
    content: Bytes,
}

/// Why an operation's orders cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// The stored request is not one.
    #[error("the stored request of operation {operation} cannot be read")]
    Request {
        /// The operation.
        operation: OperationId,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A run's step is not among the request's.
    #[error("operation {operation} has no step {step}")]
    NoStep {
        /// The operation.
        operation: OperationId,
        /// The step.
        step: u32,
    },
    /// The order is larger than one may be.
    #[error("encode the order")]
    Encode(#[from] EncodeError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Request {
    /// Reads an operation's request.
    ///
    /// # Errors
    /// If the stored text is not a request.
    pub fn of(operation: &Operation) -> Result<Self, OrderError> {
        serde_json::from_str(&operation.request)
            .map_err(|source| OrderError::Request { operation: operation.id, source })
    }

    /// The text the store keeps.
    #[must_use]
    pub fn to_stored(&self) -> String {
        // Strings, numbers and lists: nothing that JSON could not hold.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// Loads the steps of an operation with their content.
///
/// # Errors
/// If the request cannot be read, or content is not in the store.
pub async fn load_steps(conn: &mut Connection, operation: &Operation) -> Result<Vec<LoadedStep>, OrderError> {
    let mut contents: HashMap<Digest, Bytes> = HashMap::new();
    let mut loaded = Vec::new();
    for step in Request::of(operation)?.steps {
        let content = match Action::parse(&step.action) {
            Ok(Action::Script(params)) => match contents.get(&params.digest) {
                Some(content) => content.clone(),
                None => {
                    let content = Bytes::from(script::get_content(conn, &params.digest).await?);
                    contents.insert(params.digest, content.clone());
                    content
                }
            },
            // The host refuses what it does not understand, and says so.
            Err(_) => Bytes::new(),
        };
        loaded.push(LoadedStep { step, content });
    }
    Ok(loaded)
}

/// Whom an order is for.
#[derive(Debug, Clone, Copy)]
pub struct Addressee<'a> {
    /// The run.
    pub run: RunId,
    /// Its operation.
    pub operation: OperationId,
    /// The only host that may carry it out.
    pub client: &'a ClientId,
    /// Which of the operation's steps.
    pub step: u32,
    /// Not started after this.
    pub deadline: Timestamp,
}

/// Makes the order of a run.
///
/// # Errors
/// If there is no such step, or the order is too large.
pub fn prepare(steps: &[LoadedStep], to: Addressee<'_>) -> Result<PreparedDispatch, OrderError> {
    let missing = OrderError::NoStep { operation: to.operation, step: to.step };
    let loaded = usize::try_from(to.step).ok().and_then(|step| steps.get(step)).ok_or(missing)?;
    let order = Order {
        run: to.run,
        operation: to.operation,
        client: to.client.clone(),
        action: loaded.step.action.clone(),
        deadline: to.deadline,
        limits: loaded.step.limits,
    };
    Ok(PreparedDispatch { order: order.encode()?, content: loaded.content.clone(), deadline: to.deadline })
}

/// Whom the order of a stored run is for.
#[must_use]
pub fn addressee(run: &run::Run, deadline: Timestamp) -> Addressee<'_> {
    Addressee { run: run.id, operation: run.operation, client: &run.client_id, step: run.step, deadline }
}
