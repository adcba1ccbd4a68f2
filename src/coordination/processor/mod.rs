//! The way of a request through a server: pure.
//!
//! ```text
//! home shard ──WriteRequest──► Sequencer ──prep──► proposals ──log──► committed batches ──► every Shard
//!      ▲                          │   ▲                                                        │
//!      │                          └lookups┘ (same FIFO as the batches)                         │
//!      └────────── replies and events, built from the transaction itself ◄─────────────────────┘
//! ```
//!
//! - [`txn`]: what a committed transaction says: results, not intentions.
//! - [`message`]: what shards and the sequencer say to each other.
//! - [`peer`]: what shards say to each other.
//! - [`request_pack`]: requests travel to the sequencer in packs.
//! - [`CommitLog`]: what every server has: the proposals, and the marks proposed, durable, committed, handed, applied.
//! - `leadership`: what one epoch has: the queue, prep and what it stands on, the sessions' authority.
//! - [`Sequencer`]: gives the order: one leadership over the commit log.
//! - [`txn_room`], [`Admission`]: what a request takes of the log at most, and whether it may be validated now.
//! - [`HoldBack`]: when clients are not read. [`StallDetector`]: when nothing moves.
//! - [`Shard`]: owns a part of the tree and a share of the connections; applies batches, answers reads.
//!
//! Invariants: nothing here waits; every method does its work and returns what must be sent. The only thing that changes a
//! tree is [`Shard::apply`] of a committed batch. Time and randomness are arguments.

mod admission;
mod commit_log;
mod hold_back;
mod leadership;
pub mod message;
pub mod peer;
pub mod request_pack;
mod sequencer;
mod shard;
mod stall_detector;
pub mod txn;
pub mod txn_room;

pub use admission::{Admission, AdmissionNews, Admitted, Room};
pub use commit_log::CommitLog;
pub use hold_back::{HoldBack, HoldBackChange, HoldBackLimits, Load};
pub use leadership::RoomWanted;
pub use sequencer::{LocalRecords, SLICE_STEPS, Sequencer, SequencerConfig, SequencerOutputs, Target, Turn};
pub use shard::{ApplyError, ConnectionState, Shard, ShardConfig, ShardOutputs};
pub use stall_detector::{Progress, StallDetector, StallNews, WaitsFor};

#[cfg(test)]
mod counting_tests;
#[cfg(test)]
mod output_tests;
#[cfg(test)]
mod scaling_tests;
#[cfg(test)]
mod stall_tests;
#[cfg(test)]
mod test_server;
#[cfg(test)]
mod tests;
