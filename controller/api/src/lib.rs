//! Requests and responses of the API under `/api/v1`, one file per noun.
//!
//! **What for.** The one description of what travels between the controller and its clients. The controller's
//! `http` layer serialises these types and publishes their schemas as OpenAPI; the `fleetward` command reads
//! them back; the console's client is generated from the same document.
//!
//! **What it promises.** Names and ids are the protocol's parsed types, so a value that was deserialised is
//! well-formed. Times are RFC 3339, UTC, with milliseconds. Fields are only ever added; a client ignores the
//! ones it does not know.
//!
//! Beside the types stands what both ends have to read alike: schemas of kinds, and parameters that are written as words.
//!
//! **Deliberately absent.** Behaviour, HTTP, storage, rules.

pub mod error;
pub mod fleet;
pub mod health;
pub mod page;
pub mod people;
pub mod table;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod time;
pub mod work;
