//! Who watches what.

use crate::protocol::zookeeper::{EventType, WatcherType};
use ahash::AHashMap;
use smallvec::SmallVec;
use std::collections::BTreeSet;
use std::rc::Rc;

use super::super::tree::path;

/// How a path is watched. The kinds coexist on one path (since 3.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WatchKind {
    /// By getData or exists; fires once.
    Data = 0,
    /// By getChildren; fires once.
    Child = 1,
    /// By addWatch; stays.
    Persistent = 2,
    /// By addWatch, with everything below; stays.
    PersistentRecursive = 3,
}

/// Names one registration attempt of a read that is not answered yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(pub u64);

/// The reads that a registration or an event hangs on.
pub type Tags = SmallVec<[Tag; 1]>;

#[derive(Debug)]
struct Registration {
    connection: u64,
    /// True when a read that was answered set it.
    confirmed: bool,
    tags: Tags,
}

/// An event for one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fired {
    /// Whom to tell.
    pub connection: u64,
    /// False when it hangs on reads that are not answered yet: then it must be dropped if all of them fail.
    pub confirmed: bool,
    /// Those reads.
    pub tags: Tags,
}

/// Sorted by connection: connections are numbered in the order of their arrival, so most registrations are appended.
type Registrations = Vec<Registration>;

/// The watches of all connections of one shard.
///
/// Invariant: `by_connection` lists exactly the registrations in `tables`.
#[derive(Debug, Default)]
pub struct WatchTable {
    tables: [AHashMap<Rc<str>, Registrations>; 4],
    by_connection: AHashMap<u64, BTreeSet<(WatchKind, Rc<str>)>>,
    /// Number of registrations of each kind.
    lens: [usize; 4],
}

impl WatchTable {
    /// Number of registrations.
    pub fn len(&self) -> usize {
        self.lens.iter().sum()
    }

    /// What ZooKeeper would count: it keeps a persistent watch that is not recursive with the data watches, and again with the child
    /// watches. (There, one connection's watches of several kinds on one node count as one in each of the two.)
    pub fn count_in_zookeeper(&self) -> usize {
        self.len() + self.lens[WatchKind::Persistent as usize]
    }

    /// True when nobody watches anything.
    pub fn is_empty(&self) -> bool {
        self.lens == [0; 4]
    }

    /// Registers `connection`; with a tag, tentatively. Doubles collapse.
    pub fn arm(&mut self, connection: u64, kind: WatchKind, node_path: &str, tag: Option<Tag>) {
        let table = &mut self.tables[kind as usize];
        let key = match table.get_key_value(node_path) {
            Some((key, _)) => key.clone(),
            None => Rc::from(node_path),
        };
        let list = table.entry(key.clone()).or_default();
        let registration = match list.binary_search_by_key(&connection, |r| r.connection) {
            Ok(place) => &mut list[place],
            Err(place) => {
                list.insert(place, Registration { connection, confirmed: false, tags: Tags::new() });
                self.by_connection.entry(connection).or_default().insert((kind, key));
                self.lens[kind as usize] += 1;
                &mut list[place]
            }
        };
        match tag {
            Some(tag) => registration.tags.push(tag),
            None => registration.confirmed = true,
        }
    }

    /// The read `tag` was answered: `keep` says whether its watch stays. False when the registration is gone: it fired, and
    /// its event hangs on the tag.
    pub fn settle(&mut self, connection: u64, kind: WatchKind, node_path: &str, tag: Tag, keep: bool) -> bool {
        let Some(list) = self.tables[kind as usize].get_mut(node_path) else { return false };
        let Ok(place) = list.binary_search_by_key(&connection, |r| r.connection) else { return false };
        let registration = &mut list[place];
        let Some(index) = registration.tags.iter().position(|other| *other == tag) else { return false };
        registration.tags.remove(index);
        registration.confirmed |= keep;
        if !registration.confirmed && registration.tags.is_empty() {
            self.remove(connection, kind, node_path);
        }
        true
    }

    fn remove(&mut self, connection: u64, kind: WatchKind, node_path: &str) -> Option<Registration> {
        let table = &mut self.tables[kind as usize];
        let list = table.get_mut(node_path)?;
        let place = list.binary_search_by_key(&connection, |r| r.connection).ok()?;
        let registration = list.remove(place);
        if list.is_empty() {
            table.remove(node_path);
        }
        self.unlist(connection, kind, node_path);
        Some(registration)
    }

