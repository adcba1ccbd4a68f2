//! A request that is being validated, in slices: its transaction in the making, and how far it is.
//!
//! Nothing behind the request is validated before it is whole or given up (rule B7), so the records that it stands on stay what they
//! are, whatever lies between two slices.

use super::foresight::{Foresight, Known};
use super::prep::{Prep, RecordSource, Stop, sequence_number};
use crate::base::coverage;
use crate::coordination::processor::message::LookupKey;
use crate::coordination::processor::txn::TxnHeader;
use crate::coordination::processor::txn_room::{parts_in, room_of_close};
use crate::protocol::zookeeper::{ErrorCode, MultiReader, OpCode, Request};

/// Records that one request asks for at once, about.
pub(super) const LOOKUPS_MAX: usize = 1024;

/// See the module documentation. The transaction's bytes stand at the end of the proposals.
#[derive(Debug)]
pub(super) struct Draft {
    pub header: TxnHeader,
    work: Work,
}

/// What is validated, and how much of it was.
#[derive(Debug)]
enum Work {
    Operation,
    Multi(Parts),
    Close(Deletes),
}

/// The parts of a multi.
#[derive(Debug)]
struct Parts {
    count: usize,
    done: usize,
    /// Where the next one stands in the record.
    offset: usize,
}

/// The ephemeral nodes of a session that ends.
#[derive(Debug, Default)]
struct Deletes {
    /// `None` as long as they are not known.
    paths: Option<Vec<Box<str>>>,
    room_bytes: Option<usize>,
    done: usize,
}

/// What a slice has led to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Slice {
    /// The transaction is whole.
    Done,
    /// There is more to do, in a later slice.
    More,
    /// What a session's end deletes is known now, and so what it takes of the log.
    Listed,
}

/// What is validated: the draft does not keep it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ask<'a> {
    /// An operation of a client.
    Operation { op: i32, record: &'a [u8] },
    /// The end of the session.
    Close,
}

impl Draft {
    /// Nothing of `asked` is validated yet.
    pub(super) fn new(header: TxnHeader, asked: Ask<'_>) -> Draft {
        let work = match asked {
            Ask::Close => Work::Close(Deletes::default()),
            Ask::Operation { op, record } if op == OpCode::Multi.wire() => {
                Work::Multi(Parts { count: parts_in(record), done: 0, offset: 0 })
            }
            Ask::Operation { .. } => Work::Operation,
        };
        Draft { header, work }
    }

    /// Steps taken so far.
    pub(super) fn steps(&self) -> usize {
        match &self.work {
            Work::Operation => 0,
            Work::Multi(parts) => parts.done,
            Work::Close(deletes) => deletes.done,
        }
    }

    /// What it takes of the log at most, if that is known here better than from the request.
    pub(super) fn room_bytes(&self) -> Option<usize> {
        match &self.work {
            Work::Close(deletes) => deletes.room_bytes,
            Work::Operation | Work::Multi(_) => None,
        }
    }

    /// Validates what is left, as far as `steps` reach. On `Stop::Missing` it may go on later; the keys are what is missing and what
    /// will be missing next.
    pub(super) fn advance<R: RecordSource>(
        &mut self,
        prep: &mut Prep<'_, '_, R>,
        asked: Ask<'_>,
        steps: &mut usize,
    ) -> Result<Slice, Stop> {
        match (&mut self.work, asked) {
            (Work::Operation, Ask::Operation { op, record }) => {
                take_step(steps);
                // The home shard decoded it before.
                let request = Request::decode(op, record).map_err(|_| Stop::Refused(ErrorCode::MarshallingError))?;
                prep.request(&request).map_err(|stop| with_foresight(stop, prep, |ahead| ahead.request(&request)))?;
                Ok(Slice::Done)
            }
            (Work::Multi(parts), Ask::Operation { record, .. }) => parts.advance(prep, record, steps),
            (Work::Close(deletes), Ask::Close) => deletes.advance(prep, steps),
            _ => unreachable!("a draft belongs to the request at the front of the queue"),
        }
    }
}

