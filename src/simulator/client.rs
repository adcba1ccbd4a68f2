//! A simulated client at work: what it decides goes out on a connection of the world, and what it sees is noted.
//!
//! As a real client library does, it gives a connection up that says nothing for two thirds of the session's timeout while requests are
//! unanswered.

use super::checker::history::{ClosedBy, ConnectionKey};
use super::recorder::Recorder;
use super::workload::{Action, Client};
use crate::protocol::zookeeper::FrameReader;
use crate::runtime::{LocalNotify, Queue, Socket, clock, sleep, spawn};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

/// How long a client waits for an answer before it gives a connection up.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often it looks.
const LOOK: Duration = Duration::from_millis(100);

/// A client, and the connections it uses.
pub(super) struct ClientDriver {
    number: usize,
    client: RefCell<Client>,
    recorder: Recorder,
    server: SocketAddr,
    address: Ipv4Addr,
    current: RefCell<Option<Rc<Link>>>,
    /// The connection before, which was left open.
    old: RefCell<Option<Rc<Link>>>,
    /// No more turns are taken.
    resting: Cell<bool>,
}

/// One connection of a client.
struct Link {
    key: ConnectionKey,
    socket: RefCell<Option<Rc<Socket>>>,
    unsent: RefCell<VecDeque<Vec<u8>>>,
    more: LocalNotify,
    closed: Cell<bool>,
    /// Something was received.
    greeted: Cell<bool>,
    heard_us: Cell<u64>,
}

impl ClientDriver {
    /// `client`, which calls the server at `server` from `address`.
    pub(super) fn new(
        number: usize,
        client: Client,
        recorder: Recorder,
        server: SocketAddr,
        address: Ipv4Addr,
    ) -> Rc<ClientDriver> {
        Rc::new(ClientDriver {
            number,
            client: RefCell::new(client),
            recorder,
            server,
            address,
            current: RefCell::default(),
            old: RefCell::default(),
            resting: Cell::new(false),
        })
    }

    /// Takes turns until the client rests.
    pub(super) async fn run(self: Rc<Self>) {
        while !self.resting.get() {
            let (actions, delay_us) = self.client.borrow_mut().turn();
            self.act(actions);
            sleep(Duration::from_micros(delay_us)).await;
        }
    }

    /// Requests sent so far.
    pub(super) fn operations(&self) -> u64 {
        self.client.borrow().operations
    }

    /// No more turns.
    pub(super) fn rest(&self) {
        self.resting.set(true);
    }

    /// True when nothing that was asked on an open connection is unanswered.
    pub(super) fn is_answered(&self) -> bool {
        let current = self.current.borrow();
        let live = current.as_ref().is_some_and(|link| self.recorder.is_live(link.key));
        let old = self.old.borrow();
        let old_waits = old.as_ref().is_some_and(|link| !link.greeted.get() && self.recorder.is_live(link.key));
        let client = self.client.borrow();
        !old_waits && (!live || client.unanswered() == 0 && !client.awaits_close())
    }

    /// What is unanswered, in words.
    pub(super) fn unanswered(&self) -> String {
        let key = self.current.borrow().as_ref().map(|link| link.key);
        format!("client {}, connection {key:?}: {} requests", self.number, self.client.borrow().unanswered())
    }

    /// Asks once more, so that every event that is due must come before the answer.
    pub(super) fn ask_last(self: &Rc<Self>) {
        let actions = self.client.borrow_mut().last_turn();
        self.act(actions);
    }

