//! The API through its whole router, over a real store.

mod auth;
mod contract;
mod follow;
mod host;
mod idempotency;
mod listen;
mod log;
mod operation;
mod route;
mod site;
mod table;
