//! A TCP connection that one task reads and another writes.
//!
//! At most one task reads and one writes at a time; what they wait for comes from `runtime::readiness`. Dropping a future of
//! this module loses no bytes: data is moved by a system call inside one poll.
//!
//! Cost of a request that is alone in its packet: one `recv`, one `send`, and its share of asking which sockets are ready. A
//! short read tells that nothing is left, so that no `recv` is spent on finding nothing. Callers gather the replies of one
//! wake-up into one buffer and send it once: a send per reply costs 9 to 17 times as much.

use super::queues::{TimedOut, timeout, yield_if_needed};
use super::readiness::Registration;
use rustix::io::Errno;
use std::cell::Cell;
use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// A connected TCP socket of one shard; shared between its tasks as `Rc<Socket>`. Dropping it closes the connection.
pub struct Socket {
    stream: TcpStream,
    registration: Registration,
    peer: SocketAddr,
    local: SocketAddr,
    closed: Cell<bool>,
}

/// An IPv4 address that IPv6 has wrapped (`::ffff:10.0.0.1`) as itself: limits and access lists know clients by it.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

impl Socket {
    /// Connects to `address`. Dropping the future gives up.
    pub async fn connect(address: SocketAddr) -> io::Result<Socket> {
        let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        match socket.connect(&address.into()) {
            Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => return Err(error),
            _ => {}
        }
        let registration = Registration::new(&socket, false)?;
        poll_fn(|cx| registration.writing().poll_ready(cx)).await;
        match socket.take_error()? {
            Some(error) => Err(error),
            None => Socket::new(socket.into(), registration),
        }
    }

    /// Connects to `address` within `limit`, or fails with `TimedOut`.
    pub async fn connect_within(address: SocketAddr, limit: Duration) -> io::Result<Socket> {
        timeout(limit, Socket::connect(address)).await.unwrap_or_else(|TimedOut| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Takes over an accepted connection.
    pub(super) fn from_accepted(connection: TcpStream) -> io::Result<Socket> {
        connection.set_nonblocking(true)?;
        let registration = Registration::new(&connection, true)?;
        Socket::new(connection, registration)
    }

    fn new(stream: TcpStream, registration: Registration) -> io::Result<Socket> {
        let (peer, local) = (plain(stream.peer_addr()?), plain(stream.local_addr()?));
        Ok(Socket { stream, registration, peer, local, closed: Cell::new(false) })
    }

    /// The other side's address; that of an IPv4 client is one of IPv4, also on a socket that listens for both families.
    pub fn peer_addr(&self) -> SocketAddr {
        self.peer
    }

    /// This side's address.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Sends small writes at once (true) or lets the kernel gather them.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.stream.set_nodelay(nodelay)
    }

    /// Reads what is there, at most `buffer.len()` bytes, waiting for the first of them.
    ///
    /// 0 is the end of the stream: the peer has closed its side, or [`Socket::close`] was called here.
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        poll_fn(|cx| self.poll_read(cx, buffer)).await
    }

    /// [`Socket::read`] for a buffer that is only borrowed while the socket is asked, so that idle connections hold none.
    pub fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.closed.get() {
            return Poll::Ready(Ok(0));
        }
        let side = self.registration.reading();
        loop {
            ready!(side.poll_ready(cx));
            match (&self.stream).read(buffer) {
                Ok(taken) => {
                    // An end stays to be seen again.
                    if 0 < taken && taken < buffer.len() {
                        side.exhausted();
                    }
                    return Poll::Ready(Ok(taken));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => side.exhausted(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Sends what the kernel takes now. `WouldBlock` when it takes nothing: then use [`Socket::write`].
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        if self.closed.get() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let side = self.registration.writing();
        while side.is_ready() {
            match (&self.stream).write(bytes) {
                Ok(sent) => {
                    if sent < bytes.len() {
                        side.exhausted();
                    }
                    return Ok(sent);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => side.exhausted(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// Sends what the kernel takes, waiting only if that is nothing. Returns the number of bytes sent.
    pub async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        poll_fn(|cx| self.poll_write(cx, bytes)).await
    }

    /// Sends all of `bytes`.
    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            // A fast reader takes everything at once, and the loop would never wait.
            yield_if_needed().await;
            let sent = self.write(bytes).await?;
            bytes = &bytes[sent..];
        }
        Ok(())
    }

    fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            match self.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.registration.writing().poll_ready(cx));
                }
                other => return Poll::Ready(other),
            }
        }
    }

    /// Sends the end of stream after what was written; reading goes on.
    pub fn shutdown_write(&self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)
    }

    /// Ends the connection in both directions. A reader waiting in another task gets 0, a writer `BrokenPipe`; both wake up.
    /// Bytes already taken by the kernel are still delivered.
    pub fn close(&self) {
        if !self.closed.replace(true) {
            // Fails only when the peer has already reset the connection, and then the waiting tasks are awake anyway.
            let _ = self.stream.shutdown(Shutdown::Both);
        }
    }

    /// True after [`Socket::close`].
    pub fn is_closed(&self) -> bool {
        self.closed.get()
    }
}

impl Drop for Socket {
    /// The peer learns of the end before anything else that is going on with this socket is over.
    fn drop(&mut self) {
        self.close();
    }
}
