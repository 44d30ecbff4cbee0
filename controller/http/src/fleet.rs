//! Hosts, repositories and scripts.

pub(crate) mod group;
pub(crate) mod host;
pub(crate) mod repo;
pub(crate) mod script;
