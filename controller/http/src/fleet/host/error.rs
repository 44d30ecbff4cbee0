//! What it means to a client that something with a host failed.

use axum::http::StatusCode;
use fleetward_app::fleet::enrolment::TokenError;
use fleetward_app::fleet::host::HostError;
use fleetward_protocol::name::HostName;

use crate::error::ApiError;

impl From<HostError> for ApiError {
    fn from(error: HostError) -> Self {
        let text = error.to_string();
        match error {
            HostError::NotFound(name) => no_host(name.as_str()),
            HostError::Reserved(_) => Self::invalid("RESERVED_NAME", text),
            HostError::Exists(name) => Self::conflict("HOST_TAKEN", text).detail("host", name.as_str()),
            HostError::Taken(_) => Self::conflict("HOST_TAKEN", text),
            HostError::FromGit(name) => Self::conflict("HOST_FROM_GIT", text).detail("host", name.as_str()),
            HostError::Retired(name) => retired(&name),
            HostError::NotRetired(name, _) => {
                Self::conflict("HOST_ACTIVE", text).detail("host", name.as_str())
            }
            HostError::Ambiguous { name, .. } => {
                Self::conflict("HOST_AMBIGUOUS", text).detail("host", name.as_str())
            }
            HostError::NotQuarantined(name) => {
                Self::conflict("HOST_NOT_QUARANTINED", text).detail("host", name.as_str())
            }
            HostError::NotEnrolled(name) => {
                Self::conflict("HOST_HAS_NO_CERTIFICATE", text).detail("host", name.as_str())
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
            TokenError::Retired(name) => retired(&name),
            TokenError::Store(error) => error.into(),
        }
    }
}

/// Its name is free, whether it came from git or not.
fn retired(name: &HostName) -> ApiError {
    let text = format!(
        "host `{name}` is retired; its name is free for a new entry: `fleetward host add {name}`, or one in the inventory repository"
    );
    ApiError::conflict("HOST_RETIRED", text).detail("host", name.as_str())
}

fn no_host(name: &str) -> ApiError {
    let text = format!("there is no host `{name}`; `fleetward host list` shows those there are");
    ApiError::not_found("HOST_NOT_FOUND", text).detail("host", name)
}
