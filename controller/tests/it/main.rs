//! A whole controller in a test's process: what spans its layers. What needs one layer alone is tested beside it.

mod controller;
mod running;
