//! What has been proposed and is not yet in every answer of the owners: prep's overlay.

use crate::base::{SessionId, Zxid};
use crate::coordination::tree::NodeImage;
use ahash::AHashMap;
use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;

#[derive(Debug)]
struct Entry {
    /// The last proposal that changed the record.
    zxid: Zxid,
    /// The record after it; `None` when it was deleted.
    image: Option<NodeImage>,
}

/// The records as the outstanding proposals leave them.
///
/// Invariant (rule B1): for every request that is still to be validated, its lookups' answers overlaid with this are the
/// records after the last proposal. So an entry stays until its change is in every answer that can still be used: see
/// [`Outstanding::drop_up_to`].
#[derive(Debug, Default)]
pub struct Outstanding {
    entries: AHashMap<Rc<str>, Entry>,
    order: VecDeque<(Zxid, Rc<str>)>,
    /// Ephemeral nodes that outstanding proposals created, by owner; some may be deleted again.
    created_ephemerals: AHashMap<SessionId, BTreeSet<Rc<str>>>,
}

impl Outstanding {
    /// The record at `path`, if an outstanding proposal changed it: `Some(None)` when it was deleted.
    pub fn get(&self, path: &str) -> Option<Option<&NodeImage>> {
        self.entries.get(path).map(|entry| entry.image.as_ref())
    }

    /// True when a proposal above `zxid` changed the record at `path`: its entry stays until that was handed over.
    pub fn is_changed_after(&self, path: &str, zxid: Zxid) -> bool {
        self.entries.get(path).is_some_and(|entry| entry.zxid > zxid)
    }

    /// Proposal `zxid` left the record at `path` so.
    pub fn put(&mut self, zxid: Zxid, path: Rc<str>, image: Option<NodeImage>) {
        let owner = owner_of(image.as_ref());
        self.order.push_back((zxid, path.clone()));
        let before = self.entries.insert(path.clone(), Entry { zxid, image });
        self.forget_ephemeral(&path, before.map_or(SessionId::NONE, |entry| owner_of(entry.image.as_ref())));
        if owner != SessionId::NONE {
            self.created_ephemerals.entry(owner).or_default().insert(path);
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

    /// Forgets what proposals up to `zxid` changed and later ones did not. The caller vouches that every lookup that a
    /// request still to be validated relies on was sent after the batch with `zxid` had been handed to the owner.
    pub fn drop_up_to(&mut self, zxid: Zxid) {
        while let Some((changed, path)) = self.order.pop_front_if(|(changed, _)| *changed <= zxid) {
            if self.entries.get(&path).is_none_or(|entry| entry.zxid != changed) {
                continue;
            }
            if let Some(entry) = self.entries.remove(&path) {
                self.forget_ephemeral(&path, owner_of(entry.image.as_ref()));
            }
        }
    }

    /// Number of records held.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True when none is held.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

fn owner_of(image: Option<&NodeImage>) -> SessionId {
    image.map_or(SessionId::NONE, |image| image.stat.ephemeral_owner)
}
