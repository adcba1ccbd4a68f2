//! One life of a server: the cores that production runs, carried by channels that the simulation delays.
//!
//! The duties of the drivers stand at the top of `processor::Sequencer` and `processor::Shard`; here they are fulfilled in
//! virtual time. Every channel is a FIFO; when its next message arrives is drawn.

use super::agenda::Inside;
use super::checker::history::Dump;
use super::journal::{self, Journal};
use super::machine::{Machine, Sending};
use super::prng::Prng;
use super::recovery::{Recovered, dump, kind_of, recover};
use super::snapshots::Snapshots;
use crate::base::{ConnectionId, ShardId, Zxid, coverage};
use crate::coordination::persistence::log_writer::{LogError, Refusal};
use crate::coordination::processor::message::{Batch, ToSequencer, ToShard, WriteBody, WriteRequest};
use crate::coordination::processor::peer::PeerMessage;
use crate::coordination::processor::request_pack::RequestPack;
use crate::coordination::processor::txn::batch_txns;
use crate::coordination::processor::{Sequencer, SequencerConfig, SequencerOutputs, Shard, ShardOutputs, Target};
use crate::coordination::session::SessionIds;
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

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
    snapshots: Snapshots,
    to_sequencer: Vec<Fifo<ToSequencer>>,
    to_shard: Vec<Fifo<Mail>>,
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

