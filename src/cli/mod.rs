//! The command line.

mod bench;
mod inspect;
mod one_shard;
mod serve;
mod simulate;
mod zk;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// A coordination ensemble that speaks ZooKeeper's protocol.
#[derive(Debug, Parser)]
#[command(name = "ringkeeper", version)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a server with a zoo.cfg
    Server(serve::ServerArgs),
    /// Run a server on this machine for trying things out, without configuration
    Dev(serve::DevArgs),
    /// Look at and change znodes, as a client
    Zk(zk::ZkArgs),
    /// Show what is in a data directory, a log segment or a snapshot file, and whether it is whole
    Inspect(inspect::InspectArgs),
    /// Prove order and durability in a simulation: one seed is one run
    Simulate(simulate::SimulateArgs),
    /// Measure a server
    Bench(bench::BenchArgs),
}

/// Why a command failed: one text for the operator.
pub type CliError = Box<dyn std::error::Error + Send + Sync>;

/// Runs the command of this process's arguments.
pub fn main() -> ExitCode {
    let result = match CommandLine::parse().command {
        Command::Server(args) => serve::server(args),
        Command::Dev(args) => serve::dev(args),
        Command::Zk(args) => zk::run(args).map_err(Into::into),
        Command::Inspect(args) => inspect::run(args),
        Command::Simulate(args) => simulate::run(args),
        Command::Bench(args) => bench::run(args).map_err(Into::into),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringkeeper: {error}");
            ExitCode::FAILURE
        }
    }
}