    fn unlist(&mut self, connection: u64, kind: WatchKind, node_path: &str) {
        self.lens[kind as usize] -= 1;
        if let Some(paths) = self.by_connection.get_mut(&connection) {
            paths.remove(&(kind, Rc::from(node_path)));
            if paths.is_empty() {
                self.by_connection.remove(&connection);
            }
        }
    }

    fn kinds_of(kind: WatcherType) -> &'static [WatchKind] {
        match kind {
            WatcherType::Children => &[WatchKind::Child],
            WatcherType::Data => &[WatchKind::Data],
            WatcherType::Any => {
                &[WatchKind::Data, WatchKind::Child, WatchKind::Persistent, WatchKind::PersistentRecursive]
            }
            WatcherType::Persistent => &[WatchKind::Persistent],
            WatcherType::PersistentRecursive => &[WatchKind::PersistentRecursive],
        }
    }

    /// True when `connection` watches `node_path` in a way that `kind` means.
    pub fn contains(&self, connection: u64, node_path: &str, kind: WatcherType) -> bool {
        Self::kinds_of(kind).iter().any(|kind| {
            self.tables[*kind as usize]
                .get(node_path)
                .is_some_and(|list| list.binary_search_by_key(&connection, |r| r.connection).is_ok())
        })
    }

    /// Removes the registrations of `connection` on `node_path` that `kind` means. False when there was none.
    pub fn remove_kind(&mut self, connection: u64, node_path: &str, kind: WatcherType) -> bool {
        let mut removed = false;
        for kind in Self::kinds_of(kind) {
            removed |= self.remove(connection, *kind, node_path).is_some();
        }
        removed
    }

    /// The connection is gone, and its watches with it.
    pub fn remove_connection(&mut self, connection: u64) {
        for (kind, node_path) in self.by_connection.remove(&connection).unwrap_or_default() {
            let table = &mut self.tables[kind as usize];
            if let Some(list) = table.get_mut(&node_path) {
                if let Ok(place) = list.binary_search_by_key(&connection, |r| r.connection) {
                    list.remove(place);
                    self.lens[kind as usize] -= 1;
                }
                if list.is_empty() {
                    table.remove(&node_path);
                }
            }
        }
    }

    /// Whom `event` on `node_path` concerns: at most one entry a connection, in the order of the connections. Standard
    /// watches are consumed. NodeChildrenChanged concerns watches on the parent whose children changed, which is
    /// `node_path` here.
    pub fn fire(&mut self, event: EventType, node_path: &str, fired: &mut Vec<Fired>) {
        fired.clear();
        if self.is_empty() {
            return;
        }
        match event {
            EventType::NodeCreated | EventType::NodeDataChanged => self.consume(WatchKind::Data, node_path, fired),
            EventType::NodeDeleted => {
                self.consume(WatchKind::Data, node_path, fired);
                self.consume(WatchKind::Child, node_path, fired);
            }
            EventType::NodeChildrenChanged => self.consume(WatchKind::Child, node_path, fired),
        }
        self.collect(WatchKind::Persistent, node_path, fired);
        if event != EventType::NodeChildrenChanged && !self.tables[WatchKind::PersistentRecursive as usize].is_empty() {
            for ancestor in path::self_and_ancestors(node_path) {
                self.collect(WatchKind::PersistentRecursive, ancestor, fired);
            }
        }
        merge_by_connection(fired);
    }

    fn consume(&mut self, kind: WatchKind, node_path: &str, fired: &mut Vec<Fired>) {
        for Registration { connection, confirmed, tags } in
            self.tables[kind as usize].remove(node_path).unwrap_or_default()
        {
            self.unlist(connection, kind, node_path);
            fired.push(Fired { connection, confirmed, tags });
        }
    }

    fn collect(&self, kind: WatchKind, node_path: &str, fired: &mut Vec<Fired>) {
        let registrations = self.tables[kind as usize].get(node_path).into_iter().flatten();
        fired.extend(registrations.map(|registration| Fired {
            connection: registration.connection,
            confirmed: registration.confirmed,
            tags: registration.tags.clone(),
        }));
    }

    /// For the report of `mntr`: number of paths watched, each counted once for each kind.
    pub fn watched_paths(&self) -> usize {
        self.tables.iter().map(|table| table.len()).sum()
    }
}

