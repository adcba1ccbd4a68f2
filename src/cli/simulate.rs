//! `ringkeeper simulate`: walks through seeds.

use super::CliError;
use crate::simulator::campaign::{Campaign, SEEDS_FOR_ALL_MARKS, Totals, run_all};
use crate::simulator::simulation::Report;
use clap::Args;
use std::time::Instant;

/// Prove the order and the durability of the server in a simulation: one seed is one run, for ever
#[derive(Debug, Args)]
pub struct SimulateArgs {
    /// How many seeds
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// The first seed; the others follow it. A seed that failed is run again with --start-seed SEED --seeds 1
    #[arg(long, visible_alias = "start", default_value_t = 0)]
    start_seed: u64,
    /// Number of shards; without it, each life of the simulated server has 1, 2, 3 or 8
    #[arg(long)]
    shards: Option<u16>,
    /// Least number of client operations of a seed
    #[arg(long, default_value_t = 520)]
    operations: u64,
    /// Threads to run seeds on [default: all CPUs]
    #[arg(long)]
    threads: Option<usize>,
    /// Plant a bug, and expect that it is found ("all": each of them in turn)
    #[cfg(feature = "planted-bugs")]
    #[arg(long, value_name = "BUG")]
    plant: Option<String>,
    /// Print every seed
    #[arg(long, short)]
    verbose: bool,
}

/// Runs the command.
pub fn run(args: SimulateArgs) -> Result<(), CliError> {
    super::serve::start_logging_if_asked();
    if args.shards.is_some_and(|shards| shards == 0 || shards > 64) {
        return Err("--shards must be 1 to 64".into());
    }
    let campaign = Campaign {
        start_seed: args.start_seed,
        seeds: args.seeds,
        shards: args.shards,
        operations: args.operations,
        planted: None,
        threads: args.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)),
        stops_at_failure: false,
    };
    #[cfg(feature = "planted-bugs")]
    if let Some(name) = &args.plant {
        return planted(&campaign, name);
    }
    let started = Instant::now();
    let totals = run_all(&campaign, |report| {
        if args.verbose {
            print(report);
        }
    });
    summarize(&totals, started);
    judge(&campaign, &totals)
}

fn print(report: &Report) {
    println!(
        "seed {}: shards {:?}, {} operations, {} faults, {} ms, trace {:016x}: {}",
        report.seed,
        report.shards,
        report.operations,
        report.faults,
        report.virtual_ms,
        report.trace_hash,
        if report.result.is_ok() { "clean" } else { "FAILED" }
    );
}

fn summarize(totals: &Totals, started: Instant) {
    println!(
        "{} seeds: {} operations, {} faults, {} s of virtual time in {:.1} s, trace {:016x}",
        totals.seeds,
        totals.operations,
        totals.faults,
        totals.virtual_ms / 1000,
        started.elapsed().as_secs_f64(),
        totals.trace_hash
    );
    println!("verified: {} transactions, {} replies, {} events", totals.transactions, totals.replies, totals.events);
    for (mark, times) in &totals.marks {
        println!("{times:>10}  {mark}");
    }
}

fn judge(campaign: &Campaign, totals: &Totals) -> Result<(), CliError> {
    for violation in totals.failures.values() {
        println!("\n{violation}");
    }
    if !totals.failures.is_empty() {
        let seeds: Vec<String> = totals.failures.keys().map(u64::to_string).collect();
        return Err(format!("{} seeds failed: {}", seeds.len(), seeds.join(" ")).into());
    }
    let missed = totals.marks_missed();
    if campaign.seeds >= SEEDS_FOR_ALL_MARKS && campaign.shards.is_none() && !missed.is_empty() {
        return Err(format!("no seed passed these marks: {}", missed.join(", ")).into());
    }
    Ok(())
}

/// Each bug must be found within the seeds of the campaign.
#[cfg(feature = "planted-bugs")]
fn planted(campaign: &Campaign, name: &str) -> Result<(), CliError> {
    use crate::base::planted::NAMES;
    let names: Vec<&'static str> = NAMES.iter().copied().filter(|known| name == "all" || name == *known).collect();
    if names.is_empty() {
        return Err(format!("no bug is called {name}; there are: {}", NAMES.join(", ")).into());
    }
    let mut missed = Vec::new();
    for name in names {
        let campaign = Campaign { planted: Some(name), stops_at_failure: true, ..*campaign };
        let totals = run_all(&campaign, |_| {});
        match totals.failures.first_key_value() {
            None => {
                println!("{name}: not found in {} seeds", totals.seeds);
                missed.push(name);
            }
            Some((seed, violation)) => {
                let what = violation.lines().next().unwrap_or_default();
                println!("{name}: found by seed {seed}, after {} seeds: {what}", totals.seeds);
            }
        }
    }
    if missed.is_empty() { Ok(()) } else { Err(format!("not found: {}", missed.join(", ")).into()) }
}
