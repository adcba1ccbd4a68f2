//! What is noted of a run: what clients sent and received, and what the server told its spectator.

use super::checker::history::{
    ClientConnection, ClosedBy, Committed, CommittedKind, ConnectionKey, Dump, History, Life, Moment, Received, Sent,
};
use super::checker::model::ModelNode;
use crate::base::{ConnectionId, SessionId, Zxid};
use crate::coordination::processor::Shard;
use crate::coordination::processor::txn::{Txn, TxnRecord, batch_txns};
use crate::coordination::server::Observer;
use crate::coordination::tree::ChildSet;
use crate::runtime::world::{WALL_CLOCK_START_MS, World};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The notes of a run. Clones are the same ones.
#[derive(Clone, Debug)]
pub(super) struct Recorder(Arc<Mutex<Notes>>);

#[derive(Debug)]
struct Notes {
    history: History,
    step: u64,
    now_us: u64,
    /// The client's end of a connection, by its address.
    by_address: BTreeMap<SocketAddr, ConnectionKey>,
    /// The server's names of connections.
    by_server_end: BTreeMap<ConnectionId, ConnectionKey>,
    /// The last transaction whose commit was seen.
    seen: Zxid,
    transactions_of_first_epoch: u32,
    /// A fault has broken the connection.
    broken: BTreeSet<ConnectionKey>,
    /// A fault is under way that ends the server when it strikes.
    may_end: bool,
    /// Of the life that starts.
    shards: usize,
    ended: bool,
}

impl Recorder {
    /// Nothing has happened yet.
    pub(super) fn new(seed: u64) -> Recorder {
        let history = History { seed, wall_clock_start_ms: WALL_CLOCK_START_MS, ..History::default() };
        Recorder(Arc::new(Mutex::new(Notes {
            history,
            step: 0,
            now_us: 0,
            by_address: BTreeMap::new(),
            by_server_end: BTreeMap::new(),
            seen: Zxid::ZERO,
            transactions_of_first_epoch: u32::MAX,
            broken: BTreeSet::new(),
            may_end: false,
            shards: 0,
            ended: false,
        })))
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        notes.now_us = World::now_us_here();
        notes
    }

    /// A client opens a connection and sends its handshake, a whole frame.
    pub(super) fn opened(
        &self,
        client: usize,
        address: Ipv4Addr,
        handshake: &[u8],
        wrong_password: bool,
    ) -> ConnectionKey {
        let mut notes = self.notes();
        let at = notes.moment();
        let life = notes.history.lives.len().saturating_sub(1);
        notes.history.connections.push(ClientConnection {
            client,
            life,
            address,
            sent: vec![Sent { at, body: handshake[4..].to_vec(), broken_frame: false }],
            received: Vec::new(),
            closed: None,
            wrong_password,
        });
        notes.history.connections.len() - 1
    }

    /// The client's end has this address.
    pub(super) fn connected_from(&self, key: ConnectionKey, address: SocketAddr) {
        self.notes().by_address.insert(address, key);
    }

    /// A client sends a frame, or bytes that are none.
    pub(super) fn sent(&self, key: ConnectionKey, bytes: &[u8], broken_frame: bool) {
        let mut notes = self.notes();
        let at = notes.moment();
        if !notes.ended && notes.history.connections[key].closed.is_none() {
            notes.history.connections[key].sent.push(Sent { at, body: bytes[4..].to_vec(), broken_frame });
        }
    }

    /// A client received a whole frame.
    pub(super) fn received(&self, key: ConnectionKey, body: &[u8]) {
        let mut notes = self.notes();
        let at = notes.moment();
        if !notes.ended && notes.history.connections[key].closed.is_none() {
            notes.history.connections[key].received.push(Received { at, body: body.to_vec() });
        }
    }

