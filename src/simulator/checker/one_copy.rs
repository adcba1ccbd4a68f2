//! A server that is right by construction: one copy, one request at a time. It shows that the checker accepts what is
//! right, and its histories, spoilt on purpose, that the checker refuses what is not.

use super::access;
use super::follow::{Parsed, is_write, parse};
use super::history::{
    ClientConnection, ClosedBy, Committed, CommittedKind, Dump, History, Life, Moment, Received, Sent,
};
use super::model::{Actor, Model, ModelEvent, ModelReply};
use super::reads;
use super::verify::Promises;
use super::watches::ModelWatches;
use crate::base::prng::Prng;
use crate::base::{SessionId, Zxid};
use crate::protocol::jute::Output;
use crate::protocol::zookeeper::{
    ConnectRequest, ConnectResponse, ErrorCode, Id, PASSWORD_BYTES, ReplyHeader, Request, WatcherEvent, permission, xid,
};
use crate::simulator::workload::{Action, Client, Habits};
use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;

pub(super) const PROMISES: Promises = Promises {
    session_timeout_ms_min: 200,
    session_timeout_ms_max: 2000,
    touch_delay_us_max: 0,
    expiry_delay_us_max: 1_000_000,
};

const PASSWORD: [u8; PASSWORD_BYTES] = [7; PASSWORD_BYTES];

#[derive(Default)]
struct Server {
    model: Option<Model>,
    zxid: u64,
    sessions: BTreeMap<SessionId, (usize, u32, u64)>,
    links: Vec<Link>,
}

struct Link {
    session: Option<SessionId>,
    identities: Vec<Id>,
    watches: ModelWatches,
    /// Requests that have not been looked at: their number.
    inbox: VecDeque<usize>,
    open: bool,
}

/// A run of the workload against the one-copy server.
pub(super) struct World {
    server: Server,
    clients: Vec<Client>,
    /// Of each client: the connection it uses and the one before.
    current: Vec<(Option<usize>, Option<usize>)>,
    turn_at_us: Vec<u64>,
    schedule: Prng,
    now: Moment,
    pub(super) history: History,
}

impl World {
    pub(super) fn run(seed: u64, operations_min: u64) -> History {
        let clients: Vec<Client> = (0..4).map(|number| Client::new(seed, number, Habits::default())).collect();
        let mut world = World {
            server: Server { model: Some(Model::new()), ..Server::default() },
            current: vec![(None, None); clients.len()],
            turn_at_us: vec![0; clients.len()],
            clients,
            schedule: Prng::stream(seed, "schedule"),
            now: Moment::default(),
            history: History { seed, lives: vec![Life::default()], ..History::default() },
        };
        while world.clients.iter().map(|client| client.operations).sum::<u64>() < operations_min {
            world.step();
        }
        world.drain();
        world.history
    }

    fn tick(&mut self) -> Moment {
        self.now.step += 1;
        self.now
    }

    fn step(&mut self) {
        let busy: Vec<usize> =
            (0..self.server.links.len()).filter(|key| !self.server.links[*key].inbox.is_empty()).collect();
        if !busy.is_empty() && self.schedule.percent(70) {
            let key = self.schedule.choose(&busy);
            return self.serve(key);
        }
        let next = (0..self.clients.len()).min_by_key(|client| self.turn_at_us[*client]).expect("there are clients");
        self.now.time_us = self.now.time_us.max(self.turn_at_us[next]);
        self.expire();
        let (actions, delay_us) = self.clients[next].turn();
        self.turn_at_us[next] = self.now.time_us + delay_us;
        actions.into_iter().for_each(|action| self.carry_out(next, action));
    }

    fn drain(&mut self) {
        for client in 0..self.clients.len() {
            let actions = self.clients[client].last_turn();
            actions.into_iter().for_each(|action| self.carry_out(client, action));
        }
        while let Some(key) = (0..self.server.links.len()).find(|key| !self.server.links[*key].inbox.is_empty()) {
            self.serve(key);
        }
        self.history.ended = self.tick();
        let model = self.server.model.as_ref().expect("always there but while a write is applied");
        let children = |path: &String| model.children(path).into_iter().map(str::to_owned).collect();
        let dump = Dump {
            nodes: model.nodes.clone(),
            children: model.nodes.keys().map(|path| (path.clone(), children(path))).collect(),
            sessions: model.sessions.clone(),
            shards: 1,
            sessions_agree: true,
        };
        self.history.lives[0].final_dump = Some(dump);
    }

    fn carry_out(&mut self, client: usize, action: Action) {
        let at = self.tick();
        match action {
            Action::Connect { handshake, wrong_password } => {
                let key = self.history.connections.len();
                let address = Ipv4Addr::new(10, 0, 0, client as u8 + 1);
                self.history.connections.push(ClientConnection {
                    client,
                    life: 0,
                    address,
                    sent: vec![Sent { at, body: handshake[4..].to_vec(), broken_frame: false }],
                    received: Vec::new(),
                    closed: None,
                    wrong_password,
                });
                self.server.links.push(Link {
                    session: None,
                    identities: access::initial_identities(address),
                    watches: ModelWatches::default(),
                    inbox: VecDeque::from([0]),
                    open: true,
                });
                self.current[client] = (Some(key), self.current[client].0);
            }
            Action::Send { bytes, broken_frame } => self.send(self.current[client].0, at, &bytes, broken_frame),
            Action::SendOnOld(bytes) => self.send(self.current[client].1, at, &bytes, false),
            Action::Disconnect => {
                if let Some(key) = self.current[client].0.take() {
                    self.close(key, ClosedBy::Client);
                }
            }
        }
    }

