//! Hosts: how they come in, what they are, which are online, and where their inventory comes from.

pub mod controller;
pub mod enrolment;
pub mod group;
pub mod host;
pub mod online;
pub mod presence;
pub mod script;
pub mod sync;
pub mod target;
