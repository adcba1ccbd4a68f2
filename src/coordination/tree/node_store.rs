//! Where a shard keeps its nodes: slots for the records, hash tables from path to slot.

use super::hash_parts::{PARTS, part_of, shares};
use super::node::Node;
use ahash::RandomState;
use hashbrown::HashTable;

/// Nodes by path.
///
/// A node stays in its slot for life, and new ones take free slots or new ones at the end: so a scan by slot meets every
/// node that existed throughout (rule C5), however the tables grow. Slots are allocated in chunks and the path table is
/// split by hash, so that growing never moves more than a small part.
#[derive(Debug)]
pub(super) struct NodeStore {
    chunks: Vec<Vec<Option<Node>>>,
    free: Vec<u32>,
    index: Vec<HashTable<u32>>,
    len: usize,
    hasher: RandomState,
}

impl NodeStore {
    const CHUNK_SLOTS: usize = 1024;

    pub(super) fn new(seed: u64) -> Self {
        let mut index = Vec::new();
        index.resize_with(PARTS, HashTable::new);
        NodeStore {
            chunks: Vec::new(),
            free: Vec::new(),
            index,
            len: 0,
            hasher: RandomState::with_seeds(seed, 0x6e6f_6465, !seed, 0x7374_6f72),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Makes room for `nodes` more in the tables: growing them one by one goes over all paths again and again.
    pub(super) fn reserve(&mut self, nodes: usize) {
        let (chunks, hasher) = (&self.chunks, &self.hasher);
        for (part, share) in self.index.iter_mut().zip(shares(nodes)) {
            part.reserve(share, |&slot| Self::hash_at(chunks, hasher, slot));
        }
    }

    fn hash_of(hasher: &RandomState, path: &[u8]) -> u64 {
        hasher.hash_one(path)
    }

    /// The hash of a node that is in an index.
    fn hash_at(chunks: &[Vec<Option<Node>>], hasher: &RandomState, slot: u32) -> u64 {
        let node = &chunks[slot as usize / Self::CHUNK_SLOTS][slot as usize % Self::CHUNK_SLOTS];
        Self::hash_of(hasher, node.as_ref().expect("an indexed slot is taken").body.path_bytes())
    }

    fn slot(&self, slot: u32) -> &Option<Node> {
        &self.chunks[slot as usize / Self::CHUNK_SLOTS][slot as usize % Self::CHUNK_SLOTS]
    }

    pub(super) fn slot_mut(&mut self, slot: u32) -> &mut Option<Node> {
        &mut self.chunks[slot as usize / Self::CHUNK_SLOTS][slot as usize % Self::CHUNK_SLOTS]
    }

    fn node_is_of(chunks: &[Vec<Option<Node>>], slot: u32, path: &[u8]) -> bool {
        chunks[slot as usize / Self::CHUNK_SLOTS][slot as usize % Self::CHUNK_SLOTS]
            .as_ref()
            .is_some_and(|node| node.body.path_bytes() == path)
    }

    /// The slot of the node at `path`, which is its own for life.
    pub(super) fn find(&self, path: &str) -> Option<u32> {
        let hash = Self::hash_of(&self.hasher, path.as_bytes());
        self.index[part_of(hash)].find(hash, |&slot| Self::node_is_of(&self.chunks, slot, path.as_bytes())).copied()
    }

    pub(super) fn get(&self, path: &str) -> Option<&Node> {
        self.slot(self.find(path)?).as_ref()
    }

    pub(super) fn get_mut(&mut self, path: &str) -> Option<&mut Node> {
        let slot = self.find(path)?;
        self.slot_mut(slot).as_mut()
    }

    /// Puts `node` in the place of one with its path, which is returned, or in a new one.
    pub(super) fn insert(&mut self, node: Node) -> Option<Node> {
        let path = node.body.path_bytes();
        let hash = Self::hash_of(&self.hasher, path);
        let part = part_of(hash);
        let known = self.index[part].find(hash, |&slot| Self::node_is_of(&self.chunks, slot, path)).copied();
        if let Some(slot) = known {
            return self.slot_mut(slot).replace(node);
        }
        let slot = self.free_slot();
        *self.slot_mut(slot) = Some(node);
        self.len += 1;
        let (chunks, hasher) = (&self.chunks, &self.hasher);
        self.index[part].insert_unique(hash, slot, |&other| Self::hash_at(chunks, hasher, other));
        None
    }

    fn free_slot(&mut self) -> u32 {
        if let Some(slot) = self.free.pop() {
            return slot;
        }
        if self.chunks.last().is_none_or(|chunk| chunk.len() == Self::CHUNK_SLOTS) {
            self.chunks.push(Vec::with_capacity(Self::CHUNK_SLOTS));
        }
        let chunk = self.chunks.len() - 1;
        self.chunks[chunk].push(None);
        u32::try_from(chunk * Self::CHUNK_SLOTS + self.chunks[chunk].len() - 1).expect("fewer than 2^32 znodes a shard")
    }

    pub(super) fn remove(&mut self, path: &str) -> Option<Node> {
        let hash = Self::hash_of(&self.hasher, path.as_bytes());
        let chunks = &self.chunks;
        let entry =
            self.index[part_of(hash)].find_entry(hash, |&slot| Self::node_is_of(chunks, slot, path.as_bytes())).ok()?;
        let (slot, _) = entry.remove();
        self.free.push(slot);
        self.len -= 1;
        self.slot_mut(slot).take()
    }

    /// Number of slots, taken or free: the end of a scan that starts now.
    pub(super) fn slots(&self) -> usize {
        self.chunks.last().map_or(0, |last| (self.chunks.len() - 1) * Self::CHUNK_SLOTS + last.len())
    }

    /// The node in `slot`, if there is one.
    pub(super) fn at(&self, slot: usize) -> Option<&Node> {
        self.chunks.get(slot / Self::CHUNK_SLOTS)?.get(slot % Self::CHUNK_SLOTS)?.as_ref()
    }
}
