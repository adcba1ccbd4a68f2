//! What a client is owed: bounded while it is built, in parts that let others have their turn, and gone with its connection.

use super::message::{Batch, ToShard};
use super::peer::{Found, PeerMessage, ReadResult};
use super::shard::ShardOutputs;
use super::test_server::{Client, Received, TestServer};
use crate::base::ShardId;
use crate::coordination::tree::ShardMap;
use crate::protocol::jute::Output;
use crate::protocol::zookeeper::{
    Acl, AclVector, Create, CreateFlags, MultiOp, MultiResult, OpCode, Reply, Request, SetWatches, StringVector,
    WatcherEvent, xid,
};
use std::collections::BTreeSet;

fn create(server: &mut TestServer, client: Client, path: &str, data: &[u8]) {
    let mut scratch = Vec::new();
    let acl = AclVector::from_acls(&[Acl::open()], &mut scratch);
    let create = Create { path, data: Some(data), acl, flags: CreateFlags::PERSISTENT, ttl_ms: None, with_stat: false };
    server.request(client, 0, &Request::Create(create));
}

/// A path that `shard` owns.
fn path_at(server: &TestServer, shard: usize, name: &str) -> String {
    let map = ShardMap::new(server.shards.len() as u16, 1);
    (0..).map(|i| format!("/{name}{i}")).find(|path| map.owner(path) == ShardId(shard as u16)).unwrap()
}

/// A node at `shard` with so many children of 80 characters.
fn directory(server: &mut TestServer, client: Client, shard: usize, children: usize) -> String {
    let path = path_at(server, shard, "dir");
    create(server, client, &path, b"");
    for child in 0..children {
        create(server, client, &format!("{path}/{child:080}"), b"");
    }
    server.settle();
    server.received(client);
    path
}

fn strings<'a>(paths: &[String], scratch: &'a mut Vec<u8>) -> StringVector<'a> {
    let mut out = Output::new(scratch);
    out.len(paths.len());
    paths.iter().for_each(|path| out.string(path));
    StringVector::decode(&mut crate::protocol::jute::Input::new(scratch)).unwrap()
}

fn children(frame: &Received) -> Vec<String> {
    match frame.reply(OpCode::GetChildren) {
        Reply::Children(names) => names.into_iter().map(str::to_owned).collect(),
        other => panic!("{other:?}"),
    }
}

/// A few bytes ask for more than may be sent: a multiRead that names one large node many times. It was built whole, and above 2 GiB the
/// process ended. Now the connection ends, and others and the next are served.
#[test]
fn reply_longer_than_any_may_be_closes_its_connection_only() {
    for shards in [1, 2, 3] {
        let mut server = TestServer::new(shards);
        let (client, _) = server.client(0);
        let large = path_at(&server, usize::from(shards) - 1, "large");
        create(&mut server, client, &large, &[7; 100_000]);
        server.settle();
        server.received(client);
        let parts = |count| (0..count).map(|_| MultiOp::GetData { path: &large }).collect();
        // 3 MB, below the bound of 4 MiB.
        server.request(client, 1, &Request::MultiRead(parts(30)));
        server.settle();
        let frames = server.received(client);
        let Reply::Multi(results) = frames[0].reply(OpCode::MultiRead) else { panic!() };
        assert_eq!(results.len(), 30);
        for result in results {
            assert!(matches!(result, MultiResult::GetData { data: Some(data), .. } if data == [7; 100_000]));
        }
        server.request(client, 2, &Request::MultiRead(parts(20_000)));
        server.settle();
        assert_eq!(server.received(client), [], "{shards} shards");
        assert!(server.shards[0].is_finished(client.number), "{shards} shards");
        let (other, _) = server.client(0);
        server.request(other, 1, &Request::GetData { path: &large, watch: false });
        server.settle();
        assert_eq!(server.received(other).len(), 1);
        assert_eq!(server.shards[0].published(), server.shards[0].applied(), "no position is kept for the dead");
    }
}

