//! The store on both engines.

mod crash;
mod engine;
mod foundation;
mod output_files;
mod output_properties;
mod primary;
mod properties;
mod races;
mod sample;
mod table_properties;
mod upgrade;
