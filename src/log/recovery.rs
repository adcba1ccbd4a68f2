//! What a start may believe of the transaction log it finds.
//!
//! Use: [`LogRecovery::new`] with the first bytes of every `log.*` file, then [`LogRecovery::feed`] with the whole of each
//! file that [`LogRecovery::next_file`] names, then [`LogRecovery::finish`]. Records come out in order while it reads. A record
//! is handed out as soon as it is complete, so a caller acts on them only after the [`Verdict`].
//!
//! # The verdict
//! The readable log ends at the first place without a good block. It is a **torn tail**, and is cut, if nothing shows that
//! more was there. It is **damage** if
//! - a good block header follows, in this segment or a later one of the chain, that was written with sync (only one flush is
//!   ever in flight, so everything before it was complete once), or that claims a durable zxid above what was read;
//! - a later segment says that the log was kept to a zxid that was not reached, or exactly not met;
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
    BlockFault, BlockHeader, Life, RECORD_BYTES_MAX, RECORD_HEAD_BYTES, SegmentFault, get_record_head,
    looks_like_block, read_block,
};
use super::writer::{LogStart, SegmentUse};
use crate::base::Zxid;

/// What to recover.
#[derive(Clone, Copy, Debug)]
pub struct RecoveryOptions {
    /// Records above this are needed and handed out: the start zxid of the snapshot that was loaded.
    pub from: Zxid,
    /// Cut after the last record at or below this (`--discard-after`, or a TRUNC).
    pub discard_after: Option<Zxid>,
    /// Longest record believed, bytes.
    pub record_bytes_max: u32,
    /// The highest life among the `spare.*` files, [`Life::NONE`] without any: new lives begin above it.
    pub highest_spare: Life,
}

