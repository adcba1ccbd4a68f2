//! Which sockets of a shard can be read or written: one epoll set a shard, and one registration of it in the executor's ring.
//!
//! The ring can watch every socket itself, but then each packet that arrives while the shard works interrupts its CPU to note
//! one completion, and each socket costs a submission and a completion for every time it is read. Here a packet only joins
//! the set's list of what is ready; the list is fetched when the tasks before are done, all of it with one system call.
//!
//! Invariants. The set reports edges: a side counts as ready from an event until a system call has shown that nothing is left
//! (`EWOULDBLOCK`, or fewer bytes than asked for, epoll(7)), and events come only through [`Readiness::fetch`] on this shard, so none
//! is lost between the two. A side that has ended stays ready: the end of a stream is no edge twice. A token names a slot and
//! its use, so an event for a socket that is gone reaches no other.

use super::queues::{Queue, spawn, yield_if_needed};
use glommio::io::{PollState, PollableFd};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Events fetched with one call; more are fetched with the next.
pub(super) const EVENTS_MAX: usize = 64;
const NO_WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

thread_local! {
    // A shard is a thread, so the set of this thread is the set of this shard.
    static READINESS: RefCell<Option<Rc<Readiness>>> = const { RefCell::new(None) };
}

/// Makes the set of the executor that runs on this thread and starts to ask it. Called once, before there is any socket: a
/// server takes all the descriptors it needs for itself before it takes any for its clients.
pub(super) fn create() -> io::Result<()> {
    let set = PollableFd::new(epoll::create(epoll::CreateFlags::CLOEXEC)?).map_err(io::Error::from)?;
    let readiness = Rc::new(Readiness { set, slots: RefCell::default() });
    READINESS.set(Some(readiness.clone()));
    spawn(Queue::Serving, readiness.run());
    Ok(())
}

/// Lets go of the set when the tasks of this thread's executor have ended.
pub(super) fn end() {
    READINESS.set(None);
}

/// One direction of a socket.
#[derive(Default)]
pub(super) struct Side {
    ready: Cell<bool>,
    ended: Cell<bool>,
    waiter: RefCell<Option<Waker>>,
}

impl Side {
    /// Ready when a system call may find something; otherwise wakes the task when one may.
    pub(super) fn poll_ready(&self, cx: &Context<'_>) -> Poll<()> {
        if self.ready.get() {
            return Poll::Ready(());
        }
        let mut waiter = self.waiter.borrow_mut();
        if !waiter.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            *waiter = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Whether a system call may find something.
    pub(super) fn is_ready(&self) -> bool {
        self.ready.get()
    }

    /// A system call has taken all there was.
    pub(super) fn exhausted(&self) {
        self.ready.set(self.ended.get());
    }

    fn event(&self, ends: bool) {
        self.ready.set(true);
        self.ended.set(self.ended.get() || ends);
        // Taken out first: a waker may run code that comes back here.
        let waiter = self.waiter.borrow_mut().take();
        if let Some(waker) = waiter {
            waker.wake();
        }
    }
}

/// What is known of one socket.
#[derive(Default)]
struct Sides {
    reading: Side,
    writing: Side,
}

/// A socket's place in the set of its shard. The kernel takes the socket out when it is closed.
pub(super) struct Registration {
    sides: Rc<Sides>,
    token: Token,
    readiness: Rc<Readiness>,
}

impl Registration {
    /// Watches `socket`, which must not block. `connected`: it may be written to at once.
    ///
    /// Panics outside a shard.
    pub(super) fn new(socket: impl AsFd, connected: bool) -> io::Result<Registration> {
        let readiness = READINESS.with_borrow(Clone::clone).expect("sockets are used on a shard started by run_shards");
        let sides = Rc::<Sides>::default();
        sides.writing.ready.set(connected);
        let token = readiness.slots.borrow_mut().put(sides.clone());
        let registration = Registration { sides, token, readiness };
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        let set = registration.readiness.set.get_ref();
        epoll::add(set, socket, epoll::EventData::new_u64(token.to_u64()), flags)?;
        Ok(registration)
    }

    /// Towards this server.
    pub(super) fn reading(&self) -> &Side {
        &self.sides.reading
    }

