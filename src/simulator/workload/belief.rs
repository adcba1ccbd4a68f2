//! Which watches a client believes it has: what it sends with setWatches after a reconnect, as ZooKeeper's clients do.

use crate::protocol::zookeeper::{AddWatchMode, EventType, Request, SetWatches, StringVector, WatcherType, xid};
use std::collections::BTreeSet;

/// The watches that a client believes to be armed.
#[derive(Clone, Debug, Default)]
pub(super) struct Belief {
    data: BTreeSet<String>,
    exist: BTreeSet<String>,
    child: BTreeSet<String>,
    persistent: BTreeSet<String>,
    recursive: BTreeSet<String>,
}

const NO_NODE: i32 = -101;

impl Belief {
    /// A reply with `error` to `request` arrived.
    pub(super) fn on_reply(&mut self, request: &Request<'_>, error: i32) {
        let path = |path: &&str| (*path).to_owned();
        match request {
            Request::Exists { path: at, watch: true } if error == 0 => drop(self.data.insert(path(at))),
            Request::Exists { path: at, watch: true } if error == NO_NODE => drop(self.exist.insert(path(at))),
            Request::GetData { path: at, watch: true } if error == 0 => drop(self.data.insert(path(at))),
            Request::GetChildren { path: at, watch: true, .. } if error == 0 => drop(self.child.insert(path(at))),
            Request::AddWatch { path: at, mode } if error == 0 => drop(match mode {
                AddWatchMode::Persistent => self.persistent.insert(path(at)),
                AddWatchMode::PersistentRecursive => self.recursive.insert(path(at)),
            }),
            Request::RemoveWatches { path, kind } if error == 0 => self.remove(path, *kind),
            _ => {}
        }
    }

    fn remove(&mut self, path: &str, kind: WatcherType) {
        let any = kind == WatcherType::Any;
        if any || kind == WatcherType::Data {
            self.data.remove(path);
            self.exist.remove(path);
        }
        if any || kind == WatcherType::Children {
            self.child.remove(path);
        }
        if any || kind == WatcherType::Persistent {
            self.persistent.remove(path);
        }
        if any || kind == WatcherType::PersistentRecursive {
            self.recursive.remove(path);
        }
    }

    /// A notification arrived: watches that fire once are used up.
    pub(super) fn on_event(&mut self, kind: EventType, path: &str) {
        if kind != EventType::NodeChildrenChanged {
            self.data.remove(path);
            self.exist.remove(path);
        }
        if matches!(kind, EventType::NodeDeleted | EventType::NodeChildrenChanged) {
            self.child.remove(path);
        }
    }

    /// The frame that brings the watches along; `None` when there is none.
    pub(super) fn set_watches_frame(&self, relative_zxid: i64) -> Option<Vec<u8>> {
        let tables = [&self.data, &self.exist, &self.child, &self.persistent, &self.recursive];
        if tables.iter().all(|table| table.is_empty()) {
            return None;
        }
        let mut scratch: [Vec<u8>; 5] = Default::default();
        let mut lists = scratch
            .iter_mut()
            .zip(tables)
            .map(|(scratch, table)| StringVector::from_strings(table.iter().map(String::as_str), scratch));
        let mut next = || lists.next().unwrap_or_default();
        let watches = SetWatches {
            relative_zxid,
            data: next(),
            exist: next(),
            child: next(),
            persistent: next(),
            persistent_recursive: next(),
        };
        let mut frame = Vec::new();
        Request::SetWatches(Box::new(watches)).encode_frame(xid::SET_WATCHES, &mut frame);
        Some(frame)
    }
}
