//! The API through its whole router, over a real store.

mod audit;
mod auth;
mod compatibility;
mod contract;
mod follow;
mod group;
mod host;
mod idempotency;
mod kind;
mod lasting;
mod listen;
mod log;
mod operation;
mod plan;
mod query;
mod route;
mod site;
mod table;
