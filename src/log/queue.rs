//! What is appended and not yet handed to a flush: the record stream, already laid out as block payloads.
//!
//! A record is copied once, from the caller into the block that will be written. Blocks and the lists beside them are
//! used again, so the steady state allocates nothing.
//!
//! Invariants: every piece but the last is full; a record's head never runs over the end of a piece; the last piece ends
//! where a record ends (records are appended whole).

use super::block::BlockBuffer;
use super::format::{BLOCK_HEADER_BYTES, RECORD_HEAD_BYTES, RecordHead, padded_block_bytes};
use super::position::Position;
use std::collections::VecDeque;

/// Blocks kept for reuse; beyond that, memory of a burst goes back to the allocator.
const SPARE_BLOCKS_MAX: usize = 4;

/// A record that starts in a piece.
#[derive(Clone, Copy, Debug)]
struct RecordStart {
    /// In the payload, bytes.
    offset: usize,
    position: Position,
}

/// The coming payload of one block.
#[derive(Debug, Default)]
struct Piece<B> {
    /// Room for the block header, then the payload.
    block: B,
    /// Records that start here, in order.
    starts: Vec<RecordStart>,
    /// The last record that starts before this piece.
    previous_position: Position,
    /// Whether the payload's end is the end of a record.
    ends_record: bool,
}

/// A piece handed out for a flush.
#[derive(Debug)]
pub(super) struct TakenPiece<B> {
    /// Room for the block header, then the payload.
    pub block: B,
    /// The first record that starts in the payload, and where.
    pub first_record: Option<(Position, u32)>,
    /// The last record that starts before the payload.
    pub previous_position: Position,
    /// The last record that starts in or before the payload.
    pub last_started: Position,
    /// The last record that is complete with this payload; `None` while a record is unfinished that started earlier.
    pub completes: Option<Position>,
}

impl<B: BlockBuffer> Piece<B> {
    fn payload_bytes(&self) -> usize {
        self.block.as_slice().len() - BLOCK_HEADER_BYTES
    }

    fn last_started(&self) -> Position {
        self.starts.last().map_or(self.previous_position, |start| start.position)
    }

    fn completes(&self) -> Option<Position> {
        if self.ends_record {
            return Some(self.last_started());
        }
        match self.starts.as_slice() {
            [] => None,
            [_] => Some(self.previous_position),
            [.., complete, _] => Some(complete.position),
        }
    }
}

/// The pieces in stream order. See the module documentation.
#[derive(Debug)]
pub(super) struct FlushQueue<B> {
    pieces: VecDeque<Piece<B>>,
    /// Largest payload of a piece, bytes.
    payload_bytes_max: usize,
    /// Payload in all pieces, bytes.
    queued_bytes: u64,
    last_appended: Position,
    /// What every record's head says.
    record_version: u16,
    spare_blocks: Vec<B>,
    spare_starts: Vec<Vec<RecordStart>>,
}

impl<B: BlockBuffer> FlushQueue<B> {
    /// An empty queue whose stream goes on after `last_appended`.
    pub fn new(payload_bytes_max: usize, last_appended: Position, record_version: u16) -> FlushQueue<B> {
        assert!(payload_bytes_max > RECORD_HEAD_BYTES, "a block must hold at least a record's head");
        FlushQueue {
            pieces: VecDeque::new(),
            payload_bytes_max,
            queued_bytes: 0,
            last_appended,
            record_version,
            spare_blocks: Vec::new(),
            spare_starts: Vec::new(),
        }
    }

    /// Appends one record; the caller has checked length and order.
    pub fn append(&mut self, position: Position, record_bytes: u32, mut record: &[u8]) {
        self.queued_bytes += (RECORD_HEAD_BYTES + record.len()) as u64;
        if self.tail_room() < RECORD_HEAD_BYTES {
            self.push_piece();
        }
        let previous_position = std::mem::replace(&mut self.last_appended, position);
        debug_assert!(previous_position < position);
        let tail = self.pieces.back_mut().expect("a piece with room was ensured");
        tail.starts.push(RecordStart { offset: tail.payload_bytes(), position });
        RecordHead { record_bytes, position, version: self.record_version }.put(&mut tail.block);
        loop {
            let room = self.tail_room().min(record.len());
            let tail = self.pieces.back_mut().expect("the record's piece");
            tail.block.append(&record[..room]);
            record = &record[room..];
            tail.ends_record = record.is_empty();
            if record.is_empty() {
                return;
            }
            self.push_piece();
        }
    }