/// A list of children longer than any reply may be: its pieces must not be gathered without end.
#[test]
fn list_longer_than_a_reply_may_be_closes_its_connection() {
    for shards in [1, 3] {
        let mut server = TestServer::new(shards);
        let (client, _) = server.client(0);
        let path = directory(&mut server, client, usize::from(shards) - 1, 51_000);
        server.request(client, 1, &Request::GetChildren { path: &path, watch: true, with_stat: true });
        server.settle();
        assert_eq!(server.received(client), []);
        assert!(server.shards[0].is_finished(client.number));
        assert_eq!(server.shards[0].watches().len(), 0);
    }
}

/// The answer of another shard comes for a connection that was cut off meanwhile: its places are gone, and the process ended.
#[test]
fn answer_for_a_connection_that_was_cut_off_goes_nowhere() {
    let mut server = TestServer::new(3);
    let (client, _) = server.client(0);
    let path = path_at(&server, 1, "n");
    create(&mut server, client, &path, b"v");
    server.settle();
    server.request(client, 1, &Request::GetData { path: &path, watch: true });
    server.request(client, 2, &Request::CloseSession);
    // Everything is delivered, but for the answer.
    for _ in 0..4 {
        server.run_sequencer();
        (0..3).for_each(|shard| while server.run_shard(shard) {});
    }
    let mut out = ShardOutputs::default();
    server.shards[0].tick(0, &mut out);
    server.shards[0].tick(60_000, &mut out);
    assert!(server.shards[0].is_cut_off(client.number));
    server.settle();
    assert_eq!(server.shards[0].published(), server.shards[0].applied(), "no position is kept for the dead");
    server.shards[0].disconnect(client.number);
}

/// Bytes of answers on their way between shards.
fn answers_bytes(server: &TestServer) -> usize {
    let result_bytes = |result: &ReadResult| result.body_bytes();
    let bytes = |message: &PeerMessage| match message {
        PeerMessage::Answer(answer) => match &answer.found {
            Found::Parts(results) => results.iter().map(result_bytes).sum(),
            Found::Piece { result, .. } => result_bytes(result),
            Found::TooLong | Found::Brief(_) => 0,
        },
        _ => 0,
    };
    server.to_peer.iter().map(|(_, _, message)| bytes(message)).sum()
}

/// A client writes many requests for a long list, and reads nothing: what was asked of other shards was in no bound. All of it must be
/// there when the client reads at last, in order, and nothing before.
#[test]
fn long_lists_for_a_client_that_does_not_read_are_not_built() {
    const REQUESTS: i32 = 390;
    for shards in [1, 3] {
        let mut server = TestServer::new(shards);
        let (client, _) = server.client(0);
        let path = directory(&mut server, client, usize::from(shards) - 1, 10_000);
        server.slow = Some((client.shard, client.number));
        let mut bytes = Vec::new();
        for number in 0..REQUESTS {
            Request::GetChildren { path: &path, watch: false, with_stat: false }.encode_frame(number, &mut bytes);
        }
        let (mut sent, mut on_the_way_max) = (0, 0);
        let mut answered = Vec::new();
        while answered.len() < REQUESTS as usize {
            if sent < bytes.len() && server.shards[0].wants_bytes(client.number) {
                sent += server.send(client, &bytes[sent..]);
            }
            while server.run_peer() {
                on_the_way_max = on_the_way_max.max(answers_bytes(&server));
            }
            // Nothing more comes until the client takes something.
            server.take_output(client.shard, client.number);
            let frames = server.received(client);
            assert!(frames.len() <= 3, "{} lists of 840 KB were built for nobody", frames.len());
            answered.extend(frames.iter().map(|frame| (frame.header.xid, children(frame).len())));
        }
        assert!(on_the_way_max < 2 << 20, "{on_the_way_max} bytes were on their way, {shards} shards");
        let expected: Vec<_> = (0..REQUESTS).map(|number| (number, 10_000)).collect();
        assert_eq!(answered, expected);
    }
}