    /// A connection ended at its client, seemingly by this.
    pub(super) fn closed(&self, key: ConnectionKey, by: ClosedBy) {
        let mut notes = self.notes();
        let at = notes.moment();
        if notes.ended || notes.history.connections[key].closed.is_some() {
            return;
        }
        let life = notes.history.connections[key].life;
        let crashed = notes.history.lives.get(life).is_some_and(|life| life.crashed.is_some());
        let by = match by {
            ClosedBy::Server if crashed || notes.may_end => ClosedBy::Crash,
            ClosedBy::Server if notes.broken.contains(&key) => ClosedBy::Client,
            by => by,
        };
        notes.history.connections[key].closed = Some((at, by));
    }

    /// True while the server that the connection is with has not crashed.
    pub(super) fn is_live(&self, key: ConnectionKey) -> bool {
        let notes = self.notes();
        let life = notes.history.connections[key].life;
        notes.history.lives.get(life).is_none_or(|life| life.crashed.is_none())
    }

    /// A fault breaks the open connections of a client: they do not tell everything that was sent.
    pub(super) fn broken(&self, client: usize) {
        let mut notes = self.notes();
        let open =
            |(_, connection): &(usize, &ClientConnection)| connection.client == client && connection.closed.is_none();
        let broken: Vec<ConnectionKey> =
            notes.history.connections.iter().enumerate().filter(open).map(|(key, _)| key).collect();
        notes.broken.extend(broken);
    }

    /// The server is gone.
    pub(super) fn crashed(&self) {
        let mut notes = self.notes();
        let at = notes.moment();
        if let Some(life) = notes.history.lives.last_mut() {
            life.crashed.get_or_insert(at);
        }
    }

    /// The server starts with so many shards, and its first epoch will have room for so many transactions.
    pub(super) fn starts(&self, shards: u16, transactions_of_first_epoch: u32) {
        let mut notes = self.notes();
        notes.transactions_of_first_epoch = transactions_of_first_epoch;
        notes.shards = shards.into();
        notes.may_end = false;
    }

    /// The server ends by itself at some time from now on, and is then started again.
    pub(super) fn may_end(&self) {
        self.notes().may_end = true;
    }

    /// True while every shard of the server serves.
    pub(super) fn is_serving(&self) -> bool {
        self.notes().history.lives.last().is_some_and(|life| life.crashed.is_none() && life.is_complete())
    }

    /// From when to when a part of the server did not turn.
    pub(super) fn stalled(&self, from_us: u64, until_us: u64) {
        self.notes().history.stalls.push((from_us, until_us));
    }

    /// From when to when the server may have had no room.
    pub(super) fn no_room(&self, from_us: u64, until_us: u64) {
        self.notes().history.no_room.push((from_us, until_us));
    }

    /// Transactions seen so far.
    pub(super) fn commits(&self) -> usize {
        self.notes().history.lives.iter().map(|life| life.committed.len()).sum()
    }

    /// What comes from now on is not part of the run any more.
    pub(super) fn end(&self) {
        let mut notes = self.notes();
        notes.history.ended = notes.moment();
        notes.ended = true;
        let (at, crashed) = (notes.history.ended, |life: &Life| life.crashed.is_some());
        let crashed: Vec<bool> = notes.history.lives.iter().map(crashed).collect();
        // A machine that lost its power closes nothing.
        let left = |connection: &&mut ClientConnection| connection.closed.is_none() && crashed[connection.life];
        for connection in notes.history.connections.iter_mut().filter(left) {
            connection.closed = Some((at, ClosedBy::Crash));
        }
    }

    /// The history, when the run is over.
    pub(super) fn into_history(self) -> History {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner).history)
    }
}

impl Notes {
    /// A moment that comes after all earlier ones.
    fn moment(&mut self) -> Moment {
        self.step += 1;
        Moment { time_us: self.now_us, step: self.step }
    }
}

impl Observer for Recorder {
    fn connected(&self, connection: ConnectionId, peer: SocketAddr) {
        let mut notes = self.notes();
        let life = notes.history.lives.len().saturating_sub(1);
        if let Some(key) = notes.by_address.get(&peer).copied() {
            notes.by_server_end.insert(connection, key);
            notes.history.connections[key].life = life;
        }
    }

