//! Violations, told so that a reader can follow them.

use super::history::{Committed, ConnectionKey, History, Moment};
use crate::protocol::jute::Input;
use crate::protocol::zookeeper::{
    ConnectRequest, ConnectResponse, ReplyHeader, Request, RequestHeader, WatcherEvent, xid,
};
use std::fmt;

/// A promise that the server did not keep.
#[derive(Clone, Debug)]
pub struct Violation {
    /// The seed that makes it again.
    pub seed: u64,
    /// The promise.
    pub rule: &'static str,
    /// When it was broken, as far as that can be said.
    pub at: Moment,
    /// The connection that saw it.
    pub connection: Option<ConnectionKey>,
    /// What should have been.
    pub expected: String,
    /// What was.
    pub got: String,
    /// What led to it: the last steps on the connection and the transactions among them.
    pub steps: Vec<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: {}", self.seed, self.rule)?;
        write!(f, "  at {} us", self.at.time_us)?;
        match self.connection {
            Some(connection) => writeln!(f, ", connection {connection}")?,
            None => writeln!(f)?,
        }
        writeln!(f, "  expected: {}\n  got:      {}", self.expected, self.got)?;
        self.steps.iter().try_for_each(|step| writeln!(f, "    {step}"))
    }
}

const STEPS_BEFORE_MAX: usize = 20;
const STEPS_AFTER_MAX: usize = 6;

/// The steps around `at`, on `connection` or anywhere.
pub(super) fn steps_around(history: &History, at: Moment, connection: Option<ConnectionKey>) -> Vec<String> {
    let mut steps: Vec<(Moment, String)> = Vec::new();
    let wanted = |key: ConnectionKey| connection.is_none_or(|wanted| wanted == key);
    for (key, client) in history.connections.iter().enumerate().filter(|(key, _)| wanted(*key)) {
        for (number, sent) in client.sent.iter().enumerate() {
            steps.push((sent.at, format!("connection {key} sends {number}: {}", describe_sent(number, &sent.body))));
        }
        for (number, received) in client.received.iter().enumerate() {
            let text = describe_received(number, &received.body);
            steps.push((received.at, format!("connection {key} receives: {text}")));
        }
        if let Some((at, by)) = client.closed {
            steps.push((at, format!("connection {key} is closed by {by:?}")));
        }
    }
    for (number, life) in history.lives.iter().enumerate() {
        steps.push((life.started, format!("life {number} starts at {}", life.recovered)));
        steps.extend(life.crashed.map(|at| (at, format!("life {number} crashes"))));
        steps.extend(life.committed.iter().map(|commit| (commit.at, describe_commit(history, commit))));
    }
    steps.sort_by_key(|(moment, _)| *moment);
    let after = steps.partition_point(|(moment, _)| *moment <= at);
    let shown = after.saturating_sub(STEPS_BEFORE_MAX)..steps.len().min(after + STEPS_AFTER_MAX);
    steps[shown].iter().map(|(moment, text)| format!("{:>9} us  {text}", moment.time_us)).collect()
}

fn describe_commit(history: &History, commit: &Committed) -> String {
    let of = match commit.request {
        None => String::new(),
        Some((key, number)) => match history.connections[key].sent.get(number as usize) {
            Some(sent) if number > 0 => {
                format!(" for request {number} of connection {key}: {}", describe_sent(1, &sent.body))
            }
            _ => format!(" for the handshake of connection {key}"),
        },
    };
    format!("commit {} session {} {:?}{of}", commit.zxid, commit.session, commit.kind)
}

/// A request in words; number 0 is the handshake.
pub fn describe_sent(number: usize, body: &[u8]) -> String {
    if number == 0 {
        return match ConnectRequest::decode(body) {
            Ok(connect) => format!(
                "connect session {:#x} seen {:#x} timeout {} ms",
                connect.session_id, connect.last_zxid_seen, connect.timeout_ms
            ),
            Err(error) => format!("handshake that is none ({error})"),
        };
    }
    let mut input = Input::new(body);
    let Ok(header) = RequestHeader::decode(&mut input) else { return format!("no request ({} bytes)", body.len()) };
    match Request::decode(header.op, input.rest()) {
        Ok(request) => shorten(format!("xid {} {request:?}", header.xid)),
        Err(error) => format!("xid {} op {}: {error}", header.xid, header.op),
    }
}

/// A received frame in words; number 0 answers the handshake.
pub fn describe_received(number: usize, body: &[u8]) -> String {
    if number == 0 {
        return match ConnectResponse::decode(body) {
            Ok(response) => format!("session {:#x} timeout {} ms", response.session_id, response.timeout_ms),
            Err(error) => format!("no connect response ({error})"),
        };
    }
    let mut input = Input::new(body);
    let Ok(header) = ReplyHeader::decode(&mut input) else { return format!("no reply ({} bytes)", body.len()) };
    if header.xid == xid::NOTIFICATION {
        return match WatcherEvent::decode(&mut input) {
            Ok(event) => format!("event {:#x} {:?} {}", header.zxid, event.kind, event.path),
            Err(error) => format!("no event ({error})"),
        };
    }
    let text = String::from_utf8_lossy(input.rest()).escape_debug().to_string();
    shorten(format!("reply xid {} zxid {:#x} error {} body {text}", header.xid, header.zxid, header.error))
}

fn shorten(text: String) -> String {
    const CHARS_MAX: usize = 300;
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
