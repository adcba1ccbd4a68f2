//! A stretch of a segment file in memory. Who reads a log never holds more of it than a stretch that a block fits in.

use super::format::{BLOCK_HEADER_BYTES, BlockFault, BlockHeader, SegmentHeader, read_block};

/// Bytes of a segment file.
#[derive(Clone, Copy, Debug)]
pub struct Window<'a> {
    /// Where they stand in the file.
    pub offset: u64,
    /// The bytes.
    pub bytes: &'a [u8],
    /// Whether the file ends with them.
    pub is_last: bool,
}

/// What stands at a place of a window.
#[derive(Clone, Copy, Debug)]
pub enum Found<'a> {
    /// A good block and its payload.
    Block(BlockHeader, &'a [u8]),
    /// No good block.
    Fault(BlockFault),
    /// To tell, the window must reach so many bytes beyond the place. Never in the last window of a file.
    More(usize),
}

impl<'a> Window<'a> {
    /// Where the window ends in the file, bytes.
    pub fn end(&self) -> u64 {
        self.offset + self.bytes.len() as u64
    }

    /// The bytes from `offset` of the file on. Empty outside the window.
    pub fn from(&self, offset: u64) -> &'a [u8] {
        let at = offset.checked_sub(self.offset).and_then(|at| usize::try_from(at).ok());
        at.and_then(|at| self.bytes.get(at..)).unwrap_or_default()
    }

    /// Whether a block header can be read at `offset`, or the file ends before it.
    pub fn holds_head(&self, offset: u64) -> bool {
        self.is_last || self.from(offset).len() >= BLOCK_HEADER_BYTES
    }

    /// The block at `offset` of the segment of `header`.
    pub fn block_at(&self, header: &SegmentHeader, offset: u64) -> Found<'a> {
        if !self.holds_head(offset) {
            return Found::More(BLOCK_HEADER_BYTES);
        }
        let bytes = self.from(offset);
        match BlockHeader::decode(bytes, header.life, header.seed(), offset) {
            Ok(block) if !self.is_last && bytes.len() < block.used_bytes() => Found::More(block.used_bytes()),
            Ok(_) => match read_block(bytes, header.life, header.seed(), offset) {
                Ok((block, payload)) => Found::Block(block, payload),
                Err(fault) => Found::Fault(fault),
            },
            Err(fault) => Found::Fault(fault),
        }
    }
}
