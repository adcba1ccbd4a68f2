//! Access control lists in memory: interned per shard, named by content (rule B4).

use crate::protocol::jute::Output;
use crate::protocol::zookeeper::{Acl, AclVector, permission};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// The name of an ACL list: 128 bits of the SHA-256 of its entries in wire form. The same on every server, for ever.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct AclHash(pub u128);

impl fmt::Debug for AclHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// An ACL list: in the order in which it was given, without duplicates.
#[derive(Debug, PartialEq, Eq)]
pub struct AclList {
    hash: AclHash,
    entries: Vec<Acl>,
    entry_bytes: Vec<u8>,
    /// What `world:anyone` may do: the answer to nearly every check, without looking at identities.
    world_perms: i32,
}

impl AclList {
    /// The list of `entries`.
    pub fn new(entries: Vec<Acl>) -> AclList {
        let mut entry_bytes = Vec::new();
        AclVector::from_acls(&entries, &mut entry_bytes);
        let digest = Sha256::digest(&entry_bytes);
        let hash = AclHash(u128::from_be_bytes(digest[..16].try_into().expect("a SHA-256 has 32 bytes")));
        let world_perms = entries
            .iter()
            .filter(|acl| acl.id.scheme == "world" && acl.id.id == "anyone")
            .fold(0, |perms, acl| perms | acl.perms);
        AclList { hash, entries, entry_bytes, world_perms }
    }

    /// Everything to everybody.
    pub fn open() -> AclList {
        AclList::new(vec![Acl::open()])
    }

    /// Reading for everybody and nothing else: `/zookeeper/config`.
    pub fn read_only() -> AclList {
        AclList::new(vec![Acl { perms: permission::READ, ..Acl::open() }])
    }

    /// Its name.
    pub fn hash(&self) -> AclHash {
        self.hash
    }

    /// Its entries.
    pub fn entries(&self) -> &[Acl] {
        &self.entries
    }

    /// What everybody may do.
    pub fn world_perms(&self) -> i32 {
        self.world_perms
    }

    /// The entries in wire form, without their count: what transactions and snapshots carry.
    pub fn entry_bytes(&self) -> &[u8] {
        &self.entry_bytes
    }

    /// Appends the wire vector.
    pub fn encode(&self, out: &mut Output<'_>) {
        out.len(self.entries.len());
        out.raw(&self.entry_bytes);
    }
}

/// An interned list of one shard's [`AclTable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AclRef(u32);

/// The lists that one shard knows. Lists are never freed before the next start: their number is the number of *different*
/// lists ever used, which is small.
#[derive(Debug)]
pub struct AclTable {
    lists: Vec<Arc<AclList>>,
    by_hash: HashMap<AclHash, AclRef>,
}

impl AclTable {
    /// The list that [`AclRef`] 0 always names.
    pub const OPEN: AclRef = AclRef(0);

    /// A table that knows the open list.
    pub fn new() -> Self {
        let mut table = AclTable { lists: Vec::new(), by_hash: HashMap::new() };
        table.intern(Arc::new(AclList::open()));
        table
    }

    /// The reference of `list`, which is added when new.
    pub fn intern(&mut self, list: Arc<AclList>) -> AclRef {
        let next = AclRef(u32::try_from(self.lists.len()).expect("fewer than 2^32 different ACL lists"));
        let lists = &mut self.lists;
        *self.by_hash.entry(list.hash()).or_insert_with(|| {
            lists.push(list);
            next
        })
    }

    /// The reference of a list that is known by name.
    pub fn find(&self, hash: AclHash) -> Option<AclRef> {
        self.by_hash.get(&hash).copied()
    }

    /// The list behind a reference.
    pub fn get(&self, reference: AclRef) -> &Arc<AclList> {
        &self.lists[reference.0 as usize]
    }

    /// Every list.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<AclList>> {
        self.lists.iter()
    }
}

impl Default for AclTable {
    fn default() -> Self {
        Self::new()
    }
}
