//! The driver of the log on a real file system: what its two tasks owe to those who wait.

use super::{LogOpening, OpenedLog, ReadError, Replay, WriteAheadLog, WriteAheadLogError};
use crate::log::position::{LogOwner, Position, Record};
use crate::log::range::RangeFault;
use crate::log::writer::{LogConfig, Refusal};
use crate::runtime::{LocalNotify, Queue, ShardsConfig, TaskHandle, run_shards, sleep, spawn, timeout};
use crate::storage::{Backend, Storage, test_directory};
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

/// Longer than anything here takes. Only a test that fails waits for it.
const PATIENCE: Duration = Duration::from_secs(20);
const SEGMENT_BYTES: u64 = 64 << 10;

fn small_segments() -> LogConfig {
    LogConfig { segment_bytes: SEGMENT_BYTES, flush_bytes_max: 16 << 10, ..LogConfig::default() }
}

/// Runs `test` on one shard with a directory of its own, which is removed if it passes.
fn with_directory<F, Fut>(name: &str, test: F)
where
    F: FnOnce(PathBuf) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let directory = test_directory(name);
    let own = directory.clone();
    let shards = run_shards(&ShardsConfig::new(1), move |_| async move {
        test(own.clone()).await;
        Ok(())
    });
    shards.unwrap().join().unwrap();
    std::fs::remove_dir_all(directory).unwrap();
}

/// Whose logs these are.
const OWNER: LogOwner = LogOwner(11);

/// Takes records: position and length.
#[derive(Default)]
struct Found(Vec<(u64, usize)>);

impl Replay for Found {
    fn record(&mut self, record: Record<'_>) {
        self.0.push((record.position.0, record.bytes.len()));
    }

    async fn until_taken(&mut self) {}
}

fn opening() -> LogOpening {
    LogOpening {
        config: small_segments(),
        from: Position::ZERO,
        discard_after: None,
        highest_known: Position::ZERO,
        owner: None,
        new_owner: OWNER,
        new_stream_id: 7,
    }
}

async fn open_with(
    directory: &Path,
    opening: LogOpening,
) -> (Result<OpenedLog, WriteAheadLogError>, Vec<(u64, usize)>) {
    let mut found = Found::default();
    let opened = WriteAheadLog::open(Storage::new(Backend::Direct), directory, opening, &mut found).await;
    (opened, found.0)
}

async fn open(directory: &Path) -> Rc<WriteAheadLog> {
    open_with(directory, opening()).await.0.unwrap().log
}

/// The tasks of a log, and what they said.
struct Running {
    log: Rc<WriteAheadLog>,
    durable: Rc<Cell<Position>>,
    /// Something was flushed, or a segment made.
    moved: Rc<LocalNotify>,
    tasks: Vec<TaskHandle<()>>,
}

impl Running {
    fn start(log: Rc<WriteAheadLog>) -> Running {
        let durable = Rc::new(Cell::new(Position::ZERO));
        let moved = Rc::new(LocalNotify::new());
        let flushes = {
            let (log, durable, moved) = (log.clone(), durable.clone(), moved.clone());
            spawn(Queue::LogWrite, async move {
                let flushed = |position| {
                    durable.set(position);
                    moved.notify();
                };
                log.run_flushes(flushed).await.unwrap();
            })
        };
        let segments = {
            let (log, moved) = (log.clone(), moved.clone());
            spawn(Queue::Background, async move { log.run_segments(|| moved.notify()).await.unwrap() })
        };
        Running { log, durable, moved, tasks: vec![flushes, segments] }
    }

    /// Appends one record as soon as there is room for it, and waits until it is durable.
    async fn write(&self, position: Position, record: &[u8]) {
        let appended = async {
            loop {
                match self.log.try_reserve(record.len()) {
                    Ok(reservation) => {
                        self.log.writer().borrow_mut().append(position, record).unwrap();
                        self.log.writer().borrow_mut().release(reservation);
                        return self.log.kick();
                    }
                    Err(Refusal::Busy) => self.moved.notified().await,
                    Err(refusal) => panic!("{refusal}"),
                }
            }
        };
        timeout(PATIENCE, appended).await.expect("whoever says busy has begun what makes room");
        let flushed = async {
            while self.durable.get() < position {
                self.moved.notified().await;
            }
        };
        timeout(PATIENCE, flushed).await.expect("what is appended is flushed");
    }

    /// The log has nothing to do: the last record is followed by a block that says so, and both tasks wait. The pause gives them
    /// the time to come to rest; were it too short, the test would only be less sharp.
    async fn rest(&self) {
        self.log.idle().await.unwrap();
        sleep(Duration::from_millis(5)).await;
    }

    async fn stop(self) {
        self.log.stop();
        for task in self.tasks {
            task.await;
        }
    }
}

