//! Window reads: here, or at the shard that owns the record, as of the position of the request's turn.

use super::output::PlaceId;
use super::read_cache::CachedRecord;
use super::set_watches::WatchesAsked;
use super::{Shard, ShardOutputs};
use crate::base::{ShardId, Zxid, coverage, planted};
use crate::coordination::auth::AuthConfig;
use crate::coordination::processor::message::{BriefStat, PeerAnswer, PeerMessage, PeerRead, ReadKind, ReadResult};
use crate::coordination::tree::{AclRef, DataTree, NodeView, path};
use crate::coordination::watch::{Tag, WatchKind};
use crate::protocol::jute::Output;
use crate::protocol::zookeeper::{ErrorCode, MultiOp, MultiResult, OpCode, ReplyHeader, Stat, permission};
use smallvec::{SmallVec, smallvec};
use std::collections::VecDeque;

/// A request that waits for other shards.
#[derive(Debug)]
pub(super) struct Gather {
    pub connection: u64,
    pub xid: i32,
    pub position: Zxid,
    pub place: PlaceId,
    /// Parts that are not answered yet.
    pub missing: usize,
    /// When the request was read.
    pub since_us: u64,
    pub asked: Asked,
}

#[derive(Debug)]
pub(super) enum Asked {
    One { kind: ReadKind, watch: Option<(WatchKind, Box<str>, Tag)>, result: Option<ReadResult> },
    Multi { slots: Vec<(OpCode, Option<ReadResult>)> },
    Watches(WatchesAsked),
}

/// The positions of reads that other shards have not answered.
#[derive(Debug, Default)]
pub(super) struct Positions {
    /// Ascending, with the number of unanswered reads at each.
    open: VecDeque<(Zxid, usize)>,
}

impl Positions {
    pub(super) fn oldest(&self) -> Option<Zxid> {
        self.open.front().map(|(position, _)| *position)
    }

    pub(super) fn add(&mut self, position: Zxid) {
        match self.open.back_mut() {
            Some((last, count)) if *last == position => *count += 1,
            _ => self.open.push_back((position, 1)),
        }
    }

    pub(super) fn remove(&mut self, position: Zxid) {
        if let Ok(index) = self.open.binary_search_by_key(&position, |(position, _)| *position) {
            self.open[index].1 -= 1;
        }
        while self.open.pop_front_if(|(_, count)| *count == 0).is_some() {}
    }
}

/// Appends the body of a read's reply, and says whose list allowed it, or why there is none.
fn encode(
    tree: &DataTree,
    auth: &AuthConfig,
    kind: ReadKind,
    view: Option<NodeView<'_>>,
    identities: &[crate::protocol::zookeeper::Id],
    buffer: &mut Vec<u8>,
) -> Result<AclRef, ErrorCode> {
    let view = view.ok_or(ErrorCode::NoNode)?;
    let acl = tree.acls().get(view.acl());
    let perms = if kind == ReadKind::Acl { permission::READ | permission::ADMIN } else { permission::READ };
    if !auth.allows(acl, perms, identities) {
        return Err(ErrorCode::NoAuth);
    }
    let num_children = view.num_children();
    let stat = view.stat().to_wire(view.data_length(), num_children as i32);
    let mut out = Output::new(buffer);
    match kind {
        ReadKind::Exists => stat.encode(&mut out),
        ReadKind::Data => {
            out.buffer(view.data());
            stat.encode(&mut out);
        }
        ReadKind::Children | ReadKind::ChildrenAndStat => {
            out.len(num_children);
            view.for_each_child(|name| out.string(name));
            if kind == ReadKind::ChildrenAndStat {
                stat.encode(&mut out);
            }
        }
        ReadKind::Acl => {
            let masked = auth.masked(acl, identities);
            out.len(masked.len());
            masked.iter().for_each(|entry| entry.encode(&mut out));
            stat.encode(&mut out);
        }
        ReadKind::Brief => unreachable!("answered without a body"),
    }
    Ok(view.acl())
}

fn body_or_error(
    tree: &DataTree,
    auth: &AuthConfig,
    kind: ReadKind,
    view: Option<NodeView<'_>>,
    identities: &[crate::protocol::zookeeper::Id],
) -> ReadResult {
    let data_bytes = view.as_ref().map_or(0, |view| view.data_length() as usize);
    let mut bytes = Vec::new();
    if kind == ReadKind::Data {
        bytes.reserve_exact(size_of::<i32>() + data_bytes + Stat::BYTES);
    }
    match encode(tree, auth, kind, view, identities, &mut bytes) {
        Ok(acl) => ReadResult::Body { bytes, acl: tree.acls().get(acl).hash() },
        Err(code) => ReadResult::Error(code),
    }
}

