//! Deterministic simulation: whole servers, from [`Server::launch`](crate::coordination::server::Server::launch) down, in a
//! [`World`](crate::runtime::world::World), with clients that talk to them over its network; judged from outside.
//!
//! - [`workload`]: what clients do.
//! - `client`: carries it out over a connection, and notes what the client sees.
//! - `recorder`: everything that is noted of a run.
//! - `machine`: the host of a server: its lives, its disk.
//! - `faults`: what goes wrong, and when.
//! - [`simulation`]: one run, from the first connection to the verdict.
//! - [`campaign`]: many seeds, and the marks that they must pass.
//! - [`checker`]: the one-copy model and the comparison of everything that clients saw with it.
//!
//! Invariants: no decision of the server is made here; nothing in here reads a clock, a file or a socket of the machine, and
//! no order depends on a hash map's seed; so a seed is a run, for ever.

pub mod campaign;
pub mod checker;
mod client;
mod faults;
mod machine;
mod recorder;
pub mod simulation;
pub mod workload;

#[cfg(test)]
mod tests;
