//! One run: clients, network, server and disk under one seed, from the first connection to the verdict.

use super::agenda::{Agenda, Event};
use super::checker::history::{Committed, CommittedKind, ConnectionKey, History, Life};
use super::checker::{Promises, Verified, verify};
use super::disk::Disk;
use super::faults::{Fault, Plan};
use super::journal;
use super::machine::{Delays, Machine, Trace, WALL_CLOCK_START_MS};
use super::network::{Arrival, Network, Upward};
use super::recovery::kind_of;
use super::server::{SESSION_TIMEOUT_MS, SHARD_TICK_US_MAX, Server, TICK_MS};
use super::workload::{Action, Client, Habits};
use crate::base::prng::Prng;
use crate::base::{ConnectionId, Zxid, coverage};
use crate::coordination::processor::txn::{Txn, TxnHeader};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What a run is made of.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// The seed.
    pub seed: u64,
    /// Number of shards; drawn anew for each life of the server when absent.
    pub shards: Option<u16>,
    /// Least number of client operations.
    pub operations: u64,
}

/// Numbers of shards that are drawn.
pub const SHARDS: [u16; 4] = [1, 2, 3, 8];

/// How a run went.
#[derive(Clone, Debug)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Number of shards in each life of the server.
    pub shards: Vec<u16>,
    /// Requests that clients sent.
    pub operations: u64,
    /// Things that went wrong on purpose.
    pub faults: u64,
    /// Equal for equal runs.
    pub trace_hash: u64,
    /// Virtual time that passed.
    pub virtual_ms: u64,
    /// How often each coverage mark was passed.
    pub marks: BTreeMap<&'static str, u64>,
    /// What was verified, or what was found.
    pub result: Result<Verified, String>,
}

/// Runs a seed and verifies what came of it.
pub fn run(setup: Setup) -> Report {
    coverage::start();
    let mut simulation = Simulation::new(setup);
    let mut result = simulation.run();
    let marks = coverage::finish();
    simulation.machine.set_refusing(false);
    let Simulation { machine, mut network, clients, plan, shards, .. } = simulation;
    network.history.ended = network.moment(machine.now_us);
    network.history.no_room = machine.refused;
    let verdict = verify(&network.history, &promises()).map_err(|violation| violation.to_string());
    // What the checker says explains more than what the server stopped for.
    if let Err(violation) = &verdict
        && result.is_ok()
    {
        result = Err(violation.clone());
    }
    Report {
        seed: setup.seed,
        shards,
        operations: clients.iter().map(|client| client.operations).sum(),
        faults: plan.done,
        trace_hash: machine.trace.0,
        virtual_ms: machine.now_us / 1000,
        marks,
        result: result.and(verdict),
    }
}

/// What the checker may rely on.
fn promises() -> Promises {
    Promises {
        session_timeout_ms_min: SESSION_TIMEOUT_MS.0,
        session_timeout_ms_max: SESSION_TIMEOUT_MS.1,
        touch_delay_us_max: SHARD_TICK_US_MAX + Delays::CHANNEL_MAX,
        expiry_delay_us_max: 3_000_000 + u64::from(TICK_MS) * 2000,
    }
}

struct Simulation {
    setup: Setup,
    machine: Machine,
    network: Network,
    server: Option<Server>,
    clients: Vec<Client>,
    /// Of each client: the connection it uses and the one before.
    current: Vec<(Option<ConnectionKey>, Option<ConnectionKey>)>,
    plan: Plan,
    faults: Prng,
    shards: Vec<u16>,
}

/// Events after which a run that does not end is given up.
const EVENTS_MAX: u64 = 2_000_000;

impl Simulation {
    fn new(setup: Setup) -> Simulation {
        let seed = setup.seed;
        let mut schedule = Prng::stream(seed, "schedule");
        let mut faults = Prng::stream(seed, "faults");
        let delays = Delays::draw(&mut schedule);
        let history = History { seed, wall_clock_start_ms: WALL_CLOCK_START_MS, ..History::default() };
        let count = schedule.between(3, 6) as usize;
        let plan = Plan::draw(&mut faults, setup.operations);
        let mut agenda = Agenda::default();
        agenda.push(0, Event::Start);
        (0..count).for_each(|client| agenda.push(100, Event::ClientTurn(client)));
        Simulation {
            setup,
            machine: Machine {
                now_us: 0,
                life: 0,
                agenda,
                delays,
                schedule,
                disk: Disk::default(),
                slow_disk_until_us: 0,
                full_disk_until_us: 0,
                skipped_to: None,
                sync_fails: false,
                refusing_since_us: None,
                refused: Vec::new(),
                sendings: Vec::new(),
                committed: Vec::new(),
                stopped: None,
                log_stopped: false,
                trace: Trace::default(),
            },
            network: Network::new(Prng::stream(seed, "network"), delays, history),
            server: None,
            clients: (0..count).map(|number| Client::new(seed, number, Habits::default())).collect(),
            current: vec![(None, None); count],
            plan,
            faults,
            shards: Vec::new(),
        }
    }

