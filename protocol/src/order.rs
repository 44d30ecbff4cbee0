//! Plans and orders: who may do what, where, and until when.
//!
//! A *plan* is one request as it was decided: which operation, on whose behalf, when, and, by one digest, which steps on
//! which hosts. It is what an operator signs: one signature is good for ten thousand hosts. An *order* is what one host
//! receives for one run: the plan's head, the step, and the proof that the plan means this host and this step.
//!
//! The bytes of plan and steps are made once, at planning; they are stored and sent as they are, so a signature over
//! them means the same on both ends. A run's id follows from them ([`RunId::derived`]), so whoever plans the same twice,
//! after a database lost an acknowledged commit, makes the same runs, and no host starts them twice.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::action::ActionRequest;
use crate::client_id::ClientId;
use crate::digest::Digest;
use crate::id::{OperationId, RunId};
use crate::merkle::{self, Tree};
use crate::text::{List, Word};
use crate::time::Timestamp;
use crate::wire::{self, DecodeError, EncodeError};

/// The largest encoded step, in bytes.
pub const MAX_STEP: usize = 1 << 20;
/// The most steps on one host.
pub const MAX_STEPS: usize = 32;
/// The most contents that a step names.
pub const MAX_CONTENTS: usize = 16;
/// The most bytes of all the contents of a step together.
pub const MAX_CONTENTS_TOTAL: usize = 1 << 20;
/// The most limits of a step.
pub const MAX_LIMITS: usize = 16;
/// The most signatures beside a plan.
pub const MAX_SIGNATURES: usize = 16;
/// The largest signature, in bytes.
pub const MAX_SIGNATURE: usize = 4 << 10;
/// The largest encoded plan, in bytes.
const MAX_PLAN: usize = 4 << 10;
/// The largest encoded proof, in bytes.
const MAX_PROOF: usize = 2 << 10;
/// What an order has beside its step, at the most: plan, signatures, target, proof. So whatever step can be encoded makes
/// an order for every host.
const MAX_REST: usize = MAX_PLAN + MAX_SIGNATURES * (MAX_SIGNATURE + 16) + (8 << 10);
/// The largest encoded order, in bytes.
pub const MAX_ORDER: usize = MAX_STEP + MAX_REST;

/// One request, decided: the head of what every host of it receives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The operation. Its id is made once and never again, so a plan cannot be taken for another one.
    pub operation: OperationId,
    /// On whose behalf, for the host's log.
    pub issuer: Word,
    /// Not started before this.
    pub not_before: Timestamp,
    /// Not started after this.
    pub deadline: Timestamp,
    /// The digest of the rollout's policy.
    pub policy: Digest,
    /// How many hosts there are.
    pub targets: u32,
    /// The root of the tree ([`merkle`]) over the encoded [`Target`]s.
    pub root: Digest,
}

/// One host of a plan, and what it does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The only host that may carry it out.
    pub client: ClientId,
    /// The digests of its encoded [`Step`]s, in order.
    pub steps: List<Digest, MAX_STEPS>,
}

/// What a host does in one run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What is asked of it.
    pub authority: Authority,
    /// What it may use.
    pub limits: List<Limit, MAX_LIMITS>,
    /// Contents that come beside the order, by digest.
    pub contents: List<Digest, MAX_CONTENTS>,
}

/// What can be asked of a host: one of three things, or what one of them would change. Append-only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Authority {
    /// Change something: an action, carried out as a run.
    Run(ActionRequest),
    /// Look at something.
    Query(ActionRequest),
    /// Be there.
    Session(ActionRequest),
    /// Tell what an action would change, and change nothing; carried out as a run.
    Rehearse(ActionRequest),
}

/// One limit of what a run may use on its host. Append-only: a host that does not know a limit refuses the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Limit {
    /// Wall-clock time from start until its process tree is stopped, in milliseconds.
    TimeoutMs(u64),
    /// Time between SIGTERM and SIGKILL, in milliseconds.
    GraceMs(u64),
    /// Output kept, in bytes of both streams together; above it the middle is dropped and marked.
    Output(u64),
    /// Memory, in bytes.
    Memory(u64),
    /// CPU, in thousandths of one core.
    CpuMilli(u32),
    /// Processes and threads.
    Tasks(u32),
}

/// What a run may use on its host. Zero means no limit of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// [`Limit::TimeoutMs`].
    pub timeout_ms: u64,
    /// [`Limit::GraceMs`].
    pub grace_ms: u64,
    /// [`Limit::Output`].
    pub output: u64,
    /// [`Limit::Memory`].
    pub memory: u64,
    /// [`Limit::CpuMilli`].
    pub cpu_milli: u32,
    /// [`Limit::Tasks`].
    pub tasks: u32,
}

