//! One life of a server: the cores that production runs, carried by channels that the simulation delays.
//!
//! The duties of the drivers stand at the top of `processor::Sequencer` and `processor::Shard`; here they are fulfilled in
//! virtual time. Every channel is a FIFO; when its next message arrives is drawn.

use super::agenda::Inside;
use super::checker::history::{CommittedKind, Dump};
use super::checker::model::ModelNode;
use super::disk::Journal;
use super::machine::{Machine, Sending};
use crate::base::{ConnectionId, SessionId, ShardId, Zxid};
use crate::coordination::auth::AuthConfig;
use crate::coordination::processor::message::{Batch, PeerMessage, ToSequencer, ToShard};
use crate::coordination::processor::txn::{Txn, TxnRecord, batch_txns};
use crate::coordination::processor::{
    Sequencer, SequencerConfig, SequencerOutputs, Shard, ShardConfig, ShardOutputs, Target,
};
use crate::coordination::session::{SessionIds, SessionTable};
use crate::coordination::tree::{DataTree, ShardMap};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

/// Sessions of a simulated server expire in buckets of this.
pub(super) const TICK_MS: u32 = 50;
/// The least and the greatest session timeout that it grants.
pub(super) const SESSION_TIMEOUT_MS: (u32, u32) = (200, 2000);
/// How often a shard reports the sessions that it heard of.
pub(super) const SHARD_TICK_US_MAX: u64 = 40_000;

/// A server.
#[derive(Debug)]
pub(super) struct Server {
    boot: u64,
    shards: Vec<Shard>,
    sequencer: Sequencer,
    journal: Journal,
    to_sequencer: Vec<Fifo<ToSequencer>>,
    to_shard: Vec<Fifo<ToShard>>,
    peers: Vec<Vec<Fifo<PeerMessage>>>,
    /// Each shard's word about the oldest position that it may ask for, as the others see it.
    published: Vec<Zxid>,
    released: Zxid,
    advance_due: bool,
    /// The beginnings of frames, by connection.
    partial: BTreeMap<(usize, u64), Vec<u8>>,
    /// Until when a shard's executor does not turn.
    stalled_until_us: Vec<u64>,
}

/// Messages on their way, and when the last of them arrives.
#[derive(Debug)]
struct Fifo<T> {
    /// With the time of arrival.
    queue: VecDeque<(u64, T)>,
    last_us: u64,
}

impl<T> Fifo<T> {
    fn new() -> Self {
        Fifo { queue: VecDeque::new(), last_us: 0 }
    }

    /// Puts a message on its way; its arrival does not overtake the one before.
    fn push(&mut self, machine: &mut Machine, message: T, event: Inside) {
        let at_us = (machine.now_us + machine.channel_delay()).max(self.last_us);
        self.last_us = at_us;
        self.queue.push_back((at_us, message));
        machine.after(at_us - machine.now_us, event);
    }

    /// The next message, if it has arrived.
    fn pop(&mut self, machine: &Machine) -> Option<T> {
        self.queue.pop_front_if(|(at_us, _)| *at_us <= machine.now_us).map(|(_, message)| message)
    }
}

impl Server {
    /// Starts on what the disk holds, with `shards` shards. Returns the server and the last transaction that it recovered.
    pub(super) fn start(machine: &mut Machine, shards: u16, boot: u64) -> (Server, Zxid) {
        let map = ShardMap::new(shards, machine.schedule.any());
        let auth = Arc::new(AuthConfig {
            super_digest: Some(super::checker::access::SUPER_DIGEST.to_owned()),
            ..AuthConfig::default()
        });
        let shard = |id| {
            let config = ShardConfig {
                id,
                map: map.clone(),
                boot,
                auth: auth.clone(),
                packet_bytes_max: 0xf_ffff,
                session_timeout_ms_min: SESSION_TIMEOUT_MS.0,
                session_timeout_ms_max: SESSION_TIMEOUT_MS.1,
                sessionless_timeout_ms: 10_000,
                requests_per_connection_max: 12,
                output_bytes_max: 16 << 10,
            };
            Shard::new(config, DataTree::new(id, &map, boot), SessionTable::default(), Zxid::ZERO, Zxid::ZERO)
        };
        let mut cores: Vec<Shard> = map.all().map(shard).collect();
        let last = replay(machine, &mut cores);
        let config = SequencerConfig { local: ShardId(0), map: map.clone(), auth: auth.clone(), tick_ms: TICK_MS };
        let ids = SessionIds::new(1, machine.wall_ms());
        let sessions = cores[0].sessions().clone();
        let mut sequencer = Sequencer::new(config, last, sessions, ids, machine.now_ms());
        sequencer.open_epoch(machine.wall_ms());
        let count = usize::from(shards);
        let mut server = Server {
            boot,
            shards: cores,
            sequencer,
            journal: Journal::default(),
            to_sequencer: (0..count).map(|_| Fifo::new()).collect(),
            to_shard: (0..count).map(|_| Fifo::new()).collect(),
            peers: (0..count).map(|_| (0..count).map(|_| Fifo::new()).collect()).collect(),
            published: vec![last; count],
            released: last,
            advance_due: false,
            partial: BTreeMap::new(),
            stalled_until_us: vec![0; count],
        };
        server.start_clocks(machine);
        server.wake_sequencer(machine);
        (server, last)
    }

