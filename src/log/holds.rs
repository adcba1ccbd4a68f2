//! Who still reads the log, and from where: what is held is neither removed nor recycled.

use super::position::Position;
use std::collections::BTreeMap;

/// Names one hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HoldId(u64);

/// The holds on a log.
#[derive(Debug, Default)]
pub struct Holds {
    held: BTreeMap<HoldId, Position>,
    next: u64,
}

impl Holds {
    /// Holds what is above `after`.
    pub fn hold(&mut self, after: Position) -> HoldId {
        let id = HoldId(self.next);
        self.next += 1;
        self.held.insert(id, after);
        id
    }

    /// The holder needs only what is above `after`.
    pub fn advance(&mut self, id: HoldId, after: Position) {
        if let Some(held) = self.held.get_mut(&id) {
            *held = after.max(*held);
        }
    }

    /// The holder needs nothing more.
    pub fn release(&mut self, id: HoldId) {
        self.held.remove(&id);
    }

    /// Up to where the log may be purged, if `below` is wanted: records below it may go.
    pub fn purge_limit(&self, below: Position) -> Position {
        let held = self.held.values().min().map(|after| Position(after.0.saturating_add(1)));
        held.map_or(below, |held| held.min(below))
    }
}