impl Limits {
    /// The limits when a request names none: five minutes, ten seconds of grace, 4 GiB of output.
    pub const DEFAULT: Self =
        Self { timeout_ms: 300_000, grace_ms: 10_000, output: 4 << 30, memory: 0, cpu_milli: 0, tasks: 0 };

    /// As they travel.
    #[must_use]
    pub fn to_list(self) -> List<Limit, MAX_LIMITS> {
        List::of([
            Limit::TimeoutMs(self.timeout_ms),
            Limit::GraceMs(self.grace_ms),
            Limit::Output(self.output),
            Limit::Memory(self.memory),
            Limit::CpuMilli(self.cpu_milli),
            Limit::Tasks(self.tasks),
        ])
    }

    /// Reads a list; what it does not name has no limit, and of two for the same thing the later counts.
    #[must_use]
    pub fn of(list: &[Limit]) -> Self {
        let none = Self { timeout_ms: 0, grace_ms: 0, output: 0, memory: 0, cpu_milli: 0, tasks: 0 };
        list.iter().fold(none, |limits, limit| match *limit {
            Limit::TimeoutMs(timeout_ms) => Self { timeout_ms, ..limits },
            Limit::GraceMs(grace_ms) => Self { grace_ms, ..limits },
            Limit::Output(output) => Self { output, ..limits },
            Limit::Memory(memory) => Self { memory, ..limits },
            Limit::CpuMilli(cpu_milli) => Self { cpu_milli, ..limits },
            Limit::Tasks(tasks) => Self { tasks, ..limits },
        })
    }
}

impl Step {
    /// The canonical bytes.
    ///
    /// # Errors
    /// If they would exceed [`MAX_STEP`].
    pub fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        wire::encode(self, MAX_STEP)
    }

    /// Reads the canonical bytes back.
    ///
    /// # Errors
    /// If they are over-long, truncated, followed by anything, or no step.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        wire::decode(bytes, MAX_STEP)
    }
}

/// What is decided of a plan beside its hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// [`Plan::operation`].
    pub operation: OperationId,
    /// [`Plan::issuer`].
    pub issuer: Word,
    /// [`Plan::not_before`].
    pub not_before: Timestamp,
    /// [`Plan::deadline`].
    pub deadline: Timestamp,
    /// [`Plan::policy`].
    pub policy: Digest,
}

/// A plan whose bytes are made, with the proof for each of its hosts.
#[derive(Debug, Clone)]
pub struct Planned {
    /// The plan's canonical bytes: what is signed.
    pub plan: Vec<u8>,
    tree: Tree,
}

impl Planned {
    /// Makes the bytes of a plan for these hosts.
    ///
    /// # Errors
    /// If one of them cannot be encoded, or there are more than can be counted.
    pub fn new(draft: Draft, targets: &[Target]) -> Result<Self, EncodeError> {
        let leaves = targets.iter().map(|target| wire::encode(target, MAX_REST));
        let tree = Tree::over(leaves.collect::<Result<Vec<_>, _>>()?);
        let count = u32::try_from(targets.len())
            .map_err(|_| EncodeError::TooLong { size: targets.len(), cap: u32::MAX as usize })?;
        let Draft { operation, issuer, not_before, deadline, policy } = draft;
        let plan =
            Plan { operation, issuer, not_before, deadline, policy, targets: count, root: tree.root() };
        Ok(Self { plan: wire::encode(&plan, MAX_PLAN)?, tree })
    }

    /// The proof that the host at `place` belongs to the plan.
    #[must_use]
    pub fn proof(&self, place: u32) -> Proof {
        Proof { place, path: List::of(self.tree.path(place as usize)) }
    }
}

impl Plan {
    /// Reads the canonical bytes back.
    ///
    /// # Errors
    /// If they are over-long, truncated, followed by anything, or no plan.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        wire::decode(bytes, MAX_PLAN)
    }
}

impl Proof {
    /// The bytes to keep.
    ///
    /// # Errors
    /// None: it is bounded by its type.
    pub fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        wire::encode(self, MAX_PROOF)
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// If the bytes are no proof.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        wire::decode(bytes, MAX_PROOF)
    }
}

/// The proof that a target belongs to a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// Where it stands among the plan's targets, from 0.
    pub place: u32,
    /// What stands beside its way to the root.
    pub path: List<Digest, { merkle::MAX_PATH }>,
}

