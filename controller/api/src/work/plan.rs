//! Plans: an operation as it would be carried out, to be looked at before it is started.

use fleetward_protocol::client_id::ClientId;
use fleetward_protocol::digest::Digest;
use fleetward_protocol::name::HostName;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::time::Time;
use crate::work::operation::{OperationCreate, OperationStep};

/// `POST /plans`.
///
/// The plan's digest covers all of it: the operation's id, who asked, the times, the rollout, and by the root of a tree over
/// the hosts each host with each of its steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Plan {
    /// The request that carries the plan out: `POST /operations` takes it as it is.
    pub operation: OperationCreate,
    /// SHA-256 of the plan's bytes.
    #[schema(value_type = String)]
    pub digest: Digest,
    /// What each host does, in this order.
    pub steps: Vec<PlanStep>,
    /// The hosts, in the plan's order.
    pub hosts: Vec<PlanHost>,
    /// How many hosts were left out because they are not enrolled.
    pub left_out: u32,
    /// Nothing is started before this.
    pub not_before: Time,
    /// Nothing is started after this.
    pub deadline: Time,
}

/// A step of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlanStep {
    /// The step, as an operation shows it.
    #[serde(flatten)]
    pub step: OperationStep,
    /// SHA-256 of the bytes that each host receives of it. They hold what may be secret, so only their digest is here.
    #[schema(value_type = String)]
    pub order_digest: Digest,
}

/// A host of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlanHost {
    /// Its name.
    #[schema(value_type = String)]
    pub name: HostName,
    /// Its client ID: what the plan means, whatever the host is called.
    #[schema(value_type = String)]
    pub client_id: ClientId,
}
