//! The log on disk: carries out what [`LogWriter`] plans.
//!
//! Two tasks, both on the executor of the shard that owns the log: one writes flushes (one in flight at a time, all that is queued
//! in each), one makes segments ahead of need in the background. Neither decides anything. Beside them stand [`LogReader`]s, for
//! those who lag behind, and [`WriteAheadLog::cut_above`].

mod cut;
mod file_window;
mod open;
mod reader;
mod segments;
#[cfg(test)]
mod tests;

use super::block::BlockBuffer;
use super::damage::Damage;
use super::format::Life;
use super::holds::Holds;
use super::position::{LogOwner, Position};
use super::writer::{FlushPlan, LogError, LogWriter, Refusal, Reservation};
use crate::base::coverage;
use crate::runtime::{LocalNotify, clock};
use crate::storage::{AlignedBuf, LogFile, Storage, StorageError, SyncMode};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::rc::Rc;
use thiserror::Error;

pub use open::{LogOpening, OpenedLog, Replay};
pub use reader::{LogReader, ReadError};

/// Why the log cannot be used.
#[derive(Debug, Error)]
pub enum WriteAheadLogError {
    /// A file operation failed.
    #[error("log: {0}")]
    Storage(#[from] StorageError),
    /// The log is stopped.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Acknowledged records are missing.
    #[error("the log in {} is damaged: {damage}", directory.display())]
    Damaged {
        /// Where the log is.
        directory: PathBuf,
        /// What is wrong, and what can be kept.
        damage: Box<Damage>,
    },
    /// The files belong to another cluster.
    #[error("the log in {} belongs to cluster {found}, not to {expected}: check the directory", directory.display())]
    OtherOwner {
        /// Where the log is.
        directory: PathBuf,
        /// Whose log was looked for.
        expected: LogOwner,
        /// Whose log it is.
        found: LogOwner,
    },
}

/// Blocks are laid out where they are written from.
impl BlockBuffer for AlignedBuf {
    fn as_slice(&self) -> &[u8] {
        AlignedBuf::as_slice(self)
    }

    fn as_mut_slice(&mut self) -> &mut [u8] {
        AlignedBuf::as_mut_slice(self)
    }

    fn append(&mut self, bytes: &[u8]) {
        AlignedBuf::append(self, bytes);
    }

    fn truncate(&mut self, len: usize) {
        AlignedBuf::truncate(self, len);
    }

    fn clear(&mut self) {
        AlignedBuf::clear(self);
    }
}

/// The log of one server.
pub struct WriteAheadLog {
    writer: RefCell<LogWriter<AlignedBuf>>,
    storage: Storage,
    directory: PathBuf,
    /// How the segments are open. With `forceSync=no` a flush is over once it is written.
    sync: SyncMode,
    files: RefCell<BTreeMap<Life, Rc<LogFile>>>,
    /// Files to be recycled, oldest first.
    spares: RefCell<VecDeque<Life>>,
    recycle_when_ready: RefCell<Vec<Life>>,
    flush_wanted: LocalNotify,
    segment_wanted: LocalNotify,
    /// Number and total of flush times since the last report, µs.
    flush_us: Cell<(u64, u64)>,
    flush_us_max: Cell<u64>,
    stopping: Cell<bool>,
    /// Who still reads the log.
    holds: RefCell<Holds>,
    /// A cut waits or is being made: nothing else is begun.
    cutting: Cell<bool>,
    /// Operations on files that a cut must wait for, and who tells it that there are none.
    under_way: Cell<u32>,
    quiet: LocalNotify,
    /// How often the log was cut, and to where the last time.
    cuts: Cell<u64>,
    cut_to: Cell<Position>,
}

impl WriteAheadLog {
    /// The writer, for appending and for questions. Call [`WriteAheadLog::kick`] after appending.
    pub fn writer(&self) -> &RefCell<LogWriter<AlignedBuf>> {
        &self.writer
    }

    /// Reserves room for a record of `record_bytes`, see [`LogWriter::try_reserve`]. A refusal has started what ends it: after
    /// [`Refusal::Busy`], [`WriteAheadLog::run_flushes`] reports a flush or [`WriteAheadLog::run_segments`] a segment, and then the
    /// reservation is worth another try.
    pub fn try_reserve(&self, record_bytes: usize) -> Result<Reservation, Refusal> {
        let outcome = self.writer.borrow_mut().try_reserve(record_bytes);
        if matches!(outcome, Err(Refusal::Busy)) {
            self.flush_wanted.notify();
            self.segment_wanted.notify();
        }
        outcome
    }

