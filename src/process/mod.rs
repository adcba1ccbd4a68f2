//! A server process: what must hold before it starts, a shard on each CPU, listeners, a watchdog, and its end.
//!
//! A [`Service`] says what runs on each shard; the process knows nothing about what that is. The coordination service is one, the
//! broker will be another.
//!
//! Contract:
//! - [`Prepared::start`] returns when every shard serves, or with the first error of any shard; then nothing of it runs any more;
//! - a shard that ends ends the process: the others are told to stop. The first error is the one that is reported, since those after it
//!   follow from it;
//! - [`Process::stop_signal`] stops a process also while it starts.
//!
//! In a simulated world the same code runs without threads: preflight and watchdog look at the real machine, so they have
//! nothing to do there.

mod outcome;
mod signals;
mod start;
#[cfg(test)]
mod tests;

pub use signals::stop_on_signals;
pub use start::{Prepared, Process, ProcessConfig};

use crate::runtime::{Listener, RuntimeError, ShardContext, StopSignal, preflight};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use thiserror::Error;

/// What a process runs on its shards.
pub trait Service: Send + Sync + 'static {
    /// Why it cannot go on.
    type Error: std::error::Error + From<ProcessError> + Send + Sync + 'static;

    /// Runs on each shard until the service ends there. Must call [`Place::serves`] once clients can be served. When this future ends
    /// the tasks of the shard are dropped; [`Place::stop`] tells when it should end.
    fn run(self: Arc<Self>, place: Place) -> impl Future<Output = Result<(), Self::Error>>;
}

/// A shard, as a service finds it.
pub struct Place {
    /// Which shard.
    pub context: ShardContext,
    /// A listener for each address of [`ProcessConfig::listen`], in that order.
    pub listeners: Vec<Listener>,
    /// Raised when the process is to stop.
    pub stop: StopSignal,
    serving: outcome::Serving,
}

impl Place {
    /// This shard serves.
    pub fn serves(&self) {
        self.serving.one_more();
    }
}

/// Why a process did not start, or did not end well.
#[derive(Debug, Error)]
pub enum ProcessError {
    /// The machine does not allow it.
    #[error(transparent)]
    Preflight(#[from] preflight::PreflightError),
    /// The shards did not start, or one panicked.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// As configured.
        address: SocketAddr,
        /// What the system said.
        reason: std::io::Error,
    },
    /// A thread could not be started.
    #[error("cannot start the watchdog: {0}")]
    Watchdog(std::io::Error),
    /// It was told to stop before it served.
    #[error("stopped before it served")]
    Stopped,
}
