//! The output of one connection: one queue in which everything has its place.
//!
//! A read takes its place when it is sent; events, then a write's own reply, take theirs when the transaction is applied;
//! nothing overtakes an unfilled place (docs/ordering.md, window reads).

use crate::base::{Zxid, coverage};
use crate::coordination::watch::{Fired, Tag, Tags};
use std::collections::VecDeque;

/// A place that was taken for a reply to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PlaceId(u64);

#[derive(Debug)]
enum Place {
    Unfilled,
    Filled { bytes: Vec<u8>, zxid: Zxid },
    Event { bytes: Vec<u8>, zxid: Zxid, confirmed: bool, tags: Tags },
}

/// Bytes for a client, in order.
#[derive(Debug, Default)]
pub(super) struct Output {
    ready: Vec<u8>,
    /// The highest zxid that `ready` tells of.
    ready_zxid: Zxid,
    places: VecDeque<Place>,
    /// Number of places that left the queue.
    gone: u64,
    /// Bytes in `places`.
    held_bytes: usize,
    /// Places that wait for their bytes.
    unfilled: usize,
    /// The longest reply so far, bytes.
    reply_bytes_max: usize,
}

/// What a reply to come is taken to be at least: a few bytes of requests must not ask for many of replies without end, and
/// how many is not known before they come.
const REPLY_BYTES_EXPECTED: usize = 8 << 10;

impl Output {
    /// Takes a place.
    pub(super) fn reserve(&mut self) -> PlaceId {
        self.places.push_back(Place::Unfilled);
        self.unfilled += 1;
        PlaceId(self.gone + self.places.len() as u64 - 1)
    }

    /// Appends what `write` writes behind everything that has a place now. `zxid` is the newest state that it tells of.
    pub(super) fn append<T>(&mut self, zxid: Zxid, write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        if self.places.is_empty() {
            self.ready_zxid = self.ready_zxid.max(zxid);
            let before = self.ready.len();
            let result = write(&mut self.ready);
            self.reply_bytes_max = self.reply_bytes_max.max(self.ready.len() - before);
            return result;
        }
        if !matches!(self.places.back(), Some(Place::Filled { .. })) {
            self.places.push_back(Place::Filled { bytes: Vec::new(), zxid });
        }
        let Some(Place::Filled { bytes, zxid: newest }) = self.places.back_mut() else { unreachable!() };
        *newest = (*newest).max(zxid);
        let before = bytes.len();
        let result = write(bytes);
        let added = bytes.len() - before;
        self.held_bytes += added;
        self.reply_bytes_max = self.reply_bytes_max.max(added);
        result
    }

    /// Appends an event; one that hangs on unanswered reads is behind their places, and may still be dropped.
    pub(super) fn append_event(&mut self, zxid: Zxid, fired: &Fired, write: impl FnOnce(&mut Vec<u8>)) {
        if fired.confirmed {
            return self.append(zxid, write);
        }
        coverage::mark("tentative-event-queued");
        debug_assert!(!self.places.is_empty(), "an event on an unanswered read has that read's place before it");
        let mut bytes = Vec::new();
        write(&mut bytes);
        self.held_bytes += bytes.len();
        self.places.push_back(Place::Event { bytes, zxid, confirmed: false, tags: fired.tags.clone() });
    }

    /// A read was answered after its watch had fired: its event stays (`keep`) or loses one of its reasons.
    pub(super) fn settle(&mut self, tag: Tag, keep: bool) {
        for place in &mut self.places {
            if let Place::Event { confirmed, tags, .. } = place
                && let Some(index) = tags.iter().position(|other| *other == tag)
            {
                tags.remove(index);
                *confirmed |= keep;
            }
        }
    }

    /// Fills a place, and moves what is complete to the front.
    pub(super) fn fill(&mut self, place: PlaceId, zxid: Zxid, bytes: Vec<u8>) {
        // A connection that is being closed has given up its places.
        let Some(index) = place.0.checked_sub(self.gone).map(|index| index as usize) else { return };
        debug_assert!(matches!(self.places[index], Place::Unfilled));
        self.held_bytes += bytes.len();
        self.unfilled -= 1;
        self.reply_bytes_max = self.reply_bytes_max.max(bytes.len());
        self.places[index] = Place::Filled { bytes, zxid };
        self.advance();
    }

    fn advance(&mut self) {
        while let Some(front) = self.places.pop_front_if(|place| !matches!(place, Place::Unfilled)) {
            self.gone += 1;
            match front {
                Place::Filled { bytes, zxid } => self.take_in(&bytes, zxid),
                Place::Event { bytes, zxid, confirmed: true, .. } => self.take_in(&bytes, zxid),
                Place::Event { bytes, tags, .. } => {
                    debug_assert!(tags.is_empty(), "the reads before an event are answered");
                    coverage::mark("tentative-event-dropped");
                    self.held_bytes -= bytes.len();
                }
                Place::Unfilled => unreachable!(),
            }
        }
    }

    fn take_in(&mut self, bytes: &[u8], zxid: Zxid) {
        self.held_bytes -= bytes.len();
        self.ready.extend_from_slice(bytes);
        self.ready_zxid = self.ready_zxid.max(zxid);
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

    /// Nothing that was queued will be sent, except what is ready.
    pub(super) fn drop_places(&mut self) {
        self.gone += self.places.len() as u64;
        self.places.clear();
        self.held_bytes = 0;
        self.unfilled = 0;
    }

    /// True when a read is not answered yet.
    pub(super) fn has_unfilled(&self) -> bool {
        // The front is unfilled as long as anything is: what is complete moves on at once.
        !self.places.is_empty()
    }

    /// True when everything that has a place was taken.
    pub(super) fn is_drained(&self) -> bool {
        self.ready.is_empty() && self.places.is_empty()
    }

    /// Memory held, and what the unfilled places are expected to add.
    pub(super) fn bytes(&self) -> usize {
        let expected = self.unfilled * self.reply_bytes_expected();
        self.ready.len() + self.held_bytes + self.places.len() * size_of::<Place>() + expected
    }

    /// What a reply to come is expected to be, bytes.
    pub(super) fn reply_bytes_expected(&self) -> usize {
        self.reply_bytes_max.max(REPLY_BYTES_EXPECTED)
    }
}
