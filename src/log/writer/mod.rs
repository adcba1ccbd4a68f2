//! What is written to the log, where and when: a state machine without IO.
//!
//! # The driver's duties, in order
//! 1. Recover ([`crate::log::recovery`]), then [`LogWriter::start`] with what it says.
//! 2. **Sync the tail** (rule E3): sync each file of [`LogWriter::tail_to_sync`], report by [`LogWriter::on_tail_synced`].
//!    Until then nothing is durable and no segment is asked for.
//! 3. After every event, as long as something comes:
//!    - [`LogWriter::wants_segment`]: make the segment in the background, from a spare file (no zero-filling needed) or from a
//!      new one, `spare.<life>`, preallocated and written over with zeros. Write the header at 0, sync the file, rename it
//!      to `log.<life>`, sync the directory, and only then report [`LogWriter::segment_ready`]. If it fails:
//!      [`LogWriter::segment_failed`], and a while later [`LogWriter::retry_segment`].
//!    - [`LogWriter::next_flush`]: write the bytes at the offset of that life's file, all of them, durably if the plan says
//!      so (one write that syncs itself), then [`LogWriter::on_flushed`] with the outcome, and [`LogWriter::give_back`] the
//!      buffer. A plan must be carried out; it cannot be cancelled.
//! 4. Within a tick of the last flush of a busy time: [`LogWriter::idle_block`], carried out like any plan (rule E6).
//! 5. After a snapshot: the files of [`LogWriter::purge_below`] are no longer needed. Remove them, or rename `log.<life>` to
//!    `spare.<life>`, **in the order given**, syncing the directory after each, so that a crash leaves no hole in the middle.
//!    The spare name must carry the file's own life: it keeps that life from being given out again (rule C6). Whoever still reads
//!    the log is asked first: `purge_below` gets no more than [`crate::log::holds::Holds::purge_limit`].
//! 6. Any error from a call: the log is stopped for good. Answer nothing that rests on it; a restart decides what survived.
//!
//! # What is promised
//! - One flush is in flight at a time, so a block on disk proves that every block before it was completely flushed.
//! - A place in a segment is written once in the segment's life: durable bytes are never at risk (rule C1).
//! - [`LogWriter::durable_position`] moves over complete records only, without gaps, and only after a successful sync.
//! - [`LogWriter::try_reserve`] says no *before* a write is prepared when there is no room on disk for it (rule B11).
//!   Appending itself never refuses: what was prepared must go in.
//!
//! # Without sync
//! With `sync` off (`forceSync=no`) flushes count as durable once written, but the blocks go on claiming only what was synced
//! at the start: after a power failure recovery then cuts at the first hole instead of reporting damage.

mod config;
mod planted;
mod room;

use crate::base::planted as planted_bug;
use crate::log::block::BlockBuffer;
use crate::log::format::{BLOCK_HEADER_BYTES, BlockHeader, BlockSeed, Life, RECORD_BYTES_MAX, SegmentFault};
use crate::log::position::{LogOwner, Position};
use crate::log::queue::{FlushQueue, TakenPiece};
use std::collections::VecDeque;
use thiserror::Error;

pub use config::LogConfig;

/// Where a log goes on: what recovery found, or the beginning of a new log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogStart {
    /// Random number of this data directory's log; a new one for a new log.
    pub stream_id: u64,
    /// A life above every life in the directory, spare files included.
    pub next_life: Life,
    /// The segment in which the log ends, [`Life::NONE`] for a new log.
    pub previous_life: Life,
    /// The last record kept; for a new log the position at which it begins (a snapshot's, or zero).
    pub keep_to: Position,
    /// Whose log it is.
    pub owner: LogOwner,
    /// The highest position that was ever in it, what was cut off included.
    pub highest: Position,
    /// Everything up to here is known to be committed.
    pub committed: Position,
    /// Segments that hold the log so far, oldest first.
    pub older: Vec<SegmentUse>,
    /// Segments that must be synced before anything is believed durable (rule E3).
    pub tail_to_sync: Vec<Life>,
}

impl LogStart {
    /// A log that begins after `base`: in an empty directory, or in place of an old log when a snapshot was installed
    /// (rule E7). All existing segments, whose lives must be below `next_life`, become void when its first one is ready.
    pub fn begin(stream_id: u64, owner: LogOwner, next_life: Life, base: Position) -> LogStart {
        LogStart {
            stream_id,
            owner,
            next_life,
            previous_life: Life::NONE,
            keep_to: base,
            highest: base,
            committed: base,
            older: Vec::new(),
            tail_to_sync: Vec::new(),
        }
    }
}

