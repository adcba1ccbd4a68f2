//! Ringkeeper: a coordination ensemble that speaks ZooKeeper's protocol, on pinned io_uring executors.
//!
//! `ARCHITECTURE.md` is the map of this crate. The modules below stand in reading order; each one's documentation states
//! its contract. The arrows between them are checked by `tests/layering.rs`.
#![deny(unsafe_code)]

pub mod base;

pub mod process;
pub mod protocol;

pub mod log;

pub mod coordination;

pub mod config;
pub mod metrics;

pub mod storage;

pub mod runtime;

pub mod client;
pub mod simulator;

pub mod loadgen;

pub mod cli;
