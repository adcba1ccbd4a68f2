//! The znodes that one shard owns.

use super::acl_list::{AclList, AclRef, AclTable};
use super::history::{Before, History, NodeView};
use super::node::{Node, NodeStat};
use super::node_store::NodeStore;
use super::{ShardMap, path};
use crate::base::{SessionId, ShardId, Zxid};
use ahash::AHashMap;
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

/// What prep needs to know of a znode.
#[derive(Clone, Debug)]
pub struct NodeImage {
    /// Its stored stat.
    pub stat: NodeStat,
    /// Length of its data; 0 for null.
    pub data_length: i32,
    /// How many children it has.
    pub num_children: i32,
    /// Its access control list.
    pub acl: Arc<AclList>,
}

/// One shard's part of the tree.
///
/// It changes by applying committed results only. Every `apply` method sets what the transaction says, whatever was there
/// before: replaying older results over newer records converges (rule C3). A method that needs a record which is not there
/// returns false; below the end of a fuzzy snapshot that is expected, above it is corruption (rule C4), and only the caller
/// knows which.
#[derive(Debug)]
pub struct DataTree {
    nodes: NodeStore,
    acls: AclTable,
    history: History,
    ephemerals: AHashMap<SessionId, HashSet<Box<str>, ahash::RandomState>>,
    data_bytes: u64,
    loading: Loading,
}

/// What is kept while a snapshot is loaded.
#[derive(Debug, Default)]
struct Loading {
    /// Slots of nodes whose children, loaded in any order, are still to be sorted.
    unsorted: Vec<u32>,
    /// The parent of the last child and its slot: mostly also that of the next.
    parent: Option<(Box<str>, u32)>,
}

impl DataTree {
    /// The part of a fresh tree that `shard` owns: `/`, `/zookeeper`, `/zookeeper/quota`, `/zookeeper/config`.
    pub fn new(shard: ShardId, map: &ShardMap, seed: u64) -> DataTree {
        let mut tree = DataTree::empty(seed);
        let config_acl = tree.acls.intern(Arc::new(AclList::read_only()));
        let plain = NodeStat::default();
        let built_in = [
            ("/", AclTable::OPEN, plain),
            (path::RESERVED, AclTable::OPEN, plain),
            (path::QUOTA, AclTable::OPEN, plain),
            (path::CONFIG, config_acl, NodeStat { aversion: -1, ..plain }),
        ];
        for (node_path, acl, stat) in built_in.into_iter().filter(|(node_path, ..)| map.owner(node_path) == shard) {
            tree.insert(Node::new(node_path, Some(b""), acl, &stat));
        }
        for (parent, name) in [("/", "zookeeper"), (path::RESERVED, "quota"), (path::RESERVED, "config")] {
            if let Some(node) = tree.nodes.get_mut(parent) {
                node.extra_mut().children.insert(name);
            }
        }
        tree
    }

    /// A tree without any node: what a snapshot is loaded into.
    pub fn empty(seed: u64) -> DataTree {
        DataTree {
            nodes: NodeStore::new(seed),
            acls: AclTable::new(),
            history: History::default(),
            ephemerals: AHashMap::default(),
            data_bytes: 0,
            loading: Loading::default(),
        }
    }

    /// The access control lists that the nodes refer to.
    pub fn acls(&self) -> &AclTable {
        &self.acls
    }

    /// Makes a list known to this shard.
    pub fn intern_acl(&mut self, list: Arc<AclList>) -> AclRef {
        self.acls.intern(list)
    }

    /// Number of nodes here.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// True when no node is here.
    pub fn is_empty(&self) -> bool {
        self.nodes.len() == 0
    }

    /// Bytes of paths and data held here.
    pub fn data_bytes(&self) -> u64 {
        self.data_bytes
    }

    /// Number of ephemeral nodes here.
    pub fn ephemerals_count(&self) -> usize {
        self.ephemerals.values().map(HashSet::len).sum()
    }

    /// Number of changes that can still be undone.
    pub fn history_len(&self) -> usize {
        self.history.len()
    }

    /// The node now.
    pub fn get(&self, node_path: &str) -> Option<&Node> {
        self.nodes.get(node_path)
    }