/// The watch that a read leaves: none after an error, except that exists may watch for a node to come.
fn watch_stays(kind: ReadKind, error: Option<ErrorCode>) -> bool {
    error.is_none() || (kind == ReadKind::Exists && error == Some(ErrorCode::NoNode))
}

impl Shard {
    /// exists, getData, getChildren, getChildren2, getACL.
    pub(super) fn read(
        &mut self,
        number: u64,
        xid: i32,
        kind: ReadKind,
        node_path: &str,
        watch: bool,
        out: &mut ShardOutputs,
    ) {
        let watch_kind = match kind {
            ReadKind::Children | ReadKind::ChildrenAndStat => WatchKind::Child,
            _ => WatchKind::Data,
        };
        let owner = self.config.map.owner(path::canonical(node_path));
        let position = self.applied;
        if let Some(error) = self.read_here(number, xid, kind, path::canonical(node_path), owner, out) {
            if watch && watch_stays(kind, error) {
                self.watches.arm(number, watch_kind, node_path, None);
            }
            return;
        }
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let place = connection.output.reserve();
        let watch = watch.then(|| {
            self.next_tag += 1;
            (watch_kind, Box::from(node_path), Tag(self.next_tag))
        });
        if let Some((kind, node_path, tag)) = &watch
            && !planted::is("a1-watch-armed-late")
        {
            self.watches.arm(number, *kind, node_path, Some(*tag));
        }
        let asked = Asked::One { kind, watch, result: None };
        let gather = Gather { connection: number, xid, position, place, missing: 1, since_us: self.asked_us, asked };
        let id = self.gather(gather);
        self.ask_peer(owner, id, 0, kind, smallvec![path::canonical(node_path).into()], out);
    }

    /// Answers a read from the record here, or from a copy of another shard's, and tells the error that it answered with. `None`
    /// when the owner must be asked.
    fn read_here(
        &mut self,
        number: u64,
        xid: i32,
        kind: ReadKind,
        node_path: &str,
        owner: ShardId,
        out: &mut ShardOutputs,
    ) -> Option<Option<ErrorCode>> {
        let position = self.applied;
        let connection = self.connections.get_mut(&number)?;
        let (tree, auth, identities) = (&self.tree, &self.config.auth, &connection.identities);
        let error = if owner == self.config.id {
            let view = tree.view(node_path, position);
            connection.output.append(position, |buffer| {
                append_reply(xid, position, buffer, |buffer| {
                    encode(tree, auth, kind, view, identities, buffer).map(drop)
                })
            })
        } else {
            let record = self.read_cache.get(kind, node_path)?;
            let allowed = auth.allows(tree.acls().get(record.acl), permission::READ, identities);
            connection.output.append(position, |buffer| {
                append_reply(xid, position, buffer, |buffer| {
                    if !allowed {
                        return Err(ErrorCode::NoAuth);
                    }
                    buffer.extend_from_slice(record.body);
                    Ok(())
                })
            })
        };
        connection.packets_sent += 1;
        out.latencies_us.push(self.now_us.saturating_sub(self.asked_us));
        Self::mark_dirty(connection, out);
        Some(error)
    }

