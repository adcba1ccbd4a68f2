//! What a start may believe of the log it finds.
//!
//! Use: [`LogRecovery::new`] with the first bytes of every `log.*` file, then [`LogRecovery::feed`] with the stretch of a file that
//! [`LogRecovery::next_read`] names, until it names none, then [`LogRecovery::finish`]. Records come out in order while it reads. A
//! record is handed out as soon as it is complete, so a caller acts on them only after the [`Verdict`].
//!
//! Memory: one stretch, which is no longer than a block has to be, and one record that runs over several blocks.
//!
//! # Committed prefix and proposed tail
//! [`Recovered::committed`] splits what was found (rule C2). Up to it, no leader will cut anything off; what follows was proposed,
//! and somebody must know its fate before it is acted on. A server on its own knows: what is durable is committed.
//!
//! # The verdict
//! The readable log ends at the first place without a good block. It is a **torn tail**, and is cut, if nothing shows that
//! more was there. It is **damage** if
//! - a good block header follows, in this segment or a later one of the chain, that was written with sync (only one flush is
//!   ever in flight, so everything before it was complete once), or that claims a durable position above what was read;
//! - a later segment says that the log was kept to a position that was not reached, or exactly not met;
//! - a segment of the chain is missing, its header is bad or its file is too short, or records do not follow each other.
//!
//! Blocks of earlier lives of a file are not seen at all: their checksums have another seed (rule C6). A last block that was
//! acknowledged and then damaged cannot be told from a torn one here, unless an idle block followed it; peers can (rule E6).
//!
//! A log is never continued in place: [`Recovered::resume`] starts a fresh segment whose header makes the cut, so a torn
//! tail stays on disk, void, and cannot hurt a later recovery.

use super::chain::{ChainLink, LogChain, SegmentPrefix};
use super::damage::{Damage, DamageCause};
use super::format::{
    BLOCK_BYTES_DEFAULT, BLOCK_HEADER_BYTES, BlockFault, BlockHeader, Life, RECORD_BYTES_MAX, SegmentFault,
    SegmentHeader, looks_like_block,
};
use super::position::{LogOwner, Position, Record};
use super::stream::{RecordStream, Taken, Wanted};
use super::window::{Found, Window};
use super::writer::{LogStart, SegmentUse};

/// What to recover.
#[derive(Clone, Copy, Debug)]
pub struct RecoveryOptions {
    /// Records above this are needed and handed out: the start position of the snapshot that was loaded.
    pub from: Position,
    /// Cut after the last record at or below this (`--discard-after`, or a TRUNC).
    pub discard_after: Option<Position>,
    /// Longest record believed, bytes.
    pub record_bytes_max: u32,
    /// The highest life among the `spare.*` files, [`Life::NONE`] without any: new lives begin above it.
    pub highest_spare: Life,
    /// The caller knows of positions up to here, from elsewhere: see [`Recovered::highest`].
    pub highest_known: Position,
    /// The owner of the log if there is none yet.
    pub new_owner: LogOwner,
}

impl RecoveryOptions {
    /// All records above `from`, in a directory whose spare files have lives up to `highest_spare`.
    pub fn new(from: Position, highest_spare: Life) -> RecoveryOptions {
        RecoveryOptions {
            from,
            discard_after: None,
            record_bytes_max: RECORD_BYTES_MAX,
            highest_spare,
            highest_known: from,
            new_owner: LogOwner::default(),
        }
    }
}

/// The judgement on a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is no log.
    Empty,
    /// The log ends where its last block ends.
    Clean {
        /// The last record.
        end: Position,
    },
    /// The log ends in an unfinished flush, an unfinished record, or was cut as asked. None of it was acknowledged, or it was
    /// asked for.
    TornTail {
        /// The last record kept.
        end: Position,
        /// The segment where reading stopped.
        life: Life,
        /// The place in it, bytes.
        offset: u64,
    },
    /// Acknowledged records are, or may be, missing. Nothing may be written to this log.
    Damage(Damage),
}

