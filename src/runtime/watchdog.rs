//! Watches that every shard still turns, from a thread of its own.
//!
//! A shard-local timer task raises a counter four times a second. If the counter stands still, the shard is stuck in a task or
//! asleep for ever (see `heartbeat`); neither can be noticed from inside. After a second a line is logged; at the
//! configured bound the stall handler is called, which by default aborts the process: a restart heals, a server with a dead
//! shard does not. A gap in the watchdog's own ticks means that the whole machine or process stood still and counts for nobody.

use super::clock::monotonic_ms;
use super::queues::sleep;
use crate::base::ShardId;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// Period of the counter task on each shard. Every turn wakes an idle shard: ten a second cost more than a tenth of a percent of a core.
const TURN: Duration = Duration::from_millis(250);
/// Period of the watchdog thread.
const CHECK_MS: u64 = 250;
/// Between two checks the watchdog may itself be this late before the gap counts as a suspended machine.
const GAP_MS: u64 = CHECK_MS + 500;
/// A shard that stands still this long is worth a line in the log.
const WARN_MS: u64 = 1_000;

// A warning must come before the abort, and a late watchdog must not be able to produce one.
const _: () = assert!(GAP_MS < WARN_MS);

/// When to act.
#[derive(Clone, Copy, Debug)]
pub struct WatchdogConfig {
    /// A shard that stands still this long calls the stall handler. At least 1000.
    pub stall_ms_max: u64,
}

impl Default for WatchdogConfig {
    fn default() -> Self {
        WatchdogConfig { stall_ms_max: 30_000 }
    }
}

/// Called from the watchdog's thread with the shard and how long it has stood still, in milliseconds; once a stall.
pub type StallHandler = Box<dyn Fn(ShardId, u64) + Send>;

/// Ends the process with a message. The default handler.
pub fn abort_on_stall() -> StallHandler {
    Box::new(|shard, stalled_ms| {
        tracing::error!(
            "shard {shard} has not turned for {stalled_ms} ms; aborting so that a supervisor can restart the server"
        );
        std::process::abort();
    })
}

/// The running watchdog. Dropping it ends its thread.
pub struct Watchdog {
    shards: Vec<Arc<Turns>>,
    thread: Option<(Sender<()>, JoinHandle<()>)>,
}

#[derive(Default)]
struct Turns {
    count: AtomicU64,
    /// False before the shard began and after it ended: it is then not watched.
    watched: AtomicBool,
}

impl Watchdog {
    /// Starts to watch `shards` shards; each is watched from the moment its [`TurnCounter`] runs.
    pub fn start(shards: usize, config: WatchdogConfig, on_stall: StallHandler) -> std::io::Result<Watchdog> {
        let turns: Vec<Arc<Turns>> = (0..shards).map(|_| Arc::default()).collect();
        let watched = turns.clone();
        let (stop, stopped) = channel::<()>();
        let mut detector = Detector::new(shards, config.stall_ms_max.max(WARN_MS), monotonic_ms());
        let thread = std::thread::Builder::new().name("watchdog".into()).spawn(move || {
            while stopped.recv_timeout(Duration::from_millis(CHECK_MS)) == Err(RecvTimeoutError::Timeout) {
                let counts = watched.iter().map(|turns| turns.read()).collect::<Vec<_>>();
                detector.check(monotonic_ms(), &counts, |verdict| match verdict {
                    Verdict::Slow { shard, stalled_ms } => {
                        tracing::warn!("shard {shard} has not turned for {stalled_ms} ms");
                    }
                    Verdict::Stalled { shard, stalled_ms } => on_stall(shard, stalled_ms),
                });
            }
        })?;
        Ok(Watchdog { shards: turns, thread: Some((stop, thread)) })
    }

    /// The counter of one shard, to be moved to it.
    pub fn counter(&self, shard: ShardId) -> TurnCounter {
        TurnCounter { turns: self.shards[shard.index()].clone() }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.thread.take() {
            drop(stop);
            // Its only panic can come from the stall handler, and then the stall is the news.
            let _ = thread.join();
        }
    }
}

impl Turns {
    fn read(&self) -> Option<u64> {
        self.watched.load(Ordering::Acquire).then(|| self.count.load(Ordering::Relaxed))
    }
}

/// Proves that a shard turns. Spawn [`TurnCounter::run`] on the shard.
pub struct TurnCounter {
    turns: Arc<Turns>,
}

impl TurnCounter {
    /// Counts until dropped with its shard.
    pub async fn run(self) {
        self.turns.watched.store(true, Ordering::Release);
        loop {
            self.turns.count.fetch_add(1, Ordering::Relaxed);
            sleep(TURN).await;
        }
    }
}

