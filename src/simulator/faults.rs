//! What goes wrong in a run, and when: drawn from a stream of its own, and spread over the clients' operations.

use crate::base::prng::Prng;

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The machine fails and comes back later; what was not synced may be gone.
    Crash {
        /// How long it is down.
        down_us: u64,
    },
    /// An executor does not turn.
    Stall {
        /// Picks the executor.
        shard: u64,
        /// For how long.
        for_us: u64,
    },
    /// Flushes take long.
    SlowDisk {
        /// For how long.
        for_us: u64,
    },
    /// There is no room for more log.
    FullDisk {
        /// For how long.
        for_us: u64,
    },
    /// The next sync of the log fails: the server ends, and starts again later.
    FailedSync,
    /// A connection breaks under both ends.
    Break {
        /// Picks the connection.
        connection: u64,
    },
}

/// The faults of a run, each with the number of operations after which it strikes.
#[derive(Debug)]
pub(super) struct Plan {
    pending: Vec<(u64, Fault)>,
    /// How many have struck.
    pub(super) done: u64,
}

/// A run has at least as many.
pub(super) const FAULTS_MIN: u64 = 5;

impl Plan {
    /// Faults over a run of `operations`.
    pub(super) fn draw(prng: &mut Prng, operations: u64) -> Plan {
        let count = prng.between(FAULTS_MIN, 9);
        let mut pending: Vec<(u64, Fault)> =
            (0..count).map(|_| (prng.between(operations / 20, operations * 19 / 20), Fault::draw(prng))).collect();
        // Every run proves durability: at least one fault is a crash.
        if !pending.iter().any(|(_, fault)| matches!(fault, Fault::Crash { .. })) {
            pending[0].1 = Fault::crash(prng);
        }
        pending.sort_by_key(|(after, _)| std::cmp::Reverse(*after));
        Plan { pending, done: 0 }
    }

    /// The next fault that is due after `operations`.
    pub(super) fn next(&mut self, operations: u64) -> Option<Fault> {
        let (_, fault) = self.pending.pop_if(|(after, _)| *after <= operations)?;
        self.done += 1;
        Some(fault)
    }
}

impl Fault {
    fn draw(prng: &mut Prng) -> Fault {
        match prng.weighted(&[30, 30, 12, 15, 8, 5]) {
            0 => Fault::crash(prng),
            1 => {
                let for_us = if prng.percent(10) { 1_500_000 } else { 60_000 };
                Fault::Stall { shard: prng.any(), for_us: prng.between(1_000, for_us) }
            }
            2 => Fault::SlowDisk { for_us: prng.between(10_000, 200_000) },
            3 => Fault::Break { connection: prng.any() },
            4 => Fault::FullDisk { for_us: prng.between(10_000, 300_000) },
            _ => Fault::FailedSync,
        }
    }

    fn crash(prng: &mut Prng) -> Fault {
        Fault::Crash { down_us: prng.between(100, 50_000) }
    }
}
