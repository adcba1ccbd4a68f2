//! A ZooKeeper client on one shard: a session that survives its connections.
//!
//! [`Client::start`] begins a session with any of the servers of a connect string and keeps it alive: pings, moves to the
//! next server when one falls silent, re-attaches with the session's id and password, replays credentials and watches. It
//! speaks to every server from 3.6 on.
//!
//! What its user can rely on:
//! - requests go out in the order of the calls, and replies are matched by order and checked by xid;
//! - every request gets exactly one answer; [`ClientError::ConnectionLoss`] leaves open whether it took effect, and nothing is
//!   ever sent twice by itself;
//! - while no server is reached, requests wait for the attempt under way and fail with `ConnectionLoss` when it does;
//!   [`Client::wait_connected`] is how to wait for a server;
//! - a watch event is in its stream before the reply of any request that shows a newer state;
//! - after [`SessionState::Expired`] the client is of no further use: start another one.
//!
//! Layers, from the wire up: [`connection`] (frames), `session` (the state machine, no IO), `driver` (the task between the
//! two), `operations` and `multi` (the typed interface).

mod blocking;
mod chroot;
pub mod connection;
mod driver;
mod error;
mod mailbox;
mod multi;
mod operations;
mod receive_buffer;
mod rotation;
mod session;
mod watcher;

pub use blocking::run_blocking;
pub use chroot::{Chroot, ConnectString, DEFAULT_PORT, Host, validate_path};
pub use connection::{Connection, ConnectionError};
pub use error::ClientError;
pub use mailbox::Receiver;
pub use multi::{Op, OpResult};
pub use operations::{ANY_VERSION, Data};
pub use receive_buffer::ReceiveBuffer;
pub use session::SessionState;
pub use watcher::{NodeEvent, Watch, WatchEvent};

use crate::base::SessionId;
use crate::protocol::zookeeper::PACKET_BYTES_MAX_DEFAULT;
use crate::runtime::{Queue, spawn, timeout};
use driver::Shared;
use futures_lite::future::or;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use session::{Limits, Session};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

/// How a client behaves.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// The servers and the chroot.
    pub connect: ConnectString,
    /// The session timeout to ask for; the server may change it.
    pub session_timeout_ms: i32,
    /// Most requests that are sent and not answered (at least 1); further ones wait in order.
    pub outstanding_max: usize,
    /// Largest request packet: the server's `jute.maxbuffer`.
    pub request_bytes_max: usize,
    /// Largest reply packet. Larger than for requests, since the children of a node come in one piece.
    pub reply_bytes_max: usize,
}

impl ClientOptions {
    /// The usual limits: 30 s, 1000 requests outstanding, `jute.maxbuffer` for requests, 64 MiB for replies.
    pub fn new(connect: ConnectString) -> ClientOptions {
        ClientOptions {
            connect,
            session_timeout_ms: 30_000,
            outstanding_max: 1000,
            request_bytes_max: PACKET_BYTES_MAX_DEFAULT,
            reply_bytes_max: 64 << 20,
        }
    }
}

/// A handle to a session; clones share it. When the last one is dropped without [`Client::close`], the connection ends and
/// the session is left to expire.
#[derive(Clone)]
pub struct Client {
    handle: Rc<Handle>,
}

struct Handle {
    shared: Rc<Shared>,
    stop: RefCell<Option<mailbox::Promise<()>>>,
    chroot: Chroot,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.session.borrow_mut().abandon();
        if let Some(stop) = self.stop.take() {
            stop.fulfil(());
        }
    }
}

impl Client {
    /// Begins a session in the background. Must be called on a shard.
    pub fn start(options: ClientOptions) -> Client {
        let chroot = options.connect.chroot.clone();
        let limits = Limits {
            timeout_ms: options.session_timeout_ms,
            outstanding_max: options.outstanding_max.max(1),
            request_bytes_max: options.request_bytes_max,
        };
        let shared = Rc::new(Shared {
            session: RefCell::new(Session::new(limits, chroot.clone())),
            output: Default::default(),
            hosts: options.connect.hosts,
            reply_bytes_max: options.reply_bytes_max,
            session_timeout_ms: options.session_timeout_ms.max(0) as u64,
            last_failure: RefCell::default(),
        });
        let (stop, stopped) = mailbox::slot();
        let driven = shared.clone();
        spawn(Queue::Serving, async move { or(driver::drive(&driven, SmallRng::from_os_rng()), stopped).await });
        Client { handle: Rc::new(Handle { shared, stop: RefCell::new(Some(stop)), chroot }) }
    }

    /// Begins a session and waits until a server has accepted it, at most `wait`.
    pub async fn connect(options: ClientOptions, wait: Duration) -> Result<Client, ClientError> {
        let client = Client::start(options);
        client.wait_connected(wait).await?;
        Ok(client)
    }

    /// Waits until the session is attached to a server, at most `wait`.
    pub async fn wait_connected(&self, wait: Duration) -> Result<(), ClientError> {
        let mut states = self.states();
        let attached = async {
            while let Some(state) = states.next().await {
                match state {
                    SessionState::Connected => return Ok(()),
                    SessionState::Connecting => {}
                    SessionState::Expired => return Err(ClientError::SessionExpired),
                    SessionState::AuthFailed => return Err(ClientError::AuthFailed),
                    SessionState::Closed => return Err(ClientError::Closed),
                }
            }
            Err(ClientError::Closed)
        };
        match timeout(wait, attached).await {
            Ok(result) => result,
            Err(_) => Err(ClientError::NotConnected {
                waited_ms: wait.as_millis() as u64,
                last_failure: self.handle.shared.last_failure.borrow().clone(),
            }),
        }
    }

    /// Where the session stands now.
    pub fn state(&self) -> SessionState {
        self.handle.shared.session.borrow().state()
    }

    /// A stream of the states to come, beginning with the present one; it ends behind a final state.
    pub fn states(&self) -> Receiver<SessionState> {
        self.handle.shared.session.borrow_mut().listen()
    }

    /// The session's id; [`SessionId::NONE`] before the first server has answered. What `ephemeral_owner` is compared with.
    pub fn session_id(&self) -> SessionId {
        self.handle.shared.session.borrow().id()
    }

    fn chroot(&self) -> Chroot {
        self.handle.chroot.clone()
    }

    /// Runs `change` on the session and has the result sent.
    fn with_session<T>(&self, change: impl FnOnce(&mut Session) -> T) -> T {
        let result = change(&mut self.handle.shared.session.borrow_mut());
        self.handle.shared.output.notify();
        result
    }
}

#[cfg(test)]
mod tests;
