//! A TCP connection of the kernel: what becomes ready on it comes from `runtime::readiness`.
//!
//! A short read tells that nothing is left, so that no `recv` is spent on finding nothing.

use super::readiness::Registration;
use rustix::io::Errno;
use std::cell::Cell;
use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::task::{Context, Poll, ready};

/// A TCP socket of the kernel. Dropping it closes the connection.
pub(super) struct TcpSocket {
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

impl TcpSocket {
    /// Connects to `address`. Dropping the future gives up.
    pub(super) async fn connect(address: SocketAddr) -> io::Result<TcpSocket> {
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
            None => TcpSocket::new(socket.into(), registration),
        }
    }

    /// Takes over an accepted connection.
    pub(super) fn from_accepted(connection: TcpStream) -> io::Result<TcpSocket> {
        connection.set_nonblocking(true)?;
        let registration = Registration::new(&connection, true)?;
        TcpSocket::new(connection, registration)
    }

    fn new(stream: TcpStream, registration: Registration) -> io::Result<TcpSocket> {
        let (peer, local) = (plain(stream.peer_addr()?), plain(stream.local_addr()?));
        Ok(TcpSocket { stream, registration, peer, local, closed: Cell::new(false) })
    }

    /// The other side's address.
    pub(super) fn peer_addr(&self) -> SocketAddr {
        self.peer
    }

    /// This side's address.
    pub(super) fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Sends small writes at once (true) or lets the kernel gather them.
    pub(super) fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.stream.set_nodelay(nodelay)
    }

    /// Reads for a buffer that is only borrowed while the socket is asked, so that idle connections hold none.
    pub(super) fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
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

    /// Sends what the kernel takes now. `WouldBlock` when it takes nothing: then wait with [`TcpSocket::poll_writable`].
    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
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

    /// Ready when [`TcpSocket::try_write`] may find room.
    pub(super) fn poll_writable(&self, cx: &Context<'_>) -> Poll<()> {
        self.registration.writing().poll_ready(cx)
    }

    /// Sends the end of stream after what was written; reading goes on.
    pub(super) fn shutdown_write(&self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)
    }

    /// Ends the connection in both directions. A reader waiting in another task gets 0, a writer `BrokenPipe`; both wake up.
    /// Bytes already taken by the kernel are still delivered.
    pub(super) fn close(&self) {
        if !self.closed.replace(true) {
            // Fails only when the peer has already reset the connection, and then the waiting tasks are awake anyway.
            let _ = self.stream.shutdown(Shutdown::Both);
        }
    }

    /// True after [`TcpSocket::close`].
    pub(super) fn is_closed(&self) -> bool {
        self.closed.get()
    }
}

impl Drop for TcpSocket {
    /// The peer learns of the end before anything else that is going on with this socket is over.
    fn drop(&mut self) {
        self.close();
    }
}
