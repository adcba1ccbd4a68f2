//! The log on disk, to the byte. All integers are little-endian.
//!
//! # Files
//! The log is a chain of segment files `log.<life>` (16 hex digits) of a fixed size. A segment's **life** is a number that
//! is never used twice in a data directory; a recycled file starts a new life under a new name. A file that waits to be
//! recycled is `spare.<its last life>`. The driver prepares a segment under such a name and renames it to `log.<life>` when
//! its header is durable, so a `log.` file with a bad header has been damaged.
//!
//! ```text
//! segment   0                  block_bytes                                               segment_bytes
//!           +------------------+--------------+---------+-------------------+-- - - - - -+
//!           | segment header   | block        | block   | block             | old or zero|
//!           +------------------+--------------+---------+-------------------+-- - - - - -+
//!
//! segment header (88 bytes used, zeros up to block_bytes)
//!   0  magic "RKTL"           24  keep-to position u64    64  segment bytes u64
//!   4  format version u32     32  stream id u64           72  block bytes u32
//!   8  life u64               40  log owner u128          76  zero (8)
//!  16  previous life u64      56  highest position u64    84  crc32c of bytes 0..84
//!
//! block (starts at a multiple of block_bytes, padded with zeros to one; one block = one flush)
//!   0  magic "RKBL"           24  offset in file u64      56  committed position u64
//!   4  header crc32c          32  first position u64      64  first record offset u32
//!   8  payload crc32c         40  previous position u64   68  flags u32
//!  12  payload bytes u32      48  durable position u64        bit 0: written without sync
//!  16  life u64                                           72  payload
//!
//! payload   a piece of the record stream. A record runs on into the next blocks and segments when it is larger than the
//!           room (rule C9); its 14-byte head never does.
//! record    0  record bytes u32 (without this head)      4  position u64      12  record version u16      14  the bytes
//! ```
//!
//! # Meaning
//! - **previous life**: the segment before this one in the stream, 0 when the stream begins here. The log is what one
//!   reaches from the highest life along these links; any other segment file is void.
//! - **keep-to position**: `Position::MAX` in a segment that just continues the one before. Otherwise the stream was cut: what the
//!   earlier segments hold above this position is void (a torn tail, an unfinished record, a TRUNC). So a cut becomes effective
//!   atomically, when the new segment gets its name. With previous life 0 it is the position at which the log begins.
//! - **stream id**: a random number of this data directory's log. With the life it seeds both checksums of a block: a
//!   recycled segment's old blocks are not blocks of the new life (rule C6), and a client that stores the image of a block in
//!   a znode cannot make one.
//! - **log owner**: the cluster whose log this is, the same in all segments of a stream.
//! - **highest position**: no record that was ever in this log had a higher one when the segment was made, those included that
//!   were cut off since. So a number that was given out before a cut can be told from one that was not.
//! - **offset in file**: a write that the device put elsewhere is noticed.
//! - **previous position**: of the last record that starts before this block; **first position** and **first record offset** (in
//!   the payload): of the first that starts in it, 0 and `0xffff_ffff` if none does.
//! - **durable position**: every record up to here was durable when the block was made (rule E6). Nothing is written to a block
//!   again, so from then on these records can be missing only through damage.
//! - **committed position**: every record up to here was known to be committed when the block was made (rule C2): no leader will
//!   ever cut it off. It may lie above what this disk holds, and it may be behind the truth.
//! - **record version**: of the encoding of the record's bytes, which only the log's owner knows.
//! - **written without sync**: the flushes before this one need not have reached the disk (`forceSync=no`), so this block
//!   proves nothing beyond its durable position. Otherwise a good block header proves that every block before it was good.
//! - The two checksums are apart so that the header alone, which fits in one sector, is evidence even when the payload is
//!   torn.

use super::block::BlockBuffer;
use super::position::{LogOwner, Position};
use crate::base::planted;
use std::fmt;
use thiserror::Error;

