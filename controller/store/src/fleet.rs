//! Hosts, their certificates and tokens, where their inventory comes from, and its scripts.

pub mod certificate;
pub mod controller;
pub mod group;
pub mod host;
pub mod repository;
pub mod script;
pub mod sync;
pub mod token;
