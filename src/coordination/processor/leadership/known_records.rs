//! The records that the sequencer knows without asking anybody: prep's overlay over what the owners say.
//!
//! A record is **outstanding** from the proposal that changes the record until every answer of the record's owner includes
//! the change. From then on the record is only **remembered**. A remembered record stays true, since every change goes
//! through the sequencer: prep need not ask the owner, perhaps another shard, for a record that is used again and again.
//! Remembered records have a bound in bytes. Outstanding records must stay, and admission bounds them.
//!
//! Invariants:
//! - Rule B1: for every request that is still to be validated, its lookups' answers overlaid with this are the records after the
//!   last proposal.
//! - Every entry, outstanding or remembered, is the record after the last proposal.

use crate::base::{SessionId, Zxid, coverage, planted};
use crate::coordination::tree::NodeImage;
use ahash::{AHashMap, RandomState};
use hashbrown::HashTable;
use slab::Slab;
use std::cell::Cell;
use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;

/// What a remembered record is taken to cost beside its path, bytes.
const RECORD_BYTES: usize = 208;

#[derive(Debug)]
struct Entry {
    path: Rc<str>,
    /// The record after the last proposal; `None` when it does not exist.
    image: Option<NodeImage>,
    /// The last proposal that changed it, while that is outstanding.
    outstanding: Option<Zxid>,
    /// Has its place in `remembered`.
    queued: bool,
    /// Asked for since it was last spared.
    used: Cell<bool>,
}

/// Names an entry for as long as it is outstanding or in `remembered`.
type Slot = u32;

/// See the module documentation.
#[derive(Debug)]
pub struct KnownRecords {
    entries: Slab<Entry>,
    by_path: HashTable<Slot>,
    hasher: RandomState,
    /// Outstanding changes in the order of the proposals.
    order: VecDeque<(Zxid, Slot)>,
    outstanding: usize,
    /// Candidates for being forgotten, longest remembered first; each entry is in it at most once.
    remembered: VecDeque<Slot>,
    /// Cost of `remembered`.
    remembered_bytes: usize,
    remembered_bytes_max: usize,
    /// Ephemeral nodes that outstanding proposals created, by owner; some may be deleted again.
    created_ephemerals: AHashMap<SessionId, BTreeSet<Rc<str>>>,
}

impl KnownRecords {
    /// Knows nothing yet, and will remember about `remembered_bytes_max` beyond what is outstanding.
    pub fn new(remembered_bytes_max: usize) -> KnownRecords {
        KnownRecords {
            entries: Slab::new(),
            by_path: HashTable::new(),
            hasher: RandomState::new(),
            order: VecDeque::new(),
            outstanding: 0,
            remembered: VecDeque::new(),
            remembered_bytes: 0,
            remembered_bytes_max,
            created_ephemerals: AHashMap::default(),
        }
    }

    fn find(&self, path: &str) -> Option<Slot> {
        let is_it = |slot: &Slot| *self.entries[*slot as usize].path == *path;
        self.by_path.find(self.hasher.hash_one(path), is_it).copied()
    }

    /// Adds an entry that is not there yet.
    fn insert(&mut self, path: Rc<str>, image: Option<NodeImage>) -> Slot {
        let hash = self.hasher.hash_one(&*path);
        let entry = Entry { path, image, outstanding: None, queued: false, used: Cell::new(false) };
        let slot = Slot::try_from(self.entries.insert(entry)).expect("admission bounds what is outstanding");
        let (entries, hasher) = (&self.entries, &self.hasher);
        self.by_path.insert_unique(hash, slot, |other| hasher.hash_one(&*entries[*other as usize].path));
        slot
    }

    /// The record at `path` after the last proposal, if it is known: `Some(None)` when it does not exist.
    pub fn get(&self, path: &str) -> Option<Option<&NodeImage>> {
        let entry = &self.entries[self.find(path)? as usize];
        if entry.outstanding.is_none() {
            coverage::mark("record-remembered");
        }
        entry.used.set(true);
        Some(entry.image.as_ref())
    }

    /// True when the owner of the record at `path` need not be asked now. It may be forgotten later, if it is not outstanding.
    pub fn contains(&self, path: &str) -> bool {
        self.find(path).is_some()
    }

    /// Proposal `zxid` left the record at `path` so.
    pub fn put(&mut self, zxid: Zxid, path: Rc<str>, image: Option<NodeImage>) {
        let owner = owner_of(image.as_ref());
        let (slot, before) = match self.find(&path) {
            Some(slot) => (slot, std::mem::replace(&mut self.entries[slot as usize].image, image)),
            None => (self.insert(path.clone(), image), None),
        };
        self.order.push_back((zxid, slot));
        let was_outstanding = self.entries[slot as usize].outstanding.replace(zxid).is_some();
        self.outstanding += usize::from(!was_outstanding);
        self.forget_ephemeral(&path, owner_of(before.as_ref()));
        if owner != SessionId::NONE {
            self.created_ephemerals.entry(owner).or_default().insert(path);
        }
    }

    /// The owner answered that the record at `path` is `image`. That is the record after the last proposal, unless the
    /// record is known already: then the known one stays.
    pub fn learn(&mut self, path: &str, image: Option<&NodeImage>) {
        if self.remembered_bytes_max == 0 {
            return;
        }
        match self.find(path) {
            None => {
                let slot = self.insert(path.into(), image.cloned());
                self.remember(slot);
            }
            Some(slot) if planted::is("b1-answer-over-change") => self.entries[slot as usize].image = image.cloned(),
            Some(_) => {}
        }
    }

