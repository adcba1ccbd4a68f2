//! setWatches: what a client brings along after a reconnect.
//!
//! A long one is carried out in parts, as if the client had sent several, of which only the last is answered; the others have their
//! turn in between. Each part is evaluated at one position, over all owners (rule A8). Everything is armed at that position when the
//! questions are sent, so no later event is lost; a path whose state has moved on since `relative_zxid` loses the registration again
//! (and a later event of it, if one has queued), and gets its catch-up event before the reply.

use super::gather::{Ask, Job, PARTS_MAX};
use super::{Shard, ShardOutputs};
use crate::base::{ShardId, Zxid, coverage};
use crate::coordination::processor::peer::{BriefStat, PeerMessage, Question};
use crate::coordination::tree::path;
use crate::coordination::watch::{Tag, WatchKind};
use crate::protocol::jute::Input;
use crate::protocol::zookeeper::{EventType, Reply, SetWatches, WatcherEvent};
use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum List {
    Data,
    Exist,
    Child,
    Persistent,
    PersistentRecursive,
}

impl List {
    /// In the order of the record.
    const ALL: [List; 5] = [List::Data, List::Exist, List::Child, List::Persistent, List::PersistentRecursive];

    fn kind(self) -> WatchKind {
        match self {
            List::Data | List::Exist => WatchKind::Data,
            List::Child => WatchKind::Child,
            List::Persistent => WatchKind::Persistent,
            List::PersistentRecursive => WatchKind::PersistentRecursive,
        }
    }
}

#[derive(Debug)]
struct Entry {
    list: List,
    path: Box<str>,
    tag: Tag,
    /// What is there; `None` also while it is not known.
    found: Option<BriefStat>,
}

impl Entry {
    /// The event that the client missed.
    fn catch_up(&self, relative: Zxid) -> Option<EventType> {
        match (self.list, self.found) {
            (List::Data | List::Child, None) => Some(EventType::NodeDeleted),
            (List::Data, Some(stat)) if stat.mzxid > relative => Some(EventType::NodeDataChanged),
            (List::Child, Some(stat)) if stat.pzxid > relative => Some(EventType::NodeChildrenChanged),
            (List::Exist, Some(_)) => Some(EventType::NodeCreated),
            _ => None,
        }
    }
}

/// What is left of a setWatches.
#[derive(Debug)]
pub(super) struct WatchesLeft {
    xid: i32,
    relative: Zxid,
    /// The lists, which were found to be well formed.
    lists: Box<[u8]>,
    /// What of `lists` was read.
    consumed: usize,
    /// Lists that were begun.
    begun: usize,
    /// Paths left of the list that was begun last.
    paths_left_in_list: usize,
    /// Paths left of all.
    paths_left: usize,
    /// A part is not answered yet.
    pub under_way: bool,
}

impl WatchesLeft {
    fn new(xid: i32, watches: &SetWatches<'_>, record: &[u8]) -> WatchesLeft {
        let lists = [watches.data, watches.exist, watches.child, watches.persistent, watches.persistent_recursive];
        WatchesLeft {
            xid,
            relative: Zxid(watches.relative_zxid.max(0) as u64),
            lists: record.get(size_of::<i64>()..).unwrap_or_default().into(),
            consumed: 0,
            begun: 0,
            paths_left_in_list: 0,
            paths_left: lists.iter().map(|list| list.len()).sum(),
            under_way: false,
        }
    }

    fn next(&mut self) -> Option<(List, Box<str>)> {
        let mut input = Input::new(self.lists.get(self.consumed..)?);
        while self.paths_left_in_list == 0 {
            // A list that is null is an empty one.
            self.paths_left_in_list = input.vector(size_of::<i32>()).ok()?.unwrap_or(0);
            self.begun += 1;
        }
        let list = *List::ALL.get(self.begun.checked_sub(1)?)?;
        let node_path = input.string().ok()?;
        self.consumed = self.lists.len() - input.rest().len();
        self.paths_left_in_list -= 1;
        self.paths_left = self.paths_left.saturating_sub(1);
        Some((list, node_path.into()))
    }
}

/// A part of a setWatches, under way.
#[derive(Debug)]
pub(super) struct WatchesAsked {
    relative: Zxid,
    /// Its end is answered.
    is_last: bool,
    entries: Vec<Entry>,
    /// Which entries each owner is asked about.
    questions: BTreeMap<ShardId, Vec<usize>>,
}

