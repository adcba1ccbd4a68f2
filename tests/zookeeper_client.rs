//! The server through the eyes of a client that others wrote: the `zookeeper-client` crate, over one and over more shards.
//!
//! The hazard: a server that is tested with its own client agrees with itself. This client has its own reading of the protocol:
//! of Stats, of create modes, of watch events and of when a session is over.

mod common;

use common::{InProcess, PATIENCE, SHARD_COUNTS};
use std::future::Future;
use std::time::Duration;
use tokio::time::timeout;
use zookeeper_client::{
    Acl, Acls, AddWatchMode, AuthId, Client, CreateMode, CreateOptions, Error, EventType, LockPrefix, MultiReadResult,
    MultiWriteError, MultiWriteResult, Permission, SessionState,
};

const PERSISTENT: CreateOptions<'static> = CreateMode::Persistent.with_acls(Acls::anyone_all());
const SEQUENTIAL: CreateOptions<'static> = CreateMode::PersistentSequential.with_acls(Acls::anyone_all());
const EPHEMERAL: CreateOptions<'static> = CreateMode::Ephemeral.with_acls(Acls::anyone_all());
const EPHEMERAL_SEQUENTIAL: CreateOptions<'static> = CreateMode::EphemeralSequential.with_acls(Acls::anyone_all());

/// Runs `check` against a fresh server of each shard count.
fn on_each_server<F: Future<Output = ()>>(test: &str, check: impl Fn(String) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    for shards in SHARD_COUNTS {
        let server = InProcess::start(test, shards, |_| ());
        let cluster = server.address().to_string();
        let checked = runtime.block_on(async { timeout(PATIENCE, check(cluster)).await });
        checked.unwrap_or_else(|_| panic!("{test} with {shards} shards takes too long"));
    }
}

async fn connect(cluster: &str) -> Client {
    Client::connect(cluster).await.expect("a session")
}

#[test]
fn every_create_mode_makes_what_it_says() {
    on_each_server("modes", |cluster| async move {
        let client = connect(&cluster).await;
        let (made, sequence) = client.create("/a", b"data", &PERSISTENT).await.unwrap();
        assert_eq!((sequence.into_i64(), made.version, made.data_length, made.ephemeral_owner), (-1, 0, 4, 0));
        assert_eq!(client.create("/a", b"", &PERSISTENT).await.unwrap_err(), Error::NodeExists);
        assert_eq!(client.create("/no/a", b"", &PERSISTENT).await.unwrap_err(), Error::NoNode);
        let (made, _) = client.create("/a/e", b"", &EPHEMERAL).await.unwrap();
        assert_eq!(made.ephemeral_owner, client.session_id().0);
        assert_eq!(client.create("/a/e/x", b"", &PERSISTENT).await.unwrap_err(), Error::NoChildrenForEphemerals);
        // The number counts the creates of the parent, also those of other names.
        for expected in 1..4 {
            let options = if expected % 2 == 0 { &SEQUENTIAL } else { &EPHEMERAL_SEQUENTIAL };
            let (made, sequence) = client.create("/a/s-", b"", options).await.unwrap();
            assert_eq!(sequence.into_i64(), expected);
            let path = format!("/a/s-{sequence}");
            assert_eq!(client.check_stat(&path).await.unwrap(), Some(made));
        }
        client.delete("/a/s-0000000003", None).await.unwrap();
        let (_, sequence) = client.create("/a/s-", b"", &SEQUENTIAL).await.unwrap();
        assert_eq!(sequence.into_i64(), 4, "a number is not given out twice");
    });
}

