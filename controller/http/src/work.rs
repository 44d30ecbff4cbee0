//! Operations, runs, queries and kinds.

pub(crate) mod event;
pub(crate) mod kind;
pub(crate) mod operation;
pub(crate) mod output;
pub(crate) mod piece;
pub(crate) mod plan;
pub(crate) mod query;
pub(crate) mod rollout;
pub(crate) mod run;
pub(crate) mod target;
pub(crate) mod view;
