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
//! - [`KnownRecords`]: what has been proposed and not yet applied everywhere, and what need not be asked again.
//! - [`OwnChanges`]: what the request that is being validated changes.
//! - [`prep`]: turns a request into results, against the outstanding changes and the records of the owner shards.
//! - [`Sequencer`]: gives the order: queues requests, runs prep, hands committed batches out.
//! - [`Shard`]: owns a part of the tree and a share of the connections; applies batches, answers reads.
//!
//! Invariants: nothing here waits; every method does its work and returns what must be sent. The only thing that changes a
//! tree is [`Shard::apply`] of a committed batch. Time and randomness are arguments.

mod known_records;
pub mod message;
mod own_changes;
pub mod peer;
pub mod prep;
mod proposals;
pub mod request_pack;
mod sequencer;
mod shard;
pub mod txn;

pub use known_records::KnownRecords;
pub use own_changes::OwnChanges;
pub use sequencer::{LocalRecords, Sequencer, SequencerConfig, SequencerOutputs, Target};
pub use shard::{ApplyError, ConnectionState, Shard, ShardConfig, ShardOutputs};

#[cfg(test)]
mod output_tests;
#[cfg(test)]
mod test_server;
#[cfg(test)]
mod tests;
