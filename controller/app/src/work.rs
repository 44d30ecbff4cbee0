//! Operations and queries: what is asked of hosts, how it reaches them, and what becomes of it.

pub mod action;
pub mod connection;
pub mod dispatch;
pub mod follow;
pub mod live;
pub mod operation;
pub mod order;
pub mod query;
pub mod recorder;
pub mod run;
