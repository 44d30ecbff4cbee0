//! What a request says: what is to be done and how, in the domain's terms.

use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fleetward_api::work::operation::{Offline, OperationCreate, Rollout, ScriptCall, StepCall};
use fleetward_app::fleet::target::NotEnrolledHosts;
use fleetward_app::work::action;
use fleetward_app::work::action::script::Surroundings;
use fleetward_app::work::operation::Asked;
use fleetward_domain::work::operation::{self, MAX_CONCURRENCY, OnFailure, RolloutPolicy, Share};
use fleetward_protocol::digest::Digest;

use crate::error::ApiError;

/// Hosts at the same time when the request does not say.
const DEFAULT_CONCURRENCY: u32 = 50;
/// Seconds to the deadline when the request does not say.
const DEFAULT_DEADLINE_S: u32 = 86_400;

/// The request, parsed.
///
/// # Errors
/// 400 with the field that is wrong.
pub(crate) fn asked(request: OperationCreate) -> Result<Asked, ApiError> {
    let rollout = &request.rollout;
    let surroundings = Surroundings {
        environment: request.environment.clone(),
        directory: request.directory.clone(),
        user: request.user.clone(),
    };
    // As it was understood: how it was spaced, or in which order, is no other request.
    let digest = Digest::of(&serde_json::to_vec(&request).map_err(|error| ApiError::internal(&error))?);
    let plan = request.plan.as_deref().map(|text| STANDARD.decode(text)).transpose();
    Ok(Asked {
        id: request.id,
        digest,
        plan: plan.map_err(|error| field("plan", &format!("it is no Base64: {error}")))?,
        policy: policy(rollout, request.dry_run)?,
        canary: share("rollout.canary", rollout.canary.as_deref())?,
        steps: steps(request.steps, request.scripts, surroundings)?,
        on: request.on,
        not_enrolled: not_enrolled(request.skip_not_enrolled),
        reason: request.reason.filter(|reason| !reason.trim().is_empty()),
    })
}

/// What a request does with targets that are not enrolled.
pub(crate) const fn not_enrolled(skip: bool) -> NotEnrolledHosts {
    match skip {
        true => NotEnrolledHosts::LeaveOut,
        false => NotEnrolledHosts::Refuse,
    }
}

/// The steps of a request, whichever way they are written.
///
/// # Errors
/// 400 if both ways are used, or one gives what belongs to the other.
pub(crate) fn steps(
    steps: Vec<StepCall>,
    scripts: Vec<ScriptCall>,
    surroundings: Surroundings,
) -> Result<Vec<action::Asked>, ApiError> {
    if steps.is_empty() {
        let asked = |call: ScriptCall| action::script::asked(call.name, call.arguments, &surroundings);
        return Ok(scripts.into_iter().map(asked).collect());
    }
    let Surroundings { environment, directory, user } = surroundings;
    if !scripts.is_empty() || !environment.is_empty() || directory.is_some() || user.is_some() {
        let text = "`steps` stand alone: `scripts`, `environment`, `directory` and `user` are short for steps that run \
                    scripts; give each step what it takes in its `params`";
        return Err(ApiError::invalid("INVALID_STEPS", text).detail("field", "steps"));
    }
    Ok(steps.into_iter().map(|step| action::Asked { kind: step.kind, params: step.params }).collect())
}

fn policy(rollout: &Rollout, dry_run: bool) -> Result<RolloutPolicy, ApiError> {
    let concurrency = rollout.concurrency.unwrap_or(DEFAULT_CONCURRENCY);
    let concurrency = NonZeroU32::new(concurrency).ok_or_else(|| {
        field("rollout.concurrency", &format!("0 is not between 1 and {MAX_CONCURRENCY} hosts at a time"))
    })?;
    let millis = |seconds: u32| u64::from(seconds) * 1000;
    Ok(RolloutPolicy {
        concurrency,
        batch: share("rollout.batch", rollout.batch.as_deref())?,
        canary: 0,
        max_failures: share("rollout.max_failures", rollout.max_failures.as_deref())?,
        deadline_ms: millis(rollout.deadline_s.unwrap_or(DEFAULT_DEADLINE_S)),
        offline: match rollout.offline {
            None | Some(Offline::Wait) => operation::Offline::Wait,
            Some(Offline::Skip) => operation::Offline::Skip,
        },
        on_failure: match rollout.continue_on_failure {
            Some(true) => OnFailure::Continue,
            None | Some(false) => OnFailure::StopHost,
        },
        timeout_ms: rollout.timeout_s.map(millis),
        dry_run,
    })
}

fn share(name: &str, text: Option<&str>) -> Result<Option<Share>, ApiError> {
    let parsed = text.map(str::parse::<Share>).transpose();
    parsed.map_err(|error| field(name, &error.to_string()))
}

fn field(name: &str, message: &str) -> ApiError {
    ApiError::invalid("INVALID_FIELD", format!("field `{name}`: {message}")).detail("field", name)
}

/// A policy as the API shows it, defaults filled in.
pub(crate) fn rollout_view(policy: &RolloutPolicy) -> Rollout {
    let seconds = |millis: u64| u32::try_from(millis.div_ceil(1000)).unwrap_or(u32::MAX);
    Rollout {
        concurrency: Some(policy.concurrency.get()),
        batch: policy.batch.map(|share| share.to_string()),
        canary: (policy.canary > 0).then(|| policy.canary.to_string()),
        max_failures: policy.max_failures.map(|share| share.to_string()),
        timeout_s: policy.timeout_ms.map(seconds),
        deadline_s: Some(seconds(policy.deadline_ms)),
        offline: Some(match policy.offline {
            operation::Offline::Wait => Offline::Wait,
            operation::Offline::Skip => Offline::Skip,
        }),
        continue_on_failure: Some(policy.on_failure == OnFailure::Continue),
    }
}
