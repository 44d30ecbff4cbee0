//! The store on both engines.

use crate::store::Store;

mod foundation;
mod sample;
