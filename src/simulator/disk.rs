//! The disk of a simulated server.

use crate::base::Zxid;

/// What survives a crash: the records that were synced, in order.
#[derive(Debug, Default)]
pub(super) struct Disk {
    records: Vec<(Zxid, Vec<u8>)>,
}

/// The log of one life.
#[derive(Debug, Default)]
pub(super) struct Journal {
    queue: Vec<(Zxid, Vec<u8>)>,
    in_flight: Vec<(Zxid, Vec<u8>)>,
}

impl Journal {
    pub(super) fn append(&mut self, zxid: Zxid, record: &[u8]) {
        self.queue.push((zxid, record.to_vec()));
    }

    /// True when a flush was begun: it is over when [`Journal::written`] is called.
    pub(super) fn begin(&mut self) -> bool {
        if !self.in_flight.is_empty() || self.queue.is_empty() {
            return false;
        }
        self.in_flight = std::mem::take(&mut self.queue);
        true
    }

    /// The flush is over: everything up to the zxid is durable.
    pub(super) fn written(&mut self, disk: &mut Disk) -> Zxid {
        disk.records.append(&mut self.in_flight);
        disk.records.last().map_or(Zxid::ZERO, |(zxid, _)| *zxid)
    }

    /// The machine fails: of the flush in flight, a part may be on disk.
    pub(super) fn crash(mut self, disk: &mut Disk, prng: &mut super::prng::Prng) {
        let kept = prng.between(0, self.in_flight.len() as u64) as usize;
        disk.records.extend(self.in_flight.drain(..kept));
    }
}

impl Disk {
    /// Every record that can be read, in order.
    pub(super) fn recover(&self) -> &[(Zxid, Vec<u8>)] {
        &self.records
    }
}
