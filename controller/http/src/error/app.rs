//! What each failure of a use case means to a client: one exhaustive `match` per error.

use axum::http::StatusCode;
use fleetward_app::access::Denied;
use fleetward_app::enrolment::TokenError;
use fleetward_app::follow::InvalidPosition;
use fleetward_app::health::NotTaken;
use fleetward_app::host::HostError;
use fleetward_app::idempotency::IdempotencyError;
use fleetward_app::login::LoginError;
use fleetward_app::operation::{InvalidReference, OperationError};
use fleetward_app::password::NotComputed;
use fleetward_app::sync::{SetError, SyncError};
use fleetward_app::table::TableError;
use fleetward_app::target::SelectError;
use fleetward_app::user::{NotAuthenticated, PasswordError};
use fleetward_domain::attempt::TooMany;
use fleetward_domain::contract::{Breach, Fault};
use fleetward_domain::enrolment::NotEnrolled;
use fleetward_domain::lockout::Locked;
use fleetward_domain::operation::InvalidPolicy;
use fleetward_domain::target::NoTarget;
use fleetward_store::StoreError;
use fleetward_store::table::TableError as QueryError;
use serde_json::{Value, json};

use super::ApiError;

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::NotFound { .. } => Self::not_found("NOT_FOUND", error.to_string()),
            StoreError::Conflict { .. } => conflict("CONFLICT", error.to_string()),
            StoreError::InvalidCursor => Self::invalid("INVALID_CURSOR", error.to_string()),
            StoreError::DiskFull(_) => Self::unavailable(
                "DISK_FULL",
                "the controller's disk is full; free some space and try again",
                &error,
            ),
            StoreError::Storage(_) => Self::unavailable(
                "STORAGE_FAILED",
                "the controller cannot read or write its disk; see whether the disk is full, over a quota or failing, \
                 and try again",
                &error,
            ),
            StoreError::Unavailable(_) => Self::unavailable(
                "STORE_UNAVAILABLE",
                "the controller's database is unavailable; try again in a moment",
                &error,
            ),
            StoreError::Busy => Self::new(StatusCode::SERVICE_UNAVAILABLE, "BUSY", error.to_string())
                .retry_after(std::time::Duration::from_secs(5)),
            StoreError::Stopped { .. } => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "QUERY_TOO_SLOW", error.to_string())
            }
            StoreError::Corrupt { .. }
            | StoreError::InvalidUrl(_)
            | StoreError::CreateFile { .. }
            | StoreError::Schema(_)
            | StoreError::Refused(_) => Self::internal(&error),
        }
    }
}

impl From<NotAuthenticated> for ApiError {
    fn from(error: NotAuthenticated) -> Self {
        match error {
            // P3: expired and malformed tokens are told apart by nobody.
            NotAuthenticated::Invalid => {
                Self::new(StatusCode::UNAUTHORIZED, "INVALID_CREDENTIAL", error.to_string())
            }
            NotAuthenticated::Store(error) => error.into(),
        }
    }
}

impl From<Denied> for ApiError {
    fn from(error: Denied) -> Self {
        let text = error.to_string();
        match error {
            Denied::MustChangePassword => Self::new(StatusCode::FORBIDDEN, "PASSWORD_CHANGE_REQUIRED", text),
            Denied::NotGranted(permission) => {
                Self::new(StatusCode::FORBIDDEN, "FORBIDDEN", text).detail("permission", json!(permission))
            }
        }
    }
}

impl From<Locked> for ApiError {
    fn from(locked: Locked) -> Self {
        Self::new(StatusCode::FORBIDDEN, "ACCOUNT_LOCKED", locked.to_string())
            .detail("retry_after_s", locked.retry_after.as_secs())
            .retry_after(locked.retry_after)
    }
}

impl From<TooMany> for ApiError {
    fn from(too_many: TooMany) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "TOO_MANY_ATTEMPTS", too_many.to_string())
            .detail("retry_after_s", too_many.retry_after.as_secs())
            .retry_after(too_many.retry_after)
    }
}

