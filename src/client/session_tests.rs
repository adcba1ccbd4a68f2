use super::*;
use crate::base::Zxid;
use crate::client::watcher::{Watch, WatchEvent};
use crate::protocol::zookeeper::{EventType, FrameReader, Reply, RequestHeader, Stat};
use futures_lite::future::{block_on, poll_once};

const SECOND_US: u64 = 1_000_000;
const PASSWORD: [u8; PASSWORD_BYTES] = [7; PASSWORD_BYTES];

fn session(outstanding_max: usize) -> Session {
    Session::new(Limits { timeout_ms: 30_000, outstanding_max, request_bytes_max: 1000 }, Chroot::default())
}

fn connected(outstanding_max: usize) -> Session {
    let mut session = session(outstanding_max);
    attach(&mut session, 0x55, 0);
    session
}

fn attach(session: &mut Session, id: i64, now_us: u64) {
    let response = ConnectResponse { timeout_ms: 3_000, session_id: id, password: PASSWORD, read_only: Some(false) };
    session.on_connected(&response, now_us).unwrap();
}

/// (xid, op) of everything that the session sends now.
fn sent(session: &mut Session, now_us: u64) -> Vec<(i32, i32)> {
    let mut output = Vec::new();
    session.take_output(now_us, &mut output);
    let mut frames = FrameReader::new(&output, 1 << 20);
    let mut requests = Vec::new();
    while let Some(frame) = frames.next().unwrap() {
        let header = RequestHeader::decode(&mut Input::new(frame.body)).unwrap();
        requests.push((header.xid, header.op));
    }
    requests
}

fn reply(session: &mut Session, xid: i32, zxid: u64) -> Result<(), ClientError> {
    let mut frame = Vec::new();
    Reply::Stat(Stat::default()).encode_frame(xid, Zxid(zxid), &mut frame);
    session.on_frame(&frame[4..], 0)
}

fn error(session: &mut Session, xid: i32, error: ErrorCode) -> Result<(), ClientError> {
    let mut frame = Vec::new();
    Reply::encode_error_frame(xid, 9, error, &mut frame);
    session.on_frame(&frame[4..], 0)
}

fn exists(session: &mut Session) -> Promised<ReplyResult> {
    session.submit(&Request::Exists { path: "/a", watch: false }, Effect::None)
}

fn exists_watch(session: &mut Session, path: &str) -> Watch {
    let (registration, watch) = Registration::new(WatchList::Data, path.to_owned());
    drop(session.submit(&Request::Exists { path, watch: true }, Effect::ArmExists(registration)));
    watch
}

/// A reply matched to the wrong request hands one caller another caller's data: an unexpected xid must end the connection.
#[test]
fn reply_out_of_order_is_refused() {
    let mut session = connected(10);
    let (mut first, second) = (exists(&mut session), exists(&mut session));
    assert_eq!(sent(&mut session, 0), [(1, 3), (2, 3)]);
    assert!(matches!(reply(&mut session, 2, 5), Err(ClientError::BadReply(_))));
    assert!(block_on(poll_once(&mut first)).is_none(), "nobody got a reply that is not theirs");
    session.on_disconnected();
    assert_eq!(block_on(first).unwrap_err(), ClientError::ConnectionLoss);
    assert_eq!(block_on(second).unwrap_err(), ClientError::ConnectionLoss);
    assert!(matches!(reply(&mut connected(1), 1, 5), Err(ClientError::BadReply(_))), "a reply to nothing");
}

/// Unbounded pipelining fills the server's queues; the bound must hold back requests without reordering them.
#[test]
fn requests_beyond_the_bound_wait_in_order() {
    let mut session = connected(2);
    let waiting: Vec<_> = (0..3).map(|_| exists(&mut session)).collect();
    assert_eq!(sent(&mut session, 0), [(1, 3), (2, 3)]);
    assert_eq!(sent(&mut session, 0), []);
    reply(&mut session, 1, 5).unwrap();
    assert_eq!(sent(&mut session, 0), [(3, 3)]);
    reply(&mut session, 2, 5).unwrap();
    reply(&mut session, 3, 5).unwrap();
    for promised in waiting {
        assert_eq!(block_on(promised).unwrap().error, 0);
    }
}