    fn handed_over(&self, txns: &Bytes) {
        let mut notes = self.notes();
        if notes.ended {
            return;
        }
        let txns = batch_txns(txns).map_while(Result::ok);
        let new: Vec<Committed> = {
            let seen = notes.seen;
            let committed = txns.filter(|txn| txn.header.zxid > seen);
            let of = committed.map(|txn| (txn.header, kind_of(&txn))).collect::<Vec<_>>();
            let at = notes.moment();
            of.into_iter()
                .map(|(header, kind)| {
                    let request = match header.request.connection {
                        ConnectionId::NONE => None,
                        connection => notes.by_server_end.get(&connection).map(|key| (*key, header.request.sequence)),
                    };
                    Committed { zxid: header.zxid, time_ms: header.time_ms, at, session: header.session, request, kind }
                })
                .collect()
        };
        if let Some(last) = new.last() {
            notes.seen = last.zxid;
        }
        if let Some(life) = notes.history.lives.last_mut() {
            life.committed.extend(new);
        }
    }

    fn recovered(&self, last: Zxid) {
        let mut notes = self.notes();
        let started = notes.moment();
        notes.seen = last;
        let left = notes.transactions_of_first_epoch;
        let skipped_to = (left < u32::MAX).then(|| Zxid::new(last.epoch() + 1, u32::MAX - left));
        let shards = notes.shards;
        notes.history.lives.push(Life { shards, started, recovered: last, skipped_to, ..Life::default() });
    }

    fn serves(&self, shard: &Shard) {
        if let Some(life) = self.notes().history.lives.last_mut() {
            add_to(&mut life.recovered_dump, shard);
        }
    }

    fn ends(&self, shard: &Shard) {
        let mut notes = self.notes();
        if !notes.ended {
            return;
        }
        if let Some(life) = notes.history.lives.last_mut() {
            add_to(life.final_dump.get_or_insert_default(), shard);
        }
    }
}

/// What a transaction was made for.
fn kind_of(txn: &Txn<'_>) -> CommittedKind {
    match txn.records().next() {
        Some(Ok(TxnRecord::CreateSession { timeout_ms, .. })) => CommittedKind::CreateSession { timeout_ms },
        Some(Ok(TxnRecord::MoveSession { timeout_ms, .. })) => CommittedKind::MoveSession { timeout_ms },
        Some(Ok(TxnRecord::CloseSession { .. })) => CommittedKind::CloseSession,
        Some(Ok(TxnRecord::OpenEpoch)) => CommittedKind::Nothing,
        _ => CommittedKind::Operation,
    }
}

/// Adds every node and every session of `shard`.
fn add_to(dump: &mut Dump, shard: &Shard) {
    let tree = shard.tree();
    for node in (0..tree.scan_end()).filter_map(|slot| tree.scan_at(slot)) {
        let stat = node.stat();
        let model = ModelNode {
            data: node.data().map(<[u8]>::to_vec),
            acl: tree.acls().get(node.acl()).entries().to_vec(),
            czxid: stat.czxid.wire(),
            mzxid: stat.mzxid.wire(),
            pzxid: stat.pzxid.wire(),
            ctime_ms: stat.ctime_ms,
            mtime_ms: stat.mtime_ms,
            version: stat.version,
            creates: stat.cversion,
            aversion: stat.aversion,
            ephemeral_owner: stat.ephemeral_owner,
        };
        dump.nodes.insert(node.path().to_owned(), model);
        let children = node.children().map(ChildSet::to_vec).unwrap_or_default();
        dump.children.insert(node.path().to_owned(), children);
    }
    let sessions: BTreeMap<SessionId, u32> =
        shard.sessions().iter().map(|(id, session)| (id, session.timeout_ms)).collect();
    if dump.shards == 0 {
        dump.sessions = sessions;
        dump.sessions_agree = true;
    } else {
        dump.sessions_agree &= dump.sessions == sessions;
    }
    dump.shards += 1;
}
