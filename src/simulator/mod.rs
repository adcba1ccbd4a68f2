//! Deterministic simulation: the pure cores of a server on virtual network, disks and clocks, driven by one seed.
//!
//! - [`prng`]: named streams of random numbers over the seed.
//! - [`workload`]: the clients.
//! - [`checker`]: the one-copy model and the comparison of everything that clients saw with it.

pub mod checker;
pub mod prng;
pub mod workload;