/// Version of the format written; readers refuse any other.
pub const LOG_FORMAT_VERSION: u32 = 2;
/// The usual block: what every disk writes without reading first. Larger only on devices with larger logical blocks.
pub const BLOCK_BYTES_DEFAULT: u32 = 4096;
/// Used bytes of a segment header, which takes a whole block.
pub const SEGMENT_HEADER_BYTES: usize = 88;
/// Bytes of a block header.
pub const BLOCK_HEADER_BYTES: usize = 72;
/// Bytes of a record's head: length, position and version.
pub const RECORD_HEAD_BYTES: usize = 14;
/// Largest block, bytes, header included: what a reader must hold at once.
pub const FLUSH_BYTES_LIMIT: u32 = 64 << 20;
/// Blocks of the smallest segment: its header's, and room for some more.
pub const SEGMENT_BLOCKS_MIN: u64 = 4;
/// Largest segment, bytes.
pub const SEGMENT_BYTES_LIMIT: u64 = 4 << 30;
/// Longest record, bytes without its head. Checked when writing, and before anything is allocated when reading.
pub const RECORD_BYTES_MAX: u32 = 512 << 20;

/// Bytes of a segment header that its checksum covers; the checksum follows them.
const CHECKED_BYTES: usize = SEGMENT_HEADER_BYTES - 4;
const SEGMENT_MAGIC: [u8; 4] = *b"RKTL";
const BLOCK_MAGIC: [u8; 4] = *b"RKBL";
const FLAG_WITHOUT_SYNC: u32 = 1;
const NO_RECORD_STARTS: u32 = u32::MAX;
const FILE_PREFIX: &str = "log.";
const SPARE_PREFIX: &str = "spare.";

const _: () = assert!(BLOCK_HEADER_BYTES <= 512, "a block header must fit in the smallest sector");

/// A segment's life: unique in a data directory and growing. 0 is "none". A name with a life above [`Life::LAST`] is not one of
/// ours: no log lives as long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Life(pub u64);

impl Life {
    /// No segment.
    pub const NONE: Life = Life(0);
    /// The highest life that is believed.
    pub const LAST: Life = Life(u64::MAX >> 8);

    /// The name of this life's segment file.
    pub fn file_name(self) -> String {
        format!("{FILE_PREFIX}{:016x}", self.0)
    }

    /// The life whose segment file has this name; `None` for any other file.
    pub fn from_file_name(name: &str) -> Option<Life> {
        parse_life(name.strip_prefix(FILE_PREFIX)?)
    }

    /// The name under which the file of this life waits to be recycled. It keeps the number, so that a life whose blocks
    /// are still in some file is never given out again (rule C6).
    pub fn spare_file_name(self) -> String {
        format!("{SPARE_PREFIX}{:016x}", self.0)
    }

    /// The life whose spare file has this name; `None` for any other file.
    pub fn from_spare_file_name(name: &str) -> Option<Life> {
        parse_life(name.strip_prefix(SPARE_PREFIX)?)
    }
}

fn parse_life(digits: &str) -> Option<Life> {
    let canonical = digits.len() == 16 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    u64::from_str_radix(digits, 16)
        .ok()
        .filter(|life| canonical && *life != 0)
        .map(Life)
        .filter(|life| *life <= Life::LAST)
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// The head of a segment file. See the module documentation for the meaning of each field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The number of this life of the file.
    pub life: Life,
    /// The segment before this one, [`Life::NONE`] if the log begins here.
    pub previous_life: Life,
    /// What earlier segments hold above this is void; [`Position::MAX`] if this segment just continues.
    pub keep_to: Position,
    /// Random number of this data directory's log.
    pub stream_id: u64,
    /// The cluster whose log this is.
    pub owner: LogOwner,
    /// The highest position that was ever in this log when the segment was made.
    pub highest_position: Position,
    /// Size of the segment, bytes, header included.
    pub segment_bytes: u64,
    /// Blocks start at multiples of this, bytes.
    pub block_bytes: u32,
}

/// Why a segment header cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SegmentFault {
    /// Fewer bytes than a header has.
    #[error("the file ends inside the segment header")]
    Short,
    /// The checksum does not match, or there is no magic.
    #[error("the segment header is damaged")]
    Checksum,
    /// Written by another version.
    #[error("log format version {0} is not known to this server")]
    Version(u32),
    /// The file carries the header of another life.
    #[error("the file holds the segment of life {0}")]
    OtherLife(Life),
    /// Checksum good, values impossible.
    #[error("the segment header has impossible sizes")]
    Sizes,
}

