//! Ctrl-c as something to wait for.

use super::ZkError;
use futures_lite::future::or;
use signal_hook::consts::SIGINT;
use signal_hook::iterator::Signals;
use std::future::{Future, poll_fn};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// Counts interrupts. From its installation on ctrl-c no longer ends the process.
pub(super) struct Interrupts {
    shared: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    count: u64,
    waker: Option<Waker>,
}

impl Interrupts {
    /// Starts to listen, on a thread that lives as long as the process.
    pub fn install() -> io::Result<Interrupts> {
        let mut signals = Signals::new([SIGINT])?;
        let shared = Arc::new(Mutex::new(Seen::default()));
        let interrupts = Interrupts { shared: shared.clone() };
        std::thread::Builder::new().name("interrupts".into()).spawn(move || {
            for _ in signals.forever() {
                let mut seen = lock(&shared);
                seen.count += 1;
                seen.waker.take().into_iter().for_each(Waker::wake);
            }
        })?;
        Ok(interrupts)
    }

    /// Waits for the next ctrl-c.
    pub async fn next(&self) {
        let before = lock(&self.shared).count;
        // Taken back when the wait is dropped: a waker must not outlive its shard.
        let _forget = Forget(&self.shared);
        poll_fn(|context| {
            let mut seen = lock(&self.shared);
            if seen.count != before {
                return Poll::Ready(());
            }
            seen.waker = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// What `future` gives, unless ctrl-c comes first.
    pub async fn or_stop<T>(&self, future: impl Future<Output = Result<T, ZkError>>) -> Result<T, ZkError> {
        or(future, async {
            self.next().await;
            Err(ZkError::Interrupted)
        })
        .await
    }
}

struct Forget<'a>(&'a Mutex<Seen>);

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        lock(self.0).waker = None;
    }
}

/// Nothing panics while it holds the lock.
fn lock(shared: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
