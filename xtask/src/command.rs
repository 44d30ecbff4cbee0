//! One module per command.

pub(crate) mod lab;
pub(crate) mod package;
