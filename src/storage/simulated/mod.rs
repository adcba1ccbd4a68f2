//! The disk of a simulated host: everything that a real one may do with what was not synced, drawn from a seed.
//!
//! It lives in a [`crate::runtime::world`], one a host, and outlives the processes that use it.
//!
//! - **An operation is one of the kernel.** It takes a drawn time, it goes on when nobody waits for it any more and when its process is
//!   killed, and operations that are in flight together end in any order.
//! - **`kill -9` takes nothing away.** The page cache belongs to the kernel. A write that was in flight still becomes visible, perhaps
//!   after the next process has read the file ([`SimulatedDisk::is_idle`]).
//! - **A power loss** ([`SimulatedDisk::lose_power`]) leaves what was synced. Of every write after that it leaves any of its 512-byte
//!   sectors; of a length, any between the old and the new one; of the names in a directory, those that were changed first. A write
//!   of [`super::SyncMode::EveryWrite`] makes only itself durable.
//! - **A sync that fails** marks what it covers as clean. A later sync succeeds and does not write it, as on Linux: reads see it
//!   until the power is lost.
//! - **A full disk** refuses whatever needs more space. What exists can be overwritten.
//! - **Damage** is done from outside ([`SimulatedDisk::flip_bit`], [`SimulatedDisk::misplace`], [`SimulatedDisk::cut_file`]).
//!
//! Calls that block on a real disk ([`super::Backend::create_directories`]) happen at once. Not modelled: hard links, renames
//! across directories, renames of directories.

mod contents;
mod faults;
mod names;
mod operations;
#[cfg(test)]
mod tests;

pub use faults::Extent;
pub(super) use operations::{Appender, File, Reader};

use crate::base::prng::Prng;
use crate::runtime::world::{self, ProcessId, pause_us, start_in_kernel};
use contents::ChangeNumber;
use names::{Names, Node};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Space of a disk that was given no other.
const CAPACITY_BYTES_DEFAULT: u64 = 4 << 30;

/// The disk of one host. Clones are the same disk.
#[derive(Clone)]
pub struct SimulatedDisk {
    state: Arc<Mutex<State>>,
}

struct State {
    prng: Prng,
    names: Names,
    next_change: ChangeNumber,
    /// Power losses so far. An operation of the time before does nothing more.
    power_losses: u64,
    in_flight: usize,
    /// Directories that are locked, by whom, and which lock it is.
    locks: BTreeMap<PathBuf, (ProcessId, u64)>,
    next_lock: u64,
    capacity_bytes: u64,
    is_full: bool,
    fail_next_sync: bool,
    slow: Slow,
}

/// A time in which everything takes longer.
#[derive(Clone, Copy)]
struct Slow {
    until_us: u64,
    factor: u64,
}

/// What takes time.
#[derive(Clone, Copy)]
enum Work {
    Read,
    Write,
    Sync,
    Name,
}

impl Work {
    /// Least and greatest time in µs. Most draws are short.
    fn bounds_us(self) -> (u64, u64) {
        match self {
            Work::Read => (20, 300),
            Work::Write => (20, 1_000),
            Work::Sync => (50, 4_000),
            Work::Name => (20, 500),
        }
    }
}

