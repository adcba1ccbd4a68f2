//! One run: clients, network, server and disk under one seed, from the first connection to the verdict.

use super::checker::{Promises, Verified, verify};
use super::client::ClientDriver;
use super::faults::{Fault, Plan};
use super::machine::{Machine, SESSION_TIMEOUT_MS, TICK_MS};
use super::recorder::Recorder;
use super::workload::{Client, Habits};
use crate::base::coverage;
use crate::base::prng::Prng;
use crate::runtime::world::{HostId, World, pause_us};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

/// What a run is made of.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// The seed.
    pub seed: u64,
    /// Number of shards; drawn anew for each life of the server when absent.
    pub shards: Option<u16>,
    /// Least number of client operations.
    pub operations: u64,
    /// A bug to plant.
    pub planted: Option<&'static str>,
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

/// Between two looks at how far the clients are, in microseconds.
const LOOK_US: u64 = 500;
/// After the last fault, every request is answered within this, in microseconds.
const ANSWER_US_MAX: u64 = 20_000_000;
/// A run that has not sent its operations by then, in microseconds, stands still.
const RUN_US_MAX: u64 = 600_000_000;
/// So long must nothing be committed before a run counts as quiet, in microseconds.
const QUIET_US: u64 = 200_000;
/// How long after the end of a full disk the server may still refuse, in microseconds.
const ROOM_NOTICED_US: u64 = 2_000_000;

/// Runs a seed and verifies what came of it.
pub fn run(setup: Setup) -> Report {
    coverage::start();
    let world = World::new(setup.seed);
    let recorder = Recorder::new(setup.seed);
    let simulation = Rc::new(Simulation::new(setup, &world, recorder.clone()));
    let main = simulation.clone();
    let outcome = world.run(async move { main.run().await });
    let marks = coverage::finish();
    let result = outcome.unwrap_or_else(|| Err(format!("seed {}: nothing moves any more", setup.seed)));
    let history = recorder.into_history();
    let verdict = verify(&history, &promises(&world)).map_err(|violation| violation.to_string());
    let report = Report {
        seed: setup.seed,
        shards: simulation.machine.shards_of_lives.take(),
        operations: simulation.operations(),
        faults: simulation.plan.borrow().done,
        trace_hash: world.trace_hash(),
        virtual_ms: world.now_us() / 1000,
        marks,
        // What the checker says explains more than what the server stopped for.
        result: match (result, verdict) {
            (Err(reason), Err(violation)) => Err(format!("{violation}\nbesides: {reason}")),
            (Ok(()), Err(violation)) => Err(violation),
            (Err(reason), Ok(_)) => Err(reason),
            (Ok(()), Ok(verified)) => Ok(verified),
        },
    };
    drop(simulation);
    report
}

/// What the checker may rely on.
fn promises(world: &World) -> Promises {
    let half_tick_us = u64::from(TICK_MS) * 500;
    Promises {
        session_timeout_ms_min: SESSION_TIMEOUT_MS.0,
        session_timeout_ms_max: SESSION_TIMEOUT_MS.1,
        touch_delay_us_max: half_tick_us + 10_000 + world.network().delay_us_max(),
        expiry_delay_us_max: 3_000_000 + u64::from(TICK_MS) * 2000,
    }
}

struct Simulation {
    setup: Setup,
    world: World,
    recorder: Recorder,
    machine: Machine,
    clients: Vec<Rc<ClientDriver>>,
    plan: RefCell<Plan>,
    faults: RefCell<Prng>,
    /// Until when the disk is full, in microseconds.
    full_until_us: Cell<u64>,
    /// Cuts that heal at a time.
    cuts: RefCell<Vec<(u64, HostId, HostId)>>,
    /// A failed sync is under way: the end of the server is no defect.
    sync_fails: Cell<bool>,
}

/// The host of client `number`.
fn client_host(number: usize) -> HostId {
    HostId::new(number as u16 + 1)
}

