//! Listening sockets: one a shard on a common address, a limit on connections, and an accept loop that survives running out
//! of descriptors.
//!
//! The kernel spreads connections over sockets that share an address with `SO_REUSEPORT`. Taken alone that option is
//! dangerous: a second server of the same user would silently share the port and get half the clients. So the first socket
//! binds and listens **without** it, which fails if anybody else listens there, and only then permits the
//! others to join. There is no moment in which two servers could both succeed.

use super::notify::LocalNotify;
use super::queues::{sleep, yield_if_needed};
use super::socket::Socket;
use super::world::{self, SimulatedListener};
use glommio::io::{PollState, PollableFd};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};
use std::cell::Cell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

/// Connections that the kernel completes for each socket before they are accepted, unless the configuration says otherwise.
const BACKLOG_DEFAULT: u32 = 1024;
/// First pause when descriptors or connection permits have run out; doubled up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(1);
/// Longest pause of the accept loop.
const BACKOFF_MAX: Duration = Duration::from_millis(128);

/// A listening socket that no shard owns yet.
#[derive(Debug)]
pub struct BoundListener {
    kind: BoundKind,
    address: SocketAddr,
}

#[derive(Debug)]
enum BoundKind {
    Kernel(TcpListener),
    Simulated(SimulatedListener),
}

/// A socket of the kernel that listens.
struct KernelListener {
    listener: TcpListener,
    address: SocketAddr,
}

impl BoundListener {
    /// The address, with the port the kernel chose if 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

/// Where to listen, and how many connections may wait to be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenAt {
    /// The address. Every address of IPv4 (`0.0.0.0`) means every one of IPv6 as well, as it does in Java, where the machine
    /// has IPv6. Port 0 lets the kernel choose one port for all sockets.
    pub address: SocketAddr,
    /// Connections that the kernel completes for each socket before they are accepted; it has a bound of its own
    /// (`net.core.somaxconn`).
    pub backlog: u32,
}

/// With the usual backlog.
impl From<SocketAddr> for ListenAt {
    fn from(address: SocketAddr) -> ListenAt {
        ListenAt { address, backlog: BACKLOG_DEFAULT }
    }
}

impl ListenAt {
    /// With another backlog, if one is given.
    pub fn with_backlog(self, backlog: Option<u32>) -> ListenAt {
        ListenAt { backlog: backlog.unwrap_or(self.backlog), ..self }
    }
}

/// `shards` listening sockets, one for each shard.
///
/// The error says why, and leaves it to the caller to say which address was wanted; `AddrInUse` when another socket listens
/// there, whoever owns it.
pub fn bind_listeners(at: impl Into<ListenAt>, shards: usize) -> io::Result<Vec<BoundListener>> {
    let at = at.into();
    if world::is_active() {
        let bound = world::bind(at.address, shards).map_err(explain)?;
        let simulated = |(socket, address)| BoundListener { kind: BoundKind::Simulated(socket), address };
        return Ok(bound.into_iter().map(simulated).collect());
    }
    let bound = bind_first(at).and_then(|first| bind_others(first, at, shards)).map_err(explain)?;
    let kernel = |KernelListener { listener, address }| BoundListener { kind: BoundKind::Kernel(listener), address };
    Ok(bound.into_iter().map(kernel).collect())
}

fn explain(error: io::Error) -> io::Error {
    let text = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "address in use; another server is running there, stop it or choose another port".to_owned()
        }
        io::ErrorKind::PermissionDenied => format!("{error}; ports below 1024 need CAP_NET_BIND_SERVICE"),
        io::ErrorKind::AddrNotAvailable => "no interface of this machine has that address".to_owned(),
        _ => return error,
    };
    io::Error::new(error.kind(), text)
}

/// The socket that claims the address.
fn bind_first(at: ListenAt) -> io::Result<KernelListener> {
    if at.address.ip() != IpAddr::V4(Ipv4Addr::UNSPECIFIED) {
        return listen(at, false);
    }
    let both = ListenAt { address: (Ipv6Addr::UNSPECIFIED, at.address.port()).into(), ..at };
    match listen(both, false) {
        // The kernel has no IPv6, or it is switched off.
        Err(error)
            if matches!(
                Errno::from_io_error(&error),
                Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL | Errno::PROTONOSUPPORT)
            ) =>
        {
            listen(at, false)
        }
        result => result,
    }
}

