//! What a socket brings: the handshake and frames, in whatever pieces. The server neither panics nor takes memory that does not
//! follow from what it got, takes no more bytes than it was given, and answers the same however they were cut; a client that
//! keeps to the protocol is answered once a request, in order.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use ringkeeper::coordination::admin::FourLetterWord;
use ringkeeper::protocol::jute::Input;
use ringkeeper::protocol::zookeeper::{ConnectRequest, FrameReader, ReplyHeader, xid};
use ringkeeper_fuzz::allocation::bounded;
use ringkeeper_fuzz::lone_server::{LoneServer, PACKET_BYTES_MAX};
use ringkeeper_fuzz::mutation::Mutation;
use ringkeeper_fuzz::requests::{AnyConnect, AnyRequest};

#[derive(Arbitrary, Debug)]
struct Case<'a> {
    handshake: Handshake<'a>,
    requests: Vec<(u8, AnyRequest<'a>)>,
    mutations: Vec<Mutation>,
    /// Raw bytes behind all that.
    rest: &'a [u8],
    /// Lengths of the pieces; the last is used again and again.
    cuts: Vec<u16>,
}

#[derive(Arbitrary, Debug)]
enum Handshake<'a> {
    /// A client without a session.
    New {
        timeout_ms: i32,
    },
    Any(AnyConnect<'a>),
    None,
}

/// Feeds the server as the driver of a socket does: what was not taken is offered again with what follows.
fn feed(stream: &[u8], cuts: &[u16]) -> LoneServer {
    let mut server = LoneServer::new();
    let (mut held, mut rest, mut piece) = (Vec::new(), stream, 0);
    let cut = |piece: usize| cuts.get(piece).or(cuts.last()).map_or(stream.len(), |bytes| usize::from(*bytes)).max(1);
    while !server.closed && !rest.is_empty() {
        let (now, later) = rest.split_at(cut(piece).min(rest.len()));
        (rest, piece) = (later, piece + 1);
        held.extend_from_slice(now);
        loop {
            let Some(taken) = server.receive(&held) else { return server };
            assert!(taken <= held.len(), "{taken} bytes were taken of {}", held.len());
            held.drain(..taken);
            assert!(server.wants_bytes() || server.closed, "nothing is under way, so there is room");
            if taken == 0 || held.is_empty() {
                break;
            }
        }
        // What is left is the beginning of one frame.
        assert!(held.len() < 4 + PACKET_BYTES_MAX || server.closed);
    }
    server
}

/// Every request of a good client is answered: with its xid, in order, events aside. The connection may close behind any answer.
fn check_answers(server: &LoneServer, xids: &[i32]) {
    let mut frames = FrameReader::new(&server.sent, usize::MAX >> 1);
    let mut next = || frames.next().expect("whole frames");
    if next().is_none() {
        assert!(server.closed, "a handshake is answered");
        return;
    }
    let mut expected = xids.iter();
    while let Some(frame) = next() {
        let header = ReplyHeader::decode(&mut Input::new(frame.body)).expect("a header");
        if header.xid != xid::NOTIFICATION {
            let expected = expected.next().expect("no answer without a request");
            assert!(header.xid == *expected || header.xid == xid::PING, "{} instead of {expected}", header.xid);
        }
    }
    assert!(server.closed || expected.next().is_none(), "requests are left without an answer");
}

fn stream(case: &Case<'_>) -> (Vec<u8>, Vec<i32>) {
    let (mut stream, mut xids) = (Vec::new(), Vec::new());
    match &case.handshake {
        Handshake::New { timeout_ms } => ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: 0,
            timeout_ms: *timeout_ms,
            session_id: 0,
            password: &[0; 16],
            read_only: Some(false),
        }
        .encode_frame(&mut stream),
        Handshake::Any(request) => request.request().encode_frame(&mut stream),
        Handshake::None => {}
    }
    for (xid, request) in case.requests.iter().take(32) {
        request.request().encode_frame((*xid).into(), &mut stream);
        xids.push((*xid).into());
    }
    (stream, xids)
}

fuzz_target!(|case: Case| {
    let (mut bytes, xids) = stream(&case);
    let good = matches!(case.handshake, Handshake::New { .. }) && case.mutations.is_empty() && case.rest.is_empty();
    case.mutations.iter().take(8).for_each(|mutation| mutation.apply(&mut bytes));
    bytes.extend_from_slice(case.rest);
    if let Some(first) = bytes.first_chunk::<4>() {
        // Read by the driver before the core sees anything.
        let _ = FourLetterWord::parse(*first);
    }
    // A server without clients, twice what it was sent for each of its copies, and what a watch on each path takes.
    let bytes_max = (1 << 20) + 64 * bytes.len();
    let whole = bounded(bytes_max, || feed(&bytes, &[]));
    let pieces = bounded(bytes_max, || feed(&bytes, &case.cuts));
    assert_eq!(whole.closed, pieces.closed, "however the bytes are cut");
    // A frame that closes the connection at once takes along what was still under way.
    let same = whole.sent.len().min(pieces.sent.len());
    assert_eq!(whole.sent[..same], pieces.sent[..same], "however the bytes are cut");
    assert!(whole.closed || whole.sent.len() == pieces.sent.len(), "however the bytes are cut");
    if good && bytes.len() < PACKET_BYTES_MAX {
        check_answers(&whole, &xids);
    }
});
