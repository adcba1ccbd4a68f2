//! The output of one connection: one queue in which everything has its place.
//!
//! A read takes its place when it has its turn; events, then a write's own reply, take theirs when the transaction is applied;
//! nothing overtakes an unfilled place (docs/ordering.md, window reads).
//!
//! What counts against the bounds of a connection is what was promised, not what has arrived: an unfilled place counts with what the
//! questions may bring that were asked for it.

use crate::base::{Zxid, coverage};
use crate::coordination::processor::peer::GatherId;
use crate::coordination::watch::{Fired, Tag, Tags};
use ahash::AHashMap;
use std::collections::VecDeque;

/// A place that was taken for a reply to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PlaceId(u64);

#[derive(Debug)]
enum Place {
    /// For the reply of this read, to whose questions so many bytes were promised.
    Unfilled {
        gather: GatherId,
        promised_bytes: usize,
    },
    Filled {
        bytes: Vec<u8>,
        zxid: Zxid,
    },
    Event {
        bytes: Vec<u8>,
        zxid: Zxid,
        confirmed: bool,
        tags: Tags,
    },
}

/// Bytes for a client, in order.
#[derive(Debug, Default)]
pub(super) struct Output {
    ready: Vec<u8>,
    /// The highest zxid that `ready` tells of.
    ready_zxid: Zxid,
    /// Invariant: the first is unfilled, if there is any.
    places: VecDeque<Place>,
    /// Number of places that left the queue.
    gone: u64,
    /// Bytes in `places`.
    held_bytes: usize,
    /// Bytes that the unfilled places are promised.
    promised_bytes: usize,
    /// The place of the event that hangs on a read: a watch fires once, so there is one at most.
    tentative: AHashMap<Tag, PlaceId>,
    /// About how long the last replies were.
    recent_reply_bytes: usize,
}

/// The least length that a reply to come is counted with. The length of a reply is not known before the reply comes, and
/// without a guess short requests could ask for long replies without end.
const REPLY_BYTES_EXPECTED_MIN: usize = 8 << 10;
/// A longer reply takes the place of what is ready instead of being copied behind it, when that is empty.
const COPIED_BYTES_MAX: usize = 16 << 10;

impl Output {
    /// Takes a place for the reply of a read; `promised_bytes` is what its first questions may bring.
    pub(super) fn reserve(&mut self, gather: GatherId, promised_bytes: usize) -> PlaceId {
        self.places.push_back(Place::Unfilled { gather, promised_bytes });
        self.promised_bytes += promised_bytes;
        PlaceId(self.gone + self.places.len() as u64 - 1)
    }

    /// The read that everything else waits for.
    pub(super) fn first_unfilled(&self) -> Option<GatherId> {
        match self.places.front()? {
            Place::Unfilled { gather, .. } => Some(*gather),
            Place::Filled { .. } | Place::Event { .. } => None,
        }
    }

    /// Appends what `write` writes behind everything that has a place now. `zxid` is the newest state that it tells of.
    pub(super) fn append<T>(&mut self, zxid: Zxid, write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        if self.places.is_empty() {
            self.ready_zxid = self.ready_zxid.max(zxid);
            let before = self.ready.len();
            let result = write(&mut self.ready);
            self.note_reply(self.ready.len().saturating_sub(before));
            return result;
        }
        let (mut bytes, mut newest) = match self.places.pop_back() {
            Some(Place::Filled { bytes, zxid }) => (bytes, zxid),
            Some(other) => {
                self.places.push_back(other);
                (Vec::new(), zxid)
            }
            None => (Vec::new(), zxid),
        };
        newest = newest.max(zxid);
        let before = bytes.len();
        let result = write(&mut bytes);
        let added = bytes.len().saturating_sub(before);
        self.places.push_back(Place::Filled { bytes, zxid: newest });
        self.held_bytes += added;
        self.note_reply(added);
        result
    }

    fn note_reply(&mut self, bytes: usize) {
        self.recent_reply_bytes = bytes.max(self.recent_reply_bytes - self.recent_reply_bytes / 8);
    }

