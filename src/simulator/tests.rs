//! The simulator itself, and the seeds that every test run walks through.

use super::simulation::{Setup, run};

fn setup(seed: u64, shards: Option<u16>) -> Setup {
    Setup { seed, shards, operations: 520 }
}

/// A seed that fails is a bug report only if it fails again.
#[test]
fn one_seed_is_one_run() {
    for seed in 1..6 {
        let (first, second) = (run(setup(seed, None)), run(setup(seed, None)));
        assert_eq!(first.trace_hash, second.trace_hash, "seed {seed}");
        assert_ne!(first.trace_hash, run(setup(seed + 100, None)).trace_hash);
    }
}

/// Order, durability and sessions, over any number of shards.
#[test]
fn seeds_are_clean() {
    for seed in 0..60 {
        let report = run(setup(seed, None));
        assert!(report.operations >= 500 && report.faults >= 5, "seed {seed}: {report:?}");
        if let Err(violation) = report.result {
            panic!("shards {:?}: {violation}", report.shards);
        }
    }
}
