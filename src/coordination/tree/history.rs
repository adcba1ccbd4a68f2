//! Before-images: what the changes of the last few transactions replaced.
//!
//! A read is answered as of its position `s`, which may be a little behind what this shard has applied
//! (docs/ordering.md, window reads). The history holds, for every change above `floor`, the means to undo it: a whole node, a body, an access list,
//! or for a children set the one name added or removed. `floor` only grows, and the window is as short as the slowest shard's
//! lag; with one shard it is always empty.

use super::acl_list::AclRef;
use super::child_set::ChildSet;
use super::node::{Body, Node, NodeStat};
use crate::base::Zxid;
use ahash::RandomState;
use std::collections::{BTreeMap, VecDeque};
use std::ops::{Bound, ControlFlow};

/// How to undo one change of one record.
#[derive(Debug)]
pub(super) enum Before {
    /// It was created where nothing was.
    Absent { path: Box<str> },
    /// It was deleted, or replaced by a create.
    Node(Node),
    /// Its data was set.
    Data { body: Body, stat: NodeStat },
    /// Its access list was set.
    Acl { path: Box<str>, acl: AclRef, aversion: i32 },
    /// A name was added to its children, or removed.
    Child { path: Box<str>, name: Box<str>, added: bool, cversion: i32, pzxid: Zxid },
}

impl Before {
    /// Of which record.
    fn path_bytes(&self) -> &[u8] {
        match self {
            Before::Absent { path } | Before::Acl { path, .. } | Before::Child { path, .. } => path.as_bytes(),
            Before::Node(node) => node.body.path_bytes(),
            Before::Data { body, .. } => body.path_bytes(),
        }
    }
}

#[derive(Debug)]
struct Change {
    zxid: Zxid,
    path_hash: u64,
    /// Number of the change before it in the same chain; below [`History::first`] it is forgotten.
    older: u64,
    before: Before,
}

/// Chains that the changes are spread over. Few enough to stay in the first cache of a core, enough that a chain is short:
/// the window seldom holds more than some hundred changes.
const CHAINS: usize = 1024;

/// The changes above `floor` in order, in chains by the hash of the path.
#[derive(Debug)]
pub(super) struct History {
    /// False when no read ever asks for the past: one shard, or replay.
    keeping: bool,
    floor: Zxid,
    changes: VecDeque<Change>,
    /// Number of the first of `changes`; they are counted from 1.
    first: u64,
    /// Number of the newest change of each chain. What is below `first` is forgotten, and need not be taken out.
    newest: Vec<u64>,
    hasher: RandomState,
}

impl Default for History {
    fn default() -> History {
        History {
            keeping: false,
            floor: Zxid::ZERO,
            changes: VecDeque::new(),
            first: 1,
            newest: Vec::new(),
            hasher: RandomState::new(),
        }
    }
}

impl History {
    /// True when a change at `zxid` must be kept.
    pub(super) fn wants(&self, zxid: Zxid) -> bool {
        self.keeping && zxid > self.floor
    }

    /// Keeps changes from now on, or forgets them all.
    pub(super) fn set_keeping(&mut self, keeping: bool) {
        self.keeping = keeping;
        self.first += self.changes.len() as u64;
        self.changes.clear();
        self.newest.resize(CHAINS, 0);
    }

    /// Keeps changes above `position` from now on; there were none to keep before.
    pub(super) fn keep_above(&mut self, position: Zxid) {
        self.set_keeping(true);
        self.floor = position;
    }

    /// Keeps how to undo the change that `zxid` made.
    pub(super) fn push(&mut self, zxid: Zxid, before: Before) {
        let path_hash = self.hasher.hash_one(before.path_bytes());
        let number = self.first + self.changes.len() as u64;
        let older = std::mem::replace(&mut self.newest[path_hash as usize % CHAINS], number);
        self.changes.push_back(Change { zxid, path_hash, older, before });
    }

    /// No read will ask for a position below `floor` again.
    pub(super) fn set_floor(&mut self, floor: Zxid) {
        self.floor = self.floor.max(floor);
        while self.changes.pop_front_if(|change| change.zxid <= self.floor).is_some() {
            self.first += 1;
        }
    }

    /// Number of changes kept.
    pub(super) fn len(&self) -> usize {
        self.changes.len()
    }

