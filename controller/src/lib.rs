//! The centre of a fleet: inventory, operations, console.
//!
//! Layers, outermost first: `http` (the API: extract, call `app`, convert) and `link` (sessions of agents) →
//! `app` (use cases: load, decide with `fleetward_domain`, save, notify) → `store` (all SQL). `task` is
//! background work, `pki` the certificate authority, `config` the only reader of files and environment.
//!
//! **Deliberately absent.** Statics and global state: everything hangs on one `app::App` made at the start.
//! SQL outside `store`, axum outside `http`, quinn outside `link`.

pub mod app;
pub mod cli;
pub mod config;
pub mod http;
pub mod link;
pub mod pki;
pub mod repo;
pub mod running;
pub mod secret;
pub mod store;
pub mod task;

#[cfg(test)]
mod testing;
