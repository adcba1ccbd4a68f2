//! One part of a snapshot: written record by record, read from pieces of any size.
//!
//! ```text
//! header    0  magic "RKSP"         8  start zxid S u64     20  zero (8)
//!           4  format version u32  16  part index u32       28  crc32c of bytes 0..28
//! chunk     0  payload bytes u32    4  crc32c                8  payload: whole records
//! trailer   0  zero u32             4  crc32c                8  records u64    16  finished-at zxid u64    24  zero (8)
//! ```
//! A chunk holds up to [`CHUNK_BYTES`] of records, or one record that is larger. The checksums are chained: each goes on from
//! the one before, over the length and the payload (of the trailer: bytes 8 to 32). So a chunk cannot be missing, doubled or
//! moved, and the trailer's checksum, which the manifest repeats, covers the whole part.

use super::snapshot_format::{
    Fields, Manifest, PartSummary, SNAPSHOT_FORMAT_VERSION, SnapshotError, SnapshotFault, SnapshotRecord, check_magic,
};
use crate::base::Zxid;
use std::collections::VecDeque;

/// Payload at which a chunk is closed, bytes.
pub const CHUNK_BYTES: usize = 256 << 10;
/// Longest chunk believed, bytes: one record with two fields of the greatest length.
const CHUNK_BYTES_MAX: u32 = 1025 << 20;
/// Memory for chunks that is kept between them, bytes.
const KEPT_BYTES_MAX: usize = 4 * CHUNK_BYTES;

const PART_MAGIC: [u8; 4] = *b"RKSP";
const PART_HEADER_BYTES: usize = 32;
const CHUNK_HEAD_BYTES: usize = 8;
const TRAILER_REST_BYTES: usize = 24;

fn part_header(start: Zxid, index: u32) -> ([u8; PART_HEADER_BYTES], u32) {
    let mut header = [0; PART_HEADER_BYTES];
    header[0..4].copy_from_slice(&PART_MAGIC);
    header[4..8].copy_from_slice(&SNAPSHOT_FORMAT_VERSION.to_le_bytes());
    header[8..16].copy_from_slice(&start.0.to_le_bytes());
    header[16..20].copy_from_slice(&index.to_le_bytes());
    let crc = crc32c::crc32c(&header[..28]);
    header[28..32].copy_from_slice(&crc.to_le_bytes());
    (header, crc)
}

fn chained_crc(previous: u32, payload_bytes: u32, payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(previous, &payload_bytes.to_le_bytes()), payload)
}

/// Writes a part. Push records; between them write out what [`PartWriter::take_filled`] gives, in order; end with
/// [`PartWriter::finish`]. One shard's state, not shared.
#[derive(Debug)]
pub struct PartWriter {
    /// The chunk being filled, behind what precedes it: the part's header, and its own head's room.
    open: Vec<u8>,
    /// Where the open chunk's head stands in `open`.
    head_at: usize,
    filled: VecDeque<Vec<u8>>,
    spare: Option<Vec<u8>>,
    /// Bytes of all closed chunks.
    closed_bytes: u64,
    crc: u32,
    records: u64,
}

impl PartWriter {
    /// A part of the snapshot that starts at `start`.
    pub fn new(start: Zxid, index: u32) -> PartWriter {
        let (header, crc) = part_header(start, index);
        let mut open = Vec::with_capacity(CHUNK_BYTES + 2 * PART_HEADER_BYTES);
        open.extend_from_slice(&header);
        open.extend_from_slice(&[0; CHUNK_HEAD_BYTES]);
        let head_at = PART_HEADER_BYTES;
        PartWriter { open, head_at, filled: VecDeque::new(), spare: None, closed_bytes: 0, crc, records: 0 }
    }

    /// Adds a record. A fault if it is too long to be read again; nothing is written then.
    pub fn push(&mut self, record: &SnapshotRecord<'_>) -> Result<(), SnapshotFault> {
        let record_bytes = record.encoded_bytes()?;
        if self.payload_bytes() > 0 && self.payload_bytes() + record_bytes > CHUNK_BYTES {
            self.close_chunk();
        }
        record.encode(&mut self.open);
        self.records += 1;
        Ok(())
    }

    /// The next bytes of the file, once a chunk is full.
    pub fn take_filled(&mut self) -> Option<Vec<u8>> {
        self.filled.pop_front()
    }

    /// Takes a written buffer back for reuse.
    pub fn give_back(&mut self, bytes: Vec<u8>) {
        if bytes.capacity() <= KEPT_BYTES_MAX {
            self.spare = Some(bytes);
        }
    }

