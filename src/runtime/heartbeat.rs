//! Bounds what a wake-up that the executor library loses can cost.
//!
//! The library's loop arms the preemption timer, looks whether the timer has fired, runs tasks, and sleeps when none has run. When
//! its thread is taken off the CPU between the first two for longer than the timer, the timer has fired before the first
//! task: none has run, and the executor sleeps on tasks that are ready. The same happens, in a much smaller gap, when another
//! thread rings late for a wake-up that was seen already. A timer of the shard does not end that sleep for sure: the task that
//! would arm the next timer may be among those that are ready. A wake-up from another thread always does, so a thread of its own
//! wakes every shard from time to time. A beat costs an idle shard much and a busy one nothing that counts, and the more turns a
//! shard has, the more it can lose: so a shard with work is woken every 5 ms, an idle one every 250 ms.

use super::tasks;
use glommio::LocalExecutor;
use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::task::{Poll, Waker};
use std::time::Duration;

/// Between two beats of a busy shard: what a lost wake-up costs under load.
pub(super) const BEAT_BUSY: Duration = Duration::from_millis(5);
/// Beats of a busy shard between two judgements of what is busy.
const BEATS_BUSY: u32 = 50;
/// Between two beats of an idle shard, and between two judgements of what is busy.
const BEAT_IDLE: Duration = BEAT_BUSY.saturating_mul(BEATS_BUSY);
/// A shard that polls as many tasks between two judgements is busy. More than the clocks of an idle shard need, a few a judgement.
const POLLS_BUSY: u64 = 8;

// A shard with work stays busy even when it loses every turn: each beat gives it at least one poll.
const _: () = assert!(POLLS_BUSY < BEATS_BUSY as u64);

/// How other threads wake a shard's executor and see whether it works.
pub(super) struct Pulse {
    /// Belongs to a task that is never done: waking it wakes the executor and does nothing else.
    waker: Waker,
    /// Of tasks, on this shard.
    polls: Arc<AtomicU64>,
}

impl Pulse {
    /// The pulse of `executor`, which belongs to this thread and need not have turned yet: its first turn can be lost as well.
    pub(super) fn of(executor: &LocalExecutor) -> Pulse {
        let slot = Rc::new(RefCell::new(None));
        let filled = slot.clone();
        // Polled once at once. The task outlasts all others, in whose end a wake-up can be lost too.
        let standing = executor.spawn(poll_fn::<(), _>(move |cx| {
            filled.borrow_mut().get_or_insert_with(|| cx.waker().clone());
            Poll::Pending
        }));
        standing.detach();
        let waker = slot.borrow().clone().expect("a task that is spawned on the executor itself is polled at once");
        Pulse { waker, polls: tasks::polls() }
    }

    /// Of what `waker` wakes.
    #[cfg(test)]
    pub(super) fn new(waker: Waker) -> Pulse {
        Pulse { waker, polls: Arc::default() }
    }

    /// Wakes the executor, from any thread.
    pub(super) fn beat(&self) {
        self.waker.wake_by_ref();
    }
}

/// Beats until all shards have ended.
pub(super) fn beat(pulses: &[Pulse], all_ended: &Receiver<()>) {
    let mut rhythm = Rhythm::new(pulses.len());
    let mut pause = BEAT_BUSY;
    while all_ended.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
        pause = rhythm.next(|shard| pulses[shard].polls.load(Ordering::Relaxed), |shard| pulses[shard].beat());
    }
}

/// Which shards are beaten when. The deciding part, without clock or thread.
struct Rhythm {
    shards: Vec<Beaten>,
    /// Beats still to come before the next judgement.
    left: u32,
}

struct Beaten {
    polls: u64,
    busy: bool,
}

impl Rhythm {
    /// A shard counts as busy until it is judged for the first time: a start has much to do.
    fn new(shards: usize) -> Rhythm {
        Rhythm { shards: (0..shards).map(|_| Beaten { polls: 0, busy: true }).collect(), left: BEATS_BUSY }
    }