/// A client that waits longer than a third of the timeout with its ping loses its session at the first lost packet, and one
/// that trusts a silent server for the whole timeout has no time left to find another.
#[test]
fn ping_after_a_third_and_silence_after_two_thirds() {
    let mut session = connected(10);
    assert_eq!(session.next_deadline_us(), SECOND_US);
    assert_eq!(session.on_timer(SECOND_US - 1), TimerOutcome::Alive);
    assert_eq!(sent(&mut session, SECOND_US - 1), []);
    assert_eq!(session.on_timer(SECOND_US), TimerOutcome::Alive);
    assert_eq!(sent(&mut session, SECOND_US), [(xid::PING, 11)]);
    assert_eq!(session.next_deadline_us(), 2 * SECOND_US);
    assert_eq!(session.on_timer(2 * SECOND_US), TimerOutcome::ServerSilent);
    error(&mut session, xid::PING, ErrorCode::Ok).unwrap();
}

/// A ping reply in time keeps the connection; a request in time makes a ping needless.
#[test]
fn traffic_moves_the_deadlines() {
    let mut session = connected(10);
    drop(exists(&mut session));
    assert_eq!(sent(&mut session, 900_000).len(), 1);
    let mut frame = Vec::new();
    Reply::Stat(Stat::default()).encode_frame(1, Zxid(5), &mut frame);
    session.on_frame(&frame[4..], 950_000).unwrap();
    assert_eq!(session.next_deadline_us(), 1_900_000);
    assert_eq!(session.on_timer(1_900_000), TimerOutcome::Alive);
    assert_eq!(sent(&mut session, 1_900_000), [(xid::PING, 11)]);
    assert_eq!(session.on_timer(2_950_000), TimerOutcome::ServerSilent);
}

/// Re-attaching: the session's own id, password and newest zxid travel along (or the view could go back), credentials come
/// before the watches (a watch may need them), and both before anything that was queued meanwhile.
#[test]
fn reattach_brings_credentials_and_watches_first() {
    let mut session = connected(10);
    let auth = session.add_auth("digest", b"u:p");
    assert_eq!(sent(&mut session, 0), [(xid::AUTH, 100)]);
    error(&mut session, xid::AUTH, ErrorCode::Ok).unwrap();
    assert_eq!(block_on(auth), Ok(()));
    let (mut there, mut missing) = (exists_watch(&mut session, "/there"), exists_watch(&mut session, "/missing"));
    sent(&mut session, 0);
    reply(&mut session, 1, 40).unwrap();
    error(&mut session, 2, ErrorCode::NoNode).unwrap();

    session.on_disconnected();
    assert_eq!(session.state(), SessionState::Connecting);
    let request = session.connect_request();
    assert_eq!((request.session_id, request.password, request.last_zxid_seen), (0x55, &PASSWORD[..], 40));
    let queued = exists(&mut session);
    assert_eq!(sent(&mut session, 0), [], "nothing may precede the handshake");
    attach(&mut session, 0x55, 0);
    assert_eq!(sent(&mut session, 0), [(xid::AUTH, 100), (xid::SET_WATCHES, 105), (3, 3)]);

    error(&mut session, xid::AUTH, ErrorCode::Ok).unwrap();
    let mut event = Vec::new();
    WatcherEvent { kind: EventType::NodeCreated, path: "/missing" }.encode_frame(None, &mut event);
    session.on_frame(&event[4..], 0).unwrap();
    error(&mut session, xid::SET_WATCHES, ErrorCode::Ok).unwrap();
    reply(&mut session, 3, 41).unwrap();
    assert!(block_on(queued).is_ok());
    assert!(matches!(missing.try_next(), Some(WatchEvent::Node(_))));
    assert_eq!(there.try_next(), None);
}

