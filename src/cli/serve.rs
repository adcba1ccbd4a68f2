//! `ringkeeper server` and `ringkeeper dev`.

use super::CliError;
use crate::base::Zxid;
use crate::config::{self, ServerConfig};
use crate::coordination::server::{Server, ServerError, ServerOptions};
use crate::process::{self, ProcessError};
use crate::storage::Backend;
use clap::Args;
use std::io::IsTerminal;
use std::path::PathBuf;

/// Arguments of `server`.
#[derive(Debug, Args)]
pub struct ServerArgs {
    /// A zoo.cfg
    config: PathBuf,
    /// Set a key of the configuration, over what the file says
    #[arg(long = "override", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// Give up everything after this transaction (0x..): the way on after damage to the log, at the price of what is behind it
    #[arg(long, value_name = "ZXID", value_parser = parse_zxid)]
    discard_after: Option<Zxid>,
    /// Allow more shards than CPUs
    #[arg(long, hide = true)]
    allow_sharing_cpus: bool,
    /// Where bytes go: direct, or for crash tests lossy or lossy:SEED
    #[arg(long, hide = true, default_value = "direct")]
    storage: Backend,
    /// Plant a bug of the cores on every shard
    #[cfg(feature = "planted-bugs")]
    #[arg(long, hide = true, value_name = "BUG")]
    plant: Option<String>,
}

/// Arguments of `dev`.
#[derive(Debug, Args)]
pub struct DevArgs {
    /// Where the data is kept
    #[arg(long, value_name = "DIR", default_value = "ringkeeper-data")]
    data: PathBuf,
    /// The port that clients connect to
    #[arg(long, default_value_t = config::limits::CLIENT_PORT_SAMPLE)]
    port: u16,
}

fn parse_zxid(text: &str) -> Result<Zxid, String> {
    let digits = text.strip_prefix("0x").ok_or("a transaction id is written as 0x and hexadecimal digits")?;
    u64::from_str_radix(digits, 16).map(Zxid).map_err(|error| error.to_string())
}

/// Logs go to standard error, one line an event; `RUST_LOG` chooses what.
fn start_logging() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,glommio=warn"));
    let _ = tracing_log::LogTracer::init();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .finish();
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// Logs go to standard error if `RUST_LOG` asks for any.
pub(super) fn start_logging_if_asked() {
    if std::env::var_os("RUST_LOG").is_some() {
        start_logging();
    }
}

/// Flags that ZooKeeper's scripts would have given to the JVM.
fn jvm_flags() -> Vec<String> {
    ["JVMFLAGS", "SERVER_JVMFLAGS"]
        .iter()
        .filter_map(|name| std::env::var(name).ok())
        .flat_map(|flags| flags.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

/// Runs a server until it is told to stop.
pub fn server(args: ServerArgs) -> Result<(), CliError> {
    start_logging();
    let loaded = config::load(&args.config, &args.overrides, &jvm_flags())?;
    loaded.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let options = ServerOptions {
        allow_sharing_cpus: args.allow_sharing_cpus,
        backend: args.storage,
        discard_after: args.discard_after,
        #[cfg(feature = "planted-bugs")]
        planted: args.plant,
        ..ServerOptions::default()
    };
    run(loaded.config, options, |_| {})
}

/// Runs a server for trying things out.
pub fn dev(args: DevArgs) -> Result<(), CliError> {
    start_logging();
    let mut config = ServerConfig::for_dev(args.data.clone());
    config.client_port = args.port;
    run(config, ServerOptions::default(), |server| {
        let address = server.address();
        println!("ringkeeper serves ZooKeeper clients on {address}; its data is in {}", args.data.display());
        println!("Try it, in another terminal:");
        println!("  ringkeeper zk -s {address} create /hello world");
        println!("  ringkeeper zk -s {address} get /hello");
        println!("  ringkeeper zk -s {address} watch / --recursive");
        println!("or with any ZooKeeper client:  zkCli.sh -server {address}");
        println!("Ctrl-C stops it.");
    })
}

fn run(config: ServerConfig, options: ServerOptions, started: impl FnOnce(&Server)) -> Result<(), CliError> {
    process::stop_on_signals(options.stop.clone())?;
    let server = match Server::start(config, options) {
        Err(ServerError::Process(ProcessError::Stopped)) => return Ok(()),
        result => result?,
    };
    tracing::info!("serving clients on {}", server.address());
    started(&server);
    Ok(server.join()?)
}
