//! Records put together again from the payloads of blocks, in order.

use super::damage::DamageCause;
use super::format::{BlockHeader, RecordHead};
use super::position::{Position, Record};

/// Which records a reader takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// Records above this are handed out.
    pub after: Position,
    /// A record above this ends the reading.
    pub limit: Position,
    /// Longest record believed, bytes.
    pub record_bytes_max: u32,
}

/// How far a block was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// To its end.
    All,
    /// To this record, which is above the limit.
    UpTo(Position),
}

/// A record that is not complete yet.
#[derive(Clone, Debug)]
struct Unfinished {
    position: Position,
    version: u16,
    missing_bytes: usize,
    /// Whether it will be handed out; otherwise its bytes are not kept.
    wanted: bool,
    bytes: Vec<u8>,
}

/// Where the stream of records stands.
#[derive(Clone, Debug, Default)]
pub(super) struct RecordStream {
    last_started: Position,
    last_complete: Position,
    unfinished: Option<Unfinished>,
    /// Whether reading began where a record may go on whose beginning is not there, and no other has started yet.
    headless: bool,
}

impl RecordStream {
    /// A stream that goes on after `position`; `headless` if perhaps in the middle of a record.
    pub fn begin(position: Position, headless: bool) -> RecordStream {
        RecordStream { last_started: position, last_complete: position, unfinished: None, headless }
    }

    /// The last record that started.
    pub fn last_started(&self) -> Position {
        self.last_started
    }

    /// The last record that is complete. At most [`RecordStream::last_started`].
    pub fn last_complete(&self) -> Position {
        self.last_complete
    }

    /// Whether a record has begun and not ended.
    pub fn is_unfinished(&self) -> bool {
        self.unfinished.is_some()
    }

    /// Reads a block; `sink` gets each record that is wanted, once it is complete.
    pub fn take_block(
        &mut self,
        block: &BlockHeader,
        payload: &[u8],
        wanted: &Wanted,
        sink: &mut impl FnMut(Record<'_>),
    ) -> Result<Taken, DamageCause> {
        self.check_follows(block)?;
        let mut payload = self.continue_record(block, payload, wanted.after, sink)?;
        while !payload.is_empty() {
            let (head, bytes) = RecordHead::split_from(payload).ok_or(DamageCause::Malformed)?;
            self.check_head(&head, wanted)?;
            if head.position > wanted.limit {
                return Ok(Taken::UpTo(head.position));
            }
            payload = self.start_record(head, bytes, wanted, sink);
        }
        Ok(Taken::All)
    }

    /// Whether the block goes on where the stream stands.
    pub fn check_follows(&self, block: &BlockHeader) -> Result<(), DamageCause> {
        if block.previous_position != self.last_started {
            return Err(DamageCause::Gap { expected: self.last_started, found: block.previous_position });
        }
        if block.durable_position > self.last_complete {
            return Err(DamageCause::Claim { durable_position: block.durable_position });
        }
        Ok(())
    }

    /// Takes the bytes before the first record that starts in the block.
    fn continue_record<'a>(
        &mut self,
        block: &BlockHeader,
        payload: &'a [u8],
        after: Position,
        sink: &mut impl FnMut(Record<'_>),
    ) -> Result<&'a [u8], DamageCause> {
        let continued = block.first_record.map_or(payload.len(), |(_, offset)| offset as usize);
        let (continuation, rest) = payload.split_at_checked(continued).ok_or(DamageCause::Malformed)?;
        if let Some((position, _)) = block.first_record {
            let matches = RecordHead::split_from(rest).is_some_and(|(head, _)| head.position == position);
            matches.then_some(()).ok_or(DamageCause::Malformed)?;
        }
        let Some(unfinished) = &mut self.unfinished else {
            let fits = self.headless || continuation.is_empty();
            return fits.then_some(rest).ok_or(DamageCause::Malformed);
        };
        let ends_here = continuation.len() == unfinished.missing_bytes;
        let goes_on = continuation.len() < unfinished.missing_bytes && rest.is_empty();
        if !ends_here && !goes_on {
            return Err(DamageCause::Malformed);
        }
        unfinished.missing_bytes -= continuation.len();
        if unfinished.wanted {
            unfinished.bytes.extend_from_slice(continuation);
        }
        if let Some(record) = self.unfinished.take_if(|_| ends_here) {
            self.last_complete = record.position;
            // A block that is read again may end a record that was handed out the first time.
            if record.wanted && record.position > after {
                sink(Record { position: record.position, version: record.version, bytes: &record.bytes });
            }
        }
        Ok(rest)
    }

    fn check_head(&self, head: &RecordHead, wanted: &Wanted) -> Result<(), DamageCause> {
        let (position, record_bytes, last) = (head.position, head.record_bytes, self.last_started);
        if record_bytes > wanted.record_bytes_max {
            return Err(DamageCause::RecordTooLong { position, record_bytes });
        }
        if position <= last || position == Position::MAX {
            return Err(DamageCause::OutOfOrder { last, position });
        }
        Ok(())
    }

    /// Gives what follows the record in the block.
    fn start_record<'a>(
        &mut self,
        head: RecordHead,
        bytes: &'a [u8],
        wanted: &Wanted,
        sink: &mut impl FnMut(Record<'_>),
    ) -> &'a [u8] {
        let RecordHead { record_bytes, position, version } = head;
        self.headless = false;
        self.last_started = position;
        let is_wanted = position > wanted.after;
        let record_bytes = record_bytes as usize;
        if let Some((record, rest)) = bytes.split_at_checked(record_bytes) {
            self.last_complete = position;
            if is_wanted {
                sink(Record { position, version, bytes: record });
            }
            return rest;
        }
        // Memory follows the bytes that are there, not the length that is claimed.
        let kept = if is_wanted { bytes.to_vec() } else { Vec::new() };
        let missing_bytes = record_bytes - bytes.len();
        self.unfinished = Some(Unfinished { position, version, missing_bytes, wanted: is_wanted, bytes: kept });
        &[]
    }
}
