//! Connections between clients and server: bytes in order, in pieces, with delays; and the history of what clients saw.

use super::agenda::Event;
use super::checker::history::{ClientConnection, ClosedBy, History, Moment, Received, Sent};
use super::machine::{Delays, Machine};
use crate::base::prng::Prng;
use crate::base::{ConnectionId, Zxid};
use crate::protocol::jute::Input;
use crate::protocol::zookeeper::{FrameReader, ReplyHeader};
use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;

/// A piece on its way to the server.
#[derive(Debug)]
pub(super) enum Upward {
    Open,
    Bytes(Vec<u8>),
    Close,
}

/// A piece on its way to the client.
#[derive(Debug)]
pub(super) enum Downward {
    Bytes(Vec<u8>),
    Close,
}

/// What a client learns from a piece.
#[derive(Debug, Default)]
pub(super) struct Arrival {
    pub(super) frames: Vec<Vec<u8>>,
    pub(super) closed: bool,
}

#[derive(Debug)]
struct Wire {
    life: usize,
    server_end: Option<ConnectionId>,
    up: VecDeque<Upward>,
    up_last_us: u64,
    down: VecDeque<Downward>,
    down_last_us: u64,
    partial: Vec<u8>,
}

/// All connections of a run.
#[derive(Debug)]
pub(super) struct Network {
    prng: Prng,
    delays: Delays,
    wires: Vec<Wire>,
    by_server_end: BTreeMap<ConnectionId, usize>,
    /// The highest zxid in any frame that any client has received.
    pub(super) told: Zxid,
    pub(super) history: History,
    step: u64,
}

impl Network {
    pub(super) fn new(prng: Prng, delays: Delays, history: History) -> Network {
        Network { prng, delays, wires: Vec::new(), by_server_end: BTreeMap::new(), told: Zxid::ZERO, history, step: 0 }
    }

    /// A moment that comes after all earlier ones.
    pub(super) fn moment(&mut self, now_us: u64) -> Moment {
        self.step += 1;
        Moment { time_us: now_us, step: self.step }
    }

    /// A client opens a connection and sends its handshake, a whole frame. Returns the connection's number.
    pub(super) fn open(
        &mut self,
        machine: &mut Machine,
        client: usize,
        handshake: &[u8],
        wrong_password: bool,
    ) -> usize {
        let key = self.wires.len();
        let at = self.moment(machine.now_us);
        self.wires.push(Wire {
            life: machine.life,
            server_end: None,
            up: VecDeque::new(),
            up_last_us: 0,
            down: VecDeque::new(),
            down_last_us: 0,
            partial: Vec::new(),
        });
        self.history.connections.push(ClientConnection {
            client,
            life: machine.life,
            address: Ipv4Addr::new(10, 0, 0, client as u8 + 1),
            sent: vec![Sent { at, body: handshake[4..].to_vec(), broken_frame: false }],
            received: Vec::new(),
            closed: None,
            wrong_password,
        });
        self.push_up(machine, key, Upward::Open);
        self.push_bytes(machine, key, handshake);
        key
    }

    /// True while the client's end is open.
    pub(super) fn is_open(&self, key: usize) -> bool {
        self.history.connections[key].closed.is_none()
    }

    /// The client of a connection.
    pub(super) fn client_of(&self, key: usize) -> usize {
        self.history.connections[key].client
    }

    /// Connections whose client's end is open.
    pub(super) fn open_ones(&self) -> Vec<usize> {
        (0..self.wires.len()).filter(|key| self.is_open(*key)).collect()
    }

    /// The connection of a request, for the observer of commits.
    pub(super) fn key_of(&self, connection: ConnectionId) -> Option<usize> {
        self.by_server_end.get(&connection).copied()
    }

    /// A client sends bytes.
    pub(super) fn send(&mut self, machine: &mut Machine, key: usize, bytes: &[u8], broken_frame: bool) {
        if !self.is_open(key) {
            return;
        }
        let at = self.moment(machine.now_us);
        self.history.connections[key].sent.push(Sent { at, body: bytes[4..].to_vec(), broken_frame });
        self.push_bytes(machine, key, bytes);
    }

    fn push_bytes(&mut self, machine: &mut Machine, key: usize, bytes: &[u8]) {
        let cut = if self.prng.percent(15) { self.prng.below(bytes.len() as u64) as usize } else { 0 };
        let (head, tail) = bytes.split_at(cut);
        for piece in [head, tail].into_iter().filter(|piece| !piece.is_empty()) {
            self.push_up(machine, key, Upward::Bytes(piece.to_vec()));
        }
    }