impl From<NotComputed> for ApiError {
    fn from(error: NotComputed) -> Self {
        match error {
            NotComputed::Busy { retry_after } => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "TOO_MANY_ATTEMPTS", error.to_string())
                    .detail("retry_after_s", retry_after.as_secs())
                    .retry_after(retry_after)
            }
            NotComputed::Failed(error) => Self::internal(&error),
        }
    }
}

impl From<LoginError> for ApiError {
    fn from(error: LoginError) -> Self {
        match error {
            LoginError::Wrong => {
                Self::new(StatusCode::UNAUTHORIZED, "INVALID_CREDENTIALS", error.to_string())
            }
            LoginError::Locked(locked) => locked.into(),
            LoginError::TooMany(too_many) => too_many.into(),
            LoginError::Hash(error) => error.into(),
            LoginError::Store(error) => error.into(),
        }
    }
}

impl From<PasswordError> for ApiError {
    fn from(error: PasswordError) -> Self {
        match error {
            PasswordError::WrongCurrent => {
                Self::new(StatusCode::FORBIDDEN, "WRONG_PASSWORD", error.to_string())
                    .detail("field", "current")
            }
            PasswordError::Locked(locked) => locked.into(),
            PasswordError::TooMany(too_many) => too_many.into(),
            PasswordError::Ended => {
                Self::new(StatusCode::UNAUTHORIZED, "INVALID_CREDENTIAL", error.to_string())
            }
            PasswordError::Unacceptable(error) => {
                Self::invalid("INVALID_PASSWORD", error.to_string()).detail("field", "new")
            }
            PasswordError::Hash(error) => error.into(),
            PasswordError::Store(error) => error.into(),
        }
    }
}

impl From<HostError> for ApiError {
    fn from(error: HostError) -> Self {
        let text = error.to_string();
        match error {
            HostError::NotFound(name) => no_host(name.as_str()),
            HostError::Reserved(_) => Self::invalid("RESERVED_NAME", text),
            HostError::Exists(name) => conflict("HOST_TAKEN", text).detail("host", name.as_str()),
            HostError::Taken(_) => conflict("HOST_TAKEN", text),
            HostError::FromGit(name) => conflict("HOST_FROM_GIT", text).detail("host", name.as_str()),
            HostError::Retired(name) => conflict("HOST_RETIRED", text).detail("host", name.as_str()),
            HostError::NotRetired(name, _) => conflict("HOST_ACTIVE", text).detail("host", name.as_str()),
            HostError::Ambiguous { name, .. } => {
                conflict("HOST_AMBIGUOUS", text).detail("host", name.as_str())
            }
            HostError::NotQuarantined(name) => {
                conflict("HOST_NOT_QUARANTINED", text).detail("host", name.as_str())
            }
            HostError::NotEnrolled(name) => {
                conflict("HOST_HAS_NO_CERTIFICATE", text).detail("host", name.as_str())
            }
            HostError::Offline(name) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "HOST_OFFLINE", text).detail("host", name.as_str())
            }
            HostError::NoAnswer(name) => Self::new(StatusCode::GATEWAY_TIMEOUT, "HOST_DID_NOT_ANSWER", text)
                .detail("host", name.as_str()),
            HostError::Token(error) => error.into(),
            HostError::Store(error) => error.into(),
        }
    }
}

impl From<TokenError> for ApiError {
    fn from(error: TokenError) -> Self {
        let text = error.to_string();
        match error {
            TokenError::Lifetime => Self::invalid("INVALID_LIFETIME", text).detail("field", "lifetime_s"),
            TokenError::NoHost(name) => no_host(name.as_str()),
            TokenError::Retired(name) => conflict("HOST_RETIRED", text).detail("host", name.as_str()),
            TokenError::Store(error) => error.into(),
        }
    }
}