    /// Towards the peer.
    pub(super) fn writing(&self) -> &Side {
        &self.sides.writing
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.readiness.slots.borrow_mut().free(self.token);
    }
}

/// A slot, and which use of it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Token {
    slot: u32,
    usage: u32,
}

impl Token {
    fn to_u64(self) -> u64 {
        u64::from(self.usage) << 32 | u64::from(self.slot)
    }

    fn from_u64(word: u64) -> Token {
        Token { slot: word as u32, usage: (word >> 32) as u32 }
    }
}

/// As many as there were ever sockets at a time, which the limit on connections bounds.
#[derive(Default)]
struct Slots {
    /// The usage counts how often the slot was taken.
    slots: Vec<(u32, Option<Rc<Sides>>)>,
    free: Vec<u32>,
}

impl Slots {
    fn put(&mut self, sides: Rc<Sides>) -> Token {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push((0, None));
            u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 sockets")
        });
        let place = &mut self.slots[slot as usize];
        *place = (place.0.wrapping_add(1), Some(sides));
        Token { slot, usage: place.0 }
    }

    fn free(&mut self, token: Token) {
        self.slots[token.slot as usize].1 = None;
        self.free.push(token.slot);
    }

    fn get(&self, token: Token) -> Option<Rc<Sides>> {
        let (usage, sides) = self.slots.get(token.slot as usize)?;
        sides.clone().filter(|_| *usage == token.usage)
    }
}

/// The epoll set of a shard.
struct Readiness {
    set: PollableFd<OwnedFd>,
    slots: RefCell<Slots>,
}

impl Readiness {
    /// Until the end of the shard. Without it no connection would ever be read again: a failure ends the shard.
    async fn run(self: Rc<Self>) {
        let mut events = Vec::with_capacity(EVENTS_MAX);
        loop {
            let mut state = PollState::new();
            let waited = poll_fn(|cx| self.set.poll_readable(cx, &mut state)).await;
            waited.unwrap_or_else(|error| panic!("cannot wait for sockets: {error}"));
            while self.fetch(&mut events).unwrap_or_else(|error| panic!("cannot ask which sockets are ready: {error}"))
            {
                yield_if_needed().await;
            }
        }
    }

    /// Notes what is ready. True when there may be more.
    fn fetch(&self, events: &mut Vec<epoll::Event>) -> io::Result<bool> {
        events.clear();
        match epoll::wait(self.set.get_ref(), spare_capacity(events), Some(&NO_WAIT)) {
            Err(rustix::io::Errno::INTR) => return Ok(true),
            other => other?,
        };
        for event in events.iter() {
            let (token, flags) = (Token::from_u64(event.data.u64()), event.flags);
            let Some(sides) = self.slots.borrow().get(token) else { continue };
            let ended = flags.intersects(epoll::EventFlags::HUP | epoll::EventFlags::ERR);
            let no_more = ended || flags.contains(epoll::EventFlags::RDHUP);
            if no_more || flags.contains(epoll::EventFlags::IN) {
                sides.reading.event(no_more);
            }
            if ended || flags.contains(epoll::EventFlags::OUT) {
                sides.writing.event(ended);
            }
        }
        Ok(events.len() == events.capacity())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An event is fetched for a connection, the connection ends, a new one takes its slot, and only then is the event looked at.
    #[test]
    fn an_event_of_a_socket_that_is_gone_reaches_no_other() {
        let mut slots = Slots::default();
        let old = slots.put(Rc::default());
        assert!(slots.get(Token::from_u64(old.to_u64())).is_some());
        slots.free(old);
        assert!(slots.get(old).is_none());
        let new = slots.put(Rc::default());
        assert_eq!(new.slot, old.slot);
        assert!(slots.get(old).is_none());
        assert!(slots.get(new).is_some());
        assert!(slots.get(Token { slot: 7, usage: 1 }).is_none());
    }

    /// A side that is used up waits for an event; one that has ended never waits again.
    #[test]
    fn the_end_of_a_side_outlasts_what_uses_it_up() {
        let side = Side::default();
        side.event(false);
        side.exhausted();
        assert!(!side.is_ready());
        side.event(true);
        side.exhausted();
        assert!(side.is_ready());
        side.event(false);
        side.exhausted();
        assert!(side.is_ready());
    }
}
