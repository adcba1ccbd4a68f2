//! What the cores count, and the limit that rests on it.

use super::test_server::{Client, TestServer};
use crate::base::SessionId;
use crate::coordination::session::password;
use crate::metrics::Counters;
use crate::protocol::jute::Input;
use crate::protocol::zookeeper::{
    Acl, AclVector, Create, CreateFlags, ErrorCode, MultiOp, OpCode, Reply, Request, WatcherEvent,
};

const SHARD_COUNTS: [u16; 2] = [1, 3];

fn create_frame(xid: i32, path: &str, flags: CreateFlags, ttl_ms: Option<i64>) -> Vec<u8> {
    let (mut scratch, mut frame) = (Vec::new(), Vec::new());
    let acl = AclVector::from_acls(&[Acl::open()], &mut scratch);
    let create = Create { path, data: None, acl, flags, with_stat: ttl_ms.is_some(), ttl_ms };
    Request::Create(create).encode_frame(xid, &mut frame);
    frame
}

fn total(server: &TestServer) -> Counters {
    let mut sum = Counters::default();
    server.shards.iter().for_each(|shard| sum.merge(&shard.counters()));
    sum
}

/// What `action` adds to the counters of all shards.
fn added(server: &mut TestServer, action: impl FnOnce(&mut TestServer)) -> Counters {
    let before = total(server);
    action(server);
    server.settle();
    let after = total(server);
    Counters {
        packets_received: after.packets_received - before.packets_received,
        packets_sent: after.packets_sent - before.packets_sent,
        connection_requests: after.connection_requests - before.connection_requests,
        connection_revalidations: after.connection_revalidations - before.connection_revalidations,
        sessionless_connections_expired: after.sessionless_connections_expired - before.sessionless_connections_expired,
        ..Counters::default()
    }
}

fn traffic(received: u64, sent: u64) -> Counters {
    Counters { packets_received: received, packets_sent: sent, ..Counters::default() }
}

/// The packets of a connection left the sums with it, so that `srvr` and `mntr` went back when a client went: a rate computed from
/// them was negative.
#[test]
fn packets_of_a_connection_that_is_gone_are_forgotten() {
    for shards in SHARD_COUNTS {
        let mut server = TestServer::new(shards);
        let (client, _) = server.client(0);
        server.request(client, 1, &Request::Exists { path: "/a", watch: false });
        server.request(client, 2, &Request::Ping);
        server.settle();
        let before = total(&server);
        assert_eq!((before.packets_received, before.packets_sent), (3, 3), "a handshake and two requests");
        server.shards[client.shard].disconnect(client.number);
        server.settle();
        let after = total(&server);
        assert_eq!((after.packets_received, after.packets_sent), (3, 3), "{shards} shards");
    }
}

/// Every packet that a client gets counts, also those that no request asked for by itself: events, and the events that setWatches
/// catches up with were not counted.
#[test]
fn packet_sent_and_not_counted() {
    for shards in SHARD_COUNTS {
        let mut server = TestServer::new(shards);
        let (client, _) = server.client(0);
        let (writer, _) = server.client(usize::from(shards) - 1);
        let watch = |server: &mut TestServer| server.request(client, 1, &Request::Exists { path: "/a", watch: true });
        assert_eq!(added(&mut server, watch), traffic(1, 1));
        let create = |server: &mut TestServer| {
            server.send(writer, &create_frame(1, "/a", CreateFlags::PERSISTENT, None));
        };
        assert_eq!(added(&mut server, create), traffic(1, 2), "the reply, and the event for the other");
        let set_watches = |server: &mut TestServer| {
            let (mut one, mut other) = (Vec::new(), Vec::new());
            let data = crate::protocol::zookeeper::StringVector::from_strings(["/gone"], &mut one);
            let exist = crate::protocol::zookeeper::StringVector::from_strings(["/a"], &mut other);
            let watches = crate::protocol::zookeeper::SetWatches {
                relative_zxid: 0,
                data,
                exist,
                child: Default::default(),
                persistent: Default::default(),
                persistent_recursive: Default::default(),
            };
            server.request(client, -8, &Request::SetWatches(Box::new(watches)));
        };
        assert_eq!(added(&mut server, set_watches), traffic(1, 3), "two events that were missed, and the reply");
        let frames = server.received(client);
        let kinds = frames.iter().filter(|frame| WatcherEvent::decode(&mut Input::new(&frame.body)).is_ok()).count();
        assert!(kinds >= 3, "{frames:?}");
    }
}

