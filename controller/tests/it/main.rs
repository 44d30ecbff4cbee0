//! A whole controller in a test's process: what spans its layers. What needs one layer alone is tested beside it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in what it is built of as well")]

mod controller;
mod log;
mod running;