#[test]
fn data_and_versions_follow_every_write() {
    on_each_server("versions", |cluster| async move {
        let client = connect(&cluster).await;
        let (made, _) = client.create("/a", b"0", &PERSISTENT).await.unwrap();
        for version in 0..5 {
            let data = format!("value {version}").into_bytes();
            let stat = client.set_data("/a", &data, Some(version)).await.unwrap();
            assert_eq!((stat.version, stat.czxid, stat.ctime), (version + 1, made.czxid, made.ctime));
            assert_eq!(client.get_data("/a").await.unwrap(), (data, stat));
        }
        assert_eq!(client.set_data("/a", b"late", Some(3)).await.unwrap_err(), Error::BadVersion);
        assert_eq!(client.delete("/a", Some(3)).await.unwrap_err(), Error::BadVersion);
        client.create("/a/b", b"", &PERSISTENT).await.unwrap();
        assert_eq!(client.delete("/a", None).await.unwrap_err(), Error::NotEmpty);
        let (children, stat) = client.get_children("/a").await.unwrap();
        assert_eq!((children, stat.cversion, stat.num_children), (vec!["b".to_owned()], 1, 1));
        client.delete("/a/b", Some(0)).await.unwrap();
        client.delete("/a", Some(5)).await.unwrap();
        assert_eq!(client.check_stat("/a").await.unwrap(), None);
        assert_eq!(client.get_data("/a").await.unwrap_err(), Error::NoNode);
    });
}

#[test]
fn children_are_all_listed_and_mkdir_fills_the_gaps() {
    on_each_server("children", |cluster| async move {
        let client = connect(&cluster).await;
        client.mkdir("/a/b/c", &PERSISTENT).await.unwrap();
        client.mkdir("/a/b/c", &PERSISTENT).await.unwrap();
        let mut expected = Vec::new();
        for number in 0..50 {
            expected.push(format!("n{number:02}"));
            client.create(&format!("/a/b/c/n{number:02}"), b"", &PERSISTENT).await.unwrap();
        }
        let mut listed = client.list_children("/a/b/c").await.unwrap();
        listed.sort();
        assert_eq!(listed, expected);
        client.sync("/a").await.unwrap();
        assert_eq!(client.list_children("/a").await.unwrap(), ["b"]);
        assert_eq!(client.list_children("/no").await.unwrap_err(), Error::NoNode);
    });
}

#[test]
fn one_shot_watch_fires_once_and_before_the_change_is_seen() {
    on_each_server("oneshot", |cluster| async move {
        let (watching, writing) = (connect(&cluster).await, connect(&cluster).await);
        let (none, created) = watching.check_and_watch_stat("/a").await.unwrap();
        assert_eq!(none, None);
        let (stat, _) = writing.create("/a", b"0", &PERSISTENT).await.unwrap();
        let event = created.changed().await;
        assert_eq!((event.event_type, event.path.as_str()), (EventType::NodeCreated, "/a"));
        assert_eq!(event.zxid, stat.czxid);
        watching.sync("/a").await.unwrap();
        let (data, _, changed) = watching.get_and_watch_data("/a").await.unwrap();
        assert_eq!(data, b"0");
        let (_, _, children) = watching.get_and_watch_children("/a").await.unwrap();
        writing.set_data("/a", b"1", None).await.unwrap();
        assert_eq!(changed.changed().await.event_type, EventType::NodeDataChanged);
        writing.set_data("/a", b"2", None).await.unwrap();
        writing.create("/a/b", b"", &PERSISTENT).await.unwrap();
        let event = children.changed().await;
        assert_eq!((event.event_type, event.path.as_str()), (EventType::NodeChildrenChanged, "/a"));
        let (_, _, gone) = watching.get_and_watch_data("/a/b").await.unwrap();
        writing.delete("/a/b", None).await.unwrap();
        assert_eq!(gone.changed().await.event_type, EventType::NodeDeleted);
    });
}

#[test]
fn persistent_and_recursive_watches_see_every_change_in_order() {
    on_each_server("watch", |cluster| async move {
        let (watching, writing) = (connect(&cluster).await, connect(&cluster).await);
        writing.create("/a", b"", &PERSISTENT).await.unwrap();
        let mut node = watching.watch("/a", AddWatchMode::Persistent).await.unwrap();
        let mut below = watching.watch("/a", AddWatchMode::PersistentRecursive).await.unwrap();
        let mut zxid = 0;
        for round in 0..5 {
            let child = format!("/a/b{round}");
            writing.create(&child, b"", &PERSISTENT).await.unwrap();
            writing.set_data(&child, b"1", None).await.unwrap();
            writing.set_data("/a", b"1", None).await.unwrap();
            writing.delete(&child, None).await.unwrap();
            for (kind, path) in [
                (EventType::NodeCreated, child.as_str()),
                (EventType::NodeDataChanged, &child),
                (EventType::NodeDataChanged, "/a"),
                (EventType::NodeDeleted, &child),
            ] {
                let event = below.changed().await;
                assert_eq!((event.event_type, event.path.as_str()), (kind, path));
                assert!(event.zxid > zxid, "events come in the order of their transactions");
                zxid = event.zxid;
            }
            for kind in [EventType::NodeChildrenChanged, EventType::NodeDataChanged, EventType::NodeChildrenChanged] {
                let event = node.changed().await;
                assert_eq!((event.event_type, event.path.as_str()), (kind, "/a"));
            }
        }
    });
}

