//! Groups of hosts.

use fleetward_protocol::name::{GroupName, TenantName, UserName};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::time::Time;

/// A target expression under a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Group {
    /// Its name, unique in the tenant.
    #[schema(value_type = String)]
    pub name: GroupName,
    /// Whose it is.
    #[schema(value_type = String)]
    pub tenant: TenantName,
    /// Which hosts are in it: looked up anew whenever it is used.
    pub on: String,
    /// What it is for; may be empty.
    pub description: String,
    /// Who set it last.
    #[schema(value_type = String)]
    pub updated_by: UserName,
    /// When it was last changed.
    pub updated_at: Time,
}

/// `PUT /groups/{name}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GroupUpdate {
    /// The expression, such as `tag:prod & web-*`. It cannot name another group.
    pub on: String,
    /// What the group is for: a line of at most 200 bytes; empty when absent.
    #[serde(default)]
    pub description: String,
}