    /// Appends an event. An event that hangs on unanswered reads stands behind the places of these reads, and may still be
    /// dropped.
    pub(super) fn append_event(&mut self, zxid: Zxid, fired: &Fired, write: impl FnOnce(&mut Vec<u8>)) {
        if fired.confirmed {
            return self.append(zxid, write);
        }
        coverage::mark("tentative-event-queued");
        debug_assert!(!self.places.is_empty(), "an event on an unanswered read has that read's place before it");
        let mut bytes = Vec::new();
        write(&mut bytes);
        self.held_bytes += bytes.len();
        let place = PlaceId(self.gone + self.places.len() as u64);
        self.tentative.extend(fired.tags.iter().map(|tag| (*tag, place)));
        self.places.push_back(Place::Event { bytes, zxid, confirmed: false, tags: fired.tags.clone() });
    }

    /// A read was answered after its watch had fired: its event stays (`keep`) or loses one of its reasons.
    pub(super) fn settle(&mut self, tag: Tag, keep: bool) {
        let place = self.tentative.remove(&tag).and_then(|place| self.place_mut(place));
        if let Some(Place::Event { confirmed, tags, .. }) = place {
            tags.retain(|other| *other != tag);
            *confirmed |= keep;
        }
    }

    fn place_mut(&mut self, place: PlaceId) -> Option<&mut Place> {
        self.places.get_mut(place.0.checked_sub(self.gone)? as usize)
    }

    /// Fills a place, and moves what is complete to the front. A place that was given up takes nothing.
    pub(super) fn fill(&mut self, place: PlaceId, zxid: Zxid, bytes: Vec<u8>) {
        let added = bytes.len();
        let Some(place) = self.place_mut(place) else { return };
        let Place::Unfilled { promised_bytes, .. } = *place else { return };
        *place = Place::Filled { bytes, zxid };
        self.promised_bytes -= promised_bytes;
        self.held_bytes += added;
        self.note_reply(added);
        self.advance();
    }

    fn advance(&mut self) {
        while let Some(front) = self.places.pop_front_if(|place| !matches!(place, Place::Unfilled { .. })) {
            self.gone += 1;
            match front {
                Place::Filled { bytes, zxid } | Place::Event { bytes, zxid, confirmed: true, .. } => {
                    self.take_in(bytes, zxid);
                }
                Place::Event { bytes, tags, .. } => {
                    debug_assert!(tags.is_empty(), "the reads before an event are answered");
                    coverage::mark("tentative-event-dropped");
                    self.held_bytes -= bytes.len();
                }
                Place::Unfilled { .. } => {}
            }
        }
    }

    fn take_in(&mut self, bytes: Vec<u8>, zxid: Zxid) {
        self.held_bytes -= bytes.len();
        self.ready_zxid = self.ready_zxid.max(zxid);
        if self.ready.is_empty() && bytes.len() > COPIED_BYTES_MAX {
            self.ready = bytes;
        } else {
            self.ready.extend_from_slice(&bytes);
        }
    }

    /// What can be sent now, and the highest zxid that it tells of.
    pub(super) fn ready(&self) -> (&[u8], Zxid) {
        (&self.ready, self.ready_zxid)
    }

    /// Takes what can be sent now; `spare` becomes the next buffer.
    pub(super) fn take_ready(&mut self, mut spare: Vec<u8>) -> Vec<u8> {
        spare.clear();
        std::mem::replace(&mut self.ready, spare)
    }

    /// Nothing that was queued will be sent, except what is ready. Gives the reads that had places: their answers are nobody's.
    pub(super) fn drop_places(&mut self) -> Vec<GatherId> {
        self.gone += self.places.len() as u64;
        (self.held_bytes, self.promised_bytes) = (0, 0);
        self.tentative.clear();
        let unfilled = |place| if let Place::Unfilled { gather, .. } = place { Some(gather) } else { None };
        self.places.drain(..).filter_map(unfilled).collect()
    }

    /// Nothing at all will be sent.
    pub(super) fn drop_all(&mut self) -> Vec<GatherId> {
        self.ready = Vec::new();
        self.drop_places()
    }

    /// True when a read is not answered yet.
    pub(super) fn has_unfilled(&self) -> bool {
        !self.places.is_empty()
    }

    /// True when everything that has a place was taken.
    pub(super) fn is_drained(&self) -> bool {
        self.ready.is_empty() && self.places.is_empty()
    }

    /// Memory held, and what the unfilled places are promised.
    pub(super) fn bytes(&self) -> usize {
        self.ready.len() + self.held_bytes + self.promised_bytes + self.places.len() * size_of::<Place>()
    }

    /// What a reply to come is expected to be, bytes.
    pub(super) fn reply_bytes_expected(&self) -> usize {
        self.recent_reply_bytes.max(REPLY_BYTES_EXPECTED_MIN)
    }
}
