//! One client's socket: a task that reads, and one that writes when the socket is full.

use super::report;
use super::shard_driver::ShardDriver;
use crate::coordination::admin::{FourLetterWord, answer};
use crate::protocol::zookeeper::reply_bytes;
use crate::runtime::{ConnectionPermit, LocalNotify, PeerPermit, Queue, Socket, clock, spawn, yield_if_needed};
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;

/// Bytes read from a socket at once.
const RECEIVE_BYTES: usize = 64 << 10;
/// Room before them for the beginning of a frame that came earlier. A longer one gathers in memory of its own.
const PARTIAL_BYTES: usize = 64 << 10;

thread_local! {
    /// Where every connection of a shard receives: filled and used up within one poll, so that idle connections hold none.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; PARTIAL_BYTES + RECEIVE_BYTES]);
}

/// A client's socket and what has not been sent yet.
pub struct ClientConnection {
    socket: Socket,
    peer: SocketAddr,
    unsent: RefCell<Vec<u8>>,
    unsent_notify: LocalNotify,
    /// The writing task holds bytes that come before `unsent`.
    writing: Cell<bool>,
    close_when_sent: Cell<bool>,
    /// The answer to the handshake, which is no reply, has left the core.
    answered: Cell<bool>,
    /// The reader waits for this while its requests or its output have piled up.
    resumed: LocalNotify,
    _permits: Permits,
}

/// A connection's place in the limits of the server and of its peer.
pub type Permits = (ConnectionPermit, PeerPermit);

impl ClientConnection {
    fn new(socket: Socket, permits: Permits) -> ClientConnection {
        let peer = socket.peer_addr();
        ClientConnection {
            socket,
            peer,
            unsent: RefCell::new(Vec::new()),
            unsent_notify: LocalNotify::new(),
            writing: Cell::new(false),
            close_when_sent: Cell::new(false),
            answered: Cell::new(false),
            resumed: LocalNotify::new(),
            _permits: permits,
        }
    }

    /// The client's address.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Bytes of replies in the next output of the core, which is whole frames.
    pub fn reply_bytes(&self, output: &[u8]) -> u64 {
        let Some(length) = output.first_chunk().filter(|_| !self.answered.replace(true)) else {
            return reply_bytes(output);
        };
        let handshake_bytes = size_of::<u32>() + u32::from_be_bytes(*length) as usize;
        reply_bytes(output.get(handshake_bytes..).unwrap_or_default())
    }

    /// True when everything so far was sent. Otherwise the core keeps what comes next, and counts it.
    pub fn is_writable(&self) -> bool {
        !self.writing.get() && self.unsent.borrow().is_empty()
    }

    /// Sends as much as the socket takes now; the rest is sent by the writing task. Only when it is
    /// [writable](ClientConnection::is_writable).
    /// Gives a buffer for reuse.
    pub fn send(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        debug_assert!(self.is_writable(), "bytes leave in the order in which they came");
        let mut sent = 0;
        while sent < bytes.len() {
            match self.socket.try_write(&bytes[sent..]) {
                Ok(taken) => sent += taken,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(_) => {
                    self.close();
                    return bytes;
                }
            }
        }
        if sent == bytes.len() {
            return bytes;
        }
        // A long reply is held once, not twice.
        bytes.drain(..sent);
        self.unsent_notify.notify();
        self.unsent.replace(bytes)
    }

    /// Closes the socket once everything is sent.
    pub fn close_when_sent(&self) {
        if self.is_writable() {
            self.close();
        } else {
            self.close_when_sent.set(true);
        }
    }

    /// Closes the socket at once. Its reader learns of it even while it waits for output to leave, and ends the connection.
    pub fn close(&self) {
        self.socket.close();
        self.resume();
    }

    /// True after [`ClientConnection::close`].
    pub fn is_closed(&self) -> bool {
        self.socket.is_closed()
    }

    /// The reader may look again whether it may read.
    pub fn resume(&self) {
        self.resumed.notify();
    }

    /// Sends what [`ClientConnection::send`] could not, and then has the core asked for more, until the socket is closed.
    async fn run_writer(self: Rc<Self>, driver: Rc<ShardDriver>, number: u64) {
        loop {
            let bytes = self.unsent.take();
            if bytes.is_empty() {
                if self.close_when_sent.get() {
                    self.close();
                }
                if self.socket.is_closed() {
                    return;
                }
                self.unsent_notify.notified().await;
                continue;
            }
            self.writing.set(true);
            let result = self.socket.write_all(&bytes).await;
            self.writing.set(false);
            if result.is_err() {
                return self.close();
            }
            driver.writable(number);
        }
    }
}

