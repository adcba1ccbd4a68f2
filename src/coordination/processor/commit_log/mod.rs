//! What every server of an ensemble has, whoever leads: the proposals, and how far each of them has come.
//!
//! A transaction is *proposed*, then *durable* on this server's disk, *committed* when enough disks hold it, *handed* to the shards of
//! this server, and *applied* by all of them. Durable is not committed: with one voter the two coincide, and the caller says so.
//!
//! Invariant: applied <= handed <= committed <= proposed, and durable <= proposed.

mod proposals;

use super::message::{Batch, Mark, MarkAnswer, RequestId, ToShard};
use super::sequencer::{SequencerOutputs, Target};
use super::txn::{TxnHeader, TxnWriter};
use crate::base::Zxid;
use bytes::Bytes;
use proposals::Proposals;
use std::collections::VecDeque;

/// What a batch that shards have not applied is taken to cost beside its transactions, bytes.
const BATCH_BYTES: usize = 128;

/// See the module documentation.
#[derive(Debug)]
pub struct CommitLog {
    proposals: Proposals,
    proposed: Zxid,
    durable: Zxid,
    committed: Zxid,
    handed: Zxid,
    /// Answers that are no transactions, by their places.
    marks: VecDeque<Mark>,
    /// Batches that some shard has not applied: the last transaction of each, and its bytes.
    unapplied: VecDeque<(Zxid, usize)>,
    unapplied_bytes: usize,
}

impl CommitLog {
    /// Goes on after `last`: everything up to there is committed, and every shard has applied it.
    pub fn new(last: Zxid) -> CommitLog {
        CommitLog {
            proposals: Proposals::default(),
            proposed: last,
            durable: last,
            committed: last,
            handed: last,
            marks: VecDeque::new(),
            unapplied: VecDeque::new(),
            unapplied_bytes: 0,
        }
    }

    /// The last transaction proposed.
    pub fn proposed(&self) -> Zxid {
        self.proposed
    }

    /// The last transaction on this server's disk.
    pub fn durable(&self) -> Zxid {
        self.durable
    }

    /// The last transaction committed.
    pub fn committed(&self) -> Zxid {
        self.committed
    }

    /// The last transaction handed to the shards.
    pub fn handed(&self) -> Zxid {
        self.handed
    }

    /// Goes on after `zxid`, so that the end of an epoch can be reached within the life of a test or a simulation.
    pub fn skip_to(&mut self, zxid: Zxid) {
        self.proposed = zxid;
    }