#[test]
fn multi_writes_all_or_nothing_and_reads_one_moment() {
    on_each_server("multi", |cluster| async move {
        let client = connect(&cluster).await;
        let mut writer = client.new_multi_writer();
        writer.add_create("/a", b"1", &PERSISTENT).unwrap();
        writer.add_create("/a/b", b"2", &PERSISTENT).unwrap();
        writer.add_set_data("/a", b"3", Some(0)).unwrap();
        writer.add_check_version("/a", 1).unwrap();
        let results = writer.commit().await.unwrap();
        assert_eq!(results.len(), 4);
        let MultiWriteResult::Create { path, stat } = &results[1] else { panic!("{results:?}") };
        assert_eq!((path.as_str(), stat.version), ("/a/b", 0));
        let MultiWriteResult::SetData { stat: set } = &results[2] else { panic!("{results:?}") };
        assert_eq!((set.version, set.mzxid), (1, stat.czxid), "one transaction, one zxid");

        let mut writer = client.new_multi_writer();
        writer.add_set_data("/a", b"half", None).unwrap();
        writer.add_delete("/a/b", Some(7)).unwrap();
        writer.add_create("/c", b"", &PERSISTENT).unwrap();
        let failed = writer.commit().await.unwrap_err();
        assert_eq!(failed, MultiWriteError::OperationFailed { index: 1, source: Error::BadVersion });
        assert_eq!(client.get_data("/a").await.unwrap().0, b"3");
        assert_eq!(client.check_stat("/c").await.unwrap(), None);

        let mut reader = client.new_multi_reader();
        reader.add_get_data("/a").unwrap();
        reader.add_get_children("/a").unwrap();
        reader.add_get_data("/c").unwrap();
        let mut results = reader.commit().await.unwrap().into_iter();
        assert!(
            matches!(results.next(), Some(MultiReadResult::Data { data, stat }) if data == b"3" && stat.version == 1)
        );
        assert!(matches!(results.next(), Some(MultiReadResult::Children { children }) if children == ["b"]));
        assert!(matches!(results.next(), Some(MultiReadResult::Error { err: Error::NoNode })));
    });
}

#[test]
fn acl_lets_in_who_has_the_identity_and_nobody_else() {
    on_each_server("acl", |cluster| async move {
        let (owner, stranger) = (connect(&cluster).await, connect(&cluster).await);
        owner.auth("digest", b"bob:secret").await.unwrap();
        let mine = CreateMode::Persistent.with_acls(Acls::creator_all());
        owner.create("/a", b"private", &mine).await.unwrap();
        assert_eq!(stranger.get_data("/a").await.unwrap_err(), Error::NoAuth);
        assert_eq!(stranger.set_data("/a", b"", None).await.unwrap_err(), Error::NoAuth);
        assert_eq!(stranger.create("/a/b", b"", &PERSISTENT).await.unwrap_err(), Error::NoAuth);
        assert_eq!(owner.get_data("/a").await.unwrap().0, b"private");
        let (acls, _) = owner.get_acl("/a").await.unwrap();
        assert_eq!((acls.len(), acls[0].scheme(), acls[0].permission()), (1, "digest", Permission::ALL));
        assert!(acls[0].id().starts_with("bob:") && !acls[0].id().contains("secret"), "{}", acls[0].id());

        let friend = Client::connector().with_auth("digest", b"bob:secret").connect(&cluster).await.unwrap();
        assert_eq!(friend.get_data("/a").await.unwrap().0, b"private");
        stranger.auth("digest", b"bob:wrong").await.unwrap();
        assert_eq!(stranger.get_data("/a").await.unwrap_err(), Error::NoAuth);

        let readable = [Acl::new(Permission::READ, AuthId::anyone()), acls[0].clone()];
        let stat = owner.set_acl("/a", &readable, Some(0)).await.unwrap();
        assert_eq!(stat.aversion, 1);
        assert_eq!(stranger.get_data("/a").await.unwrap().0, b"private");
        assert_eq!(stranger.set_data("/a", b"", None).await.unwrap_err(), Error::NoAuth);
        assert_eq!(owner.set_acl("/a", &readable, Some(0)).await.unwrap_err(), Error::BadVersion);
    });
}