    fn operations(&self) -> u64 {
        self.clients.iter().map(|client| client.operations).sum()
    }

    /// Runs to the end. An error is a server that stopped, or does not come to rest.
    fn run(&mut self) -> Result<(), String> {
        let (mut asked_last, mut events) = (false, 0);
        loop {
            events += 1;
            if events > EVENTS_MAX {
                return Err(format!("seed {}: the run does not come to rest", self.setup.seed));
            }
            let over = self.operations() >= self.setup.operations;
            // What waits for room on the disk waits for periodic events.
            let settled = self.server.as_ref().is_some_and(Server::is_settled);
            if over && settled && self.machine.agenda.is_idle() {
                if asked_last {
                    break;
                }
                asked_last = true;
                self.ask_last();
                continue;
            }
            let Some((at_us, event)) = self.machine.agenda.pop() else { break };
            self.machine.now_us = self.machine.now_us.max(at_us);
            self.machine.trace.add(format!("{at_us}{event:?}").as_bytes());
            self.on_event(event, over);
            self.carry();
            if std::mem::take(&mut self.machine.log_stopped) {
                let down_us = self.faults.between(100, 50_000);
                self.crash(down_us);
            }
            if let Some(reason) = self.machine.stopped.take() {
                return Err(format!("seed {}: the server stopped: {reason}", self.setup.seed));
            }
            if let Some(fault) = self.plan.next(self.operations()) {
                self.strike(fault);
                self.carry();
            }
        }
        self.finish()
    }

    fn finish(&mut self) -> Result<(), String> {
        let Some(server) = &self.server else { return Err("the server is down at the end".into()) };
        if !server.is_settled() {
            return Err(format!("seed {}: something was proposed and never applied everywhere", self.setup.seed));
        }
        let dump = server.dump();
        if let Some(life) = self.network.history.lives.last_mut() {
            life.final_dump = Some(dump);
        }
        Ok(())
    }

    fn ask_last(&mut self) {
        for client in 0..self.clients.len() {
            let actions = self.clients[client].last_turn();
            self.act(client, actions);
        }
    }

    fn on_event(&mut self, event: Event, over: bool) {
        match event {
            Event::Start => {
                if let Err(reason) = self.start() {
                    self.machine.stopped = Some(reason);
                }
            }
            Event::ClientTurn(_) if over => {}
            Event::ClientTurn(client) => {
                let (actions, delay_us) = self.clients[client].turn();
                self.act(client, actions);
                self.machine.agenda.push(self.machine.now_us + delay_us, event);
            }
            Event::ToServer(key) => self.give_server(key),
            Event::ToClient(key) => {
                let arrival = self.network.arrive(&mut self.machine, key);
                self.give_client(key, arrival);
            }
            Event::Inside(life, inside) => {
                if life == self.machine.life
                    && let Some(server) = &mut self.server
                {
                    server.on_event(&mut self.machine, inside);
                }
            }
        }
    }

