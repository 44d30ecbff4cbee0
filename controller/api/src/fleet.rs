//! Hosts, and the inventory they come from.

pub mod host;
pub mod repo;
pub mod script;