fn merge_by_connection(fired: &mut Vec<Fired>) {
    if fired.len() < 2 {
        return;
    }
    fired.sort_by_key(|entry| entry.connection);
    fired.dedup_by(|later, kept| {
        let same = later.connection == kept.connection;
        if same {
            kept.confirmed |= later.confirmed;
            kept.tags.append(&mut later.tags);
        }
        same
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fire(table: &mut WatchTable, event: EventType, node_path: &str) -> Vec<u64> {
        let mut fired = Vec::new();
        table.fire(event, node_path, &mut fired);
        fired.iter().map(|entry| entry.connection).collect()
    }

    /// A connection with a data and a child watch on a deleted node gets one NodeDeleted, whatever else matches.
    #[test]
    fn one_event_for_one_connection() {
        let mut table = WatchTable::default();
        for kind in
            [WatchKind::Data, WatchKind::Child, WatchKind::Persistent, WatchKind::PersistentRecursive, WatchKind::Data]
        {
            table.arm(1, kind, "/a", None);
        }
        table.arm(2, WatchKind::PersistentRecursive, "/", None);
        assert_eq!(fire(&mut table, EventType::NodeDeleted, "/a"), [1, 2]);
        assert_eq!(table.len(), 3);
        assert_eq!(fire(&mut table, EventType::NodeDataChanged, "/a"), [1, 2]);
    }

    /// `zk_watch_count` is compared with ZooKeeper's, which keeps persistent watches twice; it must come back to zero.
    #[test]
    fn count_that_dashboards_cannot_compare() {
        let mut table = WatchTable::default();
        let kinds = [WatchKind::Data, WatchKind::Child, WatchKind::Persistent, WatchKind::PersistentRecursive];
        let counts = kinds.map(|kind| {
            table.arm(1, kind, &format!("/{kind:?}"), None);
            table.arm(1, kind, &format!("/{kind:?}"), None);
            (table.len(), table.count_in_zookeeper())
        });
        assert_eq!(counts, [(1, 1), (2, 2), (3, 4), (4, 5)]);
        fire(&mut table, EventType::NodeDataChanged, "/Data");
        assert!(table.remove_kind(1, "/Persistent", WatcherType::Persistent));
        assert_eq!((table.len(), table.count_in_zookeeper()), (2, 2));
        table.remove_connection(1);
        assert_eq!((table.len(), table.count_in_zookeeper(), table.is_empty()), (0, 0, true));
    }

    /// Recursive watchers never hear of changed children lists; the persistent one on the parent does.
    #[test]
    fn recursive_watch_gets_no_children_changed() {
        let mut table = WatchTable::default();
        table.arm(1, WatchKind::PersistentRecursive, "/a", None);
        table.arm(2, WatchKind::Persistent, "/a", None);
        table.arm(3, WatchKind::Child, "/a", None);
        assert_eq!(fire(&mut table, EventType::NodeChildrenChanged, "/a"), [2, 3]);
        assert_eq!(fire(&mut table, EventType::NodeChildrenChanged, "/a"), [2]);
        assert_eq!(fire(&mut table, EventType::NodeCreated, "/a/b"), [1]);
    }

    /// Two pipelined getData(/a, watch): the failure of one must not take the watch of the other (rule A9).
    #[test]
    fn failed_read_takes_only_its_own_tag() {
        let mut table = WatchTable::default();
        table.arm(1, WatchKind::Data, "/a", Some(Tag(10)));
        table.arm(1, WatchKind::Data, "/a", Some(Tag(11)));
        assert!(table.settle(1, WatchKind::Data, "/a", Tag(10), false));
        assert!(table.settle(1, WatchKind::Data, "/a", Tag(11), true));
        assert_eq!(fire(&mut table, EventType::NodeCreated, "/a"), [1]);
        table.arm(1, WatchKind::Data, "/a", Some(Tag(12)));
        assert!(table.settle(1, WatchKind::Data, "/a", Tag(12), false));
        assert!(table.is_empty());
    }

    /// Watches die with their connection; a leak of a few a day is what took other servers down.
    #[test]
    fn nothing_is_left_of_a_closed_connection() {
        let mut table = WatchTable::default();
        for i in 0..100 {
            table.arm(1, WatchKind::Data, &format!("/{i}"), None);
            table.arm(2, WatchKind::Child, &format!("/{i}"), None);
        }
        fire(&mut table, EventType::NodeDataChanged, "/7");
        assert!(table.remove_kind(1, "/8", WatcherType::Any) && !table.remove_kind(1, "/8", WatcherType::Any));
        table.remove_connection(1);
        assert_eq!(table.len(), 100);
        table.remove_connection(2);
        assert!(table.is_empty() && table.watched_paths() == 0 && table.by_connection.is_empty());
    }
}
