//! Operations, runs, queries, and what is heard of them.

pub mod event;
pub mod kind;
pub mod operation;
pub mod plan;
pub mod query;
pub mod run;
pub mod target;
