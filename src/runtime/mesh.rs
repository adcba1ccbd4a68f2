//! Typed channels between all shards, on which nobody ever waits to send.
//!
//! For each ordered pair of shards there is one channel of batches. A shard pushes messages for a peer into a pending batch and
//! hands all pending batches over once a turn ([`MeshEnd::flush`]). If a channel is full the batch stays pending, keeps
//! growing, and a task of the end hands it over as soon as there is room; meanwhile the shard goes on receiving, so two
//! shards that answer each other cannot block one another. The caller bounds what is pending: while
//! [`MeshEnd::pending_max`] is high it stops admitting client bytes.
//!
//! Invariant: messages of one ordered pair arrive in the order of the pushes, each once. Across pairs there is no order.

use super::queues::{Queue, sleep, spawn};
use super::world::{self, SendError};
use crate::base::ShardId;
use glommio::GlommioError;
use glommio::channels::shared_channel::{
    ConnectedReceiver, ConnectedSender, SharedReceiver, SharedSender, new_bounded,
};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Batches a channel holds. Small channels cost up to 8 µs a message, and a full one delays everything behind it.
pub const CHANNEL_BATCHES: usize = 1024;
/// Pause before the next try on a full channel. A channel this deep is full only when its receiver is far behind, and
/// everything pushed meanwhile leaves in one batch. (The library's waiting send cannot be used: it spins for ever when the
/// receiver has gone, and panics when a `try_send` takes the room it was promised.)
const RETRY_PAUSE: Duration = Duration::from_micros(500);
/// Emptied batches kept for reuse.
const SPARE_BATCHES: usize = 64;
/// A larger batch is the trace of a burst and is given back to the allocator.
const SPARE_BATCH_MESSAGES: usize = 1024;

/// The channels of a group of shards, before the shards have connected to them. Clones share them.
pub struct Mesh<M: Send + 'static> {
    ends: Arc<Vec<Mutex<Option<UnconnectedEnd<M>>>>>,
}

impl<M: Send + 'static> Clone for Mesh<M> {
    fn clone(&self) -> Self {
        Mesh { ends: self.ends.clone() }
    }
}

/// By peer; `None` at the own place.
struct UnconnectedEnd<M: Send + 'static> {
    senders: Vec<Option<SenderHalf<M>>>,
    receivers: Vec<Option<ReceiverHalf<M>>>,
}

/// A half of a channel that no shard has connected yet.
enum SenderHalf<M: Send + 'static> {
    Real(SharedSender<Vec<M>>),
    Simulated(world::Sender<Vec<M>>),
}

enum ReceiverHalf<M: Send + 'static> {
    Real(SharedReceiver<Vec<M>>),
    Simulated(world::Receiver<Vec<M>>),
}

/// A half on its shard.
enum BatchSender<M: Send + 'static> {
    Real(ConnectedSender<Vec<M>>),
    Simulated(world::Sender<Vec<M>>),
}

enum BatchReceiver<M: Send + 'static> {
    Real(ConnectedReceiver<Vec<M>>),
    Simulated(world::Receiver<Vec<M>>),
}

fn halves<M: Send + 'static>(batches: usize) -> (SenderHalf<M>, ReceiverHalf<M>) {
    if world::is_active() {
        let (sender, receiver) = world::channel(batches);
        return (SenderHalf::Simulated(sender), ReceiverHalf::Simulated(receiver));
    }
    let (sender, receiver) = new_bounded(batches);
    (SenderHalf::Real(sender), ReceiverHalf::Real(receiver))
}

impl<M: Send + 'static> SenderHalf<M> {
    async fn connect(self) -> BatchSender<M> {
        match self {
            SenderHalf::Real(half) => BatchSender::Real(half.connect().await),
            SenderHalf::Simulated(half) => BatchSender::Simulated(half),
        }
    }
}

impl<M: Send + 'static> ReceiverHalf<M> {
    async fn connect(self) -> BatchReceiver<M> {
        match self {
            ReceiverHalf::Real(half) => BatchReceiver::Real(half.connect().await),
            ReceiverHalf::Simulated(half) => BatchReceiver::Simulated(half),
        }
    }
}

impl<M: Send + 'static> BatchSender<M> {
    fn try_send(&self, batch: Vec<M>) -> Result<(), SendError<Vec<M>>> {
        match self {
            BatchSender::Real(channel) => match channel.try_send(batch) {
                Ok(()) => Ok(()),
                Err(error @ GlommioError::WouldBlock(_)) => {
                    Err(SendError::Full(error.into_inner().expect("a refused batch comes back")))
                }
                Err(_) => Err(SendError::Gone),
            },
            BatchSender::Simulated(channel) => channel.try_send(batch),
        }
    }

    fn close(&self) {
        match self {
            BatchSender::Real(channel) => {
                channel.close();
            }
            BatchSender::Simulated(channel) => channel.close(),
        }
    }
}

