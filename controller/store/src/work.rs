//! Operations, runs and their output.

pub mod batch;
pub mod operation;
pub mod output;
pub mod report;
pub mod run;
mod state;
pub mod step;
