//! The watches that a client has set: who is told about an event, and what must be set again after a reconnect.
//!
//! Paths in here are the server's; the chroot is taken away on delivery. Contract towards the server (reference:
//! ZooKeeper's `ZKWatchManager`): the table holds exactly what a server would know that has answered every request so far,
//! so registration happens when the reply is read, before any later frame.

use super::chroot::Chroot;
use super::mailbox::{self, Receiver, Sender};
use crate::protocol::zookeeper::{EventType, Request, SetWatches, StringVector, xid};
use std::collections::HashMap;

/// An event on a watched node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeEvent {
    /// What happened.
    pub kind: EventType,
    /// Where, without the chroot.
    pub path: String,
    /// The transaction that fired it; -1 when the server does not say (before 3.9, and for catch-up events).
    pub zxid: i64,
}

/// What a watch stream delivers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchEvent {
    /// Something happened. It is delivered before the reply of any request that shows a newer state.
    Node(NodeEvent),
    /// Events may be missing: the connection was re-established (a server keeps no record of what persistent watches missed),
    /// or this stream was not read for too long. Read the state again. Standard watches never need this.
    Missed,
    /// The session has ended; the stream ends behind this event.
    SessionEnded,
}

/// A stream of the events of one registration. A standard watch ends after its one event. Dropping the stream forgets the
/// registration here; the server forgets it when it fires, or with the connection.
pub type Watch = Receiver<WatchEvent>;

/// Most events that wait in one stream before it is cut and says [`WatchEvent::Missed`].
const WATCH_EVENTS_MAX: usize = 16 * 1024;

/// Above this size a SetWatches packet is split (as the Java client does), so that it stays below `jute.maxbuffer`.
const SET_WATCHES_BYTES_MAX: usize = 128 * 1024;

/// The five lists of a SetWatches2 packet, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WatchList {
    /// getData, and exists on a node that was there.
    Data = 0,
    /// exists on a node that was not there.
    Exist = 1,
    /// getChildren.
    Child = 2,
    /// addWatch.
    Persistent = 3,
    /// addWatch, recursive.
    PersistentRecursive = 4,
}

const LISTS: usize = 5;

/// A registration that waits for its reply.
pub(super) struct Registration {
    pub list: WatchList,
    pub path: String,
    pub sender: Sender<WatchEvent>,
}

impl Registration {
    /// A registration and the stream that its events will come through.
    pub fn new(list: WatchList, path: String) -> (Registration, Watch) {
        let (sender, watch) = mailbox::queue(WATCH_EVENTS_MAX);
        (Registration { list, path, sender }, watch)
    }
}

/// All registrations of a session.
#[derive(Default)]
pub(super) struct WatchTable {
    lists: [HashMap<String, Vec<Sender<WatchEvent>>>; LISTS],
}

impl WatchTable {
    /// Arms `registration`.
    pub fn register(&mut self, registration: Registration) {
        let senders = self.list(registration.list).entry(registration.path).or_default();
        senders.retain(Sender::is_open);
        senders.push(registration.sender);
    }

    /// Delivers an event and disarms what fires only once.
    pub fn dispatch(&mut self, kind: EventType, path: &str, zxid: i64, chroot: &Chroot) {
        let event = WatchEvent::Node(NodeEvent { kind, path: chroot.relative(path).to_owned(), zxid });
        let once: &[WatchList] = match kind {
            EventType::NodeCreated | EventType::NodeDataChanged => &[WatchList::Data, WatchList::Exist],
            EventType::NodeDeleted => &[WatchList::Data, WatchList::Exist, WatchList::Child],
            EventType::NodeChildrenChanged => &[WatchList::Child],
        };
        for list in once {
            for sender in self.list(*list).remove(path).unwrap_or_default() {
                sender.send(event.clone(), || WatchEvent::Missed);
            }
        }
        self.tell(WatchList::Persistent, path, &event);
        if kind != EventType::NodeChildrenChanged {
            for ancestor in self_and_ancestors(path) {
                self.tell(WatchList::PersistentRecursive, ancestor, &event);
            }
        }
    }

    /// Delivers to the streams of a persistent registration and forgets those that nobody holds any more.
    fn tell(&mut self, list: WatchList, path: &str, event: &WatchEvent) {
        let Some(senders) = self.list(list).get_mut(path) else { return };
        senders.retain(Sender::is_open);
        senders.iter().for_each(|sender| sender.send(event.clone(), || WatchEvent::Missed));
        if senders.is_empty() {
            self.list(list).remove(path);
        }
    }

