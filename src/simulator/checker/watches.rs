//! The model's watches: what one connection has armed (as ZooKeeper 3.9 does in `WatchManager` and `DataTree.setWatches`).

use super::access;
use super::model::{Model, ModelEvent};
use crate::protocol::zookeeper::{AddWatchMode, ErrorCode, EventType, Id, SetWatches, WatcherType};
use std::collections::BTreeSet;

/// The watches of one connection. The three modes stand side by side on a path; equal registrations collapse.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ModelWatches {
    pub data: BTreeSet<String>,
    pub child: BTreeSet<String>,
    pub persistent: BTreeSet<String>,
    pub recursive: BTreeSet<String>,
}

impl ModelWatches {
    /// The event fires: registrations that fire once are used up. True when the connection sees it.
    pub fn fire(&mut self, event: &ModelEvent, identities: &[Id]) -> bool {
        use EventType::*;
        let path = event.path.as_str();
        let by_data = matches!(event.kind, NodeCreated | NodeDeleted | NodeDataChanged) && self.data.remove(path);
        let by_child = matches!(event.kind, NodeDeleted | NodeChildrenChanged) && self.child.remove(path);
        let by_persistent = self.persistent.contains(path);
        let by_recursive =
            event.kind != NodeChildrenChanged && self.recursive.iter().any(|above| is_at_or_below(path, above));
        let watched = by_data || by_child || by_persistent || by_recursive;
        watched && access::allows(&event.acl, crate::protocol::zookeeper::permission::READ, identities)
    }

    /// addWatch.
    pub fn add(&mut self, path: &str, mode: AddWatchMode) {
        match mode {
            AddWatchMode::Persistent => self.persistent.insert(path.to_owned()),
            AddWatchMode::PersistentRecursive => self.recursive.insert(path.to_owned()),
        };
    }

    fn holds(&self, path: &str, kind: WatcherType) -> bool {
        match kind {
            WatcherType::Children => self.child.contains(path),
            WatcherType::Data => self.data.contains(path),
            WatcherType::Persistent => self.persistent.contains(path),
            WatcherType::PersistentRecursive => self.recursive.contains(path),
            WatcherType::Any => {
                [&self.data, &self.child, &self.persistent, &self.recursive].iter().any(|table| table.contains(path))
            }
        }
    }

    /// checkWatches.
    pub fn check(&self, path: &str, kind: WatcherType) -> Result<(), ErrorCode> {
        if self.holds(path, kind) { Ok(()) } else { Err(ErrorCode::NoWatcher) }
    }

    /// removeWatches.
    pub fn remove(&mut self, path: &str, kind: WatcherType) -> Result<(), ErrorCode> {
        self.check(path, kind)?;
        if matches!(kind, WatcherType::Data | WatcherType::Any) {
            self.data.remove(path);
        }
        if matches!(kind, WatcherType::Children | WatcherType::Any) {
            self.child.remove(path);
        }
        if matches!(kind, WatcherType::Persistent | WatcherType::Any) {
            self.persistent.remove(path);
        }
        if matches!(kind, WatcherType::PersistentRecursive | WatcherType::Any) {
            self.recursive.remove(path);
        }
        Ok(())
    }

    /// setWatches against `model`: the events that catch up, in order; whatever has none is armed. No permission is needed.
    pub fn set(&mut self, model: &Model, watches: &SetWatches<'_>) -> Vec<(EventType, String)> {
        let mut events = Vec::new();
        for path in watches.data.iter() {
            match model.node(path) {
                None => events.push((EventType::NodeDeleted, path.to_owned())),
                Some(node) if node.mzxid > watches.relative_zxid => {
                    events.push((EventType::NodeDataChanged, path.to_owned()));
                }
                Some(_) => drop(self.data.insert(path.to_owned())),
            }
        }
        for path in watches.exist.iter() {
            match model.node(path) {
                Some(_) => events.push((EventType::NodeCreated, path.to_owned())),
                None => drop(self.data.insert(path.to_owned())),
            }
        }
        for path in watches.child.iter() {
            match model.node(path) {
                None => events.push((EventType::NodeDeleted, path.to_owned())),
                Some(node) if node.pzxid > watches.relative_zxid => {
                    events.push((EventType::NodeChildrenChanged, path.to_owned()));
                }
                Some(_) => drop(self.child.insert(path.to_owned())),
            }
        }
        self.persistent.extend(watches.persistent.iter().map(str::to_owned));
        self.recursive.extend(watches.persistent_recursive.iter().map(str::to_owned));
        events
    }
}

/// Ancestors are the paths before each slash and the root; a watch on the empty path, the root's alias, never fires.
fn is_at_or_below(path: &str, above: &str) -> bool {
    let is_prefix = !above.is_empty() && path.strip_prefix(above).is_some_and(|rest| rest.starts_with('/'));
    path == above || above == "/" || is_prefix
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: EventType, path: &str) -> ModelEvent {
        ModelEvent { kind, path: path.into(), acl: Vec::new() }
    }

    /// One deletion, watched for data and for children and for ever, is one event; afterwards only the last is armed.
    #[test]
    fn one_event_however_many_tables_match() {
        let mut watches = ModelWatches::default();
        watches.data.insert("/a".into());
        watches.child.insert("/a".into());
        watches.add("/", AddWatchMode::PersistentRecursive);
        assert!(watches.fire(&event(EventType::NodeDeleted, "/a"), &[]));
        assert!(watches.data.is_empty() && watches.child.is_empty());
        assert!(watches.fire(&event(EventType::NodeCreated, "/a"), &[]));
        assert!(!watches.fire(&event(EventType::NodeChildrenChanged, "/a"), &[]));
    }

    /// `/ab` is not below `/a`.
    #[test]
    fn recursive_watch_respects_component_borders() {
        let mut watches = ModelWatches::default();
        watches.add("/a", AddWatchMode::PersistentRecursive);
        assert!(!watches.fire(&event(EventType::NodeCreated, "/ab"), &[]));
        assert!(watches.fire(&event(EventType::NodeCreated, "/a/b/c"), &[]));
    }
}
