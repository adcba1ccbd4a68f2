//! Jute, ZooKeeper's serialisation (reference: `zookeeper.jute`): big-endian integers, length-prefixed strings, buffers and
//! vectors where the length -1 means null, records without tags.
//!
//! [`Input`] borrows from the frame it reads and allocates nothing; a length is checked against the bytes that are left
//! before it is believed. [`Output`] appends to a caller's buffer.

mod input;
mod output;

pub use input::{Input, JuteError};
pub use output::Output;
