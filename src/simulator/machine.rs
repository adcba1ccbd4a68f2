//! The machine that a simulated server runs on: its clock, its delays, its disk; and what an observer at its side notes.

use super::agenda::{Agenda, Event, Inside};
use super::checker::history::CommittedKind;
use super::disk::Disk;
use crate::base::prng::Prng;
use crate::base::{ConnectionId, Zxid};
use crate::coordination::processor::txn::TxnHeader;

/// What a server sends to a client.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) connection: ConnectionId,
    pub(super) bytes: Vec<u8>,
    /// The connection is closed after that.
    pub(super) closes: bool,
}

/// Bounds of the delays of a run, in microseconds. Drawn once, so that runs differ in what is slow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Delays {
    pub(super) network_max: u64,
    pub(super) channel_max: u64,
    pub(super) flush_max: u64,
    pub(super) floor_max: u64,
}

impl Delays {
    /// Upper bounds of every draw: what the checker may rely on.
    pub(super) const NETWORK_MAX: u64 = 5_000;
    pub(super) const CHANNEL_MAX: u64 = 5_000;
    const FLUSH_MAX: u64 = 10_000;
    const FLOOR_MAX: u64 = 20_000;

    pub(super) fn draw(prng: &mut Prng) -> Delays {
        let mut bound = |max: u64| match prng.below(3) {
            0 => max / 50,
            1 => max / 8,
            _ => max,
        };
        Delays {
            network_max: bound(Self::NETWORK_MAX),
            channel_max: bound(Self::CHANNEL_MAX),
            flush_max: bound(Self::FLUSH_MAX),
            floor_max: bound(Self::FLOOR_MAX),
        }
    }
}

/// The surroundings of a server.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) now_us: u64,
    pub(super) life: usize,
    pub(super) agenda: Agenda,
    pub(super) delays: Delays,
    /// Draws of the server's inner schedule.
    pub(super) schedule: Prng,
    pub(super) disk: Disk,
    /// Until then, flushes are slow.
    pub(super) slow_disk_until_us: u64,
    /// Until then, there is no room for another segment of the log.
    pub(super) full_disk_until_us: u64,
    /// Since when writes are refused, and when they were before.
    pub(super) refusing_since_us: Option<u64>,
    pub(super) refused: Vec<(u64, u64)>,
    /// The transaction after which the server that just started goes on, to come near the end of its epoch.
    pub(super) skipped_to: Option<Zxid>,
    /// The next sync fails.
    pub(super) sync_fails: bool,
    /// What was sent to clients and not carried away yet.
    pub(super) sendings: Vec<Sending>,
    /// What was committed and not noted yet, in order.
    pub(super) committed: Vec<(TxnHeader, CommittedKind)>,
    /// The server must not go on, and says why: a defect.
    pub(super) stopped: Option<String>,
    /// The log takes nothing any more: the server ends, as it should.
    pub(super) log_stopped: bool,
    pub(super) trace: Trace,
}

/// What the wall clock shows at virtual time 0.
pub(super) const WALL_CLOCK_START_MS: i64 = 1_700_000_000_000;

impl Machine {
    /// Monotonic milliseconds.
    pub(super) fn now_ms(&self) -> i64 {
        (self.now_us / 1000) as i64
    }

    /// The wall clock.
    pub(super) fn wall_ms(&self) -> i64 {
        WALL_CLOCK_START_MS + self.now_ms()
    }

    /// Writes are refused from now on, or no more.
    pub(super) fn set_refusing(&mut self, refusing: bool) {
        match (refusing, self.refusing_since_us) {
            (true, None) => self.refusing_since_us = Some(self.now_us),
            (false, Some(since_us)) => {
                self.refused.push((since_us, self.now_us));
                self.refusing_since_us = None;
            }
            _ => {}
        }
    }

    /// `event` happens inside this life of the server, `delay_us` from now.
    pub(super) fn after(&mut self, delay_us: u64, event: Inside) {
        self.agenda.push(self.now_us + delay_us, Event::Inside(self.life, event));
    }

    /// A time on a channel between executors.
    pub(super) fn channel_delay(&mut self) -> u64 {
        self.schedule.delay(0, self.delays.channel_max)
    }

    /// A time that the disk takes for a flush.
    pub(super) fn flush_delay(&mut self) -> u64 {
        let slow = if self.now_us < self.slow_disk_until_us { 20 } else { 1 };
        slow * self.schedule.delay(20, self.delays.flush_max)
    }
}

/// A hash over everything that happens: equal for equal runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trace(pub(super) u64);

impl Trace {
    /// FNV-1a.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

impl Default for Trace {
    fn default() -> Self {
        Trace(0xcbf2_9ce4_8422_2325)
    }
}
