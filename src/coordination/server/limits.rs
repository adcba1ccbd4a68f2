//! How much a server holds of everything. A simulated server has small limits, so that it meets them all the time.

use crate::coordination::processor::SLICE_STEPS;

/// The limits of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests of one connection under way before its socket is left alone.
    pub requests_per_connection_max: usize,
    /// Output of one connection held before its socket is left alone, in bytes.
    pub output_bytes_max: usize,
    /// Output of one connection at which it is cut off, in bytes. Beyond [`Limits::output_bytes_max`] there are only events, and the
    /// replies to what was read before.
    pub output_bytes_limit: usize,
    /// The longest reply in bytes, if `jute.maxbuffer` does not ask for more: 64 MiB are a list of 760,000 children with names of 80
    /// characters.
    pub reply_bytes_max: usize,
    /// What the sequencer remembers of records, in bytes, so that it need not ask for them again.
    pub remembered_bytes_max: usize,
    /// Steps of validation in one go; see [`SLICE_STEPS`].
    pub slice_steps: usize,
    /// Largest write of one log flush, in bytes.
    pub flush_bytes_max: u32,
    /// What the log holds that is not yet written, in bytes.
    pub log_queue_bytes_max: u64,
    /// Size of a log segment in bytes, instead of `preAllocSize`.
    pub segment_bytes: Option<u64>,
    /// What each shard keeps of other shards' records, in bytes, instead of `ringkeeper.readCacheMiB`.
    pub read_cache_bytes_max: Option<usize>,
    /// Transactions that an epoch has left when it is opened. All of them, but for a server whose epochs should end early.
    pub transactions_of_first_epoch: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            requests_per_connection_max: 1000,
            output_bytes_max: 1 << 20,
            output_bytes_limit: 64 << 20,
            reply_bytes_max: 64 << 20,
            remembered_bytes_max: 8 << 20,
            slice_steps: SLICE_STEPS,
            flush_bytes_max: 1 << 20,
            log_queue_bytes_max: crate::log::writer::LogConfig::default().queue_bytes_max,
            segment_bytes: None,
            read_cache_bytes_max: None,
            transactions_of_first_epoch: u32::MAX,
        }
    }
}