impl Drop for TurnCounter {
    fn drop(&mut self) {
        self.turns.watched.store(false, Ordering::Release);
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Slow { shard: ShardId, stalled_ms: u64 },
    Stalled { shard: ShardId, stalled_ms: u64 },
}

/// The deciding part, without clock or thread.
struct Detector {
    stall_ms_max: u64,
    checked_ms: u64,
    shards: Vec<Watched>,
}

struct Watched {
    count: Option<u64>,
    moved_ms: u64,
    warned: bool,
    reported: bool,
}

impl Detector {
    fn new(shards: usize, stall_ms_max: u64, now_ms: u64) -> Detector {
        let watched = |_| Watched { count: None, moved_ms: now_ms, warned: false, reported: false };
        Detector { stall_ms_max, checked_ms: now_ms, shards: (0..shards).map(watched).collect() }
    }

    /// Compares the counters (`None`: not watched) with the last check. Each stall gives one `Slow` and one `Stalled`.
    fn check(&mut self, now_ms: u64, counts: &[Option<u64>], mut verdict: impl FnMut(Verdict)) {
        let gap_ms = now_ms - self.checked_ms;
        self.checked_ms = now_ms;
        for (index, (watched, &count)) in self.shards.iter_mut().zip(counts).enumerate() {
            if gap_ms > GAP_MS {
                // Nobody could turn in that time, this thread neither.
                watched.moved_ms += gap_ms;
            }
            if count.is_none() || count != watched.count {
                *watched = Watched { count, moved_ms: now_ms, warned: false, reported: false };
                continue;
            }
            let (shard, stalled_ms) = (ShardId(index as u16), now_ms.saturating_sub(watched.moved_ms));
            if stalled_ms >= WARN_MS && !watched.warned {
                watched.warned = true;
                verdict(Verdict::Slow { shard, stalled_ms });
            }
            if stalled_ms >= self.stall_ms_max && !watched.reported {
                watched.reported = true;
                verdict(Verdict::Stalled { shard, stalled_ms });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{Queue, ShardsConfig, run_shards, spawn};
    use std::sync::Mutex;

    fn verdicts(detector: &mut Detector, now_ms: u64, counts: &[Option<u64>]) -> Vec<Verdict> {
        let mut all = Vec::new();
        detector.check(now_ms, counts, |verdict| all.push(verdict));
        all
    }

    /// An executor that sleeps for ever burns no CPU and answers nobody: only a standing counter shows it.
    #[test]
    fn a_counter_that_stands_still_is_reported_once_at_each_bound() {
        let mut detector = Detector::new(2, 3_000, 0);
        let mut seen = Vec::new();
        for step in 1..=20u64 {
            // Shard 0 turns, shard 1 hangs from the start.
            seen.extend(verdicts(&mut detector, step * CHECK_MS, &[Some(step), Some(7)]));
        }
        let shard = ShardId(1);
        assert_eq!(seen, [Verdict::Slow { shard, stalled_ms: 1_000 }, Verdict::Stalled { shard, stalled_ms: 3_000 }]);
    }

    /// After a laptop's lid was closed for an hour every counter is an hour old; aborting then would be a second outage.
    #[test]
    fn a_suspended_machine_is_no_stall() {
        let mut detector = Detector::new(1, 3_000, 0);
        assert!(verdicts(&mut detector, 250, &[Some(5)]).is_empty());
        assert!(verdicts(&mut detector, 3_600_000, &[Some(5)]).is_empty());
        assert!(verdicts(&mut detector, 3_600_250, &[Some(5)]).is_empty());
        assert!(verdicts(&mut detector, 3_600_500, &[Some(6)]).is_empty());
    }

    #[test]
    fn a_shard_that_has_ended_is_not_watched() {
        let mut detector = Detector::new(1, 1_000, 0);
        assert!(verdicts(&mut detector, 250, &[Some(5)]).is_empty());
        for step in 2..40u64 {
            assert!(verdicts(&mut detector, step * CHECK_MS, &[None]).is_empty());
        }
    }

    /// The whole path: a task that never yields stops the counter task of its shard.
    #[test]
    fn a_task_that_does_not_yield_is_caught() {
        let (report, stalls) = channel();
        let report = Mutex::new(report);
        let on_stall: StallHandler = Box::new(move |shard, stalled_ms| {
            report.lock().unwrap().send((shard, stalled_ms)).unwrap();
        });
        let watchdog = Watchdog::start(1, WatchdogConfig { stall_ms_max: 1_000 }, on_stall).unwrap();
        let counter = Mutex::new(Some(watchdog.counter(ShardId(0))));
        let (release, released) = channel::<()>();
        let released = Mutex::new(Some(released));
        let (counter, released) = (Arc::new(counter), Arc::new(released));
        let handle = run_shards(&ShardsConfig::new(1), move |_| async move {
            let turning = spawn(Queue::Serving, counter.lock().unwrap().take().unwrap().run());
            sleep(TURN * 2).await;
            let released = released.lock().unwrap().take().unwrap();
            // Blocks the executor's thread until the watchdog has spoken.
            released.recv().unwrap();
            turning.cancel();
            Ok(())
        })
        .unwrap();
        let (shard, stalled_ms) = stalls.recv().unwrap();
        release.send(()).unwrap();
        assert_eq!(shard, ShardId(0));
        assert!(stalled_ms >= 1_000);
        handle.join().unwrap();
    }
}
