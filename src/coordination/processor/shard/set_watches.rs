//! setWatches: what a client brings along after a reconnect.
//!
//! Evaluated at one position, over all owners (rule A8). Everything is armed at that position when the questions are sent, so
//! no later event is lost; a path whose state has moved on since `relative_zxid` loses the registration again (and a later event
//! of it, if one has queued), and gets its catch-up event before the reply.

use super::read::{Asked, Gather};
use super::{Shard, ShardOutputs};
use crate::base::{ShardId, Zxid, coverage};
use crate::coordination::processor::message::{BriefStat, ReadKind};
use crate::coordination::tree::path;
use crate::coordination::watch::{Tag, WatchKind};
use crate::protocol::zookeeper::{EventType, Reply, SetWatches, WatcherEvent};
use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum List {
    Data,
    Exist,
    Child,
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
    fn kind(&self) -> WatchKind {
        if self.list == List::Child { WatchKind::Child } else { WatchKind::Data }
    }

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

/// A setWatches under way.
#[derive(Debug)]
pub(super) struct WatchesAsked {
    relative: Zxid,
    entries: Vec<Entry>,
    /// For each question that was sent, which entries it asks about.
    questions: Vec<Vec<usize>>,
}

impl WatchesAsked {
    /// The answer to question number `slot`.
    pub(super) fn answered(&mut self, slot: usize, stats: &[Option<BriefStat>]) {
        for (entry, stat) in self.questions[slot].iter().zip(stats) {
            self.entries[*entry].found = *stat;
        }
    }
}

impl Shard {
    pub(super) fn set_watches(&mut self, number: u64, xid: i32, watches: &SetWatches<'_>, out: &mut ShardOutputs) {
        let mut entries = Vec::new();
        for (list, paths) in [(List::Data, watches.data), (List::Exist, watches.exist), (List::Child, watches.child)] {
            for node_path in paths.iter() {
                self.next_tag += 1;
                entries.push(Entry { list, path: node_path.into(), tag: Tag(self.next_tag), found: None });
            }
        }
        for (kind, paths) in [
            (WatchKind::Persistent, watches.persistent),
            (WatchKind::PersistentRecursive, watches.persistent_recursive),
        ] {
            paths.iter().for_each(|node_path| self.watches.arm(number, kind, node_path, None));
        }
        let position = self.applied;
        let mut remote: BTreeMap<ShardId, Vec<usize>> = BTreeMap::new();
        for (index, entry) in entries.iter_mut().enumerate() {
            self.watches.arm(number, entry.kind(), &entry.path, Some(entry.tag));
            let node_path = path::canonical(&entry.path);
            let owner = self.config.map.owner(node_path);
            if owner == self.config.id {
                let view = self.tree.view(node_path, position);
                entry.found = view.map(|view| BriefStat { mzxid: view.stat().mzxid, pzxid: view.stat().pzxid });
            } else {
                remote.entry(owner).or_default().push(index);
            }
        }
        let (owners, questions): (Vec<ShardId>, Vec<Vec<usize>>) = remote.into_iter().unzip();
        let relative = Zxid(watches.relative_zxid.max(0) as u64);
        let asked = WatchesAsked { relative, entries, questions };
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let place = connection.output.reserve();
        if owners.is_empty() {
            let mut bytes = Vec::new();
            self.finish_set_watches(number, xid, position, &asked, &mut bytes);
            if let Some(connection) = self.connections.get_mut(&number) {
                connection.packets_sent += 1;
                out.latencies_us.push(self.now_us.saturating_sub(self.asked_us));
                connection.output.fill(place, position, bytes);
                Self::mark_dirty(connection, out);
            }
            return;
        }
        coverage::mark("set-watches-over-shards");
        let paths_of = |question: &Vec<usize>| -> Vec<Box<str>> {
            question.iter().map(|index| path::canonical(&asked.entries[*index].path).into()).collect()
        };
        let paths: Vec<Vec<Box<str>>> = asked.questions.iter().map(paths_of).collect();
        let asked = Asked::Watches(asked);
        let (missing, since_us) = (owners.len(), self.asked_us);
        let id = self.gather(Gather { connection: number, xid, position, place, missing, since_us, asked });
        for (slot, (owner, paths)) in owners.into_iter().zip(paths).enumerate() {
            self.ask_peer(owner, id, slot as u32, ReadKind::Brief, paths.into(), out);
        }
    }

    /// Catch-up events in the order of the lists, then the reply. No permission is asked for, as in ZooKeeper.
    pub(super) fn finish_set_watches(
        &mut self,
        number: u64,
        xid: i32,
        position: Zxid,
        asked: &WatchesAsked,
        bytes: &mut Vec<u8>,
    ) {
        for entry in &asked.entries {
            let event = entry.catch_up(asked.relative);
            if let Some(kind) = event {
                coverage::mark("catch-up-event");
                WatcherEvent { kind, path: &entry.path }.encode_frame(None, bytes);
                if let Some(connection) = self.connections.get_mut(&number) {
                    connection.packets_sent += 1;
                }
            }
            self.settle_watch(number, entry.kind(), &entry.path, entry.tag, event.is_none());
        }
        Reply::Empty.encode_frame(xid, position, bytes);
    }
}