impl SegmentHeader {
    /// The header as its whole block, `block_bytes` long.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.block_bytes as usize];
        bytes[0..4].copy_from_slice(&SEGMENT_MAGIC);
        put_u32(&mut bytes, 4, LOG_FORMAT_VERSION);
        put_u64(&mut bytes, 8, self.life.0);
        put_u64(&mut bytes, 16, self.previous_life.0);
        put_u64(&mut bytes, 24, self.keep_to.0);
        put_u64(&mut bytes, 32, self.stream_id);
        bytes[40..56].copy_from_slice(&self.owner.0.to_le_bytes());
        put_u64(&mut bytes, 56, self.highest_position.0);
        put_u64(&mut bytes, 64, self.segment_bytes);
        put_u32(&mut bytes, 72, self.block_bytes);
        let crc = crc32c::crc32c(&bytes[..CHECKED_BYTES]);
        put_u32(&mut bytes, CHECKED_BYTES, crc);
        bytes
    }

    /// Reads the header of the file named for `life` from its first bytes.
    pub fn decode(bytes: &[u8], life: Life) -> Result<SegmentHeader, SegmentFault> {
        let head = bytes.get(..SEGMENT_HEADER_BYTES).ok_or(SegmentFault::Short)?;
        if head[0..4] != SEGMENT_MAGIC || crc32c::crc32c(&head[..CHECKED_BYTES]) != get_u32(head, CHECKED_BYTES) {
            return Err(SegmentFault::Checksum);
        }
        let version = get_u32(head, 4);
        if version != LOG_FORMAT_VERSION {
            return Err(SegmentFault::Version(version));
        }
        let header = SegmentHeader {
            life: Life(get_u64(head, 8)),
            previous_life: Life(get_u64(head, 16)),
            keep_to: Position(get_u64(head, 24)),
            stream_id: get_u64(head, 32),
            owner: LogOwner(u128::from(get_u64(head, 40)) | u128::from(get_u64(head, 48)) << 64),
            highest_position: Position(get_u64(head, 56)),
            segment_bytes: get_u64(head, 64),
            block_bytes: get_u32(head, 72),
        };
        if header.life != life {
            return Err(SegmentFault::OtherLife(header.life));
        }
        let links_back = header.previous_life < header.life;
        if !links_back || check_sizes(header.segment_bytes, header.block_bytes).is_err() {
            return Err(SegmentFault::Sizes);
        }
        Ok(header)
    }

    /// What seeds the checksums of this segment's blocks.
    pub fn seed(&self) -> BlockSeed {
        BlockSeed::new(self.stream_id, self.life)
    }

    /// Whether the log was cut before this segment.
    pub fn is_cut(&self) -> bool {
        self.keep_to != Position::MAX
    }
}

/// Whether a segment of this size can be written: blocks a power of two of at least 4096, and room for some of them.
pub fn check_sizes(segment_bytes: u64, block_bytes: u32) -> Result<(), SegmentFault> {
    let block_fits = block_bytes.is_power_of_two() && (4096..=1 << 20).contains(&block_bytes);
    let segment_fits = segment_bytes.is_multiple_of(u64::from(block_bytes))
        && segment_bytes >= SEGMENT_BLOCKS_MIN * u64::from(block_bytes)
        && segment_bytes <= SEGMENT_BYTES_LIMIT;
    if block_fits && segment_fits { Ok(()) } else { Err(SegmentFault::Sizes) }
}

/// The planted bug that takes blocks of a file's earlier lives for its own.
const STALE_BLOCKS: &str = "c6-stale-block-replayed";

/// The initial checksum value of one segment life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockSeed(u32);

impl BlockSeed {
    /// From the random stream id and the life.
    pub fn new(stream_id: u64, life: Life) -> BlockSeed {
        let life = if planted::is(STALE_BLOCKS) { Life::NONE } else { life };
        let stream = crc32c::crc32c(&stream_id.to_le_bytes());
        BlockSeed(crc32c::crc32c_append(stream, &life.0.to_le_bytes()))
    }

    fn checksum(self, bytes: &[u8]) -> u32 {
        crc32c::crc32c_append(self.0, bytes)
    }
}

