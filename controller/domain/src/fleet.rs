//! Hosts: how they come in, what they are, and which of them are meant.

pub mod budget;
pub mod contract;
pub mod enrolment;
pub mod inventory;
pub mod target;
pub mod twin;