/// A long list is built in pieces, and the tree changes between them: the client must get the list as of one position, the one that the
/// reply names, also from a server with one shard, and from a shard that is ahead.
#[test]
fn long_list_is_the_list_of_one_position() {
    for shards in [1, 3] {
        let mut server = TestServer::new(shards);
        let (client, _) = server.client(0);
        let (writer, _) = server.client(0);
        let path = directory(&mut server, client, usize::from(shards) - 1, 9_000);
        let before: BTreeSet<String> = (0..9_000).map(|child| format!("{child:080}")).collect();
        server.request(client, 1, &Request::GetChildren { path: &path, watch: true, with_stat: false });
        let mut pieces = 0;
        while !server.to_peer.is_empty() {
            create(&mut server, writer, &format!("{path}/{:079}x", pieces * 1000), b"");
            let gone = format!("{path}/{:080}", pieces * 1500);
            server.request(writer, 0, &Request::Delete { path: &gone, version: -1 });
            server.run_sequencer();
            (0..server.shards.len()).for_each(|shard| while server.run_shard(shard) {});
            server.run_peer();
            pieces += 1;
        }
        server.settle();
        assert!(pieces >= 3, "{pieces}");
        let frames = server.received(client);
        assert_eq!(frames.iter().map(|frame| frame.header.xid).collect::<Vec<_>>(), [1, -1], "{shards} shards");
        assert!(children(&frames[0]).into_iter().eq(before), "{shards} shards");
        assert!(frames[1].header.zxid > frames[0].header.zxid);
        assert_eq!(server.shards[0].tree().history_len(), 0);
    }
}

/// Reads wait behind a write, and another write behind them is forwarded: when it is applied, the reads have their turn, however much
/// they bring. They must be answered as of before the write, and not be built while nobody reads.
#[test]
fn reads_before_a_write_are_not_built_at_once_for_it() {
    for shards in [1, 3] {
        let mut server = TestServer::new(shards);
        let (client, _) = server.client(0);
        let large = path_at(&server, usize::from(shards) - 1, "large");
        create(&mut server, client, &large, &[1; 500_000]);
        server.settle();
        server.received(client);
        server.slow = Some((client.shard, client.number));
        create(&mut server, client, "/first", b"");
        for number in 1..=50 {
            server.request(client, number, &Request::GetData { path: &large, watch: false });
        }
        server.request(client, 51, &Request::SetData { path: &large, data: Some(&[2]), version: -1 });
        server.settle();
        let mut answers = Vec::new();
        while answers.len() < 52 {
            server.take_output(client.shard, client.number);
            let frames = server.received(client);
            assert!(!frames.is_empty() && frames.iter().map(|frame| frame.body.len()).sum::<usize>() < 3 << 20);
            answers.extend(frames.into_iter().map(|frame| (frame.header.xid, frame.body.len() > 500_000)));
            while server.run_peer() {}
        }
        let reads = (1..=50).map(|number| (number, true));
        assert_eq!(answers, [(0, false)].into_iter().chain(reads).chain([(51, false)]).collect::<Vec<_>>());
        assert!(server.shards.iter().all(|shard| shard.published() == shard.applied()));
    }
}

/// A read that waits for its client keeps its position, and every shard what was changed since. That must end when it costs too much.
#[test]
fn client_that_does_not_read_does_not_keep_the_past_without_end() {
    for shards in [1, 3] {
        let mut server = TestServer::new(shards);
        let (client, _) = server.client(0);
        let (writer, _) = server.client(0);
        let path = directory(&mut server, client, usize::from(shards) - 1, 5_000);
        server.slow = Some((client.shard, client.number));
        create(&mut server, client, "/first", b"");
        for number in 1..=50 {
            server.request(client, number, &Request::GetChildren { path: &path, watch: false, with_stat: false });
        }
        server.request(client, 51, &Request::SetData { path: &path, data: Some(&[2]), version: -1 });
        server.settle();
        assert!(server.shards[0].published() < server.shards[0].applied(), "reads before the write wait");
        for _ in 0..40 {
            server.request(writer, 1, &Request::SetData { path: &path, data: Some(&[0; 100_000]), version: -1 });
            server.settle();
        }
        assert!(server.shards[0].is_cut_off(client.number), "{shards} shards");
        assert_eq!(server.shards[0].published(), server.shards[0].applied());
    }
}

/// A list of a setWatches may be null. The lists behind it were then never read, and the shard went on with the request for ever.
#[test]
fn set_watches_with_a_null_list_ends() {
    for shards in [1, 2, 3] {
        let mut server = TestServer::new(shards);
        let (client, _) = server.client(0);
        let mut frame = Vec::new();
        crate::protocol::jute::Output::new(&mut frame).framed(|out| {
            out.i32(xid::SET_WATCHES);
            out.i32(OpCode::SetWatches.wire());
            out.i64(0);
            // Null, one path, null.
            out.i32(-1);
            out.i32(1);
            out.string("/gone");
            out.i32(-1);
        });
        server.send(client, &frame);
        server.request(client, 1, &Request::Exists { path: "/", watch: false });
        server.settle();
        let xids: Vec<i32> = server.received(client).iter().map(|frame| frame.header.xid).collect();
        assert_eq!(xids, [xid::SET_WATCHES, 1], "{shards} shards");
    }
}

