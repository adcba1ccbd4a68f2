//! Small things of our own that no crate gives. Imports nothing of ours.

pub mod coverage;
mod ids;
pub mod planted;
pub mod prng;

pub use ids::{ConnectionId, SessionId, ShardId, Zxid};
