//! Placeholder of the skeleton.

pub mod inventory;