impl WatchesAsked {
    pub(super) fn ask(&self) -> Vec<Ask> {
        let paths = |question: &Vec<usize>| -> Vec<Box<str>> {
            question.iter().map(|index| path::canonical(&self.entries[*index].path).into()).collect()
        };
        let ask = |(owner, question): (&ShardId, &Vec<usize>)| Ask {
            owner: *owner,
            bytes_max: question.len() * size_of::<Option<BriefStat>>(),
            question: Question::Brief(paths(question)),
        };
        self.questions.iter().map(ask).collect()
    }

    /// The answer of an owner.
    pub(super) fn answered(&mut self, from: ShardId, stats: &[Option<BriefStat>]) {
        for (entry, stat) in self.questions.get(&from).into_iter().flatten().zip(stats) {
            self.entries[*entry].found = *stat;
        }
    }
}

impl Shard {
    /// `record` is the whole record of the request.
    pub(super) fn set_watches(
        &mut self,
        number: u64,
        xid: i32,
        watches: &SetWatches<'_>,
        record: &[u8],
        out: &mut ShardOutputs,
    ) {
        if let Some(connection) = self.connections.get_mut(&number) {
            connection.arming = Some(WatchesLeft::new(xid, watches, record));
            connection.count_requests();
            self.arm_next(number, out);
        }
    }

    /// Carries out the next part of the setWatches that the connection is at.
    pub(super) fn arm_next(&mut self, number: u64, out: &mut ShardOutputs) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let Some(mut left) = connection.arming.take() else { return };
        let mut asked =
            WatchesAsked { relative: left.relative, is_last: false, entries: Vec::new(), questions: BTreeMap::new() };
        let mut taken = 0;
        for (list, node_path) in std::iter::from_fn(|| left.next()).take(PARTS_MAX) {
            taken += 1;
            if matches!(list, List::Persistent | List::PersistentRecursive) {
                self.watches.arm(number, list.kind(), &node_path, None);
            } else {
                self.next_tag += 1;
                self.watches.arm(number, list.kind(), &node_path, Some(Tag(self.next_tag)));
                asked.entries.push(Entry { list, path: node_path, tag: Tag(self.next_tag), found: None });
            }
        }
        // A part that is not full has met the end: whatever was counted, the request ends here.
        asked.is_last = left.paths_left == 0 || taken < PARTS_MAX;
        for (index, entry) in asked.entries.iter_mut().enumerate() {
            let node_path = path::canonical(&entry.path);
            let owner = self.config.map.owner(node_path);
            if owner == self.config.id {
                entry.found = self.brief(node_path, self.applied);
            } else {
                asked.questions.entry(owner).or_default().push(index);
            }
        }
        let (xid, is_here) = (left.xid, asked.questions.is_empty());
        left.under_way = true;
        if let Some(connection) = self.connections.get_mut(&number) {
            connection.arming = (!asked.is_last).then_some(left);
            connection.count_requests();
        }
        if is_here {
            let position = self.applied;
            let bytes = self.finish_watches(number, xid, position, &asked, out);
            if let Some(connection) = self.connections.get_mut(&number) {
                connection.packets_sent += 1;
                out.latencies_us.push(self.now_us.saturating_sub(self.asked_us));
                connection.output.append(position, |buffer| buffer.extend_from_slice(&bytes));
                Self::mark_dirty(connection, out);
            }
            return;
        }
        coverage::mark("set-watches-over-shards");
        self.begin(number, xid, Job::Watches(asked), out);
    }

    /// Catch-up events in the order of the lists, then the reply. No permission is asked for, as in ZooKeeper.
    pub(super) fn finish_watches(
        &mut self,
        number: u64,
        xid: i32,
        position: Zxid,
        asked: &WatchesAsked,
        out: &mut ShardOutputs,
    ) -> Vec<u8> {
        let mut bytes = Vec::new();
        for entry in &asked.entries {
            let event = entry.catch_up(asked.relative);
            if let Some(kind) = event {
                coverage::mark("catch-up-event");
                WatcherEvent { kind, path: &entry.path }.encode_frame(None, &mut bytes);
                if let Some(connection) = self.connections.get_mut(&number) {
                    connection.packets_sent += 1;
                }
            }
            self.settle_watch(number, entry.list.kind(), &entry.path, entry.tag, event.is_none());
        }
        if asked.is_last {
            Reply::Empty.encode_frame(xid, position, &mut bytes);
        } else if let Some(left) = self.connections.get_mut(&number).and_then(|connection| connection.arming.as_mut()) {
            left.under_way = false;
            out.to_peers.push((self.config.id, PeerMessage::GoOn(number)));
        }
        bytes
    }
}
