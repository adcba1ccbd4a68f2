//! Which segment files are the log: the chain from the highest life along the previous-life links.
//!
//! Needs only the first bytes of each file. Files outside the chain are void: abandoned when the log was cut, or spare.
//! Segments at the beginning of the chain whose records are all old are skipped, so that recovery reads what it needs.

use super::format::{BlockHeader, Life, SegmentFault, SegmentHeader};
use super::position::Position;
use super::writer::SegmentUse;
use std::collections::BTreeMap;

/// The first bytes of the file `log.<life>`: two blocks' worth, less if the file has less.
#[derive(Clone, Copy, Debug)]
pub struct SegmentPrefix<'a> {
    /// From the file's name.
    pub life: Life,
    /// From the file's beginning.
    pub bytes: &'a [u8],
}

/// One segment of the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainLink {
    /// The segment's head.
    pub header: SegmentHeader,
    /// What the segment holds above this is void, because a later segment cut it.
    pub limit: Position,
}

/// A file whose header cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspect {
    /// From the file's name.
    pub life: Life,
    /// What is wrong.
    pub fault: SegmentFault,
}

/// A segment that a link leads to and that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The segment.
    pub life: Life,
    /// What is wrong with its header; `None` if there is no such file.
    pub fault: Option<SegmentFault>,
}

/// The log's files, sorted out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogChain {
    /// Segments to read, in stream order.
    pub links: Vec<ChainLink>,
    /// Segments of the chain that hold nothing that is needed, oldest first.
    pub skipped: Vec<SegmentUse>,
    /// The segment that should come before all of these and is not there, or not readable.
    pub missing: Option<Missing>,
    /// Files above the chain's head with bad headers: damage if anything was written to them.
    pub suspects: Vec<Suspect>,
    /// Files that are no part of the log.
    pub void: Vec<Life>,
    /// The highest life that any file carries.
    pub highest_life: Life,
    /// The highest position that a header knows of.
    pub highest_position: Position,
}

impl LogChain {
    /// Sorts the files out for a reader that needs the records above `needed_after`.
    pub fn build(files: &[SegmentPrefix<'_>], needed_after: Position) -> LogChain {
        let mut headers = BTreeMap::new();
        let mut chain = LogChain::default();
        for file in files {
            chain.highest_life = chain.highest_life.max(file.life);
            match SegmentHeader::decode(file.bytes, file.life) {
                Ok(header) => {
                    chain.highest_position = chain.highest_position.max(header.highest_position);
                    headers.insert(file.life, (header, first_block(file.bytes, &header)));
                }
                Err(fault) => chain.suspects.push(Suspect { life: file.life, fault }),
            }
        }
        let mut bases = chain.walk(&mut headers);
        chain.void.extend(headers.into_keys());
        // A bad header below the head belongs to the chain only if a link leads to it, and then it is the missing one.
        let head = chain.links.last().map_or(Life::NONE, |link| link.header.life);
        let (above, below): (Vec<_>, Vec<_>) =
            std::mem::take(&mut chain.suspects).into_iter().partition(|s| s.life > head);
        chain.suspects = above;
        if let Some(missing) = &mut chain.missing {
            missing.fault = below.iter().find(|s| s.life == missing.life).map(|s| s.fault.clone());
        }
        chain.void.extend(below.iter().map(|suspect| suspect.life));
        chain.skip(&mut bases, needed_after);
        chain
    }

    /// Follows the links down from the highest life; takes what it finds out of `headers`. Gives for each link the last
    /// record that starts before it, where its first bytes tell.
    fn walk(&mut self, headers: &mut BTreeMap<Life, (SegmentHeader, Option<BlockHeader>)>) -> Vec<Option<Position>> {
        let mut bases = Vec::new();
        let Some(stream_id) = headers.values().next_back().map(|(header, _)| header.stream_id) else { return bases };
        let mut limit = Position::MAX;
        let mut next = headers.keys().next_back().copied();
        while let Some(life) = next {
            let of_this_log = headers.get(&life).is_some_and(|(header, _)| header.stream_id == stream_id);
            let Some((header, first)) = headers.remove(&life).filter(|_| of_this_log) else {
                self.missing = Some(Missing { life, fault: None });
                break;
            };
            self.links.push(ChainLink { header, limit });
            bases.push(if header.is_cut() { Some(header.keep_to) } else { first.map(|block| block.previous_position) });
            limit = limit.min(header.keep_to);
            next = Some(header.previous_life).filter(|life| *life != Life::NONE);
        }
        self.links.reverse();
        bases.reverse();
        bases
    }

    /// Drops the links before the last one whose predecessors hold nothing above `needed_after`.
    fn skip(&mut self, bases: &mut [Option<Position>], needed_after: Position) {
        let Some(first) = bases.iter().rposition(|base| base.is_some_and(|position| position <= needed_after)) else {
            return;
        };
        if first == 0 {
            return;
        }
        self.missing = None;
        // A segment ends where the next one begins; where that is not told, a later beginning bounds it from above.
        let mut end = needed_after;
        for (link, next_base) in self.links.drain(..first).zip(&bases[1..=first]).rev() {
            end = next_base.unwrap_or(end).min(end);
            self.skipped.push(SegmentUse { life: link.header.life, last_position: end });
        }
        self.skipped.reverse();
    }
}

/// The header of the first block, if it is good. It is believed without its payload: it has its own checksum.
fn first_block(bytes: &[u8], header: &SegmentHeader) -> Option<BlockHeader> {
    let offset = header.block_bytes as usize;
    BlockHeader::decode(bytes.get(offset..)?, header.life, header.seed(), offset as u64).ok()
}