/// `zk_connection_request_count` counted accepted connections, four-letter words included, and three rows never moved: a handshake
/// counts, one that takes up a session counts again whatever it is answered with, and a connection without one when it is dropped.
#[test]
fn handshakes_are_not_what_is_counted() {
    let answered =
        |revalidated| Counters { connection_requests: 1, connection_revalidations: revalidated, ..traffic(1, 1) };
    for shards in SHARD_COUNTS {
        let mut server = TestServer::new(shards);
        let mut id = 0;
        let new = |server: &mut TestServer| id = server.client(0).1.session_id;
        assert_eq!(added(&mut server, new), answered(0));
        let password = password(SessionId(id));
        let moved = |server: &mut TestServer| _ = server.attach(usize::from(shards) - 1, id, &password);
        assert_eq!(added(&mut server, moved), answered(1));
        let wrong_password = |server: &mut TestServer| _ = server.attach(0, id, &[9; 16]);
        assert_eq!(added(&mut server, wrong_password), answered(1));
        let unknown = crate::coordination::session::password(SessionId(12_345));
        let unknown_session = |server: &mut TestServer| _ = server.attach(0, 12_345, &unknown);
        assert_eq!(added(&mut server, unknown_session), answered(1));
        let silent = |server: &mut TestServer| {
            server.shards[0].connect("127.0.0.1".parse().unwrap(), server.now_ms);
            server.shards[0].tick(server.now_ms + 10_000, &mut Default::default());
        };
        assert_eq!(added(&mut server, silent), Counters { sessionless_connections_expired: 1, ..Counters::default() });
    }
}

/// `stale_sessions_expired` never moved. A session that its client closes is not stale.
#[test]
fn silent_session_ends_uncounted() {
    let mut server = TestServer::new(1);
    let (client, _) = server.client(0);
    server.request(client, 1, &Request::CloseSession);
    server.settle();
    let (_silent, _) = server.client(0);
    assert_eq!(server.sequencer.sessions_expired(), 0);
    for _ in 0..60 {
        server.now_ms += 50;
        server.tick();
        server.settle();
    }
    assert_eq!(server.sequencer.sessions_expired(), 1);
    assert_eq!(server.shards[0].sessions().len(), 0);
}

/// The latency of `srvr` and `mntr` spoke of writes alone, and a client of reads saw zeros for as long as the server lived.
#[test]
fn reads_have_no_latency() {
    for shards in SHARD_COUNTS {
        let mut server = TestServer::new(shards);
        let (client, _) = server.client(0);
        server.latencies_us.clear();
        let requests = [
            Request::GetData { path: "/x", watch: false },
            Request::GetChildren { path: "/", watch: false, with_stat: false },
            Request::Ping,
            Request::MultiRead([MultiOp::GetData { path: "/y" }].into_iter().collect()),
            Request::Sync { path: "/" },
        ];
        for (xid, request) in requests.iter().enumerate() {
            server.request(client, xid as i32, request);
            server.settle();
        }
        assert_eq!(server.latencies_us.len(), requests.len(), "{shards} shards");
    }
}

fn creates(count: i32, first: i32) -> (Vec<u8>, usize) {
    let frames: Vec<Vec<u8>> = (first..first + count)
        .map(|xid| create_frame(xid, &format!("/n{xid:03}"), CreateFlags::PERSISTENT, None))
        .collect();
    (frames.concat(), frames[0].len())
}

/// `globalOutstandingLimit` was parsed and then read by nobody. Above it a connection that has requests under way is not read until
/// they are answered, but each may have one, so that nobody waits for somebody else's.
#[test]
fn outstanding_requests_pass_the_global_limit() {
    let mut server = TestServer::with_outstanding_max(1, 3);
    let (greedy, _) = server.client(0);
    let (modest, _) = server.client(0);
    let wants = |server: &TestServer, client: Client| server.shards[0].wants_bytes(client.number);
    let (frames, frame_bytes) = creates(6, 1);
    assert_eq!(server.send(greedy, &frames), 4 * frame_bytes, "the one that passes the limit is the last");
    assert!(!wants(&server, greedy) && wants(&server, modest));
    let (other_frames, _) = creates(2, 101);
    assert_eq!(server.send(modest, &other_frames), frame_bytes);
    assert!(!wants(&server, modest));
    assert_eq!(server.shards[0].outstanding_requests(), 5);
    server.settle();
    assert_eq!((server.received(greedy).len(), server.received(modest).len()), (4, 1));
    assert!(wants(&server, greedy) && wants(&server, modest), "their own replies let them go on");
    assert_eq!(server.shards[0].outstanding_requests(), 0);
    // The limit is the server's, not the shard's.
    server.shards[0].set_outstanding_elsewhere(4);
    assert_eq!(server.send(greedy, &frames[4 * frame_bytes..]), frame_bytes);
    assert!(!wants(&server, greedy) && wants(&server, modest));
    server.shards[0].set_outstanding_elsewhere(0);
    assert!(wants(&server, greedy));
}