    fn start_clocks(&mut self, machine: &mut Machine) {
        for shard in 0..self.shards.len() {
            machine.after(0, Inside::ShardTick(shard));
            machine.after(0, Inside::Publish(shard));
            machine.after(0, Inside::Floor(shard));
        }
        machine.after(0, Inside::SequencerTick);
    }

    /// Number of shards.
    pub(super) fn shards_len(&self) -> usize {
        self.shards.len()
    }

    /// The executor of `shard` does not turn until then.
    pub(super) fn stall(&mut self, shard: usize, until_us: u64) {
        let until = &mut self.stalled_until_us[shard];
        *until = until_us.max(*until);
    }

    /// The machine fails.
    pub(super) fn crash(self, machine: &mut Machine, faults: &mut super::prng::Prng) {
        self.journal.crash(&mut machine.disk, faults);
    }

    /// Which executor carries out an event.
    fn executor_of(event: Inside) -> usize {
        match event {
            Inside::ToSequencer(_) | Inside::Advance | Inside::SequencerTick => 0,
            Inside::Written => 0,
            Inside::Peer(_, shard)
            | Inside::ToShard(shard)
            | Inside::Send(shard, _)
            | Inside::ShardTick(shard)
            | Inside::Publish(shard)
            | Inside::Floor(shard) => shard,
        }
    }

    /// Carries out an event.
    pub(super) fn on_event(&mut self, machine: &mut Machine, event: Inside) {
        let until_us = self.stalled_until_us[Self::executor_of(event)];
        if machine.now_us < until_us {
            return machine.after(until_us - machine.now_us, event);
        }
        match event {
            Inside::ToSequencer(from) => {
                if let Some(message) = self.to_sequencer[from].pop(machine) {
                    self.give_sequencer(machine, from, message);
                }
            }
            Inside::ToShard(shard) => {
                if let Some(message) = self.to_shard[shard].pop(machine) {
                    self.on_sequencer(machine, shard, &message);
                }
            }
            Inside::Peer(from, to) => {
                if let Some(message) = self.peers[from][to].pop(machine) {
                    self.with_shard(machine, to, |core, out| core.on_peer(ShardId(from as u16), message, out));
                }
            }
            Inside::Advance => self.advance(machine),
            Inside::Written => {
                let durable = self.journal.written(&mut machine.disk);
                let mut out = SequencerOutputs::default();
                self.sequencer.durable(durable, &mut out);
                self.deliver(machine, out);
                self.wake_sequencer(machine);
                self.flush(machine);
            }
            Inside::Send(shard, number) => self.send(machine, shard, number),
            Inside::ShardTick(shard) => {
                let now_ms = machine.now_ms();
                self.with_shard(machine, shard, |core, out| core.tick(now_ms, out));
                let delay_us = machine.schedule.between(SHARD_TICK_US_MAX / 2, SHARD_TICK_US_MAX);
                machine.after(delay_us, event);
            }
            Inside::SequencerTick => self.sequencer_tick(machine),
            Inside::Publish(shard) => {
                self.published[shard] = self.shards[shard].published();
                let delay_us = machine.schedule.delay(100, machine.delays.floor_max);
                machine.after(delay_us, event);
            }
            Inside::Floor(shard) => {
                let floor = self.published.iter().min().copied().unwrap_or_default();
                self.shards[shard].set_floor(floor);
                let delay_us = machine.schedule.delay(100, machine.delays.floor_max);
                machine.after(delay_us, event);
            }
        }
    }

    fn with_shard(&mut self, machine: &mut Machine, shard: usize, step: impl FnOnce(&mut Shard, &mut ShardOutputs)) {
        let mut out = ShardOutputs::default();
        step(&mut self.shards[shard], &mut out);
        self.collect(machine, shard, out);
    }