impl SimulatedDisk {
    /// An empty disk: a root directory. Everything that it chooses is drawn from `prng`.
    pub fn new(prng: Prng) -> SimulatedDisk {
        let state = State {
            prng,
            names: Names::new(),
            next_change: ChangeNumber(0),
            power_losses: 0,
            in_flight: 0,
            locks: BTreeMap::new(),
            next_lock: 0,
            capacity_bytes: CAPACITY_BYTES_DEFAULT,
            is_full: false,
            fail_next_sync: false,
            slow: Slow { until_us: 0, factor: 1 },
        };
        SimulatedDisk { state: Arc::new(Mutex::new(state)) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // One thread uses a disk, and a panic ends its world.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts an operation, for a handle that was opened after so many power losses. It has started when this returns, whether or
    /// not the future is ever polled.
    fn start<T: 'static, F: Future<Output = io::Result<T>> + 'static, C: FnOnce(Operation) -> F>(
        &self,
        power_losses: u64,
        carry_out: C,
    ) -> impl Future<Output = io::Result<T>> + use<T, F, C> {
        self.lock().in_flight += 1;
        start_in_kernel(carry_out(Operation { disk: self.clone(), power_losses }))
    }

    /// Starts an operation on what is there now.
    fn start_now<T: 'static, F: Future<Output = io::Result<T>> + 'static, C: FnOnce(Operation) -> F>(
        &self,
        carry_out: C,
    ) -> impl Future<Output = io::Result<T>> + use<T, F, C> {
        let power_losses = self.lock().power_losses;
        self.start(power_losses, carry_out)
    }
}

/// An operation that the kernel carries out.
struct Operation {
    disk: SimulatedDisk,
    power_losses: u64,
}

impl Operation {
    /// Passes the time that some work takes.
    async fn takes(&self, work: Work) {
        let us = self.disk.lock().time_us(work);
        world::current().trace(&us.to_le_bytes());
        pause_us(us).await;
    }

    /// The disk, unless it has lost its power meanwhile.
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.lock();
        if state.power_losses == self.power_losses { Ok(state) } else { Err(failed()) }
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        self.disk.lock().in_flight -= 1;
    }
}

/// What the kernel says of a device that failed, or is gone.
fn failed() -> io::Error {
    io::Error::from_raw_os_error(Errno::IO.raw_os_error())
}

impl State {
    fn time_us(&mut self, work: Work) -> u64 {
        let (min, max) = work.bounds_us();
        let us = self.prng.delay(min, max);
        if world::current().now_us() < self.slow.until_us { us.saturating_mul(self.slow.factor) } else { us }
    }

    fn next_change(&mut self) -> ChangeNumber {
        let ChangeNumber(number) = self.next_change;
        self.next_change = ChangeNumber(number + 1);
        ChangeNumber(number)
    }

    /// Bytes of all files that have a name.
    fn used_bytes(&self) -> u64 {
        self.names.files().map(|(_, inode)| inode.lock().cached().len() as u64).sum()
    }

    /// Whether `more` bytes can be had.
    fn check_space(&self, more: u64) -> io::Result<()> {
        let fits = || more <= self.capacity_bytes.saturating_sub(self.used_bytes());
        if more == 0 || !self.is_full && fits() {
            return Ok(());
        }
        Err(io::Error::from_raw_os_error(Errno::NOSPC.raw_os_error()))
    }

    /// Whether the sync that ends now succeeds.
    fn sync_outcome(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.fail_next_sync) { Err(failed()) } else { Ok(()) }
    }
}

/// What blocks on a real disk, and happens at once on this one.
impl SimulatedDisk {
    pub(super) fn exists(&self, path: &Path) -> bool {
        self.lock().names.exists(path)
    }

    pub(super) fn is_directory(&self, path: &Path) -> bool {
        self.lock().names.is_directory(path)
    }

    pub(super) fn make_directory(&self, path: &Path) -> io::Result<()> {
        self.lock().names.create(path, Node::Directory)
    }

    pub(super) fn sync_names_at_once(&self, directory: &Path) -> io::Result<()> {
        let mut state = self.lock();
        let point = state.names.sync_point(directory)?;
        state.names.synced(directory, point);
        Ok(())
    }

    /// Locks a directory for the process that runs. `None`: another has it, or this one has it already.
    pub(super) fn lock_directory(&self, directory: &Path) -> io::Result<Option<SimulatedLock>> {
        let world = world::current();
        let process = world.running_process().expect("a process locks, in a task");
        let mut state = self.lock();
        state.names.sync_point(directory)?;
        if state.locks.get(directory).is_some_and(|(holder, _)| world.is_alive(*holder)) {
            return Ok(None);
        }
        let number = state.next_lock;
        state.next_lock += 1;
        state.locks.insert(directory.to_owned(), (process, number));
        Ok(Some(SimulatedLock { disk: self.clone(), directory: directory.to_owned(), number }))
    }
}

/// A locked directory. The end of its process unlocks it, too.
#[derive(Debug)]
pub(super) struct SimulatedLock {
    disk: SimulatedDisk,
    directory: PathBuf,
    number: u64,
}

impl Drop for SimulatedLock {
    fn drop(&mut self) {
        let locks = &mut self.disk.lock().locks;
        if locks.get(&self.directory).is_some_and(|(_, number)| *number == self.number) {
            locks.remove(&self.directory);
        }
    }
}

impl fmt::Debug for SimulatedDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("SimulatedDisk")
            .field("files", &state.names.files().count())
            .field("power_losses", &state.power_losses)
            .finish_non_exhaustive()
    }
}
