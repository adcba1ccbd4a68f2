//! Sessions: ids and passwords, the table that every shard keeps, the order in which they expire, and the clock of that. Pure.

mod expiry_queue;
mod hearing;
mod session_id;
mod session_table;

pub use expiry_queue::ExpiryQueue;
pub use hearing::Hearing;
pub use session_id::{SessionIds, password};
pub use session_table::{Session, SessionTable};
