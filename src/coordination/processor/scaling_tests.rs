//! Large requests: what they cost must grow as they do, for any number of shards, and nobody must wait for the whole of one.

use super::sequencer::LocalRecords;
use super::test_server::{Client, TestServer};
use crate::base::SessionId;
use crate::coordination::tree::NodeImage;
use crate::protocol::zookeeper::{
    Acl, AclVector, Create, CreateFlags, ErrorCode, MultiOp, MultiResult, OpCode, Reply, Request, SetWatches,
    StringVector, xid,
};
use std::cell::Cell;
use std::time::{Duration, Instant};

/// Counts what validation asks of the local shard.
pub(super) struct Counting<'a, L> {
    pub records: &'a L,
    pub asked: &'a Cell<usize>,
}

impl<L: LocalRecords> LocalRecords for Counting<'_, L> {
    fn image(&self, path: &str) -> Option<NodeImage> {
        self.asked.set(self.asked.get() + 1);
        self.records.image(path)
    }

    fn ephemerals(&self, session: SessionId) -> Vec<Box<str>> {
        self.records.ephemerals(session)
    }
}

/// What a large request consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Creates,
    SequentialCreates,
    /// Over records that the sequencer does not remember.
    Sets,
    Deletes,
    MultiRead,
    SetWatches,
    /// The session has so many ephemeral nodes.
    Close,
}

const KINDS: [Kind; 7] =
    [Kind::Creates, Kind::Sets, Kind::MultiRead, Kind::SetWatches, Kind::Deletes, Kind::SequentialCreates, Kind::Close];

fn names(count: usize) -> Vec<String> {
    (0..count).map(|i| format!("/p/n{i:06}")).collect()
}

/// Sends one multi and checks that every part succeeded.
fn multi(server: &mut TestServer, client: Client, ops: Vec<MultiOp<'_>>) {
    let parts = ops.len();
    server.request(client, 7, &Request::Multi(ops.into_iter().collect()));
    server.settle();
    let frames = server.received(client);
    let frame = frames.iter().find(|frame| frame.header.xid == 7).expect("the multi is answered");
    let Reply::Multi(results) = frame.reply(OpCode::Multi) else { panic!("{frame:?}") };
    assert_eq!(results.len(), parts);
    assert!(!results.iter().any(|result| matches!(result, MultiResult::Error(_))));
}

/// Carries out one request of `kind`; the nodes of `names` are there unless it creates them.
fn carry_out(server: &mut TestServer, client: Client, kind: Kind, names: &[String]) {
    let (mut scratch, mut lists) = (Vec::new(), Vec::new());
    let acl = AclVector::from_acls(&[Acl::open()], &mut scratch);
    let create = |path, flags| MultiOp::Create(Create { path, data: None, acl, flags, ttl_ms: None, with_stat: false });
    let names = names.iter().map(String::as_str);
    match kind {
        Kind::Creates => multi(server, client, names.map(|name| create(name, CreateFlags::PERSISTENT)).collect()),
        Kind::SequentialCreates => {
            multi(server, client, names.map(|_| create("/p/s-", CreateFlags::PERSISTENT_SEQUENTIAL)).collect());
        }
        Kind::Sets => {
            let set = |path| MultiOp::SetData { path, data: Some(b"x"), version: -1 };
            multi(server, client, names.map(set).collect());
        }
        Kind::Deletes => {
            multi(server, client, names.map(|path| MultiOp::Delete { path, version: -1 }).collect());
        }
        Kind::MultiRead => {
            let reads = names.map(|path| MultiOp::GetData { path });
            server.request(client, 7, &Request::MultiRead(reads.collect()));
        }
        Kind::SetWatches => {
            let empty = StringVector::default();
            let watches = SetWatches {
                relative_zxid: i64::MAX,
                data: StringVector::from_strings(names, &mut lists),
                exist: empty,
                child: empty,
                persistent: empty,
                persistent_recursive: empty,
            };
            server.request(client, xid::SET_WATCHES, &Request::SetWatches(Box::new(watches)));
        }
        Kind::Close => {
            let (owner, _) = server.client(client.shard);
            multi(server, owner, names.map(|name| create(name, CreateFlags::EPHEMERAL)).collect());
            server.start_counting();
            server.request(owner, 8, &Request::CloseSession);
            server.settle();
            assert!(server.shards[owner.shard].is_finished(owner.number));
        }
    }
    server.settle();
    server.received(client);
}

/// A server with the parent of all nodes, and a client.
fn server_with_parent(shards: u16) -> (TestServer, Client) {
    let mut server = TestServer::new(shards);
    let (client, _) = server.client(usize::from(shards) - 1);
    let mut scratch = Vec::new();
    let acl = AclVector::from_acls(&[Acl::open()], &mut scratch);
    let parent = Create { path: "/p", data: None, acl, flags: CreateFlags::PERSISTENT, ttl_ms: None, with_stat: false };
    server.request(client, 1, &Request::Create(parent));
    server.settle();
    server.received(client);
    (server, client)
}

/// Validation began again for each record that another shard owns: a multi of 8,000 creates took 15 s with two shards and 0.04 s
/// with one, and all that time no other client's write was looked at.
#[test]
fn what_a_large_request_asks_for_grows_as_the_request_does() {
    const PARTS: usize = 3000;
    let names = names(PARTS);
    for shards in [1, 2, 3] {
        let (mut server, client) = server_with_parent(shards);
        for kind in KINDS {
            server.start_counting();
            carry_out(&mut server, client, kind, &names);
            let asked = server.records_asked.get();
            assert!(asked <= 12 * PARTS, "{asked} records of the local shard, {kind:?}, {shards} shards");
            let lookups = server.lookups;
            assert!(lookups <= 6 * PARTS / 1024 * 4, "{lookups} lookups, {kind:?}, {shards} shards");
        }
    }
}

