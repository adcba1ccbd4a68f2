//! The checker is itself under test: a right server passes, and every way of spoiling its history is found.

use super::history::{ClosedBy, CommittedKind, Dump, History, Life};
use super::one_copy::{PROMISES, World};
use super::verify::verify;
use crate::protocol::jute::Input;
use crate::protocol::zookeeper::{OpCode, ReplyHeader, Request, RequestHeader, xid};

const SEEDS: std::ops::Range<u64> = 1..13;

fn header(body: &[u8]) -> ReplyHeader {
    ReplyHeader::decode(&mut Input::new(body)).expect("the one-copy server sends replies")
}

fn is_event(body: &[u8]) -> bool {
    let header = header(body);
    header.xid == xid::NOTIFICATION && header.zxid > 0
}

/// Places of frames in a history: connection and index.
fn places(history: &History, wanted: impl Fn(&History, usize, usize) -> bool) -> Vec<(usize, usize)> {
    let connections = 0..history.connections.len();
    let all = connections.flat_map(|key| (1..history.connections[key].received.len()).map(move |frame| (key, frame)));
    all.filter(|(key, frame)| wanted(history, *key, *frame)).collect()
}

/// Spoils the history of each seed at some place and expects that the checker says so.
fn every_spoilt_history_is_found(
    rule: &str,
    wanted: impl Fn(&History, usize, usize) -> bool,
    spoil: impl Fn(&mut History, usize, usize),
) {
    let mut tried = 0;
    for seed in SEEDS {
        let history = World::run(seed, 500);
        let places = places(&history, &wanted);
        for (key, frame) in places.iter().step_by(places.len() / 4 + 1) {
            let mut spoilt = history.clone();
            spoil(&mut spoilt, *key, *frame);
            let violation =
                verify(&spoilt, &PROMISES).expect_err(&format!("seed {seed}, connection {key}, frame {frame}"));
            assert!(violation.rule.contains(rule), "{violation}");
            assert!(!violation.steps.is_empty(), "{violation}");
            tried += 1;
        }
    }
    assert!(tried >= 12, "only {tried} places were spoilt");
}

fn received(history: &mut History, key: usize) -> &mut Vec<super::history::Received> {
    &mut history.connections[key].received
}

/// The reply at this place is to an operation of this kind, without an error.
fn answers(history: &History, key: usize, frame: usize, ops: &[OpCode]) -> bool {
    let connection = &history.connections[key];
    let body = &connection.received[frame].body;
    let replies = connection.received[1..=frame].iter().filter(|frame| header(&frame.body).xid != xid::NOTIFICATION);
    let Some(sent) = connection.sent.get(replies.count()) else { return false };
    let mut input = Input::new(&sent.body);
    header(body).xid != xid::NOTIFICATION
        && header(body).error == 0
        && RequestHeader::decode(&mut input).is_ok_and(|asked| {
            Request::decode(asked.op, input.rest()).is_ok_and(|request| ops.contains(&request.op_code()))
        })
}

/// A checker that refuses what is right proves nothing.
#[test]
fn one_copy_server_passes() {
    let mut events = 0;
    for seed in 1..41 {
        let history = World::run(seed, 600);
        match verify(&history, &PROMISES) {
            Ok(verified) => events += verified.events,
            Err(violation) => panic!("{violation}"),
        }
    }
    assert!(events > 2000, "{events} events");
}

/// A lost event leaves a client with a stale cache for ever.
#[test]
fn dropped_event_is_found() {
    every_spoilt_history_is_found(
        "",
        |history, key, frame| {
            let connection = &history.connections[key];
            let may_be_lost = connection.closed.is_none_or(|(_, by)| by == ClosedBy::Server);
            is_event(&connection.received[frame].body) && (may_be_lost || frame + 1 < connection.received.len())
        },
        |history, key, frame| drop(received(history, key).remove(frame)),
    );
}

/// An event that comes twice makes a lock recipe act twice.
#[test]
fn doubled_event_is_found() {
    every_spoilt_history_is_found(
        "",
        |history, key, frame| is_event(&history.connections[key].received[frame].body),
        |history, key, frame| {
            let again = received(history, key)[frame].clone();
            received(history, key).insert(frame + 1, again);
        },
    );
}

/// The write's own event must stand before its reply.
#[test]
fn event_after_reply_is_found() {
    every_spoilt_history_is_found(
        "",
        |history, key, frame| {
            let frames = &history.connections[key].received;
            is_event(&frames[frame].body)
                && frames.get(frame + 1).is_some_and(|next| header(&next.body).xid != xid::NOTIFICATION)
                && header(&frames[frame + 1].body).zxid > 0
        },
        |history, key, frame| {
            let frames = received(history, key);
            let (event, reply) = (frames[frame].body.clone(), frames[frame + 1].body.clone());
            frames[frame].body = reply;
            frames[frame + 1].body = event;
        },
    );
}

