//! The transaction log on disk: carries out what [`LogWriter`] plans.
//!
//! Two tasks, both on the executor of the sequencer: one writes flushes (one in flight at a time, all that is queued in each),
//! one makes segments ahead of need in the background. Neither decides anything.

use super::block::BlockBuffer;
use super::chain::SegmentPrefix;
use super::damage::Damage;
use super::format::{BLOCK_BYTES_DEFAULT, Life};
use super::recovery::{LogRecovery, Recovered, RecoveryOptions, Verdict};
use super::writer::{FlushPlan, LogConfig, LogError, LogWriter, Refusal, Reservation, SegmentSpec};
use crate::base::{Zxid, planted};
use crate::runtime::{LocalNotify, clock, sleep};
use crate::storage::{AlignedBuf, LogFile, Storage, StorageError, SyncMode};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;
use thiserror::Error;

/// Why the log cannot be used.
#[derive(Debug, Error)]
pub enum WriteAheadLogError {
    /// A file operation failed.
    #[error("transaction log: {0}")]
    Storage(#[from] StorageError),
    /// The log is stopped.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Acknowledged records are missing.
    #[error(
        "the transaction log in {directory} is damaged: {damage}. Restore the file from a copy, or start once with \
         --discard-after {keep} to give up everything after it; `ringkeeper inspect {directory}` shows what is there"
    )]
    Damaged {
        /// Where the log is.
        directory: String,
        /// What is wrong.
        damage: Box<Damage>,
        /// The last record that can be read.
        keep: Zxid,
    },
}

/// What was found at start.
pub struct OpenedLog {
    /// The log, ready to go on.
    pub log: Rc<WriteAheadLog>,
    /// The last record.
    pub end: Zxid,
    /// A line for the operator, when something was cut.
    pub notice: Option<String>,
}

/// How often a failed segment preparation is tried again.
const SEGMENT_RETRY: Duration = Duration::from_millis(500);
/// What is read of every segment before it is known which are needed: its header and its first block's.
const SEGMENT_PREFIX_BYTES: usize = 2 * BLOCK_BYTES_DEFAULT as usize;
/// Spare segment files kept for recycling.
const SPARES_MAX: usize = 4;

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
}

impl WriteAheadLog {
    /// Reads the log in `directory` and prepares to go on. `sink` gets every record above `options.from`, in order, before
    /// the verdict: a caller must not act on them when this fails.
    pub async fn open(
        storage: Storage,
        directory: &Path,
        config: LogConfig,
        from: Zxid,
        discard_after: Option<Zxid>,
        new_stream_id: u64,
        mut sink: impl FnMut(Zxid, &[u8]),
    ) -> Result<OpenedLog, WriteAheadLogError> {
        let (lives, spares) = Self::list_files(&storage, directory).await?;
        let recovered = Self::recover(&storage, directory, &lives, &spares, from, discard_after, &mut sink).await?;
        let start = recovered.resume(new_stream_id).map_err(|damage| WriteAheadLogError::Damaged {
            directory: directory.display().to_string(),
            keep: damage.recoverable_to,
            damage: Box::new(damage),
        })?;
        let (end, notice) = match &recovered.verdict {
            Verdict::TornTail { end, life, offset } => {
                let file = directory.join(life.file_name());
                let file = file.display();
                let notice = match discard_after {
                    Some(_) => format!("{file}: everything after {end} is given up from byte {offset} on, as asked"),
                    None => format!("{file}: cut an unfinished write at byte {offset}, after {end}"),
                };
                (*end, Some(notice))
            }
            _ => (start.keep_to, None),
        };
        // The planted bug syncs some flushes late, with all before them: what a crash loses is then a tail.
        let forced = config.sync && !planted::is("ack-before-sync");
        let sync = if forced { SyncMode::EveryWrite } else { SyncMode::OnRequest };
        let log = Rc::new(WriteAheadLog {
            writer: RefCell::new(LogWriter::start(config, start)?),
            storage,
            directory: directory.to_owned(),
            sync,
            files: RefCell::new(BTreeMap::new()),
            spares: RefCell::new(spares.into()),
            recycle_when_ready: RefCell::new(recovered.recycle_when_ready.clone()),
            flush_wanted: LocalNotify::new(),
            segment_wanted: LocalNotify::new(),
            flush_us: Cell::new((0, 0)),
            flush_us_max: Cell::new(0),
            stopping: Cell::new(false),
        });
        log.recycle(&recovered.recycle_now).await?;
        log.sync_tail().await?;
        log.make_segments(&|| ()).await?;
        Ok(OpenedLog { log, end, notice })
    }

