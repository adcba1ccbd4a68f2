//! A log that is full, busy, or slow: who is refused, who waits, and who must not expire meanwhile.

use super::admission::AdmissionNews;
use super::test_server::{Client, TestServer};
use crate::protocol::zookeeper::{
    Acl, AclVector, Create, CreateFlags, ErrorCode, MultiOp, OpCode, Reply, Request, xid,
};

fn create_all(server: &mut TestServer, client: Client, names: &[String], flags: CreateFlags) {
    let mut scratch = Vec::new();
    let acl = AclVector::from_acls(&[Acl::open()], &mut scratch);
    let node = |path| MultiOp::Create(Create { path, data: None, acl, flags, ttl_ms: None, with_stat: false });
    server.request(client, 1, &Request::Multi(names.iter().map(|name| node(name)).collect()));
    server.settle();
    assert!(matches!(server.received(client)[0].reply(OpCode::Multi), Reply::Multi(_)));
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|i| format!("/n{i}")).collect()
}

fn errors(server: &mut TestServer, client: Client) -> Vec<(i32, i32)> {
    server.received(client).iter().map(|frame| (frame.header.xid, frame.header.error)).collect()
}

const SYSTEM_ERROR: i32 = ErrorCode::SystemError as i32;

/// A full disk has room for a small write, and a session with many ephemerals ends. The end was taken for a small write as well: it was
/// proposed, the log could not write it, and from then on nobody was answered.
#[test]
fn end_of_a_session_with_many_ephemerals_is_refused_by_a_full_log() {
    for shards in [1, 3] {
        let mut server = TestServer::new(shards);
        let (owner, _) = server.client(usize::from(shards) - 1);
        let (other, _) = server.client(0);
        create_all(&mut server, owner, &names(2000), CreateFlags::EPHEMERAL);
        server.log_room_bytes = Some(20_000);
        server.request(owner, 2, &Request::CloseSession);
        server.request(other, 1, &Request::SetData { path: "/", data: Some(b"small"), version: -1 });
        server.settle();
        assert_eq!(errors(&mut server, owner), [(2, SYSTEM_ERROR)], "{shards} shards");
        assert_eq!(errors(&mut server, other), [(1, 0)], "what fits is taken, {shards} shards");
        server.log_room_bytes = None;
        server.request(other, 2, &Request::SetData { path: "/n7", data: None, version: -1 });
        server.settle();
        assert_eq!(errors(&mut server, other), [(2, 0)], "nothing of the session has gone");
        assert!(matches!(server.admission_news[..], [AdmissionNews::NoRoom(_), AdmissionNews::RoomAgain]));
    }
}

/// Thousands of small parts take many times their own length in the log.
#[test]
fn multi_of_small_parts_is_refused_by_a_full_log() {
    for shards in [1, 3] {
        let mut server = TestServer::new(shards);
        let (client, _) = server.client(0);
        let names = names(2000);
        create_all(&mut server, client, &names, CreateFlags::PERSISTENT);
        server.log_room_bytes = Some(80_000);
        let sets = || names.iter().map(|path| MultiOp::SetData { path, data: None, version: -1 }).collect();
        server.request(client, 2, &Request::Multi(sets()));
        server.settle();
        assert_eq!(errors(&mut server, client), [(2, SYSTEM_ERROR)], "{shards} shards");
        // Requests behind one that is refused for want of room are not refused for that.
        server.request(client, 3, &Request::Multi(sets()));
        server.request(client, 4, &Request::Delete { path: &names[0], version: 0 });
        server.request(client, 5, &Request::Multi(sets()));
        server.settle();
        assert_eq!(errors(&mut server, client), [(3, SYSTEM_ERROR), (4, 0), (5, SYSTEM_ERROR)], "{shards} shards");
    }
}

