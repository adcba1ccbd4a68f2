//! The network of a world: hosts, listening sockets, and connections between them.
//!
//! A connection is two pipes. Bytes travel in pieces; each piece arrives some time after it was sent, and none overtakes another of
//! its pipe. A pipe holds a bounded number of bytes, under way or not yet read, so a reader that does not read blocks its writer.
//!
//! A direction between two hosts can be cut: what is sent then waits, as TCP sends again, and arrives after the cut has healed. A host that
//! loses power leaves half-open connections: the other end hears nothing until it sends something to a host that is up again.

use super::{Timer, World, current, is_active, pause_us};
use crate::base::prng::Prng;
use slab::Slab;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::task::{Context, Poll, Waker};

/// Pause after which a piece that met a cut tries again.
const RETRY_US: u64 = 3_000;
/// Ports that the kernel chooses from.
const FIRST_CHOSEN_PORT: u16 = 40_000;
/// Connections that wait to be accepted.
const BACKLOG: usize = 128;

/// A host of a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostId(u16);

impl HostId {
    /// The host of the world's own tasks.
    pub const NONE: HostId = HostId(0);

    /// Host `number`, from 1.
    pub const fn new(number: u16) -> HostId {
        HostId(number)
    }

    /// Its address.
    pub fn address(self) -> Ipv4Addr {
        let [high, low] = self.0.to_be_bytes();
        Ipv4Addr::new(10, 0, high, low)
    }

    fn at(address: IpAddr) -> Option<HostId> {
        match address {
            IpAddr::V4(address) => match address.octets() {
                [10, 0, high, low] => Some(HostId(u16::from_be_bytes([high, low]))),
                _ => None,
            },
            IpAddr::V6(_) => None,
        }
    }
}

/// One direction of a connection: towards this end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Direction {
    connection: usize,
    usage: u64,
    end: usize,
}

enum Piece {
    Bytes(Vec<u8>),
    /// The other end sends nothing more.
    End,
    /// The other end is gone.
    Reset,
}

/// What comes towards one end of a connection.
#[derive(Default)]
struct Pipe {
    under_way: VecDeque<(u64, Piece)>,
    last_us: u64,
    arrived: VecDeque<u8>,
    /// Bytes under way and arrived.
    held_bytes: usize,
    ended: bool,
    reset: bool,
    reader: Option<Waker>,
    /// Waits for room.
    writer: Option<Waker>,
}

struct End {
    host: HostId,
    /// Towards this end.
    pipe: Pipe,
    /// This end neither reads nor sends any more.
    closed: bool,
    /// This end sends nothing more.
    shut: bool,
    /// The host of this end has lost its memory of it.
    vanished: bool,
}

struct Connection {
    usage: u64,
    ends: [End; 2],
}

struct Listening {
    /// A socket a shard.
    sockets: Vec<Backlog>,
    live: usize,
}

#[derive(Default)]
struct Backlog {
    waiting: VecDeque<SimulatedSocket>,
    acceptor: Option<Waker>,
    closed: bool,
}

/// Bounds of a world's network.
#[derive(Clone, Copy, Debug)]
struct Limits {
    delay_us_max: u64,
    pipe_bytes_max: usize,
    mesh_delay_us_max: u64,
}

struct State {
    prng: Prng,
    limits: Limits,
    listening: BTreeMap<(HostId, u16), Listening>,
    connections: Slab<Connection>,
    next_usage: u64,
    next_port: u16,
    cut: BTreeSet<(HostId, HostId)>,
    down: BTreeSet<HostId>,
    clocks_ms: BTreeMap<HostId, i64>,
}

/// The network of a world.
pub struct Network {
    state: RefCell<State>,
}

impl Network {
    pub(super) fn new(mut prng: Prng) -> Network {
        let limits = Limits {
            delay_us_max: prng.choose(&[100, 600, 5_000]),
            pipe_bytes_max: prng.choose(&[700, 8 << 10, 64 << 10, 256 << 10]),
            mesh_delay_us_max: prng.choose(&[20, 200, 5_000]),
        };
        Network {
            state: RefCell::new(State {
                prng,
                limits,
                listening: BTreeMap::new(),
                connections: Slab::new(),
                next_usage: 0,
                next_port: FIRST_CHOSEN_PORT,
                cut: BTreeSet::new(),
                down: BTreeSet::new(),
                clocks_ms: BTreeMap::new(),
            }),
        }
    }

