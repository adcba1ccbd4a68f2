//! Segment files made ahead of need, recycled and removed.

use super::{WriteAheadLog, WriteAheadLogError};
use crate::base::coverage;
use crate::log::format::Life;
use crate::log::position::Position;
use crate::log::writer::SegmentSpec;
use crate::runtime::sleep;
use crate::storage::{AlignedBuf, LogFile, StorageError, SyncMode};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

/// How often a failed segment preparation is tried again.
const SEGMENT_RETRY: Duration = Duration::from_millis(500);
/// Spare segment files kept for recycling.
const SPARES_MAX: usize = 4;

impl WriteAheadLog {
    /// Makes segments ahead of need until stopped; `room` is told of every one that is ready: reservations that were refused may
    /// be tried again.
    pub async fn run_segments(&self, room: impl Fn()) -> Result<(), WriteAheadLogError> {
        while !self.stopping.get() {
            if !self.cutting.get() {
                self.counted(self.make_segments(&room)).await?;
            }
            if self.writer.borrow().out_of_space().is_some() {
                sleep(SEGMENT_RETRY).await;
                self.writer.borrow_mut().retry_segment();
                continue;
            }
            self.segment_wanted.notified().await;
        }
        Ok(())
    }

    pub(super) async fn make_segments(&self, room: &impl Fn()) -> Result<(), WriteAheadLogError> {
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
                            "no room for the next segment of the log: {reason}; writes are refused until there is"
                        );
                    }
                    coverage::mark("no-room-for-segment");
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
    pub(super) async fn recycle(&self, lives: &[Life]) -> Result<(), StorageError> {
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

    /// The log is needed from `position` only: a complete snapshot begins there. Whoever reads the log still holds what he needs of
    /// it; that goes with the next purge after him.
    pub async fn purge_below(&self, position: Position) -> Result<(), StorageError> {
        if self.cutting.get() {
            return Ok(());
        }
        let limit = self.holds.borrow().purge_limit(position);
        let lives = self.writer.borrow_mut().purge_below(limit);
        if !lives.is_empty() {
            coverage::mark("log-purged");
        }
        self.counted(self.recycle(&lives)).await
    }

    /// Makes the first segment of a log that was cut, however long there is no room for it.
    pub(super) async fn make_segments_until_ready(&self) -> Result<(), WriteAheadLogError> {
        loop {
            self.make_segments(&|| ()).await?;
            if self.writer.borrow().out_of_space().is_none() {
                return Ok(());
            }
            sleep(SEGMENT_RETRY).await;
            self.writer.borrow_mut().retry_segment();
        }
    }
}
