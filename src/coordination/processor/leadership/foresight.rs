//! Which records validation will need, so that a long request asks for many at once and not for one after the other.
//!
//! What is asked in vain costs a lookup and no more; what is not foreseen is asked for when validation misses it.

use super::prep::{is_sequential, sequential_path};
use crate::coordination::processor::message::LookupKey;
use crate::coordination::tree::path;
use crate::protocol::zookeeper::{Create, MultiOp, Request};
use ahash::AHashMap;

/// What is known before validation.
pub trait Known {
    /// True when the record at `path` must be asked for.
    fn is_missing(&self, path: &str) -> bool;

    /// The number that the next sequential child of the node at `path` gets, if that is known.
    fn next_sequence(&self, path: &str) -> Option<i32>;
}

/// Gathers the missing records of one operation after the other, as if every one of them succeeded.
pub struct Foresight<'k, 'a, K> {
    known: &'k K,
    /// The next sequence number of the nodes that the operations so far create, or create children of.
    sequences: AHashMap<&'a str, i32>,
    /// Some more than once.
    missing: Vec<Box<str>>,
}

impl<'k, 'a, K: Known> Foresight<'k, 'a, K> {
    /// Nothing gathered yet.
    pub fn new(known: &'k K) -> Self {
        Foresight { known, sequences: AHashMap::default(), missing: Vec::new() }
    }

    /// Number of records gathered, about.
    pub fn len(&self) -> usize {
        self.missing.len()
    }

    /// The record at `node_path` will be needed.
    pub fn path(&mut self, node_path: &str) {
        let key = path::canonical(node_path);
        // Neighbours mostly have one parent.
        let repeated = self.missing.iter().rev().take(2).any(|missing| **missing == *key);
        if !repeated && self.known.is_missing(key) {
            self.missing.push(key.into());
        }
    }

    /// The records at `node_path` and above it will be needed.
    pub fn path_and_parent(&mut self, node_path: &str) {
        path::parent(node_path).into_iter().for_each(|parent| self.path(parent));
        self.path(node_path);
    }

    /// An operation on its own comes next. A multi does not: its parts do.
    pub fn request(&mut self, request: &Request<'a>) {
        match request {
            Request::Create(create) => self.create(create),
            Request::Delete { path, .. } => self.path_and_parent(path),
            Request::SetData { path, .. } | Request::SetAcl { path, .. } => self.path(path),
            _ => {}
        }
    }

    /// A part of a multi comes next.
    pub fn part(&mut self, op: &MultiOp<'a>) {
        match op {
            MultiOp::Create(create) => self.create(create),
            MultiOp::Delete { path, .. } => self.path_and_parent(path),
            MultiOp::SetData { path, .. } | MultiOp::Check { path, .. } => self.path(path),
            MultiOp::GetData { .. } | MultiOp::GetChildren { .. } => {}
        }
    }

    fn create(&mut self, create: &Create<'a>) {
        let Some(parent) = path::parent(create.path) else { return };
        self.path(parent);
        let number = self.sequences.get(parent).copied().or_else(|| self.known.next_sequence(parent));
        if let Some(number) = number {
            self.sequences.insert(parent, number.wrapping_add(1));
        }
        if !is_sequential(create.flags) {
            self.path(create.path);
            self.sequences.insert(create.path, 0);
        } else if let Some(number) = number {
            self.path(&sequential_path(create.path, number));
        }
    }

    /// What is to be asked for, in an order that does not depend on a table's seed.
    pub fn into_keys(mut self) -> Vec<LookupKey> {
        self.missing.sort();
        self.missing.dedup();
        self.missing.into_iter().map(LookupKey::Node).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::zookeeper::{AclVector, CreateFlags};

    /// `/p` is known, and five children were created in it.
    struct OneParent;

    impl Known for OneParent {
        fn is_missing(&self, path: &str) -> bool {
            path != "/p"
        }

        fn next_sequence(&self, path: &str) -> Option<i32> {
            (path == "/p").then_some(5)
        }
    }

    /// The name of a sequential node is known to validation only: a multi of many of them made one lookup after the other.
    #[test]
    fn names_of_sequential_children_are_foreseen() {
        let mut scratch = Vec::new();
        let acl = AclVector::from_acls(&[], &mut scratch);
        let create =
            |path, flags| MultiOp::Create(Create { path, data: None, acl, flags, ttl_ms: None, with_stat: false });
        let sequential = CreateFlags::PERSISTENT_SEQUENTIAL;
        let mut foresight = Foresight::new(&OneParent);
        for op in [
            create("/p/a-", sequential),
            create("/p/x", CreateFlags::PERSISTENT),
            create("/p/b-", CreateFlags::EPHEMERAL_SEQUENTIAL),
            create("/p/x/c-", sequential),
            create("/p/x/c-", sequential),
            create("/unknown/d-", sequential),
            MultiOp::Check { path: "/p", version: 1 },
        ] {
            foresight.part(&op);
        }
        let expected = ["/p/a-0000000005", "/p/b-0000000007", "/p/x", "/p/x/c-0000000000", "/p/x/c-0000000001"];
        let keys = foresight.into_keys().into_iter().map(|key| match key {
            LookupKey::Node(path) => path.into_string(),
            other => panic!("{other:?}"),
        });
        assert_eq!(keys.collect::<Vec<_>>(), [&expected[..], &["/unknown"]].concat());
    }
}
