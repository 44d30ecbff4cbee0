//! Who may do what, and what strangers may try.

pub mod attempt;
pub mod lockout;
pub mod permission;
pub mod refusal;
pub mod session;
