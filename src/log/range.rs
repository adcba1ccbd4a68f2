//! Reading a range of a log while it is written: for those who lag behind.
//!
//! Use: [`RangeReader::next_read`] names a stretch of a segment file that is durable; the driver reads it and calls
//! [`RangeReader::feed`]. What is read was flushed before, so a bad block is damage of the disk, never a torn write.
//!
//! Segments follow each other as the writer lists them. One that a cut ended holds records above its last position; they are void.
//! Each block names the record before it, so a block that is missing between two segments is noticed.

use super::block::BlockBuffer;
use super::damage::DamageCause;
use super::format::{BLOCK_HEADER_BYTES, BlockHeader, Life, RECORD_BYTES_MAX, SEGMENT_HEADER_BYTES, SegmentHeader};
use super::position::{Position, Record};
use super::recovery::ReadWanted;
use super::stream::{RecordStream, Taken, Wanted};
use super::window::{Found, Window};
use super::writer::{LogWriter, SegmentUse};
use thiserror::Error;

/// Why a range cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RangeFault {
    /// What is asked for is not kept any more.
    #[error("the log begins after {begins_after} only")]
    Purged {
        /// Records above this are there.
        begins_after: Position,
    },
    /// The disk does not give back what was written.
    #[error("{}, offset {offset}: {cause}", life.file_name())]
    Damaged {
        /// The segment.
        life: Life,
        /// The place in its file, bytes.
        offset: u64,
        /// What is wrong.
        cause: DamageCause,
    },
}

/// Where reading goes on.
#[derive(Clone, Copy, Debug)]
struct Place {
    segment: SegmentUse,
    /// `None` until it was read.
    header: Option<SegmentHeader>,
    offset: u64,
    /// What must be seen at `offset` at least, bytes.
    bytes: usize,
}

impl Place {
    fn at(segment: SegmentUse) -> Place {
        Place { segment, header: None, offset: 0, bytes: SEGMENT_HEADER_BYTES }
    }
}

/// A reading under way.
#[derive(Debug)]
pub struct RangeReader {
    /// The last record that was handed out, or from where on records are wanted.
    after: Position,
    place: Option<Place>,
    /// `None` until the first block tells where it begins.
    stream: Option<RecordStream>,
    /// The next record is above this.
    reached: Position,
    /// A record was met that a cut took. It may run on through whole segments: nothing counts up to the one that made the cut.
    is_void: bool,
}

impl RangeReader {
    /// Reads what is above `after`.
    pub fn new(after: Position) -> RangeReader {
        RangeReader { after, place: None, stream: None, reached: after, is_void: false }
    }

    /// Everything up to here was handed out.
    pub fn after(&self) -> Position {
        self.after
    }

    /// The log was cut: what was known of its files is void. Records that were handed out may be, too; that is for the caller to know.
    pub fn start_over(&mut self) {
        *self = RangeReader::new(self.after);
    }

    /// The stretch to feed next; `None` when there is nothing durable up to `to` that was not handed out.
    pub fn next_read<B: BlockBuffer>(&mut self, writer: &LogWriter<B>, to: Position) -> Option<ReadWanted> {
        let end = to.min(writer.durable_position());
        if self.after.max(self.reached) >= end {
            return None;
        }
        let mut place = match self.place {
            Some(place) => place,
            None => Place::at(writer.segment_above(self.after)?),
        };
        if place.header.is_some_and(|header| place.offset >= header.segment_bytes) {
            place = Place::at(writer.segment_after(place.segment.life)?);
        }
        // A segment grows, and what a cut has left of it does not.
        place.segment.last_position = writer.segment(place.segment.life)?.last_position;
        self.place = Some(place);
        let is_flushed = place.offset < writer.readable_bytes(place.segment.life);
        is_flushed.then_some(ReadWanted { life: place.segment.life, offset: place.offset, bytes: place.bytes })
    }

