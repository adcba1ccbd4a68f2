//! Packs of requests on their way from a shard to the sequencer. The records of a pack share one piece of memory. So a shard
//! allocates only a few times for all that one wake-up forwards, and the core of the sequencer has as little to free.

use super::message::{WriteBody, WriteRequest};
use bytes::Bytes;

/// A pack that holds so many requests, or so many bytes of records, is full: the next request begins another pack. The
/// records of a pack stay in memory until the last request of the pack was validated.
const FULL: PackSize = PackSize { requests: 1024, record_bytes: 64 << 10 };

/// Some requests of one shard, in order.
#[derive(Clone, Debug, Default)]
pub struct RequestPack {
    /// Each with the length of its record; the record itself stands in `records`.
    requests: Vec<(WriteRequest, usize)>,
    records: Vec<u8>,
}

/// How large a pack is: the next one is likely to become as large.
#[derive(Clone, Copy, Debug, Default)]
pub struct PackSize {
    requests: usize,
    record_bytes: usize,
}

impl RequestPack {
    /// An empty pack with room for `size`, but for no more than a full pack holds.
    pub fn with_room(size: PackSize) -> RequestPack {
        RequestPack {
            requests: Vec::with_capacity(size.requests.min(FULL.requests)),
            records: Vec::with_capacity(size.record_bytes.min(FULL.record_bytes)),
        }
    }

    /// True when the next request should begin another pack.
    pub fn is_full(&self) -> bool {
        self.requests.len() >= FULL.requests || self.records.len() >= FULL.record_bytes
    }

    /// How large it is.
    pub fn size(&self) -> PackSize {
        PackSize { requests: self.requests.len(), record_bytes: self.records.len() }
    }

    /// Adds a request. For a [`WriteBody::Operation`], whose own `record` must be empty, `record` is the operation's record;
    /// for any other body `record` is empty.
    pub fn push(&mut self, request: WriteRequest, record: &[u8]) {
        self.requests.push((request, record.len()));
        self.records.extend_from_slice(record);
    }

    /// The requests, each with its record.
    pub fn into_requests(self) -> impl Iterator<Item = WriteRequest> {
        let mut records = Bytes::from(self.records);
        self.requests.into_iter().map(move |(mut request, length)| {
            if let WriteBody::Operation { record, .. } = &mut request.body {
                *record = records.split_to(length);
            }
            request
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::SessionId;
    use crate::coordination::processor::message::RequestId;
    use std::sync::Arc;

    /// A record cut one byte off would be another client's data: each request must get its own back, empty ones and those without a
    /// record included.
    #[test]
    fn every_request_gets_its_own_record_back() {
        let mut pack = RequestPack::with_room(PackSize::default());
        let record = |i: usize| vec![i as u8; i * 7919 % 3000];
        let request = |i: usize| WriteRequest {
            id: RequestId { sequence: i as u64, ..RequestId::default() },
            session: SessionId(1),
            xid: i as i32,
            identities: Arc::default(),
            body: if i % 5 == 3 { WriteBody::Sync } else { WriteBody::Operation { op: 5, record: Bytes::new() } },
        };
        let mut pushed = 0;
        while !pack.is_full() {
            let record = if pushed % 5 == 3 { Vec::new() } else { record(pushed) };
            pack.push(request(pushed), &record);
            pushed += 1;
        }
        assert_eq!(pack.size().requests, pushed);
        for (i, request) in pack.into_requests().enumerate() {
            assert_eq!((request.id.sequence, request.xid), (i as u64, i as i32));
            match request.body {
                WriteBody::Operation { record: got, .. } => assert_eq!(got, record(i), "{i}"),
                _ => assert_eq!(i % 5, 3),
            }
            pushed -= 1;
        }
        assert_eq!(pushed, 0);
    }

    /// Requests without a record, as sync has none, must not make a pack that grows without end.
    #[test]
    fn pack_of_empty_records_is_full_some_time() {
        let mut pack = RequestPack::default();
        let sync = || WriteRequest {
            id: RequestId::default(),
            session: SessionId(1),
            xid: 1,
            identities: Arc::default(),
            body: WriteBody::Sync,
        };
        (0..FULL.requests).for_each(|_| pack.push(sync(), &[]));
        assert!(pack.is_full());
    }
}
