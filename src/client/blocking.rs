//! Calls that block (name lookup, reading a terminal) on a thread of their own, so that the shard goes on turning.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Runs `call` on a new thread called `name` and waits for its result. Dropping the future leaves the thread to finish by
/// itself. Errors: the thread cannot be started, or `call` panicked.
pub async fn run_blocking<T: Send + 'static>(name: &str, call: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    let shared = Arc::new(Mutex::new(State { outcome: None, waker: None }));
    let answer = Answer { shared: shared.clone(), value: None };
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        let mut answer = answer;
        answer.value = Some(call());
    })?;
    Waiting { shared }.await.ok_or_else(|| io::Error::other("the blocking call panicked"))
}

struct State<T> {
    /// Some once the call has ended; the inner value is missing if it panicked.
    outcome: Option<Option<T>>,
    waker: Option<Waker>,
}

/// A panic while the lock is held cannot happen: nothing in here panics.
fn lock<T>(shared: &Mutex<State<T>>) -> MutexGuard<'_, State<T>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The thread's side: its drop hands over, also when the call panics.
struct Answer<T> {
    shared: Arc<Mutex<State<T>>>,
    value: Option<T>,
}

impl<T> Drop for Answer<T> {
    fn drop(&mut self) {
        let mut state = lock(&self.shared);
        state.outcome = Some(self.value.take());
        // Under the lock: the waiting side takes its waker back under it, so an executor that has ended is never woken.
        state.waker.take().into_iter().for_each(Waker::wake);
    }
}

struct Waiting<T> {
    shared: Arc<Mutex<State<T>>>,
}

impl<T> Future for Waiting<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let mut state = lock(&self.shared);
        match state.outcome.take() {
            Some(outcome) => Poll::Ready(outcome),
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl<T> Drop for Waiting<T> {
    fn drop(&mut self) {
        lock(&self.shared).waker = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::block_on;

    /// A call that panics must end the wait with an error: a lookup thread that dies would otherwise stop reconnects for ever.
    #[test]
    fn panic_in_the_call_is_an_error() {
        assert_eq!(block_on(run_blocking("fine", || 7)).unwrap(), 7);
        let failed: io::Result<()> = block_on(run_blocking("fails", || panic!("on purpose")));
        assert!(failed.is_err());
    }
}
