//! The orders of an operation.
//!
//! The bytes of plan, steps and proofs are made once, at planning. An order is put together of them; it is the same whoever
//! does it, and whenever.

use std::collections::HashMap;

use bytes::Bytes;
use fleetward_protocol::client_id::ClientId;
use fleetward_protocol::digest::Digest;
use fleetward_protocol::id::OperationId;
use fleetward_protocol::order::{self, MAX_STEPS, Proof, Sealed, Target};
use fleetward_protocol::run::Refusal;
use fleetward_protocol::text::{List, Text};
use fleetward_protocol::time::Timestamp;
use fleetward_protocol::wire::{DecodeError, EncodeError};
use fleetward_store::fleet::script;
use fleetward_store::work::{operation, step};
use fleetward_store::{Connection, StoreError};

use crate::fleet::online::PreparedDispatch;
use crate::secret::{SecretBox, SecretError};

/// What the orders of an operation are made of: what was planned, and the contents that its steps name.
#[derive(Debug, Clone)]
pub struct Orders {
    plan: Vec<u8>,
    not_before: Timestamp,
    deadline: Timestamp,
    digests: List<Digest, MAX_STEPS>,
    steps: Vec<LoadedStep>,
}

/// A step as it is sent.
#[derive(Debug, Clone)]
struct LoadedStep {
    bytes: Vec<u8>,
    contents: Vec<Bytes>,
}

/// Why an operation's orders cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// A run's step is not among the operation's.
    #[error("operation {operation} has no step {step}")]
    NoStep {
        /// The operation.
        operation: OperationId,
        /// The step.
        step: u32,
    },
    /// A step cannot be opened: the key of this controller is another one than that it was planned with.
    #[error("open what was planned for step {step}")]
    Sealed {
        /// The step, from 0.
        step: u32,
        /// Why.
        #[source]
        source: SecretError,
    },
    /// What was planned is not what this controller can read.
    #[error("read what was planned")]
    Planned(#[from] DecodeError),
    /// The operation's policy is none that this build can read. Nothing is started by a policy that is guessed.
    #[error(
        "read the policy of the operation ({detail}); stop it, or let the version that wrote it carry it out"
    )]
    Policy {
        /// Why.
        detail: String,
    },
    /// A content that a step names is not in the store.
    #[error("the content {} of step {step} is not in the store", .digest.short())]
    NoContent {
        /// The step, from 0.
        step: u32,
        /// The content.
        digest: Digest,
    },
    /// The order is larger than one may be.
    #[error("encode the order")]
    Encode(#[from] EncodeError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl OrderError {
    /// Whether trying again later is of no use: a run that waited for its order would wait for ever.
    #[must_use]
    pub const fn is_lasting(&self) -> bool {
        !matches!(self, Self::Store(_))
    }

    /// Why the host was never asked, in the run's words.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        let causes = std::iter::successors(std::error::Error::source(self), |error| error.source());
        let detail = causes.fold(self.to_string(), |text, cause| format!("{text}: {cause}"));
        Refusal::NotOrdered { detail: Text::of(detail) }
    }
}

/// Seals a step's bytes, so that they open as this step of this operation only.
///
/// # Errors
/// If they cannot be sealed.
pub fn seal_step(
    secrets: &SecretBox,
    operation: OperationId,
    step: u32,
    bytes: &[u8],
) -> Result<Vec<u8>, SecretError> {
    secrets.seal(&purpose(operation, step), bytes)
}

fn purpose(operation: OperationId, step: u32) -> String {
    format!("operation.step {operation} {step}")
}

impl Orders {
    /// Loads what was planned of an operation, with the contents that it names.
    ///
    /// # Errors
    /// If it cannot be read or opened, or a content is not in the store.
    pub async fn load(
        conn: &mut Connection,
        secrets: &SecretBox,
        operation: OperationId,
    ) -> Result<Self, OrderError> {
        let plan = operation::get_plan(conn, operation).await?;
        let sealed = step::list_sealed(conn, operation).await?;
        let mut contents: HashMap<Digest, Bytes> = HashMap::new();
        let mut steps = Vec::with_capacity(sealed.len());
        for (step, sealed) in (0..).zip(sealed) {
            let bytes = secrets
                .open(&purpose(operation, step), &sealed)
                .map_err(|source| OrderError::Sealed { step, source })?;
            let mut named = Vec::new();
            for digest in &order::Step::decode(&bytes)?.contents {
                let content = match contents.get(digest) {
                    Some(content) => content.clone(),
                    None => {
                        let found = script::find_content(conn, digest).await?;
                        Bytes::from(found.ok_or(OrderError::NoContent { step, digest: *digest })?)
                    }
                };
                contents.insert(*digest, content.clone());
                named.push(content);
            }
            steps.push(LoadedStep { bytes, contents: named });
        }
        let order::Plan { not_before, deadline, .. } = order::Plan::decode(&plan)?;
        let digests = List::of(steps.iter().map(|step| Digest::of(&step.bytes)));
        Ok(Self { plan, not_before, deadline, digests, steps })
    }

    /// The order of a host for one of the steps, with the proof that was stored for its run.
    ///
    /// # Errors
    /// If there is no such step, or the proof is none.
    pub fn prepare(
        &self,
        operation: OperationId,
        client: &ClientId,
        step: u32,
        proof: &[u8],
    ) -> Result<PreparedDispatch, OrderError> {
        let missing = OrderError::NoStep { operation, step };
        let loaded = usize::try_from(step).ok().and_then(|step| self.steps.get(step)).ok_or(missing)?;
        let order = Sealed {
            plan: self.plan.clone(),
            signatures: List::default(),
            target: Target { client: client.clone(), steps: self.digests.clone() },
            proof: Proof::decode(proof)?,
            position: step,
            step: loaded.bytes.clone(),
        };
        Ok(PreparedDispatch {
            order: order.encode()?,
            contents: loaded.contents.clone(),
            not_before: self.not_before,
            deadline: self.deadline,
        })
    }
}