    fn on_sequencer(&mut self, machine: &mut Machine, shard: usize, message: &ToShard) {
        let mut result = Ok(());
        self.with_shard(machine, shard, |core, out| result = core.on_sequencer(message, out));
        if let Err(error) = result {
            machine.stopped = Some(error.to_string());
        }
    }

    /// Puts what a shard gave out on its way.
    fn collect(&mut self, machine: &mut Machine, shard: usize, out: ShardOutputs) {
        for message in out.to_sequencer {
            self.to_sequencer[shard].push(machine, message, Inside::ToSequencer(shard));
        }
        for (to, message) in out.to_peers {
            self.peers[shard][to.index()].push(machine, message, Inside::Peer(shard, to.index()));
        }
        for number in out.dirty {
            if machine.schedule.percent(70) {
                self.send(machine, shard, number);
            } else {
                let delay_us = machine.channel_delay();
                machine.after(delay_us, Inside::Send(shard, number));
            }
        }
    }

    /// Hands what a connection has coming to its socket; `released` is raised before.
    fn send(&mut self, machine: &mut Machine, shard: usize, number: u64) {
        let core = &mut self.shards[shard];
        let (bytes, zxid) = core.take_output(number, Vec::new());
        self.released = self.released.max(zxid);
        let closes = core.is_finished(number);
        let connection = ConnectionId { boot: self.boot, shard: ShardId(shard as u16), number };
        if closes {
            core.disconnect(number);
            self.partial.remove(&(shard, number));
        }
        if closes || !bytes.is_empty() {
            machine.sendings.push(Sending { connection, bytes, closes });
        }
    }

    fn give_sequencer(&mut self, machine: &mut Machine, from: usize, message: ToSequencer) {
        let mut out = SequencerOutputs::default();
        self.sequencer.receive(ShardId(from as u16), message, machine.now_ms(), &mut out);
        self.deliver(machine, out);
        self.wake_sequencer(machine);
    }

    fn sequencer_tick(&mut self, machine: &mut Machine) {
        // Queued touches are read first (rule B13).
        for from in 0..self.shards.len() {
            while let Some(message) = self.to_sequencer[from].pop(machine) {
                self.give_sequencer(machine, from, message);
            }
        }
        let mut out = SequencerOutputs::default();
        self.sequencer.tick(machine.now_ms(), &mut out);
        self.deliver(machine, out);
        self.wake_sequencer(machine);
        let delay_us = machine.schedule.between(u64::from(TICK_MS) * 400, u64::from(TICK_MS) * 1000);
        machine.after(delay_us, Inside::SequencerTick);
    }

    /// Lets the sequencer validate soon; what arrives before is validated together with it.
    fn wake_sequencer(&mut self, machine: &mut Machine) {
        if !std::mem::replace(&mut self.advance_due, true) {
            let delay_us = machine.schedule.delay(0, 200);
            machine.after(delay_us, Inside::Advance);
        }
    }

    fn advance(&mut self, machine: &mut Machine) {
        self.advance_due = false;
        let mut out = SequencerOutputs::default();
        self.sequencer.advance(&self.shards[0], machine.now_ms(), machine.wall_ms(), &mut out);
        let journal = &mut self.journal;
        self.sequencer.new_proposals(|zxid, record| journal.append(zxid, record));
        self.deliver(machine, out);
        self.flush(machine);
    }

    fn flush(&mut self, machine: &mut Machine) {
        if self.journal.begin() {
            let delay_us = machine.flush_delay();
            machine.after(delay_us, Inside::Written);
        }
    }

    fn deliver(&mut self, machine: &mut Machine, out: SequencerOutputs) {
        for (target, message) in out.messages {
            match target {
                Target::One(shard) => {
                    self.to_shard[shard.index()].push(machine, message, Inside::ToShard(shard.index()));
                }
                Target::All => {
                    if let ToShard::Batch(batch) = &message {
                        note_committed(machine, batch);
                    }
                    for shard in 1..self.shards.len() {
                        self.to_shard[shard].push(machine, message.clone(), Inside::ToShard(shard));
                    }
                    self.on_sequencer(machine, 0, &message);
                }
            }
        }
    }

    /// A client connects.
    pub(super) fn connect(&mut self, machine: &mut Machine, peer: IpAddr) -> ConnectionId {
        let shard = machine.schedule.below(self.shards.len() as u64) as usize;
        let number = self.shards[shard].connect(peer, machine.now_ms());
        ConnectionId { boot: self.boot, shard: ShardId(shard as u16), number }
    }

