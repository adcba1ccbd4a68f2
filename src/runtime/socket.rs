//! A TCP connection that one task reads and another writes.
//!
//! The stream stays in a `RefCell` that is borrowed only while polling, never across an await. Reading and writing keep
//! separate registrations in the reactor, so a waiting reader does not hinder the writer. At most one task reads and one
//! writes at a time. Dropping a future of this module loses no bytes: data is moved by a system call inside one poll.
//!
//! Cost of a request that is alone in its packet: one `recv`, one registration, one `send`; the registration is renewed right
//! after a short read, so that no `recv` is spent on finding nothing. Callers gather the replies of one wake-up into one
//! buffer and send it once: a send per reply costs 9 to 17 times as much.

use super::queues::{TimedOut, timeout, yield_if_needed};
use futures_lite::io::{AsyncRead, AsyncWrite};
use glommio::net::TcpStream;
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// A connected TCP socket of one shard; shared between its tasks as `Rc<Socket>`. Dropping it closes the connection.
pub struct Socket {
    stream: RefCell<TcpStream>,
    peer: SocketAddr,
    local: SocketAddr,
    closed: Cell<bool>,
}

impl Socket {
    /// Connects to `address`. Dropping the future gives up.
    pub async fn connect(address: SocketAddr) -> io::Result<Socket> {
        let stream = TcpStream::connect(address).await.map_err(io::Error::from)?;
        Socket::new(stream)
    }

    /// Connects to `address` within `limit`, or fails with `TimedOut`.
    pub async fn connect_within(address: SocketAddr, limit: Duration) -> io::Result<Socket> {
        timeout(limit, Socket::connect(address)).await.unwrap_or_else(|TimedOut| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Takes over an accepted connection.
    pub(super) fn from_accepted(connection: std::net::TcpStream) -> io::Result<Socket> {
        Socket::new(TcpStream::from(socket2::Socket::from(connection)))
    }

    fn new(stream: TcpStream) -> io::Result<Socket> {
        let peer = stream.peer_addr().map_err(io::Error::from)?;
        let local = stream.local_addr().map_err(io::Error::from)?;
        Ok(Socket { stream: RefCell::new(stream), peer, local, closed: Cell::new(false) })
    }

    /// The other side's address.
    pub fn peer_addr(&self) -> SocketAddr {
        self.peer
    }

    /// This side's address.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Sends small writes at once (true) or lets the kernel gather them.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.stream.borrow().set_nodelay(nodelay).map_err(io::Error::from)
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
        Pin::new(&mut *self.stream.borrow_mut()).poll_read(cx, buffer)
    }

    /// Sends what the kernel takes now. `WouldBlock` when it takes nothing: then use [`Socket::write`].
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        // A refused send leaves a registration behind that the following `write` takes over.
        match self.poll_write(&mut Context::from_waker(Waker::noop()), bytes) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
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
        if self.closed.get() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        Pin::new(&mut *self.stream.borrow_mut()).poll_write(cx, bytes)
    }

    /// Sends the end of stream after what was written; reading goes on.
    pub fn shutdown_write(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }

    /// Ends the connection in both directions. A reader waiting in another task gets 0, a writer `BrokenPipe`; both wake up.
    /// Bytes already taken by the kernel are still delivered.
    pub fn close(&self) {
        if !self.closed.replace(true) {
            // Fails only when the peer has already reset the connection, and then the waiting tasks are awake anyway.
            let _ = self.shutdown(Shutdown::Both);
        }
    }

    /// True after [`Socket::close`].
    pub fn is_closed(&self) -> bool {
        self.closed.get()
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        let stream = self.stream.borrow();
        let mut shutdown = std::pin::pin!(stream.shutdown(how));
        // The library's future is one system call and never pending.
        match shutdown.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => result.map_err(io::Error::from),
            Poll::Pending => Err(io::Error::other("shutdown did not complete at once")),
        }
    }
}

impl Drop for Socket {
    /// The reactor's registrations keep the kernel's socket alive until it next looks at its ring; the peer must not wait for
    /// that to learn of the end.
    fn drop(&mut self) {
        self.close();
    }
}