    /// Longest time that a batch between two shards is under way.
    pub(super) fn mesh_delay_us_max(&self) -> u64 {
        self.state.borrow().limits.mesh_delay_us_max
    }

    /// Longest time that a piece is under way between two hosts that reach each other.
    pub fn delay_us_max(&self) -> u64 {
        self.state.borrow().limits.delay_us_max
    }

    /// What is sent from one host to the other waits.
    pub fn cut(&self, from: HostId, to: HostId) {
        self.state.borrow_mut().cut.insert((from, to));
    }

    /// What was sent goes on.
    pub fn heal(&self, from: HostId, to: HostId) {
        self.state.borrow_mut().cut.remove(&(from, to));
    }

    /// All cuts are healed.
    pub fn heal_all(&self) {
        self.state.borrow_mut().cut.clear();
    }

    /// Steps the wall clock of a host.
    pub fn step_wall_clock(&self, host: HostId, by_ms: i64) {
        *self.state.borrow_mut().clocks_ms.entry(host).or_default() += by_ms;
    }

    /// How far the wall clock of a host is ahead of the world's.
    pub fn wall_clock_offset_ms(&self, host: HostId) -> i64 {
        self.state.borrow().clocks_ms.get(&host).copied().unwrap_or(0)
    }

    /// The host comes back, and remembers no connection.
    pub fn host_up(&self, host: HostId) {
        self.state.borrow_mut().down.remove(&host);
    }

    /// The host is gone without a word.
    pub(super) fn host_down(&self, host: HostId) {
        let forgotten: Vec<Listening> = {
            let mut state = self.state.borrow_mut();
            state.down.insert(host);
            for (_, connection) in &mut state.connections {
                for end in &mut connection.ends {
                    end.vanished |= end.host == host;
                }
            }
            let of_host = |(of, _): &&(HostId, u16)| *of == host;
            let keys: Vec<_> = state.listening.keys().filter(of_host).copied().collect();
            keys.into_iter().filter_map(|key| state.listening.remove(&key)).collect()
        };
        // Connections that waited to be accepted close here, and come back to the network for it.
        drop(forgotten);
    }

    /// Connections between two hosts, or of one with any: each is reset at both ends.
    pub fn reset(&self, world: &World, between: impl Fn(HostId, HostId) -> bool) {
        let found: Vec<Direction> = {
            let state = self.state.borrow();
            let hit = |connection: &&Connection| between(connection.ends[0].host, connection.ends[1].host);
            let directions = |(key, connection): (usize, &Connection)| {
                [0, 1].map(|end| Direction { connection: key, usage: connection.usage, end })
            };
            state.connections.iter().filter(|(_, connection)| hit(connection)).flat_map(directions).collect()
        };
        for direction in found {
            self.state.borrow_mut().send(world, direction, Piece::Reset);
        }
    }

    pub(super) fn clear(&self) {
        let gone = {
            let mut state = self.state.borrow_mut();
            (std::mem::take(&mut state.listening), std::mem::take(&mut state.connections))
        };
        drop(gone);
    }

    /// A connection request has come to `peer_host`. `None` when nobody hears it, or has room for it; an error when nobody listens.
    fn offer(
        &self,
        world: &World,
        host: HostId,
        peer_host: HostId,
        address: SocketAddr,
    ) -> io::Result<Option<SimulatedSocket>> {
        let (socket, acceptor) = {
            let mut state = self.state.borrow_mut();
            let is_cut = state.cut.contains(&(host, peer_host)) || state.cut.contains(&(peer_host, host));
            if is_cut || state.down.contains(&peer_host) {
                return Ok(None);
            }
            state.join(world, host, peer_host, address).ok_or(io::ErrorKind::ConnectionRefused)?
        };
        acceptor.into_iter().for_each(Waker::wake);
        Ok(socket)
    }

