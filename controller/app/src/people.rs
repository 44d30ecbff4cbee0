//! Users, their logins, what they may do, and the log of what they did.

pub mod access;
pub mod actor;
pub mod attempt;
pub mod audit;
pub mod ending;
pub mod idempotency;
pub mod login;
pub mod password;
pub mod tenant;
pub mod user;
