//! Segments that nobody ever wrote, with every checksum right: what a reader must survive, not believe.

use crate::log_disk::{BLOCK, LogDisk};
use arbitrary::Arbitrary;
use ringkeeper::log::format::{BLOCK_HEADER_BYTES, BlockHeader, BlockSeed, Life, RecordHead, SegmentHeader};
use ringkeeper::log::position::{LogOwner, Position};

const STREAM_ID: u64 = 7;

/// A position: mostly a small one, so that they meet.
#[allow(missing_docs)]
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum AnyPosition {
    Small(u8),
    Any(u64),
    Max,
}

impl AnyPosition {
    fn position(self) -> Position {
        match self {
            AnyPosition::Small(position) => Position((position % 16).into()),
            AnyPosition::Any(position) => Position(position),
            AnyPosition::Max => Position::MAX,
        }
    }
}

/// A piece of a payload.
#[derive(Arbitrary, Clone, Debug)]
enum Piece {
    /// A whole record.
    Record {
        position: AnyPosition,
        bytes: u8,
    },
    /// A head that claims what it likes.
    Head {
        position: AnyPosition,
        claimed_bytes: u32,
    },
    Bytes(u16),
}

/// A block.
#[derive(Arbitrary, Clone, Debug)]
struct Block {
    payload: Vec<Piece>,
    /// Where the first record is said to begin; `None` for the truth.
    first_record: Option<Option<(AnyPosition, u32)>>,
    previous_position: AnyPosition,
    durable_position: AnyPosition,
    committed_position: AnyPosition,
    synced: bool,
    misplaced_by: i8,
    gap_blocks: u8,
}

/// A segment.
#[derive(Arbitrary, Clone, Debug)]
pub struct ForgedSegment {
    life: u8,
    previous_life: u8,
    keep_to: AnyPosition,
    highest_position: AnyPosition,
    other_stream: bool,
    blocks: Vec<Block>,
}

impl Block {
    fn payload(&self) -> (Vec<u8>, Option<(Position, u32)>) {
        let (mut bytes, mut first) = (vec![0; BLOCK_HEADER_BYTES], None);
        for piece in self.payload.iter().take(16) {
            let at = (bytes.len() - BLOCK_HEADER_BYTES) as u32;
            match piece {
                Piece::Record { position, bytes: length } => {
                    first.get_or_insert((position.position(), at));
                    put_head(&mut bytes, (*length).into(), *position);
                    bytes.resize(bytes.len() + usize::from(*length), 7);
                }
                Piece::Head { position, claimed_bytes } => {
                    first.get_or_insert((position.position(), at));
                    put_head(&mut bytes, *claimed_bytes, *position);
                }
                Piece::Bytes(length) => bytes.resize(bytes.len() + usize::from(*length) % 6000, 9),
            }
        }
        (bytes, first)
    }

    fn seal(&self, life: Life, offset: u64, seed: BlockSeed) -> Vec<u8> {
        let (mut bytes, first) = self.payload();
        let claimed = self.first_record.map(|claim| claim.map(|(position, at)| (position.position(), at)));
        let header = BlockHeader {
            payload_bytes: (bytes.len() - BLOCK_HEADER_BYTES) as u32,
            life,
            offset: offset.wrapping_add_signed(i64::from(self.misplaced_by.max(0)) * BLOCK as i64),
            first_record: claimed.unwrap_or(first),
            previous_position: self.previous_position.position(),
            durable_position: self.durable_position.position(),
            committed_position: self.committed_position.position(),
            synced: self.synced,
        };
        header.seal(&mut bytes, seed, BLOCK as u32);
        bytes
    }
}

fn put_head(bytes: &mut Vec<u8>, record_bytes: u32, position: AnyPosition) {
    RecordHead { record_bytes, position: position.position(), version: 0 }.put(bytes);
}

/// Writes the segments.
pub fn forge(segments: &[ForgedSegment]) -> LogDisk {
    let mut disk = LogDisk::default();
    for segment in segments.iter().take(6) {
        let life = Life(1 + u64::from(segment.life % 8));
        let stream_id = STREAM_ID + u64::from(segment.other_stream);
        let header = SegmentHeader {
            life,
            previous_life: Life(u64::from(segment.previous_life) % life.0),
            keep_to: segment.keep_to.position(),
            stream_id,
            owner: LogOwner(1),
            highest_position: segment.highest_position.position(),
            segment_bytes: 8 * BLOCK as u64,
            block_bytes: BLOCK as u32,
        };
        let mut file = header.encode();
        for block in segment.blocks.iter().take(7) {
            file.resize(file.len() + usize::from(block.gap_blocks % 4 / 3) * BLOCK, 0);
            let sealed = block.seal(life, file.len() as u64, header.seed());
            file.extend_from_slice(&sealed);
        }
        file.resize(8 * BLOCK, 0);
        disk.files.insert(life, file);
    }
    disk
}
