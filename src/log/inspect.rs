//! A segment file as a list of blocks, for printing: what is good, what is bad, what is old.

use super::format::{BlockFault, BlockHeader, Life, SegmentHeader, read_block};

/// What stands at a place of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockStatus {
    /// A good block.
    Good(BlockHeader),
    /// No good block here; the next good one, if any, begins after `bytes`. At the end of a log this is what was never
    /// written, or what an earlier life left.
    Bad {
        /// What is found instead.
        fault: BlockFault,
        /// Length of the stretch, bytes.
        bytes: u64,
    },
}

/// A stretch of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockReport {
    /// The segment.
    pub life: Life,
    /// Where the stretch begins, bytes.
    pub offset: u64,
    /// What it is.
    pub status: BlockStatus,
}

/// The blocks of a whole segment in file order, from behind its header to its end.
pub fn inspect_segment<'a>(header: &SegmentHeader, segment: &'a [u8]) -> impl Iterator<Item = BlockReport> + 'a {
    let header = *header;
    let end = segment.len() as u64;
    let mut offset = u64::from(header.block_bytes);
    std::iter::from_fn(move || {
        if offset >= end {
            return None;
        }
        let report = report_at(&header, segment, offset);
        offset += match report.status {
            BlockStatus::Good(block) => block.padded_bytes(header.block_bytes),
            BlockStatus::Bad { bytes, .. } => bytes,
        };
        Some(report)
    })
}

fn report_at(header: &SegmentHeader, segment: &[u8], offset: u64) -> BlockReport {
    let status = match block_at(segment, header, offset) {
        Ok((block, _)) => BlockStatus::Good(block),
        Err(fault) => {
            let step = u64::from(header.block_bytes);
            let end = segment.len() as u64;
            let is_good = |at: &u64| block_at(segment, header, *at).is_ok();
            let next = (1..).map(|n| offset + n * step).take_while(|at| *at < end).find(is_good);
            BlockStatus::Bad { fault, bytes: next.unwrap_or(end) - offset }
        }
    };
    BlockReport { life: header.life, offset, status }
}

fn block_at<'a>(segment: &'a [u8], header: &SegmentHeader, offset: u64) -> Result<(BlockHeader, &'a [u8]), BlockFault> {
    let bytes = usize::try_from(offset).ok().and_then(|start| segment.get(start..)).ok_or(BlockFault::SegmentEnd)?;
    read_block(bytes, header.life, header.seed(), offset)
}
