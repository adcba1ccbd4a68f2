//! `ringkeeper inspect`: what stands in the files of a server, and what a start would make of them.
//!
//! Reads only, with plain files: it may run beside a server, whose last flush then may look unfinished.

mod describe;
mod log;
mod snapshots;

use super::CliError;
use crate::coordination::persistence::data_dir::DIRECTORY;
use crate::coordination::persistence::snapshot_format::SnapshotFile;
use crate::log::format::Life;
use clap::Args;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Arguments of `inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// A data directory (dataDir, or the directory in it), a log segment, a snapshot's manifest or part
    path: PathBuf,
    /// Where the transaction log is, if not in the same directory (dataLogDir)
    #[arg(long, value_name = "DIR")]
    log_dir: Option<PathBuf>,
    /// Show every record too: of a directory, the transactions that a start would replay
    #[arg(long)]
    records: bool,
}

/// Inspects; fails when something is damaged.
pub fn run(args: InspectArgs) -> Result<(), CliError> {
    let mut out = BufWriter::new(io::stdout().lock());
    let result = inspect(&args, &mut out).and_then(|good| out.flush().map(|()| good).map_err(Into::into));
    match result {
        Ok(true) => Ok(()),
        Ok(false) => Err("something is damaged, see above".into()),
        // Nobody wants to read more: `inspect … | head`.
        Err(error) if error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe) => {
            std::process::exit(0)
        }
        Err(error) => Err(error),
    }
}

/// Writes the report; true when everything is good.
fn inspect(args: &InspectArgs, out: &mut dyn Write) -> Result<bool, CliError> {
    if args.path.is_dir() {
        let snapshots = ours(&args.path);
        let log = args.log_dir.as_deref().map_or_else(|| snapshots.clone(), ours);
        return inspect_directories(&snapshots, &log, args.records, out);
    }
    let name = args.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if let Some(life) = Life::from_file_name(name).or(Life::from_spare_file_name(name)) {
        return log::segment_file(&args.path, life, args.records, out);
    }
    match SnapshotFile::parse(name) {
        Some(SnapshotFile::Manifest(start)) => snapshots::manifest_file(&args.path, start, out),
        Some(SnapshotFile::Part(start, index)) => snapshots::part_file(&args.path, start, index, args.records, out),
        None => {
            Err(format!("{name:?} is neither a directory nor the name of a log segment or of a snapshot file").into())
        }
    }
}

/// The directory of our files: the given one, or that in it.
fn ours(path: &Path) -> PathBuf {
    let below = path.join(DIRECTORY);
    if below.is_dir() { below } else { path.to_owned() }
}

fn inspect_directories(snapshots: &Path, log: &Path, records: bool, out: &mut dyn Write) -> Result<bool, CliError> {
    writeln!(out, "snapshots in {}", snapshots.display())?;
    let found = snapshots::directory(snapshots, out)?;
    writeln!(out, "transaction log in {}", log.display())?;
    let log_good = log::directory(log, found.newest.as_ref(), records, out)?;
    Ok(found.good && log_good)
}

/// Names in a directory, sorted.
fn names(directory: &Path) -> Result<Vec<String>, CliError> {
    let entries = std::fs::read_dir(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

fn read(path: &Path) -> Result<Vec<u8>, CliError> {
    std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()).into())
}

#[cfg(test)]
mod tests;
