//! The transaction log and the snapshots: how they look on disk, and what a server may believe of what it finds there.
//!
//! The formats and decisions are pure cores: bytes in, bytes and decisions out.
//!
//! Reading order: [`log_format`] (the bytes), [`log_writer`] (what is written when, and the driver's duties),
//! [`log_chain`], [`log_recovery`] and [`log_damage`] (what a start may believe), then [`snapshot_format`] and
//! [`snapshot_part`], [`snapshot_policy`] (when one is due). Then the drivers, which do the IO: [`data_dir`], [`txn_log`],
//! [`snapshot`].

pub mod log_block;
pub mod log_format;
pub mod log_writer;

mod log_queue;

pub mod log_chain;
pub mod log_damage;
pub mod log_inspect;
pub mod log_recovery;

pub mod snapshot_format;
pub mod snapshot_part;

pub mod snapshot_policy;

pub mod data_dir;
pub mod snapshot;
pub mod txn_log;

#[cfg(test)]
mod log_crash_tests;
#[cfg(test)]
mod log_hazard_tests;
#[cfg(test)]
mod log_test_disk;
#[cfg(test)]
mod snapshot_files_tests;
#[cfg(test)]
mod snapshot_tests;
