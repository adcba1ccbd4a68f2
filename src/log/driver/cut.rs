//! Cutting the tail of a log that is in use (TRUNC): as a start does that gives something up, and by the same code.

use super::open::Replay;
use super::{WriteAheadLog, WriteAheadLogError};
use crate::log::format::Life;
use crate::log::position::{Position, Record};
use crate::log::recovery::RecoveryOptions;
use crate::log::writer::{LogError, LogWriter};

/// Takes nothing.
struct Unread;

impl Replay for Unread {
    fn record(&mut self, _: Record<'_>) {}

    async fn until_taken(&mut self) {}
}

impl WriteAheadLog {
    /// Cuts off everything above `keep`, on disk and waiting, and gives the last record that is left. When it returns, the cut is
    /// durable, and the durable position is not above `keep`.
    ///
    /// Flushes and segments under way are waited for; while there is no room on disk for the segment that makes the cut, it waits
    /// for the operator to make some. After an error, or when it is not awaited to its end, the log writes nothing any more.
    pub async fn cut_above(&self, keep: Position) -> Result<Position, WriteAheadLogError> {
        if self.cutting.replace(true) {
            return Err(LogError::NotAsked("a second cut").into());
        }
        while self.under_way.get() > 0 {
            self.quiet.notified().await;
        }
        let kept_to = self.cut(keep).await?;
        self.cutting.set(false);
        self.kick();
        self.segment_wanted.notify();
        Ok(kept_to)
    }

    async fn cut(&self, keep: Position) -> Result<Position, WriteAheadLogError> {
        self.flush_the_rest().await?;
        let (config, highest, owner, stream_id) = {
            let writer = self.writer.borrow();
            (writer.config().clone(), writer.highest(), writer.owner(), writer.stream_id())
        };
        let (lives, spares) = Self::list_files(&self.storage, &self.directory).await?;
        let mut options = RecoveryOptions::new(keep, spares.iter().copied().max().unwrap_or(Life::NONE));
        (options.discard_after, options.highest_known, options.new_owner) = (Some(keep), highest, owner);
        let recovered = Self::recover(&self.storage, &self.directory, &lives, options, &mut Unread).await?;
        let start = recovered.resume(stream_id).map_err(|damage| WriteAheadLogError::Damaged {
            directory: self.directory.clone(),
            damage: Box::new(damage),
        })?;
        let kept_to = start.keep_to;
        *self.writer.borrow_mut() = LogWriter::start(config, start)?;
        self.files.borrow_mut().clear();
        *self.spares.borrow_mut() = spares.into();
        *self.recycle_when_ready.borrow_mut() = recovered.recycle_when_ready;
        self.cut_to.set(kept_to);
        self.cuts.set(self.cuts.get() + 1);
        self.recycle(&recovered.recycle_now).await?;
        self.sync_tail().await?;
        self.make_segments_until_ready().await?;
        Ok(kept_to)
    }

    /// Writes what waits: some of it may be below the cut. A log that a failed flush has stopped says so here; a cut does not mend
    /// that.
    async fn flush_the_rest(&self) -> Result<(), WriteAheadLogError> {
        loop {
            let plan = self.writer.borrow_mut().next_flush()?;
            match plan {
                Some(plan) => drop(self.flush(plan).await?),
                None if self.writer.borrow().queued_bytes() == 0 => return Ok(()),
                None => self.make_segments_until_ready().await?,
            }
        }
    }
}