/// Serves a connection until it ends.
pub async fn serve(driver: Rc<ShardDriver>, socket: Socket, permits: Permits) {
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!("{}: cannot set TCP_NODELAY: {error}", socket.peer_addr());
    }
    let connection = Rc::new(ClientConnection::new(socket, permits));
    let now_ms = clock::monotonic_ms() as i64;
    let number = driver.core().borrow_mut().connect(connection.peer.ip(), now_ms);
    driver.add_connection(number, connection.clone());
    let writer = spawn(Queue::Serving, connection.clone().run_writer(driver.clone(), number));
    read(&driver, number, &connection).await;
    connection.close();
    connection.unsent_notify.notify();
    driver.remove_connection(number);
    driver.turn();
    let _ = writer.await;
}

/// Reads until the client or the server ends the connection.
async fn read(driver: &Rc<ShardDriver>, number: u64, connection: &Rc<ClientConnection>) {
    // The beginning of a frame whose end has not come yet.
    let mut partial = Vec::new();
    let mut greeted = false;
    // Whole frames may be left in `partial`: they come before what the socket has.
    let mut held = false;
    loop {
        // A client that always has more to say, and takes what it is told, must not keep the shard from the others.
        yield_if_needed().await;
        while !driver.wants_bytes(number) {
            if connection.socket.is_closed() {
                return;
            }
            connection.resumed.notified().await;
        }
        let outcome = if held {
            Ok(offer(driver, number, &mut partial))
        } else {
            poll_fn(|cx| {
                SCRATCH.with_borrow_mut(|scratch| {
                    let received = std::task::ready!(connection.socket.poll_read(cx, &mut scratch[PARTIAL_BYTES..]));
                    std::task::Poll::Ready(
                        received.map(|len| take_in(driver, number, scratch, len, &mut partial, &mut greeted)),
                    )
                })
            })
            .await
        };
        held = matches!(outcome, Ok(Taken::Held));
        match outcome {
            Ok(Taken::More | Taken::Held) => driver.turn(),
            Ok(Taken::Word(word)) => return answer_word(driver, connection, word).await,
            Ok(Taken::End) | Err(_) => return driver.turn(),
            Ok(Taken::Refused(reason)) => {
                tracing::warn!("{}: {reason}; connection closed", connection.peer);
                return driver.turn();
            }
        }
    }
}

/// What became of received bytes.
enum Taken {
    More,
    /// Requests or output have piled up; whole frames may be left.
    Held,
    End,
    Word(FourLetterWord),
    Refused(String),
}

/// `len` new bytes stand in `scratch` at [`PARTIAL_BYTES`].
fn take_in(
    driver: &Rc<ShardDriver>,
    number: u64,
    scratch: &mut [u8],
    len: usize,
    partial: &mut Vec<u8>,
    greeted: &mut bool,
) -> Taken {
    let end = PARTIAL_BYTES + len;
    if len == 0 {
        return Taken::End;
    }
    if partial.len() > PARTIAL_BYTES {
        partial.extend_from_slice(&scratch[PARTIAL_BYTES..end]);
        return offer(driver, number, partial);
    }
    // What came earlier is put before what came now, not the other way round: it is less.
    let start = PARTIAL_BYTES - partial.len();
    scratch[start..PARTIAL_BYTES].copy_from_slice(partial);
    let whole = &scratch[start..end];
    if !*greeted {
        match whole.first_chunk::<4>().map(|first| FourLetterWord::parse(*first)) {
            None => {
                partial.extend_from_slice(&scratch[PARTIAL_BYTES..end]);
                return Taken::More;
            }
            Some(Some(word)) => return Taken::Word(word),
            Some(None) => *greeted = true,
        }
    }
    match driver.received(number, whole) {
        Err(reason) => Taken::Refused(reason),
        Ok(consumed) => {
            partial.clear();
            partial.extend_from_slice(&whole[consumed..]);
            what_is_left(driver, number, partial)
        }
    }
}

/// Offers what is in `partial`: the rest of a long frame may have come, or requests or output had piled up.
fn offer(driver: &Rc<ShardDriver>, number: u64, partial: &mut Vec<u8>) -> Taken {
    match driver.received(number, partial) {
        Err(reason) => Taken::Refused(reason),
        Ok(consumed) => {
            partial.drain(..consumed);
            what_is_left(driver, number, partial)
        }
    }
}

fn what_is_left(driver: &Rc<ShardDriver>, number: u64, partial: &mut Vec<u8>) -> Taken {
    if partial.is_empty() {
        if partial.capacity() > RECEIVE_BYTES {
            *partial = Vec::new();
        }
        return Taken::More;
    }
    if driver.wants_bytes(number) { Taken::More } else { Taken::Held }
}

async fn answer_word(driver: &Rc<ShardDriver>, connection: &Rc<ClientConnection>, word: FourLetterWord) {
    let report = report::gather(driver, driver.gathering()).await;
    let text = answer(word, driver.whitelist(), &report);
    driver.word_asked();
    let _ = connection.socket.write_all(text.as_bytes()).await;
    let _ = connection.socket.shutdown_write();
}
