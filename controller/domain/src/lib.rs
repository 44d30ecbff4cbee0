//! The controller's decisions.
//!
//! **What for.** Everything the controller decides is decided here, by pure functions and state machines over
//! values: what a run's next state is, which runs may start now, which hosts an expression means, whether a
//! token enrols a host, whether a login is locked out, what a role may do.
//!
//! **What it promises.** Same inputs, same decision: every property the product promises about them is a
//! property test here, named by its number in the contract.
//!
//! **Deliberately absent.** No IO, no async, no clock, no randomness, no crate of ours but `protocol`. Time is
//! a parameter. Loading, saving and telling others is the business of `controller/app`.

pub mod bucket;
pub mod fleet;
pub mod people;
pub mod work;
