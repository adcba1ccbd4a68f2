//! The driver of the log on a real file system: what its two tasks owe to those who wait.

use super::driver::WriteAheadLog;
use super::writer::{LogConfig, Refusal};
use crate::base::Zxid;
use crate::runtime::{LocalNotify, Queue, ShardsConfig, TaskHandle, run_shards, sleep, spawn, timeout};
use crate::storage::{Backend, Storage, test_directory};
use std::cell::Cell;
use std::path::PathBuf;
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

async fn open(directory: &std::path::Path) -> Rc<WriteAheadLog> {
    let storage = Storage::new(Backend::Direct);
    let opened = WriteAheadLog::open(storage, directory, small_segments(), Zxid::ZERO, None, 7, |_, _: &[u8]| ()).await;
    opened.unwrap().log
}

/// The tasks of a log, and what they said.
struct Running {
    log: Rc<WriteAheadLog>,
    durable: Rc<Cell<Zxid>>,
    /// Something was flushed, or a segment made.
    moved: Rc<LocalNotify>,
    tasks: Vec<TaskHandle<()>>,
}

impl Running {
    fn start(log: Rc<WriteAheadLog>) -> Running {
        let durable = Rc::new(Cell::new(Zxid::ZERO));
        let moved = Rc::new(LocalNotify::new());
        let flushes = {
            let (log, durable, moved) = (log.clone(), durable.clone(), moved.clone());
            spawn(Queue::LogWrite, async move {
                let flushed = |zxid| {
                    durable.set(zxid);
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
    async fn write(&self, zxid: Zxid, record: &[u8]) {
        let appended = async {
            loop {
                match self.log.try_reserve(record.len()) {
                    Ok(reservation) => {
                        self.log.writer().borrow_mut().append(zxid, record).unwrap();
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
            while self.durable.get() < zxid {
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
        log.write(Zxid(1), b"the first").await;
        log.rest().await;
        let large: Vec<u8> = (0..5 * SEGMENT_BYTES).map(|at| (at % 251) as u8).collect();
        for zxid in 2..5 {
            log.write(Zxid(zxid), &large).await;
            log.rest().await;
        }
        log.stop().await;
        let mut found = Vec::new();
        let sink = |zxid, record: &[u8]| found.push((zxid, record.len() as u64));
        let storage = Storage::new(Backend::Direct);
        WriteAheadLog::open(storage, &directory, small_segments(), Zxid(1), None, 7, sink).await.unwrap();
        assert_eq!(found, [2, 3, 4].map(|zxid| (Zxid(zxid), 5 * SEGMENT_BYTES)));
    });
}
