//! The names of a node's children.

use super::hash_parts::{PARTS, part_of};
use ahash::RandomState;
use ecow::EcoString;
use hashbrown::HashTable;

/// A set of names. Up to `WHOLE_MAX` names it is one hash table; above, it is split by hash, so that growing never
/// moves more than a small part of a million names at once.
#[derive(Debug, Default)]
pub struct ChildSet {
    /// Names of up to 15 bytes need no allocation of their own.
    parts: Vec<HashTable<EcoString>>,
    len: usize,
}

/// Fixed: names come from clients, but a bucket of equal hashes costs its creator only, and a set must iterate alike in
/// every run of a simulation.
fn hash(name: &str) -> u64 {
    const HASHER: RandomState = RandomState::with_seeds(0x6368_696c, 0x6472_656e, 0x6e61_6d65, 0x7365_7421);
    HASHER.hash_one(name)
}

impl ChildSet {
    const WHOLE_MAX: usize = 4096;

    /// Number of names.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn part_of(&self, hash: u64) -> usize {
        if self.parts.len() == 1 { 0 } else { part_of(hash) }
    }

    /// True when `name` is in the set.
    pub fn contains(&self, name: &str) -> bool {
        let hash = hash(name);
        !self.parts.is_empty() && self.parts[self.part_of(hash)].find(hash, |other| other == name).is_some()
    }

    /// Adds `name`; false when it was there already.
    pub fn insert(&mut self, name: &str) -> bool {
        if self.parts.is_empty() {
            self.parts.push(HashTable::new());
        } else if self.parts.len() == 1 && self.len >= Self::WHOLE_MAX {
            self.split();
        }
        let name_hash = hash(name);
        let part = self.part_of(name_hash);
        let table = &mut self.parts[part];
        if table.find(name_hash, |other| other == name).is_some() {
            return false;
        }
        table.insert_unique(name_hash, name.into(), |other| hash(other));
        self.len += 1;
        true
    }

    /// Removes `name`; false when it was not there.
    pub fn remove(&mut self, name: &str) -> bool {
        let hash = hash(name);
        if self.parts.is_empty() {
            return false;
        }
        let part = self.part_of(hash);
        let Ok(entry) = self.parts[part].find_entry(hash, |other| other == name) else { return false };
        entry.remove();
        self.len -= 1;
        if self.len == 0 {
            self.parts = Vec::new();
        }
        true
    }

    fn split(&mut self) {
        let whole = std::mem::take(&mut self.parts);
        self.parts.resize_with(PARTS, HashTable::new);
        for name in whole.into_iter().flatten() {
            let name_hash = hash(&name);
            let part = self.part_of(name_hash);
            self.parts[part].insert_unique(name_hash, name, |other| hash(other));
        }
    }

    /// The names, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().flatten().map(EcoString::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// The set changes its shape twice while it grows; no name may get lost or doubled on the way, up or down.
    #[test]
    fn names_survive_the_split() {
        let mut set = ChildSet::default();
        let names: Vec<String> = (0..10_000).map(|i| format!("n{i:010}")).collect();
        for name in &names {
            assert!(set.insert(name));
            assert!(!set.insert(name));
        }
        assert_eq!(set.iter().collect::<BTreeSet<_>>(), names.iter().map(String::as_str).collect());
        for (i, name) in names.iter().enumerate() {
            assert!(set.contains(name));
            assert!(set.remove(name) && !set.remove(name));
            assert_eq!(set.len(), names.len() - i - 1);
        }
        assert!(set.insert("again") && set.contains("again"));
    }
}
