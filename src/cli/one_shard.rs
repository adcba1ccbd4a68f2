//! Runs a command on a shard of its own.

use crate::runtime::{RuntimeError, ShardsConfig, run_shards};
use std::future::Future;
use std::sync::mpsc::channel;

/// Starts one shard, on one of `cpus` if given, runs the future that `make` gives on it and returns what it gives.
pub(super) fn run_on_one_shard<T, F, Fut>(cpus: Option<Vec<usize>>, make: F) -> Result<T, RuntimeError>
where
    T: Send + 'static,
    F: FnOnce() -> Fut + Clone + Send + 'static,
    Fut: Future<Output = T> + 'static,
{
    let (sender, receiver) = channel();
    let config = ShardsConfig { cpus, ..ShardsConfig::new(1) };
    let shard = run_shards(&config, move |_| async move {
        // The receiver waits for the shard's end, so it is there.
        sender.send(make().await).map_err(|_| "nobody waits for the result".into())
    })?;
    shard.join()?;
    Ok(receiver.recv().expect("a shard that ended well has sent its result"))
}