    /// Reads what [`RangeReader::next_read`] named, or more from the same place on, but nothing that is not durable. `sink` gets each
    /// record up to `to`. `ends_the_segment` says that the segment is not written any more.
    pub fn feed(
        &mut self,
        bytes: &[u8],
        ends_the_segment: bool,
        to: Position,
        sink: &mut impl FnMut(Record<'_>),
    ) -> Result<(), RangeFault> {
        let Some(place) = self.place else { return Ok(()) };
        let window = Window { offset: place.offset, bytes, is_last: bytes.len() < place.bytes };
        let Some(header) = place.header else { return self.enter(place, &window) };
        let mut place = place;
        while window.holds_head(place.offset) && place.offset < header.segment_bytes {
            match window.block_at(&header, place.offset) {
                Found::More(bytes) => {
                    self.place = Some(Place { bytes, ..place });
                    return Ok(());
                }
                Found::Fault(_) if ends_the_segment && self.is_at_end_of(&place) => {
                    place.offset = header.segment_bytes;
                }
                Found::Fault(fault) => {
                    let (proof_life, proof_offset) = (place.segment.life, place.offset);
                    return Err(damaged(&place, DamageCause::Block { fault, proof_life, proof_offset }));
                }
                Found::Block(block, payload) => match self.read_block(&place, &block, payload, to, sink)? {
                    Read::Block => place.offset += block.padded_bytes(header.block_bytes),
                    Read::Segment => place.offset = header.segment_bytes,
                    Read::Range => break,
                },
            }
        }
        self.place = Some(Place { bytes: BLOCK_HEADER_BYTES, ..place });
        Ok(())
    }

    fn enter(&mut self, place: Place, window: &Window<'_>) -> Result<(), RangeFault> {
        let header = SegmentHeader::decode(window.bytes, place.segment.life)
            .map_err(|fault| damaged(&place, DamageCause::SegmentHeader(fault)))?;
        if header.is_cut() {
            if self.stream.is_none() && header.keep_to > self.after {
                return Err(RangeFault::Purged { begins_after: header.keep_to });
            }
            if self.stream.as_ref().is_some_and(|stream| stream.last_complete() != header.keep_to) {
                return Err(damaged(&place, DamageCause::CutNotMet { kept_to: header.keep_to }));
            }
            self.stream = Some(RecordStream::begin(header.keep_to, false));
        }
        self.is_void &= !header.is_cut();
        let offset = if self.is_void { header.segment_bytes } else { header.block_bytes.into() };
        self.place = Some(Place { header: Some(header), offset, bytes: BLOCK_HEADER_BYTES, ..place });
        Ok(())
    }

    /// Whether everything was read that the segment holds.
    fn is_at_end_of(&self, place: &Place) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.last_started() == place.segment.last_position)
    }

    fn read_block(
        &mut self,
        place: &Place,
        block: &BlockHeader,
        payload: &[u8],
        to: Position,
        sink: &mut impl FnMut(Record<'_>),
    ) -> Result<Read, RangeFault> {
        if self.stream.is_none() && block.previous_position > self.after {
            return Err(RangeFault::Purged { begins_after: block.previous_position });
        }
        let stream = self.stream.get_or_insert_with(|| RecordStream::begin(block.previous_position, true));
        let limit = place.segment.last_position.min(to);
        let wanted = Wanted { after: self.after, limit, record_bytes_max: RECORD_BYTES_MAX };
        // A block that goes on beyond the range is read again for the next one, so the stream must stay before it.
        let ends_within = to < place.segment.last_position && block.positions(payload).any(|position| position > to);
        let kept = ends_within.then(|| stream.clone());
        let mut last = self.after;
        let taken = stream.take_block(block, payload, &wanted, &mut |record| {
            last = record.position;
            sink(record);
        });
        let taken = taken.map_err(|cause| damaged(place, cause))?;
        self.after = last;
        match (taken, kept) {
            (Taken::All, _) => Ok(Read::Block),
            (Taken::UpTo(_), Some(kept)) => {
                self.stream = Some(kept);
                self.reached = to;
                Ok(Read::Range)
            }
            (Taken::UpTo(_), None) => {
                self.is_void = true;
                Ok(Read::Segment)
            }
        }
    }
}

/// How far a block was read.
enum Read {
    /// To its end.
    Block,
    /// To the last record that its segment holds.
    Segment,
    /// To the end of the range.
    Range,
}

fn damaged(place: &Place, cause: DamageCause) -> RangeFault {
    RangeFault::Damaged { life: place.segment.life, offset: place.offset, cause }
}
