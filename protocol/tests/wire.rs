//! The wire format stays what it is, and takes anything without harm.
//!
//! - `golden/fleetward-1.txt` holds the bytes of every message of this ALPN version. A change to a line there
//!   is a change that agents in the field do not understand: lines may only be added.
//! - Every message reads back, whatever it holds.
//! - Bytes of any kind, cut, stretched or bent, are an error or a message; they never panic and never make the
//!   reader allocate more than the caps say.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "wire/golden.rs"]
mod golden;
#[path = "wire/hostile.rs"]
mod hostile;
#[path = "wire/message.rs"]
mod message;
#[path = "wire/round_trip.rs"]
mod round_trip;
