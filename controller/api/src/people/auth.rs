//! Logging in, and who one is.

use fleetward_protocol::id::SessionId;
use fleetward_protocol::name::{TenantName, UserName};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::time::Time;

/// `POST /auth/login`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LoginRequest {
    /// The login name.
    #[schema(value_type = String)]
    pub username: UserName,
    /// The password.
    pub password: String,
}

/// The answer to a login. The same token is set as an `HttpOnly`, `SameSite=Strict` cookie for the console.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LoginResponse {
    /// Goes into `Authorization: Bearer`. Shown only here.
    pub token: String,
    /// When it stops working: 24 hours after the login.
    pub expires_at: Time,
    /// Who logged in.
    pub user: Me,
}

/// Who the caller is and what they may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Me {
    /// The login name.
    #[schema(value_type = String)]
    pub username: UserName,
    /// The roles, by tenant.
    pub grants: Vec<Grant>,
    /// The permissions that these roles give, in one tenant at least, by the names that `GET /kinds` has for them.
    #[serde(default)]
    pub permissions: Vec<String>,
    /// The one-time password must be changed before anything else is allowed.
    pub must_change_password: bool,
}

/// A role in a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Grant {
    /// Where.
    #[schema(value_type = String)]
    pub tenant: TenantName,
    /// What.
    pub role: Role,
}

/// What a user may do in a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Everything.
    Admin,
    /// Runs, terminals and hosts; not users, keys or the repository.
    Operator,
    /// Sees everything in the tenant, changes nothing.
    Viewer,
    /// Sees reports and health only.
    Reporter,
}

/// `POST /auth/password`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PasswordChange {
    /// The password in force.
    pub current: String,
    /// The new one: 12 to 1024 characters.
    pub new: String,
}

/// A live login or API token of the caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Session {
    /// Its id; not the secret.
    #[schema(value_type = String)]
    pub id: SessionId,
    /// What the client called itself.
    pub name: String,
    /// Since when.
    pub created_at: Time,
    /// Until when.
    pub expires_at: Time,
    /// When it was last used; exact to a minute.
    pub last_used_at: Option<Time>,
    /// Whether it is the one that asks.
    pub current: bool,
}
