//! The agent on every host of the fleet.
//!
//! **What for.** It dials the controller, takes orders that the host's own policy allows, and reports what
//! really happened: nothing runs twice, nothing is lost.
//!
//! **What it promises.** A run is in the journal, durably, before it is acknowledged, and marked as started
//! before it starts. Every run is supervised by a process of its own, so that scripts outlive the agent.
//! Hostile frames close the connection and nothing else.
//!
//! **Deliberately absent.** No listening socket on any network. quinn appears only in [`link`]; processes are
//! started and files written only in [`platform`], [`run`] and [`journal`]; environment variables are read
//! only in [`config`].

// It panics where nobody listens; the log and a `writeln!` whose failure is passed over do not.
#![warn(clippy::print_stderr)]

pub mod action;
mod agent;
pub mod cli;
pub mod config;
pub mod doctor;
pub mod enrol;
mod gate;
pub mod identity;
pub mod journal;
pub mod link;
pub mod perform;
pub mod platform;
pub mod query;
pub mod run;
pub mod status;

pub use agent::{Agent, AgentHandle, StartError};

/// The version that this build tells the controller.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

#[cfg(test)]
mod testing;
