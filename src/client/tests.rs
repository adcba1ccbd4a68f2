//! The client against a scripted server: a listener on the same shard whose every frame the test reads and writes itself.

use super::*;
use crate::base::Zxid;
use crate::protocol::jute::Input;
use crate::protocol::zookeeper::{
    AddWatchMode, ConnectRequest, ConnectResponse, ErrorCode, EventType, FrameReader, OpCode, PASSWORD_BYTES, Reply,
    Request, RequestHeader, Stat, WatcherEvent, xid,
};
use crate::runtime::{Accepted, ConnectionLimit, Listener, ShardsConfig, Socket, bind_listeners, run_shards};
use std::future::Future;

const SESSION: i64 = 0x1234;
const PASSWORD: [u8; PASSWORD_BYTES] = *b"sixteen bytes ok";
const WAIT: Duration = Duration::from_secs(20);

fn on_shard<Fut: Future<Output = ()> + 'static>(test: impl FnOnce() -> Fut + Clone + Send + 'static) {
    let shard =
        run_shards(&ShardsConfig::new(1), move |_| async move { timeout(WAIT, test()).await.map_err(Into::into) });
    shard.unwrap().join().unwrap_or_else(|error| panic!("{error}"));
}

fn listener() -> Listener {
    let loopback: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
    let bound = bind_listeners(loopback, 1).unwrap().remove(0);
    Listener::new(bound, ConnectionLimit::new(100)).unwrap()
}

fn options(listeners: &[&Listener], chroot: &str, timeout_ms: i32) -> ClientOptions {
    let hosts: Vec<_> = listeners.iter().map(|listener| listener.local_addr().to_string()).collect();
    let connect = ConnectString::parse(&format!("{}{chroot}", hosts.join(","))).unwrap();
    ClientOptions { session_timeout_ms: timeout_ms, ..ClientOptions::new(connect) }
}

/// The server's end of a connection.
struct Peer {
    accepted: Accepted,
    buffer: ReceiveBuffer,
    port: u16,
}

/// What a client says first.
struct Hello {
    session_id: i64,
    password: Vec<u8>,
    last_zxid_seen: i64,
    timeout_ms: i32,
}

impl Peer {
    async fn accept(listener: &Listener) -> Peer {
        let accepted = listener.accept().await.unwrap().unwrap();
        Peer { accepted, buffer: ReceiveBuffer::default(), port: listener.local_addr().port() }
    }

    fn socket(&self) -> &Socket {
        &self.accepted.socket
    }

    /// The next frame; `None` at the end of the stream.
    async fn frame(&mut self) -> Option<Vec<u8>> {
        loop {
            let mut frames = FrameReader::new(self.buffer.received(), 1 << 20);
            if let Some(frame) = frames.next().unwrap() {
                let body = frame.body.to_vec();
                let consumed = frames.consumed();
                self.buffer.consume(consumed);
                return Some(body);
            }
            // A client that gives up may reset the connection: that is its end too.
            match self.accepted.socket.read(self.buffer.space()).await {
                Ok(0) | Err(_) => return None,
                Ok(len) => self.buffer.filled(len),
            }
        }
    }

    async fn hello(&mut self) -> Hello {
        let body = self.frame().await.unwrap();
        let ConnectRequest { session_id, password, last_zxid_seen, timeout_ms, .. } =
            ConnectRequest::decode(&body).unwrap();
        Hello { session_id, password: password.to_vec(), last_zxid_seen, timeout_ms }
    }

    async fn greet(&mut self, timeout_ms: i32) -> Hello {
        let hello = self.hello().await;
        self.send(|out| {
            ConnectResponse { timeout_ms, session_id: SESSION, password: PASSWORD, read_only: Some(false) }
                .encode_frame(out)
        })
        .await;
        hello
    }

    async fn send(&self, encode: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = Vec::new();
        encode(&mut bytes);
        self.socket().write_all(&bytes).await.unwrap();
    }

    /// The next request must be of operation `op`; returns its xid and body.
    async fn expect(&mut self, op: OpCode) -> (i32, Vec<u8>) {
        let frame = self.frame().await.unwrap();
        let mut input = Input::new(&frame);
        let header = RequestHeader::decode(&mut input).unwrap();
        assert_eq!(OpCode::from_wire(header.op), Some(op));
        (header.xid, input.rest().to_vec())
    }

