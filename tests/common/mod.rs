//! What the integration tests share: a raw blocking client, a guard around a server process, one around a server in this
//! process, and waiting with an end.
//!
//! Every test binary compiles this module for itself and uses a part of it.
#![allow(dead_code, unused_imports)]

mod client;
mod in_process;
mod process;

pub use client::{Answer, Client, Event, Session, is_gone};
pub use in_process::InProcess;
pub use process::{Refusal, ServerProcess, Setup, command_output};

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long anything may take before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The shard counts that every test runs with: alone, and more than this machine may have CPUs.
pub const SHARD_COUNTS: [u16; 2] = [1, 3];

/// A directory on the file system of the build, removed in the end.
pub struct TestDir(tempfile::TempDir);

impl TestDir {
    /// A new directory, named after `test`.
    pub fn new(test: &str) -> TestDir {
        let directory = tempfile::Builder::new().prefix(&format!("{test}-")).tempdir_in(env!("CARGO_TARGET_TMPDIR"));
        TestDir(directory.expect("a directory beside the target"))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// A path within it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }
}

/// Asks until the answer comes; panics with `what` when it does not within [`PATIENCE`].
pub fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "gave up waiting: {what}");
        // Only how often to ask, never a proof that something has happened.
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// The seed of this run: `variable` if it is set, so that a printed failure can be repeated, else `default`.
pub fn number_from_env(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")),
        Err(_) => default,
    }
}