/// A server has nothing to do: its log has one segment ready and has written what is durable. Now comes a request that is larger
/// than what is left of the segments at hand. The log said "busy" and told nobody to make a segment; as nothing else was in
/// flight, no write was ever taken again.
#[test]
fn an_idle_log_makes_room_for_a_record_larger_than_its_segments() {
    with_directory("larger-than-segments", |directory| async move {
        let log = Running::start(open(&directory).await);
        log.write(Position(1), b"the first").await;
        log.rest().await;
        let large: Vec<u8> = (0..5 * SEGMENT_BYTES).map(|at| (at % 251) as u8).collect();
        for position in 2..5 {
            log.write(Position(position), &large).await;
            log.rest().await;
        }
        log.stop().await;
        let found = open_with(&directory, LogOpening { from: Position(1), ..opening() }).await.1;
        assert_eq!(found, [2, 3, 4].map(|position| (position, large.len())));
    });
}

/// A disk was moved to another server: its log is of another cluster, and what one cluster acknowledged is nothing to another.
#[test]
fn the_log_of_another_cluster_is_refused() {
    with_directory("other-owner", |directory| async move {
        let log = Running::start(open(&directory).await);
        log.write(Position(1), b"of the first cluster").await;
        log.stop().await;
        let other = LogOpening { owner: Some(LogOwner(12)), ..opening() };
        let error = open_with(&directory, other).await.0.err().unwrap();
        assert!(matches!(error, WriteAheadLogError::OtherOwner { found: OWNER, .. }), "{error}");
        let (opened, found) = open_with(&directory, LogOpening { owner: Some(OWNER), ..opening() }).await;
        assert_eq!((opened.unwrap().owner, found), (OWNER, vec![(1, 20)]));
    });
}

/// A start that reads the whole log before it hands on the first record needs as much memory as there is log.
#[test]
fn records_are_handed_on_while_the_log_is_read() {
    /// Counts what came between two pauses.
    #[derive(Default)]
    struct Stretches {
        bytes: usize,
        bytes_max: usize,
        records: u64,
    }

    impl Replay for Stretches {
        fn record(&mut self, record: Record<'_>) {
            assert_eq!((record.version, record.bytes.len()), (9, RECORD_BYTES));
            self.records += 1;
            self.bytes += RECORD_BYTES;
            self.bytes_max = self.bytes_max.max(self.bytes);
        }

        async fn until_taken(&mut self) {
            self.bytes = 0;
        }
    }

    const RECORD_BYTES: usize = 10_000;
    with_directory("stretches", |directory| async move {
        let mut large = opening();
        large.config = LogConfig { segment_bytes: 16 << 20, record_version: 9, ..LogConfig::default() };
        let log = Running::start(open_with(&directory, large.clone()).await.0.unwrap().log);
        for position in 1..=1000 {
            log.write(Position(position), &[7; RECORD_BYTES]).await;
        }
        log.stop().await;
        let mut stretches = Stretches::default();
        WriteAheadLog::open(Storage::new(Backend::Direct), &directory, large, &mut stretches).await.unwrap();
        assert_eq!(stretches.records, 1000);
        assert!(stretches.bytes_max < 2 << 20, "{} bytes at once", stretches.bytes_max);
    });
}

/// The names of the segments.
fn segments(directory: &Path) -> Vec<String> {
    let names = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name.starts_with("log.")).collect();
    names.sort();
    names
}

/// A learner lags behind, and reads the log while more is written to it: now from segments that are full, now from the one that was
/// flushed to a moment ago, of which it may have read ahead what was not there yet. Meanwhile a snapshot would let all of it go.
#[test]
fn a_reader_gets_everything_while_the_log_is_written_and_purged() {
    with_directory("reader", |directory| async move {
        let log = Running::start(open(&directory).await);
        let mut reader = log.log.read_after(Position::ZERO);
        let mut read = Vec::new();
        for round in 0..6 {
            for position in 1 + round * 10..=10 + round * 10 {
                log.write(Position(position), &position.to_le_bytes().repeat(1 + 700 * (position as usize % 7))).await;
            }
            log.log.purge_below(Position(10 + round * 10)).await.unwrap();
            let mut sink = |record: Record<'_>| {
                assert_eq!(record.bytes[..8], record.position.0.to_le_bytes());
                read.push(record.position.0);
            };
            // Not to the end: the next round begins in the middle of what is there.
            while reader.read(Position(7 + round * 10), 1000, &mut sink).await.unwrap() {}
            assert_eq!(reader.after(), Position(7 + round * 10));
        }
        while reader.read(Position::MAX, 1000, &mut |record| read.push(record.position.0)).await.unwrap() {}
        assert_eq!(read, (1..=60).collect::<Vec<_>>());
        log.stop().await;
    });
}