impl Parts {
    /// All or nothing: a refused part refuses the whole, and says which one it was.
    fn advance<R: RecordSource>(
        &mut self,
        prep: &mut Prep<'_, '_, R>,
        record: &[u8],
        steps: &mut usize,
    ) -> Result<Slice, Stop> {
        if self.offset == 0 && self.done == 0 {
            prep.writer.clear_records();
            prep.writer.multi(self.count);
        }
        loop {
            let mut reader = MultiReader::at(record, self.offset);
            let op = reader.next_op().map_err(|_| Stop::Refused(ErrorCode::MarshallingError))?;
            let Some(op) = op else { return Ok(Slice::Done) };
            if !take_step(steps) {
                coverage::mark("validated-in-slices");
                return Ok(Slice::More);
            }
            match prep.part(&op) {
                Ok(()) => (self.done, self.offset) = (self.done + 1, reader.offset()),
                Err(Stop::Refused(code)) => {
                    coverage::mark("multi-refused");
                    prep.writer.clear_records();
                    prep.own.clear();
                    prep.writer.multi_failed(self.done, self.count, code.wire());
                    return Ok(Slice::Done);
                }
                Err(stop) => {
                    return Err(with_foresight(stop, prep, |ahead| {
                        ahead.part(&op);
                        foresee_parts(ahead, reader);
                    }));
                }
            }
        }
    }
}

impl Deletes {
    /// All ephemerals of the session go in this one transaction (rule B6).
    fn advance<R: RecordSource>(&mut self, prep: &mut Prep<'_, '_, R>, steps: &mut usize) -> Result<Slice, Stop> {
        if self.paths.is_none() {
            let paths = prep.own_ephemerals()?;
            self.room_bytes = Some(room_of_close(&paths));
            self.paths = Some(paths);
            prep.writer.close_session(prep.session);
            return Ok(Slice::Listed);
        }
        let paths = self.paths.as_deref().unwrap_or_default();
        while let Some(node_path) = paths.get(self.done) {
            if !take_step(steps) {
                coverage::mark("validated-in-slices");
                return Ok(Slice::More);
            }
            prep.delete_ephemeral(node_path).map_err(|stop| {
                with_foresight(stop, prep, |ahead| {
                    for node_path in paths[self.done..].iter().take(LOOKUPS_MAX) {
                        if ahead.len() < LOOKUPS_MAX {
                            ahead.path_and_parent(node_path);
                        }
                    }
                })
            })?;
            self.done += 1;
        }
        Ok(Slice::Done)
    }
}

fn take_step(steps: &mut usize) -> bool {
    let left = *steps > 0;
    *steps = steps.saturating_sub(1);
    left
}

/// The parts that `reader` comes to next, as many as may be asked for at once.
pub(super) fn foresee_parts<'a, K: Known>(ahead: &mut Foresight<'_, 'a, K>, mut reader: MultiReader<'a>) {
    for _ in 0..LOOKUPS_MAX {
        let (Ok(Some(op)), true) = (reader.next_op(), ahead.len() < LOOKUPS_MAX) else { return };
        ahead.part(&op);
    }
}

/// When a record is missing, those that will be missing next are asked for with it.
fn with_foresight<'a, R: RecordSource>(
    stop: Stop,
    prep: &Prep<'_, '_, R>,
    look: impl FnOnce(&mut Foresight<'_, 'a, AfterPrep<'_, '_, '_, R>>),
) -> Stop {
    let Stop::Missing(missing) = stop else { return stop };
    let known = AfterPrep(prep);
    let mut ahead = Foresight::new(&known);
    for key in &missing {
        match key {
            LookupKey::Node(path) => ahead.path(path),
            LookupKey::Ephemerals(_) => return Stop::Missing(missing),
        }
    }
    look(&mut ahead);
    Stop::Missing(ahead.into_keys())
}

/// What is known where validation has come to.
struct AfterPrep<'p, 'a, 'w, R>(&'p Prep<'a, 'w, R>);

impl<R: RecordSource> Known for AfterPrep<'_, '_, '_, R> {
    fn is_missing(&self, path: &str) -> bool {
        matches!(self.0.record(path), Err(Stop::Missing(_)))
    }

    fn next_sequence(&self, path: &str) -> Option<i32> {
        self.0.record(path).ok().flatten().map(|image| sequence_number(&image))
    }
}