    fn tail_room(&self) -> usize {
        self.pieces.back().map_or(0, |piece| self.payload_bytes_max - piece.payload_bytes())
    }

    fn push_piece(&mut self) {
        let previous_position = self.last_appended;
        let piece = self.new_piece(previous_position);
        self.pieces.push_back(piece);
    }

    fn new_piece(&mut self, previous_position: Position) -> Piece<B> {
        let starts = self.spare_starts.pop().unwrap_or_default();
        Piece { block: self.spare_block(), starts, previous_position, ends_record: false }
    }

    /// A block with room for its header and an empty payload.
    pub fn spare_block(&mut self) -> B {
        let mut block = self.spare_blocks.pop().unwrap_or_default();
        block.append_zeros(BLOCK_HEADER_BYTES);
        block
    }

    /// Takes the first piece, cut to at most `room_bytes` of payload.
    pub fn take(&mut self, room_bytes: usize) -> Option<TakenPiece<B>> {
        assert!(room_bytes > RECORD_HEAD_BYTES, "a flush needs room for a record's head");
        let mut piece = self.pieces.pop_front()?;
        if piece.payload_bytes() > room_bytes {
            let rest = self.split(&mut piece, room_bytes);
            self.pieces.push_front(rest);
        }
        self.queued_bytes -= piece.payload_bytes() as u64;
        let taken = TakenPiece {
            first_record: piece.starts.first().map(|start| (start.position, start.offset as u32)),
            previous_position: piece.previous_position,
            last_started: piece.last_started(),
            completes: piece.completes(),
            block: piece.block,
        };
        piece.starts.clear();
        self.spare_starts.push(piece.starts);
        Some(taken)
    }

    /// Cuts `piece` at `room_bytes` or a little before, and gives what follows. Happens once a segment.
    fn split(&mut self, piece: &mut Piece<B>, room_bytes: usize) -> Piece<B> {
        let before = piece.starts.partition_point(|start| start.offset < room_bytes);
        let last_start = piece.starts[..before].last().copied();
        let cuts_head = last_start.filter(|start| room_bytes - start.offset < RECORD_HEAD_BYTES);
        let (cut, kept) = cuts_head.map_or((room_bytes, before), |start| (start.offset, before - 1));

        let kept_last = piece.starts[..kept].last().map_or(piece.previous_position, |start| start.position);
        let mut rest = self.new_piece(kept_last);
        rest.block.append(&piece.block.as_slice()[BLOCK_HEADER_BYTES + cut..]);
        rest.starts
            .extend(piece.starts[kept..].iter().map(|s| RecordStart { offset: s.offset - cut, position: s.position }));
        rest.ends_record = piece.ends_record;

        piece.block.truncate(BLOCK_HEADER_BYTES + cut);
        piece.starts.truncate(kept);
        piece.ends_record = rest.starts.first().is_some_and(|start| start.offset == 0);
        rest
    }

    /// Takes a block's memory back for reuse.
    pub fn give_back(&mut self, mut block: B) {
        if self.spare_blocks.len() < SPARE_BLOCKS_MAX {
            block.clear();
            self.spare_blocks.push(block);
        }
    }

    /// Payload waiting, bytes.
    pub fn queued_bytes(&self) -> u64 {
        self.queued_bytes
    }

    /// File space that what waits will take, bytes, padding included.
    pub fn padded_bytes(&self, block_bytes: u32) -> u64 {
        self.pieces.iter().map(|piece| padded_block_bytes(piece.payload_bytes() as u64, block_bytes)).sum()
    }

    /// Position of the last record appended.
    pub fn last_appended(&self) -> Position {
        self.last_appended
    }
}
