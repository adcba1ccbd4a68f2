//! What the fuzz targets share: generators of valid input, damage, and an allocator that counts.
//!
//! A target turns the fuzzer's bytes into values ([`arbitrary`]), so that most inputs get past the first check of what they
//! test, and states properties beyond "no panic". See README.md for how they are run.

pub mod allocation;
pub mod log_disk;
pub mod log_forgery;
pub mod log_history;
pub mod lone_server;
pub mod mutation;
pub mod requests;
pub mod txns;

#[global_allocator]
static ALLOCATOR: allocation::Counting = allocation::Counting;
