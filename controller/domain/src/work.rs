//! Operations: what runs may start now, and what becomes of them.

pub mod operation;
pub mod rollout;
pub mod run;
