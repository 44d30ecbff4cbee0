//! Real Debian hosts under systemd, installed from our packages, driven through the CLI from the operator's place.
//!
//! Left out of a plain `cargo nextest run`: they boot hosts, need root, and need the packages. `cargo xtask test` builds
//! the packages and runs these tests with the others.

mod ansible;
mod asked;
mod chaos;
mod fault;
mod kinds;
mod package;
mod sites;
mod walk;