    fn act(&mut self, client: usize, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Connect { handshake, wrong_password } => {
                    if self.server.is_none() {
                        self.current[client] = (None, None);
                        self.clients[client].on_closed();
                        return;
                    }
                    let key = self.network.open(&mut self.machine, client, &handshake, wrong_password);
                    self.current[client] = (Some(key), self.current[client].0);
                }
                Action::Send { bytes, broken_frame } => {
                    if let Some(key) = self.current[client].0 {
                        self.network.send(&mut self.machine, key, &bytes, broken_frame);
                    }
                }
                Action::SendOnOld(bytes) => {
                    if let Some(key) = self.current[client].1 {
                        self.network.send(&mut self.machine, key, &bytes, false);
                    }
                }
                Action::Disconnect => {
                    if let Some(key) = self.current[client].0.take() {
                        self.network.break_off(&mut self.machine, key);
                    }
                }
            }
        }
    }

    fn give_server(&mut self, key: usize) {
        let Some((piece, end)) = self.network.next_up(key, self.machine.life) else { return };
        let Some(server) = &mut self.server else { return };
        match (piece, end) {
            (Upward::Open, _) => {
                let address = IpAddr::V4(self.network.history.connections[key].address);
                let connection = server.connect(&mut self.machine, address);
                self.network.accepted(key, connection);
            }
            (Upward::Bytes(bytes), Some(connection)) => {
                if !server.reads(&self.machine, connection) {
                    return self.network.put_back(&mut self.machine, key, Upward::Bytes(bytes));
                }
                let told = self.network.told;
                if let Some(rest) = server.receive(&mut self.machine, connection, &bytes, told) {
                    self.network.put_back(&mut self.machine, key, Upward::Bytes(rest));
                }
            }
            (Upward::Close, Some(connection)) => server.disconnect(connection),
            (Upward::Bytes(_) | Upward::Close, None) => {}
        }
    }

    fn give_client(&mut self, key: usize, arrival: Arrival) {
        let client = self.network.client_of(key);
        if self.current[client].0 == Some(key) {
            arrival.frames.iter().for_each(|body| self.clients[client].on_frame(body));
        }
        if !arrival.closed {
            return;
        }
        if self.current[client].0 == Some(key) {
            self.current[client].0 = None;
            self.clients[client].on_closed();
        } else if self.current[client].1 == Some(key) {
            self.current[client].1 = None;
            self.clients[client].on_old_closed();
        }
    }

    /// Carries away what the server gave out.
    fn carry(&mut self) {
        for (header, kind) in std::mem::take(&mut self.machine.committed) {
            self.note(header, kind);
        }
        for sending in std::mem::take(&mut self.machine.sendings) {
            self.network.send_down(&mut self.machine, sending.connection, sending.bytes, sending.closes);
        }
    }

    fn note(&mut self, header: TxnHeader, kind: CommittedKind) {
        let at = self.network.moment(self.machine.now_us);
        let request = match header.request.connection {
            ConnectionId::NONE => None,
            connection => self.network.key_of(connection).map(|key| (key, header.request.sequence)),
        };
        let TxnHeader { zxid, time_ms, session, .. } = header;
        if let Some(life) = self.network.history.lives.last_mut() {
            life.committed.push(Committed { zxid, time_ms, at, session, request, kind });
        }
    }

    fn start(&mut self) -> Result<(), String> {
        let life = self.network.history.lives.len();
        self.machine.life = life;
        if life > 0 {
            self.note_recovered();
        }
        let shards = match self.setup.shards {
            Some(shards) => shards,
            None => self.machine.schedule.choose(&SHARDS),
        };
        self.shards.push(shards);
        let boot = self.machine.schedule.any();
        let (server, recovered) = Server::start(&mut self.machine, shards, boot)?;
        let started = self.network.moment(self.machine.now_us);
        let recovered_dump = server.dump();
        let skipped_to = self.machine.skipped_to.take();
        self.network.history.lives.push(Life { started, recovered, recovered_dump, skipped_to, ..Life::default() });
        self.server = Some(server);
        Ok(())
    }

    /// Transactions that were durable before the crash and whose commit nobody had seen: they are the last life's.
    fn note_recovered(&mut self) {
        let seen = self.network.history.lives.last().and_then(|life| life.committed.last());
        let mut seen = seen.map_or(Zxid::ZERO, |commit| commit.zxid);
        for life in self.network.history.lives.iter().rev() {
            seen = seen.max(life.recovered);
        }
        let (_, records) = journal::recover(&self.machine.disk, seen);
        let records: Vec<(TxnHeader, CommittedKind)> = records
            .iter()
            .filter(|(zxid, _)| *zxid > seen)
            .filter_map(|(_, record)| Txn::decode(record).ok())
            .map(|txn| (txn.header, kind_of(&txn)))
            .collect();
        records.into_iter().for_each(|(header, kind)| self.note(header, kind));
    }

    fn strike(&mut self, fault: Fault) {
        match fault {
            Fault::Crash { down_us } => self.crash(down_us),
            Fault::Stall { shard, for_us } => {
                if let Some(server) = &mut self.server {
                    let shard = (shard % server.shards_len() as u64) as usize;
                    let until_us = self.machine.now_us + for_us;
                    server.stall(shard, until_us);
                    self.network.history.stalls.push((self.machine.now_us, until_us));
                }
            }
            Fault::SlowDisk { for_us } => self.machine.slow_disk_until_us = self.machine.now_us + for_us,
            Fault::FullDisk { for_us } => self.machine.full_disk_until_us = self.machine.now_us + for_us,
            Fault::FailedSync => self.machine.sync_fails = true,
            Fault::Break { connection } => {
                let open = self.network.open_ones();
                let Some(key) = open.get((connection % open.len().max(1) as u64) as usize).copied() else { return };
                self.network.break_off(&mut self.machine, key);
                let frames = Vec::new();
                self.give_client(key, Arrival { frames, closed: true });
            }
        }
    }

    fn crash(&mut self, down_us: u64) {
        let Some(server) = self.server.take() else { return };
        let life = self.machine.life;
        self.machine.sync_fails = false;
        self.machine.set_refusing(false);
        if let Err(reason) = server.crash(&mut self.machine, &mut self.faults) {
            self.machine.stopped = Some(reason);
        }
        let at = self.network.moment(self.machine.now_us);
        if let Some(life) = self.network.history.lives.last_mut() {
            life.crashed = Some(at);
        }
        // Events of this life find nobody any more.
        self.machine.life = usize::MAX;
        for (key, arrival) in self.network.crashed(&mut self.machine, life) {
            self.give_client(key, arrival);
        }
        self.machine.agenda.push(self.machine.now_us + down_us, Event::Start);
    }
}
