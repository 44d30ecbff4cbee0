//! Hosts, and the inventory they come from.

pub mod group;
pub mod host;
pub mod repo;
pub mod script;
