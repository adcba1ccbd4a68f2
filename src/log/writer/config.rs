//! Sizes and habits of a log.

use super::LogError;
use crate::log::format::{BLOCK_BYTES_DEFAULT, FLUSH_BYTES_LIMIT, SEGMENT_BLOCKS_MIN, SegmentFault, check_sizes};

/// Sizes and habits of a log.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// Size of a segment file, bytes, a multiple of `block_bytes`.
    pub segment_bytes: u64,
    /// Alignment of blocks, bytes: 4096, or the device's logical block if larger.
    pub block_bytes: u32,
    /// Largest write of one flush, bytes, a multiple of `block_bytes`.
    pub flush_bytes_max: u32,
    /// Bound on queued and reserved bytes above which [`super::LogWriter::try_reserve`] refuses.
    pub queue_bytes_max: u64,
    /// Segments kept ready ahead of the one written.
    pub ready_segments: usize,
    /// Whether a flush is on stable storage before it is reported.
    pub sync: bool,
    /// What records carry as the version of their encoding; for the log's owner, who reads it back.
    pub record_version: u16,
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig {
            segment_bytes: 16 << 20,
            block_bytes: BLOCK_BYTES_DEFAULT,
            flush_bytes_max: 4 << 20,
            queue_bytes_max: 64 << 20,
            ready_segments: 1,
            sync: true,
            record_version: 0,
        }
    }
}

impl LogConfig {
    /// Segments of about this size: at least the least, whole blocks. The most is for the caller to know:
    /// [`crate::log::format::SEGMENT_BYTES_LIMIT`].
    pub fn with_segments_of(self, bytes: u64) -> LogConfig {
        let block_bytes = u64::from(self.block_bytes);
        let segment_bytes = bytes.next_multiple_of(block_bytes).max(SEGMENT_BLOCKS_MIN * block_bytes);
        LogConfig { segment_bytes, ..self }
    }

    pub(super) fn check(&self) -> Result<(), LogError> {
        check_sizes(self.segment_bytes, self.block_bytes).map_err(LogError::Config)?;
        let flush_fits = self.flush_bytes_max >= self.block_bytes
            && self.flush_bytes_max.is_multiple_of(self.block_bytes)
            && self.flush_bytes_max <= FLUSH_BYTES_LIMIT;
        if flush_fits && self.ready_segments > 0 { Ok(()) } else { Err(LogError::Config(SegmentFault::Sizes)) }
    }

    /// Room for blocks in one segment, bytes.
    pub(super) fn segment_room_bytes(&self) -> u64 {
        self.segment_bytes - u64::from(self.block_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log that is told to have segments of one KiB is a log of small segments, not a server that does not start.
    #[test]
    fn every_size_up_to_the_largest_makes_a_log() {
        for bytes in [1, 1 << 10, 5000, 256 << 10, (4 << 30) - 1, 4 << 30] {
            let config = LogConfig::default().with_segments_of(bytes);
            assert_eq!(config.check(), Ok(()), "{bytes}");
            assert!(config.segment_bytes >= bytes);
        }
    }
}
