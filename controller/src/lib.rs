//! The centre of a fleet: inventory, operations, console.
//!
//! Layers are crates, outermost first: `fleetward-http` (the API: extract, call `app`, convert) and `fleetward-link`
//! (sessions of agents) → `fleetward-app` (use cases: load, decide with `fleetward-domain`, save, notify) →
//! `fleetward-store` (all SQL), `fleetward-repo` (git) and `fleetward-pki` (the certificate authority). Here they are
//! put together: `config` is the only reader of files and environment, `running` a controller in a process, `task`
//! background work, `cli` the binary's commands.
//!
//! **Deliberately absent.** Statics and global state: everything hangs on one `App` made at the start. What belongs
//! to a layer.

pub mod cli;
pub mod config;
pub mod running;
pub mod task;
