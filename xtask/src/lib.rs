//! Development tasks, and what they share with the lab tests: the lab of real hosts, and child processes with deadlines.
//!
//! Nothing here is part of the product, and no product crate imports it.

pub mod chaos;
pub mod command;
pub mod fleet;
pub mod lab;
pub mod package;
pub mod process;
pub mod workspace;