    /// Ends the part, whose scan was finished at `finished_at` (rule C3). Gives the last bytes of the file, to be written
    /// after all that [`PartWriter::take_filled`] still has, and what goes into the manifest.
    pub fn finish(mut self, finished_at: Zxid) -> (Vec<Vec<u8>>, PartSummary) {
        if self.payload_bytes() > 0 {
            self.close_chunk();
        }
        let mut rest = [0; TRAILER_REST_BYTES];
        rest[0..8].copy_from_slice(&self.records.to_le_bytes());
        rest[8..16].copy_from_slice(&finished_at.0.to_le_bytes());
        self.crc = chained_crc(self.crc, 0, &rest);
        self.open[self.head_at + 4..].copy_from_slice(&self.crc.to_le_bytes());
        self.open.extend_from_slice(&rest);
        let file_bytes = self.closed_bytes + self.open.len() as u64;
        self.filled.push_back(self.open);
        (self.filled.into(), PartSummary { file_bytes, records: self.records, crc: self.crc })
    }

    fn payload_bytes(&self) -> usize {
        self.open.len() - self.head_at - CHUNK_HEAD_BYTES
    }

    fn close_chunk(&mut self) {
        let payload_bytes = self.payload_bytes() as u32;
        self.crc = chained_crc(self.crc, payload_bytes, &self.open[self.head_at + CHUNK_HEAD_BYTES..]);
        self.open[self.head_at..self.head_at + 4].copy_from_slice(&payload_bytes.to_le_bytes());
        self.open[self.head_at + 4..self.head_at + 8].copy_from_slice(&self.crc.to_le_bytes());
        let mut next = self.spare.take().unwrap_or_else(|| Vec::with_capacity(CHUNK_BYTES + PART_HEADER_BYTES));
        next.clear();
        next.extend_from_slice(&[0; CHUNK_HEAD_BYTES]);
        let closed = std::mem::replace(&mut self.open, next);
        self.head_at = 0;
        self.closed_bytes += closed.len() as u64;
        self.filled.push_back(closed);
    }
}

/// What the reader waits for.
#[derive(Clone, Copy, Debug)]
enum Expect {
    Header,
    ChunkHead,
    Chunk { payload_bytes: u32, crc: u32 },
    TrailerRest { crc: u32 },
    End,
}

impl Expect {
    /// Length of the awaited piece, bytes.
    fn bytes(self) -> usize {
        match self {
            Expect::Header => PART_HEADER_BYTES,
            Expect::ChunkHead => CHUNK_HEAD_BYTES,
            Expect::Chunk { payload_bytes, .. } => payload_bytes as usize,
            Expect::TrailerRest { .. } => TRAILER_REST_BYTES,
            Expect::End => 0,
        }
    }
}

/// Reads a part. Feed the file's bytes in pieces of any size, then [`PartReader::finish`]. Records are handed out after their
/// chunk's checksum was found right, borrowed from the fed bytes or from one buffer; none is allocated for.
///
/// After an error the reader gives the same error for ever.
#[derive(Debug)]
pub struct PartReader {
    start: Zxid,
    index: u32,
    /// What the manifest says; `None` when a part is inspected alone.
    expected: Option<PartSummary>,
    expect: Expect,
    /// The beginning of the awaited piece, when it came in several feeds. Grows with the bytes that come.
    buffer: Vec<u8>,
    /// Offset of the awaited piece in the file, bytes.
    offset: u64,
    crc: u32,
    records: u64,
    finished_at: Zxid,
    failed: Option<SnapshotError>,
}

impl Manifest {
    /// A reader of part `index`, which checks that it is the part this manifest speaks of; `None` if there is none.
    pub fn part_reader(&self, index: u32) -> Option<PartReader> {
        let expected = *self.parts.get(index as usize)?;
        Some(PartReader { expected: Some(expected), ..PartReader::new(self.start, index) })
    }
}

impl PartReader {
    /// A reader of a part without its manifest, for inspection.
    pub fn new(start: Zxid, index: u32) -> PartReader {
        PartReader {
            start,
            index,
            expected: None,
            expect: Expect::Header,
            buffer: Vec::new(),
            offset: 0,
            crc: 0,
            records: 0,
            finished_at: Zxid::ZERO,
            failed: None,
        }
    }

