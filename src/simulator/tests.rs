//! The simulator itself, and the seeds that every test run walks through.

use super::campaign::{Campaign, MARKS, Totals, run_all, run_seed};
use std::path::Path;

fn campaign(start_seed: u64, seeds: u64) -> Campaign {
    Campaign {
        start_seed,
        seeds,
        shards: None,
        operations: 520,
        planted: None,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        stops_at_failure: false,
    }
}

fn assert_clean(totals: &Totals) {
    for violation in totals.failures.values() {
        eprintln!("{violation}");
    }
    assert!(totals.failures.is_empty(), "seeds {:?} failed", totals.failures.keys());
}

/// A seed that fails is a bug report only if it fails again.
#[test]
fn one_seed_is_one_run() {
    for seed in 1..6 {
        let campaign = campaign(seed, 1);
        let (first, second) = (run_seed(&campaign, seed), run_seed(&campaign, seed));
        assert_eq!(first.trace_hash, second.trace_hash, "seed {seed}");
        assert_ne!(first.trace_hash, run_seed(&campaign, seed + 100).trace_hash);
        assert!(first.operations >= 500 && first.faults >= 5, "seed {seed}: {first:?}");
    }
}

/// Order, durability and sessions, over any number of shards; the rarest paths need more seeds than a test has time for.
#[test]
fn seeds_are_clean() {
    let totals = run_all(&campaign(0, 200), |_| {});
    assert_clean(&totals);
    let missed = totals.marks_missed();
    assert!(missed.len() <= 3, "no seed passed {missed:?}");
}

/// A seed that nobody has tried before, printed so that it can be tried again.
#[test]
fn fresh_seeds_are_clean() {
    let start_seed = rand::random::<u64>() >> 1;
    println!("seeds from {start_seed}");
    assert_clean(&run_all(&campaign(start_seed, 40), |_| {}));
}

/// A fixed number of shards takes the same way.
#[test]
fn one_and_three_shards_are_clean() {
    for shards in [1, 3] {
        assert_clean(&run_all(&Campaign { shards: Some(shards), ..campaign(5000, 25) }, |_| {}));
    }
}

/// A mark that nobody lists is never missed.
#[test]
fn every_mark_of_the_source_is_listed() {
    let mut found = std::collections::BTreeSet::new();
    collect_marks(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    let listed = MARKS.iter().map(|mark| (*mark).to_owned()).collect();
    assert_eq!(found, listed);
}

fn collect_marks(directory: &Path, found: &mut std::collections::BTreeSet<String>) {
    let start = concat!("coverage::", "mark(\"");
    for entry in std::fs::read_dir(directory).expect("a source directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect_marks(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).expect("a source file");
            let names = text.split(start).skip(1).filter_map(|rest| rest.split('"').next());
            found.extend(names.map(str::to_owned));
        }
    }
}

/// What the simulator is for: each bug that breaks a rule of order or durability is found within 200 seeds.
#[cfg(feature = "planted-bugs")]
#[test]
fn planted_bugs_are_found() {
    for name in crate::base::planted::NAMES {
        let campaign = Campaign { planted: Some(name), stops_at_failure: true, ..campaign(0, 200) };
        let totals = run_all(&campaign, |_| {});
        assert!(!totals.failures.is_empty(), "{name} was not found in {} seeds", totals.seeds);
    }
}
