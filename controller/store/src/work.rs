//! Scripts, operations, runs and their output.

pub mod batch;
pub mod operation;
pub mod output;
pub mod run;
pub mod script;
