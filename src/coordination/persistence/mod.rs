//! The snapshots and the data directory: how they look on disk, and what a server may believe of what it finds there. The
//! transaction log is [`crate::log`], which knows nothing of transactions.
//!
//! The formats and decisions are pure cores: bytes in, bytes and decisions out.
//!
//! Reading order: [`snapshot_format`] and [`snapshot_part`], [`snapshot_policy`] (when one is due), [`snapshot_scan`] and
//! [`snapshot_loader`] (a shard's part, written and read). Then the drivers, which do
//! the IO: [`data_dir`], [`snapshot`].

mod position;

pub mod snapshot_format;
pub mod snapshot_part;

pub mod snapshot_policy;

pub mod snapshot_loader;
pub mod snapshot_scan;

pub mod data_dir;
pub mod snapshot;

#[cfg(test)]
mod snapshot_files_tests;
#[cfg(test)]
mod snapshot_round_trip_tests;
#[cfg(test)]
mod snapshot_tests;
