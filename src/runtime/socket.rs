//! A TCP connection that one task reads and another writes; of the kernel, or of a simulated world.
//!
//! At most one task reads and one writes at a time. Dropping a future of this module loses no bytes: data is moved within one poll.
//!
//! Cost of a request that is alone in its packet: one `recv`, one `send`, and its share of asking which sockets are ready. Callers
//! gather the replies of one wake-up into one buffer and send it once: a send per reply costs 9 to 17 times as much.

use super::queues::{TimedOut, timeout, yield_if_needed};
use super::tcp::TcpSocket;
use super::world::{self, SimulatedSocket};
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// A connected TCP socket of one shard; shared between its tasks as `Rc<Socket>`. Dropping it closes the connection.
pub struct Socket(Kind);

enum Kind {
    Tcp(TcpSocket),
    Simulated(SimulatedSocket),
}

/// Calls the same method of either kind.
macro_rules! either {
    ($socket:expr, $kind:ident => $call:expr) => {
        match &$socket.0 {
            Kind::Tcp($kind) => $call,
            Kind::Simulated($kind) => $call,
        }
    };
}

impl Socket {
    /// Connects to `address`. Dropping the future gives up.
    pub async fn connect(address: SocketAddr) -> io::Result<Socket> {
        Ok(Socket(match world::is_active() {
            false => Kind::Tcp(TcpSocket::connect(address).await?),
            true => Kind::Simulated(world::connect(address).await?),
        }))
    }

    /// Connects to `address` within `limit`, or fails with `TimedOut`.
    pub async fn connect_within(address: SocketAddr, limit: Duration) -> io::Result<Socket> {
        timeout(limit, Socket::connect(address)).await.unwrap_or_else(|TimedOut| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Takes over an accepted connection.
    pub(super) fn from_accepted(connection: TcpStream) -> io::Result<Socket> {
        TcpSocket::from_accepted(connection).map(|socket| Socket(Kind::Tcp(socket)))
    }

    /// Takes over a connection that was accepted in a world.
    pub(super) fn from_simulated(socket: SimulatedSocket) -> Socket {
        Socket(Kind::Simulated(socket))
    }

    /// The other side's address; that of an IPv4 client is one of IPv4, also on a socket that listens for both families.
    pub fn peer_addr(&self) -> SocketAddr {
        either!(self, socket => socket.peer_addr())
    }

    /// This side's address.
    pub fn local_addr(&self) -> SocketAddr {
        either!(self, socket => socket.local_addr())
    }

    /// Sends small writes at once (true) or lets the kernel gather them.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        match &self.0 {
            Kind::Tcp(socket) => socket.set_nodelay(nodelay),
            Kind::Simulated(_) => Ok(()),
        }
    }

    /// Reads what is there, at most `buffer.len()` bytes, waiting for the first of them.
    ///
    /// 0 is the end of the stream: the peer has closed its side, or [`Socket::close`] was called here.
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        poll_fn(|cx| self.poll_read(cx, buffer)).await
    }

    /// [`Socket::read`] for a buffer that is only borrowed while the socket is asked, so that idle connections hold none.
    pub fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        either!(self, socket => socket.poll_read(cx, buffer))
    }

    /// Sends what the kernel takes now. `WouldBlock` when it takes nothing: then use [`Socket::write`].
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        either!(self, socket => socket.try_write(bytes))
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
                    ready!(either!(self, socket => socket.poll_writable(cx)));
                }
                other => return Poll::Ready(other),
            }
        }
    }

    /// Sends the end of stream after what was written; reading goes on.
    pub fn shutdown_write(&self) -> io::Result<()> {
        match &self.0 {
            Kind::Tcp(socket) => socket.shutdown_write(),
            Kind::Simulated(socket) => {
                socket.shutdown_write();
                Ok(())
            }
        }
    }

    /// Ends the connection in both directions. A reader waiting in another task gets 0, a writer `BrokenPipe`; both wake up.
    /// Bytes already taken by the kernel are still delivered.
    pub fn close(&self) {
        either!(self, socket => socket.close());
    }

    /// True after [`Socket::close`].
    pub fn is_closed(&self) -> bool {
        either!(self, socket => socket.is_closed())
    }
}