impl<M: Send + 'static> BatchReceiver<M> {
    async fn recv(&self) -> Option<Vec<M>> {
        match self {
            BatchReceiver::Real(channel) => channel.recv().await,
            BatchReceiver::Simulated(channel) => channel.recv().await,
        }
    }
}

impl<M: Send + 'static> Mesh<M> {
    /// Channels between `shards` shards.
    pub fn new(shards: usize) -> Mesh<M> {
        Mesh::with_channel_batches(shards, CHANNEL_BATCHES)
    }

    fn with_channel_batches(shards: usize, channel_batches: usize) -> Mesh<M> {
        let none = || (0..shards).map(|_| None).collect::<Vec<_>>();
        let mut ends: Vec<_> = (0..shards)
            .map(|_| UnconnectedEnd { senders: none(), receivers: (0..shards).map(|_| None).collect() })
            .collect();
        for from in 0..shards {
            for to in (0..shards).filter(|&to| to != from) {
                let (sender, receiver) = halves(channel_batches);
                ends[from].senders[to] = Some(sender);
                ends[to].receivers[from] = Some(receiver);
            }
        }
        Mesh { ends: Arc::new(ends.into_iter().map(|end| Mutex::new(Some(end))).collect()) }
    }

    /// Connects `shard`, the one this runs on. Resolves when all peers have connected or are gone.
    ///
    /// Panics when a shard connects twice.
    pub async fn connect(&self, shard: ShardId) -> MeshEnd<M> {
        let end = self.ends[shard.index()].lock().unwrap_or_else(PoisonError::into_inner).take();
        let end = end.expect("a shard connects to a mesh once");
        // A half registers itself when first polled and then waits for its other half. Connected one after the other, two
        // shards would each wait for a half that the other has not come to; so all of them go at once.
        let sending: Vec<_> =
            end.senders.into_iter().map(|half| half.map(|half| spawn(Queue::Serving, half.connect()))).collect();
        let receiving: Vec<_> =
            end.receivers.into_iter().map(|half| half.map(|half| spawn(Queue::Serving, half.connect()))).collect();
        let mut outgoing = Vec::new();
        for task in sending {
            outgoing.push(match task {
                Some(task) => Some(Outgoing::new(task.await.expect("nobody cancels a connecting half"))),
                None => None,
            });
        }
        let mut incoming = Vec::new();
        for task in receiving {
            incoming.push(match task {
                Some(task) => Some(task.await.expect("nobody cancels a connecting half")),
                None => None,
            });
        }
        MeshEnd { inner: Rc::new(End { shard, outgoing, incoming, spare: RefCell::new(Vec::new()) }) }
    }
}

/// One shard's end of a [`Mesh`]. Lives on that shard; clones are the same end.
pub struct MeshEnd<M: Send + 'static> {
    inner: Rc<End<M>>,
}

impl<M: Send + 'static> Clone for MeshEnd<M> {
    fn clone(&self) -> Self {
        MeshEnd { inner: self.inner.clone() }
    }
}

struct End<M: Send + 'static> {
    shard: ShardId,
    outgoing: Vec<Option<Outgoing<M>>>,
    incoming: Vec<Option<BatchReceiver<M>>>,
    spare: RefCell<Vec<Vec<M>>>,
}

struct Outgoing<M: Send + 'static> {
    channel: BatchSender<M>,
    /// Pushed and not yet in the channel. Everything in it is younger than everything in the channel.
    pending: RefCell<Vec<M>>,
    state: Cell<State>,
    /// Closed by us: shut the channel when the last pending batch is in it.
    closing: Cell<bool>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// `flush` hands batches over.
    Open,
    /// The channel was full. Only the retry task hands batches over, so that order is kept.
    Full,
    /// The peer is gone or this side was closed; messages go nowhere.
    Gone,
}