    fn push_up(&mut self, machine: &mut Machine, key: usize, piece: Upward) {
        let wire = &mut self.wires[key];
        wire.up_last_us = (machine.now_us + self.prng.delay(10, self.delays.network_max)).max(wire.up_last_us);
        wire.up.push_back(piece);
        machine.agenda.push(wire.up_last_us, Event::ToServer(key));
    }

    /// The next piece for the server of this life, and which end of the server it is for.
    pub(super) fn next_up(&mut self, key: usize, life: usize) -> Option<(Upward, Option<ConnectionId>)> {
        let wire = &mut self.wires[key];
        if wire.life != life {
            return None;
        }
        Some((wire.up.pop_front()?, wire.server_end))
    }

    /// The server does not read now: the piece is offered again later.
    pub(super) fn put_back(&mut self, machine: &mut Machine, key: usize, piece: Upward) {
        self.wires[key].up.push_front(piece);
        machine.agenda.push(machine.now_us + 300, Event::ToServer(key));
    }

    /// The server accepted the connection under this name.
    pub(super) fn accepted(&mut self, key: usize, connection: ConnectionId) {
        self.wires[key].server_end = Some(connection);
        self.by_server_end.insert(connection, key);
    }

    /// The server sends bytes on a connection, and closes it after them if it says so.
    pub(super) fn send_down(&mut self, machine: &mut Machine, connection: ConnectionId, bytes: Vec<u8>, closes: bool) {
        let Some(key) = self.key_of(connection).filter(|key| self.is_open(*key)) else { return };
        let wire = &mut self.wires[key];
        let pieces = [Downward::Bytes(bytes), Downward::Close];
        for piece in pieces.into_iter().take(1 + usize::from(closes)) {
            wire.down_last_us = (machine.now_us + self.prng.delay(10, self.delays.network_max)).max(wire.down_last_us);
            wire.down.push_back(piece);
            machine.agenda.push(wire.down_last_us, Event::ToClient(key));
        }
    }

    /// The next piece for the client arrives.
    pub(super) fn arrive(&mut self, machine: &mut Machine, key: usize) -> Arrival {
        let mut arrival = Arrival::default();
        let Some(piece) = self.wires[key].down.pop_front() else { return arrival };
        let at = self.moment(machine.now_us);
        match piece {
            Downward::Close => {
                arrival.closed = true;
                self.closed(key, at, ClosedBy::Server);
            }
            Downward::Bytes(bytes) => {
                machine.trace.add(&bytes);
                let partial = &mut self.wires[key].partial;
                partial.extend_from_slice(&bytes);
                let mut frames = FrameReader::new(partial, i32::MAX as usize);
                while let Ok(Some(frame)) = frames.next() {
                    arrival.frames.push(frame.body.to_vec());
                }
                let consumed = frames.consumed();
                partial.drain(..consumed);
            }
        }
        for body in &arrival.frames {
            let at = self.moment(machine.now_us);
            let connection = &mut self.history.connections[key];
            if !connection.received.is_empty()
                && let Ok(header) = ReplyHeader::decode(&mut Input::new(body))
            {
                self.told = self.told.max(Zxid(header.zxid.max(0) as u64));
            }
            connection.received.push(Received { at, body: body.clone() });
        }
        arrival
    }

    fn closed(&mut self, key: usize, at: Moment, by: ClosedBy) {
        self.history.connections[key].closed.get_or_insert((at, by));
        self.wires[key].down.clear();
    }

    /// The client's end is gone; what it sent may still arrive, or be lost.
    pub(super) fn break_off(&mut self, machine: &mut Machine, key: usize) {
        let at = self.moment(machine.now_us);
        self.closed(key, at, ClosedBy::Client);
        if self.prng.percent(50) {
            self.wires[key].up.retain(|piece| matches!(piece, Upward::Open));
        }
        self.push_up(machine, key, Upward::Close);
    }

    /// The server of this life has crashed. Each client receives some of what was under way. Returns what arrived where.
    pub(super) fn crashed(&mut self, machine: &mut Machine, life: usize) -> Vec<(usize, Arrival)> {
        let mut arrivals = Vec::new();
        for key in self.open_ones().into_iter().filter(|key| self.wires[*key].life == life).collect::<Vec<_>>() {
            self.wires[key].up.clear();
            let pieces = self.prng.between(0, self.wires[key].down.len() as u64);
            let mut whole = Arrival::default();
            for _ in 0..pieces {
                let arrival = self.arrive(machine, key);
                whole.frames.extend(arrival.frames);
            }
            whole.closed = true;
            let at = self.moment(machine.now_us);
            self.closed(key, at, ClosedBy::Crash);
            arrivals.push((key, whole));
        }
        arrivals
    }
}
