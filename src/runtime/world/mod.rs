//! A deterministic world: hosts, processes, executors, time and a network, all in one thread and all from one seed.
//!
//! The types of [`crate::runtime`] and [`crate::storage`] work on the executor library, or, on a thread that is inside
//! [`World::run`], on the world. What stands above them is the same code in both. So a simulation runs the product.
//!
//! - A **host** has an address, a wall clock, and a disk ([`crate::storage::SimulatedDisk`]).
//! - A **process** of a host is a group of executors that live and die together ([`World::kill`]).
//! - An **executor** runs the tasks of one shard. Executors run side by side in virtual time: a poll makes its own executor
//!   busy for a while, and no other.
//! - **Time** moves only when no executor can run.
//!
//! Invariants:
//! - everything that is chosen is drawn from a stream of the seed, and nothing reads the machine's clock or randomness: so a seed is
//!   one run, in any process ([`World::trace_hash`]);
//! - nothing of the world is borrowed while a task is polled, woken or dropped: all of these may come back here;
//! - a task of a process that was killed is never polled again; its values are dropped, which closes sockets as the kernel does.

mod channel;
mod executor;
mod network;
mod sleep;
mod tasks;
#[cfg(test)]
mod tests;

pub(super) use channel::{Receiver, SendError, Sender, channel};
pub(crate) use executor::start_in_kernel;
pub use executor::{ExecutorId, ProcessId};
pub(super) use executor::{Join, on_executors, spawn};
pub use network::{HostId, Network};
pub(super) use network::{SimulatedListener, SimulatedSocket, bind, connect};
pub(super) use sleep::{Sleep, yield_at_times};

use crate::base::prng::Prng;
use executor::Executors;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;
use tasks::Tasks;

/// What the wall clocks show at virtual time 0, in milliseconds since 1970.
pub const WALL_CLOCK_START_MS: i64 = 1_700_000_000_000;
/// How often a task that may yield does.
const YIELD_PERCENT: u64 = 10;
/// Polls of a run that does not come to rest.
const POLLS_MAX: u64 = 200_000_000;

thread_local! {
    /// Asked by every call of the runtime; a world is seldom there.
    static ACTIVE: Cell<bool> = const { Cell::new(false) };
    static CURRENT: RefCell<Option<World>> = const { RefCell::new(None) };
}

/// True on a thread that is inside [`World::run`].
#[inline]
pub(crate) fn is_active() -> bool {
    ACTIVE.get()
}

/// The world that this thread is in.
///
/// Panics outside of a world.
pub(crate) fn current() -> World {
    CURRENT.with_borrow(Clone::clone).expect("called on a thread that is inside a world")
}

/// A world. Clones are the same one.
#[derive(Clone)]
pub struct World {
    inner: Rc<Inner>,
}

struct Inner {
    seed: u64,
    now_us: Cell<u64>,
    /// Which executor and which task is next, and how long a poll takes.
    schedule: RefCell<Prng>,
    /// What the product draws.
    random: RefCell<Prng>,
    tasks: RefCell<Tasks>,
    executors: RefCell<Executors>,
    timers: RefCell<Timers>,
    network: Network,
    trace: Cell<u64>,
    polls: Cell<u64>,
}

/// What happens at a time. Things of one moment happen in the order in which they were asked for.
#[derive(Default)]
struct Timers {
    due: BTreeMap<TimerKey, Timer>,
    next_number: u64,
}

/// A time in microseconds, and the number of the timer.
type TimerKey = (u64, u64);

enum Timer {
    Wake(Waker),
    /// The next piece in one direction of a connection may arrive.
    Arrival(network::Direction),
}

impl World {
    /// A world in which nothing has happened.
    pub fn new(seed: u64) -> World {
        let world = World {
            inner: Rc::new(Inner {
                seed,
                now_us: Cell::new(0),
                schedule: RefCell::new(Prng::stream(seed, "world: schedule")),
                random: RefCell::new(Prng::stream(seed, "world: random")),
                tasks: RefCell::default(),
                executors: RefCell::default(),
                timers: RefCell::default(),
                network: Network::new(Prng::stream(seed, "world: network")),
                trace: Cell::new(0xcbf2_9ce4_8422_2325),
                polls: Cell::new(0),
            }),
        };
        // The first executor is the world's own.
        let process = world.start_process(HostId::NONE, "world");
        world.add_executor(process);
        world
    }

