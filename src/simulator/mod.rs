//! Deterministic simulation: the pure cores of a server on virtual network, disks and clocks, driven by one seed.
//!
//! - [`workload`]: the clients.
//! - `agenda`, `machine`, `network`, `disk`, `faults`: the world that the cores run in.
//! - `journal`, `snapshots`: the drivers of the log writer, of the snapshot scan and of the loader.
//! - `recovery`: what a server starts from.
//! - `server`: one life of a server: the cores of production, carried by delayed channels.
//! - [`simulation`]: one run, from the first connection to the verdict.
//! - [`campaign`]: many seeds, and the marks that they must pass.
//! - [`checker`]: the one-copy model and the comparison of everything that clients saw with it.
//!
//! Invariant: nothing in here reads a clock, a file or a socket, and no order depends on a hash map's seed; so a seed is a
//! run, for ever.

mod agenda;
pub mod campaign;
pub mod checker;
mod disk;
mod faults;
mod journal;
mod machine;
mod network;
mod recovery;
mod server;
pub mod simulation;
mod snapshots;
pub mod workload;

#[cfg(test)]
mod tests;