    /// Tells every stream that the session has ended, and ends it.
    pub fn end_all(&mut self) {
        for sender in self.lists.iter_mut().flat_map(|list| list.drain()).flat_map(|(_, senders)| senders) {
            sender.send(WatchEvent::SessionEnded, || WatchEvent::SessionEnded);
        }
    }

    /// Appends the SetWatches packets that arm everything again on a new connection, and tells the persistent streams that
    /// they may have missed something. Returns the number of packets: that many replies will come.
    pub fn rearm(&mut self, last_zxid: i64, buffer: &mut Vec<u8>) -> usize {
        for list in &mut self.lists {
            list.retain(|_, senders| {
                senders.retain(Sender::is_open);
                !senders.is_empty()
            });
        }
        for list in [WatchList::Persistent, WatchList::PersistentRecursive] {
            for sender in self.list(list).values().flatten() {
                sender.send(WatchEvent::Missed, || WatchEvent::Missed);
            }
        }
        let mut packets = 0;
        let mut batch = SetWatchesBatch::default();
        for (list, paths) in self.lists.iter().enumerate() {
            for path in paths.keys() {
                if !batch.has_room_for(path) {
                    batch.encode(last_zxid, buffer);
                    packets += 1;
                }
                batch.push(list, path);
            }
        }
        if batch.bytes > 0 {
            batch.encode(last_zxid, buffer);
            packets += 1;
        }
        packets
    }

    fn list(&mut self, list: WatchList) -> &mut HashMap<String, Vec<Sender<WatchEvent>>> {
        &mut self.lists[list as usize]
    }
}

/// `/a/b`, `/a`, `/`.
fn self_and_ancestors(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(path), |path| match path.rfind('/') {
        Some(0) if path.len() > 1 => Some("/"),
        Some(slash) if slash > 0 => Some(&path[..slash]),
        _ => None,
    })
}

/// The paths of one SetWatches packet.
#[derive(Default)]
struct SetWatchesBatch<'p> {
    paths: [Vec<&'p str>; LISTS],
    bytes: usize,
}

impl<'p> SetWatchesBatch<'p> {
    fn has_room_for(&self, path: &str) -> bool {
        self.bytes == 0 || self.bytes + 4 + path.len() <= SET_WATCHES_BYTES_MAX
    }

    fn push(&mut self, list: usize, path: &'p str) {
        self.paths[list].push(path);
        self.bytes += 4 + path.len();
    }

