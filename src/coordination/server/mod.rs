//! The server: carries bytes and messages between sockets, disk and the pure cores.
//!
//! Each shard runs a `shard_driver`: its core, its connections and its end of the mesh. Shard 0 also carries the
//! `sequencer_driver`: the sequencer and the transaction log. Nothing here decides about order; after every wake-up the
//! driver delivers what the cores put out, hands message batches to the mesh, and sends what each connection has ready in
//! one send.
//!
//! Start (`recovery`): shard 0 reads the newest snapshot, then the log, and hands both to all shards through the same FIFO
//! that commits take; when the opening record of the new epoch is durable and handed over, every shard opens its listener.
//! From then on snapshots are written while the server runs (`snapshots`).

mod connection;
mod error;
mod limits;
mod message;
mod observer;
mod recovery;
mod report;
mod sequencer_driver;
mod service;
mod shard_driver;
mod snapshot_load;
mod snapshots;
mod start;
mod words;

pub use error::ServerError;
pub use limits::Limits;
pub use observer::Observer;
pub use service::Coordination;
pub use start::{Server, ServerOptions};
