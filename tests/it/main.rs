//! One test binary for everything that spans crates.
//!
//! - `documents`: what can be typed according to the documents, and what they name in the tree.
//! - `laws`: the laws of the house, read off the source tree.
//! - `lab`: real hosts under systemd, installed from the packages; run by `cargo xtask test`.

#![cfg(test)]

mod browser;
mod documents;
mod fleet;
mod lab;
mod laws;
