//! Plain counters: each shard owns one [`Counters`] and changes it without atomics; a report merges copies of all.
//!
//! Pure: durations come in as arguments. The names under which reports show them are ZooKeeper's.

mod counters;
mod flush_times;
mod latency;

pub use counters::Counters;
pub use flush_times::FlushTimes;
pub use latency::Latency;
