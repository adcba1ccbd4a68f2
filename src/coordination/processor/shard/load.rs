//! Taking over a snapshot at start, before anything is applied or served.
//!
//! Order of the calls: [`Shard::begin_load`], then for every record of every part the `load_` method of its kind (an access
//! list before the nodes that name it), then [`Shard::end_load`]. A snapshot that turns out to be broken in the middle is
//! given up with another [`Shard::begin_load`], or with [`Shard::start_empty`].

use super::Shard;
use crate::base::{ConnectionId, SessionId, Zxid};
use crate::coordination::session::{Session, SessionTable};
use crate::coordination::tree::{AclHash, AclList, AclRef, DataTree, NodeStat, path};
use std::sync::Arc;

/// Room is made ahead for so many nodes only, whatever a snapshot says.
const NODES_RESERVED_MAX: u64 = 1 << 26;

impl Shard {
    /// Forgets the tree and the sessions: those of a snapshot of about `nodes` nodes follow, the built-in nodes among them.
    pub fn begin_load(&mut self, nodes: u64) {
        self.tree = DataTree::empty(self.config.boot);
        self.tree.reserve(nodes.min(NODES_RESERVED_MAX) as usize / usize::from(self.config.map.shards()));
        self.sessions = SessionTable::default();
    }

    /// There is no snapshot after all: the tree is the fresh one.
    pub fn start_empty(&mut self) {
        self.tree = DataTree::new(self.config.id, &self.config.map, self.config.boot);
        self.sessions = SessionTable::default();
        self.forget_history();
    }

    /// Every shard knows every list (rule B4).
    pub fn load_acl(&mut self, list: Arc<AclList>) -> AclRef {
        self.tree.intern_acl(list)
    }

    /// A list that was loaded, by its content hash.
    pub fn find_acl(&self, hash: u128) -> Option<AclRef> {
        self.tree.acls().find(AclHash(hash))
    }

    /// Every shard knows every session. No connection of this life has it.
    pub fn load_session(&mut self, id: SessionId, timeout_ms: u32) {
        self.sessions.put(id, Session { timeout_ms, connection: ConnectionId::NONE });
    }

    /// Takes of a node what belongs here: the node itself, its name in the parent's children, both or nothing.
    pub fn load_node(&mut self, node_path: &str, data: Option<&[u8]>, acl: AclRef, stat: &NodeStat) {
        if self.owns(node_path) {
            self.tree.load(node_path, data, acl, stat);
        }
        if let Some((parent, name)) =
            path::split(node_path).filter(|(parent, name)| !name.is_empty() && self.owns(parent))
        {
            self.tree.load_child(parent, name);
        }
    }

    /// The snapshot is complete: transactions above `start` follow, and nothing is served below `end` (rule C3).
    pub fn end_load(&mut self, start: Zxid, end: Zxid) {
        self.tree.end_load();
        self.applied = start;
        self.serve_from = end;
        self.forget_history();
    }
}