/// A snapshot lets the log go that a learner is still being sent: the learner would have to begin again, and again, and never catch
/// up. And a reader that is gone must not keep the log for ever.
#[test]
fn what_is_held_is_not_purged_and_goes_when_the_holder_does() {
    with_directory("holds", |directory| async move {
        let log = Running::start(open(&directory).await);
        for position in 1..=30 {
            log.write(Position(position), &[1; 10_000]).await;
        }
        let all = segments(&directory);
        let reader = log.log.read_after(Position(3));
        log.log.purge_below(Position(29)).await.unwrap();
        assert_eq!(segments(&directory), all, "records above 3 are needed");
        drop(reader);
        log.log.purge_below(Position(29)).await.unwrap();
        assert!(segments(&directory).len() + 3 < all.len());
        let mut late = log.log.read_after(Position(3));
        let error = late.read(Position::MAX, 1, &mut |_| ()).await.unwrap_err();
        let ReadError::Range { fault, .. } = error else { panic!("{error}") };
        assert!(matches!(*fault, RangeFault::Purged { .. }), "{fault}");
        log.stop().await;
    });
}

/// A new leader cuts off what its predecessor had proposed. What the cut took must not come back after a crash, what it left must be
/// there, and whoever counted it as durable must be told otherwise.
#[test]
fn a_log_that_is_in_use_is_cut_for_good() {
    with_directory("cut", |directory| async move {
        let log = Running::start(open(&directory).await);
        for position in [2, 4, 6, 8, 10] {
            log.write(Position(position), &[position as u8; 30_000]).await;
        }
        let mut reader = log.log.read_after(Position::ZERO);
        while reader.read(Position(8), usize::MAX, &mut |_| ()).await.unwrap() {}
        let mut slow = log.log.read_after(Position(2));
        log.log.writer().borrow_mut().append(Position(11), b"not durable yet, and given up").unwrap();
        // 5 was never given to a record: the last one before it stays.
        assert_eq!(log.log.cut_above(Position(5)).await.unwrap(), Position(4));
        assert_eq!(log.log.writer().borrow().durable_position(), Position(4));
        assert_eq!(log.log.writer().borrow().last_appended(), Position(4));
        let error = reader.read(Position::MAX, 1, &mut |_| ()).await.unwrap_err();
        assert!(matches!(error, ReadError::Cut { kept_to: Position(4), after: Position(8) }), "{error}");
        // The power fails here, or later.
        let copy = directory.join("copy");
        std::fs::create_dir(&copy).unwrap();
        for name in segments(&directory) {
            std::fs::copy(directory.join(&name), copy.join(&name)).unwrap();
        }
        assert_eq!(open_with(&copy, opening()).await.1, [(2, 30_000), (4, 30_000)]);
        log.durable.set(Position(4));
        log.write(Position(7), b"of the new leader").await;
        let mut read = Vec::new();
        while slow.read(Position::MAX, usize::MAX, &mut |record| read.push(record.position.0)).await.unwrap() {}
        assert_eq!(read, [4, 7]);
        log.stop().await;
        let (opened, found) = open_with(&directory, opening()).await;
        assert_eq!(found, [(2, 30_000), (4, 30_000), (7, 17)]);
        assert!(opened.unwrap().highest >= Position(10), "the numbers of what was cut off are known");
    });
}

/// What waits to be flushed when the log is cut is as good as what was flushed: below the cut it stays.
#[test]
fn a_cut_keeps_what_was_not_flushed_yet_below_it() {
    with_directory("cut-queued", |directory| async move {
        let log = Running::start(open(&directory).await);
        for position in 1..=6 {
            log.log.writer().borrow_mut().append(Position(position), &[5; 50_000]).unwrap();
        }
        assert_eq!(log.log.cut_above(Position(4)).await.unwrap(), Position(4));
        log.stop().await;
        let found = open_with(&directory, opening()).await.1;
        assert_eq!(found, [1, 2, 3, 4].map(|position| (position, 50_000)));
    });
}

/// What is committed is told by the blocks, also by an idle log; what is only durable was proposed, and is left apart.
#[test]
fn a_start_tells_the_committed_prefix_from_the_proposed_tail() {
    with_directory("committed", |directory| async move {
        let log = Running::start(open(&directory).await);
        log.write(Position(1), b"one").await;
        log.write(Position(2), b"two").await;
        log.log.commit(Position(1));
        log.write(Position(3), b"three").await;
        log.stop().await;
        let opened = open_with(&directory, opening()).await.0.unwrap();
        assert_eq!((opened.committed, opened.end), (Position(1), Position(3)));
        opened.log.commit(Position(3));
        opened.log.idle().await.unwrap();
        drop(opened);
        let opened = open_with(&directory, opening()).await.0.unwrap();
        assert_eq!((opened.committed, opened.end), (Position(3), Position(3)));
    });
}
