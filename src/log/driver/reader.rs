//! Reading a range of the log while it is written, with read-ahead.

use super::WriteAheadLog;
use super::file_window::FileWindow;
use crate::log::format::Life;
use crate::log::holds::HoldId;
use crate::log::position::{Position, Record};
use crate::log::range::{RangeFault, RangeReader};
use crate::storage::StorageError;
use std::path::PathBuf;
use std::rc::Rc;
use thiserror::Error;

/// Why the log cannot be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// A file operation failed.
    #[error("log: {0}")]
    Storage(#[from] StorageError),
    /// The range is not there, or not whole.
    #[error("the log in {} cannot be read: {fault}", directory.display())]
    Range {
        /// Where the log is.
        directory: PathBuf,
        /// What is wrong.
        fault: Box<RangeFault>,
    },
    /// Records that were handed out were cut off since.
    #[error("the log was cut to {kept_to}, but {after} was read from it already")]
    Cut {
        /// The last record now.
        kept_to: Position,
        /// The last record that was handed out.
        after: Position,
    },
}

/// A file open for reading.
struct OpenFile {
    life: Life,
    /// What lies at or above this was not flushed when the file was opened; what was read ahead of it is not believed.
    limit: u64,
    window: FileWindow,
}

/// Reads records in order. As long as it lives, the segments with what it has not read yet are neither removed nor recycled.
pub struct LogReader {
    log: Rc<WriteAheadLog>,
    hold: HoldId,
    range: RangeReader,
    file: Option<OpenFile>,
    /// How often the log had been cut when the reader last looked.
    cuts: u64,
}

impl WriteAheadLog {
    /// A reader of the records above `after`.
    pub fn read_after(self: &Rc<Self>, after: Position) -> LogReader {
        let hold = self.holds.borrow_mut().hold(after);
        LogReader { log: self.clone(), hold, range: RangeReader::new(after), file: None, cuts: self.cuts.get() }
    }
}

impl LogReader {
    /// The last record that was handed out.
    pub fn after(&self) -> Position {
        self.range.after()
    }

    /// Hands the next records to `sink`: those that are durable, up to `to`, and at most about `bytes_max` of them, bytes. Gives
    /// whether there may be more right now. In memory are a block, what is read ahead of it, and a record that runs over several.
    pub async fn read(
        &mut self,
        to: Position,
        bytes_max: usize,
        sink: &mut impl FnMut(Record<'_>),
    ) -> Result<bool, ReadError> {
        let mut handed_bytes = 0;
        while handed_bytes < bytes_max {
            self.check_cuts()?;
            let wanted = self.range.next_read(&self.log.writer.borrow(), to);
            let Some(wanted) = wanted else { return Ok(false) };
            let (readable, is_over) = {
                let writer = self.log.writer.borrow();
                (writer.readable_bytes(wanted.life), writer.segment_after(wanted.life).is_some())
            };
            let is_open = |file: &OpenFile| {
                file.life == wanted.life && wanted.offset < file.limit && !file.window.is_beyond(wanted.offset)
            };
            if !self.file.as_ref().is_some_and(is_open) {
                let path = self.log.directory.join(wanted.life.file_name());
                let window = FileWindow::open(&self.log.storage, &path, wanted.offset).await?;
                self.file = Some(OpenFile { life: wanted.life, limit: readable, window });
            }
            let Some(file) = &mut self.file else { return Ok(false) };
            let bytes = file.window.read(wanted.offset, wanted.bytes).await?;
            if self.cuts != self.log.cuts.get() {
                continue;
            }
            let known = usize::try_from(file.limit - wanted.offset).unwrap_or(usize::MAX).min(bytes.len());
            let is_whole = is_over && file.limit == u64::MAX;
            let fed = self.range.feed(&bytes[..known], is_whole, to, &mut |record| {
                handed_bytes += record.bytes.len();
                sink(record);
            });
            fed.map_err(|fault| ReadError::Range { directory: self.log.directory.clone(), fault: Box::new(fault) })?;
            self.log.holds.borrow_mut().advance(self.hold, self.range.after());
        }
        Ok(true)
    }

    /// After a cut the files hold something else.
    fn check_cuts(&mut self) -> Result<(), ReadError> {
        let cuts = self.log.cuts.get();
        if cuts == self.cuts {
            return Ok(());
        }
        self.cuts = cuts;
        self.file = None;
        self.range.start_over();
        let kept_to = self.log.cut_to.get();
        let after = self.range.after();
        if after > kept_to { Err(ReadError::Cut { kept_to, after }) } else { Ok(()) }
    }
}

impl Drop for LogReader {
    fn drop(&mut self) {
        self.log.holds.borrow_mut().release(self.hold);
    }
}