    /// multiRead: every part as of one position (rule A6).
    pub(super) fn multi_read(&mut self, number: u64, xid: i32, ops: &[MultiOp<'_>], out: &mut ShardOutputs) {
        let mut slots = Vec::with_capacity(ops.len());
        let mut remote = Vec::new();
        let Some(connection) = self.connections.get(&number) else { return };
        for (slot, op) in ops.iter().enumerate() {
            let (kind, node_path) = match op {
                MultiOp::GetData { path } => (ReadKind::Data, path::canonical(path)),
                MultiOp::GetChildren { path } => (ReadKind::Children, path::canonical(path)),
                _ => unreachable!("decoding refuses writes in a multiRead"),
            };
            let owner = self.config.map.owner(node_path);
            let result = (owner == self.config.id).then(|| {
                let view = self.tree.view(node_path, self.applied);
                body_or_error(&self.tree, &self.config.auth, kind, view, &connection.identities)
            });
            if result.is_none() {
                remote.push((owner, slot, kind, node_path));
            }
            slots.push((op.op_code(), result));
        }
        let position = self.applied;
        let Some(connection) = self.connections.get_mut(&number) else { return };
        if remote.is_empty() {
            connection.packets_sent += 1;
            out.latencies_us.push(self.now_us.saturating_sub(self.asked_us));
            connection.output.append(position, |buffer| encode_multi_read(xid, position, &slots, buffer));
            return Self::mark_dirty(connection, out);
        }
        let place = connection.output.reserve();
        let asked = Asked::Multi { slots };
        let gather =
            Gather { connection: number, xid, position, place, missing: remote.len(), since_us: self.asked_us, asked };
        let id = self.gather(gather);
        for (owner, slot, kind, node_path) in remote {
            self.ask_peer(owner, id, slot as u32, kind, smallvec![node_path.into()], out);
        }
    }

    pub(super) fn gather(&mut self, gather: Gather) -> u32 {
        self.next_gather = self.next_gather.wrapping_add(1);
        for _ in 0..gather.missing {
            self.positions.add(gather.position);
        }
        self.gathers.insert(self.next_gather, gather);
        self.next_gather
    }

    pub(super) fn ask_peer(
        &mut self,
        owner: ShardId,
        gather: u32,
        slot: u32,
        what: ReadKind,
        paths: SmallVec<[Box<str>; 1]>,
        out: &mut ShardOutputs,
    ) {
        let Some(asked) = self.gathers.get(&gather) else { return };
        let Some(connection) = self.connections.get(&asked.connection) else { return };
        let split = planted::is("multi-split") && matches!(asked.asked, Asked::Multi { .. });
        out.to_peers.push((
            owner,
            PeerMessage::Read(PeerRead {
                ticket: u64::from(gather) << 32 | u64::from(slot),
                position: if split { Zxid::ZERO } else { asked.position },
                identities: connection.identities.clone(),
                what,
                paths,
            }),
        ));
    }

    /// A read of another shard: answered now, or parked until this shard is there.
    pub(super) fn peer_read(&mut self, from: ShardId, read: PeerRead, out: &mut ShardOutputs) {
        if read.position > self.applied {
            coverage::mark("peer-read-parked");
            self.parked.entry(read.position).or_default().push((from, read));
        } else {
            self.answer_peer(from, read, out);
        }
    }

    pub(super) fn serve_parked(&mut self, out: &mut ShardOutputs) {
        while let Some(entry) = self.parked.first_entry().filter(|entry| *entry.key() <= self.applied) {
            for (from, read) in entry.remove() {
                self.answer_peer(from, read, out);
            }
        }
    }

    fn answer_peer(&mut self, from: ShardId, read: PeerRead, out: &mut ShardOutputs) {
        let as_of_now =
            planted::is("a2-read-sees-later-write") || (planted::is("multi-split") && read.position == Zxid::ZERO);
        let position = if as_of_now { self.applied } else { read.position };
        let result = if read.what == ReadKind::Brief {
            let brief = |node_path: &str| {
                let view = self.tree.view(node_path, position)?;
                Some(BriefStat { mzxid: view.stat().mzxid, pzxid: view.stat().pzxid })
            };
            ReadResult::Brief(read.paths.iter().map(|node_path| brief(node_path)).collect())
        } else {
            let view = self.tree.view(&read.paths[0], position);
            body_or_error(&self.tree, &self.config.auth, read.what, view, &read.identities)
        };
        let path = read.paths.into_iter().next().filter(|_| read.what == ReadKind::Data);
        out.to_peers.push((from, PeerMessage::Answer(PeerAnswer { ticket: read.ticket, path, result })));
    }

    /// The answer of another shard: fills the part that it is of, and the place once all parts are there.
    pub(super) fn peer_answer(&mut self, answer: PeerAnswer, out: &mut ShardOutputs) {
        let (id, slot) = ((answer.ticket >> 32) as u32, answer.ticket as u32 as usize);
        let Some(gather) = self.gathers.get_mut(&id) else { return };
        self.positions.remove(gather.position);
        gather.missing -= 1;
        let done = gather.missing == 0;
        // What was true at an older position may have changed since.
        if let (Some(path), ReadResult::Body { bytes, acl }) = (answer.path, &answer.result)
            && let Some(acl) = self.tree.acls().find(*acl)
            && (gather.position == self.applied || planted::is("old-record-cached"))
        {
            self.read_cache.put(path, CachedRecord { body: bytes.clone(), acl });
        }
        match (&mut gather.asked, answer.result) {
            (Asked::One { result, .. }, answer) => *result = Some(answer),
            (Asked::Multi { slots }, answer) => slots[slot].1 = Some(answer),
            (Asked::Watches(asked), ReadResult::Brief(stats)) => asked.answered(slot, &stats),
            (Asked::Watches(_), _) => debug_assert!(false, "a brief question has a brief answer"),
        }
        if done {
            self.finish_gather(id, out);
        }
    }

    fn finish_gather(&mut self, id: u32, out: &mut ShardOutputs) {
        let Some(gather) = self.gathers.remove(&id) else { return };
        let Gather { connection: number, xid, position, place, asked, since_us, .. } = gather;
        let position = if planted::is("a7-header-zxid-of-home") { self.applied } else { position };
        let mut bytes = Vec::new();
        match asked {
            Asked::One { kind, watch, result } => {
                let result = result.unwrap_or(ReadResult::Error(ErrorCode::SystemError));
                let error = append_reply(xid, position, &mut bytes, |buffer| match result {
                    ReadResult::Body { bytes, .. } => {
                        buffer.extend_from_slice(&bytes);
                        Ok(())
                    }
                    ReadResult::Error(code) => Err(code),
                    ReadResult::Brief(_) => Err(ErrorCode::SystemError),
                });
                if let Some((watch_kind, node_path, tag)) = watch {
                    let keep = watch_stays(kind, error);
                    if !planted::is("a1-watch-armed-late") {
                        self.settle_watch(number, watch_kind, &node_path, tag, keep);
                    } else if keep && self.connections.contains_key(&number) {
                        self.watches.arm(number, watch_kind, &node_path, None);
                    }
                }
            }
            Asked::Multi { slots } => encode_multi_read(xid, position, &slots, &mut bytes),
            Asked::Watches(asked) => self.finish_set_watches(number, xid, position, &asked, &mut bytes),
        }
        let Some(connection) = self.connections.get_mut(&number) else { return };
        connection.packets_sent += 1;
        out.latencies_us.push(self.now_us.saturating_sub(since_us));
        connection.output.fill(place, position, bytes);
        let resumes = !connection.output.has_unfilled() && connection.can_resume();
        Self::mark_dirty(connection, out);
        if resumes {
            coverage::mark("request-waited-for-reads");
            self.pump(number, out);
        }
    }

    /// A read with a watch was answered: its registration, or the event that has consumed it, stays or loses a reason.
    pub(super) fn settle_watch(&mut self, number: u64, kind: WatchKind, node_path: &str, tag: Tag, keep: bool) {
        if !keep {
            coverage::mark("tentative-watch-dropped");
        }
        if !self.watches.settle(number, kind, node_path, tag, keep)
            && let Some(connection) = self.connections.get_mut(&number)
        {
            coverage::mark("tentative-watch-had-fired");
            connection.output.settle(tag, keep);
        }
    }
}

/// Appends a reply frame around what `body` appends, or an error frame; returns the error.
fn append_reply(
    xid: i32,
    position: Zxid,
    buffer: &mut Vec<u8>,
    body: impl FnOnce(&mut Vec<u8>) -> Result<(), ErrorCode>,
) -> Option<ErrorCode> {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; 4]);
    ReplyHeader { xid, zxid: position.wire(), error: 0 }.encode(&mut Output::new(buffer));
    let body_start = buffer.len();
    let error = body(buffer).err();
    if let Some(code) = error {
        buffer.truncate(body_start);
        buffer[body_start - 4..].copy_from_slice(&code.wire().to_be_bytes());
    }
    let len = i32::try_from(buffer.len() - start - 4).expect("a reply fits 31 bits");
    buffer[start..start + 4].copy_from_slice(&len.to_be_bytes());
    error
}

fn encode_multi_read(xid: i32, position: Zxid, slots: &[(OpCode, Option<ReadResult>)], buffer: &mut Vec<u8>) {
    append_reply(xid, position, buffer, |buffer| {
        let mut out = Output::new(buffer);
        for (op, result) in slots {
            match result {
                Some(ReadResult::Body { bytes, .. }) => {
                    out.i32(op.wire());
                    out.bool(false);
                    out.i32(0);
                    out.raw(bytes);
                }
                Some(ReadResult::Error(code)) => MultiResult::Error(code.wire()).encode(&mut out),
                _ => MultiResult::Error(ErrorCode::SystemError.wire()).encode(&mut out),
            }
        }
        MultiResult::encode_end(&mut out);
        Ok(())
    });
}
