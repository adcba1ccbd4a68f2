//! Sessions: ids and passwords, the table that every shard keeps, and the order in which they expire. Pure.

mod expiry_queue;
mod session_id;
mod session_table;

pub use expiry_queue::ExpiryQueue;
pub use session_id::{SessionIds, password};
pub use session_table::{Session, SessionTable};