    /// Begins a transaction. Nothing else is proposed before [`CommitLog::propose`] or [`CommitLog::give_up_draft`].
    pub fn begin_draft(&mut self, header: &TxnHeader) -> TxnWriter<'_> {
        TxnWriter::begin(self.proposals.buffer(), header)
    }

    /// The transaction that was begun.
    pub fn draft(&mut self) -> TxnWriter<'_> {
        let start = self.proposals.draft_start();
        TxnWriter::resume(self.proposals.buffer(), start)
    }

    /// The transaction that was begun is not proposed.
    pub fn give_up_draft(&mut self) {
        self.proposals.give_up_draft();
    }

    /// The transaction that was begun, and finished, is proposed as `zxid`.
    pub fn propose(&mut self, zxid: Zxid) {
        debug_assert!(zxid > self.proposed);
        self.proposed = zxid;
        self.proposals.push(zxid);
    }

    /// A request is answered without a transaction, right after the last proposal.
    pub fn answer(&mut self, request: RequestId, answer: MarkAnswer) {
        self.marks.push_back(Mark { after: self.proposed, request, answer });
    }

    /// Gives each transaction that was proposed since the last call to the log, in order.
    pub fn give_to_log(&mut self, append: impl FnMut(Zxid, &[u8])) {
        self.proposals.give_to_log(append);
    }

    /// Everything up to `zxid` is on this server's disk.
    pub fn durable_to(&mut self, zxid: Zxid) {
        self.durable = self.durable.max(zxid);
    }

    /// Everything up to `zxid` is committed: it may be handed over.
    pub fn commit_to(&mut self, zxid: Zxid) {
        self.committed = self.committed.max(zxid.min(self.proposed));
    }

    /// Hands what is committed to every shard, each answer in its place.
    pub fn hand_over(&mut self, out: &mut SequencerOutputs) {
        while let Some((txns, last)) = self.proposals.take_up_to(self.committed) {
            self.handed = last;
            self.hand_over_batch(txns, out);
        }
        self.hand_over_answers(out);
    }

    /// Answers whose place is reached already need no transaction to travel with.
    pub fn hand_over_answers(&mut self, out: &mut SequencerOutputs) {
        if self.marks.front().is_some_and(|mark| mark.after <= self.handed) {
            self.hand_over_batch(Bytes::new(), out);
        }
    }

    fn hand_over_batch(&mut self, txns: Bytes, out: &mut SequencerOutputs) {
        let count = self.marks.partition_point(|mark| mark.after <= self.handed);
        let marks: Vec<Mark> = self.marks.drain(..count).collect();
        if !txns.is_empty() {
            let bytes = BATCH_BYTES + txns.len();
            self.unapplied.push_back((self.handed, bytes));
            self.unapplied_bytes += bytes;
        }
        out.messages.push((Target::All, ToShard::Batch(Batch { txns, marks })));
    }

    /// The slowest shard has applied everything up to `zxid`.
    pub fn applied_everywhere(&mut self, zxid: Zxid) {
        while let Some((_, bytes)) = self.unapplied.pop_front_if(|(last, _)| *last <= zxid) {
            self.unapplied_bytes -= bytes;
        }
    }

    /// Bytes of transactions that were handed over and that the slowest shard has not applied. The shards share them.
    pub fn unapplied_bytes(&self) -> usize {
        self.unapplied_bytes
    }

    /// Memory of what is not handed over yet.
    pub fn proposed_bytes(&self) -> usize {
        self.proposals.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::SessionId;

    fn propose(log: &mut CommitLog, zxid: Zxid) {
        let request = RequestId::default();
        let header = TxnHeader { zxid, time_ms: 0, session: SessionId::NONE, request, xid: 0 };
        let mut writer = log.begin_draft(&header);
        writer.check();
        writer.finish();
        log.propose(zxid);
    }

    fn handed(log: &mut CommitLog) -> usize {
        let mut out = SequencerOutputs::default();
        log.hand_over(&mut out);
        out.messages.len()
    }

    /// What is on this disk only may be cut off by the next leader: a shard that applied it would show a state that never was
    /// (rule C2).
    #[test]
    fn durable_is_not_committed() {
        let mut log = CommitLog::new(Zxid(10));
        propose(&mut log, Zxid(11));
        log.give_to_log(|_, _| ());
        log.durable_to(Zxid(11));
        assert_eq!((handed(&mut log), log.handed(), log.durable()), (0, Zxid(10), Zxid(11)));
        // The other order happens, too: the majority may do without this disk.
        propose(&mut log, Zxid(12));
        log.give_to_log(|_, _| ());
        log.commit_to(Zxid(12));
        assert_eq!((handed(&mut log), log.handed(), log.durable()), (2, Zxid(12), Zxid(11)));
    }

    /// Batches wait in the memory of a shard that does not apply them, and counted in no bound.
    #[test]
    fn bytes_handed_over_count_until_the_slowest_shard_has_applied_them() {
        let mut log = CommitLog::new(Zxid(10));
        let mut bytes = Vec::new();
        for zxid in 11..=13 {
            propose(&mut log, Zxid(zxid));
            log.give_to_log(|_, _| ());
            log.commit_to(Zxid(zxid));
            assert_eq!(handed(&mut log), 1);
            bytes.push(log.unapplied_bytes());
        }
        assert!(bytes[0] > 0 && bytes.is_sorted() && log.proposed_bytes() == 0);
        log.applied_everywhere(Zxid(11));
        assert_eq!(log.unapplied_bytes(), bytes[1]);
        log.applied_everywhere(Zxid(13));
        assert_eq!(log.unapplied_bytes(), 0);
    }
}
