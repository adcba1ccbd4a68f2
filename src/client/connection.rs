//! One TCP connection to a server, from its handshake on: frames in, bytes out, no session logic.
//!
//! This is the layer for raw pipelining (the load generator): the caller appends any number of requests to a buffer of its
//! own, sends it, and is handed every reply in place. Nothing here allocates per frame.

use super::receive_buffer::ReceiveBuffer;
use crate::protocol::jute::JuteError;
use crate::protocol::zookeeper::{ConnectRequest, ConnectResponse, FrameError, FrameReader};
use crate::runtime::Socket;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use thiserror::Error;

/// Why a connection cannot go on.
#[derive(Debug, Error)]
pub enum ConnectionError {
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The server closed the connection.
    #[error("the server closed the connection")]
    Ended,
    /// The server closed the connection instead of answering the handshake: too many connections, or it is behind the zxid
    /// that the client has seen.
    #[error("the server closed the connection before it answered the handshake")]
    HandshakeRefused,
    /// A frame's length is not acceptable.
    #[error("reply: {0}")]
    Frame(#[from] FrameError),
    /// The answer to the handshake cannot be read.
    #[error("the answer to the handshake cannot be read: {0}")]
    BadHandshake(#[from] JuteError),
}

/// A connection whose handshake is done.
pub struct Connection {
    socket: Rc<Socket>,
    buffer: ReceiveBuffer,
    reply_bytes_max: usize,
}

impl Connection {
    /// Connects and does the handshake. The caller decides what the answer means, and how long this may take.
    pub async fn open(
        address: SocketAddr,
        request: &ConnectRequest<'_>,
        reply_bytes_max: usize,
    ) -> Result<(Connection, ConnectResponse), ConnectionError> {
        let socket = Socket::connect(address).await?;
        socket.set_nodelay(true)?;
        let mut connection = Connection { socket: Rc::new(socket), buffer: ReceiveBuffer::default(), reply_bytes_max };
        let mut bytes = Vec::new();
        request.encode_frame(&mut bytes);
        connection.send(&bytes).await?;
        loop {
            connection.receive().await.map_err(|error| match error {
                ConnectionError::Ended => ConnectionError::HandshakeRefused,
                other => other,
            })?;
            if let Some(response) = connection.take_handshake()? {
                return Ok((connection, response));
            }
        }
    }

    fn take_handshake(&mut self) -> Result<Option<ConnectResponse>, ConnectionError> {
        let mut frames = FrameReader::new(self.buffer.received(), self.reply_bytes_max);
        let Some(frame) = frames.next()? else { return Ok(None) };
        let response = ConnectResponse::decode(frame.body)?;
        let consumed = frames.consumed();
        self.buffer.consume(consumed);
        Ok(Some(response))
    }

    /// The socket, for a task that sends while another one receives.
    pub fn socket(&self) -> &Rc<Socket> {
        &self.socket
    }

    /// Sends all of `bytes`.
    pub async fn send(&self, bytes: &[u8]) -> Result<(), ConnectionError> {
        Ok(self.socket.write_all(bytes).await?)
    }

    /// Receives once: what the kernel has, up to the buffer's size. Dropping the future loses nothing.
    pub async fn receive(&mut self) -> Result<(), ConnectionError> {
        match self.socket.read(self.buffer.space()).await? {
            0 => Err(ConnectionError::Ended),
            len => {
                self.buffer.filled(len);
                Ok(())
            }
        }
    }

    /// Hands every whole frame received so far to `take`, in order and in place. Returns how many there were. After an error
    /// the connection is of no further use.
    pub fn frames<E: From<ConnectionError>>(
        &mut self,
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<usize, E> {
        let mut frames = FrameReader::new(self.buffer.received(), self.reply_bytes_max);
        let mut count = 0;
        while let Some(frame) = frames.next().map_err(ConnectionError::from)? {
            take(frame.body)?;
            count += 1;
        }
        let consumed = frames.consumed();
        self.buffer.consume(consumed);
        Ok(count)
    }
}
