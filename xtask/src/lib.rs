//! What development tasks and the lab tests share: the lab of real hosts, and child processes with deadlines.
//!
//! The commands themselves live in the binary. Nothing here is part of the product, and no product crate imports it.

pub mod chaos;
pub mod fleet;
pub mod lab;
pub mod package;
pub mod process;
pub mod workspace;
