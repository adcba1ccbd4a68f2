//! One request that is as large as a request may be: what it costs others.

mod common;

use common::{Client, Setup, TestDir};
use ringkeeper::protocol::zookeeper::{Acl, AclVector, Create, CreateFlags, MultiOp, Request};
use std::time::{Duration, Instant};

/// One multi of 8,000 creates under one parent, 600 KB. With two shards or more each part waited for a lookup of its own, and validation
/// began again with each: 15 seconds, in which no other client's write was answered and no new session was granted.
#[test]
fn large_multi_does_not_keep_others_waiting() {
    const PARTS: usize = 8_000;
    // It takes some tens of milliseconds; a machine that is busy otherwise must not fail the test.
    const OTHERS_WAIT_MAX: Duration = Duration::from_secs(5);
    for shards in [1, 2, 3] {
        let directory = TestDir::new("large-multi");
        let server = Setup::new(directory.path(), shards).start();
        let mut client = Client::connect(server.address).expect("a connection");
        let mut other = Client::connect(server.address).expect("a connection");
        client.create("/parent", b"", CreateFlags::PERSISTENT).expect("a reply");
        let mut scratch = Vec::new();
        let acl = AclVector::from_acls(&[Acl::open()], &mut scratch);
        let paths: Vec<String> = (0..PARTS).map(|number| format!("/parent/child{number:06}")).collect();
        let create =
            |path| Create { path, data: None, acl, flags: CreateFlags::PERSISTENT, ttl_ms: None, with_stat: false };
        client.queue(&Request::Multi(paths.iter().map(|path| MultiOp::Create(create(path))).collect()));
        let begun = Instant::now();
        client.flush().expect("it is taken");
        // Behind the multi in the queue of the server, or before it: either way it must not take long.
        let set = other.set("/parent", b"meanwhile").expect("a reply");
        let joined = Client::connect(server.address).expect("a new session is granted");
        let waited = begun.elapsed();
        assert_eq!((set.error, client.receive().expect("a reply").error), (0, 0), "{shards} shards");
        assert!(waited < OTHERS_WAIT_MAX, "others waited for {waited:?}, {shards} shards");
        assert!(other.exists(&paths[PARTS - 1]).expect("a reply"), "{shards} shards");
        drop(joined);
        server.stop();
    }
}