/// One request, however long, must not hold the executor of shard 0 for longer than a slice.
#[test]
fn large_request_is_validated_in_slices() {
    let names = names(3000);
    for shards in [1, 3] {
        let (mut server, client) = server_with_parent(shards);
        for kind in [Kind::Creates, Kind::Sets, Kind::Deletes, Kind::SequentialCreates, Kind::Close] {
            server.start_counting();
            carry_out(&mut server, client, kind, &names);
            let most = server.records_asked_at_once_max;
            assert!(most <= 6 * 1024, "{most} records of the local shard at once, {kind:?}, {shards} shards");
        }
    }
}

/// Half of a long multi is validated, and another client writes what its other half checks: the multi came first, so it sees the
/// state before, and the write the state after (rule B7). A server that validates what is behind it meanwhile mixes them up.
#[test]
fn nothing_behind_a_sliced_multi_is_validated_before_it() {
    for shards in [1, 2, 3] {
        let (mut server, client) = server_with_parent(shards);
        let names = names(2000);
        carry_out(&mut server, client, Kind::Creates, &names);
        let (other, _) = server.client(0);
        let mut ops: Vec<_> =
            names.iter().map(|path| MultiOp::SetData { path, data: Some(b"x"), version: 0 }).collect();
        ops.push(MultiOp::Check { path: "/p", version: 0 });
        server.request(client, 7, &Request::Multi(ops.into_iter().collect()));
        server.request(other, 1, &Request::SetData { path: "/p", data: None, version: 0 });
        let last = names.last().expect("there are some");
        server.request(other, 2, &Request::SetData { path: last, data: None, version: 1 });
        server.run_sequencer();
        assert_eq!(server.sequencer.queued(), 3, "the first slice is not all of it, {shards} shards");
        server.settle();
        let multi = server.received(client).pop().expect("an answer");
        let writes = server.received(other);
        assert_eq!(writes.iter().map(|frame| frame.header.error).collect::<Vec<_>>(), [0, 0], "{shards} shards");
        let Reply::Multi(results) = multi.reply(OpCode::Multi) else { panic!() };
        assert!(!results.iter().any(|result| matches!(result, MultiResult::Error(_))), "{shards} shards");
        assert_eq!(writes[0].header.zxid, multi.header.zxid + 1);
    }
}

/// The last part of a long multi fails: nothing of the slices before it may be left (rule B10).
#[test]
fn sliced_multi_that_fails_at_its_end_changes_nothing() {
    for shards in [1, 3] {
        let (mut server, client) = server_with_parent(shards);
        let names = names(2000);
        let mut scratch = Vec::new();
        let acl = AclVector::from_acls(&[Acl::open()], &mut scratch);
        let flags = CreateFlags::PERSISTENT;
        let create = |path| MultiOp::Create(Create { path, data: None, acl, flags, ttl_ms: None, with_stat: false });
        let mut ops: Vec<_> = names.iter().map(|name| create(name)).collect();
        ops.push(MultiOp::Check { path: "/p", version: 5 });
        server.request(client, 7, &Request::Multi(ops.into_iter().collect()));
        server.request(client, 8, &Request::Exists { path: &names[0], watch: false });
        server.request(client, 9, &Request::GetChildren { path: "/p", watch: false, with_stat: true });
        server.settle();
        let frames = server.received(client);
        let Reply::Multi(results) = frames[0].reply(OpCode::Multi) else { panic!() };
        assert_eq!(results.len(), names.len() + 1);
        assert!(matches!(results[names.len()], MultiResult::Error(code) if code == ErrorCode::BadVersion.wire()));
        assert_eq!(frames[1].header.error, ErrorCode::NoNode.wire(), "{shards} shards");
        let Reply::ChildrenAndStat(children, stat) = frames[2].reply(OpCode::GetChildren2) else { panic!() };
        assert_eq!((children.len(), stat.cversion, stat.pzxid), (0, 0, stat.czxid), "{shards} shards");
        // The number of the failed multi's children was not used up either.
        carry_out(&mut server, client, Kind::SequentialCreates, &names[..3]);
        server.request(client, 10, &Request::Exists { path: "/p/s-0000000002", watch: false });
        server.settle();
        assert_eq!(server.received(client).pop().expect("an answer").header.error, 0);
    }
}

/// Prints what large requests take with 1, 2 and 3 shards on one CPU, from 1 part to 50,000: all together, on the sequencer, and the
/// longest that one of them kept it:
/// `cargo test --release scaling -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement, to be read"]
fn times_of_large_requests() {
    for kind in KINDS {
        for parts in [1, 10, 100, 1000, 10_000, 50_000] {
            let names = names(parts);
            let mut line = format!("{kind:?} of {parts}:");
            for shards in [1, 2, 3] {
                let (mut server, client) = server_with_parent(shards);
                if !matches!(kind, Kind::Creates | Kind::Close | Kind::SequentialCreates) {
                    carry_out(&mut server, client, Kind::Creates, &names);
                }
                server.start_counting();
                let begun = Instant::now();
                carry_out(&mut server, client, kind, &names);
                let took = begun.elapsed();
                let [all, once] = [server.validated, server.validated_at_once_max].map(millis);
                line += &format!("  {:.2} ms (validation {all:.2}, at once {once:.2})", millis(took));
            }
            println!("{line}");
        }
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