impl From<SelectError> for ApiError {
    fn from(error: SelectError) -> Self {
        let text = error.to_string();
        match error {
            SelectError::Syntax(error) => Self::invalid("INVALID_TARGETS", text)
                .detail("field", "on")
                .detail("column", error.column())
                .detail("reason", error.message()),
            SelectError::Nothing(NoTarget::UnknownNames { names }) => {
                let names: Vec<Value> = names
                    .into_iter()
                    .map(|(name, nearest)| json!({ "name": name, "nearest": nearest }))
                    .collect();
                Self::invalid("UNKNOWN_TARGETS", text).detail("field", "on").detail("names", names)
            }
            SelectError::Nothing(NoTarget::Nothing { .. }) => {
                Self::invalid("NO_TARGETS", text).detail("field", "on")
            }
            SelectError::Nothing(NoTarget::TooCostly { .. }) => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "TARGETS_TOO_COSTLY", text).detail("field", "on")
            }
            SelectError::Store(error) => error.into(),
            SelectError::Panicked(_) => Self::internal(&error),
        }
    }
}

impl From<NotTaken> for ApiError {
    fn from(error: NotTaken) -> Self {
        let code = match error {
            NotTaken::DiskFull => "DISK_FULL",
            NotTaken::StorageFailed => "STORAGE_FAILED",
            NotTaken::StoreUnavailable => "STORE_UNAVAILABLE",
            NotTaken::Stopping => "STOPPING",
        };
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, error.to_string())
    }
}

impl From<NotEnrolled> for ApiError {
    fn from(error: NotEnrolled) -> Self {
        let text = error.to_string();
        let hosts: Vec<Value> = error
            .hosts
            .into_iter()
            .map(|(name, standing)| json!({ "host": name.as_str(), "standing": standing.as_str() }))
            .collect();
        // P13: every one of them is named.
        let text = format!(
            "{text}; enrol them, or leave them out with `--skip-not-enrolled` (`skip_not_enrolled` in the API), which \
             keeps hosts that are only offline"
        );
        Self::new(StatusCode::FORBIDDEN, "HOST_NOT_ENROLLED", text).detail("hosts", hosts)
    }
}

impl From<Breach> for ApiError {
    fn from(error: Breach) -> Self {
        let text = format!("{error}\nusage: {}", error.usage);
        let answer = match &error.fault {
            Fault::Undeclared { things } => {
                let names: Vec<String> = things.iter().map(ToString::to_string).collect();
                Self::new(StatusCode::FORBIDDEN, "NOT_DECLARED", text)
                    .detail("permission", "override")
                    .detail("undeclared", names)
            }
            Fault::UnknownFlag { flag, .. }
            | Fault::MissingFlag { flag }
            | Fault::MissingValue { flag }
            | Fault::UnexpectedValue { flag } => {
                Self::invalid("INVALID_ARGUMENTS", text).detail("flag", flag.as_str())
            }
            Fault::FreeArgument { .. } => Self::invalid("INVALID_ARGUMENTS", text),
            Fault::MissingVariable { name } => {
                Self::invalid("MISSING_VARIABLE", text).detail("variable", name.as_str())
            }
        };
        answer.detail("script", error.script.as_str()).detail("usage", error.usage)
    }
}

impl From<OperationError> for ApiError {
    fn from(error: OperationError) -> Self {
        let text = error.to_string();
        match error {
            OperationError::NotTaken(error) => error.into(),
            OperationError::Steps => Self::invalid("INVALID_SCRIPTS", text).detail("field", "scripts"),
            OperationError::NoScript(name) => {
                let text = format!("{text}; `fleetward script list` shows those there are");
                Self::not_found("SCRIPT_NOT_FOUND", text).detail("script", name.as_str())
            }
            OperationError::Contract(breach) => (*breach).into(),
            OperationError::Environment(error) => Self::internal(&error),
            OperationError::Action(_) => Self::invalid("INVALID_ACTION", text),
            OperationError::Policy(InvalidPolicy::Concurrency(_)) => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "CONCURRENCY_EXCEEDED", text)
                    .detail("field", "rollout.concurrency")
            }
            OperationError::Policy(
                InvalidPolicy::EmptyBatch(_)
                | InvalidPolicy::EmptyCanary(_)
                | InvalidPolicy::Deadline
                | InvalidPolicy::Timeout,
            ) => Self::invalid("INVALID_ROLLOUT", text).detail("field", "rollout"),
            OperationError::Select(error) => error.into(),
            OperationError::NotEnrolled(error) => error.into(),
            OperationError::TooManyRuns(runs) => Self::invalid("TOO_MANY_RUNS", text).detail("runs", runs),
            OperationError::TooLarge(_) => {
                let text = format!("{text}; give fewer or shorter arguments and environment variables");
                Self::invalid("ORDER_TOO_LARGE", text)
            }
            OperationError::NotFound => Self::not_found("OPERATION_NOT_FOUND", text),
            OperationError::NotStoppable => conflict("OPERATION_NOT_STOPPABLE", text),
            OperationError::Store(error) => error.into(),
        }
    }
}