    /// Something was appended, or room may be wanted.
    pub fn kick(&self) {
        self.flush_wanted.notify();
    }

    /// Number of flushes since the last call, their time in µs all together, and the longest.
    pub fn take_flush_times(&self) -> (u64, u64, u64) {
        let (count, sum_us) = self.flush_us.take();
        (count, sum_us, self.flush_us_max.take())
    }

    /// Writes flushes until stopped; `durable` is told of every new durable position. An error means that nothing more will
    /// be durable.
    pub async fn run_flushes(&self, durable: impl Fn(Position)) -> Result<(), WriteAheadLogError> {
        loop {
            let plan = if self.cutting.get() { None } else { self.writer.borrow_mut().next_flush()? };
            self.segment_wanted.notify();
            match plan {
                Some(plan) => durable(self.flush(plan).await?),
                None if self.stopping.get() => return Ok(()),
                None => self.flush_wanted.notified().await,
            }
        }
    }

    /// Everything up to `position` is committed: the next block says so.
    pub fn commit(&self, position: Position) {
        self.writer.borrow_mut().commit(position);
    }

    /// Writes down what is durable and committed, when nothing else has done so since (rule E6). Called once in a tick.
    pub async fn idle(&self) -> Result<(), WriteAheadLogError> {
        let plan = if self.cutting.get() { None } else { self.writer.borrow_mut().idle_block()? };
        if let Some(plan) = plan {
            coverage::mark("idle-block");
            self.flush(plan).await?;
            self.kick();
        }
        Ok(())
    }

    async fn flush(&self, plan: FlushPlan<AlignedBuf>) -> Result<Position, WriteAheadLogError> {
        let started_us = clock::monotonic_us();
        let life = plan.life;
        let outcome = self.counted(self.write(plan)).await;
        let took_us = clock::monotonic_us() - started_us;
        let (count, sum_us) = self.flush_us.get();
        self.flush_us.set((count + 1, sum_us + took_us));
        self.flush_us_max.set(self.flush_us_max.get().max(took_us));
        let mut writer = self.writer.borrow_mut();
        let (outcome, buffer) = match outcome {
            Ok(buffer) => (Ok(()), Some(buffer)),
            Err(error) => (Err(error.to_string()), None),
        };
        let durable = writer.on_flushed(outcome)?;
        buffer.into_iter().for_each(|buffer| writer.give_back(buffer));
        // Segments are filled one after the other: earlier ones are not written any more, and need not stay open.
        self.files.borrow_mut().retain(|open, _| *open >= life);
        Ok(durable)
    }

    /// Runs an operation that a cut must wait for.
    async fn counted<T>(&self, operation: impl Future<Output = T>) -> T {
        self.under_way.set(self.under_way.get() + 1);
        let outcome = operation.await;
        self.under_way.set(self.under_way.get() - 1);
        self.quiet.notify();
        outcome
    }

    /// Gives the buffer back.
    async fn write(&self, plan: FlushPlan<AlignedBuf>) -> Result<AlignedBuf, StorageError> {
        let known = self.files.borrow().get(&plan.life).cloned();
        let file = match known {
            Some(file) => file,
            None => {
                let path = self.directory.join(plan.life.file_name());
                let file = Rc::new(self.storage.open_log_file(&path, self.sync).await?);
                self.files.borrow_mut().insert(plan.life, file.clone());
                file
            }
        };
        let buffer = file.write_at(plan.bytes, plan.offset).await?;
        // Reached with a planted bug only: a log that syncs opens its segments so that each write syncs itself.
        if plan.sync && self.sync == SyncMode::OnRequest {
            file.sync().await?;
        }
        Ok(buffer)
    }

    /// Makes what was written above `position` survive a power failure where flushes are not synced (`forceSync=no`).
    pub async fn sync_above(&self, position: Position) -> Result<(), StorageError> {
        let written = |writer: &LogWriter<AlignedBuf>| -> Vec<Life> {
            writer.segments().filter(|segment| segment.last_position > position).map(|segment| segment.life).collect()
        };
        let lives = written(&self.writer.borrow());
        for life in lives {
            let file = self.storage.open_log_file(&self.directory.join(life.file_name()), SyncMode::OnRequest).await?;
            file.sync().await?;
            file.close().await?;
        }
        Ok(())
    }

    /// Ends the tasks once everything appended is written.
    pub fn stop(&self) {
        self.stopping.set(true);
        self.flush_wanted.notify();
        self.segment_wanted.notify();
    }
}
