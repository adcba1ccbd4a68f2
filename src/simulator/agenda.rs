//! What happens next: the one queue of a simulation, ordered by virtual time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Something that is due at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    /// A client has its turn.
    ClientTurn(usize),
    /// The next piece of a connection reaches the server.
    ToServer(usize),
    /// The next piece of a connection reaches the client.
    ToClient(usize),
    /// The server starts.
    Start,
    /// Something inside the server, in this life of it.
    Inside(usize, Inside),
}

/// Something that is due inside a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Inside {
    /// The next message of this shard reaches the sequencer.
    ToSequencer(usize),
    /// The next message of the sequencer reaches this shard.
    ToShard(usize),
    /// The next message from the first shard reaches the second.
    Peer(usize, usize),
    /// The sequencer validates.
    Advance,
    /// The disk has carried out what it was doing for the log.
    Written,
    /// The disk has made a segment of the log.
    SegmentMade,
    /// The log has been idle for a while.
    LogIdle,
    /// A file of the log that is no longer needed becomes a spare.
    Recycle,
    /// A shard sends what a connection has coming.
    Send(usize, u64),
    /// A turn of a shard's clock.
    ShardTick(usize),
    /// A turn of the sequencer's clock.
    SequencerTick,
    /// A shard's word about its oldest position becomes visible.
    Publish(usize),
    /// A shard looks at the words of all.
    Floor(usize),
    /// A shard writes a slice of its part of a snapshot.
    SnapshotSlice(usize),
    /// A finished part is reported.
    SnapshotPart,
}

impl Event {
    /// True for what comes again and again without anybody waiting for it.
    fn is_periodic(self) -> bool {
        use Inside::{Floor, LogIdle, Publish, SequencerTick, ShardTick};
        matches!(self, Event::Inside(_, ShardTick(_) | SequencerTick | Publish(_) | Floor(_) | LogIdle))
    }
}

/// The queue of events.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    heap: BinaryHeap<Reverse<(u64, u64, Event)>>,
    next_number: u64,
    /// Events that are not periodic.
    work: usize,
}

impl Agenda {
    /// `event` is due at `at_us`. Events of one moment come in the order of this call.
    pub(super) fn push(&mut self, at_us: u64, event: Event) {
        self.heap.push(Reverse((at_us, self.next_number, event)));
        self.next_number += 1;
        self.work += usize::from(!event.is_periodic());
    }

    /// The next event and its time.
    pub(super) fn pop(&mut self) -> Option<(u64, Event)> {
        let Reverse((at_us, _, event)) = self.heap.pop()?;
        self.work -= usize::from(!event.is_periodic());
        Some((at_us, event))
    }

    /// True when only periodic events are left.
    pub(super) fn is_idle(&self) -> bool {
        self.work == 0
    }
}
