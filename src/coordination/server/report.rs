//! Reports for the four-letter words: every shard is asked, shard by shard, for its numbers.

use super::shard_driver::ShardDriver;
use crate::base::{ShardId, Zxid};
use crate::coordination::admin::{ConnectionStats, ServerStats, StatsReport};
use crate::metrics::Counters;
use crate::runtime::{LocalNotify, clock};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use super::message::ShardMessage;

/// The numbers of one shard.
#[derive(Clone, Debug, Default)]
pub struct ShardReport {
    /// Counters since the start.
    pub counters: Counters,
    /// Its connections.
    pub connections: Vec<ConnectionStats>,
    /// The last transaction applied.
    pub applied: Zxid,
    /// Its znodes.
    pub znodes: u64,
    /// Its ephemeral znodes.
    pub ephemerals: u64,
    /// Bytes of paths and data.
    pub data_bytes: u64,
    /// Watches of its connections.
    pub watches: u64,
    /// Sessions; the same on every shard.
    pub sessions: u64,
}

/// Reports that are being gathered on one shard.
#[derive(Default)]
pub struct Gathering {
    next_ticket: u64,
    reports: HashMap<u64, (Vec<ShardReport>, Rc<LocalNotify>)>,
}

impl Gathering {
    /// A report has come.
    pub fn arrived(&mut self, ticket: u64, report: ShardReport) {
        if let Some((reports, notify)) = self.reports.get_mut(&ticket) {
            reports.push(report);
            notify.notify();
        }
    }
}

/// Asks all shards and sums up.
pub async fn gather(driver: &Rc<ShardDriver>, gathering: &RefCell<Gathering>) -> StatsReport {
    let others = driver.shards() - 1;
    let notify = Rc::new(LocalNotify::new());
    let ticket = {
        let mut gathering = gathering.borrow_mut();
        gathering.next_ticket += 1;
        let ticket = gathering.next_ticket;
        gathering.reports.insert(ticket, (vec![driver.report()], notify.clone()));
        ticket
    };
    for shard in (0..driver.shards()).map(|index| ShardId(index as u16)).filter(|shard| *shard != driver.id()) {
        driver.send(shard, ShardMessage::ReportWanted(ticket));
    }
    driver.flush_mesh();
    while gathering.borrow().reports.get(&ticket).is_some_and(|(reports, _)| reports.len() < others + 1) {
        notify.notified().await;
    }
    let reports = gathering.borrow_mut().reports.remove(&ticket).map(|(reports, _)| reports).unwrap_or_default();
    sum_up(driver, reports)
}

fn sum_up(driver: &ShardDriver, reports: Vec<ShardReport>) -> StatsReport {
    let mut counters = Counters::default();
    let mut server = ServerStats { mode: "standalone", ..ServerStats::default() };
    let mut connections = Vec::new();
    for report in reports {
        counters.merge(&report.counters);
        server.zxid = server.zxid.max(report.applied);
        server.znode_count += report.znodes;
        server.ephemerals_count += report.ephemerals;
        server.approximate_data_size += report.data_bytes;
        server.watch_count += report.watches;
        server.global_sessions = server.global_sessions.max(report.sessions);
        connections.extend(report.connections);
    }
    // ZooKeeper counts the root twice.
    server.znode_count += 1;
    server.latency = counters.request_latency;
    server.packets_received = counters.packets_received;
    server.packets_sent = counters.packets_sent;
    server.num_alive_connections = counters.connections_alive;
    server.outstanding_requests = counters.outstanding_requests;
    server.uptime_ms = clock::monotonic_ms().saturating_sub(driver.started_ms());
    let (open, max) = descriptors();
    server.open_file_descriptor_count = open;
    server.max_file_descriptor_count = max;
    StatsReport {
        is_serving: driver.is_serving(),
        server,
        connections,
        extra: counters.rows(),
        environment: environment(),
    }
}

/// What `envi` tells of the machine and the user.
fn environment() -> Vec<(String, String)> {
    let system = rustix::system::uname();
    let of = |name: &str| std::env::var(name).unwrap_or_default();
    let directory = std::env::current_dir().map_or_else(|_| String::new(), |path| path.display().to_string());
    [
        ("host.name", system.nodename().to_string_lossy().into_owned()),
        ("os.name", system.sysname().to_string_lossy().into_owned()),
        ("os.arch", system.machine().to_string_lossy().into_owned()),
        ("os.version", system.release().to_string_lossy().into_owned()),
        ("user.name", of("USER")),
        ("user.home", of("HOME")),
        ("user.dir", directory),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

/// Files open in this process, and how many it may open.
fn descriptors() -> (u64, u64) {
    let open = std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    (open, limit.current.unwrap_or(u64::MAX))
}
