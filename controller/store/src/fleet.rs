//! Hosts, their certificates and tokens, and where their inventory comes from.

pub mod certificate;
pub mod controller;
pub mod host;
pub mod repository;
pub mod sync;
pub mod token;