    /// Where the piece begins that is being read, bytes: for the text of a fault that only the caller sees.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Takes the next bytes of the file; `sink` gets each record that is complete.
    pub fn feed(&mut self, bytes: &[u8], sink: &mut impl FnMut(SnapshotRecord<'_>)) -> Result<(), SnapshotError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.take_pieces(bytes, sink).map_err(|fault| {
            let error = SnapshotError { offset: self.offset, fault };
            self.failed = Some(error);
            error
        })
    }

    /// The end of the file: the part is good only if nothing is missing and it is the manifest's. Gives what was read and the
    /// zxid at which the part was finished.
    pub fn finish(self) -> Result<(PartSummary, Zxid), SnapshotError> {
        let summary = PartSummary { file_bytes: self.offset, records: self.records, crc: self.crc };
        let fault = match (self.failed, self.expect) {
            (Some(error), _) => return Err(error),
            (None, Expect::End) if self.expected.is_none_or(|expected| expected == summary) => {
                return Ok((summary, self.finished_at));
            }
            (None, Expect::End) => SnapshotFault::OtherPart,
            (None, _) => SnapshotFault::Truncated,
        };
        Err(SnapshotError { offset: self.offset, fault })
    }

    fn take_pieces(
        &mut self,
        mut bytes: &[u8],
        sink: &mut impl FnMut(SnapshotRecord<'_>),
    ) -> Result<(), SnapshotFault> {
        while !bytes.is_empty() {
            if matches!(self.expect, Expect::End) {
                return Err(SnapshotFault::TrailingBytes);
            }
            let piece_bytes = self.expect.bytes();
            let missing_bytes = piece_bytes - self.buffer.len();
            let Some((piece, rest)) = bytes.split_at_checked(missing_bytes) else {
                self.buffer.extend_from_slice(bytes);
                return Ok(());
            };
            bytes = rest;
            if self.buffer.is_empty() {
                self.expect = self.take_piece(piece, sink)?;
            } else {
                let mut buffer = std::mem::take(&mut self.buffer);
                buffer.extend_from_slice(piece);
                self.expect = self.take_piece(&buffer, sink)?;
                if buffer.capacity() <= KEPT_BYTES_MAX {
                    buffer.clear();
                    self.buffer = buffer;
                }
            }
            self.offset += piece_bytes as u64;
        }
        Ok(())
    }

    /// Takes one whole piece and tells what comes next.
    fn take_piece(&mut self, piece: &[u8], sink: &mut impl FnMut(SnapshotRecord<'_>)) -> Result<Expect, SnapshotFault> {
        let mut fields = Fields::new(piece);
        match self.expect {
            Expect::Header => self.take_header(piece),
            Expect::ChunkHead => match (fields.u32()?, fields.u32()?) {
                (0, crc) => Ok(Expect::TrailerRest { crc }),
                (payload_bytes, crc) if payload_bytes <= CHUNK_BYTES_MAX => Ok(Expect::Chunk { payload_bytes, crc }),
                (payload_bytes, _) => Err(SnapshotFault::TooLong(u64::from(payload_bytes))),
            },
            Expect::Chunk { payload_bytes, crc } => {
                self.check_crc(payload_bytes, piece, crc)?;
                self.take_records(fields, sink)?;
                Ok(Expect::ChunkHead)
            }
            Expect::TrailerRest { crc } => {
                self.check_crc(0, piece, crc)?;
                let records = fields.u64()?;
                self.finished_at = Zxid(fields.u64()?);
                let complete = records == self.records && self.finished_at >= self.start;
                complete.then_some(Expect::End).ok_or(SnapshotFault::Malformed("the trailer does not fit the part"))
            }
            Expect::End => Err(SnapshotFault::TrailingBytes),
        }
    }

    fn take_header(&mut self, header: &[u8]) -> Result<Expect, SnapshotFault> {
        check_magic(&mut Fields::new(header), PART_MAGIC)?;
        let (expected, crc) = part_header(self.start, self.index);
        if crc32c::crc32c(&header[..28]).to_le_bytes() != header[28..] {
            return Err(SnapshotFault::Checksum);
        }
        if header != expected {
            return Err(SnapshotFault::OtherPart);
        }
        self.crc = crc;
        Ok(Expect::ChunkHead)
    }

    fn check_crc(&mut self, payload_bytes: u32, payload: &[u8], crc: u32) -> Result<(), SnapshotFault> {
        self.crc = chained_crc(self.crc, payload_bytes, payload);
        if self.crc == crc { Ok(()) } else { Err(SnapshotFault::Checksum) }
    }

    fn take_records(
        &mut self,
        mut fields: Fields<'_>,
        sink: &mut impl FnMut(SnapshotRecord<'_>),
    ) -> Result<(), SnapshotFault> {
        while !fields.is_empty() {
            let record = SnapshotRecord::decode(&mut fields)
                .map_err(|fault| if fault == SnapshotFault::Truncated { SPLIT_RECORD } else { fault })?;
            self.records += 1;
            sink(record);
        }
        Ok(())
    }
}

const SPLIT_RECORD: SnapshotFault = SnapshotFault::Malformed("a record runs over the end of its chunk");
