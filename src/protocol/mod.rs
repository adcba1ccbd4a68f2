//! Bytes in, values out: no IO, no clock.

pub mod jute;
pub mod zookeeper;