    /// Whether there is a log in `directory` at all.
    pub async fn exists(storage: &Storage, directory: &Path) -> Result<bool, StorageError> {
        Ok(!Self::list_files(storage, directory).await?.0.is_empty())
    }

    async fn list_files(storage: &Storage, directory: &Path) -> Result<(Vec<Life>, Vec<Life>), StorageError> {
        let entries = storage.list(directory).await?;
        let lives = entries.iter().filter_map(|entry| Life::from_file_name(&entry.name)).collect();
        let spares = entries.iter().filter_map(|entry| Life::from_spare_file_name(&entry.name)).collect();
        Ok((lives, spares))
    }

    async fn recover(
        storage: &Storage,
        directory: &Path,
        lives: &[Life],
        spares: &[Life],
        from: Zxid,
        discard_after: Option<Zxid>,
        sink: &mut impl FnMut(Zxid, &[u8]),
    ) -> Result<Recovered, StorageError> {
        let mut heads = Vec::new();
        for life in lives {
            heads.push((*life, storage.read_first(&directory.join(life.file_name()), SEGMENT_PREFIX_BYTES).await?));
        }
        let prefixes: Vec<SegmentPrefix<'_>> =
            heads.iter().map(|(life, bytes)| SegmentPrefix { life: *life, bytes }).collect();
        let highest_spare = spares.iter().copied().max().unwrap_or(Life::NONE);
        let mut options = RecoveryOptions::new(from, highest_spare);
        options.discard_after = discard_after;
        let mut recovery = LogRecovery::new(&prefixes, options);
        while let Some(life) = recovery.next_file() {
            let bytes = storage.read_all(&directory.join(life.file_name())).await?;
            recovery.feed(&bytes, sink);
        }
        Ok(recovery.finish())
    }

    /// Rule E3: what was read back may sit in a cache only.
    async fn sync_tail(&self) -> Result<(), WriteAheadLogError> {
        let lives = self.writer.borrow().tail_to_sync().to_vec();
        for life in &lives {
            let file = self.storage.open_log_file(&self.directory.join(life.file_name()), SyncMode::OnRequest).await?;
            file.sync().await?;
            file.close().await?;
        }
        if !lives.is_empty() {
            self.writer.borrow_mut().on_tail_synced(Ok(()))?;
        }
        Ok(())
    }

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
    pub async fn run_flushes(&self, durable: impl Fn(Zxid)) -> Result<(), WriteAheadLogError> {
        loop {
            let plan = self.writer.borrow_mut().next_flush()?;
            self.segment_wanted.notify();
            match plan {
                Some(plan) => durable(self.flush(plan).await?),
                None if self.stopping.get() => return Ok(()),
                None => self.flush_wanted.notified().await,
            }
        }
    }

    /// Writes down what is durable, when nothing else has done so since (rule E6). Called once in a tick.
    pub async fn idle(&self) -> Result<(), WriteAheadLogError> {
        let plan = self.writer.borrow_mut().idle_block()?;
        if let Some(plan) = plan {
            self.flush(plan).await?;
            self.kick();
        }
        Ok(())
    }

    async fn flush(&self, plan: FlushPlan<AlignedBuf>) -> Result<Zxid, WriteAheadLogError> {
        let started_us = clock::monotonic_us();
        let life = plan.life;
        let outcome = self.write(plan).await;
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
        // Only planted: a segment of a log that syncs is open so that the write did it.
        if plan.sync && self.sync == SyncMode::OnRequest {
            file.sync().await?;
        }
        Ok(buffer)
    }

    /// Makes segments ahead of need until stopped; `room` is told of every one that is ready: reservations that were refused may
    /// be tried again.
    pub async fn run_segments(&self, room: impl Fn()) -> Result<(), WriteAheadLogError> {
        while !self.stopping.get() {
            self.make_segments(&room).await?;
            if self.writer.borrow().out_of_space().is_some() {
                sleep(SEGMENT_RETRY).await;
                self.writer.borrow_mut().retry_segment();
                continue;
            }
            self.segment_wanted.notified().await;
        }
        Ok(())
    }