    /// Runs `future` as the world's own task, and everything else of the world beside it, until `future` is done. Then the world
    /// ends: all processes are gone.
    ///
    /// `None`: nothing can happen any more, and `future` is not done. Panics of tasks come out here.
    pub fn run<T: 'static>(&self, future: impl Future<Output = T> + 'static) -> Option<T> {
        assert!(!is_active(), "a world does not run within a world");
        CURRENT.set(Some(self.clone()));
        ACTIVE.set(true);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let outcome = self.run_to_end(future);
            self.end();
            outcome
        }));
        ACTIVE.set(false);
        let world = CURRENT.take();
        outcome.unwrap_or_else(|panic| {
            // What was in the middle of a change must not run its destructors.
            std::mem::forget(world);
            resume_unwind(panic)
        })
    }

    fn run_to_end<T: 'static>(&self, future: impl Future<Output = T> + 'static) -> Option<T> {
        let join = self.spawn_on(self.kernel(), future);
        loop {
            if let Some(value) = join.take() {
                return value;
            }
            if !self.step() {
                return None;
            }
        }
    }

    /// One poll, or one move of the clock. False when nothing can ever happen any more.
    fn step(&self) -> bool {
        if self.poll_one() {
            return true;
        }
        let timer = self.inner.timers.borrow().due.first_key_value().map(|((at_us, _), _)| *at_us);
        let executor = self.inner.executors.borrow().next_free_us();
        let Some(next_us) = [timer, executor].into_iter().flatten().min() else { return false };
        self.inner.now_us.set(next_us.max(self.now_us()));
        self.fire_timers();
        true
    }

    fn fire_timers(&self) {
        let now_us = self.now_us();
        loop {
            let timer = {
                let due = &mut self.inner.timers.borrow_mut().due;
                match due.first_entry() {
                    Some(first) if first.key().0 <= now_us => first.remove(),
                    _ => return,
                }
            };
            match timer {
                Timer::Wake(waker) => waker.wake(),
                Timer::Arrival(direction) => self.inner.network.arrive(self, direction),
            }
        }
    }

    fn at(&self, at_us: u64, timer: Timer) -> TimerKey {
        let mut timers = self.inner.timers.borrow_mut();
        let key = (at_us, timers.next_number);
        timers.next_number += 1;
        timers.due.insert(key, timer);
        key
    }

    /// Every process is gone, and nothing waits.
    fn end(&self) {
        self.kill_all();
        let timers = std::mem::take(&mut self.inner.timers.borrow_mut().due);
        drop(timers);
        self.inner.network.clear();
    }

    /// Virtual microseconds since the beginning.
    pub fn now_us(&self) -> u64 {
        self.inner.now_us.get()
    }

    /// [`World::now_us`] of the world that this thread is in; 0 outside of one.
    pub fn now_us_here() -> u64 {
        if is_active() { current().now_us() } else { 0 }
    }

    /// A stream of random numbers of this world's seed.
    pub fn stream(&self, name: &str) -> Prng {
        Prng::stream(self.inner.seed, name)
    }

    /// The network.
    pub fn network(&self) -> &Network {
        &self.inner.network
    }

    /// Adds to the hash over everything that happens.
    pub fn trace(&self, bytes: &[u8]) {
        // FNV-1a, eight bytes at a time.
        let mut hash = self.inner.trace.get();
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(0x0100_0000_01b3).rotate_left(29);
        }
        self.inner.trace.set(hash);
    }

    /// Equal for equal runs.
    pub fn trace_hash(&self) -> u64 {
        self.inner.trace.get()
    }

    /// A number for the product.
    pub(super) fn random(&self) -> u64 {
        self.inner.random.borrow_mut().any()
    }

    /// True in `percent` of 100 draws of the schedule.
    pub(super) fn chance(&self, percent: u64) -> bool {
        self.inner.schedule.borrow_mut().percent(percent)
    }

    /// A delay of the schedule.
    pub(super) fn delay_us(&self, min: u64, max: u64) -> u64 {
        self.inner.schedule.borrow_mut().delay(min, max)
    }

    /// The wall clock of the host whose task runs, in milliseconds since 1970.
    pub(super) fn wall_ms(&self) -> i64 {
        let host = self.running().map_or(HostId::NONE, |executor| self.host_of(executor));
        WALL_CLOCK_START_MS + (self.now_us() / 1000) as i64 + self.inner.network.wall_clock_offset_ms(host)
    }
}

/// Whether a long loop should let others run: drawn, and seldom.
pub(super) fn need_preempt() -> bool {
    current().chance(YIELD_PERCENT)
}

/// Waits in virtual time, for the world's own tasks and the simulated disks.
pub async fn pause_us(us: u64) {
    Sleep::new(Duration::from_micros(us)).await;
}