/// The head of a block. See the module documentation for the meaning of each field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockHeader {
    /// Length of the payload, bytes without padding; 0 in the block of an idle log.
    pub payload_bytes: u32,
    /// Life of the segment the block belongs to.
    pub life: Life,
    /// Where in the file the block belongs, bytes.
    pub offset: u64,
    /// Position of the first record that starts in this block and its place in the payload.
    pub first_record: Option<(Position, u32)>,
    /// Position of the last record that starts before this block.
    pub previous_position: Position,
    /// Everything up to here was durable when the block was made.
    pub durable_position: Position,
    /// Everything up to here was known to be committed when the block was made.
    pub committed_position: Position,
    /// Whether each flush before this one was synced.
    pub synced: bool,
}

/// Why there is no good block at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BlockFault {
    /// The file ends before a block header would.
    #[error("end of the segment")]
    SegmentEnd,
    /// Zeros, or the middle of something older.
    #[error("no block")]
    NotABlock,
    /// A block of an earlier life of the file.
    #[error("a block of earlier life {0}")]
    OtherLife(Life),
    /// The header is of this life but its checksum does not match.
    #[error("the block header is damaged")]
    HeaderChecksum,
    /// A good header that belongs elsewhere: the device wrote it to the wrong place.
    #[error("a block that belongs at offset {belongs_at}")]
    Misplaced {
        /// Its right place in the file, bytes.
        belongs_at: u64,
        /// What it proves to have been durable.
        durable_position: Position,
    },
    /// The header is good, the payload is not.
    #[error("the payload of the block is damaged or torn")]
    PayloadChecksum(BlockHeader),
}

impl BlockHeader {
    /// Writes header and checksums over the first [`BLOCK_HEADER_BYTES`] of `block`, whose payload follows them, and pads
    /// with zeros to a multiple of `block_bytes`.
    pub fn seal(&self, buffer: &mut impl BlockBuffer, seed: BlockSeed, block_bytes: u32) {
        let payload_end = BLOCK_HEADER_BYTES + self.payload_bytes as usize;
        let block = buffer.as_mut_slice();
        assert_eq!(block.len(), payload_end, "a block is its header's room and its payload");
        let payload_crc = seed.checksum(&block[BLOCK_HEADER_BYTES..]);
        let (first_position, first_offset) = self.first_record.unwrap_or((Position::ZERO, NO_RECORD_STARTS));
        block[0..4].copy_from_slice(&BLOCK_MAGIC);
        put_u32(block, 8, payload_crc);
        put_u32(block, 12, self.payload_bytes);
        put_u64(block, 16, self.life.0);
        put_u64(block, 24, self.offset);
        put_u64(block, 32, first_position.0);
        put_u64(block, 40, self.previous_position.0);
        put_u64(block, 48, self.durable_position.0);
        put_u64(block, 56, self.committed_position.0);
        put_u32(block, 64, first_offset);
        put_u32(block, 68, if self.synced { 0 } else { FLAG_WITHOUT_SYNC });
        let header_crc = seed.checksum(&block[8..BLOCK_HEADER_BYTES]);
        put_u32(block, 4, header_crc);
        buffer.append_zeros(payload_end.next_multiple_of(block_bytes as usize) - payload_end);
    }

    /// Reads the block header at the start of `bytes`, found at `offset` of the segment of `life`.
    pub fn decode(bytes: &[u8], life: Life, seed: BlockSeed, offset: u64) -> Result<BlockHeader, BlockFault> {
        let head = bytes.get(..BLOCK_HEADER_BYTES).ok_or(BlockFault::SegmentEnd)?;
        if head[0..4] != BLOCK_MAGIC {
            return Err(BlockFault::NotABlock);
        }
        let written_in = Life(get_u64(head, 16));
        if written_in != life && !planted::is(STALE_BLOCKS) {
            return Err(BlockFault::OtherLife(written_in));
        }
        let (first_offset, flags) = (get_u32(head, 64), get_u32(head, 68));
        let fits =
            get_u32(head, 12) <= FLUSH_BYTES_LIMIT - BLOCK_HEADER_BYTES as u32 && flags & !FLAG_WITHOUT_SYNC == 0;
        if seed.checksum(&head[8..]) != get_u32(head, 4) || !fits {
            return Err(BlockFault::HeaderChecksum);
        }
        let header = BlockHeader {
            payload_bytes: get_u32(head, 12),
            life,
            offset: get_u64(head, 24),
            first_record: (first_offset != NO_RECORD_STARTS).then(|| (Position(get_u64(head, 32)), first_offset)),
            previous_position: Position(get_u64(head, 40)),
            durable_position: Position(get_u64(head, 48)),
            committed_position: Position(get_u64(head, 56)),
            synced: flags & FLAG_WITHOUT_SYNC == 0,
        };
        if header.offset != offset {
            return Err(BlockFault::Misplaced { belongs_at: header.offset, durable_position: header.durable_position });
        }
        Ok(header)
    }