/// A segment and the records it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentUse {
    /// The segment.
    pub life: Life,
    /// The last record that starts in it or before it.
    pub last_position: Position,
}

/// A segment the driver is asked to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentSpec {
    /// Names the file.
    pub life: Life,
    /// Size of the file, bytes.
    pub segment_bytes: u64,
    /// What to write at offset 0: a whole block.
    pub header: Vec<u8>,
}

/// One write and what must follow it.
#[derive(Debug)]
pub struct FlushPlan<B = Vec<u8>> {
    /// The segment to write to.
    pub life: Life,
    /// Where, bytes; a multiple of the block size, like the length of `bytes`.
    pub offset: u64,
    /// What.
    pub bytes: B,
    /// Whether the bytes must be on stable storage before the flush is reported.
    pub sync: bool,
}

/// The log cannot go on, or the driver broke the contract.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LogError {
    /// A flush failed, now or earlier. What it wrote may or may not be on disk.
    #[error("the log is stopped: {0}")]
    Stopped(String),
    /// Records must come in strictly increasing order.
    #[error("record {position} after {last} is out of order")]
    OutOfOrder {
        /// The last record appended.
        last: Position,
        /// The one refused.
        position: Position,
    },
    /// Longer than [`RECORD_BYTES_MAX`].
    #[error("a record of {0} bytes is too long for the log")]
    RecordTooLong(usize),
    /// Impossible sizes in the configuration.
    #[error("log configuration: {0}")]
    Config(SegmentFault),
    /// The driver reported something it was not asked for.
    #[error("the log driver reported {0}, which it was not asked for")]
    NotAsked(&'static str),
}

/// Why a write is not admitted now.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// Too much is queued, or the next segment is still being made: hold the client back and try again.
    #[error("the log queue is full")]
    Busy,
    /// No room on disk: refuse the write with an error.
    #[error("no room for the log: {0}")]
    NoSpace(String),
    /// The log takes nothing any more.
    #[error("the log is stopped: {0}")]
    Stopped(String),
}

/// File space promised to one write until its record is appended or it is given up. Hand it to [`LogWriter::release`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "space stays reserved until it is released"]
pub struct Reservation {
    file_bytes: u64,
}

#[derive(Debug)]
struct ActiveSegment {
    life: Life,
    seed: BlockSeed,
    /// Invariant: a multiple of the block size; nothing at or above it was written in this life.
    next_offset: u64,
    /// What lies below is flushed.
    flushed_offset: u64,
}

#[derive(Debug)]
struct InFlight {
    /// Everything up to here is complete on disk when the flush succeeds.
    completes: Option<Position>,
}

/// The log writer. See the module documentation for the contract. `B` is the memory of its blocks.
#[derive(Debug)]
pub struct LogWriter<B = Vec<u8>> {
    config: LogConfig,
    stopped: Option<String>,
    stream_id: u64,
    owner: LogOwner,
    highest: Position,
    tail_to_sync: Vec<Life>,
    queue: FlushQueue<B>,
    reserved_bytes: u64,
    /// The largest reservation that found no room since the last one that did.
    refused_bytes: u64,

    active: Option<ActiveSegment>,
    ready: VecDeque<Life>,
    asked: Option<Life>,
    /// Set from a failed preparation to the next successful one.
    no_space: Option<String>,
    /// Whether the driver must wait before it tries again.
    retry_pending: bool,
    next_life: Life,
    /// The last segment that is part of the chain, ready ones included.
    chain_end: Life,
    /// The cut that the next segment's header carries; [`Position::MAX`] once it was made.
    keep_to: Position,
    /// Invariant: oldest first; the active segment is the last.
    used: VecDeque<SegmentUse>,
    /// Whether a flush to the active segment has succeeded.
    active_written: bool,
    /// The last record that starts in a planned flush.
    last_started: Position,

    in_flight: Option<InFlight>,
    durable_position: Position,
    /// What blocks may claim. Invariant: at most `durable_position`.
    synced_position: Position,
    /// What the last planned block claims.
    claimed_position: Position,
    /// What blocks say of the commit.
    committed: Position,
    /// What the last planned block says of it.
    told_committed: Position,
    /// The last block, as the bug of C1 needs it.
    #[cfg(feature = "planted-bugs")]
    tail: Option<(BlockHeader, Vec<u8>)>,
}

