//! Tenants, users, their sessions, and the log of what they did.

pub mod audit;
pub mod idempotency;
pub mod session;
pub mod tenant;
pub mod user;