impl Simulation {
    fn new(setup: Setup, world: &World, recorder: Recorder) -> Simulation {
        let mut faults = world.stream("faults");
        let count = world.stream("clients").between(3, 6) as usize;
        let client = |number| {
            let client = Client::new(setup.seed, number, Habits::default());
            let address = client_host(number).address();
            ClientDriver::new(number, client, recorder.clone(), Machine::address(), address)
        };
        Simulation {
            setup,
            world: world.clone(),
            machine: Machine::new(world, recorder.clone(), setup.shards, setup.planted),
            clients: (0..count).map(client).collect(),
            recorder,
            plan: RefCell::new(Plan::draw(&mut faults, setup.operations)),
            faults: RefCell::new(faults),
            full_until_us: Cell::new(0),
            cuts: RefCell::default(),
            sync_fails: Cell::new(false),
        }
    }

    fn operations(&self) -> u64 {
        self.clients.iter().map(|client| client.operations()).sum()
    }

    /// Runs to the end. An error is a server that stopped, or does not come to rest.
    async fn run(&self) -> Result<(), String> {
        self.machine.start().await;
        for (number, client) in self.clients.iter().enumerate() {
            let process = self.world.start_process(client_host(number), "client");
            self.world.start_main(process, client.clone().run());
        }
        while self.operations() < self.setup.operations {
            pause_us(LOOK_US).await;
            if self.world.now_us() > RUN_US_MAX {
                return Err(self.stands_still());
            }
            self.pass_time();
            self.look_after_server().await?;
            let fault = self.plan.borrow_mut().next(self.operations());
            if let Some(fault) = fault {
                self.strike(fault).await?;
            }
        }
        self.come_to_rest().await?;
        self.recorder.end();
        let stopped = self.machine.stop().await;
        // A sync that failed may be noticed only now, when its executor had been standing still.
        if self.sync_fails.get() { Ok(()) } else { stopped }
    }

    fn stands_still(&self) -> String {
        let waiting: Vec<String> =
            self.clients.iter().filter(|client| !client.is_answered()).map(|client| client.unanswered()).collect();
        format!(
            "seed {}: every request of a live connection is answered\n  at {} us\n  expected: answers\n  got:      none for {}",
            self.setup.seed,
            self.world.now_us(),
            waiting.join("; ")
        )
    }

    /// The faults are over, every request is answered, and nothing is committed any more.
    async fn come_to_rest(&self) -> Result<(), String> {
        self.clients.iter().for_each(|client| client.rest());
        self.machine.disk().set_full(false);
        self.machine.disk().cancel_failed_sync();
        self.machine.disk().slow_down(0, 1);
        self.world.network().heal_all();
        self.until_answered().await?;
        self.clients.iter().for_each(ClientDriver::ask_last);
        self.until_answered().await?;
        loop {
            let before = self.recorder.commits();
            pause_us(QUIET_US + 8 * self.world.network().delay_us_max()).await;
            self.look_after_server().await?;
            if self.recorder.commits() == before && self.recorder.is_serving() {
                return Ok(());
            }
        }
    }

    async fn until_answered(&self) -> Result<(), String> {
        let began_us = self.world.now_us();
        while !self.recorder.is_serving() || !self.clients.iter().all(|client| client.is_answered()) {
            if self.world.now_us() > began_us + ANSWER_US_MAX {
                return Err(self.stands_still());
            }
            self.look_after_server().await?;
            pause_us(LOOK_US).await;
        }
        Ok(())
    }

    /// Faults that last some time end.
    fn pass_time(&self) {
        let now_us = self.world.now_us();
        let full_until_us = self.full_until_us.get();
        if full_until_us > 0 && full_until_us <= now_us {
            self.full_until_us.set(0);
            self.machine.disk().set_full(false);
        }
        self.cuts.borrow_mut().retain(|(until_us, from, to)| {
            let over = *until_us <= now_us;
            if over {
                self.world.network().heal(*from, *to);
            }
            !over
        });
    }

