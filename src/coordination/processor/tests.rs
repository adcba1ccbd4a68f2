//! The cores together: order, sessions and watches over one and three shards, with messages delivered by hand.

use super::message::ToSequencer;
use super::test_server::{Client, Received, TestServer};
use crate::base::{SessionId, ShardId, Zxid};
use crate::protocol::jute::Input;
use crate::protocol::zookeeper::{
    Acl, AclVector, AddWatchMode, Create, CreateFlags, ErrorCode, EventType, Id, MultiOp, OpCode, Reply, Request,
    WatcherEvent, WatcherType, permission, xid,
};

fn open_acl(scratch: &mut Vec<u8>) -> AclVector<'_> {
    AclVector::from_acls(&[Acl::open()], scratch)
}

fn create(server: &mut TestServer, client: Client, xid: i32, path: &str, flags: CreateFlags) {
    let mut scratch = Vec::new();
    let acl = open_acl(&mut scratch);
    server.request(
        client,
        xid,
        &Request::Create(Create { path, data: Some(b"v"), acl, flags, with_stat: false, ttl_ms: None }),
    );
}

fn event(frame: &Received) -> (EventType, String) {
    assert_eq!(frame.header.xid, xid::NOTIFICATION);
    let event = WatcherEvent::decode(&mut Input::new(&frame.body)).unwrap();
    (event.kind, event.path.to_owned())
}

fn xids(frames: &[Received]) -> Vec<i32> {
    frames.iter().map(|frame| frame.header.xid).collect()
}

/// Everything of a session comes back in request order, errors and reads included, with any number of shards.
#[test]
fn replies_keep_request_order_over_shards() {
    for shards in [1, 2, 3, 8] {
        let mut server = TestServer::new(shards);
        let (client, _) = server.client(usize::from(shards) - 1);
        for i in 0..20 {
            create(&mut server, client, i * 3, &format!("/n{i}"), CreateFlags::PERSISTENT);
            server.request(client, i * 3 + 1, &Request::GetData { path: &format!("/n{i}"), watch: false });
            server.request(client, i * 3 + 2, &Request::Exists { path: "/missing", watch: false });
        }
        server.settle();
        let frames = server.received(client);
        assert_eq!(xids(&frames), (0..60).collect::<Vec<_>>(), "{shards} shards");
        for (i, frame) in frames.iter().enumerate() {
            let expected = if i % 3 == 2 { ErrorCode::NoNode.wire() } else { 0 };
            assert_eq!(frame.header.error, expected, "{shards} shards, reply {i}");
        }
        assert!(frames.is_sorted_by_key(|frame| frame.header.zxid));
    }
}

/// A own-write event precedes the write's reply, and node events precede those of the parent.
#[test]
fn events_precede_the_reply_of_the_write() {
    for shards in [1, 3] {
        let mut server = TestServer::new(shards);
        let (client, _) = server.client(0);
        create(&mut server, client, 1, "/a", CreateFlags::PERSISTENT);
        server.request(client, 2, &Request::Exists { path: "/a/b", watch: true });
        server.request(client, 3, &Request::GetChildren { path: "/a", watch: true, with_stat: false });
        create(&mut server, client, 4, "/a/b", CreateFlags::PERSISTENT);
        server.settle();
        let frames = server.received(client);
        assert_eq!(xids(&frames), [1, 2, 3, -1, -1, 4], "{shards} shards");
        assert_eq!(event(&frames[3]), (EventType::NodeCreated, "/a/b".into()));
        assert_eq!(event(&frames[4]), (EventType::NodeChildrenChanged, "/a".into()));
        assert_eq!(frames[3].header.zxid, frames[5].header.zxid);
    }
}

