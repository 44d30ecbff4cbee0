//! What an operation asks for, as the store keeps it, and the orders that are made of it.
//!
//! An order is a function of what is stored: made again after a restart, it has the same bytes.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use fleetward_protocol::action::script::Script;
use fleetward_protocol::action::{Action, ActionRequest, InvalidAction};
use fleetward_protocol::client_id::ClientId;
use fleetward_protocol::digest::Digest;
use fleetward_protocol::id::{OperationId, RunId};
use fleetward_protocol::order::{Limits, Order};
use fleetward_protocol::time::Timestamp;
use fleetward_protocol::wire::EncodeError;
use fleetward_store::work::operation::{self, Operation};
use fleetward_store::work::{run, script};
use fleetward_store::{Connection, StoreError};
use serde::{Deserialize, Serialize};

use super::fleet::PreparedDispatch;
use crate::secret::{SecretBox, SecretError};

/// The longest value of a variable that is shown as it is; of a longer one, its digest is.
const MAX_SHOWN: usize = 256;

/// What an operation asks for. Its runs' environment is kept apart, sealed; here is what may be shown of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// What each host does, in this order.
    pub steps: Vec<Step>,
    /// The variables that were given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub environment: Vec<ShownVariable>,
    /// How many hosts were left out because they are not enrolled.
    #[serde(default)]
    pub left_out: u32,
    /// Why, in the words of whoever asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A variable as it may be shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownVariable {
    /// Its name.
    pub name: String,
    /// Its value, or the digest of it.
    #[serde(flatten)]
    pub value: ShownValue,
    /// Whether every script declares it.
    pub declared: bool,
}

/// The value of a variable as it may be shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShownValue {
    /// It is declared, and not as a secret.
    Value(String),
    /// It may be a secret: the same value has the same digest, which tells nothing else.
    Digest(Digest),
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
    /// The environment cannot be opened, or is none.
    #[error("read the stored environment of operation {operation}")]
    Environment {
        /// The operation.
        operation: OperationId,
        /// Why.
        #[source]
        source: SealedError,
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

/// Why a sealed environment cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SealedError {
    /// It was sealed with another key, or cannot be sealed.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// What was sealed is no environment.
    #[error("it is no environment")]
    Malformed(#[from] serde_json::Error),
    /// The action does not take it.
    #[error(transparent)]
    Action(#[from] InvalidAction),
}

/// Seals the environment of an operation's runs, so that it opens for this operation only; nothing if it is empty.
///
/// # Errors
/// [`SealedError::Secret`] if it cannot be sealed.
pub fn seal_environment(
    secrets: &SecretBox,
    id: OperationId,
    environment: &BTreeMap<String, String>,
) -> Result<Option<Vec<u8>>, SealedError> {
    if environment.is_empty() {
        return Ok(None);
    }
    Ok(Some(secrets.seal(&purpose(id), &serde_json::to_vec(environment)?)?))
}

/// A variable as it may be shown.
#[must_use]
pub fn shown(secrets: &SecretBox, name: &str, value: &str, openness: Openness) -> ShownVariable {
    let value = match openness {
        Openness::Public if value.len() <= MAX_SHOWN => ShownValue::Value(value.to_owned()),
        _ => ShownValue::Digest(secrets.digest("operation.variable", value.as_bytes())),
    };
    ShownVariable { name: name.to_owned(), value, declared: openness != Openness::Undeclared }
}

/// What is known of a variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Openness {
    /// Every script declares it, and none as a secret.
    Public,
    /// Every script declares it, one of them as a secret.
    Secret,
    /// Some script does not declare it: what it holds, nobody said.
    Undeclared,
}

fn purpose(id: OperationId) -> String {
    format!("operation.environment {id}")
}

async fn open_environment(
    conn: &mut Connection,
    secrets: &SecretBox,
    id: OperationId,
) -> Result<Option<BTreeMap<String, String>>, OrderError> {
    let Some(sealed) = operation::find_environment(conn, id).await? else { return Ok(None) };
    let failed = |source| OrderError::Environment { operation: id, source };
    let plain = secrets.open(&purpose(id), &sealed).map_err(|error| failed(error.into()))?;
    serde_json::from_slice(&plain).map(Some).map_err(|error| failed(error.into()))
}

/// The action with another environment. One that this build does not understand stays as it is.
///
/// # Errors
/// [`InvalidAction`] if the action does not take it.
pub fn with_environment(
    action: ActionRequest,
    environment: BTreeMap<String, String>,
) -> Result<ActionRequest, InvalidAction> {
    match Action::parse(&action) {
        Ok(Action::Script(script)) => ActionRequest::new(&Script { environment, ..script }),
        Ok(_) | Err(_) => Ok(action),
    }
}

/// Loads the steps of an operation with their content and environment.
///
/// # Errors
/// If the request cannot be read, its environment not opened, or content is not in the store.
pub async fn load_steps(
    conn: &mut Connection,
    secrets: &SecretBox,
    operation: &Operation,
) -> Result<Vec<LoadedStep>, OrderError> {
    let mut contents: HashMap<Digest, Bytes> = HashMap::new();
    let mut loaded = Vec::new();
    let request = Request::of(operation)?;
    let environment = match request.environment.is_empty() {
        true => None,
        false => open_environment(conn, secrets, operation.id).await?,
    };
    for mut step in request.steps {
        if let Some(environment) = &environment {
            step.action = with_environment(step.action, environment.clone())
                .map_err(|error| OrderError::Environment { operation: operation.id, source: error.into() })?;
        }
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
            Ok(_) | Err(_) => Bytes::new(),
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
