//! `ringkeeper bench`: load generators, and the responder that is their floor.

use super::one_shard::run_on_one_shard;
use crate::client::{ClientError, ConnectString};
use crate::loadgen::{BareResponderConfig, BenchReport, LoadError, RatioConfig, run_ratio, serve_bare};
use crate::runtime::{RuntimeError, StopSignal};
use clap::{Args, Subcommand};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;
use thiserror::Error;

/// Arguments of `ringkeeper bench`.
#[derive(Args, Clone, Debug)]
pub struct BenchArgs {
    #[command(subcommand)]
    command: BenchCommand,
}

#[derive(Subcommand, Clone, Debug)]
enum BenchCommand {
    /// Reads and writes in a given ratio, closed loop: how much CPU and how many requests a second
    Ratio(RatioArgs),
    /// A server that does nothing but reply: the floor to compare with
    #[command(hide = true)]
    BareResponder(BareResponderArgs),
}

/// Arguments of `ringkeeper bench ratio`.
#[derive(Args, Clone, Debug)]
pub struct RatioArgs {
    /// The servers, over which the connections are spread: HOST:PORT,...
    #[arg(short = 's', long, default_value = "127.0.0.1:2181", value_name = "HOSTS")]
    hosts: String,
    /// Share of reads in percent; several are run one after another
    #[arg(long, default_value = "100", value_delimiter = ',', value_name = "PERCENT,...")]
    read_share: Vec<f64>,
    /// Size of every value
    #[arg(long, default_value_t = 1024, value_name = "BYTES")]
    value_bytes: usize,
    /// Connections, each with its own session
    #[arg(long, default_value_t = 32, value_name = "N")]
    connections: usize,
    /// Requests in flight on each connection
    #[arg(long, default_value_t = 16, value_name = "N")]
    outstanding: usize,
    /// Number of keys, chosen uniformly
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    keys: u32,
    /// Length of each measured window, such as 10s or 500ms
    #[arg(long, default_value = "10s", value_parser = parse_duration, value_name = "TIME")]
    duration: Duration,
    /// What precedes each window
    #[arg(long, default_value = "2s", value_parser = parse_duration, value_name = "TIME")]
    warmup: Duration,
    /// CPUs that the generator may use; it pins itself to one of them
    #[arg(long, value_delimiter = ',', value_name = "CPU,...")]
    cpus: Option<Vec<usize>>,
    /// Seed of the random keys
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// Also report the CPU time of this server process; may be repeated
    #[arg(long, value_name = "PID")]
    server_pid: Vec<u32>,
    /// Session timeout to ask for
    #[arg(long, default_value_t = 30_000, value_name = "MS")]
    timeout: i32,
    /// Print the results as JSON
    #[arg(long)]
    json: bool,
}

/// Arguments of the bare responder.
#[derive(Args, Clone, Debug)]
pub struct BareResponderArgs {
    /// Where to listen; port 0 lets the kernel choose
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// CPUs that it may use; it pins itself to one of them
    #[arg(long, value_delimiter = ',', value_name = "CPU,...")]
    cpus: Option<Vec<usize>>,
}

/// Why a benchmark gave no result.
#[derive(Debug, Error)]
pub enum BenchError {
    /// The servers are not well written.
    #[error(transparent)]
    Hosts(#[from] ClientError),
    /// The run failed.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The shard could not be started, or died.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// Listening or printing failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The results cannot be written as JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// A chroot was given, which the generator has no use for.
    #[error("bench works below /ringkeeper-bench: leave out the chroot {0}")]
    Chroot(String),
}

/// Runs the command.
pub fn run(args: BenchArgs) -> Result<(), BenchError> {
    match args.command {
        BenchCommand::Ratio(args) => ratio(args),
        BenchCommand::BareResponder(args) => run_bare_responder(args),
    }
}

fn ratio(args: RatioArgs) -> Result<(), BenchError> {
    let connect = ConnectString::parse(&args.hosts)?;
    if !connect.chroot.as_str().is_empty() {
        return Err(BenchError::Chroot(connect.chroot.as_str().to_owned()));
    }
    let config = RatioConfig {
        hosts: connect.hosts,
        read_shares_percent: args.read_share,
        value_bytes: args.value_bytes,
        connections: args.connections,
        outstanding: args.outstanding,
        keys: args.keys,
        duration: args.duration,
        warmup: args.warmup,
        seed: args.seed,
        session_timeout_ms: args.timeout,
        server_pids: args.server_pid,
    };
    let report: BenchReport = run_on_one_shard(args.cpus, move || run_ratio(config, |text| eprintln!("{text}")))??;
    let text = if args.json { report.to_json()? + "\n" } else { report.to_table() };
    Ok(io::stdout().write_all(text.as_bytes())?)
}

/// Runs the bare responder until the process is ended; prints the address that it listens on.
pub fn run_bare_responder(args: BareResponderArgs) -> Result<(), BenchError> {
    let config = BareResponderConfig { address: args.listen };
    let serve = move || serve_bare(config, StopSignal::new(), |address| eprintln!("listening on {address}"));
    Ok(run_on_one_shard(args.cpus, serve)??)
}

/// `10s`, `500ms`, `2m`, or seconds without a unit.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit_ms = match &text[digits.len()..] {
        "ms" => 1.0,
        "s" | "" => 1_000.0,
        "m" => 60_000.0,
        _ => return Err("a time is a number with ms, s or m".into()),
    };
    let number: f64 = digits.parse().map_err(|_| "a time is a number with ms, s or m".to_owned())?;
    Duration::try_from_secs_f64(number * unit_ms / 1_000.0).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: BenchArgs,
    }

    /// A unit read wrongly makes a ten-millisecond benchmark out of ten seconds.
    #[test]
    fn times_have_units() {
        assert_eq!(parse_duration("10").unwrap(), Duration::from_secs(10));
        assert_eq!(parse_duration("1.5s").unwrap(), Duration::from_millis(1500));
        assert_eq!(parse_duration("500ms").unwrap(), Duration::from_millis(500));
        assert_eq!(parse_duration("2m").unwrap(), Duration::from_secs(120));
        for text in ["", "s", "-1s", "10h", "1e400s"] {
            assert!(parse_duration(text).is_err(), "{text:?}");
        }
    }

    /// The lists of the perf scripts must parse as lists.
    #[test]
    fn lists_are_comma_separated() {
        let line =
            Line::try_parse_from(["x", "ratio", "--read-share", "0,50,90,100", "--cpus", "1", "--server-pid", "7"]);
        let BenchCommand::Ratio(args) = line.unwrap_or_else(|error| panic!("{error}")).args.command else {
            panic!("not ratio")
        };
        assert_eq!(
            (args.read_share, args.cpus, args.server_pid),
            (vec![0.0, 50.0, 90.0, 100.0], Some(vec![1]), vec![7])
        );
    }
}
