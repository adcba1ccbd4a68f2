//! Bugs that a test plants in the writer to show that it finds them.

use super::LogWriter;
use crate::log::block::BlockBuffer;
use crate::log::queue::TakenPiece;
#[cfg(feature = "planted-bugs")]
use crate::{
    base::planted,
    log::format::{BLOCK_HEADER_BYTES, BlockHeader, padded_block_bytes},
};

/// The planted bug that fills a block up with later records instead of beginning a fresh one (rule C1).
impl<B: BlockBuffer> LogWriter<B> {
    #[cfg(not(feature = "planted-bugs"))]
    pub(super) fn behind_tail(&mut self, piece: TakenPiece<B>) -> TakenPiece<B> {
        piece
    }

    #[cfg(feature = "planted-bugs")]
    pub(super) fn behind_tail(&mut self, mut piece: TakenPiece<B>) -> TakenPiece<B> {
        let Some((header, payload)) = self.tail.take() else { return piece };
        let Some(active) = self.active.as_mut().filter(|active| active.life == header.life) else { return piece };
        let payload_bytes = payload.len() + piece.block.as_slice().len() - BLOCK_HEADER_BYTES;
        if padded_block_bytes(payload_bytes as u64, self.config.block_bytes) > u64::from(self.config.block_bytes) {
            return piece;
        }
        active.next_offset = header.offset;
        let moved = piece.first_record.map(|(position, at)| (position, at + payload.len() as u32));
        piece.first_record = header.first_record.or(moved);
        piece.previous_position = header.previous_position;
        let later = piece.block.as_slice()[BLOCK_HEADER_BYTES..].to_vec();
        piece.block.truncate(BLOCK_HEADER_BYTES);
        piece.block.append(&payload);
        piece.block.append(&later);
        piece
    }

    #[cfg(feature = "planted-bugs")]
    pub(super) fn remember_tail(&mut self, header: &BlockHeader, block: &[u8]) {
        let payload = &block[BLOCK_HEADER_BYTES..][..header.payload_bytes as usize];
        let rewrites = planted::is("c1-acked-block-rewritten") && block.len() == self.config.block_bytes as usize;
        self.tail = rewrites.then(|| (*header, payload.to_vec()));
    }
}
