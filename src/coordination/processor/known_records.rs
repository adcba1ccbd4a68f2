//! The records that the sequencer knows without asking anybody: prep's overlay over what the owners say.
//!
//! A record is **outstanding** from the proposal that changes it until no answer of its owner can be older than the change. Then it
//! is only **remembered**: since every change goes through here, it stays true until the next one, and prep need not ask the owner
//! (which may be another shard) for a record that is written or looked up again and again. What is remembered is bounded;
//! what is outstanding must stay, and is bounded by admission.
//!
//! Invariants:
//! - Rule B1: for every request that is still to be validated, its lookups' answers overlaid with this are the records after the
//!   last proposal.
//! - Every entry, outstanding or remembered, is the record after the last proposal.

use crate::base::{SessionId, Zxid, coverage, planted};
use crate::coordination::tree::NodeImage;
use ahash::AHashMap;
use std::cell::Cell;
use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;

/// What a remembered record is taken to cost beside its path, bytes.
const RECORD_BYTES: usize = 256;

#[derive(Debug)]
struct Entry {
    /// The record after the last proposal; `None` when it does not exist.
    image: Option<NodeImage>,
    /// The last proposal that changed it, while that is outstanding.
    outstanding: Option<Zxid>,
    /// Has its place in `remembered`.
    queued: bool,
    /// Asked for since it was last spared.
    used: Cell<bool>,
}

/// See the module documentation.
#[derive(Debug)]
pub struct KnownRecords {
    entries: AHashMap<Rc<str>, Entry>,
    /// Outstanding changes in the order of the proposals.
    order: VecDeque<(Zxid, Rc<str>)>,
    outstanding: usize,
    /// Candidates for being forgotten, longest remembered first; each entry is in it at most once.
    remembered: VecDeque<Rc<str>>,
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
            entries: AHashMap::default(),
            order: VecDeque::new(),
            outstanding: 0,
            remembered: VecDeque::new(),
            remembered_bytes: 0,
            remembered_bytes_max,
            created_ephemerals: AHashMap::default(),
        }
    }

    /// The record at `path` after the last proposal, if it is known: `Some(None)` when it does not exist.
    pub fn get(&self, path: &str) -> Option<Option<&NodeImage>> {
        let entry = self.entries.get(path)?;
        if entry.outstanding.is_none() {
            coverage::mark("record-remembered");
        }
        entry.used.set(true);
        Some(entry.image.as_ref())
    }

    /// True when the owner of the record at `path` need not be asked now. It may be forgotten later, if it is not outstanding.
    pub fn contains(&self, path: &str) -> bool {
        self.entries.contains_key(path)
    }

    /// Proposal `zxid` left the record at `path` so.
    pub fn put(&mut self, zxid: Zxid, path: Rc<str>, image: Option<NodeImage>) {
        let owner = owner_of(image.as_ref());
        self.order.push_back((zxid, path.clone()));
        let entry = Entry { image, outstanding: Some(zxid), queued: false, used: Cell::new(false) };
        let before = match self.entries.get_mut(&path) {
            Some(known) => {
                Some(std::mem::replace(known, Entry { queued: known.queued, used: known.used.clone(), ..entry }))
            }
            None => self.entries.insert(path.clone(), entry),
        };
        self.outstanding += usize::from(before.as_ref().is_none_or(|entry| entry.outstanding.is_none()));
        self.forget_ephemeral(&path, before.map_or(SessionId::NONE, |entry| owner_of(entry.image.as_ref())));
        if owner != SessionId::NONE {
            self.created_ephemerals.entry(owner).or_default().insert(path);
        }
    }

    /// The owner of the record at `path` was asked, and this is what it is after the last proposal, unless it is known already.
    pub fn learn(&mut self, path: &str, image: Option<&NodeImage>) {
        let known = self.entries.contains_key(path) && !planted::is("b1-answer-over-change");
        if known || self.remembered_bytes_max == 0 {
            return;
        }
        let path = Rc::from(path);
        let entry = Entry { image: image.cloned(), outstanding: None, queued: false, used: Cell::new(false) };
        self.entries.insert(Rc::clone(&path), entry);
        self.remember(path);
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

    /// What proposals up to `zxid` changed and later ones did not is no longer outstanding. The caller vouches that every lookup
    /// that a request still to be validated relies on was sent after the batch with `zxid` had been handed to the owner.
    pub fn settle_up_to(&mut self, zxid: Zxid) {
        while let Some((changed, path)) = self.order.pop_front_if(|(changed, _)| *changed <= zxid) {
            let Some(entry) = self.entries.get_mut(&path).filter(|entry| entry.outstanding == Some(changed)) else {
                continue;
            };
            entry.outstanding = None;
            self.outstanding -= 1;
            let owner = owner_of(entry.image.as_ref());
            self.forget_ephemeral(&path, owner);
            self.remember(path);
        }
    }

    /// The entry at `path` may be forgotten from now on, when others need its room.
    fn remember(&mut self, path: Rc<str>) {
        let Some(entry) = self.entries.get_mut(&path) else { return };
        if !std::mem::replace(&mut entry.queued, true) {
            self.remembered_bytes += cost_bytes(&path);
            self.remembered.push_back(path);
        }
        while self.remembered_bytes > self.remembered_bytes_max {
            let Some(path) = self.remembered.pop_front() else { return };
            self.remembered_bytes -= cost_bytes(&path);
            self.spare_or_forget(path);
        }
    }

    /// The oldest candidate: forgotten, unless it was asked for since it was last spared, or has become outstanding again.
    fn spare_or_forget(&mut self, path: Rc<str>) {
        let Some(entry) = self.entries.get_mut(&path) else { return };
        if entry.outstanding.is_some() {
            entry.queued = false;
        } else if entry.used.take() && self.remembered_bytes_max > 0 {
            self.remembered_bytes += cost_bytes(&path);
            self.remembered.push_back(path);
        } else {
            self.entries.remove(&path);
        }
    }

    /// Number of records that outstanding proposals changed.
    pub fn outstanding_len(&self) -> usize {
        self.outstanding
    }

    /// Number of records known.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True when none is known.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
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
            assert!(known.len() <= 103, "{} at {number}", known.len());
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
