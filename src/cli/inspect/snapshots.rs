//! Snapshots: manifests and parts, checked.

use super::{CliError, describe, names, read};
use crate::base::Zxid;
use crate::coordination::persistence::snapshot_format::{Manifest, PartSummary, SnapshotFile, SnapshotRecord};
use crate::coordination::persistence::snapshot_part::PartReader;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

/// Bytes of a part read at once.
const PIECE_BYTES: usize = 1 << 20;

/// What a directory holds of snapshots.
pub(super) struct Found {
    /// The one that a start would load.
    pub newest: Option<Manifest>,
    /// False when one is damaged.
    pub good: bool,
}

/// Every snapshot of a directory, newest first, and what is left of unfinished ones.
pub(super) fn directory(directory: &Path, out: &mut dyn Write) -> Result<Found, CliError> {
    let files: Vec<SnapshotFile> = names(directory)?.iter().filter_map(|name| SnapshotFile::parse(name)).collect();
    let mut starts: Vec<Zxid> = Vec::new();
    starts.extend(
        files.iter().filter_map(|file| if let SnapshotFile::Manifest(start) = file { Some(*start) } else { None }),
    );
    starts.sort();
    let mut found = Found { newest: None, good: true };
    for start in starts.iter().rev() {
        match snapshot(directory, *start, out)? {
            Some(manifest) => found.newest = found.newest.or(Some(manifest)),
            None => found.good = false,
        }
    }
    for file in &files {
        if matches!(file, SnapshotFile::Part(start, _) if !starts.contains(start)) {
            writeln!(out, "  {file}: left by a snapshot that was not finished")?;
        }
    }
    if starts.is_empty() {
        writeln!(out, "  none")?;
    }
    Ok(found)
}

/// One snapshot with all its parts; `None` when it is damaged.
fn snapshot(directory: &Path, start: Zxid, out: &mut dyn Write) -> Result<Option<Manifest>, CliError> {
    let name = SnapshotFile::Manifest(start);
    let Some(manifest) = manifest(&directory.join(name.to_string()), start, out)? else { return Ok(None) };
    let mut good = true;
    for index in 0..manifest.parts.len() as u32 {
        let file = SnapshotFile::Part(start, index);
        let reader = manifest.part_reader(index).ok_or("a manifest without its own part")?;
        match part(&directory.join(file.to_string()), reader, &mut |_| Ok(())) {
            Ok((summary, finished_at)) => writeln!(
                out,
                "    {file}: good, {} records, {} bytes, finished at {finished_at}",
                summary.records, summary.file_bytes
            )?,
            Err(error) => {
                good = false;
                writeln!(out, "    {file}: DAMAGED, {error}")?;
            }
        }
    }
    Ok(Some(manifest).filter(|_| good))
}

fn manifest(path: &Path, start: Zxid, out: &mut dyn Write) -> Result<Option<Manifest>, CliError> {
    let name = SnapshotFile::Manifest(start);
    match read(path).and_then(|bytes| Manifest::decode(&bytes).map_err(Into::into)) {
        Ok(manifest) if manifest.start == start => {
            let records: u64 = manifest.parts.iter().map(|part| part.records).sum();
            let bytes: u64 = manifest.parts.iter().map(|part| part.file_bytes).sum();
            let (end, parts) = (manifest.end, manifest.parts.len());
            writeln!(out, "  {name}: start {start}, end {end}, {parts} parts, {records} records, {bytes} bytes")?;
            Ok(Some(manifest))
        }
        Ok(other) => {
            writeln!(out, "  {name}: DAMAGED, the manifest of the snapshot that starts at {}", other.start)?;
            Ok(None)
        }
        Err(error) => {
            writeln!(out, "  {name}: DAMAGED, {error}")?;
            Ok(None)
        }
    }
}

/// Reads a part and gives its records to `sink`.
fn part(
    path: &Path,
    mut reader: PartReader,
    sink: &mut dyn FnMut(&SnapshotRecord<'_>) -> std::io::Result<()>,
) -> Result<(PartSummary, Zxid), CliError> {
    let mut file = File::open(path)?;
    let mut piece = vec![0; PIECE_BYTES];
    let mut written = Ok(());
    loop {
        let length = file.read(&mut piece)?;
        if length == 0 {
            return Ok(reader.finish()?);
        }
        reader.feed(&piece[..length], &mut |record| {
            if written.is_ok() {
                written = sink(&record);
            }
        })?;
        std::mem::replace(&mut written, Ok(()))?;
    }
}

/// A manifest alone.
pub(super) fn manifest_file(path: &Path, start: Zxid, out: &mut dyn Write) -> Result<bool, CliError> {
    let manifest = manifest(path, start, out)?;
    for (index, part) in manifest.iter().flat_map(|manifest| manifest.parts.iter().enumerate()) {
        writeln!(
            out,
            "    part {index}: {} records, {} bytes, checksum {:08x}",
            part.records, part.file_bytes, part.crc
        )?;
    }
    Ok(manifest.is_some())
}

/// A part alone.
pub(super) fn part_file(
    path: &Path,
    start: Zxid,
    index: u32,
    records: bool,
    out: &mut dyn Write,
) -> Result<bool, CliError> {
    let result = part(path, PartReader::new(start, index), &mut |record| {
        if records { writeln!(out, "{}", describe_record(record)) } else { Ok(()) }
    });
    match result {
        Ok((summary, finished_at)) => {
            let PartSummary { file_bytes, records, crc } = summary;
            writeln!(
                out,
                "part {index} of the snapshot that starts at {start}: good, {records} records, {file_bytes} bytes, checksum \
                 {crc:08x}, finished at {finished_at}"
            )?;
            Ok(true)
        }
        Err(error) if error.is::<std::io::Error>() => Err(error),
        Err(error) => {
            writeln!(out, "part {index} of the snapshot that starts at {start}: DAMAGED, {error}")?;
            Ok(false)
        }
    }
}

fn describe_record(record: &SnapshotRecord<'_>) -> String {
    match record {
        SnapshotRecord::Session { id, timeout_ms } => format!("session {id}, {timeout_ms} ms"),
        SnapshotRecord::Acl { hash, bytes } => format!("ACL list {hash:032x}, {} bytes", bytes.len()),
        SnapshotRecord::Node(node) => format!(
            "node {:?} {}, czxid {}, mzxid {}, pzxid {}, version {}, cversion {}, aversion {}, owner 0x{:x}, ACL {:032x}",
            node.path,
            describe::data(node.data),
            node.czxid,
            node.mzxid,
            node.pzxid,
            node.version,
            node.cversion,
            node.aversion,
            node.ephemeral_owner,
            node.acl_hash
        ),
        SnapshotRecord::Meta { key, bytes } => format!("meta {key}, {} bytes", bytes.len()),
    }
}
