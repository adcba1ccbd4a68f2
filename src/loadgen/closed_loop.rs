//! The closed loop of one connection, without IO: keeps a number of requests in flight, and checks and times every reply.
//!
//! Invariants: requests `answered..sent` are in flight, at most `outstanding`; request `n` has xid `n` cut to 31 bits and its
//! place in `ring` at `n mod ring.len()`, where the length is a power of two; replies come in order.

use super::recorder::Recorder;
use super::requests::{Keys, Template};
use crate::protocol::zookeeper::{ReplyHeader, Stat};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::rc::Rc;

/// What all connections of a run share.
pub(super) struct Workload {
    pub keys: Keys,
    pub get_data: Template,
    pub set_data: Template,
    pub value_bytes: usize,
}

impl Workload {
    /// Sizes of the reply frames of a successful read and write, without the length.
    fn reply_bytes(&self, is_write: bool) -> usize {
        let data = if is_write { 0 } else { 4 + self.value_bytes };
        ReplyHeader::BYTES + data + Stat::BYTES
    }
}

/// A reply that says that nothing after it can be trusted.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum LoopFault {
    #[error("a reply of {0} bytes has no header")]
    Short(usize),
    #[error("reply to xid {got} where {due} is due")]
    WrongXid { got: i32, due: i32 },
    #[error("reply to xid {0} where none is due")]
    NoneDue(i32),
}

/// A request in flight.
#[derive(Clone, Copy, Default)]
struct Sent {
    at_us: u64,
    is_write: bool,
}

/// Replies of one kind with one latency, counted before they go into the histogram: all replies of one receive that left in
/// one send have the same.
#[derive(Default)]
struct Group {
    is_write: bool,
    latency_us: u64,
    count: u64,
}

/// The loop's state.
pub(super) struct ClosedLoop {
    workload: Rc<Workload>,
    random: SmallRng,
    outstanding: usize,
    ring: Vec<Sent>,
    sent: u64,
    answered: u64,
    group: Group,
}

impl ClosedLoop {
    /// A loop of `outstanding` requests with its own stream of random numbers.
    pub fn new(workload: Rc<Workload>, outstanding: usize, seed: u64) -> ClosedLoop {
        ClosedLoop {
            workload,
            random: SmallRng::seed_from_u64(seed),
            outstanding,
            ring: vec![Sent::default(); outstanding.next_power_of_two()],
            sent: 0,
            answered: 0,
            group: Group::default(),
        }
    }

