//! The command line.

pub mod bench;
mod one_shard;
pub mod zk;
