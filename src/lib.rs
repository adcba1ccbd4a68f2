//! Ringkeeper: a coordination ensemble that speaks ZooKeeper's protocol, on pinned io_uring executors.
//!
//! `ARCHITECTURE.md` is the map of this crate. The modules below stand in reading order; each one's documentation states
//! its contract. The arrows between them are checked by `tests/layering.rs`.
#![deny(unsafe_code)]

pub mod base;
pub mod cli;
pub mod client;
pub mod config;
pub mod coordination;
pub mod loadgen;
pub mod metrics;
pub mod protocol;
pub mod runtime;
pub mod simulator;
pub mod storage;
