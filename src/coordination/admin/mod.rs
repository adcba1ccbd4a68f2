//! Administration by four-letter words: the texts that a server answers on its client port.
//!
//! Contract: [`answer`] is a function of its arguments and gives the exact text of ZooKeeper 3.9 (labels, order, line
//! ends); the caller sends it and closes the connection. Gathering the numbers is the server's work.

mod four_letter;
mod report;

pub use four_letter::{FourLetterWord, Whitelist};
pub use report::{ConnectionStats, ServerStats, StatsReport, answer, render, version};
