//! Hand-over between the client's driver and its users, on one executor: a queue of events and a slot for one reply.
//!
//! Neither ever makes the driver wait. A queue that nobody empties is cut at its limit and says so in the stream.

use futures_lite::Stream;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

/// The state of a queue or a slot. Invariant: when `ended`, `waker` is none.
struct Queue<T> {
    items: VecDeque<T>,
    waker: Option<Waker>,
    ended: bool,
}

/// The driver's end of an event queue.
pub(super) struct Sender<T> {
    queue: Weak<RefCell<Queue<T>>>,
    items_max: usize,
}

/// The user's end of an event queue: a stream that ends when no more events can come.
pub struct Receiver<T> {
    queue: Rc<RefCell<Queue<T>>>,
}

/// A queue that holds at most `items_max` events.
pub(super) fn queue<T>(items_max: usize) -> (Sender<T>, Receiver<T>) {
    let queue = Rc::new(RefCell::new(Queue { items: VecDeque::new(), waker: None, ended: false }));
    (Sender { queue: Rc::downgrade(&queue), items_max }, Receiver { queue })
}

impl<T> Sender<T> {
    /// Appends `item`. A full queue is replaced by the single event that `overflow` makes.
    pub fn send(&self, item: T, overflow: impl FnOnce() -> T) {
        let Some(queue) = self.queue.upgrade() else { return };
        let waker = {
            let mut queue = queue.borrow_mut();
            if queue.items.len() >= self.items_max {
                queue.items.clear();
                queue.items.push_back(overflow());
            } else {
                queue.items.push_back(item);
            }
            queue.waker.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }

    /// True while the user still holds the stream.
    pub fn is_open(&self) -> bool {
        self.queue.strong_count() > 0
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let Some(queue) = self.queue.upgrade() else { return };
        let waker = {
            let mut queue = queue.borrow_mut();
            queue.ended = true;
            queue.waker.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }
}

impl<T> Receiver<T> {
    /// The next event; `None` when no more can come.
    pub async fn next(&mut self) -> Option<T> {
        std::future::poll_fn(|context| self.poll_event(context)).await
    }

    /// The next event if it is there already.
    pub fn try_next(&mut self) -> Option<T> {
        self.queue.borrow_mut().items.pop_front()
    }

    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Option<T>> {
        let mut queue = self.queue.borrow_mut();
        match queue.items.pop_front() {
            Some(item) => Poll::Ready(Some(item)),
            None if queue.ended => Poll::Ready(None),
            None => {
                queue.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl<T> Stream for Receiver<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        self.poll_event(context)
    }
}

/// The driver's end of a slot for one reply. Dropping it unfilled is a bug of the driver and panics the waiter.
pub(super) struct Promise<T>(Sender<T>);

/// Waits for one reply.
pub(super) struct Promised<T>(Receiver<T>);

/// A slot for one reply.
pub(super) fn slot<T>() -> (Promise<T>, Promised<T>) {
    let (sender, receiver) = queue(1);
    (Promise(sender), Promised(receiver))
}

impl<T> Promise<T> {
    /// Hands the reply over; nobody may be waiting any more.
    pub fn fulfil(self, reply: T) {
        self.0.send(reply, || unreachable!("a slot is filled once"));
    }
}

impl<T> Future for Promised<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        self.0.poll_event(context).map(|reply| reply.expect("every promise is fulfilled"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once};

    /// A consumer that does not keep up must learn that it missed something; silently losing the oldest (or the newest)
    /// event would leave a broker with stale metadata for ever.
    #[test]
    fn overflowing_queue_says_so() {
        let (sender, mut receiver) = queue(2);
        for item in 1..=3 {
            sender.send(item, || -1);
        }
        assert_eq!((receiver.try_next(), receiver.try_next()), (Some(-1), None));
        sender.send(4, || -1);
        assert_eq!(block_on(receiver.next()), Some(4));
    }

    /// Events queued before the end are still delivered, and a waiting consumer is woken by the end.
    #[test]
    fn end_comes_after_the_last_event() {
        let (sender, mut receiver) = queue(8);
        assert_eq!(block_on(poll_once(receiver.next())), None, "nothing there yet");
        sender.send(1, || -1);
        drop(sender);
        assert_eq!(block_on(receiver.next()), Some(1));
        assert_eq!(block_on(receiver.next()), None);
    }
}