    /// The positions that the block speaks of, records that start in `payload` included. The payload may be missing or cut short.
    pub fn positions<'a>(&self, payload: &'a [u8]) -> impl Iterator<Item = Position> + use<'a> {
        let (first, offset) = self.first_record.unwrap_or((Position::ZERO, NO_RECORD_STARTS));
        let mut rest = payload.get(offset as usize..).unwrap_or_default();
        let starts = std::iter::from_fn(move || {
            let (head, bytes) = RecordHead::split_from(rest)?;
            rest = bytes.get(head.record_bytes as usize..).unwrap_or_default();
            Some(head.position)
        });
        [first, self.previous_position, self.durable_position].into_iter().chain(starts)
    }

    /// Bytes of header and payload.
    pub fn used_bytes(&self) -> usize {
        BLOCK_HEADER_BYTES + self.payload_bytes as usize
    }

    /// Bytes the block takes in the file, padding included.
    pub fn padded_bytes(&self, block_bytes: u32) -> u64 {
        padded_block_bytes(u64::from(self.payload_bytes), block_bytes)
    }
}

/// Bytes that a block with this payload takes in the file.
pub fn padded_block_bytes(payload_bytes: u64, block_bytes: u32) -> u64 {
    (BLOCK_HEADER_BYTES as u64 + payload_bytes).next_multiple_of(u64::from(block_bytes))
}

/// The block at the beginning of `bytes`, which stand at `offset` of the segment of `life`: its header and payload, both checked.
/// `bytes` reach to the end of the block at least, or to the end of the segment.
pub fn read_block(bytes: &[u8], life: Life, seed: BlockSeed, offset: u64) -> Result<(BlockHeader, &[u8]), BlockFault> {
    let header = BlockHeader::decode(bytes, life, seed, offset)?;
    let payload =
        bytes[BLOCK_HEADER_BYTES..].get(..header.payload_bytes as usize).ok_or(BlockFault::PayloadChecksum(header))?;
    if seed.checksum(payload) != get_u32(bytes, 8) {
        return Err(BlockFault::PayloadChecksum(header));
    }
    Ok((header, payload))
}

/// What stands before the bytes of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHead {
    /// Length of the record, bytes without the head.
    pub record_bytes: u32,
    /// The record's place in the order of the log.
    pub position: Position,
    /// The version of the record's encoding.
    pub version: u16,
}

impl RecordHead {
    /// Appends the head.
    pub fn put(&self, out: &mut impl BlockBuffer) {
        let mut head = [0; RECORD_HEAD_BYTES];
        put_u32(&mut head, 0, self.record_bytes);
        put_u64(&mut head, 4, self.position.0);
        head[12..14].copy_from_slice(&self.version.to_le_bytes());
        out.append(&head);
    }

    /// The head at the beginning of `bytes`, and what follows it, if a whole head is there.
    pub fn split_from(bytes: &[u8]) -> Option<(RecordHead, &[u8])> {
        let (head, rest) = bytes.split_at_checked(RECORD_HEAD_BYTES)?;
        let version = u16::from_le_bytes([head[12], head[13]]);
        Some((RecordHead { record_bytes: get_u32(head, 0), position: Position(get_u64(head, 4)), version }, rest))
    }
}

/// Whether the bytes at `offset` have the shape of a block of `life` that belongs there, checksum unseen: the most that
/// can be said when the segment header, and with it the seed, is lost.
pub fn looks_like_block(bytes: &[u8], life: Life, offset: u64) -> bool {
    bytes.len() >= BLOCK_HEADER_BYTES
        && bytes[0..4] == BLOCK_MAGIC
        && get_u64(bytes, 16) == life.0
        && get_u64(bytes, 24) == offset
}

fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn put_u64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

/// Callers have checked the length.
fn get_u32(bytes: &[u8], at: usize) -> u32 {
    let mut value = [0; 4];
    value.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(value)
}

/// Callers have checked the length.
fn get_u64(bytes: &[u8], at: usize) -> u64 {
    let mut value = [0; 8];
    value.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(value)
}