    /// `current`, the record of `path` now, as it was at `position`.
    pub(super) fn view<'a>(&'a self, path: &str, current: Option<&'a Node>, position: Zxid) -> Option<NodeView<'a>> {
        debug_assert!(!self.keeping || position >= self.floor, "a read at {position} below the floor {}", self.floor);
        let mut view = current.map(NodeView::of);
        if self.changes.back().is_none_or(|newest| newest.zxid <= position) {
            return view;
        }
        let path_hash = self.hasher.hash_one(path.as_bytes());
        let mut number = self.newest[path_hash as usize % CHAINS];
        while number >= self.first {
            let change = &self.changes[(number - self.first) as usize];
            if change.zxid <= position {
                break;
            }
            if change.path_hash == path_hash && change.before.path_bytes() == path.as_bytes() {
                crate::base::coverage::mark("before-image-read");
                view = NodeView::undo(view, &change.before);
            }
            number = change.older;
        }
        view
    }
}

/// A znode as a read sees it: now, or a little earlier.
#[derive(Debug)]
pub struct NodeView<'a> {
    stat: NodeStat,
    acl: AclRef,
    body: &'a Body,
    children: Option<&'a ChildSet>,
    /// Names whose presence differs from what `children` says now.
    undone: BTreeMap<&'a str, bool>,
}

impl<'a> NodeView<'a> {
    fn of(node: &'a Node) -> Self {
        NodeView {
            stat: node.stat(),
            acl: node.acl(),
            body: &node.body,
            children: node.children(),
            undone: BTreeMap::new(),
        }
    }

    fn undo(view: Option<Self>, before: &'a Before) -> Option<Self> {
        match before {
            Before::Absent { .. } => None,
            Before::Node(node) => Some(NodeView::of(node)),
            Before::Data { body, stat } => view.map(|view| NodeView { body, stat: *stat, ..view }),
            Before::Acl { acl, aversion, .. } => {
                view.map(|view| NodeView { acl: *acl, stat: NodeStat { aversion: *aversion, ..view.stat }, ..view })
            }
            Before::Child { name, added, cversion, pzxid, .. } => view.map(|mut view| {
                // Newest first: the oldest change above the position has the last word.
                view.undone.insert(name, !added);
                NodeView { stat: NodeStat { cversion: *cversion, pzxid: *pzxid, ..view.stat }, ..view }
            }),
        }
    }

    /// Its stored stat.
    pub fn stat(&self) -> &NodeStat {
        &self.stat
    }

    /// Its access control list.
    pub fn acl(&self) -> AclRef {
        self.acl
    }

    /// Its data; null and empty differ.
    pub fn data(&self) -> Option<&'a [u8]> {
        self.body.data()
    }

    /// Length of its data; 0 for null.
    pub fn data_length(&self) -> i32 {
        self.data().map_or(0, |data| data.len() as i32)
    }

    fn is_child_now(&self, name: &str) -> bool {
        self.children.is_some_and(|children| children.contains(name))
    }

    /// How many children it has.
    pub fn num_children(&self) -> usize {
        let mut count = self.children.map_or(0, ChildSet::len);
        for (name, present) in &self.undone {
            match (self.is_child_now(name), present) {
                (false, true) => count += 1,
                (true, false) => count -= 1,
                _ => {}
            }
        }
        count
    }

    /// Calls `visit` with its children's names that come behind `after`, in order of their bytes, until it breaks.
    pub fn try_for_each_child(
        &self,
        after: Option<&str>,
        mut visit: impl FnMut(&str) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        // Those that were there and are no more have their places among the others.
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let gone = |(name, present): &(&&str, &bool)| **present && !self.is_child_now(name);
        let mut gone =
            self.undone.range::<str, _>((from, Bound::Unbounded)).filter(gone).map(|(name, _)| *name).peekable();
        if let Some(children) = self.children {
            children.try_for_each(after, |name| {
                while let Some(before) = gone.next_if(|gone| *gone < name) {
                    visit(before)?;
                }
                if self.undone.get(name).is_none_or(|present| *present) {
                    visit(name)
                } else {
                    ControlFlow::Continue(())
                }
            })?;
        }
        gone.try_for_each(visit)
    }
}