/// A handshake answered with another session means that the ephemerals are somebody else's: it must not pass for ours.
#[test]
fn another_sessions_handshake_is_refused() {
    let mut session = connected(10);
    session.on_disconnected();
    let other = ConnectResponse { timeout_ms: 3_000, session_id: 0x56, password: PASSWORD, read_only: Some(false) };
    assert!(matches!(session.on_connected(&other, 0), Err(ClientError::BadReply(_))));
    assert_eq!(session.state(), SessionState::Connecting);
}

/// Expiry is final: whoever waits is told so, watches end, later requests fail at once. A broker that only saw
/// "connection lost" would go on believing in its ephemeral nodes.
#[test]
fn expiry_ends_everything() {
    let mut session = connected(10);
    let mut states = session.listen();
    let mut watch = exists_watch(&mut session, "/a");
    sent(&mut session, 0);
    reply(&mut session, 1, 1).unwrap();
    session.on_disconnected();
    let waiting = exists(&mut session);
    let gone = ConnectResponse::session_gone(Some(false));
    assert_eq!(session.on_connected(&gone, 0), Err(ClientError::SessionExpired));
    assert_eq!(block_on(waiting).unwrap_err(), ClientError::SessionExpired);
    assert_eq!(watch.try_next(), Some(WatchEvent::SessionEnded));
    assert_eq!(block_on(exists(&mut session)).unwrap_err(), ClientError::SessionExpired);
    let seen: Vec<_> = std::iter::from_fn(|| block_on(states.next())).collect();
    assert_eq!(seen, [SessionState::Connected, SessionState::Connecting, SessionState::Expired]);
}

/// Refused credentials are final, as in ZooKeeper: going on without them would silently lose the rights they give.
#[test]
fn refused_credentials_end_the_session() {
    let mut session = connected(10);
    let (auth, waiting) = (session.add_auth("nonsense", b"x"), exists(&mut session));
    assert_eq!(error(&mut session, xid::AUTH, ErrorCode::AuthFailed), Err(ClientError::AuthFailed));
    assert_eq!(block_on(auth), Err(ClientError::AuthFailed));
    assert_eq!(block_on(waiting).unwrap_err(), ClientError::AuthFailed);
    assert_eq!(session.state(), SessionState::AuthFailed);
}

/// Closing: nothing may follow closeSession, and a connection lost meanwhile must not lead to a reconnect.
#[test]
fn nothing_follows_close() {
    let mut session = connected(10);
    let close = session.submit(&Request::CloseSession, Effect::Close);
    assert_eq!(block_on(exists(&mut session)).unwrap_err(), ClientError::Closed);
    assert_eq!(sent(&mut session, 0), [(1, -11)]);
    error(&mut session, 1, ErrorCode::Ok).unwrap();
    assert!(block_on(close).is_ok());
    assert_eq!(session.state(), SessionState::Closed);

    let mut session = connected(10);
    let close = session.submit(&Request::CloseSession, Effect::Close);
    session.on_disconnected();
    assert_eq!(block_on(close).unwrap_err(), ClientError::ConnectionLoss);
    assert_eq!(session.state(), SessionState::Closed);
}

/// A packet above jute.maxbuffer makes the server close the connection, which fails everything else in flight.
#[test]
fn oversized_request_is_refused_before_it_is_sent() {
    let mut session = connected(10);
    let data = vec![0; 1000];
    let request = Request::SetData { path: "/a", data: Some(&data), version: -1 };
    let refused = session.submit(&request, Effect::None);
    assert_eq!(sent(&mut session, 0), []);
    assert!(matches!(block_on(refused), Err(ClientError::RequestTooLarge { limit: 1000, .. })));
}