impl RecoveryOptions {
    /// All records above `from`, in a directory whose spare files have lives up to `highest_spare`.
    pub fn new(from: Zxid, highest_spare: Life) -> RecoveryOptions {
        RecoveryOptions { from, discard_after: None, record_bytes_max: RECORD_BYTES_MAX, highest_spare }
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
        end: Zxid,
    },
    /// The log ends in an unfinished flush, an unfinished record, or was cut as asked. None of it was acknowledged, or it was
    /// asked for.
    TornTail {
        /// The last record kept.
        end: Zxid,
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
    stream_id: Option<u64>,
    highest_life: Life,
    used: Vec<SegmentUse>,
    end: Zxid,
    /// The greatest zxid that a block claims to be durable.
    claimed_zxid: Zxid,
}

impl Recovered {
    /// Where the writer goes on, after anything but damage. A log that does not exist yet gets `new_stream_id`, a random
    /// number, and begins after the `from` of the recovery.
    pub fn resume(&self, new_stream_id: u64) -> Result<LogStart, Damage> {
        if let Verdict::Damage(damage) = &self.verdict {
            return Err(damage.clone());
        }
        let next_life = Life(self.highest_life.0 + 1);
        let Some(stream_id) = self.stream_id else { return Ok(LogStart::begin(new_stream_id, next_life, self.end)) };
        let last_used = self.used.last().map_or(Life::NONE, |segment| segment.life);
        let unsure = |s: &&SegmentUse| s.life == last_used || s.last_zxid > self.claimed_zxid;
        Ok(LogStart {
            stream_id,
            next_life,
            previous_life: last_used,
            keep_to: self.end,
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

/// A record that is not complete yet.
#[derive(Debug)]
struct Unfinished {
    zxid: Zxid,
    missing_bytes: usize,
    /// Whether it will be handed out; otherwise its bytes are not kept.
    wanted: bool,
    bytes: Vec<u8>,
}

/// A recovery under way. See the module documentation for its use.
#[derive(Debug)]
pub struct LogRecovery {
    options: RecoveryOptions,
    chain: LogChain,
    /// Files fed: first the suspects, then the links.
    files_fed: usize,
    /// The last record that started; `None` until the first segment tells where it begins.
    last_started: Option<Zxid>,
    /// The last record that is complete. Invariant: at most `last_started`.
    last_complete: Zxid,
    unfinished: Option<Unfinished>,
    /// Whether reading began inside a record whose beginning was purged, and no other has started yet.
    headless: bool,
    /// The block that was read last: segment and offset, bytes.
    position: (Life, u64),
    stop: Option<Stop>,
    /// Whether the current segment's limit was reached: the rest of it is void.
    limit_reached: bool,
    /// Whether `discard_after` was reached: all the rest is void.
    discard_reached: bool,
    damage: Option<Damage>,
    used: Vec<SegmentUse>,
    claimed_zxid: Zxid,
}

impl LogRecovery {
    /// Sorts out the files from their first bytes.
    pub fn new(files: &[SegmentPrefix<'_>], options: RecoveryOptions) -> LogRecovery {
        let needed_after = options.discard_after.map_or(options.from, |zxid| zxid.min(options.from));
        let mut chain = LogChain::build(files, needed_after);
        let used = std::mem::take(&mut chain.skipped);
        LogRecovery {
            options,
            chain,
            files_fed: 0,
            last_started: None,
            last_complete: needed_after,
            unfinished: None,
            headless: false,
            position: (Life::NONE, 0),
            stop: None,
            limit_reached: false,
            discard_reached: false,
            damage: None,
            used,
            claimed_zxid: Zxid::ZERO,
        }
    }

    /// The file to feed next, `None` when all are.
    pub fn next_file(&self) -> Option<Life> {
        let suspects = self.chain.suspects.iter().map(|suspect| suspect.life);
        let links = self.chain.links.iter().map(|link| link.header.life);
        suspects.chain(links).nth(self.files_fed)
    }

    /// Files still to feed, for progress.
    pub fn files_left(&self) -> usize {
        self.chain.suspects.len() + self.chain.links.len() - self.files_fed
    }

    /// Reads the whole content of the file that [`LogRecovery::next_file`] named; `sink` gets each record that is needed.
    pub fn feed(&mut self, bytes: &[u8], sink: &mut impl FnMut(Zxid, &[u8])) {
        let index = self.files_fed;
        self.files_fed += 1;
        if index < self.chain.suspects.len() {
            return self.check_suspect(index, bytes);
        }
        let link = self.chain.links[index - self.chain.suspects.len()];
        if !self.enter(&link, bytes) {
            return;
        }
        let mut offset = u64::from(link.header.block_bytes);
        if self.stop.is_none() {
            offset = self.read_segment(&link, bytes, offset, sink);
        }
        if self.stop.is_some() {
            self.look_for_evidence(&link, bytes, offset);
        }
    }

    /// A file without a good header is unused or damaged. Damage found here must not hide what the links hold, so it is
    /// weighed at the end.
    fn check_suspect(&mut self, index: usize, bytes: &[u8]) {
        let suspect = &self.chain.suspects[index];
        let step = super::format::BLOCK_BYTES_DEFAULT as usize;
        let written =
            (step..bytes.len()).step_by(step).find(|&at| looks_like_block(&bytes[at..], suspect.life, at as u64));
        // None of these was ever an unused segment of this server.
        let foreign = matches!(suspect.fault, SegmentFault::Version(_) | SegmentFault::Sizes | SegmentFault::Short);
        if !foreign && written.is_none() {
            self.chain.void.push(suspect.life);
        }
    }

    /// Begins a segment. `false` if nothing of it is to be read.
    fn enter(&mut self, link: &ChainLink, bytes: &[u8]) -> bool {
        if self.damage.is_some() || self.discard_reached {
            return false;
        }
        let header = &link.header;
        if self.last_started.is_none() {
            return self.enter_first(link, bytes);
        }
        if !header.is_cut() {
            return !self.limit_reached;
        }
        if self.last_complete != header.keep_to {
            let (life, offset) = self.stop.map_or((header.life, 0), |stop| (stop.life, stop.offset));
            self.damage(life, offset, DamageCause::CutNotMet { kept_to: header.keep_to });
            return false;
        }
        self.stop = None;
        self.unfinished = None;
        self.headless = false;
        self.limit_reached = false;
        self.last_started = Some(header.keep_to);
        self.claimed_zxid = self.claimed_zxid.max(header.keep_to);
        true
    }

    /// The first segment must begin no later than where the caller's knowledge ends.
    fn enter_first(&mut self, link: &ChainLink, bytes: &[u8]) -> bool {
        let header = &link.header;
        let offset = u64::from(header.block_bytes);
        let first = bytes.get(offset as usize..).map(|at| BlockHeader::decode(at, header.life, header.seed(), offset));
        let begins_after = match (header.is_cut(), first) {
            (true, _) => header.keep_to,
            (false, Some(Ok(block))) => block.previous_zxid,
            (false, _) => {
                self.damage_before(header.life, DamageCause::MissingSegment);
                return false;
            }
        };
        if begins_after > self.last_complete {
            self.damage_before(header.life, DamageCause::BeginsTooLate { begins_after });
            return false;
        }
        self.headless = !header.is_cut();
        self.last_started = Some(begins_after);
        self.last_complete = begins_after;
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

    /// Reads blocks up to the first place without one, the limit, or the end. Gives the offset reached.
    fn read_segment(
        &mut self,
        link: &ChainLink,
        bytes: &[u8],
        mut offset: u64,
        sink: &mut impl FnMut(Zxid, &[u8]),
    ) -> u64 {
        let header = &link.header;
        while offset < header.segment_bytes {
            match read_block(bytes, header.life, header.seed(), offset) {
                Ok((block, payload)) => {
                    self.position = (header.life, offset);
                    match self.read_block(link, &block, payload, sink) {
                        Ok(()) => {}
                        // Whatever is wrong beyond a cut was cut off.
                        Err(_) if self.last_complete == link.limit => self.limit_reached = true,
                        Err(cause) => self.damage(header.life, offset, cause),
                    }
                    if self.damage.is_some() || self.limit_reached {
                        break;
                    }
                    offset += block.padded_bytes(header.block_bytes);
                }
                Err(fault) => {
                    self.stop = Some(Stop { life: header.life, offset, fault });
                    break;
                }
            }
        }
        offset
    }

    fn read_block(
        &mut self,
        link: &ChainLink,
        block: &BlockHeader,
        mut payload: &[u8],
        sink: &mut impl FnMut(Zxid, &[u8]),
    ) -> Result<(), DamageCause> {
        let expected = self.last_started.unwrap_or(Zxid::ZERO);
        if block.previous_zxid != expected {
            return Err(DamageCause::Gap { expected, found: block.previous_zxid });
        }
        if block.durable_zxid > self.last_complete {
            return Err(DamageCause::Claim { durable_zxid: block.durable_zxid });
        }
        self.claimed_zxid = self.claimed_zxid.max(block.durable_zxid);
        self.note_use(link.header.life);
        payload = self.continue_record(block, payload, sink)?;
        while !payload.is_empty() && !self.limit_reached {
            payload = self.start_record(link, payload, sink)?;
        }
        self.note_use(link.header.life);
        Ok(())
    }

    /// Takes the bytes before the first record that starts in the block.
    fn continue_record<'a>(
        &mut self,
        block: &BlockHeader,
        payload: &'a [u8],
        sink: &mut impl FnMut(Zxid, &[u8]),
    ) -> Result<&'a [u8], DamageCause> {
        let continued = block.first_record.map_or(payload.len(), |(_, offset)| offset as usize);
        let (continuation, rest) = payload.split_at_checked(continued).ok_or(DamageCause::Malformed)?;
        if let Some((zxid, _)) = block.first_record {
            let matches = get_record_head(rest).is_some_and(|(_, found)| found == zxid);
            matches.then_some(()).ok_or(DamageCause::Malformed)?;
        }
        let Some(unfinished) = &mut self.unfinished else {
            let fits = self.headless || continuation.is_empty();
            return fits.then_some(rest).ok_or(DamageCause::Malformed);
        };
        let ends_here = continuation.len() == unfinished.missing_bytes;
        let goes_on = continuation.len() < unfinished.missing_bytes && rest.is_empty();
        if !ends_here && !goes_on {
            return Err(DamageCause::Malformed);
        }
        unfinished.missing_bytes -= continuation.len();
        if unfinished.wanted {
            unfinished.bytes.extend_from_slice(continuation);
        }
        if let Some(record) = self.unfinished.take_if(|_| ends_here) {
            self.last_complete = record.zxid;
            if record.wanted {
                sink(record.zxid, &record.bytes);
            }
        }
        Ok(rest)
    }

    fn start_record<'a>(
        &mut self,
        link: &ChainLink,
        payload: &'a [u8],
        sink: &mut impl FnMut(Zxid, &[u8]),
    ) -> Result<&'a [u8], DamageCause> {
        let (record_bytes, zxid) = get_record_head(payload).ok_or(DamageCause::Malformed)?;
        if record_bytes > self.options.record_bytes_max {
            return Err(DamageCause::RecordTooLong { zxid, record_bytes });
        }
        let last = self.last_started.unwrap_or(Zxid::ZERO);
        if zxid <= last {
            return Err(DamageCause::OutOfOrder { last, zxid });
        }
        // A record beyond the segment's own limit says nothing about the rest of the chain: it was cut off before.
        if zxid > link.limit {
            self.limit_reached = true;
            return Ok(&[]);
        }
        if self.options.discard_after.is_some_and(|discard_after| zxid > discard_after) {
            self.discard_reached = true;
            self.limit_reached = true;
            return Ok(&[]);
        }
        self.headless = false;
        self.last_started = Some(zxid);
        let wanted = zxid > self.options.from;
        let bytes = &payload[RECORD_HEAD_BYTES..];
        let record_bytes = record_bytes as usize;
        if let Some((record, rest)) = bytes.split_at_checked(record_bytes) {
            self.last_complete = zxid;
            if wanted {
                sink(zxid, record);
            }
            return Ok(rest);
        }
        // Memory follows the bytes that are there, not the length that is claimed.
        let kept = if wanted { bytes.to_vec() } else { Vec::new() };
        self.unfinished = Some(Unfinished { zxid, missing_bytes: record_bytes - bytes.len(), wanted, bytes: kept });
        Ok(&[])
    }

    /// Keeps the list of segments that hold the log.
    fn note_use(&mut self, life: Life) {
        let last_zxid = self.last_started.unwrap_or(Zxid::ZERO);
        match self.used.last_mut() {
            Some(segment) if segment.life == life => segment.last_zxid = last_zxid,
            _ => self.used.push(SegmentUse { life, last_zxid }),
        }
    }

    /// After the log stopped: does anything behind prove that there was more? `offset` is where this segment's unread part
    /// begins.
    fn look_for_evidence(&mut self, link: &ChainLink, bytes: &[u8], offset: u64) {
        // At the limit, this segment has given all it had to; what follows was cut off.
        let Some(stop) = self.stop.filter(|_| self.last_complete < link.limit) else { return };
        let header = &link.header;
        let (file_bytes, segment_bytes) = (bytes.len() as u64, header.segment_bytes);
        if file_bytes < segment_bytes {
            return self.damage(header.life, file_bytes, DamageCause::Truncated { segment_bytes });
        }
        let step = header.block_bytes as usize;
        for at in (offset as usize..bytes.len()).step_by(step) {
            let is_stop = (stop.life, stop.offset) == (header.life, at as u64);
            let proof = match BlockHeader::decode(&bytes[at..], header.life, header.seed(), at as u64) {
                Ok(block) => (!is_stop && block.synced) || block.durable_zxid > self.last_complete,
                Err(BlockFault::Misplaced { .. }) => true,
                Err(_) => false,
            };
            if proof {
                let cause = DamageCause::Block { fault: stop.fault, proof_life: header.life, proof_offset: at as u64 };
                return self.damage(stop.life, stop.offset, cause);
            }
        }
    }

    fn damage(&mut self, life: Life, offset: u64, cause: DamageCause) {
        self.damage = Some(Damage { life, offset, recoverable_to: self.last_complete, cause });
    }

    /// The judgement, when all files were fed.
    ///
    /// Panics if they were not: a verdict on half a log would be worthless.
    pub fn finish(mut self) -> Recovered {
        assert_eq!(self.files_left(), 0, "every file of the log is read before it is judged");
        let end = self.last_complete;
        self.judge_suspects();
        let discarded =
            self.last_started.is_some() && (self.discard_reached || self.options.discard_after == Some(end));
        let verdict = match self.damage.take() {
            Some(damage) if !discarded => Verdict::Damage(damage),
            None if self.chain.links.is_empty() => Verdict::Empty,
            damage => {
                let torn = self.stop.is_some_and(|stop| is_torn(&stop.fault)) || self.unfinished.is_some();
                if torn || damage.is_some() || self.discard_reached { self.torn_tail() } else { Verdict::Clean { end } }
            }
        };
        for segment in &mut self.used {
            segment.last_zxid = segment.last_zxid.min(end);
        }
        let (recycle_now, recycle_when_ready) = match verdict {
            Verdict::Damage(_) => Default::default(),
            _ => self.unused(),
        };
        Recovered {
            verdict,
            recycle_now,
            recycle_when_ready,
            stream_id: self.chain.links.last().map(|link| link.header.stream_id),
            highest_life: self.chain.highest_life.max(self.options.highest_spare),
            used: self.used,
            end,
            claimed_zxid: self.claimed_zxid.min(end),
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
        let (life, offset) = self.stop.map_or(self.position, |stop| (stop.life, stop.offset));
        Verdict::TornTail { end: self.last_complete, life, offset }
    }

    /// Files that hold nothing of the log: those that can go at once and those that must wait for the next segment's header,
    /// because a cut is written in their own. Highest life first, so that the chain's head always leads to the rest.
    fn unused(&self) -> (Vec<Life>, Vec<Life>) {
        let unused = |link: &&ChainLink| !self.used.iter().any(|segment| segment.life == link.header.life);
        let tail: Vec<_> = self.chain.links.iter().rev().take_while(unused).collect();
        let at_once = tail.iter().take_while(|link| !link.header.is_cut()).count();
        let mut now = self.chain.void.clone();
        now.extend(tail[..at_once].iter().map(|link| link.header.life));
        (now, tail[at_once..].iter().map(|link| link.header.life).collect())
    }
}

/// Whether something of this life was begun here. Zeros and older lives are simply where the log ends.
fn is_torn(fault: &BlockFault) -> bool {
    matches!(fault, BlockFault::HeaderChecksum | BlockFault::PayloadChecksum(_))
}