fn bind_others(first: KernelListener, at: ListenAt, shards: usize) -> io::Result<Vec<KernelListener>> {
    sockopt::set_socket_reuseport(&first.listener, true)?;
    let same = ListenAt { address: first.address, ..at };
    let mut listeners = vec![first];
    while listeners.len() < shards {
        listeners.push(listen(same, true)?);
    }
    Ok(listeners)
}

fn listen(at: ListenAt, shared: bool) -> io::Result<KernelListener> {
    let family = if at.address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket: OwnedFd = rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    if family == AddressFamily::INET6 {
        // The default of a system may be otherwise (`net.ipv6.bindv6only`).
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    // Connections of an earlier life that linger in TIME_WAIT must not keep the server from starting.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if shared {
        sockopt::set_socket_reuseport(&socket, true)?;
    }
    rustix::net::bind(&socket, &at.address)?;
    rustix::net::listen(&socket, i32::try_from(at.backlog).unwrap_or(i32::MAX))?;
    let listener = TcpListener::from(socket);
    let address = listener.local_addr()?;
    Ok(KernelListener { listener, address })
}

/// How many connections this process holds at once, over all shards and ports. Clones share the count.
#[derive(Clone, Debug)]
pub struct ConnectionLimit {
    open: Arc<AtomicUsize>,
    connections_max: usize,
}

impl ConnectionLimit {
    /// At most `connections_max` connections; keep it below the open-file limit (see [`super::preflight::Report`]).
    pub fn new(connections_max: usize) -> ConnectionLimit {
        ConnectionLimit { open: Arc::new(AtomicUsize::new(0)), connections_max }
    }

    /// Connections that hold a permit now.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// A permit, unless all are taken.
    pub fn try_acquire(&self) -> Option<ConnectionPermit> {
        let more = |open| (open < self.connections_max).then_some(open + 1);
        self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(ConnectionPermit { open: self.open.clone() })
    }
}

/// The right to hold one connection. Dropping it gives it back, so it must live as long as the socket.
#[derive(Debug)]
pub struct ConnectionPermit {
    open: Arc<AtomicUsize>,
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How many connections each client address holds at once, over all shards. Clones share the counts.
#[derive(Clone, Debug)]
pub struct PeerLimit {
    /// Invariant: no count is 0.
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
    connections_max: usize,
}

impl PeerLimit {
    /// At most `connections_max` connections of one address.
    pub fn new(connections_max: usize) -> PeerLimit {
        PeerLimit { open: Arc::default(), connections_max }
    }

    /// A permit for `peer`, unless all of its are taken.
    pub fn try_acquire(&self, peer: IpAddr) -> Option<PeerPermit> {
        let mut counts = self.lock();
        let open = counts.get(&peer).copied().unwrap_or(0);
        if open >= self.connections_max {
            return None;
        }
        counts.insert(peer, open + 1);
        Some(PeerPermit { peer, limit: self.clone() })
    }

