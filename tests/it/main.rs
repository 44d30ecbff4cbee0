//! One test binary for everything that spans crates.
//!
//! - `laws`: the laws of the house, read off the source tree.

#![cfg(test)]

mod lab;
mod laws;
