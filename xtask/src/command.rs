//! One module per command.

pub(crate) mod bench;
pub(crate) mod bless;
pub(crate) mod chaos;
pub(crate) mod check;
pub(crate) mod demo;
pub(crate) mod lab;
pub(crate) mod package;
mod postgres;
pub(crate) mod test;
