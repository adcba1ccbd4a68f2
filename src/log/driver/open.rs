//! Opening a log: what is there is read and judged, the records that are needed are handed on, and the log goes on in a fresh segment.

use super::file_window::FileWindow;
use super::{WriteAheadLog, WriteAheadLogError};
use crate::base::planted;
use crate::log::chain::SegmentPrefix;
use crate::log::format::{BLOCK_BYTES_DEFAULT, Life};
use crate::log::holds::Holds;
use crate::log::position::{LogOwner, Position, Record};
use crate::log::recovery::{LogRecovery, Recovered, RecoveryOptions, Verdict};
use crate::log::writer::{LogConfig, LogWriter};
use crate::runtime::LocalNotify;
use crate::storage::{Storage, StorageError, SyncMode};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

/// What is read of every segment before it is known which are needed: its header and its first block's.
const SEGMENT_PREFIX_BYTES: usize = 2 * BLOCK_BYTES_DEFAULT as usize;

/// How a log is opened.
#[derive(Clone, Debug)]
pub struct LogOpening {
    /// How it goes on.
    pub config: LogConfig,
    /// Records above this are needed.
    pub from: Position,
    /// Give up everything above this.
    pub discard_after: Option<Position>,
    /// Positions up to here were given out before, as is known from elsewhere.
    pub highest_known: Position,
    /// Whose log it must be, if that is known. A log that does not exist yet gets it, or `new_owner`.
    pub owner: Option<LogOwner>,
    /// A random owner, for a log that does not exist yet.
    pub new_owner: LogOwner,
    /// A random number, for a log that does not exist yet.
    pub new_stream_id: u64,
}

/// Takes the records of a log while it is opened, in order. They come before the verdict: a caller must not act on them when the
/// opening fails.
pub trait Replay {
    /// The next record.
    fn record(&mut self, record: Record<'_>);

    /// Called after every stretch of the log, between which there are at most a few MiB and one record: returns when more may come.
    /// So whoever takes the records bounds what is on its way, and ends the wait by taking it.
    fn until_taken(&mut self) -> impl Future<Output = ()>;
}

/// What was found at start.
pub struct OpenedLog {
    /// The log, ready to go on.
    pub log: Rc<WriteAheadLog>,
    /// The last record.
    pub end: Position,
    /// Everything up to here is known to be committed. What lies between this and the end was proposed (rule C2).
    pub committed: Position,
    /// The highest position that was ever given out, what was cut off included.
    pub highest: Position,
    /// Whose log it is.
    pub owner: LogOwner,
    /// A line for the operator, when something was cut.
    pub notice: Option<String>,
}

impl WriteAheadLog {
    /// Reads the log in `directory` and prepares to go on. `replay` gets every record above `opening.from`.
    pub async fn open(
        storage: Storage,
        directory: &Path,
        opening: LogOpening,
        replay: &mut impl Replay,
    ) -> Result<OpenedLog, WriteAheadLogError> {
        let (lives, spares) = Self::list_files(&storage, directory).await?;
        let mut options = RecoveryOptions::new(opening.from, spares.iter().copied().max().unwrap_or(Life::NONE));
        options.discard_after = opening.discard_after;
        options.highest_known = opening.highest_known;
        options.new_owner = opening.owner.unwrap_or(opening.new_owner);
        let recovered = Self::recover(&storage, directory, &lives, options, replay).await?;
        let start = recovered.resume(opening.new_stream_id).map_err(|damage| WriteAheadLogError::Damaged {
            directory: directory.to_owned(),
            damage: Box::new(damage),
        })?;
        if let Some(expected) = opening.owner.filter(|owner| *owner != recovered.owner) {
            return Err(WriteAheadLogError::OtherOwner {
                directory: directory.to_owned(),
                expected,
                found: recovered.owner,
            });
        }
        let end = start.keep_to;
        let notice = notice(&recovered, directory, opening.discard_after.is_some());
        // The planted bug syncs some flushes late, with all before them: what a crash loses is then a tail.
        let forced = opening.config.sync && !planted::is("ack-before-sync");
        let sync = if forced { SyncMode::EveryWrite } else { SyncMode::OnRequest };
        let log = Rc::new(WriteAheadLog {
            writer: RefCell::new(LogWriter::start(opening.config, start)?),
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
            holds: RefCell::new(Holds::default()),
            cutting: Cell::new(false),
            under_way: Cell::new(0),
            quiet: LocalNotify::new(),
            cuts: Cell::new(0),
            cut_to: Cell::new(Position::MAX),
        });
        log.recycle(&recovered.recycle_now).await?;
        log.sync_tail().await?;
        log.make_segments(&|| ()).await?;
        let Recovered { committed, highest, owner, .. } = recovered;
        Ok(OpenedLog { log, end, committed, highest, owner, notice })
    }

    /// Whether there is a log in `directory` at all.
    pub async fn exists(storage: &Storage, directory: &Path) -> Result<bool, StorageError> {
        Ok(!Self::list_files(storage, directory).await?.0.is_empty())
    }

    pub(super) async fn list_files(
        storage: &Storage,
        directory: &Path,
    ) -> Result<(Vec<Life>, Vec<Life>), StorageError> {
        let entries = storage.list(directory).await?;
        let lives = entries.iter().filter_map(|entry| Life::from_file_name(&entry.name)).collect();
        let spares = entries.iter().filter_map(|entry| Life::from_spare_file_name(&entry.name)).collect();
        Ok((lives, spares))
    }

    pub(super) async fn recover(
        storage: &Storage,
        directory: &Path,
        lives: &[Life],
        options: RecoveryOptions,
        replay: &mut impl Replay,
    ) -> Result<Recovered, StorageError> {
        let mut heads = Vec::new();
        for life in lives {
            heads.push((*life, storage.read_first(&directory.join(life.file_name()), SEGMENT_PREFIX_BYTES).await?));
        }
        let prefixes: Vec<SegmentPrefix<'_>> =
            heads.iter().map(|(life, bytes)| SegmentPrefix { life: *life, bytes }).collect();
        let mut recovery = LogRecovery::new(&prefixes, options);
        let mut file: Option<(Life, FileWindow)> = None;
        while let Some(wanted) = recovery.next_read() {
            let is_open =
                |(life, window): &(Life, FileWindow)| *life == wanted.life && !window.is_beyond(wanted.offset);
            if !file.as_ref().is_some_and(is_open) {
                let path = directory.join(wanted.life.file_name());
                file = Some((wanted.life, FileWindow::open(storage, &path, wanted.offset).await?));
            }
            let Some((_, window)) = &mut file else { break };
            let bytes = window.read(wanted.offset, wanted.bytes).await?;
            recovery.feed(bytes, &mut |record| replay.record(record));
            replay.until_taken().await;
        }
        Ok(recovery.finish())
    }

    /// Rule E3: what was read back may sit in a cache only.
    pub(super) async fn sync_tail(&self) -> Result<(), WriteAheadLogError> {
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
}

/// What the operator should know of a log that was cut.
fn notice(recovered: &Recovered, directory: &Path, as_asked: bool) -> Option<String> {
    let Verdict::TornTail { end, life, offset } = &recovered.verdict else { return None };
    let file = directory.join(life.file_name());
    let file = file.display();
    Some(if as_asked {
        format!("{file}: everything after {end} is given up from byte {offset} on, as asked")
    } else {
        format!("{file}: cut an unfinished write at byte {offset}, after {end}")
    })
}
