//! Log segments: blocks, records, and the verdict of a recovery.

use super::{CliError, describe, names, read};
use crate::base::Zxid;
use crate::coordination::persistence::snapshot_format::Manifest;
use crate::log::chain::SegmentPrefix;
use crate::log::format::{BlockHeader, Life, SegmentHeader};
use crate::log::inspect::{BlockStatus, inspect_segment};
use crate::log::position::{Position, Record};
use crate::log::recovery::{LogRecovery, RecoveryOptions, Verdict};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// First bytes of a segment that tell what it is: header and first block's header, for any size of blocks.
const PREFIX_BYTES: u64 = (1 << 20) + 4096;
/// What is read of a log at once.
const STRETCH_BYTES: usize = 4 << 20;

/// Every segment of a directory, and what a start from `snapshot` would make of them.
pub(super) fn directory(
    directory: &Path,
    snapshot: Option<&Manifest>,
    records: bool,
    out: &mut dyn Write,
) -> Result<bool, CliError> {
    let names = names(directory)?;
    let lives: Vec<Life> = names.iter().filter_map(|name| Life::from_file_name(name)).collect();
    for life in &lives {
        segment_line(&read(&directory.join(life.file_name()))?, *life, out)?;
    }
    let spares: Vec<Life> = names.iter().filter_map(|name| Life::from_spare_file_name(name)).collect();
    if !spares.is_empty() {
        writeln!(out, "  {} spare files to be recycled", spares.len())?;
    }
    if lives.is_empty() {
        writeln!(out, "  none")?;
        return Ok(snapshot.is_none());
    }
    let highest_spare = spares.last().copied().unwrap_or(Life::NONE);
    verdict(directory, &lives, highest_spare, snapshot, records, out)
}

/// What a segment holds by itself.
struct Summary {
    good_blocks: u64,
    durable: Position,
    records: u64,
    first: Position,
    last: Position,
}

fn segment_line(bytes: &[u8], life: Life, out: &mut dyn Write) -> io::Result<()> {
    let header = match SegmentHeader::decode(bytes, life) {
        Ok(header) => header,
        Err(fault) => return writeln!(out, "  {}: {fault}", life.file_name()),
    };
    let mut summary =
        Summary { good_blocks: 0, durable: Position::ZERO, records: 0, first: Position::MAX, last: Position::ZERO };
    for report in inspect_segment(&header, bytes) {
        if let BlockStatus::Good(block) = report.status {
            summary.good_blocks += 1;
            summary.durable = summary.durable.max(block.durable_position);
        }
    }
    records_of(bytes, &header, &mut |record| {
        summary.records += 1;
        summary.first = summary.first.min(record.position);
        summary.last = record.position;
    });
    let Summary { good_blocks, durable, records, first, last } = summary;
    let range = if records == 0 { "no complete record".into() } else { format!("{records} records {first} to {last}") };
    writeln!(out, "  {}: {}, {good_blocks} blocks, {range}, durable to {durable}", life.file_name(), chain(&header))
}

fn chain(header: &SegmentHeader) -> String {
    let after = match header.previous_life {
        Life::NONE => "begins the log".to_owned(),
        life => format!("follows life {life}"),
    };
    if header.is_cut() { format!("{after} after {}", header.keep_to) } else { after }
}

