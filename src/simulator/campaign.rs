//! Many seeds: on several threads, each seed on one; what they add up to; and which rare paths none of them took.

use super::simulation::{Report, Setup, run};
use crate::base::planted;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// The rare paths that a campaign must have taken to count as a proof: every mark in the source, by name.
pub const MARKS: &[&str] = &[
    "before-image-read",
    "broken-snapshot-passed-over",
    "catch-up-event",
    "epoch-rolled-over",
    "event-filtered",
    "idle-block",
    "log-purged",
    "moved-session-closes-old-connection",
    "multi-refused",
    "no-room-for-segment",
    "peer-read-parked",
    "power-loss-after-kill",
    "prep-suspended",
    "validated-in-slices",
    "record-remembered",
    "read-of-cached-record",
    "cached-record-changed",
    "cached-record-dropped",
    "read-served-before-own-write",
    "read-waited-for-released",
    "replay-skipped-missing-record",
    "request-waited-for-reads",
    "session-closed-by-server",
    "set-watches-over-shards",
    "snapshot-loaded",
    "snapshot-part-is-fuzzy",
    "snapshot-published",
    "sync-failed",
    "tentative-event-dropped",
    "tentative-event-queued",
    "tentative-watch-dropped",
    "tentative-watch-had-fired",
    "write-of-moved-session-refused",
    "write-passed-waiting-reads",
    "writes-refused",
];

/// Seeds from which on a campaign over mixed numbers of shards is expected to pass every mark.
pub const SEEDS_FOR_ALL_MARKS: u64 = 500;

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Campaign {
    /// The first seed.
    pub start_seed: u64,
    /// How many.
    pub seeds: u64,
    /// Number of shards; mixed when absent.
    pub shards: Option<u16>,
    /// Least number of client operations of a run.
    pub operations: u64,
    /// A bug to plant; needs the feature `planted-bugs`.
    pub planted: Option<&'static str>,
    /// Threads.
    pub threads: usize,
    /// Whether the first failure ends it.
    pub stops_at_failure: bool,
}

/// What the runs of a campaign add up to.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct Totals {
    pub seeds: u64,
    pub operations: u64,
    pub faults: u64,
    pub transactions: u64,
    pub replies: u64,
    pub events: u64,
    pub virtual_ms: u64,
    /// Over the trace hashes of all seeds, in any order.
    pub trace_hash: u64,
    pub marks: BTreeMap<&'static str, u64>,
    /// Failures by seed.
    pub failures: BTreeMap<u64, String>,
}

impl Totals {
    fn add(&mut self, report: Report) {
        self.seeds += 1;
        self.operations += report.operations;
        self.faults += report.faults;
        self.virtual_ms += report.virtual_ms;
        self.trace_hash = self.trace_hash.wrapping_add(report.trace_hash);
        for (mark, times) in report.marks {
            *self.marks.entry(mark).or_default() += times;
        }
        match report.result {
            Ok(verified) => {
                self.transactions += verified.transactions;
                self.replies += verified.replies;
                self.events += verified.events;
            }
            Err(violation) => drop(self.failures.insert(report.seed, violation)),
        }
    }

    /// Marks that no run passed.
    pub fn marks_missed(&self) -> Vec<&'static str> {
        MARKS.iter().copied().filter(|mark| !self.marks.contains_key(mark)).collect()
    }
}

/// Runs the seeds of `campaign`; `on_report` is told of each run as it ends.
pub fn run_all(campaign: &Campaign, on_report: impl Fn(&Report) + Sync) -> Totals {
    let (next, stop, totals) = (AtomicU64::new(0), AtomicBool::new(false), Mutex::new(Totals::default()));
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= campaign.seeds || stop.load(Ordering::Relaxed) {
                return;
            }
            let report = run_seed(campaign, campaign.start_seed.wrapping_add(number));
            if report.result.is_err() && campaign.stops_at_failure {
                stop.store(true, Ordering::Relaxed);
            }
            on_report(&report);
            totals.lock().unwrap_or_else(PoisonError::into_inner).add(report);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..campaign.threads.max(1) {
            scope.spawn(work);
        }
        work();
    });
    totals.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// One seed. A panic of a core is a failure like any other.
pub fn run_seed(campaign: &Campaign, seed: u64) -> Report {
    let setup = Setup { seed, shards: campaign.shards, operations: campaign.operations, planted: campaign.planted };
    plant(campaign.planted);
    let outcome = catch_unwind(AssertUnwindSafe(|| run(setup)));
    plant(None);
    outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default();
        Report {
            seed,
            shards: Vec::new(),
            operations: 0,
            faults: 0,
            trace_hash: 0,
            virtual_ms: 0,
            marks: BTreeMap::new(),
            result: Err(format!("seed {seed}: a core panicked: {text}")),
        }
    })
}

#[cfg(feature = "planted-bugs")]
fn plant(name: Option<&'static str>) {
    assert!(planted::plant(name), "bugs are looked up before they are planted");
}

#[cfg(not(feature = "planted-bugs"))]
fn plant(name: Option<&'static str>) {
    debug_assert!(name.is_none() || !planted::NAMES.is_empty(), "without the feature nothing is planted");
}
