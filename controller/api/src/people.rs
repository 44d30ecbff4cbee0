//! Who asks, and what was done.

pub mod audit;
pub mod auth;