/// The complete records of one segment, as far as its blocks are good. One that began in an earlier segment, or goes on in a
/// later one, is not among them.
fn records_of(bytes: &[u8], header: &SegmentHeader, sink: &mut impl FnMut(Record<'_>)) {
    let first = bytes.get(header.block_bytes as usize..).unwrap_or_default();
    let first = BlockHeader::decode(first, header.life, header.seed(), u64::from(header.block_bytes));
    let base =
        if header.is_cut() { header.keep_to } else { first.map_or(Position::ZERO, |block| block.previous_position) };
    let prefix = SegmentPrefix { life: header.life, bytes };
    let mut recovery = LogRecovery::new(&[prefix], RecoveryOptions::new(base, Life::NONE));
    recovery.read_all(|_| bytes, sink);
}

fn verdict(
    directory: &Path,
    lives: &[Life],
    highest_spare: Life,
    snapshot: Option<&Manifest>,
    records: bool,
    out: &mut dyn Write,
) -> Result<bool, CliError> {
    let mut heads = Vec::new();
    for life in lives {
        let mut head = Vec::new();
        File::open(directory.join(life.file_name()))?.take(PREFIX_BYTES).read_to_end(&mut head)?;
        heads.push((*life, head));
    }
    let prefixes: Vec<_> = heads.iter().map(|(life, bytes)| SegmentPrefix { life: *life, bytes }).collect();
    let from = snapshot.map_or(Zxid::ZERO, |manifest| manifest.start);
    let mut recovery = LogRecovery::new(&prefixes, RecoveryOptions::new(from.into(), highest_spare));
    let (mut replayed, mut written) = (0_u64, Ok(()));
    while let Some(wanted) = recovery.next_read() {
        let mut file = File::open(directory.join(wanted.life.file_name()))?;
        file.seek(SeekFrom::Start(wanted.offset))?;
        let mut bytes = Vec::new();
        file.take(wanted.bytes.max(STRETCH_BYTES) as u64).read_to_end(&mut bytes)?;
        recovery.feed(&bytes, &mut |record| {
            replayed += 1;
            if records && written.is_ok() {
                written = writeln!(out, "{}", describe::transaction(record.bytes));
            }
        });
        std::mem::replace(&mut written, Ok(()))?;
    }
    let source = snapshot.map_or("an empty tree".into(), |manifest| format!("snapshot {}", manifest.start));
    writeln!(out, "a start from {source} would replay {replayed} transactions")?;
    let end = match recovery.finish().verdict {
        Verdict::Damage(damage) => {
            writeln!(out, "verdict: DAMAGED, {damage}")?;
            return Ok(false);
        }
        Verdict::Empty => {
            writeln!(out, "verdict: no log")?;
            from.into()
        }
        Verdict::Clean { end } => {
            writeln!(out, "verdict: clean, ends at {end}")?;
            end
        }
        Verdict::TornTail { end, life, offset } => {
            let file = life.file_name();
            writeln!(
                out,
                "verdict: ends at {end}; an unfinished write follows in {file} at offset {offset}, to be cut"
            )?;
            end
        }
    };
    match snapshot.filter(|manifest| manifest.end > end.into()) {
        None => Ok(true),
        Some(manifest) => {
            writeln!(out, "DAMAGED: the snapshot says that the log was durable to {}", manifest.end)?;
            Ok(false)
        }
    }
}

/// A segment alone, block by block.
pub(super) fn segment_file(path: &Path, life: Life, records: bool, out: &mut dyn Write) -> Result<bool, CliError> {
    let bytes = read(path)?;
    let header = match SegmentHeader::decode(&bytes, life) {
        Ok(header) => header,
        Err(fault) => {
            writeln!(out, "{}: DAMAGED, {fault}", path.display())?;
            return Ok(false);
        }
    };
    writeln!(
        out,
        "segment of life {life}, {}, {} bytes in blocks of {}, log {:016x} of cluster {}",
        chain(&header),
        header.segment_bytes,
        header.block_bytes,
        header.stream_id,
        header.owner
    )?;
    for report in inspect_segment(&header, &bytes) {
        let offset = report.offset;
        match report.status {
            BlockStatus::Good(block) => writeln!(out, "{offset:>10}: {}", describe_block(&block))?,
            BlockStatus::Bad { fault, bytes } => writeln!(out, "{offset:>10}: {fault} ({bytes} bytes)")?,
        }
    }
    if records {
        let mut written = Ok(());
        records_of(&bytes, &header, &mut |record| {
            if written.is_ok() {
                written = writeln!(out, "{}", describe::transaction(record.bytes));
            }
        });
        written?;
    }
    Ok(true)
}

fn describe_block(block: &BlockHeader) -> String {
    let records = match block.first_record {
        Some((position, _)) => format!("records from {position}, after {}", block.previous_position),
        None => format!("no record begins, after {}", block.previous_position),
    };
    let unsynced = if block.synced { "" } else { ", written without sync" };
    format!(
        "block of {} bytes, {records}, durable to {}, committed to {}{unsynced}",
        block.payload_bytes, block.durable_position, block.committed_position
    )
}