    fn send(&mut self, key: Option<usize>, at: Moment, bytes: &[u8], broken_frame: bool) {
        let Some(key) = key.filter(|key| self.server.links[*key].open) else { return };
        let connection = &mut self.history.connections[key];
        self.server.links[key].inbox.push_back(connection.sent.len());
        connection.sent.push(Sent { at, body: bytes[4..].to_vec(), broken_frame });
    }

    fn close(&mut self, key: usize, by: ClosedBy) {
        let at = self.tick();
        let link = &mut self.server.links[key];
        if !std::mem::take(&mut link.open) {
            return;
        }
        link.inbox.clear();
        link.watches = ModelWatches::default();
        self.history.connections[key].closed = Some((at, by));
        let client = self.history.connections[key].client;
        match self.current[client] {
            (Some(current), _) if current == key => {
                self.current[client].0 = None;
                if by == ClosedBy::Server {
                    self.clients[client].on_closed();
                }
            }
            (_, Some(old)) if old == key => {
                self.current[client].1 = None;
                self.clients[client].on_old_closed();
            }
            _ => {}
        }
    }

    fn deliver(&mut self, key: usize, body: Vec<u8>) {
        let at = self.tick();
        let connection = &mut self.history.connections[key];
        if self.current[connection.client].0 == Some(key) {
            self.clients[connection.client].on_frame(&body);
        }
        connection.received.push(Received { at, body });
    }

    fn reply(&mut self, key: usize, xid: i32, zxid: i64, reply: &ModelReply) {
        let mut body = Vec::new();
        let mut out = Output::new(&mut body);
        ReplyHeader { xid, zxid, error: reply.error }.encode(&mut out);
        out.raw(&reply.body);
        self.deliver(key, body);
    }

    fn expire(&mut self) {
        let now_us = self.now.time_us;
        let due = |heard: u64, timeout_ms: u32| heard + u64::from(timeout_ms) * 1000 + 100_000 < now_us;
        let silent = self.server.sessions.iter().filter(|(_, (_, timeout_ms, heard))| due(*heard, *timeout_ms));
        for session in silent.map(|(session, _)| *session).collect::<Vec<_>>() {
            self.commit(session, None, CommittedKind::CloseSession, |model, zxid| {
                (model.close_session(zxid, session), ModelReply::default())
            });
            let (key, ..) = self.server.sessions.remove(&session).expect("it was listed");
            self.close(key, ClosedBy::Server);
        }
    }

    fn commit(
        &mut self,
        session: SessionId,
        request: Option<(usize, u64)>,
        kind: CommittedKind,
        apply: impl FnOnce(&mut Model, Zxid) -> (Vec<ModelEvent>, ModelReply),
    ) -> (Zxid, ModelReply) {
        self.server.zxid += 1;
        let zxid = Zxid(self.server.zxid);
        let at = self.tick();
        let time_ms = (at.time_us / 1000) as i64;
        self.history.lives[0].committed.push(Committed { zxid, time_ms, at, session, request, kind });
        let mut model = self.server.model.take().expect("always there but here");
        let (events, reply) = apply(&mut model, zxid);
        self.server.model = Some(model);
        for key in 0..self.server.links.len() {
            for event in &events {
                let link = &mut self.server.links[key];
                let identities = link.identities.clone();
                if link.watches.fire(event, &identities) {
                    let mut frame = Vec::new();
                    WatcherEvent { kind: event.kind, path: &event.path }.encode_frame(Some(zxid), &mut frame);
                    self.deliver(key, frame[4..].to_vec());
                }
            }
        }
        (zxid, reply)
    }

