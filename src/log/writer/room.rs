//! Segments made ahead of need, and room promised to writes before they are prepared.

use super::{ActiveSegment, LogError, LogWriter, Refusal, Reservation, SegmentSpec, SegmentUse};
use crate::log::block::BlockBuffer;
use crate::log::format::{BlockSeed, Life, RECORD_HEAD_BYTES, SegmentHeader, padded_block_bytes};
use crate::log::position::Position;

/// Segments and room.
impl<B: BlockBuffer> LogWriter<B> {
    /// The next segment to make, asked for once; ahead of need, so that a flush does not wait for it.
    pub fn wants_segment(&mut self) -> Result<Option<SegmentSpec>, LogError> {
        self.check_running()?;
        let must_wait = self.asked.is_some() || self.retry_pending || !self.tail_to_sync.is_empty();
        let wanted = self.ready.len() < self.config.ready_segments || self.free_bytes() < self.refused_bytes.max(1);
        if must_wait || !wanted {
            return Ok(None);
        }
        let header = SegmentHeader {
            life: self.next_life,
            previous_life: self.chain_end,
            keep_to: self.keep_to,
            stream_id: self.stream_id,
            owner: self.owner,
            highest_position: self.highest,
            segment_bytes: self.config.segment_bytes,
            block_bytes: self.config.block_bytes,
        };
        self.next_life = Life(self.next_life.0 + 1);
        self.asked = Some(header.life);
        let segment_bytes = header.segment_bytes;
        Ok(Some(SegmentSpec { life: header.life, segment_bytes, header: header.encode() }))
    }

    /// The segment asked for is durable under its name.
    pub fn segment_ready(&mut self, life: Life) -> Result<(), LogError> {
        self.take_asked(life)?;
        self.ready.push_back(life);
        self.chain_end = life;
        self.keep_to = Position::MAX;
        self.no_space = None;
        Ok(())
    }

    /// The segment asked for could not be made, and no file of its name is left. Writes go on while there is room, then are
    /// refused by [`LogWriter::try_reserve`]. The life is not used again.
    pub fn segment_failed(&mut self, life: Life, reason: String) -> Result<(), LogError> {
        self.take_asked(life)?;
        self.no_space = Some(reason);
        self.retry_pending = true;
        Ok(())
    }

    /// Some time has passed, or space was freed: ask for the failed segment again.
    pub fn retry_segment(&mut self) {
        self.retry_pending = false;
    }

    /// Why the last preparation of a segment failed, if none succeeded since.
    pub fn out_of_space(&self) -> Option<&str> {
        self.no_space.as_deref()
    }

    /// Reserves room for a record of `record_bytes`, counted as if it had to fill blocks alone. To be called before the
    /// write is prepared; the room is there when the record is appended.
    pub fn try_reserve(&mut self, record_bytes: usize) -> Result<Reservation, Refusal> {
        if let Some(reason) = &self.stopped {
            return Err(Refusal::Stopped(reason.clone()));
        }
        let payload_bytes = (RECORD_HEAD_BYTES + record_bytes) as u64;
        let pieces = payload_bytes / u64::from(self.config.flush_bytes_max) + 1;
        let file_bytes = padded_block_bytes(payload_bytes, self.config.block_bytes)
            + (pieces - 1) * u64::from(self.config.block_bytes);
        let waiting_bytes = self.queue.queued_bytes() + self.reserved_bytes;
        if waiting_bytes > 0 && waiting_bytes + file_bytes > self.config.queue_bytes_max {
            return Err(Refusal::Busy);
        }
        if self.free_bytes() < file_bytes {
            self.refused_bytes = self.refused_bytes.max(file_bytes);
            return Err(self.no_space.clone().map_or(Refusal::Busy, Refusal::NoSpace));
        }
        self.refused_bytes = 0;
        self.reserved_bytes += file_bytes;
        Ok(Reservation { file_bytes })
    }

    /// The record of this reservation was appended, or its write was given up.
    pub fn release(&mut self, reservation: Reservation) {
        // One that was made before the log was cut is not counted any more.
        self.reserved_bytes = self.reserved_bytes.saturating_sub(reservation.file_bytes);
    }

    /// Segments whose records are all below `position`, oldest first; they are forgotten here. With a snapshot that starts at
    /// S, records above S are needed: `purge_below(S + 1)` (rule C3). The segment being written is never among them, nor
    /// the one before it as long as the former has no block that would say where the latter ended.
    pub fn purge_below(&mut self, position: Position) -> Vec<Life> {
        let kept_segments = if self.active.is_some() && !self.active_written { 2 } else { 1 };
        let mut purged = Vec::new();
        while self.used.len() > kept_segments && self.used[0].last_position < position {
            purged.extend(self.used.pop_front().map(|segment| segment.life));
        }
        purged
    }

    /// Segments that hold the log, oldest first, the one being written last.
    pub fn segments(&self) -> impl Iterator<Item = &SegmentUse> {
        self.used.iter()
    }

    /// The segment in which the first record above `after` starts.
    pub fn segment_above(&self, after: Position) -> Option<SegmentUse> {
        self.used.iter().find(|segment| segment.last_position > after).copied()
    }

    /// The segment that follows the one of `life`.
    pub fn segment_after(&self, life: Life) -> Option<SegmentUse> {
        self.used.iter().find(|segment| segment.life > life).copied()
    }

    /// The segment of `life`, if it holds a part of the log.
    pub fn segment(&self, life: Life) -> Option<SegmentUse> {
        self.used.iter().find(|segment| segment.life == life).copied()
    }

    /// Bytes of the file of `life` that no later flush will change: all of them, but for the segment that is written.
    pub fn readable_bytes(&self, life: Life) -> u64 {
        match &self.active {
            Some(active) if active.life == life => active.flushed_offset,
            _ => u64::MAX,
        }
    }

    fn take_asked(&mut self, life: Life) -> Result<(), LogError> {
        self.check_running()?;
        let asked = self.asked.take_if(|asked| *asked == life);
        asked.map(drop).ok_or(LogError::NotAsked("a segment"))
    }

    /// Makes sure that the active segment has room for a block; `false` if no segment is ready.
    pub(super) fn roll_if_full(&mut self) -> bool {
        if self.active_room_bytes() > 0 {
            return true;
        }
        let Some(life) = self.ready.pop_front() else { return false };
        let seed = BlockSeed::new(self.stream_id, life);
        let next_offset = u64::from(self.config.block_bytes);
        self.active = Some(ActiveSegment { life, seed, next_offset, flushed_offset: next_offset });
        self.active_written = false;
        self.used.push_back(SegmentUse { life, last_position: self.last_started });
        true
    }

    pub(super) fn active_room_bytes(&self) -> u64 {
        self.active.as_ref().map_or(0, |active| self.config.segment_bytes - active.next_offset)
    }

    /// Room in the segments at hand that is neither promised nor needed by what is queued, bytes. One block a segment is left
    /// out: cutting a flush at a segment's end costs a further header.
    pub(super) fn free_bytes(&self) -> u64 {
        let block_bytes = u64::from(self.config.block_bytes);
        let ready_bytes = self.ready.len() as u64 * (self.config.segment_room_bytes() - block_bytes);
        let room_bytes = self.active_room_bytes().saturating_sub(block_bytes) + ready_bytes;
        let taken_bytes = self.queue.padded_bytes(self.config.block_bytes) + self.reserved_bytes;
        room_bytes.saturating_sub(taken_bytes)
    }
}