/// The outcome of a recovery.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// The judgement.
    pub verdict: Verdict,
    /// Segment files that may be recycled or removed at once, in this order. Empty after damage.
    pub recycle_now: Vec<Life>,
    /// Segment files that may go when the writer's first segment is ready, in this order. Empty after damage.
    pub recycle_when_ready: Vec<Life>,
    /// Everything up to here is known to be committed; at most the end of the log.
    pub committed: Position,
    /// Whose log it is.
    pub owner: LogOwner,
    /// No position above this was ever given to a record of this log, nor to one that was cut off from it, now or earlier.
    pub highest: Position,
    stream_id: Option<u64>,
    highest_life: Life,
    used: Vec<SegmentUse>,
    end: Position,
    /// The greatest position that a block claims to be durable.
    claimed_position: Position,
}

impl Recovered {
    /// Where the writer goes on, after anything but damage. A log that does not exist yet gets `new_stream_id`, a random
    /// number, and begins after the `from` of the recovery.
    pub fn resume(&self, new_stream_id: u64) -> Result<LogStart, Damage> {
        if let Verdict::Damage(damage) = &self.verdict {
            return Err(damage.clone());
        }
        let next_life = Life(self.highest_life.0 + 1);
        let Some(stream_id) = self.stream_id else {
            let begun = LogStart::begin(new_stream_id, self.owner, next_life, self.end);
            return Ok(LogStart { highest: self.highest, ..begun });
        };
        let last_used = self.used.last().map_or(Life::NONE, |segment| segment.life);
        let unsure = |s: &&SegmentUse| s.life == last_used || s.last_position > self.claimed_position;
        Ok(LogStart {
            stream_id,
            owner: self.owner,
            next_life,
            previous_life: last_used,
            keep_to: self.end,
            highest: self.highest,
            committed: self.committed,
            tail_to_sync: self.used.iter().filter(unsure).map(|segment| segment.life).collect(),
            older: self.used.clone(),
        })
    }
}

/// Where the readable log ends.
#[derive(Clone, Copy, Debug)]
struct Stop {
    life: Life,
    offset: u64,
    fault: BlockFault,
}

/// A stretch of a file that recovery wants to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadWanted {
    /// Which segment file.
    pub life: Life,
    /// Where the stretch begins, bytes.
    pub offset: u64,
    /// How long it is at least, bytes. Fewer say that the file ends there.
    pub bytes: usize,
}

/// What is done with the file that is being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// It has not been looked at.
    Enter,
    /// Its records are read.
    Read,
    /// The log has stopped; does anything here prove that there was more?
    Evidence,
    /// Something is given up, and all positions in the file are looked at once more, whatever became of it.
    Survey,
}

/// A recovery under way. See the module documentation for its use.
#[derive(Debug)]
pub struct LogRecovery {
    options: RecoveryOptions,
    chain: LogChain,
    /// Files that were read: first the suspects, then the links.
    files_read: usize,
    step: Step,
    /// Where to read on in the present file, and how much at least, bytes.
    next: Option<(u64, usize)>,
    /// `None` until the first segment tells where it begins.
    stream: Option<RecordStream>,
    needed_after: Position,
    /// The block that was read last: segment and offset, bytes.
    place: (Life, u64),
    stop: Option<Stop>,
    /// Whether the current segment's limit was reached: the rest of it is void.
    limit_reached: bool,
    /// Whether `discard_after` was reached: all the rest is void.
    discard_reached: bool,
    damage: Option<Damage>,
    used: Vec<SegmentUse>,
    claimed_position: Position,
    committed: Position,
    highest: Position,
}

