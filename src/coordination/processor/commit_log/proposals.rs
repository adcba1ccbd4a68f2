//! Transactions that were proposed and are not committed yet.
//!
//! Their bytes are written by prep and shared from then on: the log copies them into its blocks, the shards apply them.
//! Invariants: chunks are in zxid order; a chunk holds whole transactions; what the log was given is never changed again; the
//! memory held is at most about twice what [`Proposals::bytes`] says.

use crate::base::Zxid;
use crate::coordination::processor::txn::LENGTH_BYTES;
use bytes::Bytes;
use std::collections::VecDeque;

/// A chunk is sealed as soon as it is this long: a longer buffer would grow by copying, and go back to the system each time.
const CHUNK_BYTES: usize = 128 << 10;

/// See the module documentation.
#[derive(Debug, Default)]
pub(super) struct Proposals {
    /// Where prep writes. Behind the last of `open_ends` stands a transaction that is still being made.
    open: Vec<u8>,
    /// For each transaction its zxid and its end in `open`.
    open_ends: VecDeque<(Zxid, usize)>,
    sealed: VecDeque<Chunk>,
    /// Number of chunks at the end of `sealed` that were not given to the log yet.
    new_for_log: usize,
    /// Length of all sealed chunks.
    sealed_bytes: usize,
}

#[derive(Debug)]
struct Chunk {
    bytes: Bytes,
    /// For each transaction its zxid and its end, counted from where the chunk once began.
    ends: VecDeque<(Zxid, usize)>,
    /// What was taken from the front, bytes.
    taken: usize,
}

impl Proposals {
    /// Where the next transaction is written; [`Proposals::push`] follows, or what was written is taken back.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        if self.open.capacity() == 0 {
            // A little more than a chunk, so that the transaction that fills it seldom makes it grow.
            self.open.reserve(CHUNK_BYTES + CHUNK_BYTES / 8);
        }
        &mut self.open
    }

    /// Where in [`Proposals::buffer`] the transaction stands that is being made.
    pub(super) fn draft_start(&self) -> usize {
        self.open_ends.back().map_or(0, |(_, end)| *end)
    }

    /// What was written since the last transaction is taken back.
    pub(super) fn give_up_draft(&mut self) {
        self.open.truncate(self.draft_start());
    }

    /// What was written since the last transaction is transaction `zxid`.
    pub(super) fn push(&mut self, zxid: Zxid) {
        self.open_ends.push_back((zxid, self.open.len()));
        if self.open.len() >= CHUNK_BYTES {
            self.seal();
        }
    }

    fn seal(&mut self) {
        if self.open_ends.is_empty() {
            return;
        }
        // Nothing is proposed before the transaction that is being made, so it moves once at most.
        let draft = self.open.split_off(self.draft_start());
        // A short chunk would hold on to a long buffer for as long as it is not committed.
        let bytes = if self.open.len() < CHUNK_BYTES / 2 {
            let exact = Bytes::copy_from_slice(&self.open);
            self.open.clear();
            exact
        } else {
            Bytes::from(std::mem::take(&mut self.open))
        };
        self.sealed_bytes += bytes.len();
        self.sealed.push_back(Chunk { bytes, ends: std::mem::take(&mut self.open_ends), taken: 0 });
        self.new_for_log += 1;
        if !draft.is_empty() {
            self.buffer().extend_from_slice(&draft);
        }
    }

    /// Gives each transaction that was proposed since the last call to the log, in order.
    pub(super) fn give_to_log(&mut self, mut append: impl FnMut(Zxid, &[u8])) {
        self.seal();
        let first_new = self.sealed.len() - std::mem::take(&mut self.new_for_log);
        for chunk in self.sealed.range(first_new..) {
            let mut start = 0;
            for &(zxid, end) in &chunk.ends {
                append(zxid, &chunk.bytes[start + LENGTH_BYTES..end]);
                start = end;
            }
        }
    }

    /// The first transactions up to `zxid`, and the last of them; call it again until it has no more.
    pub(super) fn take_up_to(&mut self, zxid: Zxid) -> Option<(Bytes, Zxid)> {
        let chunk = self.sealed.front_mut()?;
        let count = chunk.ends.partition_point(|(proposed, _)| *proposed <= zxid);
        let (last, end) = chunk.ends.drain(..count).next_back()?;
        let txns = chunk.bytes.split_to(end - chunk.taken);
        chunk.taken = end;
        if chunk.ends.is_empty() {
            self.sealed.pop_front();
        }
        self.sealed_bytes -= txns.len();
        Some((txns, last))
    }

    /// Memory held.
    pub(super) fn bytes(&self) -> usize {
        self.sealed_bytes + self.open.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A long request is validated in slices, and the log is asked to write in between: half a transaction must not reach it, nor
    /// may what was written of it be lost.
    #[test]
    fn transaction_in_the_making_stays_until_it_is_whole() {
        let mut proposals = Proposals::default();
        let mut logged = Vec::new();
        proposals.buffer().extend_from_slice(b"\x03\0\0\0one");
        proposals.push(Zxid(1));
        proposals.buffer().extend_from_slice(b"\x06\0\0\0sec");
        proposals.give_to_log(|zxid, txn| logged.push((zxid, txn.to_vec())));
        assert_eq!((proposals.draft_start(), &proposals.buffer()[..]), (0, &b"\x06\0\0\0sec"[..]));
        proposals.give_to_log(|_, _| unreachable!("nothing new is whole"));
        proposals.buffer().extend_from_slice(b"ond");
        proposals.push(Zxid(2));
        proposals.give_to_log(|zxid, txn| logged.push((zxid, txn.to_vec())));
        assert_eq!(logged, [(Zxid(1), b"one".to_vec()), (Zxid(2), b"second".to_vec())]);
    }

    /// The log gets every transaction once and in order, the shards get the same bytes, whatever the flushes end at.
    #[test]
    fn log_and_shards_get_every_transaction_once() {
        let mut proposals = Proposals::default();
        let (mut logged, mut handed) = (Vec::new(), Vec::new());
        let body = |zxid: u64| vec![zxid as u8; 1 + (zxid as usize * 7919) % 40_000];
        for zxid in 1..=100 {
            let body = body(zxid);
            let buffer = proposals.buffer();
            buffer.extend_from_slice(&(body.len() as u32).to_le_bytes());
            buffer.extend_from_slice(&body);
            proposals.push(Zxid(zxid));
            if zxid % 7 == 0 {
                proposals.give_to_log(|zxid, txn| logged.push((zxid, txn.to_vec())));
            }
            if zxid % 11 == 0 {
                while let Some((txns, last)) = proposals.take_up_to(Zxid(zxid / 7 * 7 - 3)) {
                    assert!(last <= Zxid(zxid));
                    handed.extend_from_slice(&txns);
                }
            }
        }
        proposals.give_to_log(|zxid, txn| logged.push((zxid, txn.to_vec())));
        while let Some((txns, _)) = proposals.take_up_to(Zxid(100)) {
            handed.extend_from_slice(&txns);
        }
        assert_eq!(logged, (1..=100).map(|zxid| (Zxid(zxid), body(zxid))).collect::<Vec<_>>());
        let framed = |(_, txn): &(Zxid, Vec<u8>)| [&(txn.len() as u32).to_le_bytes()[..], txn].concat();
        assert_eq!(handed, logged.iter().flat_map(framed).collect::<Vec<_>>());
        assert_eq!(proposals.bytes(), 0);
    }
}