    /// False when the socket is not read now: its requests or its output have piled up, or its executor does not turn.
    pub(super) fn reads(&self, machine: &Machine, connection: ConnectionId) -> bool {
        let shard = connection.shard.index();
        machine.now_us >= self.stalled_until_us[shard]
            && (self.shards[shard].wants_bytes(connection.number) || self.shards[shard].is_finished(connection.number))
    }

    /// Bytes of a client arrive. `told` is the newest state that a client of this life has been told of: `released` is at
    /// least that wherever it is read. Gives back what the connection does not want now.
    pub(super) fn receive(
        &mut self,
        machine: &mut Machine,
        connection: ConnectionId,
        bytes: &[u8],
        told: Zxid,
    ) -> Option<Vec<u8>> {
        let (shard, number) = (connection.shard.index(), connection.number);
        self.shards[shard].connection_state(number)?;
        let released = if machine.schedule.percent(50) { told } else { self.released };
        let mut buffer = self.partial.remove(&(shard, number)).unwrap_or_default();
        buffer.extend_from_slice(bytes);
        let mut consumed = Ok(0);
        self.with_shard(machine, shard, |core, out| consumed = core.receive(number, &buffer, released, out));
        // An error has closed the connection.
        if let Ok(consumed) = consumed
            && consumed < buffer.len()
        {
            buffer.drain(..consumed);
            if !self.shards[shard].wants_bytes(number) {
                return Some(buffer);
            }
            self.partial.insert((shard, number), buffer);
        }
        None
    }

    /// The client's end of a connection is gone.
    pub(super) fn disconnect(&mut self, connection: ConnectionId) {
        self.shards[connection.shard.index()].disconnect(connection.number);
        self.partial.remove(&(connection.shard.index(), connection.number));
    }

    /// The whole state, as of what every shard has applied.
    pub(super) fn dump(&self) -> Dump {
        dump(&self.shards)
    }

    /// True when every shard has applied everything that was proposed.
    pub(super) fn is_settled(&self) -> bool {
        let last = self.sequencer.last();
        self.sequencer.queued() == 0 && self.shards.iter().all(|shard| shard.applied() == last)
    }
}

/// Applies what the disk holds. Returns the last transaction.
fn replay(machine: &mut Machine, shards: &mut [Shard]) -> Zxid {
    let mut last = Zxid::ZERO;
    for (zxid, record) in machine.disk.recover() {
        let mut bytes = (record.len() as u32).to_le_bytes().to_vec();
        bytes.extend_from_slice(record);
        let batch = ToShard::Batch(Batch { txns: Bytes::from(bytes), marks: Vec::new() });
        for shard in &mut *shards {
            if let Err(error) = shard.on_sequencer(&batch, &mut ShardOutputs::default()) {
                machine.stopped = Some(error.to_string());
            }
        }
        last = *zxid;
    }
    shards.iter_mut().for_each(Shard::start_serving);
    last
}

fn note_committed(machine: &mut Machine, batch: &Batch) {
    for txn in batch_txns(&batch.txns).flatten() {
        machine.committed.push((txn.header, kind_of(&txn)));
    }
}

/// What a transaction was made for.
pub(super) fn kind_of(txn: &Txn<'_>) -> CommittedKind {
    match txn.records().next() {
        Some(Ok(TxnRecord::CreateSession { timeout_ms, .. })) => CommittedKind::CreateSession { timeout_ms },
        Some(Ok(TxnRecord::MoveSession { timeout_ms, .. })) => CommittedKind::MoveSession { timeout_ms },
        Some(Ok(TxnRecord::CloseSession { .. })) => CommittedKind::CloseSession,
        Some(Ok(TxnRecord::OpenEpoch)) => CommittedKind::Nothing,
        _ => CommittedKind::Operation,
    }
}

/// Every node and every session that `shards` hold.
pub(super) fn dump(shards: &[Shard]) -> Dump {
    let mut dump = Dump::default();
    for shard in shards {
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
            let mut children: Vec<String> =
                node.children().into_iter().flat_map(|set| set.iter()).map(str::to_owned).collect();
            children.sort_unstable();
            dump.children.insert(node.path().to_owned(), children);
        }
    }
    let sessions = |shard: &Shard| -> BTreeMap<SessionId, u32> {
        shard.sessions().iter().map(|(id, session)| (id, session.timeout_ms)).collect()
    };
    dump.sessions = sessions(&shards[0]);
    dump.sessions_agree = shards.iter().all(|shard| sessions(shard) == dump.sessions);
    dump
}