    fn place(&self, number: u64) -> usize {
        number as usize & (self.ring.len() - 1)
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> usize {
        (self.sent - self.answered) as usize
    }

    /// Appends as many requests as there is room for; `read_share` out of 2^32 are reads.
    pub fn fill(&mut self, read_share: u64, now_us: u64, output: &mut Vec<u8>) {
        while self.in_flight() < self.outstanding {
            let random: u64 = self.random.random();
            let key = (((random >> 32) * u64::from(self.workload.keys.count())) >> 32) as u32;
            let is_write = random & 0xffff_ffff >= read_share;
            let template = if is_write { &self.workload.set_data } else { &self.workload.get_data };
            template.append(xid(self.sent), key, &self.workload.keys, output);
            let place = self.place(self.sent);
            self.ring[place] = Sent { at_us: now_us, is_write };
            self.sent += 1;
        }
    }

    /// Takes one reply frame. With a recorder it is recorded.
    pub fn on_reply(&mut self, frame: &[u8], now_us: u64, recorder: Option<&mut Recorder>) -> Result<(), LoopFault> {
        let Some(header) = frame.first_chunk::<{ ReplyHeader::BYTES }>() else {
            return Err(LoopFault::Short(frame.len()));
        };
        let got = i32::from_be_bytes([header[0], header[1], header[2], header[3]]);
        let error = i32::from_be_bytes([header[12], header[13], header[14], header[15]]);
        if self.in_flight() == 0 {
            return Err(LoopFault::NoneDue(got));
        }
        let due = xid(self.answered);
        if got != due {
            return Err(LoopFault::WrongXid { got, due });
        }
        let Sent { at_us, is_write } = self.ring[self.place(self.answered)];
        self.answered += 1;
        if let Some(recorder) = recorder {
            self.count(is_write, now_us.saturating_sub(at_us), recorder);
            let expected = self.workload.reply_bytes(is_write);
            if error != 0 {
                recorder.record_error(|| format!("error {error} in reply to xid {got}"));
            } else if frame.len() != expected {
                recorder.record_error(|| format!("a reply of {} bytes where {expected} are due", frame.len()));
            }
        }
        Ok(())
    }

    fn count(&mut self, is_write: bool, latency_us: u64, recorder: &mut Recorder) {
        if (self.group.is_write, self.group.latency_us) != (is_write, latency_us) {
            self.flush(recorder);
            self.group = Group { is_write, latency_us, count: 0 };
        }
        self.group.count += 1;
    }

    /// Records what [`on_reply`](Self::on_reply) has counted: to be called at the end of every wake-up.
    pub fn flush(&mut self, recorder: &mut Recorder) {
        let Group { is_write, latency_us, count } = std::mem::take(&mut self.group);
        if count > 0 {
            recorder.record(is_write, latency_us, count);
        }
    }
}

/// Never negative: those xids have a meaning of their own.
fn xid(number: u64) -> i32 {
    (number & 0x7fff_ffff) as i32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Zxid;
    use crate::protocol::jute::Input;
    use crate::protocol::zookeeper::{ErrorCode, FrameReader, OpCode, Reply, RequestHeader};

    const VALUE: &[u8] = &[3; 10];
    const ALWAYS_READ: u64 = 1 << 32;

    fn closed_loop(outstanding: usize) -> ClosedLoop {
        let workload = Workload {
            keys: Keys::new(1000),
            get_data: Template::get_data(),
            set_data: Template::set_data(VALUE),
            value_bytes: VALUE.len(),
        };
        ClosedLoop::new(Rc::new(workload), outstanding, 1)
    }

    fn requests(output: &[u8]) -> Vec<RequestHeader> {
        let mut frames = FrameReader::new(output, 4096);
        std::iter::from_fn(|| frames.next().unwrap().map(|f| RequestHeader::decode(&mut Input::new(f.body)).unwrap()))
            .collect()
    }

    fn data_reply(xid: i32) -> Vec<u8> {
        let mut frame = Vec::new();
        Reply::Data(Some(VALUE), Stat::default()).encode_frame(xid, Zxid(1), &mut frame);
        frame.split_off(4)
    }

    /// Exactly `outstanding` requests are in flight, each reply makes room for one, and its latency runs from its own send.
    #[test]
    fn each_reply_makes_room_for_one_request() {
        let (mut closed_loop, mut recorder, mut output) = (closed_loop(3), Recorder::new(), Vec::new());
        closed_loop.fill(ALWAYS_READ, 100, &mut output);
        assert_eq!(requests(&output).iter().map(|r| r.xid).collect::<Vec<_>>(), [0, 1, 2]);
        closed_loop.on_reply(&data_reply(0), 150, Some(&mut recorder)).unwrap();
        closed_loop.flush(&mut recorder);
        output.clear();
        closed_loop.fill(ALWAYS_READ, 150, &mut output);
        assert_eq!(requests(&output).iter().map(|r| r.xid).collect::<Vec<_>>(), [3]);
        for (xid, now_us) in [(1, 300), (2, 300), (3, 300)] {
            closed_loop.on_reply(&data_reply(xid), now_us, Some(&mut recorder)).unwrap();
        }
        closed_loop.flush(&mut recorder);
        let reads = &recorder.reads_us;
        assert_eq!([reads.count_at(50), reads.count_at(200), reads.count_at(150)], [1, 2, 1]);
        assert_eq!((recorder.requests(), recorder.errors, closed_loop.in_flight()), (4, 0, 0));
    }

    /// A server that answers the wrong request, or with an error or with other data, must not look fast.
    #[test]
    fn wrong_replies_are_not_counted_as_good() {
        let (mut closed_loop, mut recorder, mut output) = (closed_loop(3), Recorder::new(), Vec::new());
        assert_eq!(closed_loop.on_reply(&data_reply(0), 0, None), Err(LoopFault::NoneDue(0)));
        closed_loop.fill(ALWAYS_READ, 0, &mut output);
        let swapped = closed_loop.on_reply(&data_reply(1), 0, Some(&mut recorder));
        assert_eq!(swapped, Err(LoopFault::WrongXid { got: 1, due: 0 }));
        let mut error = Vec::new();
        Reply::encode_error_frame(0, 1, ErrorCode::NoNode, &mut error);
        closed_loop.on_reply(&error[4..], 0, Some(&mut recorder)).unwrap();
        assert_eq!((recorder.errors, recorder.first_error.as_deref()), (1, Some("error -101 in reply to xid 0")));
        let short = data_reply(1);
        closed_loop.on_reply(&short[..short.len() - 1], 0, Some(&mut recorder)).unwrap();
        assert_eq!(recorder.errors, 2);
        assert_eq!(closed_loop.on_reply(&[0; 15], 0, None), Err(LoopFault::Short(15)));
    }

    /// The ratio asked for is the ratio sent, at both ends exactly.
    #[test]
    fn ratio_is_kept() {
        for (share, expected) in [(0, 0..=0), (1 << 31, 4_700..=5_300), (ALWAYS_READ, 10_000..=10_000)] {
            let mut output = Vec::new();
            closed_loop(10_000).fill(share, 0, &mut output);
            let reads = requests(&output).iter().filter(|r| r.op == OpCode::GetData.wire()).count();
            assert!(expected.contains(&reads), "{reads} reads of 10000 at share {share}");
        }
    }
}