    /// The node as it was at `position`, which must not be below `floor`.
    pub fn view(&self, node_path: &str, position: Zxid) -> Option<NodeView<'_>> {
        self.history.view(node_path, self.nodes.get(node_path), position)
    }

    /// What prep needs to know of the node now.
    pub fn image(&self, node_path: &str) -> Option<NodeImage> {
        let node = self.nodes.get(node_path)?;
        Some(NodeImage {
            stat: node.stat(),
            data_length: node.data().map_or(0, |data| data.len() as i32),
            num_children: node.num_children() as i32,
            acl: self.acls.get(node.acl()).clone(),
        })
    }

    /// The ephemeral nodes of `session` here, sorted.
    pub fn ephemerals(&self, session: SessionId) -> BTreeSet<&str> {
        self.ephemerals.get(&session).into_iter().flatten().map(|node_path| &**node_path).collect()
    }

    /// From now on keeps how to undo changes, or not: replay, and a server with one shard, never read in the past. Nothing is
    /// kept at the start.
    pub fn keep_history(&mut self, keeping: bool) {
        self.history.set_keeping(keeping);
    }

    /// A server with one shard reads in the past only while a long read is under way: how to undo changes above `position`, which
    /// is where the tree is, is kept from now on.
    pub fn keep_history_above(&mut self, position: Zxid) {
        self.history.keep_above(position);
    }

    /// Forgets how to undo changes up to `floor`; changes up to it are not kept at all.
    pub fn set_floor(&mut self, floor: Zxid) {
        self.history.set_floor(floor);
    }

    fn insert(&mut self, node: Node) -> Option<Node> {
        self.data_bytes += body_bytes(&node);
        let owner = node.ephemeral_owner();
        if owner != SessionId::NONE {
            self.ephemerals.entry(owner).or_default().insert(node.path().into());
        }
        let replaced = self.nodes.insert(node)?;
        self.forget(&replaced, owner);
        Some(replaced)
    }

    /// Takes a node that is gone out of the books; `new_owner` is who owns the path now.
    fn forget(&mut self, node: &Node, new_owner: SessionId) {
        self.data_bytes -= body_bytes(node);
        let owner = node.ephemeral_owner();
        if owner == SessionId::NONE || owner == new_owner {
            return;
        }
        if let Some(paths) = self.ephemerals.get_mut(&owner) {
            paths.remove(node.path());
            if paths.is_empty() {
                self.ephemerals.remove(&owner);
            }
        }
    }

    /// The node was created: the whole record is replaced, with no children.
    pub fn apply_create(&mut self, zxid: Zxid, node_path: &str, data: Option<&[u8]>, acl: AclRef, stat: &NodeStat) {
        let before = self.insert(Node::new(node_path, data, acl, stat));
        if self.history.wants(zxid) {
            let absent = || Before::Absent { path: node_path.into() };
            self.history.push(zxid, before.map_or_else(absent, Before::Node));
        }
    }

    /// The node was deleted, whatever its children set holds.
    pub fn apply_delete(&mut self, zxid: Zxid, node_path: &str) -> bool {
        let Some(node) = self.nodes.remove(node_path) else { return false };
        self.forget(&node, SessionId::NONE);
        if self.history.wants(zxid) {
            self.history.push(zxid, Before::Node(node));
        }
        true
    }

    /// The node's data was set; `stat` is its whole stat afterwards.
    pub fn apply_set_data(&mut self, zxid: Zxid, node_path: &str, data: Option<&[u8]>, stat: &NodeStat) -> bool {
        let Some(node) = self.nodes.get_mut(node_path) else { return false };
        let (old, new) = (node.data().map_or(0, <[u8]>::len), data.map_or(0, <[u8]>::len));
        self.data_bytes = self.data_bytes + new as u64 - old as u64;
        if self.history.wants(zxid) {
            // The long copy comes last: to move what was just written in parts, the CPU waits until all stores before it have
            // left its buffer, which after a copy into memory that is not in the cache took as long as the rest of applying.
            let before = Before::Data { body: node.body.take(), stat: node.stat() };
            node.set_stat(stat);
            self.history.push(zxid, before);
            node.body.fill(node_path, data);
        } else {
            node.set_stat(stat);
            node.body.set_data(data);
        }
        true
    }

    /// The node's access list was set.
    pub fn apply_set_acl(&mut self, zxid: Zxid, node_path: &str, acl: AclRef, aversion: i32) -> bool {
        let Some(node) = self.nodes.get_mut(node_path) else { return false };
        let (acl_before, aversion_before) = (node.acl(), node.stat().aversion);
        node.body.acl = acl;
        node.extra_mut().aversion = aversion;
        if self.history.wants(zxid) {
            let before = Before::Acl { path: node_path.into(), acl: acl_before, aversion: aversion_before };
            self.history.push(zxid, before);
        }
        true
    }

    /// A child was added to the node or removed from it; `cversion` is the stored value afterwards, and pzxid becomes `zxid`.
    pub fn apply_child(&mut self, zxid: Zxid, parent: &str, name: &str, added: bool, cversion: i32) -> bool {
        let Some(node) = self.nodes.get_mut(parent) else { return false };
        let extra = node.extra_mut();
        let cversion_before = std::mem::replace(&mut extra.cversion, cversion);
        let pzxid_before = std::mem::replace(&mut extra.pzxid, zxid);
        let changed = if added { extra.children.insert(name) } else { extra.children.remove(name) };
        if self.history.wants(zxid) {
            let (path, name) = (parent.into(), name.into());
            let before = Before::Child { path, name, added, cversion: cversion_before, pzxid: pzxid_before };
            self.history.push(zxid, before);
        }
        // A name that was there already is as it should be after replay.
        changed || added
    }

    /// Makes room for about `nodes` more nodes that are about to be loaded.
    pub fn reserve(&mut self, nodes: usize) {
        self.nodes.reserve(nodes);
    }

    /// Puts a node of a snapshot in its place, without history. A path may come twice: deleted and created again while the
    /// snapshot was written, it was met in two slots; the log then settles what it is.
    pub fn load(&mut self, node_path: &str, data: Option<&[u8]>, acl: AclRef, stat: &NodeStat) {
        let Some(replaced) = self.insert(Node::new(node_path, data, acl, stat)) else { return };
        // A child was loaded first, and made a place-holder of its parent.
        let children = replaced.extra.map(|extra| extra.children).filter(|children| !children.is_empty());
        if let (Some(children), Some(node)) = (children, self.nodes.get_mut(node_path)) {
            node.extra_mut().children = children;
        }
    }

    /// Makes `name` a child of `parent` while a snapshot is loaded, in whatever order the nodes come. [`DataTree::end_load`]
    /// must follow.
    pub fn load_child(&mut self, parent: &str, name: &str) {
        let slot = match &self.loading.parent {
            Some((path, slot)) if **path == *parent => *slot,
            _ => self.loaded_parent(parent),
        };
        let Some(node) = self.nodes.slot_mut(slot) else { return };
        let children = &mut node.extra_mut().children;
        if children.is_empty() {
            self.loading.unsorted.push(slot);
        }
        children.push(name);
    }

    /// The slot of a node whose child is loaded, perhaps before itself.
    fn loaded_parent(&mut self, parent: &str) -> u32 {
        let slot = self.nodes.find(parent).unwrap_or_else(|| {
            self.insert(Node::new(parent, None, AclTable::OPEN, &NodeStat::default()));
            self.nodes.find(parent).expect("the place-holder was put there")
        });
        self.loading.parent = Some((parent.into(), slot));
        slot
    }

    /// Everything of the snapshot was loaded.
    pub fn end_load(&mut self) {
        for slot in std::mem::take(&mut self.loading).unsorted {
            if let Some(node) = self.nodes.slot_mut(slot) {
                node.extra_mut().children.sort();
            }
        }
    }

    /// Number of slots a scan that starts now must visit. Nodes keep their slot for life, so every node that exists
    /// throughout the scan is met once (rule C5).
    pub fn scan_end(&self) -> usize {
        self.nodes.slots()
    }

    /// The node in a slot of the scan, if there is one now.
    pub fn scan_at(&self, slot: usize) -> Option<&Node> {
        self.nodes.at(slot)
    }
}

