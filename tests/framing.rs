//! TCP knows no frames: what a client sends may come a byte at a time, or the end of one request with the beginning of the next.
//!
//! The hazard: a server keeps what has come of a frame until the rest comes, in one of several places, by its length. A byte that
//! is lost or doubled on the way shifts every frame after it, and is seen by nobody until a client's data is garbage.

mod common;

use common::{Client, SHARD_COUNTS, Session, Setup, TestDir};
use ringkeeper::protocol::zookeeper::{CreateFlags, Request};
use std::io::Write;
use std::thread;

/// Around what a server takes from a socket at once (64 KiB) and what it keeps of a frame beside it, and far above.
const VALUE_BYTES: [usize; 14] =
    [0, 1, 1024, 65_400, 65_490, 65_536, 3, 131_000, 131_072, 70_000, 900_000, 1024, 200_000, 17];
/// Lengths of what is sent at once, over and over.
const PIECE_BYTES: [usize; 11] = [1, 2, 3, 1500, 65_536, 5, 65_535, 40_000, 65_537, 131_071, 4096];

fn value(number: usize, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at * 31 + at / 251 + number) as u8).collect()
}

/// Sends `bytes` in pieces of the lengths that come, and after each has a request of another client answered, so that the server
/// has had its turn with what was sent.
fn send_in_pieces(
    stream: &mut impl Write,
    mut bytes: &[u8],
    lengths: impl IntoIterator<Item = usize>,
    other: &mut Client,
) {
    for length in lengths {
        let piece;
        (piece, bytes) = bytes.split_at(length.min(bytes.len()));
        stream.write_all(piece).expect("the server takes it");
        other.exists("/").expect("a reply");
        if bytes.is_empty() {
            return;
        }
    }
}

#[test]
fn requests_cut_anywhere_are_the_same_requests() {
    for shards in SHARD_COUNTS {
        let directory = TestDir::new("framing");
        let server = Setup::new(directory.path(), shards).start();
        let mut other = Client::connect(server.address).expect("a connection");
        let mut client = Client::open(server.address, Session::new(30_000)).expect("a connection");
        client.queue_greeting();
        let (mut stream, greeting) = client.take_queued();
        send_in_pieces(&mut stream, &greeting, std::iter::repeat(1), &mut other);
        client.finish_greeting().expect("a session");
        assert_eq!(client.create("/v", b"", CreateFlags::PERSISTENT).expect("a reply").error, 0);
        // Twice: with another piece for each request.
        let lengths = VALUE_BYTES.iter().chain(VALUE_BYTES.iter().rev());
        let values: Vec<Vec<u8>> = lengths.enumerate().map(|(number, bytes)| value(number, *bytes)).collect();
        for value in &values {
            client.queue(&Request::SetData { path: "/v", data: Some(value), version: -1 });
            client.queue(&Request::GetData { path: "/v", watch: false });
        }
        let (mut stream, bytes) = client.take_queued();
        let sender = thread::spawn(move || {
            send_in_pieces(&mut stream, &bytes, PIECE_BYTES.into_iter().cycle(), &mut other);
        });
        for (number, value) in values.iter().enumerate() {
            assert_eq!(client.receive().expect("a reply").stat().version, number as i32 + 1);
            let found = client.receive().expect("a reply").data();
            assert!(found == *value, "write {number}: {} bytes came back of {}", found.len(), value.len());
        }
        sender.join().expect("everything was taken");
        server.stop();
    }
}
