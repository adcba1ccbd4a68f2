//! Ringkeeper: a coordination server that speaks ZooKeeper's protocol, on pinned io_uring executors.
//!
//! `ARCHITECTURE.md` is the map of this crate, and gives the order in which to read its modules; below they stand by name. Each
//! module's documentation states its contract. The arrows between modules are checked by `tests/layering.rs`.
//!
//! Comments cite the rules of order and durability by name ("rule B5"). The rules stand in `docs/ordering.md`, each with what
//! breaks a server without it and with what guards it.
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
