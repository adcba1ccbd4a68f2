//! The log: a segmented write-ahead log, and what a server may believe of the one it finds on its disk.
//!
//! A log is a stream of records. Each record has a **position**, a number that grows from record to record; the caller chooses
//! it, and the log compares positions and never interprets them. What the bytes of a record mean is the caller's business, too.
//! The log's side of the contract:
//! - **Durable means durable.** A position that was reported durable is found again by every later start, or the start says
//!   that the log is damaged. It never begins with less and keeps quiet.
//! - **A prefix.** What a start finds is a prefix of what was appended: no record is missing in the middle, none is invented.
//! - **No second truth.** A failed flush stops the log for good; what it left on disk is decided by the next start.
//! - **Room first.** Whoever wants to append asks for room before he decides what to append, so that a full disk refuses work
//!   that was not begun.
//!
//! The formats and decisions are pure cores: bytes in, bytes and decisions out. Only [`driver`] does IO.
//!
//! Reading order: [`position`], [`mod@format`] (the bytes), [`writer`] (what is written when, and the driver's duties), [`chain`],
//! [`recovery`] over [`window`]s, and [`damage`] (what a start may believe), [`range`] (reading what is being written),
//! [`inspect`] (a segment as a list), then [`driver`].

pub mod position;

pub mod block;
pub mod format;
pub mod writer;

mod queue;

pub mod chain;
pub mod damage;
pub mod inspect;
pub mod range;
pub mod recovery;
pub mod window;

pub mod holds;
mod stream;

pub mod driver;

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod hazard_tests;
#[cfg(test)]
mod test_disk;