fn body_bytes(node: &Node) -> u64 {
    (node.body.path_bytes().len() + node.data().map_or(0, <[u8]>::len)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ops::ControlFlow;

    const OPEN: AclRef = AclTable::OPEN;

    fn tree() -> DataTree {
        DataTree::new(ShardId(0), &ShardMap::new(1, 7), 7)
    }

    fn created(zxid: u64) -> NodeStat {
        NodeStat::created(Zxid(zxid), zxid as i64, SessionId::NONE)
    }

    /// A fresh server shows the root with cversion -1 and /zookeeper with -2: clients compare with that.
    #[test]
    fn fresh_tree_has_zookeepers_odd_cversions() {
        let tree = tree();
        let client_cversion = |path| tree.image(path).map(|image| image.stat.to_wire(0, image.num_children).cversion);
        assert_eq!((client_cversion("/"), client_cversion("/zookeeper")), (Some(-1), Some(-2)));
        assert_eq!(tree.image("/zookeeper/config").unwrap().stat.aversion, -1);
        assert_eq!(tree.len(), 4);
    }

    /// A read at 11 arrives after 12..=15 were applied: it must see the node, its data and its children as of 11.
    #[test]
    fn view_undoes_every_kind_of_change() {
        let mut tree = tree();
        tree.keep_history(true);
        tree.apply_create(Zxid(10), "/a", Some(b"one"), OPEN, &created(10));
        assert!(tree.apply_child(Zxid(11), "/a", "x", true, 1));
        assert!(tree.apply_set_data(
            Zxid(12),
            "/a",
            Some(b"two"),
            &NodeStat { version: 1, mzxid: Zxid(12), ..created(10) }
        ));
        assert!(tree.apply_set_acl(Zxid(13), "/a", OPEN, 1));
        assert!(tree.apply_child(Zxid(14), "/a", "x", false, 1));
        assert!(tree.apply_delete(Zxid(15), "/a"));
        tree.apply_create(Zxid(16), "/a", None, OPEN, &created(16));

        let at = |zxid| tree.view("/a", Zxid(zxid));
        assert!(at(9).is_none() && at(15).is_none());
        let view = at(11).unwrap();
        assert_eq!((view.data(), view.num_children(), view.stat().aversion), (Some(&b"one"[..]), 1, 0));
        let mut names = Vec::new();
        let _ = view.try_for_each_child(None, |name| {
            names.push(name.to_owned());
            ControlFlow::Continue(())
        });
        assert_eq!(names, ["x"]);
        assert_eq!(view.stat().pzxid, Zxid(11));
        assert_eq!(at(12).unwrap().data(), Some(&b"two"[..]));
        assert_eq!((at(14).unwrap().num_children(), at(13).unwrap().num_children()), (0, 1));
        assert_eq!(at(16).unwrap().data(), None);
    }

    /// A long list is read in pieces, and the set changes between two of them: each name that was there at the position must come
    /// once, also one that is removed after it came, or added again, and no other.
    #[test]
    fn list_read_in_pieces_is_the_list_as_of_one_position() {
        let mut tree = tree();
        tree.keep_history_above(Zxid(9));
        tree.apply_create(Zxid(10), "/a", None, OPEN, &created(10));
        let name = |i: u64| format!("n{i:03}");
        assert!((0..200).all(|i| tree.apply_child(Zxid(11), "/a", &name(i), true, 1)));
        tree.set_floor(Zxid(11));
        let (mut names, mut zxid) = (Vec::<String>::new(), 12);
        loop {
            let before = names.len();
            let view = tree.view("/a", Zxid(11)).unwrap();
            assert_eq!(view.num_children(), 200);
            let after = names.last().cloned();
            let _ = view.try_for_each_child(after.as_deref(), |name| {
                names.push(name.to_owned());
                if names.len() < before + 7 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
            if names.len() == before {
                break;
            }
            // What has come, what comes next and what was never there change in turn.
            for i in [before as u64, before as u64 + 9, 500 + before as u64] {
                let added = i >= 200;
                tree.apply_child(Zxid(zxid), "/a", &name(i), added, 1);
                tree.apply_child(Zxid(zxid + 1), "/a", &name(i), !added && i % 2 == 0, 1);
                zxid += 2;
            }
        }
        assert_eq!(names, (0..200).map(name).collect::<Vec<_>>());
    }

    /// Keeping before-images below the floor would leak memory; keeping none at or above it would break reads.
    #[test]
    fn floor_forgets_exactly_what_no_read_can_ask_for() {
        let mut tree = tree();
        tree.keep_history(true);
        for zxid in 10..20 {
            tree.apply_create(Zxid(zxid), "/a", Some(&[zxid as u8]), OPEN, &created(zxid));
        }
        tree.set_floor(Zxid(14));
        assert_eq!(tree.history_len(), 5);
        assert_eq!(tree.view("/a", Zxid(14)).unwrap().data(), Some(&[14][..]));
        tree.keep_history(false);
        tree.apply_delete(Zxid(20), "/a");
        assert_eq!(tree.history_len(), 0);
    }

    /// Changes of many paths share a chain of the history: each view must undo those of its own path, and no other's.
    #[test]
    fn view_undoes_no_other_path() {
        let mut tree = tree();
        tree.keep_history(true);
        let path = |i: u64| format!("/n{i}");
        // Three changes a path, interleaved, more of them than there are chains.
        let paths = 3000;
        for round in 0..3 {
            for i in 0..paths {
                let zxid = 10 + round * paths + i;
                tree.apply_create(Zxid(zxid), &path(i), Some(&[round as u8]), OPEN, &created(zxid));
            }
        }
        tree.set_floor(Zxid(10 + paths / 2));
        for i in (0..paths).step_by(7) {
            let at = |zxid| tree.view(&path(i), Zxid(zxid)).and_then(|view| view.data().map(|data| data[0]));
            let middle = (i <= paths / 2).then_some(0);
            assert_eq!(at(10 + paths / 2), middle, "{i}");
            assert_eq!(
                [at(10 + paths + i), at(10 + 2 * paths + i - 1), at(10 + 2 * paths + i)],
                [Some(1), Some(1), Some(2)]
            );
        }
    }

    /// A snapshot may hold a path twice, and children before parents: the index of ephemerals must name the last owner only,
    /// or a session that is long gone keeps a lock in it.
    #[test]
    fn path_loaded_twice_has_one_owner_and_keeps_its_children() {
        let mut tree = DataTree::empty(7);
        let owned = |zxid, owner| NodeStat::created(Zxid(zxid), 0, SessionId(owner));
        tree.load("/e", Some(b"one"), OPEN, &owned(1, 5));
        tree.load("/e", Some(b"two!"), OPEN, &owned(3, 6));
        assert_eq!(tree.ephemerals(SessionId(5)).len(), 0);
        assert_eq!(tree.ephemerals(SessionId(6)).into_iter().collect::<Vec<_>>(), ["/e"]);
        tree.load_child("/p", "x");
        tree.load("/p", None, OPEN, &created(2));
        tree.load_child("/p", "y");
        tree.load("/p", None, OPEN, &created(2));
        tree.load_child("/p", "x");
        tree.end_load();
        assert_eq!((tree.image("/p").unwrap().num_children, tree.image("/p").unwrap().stat), (2, created(2)));
        assert_eq!((tree.len(), tree.data_bytes()), (2, 8));
    }

    /// The index of ephemerals is what closeSession deletes by: an entry too many deletes another session's node, one too few
    /// leaves a lock held for ever.
    #[test]
    fn ephemeral_index_follows_replacement_and_deletion() {
        let mut tree = tree();
        let owned = |zxid, owner| NodeStat::created(Zxid(zxid), 0, SessionId(owner));
        tree.apply_create(Zxid(1), "/e", None, OPEN, &owned(1, 5));
        tree.apply_create(Zxid(2), "/e", None, OPEN, &owned(2, 6));
        tree.apply_create(Zxid(3), "/f", None, OPEN, &owned(3, 5));
        assert_eq!(tree.ephemerals(SessionId(6)).into_iter().collect::<Vec<_>>(), ["/e"]);
        assert_eq!(tree.ephemerals(SessionId(5)).into_iter().collect::<Vec<_>>(), ["/f"]);
        tree.apply_delete(Zxid(4), "/f");
        tree.apply_create(Zxid(5), "/e", None, OPEN, &created(5));
        assert_eq!(tree.ephemerals_count(), 0);
    }
}