/// Rule A1: the read was sent while its owner lagged; the change that the owner had not seen must reach the watch.
#[test]
fn watch_of_a_read_at_a_lagging_owner_is_not_lost() {
    let mut server = TestServer::new(3);
    let (client, _) = server.client(0);
    let path = (0..).map(|i| format!("/w{i}")).find(|path| path_owner(&server, path) == 1).unwrap();
    create(&mut server, client, 1, &path, CreateFlags::PERSISTENT);
    server.settle();
    server.received(client);
    // Shard 1 lags: the write is applied by shard 0 only, then the read is sent.
    let (writer, _) = server.client(0);
    server.request(client, 2, &Request::GetData { path: &path, watch: true });
    server.request(writer, 1, &Request::SetData { path: &path, data: Some(b"new"), version: -1 });
    server.run_sequencer();
    assert_eq!(server.received(client), []);
    server.settle();
    let frames = server.received(client);
    assert_eq!(xids(&frames), [2, -1]);
    assert_eq!(frames[0].reply(OpCode::GetData), frames[0].reply(OpCode::GetData));
    let Reply::Data(data, stat) = frames[0].reply(OpCode::GetData) else { panic!() };
    assert_eq!((data, stat.version), (Some(&b"v"[..]), 0));
    assert_eq!(event(&frames[1]), (EventType::NodeDataChanged, path));
}

fn path_owner(server: &TestServer, path: &str) -> usize {
    let map = crate::coordination::tree::ShardMap::new(server.shards.len() as u16, 1);
    map.owner(path).index()
}

