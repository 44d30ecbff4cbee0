//! One test binary.
#![cfg(test)]
