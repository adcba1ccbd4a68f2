//! The truth outside the server: a naive one-copy model, what clients saw, and the comparison of the two.
//!
//! Nothing here shares code with the server but the wire types of `protocol`. The server is asked one thing only: in which
//! order it committed ([`history::Committed`]); what a transaction *does* is the model's to say.

pub mod access;
mod follow;
pub mod history;
pub mod model;
mod normal;
#[cfg(test)]
mod one_copy;
pub mod reads;
pub mod story;
mod verify;
pub mod watches;

#[cfg(test)]
mod tests;

pub use story::Violation;
pub use verify::{Promises, Verified, verify};