    async fn reply_data(&self, xid: i32, zxid: u64, data: &[u8]) {
        self.send(|out| Reply::Data(Some(data), Stat::default()).encode_frame(xid, Zxid(zxid), out)).await;
    }
}

/// The whole life of a broker's session on two servers: the first one dies with a request in flight; the client must come to
/// the other one as the same session, with the newest zxid that it saw and its watches, and only the request in flight fails.
#[test]
fn session_moves_to_the_next_server() {
    on_shard(|| async {
        let (first, second) = (listener(), listener());
        let client = Client::start(options(&[&first, &second], "/kafka", 9_000));
        let mut peer = or(Peer::accept(&first), Peer::accept(&second)).await;
        let hello = peer.greet(4_000).await;
        assert_eq!((hello.session_id, hello.timeout_ms, hello.last_zxid_seen), (0, 9_000, 0));

        let watched = client.get_data_watch("/w");
        let persistent = client.add_watch("/p", AddWatchMode::PersistentRecursive);
        let (number, body) = peer.expect(OpCode::GetData).await;
        let request = Request::decode(OpCode::GetData.wire(), &body).unwrap();
        assert_eq!(request, Request::GetData { path: "/kafka/w", watch: true });
        peer.reply_data(number, 77, b"one").await;
        let (number, _) = peer.expect(OpCode::AddWatch).await;
        peer.send(|out| Reply::AddWatch.encode_frame(number, Zxid(78), out)).await;
        let (data, _, mut watch) = watched.await.unwrap();
        let mut persistent = persistent.await.unwrap();
        assert_eq!(data.as_deref(), Some(&b"one"[..]));
        assert_eq!(client.session_id(), SessionId(SESSION));

        let in_flight = client.get_data("/lost");
        peer.expect(OpCode::GetData).await;
        let left = peer.port;
        drop(peer);
        assert_eq!(in_flight.await, Err(ClientError::ConnectionLoss));

        let mut peer = or(Peer::accept(&first), Peer::accept(&second)).await;
        assert_ne!(peer.port, left, "the next server is tried first");
        let hello = peer.greet(4_000).await;
        assert_eq!((hello.session_id, &hello.password[..], hello.last_zxid_seen), (SESSION, &PASSWORD[..], 78));
        let (number, body) = peer.expect(OpCode::SetWatches2).await;
        assert_eq!(number, xid::SET_WATCHES);
        let Ok(Request::SetWatches(set)) = Request::decode(OpCode::SetWatches2.wire(), &body) else { panic!() };
        assert_eq!((set.relative_zxid, set.data.iter().collect::<Vec<_>>()), (78, vec!["/kafka/w"]));
        assert_eq!(set.persistent_recursive.iter().collect::<Vec<_>>(), ["/kafka/p"]);
        peer.send(|out| {
            WatcherEvent { kind: EventType::NodeDataChanged, path: "/kafka/w" }.encode_frame(None, out);
            Reply::Empty.encode_frame(xid::SET_WATCHES, Zxid(80), out);
        })
        .await;
        let event = NodeEvent { kind: EventType::NodeDataChanged, path: "/w".into(), zxid: -1 };
        assert_eq!(watch.next().await, Some(WatchEvent::Node(event)));
        assert_eq!(watch.next().await, None, "a standard watch fires once");
        assert_eq!(persistent.next().await, Some(WatchEvent::Missed));

        let close = client.close();
        let (number, _) = peer.expect(OpCode::CloseSession).await;
        peer.send(|out| Reply::Empty.encode_frame(number, Zxid(81), out)).await;
        assert_eq!(close.await, Ok(()));
        assert_eq!(peer.frame().await, None, "nothing follows closeSession");
    });
}

/// A server that accepts and then says nothing (a stopped process) must cost two thirds of the timeout, not the session.
#[test]
fn silent_server_is_pinged_and_left() {
    on_shard(|| async {
        let server = listener();
        let client = Client::start(options(&[&server], "", 300));
        let mut peer = Peer::accept(&server).await;
        peer.greet(300).await;
        assert_eq!(peer.expect(OpCode::Ping).await.0, xid::PING);
        let waiting = client.get_data("/a");
        peer.expect(OpCode::GetData).await;
        assert_eq!(waiting.await, Err(ClientError::ConnectionLoss));
        assert_eq!(Peer::accept(&server).await.greet(300).await.session_id, SESSION);
    });
}