impl<B: BlockBuffer> LogWriter<B> {
    /// A writer that goes on where `start` says, always in a fresh segment.
    pub fn start(config: LogConfig, start: LogStart) -> Result<LogWriter<B>, LogError> {
        config.check()?;
        let payload_bytes_max = config.flush_bytes_max as usize - BLOCK_HEADER_BYTES;
        let durable_position = if start.tail_to_sync.is_empty() { start.keep_to } else { Position::ZERO };
        Ok(LogWriter {
            queue: FlushQueue::new(payload_bytes_max, start.keep_to, config.record_version),
            config,
            stopped: None,
            stream_id: start.stream_id,
            owner: start.owner,
            highest: start.highest,
            tail_to_sync: start.tail_to_sync,
            reserved_bytes: 0,
            refused_bytes: 0,
            active: None,
            ready: VecDeque::new(),
            asked: None,
            no_space: None,
            retry_pending: false,
            next_life: start.next_life,
            chain_end: start.previous_life,
            keep_to: start.keep_to,
            used: start.older.into(),
            active_written: false,
            last_started: start.keep_to,
            in_flight: None,
            durable_position,
            synced_position: durable_position,
            // No block says yet that the recovered records are durable, so an idle log writes one block that does.
            claimed_position: Position::ZERO,
            committed: start.committed,
            told_committed: Position::ZERO,
            #[cfg(feature = "planted-bugs")]
            tail: None,
        })
    }

    /// The sizes and habits it was started with.
    pub fn config(&self) -> &LogConfig {
        &self.config
    }

    /// Whose log it is.
    pub fn owner(&self) -> LogOwner {
        self.owner
    }

    /// The random number of this data directory's log.
    pub fn stream_id(&self) -> u64 {
        self.stream_id
    }

    /// The files to sync before anything else, empty once done (rule E3).
    pub fn tail_to_sync(&self) -> &[Life] {
        &self.tail_to_sync
    }

    /// The recovered tail was synced, or not. Gives the durable position.
    pub fn on_tail_synced(&mut self, outcome: Result<(), String>) -> Result<Position, LogError> {
        self.check_running()?;
        if self.tail_to_sync.is_empty() {
            return Err(LogError::NotAsked("a synced tail"));
        }
        self.stop_on_failure(outcome)?;
        self.tail_to_sync.clear();
        // Nothing was flushed since the start, so the cut is still the end of what is on disk.
        self.durable_position = self.keep_to;
        self.synced_position = self.keep_to;
        Ok(self.durable_position)
    }

    /// Appends a record to the queue. Zxids strictly increase. Never refuses for want of room: see
    /// [`LogWriter::try_reserve`].
    pub fn append(&mut self, position: Position, record: &[u8]) -> Result<(), LogError> {
        self.check_running()?;
        let last = self.queue.last_appended();
        if position <= last || position == Position::MAX {
            return Err(LogError::OutOfOrder { last, position });
        }
        let fits = u32::try_from(record.len()).ok().filter(|&bytes| bytes <= RECORD_BYTES_MAX);
        let record_bytes = fits.ok_or(LogError::RecordTooLong(record.len()))?;
        self.queue.append(position, record_bytes, record);
        Ok(())
    }

    /// The next write, `None` while one is in flight, nothing is queued or no segment has room.
    pub fn next_flush(&mut self) -> Result<Option<FlushPlan<B>>, LogError> {
        self.check_running()?;
        if self.in_flight.is_some() || self.queue.queued_bytes() == 0 || !self.roll_if_full() {
            return Ok(None);
        }
        let room_bytes = usize::try_from(self.active_room_bytes()).unwrap_or(usize::MAX) - BLOCK_HEADER_BYTES;
        let piece = self.queue.take(room_bytes);
        Ok(piece.map(|piece| self.plan(piece)))
    }

    /// Everything up to `position` is committed, here or elsewhere. Blocks say so from now on (rule C2).
    pub fn commit(&mut self, position: Position) {
        self.committed = self.committed.max(position);
    }

    /// Everything up to here is known to be committed.
    pub fn committed(&self) -> Position {
        self.committed
    }

