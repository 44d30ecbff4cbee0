//! One test binary for everything that spans crates.
//!
//! - `laws`: the laws of the house, read off the source tree.
//! - `lab`: real hosts under systemd, installed from the packages; run by `cargo xtask test`.

#![cfg(test)]

mod browser;
mod fleet;
mod lab;
mod laws;