/// A failed multi changes nothing, answers every slot, and takes a zxid; a successful one answers in its own types.
#[test]
fn multi_is_all_or_nothing() {
    for shards in [1, 3] {
        let mut server = TestServer::new(shards);
        let (client, _) = server.client(0);
        let mut scratch = Vec::new();
        let acl = open_acl(&mut scratch);
        let node =
            |path, flags| MultiOp::Create(Create { path, data: None, acl, flags, with_stat: true, ttl_ms: None });
        let failing = [
            node("/m", CreateFlags::PERSISTENT),
            node("/m/s-", CreateFlags::PERSISTENT_SEQUENTIAL),
            MultiOp::Check { path: "/m", version: 7 },
            MultiOp::Delete { path: "/m", version: -1 },
        ];
        server.request(client, 1, &Request::Multi(failing.into_iter().collect()));
        let passing = [node("/m", CreateFlags::PERSISTENT), node("/m/s-", CreateFlags::PERSISTENT_SEQUENTIAL)];
        server.request(client, 2, &Request::Multi(passing.into_iter().collect()));
        server.settle();
        let frames = server.received(client);
        let Reply::Multi(failed) = frames[0].reply(OpCode::Multi) else { panic!() };
        let codes: Vec<i32> = failed
            .iter()
            .map(|result| match result {
                crate::protocol::zookeeper::MultiResult::Error(code) => *code,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(codes, [0, 0, -103, -2]);
        let Reply::Multi(passed) = frames[1].reply(OpCode::Multi) else { panic!() };
        let crate::protocol::zookeeper::MultiResult::Create2 { path, stat } = &passed[1] else { panic!() };
        assert_eq!((*path, stat.num_children), ("/m/s-0000000000", 0));
        assert_eq!(frames[1].header.zxid, frames[0].header.zxid + 1);
    }
}

/// The ephemerals of a closed session go in its one transaction, also those whose creation is not applied yet (B6).
#[test]
fn close_session_takes_unapplied_ephemerals_along() {
    for shards in [1, 3] {
        let mut server = TestServer::new(shards);
        let (watcher, _) = server.client(0);
        let (owner, _) = server.client(usize::from(shards) - 1);
        create(&mut server, owner, 1, "/e1", CreateFlags::EPHEMERAL);
        server.settle();
        server.request(watcher, 1, &Request::GetChildren { path: "/", watch: true, with_stat: true });
        server.settle();
        server.received(watcher);
        create(&mut server, owner, 2, "/e2", CreateFlags::EPHEMERAL);
        server.request(owner, 3, &Request::CloseSession);
        server.settle();
        let closed = server.received(owner);
        assert_eq!(xids(&closed), [1, 2, 3]);
        assert!(server.shards[owner.shard].is_finished(owner.number));
        server.request(watcher, 2, &Request::GetChildren { path: "/", watch: false, with_stat: true });
        server.settle();
        let frames = server.received(watcher);
        assert_eq!(xids(&frames), [-1, 2], "{shards} shards");
        let Reply::ChildrenAndStat(children, stat) = frames[1].reply(OpCode::GetChildren2) else { panic!() };
        assert_eq!((children, stat.cversion), (vec!["zookeeper"], 3));
    }
}

/// Rule A11: after the session moved to another connection of the same server, the old one is closed, and what it still
/// sends is never applied.
#[test]
fn write_of_the_old_connection_is_refused_after_a_move() {
    for shards in [1, 3] {
        let mut server = TestServer::new(shards);
        let (old, response) = server.client(0);
        let (new, moved) = server.attach(usize::from(shards) - 1, response.session_id, &response.password);
        assert_eq!(moved.unwrap().session_id, response.session_id);
        assert!(server.shards[0].is_finished(old.number));
        create(&mut server, old, 1, "/stale", CreateFlags::PERSISTENT);
        server.request(new, 1, &Request::Exists { path: "/stale", watch: false });
        server.settle();
        assert_eq!(server.received(new)[0].header.error, ErrorCode::NoNode.wire());
        // A wrong password disturbs nobody.
        let (_, refused) = server.attach(0, response.session_id, &[9; 16]);
        assert_eq!(refused.unwrap().timeout_ms, 0);
        server.request(new, xid::PING, &Request::Ping);
        assert_eq!(xids(&server.received(new)), [xid::PING]);
    }
}

/// A silent session expires, its ephemerals go, and its connection is closed.
#[test]
fn silent_session_expires() {
    for shards in [1, 3] {
        let mut server = TestServer::new(shards);
        let (silent, _) = server.client(0);
        create(&mut server, silent, 1, "/e", CreateFlags::EPHEMERAL);
        server.settle();
        for _ in 0..25 {
            server.now_ms += 50;
            server.tick();
            server.settle();
        }
        assert!(server.shards[0].is_finished(silent.number), "{shards} shards");
        let (client, _) = server.client(0);
        server.request(client, 1, &Request::Exists { path: "/e", watch: false });
        server.settle();
        assert_eq!(server.received(client)[0].header.error, ErrorCode::NoNode.wire());
    }
}

/// The counter of an epoch never wraps: the next epoch opens by itself and nobody is dropped.
#[test]
fn zxid_counter_rolls_into_a_new_epoch() {
    let mut server = TestServer::new(1);
    let (client, _) = server.client(0);
    server.sequencer.skip_to(Zxid::new(1, u32::MAX - 1));
    for i in 0..3 {
        create(&mut server, client, i, &format!("/r{i}"), CreateFlags::PERSISTENT);
    }
    server.settle();
    let zxids: Vec<i64> = server.received(client).iter().map(|frame| frame.header.zxid).collect();
    assert_eq!(zxids, [Zxid::new(1, u32::MAX).wire(), Zxid::new(2, 1).wire(), Zxid::new(2, 2).wire()]);
}

/// Rule A9: whether the watch is there depends on how the read before it ends. Counted while the read was still under way, it
/// was "there" and a moment later gone, and the client believed in it for ever.
#[test]
fn check_watches_waits_for_the_reads_before_it() {
    let mut server = TestServer::new(3);
    let (client, _) = server.client(0);
    let path = (0..).map(|i| format!("/w{i}")).find(|path| path_owner(&server, path) == 1).unwrap();
    server.request(client, 1, &Request::GetData { path: &path, watch: true });
    server.request(client, 2, &Request::CheckWatches { path: &path, kind: WatcherType::Data });
    server.request(client, 3, &Request::RemoveWatches { path: &path, kind: WatcherType::Any });
    server.request(client, 4, &Request::Exists { path: &path, watch: true });
    server.request(client, 5, &Request::CheckWatches { path: &path, kind: WatcherType::Data });
    server.settle();
    let errors: Vec<i32> = server.received(client).iter().map(|frame| frame.header.error).collect();
    let (none, gone) = (ErrorCode::NoNode.wire(), ErrorCode::NoWatcher.wire());
    assert_eq!(errors, [none, gone, gone, none, 0]);
}

fn touched(server: &mut TestServer, shard: usize) -> Vec<SessionId> {
    let mut out = super::ShardOutputs::default();
    server.shards[shard].tick(server.now_ms, &mut out);
    let touched = out.to_sequencer.into_iter().filter_map(|message| match message {
        ToSequencer::Touched(sessions) => Some(sessions),
        _ => None,
    });
    touched.flatten().collect()
}

/// A client sends its last request and is cut off before the shard's next tick: forgetting that it was heard of let its
/// session expire up to a tick too early.
#[test]
fn session_heard_of_just_before_the_connection_breaks_is_reported() {
    let mut server = TestServer::new(1);
    let (client, response) = server.client(0);
    touched(&mut server, 0);
    assert_eq!(touched(&mut server, 0), []);
    server.request(client, xid::PING, &Request::Ping);
    server.shards[0].disconnect(client.number);
    assert_eq!(touched(&mut server, 0), [SessionId(response.session_id)]);
}

/// A session whose end waits in the queue behind a slow shard is heard of again: it goes on living, and its lock with it.
#[test]
fn session_heard_of_while_its_end_waits_goes_on_living() {
    let mut server = TestServer::new(3);
    let (client, response) = server.client(0);
    create(&mut server, client, 1, "/lock", CreateFlags::EPHEMERAL);
    server.settle();
    server.received(client);
    // One late turn is a frozen server, which expires nobody; turns a tick apart are silence.
    for _ in 0..100 {
        server.now_ms += 50;
        server.tick();
    }
    server.run_sequencer();
    assert_eq!(server.sequencer.queued(), 1, "its end waits for the other shards' lists");
    let heard = ToSequencer::Touched(vec![SessionId(response.session_id)]);
    server.sequencer.receive(ShardId(0), heard, server.now_ms);
    server.settle();
    assert_eq!(server.sequencer.queued(), 0);
    server.request(client, 2, &Request::Exists { path: "/lock", watch: false });
    server.settle();
    assert_eq!(server.received(client)[0].header.error, 0);
}

/// A client pipelines reads and writes. Each write waited for the flush of the one before, because a read between them waited; now
/// they are proposed together, and a read between two writes of one batch still sees the first and not the second (rule A2).
#[test]
fn writes_pass_waiting_reads_that_do_not_see_them() {
    for shards in [1, 2, 3, 8] {
        let mut server = TestServer::new(shards);
        let (client, _) = server.client(usize::from(shards) - 1);
        create(&mut server, client, 0, "/a", CreateFlags::PERSISTENT);
        server.settle();
        server.received(client);
        let values: Vec<String> = (0..20).map(|i| format!("value {i}")).collect();
        for (i, value) in (0..).zip(&values) {
            server.request(client, 2 * i, &Request::SetData { path: "/a", data: Some(value.as_bytes()), version: -1 });
            server.request(client, 2 * i + 1, &Request::GetData { path: "/a", watch: false });
        }
        assert_eq!(server.to_sequencer.len(), values.len(), "every write is on its way");
        server.settle();
        let frames = server.received(client);
        assert_eq!(xids(&frames), (0..40).collect::<Vec<_>>(), "{shards} shards");
        assert!(frames.is_sorted_by_key(|frame| frame.header.zxid));
        for (read, value) in frames.iter().skip(1).step_by(2).zip(&values) {
            let Reply::Data(data, _) = read.reply(OpCode::GetData) else { panic!() };
            assert_eq!(data, Some(value.as_bytes()), "{shards} shards");
        }
    }
}

/// What auth proves decides what a later write may do (rule A13): the write must not pass it.
#[test]
fn write_does_not_pass_an_auth_that_waits() {
    for shards in [1, 3] {
        let mut server = TestServer::new(shards);
        let (client, _) = server.client(0);
        server.request(client, 1, &Request::Auth { scheme: "digest", auth: b"user:password" });
        let mut scratch = Vec::new();
        let acl = AclVector::from_acls(&[Acl { perms: permission::ALL, id: Id::new("auth", "") }], &mut scratch);
        let node =
            |path| Create { path, data: None, acl, flags: CreateFlags::PERSISTENT, with_stat: false, ttl_ms: None };
        server.request(client, 2, &Request::Create(node("/mine")));
        server.settle();
        server.received(client);
        // Another session, with an auth that waits behind a write of its own.
        let (other, _) = server.client(0);
        create(&mut server, other, 1, "/first", CreateFlags::PERSISTENT);
        server.request(other, 2, &Request::Auth { scheme: "digest", auth: b"user:password" });
        server.request(other, 3, &Request::SetData { path: "/mine", data: Some(b"v"), version: -1 });
        server.settle();
        let errors: Vec<_> =
            server.received(other).iter().map(|frame| (frame.header.xid, frame.header.error)).collect();
        assert_eq!(errors, [(1, 0), (2, 0), (3, 0)], "{shards} shards");
    }
}

/// Reads of much data wait behind a write, and the client's socket takes nothing: once they were served they cost the server
/// hundreds of megabytes for one such client, whatever `output_bytes_max` said.
#[test]
fn replies_that_nobody_takes_are_not_made() {
    const READS: i32 = 300;
    const REPLY_BYTES: usize = 100 << 10;
    let mut server = TestServer::new(1);
    let (client, _) = server.client(0);
    let data = vec![7; REPLY_BYTES];
    server.request(client, 0, &Request::SetData { path: "/", data: Some(&data), version: -1 });
    server.settle();
    server.received(client);
    server.slow = Some((client.shard, client.number));
    let mut bytes = Vec::new();
    Request::SetData { path: "/", data: Some(&data), version: -1 }.encode_frame(1, &mut bytes);
    (2..READS).for_each(|xid| Request::GetData { path: "/", watch: false }.encode_frame(xid, &mut bytes));
    // The driver offers again what was not consumed, whenever the connection wants bytes.
    let (mut xid, mut largest) = (1, 0);
    while xid < READS {
        if server.shards[0].wants_bytes(client.number) {
            let consumed = server.send(client, &bytes);
            bytes.drain(..consumed);
        }
        server.settle();
        server.take_output(client.shard, client.number);
        let frames = server.received(client);
        assert!(!frames.is_empty(), "it stopped at {xid}");
        largest = largest.max(frames.iter().map(|frame| frame.body.len()).sum());
        for frame in frames {
            assert_eq!((frame.header.xid, frame.header.error), (xid, 0));
            xid += 1;
        }
    }
    assert!(largest <= (1 << 20) + 2 * REPLY_BYTES, "{largest} bytes were held at once");
}

/// A client asks for every event under a path and then reads nothing: what others write is no request of its own, so nothing that
/// holds requests back bounds what it costs. It is cut off, and a client that reads is not.
#[test]
fn events_that_nobody_takes_cut_the_connection_off() {
    for shards in [1, 3] {
        let mut server = TestServer::new(shards);
        let (silent, _) = server.client(0);
        let (attentive, _) = server.client(0);
        let (writer, _) = server.client(usize::from(shards) - 1);
        let path = format!("/{}", "n".repeat(2000));
        create(&mut server, writer, 1, &path, CreateFlags::PERSISTENT);
        for client in [silent, attentive] {
            let mode = AddWatchMode::PersistentRecursive;
            server.request(client, 1, &Request::AddWatch { path: "/", mode });
        }
        server.settle();
        server.slow = Some((silent.shard, silent.number));
        let mut events = 0;
        for number in 2..2000 {
            server.request(writer, number, &Request::SetData { path: &path, data: None, version: -1 });
            server.settle();
            server.received(writer);
            events += server.received(attentive).iter().filter(|frame| frame.header.xid == xid::NOTIFICATION).count();
            if server.shards[0].is_cut_off(silent.number) {
                break;
            }
        }
        assert!(
            server.shards[0].is_cut_off(silent.number) && server.shards[0].is_finished(silent.number),
            "{shards} shards"
        );
        assert!((900..1500).contains(&events), "{events} events are about two megabytes, {shards} shards");
        assert!(!server.shards[0].is_cut_off(attentive.number));
        assert!(server.shards[0].watches().len() == 1);
    }
}
