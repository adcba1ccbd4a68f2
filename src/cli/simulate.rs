//! `ringkeeper simulate`: seeds, each a server's life with faults, judged from outside.

use super::CliError;
use crate::simulator::simulation::{Setup, run as run_seed};
use clap::Args;
use std::collections::BTreeMap;

/// Arguments of `simulate`.
#[derive(Debug, Args)]
pub struct SimulateArgs {
    /// How many seeds to run
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first of them; a failing seed is run again with --start SEED --seeds 1
    #[arg(long, default_value_t = 0)]
    start: u64,
    /// The number of shards; mixed when absent
    #[arg(long)]
    shards: Option<u16>,
    /// Client operations in a seed
    #[arg(long, default_value_t = 520)]
    operations: u64,
    /// Print a line for each seed
    #[arg(long)]
    verbose: bool,
    /// Plant a bug on purpose, to see it found
    #[cfg(feature = "planted-bugs")]
    #[arg(long)]
    plant: Option<String>,
}

/// Runs the seeds; the first violation ends the run, with its story.
pub fn run(args: &SimulateArgs) -> Result<(), CliError> {
    #[cfg(feature = "planted-bugs")]
    if !crate::base::planted::plant(args.plant.as_deref()) {
        return Err(format!("no such bug; there are: {}", crate::base::planted::NAMES.join(", ")).into());
    }
    let mut marks: BTreeMap<&'static str, u64> = BTreeMap::new();
    let (mut operations, mut faults) = (0, 0);
    for seed in args.start..args.start.saturating_add(args.seeds) {
        let report = run_seed(Setup { seed, shards: args.shards, operations: args.operations });
        operations += report.operations;
        faults += report.faults;
        for (mark, count) in report.marks {
            *marks.entry(mark).or_default() += count;
        }
        if args.verbose {
            println!(
                "seed {seed}: shards {:?}, {} operations, {} faults, {} virtual ms, trace {:016x}",
                report.shards, report.operations, report.faults, report.virtual_ms, report.trace_hash
            );
        }
        if let Err(violation) = report.result {
            return Err(format!("seed {seed}, shards {:?}: {violation}", report.shards).into());
        }
    }
    for (mark, count) in &marks {
        println!("{count:>10}  {mark}");
    }
    println!("{} seeds clean: {operations} operations, {faults} faults", args.seeds);
    Ok(())
}
