//! The changes of the one request that prep is validating.

use crate::coordination::tree::NodeImage;
use ahash::AHashMap;
use std::rc::Rc;

/// Changes up to this many are looked through one by one; most requests make one or two.
const LINEAR_MAX: usize = 8;

/// Records as the request leaves them so far, over the outstanding ones: `None` for a deleted one. At most one entry a path.
#[derive(Debug, Default)]
pub struct OwnChanges {
    entries: Vec<(Rc<str>, Option<NodeImage>)>,
    /// Places in `entries`, once there are more than [`LINEAR_MAX`].
    index: AHashMap<Rc<str>, usize>,
}

impl OwnChanges {
    /// What the request made of the record at `path`, if it changed it.
    pub fn get(&self, path: &str) -> Option<&Option<NodeImage>> {
        Some(&self.entries[self.place(path)?].1)
    }

    fn place(&self, path: &str) -> Option<usize> {
        if self.entries.len() <= LINEAR_MAX {
            return self.entries.iter().position(|(known, _)| &**known == path);
        }
        self.index.get(path).copied()
    }

    /// The request leaves the record at `path` so.
    pub fn put(&mut self, path: &str, image: Option<NodeImage>) {
        if let Some(place) = self.place(path) {
            self.entries[place].1 = image;
            return;
        }
        self.entries.push((Rc::from(path), image));
        if self.entries.len() > LINEAR_MAX {
            // All of them the first time, then the new one.
            let indexed = self.index.len();
            let new = self.entries.iter().enumerate().skip(indexed);
            self.index.extend(new.map(|(place, (path, _))| (path.clone(), place)));
        }
    }

    /// Takes one change out, the path that was changed first last. Nothing is looked for any more until all of them are out.
    pub fn pop(&mut self) -> Option<(Rc<str>, Option<NodeImage>)> {
        if !self.index.is_empty() {
            // A large index is the trace of one large request.
            self.index = AHashMap::default();
        }
        self.entries.pop()
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.index = AHashMap::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordination::tree::{AclList, NodeStat};
    use std::sync::Arc;

    /// A multi of many parts must find its own earlier changes, also those from before the index was made.
    #[test]
    fn last_change_of_a_path_is_found_however_many_there_are() {
        let image = |version| {
            let stat = NodeStat { version, ..NodeStat::default() };
            Some(NodeImage { stat, data_length: 0, num_children: 0, acl: Arc::new(AclList::read_only()) })
        };
        let version = |found: Option<&Option<NodeImage>>| found.map(|image| image.as_ref().map(|it| it.stat.version));
        let mut own = OwnChanges::default();
        for count in [1, LINEAR_MAX, LINEAR_MAX + 1, 3 * LINEAR_MAX] {
            for round in 0..2 {
                (0..count).for_each(|i| own.put(&format!("/{i}"), image(10 * round + i as i32)));
            }
            own.put("/0", None);
            for i in 1..count {
                assert_eq!(version(own.get(&format!("/{i}"))), Some(Some(10 + i as i32)), "{count}");
            }
            assert_eq!((version(own.get("/0")), version(own.get("/x"))), (Some(None), None));
            let popped: Vec<_> = std::iter::from_fn(|| own.pop()).map(|(path, _)| path.to_string()).collect();
            assert_eq!(popped, (0..count).rev().map(|i| format!("/{i}")).collect::<Vec<_>>());
            assert!(own.get("/0").is_none());
        }
    }
}