    async fn make_segments(&self, room: &impl Fn()) -> Result<(), WriteAheadLogError> {
        loop {
            let Some(spec) = self.writer.borrow_mut().wants_segment()? else { return Ok(()) };
            let life = spec.life;
            match self.make_segment(&spec).await {
                Ok(file) => {
                    self.files.borrow_mut().insert(life, Rc::new(file));
                    self.writer.borrow_mut().segment_ready(life)?;
                    self.kick();
                    room();
                    let old = self.recycle_when_ready.take();
                    self.recycle(&old).await?;
                }
                Err(error) if error.is_refusal() => {
                    let reason = error.to_string();
                    // It is tried again and again; one line is enough.
                    if self.writer.borrow().out_of_space() != Some(&reason) {
                        tracing::warn!(
                            "no room for the next transaction log segment: {reason}; writes are refused until there is"
                        );
                    }
                    // It may have got its name already, in which case only the directory was not synced.
                    for name in [life.file_name(), life.spare_file_name()] {
                        self.remove_if_there(&self.directory.join(name)).await?;
                    }
                    self.writer.borrow_mut().segment_failed(life, reason)?;
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// A file to recycle as a segment of this size. Spares of another size, from before `preAllocSize` changed, are removed: a
    /// segment's file is as long as its header says.
    async fn take_spare(&self, segment_bytes: u64) -> Result<Option<Life>, StorageError> {
        loop {
            let Some(life) = self.spares.borrow_mut().pop_front() else { return Ok(None) };
            let path = self.directory.join(life.spare_file_name());
            if self.storage.file_bytes(&path).await? == segment_bytes {
                return Ok(Some(life));
            }
            self.storage.remove(&path).await?;
        }
    }

    async fn remove_if_there(&self, path: &Path) -> Result<(), StorageError> {
        match self.storage.remove(path).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    async fn make_segment(&self, spec: &SegmentSpec) -> Result<LogFile, StorageError> {
        let spare = self.take_spare(spec.segment_bytes).await?;
        let made = self.make_segment_from(spare, spec).await;
        if let (Err(_), Some(life)) = (&made, spare)
            && self.storage.file_bytes(&self.directory.join(life.spare_file_name())).await.is_ok()
        {
            self.spares.borrow_mut().push_front(life);
        }
        made
    }

    async fn make_segment_from(&self, spare: Option<Life>, spec: &SegmentSpec) -> Result<LogFile, StorageError> {
        let path = self.directory.join(spec.life.file_name());
        let made_at = match spare {
            Some(life) => self.directory.join(life.spare_file_name()),
            None => self.directory.join(spec.life.spare_file_name()),
        };
        let file = match spare {
            Some(_) => self.storage.open_log_file(&made_at, SyncMode::OnRequest).await?,
            None => self.storage.create(&made_at, spec.segment_bytes, true).await?,
        };
        let mut buffer = AlignedBuf::with_capacity(spec.header.len());
        buffer.append(&spec.header);
        file.write_at(buffer, 0).await?;
        file.sync().await?;
        file.close().await?;
        self.storage.rename(&made_at, &path).await?;
        self.storage.sync_directory(&self.directory).await?;
        self.storage.open_log_file(&path, self.sync).await
    }

    /// Gives the files of segments that are no longer needed another use, in the order given, so that a crash leaves no hole.
    async fn recycle(&self, lives: &[Life]) -> Result<(), StorageError> {
        for life in lives {
            let path = self.directory.join(life.file_name());
            self.files.borrow_mut().remove(life);
            if self.spares.borrow().len() < SPARES_MAX {
                self.storage.rename(&path, &self.directory.join(life.spare_file_name())).await?;
                self.spares.borrow_mut().push_back(*life);
            } else {
                self.storage.remove(&path).await?;
            }
            self.storage.sync_directory(&self.directory).await?;
        }
        Ok(())
    }

    /// Makes what was written above `zxid` survive a power failure where flushes are not synced (`forceSync=no`).
    pub async fn sync_above(&self, zxid: Zxid) -> Result<(), StorageError> {
        let written = |writer: &LogWriter<AlignedBuf>| -> Vec<Life> {
            writer.segments().filter(|segment| segment.last_zxid > zxid).map(|segment| segment.life).collect()
        };
        let lives = written(&self.writer.borrow());
        for life in lives {
            let file = self.storage.open_log_file(&self.directory.join(life.file_name()), SyncMode::OnRequest).await?;
            file.sync().await?;
            file.close().await?;
        }
        Ok(())
    }

    /// The log is needed from `zxid` only: a complete snapshot begins there.
    pub async fn purge_below(&self, zxid: Zxid) -> Result<(), StorageError> {
        let lives = self.writer.borrow_mut().purge_below(zxid);
        self.recycle(&lives).await
    }

    /// Ends the tasks once everything appended is written.
    pub fn stop(&self) {
        self.stopping.set(true);
        self.flush_wanted.notify();
        self.segment_wanted.notify();
    }
}