/// What travels in the FIFO to a shard.
#[derive(Debug)]
enum Mail {
    Core(ToShard),
    SnapshotWanted,
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
    pub(super) fn start(machine: &mut Machine, shards: u16, boot: u64) -> Result<(Server, Zxid), String> {
        let Recovered { map, auth, shards, log, last, replayed, broken } = recover(machine, shards, boot)?;
        // Nothing, a few records, or all of them.
        let remembered_bytes_max = [0, 2 << 10, 1 << 20][machine.schedule.between(0, 2) as usize];
        let config = SequencerConfig { local: ShardId(0), map, auth, tick_ms: TICK_MS, remembered_bytes_max };
        let ids = SessionIds::new(1, machine.wall_ms());
        let sessions = shards[0].sessions().clone();
        let mut sequencer = Sequencer::new(config, last, sessions, ids, machine.now_ms());
        sequencer.open_epoch(machine.wall_ms());
        if machine.schedule.percent(5) {
            let left = machine.schedule.between(1, 60) as u32;
            let near_end = Zxid::new(sequencer.last().epoch(), u32::MAX - left);
            sequencer.skip_to(near_end);
            machine.skipped_to = Some(near_end);
        }
        let count = shards.len();
        let mut server = Server {
            boot,
            shards,
            sequencer,
            journal: Journal::start(machine, &log)?,
            snapshots: Snapshots::new(replayed, broken, machine.schedule.any()),
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
        Ok((server, last))
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
    pub(super) fn crash(self, machine: &mut Machine, faults: &mut Prng) -> Result<(), String> {
        let flushed = self.journal.crash(&mut machine.disk, faults);
        let from = machine.disk.manifests().first().copied().unwrap_or(Zxid::ZERO);
        journal::damage_is_noticed(&machine.disk, &flushed, from, faults)?;
        if faults.percent(15) {
            machine.disk.rot_snapshot(faults);
        }
        Ok(())
    }

    /// Which executor carries out an event.
    fn executor_of(event: Inside) -> usize {
        match event {
            Inside::ToSequencer(_) | Inside::Advance | Inside::SequencerTick => 0,
            Inside::Written | Inside::SegmentMade | Inside::LogIdle | Inside::Recycle => 0,
            Inside::Peer(_, shard)
            | Inside::ToShard(shard)
            | Inside::Send(shard, _)
            | Inside::ShardTick(shard)
            | Inside::Publish(shard)
            | Inside::Floor(shard)
            | Inside::SnapshotSlice(shard) => shard,
            Inside::SnapshotPart => 0,
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
                if let Some(mail) = self.to_shard[shard].pop(machine) {
                    match mail {
                        Mail::Core(message) => self.on_sequencer(machine, shard, &message),
                        Mail::SnapshotWanted => self.begin_part(machine, shard),
                    }
                }
            }
            Inside::Peer(from, to) => {
                if let Some(message) = self.peers[from][to].pop(machine) {
                    self.with_shard(machine, to, |core, out| core.on_peer(ShardId(from as u16), message, out));
                }
            }
            Inside::Advance => self.advance(machine),
            Inside::Written | Inside::SegmentMade | Inside::LogIdle | Inside::Recycle => self.on_disk(machine, event),
            Inside::SnapshotSlice(shard) => self.snapshot_slice(machine, shard),
            Inside::SnapshotPart => self.publish_snapshot(machine),
            Inside::Send(shard, number) => self.send(machine, shard, number),
            Inside::ShardTick(shard) => self.shard_tick(machine, shard),
            Inside::SequencerTick => self.sequencer_tick(machine),
            Inside::Publish(shard) => self.publish(machine, shard),
            Inside::Floor(shard) => self.look_at_floor(machine, shard),
        }
    }

    /// What the disk was doing for the log is done.
    fn on_disk(&mut self, machine: &mut Machine, event: Inside) {
        match event {
            Inside::Written => match self.journal.written(machine) {
                Ok(durable) => self.durable(machine, durable),
                Err(_) => machine.log_stopped = true,
            },
            Inside::SegmentMade => {
                let result = self.journal.segment_made(machine);
                self.log_event(machine, result);
            }
            Inside::LogIdle => {
                let result = self.journal.idle(machine);
                self.log_event(machine, result);
            }
            _ => self.journal.recycle_one(machine),
        }
    }

    fn shard_tick(&mut self, machine: &mut Machine, shard: usize) {
        let now_ms = machine.now_ms();
        self.with_shard(machine, shard, |core, out| core.tick(now_ms, out));
        let delay_us = machine.schedule.between(SHARD_TICK_US_MAX / 2, SHARD_TICK_US_MAX);
        machine.after(delay_us, Inside::ShardTick(shard));
    }

    fn publish(&mut self, machine: &mut Machine, shard: usize) {
        self.published[shard] = self.shards[shard].published();
        let delay_us = machine.schedule.delay(100, machine.delays.floor_max);
        machine.after(delay_us, Inside::Publish(shard));
    }

    fn look_at_floor(&mut self, machine: &mut Machine, shard: usize) {
        let floor = self.published.iter().min().copied().unwrap_or_default();
        self.shards[shard].set_floor(floor);
        let delay_us = machine.schedule.delay(100, machine.delays.floor_max);
        machine.after(delay_us, Inside::Floor(shard));
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
            let messages = if machine.schedule.percent(50) { one_by_one(message) } else { vec![message] };
            for message in messages {
                self.to_sequencer[shard].push(machine, message, Inside::ToSequencer(shard));
            }
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
        let mut out = ShardOutputs::default();
        let (bytes, zxid) = core.take_output(number, Vec::new(), &mut out);
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
        self.collect(machine, shard, out);
    }

    fn give_sequencer(&mut self, machine: &mut Machine, from: usize, message: ToSequencer) {
        self.sequencer.receive(ShardId(from as u16), message, machine.now_ms());
        self.wake_sequencer(machine);
    }

    fn sequencer_tick(&mut self, machine: &mut Machine) {
        // Queued touches are read first (rule B13).
        for from in 0..self.shards.len() {
            while let Some(message) = self.to_sequencer[from].pop(machine) {
                self.give_sequencer(machine, from, message);
            }
        }
        self.sequencer.tick(machine.now_ms());
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

    fn durable(&mut self, machine: &mut Machine, zxid: Zxid) {
        let mut out = SequencerOutputs::default();
        self.sequencer.durable(zxid, &mut out);
        self.deliver(machine, out);
        self.publish_snapshot(machine);
        self.wake_sequencer(machine);
    }

    /// The log has moved on: it may have room now.
    fn log_event(&mut self, machine: &mut Machine, result: Result<(), LogError>) {
        match result {
            Ok(()) => self.wake_sequencer(machine),
            Err(_) => machine.log_stopped = true,
        }
    }

    fn advance(&mut self, machine: &mut Machine) {
        self.advance_due = false;
        if !self.admit(machine) {
            return;
        }
        let mut out = SequencerOutputs::default();
        self.sequencer.advance(&self.shards[0], machine.now_ms(), machine.wall_ms(), &mut out);
        let (journal, mut result) = (&mut self.journal, Ok(()));
        self.sequencer.new_proposals(|zxid, record| {
            if result.is_ok() {
                result = journal.append(zxid, record);
            }
        });
        self.deliver(machine, out);
        if result.and_then(|()| self.journal.drive(machine)).is_err() {
            machine.log_stopped = true;
        }
    }

    /// Asks the log for room before anything is validated (rule B11). False when nothing must be validated now.
    fn admit(&mut self, machine: &mut Machine) -> bool {
        // Whoever refuses asks again even when nothing is queued: expiry waits for room, too, and queues nothing meanwhile.
        if self.sequencer.queued() == 0 && machine.refusing_since_us.is_none() {
            return true;
        }
        const TXN_OVERHEAD_BYTES: usize = 512;
        let wanted = self.sequencer.queued_bytes() + self.sequencer.queued() * TXN_OVERHEAD_BYTES;
        let admitted = self.journal.admits(wanted);
        match admitted {
            Ok(()) => {
                machine.set_refusing(false);
                self.sequencer.set_refusing(false);
            }
            Err(Refusal::NoSpace(_)) => {
                coverage::mark("writes-refused");
                machine.set_refusing(true);
                self.sequencer.set_refusing(true);
            }
            // The next flush or segment makes room, and wakes the sequencer.
            Err(Refusal::Busy) => {
                if self.journal.drive(machine).is_err() {
                    machine.log_stopped = true;
                }
                return false;
            }
            Err(Refusal::Stopped(_)) => machine.log_stopped = true,
        }
        true
    }

    fn deliver(&mut self, machine: &mut Machine, out: SequencerOutputs) {
        for (target, message) in out.messages {
            match target {
                Target::One(shard) => {
                    let mail = Mail::Core(message);
                    self.to_shard[shard.index()].push(machine, mail, Inside::ToShard(shard.index()));
                }
                Target::All => {
                    let committed = match &message {
                        ToShard::Batch(batch) => note_committed(machine, batch),
                        ToShard::Lookup(_) => 0,
                    };
                    for shard in 1..self.shards.len() {
                        let mail = Mail::Core(message.clone());
                        self.to_shard[shard].push(machine, mail, Inside::ToShard(shard));
                    }
                    self.on_sequencer(machine, 0, &message);
                    if self.snapshots.committed(committed, machine.schedule.any()) {
                        self.begin_snapshot(machine);
                    }
                }
            }
        }
    }

    /// Every shard is asked for its part, through the FIFO of the commits: all of them have applied the start by then.
    fn begin_snapshot(&mut self, machine: &mut Machine) {
        self.snapshots.begin(self.shards[0].applied(), self.shards.len());
        for shard in 1..self.shards.len() {
            self.to_shard[shard].push(machine, Mail::SnapshotWanted, Inside::ToShard(shard));
        }
        self.begin_part(machine, 0);
    }

    fn begin_part(&mut self, machine: &mut Machine, shard: usize) {
        self.snapshots.begin_part(shard, &self.shards[shard]);
        machine.after(0, Inside::SnapshotSlice(shard));
    }

    fn snapshot_slice(&mut self, machine: &mut Machine, shard: usize) {
        let records = machine.schedule.between(1, 6);
        match self.snapshots.slice(shard, &self.shards[shard], records, &mut machine.disk) {
            Err(fault) => machine.stopped = Some(fault),
            Ok(true) => {
                let delay_us = machine.channel_delay();
                machine.after(delay_us, Inside::SnapshotPart);
            }
            Ok(false) => {
                let delay_us = machine.schedule.delay(20, 3_000);
                machine.after(delay_us, Inside::SnapshotSlice(shard));
            }
        }
    }

    fn publish_snapshot(&mut self, machine: &mut Machine) {
        if let Some(oldest) = self.snapshots.publish(self.journal.durable(), &mut machine.disk) {
            self.journal.purge_below(machine, Zxid(oldest.0 + 1));
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

/// The same message, with requests that are packed together taken apart, so that anything may happen in between.
fn one_by_one(message: ToSequencer) -> Vec<ToSequencer> {
    let ToSequencer::Requests(pack) = message else { return vec![message] };
    let alone = |mut request: WriteRequest| {
        let record = match &mut request.body {
            WriteBody::Operation { record, .. } => std::mem::take(record),
            _ => Bytes::new(),
        };
        let mut pack = RequestPack::default();
        pack.push(request, &record);
        ToSequencer::Requests(pack)
    };
    pack.into_requests().map(alone).collect()
}

fn note_committed(machine: &mut Machine, batch: &Batch) -> u64 {
    let before = machine.committed.len();
    for txn in batch_txns(&batch.txns).flatten() {
        machine.committed.push((txn.header, kind_of(&txn)));
    }
    (machine.committed.len() - before) as u64
}