    /// A block that only says what is durable and committed, for a log that has nothing else to write (rule E6). `None` if the
    /// last block says so already, or if the place is promised to a write.
    pub fn idle_block(&mut self) -> Result<Option<FlushPlan<B>>, LogError> {
        self.check_running()?;
        let idle = self.in_flight.is_none() && self.queue.queued_bytes() == 0;
        let block_bytes = u64::from(self.config.block_bytes);
        let is_told = self.claimed_position >= self.synced_position && self.told_committed >= self.committed;
        if !idle || is_told || self.free_bytes() < block_bytes || !self.roll_if_full() {
            return Ok(None);
        }
        let last = self.queue.last_appended();
        let block = self.queue.spare_block();
        let piece = TakenPiece {
            block,
            first_record: None,
            previous_position: last,
            last_started: last,
            completes: Some(last),
        };
        Ok(Some(self.plan(piece)))
    }

    /// The planned flush was written and synced, or not. Gives the new durable position; after a failure the log is stopped
    /// for good, since nobody can tell what the device kept.
    pub fn on_flushed(&mut self, outcome: Result<(), String>) -> Result<Position, LogError> {
        self.check_running()?;
        let flush = self.in_flight.take().ok_or(LogError::NotAsked("a flush"))?;
        self.stop_on_failure(outcome)?;
        self.active_written = true;
        if let Some(active) = &mut self.active {
            active.flushed_offset = active.next_offset;
        }
        if let Some(position) = flush.completes {
            self.durable_position = position;
            if self.config.sync {
                self.synced_position = position;
            }
        }
        Ok(self.durable_position)
    }

    /// Takes a flush's buffer back, so that the next one need not be allocated.
    pub fn give_back(&mut self, bytes: B) {
        self.queue.give_back(bytes);
    }

    /// The highest position that was ever in this log, what was cut off included.
    pub fn highest(&self) -> Position {
        self.highest.max(self.queue.last_appended())
    }

    /// Everything up to here survives a power failure (without `sync`: a crash of the process).
    pub fn durable_position(&self) -> Position {
        self.durable_position
    }

    /// Position of the last record appended, recovered ones included.
    pub fn last_appended(&self) -> Position {
        self.queue.last_appended()
    }

    /// Bytes appended and not yet planned.
    pub fn queued_bytes(&self) -> u64 {
        self.queue.queued_bytes()
    }

    fn plan(&mut self, piece: TakenPiece<B>) -> FlushPlan<B> {
        let piece = self.behind_tail(piece);
        let claimed_position = self.synced_position;
        let block_bytes = self.config.block_bytes;
        let active = self.active.as_mut().expect("a segment with room was ensured");
        let header = BlockHeader {
            payload_bytes: (piece.block.as_slice().len() - BLOCK_HEADER_BYTES) as u32,
            life: active.life,
            offset: active.next_offset,
            first_record: piece.first_record,
            previous_position: piece.previous_position,
            durable_position: claimed_position,
            committed_position: self.committed,
            synced: self.config.sync,
        };
        let mut bytes = piece.block;
        header.seal(&mut bytes, active.seed, block_bytes);
        active.next_offset += bytes.as_slice().len() as u64;
        assert!(active.next_offset <= self.config.segment_bytes, "a flush stays inside its segment");
        self.claimed_position = claimed_position;
        self.told_committed = self.committed;
        self.in_flight = Some(InFlight { completes: piece.completes });
        #[cfg(feature = "planted-bugs")]
        self.remember_tail(&header, bytes.as_slice());
        self.last_started = piece.last_started;
        self.used.back_mut().expect("the active segment").last_position = piece.last_started;
        // Planted, some flushes are synced all the same: what is lost is then a tail, and not everything.
        let synced_late = planted_bug::is("ack-before-sync") && header.offset / u64::from(block_bytes) % 8 != 1;
        let sync = self.config.sync && !synced_late;
        FlushPlan { life: header.life, offset: header.offset, bytes, sync }
    }

    fn check_running(&self) -> Result<(), LogError> {
        self.stopped.as_ref().map_or(Ok(()), |reason| Err(LogError::Stopped(reason.clone())))
    }

    fn stop_on_failure(&mut self, outcome: Result<(), String>) -> Result<(), LogError> {
        outcome.map_err(|reason| {
            self.stopped = Some(reason.clone());
            LogError::Stopped(reason)
        })
    }
}