impl<M: Send + 'static> Outgoing<M> {
    fn new(channel: BatchSender<M>) -> Outgoing<M> {
        Outgoing {
            channel,
            pending: RefCell::new(Vec::new()),
            state: Cell::new(State::Open),
            closing: Cell::new(false),
        }
    }

    /// Offers all pending messages to the channel; `empty` becomes the next pending batch.
    fn hand_over(&self, empty: Vec<M>) {
        let batch = self.pending.replace(empty);
        match self.channel.try_send(batch) {
            Ok(()) => self.state.set(State::Open),
            Err(SendError::Full(batch)) => {
                // Nothing was pushed since the replace above, so putting the batch back keeps the order.
                self.pending.replace(batch);
                self.state.set(State::Full);
            }
            Err(SendError::Gone) => self.state.set(State::Gone),
        }
        if self.closing.get() && self.state.get() == State::Open {
            self.shut();
        }
    }

    fn shut(&self) {
        self.channel.close();
        self.state.set(State::Gone);
    }
}

impl<M: Send + 'static> MeshEnd<M> {
    /// The shard this end belongs to.
    pub fn shard(&self) -> ShardId {
        self.inner.shard
    }

    /// Number of shards in the mesh, this one included.
    pub fn shards(&self) -> usize {
        self.inner.outgoing.len()
    }

    /// Adds a message to the batch for `peer`. Never waits; it leaves with the next [`MeshEnd::flush`].
    ///
    /// Messages for a peer that has gone, and after [`MeshEnd::close`], are dropped: shards go only when their server does.
    /// Panics for the own shard.
    pub fn push(&self, peer: ShardId, message: M) {
        let out = self.outgoing(peer);
        if out.state.get() != State::Gone && !out.closing.get() {
            out.pending.borrow_mut().push(message);
        }
    }

    /// Hands every pending batch to its channel. Once a turn, after all pushes.
    pub fn flush(&self) {
        for (index, out) in self.inner.outgoing.iter().enumerate() {
            let Some(out) = out else { continue };
            if out.state.get() != State::Open || out.pending.borrow().is_empty() {
                continue;
            }
            let empty = self.inner.spare.borrow_mut().pop().unwrap_or_default();
            out.hand_over(empty);
            if out.state.get() == State::Full {
                spawn(Queue::Serving, self.clone().retry(ShardId(index as u16)));
            }
        }
    }

    /// Messages for `peer` that are not yet in the channel. The sequencer's shard holds clients back while this is high.
    pub fn pending(&self, peer: ShardId) -> usize {
        self.outgoing(peer).pending.borrow().len()
    }

    /// Of all peers the most of [`MeshEnd::pending`].
    pub fn pending_max(&self) -> usize {
        self.inner.outgoing.iter().flatten().map(|out| out.pending.borrow().len()).max().unwrap_or(0)
    }

    /// The next batch from `peer`, in order; `None` when the peer has closed and everything was received. One task a peer.
    pub async fn receive(&self, peer: ShardId) -> Option<Vec<M>> {
        let receiver = self.inner.incoming[peer.index()].as_ref().expect("a shard is no peer of itself");
        receiver.recv().await
    }

    /// Gives an emptied batch back for reuse. Optional.
    pub fn recycle(&self, mut batch: Vec<M>) {
        let mut spare = self.inner.spare.borrow_mut();
        if spare.len() < SPARE_BATCHES && batch.capacity() <= SPARE_BATCH_MESSAGES {
            batch.clear();
            spare.push(batch);
        }
    }

    /// Flushes and closes all channels towards the peers. They receive what was pushed before, then `None`.
    pub fn close(&self) {
        self.flush();
        for out in self.inner.outgoing.iter().flatten() {
            out.closing.set(true);
            if out.state.get() == State::Open {
                out.shut();
            }
        }
    }

    fn outgoing(&self, peer: ShardId) -> &Outgoing<M> {
        self.inner.outgoing[peer.index()].as_ref().expect("a shard does not send to itself")
    }

    /// Runs while the channel to `peer` is full.
    async fn retry(self, peer: ShardId) {
        let out = self.outgoing(peer);
        while out.state.get() == State::Full {
            sleep(RETRY_PAUSE).await;
            out.hand_over(Vec::new());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{LocalNotify, ShardContext, ShardsConfig, run_shards};
    use std::collections::VecDeque;

    /// A message and whether it is an answer.
    type Message = (u64, bool);

    fn shards(count: usize) -> ShardsConfig {
        ShardsConfig { allow_sharing_cpus: true, ..ShardsConfig::new(count) }
    }

    fn peers(context: ShardContext) -> impl Iterator<Item = ShardId> {
        (0..context.shards).map(|index| ShardId(index as u16)).filter(move |&peer| peer != context.shard)
    }

    /// Requests `0..count` to `peer` and answers to its requests, on one mesh and from the receive loop. Bounded like the
    /// server: at most `window` requests without an answer, and none while the channel is behind.
    async fn exchange(end: MeshEnd<Message>, peer: ShardId, count: u64, window: u64) {
        let (mut sent, mut answered, mut asked) = (0, 0, 0);
        while answered < count || asked < count {
            while sent < count && sent - answered < window && end.pending(peer) < 1000 {
                end.push(peer, (sent, false));
                sent += 1;
            }
            end.flush();
            let mut batch = end.receive(peer).await.expect("the peer closes after all its answers have come");
            for (number, is_answer) in batch.drain(..) {
                let expected = if is_answer { &mut answered } else { &mut asked };
                assert_eq!(number, *expected, "order from {peer} to {}", end.shard());
                *expected += 1;
                if !is_answer {
                    end.push(peer, (number, true));
                }
            }
            end.recycle(batch);
        }
        end.flush();
    }

    fn soak(count: u64, window: u64, channel_batches: usize) {
        let mesh: Mesh<Message> = Mesh::with_channel_batches(3, channel_batches);
        let handle = run_shards(&shards(3), move |context| async move {
            let end = mesh.connect(context.shard).await;
            assert_eq!((end.shard(), end.shards()), (context.shard, 3));
            let loops: Vec<_> =
                peers(context).map(|peer| spawn(Queue::Serving, exchange(end.clone(), peer, count, window))).collect();
            for task in loops {
                task.await.expect("no exchange is cancelled");
            }
            end.close();
            for peer in peers(context) {
                // Answers may still be on their way out of a full channel; then comes the peer's close.
                assert_eq!(end.receive(peer).await, None);
            }
            Ok(())
        });
        handle.unwrap().join().unwrap();
    }

    /// A mesh whose senders wait hung here: with 1024 slots after some of a million messages, with 1 slot after a thousand.
    #[test]
    fn a_million_requests_each_way_between_all_pairs_are_answered_in_order() {
        soak(1_000_000, 4096, CHANNEL_BATCHES);
    }

    /// With room for one batch nearly every flush finds its channel full, so the retry task carries the traffic.
    #[test]
    fn a_full_channel_neither_blocks_nor_reorders() {
        soak(2_000, 64, 1);
    }

    /// The sender goes on for as long as it likes; what it pushed arrives once the receiver reads, in order, and the close
    /// comes after it.
    #[test]
    fn messages_behind_a_full_channel_are_sent_before_the_close() {
        const COUNT: u64 = 500;
        let mesh: Mesh<u64> = Mesh::with_channel_batches(2, 1);
        let (report_full, full) = std::sync::mpsc::channel();
        let full = Arc::new(Mutex::new(VecDeque::from([full])));
        let handle = run_shards(&shards(2), move |context| async move {
            let end = mesh.connect(context.shard).await;
            if context.shard == ShardId(0) {
                for number in 0..COUNT {
                    end.push(ShardId(1), number);
                    end.flush();
                }
                assert!(end.pending(ShardId(1)) > 0, "one batch cannot hold {COUNT} flushes");
                end.close();
                end.push(ShardId(1), COUNT); // after the close: dropped
                report_full.send(())?;
            } else {
                full.lock().unwrap()[0].recv()?; // reads nothing before
                let mut next = 0;
                while let Some(batch) = end.receive(ShardId(0)).await {
                    for number in batch {
                        assert_eq!(number, next);
                        next += 1;
                    }
                }
                assert_eq!(next, COUNT);
            }
            // Keeps both executors until the other has closed too.
            end.close();
            while end.receive(ShardId(1 - context.shard.0)).await.is_some() {}
            Ok(())
        });
        handle.unwrap().join().unwrap();
    }

    /// When a shard fails, the others must neither hang nor spin on its full channel while the process ends.
    #[test]
    fn a_peer_that_has_gone_takes_no_messages_and_ends_the_retries() {
        let mesh: Mesh<u64> = Mesh::with_channel_batches(2, 1);
        let handle = run_shards(&shards(2), move |context| async move {
            let end = mesh.connect(context.shard).await;
            if context.shard == ShardId(1) {
                return Ok(()); // gone without reading
            }
            assert_eq!(end.receive(ShardId(1)).await, None);
            let done = Rc::new(LocalNotify::new());
            for number in 0..100 {
                end.push(ShardId(1), number);
                end.flush();
            }
            let (raise, watched) = (done.clone(), end.clone());
            spawn(Queue::Serving, async move {
                while watched.pending(ShardId(1)) > 0 {
                    sleep(RETRY_PAUSE).await;
                }
                raise.notify();
            });
            done.notified().await;
            Ok(())
        });
        handle.unwrap().join().unwrap();
    }
}