    /// Appends the packet and empties the batch.
    fn encode(&mut self, relative_zxid: i64, buffer: &mut Vec<u8>) {
        let paths = std::mem::take(&mut self.paths);
        self.bytes = 0;
        let mut scratch: [Vec<u8>; LISTS] = Default::default();
        let [data, exist, child, persistent, persistent_recursive] = &mut scratch;
        let list = |index: usize| paths[index].iter().copied();
        Request::SetWatches(Box::new(SetWatches {
            relative_zxid,
            data: StringVector::from_strings(list(0), data),
            exist: StringVector::from_strings(list(1), exist),
            child: StringVector::from_strings(list(2), child),
            persistent: StringVector::from_strings(list(3), persistent),
            persistent_recursive: StringVector::from_strings(list(4), persistent_recursive),
        }))
        .encode_frame(xid::SET_WATCHES, buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::jute::Input;
    use crate::protocol::zookeeper::{FrameReader, RequestHeader};

    fn armed(table: &mut WatchTable, list: WatchList, path: &str) -> Watch {
        let (registration, watch) = Registration::new(list, path.to_owned());
        table.register(registration);
        watch
    }

    fn node(kind: EventType, path: &str) -> Option<WatchEvent> {
        Some(WatchEvent::Node(NodeEvent { kind, path: path.to_owned(), zxid: 7 }))
    }

    /// A standard watch fires once and ends; a server sends one NodeDeleted for the data and the child watch together, so
    /// both must be disarmed by it.
    #[test]
    fn deletion_disarms_data_and_child_watches() {
        let (mut table, chroot) = (WatchTable::default(), Chroot::default());
        let mut data = armed(&mut table, WatchList::Data, "/a");
        let mut child = armed(&mut table, WatchList::Child, "/a");
        let mut other = armed(&mut table, WatchList::Data, "/a/b");
        table.dispatch(EventType::NodeChildrenChanged, "/a", 7, &chroot);
        assert_eq!((data.try_next(), child.try_next()), (None, node(EventType::NodeChildrenChanged, "/a")));
        let mut child = armed(&mut table, WatchList::Child, "/a");
        for _ in 0..2 {
            table.dispatch(EventType::NodeDeleted, "/a", 7, &chroot);
        }
        for watch in [&mut data, &mut child] {
            assert_eq!((watch.try_next(), watch.try_next()), (node(EventType::NodeDeleted, "/a"), None));
        }
        assert_eq!(other.try_next(), None);
        assert_eq!(table.rearm(7, &mut Vec::new()), 1, "only /a/b is left to arm");
    }

    /// A recursive watch sees the whole subtree, the root included, but no children-changed events (ZooKeeper's `WatchManager.triggerWatch`).
    #[test]
    fn recursive_watch_sees_descendants_without_children_events() {
        let (mut table, chroot) = (WatchTable::default(), Chroot::new("/c").unwrap());
        let mut root = armed(&mut table, WatchList::PersistentRecursive, "/");
        let mut node_watch = armed(&mut table, WatchList::PersistentRecursive, "/c/a");
        let mut plain = armed(&mut table, WatchList::Persistent, "/c/a");
        table.dispatch(EventType::NodeChildrenChanged, "/c/a", 7, &chroot);
        table.dispatch(EventType::NodeCreated, "/c/a/b", 7, &chroot);
        table.dispatch(EventType::NodeCreated, "/c/ab", 7, &chroot);
        assert_eq!(root.try_next(), node(EventType::NodeCreated, "/a/b"));
        assert_eq!(root.try_next(), node(EventType::NodeCreated, "/ab"));
        assert_eq!(node_watch.try_next(), node(EventType::NodeCreated, "/a/b"));
        assert_eq!(node_watch.try_next(), None);
        assert_eq!(plain.try_next(), node(EventType::NodeChildrenChanged, "/a"));
        assert_eq!(plain.try_next(), None);
    }

    /// Ten thousand watches of a broker do not fit one packet: an unsplit SetWatches above jute.maxbuffer makes the server
    /// close the connection on every reconnect, for ever.
    #[test]
    fn large_watch_sets_are_split_and_complete() {
        let mut table = WatchTable::default();
        let paths: Vec<String> =
            (0..10_000).map(|n| format!("/brokers/topics/topic-with-a-long-name-{n:06}")).collect();
        let watches: Vec<Watch> = paths
            .iter()
            .enumerate()
            .map(|(n, path)| {
                let lists = [
                    WatchList::Data,
                    WatchList::Exist,
                    WatchList::Child,
                    WatchList::Persistent,
                    WatchList::PersistentRecursive,
                ];
                armed(&mut table, lists[n % LISTS], path)
            })
            .collect();
        let mut bytes = Vec::new();
        let packets = table.rearm(42, &mut bytes);
        let mut seen: [Vec<String>; LISTS] = Default::default();
        let mut frames = FrameReader::new(&bytes, SET_WATCHES_BYTES_MAX + 1024);
        let mut count = 0;
        while let Some(frame) = frames.next().expect("every packet is of acceptable size") {
            count += 1;
            let mut input = Input::new(frame.body);
            let header = RequestHeader::decode(&mut input).unwrap();
            assert_eq!((header.xid, header.op), (xid::SET_WATCHES, 105));
            let Request::SetWatches(set) = Request::decode(header.op, input.rest()).unwrap() else { panic!() };
            assert_eq!(set.relative_zxid, 42);
            for (seen, list) in
                seen.iter_mut().zip([set.data, set.exist, set.child, set.persistent, set.persistent_recursive])
            {
                seen.extend(list.iter().map(str::to_owned));
            }
        }
        assert!(count > 1 && count == packets, "{count} packets, {packets} announced");
        for (n, seen) in seen.iter_mut().enumerate() {
            seen.sort();
            assert_eq!(*seen, paths.iter().skip(n).step_by(LISTS).cloned().collect::<Vec<_>>());
        }
        drop(watches);
        assert_eq!(table.rearm(42, &mut Vec::new()), 0, "streams that nobody holds are not armed again");
    }

    /// A reconnect hides what persistent watches missed; only the stream itself can tell its user to read again.
    #[test]
    fn reconnect_tells_persistent_streams_to_read_again() {
        let mut table = WatchTable::default();
        let mut data = armed(&mut table, WatchList::Data, "/a");
        let mut persistent = armed(&mut table, WatchList::Persistent, "/a");
        table.rearm(1, &mut Vec::new());
        assert_eq!((data.try_next(), persistent.try_next()), (None, Some(WatchEvent::Missed)));
        table.end_all();
        assert_eq!(data.try_next(), Some(WatchEvent::SessionEnded));
        assert_eq!(persistent.try_next(), Some(WatchEvent::SessionEnded));
    }
}