impl From<SetError> for ApiError {
    fn from(error: SetError) -> Self {
        let text = error.to_string();
        match error {
            SetError::Invalid(_) => Self::invalid("INVALID_REPO", text),
            SetError::Interval => Self::invalid("INVALID_FIELD", text).detail("field", "interval_minutes"),
            SetError::Secret(error) => Self::internal(&error),
            SetError::Store(error) => error.into(),
        }
    }
}

impl From<SyncError> for ApiError {
    fn from(error: SyncError) -> Self {
        match error {
            SyncError::NotConfigured => Self::not_found("REPO_NOT_SET", error.to_string()),
            SyncError::Store(error) => error.into(),
            SyncError::Panicked => Self::internal(&error),
        }
    }
}

impl From<TableError> for ApiError {
    fn from(error: TableError) -> Self {
        let text = error.to_string();
        match error {
            TableError::Denied(error) => error.into(),
            // P25
            TableError::Table(QueryError::UnknownTable { table }) => {
                Self::invalid("UNKNOWN_TABLE", text).detail("table", table)
            }
            TableError::Table(QueryError::UnknownColumn { column, .. }) => {
                Self::invalid("UNKNOWN_COLUMN", text).detail("column", column)
            }
            TableError::Table(QueryError::NotComparable { column }) => {
                Self::invalid("COLUMN_NOT_COMPARABLE", text).detail("column", column)
            }
            TableError::Table(QueryError::InvalidValue { column, .. }) => {
                Self::invalid("INVALID_VALUE", text).detail("column", column)
            }
            TableError::Table(QueryError::TooMany { allowed, .. }) => {
                Self::invalid("TOO_MANY", text).detail("allowed", allowed)
            }
            TableError::Table(QueryError::Store(error)) => error.into(),
        }
    }
}

impl From<IdempotencyError> for ApiError {
    fn from(error: IdempotencyError) -> Self {
        let text = error.to_string();
        match error {
            IdempotencyError::Reused => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "IDEMPOTENCY_KEY_REUSED", text)
            }
            IdempotencyError::Unanswered => conflict("IDEMPOTENCY_KEY_IN_USE", text),
            IdempotencyError::NotKept { status } => {
                conflict("IDEMPOTENCY_ANSWER_NOT_KEPT", text).detail("status", status)
            }
            IdempotencyError::TooMany { retry_after } => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "TOO_MANY_IDEMPOTENCY_KEYS", text)
                    .detail("retry_after_s", retry_after.as_secs())
                    .retry_after(retry_after)
            }
            IdempotencyError::Secret(error) => Self::internal(&error),
            IdempotencyError::Store(error) => error.into(),
        }
    }
}

impl From<InvalidReference> for ApiError {
    fn from(error: InvalidReference) -> Self {
        Self::invalid("INVALID_OPERATION_ID", error.to_string())
    }
}

impl From<InvalidPosition> for ApiError {
    fn from(error: InvalidPosition) -> Self {
        Self::invalid("INVALID_EVENT_ID", error.to_string())
    }
}

fn conflict(code: &'static str, text: String) -> ApiError {
    ApiError::new(StatusCode::CONFLICT, code, text)
}

fn no_host(name: &str) -> ApiError {
    let text = format!("there is no host `{name}`; `fleetward host list` shows those there are");
    ApiError::not_found("HOST_NOT_FOUND", text).detail("host", name)
}