    fn act(self: &Rc<Self>, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Connect { handshake, wrong_password } => self.connect(handshake, wrong_password),
                Action::Send { bytes, broken_frame } => {
                    if let Some(link) = &*self.current.borrow() {
                        self.send(link, bytes, broken_frame);
                    }
                }
                Action::SendOnOld(bytes) => {
                    if let Some(link) = &*self.old.borrow() {
                        self.send(link, bytes, false);
                    }
                }
                Action::Disconnect => {
                    if let Some(link) = self.current.take() {
                        self.recorder.closed(link.key, ClosedBy::Client);
                        link.close();
                    }
                }
            }
        }
    }

    fn connect(self: &Rc<Self>, handshake: Vec<u8>, wrong_password: bool) {
        let key = self.recorder.opened(self.number, self.address, &handshake, wrong_password);
        let link = Rc::new(Link {
            key,
            socket: RefCell::default(),
            unsent: RefCell::new(VecDeque::from([handshake])),
            more: LocalNotify::new(),
            closed: Cell::new(false),
            greeted: Cell::new(false),
            heard_us: Cell::new(clock::monotonic_us()),
        });
        let before = self.current.replace(Some(link.clone()));
        // The one before that is used no more.
        if let Some(forgotten) = self.old.replace(before) {
            self.recorder.closed(forgotten.key, ClosedBy::Client);
            forgotten.close();
        }
        spawn(Queue::Serving, self.clone().run_link(link));
    }

    fn send(&self, link: &Link, bytes: Vec<u8>, broken_frame: bool) {
        if !link.closed.get() {
            self.recorder.sent(link.key, &bytes, broken_frame);
            link.unsent.borrow_mut().push_back(bytes);
            link.more.notify();
        }
    }

    async fn run_link(self: Rc<Self>, link: Rc<Link>) {
        let connected = Socket::connect_within(self.server, PATIENCE).await;
        let by = match connected {
            Err(_) => ClosedBy::Client,
            Ok(socket) => {
                let socket = Rc::new(socket);
                self.recorder.connected_from(link.key, socket.local_addr());
                *link.socket.borrow_mut() = Some(socket.clone());
                if link.closed.get() {
                    socket.close();
                }
                spawn(Queue::Serving, write(socket.clone(), link.clone()));
                spawn(Queue::Serving, self.clone().lose_patience(link.clone()));
                self.read(&link, &socket).await
            }
        };
        self.recorder.closed(link.key, by);
        link.close();
        self.forget(&link);
    }

    async fn read(&self, link: &Rc<Link>, socket: &Socket) -> ClosedBy {
        let (mut partial, mut buffer) = (Vec::new(), vec![0; 8 << 10]);
        loop {
            match socket.read(&mut buffer).await {
                Ok(0) | Err(_) => return ClosedBy::Server,
                Ok(taken) => partial.extend_from_slice(&buffer[..taken]),
            }
            link.heard_us.set(clock::monotonic_us());
            let mut frames = FrameReader::new(&partial, i32::MAX as usize);
            let mut bodies = Vec::new();
            while let Ok(Some(frame)) = frames.next() {
                bodies.push(frame.body.to_vec());
            }
            let consumed = frames.consumed();
            partial.drain(..consumed);
            for body in bodies {
                link.greeted.set(true);
                self.recorder.received(link.key, &body);
                if self.is_current(link) {
                    self.client.borrow_mut().on_frame(&body);
                }
            }
        }
    }

    fn is_current(&self, link: &Rc<Link>) -> bool {
        self.current.borrow().as_ref().is_some_and(|current| Rc::ptr_eq(current, link))
    }

    fn forget(&self, link: &Rc<Link>) {
        if self.is_current(link) {
            self.current.take();
            self.client.borrow_mut().on_closed();
        } else if self.old.borrow().as_ref().is_some_and(|old| Rc::ptr_eq(old, link)) {
            self.old.take();
            self.client.borrow_mut().on_old_closed();
        }
    }

    /// Gives up a connection that owes an answer and says nothing.
    async fn lose_patience(self: Rc<Self>, link: Rc<Link>) {
        while !link.closed.get() {
            sleep(LOOK).await;
            let owes = self.is_current(&link) && self.client.borrow().unanswered() > 0 && !self.resting.get();
            let silent_us = clock::monotonic_us() - link.heard_us.get();
            if !owes {
                link.heard_us.set(clock::monotonic_us());
            } else if silent_us > PATIENCE.as_micros() as u64 {
                self.recorder.closed(link.key, ClosedBy::Client);
                link.close();
                return self.forget(&link);
            }
        }
    }
}

impl Link {
    fn close(&self) {
        self.closed.set(true);
        self.more.notify();
        if let Some(socket) = &*self.socket.borrow() {
            socket.close();
        }
    }
}

async fn write(socket: Rc<Socket>, link: Rc<Link>) {
    while !link.closed.get() {
        let next = link.unsent.borrow_mut().pop_front();
        match next {
            Some(bytes) => {
                if socket.write_all(&bytes).await.is_err() {
                    // The reader finds the end.
                    return;
                }
            }
            None => link.more.notified().await,
        }
    }
}