/// A reply to another request than the one that is due must reach nobody: the connection ends.
#[test]
fn reply_out_of_order_ends_the_connection() {
    on_shard(|| async {
        let server = listener();
        let client = Client::start(options(&[&server], "", 30_000));
        let mut peer = Peer::accept(&server).await;
        peer.greet(30_000).await;
        let (one, two) = (client.get_data("/one"), client.get_data("/two"));
        peer.expect(OpCode::GetData).await;
        let (second, _) = peer.expect(OpCode::GetData).await;
        peer.reply_data(second, 5, b"of two").await;
        assert_eq!(one.await, Err(ClientError::ConnectionLoss));
        assert_eq!(two.await, Err(ClientError::ConnectionLoss));
        assert_eq!(peer.frame().await, None);
        assert_eq!(Peer::accept(&server).await.greet(30_000).await.session_id, SESSION);
        client.wait_connected(WAIT).await.unwrap();
    });
}

/// A session that expired while the client was away ends for good, and the client stops asking.
#[test]
fn expired_session_is_not_revived() {
    on_shard(|| async {
        let server = listener();
        let client = Client::start(options(&[&server], "", 30_000));
        let mut peer = Peer::accept(&server).await;
        peer.greet(30_000).await;
        client.wait_connected(WAIT).await.unwrap();
        drop(peer);
        let mut peer = Peer::accept(&server).await;
        peer.hello().await;
        let waiting = client.get_data("/a");
        peer.send(|out| ConnectResponse::session_gone(Some(false)).encode_frame(out)).await;
        assert_eq!(waiting.await, Err(ClientError::SessionExpired));
        assert_eq!(client.state(), SessionState::Expired);
        assert_eq!(peer.frame().await, None);
        assert_eq!(client.wait_connected(WAIT).await, Err(ClientError::SessionExpired));
    });
}

/// What one turn of the caller's task asks for leaves in one send: one send a request costs ten times the CPU.
#[test]
fn requests_of_one_turn_leave_together() {
    on_shard(|| async {
        let server = listener();
        let client = Client::start(options(&[&server], "", 30_000));
        let mut peer = Peer::accept(&server).await;
        peer.greet(30_000).await;
        client.wait_connected(WAIT).await.unwrap();
        let waiting: Vec<_> = (0..100).map(|n| client.get_data(&format!("/{n}"))).collect();
        let len = peer.accepted.socket.read(peer.buffer.space()).await.unwrap();
        peer.buffer.filled(len);
        let mut replies = Vec::new();
        for _ in 0..100 {
            assert!(!peer.buffer.received().is_empty(), "the first receive held fewer than 100 requests");
            let (number, _) = peer.expect(OpCode::GetData).await;
            Reply::encode_error_frame(number, 1, ErrorCode::NoNode, &mut replies);
        }
        peer.socket().write_all(&replies).await.unwrap();
        for (n, waiting) in waiting.into_iter().enumerate() {
            let error = ClientError::Refused { code: ErrorCode::NoNode, path: format!("/{n}") };
            assert_eq!(waiting.await, Err(error));
        }
    });
}

/// Dropping the last handle ends the connection without ending the session: that is left to the timeout, as after a crash.
#[test]
fn dropped_client_leaves_without_closing_the_session() {
    on_shard(|| async {
        let server = listener();
        let client = Client::start(options(&[&server], "", 30_000));
        let mut peer = Peer::accept(&server).await;
        peer.greet(30_000).await;
        client.wait_connected(WAIT).await.unwrap();
        drop(client.clone());
        let waiting = client.exists("/a");
        peer.expect(OpCode::Exists).await;
        drop(client);
        assert_eq!(waiting.await, Err(ClientError::Closed));
        assert_eq!(peer.frame().await, None);
    });
}

/// A user who mistyped the port must be told which server gave which answer, within the time that was asked for.
#[test]
fn unreachable_server_is_named() {
    on_shard(|| async {
        let gone = listener();
        let options = options(&[&gone], "", 30_000);
        let address = gone.local_addr().to_string();
        gone.stop();
        drop(gone);
        let error = Client::connect(options, Duration::from_millis(300)).await.err().unwrap();
        let ClientError::NotConnected { waited_ms: 300, last_failure: Some(failure) } = &error else {
            panic!("{error}")
        };
        assert!(failure.contains(&address), "{failure}");
    });
}