    /// A server that has ended by itself is started again if it had a reason to end; otherwise it is a defect.
    async fn look_after_server(&self) -> Result<(), String> {
        let Some(end) = self.machine.ended() else { return Ok(()) };
        let reason = end.err().unwrap_or_else(|| "without an error".into());
        if !self.sync_fails.replace(false) {
            return Err(format!("seed {}: the server ended: {reason}", self.setup.seed));
        }
        coverage::mark("sync-failed");
        self.machine.disk().cancel_failed_sync();
        self.machine.kill();
        let down_us = self.faults.borrow_mut().between(100, 50_000);
        pause_us(down_us).await;
        self.machine.start().await;
        Ok(())
    }

    async fn strike(&self, fault: Fault) -> Result<(), String> {
        self.world.trace(format!("{fault:?}").as_bytes());
        tracing::debug!("{} us: {fault:?}", self.world.now_us());
        match fault {
            Fault::Kill { down_us, then_power_loss } => {
                self.machine.kill();
                if then_power_loss {
                    coverage::mark("power-loss-after-kill");
                    self.restart_then_lose_power().await?;
                }
                self.start_after(down_us).await;
            }
            Fault::PowerLoss { down_us } => {
                self.machine.lose_power();
                self.start_after(down_us).await;
            }
            Fault::Stop { down_us } => {
                // What a server that stops has not said yet, it need not say.
                self.recorder.crashed();
                let result = self.machine.stop().await;
                if !self.sync_fails.get() {
                    result?;
                }
                self.start_after(down_us).await;
            }
            Fault::Stall { executor, for_us } => {
                let executors = self.machine.executors();
                if let Some(executor) = executors.get((executor % executors.len().max(1) as u64) as usize) {
                    self.world.stall(*executor, for_us);
                    self.recorder.stalled(self.world.now_us(), self.world.now_us() + for_us);
                }
            }
            Fault::SlowDisk { for_us } => self.machine.disk().slow_down(self.world.now_us() + for_us, 20),
            Fault::FullDisk { for_us } => {
                let until_us = self.world.now_us() + for_us;
                self.machine.disk().set_full(true);
                self.full_until_us.set(until_us);
                self.recorder.no_room(self.world.now_us(), until_us + ROOM_NOTICED_US);
            }
            Fault::FailedSync => {
                self.machine.disk().fail_next_sync();
                self.sync_fails.set(true);
                self.recorder.may_end();
            }
            Fault::Break { client } => self.break_connection(client),
            Fault::Cut { client, up, down, for_us } => {
                let client = client_host((client % self.clients.len() as u64) as usize);
                let until_us = self.world.now_us() + for_us;
                for (from, to) in [(client, Machine::host()), (Machine::host(), client)]
                    .into_iter()
                    .zip([up, down])
                    .filter_map(|(way, wanted)| wanted.then_some(way))
                {
                    self.world.network().cut(from, to);
                    self.cuts.borrow_mut().push((until_us, from, to));
                }
            }
        }
        Ok(())
    }

    async fn start_after(&self, down_us: u64) {
        self.sync_fails.set(false);
        self.machine.disk().cancel_failed_sync();
        if self.faults.borrow_mut().percent(15) {
            self.machine.spoil_newest_snapshot();
        }
        pause_us(down_us).await;
        self.machine.start().await;
    }

    /// The server comes back on what the page cache kept, may acknowledge for a while, and then the power fails (rule E3).
    async fn restart_then_lose_power(&self) -> Result<(), String> {
        let up_us = self.faults.borrow_mut().between(0, 60_000);
        self.sync_fails.set(false);
        self.machine.disk().cancel_failed_sync();
        self.machine.start().await;
        pause_us(up_us).await;
        self.look_after_server().await?;
        self.machine.lose_power();
        Ok(())
    }

    fn break_connection(&self, client: u64) {
        let number = (client % self.clients.len() as u64) as usize;
        self.recorder.broken(number);
        let host = client_host(number);
        self.world.network().reset(&self.world, |from, to| from == host || to == host);
    }
}
