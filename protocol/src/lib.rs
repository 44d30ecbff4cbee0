//! The contract between the controller and its agents.
//!
//! **What for.** Everything both ends must agree on lives here and nowhere else: identifiers and names, the
//! messages and their wire format, the contract of each kind of action, and the sans-IO machines that speak
//! the session and carry a run's output.
//!
//! **What it promises.** Values are parsed once, at the rim, into types with private fields; decoding hostile
//! bytes returns an error and never allocates more than the declared caps; the machines are deterministic
//! functions of their inputs and of the time they are given.
//!
//! **Deliberately absent.** No IO, no async runtime, no clock, no randomness, no other crate of this
//! workspace. See `docs/architecture.md`, invariants 1 to 4.

pub mod action;
mod choice;
pub mod client_id;
pub mod digest;
pub mod enrol;
pub mod event;
pub mod facts;
pub mod file;
pub mod id;
pub mod malformed;
pub mod merkle;
pub mod message;
pub mod name;
pub mod nginx;
pub mod object;
pub mod order;
pub mod output;
pub mod path;
pub mod printable;
pub mod query;
pub mod run;
pub mod session;
pub mod suggest;
pub mod text;
pub mod time;
pub mod variable;
pub mod wildcard;
pub mod wire;
