//! Before-images: what the changes of the last few transactions replaced.
//!
//! A read is answered as of its position `s`, which may be a little behind what this shard has applied (ORDERING.md
//! section 1). The history holds, for every change above `floor`, the means to undo it: a whole node, a body, an access list,
//! or for a children set the one name added or removed. `floor` only grows, and the window is as short as the slowest shard's
//! lag; with one shard it is always empty.

use super::acl_list::AclRef;
use super::child_set::ChildSet;
use super::node::{Body, Node, NodeStat};
use crate::base::Zxid;
use ahash::AHashMap;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

/// How to undo one change of one record.
#[derive(Debug)]
pub(super) enum Before {
    /// It was created where nothing was.
    Absent,
    /// It was deleted, or replaced by a create.
    Node(Node),
    /// Its data was set.
    Data { body: Body, stat: NodeStat },
    /// Its access list was set.
    Acl { acl: AclRef, aversion: i32 },
    /// A name was added to its children, or removed.
    Child { name: Box<str>, added: bool, cversion: i32, pzxid: Zxid },
}

#[derive(Debug)]
struct Change {
    zxid: Zxid,
    before: Before,
}

/// The changes above `floor`, per path and in order.
#[derive(Debug, Default)]
pub(super) struct History {
    /// False when no read ever asks for the past: one shard, or replay.
    keeping: bool,
    floor: Zxid,
    by_path: AHashMap<Rc<str>, VecDeque<Change>>,
    order: VecDeque<(Zxid, Rc<str>)>,
}

impl History {
    /// True when a change at `zxid` must be kept.
    pub(super) fn wants(&self, zxid: Zxid) -> bool {
        self.keeping && zxid > self.floor
    }

    /// Keeps changes from now on, or forgets them all.
    pub(super) fn set_keeping(&mut self, keeping: bool) {
        self.keeping = keeping;
        self.by_path.clear();
        self.order.clear();
    }

    /// Keeps how to undo the change that `zxid` made to `path`.
    pub(super) fn push(&mut self, zxid: Zxid, path: &str, before: Before) {
        let key = match self.by_path.get_key_value(path) {
            Some((key, _)) => key.clone(),
            None => Rc::from(path),
        };
        self.by_path.entry(key.clone()).or_default().push_back(Change { zxid, before });
        self.order.push_back((zxid, key));
    }

    /// No read will ask for a position below `floor` again.
    pub(super) fn set_floor(&mut self, floor: Zxid) {
        self.floor = self.floor.max(floor);
        while let Some((_, path)) = self.order.pop_front_if(|(zxid, _)| *zxid <= self.floor) {
            if let Some(changes) = self.by_path.get_mut(&*path) {
                changes.pop_front();
                if changes.is_empty() {
                    self.by_path.remove(&*path);
                }
            }
        }
    }

    /// Number of changes kept.
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    /// `current`, the record of `path` now, as it was at `position`.
    pub(super) fn view<'a>(&'a self, path: &str, current: Option<&'a Node>, position: Zxid) -> Option<NodeView<'a>> {
        debug_assert!(!self.keeping || position >= self.floor, "a read at {position} below the floor {}", self.floor);
        let mut view = current.map(NodeView::of);
        if self.order.back().is_none_or(|(newest, _)| *newest <= position) {
            return view;
        }
        for change in self.by_path.get(path).into_iter().flatten().rev().take_while(|change| change.zxid > position) {
            crate::base::coverage::mark("before-image-read");
            view = NodeView::undo(view, &change.before);
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
            acl: node.acl,
            body: &node.body,
            children: node.children(),
            undone: BTreeMap::new(),
        }
    }

    fn undo(view: Option<Self>, before: &'a Before) -> Option<Self> {
        match before {
            Before::Absent => None,
            Before::Node(node) => Some(NodeView::of(node)),
            Before::Data { body, stat } => view.map(|view| NodeView { body, stat: *stat, ..view }),
            Before::Acl { acl, aversion } => {
                view.map(|view| NodeView { acl: *acl, stat: NodeStat { aversion: *aversion, ..view.stat }, ..view })
            }
            Before::Child { name, added, cversion, pzxid } => view.map(|mut view| {
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

    /// Its children's names, in no particular order.
    pub fn children(&self) -> impl Iterator<Item = &str> {
        let now = self.children.into_iter().flat_map(ChildSet::iter);
        let kept = now.filter(|name| self.undone.get(name).is_none_or(|present| *present));
        let added = self.undone.iter().filter(|(name, present)| **present && !self.is_child_now(name));
        kept.chain(added.map(|(name, _)| *name))
    }
}
