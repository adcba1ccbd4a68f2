//! `ringkeeper zk`: looks into a running ensemble, ours or Apache's, from the command line or an interactive shell.

mod commands;
mod format;
mod interrupt;
mod shell;

use super::one_shard::run_on_one_shard;
use crate::client::{Client, ClientError, ClientOptions, ConnectString};
use crate::runtime::RuntimeError;
use clap::{Args, Subcommand};
use interrupt::Interrupts;
use std::io;
use std::time::Duration;
use thiserror::Error;

/// Arguments of `ringkeeper zk`.
#[derive(Args, Clone, Debug)]
pub struct ZkArgs {
    /// The servers, and the node to take as root: HOST:PORT,HOST:PORT/CHROOT
    #[arg(short = 's', long, default_value = "127.0.0.1:2181", value_name = "HOSTS")]
    server: String,
    /// Session timeout to ask for; also how long to look for a server
    #[arg(long, default_value_t = 30_000, value_parser = clap::value_parser!(i32).range(1..), value_name = "MS")]
    timeout: i32,
    /// What to do; without it, an interactive shell
    #[command(subcommand)]
    command: Option<ZkCommand>,
}

/// What can be done to a node, from the command line and in the shell.
#[derive(Subcommand, Clone, Debug)]
enum ZkCommand {
    /// List the children of a node, one a line
    Ls {
        /// The node
        #[arg(default_value = "/")]
        path: String,
        /// All nodes below it, with their paths
        #[arg(short = 'R')]
        recursive: bool,
        /// Also print the node's stat
        #[arg(short = 's', conflicts_with = "recursive")]
        stat: bool,
        /// Wait for a change of the list and print it
        #[arg(short = 'w', conflicts_with = "recursive")]
        watch: bool,
    },
    /// Print the data of a node
    Get {
        /// The node
        path: String,
        /// Also print its stat
        #[arg(short = 's')]
        stat: bool,
        /// Wait for a change of the node and print it
        #[arg(short = 'w')]
        watch: bool,
    },
    /// Replace the data of a node
    Set {
        /// The node
        path: String,
        /// Its new data
        data: String,
        /// Only if this is the version of its data
        #[arg(short = 'v', default_value_t = -1, hide_default_value = true, allow_hyphen_values = true)]
        version: i32,
        /// Print its new stat
        #[arg(short = 's')]
        stat: bool,
    },
    /// Create a node and print its path
    Create {
        /// The node
        path: String,
        /// Its data; without it, null
        data: Option<String>,
        /// Ephemeral: deleted when this session ends
        #[arg(short = 'e')]
        ephemeral: bool,
        /// Sequential: a number is added to the name
        #[arg(short = 's')]
        sequential: bool,
    },
    /// Delete a node without children
    Delete {
        /// The node
        path: String,
        /// Only if this is the version of its data
        #[arg(short = 'v', default_value_t = -1, hide_default_value = true, allow_hyphen_values = true)]
        version: i32,
    },
    /// Print the stat of a node
    Stat {
        /// The node, which need not exist with -w
        path: String,
        /// Wait for a change of the node and print it
        #[arg(short = 'w')]
        watch: bool,
    },
    /// Print the events of a node until interrupted
    Watch {
        /// The node, which need not exist
        path: String,
        /// Also of all nodes below it
        #[arg(long)]
        recursive: bool,
    },
}

/// Why a command failed, in the user's words.
#[derive(Debug, Error)]
pub enum ZkError {
    /// The ensemble refused, or could not be asked.
    #[error("{0}")]
    Refused(String),
    /// The client failed.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The shard could not be started, or died.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The terminal, or what the output is piped to, failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The user has pressed ctrl-c.
    #[error("interrupted")]
    Interrupted,
}

/// Runs the command, or the shell.
pub fn run(args: ZkArgs) -> Result<(), ZkError> {
    let result = run_on_one_shard(None, move || on_shard(args))?;
    match result {
        // Whoever reads our output has seen enough.
        Err(ZkError::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

async fn on_shard(args: ZkArgs) -> Result<(), ZkError> {
    let interrupts = Interrupts::install()?;
    let connect = ConnectString::parse(&args.server)?;
    let options = ClientOptions { session_timeout_ms: args.timeout, ..ClientOptions::new(connect) };
    let wait = Duration::from_millis(args.timeout as u64);
    let client = interrupts.or_stop(async { Ok(Client::connect(options, wait).await?) }).await?;
    let result = match args.command {
        Some(command) => commands::run_and_wait(&client, command, &interrupts).await,
        None => shell::run(&client, &args.server, &interrupts).await,
    };
    // A server that has just gone away must not turn a command that succeeded into a failure: the session expires by itself.
    if let Err(error) = client.close().await {
        tracing::debug!("closing the session: {error}");
    }
    result
}