/// Replies in another order than the requests: the client pairs them with the wrong calls.
#[test]
fn reordered_replies_are_found() {
    every_spoilt_history_is_found(
        "",
        |history, key, frame| {
            let frames = &history.connections[key].received;
            let is_reply =
                |frame: usize| frames.get(frame).is_some_and(|frame| header(&frame.body).xid != xid::NOTIFICATION);
            is_reply(frame) && is_reply(frame + 1) && frames[frame].body != frames[frame + 1].body
        },
        |history, key, frame| {
            let frames = received(history, key);
            let (first, second) = (frames[frame].body.clone(), frames[frame + 1].body.clone());
            frames[frame].body = second;
            frames[frame + 1].body = first;
        },
    );
}

/// A read that names a position but shows another state.
#[test]
fn read_of_another_state_is_found() {
    every_spoilt_history_is_found(
        "one copy",
        |history, key, frame| answers(history, key, frame, &[OpCode::GetData, OpCode::Exists, OpCode::GetChildren2]),
        |history, key, frame| {
            // The last byte is the low one of pzxid.
            let body = &mut received(history, key)[frame].body;
            *body.last_mut().expect("a reply with a stat") ^= 1;
        },
    );
}

/// Rule A3: a read at an older position, right as such, after another client was told of a newer one.
#[test]
fn stale_read_is_found() {
    every_spoilt_history_is_found(
        "",
        |history, key, frame| {
            let connection = &history.connections[key];
            let replies = connection.received[1..=frame].iter().filter(|f| header(&f.body).xid != xid::NOTIFICATION);
            let known = connection.sent.get(replies.count()).map_or(0, |sent| {
                let others = history.connections.iter().flat_map(|other| other.received.iter().skip(1));
                others.filter(|f| f.at < sent.at).map(|f| header(&f.body).zxid).max().unwrap_or(0)
            });
            answers(history, key, frame, &[OpCode::Ping, OpCode::CheckWatches, OpCode::AddWatch])
                && header(&connection.received[frame].body).zxid == known
        },
        |history, key, frame| {
            let body = &mut received(history, key)[frame].body;
            let stale = header(body).zxid - 1;
            body[4..12].copy_from_slice(&stale.to_be_bytes());
        },
    );
}

/// A write that was answered and is in no place of the order.
#[test]
fn lost_write_is_found() {
    every_spoilt_history_is_found(
        "",
        |history, key, frame| answers(history, key, frame, &[OpCode::Create, OpCode::SetData, OpCode::Multi]),
        |history, key, frame| {
            let zxid = header(&received(history, key)[frame].body).zxid;
            let committed = &mut history.lives[0].committed;
            let place = committed.iter().position(|commit| commit.zxid.wire() == zxid).expect("it was committed");
            committed[place].kind = CommittedKind::Nothing;
            committed[place].request = None;
        },
    );
}

/// A reply that never came although the connection stood.
#[test]
fn missing_reply_is_found() {
    every_spoilt_history_is_found(
        "",
        |history, key, frame| {
            let connection = &history.connections[key];
            connection.closed.is_none() && frame + 1 == connection.received.len()
        },
        |history, key, _| drop(received(history, key).pop()),
    );
}

/// A crash after which an acknowledged write is gone, and one that left half of the last transaction.
#[test]
fn crash_that_loses_or_halves_is_found() {
    for seed in SEEDS {
        let mut history = World::run(seed, 300);
        let last = history.lives[0].committed.last().expect("something was committed").zxid;
        let dump = history.lives[0].final_dump.take().expect("the run ended");
        for connection in &mut history.connections {
            connection.closed.get_or_insert((history.ended, ClosedBy::Crash));
        }
        let restart = |recovered, dump: Dump| {
            let mut history = history.clone();
            history.lives[0].crashed = Some(history.ended);
            let life = Life { shards: 1, started: history.ended, recovered, recovered_dump: dump, ..Life::default() };
            history.lives.push(life);
            verify(&history, &PROMISES)
        };
        restart(last, dump.clone()).unwrap_or_else(|violation| panic!("{violation}"));
        let lost = restart(crate::base::Zxid(last.0 / 2), dump.clone()).expect_err("half of the log is gone");
        assert!(!lost.to_string().is_empty());
        let mut halved = dump;
        halved.nodes.remove("/zookeeper/quota");
        let violation = restart(last, halved).expect_err("a node is missing");
        assert!(violation.rule.contains("recovered state"), "{violation}");
    }
}
