//! What goes wrong in a run, and when: drawn from a stream of its own, and spread over the clients' operations.

use crate::base::prng::Prng;

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The server is killed and started again later.
    Kill {
        /// How long it is down.
        down_us: u64,
        /// The machine loses power while the server is down: what was not synced may be gone.
        then_power_loss: bool,
    },
    /// The machine loses power, and the server is started again later.
    PowerLoss {
        /// How long it is down.
        down_us: u64,
    },
    /// The server is told to stop, and started again later.
    Stop {
        /// How long it is down.
        down_us: u64,
    },
    /// An executor does not turn.
    Stall {
        /// Picks the executor.
        executor: u64,
        /// For how long.
        for_us: u64,
    },
    /// The disk is slow.
    SlowDisk {
        /// For how long.
        for_us: u64,
    },
    /// The disk is full.
    FullDisk {
        /// For how long.
        for_us: u64,
    },
    /// The next sync fails: the server ends, and is started again later.
    FailedSync,
    /// A connection breaks under both ends.
    Break {
        /// Picks the client.
        client: u64,
    },
    /// What a client and the server send to each other waits, in one direction or both.
    Cut {
        /// Picks the client.
        client: u64,
        /// Towards the server.
        up: bool,
        /// Towards the client.
        down: bool,
        /// For how long.
        for_us: u64,
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
        // Every run proves durability: in at least one fault the machine loses power.
        if !pending.iter().any(|(_, fault)| fault.loses_power()) {
            pending[0].1 = Fault::PowerLoss { down_us: Fault::down_us(prng) };
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
        match prng.weighted(&[14, 14, 6, 26, 12, 8, 5, 10, 8]) {
            0 => Fault::Kill { down_us: Fault::down_us(prng), then_power_loss: prng.percent(40) },
            1 => Fault::PowerLoss { down_us: Fault::down_us(prng) },
            2 => Fault::Stop { down_us: Fault::down_us(prng) },
            3 => {
                let for_us = if prng.percent(10) { 1_500_000 } else { 60_000 };
                Fault::Stall { executor: prng.any(), for_us: prng.between(1_000, for_us) }
            }
            4 => Fault::SlowDisk { for_us: prng.between(10_000, 200_000) },
            5 => Fault::FullDisk { for_us: prng.between(10_000, 300_000) },
            6 => Fault::FailedSync,
            7 => Fault::Break { client: prng.any() },
            _ => {
                let directions = prng.between(1, 3);
                let (up, down) = (directions & 1 != 0, directions & 2 != 0);
                Fault::Cut { client: prng.any(), up, down, for_us: prng.between(1_000, 400_000) }
            }
        }
    }

    fn down_us(prng: &mut Prng) -> u64 {
        prng.between(100, 50_000)
    }

    fn loses_power(self) -> bool {
        matches!(self, Fault::PowerLoss { .. } | Fault::Kill { then_power_loss: true, .. })
    }
}