    fn forget_ephemeral(&mut self, path: &str, owner: SessionId) {
        if owner == SessionId::NONE {
            return;
        }
        if let Some(paths) = self.created_ephemerals.get_mut(&owner) {
            paths.remove(path);
            if paths.is_empty() {
                self.created_ephemerals.remove(&owner);
            }
        }
    }

    /// Ephemeral nodes of `session` that outstanding proposals created; each must still be looked at.
    pub fn created_ephemerals(&self, session: SessionId) -> impl Iterator<Item = &str> {
        self.created_ephemerals.get(&session).into_iter().flatten().map(|path| &**path)
    }

    /// Changes up to `zxid` stop being outstanding, unless a later proposal changed the record again. The caller vouches for
    /// this: requests that are still to be validated hold no answer from before the batch with `zxid` was handed to the
    /// owner.
    pub fn settle_up_to(&mut self, zxid: Zxid) {
        while let Some((changed, slot)) = self.order.pop_front_if(|(changed, _)| *changed <= zxid) {
            let entry = &mut self.entries[slot as usize];
            if entry.outstanding != Some(changed) {
                continue;
            }
            entry.outstanding = None;
            self.outstanding -= 1;
            let owner = owner_of(entry.image.as_ref());
            if owner != SessionId::NONE {
                let path = entry.path.clone();
                self.forget_ephemeral(&path, owner);
            }
            self.remember(slot);
        }
    }

    /// An entry may be forgotten from now on, when others need its room.
    fn remember(&mut self, slot: Slot) {
        let entry = &mut self.entries[slot as usize];
        if !std::mem::replace(&mut entry.queued, true) {
            self.remembered_bytes += cost_bytes(&entry.path);
            self.remembered.push_back(slot);
        }
        while self.remembered_bytes > self.remembered_bytes_max {
            let Some(oldest) = self.remembered.pop_front() else { return };
            self.spare_or_forget(oldest);
        }
    }

    /// Forgets the oldest candidate. It is spared when it was asked for since it was last spared, and kept when it is
    /// outstanding again.
    fn spare_or_forget(&mut self, slot: Slot) {
        let entry = &mut self.entries[slot as usize];
        if entry.outstanding.is_none() && entry.used.take() && self.remembered_bytes_max > 0 {
            self.remembered.push_back(slot);
            return;
        }
        self.remembered_bytes -= cost_bytes(&entry.path);
        entry.queued = false;
        if entry.outstanding.is_none() {
            let entry = self.entries.remove(slot as usize);
            let hash = self.hasher.hash_one(&*entry.path);
            if let Ok(place) = self.by_path.find_entry(hash, |other| *other == slot) {
                place.remove();
            }
        }
    }

    /// Number of records that outstanding proposals changed.
    #[cfg(test)]
    fn outstanding_len(&self) -> usize {
        self.outstanding
    }

    /// Number of records known.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.entries.len()
    }
}

fn cost_bytes(path: &str) -> usize {
    RECORD_BYTES + path.len()
}

fn owner_of(image: Option<&NodeImage>) -> SessionId {
    image.map_or(SessionId::NONE, |image| image.stat.ephemeral_owner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordination::tree::{AclList, NodeStat};
    use std::sync::Arc;

    fn image(version: i32) -> NodeImage {
        let stat = NodeStat { version, ..NodeStat::default() };
        NodeImage { stat, data_length: 0, num_children: 0, acl: Arc::new(AclList::read_only()) }
    }

    /// Whoever writes to ever new paths must not make the server remember them all, nor push out what is asked for all the time,
    /// nor make it forget what is outstanding: that would be rule B1 broken.
    #[test]
    fn what_is_remembered_is_bounded_and_what_is_outstanding_stays() {
        let mut known = KnownRecords::new(100 * (RECORD_BYTES + 8));
        known.learn("/hot", Some(&image(7)));
        known.put(Zxid(1), "/outstanding".into(), Some(image(8)));
        for number in 2..10_000 {
            known.put(Zxid(number), format!("/{number}").into(), Some(image(number as i32)));
            assert_eq!(known.get("/hot").map(|found| found.map(|it| it.stat.version)), Some(Some(7)), "at {number}");
            known.put(Zxid(number), "/outstanding".into(), None);
            known.settle_up_to(Zxid(number - 1));
            assert_eq!(known.outstanding_len(), 2);
            assert!(known.len() <= 106, "{} at {number}", known.len());
            assert_eq!(known.get("/outstanding").map(|found| found.is_none()), Some(true));
        }
        assert!(known.contains("/9999") && !known.contains("/2"));
    }

    /// A record that is changed again and again must not be counted again each time it settles: the bound would shrink.
    #[test]
    fn record_that_settles_again_keeps_its_one_place() {
        let mut known = KnownRecords::new(10 * (RECORD_BYTES + 8));
        known.learn("/other", None);
        for number in 1..1000 {
            known.put(Zxid(number), "/same".into(), Some(image(number as i32)));
            known.settle_up_to(Zxid(number));
        }
        assert_eq!((known.len(), known.remembered.len()), (2, 2));
        assert_eq!(known.remembered_bytes, "/same/other".len() + 2 * RECORD_BYTES);
    }
}
