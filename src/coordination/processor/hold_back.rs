//! When clients are held back (rule D1): nobody waits in a send, so whoever brings more than can be carried is not read for a while.

use crate::base::Zxid;

/// Bounds of what waits inside a server.
#[derive(Clone, Copy, Debug)]
pub struct HoldBackLimits {
    /// Memory of requests and proposals that were not handed to the shards, bytes.
    pub held_bytes_max: usize,
    /// Memory of what was handed over and the slowest shard has not applied, bytes.
    pub unapplied_bytes_max: usize,
    /// Transactions that the slowest shard may lie behind.
    pub lag_max: u64,
    /// Messages for one shard that its channel had no room for.
    pub pending_messages_max: usize,
}

/// What waits.
#[derive(Clone, Copy, Debug, Default)]
pub struct Load {
    /// See [`HoldBackLimits::held_bytes_max`].
    pub held_bytes: usize,
    /// See [`HoldBackLimits::unapplied_bytes_max`].
    pub unapplied_bytes: usize,
    /// The last transaction handed over.
    pub handed: Zxid,
    /// The last transaction that every shard has applied.
    pub slowest: Zxid,
    /// See [`HoldBackLimits::pending_messages_max`]; of the shard with most of them.
    pub pending_messages: usize,
}

/// See the module documentation.
#[derive(Debug)]
pub struct HoldBack {
    limits: HoldBackLimits,
    held_back: bool,
}

/// What is to be told to the shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldBackChange {
    /// Read no sockets.
    Hold,
    /// Read them again.
    Resume,
}

impl HoldBack {
    /// Nobody is held back yet.
    pub fn new(limits: HoldBackLimits) -> HoldBack {
        HoldBack { limits, held_back: false }
    }

    /// True while clients are held back.
    pub fn is_held_back(&self) -> bool {
        self.held_back
    }

    /// Decides anew. Clients come back when everything has fallen to half of its bound: a server at its bound would otherwise stop
    /// and start them with every batch.
    pub fn decide(&mut self, load: &Load) -> Option<HoldBackChange> {
        let divisor = if self.held_back { 2 } else { 1 };
        let HoldBackLimits { held_bytes_max, unapplied_bytes_max, lag_max, pending_messages_max } = self.limits;
        // Across the end of an epoch the difference of two zxids does not count transactions. Such a lag is over soon, and
        // is not looked at.
        let same_epoch = load.handed.epoch() == load.slowest.epoch();
        let lag = if same_epoch { load.handed.0.saturating_sub(load.slowest.0) } else { 0 };
        let hold = load.held_bytes > held_bytes_max / divisor
            || load.unapplied_bytes > unapplied_bytes_max / divisor
            || lag > lag_max / divisor as u64
            || load.pending_messages > pending_messages_max / divisor;
        let changed = std::mem::replace(&mut self.held_back, hold) != hold;
        changed.then_some(if hold { HoldBackChange::Hold } else { HoldBackChange::Resume })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HoldBackLimits =
        HoldBackLimits { held_bytes_max: 1000, unapplied_bytes_max: 1000, lag_max: 1000, pending_messages_max: 1000 };

    fn loads(amount: usize) -> [Load; 4] {
        let slowest = Zxid::new(3, 7);
        let idle = Load { handed: slowest, slowest, ..Load::default() };
        [
            Load { held_bytes: amount, ..idle },
            Load { unapplied_bytes: amount, ..idle },
            Load { handed: Zxid(slowest.0 + amount as u64), ..idle },
            Load { pending_messages: amount, ..idle },
        ]
    }

    /// A few megabytes a batch for a shard that stands still counted nowhere: every kind of waiting must hold clients back, and
    /// release them when it has gone down, not at the bound itself.
    #[test]
    fn every_bound_holds_clients_back_and_lets_them_go() {
        for kind in 0..4 {
            let mut hold_back = HoldBack::new(LIMITS);
            let steps = [(1000, None), (1001, Some(HoldBackChange::Hold)), (999, None), (501, None)];
            for (amount, expected) in steps {
                assert_eq!(hold_back.decide(&loads(amount)[kind]), expected, "kind {kind} at {amount}");
            }
            assert_eq!(hold_back.decide(&loads(500)[kind]), Some(HoldBackChange::Resume), "kind {kind}");
            assert!(!hold_back.is_held_back());
        }
    }

    /// The first transactions of a new epoch are four billion numbers behind the last of the one before.
    #[test]
    fn new_epoch_is_no_lag() {
        let mut hold_back = HoldBack::new(LIMITS);
        let load = Load { handed: Zxid::new(4, 1), slowest: Zxid::new(3, 9), ..Load::default() };
        assert_eq!(hold_back.decide(&load), None);
    }
}