impl LogRecovery {
    /// Sorts out the files from their first bytes.
    pub fn new(files: &[SegmentPrefix<'_>], options: RecoveryOptions) -> LogRecovery {
        let needed_after = options.discard_after.map_or(options.from, |position| position.min(options.from));
        let mut chain = LogChain::build(files, needed_after);
        let used = std::mem::take(&mut chain.skipped);
        let highest = options.highest_known.max(chain.highest_position);
        LogRecovery {
            options,
            chain,
            files_read: 0,
            step: Step::Enter,
            next: None,
            stream: None,
            needed_after,
            place: (Life::NONE, 0),
            stop: None,
            limit_reached: false,
            discard_reached: false,
            damage: None,
            used,
            claimed_position: Position::ZERO,
            committed: needed_after,
            highest,
        }
    }

    /// What to feed next, `None` when all was read.
    pub fn next_read(&self) -> Option<ReadWanted> {
        let block = BLOCK_BYTES_DEFAULT;
        let suspects = self.chain.suspects.iter().map(|suspect| (suspect.life, block));
        let links = self.chain.links.iter().map(|link| (link.header.life, link.header.block_bytes));
        let (life, first_block) = suspects.chain(links).nth(self.files_read)?;
        let (offset, bytes) = self.next.unwrap_or((first_block.into(), BLOCK_HEADER_BYTES));
        Some(ReadWanted { life, offset, bytes })
    }

    /// Files still to read, for progress.
    pub fn files_left(&self) -> usize {
        self.chain.suspects.len() + self.chain.links.len() - self.files_read
    }

    /// Reads what [`LogRecovery::next_read`] named, or more from the same place on; `sink` gets each record that is needed.
    pub fn feed(&mut self, bytes: &[u8], sink: &mut impl FnMut(Record<'_>)) {
        let Some(wanted) = self.next_read() else { return };
        let window = Window { offset: wanted.offset, bytes, is_last: bytes.len() < wanted.bytes };
        let link = self.files_read.checked_sub(self.chain.suspects.len()).map(|index| self.chain.links[index]);
        self.next = match (self.step, link) {
            (Step::Survey, _) => self.survey(&window),
            (_, None) => self.check_suspect(&window),
            (_, Some(link)) => self.read_link(link, &window, sink),
        };
        if self.next.is_none() && self.options.discard_after.is_some() && self.step != Step::Survey {
            self.step = Step::Survey;
            return;
        }
        if self.next.is_none() {
            self.files_read += 1;
            self.step = Step::Enter;
        }
    }

    /// Reads everything from files that are in memory.
    pub fn read_all<'f>(&mut self, file: impl Fn(Life) -> &'f [u8], sink: &mut impl FnMut(Record<'_>)) {
        while let Some(wanted) = self.next_read() {
            let from = usize::try_from(wanted.offset).ok().and_then(|offset| file(wanted.life).get(offset..));
            self.feed(from.unwrap_or_default(), sink);
        }
    }

    /// A file without a good header is unused or damaged. Damage found here must not hide what the links hold, so it is
    /// weighed at the end. Gives what to read next of it.
    fn check_suspect(&mut self, window: &Window<'_>) -> Option<(u64, usize)> {
        let suspect = &self.chain.suspects[self.files_read];
        // None of these was ever an unused segment of this server.
        let foreign = matches!(suspect.fault, SegmentFault::Version(_) | SegmentFault::Sizes | SegmentFault::Short);
        let mut offset = window.offset;
        while !foreign && offset < window.end() {
            if !window.holds_head(offset) {
                return Some((offset, BLOCK_HEADER_BYTES));
            }
            if looks_like_block(window.from(offset), suspect.life, offset) {
                return None;
            }
            offset += u64::from(BLOCK_BYTES_DEFAULT);
        }
        if !foreign && !window.is_last {
            return Some((offset, BLOCK_HEADER_BYTES));
        }
        if !foreign {
            self.chain.void.push(suspect.life);
        }
        None
    }

    /// Gives what to read next of the segment; `None` when nothing more of it is needed.
    fn read_link(
        &mut self,
        link: ChainLink,
        window: &Window<'_>,
        sink: &mut impl FnMut(Record<'_>),
    ) -> Option<(u64, usize)> {
        let mut offset = window.offset;
        if self.step == Step::Enter {
            if !self.enter(&link, window) {
                return None;
            }
            self.step = if self.stop.is_some() { Step::Evidence } else { Step::Read };
        }
        if self.step == Step::Read {
            match self.read_blocks(&link, window, sink) {
                Ok(next) => return next,
                Err(stopped_at) => offset = stopped_at,
            }
            self.step = Step::Evidence;
        }
        self.look_for_evidence(&link, window, offset)
    }

    /// Notes the positions of all records in the file. Gives what to read next of it.
    fn survey(&mut self, window: &Window<'_>) -> Option<(u64, usize)> {
        let header = self.presumed_header()?;
        let mut offset = window.offset;
        while offset < window.end() {
            let (block, payload) = match window.block_at(&header, offset) {
                Found::More(bytes) => return Some((offset, bytes)),
                Found::Block(block, payload) => (Some(block), payload),
                Found::Fault(BlockFault::PayloadChecksum(block)) => (Some(block), &[][..]),
                Found::Fault(_) => (None, &[][..]),
            };
            let step = u64::from(header.block_bytes);
            offset +=
                block.filter(|_| !payload.is_empty()).map_or(step, |block| block.padded_bytes(header.block_bytes));
            for position in block.iter().flat_map(|block| block.positions(payload)) {
                self.highest = self.highest.max(position);
            }
        }
        (!window.is_last).then_some((offset, BLOCK_HEADER_BYTES))
    }

    /// The header of the present file, or what it must have been.
    fn presumed_header(&self) -> Option<SegmentHeader> {
        let head = self.chain.links.last()?.header;
        Some(match self.files_read.checked_sub(self.chain.suspects.len()) {
            Some(index) => self.chain.links.get(index)?.header,
            None => {
                let life = self.chain.suspects.get(self.files_read)?.life;
                SegmentHeader { life, block_bytes: BLOCK_BYTES_DEFAULT, ..head }
            }
        })
    }

    /// How far the log was read.
    fn last_complete(&self) -> Position {
        self.stream.as_ref().map_or(self.needed_after, RecordStream::last_complete)
    }

    /// Begins a segment. `false` if nothing of it is to be read.
    fn enter(&mut self, link: &ChainLink, window: &Window<'_>) -> bool {
        if self.damage.is_some() || self.discard_reached {
            return false;
        }
        let header = &link.header;
        if self.stream.is_none() {
            return self.enter_first(link, window);
        }
        if !header.is_cut() {
            return !self.limit_reached;
        }
        if self.last_complete() != header.keep_to {
            let (life, offset) = self.stop.map_or((header.life, 0), |stop| (stop.life, stop.offset));
            self.damage(life, offset, DamageCause::CutNotMet { kept_to: header.keep_to });
            return false;
        }
        self.stop = None;
        self.limit_reached = false;
        self.stream = Some(RecordStream::begin(header.keep_to, false));
        self.claimed_position = self.claimed_position.max(header.keep_to);
        true
    }

    /// The first segment must begin no later than where the caller's knowledge ends.
    fn enter_first(&mut self, link: &ChainLink, window: &Window<'_>) -> bool {
        let header = &link.header;
        let first = BlockHeader::decode(window.bytes, header.life, header.seed(), window.offset);
        let begins_after = match (header.is_cut(), first) {
            (true, _) => header.keep_to,
            (false, Ok(block)) => block.previous_position,
            (false, Err(_)) => {
                self.damage_before(header.life, DamageCause::MissingSegment);
                return false;
            }
        };
        if begins_after > self.needed_after {
            self.damage_before(header.life, DamageCause::BeginsTooLate { begins_after });
            return false;
        }
        self.stream = Some(RecordStream::begin(begins_after, !header.is_cut()));
        true
    }

    /// Damage before the first link, at the segment that should be there, if that is known.
    fn damage_before(&mut self, first: Life, cause: DamageCause) {
        let (life, cause) = match self.chain.missing.take() {
            Some(missing) => (missing.life, missing.fault.map_or(cause, DamageCause::SegmentHeader)),
            None => (first, cause),
        };
        self.damage(life, 0, cause);
    }

    /// Reads blocks up to the first place without one, the limit, or the end. Gives what to read next, or as an error the place
    /// where the log stopped.
    fn read_blocks(
        &mut self,
        link: &ChainLink,
        window: &Window<'_>,
        sink: &mut impl FnMut(Record<'_>),
    ) -> Result<Option<(u64, usize)>, u64> {
        let header = &link.header;
        let mut offset = window.offset;
        while offset < header.segment_bytes {
            match window.block_at(header, offset) {
                Found::More(bytes) => return Ok(Some((offset, bytes))),
                Found::Fault(fault) => {
                    self.stop = Some(Stop { life: header.life, offset, fault });
                    return Err(offset);
                }
                Found::Block(block, payload) => {
                    self.place = (header.life, offset);
                    match self.read_block(link, &block, payload, sink) {
                        Ok(()) => {}
                        // Whatever is wrong beyond a cut was cut off.
                        Err(_) if self.last_complete() == link.limit => self.limit_reached = true,
                        Err(cause) => self.damage(header.life, offset, cause),
                    }
                    if self.damage.is_some() || self.limit_reached {
                        return Ok(None);
                    }
                    offset += block.padded_bytes(header.block_bytes);
                }
            }
        }
        Ok(None)
    }

    fn read_block(
        &mut self,
        link: &ChainLink,
        block: &BlockHeader,
        payload: &[u8],
        sink: &mut impl FnMut(Record<'_>),
    ) -> Result<(), DamageCause> {
        let Some(stream) = &mut self.stream else { return Err(DamageCause::MissingSegment) };
        stream.check_follows(block)?;
        self.claimed_position = self.claimed_position.max(block.durable_position);
        self.committed = self.committed.max(block.committed_position);
        let discard_after = self.options.discard_after.unwrap_or(Position::MAX);
        let wanted = Wanted {
            after: self.options.from,
            // A record beyond the segment's own limit says nothing about the rest of the chain: it was cut off before.
            limit: link.limit.min(discard_after),
            record_bytes_max: self.options.record_bytes_max,
        };
        let taken = stream.take_block(block, payload, &wanted, sink);
        self.note_use(link.header.life);
        if let Taken::UpTo(position) = taken? {
            self.limit_reached = true;
            self.discard_reached |= position <= link.limit;
        }
        Ok(())
    }

    /// Keeps the list of segments that hold the log.
    fn note_use(&mut self, life: Life) {
        let last_position = self.stream.as_ref().map_or(Position::ZERO, RecordStream::last_started);
        match self.used.last_mut() {
            Some(segment) if segment.life == life => segment.last_position = last_position,
            _ => self.used.push(SegmentUse { life, last_position }),
        }
    }

    /// After the log stopped: does anything from `offset` on prove that there was more? Gives what to read next.
    fn look_for_evidence(&mut self, link: &ChainLink, window: &Window<'_>, mut offset: u64) -> Option<(u64, usize)> {
        // At the limit, this segment has given all it had to; what follows was cut off.
        let stop = self.stop.filter(|_| self.last_complete() < link.limit)?;
        let header = &link.header;
        let step = header.block_bytes;
        while offset < window.end() {
            // A whole block, not only its header: the file may end within what was never written.
            if !window.is_last && window.from(offset).len() < step as usize {
                return Some((offset, step as usize));
            }
            let is_stop = (stop.life, stop.offset) == (header.life, offset);
            let proof = match BlockHeader::decode(window.from(offset), header.life, header.seed(), offset) {
                Ok(block) => (!is_stop && block.synced) || block.durable_position > self.last_complete(),
                Err(BlockFault::Misplaced { .. }) => true,
                Err(_) => false,
            };
            if proof {
                let cause = DamageCause::Block { fault: stop.fault, proof_life: header.life, proof_offset: offset };
                self.damage(stop.life, stop.offset, cause);
                return None;
            }
            offset += u64::from(step);
        }
        if !window.is_last {
            return Some((offset, BLOCK_HEADER_BYTES));
        }
        if window.end() < header.segment_bytes {
            let cause = DamageCause::Truncated { segment_bytes: header.segment_bytes };
            self.damage(header.life, window.end(), cause);
        }
        None
    }

    fn damage(&mut self, life: Life, offset: u64, cause: DamageCause) {
        self.damage = Some(Damage { life, offset, recoverable_to: self.last_complete(), cause });
    }

    /// The judgement, when all files were fed.
    ///
    /// Panics if they were not: a verdict on half a log would be worthless.
    pub fn finish(mut self) -> Recovered {
        assert_eq!(self.files_left(), 0, "every file of the log is read before it is judged");
        let end = self.last_complete();
        self.judge_suspects();
        let discarded = self.stream.is_some() && (self.discard_reached || self.options.discard_after == Some(end));
        let verdict = match self.damage.take() {
            Some(damage) if !discarded => Verdict::Damage(damage),
            None if self.chain.links.is_empty() => Verdict::Empty,
            damage => {
                let torn = self.stop.is_some_and(|stop| is_torn(&stop.fault))
                    || self.stream.as_ref().is_some_and(RecordStream::is_unfinished);
                if torn || damage.is_some() || self.discard_reached { self.torn_tail() } else { Verdict::Clean { end } }
            }
        };
        for segment in &mut self.used {
            segment.last_position = segment.last_position.min(end);
        }
        let (recycle_now, recycle_when_ready) = match verdict {
            Verdict::Damage(_) => Default::default(),
            _ => self.unused(),
        };
        Recovered {
            verdict,
            recycle_now,
            recycle_when_ready,
            committed: self.committed.min(end),
            highest: self.highest.max(end),
            owner: self.chain.links.last().map_or(self.options.new_owner, |link| link.header.owner),
            stream_id: self.chain.links.last().map(|link| link.header.stream_id),
            highest_life: self.chain.highest_life.max(self.options.highest_spare),
            used: self.used,
            end,
            claimed_position: self.claimed_position.min(end),
        }
    }

    /// Suspects that were written to are damage, unless worse was found.
    fn judge_suspects(&mut self) {
        let void = &self.chain.void;
        let written = self.chain.suspects.iter().find(|suspect| !void.contains(&suspect.life)).cloned();
        if let (Some(suspect), None) = (written, &self.damage) {
            self.damage(suspect.life, 0, DamageCause::SegmentHeader(suspect.fault));
        }
    }

    fn torn_tail(&self) -> Verdict {
        let (life, offset) = self.stop.map_or(self.place, |stop| (stop.life, stop.offset));
        Verdict::TornTail { end: self.last_complete(), life, offset }
    }

    /// Files that hold nothing of the log: those that can go at once and those that must wait for the next segment's header,
    /// because a cut is written in their own, or because only they know of positions that are given up. Highest life first, so that the chain's head always leads to the rest.
    fn unused(&self) -> (Vec<Life>, Vec<Life>) {
        let unused = |link: &&ChainLink| !self.used.iter().any(|segment| segment.life == link.header.life);
        let tail: Vec<_> = self.chain.links.iter().rev().take_while(unused).collect();
        let may_go = |link: &&&ChainLink| !link.header.is_cut() && self.options.discard_after.is_none();
        let at_once = tail.iter().take_while(may_go).count();
        let mut now = self.chain.void.clone();
        now.extend(tail[..at_once].iter().map(|link| link.header.life));
        (now, tail[at_once..].iter().map(|link| link.header.life).collect())
    }
}

/// Whether something of this life was begun here. Zeros and older lives are simply where the log ends.
fn is_torn(fault: &BlockFault) -> bool {
    matches!(fault, BlockFault::HeaderChecksum | BlockFault::PayloadChecksum(_))
}