/// A client brings 50,000 watches along. They were armed and asked for in one go, and nobody else was served. In parts, each must still
/// be armed, or told what was missed, once; and what happens between the parts must not get lost.
#[test]
fn set_watches_with_many_paths_lets_others_have_their_turn() {
    const PATHS: usize = 5_000;
    for shards in [1, 2, 3] {
        let mut server = TestServer::new(shards);
        let (client, _) = server.client(0);
        let (writer, _) = server.client(0);
        let there: Vec<String> = (0..PATHS).map(|i| format!("/n{i}")).collect();
        for path in there.iter().step_by(10) {
            create(&mut server, writer, path, b"");
        }
        server.settle();
        server.received(writer);
        let (mut data, mut exist, mut child) = (Vec::new(), Vec::new(), Vec::new());
        let watches = SetWatches {
            relative_zxid: server.shards[0].applied().wire(),
            data: strings(&there, &mut data),
            exist: strings(&[], &mut exist),
            child: strings(&["/".into()], &mut child),
            persistent: StringVector::default(),
            persistent_recursive: StringVector::default(),
        };
        server.request(client, xid::SET_WATCHES, &Request::SetWatches(Box::new(watches)));
        server.request(client, 1, &Request::GetData { path: "/n0", watch: false });
        create(&mut server, client, "/behind", b"");
        // Half way through, what is armed first and what is armed last changes.
        (0..4).for_each(|_| assert!(server.run_peer(), "{shards} shards"));
        for i in [0, PATHS - 10] {
            let set = Request::SetData { path: &there[i], data: Some(b"new"), version: -1 };
            server.request(writer, 1, &set);
        }
        server.settle();
        let frames = server.received(client);
        let mut told = BTreeSet::new();
        for frame in frames.iter().filter(|frame| frame.header.xid == xid::NOTIFICATION) {
            let event = WatcherEvent::decode(&mut crate::protocol::jute::Input::new(&frame.body)).unwrap();
            assert!(told.insert((event.path.to_owned(), event.kind)), "{} is told of twice", event.path);
        }
        // Those that are missing, the two that changed, and the root's children.
        assert_eq!(told.len(), PATHS - PATHS / 10 + 2 + 1, "{shards} shards");
        let replies: Vec<i32> = frames.iter().map(|frame| frame.header.xid).filter(|xid| *xid != -1).collect();
        assert_eq!(replies, [xid::SET_WATCHES, 1, 0]);
        assert!(frames.iter().filter(|frame| frame.header.zxid >= 0).is_sorted_by_key(|frame| frame.header.zxid));
        assert_eq!(server.shards[0].watches().len(), PATHS / 10 - 2, "{shards} shards");
    }
}

/// A part of a tree that does not follow the log any more must not be shown to anybody: not by a read, not by what was ready.
#[test]
fn shard_that_could_not_apply_serves_nothing() {
    let mut server = TestServer::new(1);
    let (client, _) = server.client(0);
    server.slow = Some((client.shard, client.number));
    server.request(client, 1, &Request::GetData { path: "/", watch: false });
    let broken = ToShard::Batch(Batch { txns: bytes::Bytes::from_static(&[1; 40]), marks: Vec::new() });
    let mut out = ShardOutputs::default();
    let shard = &mut server.shards[0];
    assert!(shard.on_sequencer(&broken, &mut out).is_err());
    assert!(shard.is_finished(client.number) && !shard.wants_bytes(client.number));
    assert!(shard.take_output(client.number, Vec::new(), &mut out).0.is_empty());
    let good = ToShard::Batch(Batch::default());
    assert!(shard.on_sequencer(&good, &mut out).is_err(), "it does not go on with the next batch");
    server.slow = None;
    server.request(client, 2, &Request::GetData { path: "/", watch: false });
    assert_eq!(server.received(client), []);
}