    /// Every change is a single step, so the counts are good even after a panic elsewhere.
    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right of a client address to one connection. Dropping it gives it back.
#[derive(Debug)]
pub struct PeerPermit {
    peer: IpAddr,
    limit: PeerLimit,
}

impl Drop for PeerPermit {
    fn drop(&mut self) {
        if let Entry::Occupied(mut open) = self.limit.lock().entry(self.peer) {
            *open.get_mut() -= 1;
            if *open.get() == 0 {
                open.remove();
            }
        }
    }
}

/// A new connection.
pub struct Accepted {
    /// The connection.
    pub socket: Socket,
    /// Its place in the [`ConnectionLimit`].
    pub permit: ConnectionPermit,
}

enum ListenerKind {
    Kernel(PollableFd<TcpListener>),
    Simulated(SimulatedListener),
}

/// A shard's listening socket.
pub struct Listener {
    socket: ListenerKind,
    address: SocketAddr,
    limit: ConnectionLimit,
    stopped: Cell<bool>,
    stop: LocalNotify,
}

impl ListenerKind {
    /// A connection that waits. The inner error is the connection's own.
    fn try_accept(&self) -> Result<io::Result<Socket>, Errno> {
        match self {
            ListenerKind::Kernel(socket) => {
                let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
                let connection = rustix::net::accept_with(socket.get_ref(), flags)?;
                Ok(Socket::from_accepted(TcpStream::from(connection)))
            }
            ListenerKind::Simulated(socket) => {
                socket.try_accept().map(|socket| Ok(Socket::from_simulated(socket))).ok_or(Errno::AGAIN)
            }
        }
    }
}

impl Listener {
    /// Takes a bound socket into the shard this runs on.
    pub fn new(bound: BoundListener, limit: ConnectionLimit) -> io::Result<Listener> {
        let socket = match bound.kind {
            BoundKind::Kernel(socket) => ListenerKind::Kernel(PollableFd::new(socket).map_err(io::Error::from)?),
            BoundKind::Simulated(socket) => ListenerKind::Simulated(socket),
        };
        Ok(Listener { socket, address: bound.address, limit, stopped: Cell::new(false), stop: LocalNotify::new() })
    }

    /// The address clients connect to.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Makes the waiting and all later [`Listener::accept`] return `None`.
    pub fn stop(&self) {
        self.stopped.set(true);
        self.stop.notify();
    }

    /// The next connection; `None` after [`Listener::stop`]. One task accepts.
    ///
    /// Waits while the connection limit is reached (clients then wait in the backlog) and, with growing pauses, while the
    /// system is out of descriptors or memory. An error means that this listener will not work again.
    pub async fn accept(&self) -> io::Result<Option<Accepted>> {
        let mut pause = BACKOFF_MIN;
        // A stream of new connections must not keep the shard from its old ones.
        yield_if_needed().await;
        while !self.stopped.get() {
            let Some(permit) = self.limit.try_acquire() else {
                self.back_off(&mut pause).await;
                continue;
            };
            match self.socket.try_accept() {
                Ok(connection) => match connection {
                    Ok(socket) => return Ok(Some(Accepted { socket, permit })),
                    Err(error) => tracing::debug!("a connection ended before it was accepted: {error}"),
                },
                Err(Errno::AGAIN) => {
                    drop(permit);
                    self.readable().await?;
                }
                Err(errno) => match response_to(errno) {
                    Response::Retry => {}
                    Response::BackOff => {
                        tracing::warn!(
                            "cannot accept on {}: {errno}; clients wait. Raise the open-file limit or lower maxCnxns",
                            self.address
                        );
                        drop(permit);
                        self.back_off(&mut pause).await;
                    }
                    Response::GiveUp => return Err(errno.into()),
                },
            }
        }
        Ok(None)
    }

    /// Waits until a connection may be there, or until stopped.
    async fn readable(&self) -> io::Result<()> {
        let mut state = PollState::new();
        let mut stop = std::pin::pin!(self.stop.notified());
        poll_fn(|cx| {
            use std::future::Future;
            if stop.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            match &self.socket {
                ListenerKind::Kernel(socket) => socket.poll_readable(cx, &mut state).map_err(io::Error::from),
                ListenerKind::Simulated(socket) => socket.poll_acceptable(cx).map(Ok),
            }
        })
        .await
    }

    async fn back_off(&self, pause: &mut Duration) {
        sleep(*pause).await;
        *pause = (*pause * 2).min(BACKOFF_MAX);
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Response {
    /// The connection died while it waited; the next one may be fine.
    Retry,
    /// The system is short of something that comes back.
    BackOff,
    /// The listening socket itself is broken.
    GiveUp,
}

/// accept(2): besides `EAGAIN` it passes on errors of the new connection, which say nothing about the listener.
fn response_to(errno: Errno) -> Response {
    match errno {
        Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM => Response::BackOff,
        Errno::BADF | Errno::FAULT | Errno::INVAL | Errno::NOTSOCK | Errno::OPNOTSUPP => Response::GiveUp,
        _ => Response::Retry,
    }
}