    /// Beats whoever is due, and gives the time to the next call.
    fn next(&mut self, polls: impl Fn(usize) -> u64, beat: impl Fn(usize)) -> Duration {
        let judge = self.left == 0;
        for (shard, beaten) in self.shards.iter_mut().enumerate() {
            if judge {
                let now = polls(shard);
                beaten.busy = now.wrapping_sub(beaten.polls) >= POLLS_BUSY;
                beaten.polls = now;
            }
            if judge || beaten.busy {
                beat(shard);
            }
        }
        if self.shards.iter().any(|beaten| beaten.busy) {
            self.left = if judge { BEATS_BUSY - 1 } else { self.left - 1 };
            BEAT_BUSY
        } else {
            self.left = 0;
            BEAT_IDLE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{Queue, ShardsConfig, run_shards, spawn};
    use std::cell::Cell;

    /// Two shards under a virtual clock.
    struct Shards {
        rhythm: Rhythm,
        polls: [u64; 2],
    }

    impl Shards {
        /// The beats of each in `ms`, while each polls `polls_per_ms` tasks.
        fn beats(&mut self, ms: u64, polls_per_ms: [u64; 2]) -> [u32; 2] {
            let beats = [Cell::new(0), Cell::new(0)];
            let mut now_ms = 0;
            while now_ms < ms {
                let pause =
                    self.rhythm.next(|shard| self.polls[shard], |shard| beats[shard].set(beats[shard].get() + 1));
                let pause_ms = u64::try_from(pause.as_millis()).unwrap();
                self.polls = std::array::from_fn(|shard| self.polls[shard] + pause_ms * polls_per_ms[shard]);
                now_ms += pause_ms;
            }
            beats.map(|count| count.get())
        }
    }

    /// After its start, which is watched closely.
    fn two_shards() -> Shards {
        let mut shards = Shards { rhythm: Rhythm::new(2), polls: [0, 0] };
        assert_eq!(shards.beats(250, [0, 0]), [50, 50]);
        shards
    }

    /// 200 beats a second cost an idle server 2.75 % of a core a shard, all day long; four are a safety net.
    #[test]
    fn an_idle_shard_is_beaten_four_times_a_second() {
        assert_eq!(two_shards().beats(10_000, [0, 0]), [40, 40]);
    }

    /// One shard works, the other sleeps: only the first is worth a beat every 5 ms, from the next judgement on.
    #[test]
    fn a_busy_shard_waits_at_most_five_milliseconds_and_wakes_no_other() {
        let mut shards = two_shards();
        assert_eq!(shards.beats(250, [1, 0]), [1, 1]);
        assert_eq!(shards.beats(10_000, [1, 0]), [2_000, 40]);
        assert_eq!(shards.beats(250, [0, 0]), [50, 1], "until the next judgement");
        assert_eq!(shards.beats(1_000, [0, 0]), [4, 4]);
    }

    /// If the count stood still, every shard would pass for idle.
    #[test]
    fn the_tasks_of_a_shard_are_counted() {
        let counted = run_shards(&ShardsConfig::new(1), |_| async {
            let polls = tasks::polls();
            let before = polls.load(Ordering::Relaxed);
            for _ in 0..10 {
                spawn(Queue::Serving, async {}).await;
            }
            assert!(polls.load(Ordering::Relaxed) >= before + 10);
            Ok(())
        });
        counted.unwrap().join().unwrap();
    }

    /// A shard that loses every single turn polls one task a beat. If such a shard passed for idle, it would go on at four tasks a
    /// second.
    #[test]
    fn a_shard_that_lives_on_beats_alone_stays_busy() {
        let mut rhythm = Rhythm::new(1);
        let polls = Cell::new(0);
        for _ in 0..1_000 {
            let pause = rhythm.next(|_| polls.get(), |_| polls.set(polls.get() + 1));
            assert_eq!(pause, BEAT_BUSY);
        }
    }
}