/// A request that is never answered must not count for ever: its connection may go at any moment.
#[test]
fn outstanding_requests_of_the_dead_count_for_ever() {
    let mut server = TestServer::new(1);
    let (client, _) = server.client(0);
    let (frames, _) = creates(5, 1);
    server.send(client, &frames);
    server.request(client, 9, &Request::Auth { scheme: "none", auth: b"" });
    assert_eq!(server.shards[0].outstanding_requests(), 6);
    server.shards[0].disconnect(client.number);
    assert_eq!(server.shards[0].outstanding_requests(), 0);
    server.settle();
    // A connection that is being closed forgets what waits.
    let (client, _) = server.client(0);
    server.request(client, 1, &Request::Sync { path: "/" });
    server.request(client, 2, &Request::Auth { scheme: "none", auth: b"" });
    server.request(client, 3, &Request::Sync { path: "/" });
    server.settle();
    assert_eq!((server.shards[0].outstanding_requests(), total(&server).outstanding_requests), (0, 0));
}

/// A createTTL and a sasl request closed the connection, where ZooKeeper answers and goes on: the first is a write that is refused,
/// with a zxid of its own, and the second is told that there is nothing to prove.
#[test]
fn request_for_a_feature_that_is_off_ends_the_connection() {
    for shards in SHARD_COUNTS {
        let mut server = TestServer::new(shards);
        let (client, _) = server.client(usize::from(shards) - 1);
        let before = server.sequencer.last();
        server.send(client, &create_frame(1, "/ttl", CreateFlags::PERSISTENT_TTL, Some(1_000)));
        server.send(client, &create_frame(2, "/ttl", CreateFlags::PERSISTENT_SEQUENTIAL_TTL, Some(-1)));
        // A time to live for another kind of node.
        server.send(client, &create_frame(3, "/ttl", CreateFlags::PERSISTENT, Some(1_000)));
        server.send(client, &create_frame(4, "/ttl", CreateFlags(99), Some(1_000)));
        server.request(client, 5, &Request::Sasl { token: b"anything" });
        server.request(client, 6, &Request::Exists { path: "/ttl", watch: false });
        server.settle();
        let frames = server.received(client);
        let (refused, bad) = (ErrorCode::Unimplemented.wire(), ErrorCode::BadArguments.wire());
        let headers: Vec<_> = frames.iter().map(|frame| (frame.header.xid, frame.header.error)).collect();
        let no_node = ErrorCode::NoNode.wire();
        assert_eq!(headers, [(1, refused), (2, refused), (3, bad), (4, bad), (5, 0), (6, no_node)], "{shards} shards");
        let zxids: Vec<i64> = frames[..4].iter().map(|frame| frame.header.zxid - before.wire()).collect();
        assert_eq!(zxids, [1, 2, 3, 4]);
        assert_eq!((frames[4].reply(OpCode::Sasl), frames[4].header.zxid), (Reply::Sasl(None), 0));
    }
}

/// Inside a multi a createTTL fails in its slot, as any other, and the rest with it.
#[test]
fn create_ttl_in_a_multi_ends_the_connection() {
    let mut server = TestServer::new(1);
    let (client, _) = server.client(0);
    let mut scratch = Vec::new();
    let acl = AclVector::from_acls(&[Acl::open()], &mut scratch);
    let node = |path, flags, ttl_ms: Option<i64>| {
        MultiOp::Create(Create { path, data: None, acl, flags, with_stat: ttl_ms.is_some(), ttl_ms })
    };
    let ttl = node("/b", CreateFlags::PERSISTENT_TTL, Some(5));
    let refused = [node("/a", CreateFlags::PERSISTENT, None), ttl, MultiOp::Check { path: "/", version: -1 }];
    server.request(client, 1, &Request::Multi(refused.into_iter().collect()));
    // What is no TTL node is created as if nothing had been said of a time.
    let plain = [node("/c", CreateFlags::EPHEMERAL, Some(5))];
    server.request(client, 2, &Request::Multi(plain.into_iter().collect()));
    server.request(client, 3, &Request::Exists { path: "/a", watch: false });
    server.settle();
    let frames = server.received(client);
    use crate::protocol::zookeeper::MultiResult::{Create as Created, Error};
    let inconsistent = ErrorCode::RuntimeInconsistency.wire();
    let slots = vec![Error(0), Error(ErrorCode::Unimplemented.wire()), Error(inconsistent)];
    assert_eq!(frames[0].reply(OpCode::Multi), Reply::Multi(slots));
    assert_eq!(frames[1].reply(OpCode::Multi), Reply::Multi(vec![Created { path: "/c" }]));
    assert_eq!(frames[2].header.error, ErrorCode::NoNode.wire());
}
