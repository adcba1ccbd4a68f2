//! What can be wrong with a log beyond a torn tail, in words an operator can act on.

use super::format::{BlockFault, Life, SegmentFault};
use super::position::Position;
use thiserror::Error;

/// A place where the log is damaged. Displayed with file, offset, positions and the way out.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{}, offset {offset}: {cause}; records up to {recoverable_to} can be recovered, what followed may be lost",
    life.file_name()
)]
pub struct Damage {
    /// The segment.
    pub life: Life,
    /// The place in its file, bytes.
    pub offset: u64,
    /// The last record before the damage: what `--discard-after` could keep.
    pub recoverable_to: Position,
    /// What is wrong.
    pub cause: DamageCause,
}

/// What is wrong with the log.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DamageCause {
    /// A segment that is part of the log has a bad header.
    #[error("{0}")]
    SegmentHeader(SegmentFault),
    /// A segment that is part of the log is not there.
    #[error("the segment is missing")]
    MissingSegment,
    /// A segment file ends before its segment does; it had its full size before it got its name.
    #[error("the file ends here, but its segment has {segment_bytes} bytes")]
    Truncated {
        /// Size of the segment by its header.
        segment_bytes: u64,
    },
    /// The log begins after what is needed.
    #[error("the log begins after {begins_after} only")]
    BeginsTooLate {
        /// Records above this are there.
        begins_after: Position,
    },
    /// There is no good block, and it is proven that there was one.
    #[error("{fault}, but a block written later stands in {} at offset {proof_offset}", proof_life.file_name())]
    Block {
        /// What is found instead of the block.
        fault: BlockFault,
        /// Segment of the proof.
        proof_life: Life,
        /// Place of the proof, bytes.
        proof_offset: u64,
    },
    /// A block does not follow what was read.
    #[error("the block follows record {found}, but the last record before it is {expected}")]
    Gap {
        /// The last record read.
        expected: Position,
        /// The one the block follows.
        found: Position,
    },
    /// A block says that more is durable than was read.
    #[error("the block says that everything up to {durable_position} was durable")]
    Claim {
        /// What it says.
        durable_position: Position,
    },
    /// A later segment kept this one to a record that is not its last.
    #[error("the log was kept to {kept_to} when it was last opened, which is not found")]
    CutNotMet {
        /// What should be there.
        kept_to: Position,
    },
    /// Records do not grow.
    #[error("record {position} follows record {last}")]
    OutOfOrder {
        /// The record before.
        last: Position,
        /// The record at fault.
        position: Position,
    },
    /// A length beyond the bound.
    #[error("record {position} claims {record_bytes} bytes")]
    RecordTooLong {
        /// The record.
        position: Position,
        /// Its claim.
        record_bytes: u32,
    },
    /// Lengths and marks of a block that contradict each other.
    #[error("the records of the block do not fit together")]
    Malformed,
}