/// A signature over a plan's bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// SSHSIG, as in `PROTOCOL.sshsig` of OpenSSH, without armour.
    #[serde(with = "serde_bytes")]
    pub sshsig: Vec<u8>,
}

/// An order as it travels; [`Order::open`] makes of it what a host may believe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// The plan's canonical bytes.
    #[serde(with = "serde_bytes")]
    pub plan: Vec<u8>,
    /// Signatures over them.
    pub signatures: List<Signature, MAX_SIGNATURES>,
    /// The host.
    pub target: Target,
    /// Why it belongs to the plan.
    pub proof: Proof,
    /// Which of the target's steps this is, from 0.
    pub position: u32,
    /// That step's canonical bytes.
    #[serde(with = "serde_bytes")]
    pub step: Vec<u8>,
}

impl Sealed {
    /// The bytes that are sent.
    ///
    /// # Errors
    /// If they would exceed [`MAX_ORDER`]: a signature is larger than [`MAX_SIGNATURE`].
    pub fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        wire::encode(self, MAX_ORDER)
    }
}

/// A run's authority, whole and consistent: the plan means this host and this step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The run this order is for; it starts at most once.
    pub run: RunId,
    /// The operation it belongs to.
    pub operation: OperationId,
    /// On whose behalf.
    pub issuer: Word,
    /// The only host that may carry it out.
    pub client: ClientId,
    /// What is asked.
    pub authority: Authority,
    /// Not started before this.
    pub not_before: Timestamp,
    /// Not started after this.
    pub deadline: Timestamp,
    /// What it may use.
    pub limits: Limits,
    /// The contents that come with it.
    pub contents: Vec<Digest>,
}

/// Why bytes are no order.
#[derive(Debug, thiserror::Error)]
pub enum InvalidOrder {
    /// A part of it cannot be read.
    #[error("the {part} of the order cannot be read")]
    Unreadable {
        /// Which part.
        part: &'static str,
        /// Why.
        source: DecodeError,
    },
    /// The host, or what it does, is not among what the plan vouches for.
    #[error("the plan does not name this host with these steps")]
    NotOfThePlan,
    /// The step is not the one that the plan vouches for.
    #[error("the step is not the one of the plan")]
    NotOfTheTarget,
}

impl Order {
    /// Whether only what the action would change is asked for.
    #[must_use]
    pub const fn is_rehearsal(&self) -> bool {
        matches!(self.authority, Authority::Rehearse(_))
    }

    /// Reads the bytes of an order, and holds each of its parts against the plan's digests.
    ///
    /// # Errors
    /// [`InvalidOrder`] if it is not whole, or its parts do not belong together.
    pub fn open(bytes: &[u8]) -> Result<Self, InvalidOrder> {
        let unreadable = |part| move |source| InvalidOrder::Unreadable { part, source };
        let sealed: Sealed = wire::decode(bytes, MAX_ORDER).map_err(unreadable("envelope"))?;
        let plan = Plan::decode(&sealed.plan).map_err(unreadable("plan"))?;
        let Sealed { target, proof, position, .. } = sealed;
        let leaf = wire::encode(&target, MAX_REST).map_err(|_| InvalidOrder::NotOfThePlan)?;
        if !merkle::is_in(&plan.root, plan.targets, proof.place, &leaf, &proof.path) {
            return Err(InvalidOrder::NotOfThePlan);
        }
        let named = usize::try_from(position).ok().and_then(|at| target.steps.get(at));
        if named != Some(&Digest::of(&sealed.step)) {
            return Err(InvalidOrder::NotOfTheTarget);
        }
        let step = Step::decode(&sealed.step).map_err(unreadable("step"))?;
        Ok(Self {
            run: RunId::derived(plan.operation, &target.client, position),
            operation: plan.operation,
            issuer: plan.issuer,
            client: target.client,
            authority: step.authority,
            not_before: plan.not_before,
            deadline: plan.deadline,
            limits: Limits::of(&step.limits),
            contents: step.contents.into_vec(),
        })
    }

    /// How long it may still wait, when this much is left until its deadline by the controller's clock; `None` if by that
    /// clock it is too early. Hosts' clocks differ, so the controller's decides what is too early for an unsigned plan.
    #[must_use]
    pub fn wait(&self, remaining: Duration) -> Option<Duration> {
        let life = self.deadline.since(self.not_before);
        (remaining <= life).then_some(remaining)
    }
}

#[cfg(test)]
mod tests;