/// 10,000 identities and an `auth` entry in each of many creates: the transaction would be gigabytes. It is refused before anything of it
/// is made, also while the log has all the room in the world.
#[test]
fn transaction_that_no_log_takes_is_refused() {
    let mut server = TestServer::new(1);
    let (client, _) = server.client(0);
    for i in 0..90 {
        let auth = format!("user-with-a-long-name-{i}:secret");
        server.request(client, xid::AUTH, &Request::Auth { scheme: "digest", auth: auth.as_bytes() });
    }
    server.settle();
    server.received(client);
    let mut scratch = Vec::new();
    let entries: Vec<Acl> = (1..=9).map(|perms| Acl { perms, ..auth_entry() }).collect();
    let acl = AclVector::from_acls(&entries, &mut scratch);
    let names = names(5_000);
    let node =
        |path| MultiOp::Create(Create { path, data: None, acl, flags: CreateFlags(0), ttl_ms: None, with_stat: false });
    server.request(client, 2, &Request::Multi(names.iter().map(|name| node(name)).collect()));
    server.request(client, 3, &Request::Exists { path: &names[0], watch: false });
    server.settle();
    assert_eq!(errors(&mut server, client), [(2, SYSTEM_ERROR), (3, ErrorCode::NoNode.wire())]);
}

fn auth_entry() -> Acl {
    Acl { id: crate::protocol::zookeeper::Id::new("auth", ""), ..Acl::open() }
}

/// More waits than the log takes at once: asked for everything together, it refused everything, for ever.
#[test]
fn burst_that_is_longer_than_the_log_is_taken_piece_by_piece() {
    let mut server = TestServer::new(1);
    let (client, _) = server.client(0);
    let data = vec![7; 900_000];
    for xid in 0..5 {
        server.request(client, xid, &Request::SetData { path: "/", data: Some(&data), version: -1 });
    }
    server.log_is_busy = true;
    for xid in 0..5 {
        server.log_room_bytes = Some(0);
        server.settle();
        assert_eq!(errors(&mut server, client), [], "it waits");
        server.log_room_bytes = Some(1_000_000);
        server.settle();
        assert_eq!(errors(&mut server, client), [(xid, 0)]);
    }
}

/// The disk stalls, clients are held back, and 30 s later it comes back: whoever was silent because nobody listened must not expire,
/// and whoever stays silent must.
#[test]
fn clients_that_were_held_back_do_not_expire() {
    for shards in [1, 3] {
        let mut server = TestServer::new(shards);
        let (client, _) = server.client(usize::from(shards) - 1);
        server.sequencer.set_deaf(true, server.now_ms);
        for _ in 0..600 {
            server.now_ms += 50;
            server.tick();
            server.settle();
        }
        server.sequencer.set_deaf(false, server.now_ms);
        for _ in 0..15 {
            server.now_ms += 50;
            server.tick();
            server.settle();
        }
        assert!(!server.shards[client.shard].is_finished(client.number), "{shards} shards");
        for _ in 0..15 {
            server.now_ms += 50;
            server.tick();
            server.settle();
        }
        assert!(server.shards[client.shard].is_finished(client.number), "{shards} shards");
    }
}

/// A session is found silent while the log is busy, then clients are held back. When the disk comes back its end is the first in the
/// queue: carried out before the sockets are read, it ended sessions whose clients had spoken all the time.
#[test]
fn end_that_was_queued_before_clients_were_held_back_is_not_carried_out() {
    for shards in [1, 3] {
        let mut server = TestServer::new(shards);
        let (client, _) = server.client(usize::from(shards) - 1);
        (server.log_room_bytes, server.log_is_busy) = (Some(0), true);
        for _ in 0..25 {
            server.now_ms += 50;
            server.tick();
        }
        server.settle();
        assert_eq!(server.sequencer.queued(), 1, "its end waits for the log");
        server.sequencer.set_deaf(true, server.now_ms);
        server.now_ms += 10_000;
        server.tick();
        server.sequencer.set_deaf(false, server.now_ms);
        server.log_room_bytes = None;
        server.settle();
        assert!(!server.shards[client.shard].is_finished(client.number), "{shards} shards");
        // Its ping, which lay in the socket, comes.
        server.request(client, xid::PING, &Request::Ping);
        for _ in 0..15 {
            server.now_ms += 50;
            server.tick();
            server.settle();
        }
        assert!(!server.shards[client.shard].is_finished(client.number), "{shards} shards");
    }
}

/// One shard's executor stands still for 30 s, and that of the sequencer does not: the reports of the first are missing, and its clients
/// expired although they had spoken.
#[test]
fn clients_of_a_shard_that_stands_still_do_not_expire() {
    let mut server = TestServer::new(2);
    let (client, _) = server.client(1);
    for _ in 0..600 {
        server.now_ms += 50;
        server.tick_shards(&[0]);
        server.settle();
    }
    server.request(client, xid::PING, &Request::Ping);
    server.tick();
    server.settle();
    assert!(!server.shards[1].is_finished(client.number));
}