#[test]
fn ephemerals_go_with_their_session_and_not_before() {
    on_each_server("ephemerals", |cluster| async move {
        let watching = connect(&cluster).await;
        let closing = connect(&cluster).await;
        closing.create("/closing", b"", &EPHEMERAL).await.unwrap();
        let (_, gone) = watching.check_and_watch_stat("/closing").await.unwrap();
        drop(closing);
        assert_eq!(gone.changed().await.event_type, EventType::NodeDeleted);

        // A detached client leaves its session to expire.
        let dying = Client::connector().with_detached().with_session_timeout(Duration::from_millis(400));
        let dying = dying.connect(&cluster).await.unwrap();
        dying.create("/dying", b"", &EPHEMERAL).await.unwrap();
        let (stat, gone) = watching.check_and_watch_stat("/dying").await.unwrap();
        assert_eq!(stat.unwrap().ephemeral_owner, dying.session_id().0);
        let session = dying.into_session();
        assert_eq!(gone.changed().await.event_type, EventType::NodeDeleted);
        let expired = Client::connector().with_session(session).connect(&cluster).await;
        assert_eq!(expired.err(), Some(Error::SessionExpired));
    });
}

#[test]
fn session_is_taken_up_by_another_connection() {
    on_each_server("session", |cluster| async move {
        let first = Client::connector().with_detached().with_session_timeout(Duration::from_secs(20));
        let first = first.connect(&cluster).await.unwrap();
        let id = first.session_id();
        first.create("/mine", b"", &EPHEMERAL).await.unwrap();
        let mut state = first.state_watcher();
        let session = first.into_session();
        while state.changed().await != SessionState::Closed {}
        let second = Client::connector().with_session(session).connect(&cluster).await.unwrap();
        assert_eq!(second.session_id(), id);
        assert_eq!(second.check_stat("/mine").await.unwrap().unwrap().ephemeral_owner, id.0);
        let watching = connect(&cluster).await;
        let (_, gone) = watching.check_and_watch_stat("/mine").await.unwrap();
        let closed = second.into_session();
        assert_eq!(gone.changed().await.event_type, EventType::NodeDeleted);
        let again = Client::connector().with_session(closed).connect(&cluster).await;
        assert_eq!(again.err(), Some(Error::SessionExpired));
    });
}

/// The lock recipe: a counter that is read and written without a version check is right only if the lock is exclusive.
#[test]
fn lock_is_held_by_one_contender_at_a_time() {
    const CONTENDERS: usize = 8;
    const TURNS: usize = 3;
    on_each_server("lock", |cluster| async move {
        let setup = connect(&cluster).await;
        setup.mkdir("/locks", &PERSISTENT).await.unwrap();
        setup.create("/counter", b"0", &PERSISTENT).await.unwrap();
        let contenders: Vec<_> = (0..CONTENDERS)
            .map(|_| {
                let cluster = cluster.clone();
                tokio::spawn(async move {
                    let client = connect(&cluster).await;
                    for _ in 0..TURNS {
                        let prefix = LockPrefix::new_curator("/locks", "lock-").unwrap();
                        let lock = client.lock(prefix, b"", Acls::anyone_all()).await.unwrap();
                        let (data, _) = client.get_data("/counter").await.unwrap();
                        let count: usize = String::from_utf8(data).unwrap().parse().unwrap();
                        lock.set_data("/counter", (count + 1).to_string().as_bytes(), None).await.unwrap();
                    }
                })
            })
            .collect();
        for contender in contenders {
            contender.await.expect("every contender had its turns");
        }
        let (data, stat) = setup.get_data("/counter").await.unwrap();
        assert_eq!(data, (CONTENDERS * TURNS).to_string().as_bytes());
        assert_eq!(stat.version as usize, CONTENDERS * TURNS);
    });
}
