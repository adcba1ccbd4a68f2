//! Small things of our own that no crate gives. Imports nothing of ours.

mod ids;
pub use ids::{ConnectionId, SessionId, ShardId, Zxid};