    /// The next piece in this direction arrives, unless the way is cut.
    pub(super) fn arrive(&self, world: &World, direction: Direction) {
        let mut wakers = Vec::new();
        {
            let mut state = self.state.borrow_mut();
            let state = &mut *state;
            let Some(connection) = state.connections.get_mut(direction.connection) else { return };
            if connection.usage != direction.usage {
                return;
            }
            let (from, to) = (connection.ends[1 - direction.end].host, connection.ends[direction.end].host);
            if state.cut.contains(&(from, to)) || state.down.contains(&to) {
                world.at(world.now_us() + RETRY_US, Timer::Arrival(direction));
                return;
            }
            let end = &mut connection.ends[direction.end];
            let Some((_, piece)) = end.pipe.under_way.pop_front() else { return };
            let nobody = end.vanished || end.closed;
            match piece {
                Piece::Bytes(bytes) if nobody => {
                    end.pipe.held_bytes -= bytes.len();
                    let back = Direction { end: 1 - direction.end, ..direction };
                    state.send(world, back, Piece::Reset);
                }
                _ if nobody => {}
                Piece::Bytes(bytes) => end.pipe.arrived.extend(bytes),
                Piece::End => end.pipe.ended = true,
                Piece::Reset => {
                    end.pipe.reset = true;
                    let other = &mut state.connections[direction.connection].ends[1 - direction.end];
                    wakers.extend(other.pipe.writer.take());
                }
            }
            if let Some(connection) = state.connections.get_mut(direction.connection) {
                wakers.extend(connection.ends[direction.end].pipe.reader.take());
            }
            state.forget_if_over(direction.connection);
        }
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl State {
    fn send(&mut self, world: &World, direction: Direction, piece: Piece) {
        let delay_us = self.prng.delay(5, self.limits.delay_us_max);
        let Some(connection) = self.connections.get_mut(direction.connection) else { return };
        if connection.usage != direction.usage {
            return;
        }
        let pipe = &mut connection.ends[direction.end].pipe;
        pipe.last_us = (world.now_us() + delay_us).max(pipe.last_us);
        pipe.under_way.push_back((pipe.last_us, piece));
        world.at(pipe.last_us, Timer::Arrival(direction));
    }

    /// A connection is forgotten when neither end knows it and nothing is under way.
    fn forget_if_over(&mut self, key: usize) {
        let over = self.connections.get(key).is_some_and(|connection| {
            connection.ends.iter().all(|end| (end.closed || end.vanished) && end.pipe.under_way.is_empty())
        });
        if over {
            self.connections.remove(key);
        }
    }

    fn chosen_port(&mut self) -> u16 {
        let port = self.next_port;
        self.next_port = if port == u16::MAX { FIRST_CHOSEN_PORT } else { port + 1 };
        port
    }
}

/// One end of a simulated connection. Dropping it closes it.
pub(in crate::runtime) struct SimulatedSocket {
    direction: Direction,
    local: SocketAddr,
    peer: SocketAddr,
    closed: Cell<bool>,
}

impl SimulatedSocket {
    pub(in crate::runtime) fn local_addr(&self) -> SocketAddr {
        self.local
    }

    pub(in crate::runtime) fn peer_addr(&self) -> SocketAddr {
        self.peer
    }

    pub(in crate::runtime) fn is_closed(&self) -> bool {
        self.closed.get()
    }

    fn with<T>(&self, gone: T, work: impl FnOnce(&World, &mut State, Direction) -> T) -> T {
        let world = current();
        let mut state = world.inner.network.state.borrow_mut();
        let known = |connection: &Connection| connection.usage == self.direction.usage;
        if !state.connections.get(self.direction.connection).is_some_and(known) {
            return gone;
        }
        work(&world, &mut state, self.direction)
    }

    pub(in crate::runtime) fn poll_read(&self, cx: &Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let reset = || Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        let mut writer = None;
        let outcome = self.with(reset(), |_, state, direction| {
            let short = state.prng.percent(10);
            let some = state.prng.between(1, buffer.len().max(1) as u64) as usize;
            let end = &mut state.connections[direction.connection].ends[direction.end];
            if end.closed {
                return Poll::Ready(Ok(0));
            }
            let pipe = &mut end.pipe;
            // What arrived before a reset can still be read, as on Linux.
            if pipe.arrived.is_empty() {
                if pipe.reset {
                    return reset();
                }
                if pipe.ended {
                    return Poll::Ready(Ok(0));
                }
                pipe.reader = Some(cx.waker().clone());
                return Poll::Pending;
            }
            let taken = pipe.arrived.len().min(if short { some } else { buffer.len() });
            for (place, byte) in buffer.iter_mut().zip(pipe.arrived.drain(..taken)) {
                *place = byte;
            }
            pipe.held_bytes -= taken;
            writer = pipe.writer.take();
            Poll::Ready(Ok(taken))
        });
        writer.into_iter().for_each(Waker::wake);
        if let Poll::Ready(Ok(taken)) = &outcome {
            current().trace(&buffer[..*taken]);
        }
        outcome
    }

    /// Sends what there is room for.
    pub(in crate::runtime) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let gone = Err(io::ErrorKind::ConnectionReset.into());
        self.with(gone, |world, state, direction| {
            let ends = &mut state.connections[direction.connection].ends;
            let this = &ends[direction.end];
            if this.closed || this.shut {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            if this.pipe.reset {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            let other = &mut ends[1 - direction.end].pipe;
            let room = state.limits.pipe_bytes_max.saturating_sub(other.held_bytes);
            if room == 0 && !bytes.is_empty() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let mut taken = room.min(bytes.len());
            if taken > 1 && state.prng.percent(10) {
                taken = state.prng.between(1, taken as u64) as usize;
            }
            other.held_bytes += taken;
            // At times a piece is cut in two on its way.
            let cut = if state.prng.percent(15) { state.prng.below(taken.max(1) as u64) as usize } else { 0 };
            let towards = Direction { end: 1 - direction.end, ..direction };
            for piece in [&bytes[..cut], &bytes[cut..taken]].into_iter().filter(|piece| !piece.is_empty()) {
                state.send(world, towards, Piece::Bytes(piece.to_vec()));
            }
            Ok(taken)
        })
    }

    /// Waits until [`SimulatedSocket::try_write`] may find room.
    pub(in crate::runtime) fn poll_writable(&self, cx: &Context<'_>) -> Poll<()> {
        self.with(Poll::Ready(()), |_, state, direction| {
            let pipe_bytes_max = state.limits.pipe_bytes_max;
            let ends = &mut state.connections[direction.connection].ends;
            let this = &ends[direction.end];
            if this.closed || this.shut || this.pipe.reset {
                return Poll::Ready(());
            }
            let other = &mut ends[1 - direction.end].pipe;
            if other.held_bytes < pipe_bytes_max {
                return Poll::Ready(());
            }
            other.writer = Some(cx.waker().clone());
            Poll::Pending
        })
    }

    pub(in crate::runtime) fn shutdown_write(&self) {
        self.with((), |world, state, direction| {
            let this = &mut state.connections[direction.connection].ends[direction.end];
            if !std::mem::replace(&mut this.shut, true) {
                state.send(world, Direction { end: 1 - direction.end, ..direction }, Piece::End);
            }
        });
    }

    pub(in crate::runtime) fn close(&self) {
        if self.closed.replace(true) {
            return;
        }
        let wakers = self.with(Vec::new(), |world, state, direction| {
            let ends = &mut state.connections[direction.connection].ends;
            let this = &mut ends[direction.end];
            this.closed = true;
            // What was not read is lost, and the peer is told so by a reset, as TCP does.
            let lost = !this.pipe.arrived.is_empty();
            let piece = match lost {
                true => Some(Piece::Reset),
                false => (!this.shut).then_some(Piece::End),
            };
            this.shut = true;
            let wakers = [this.pipe.reader.take(), ends[1 - direction.end].pipe.writer.take()];
            if let Some(piece) = piece
                && !state.connections[direction.connection].ends[direction.end].vanished
            {
                state.send(world, Direction { end: 1 - direction.end, ..direction }, piece);
            }
            state.forget_if_over(direction.connection);
            wakers.into_iter().flatten().collect()
        });
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Drop for SimulatedSocket {
    fn drop(&mut self) {
        if is_active() {
            self.close();
        }
    }
}

/// Connects the host that runs to `address`. Waits as long as nobody answers.
pub(in crate::runtime) async fn connect(address: SocketAddr) -> io::Result<SimulatedSocket> {
    let world = current();
    let host = world.running().map_or(HostId::NONE, |executor| world.host_of(executor));
    let Some(peer_host) = HostId::at(address.ip()) else { return Err(io::ErrorKind::NetworkUnreachable.into()) };
    loop {
        let delay_us = {
            let mut state = world.network().state.borrow_mut();
            let delay_us_max = state.limits.delay_us_max;
            state.prng.delay(5, delay_us_max)
        };
        pause_us(delay_us).await;
        if let Some(socket) = world.network().offer(&world, host, peer_host, address)? {
            return Ok(socket);
        }
        // Lost on the way, or the backlog is full: the kernel tries again.
        pause_us(RETRY_US).await;
    }
}

/// A socket unless the backlog is full, and who waits for it.
type Joined = (Option<SimulatedSocket>, Option<Waker>);

impl State {
    /// `None`: nobody listens.
    fn join(&mut self, world: &World, host: HostId, peer_host: HostId, address: SocketAddr) -> Option<Joined> {
        let port = self.chosen_port();
        let local = SocketAddr::new(host.address().into(), port);
        let listening = self.listening.get_mut(&(peer_host, address.port()))?;
        let open: Vec<usize> = (0..listening.sockets.len()).filter(|index| !listening.sockets[*index].closed).collect();
        if open.is_empty() {
            return None;
        }
        let chosen = self.prng.choose(&open);
        let backlog = &mut listening.sockets[chosen];
        if backlog.waiting.len() >= BACKLOG {
            return Some((None, None));
        }
        self.next_usage += 1;
        let usage = self.next_usage;
        let end = |host| End { host, pipe: Pipe::default(), closed: false, shut: false, vanished: false };
        let connection = self.connections.insert(Connection { usage, ends: [end(host), end(peer_host)] });
        let socket = |this: usize, local, peer| SimulatedSocket {
            direction: Direction { connection, usage, end: this },
            local,
            peer,
            closed: Cell::new(false),
        };
        world.trace(&[chosen as u8]);
        backlog.waiting.push_back(socket(1, address, local));
        Some((Some(socket(0, local, address)), backlog.acceptor.take()))
    }
}

/// A listening socket of one shard.
#[derive(Debug)]
pub(in crate::runtime) struct SimulatedListener {
    host: HostId,
    port: u16,
    index: usize,
}

/// Listens on `address` of the host that runs: `sockets` sockets that share it.
pub(in crate::runtime) fn bind(
    address: SocketAddr,
    sockets: usize,
) -> io::Result<Vec<(SimulatedListener, SocketAddr)>> {
    let world = current();
    let host = world.running().map_or(HostId::NONE, |executor| world.host_of(executor));
    if !address.ip().is_unspecified() && HostId::at(address.ip()) != Some(host) {
        return Err(io::ErrorKind::AddrNotAvailable.into());
    }
    let mut state = world.network().state.borrow_mut();
    let port = if address.port() == 0 { state.chosen_port() } else { address.port() };
    if state.listening.contains_key(&(host, port)) {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    let backlogs = (0..sockets).map(|_| Backlog::default()).collect();
    state.listening.insert((host, port), Listening { sockets: backlogs, live: sockets });
    let local = SocketAddr::new(host.address().into(), port);
    Ok((0..sockets).map(|index| (SimulatedListener { host, port, index }, local)).collect())
}

impl SimulatedListener {
    fn with<T>(&self, work: impl FnOnce(&mut Backlog) -> T) -> Option<T> {
        let world = current();
        let mut state = world.network().state.borrow_mut();
        state.listening.get_mut(&(self.host, self.port)).map(|listening| work(&mut listening.sockets[self.index]))
    }

    /// A connection that waits.
    pub(in crate::runtime) fn try_accept(&self) -> Option<SimulatedSocket> {
        self.with(|backlog| backlog.waiting.pop_front()).flatten()
    }

    /// Waits for one.
    pub(in crate::runtime) fn poll_acceptable(&self, cx: &Context<'_>) -> Poll<()> {
        self.with(|backlog| {
            if !backlog.waiting.is_empty() {
                return Poll::Ready(());
            }
            backlog.acceptor = Some(cx.waker().clone());
            Poll::Pending
        })
        .unwrap_or(Poll::Pending)
    }
}

impl Drop for SimulatedListener {
    /// Connections that nobody has accepted are reset.
    fn drop(&mut self) {
        if !is_active() {
            return;
        }
        let waiting = self.with(|backlog| {
            backlog.closed = true;
            std::mem::take(&mut backlog.waiting)
        });
        drop(waiting);
        let world = current();
        let mut state = world.network().state.borrow_mut();
        if let Some(listening) = state.listening.get_mut(&(self.host, self.port)) {
            listening.live -= 1;
            if listening.live == 0 {
                state.listening.remove(&(self.host, self.port));
            }
        }
    }
}