    fn serve(&mut self, key: usize) {
        let Some(number) = self.server.links[key].inbox.pop_front() else { return };
        if number == 0 {
            return self.handshake(key);
        }
        let Some(session) = self.server.links[key].session else { return self.close(key, ClosedBy::Server) };
        if let Some(known) = self.server.sessions.get_mut(&session) {
            known.2 = self.now.time_us;
        }
        let connection = self.history.connections[key].clone();
        let position = self.server.zxid as i64;
        let (xid, request) = match parse(&connection, number) {
            Parsed::Broken => return self.close(key, ClosedBy::Server),
            Parsed::Unknown { xid } => {
                self.reply(key, xid, -1, &ModelReply::error(ErrorCode::Unimplemented));
                return self.close(key, ClosedBy::Server);
            }
            Parsed::Malformed { xid } => {
                return self.reply(key, xid, position, &ModelReply::error(ErrorCode::MarshallingError));
            }
            Parsed::Good { xid, request } => (xid, request),
        };
        let id = Some((key, number as u64));
        if matches!(*request, Request::CloseSession) {
            let (zxid, reply) = self.commit(session, id, CommittedKind::CloseSession, |model, zxid| {
                (model.close_session(zxid, session), ModelReply::default())
            });
            self.server.sessions.remove(&session);
            self.reply(key, xid, zxid.wire(), &reply);
            self.close(key, ClosedBy::Server);
        } else if is_write(&request) {
            let identities = self.server.links[key].identities.clone();
            let time_ms = (self.now.time_us / 1000) as i64;
            let (zxid, reply) = self.commit(session, id, CommittedKind::Operation, |model, zxid| {
                let actor = Actor { session, identities: &identities };
                let outcome = model.apply_write(zxid, time_ms, actor, &request);
                (outcome.events, outcome.reply)
            });
            self.reply(key, xid, zxid.wire(), &reply);
        } else {
            self.read(key, xid, position, &request);
        }
    }

    fn read(&mut self, key: usize, asked_xid: i32, position: i64, request: &Request<'_>) {
        let model = self.server.model.as_ref().expect("always there but while a write is applied");
        let link = &mut self.server.links[key];
        let done = |result: Result<(), ErrorCode>| result.map_or_else(ModelReply::error, |()| ModelReply::default());
        let reply = match request {
            Request::Auth { scheme, auth } => {
                let proved = access::authenticate(scheme, auth, &mut link.identities);
                let reply = if proved { ModelReply::default() } else { ModelReply::error(ErrorCode::AuthFailed) };
                self.reply(key, asked_xid, 0, &reply);
                if !proved {
                    self.close(key, ClosedBy::Server);
                }
                return;
            }
            Request::CheckWatches { path, kind } => done(link.watches.check(path, *kind)),
            Request::RemoveWatches { path, kind } => done(link.watches.remove(path, *kind)),
            Request::AddWatch { path, mode } => {
                link.watches.add(path, *mode);
                ModelReply { error: 0, body: vec![0; 4] }
            }
            Request::SetWatches(watches) => {
                for (kind, path) in link.watches.set(model, watches) {
                    let mut frame = Vec::new();
                    WatcherEvent { kind, path: &path }.encode_frame(None, &mut frame);
                    self.deliver(key, frame[4..].to_vec());
                }
                ModelReply::default()
            }
            other => {
                let identities = &link.identities;
                let readable =
                    |path: &str| model.node(path).map(|node| access::allows(&node.acl, permission::READ, identities));
                let (data, child) = (&mut link.watches.data, &mut link.watches.child);
                match other {
                    Request::Exists { path, watch: true } if readable(path) != Some(false) && !path.contains('\0') => {
                        data.insert((*path).to_owned());
                    }
                    Request::GetData { path, watch: true } if readable(path) == Some(true) => {
                        data.insert((*path).to_owned());
                    }
                    Request::GetChildren { path, watch: true, .. } if readable(path) == Some(true) => {
                        child.insert((*path).to_owned());
                    }
                    _ => {}
                }
                reads::read(model, identities, other).expect("every other request is a read")
            }
        };
        let xid = if matches!(request, Request::Ping) { xid::PING } else { asked_xid };
        self.reply(key, xid, position, &reply);
    }

    fn handshake(&mut self, key: usize) {
        let body = self.history.connections[key].sent[0].body.clone();
        let Ok(connect) = ConnectRequest::decode(&body) else { return self.close(key, ClosedBy::Server) };
        if connect.last_zxid_seen > self.server.zxid as i64 {
            return self.close(key, ClosedBy::Server);
        }
        let timeout_ms = connect.timeout_ms.clamp(200, 2000) as u32;
        let mut session = SessionId(connect.session_id);
        let exists = self.server.sessions.contains_key(&session);
        if session != SessionId::NONE && (!exists || connect.password != PASSWORD) {
            let mut frame = Vec::new();
            ConnectResponse::session_gone(connect.read_only).encode_frame(&mut frame);
            self.deliver(key, frame[4..].to_vec());
            return self.close(key, ClosedBy::Server);
        }
        let kind = match session {
            SessionId::NONE => {
                session = SessionId(1000 + self.server.zxid as i64);
                CommittedKind::CreateSession { timeout_ms }
            }
            _ => CommittedKind::MoveSession { timeout_ms },
        };
        self.commit(session, Some((key, 0)), kind, |model, _| {
            model.sessions.insert(session, timeout_ms);
            (Vec::new(), ModelReply::default())
        });
        if let Some((old, ..)) = self.server.sessions.insert(session, (key, timeout_ms, self.now.time_us)) {
            self.close(old, ClosedBy::Server);
        }
        self.server.links[key].session = Some(session);
        let mut frame = Vec::new();
        let read_only = connect.read_only.map(|_| false);
        ConnectResponse { timeout_ms: timeout_ms as i32, session_id: session.0, password: PASSWORD, read_only }
            .encode_frame(&mut frame);
        self.deliver(key, frame[4..].to_vec());
    }
}
