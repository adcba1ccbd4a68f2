//! Starting and stopping a server.

use super::error::ServerError;
use super::limits::Limits;
use super::observer::Observer;
use super::service::Coordination;
use crate::base::Zxid;
use crate::config::ServerConfig;
use crate::coordination::persistence::data_dir::DataDir;
use crate::process::{Prepared, Process, ProcessConfig};
use crate::runtime::{ListenAt, StopSignal};
use crate::storage::Backend;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

/// Choices that are not configuration.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// More shards than CPUs: for tests.
    pub allow_sharing_cpus: bool,
    /// Where bytes go.
    pub backend: Backend,
    /// How much it holds of everything.
    pub limits: Limits,
    /// Who is told what happens.
    pub observer: Option<Arc<dyn Observer>>,
    /// `--discard-after`: give up everything behind this transaction.
    pub discard_after: Option<Zxid>,
    /// Raised to stop the server, also while it starts.
    pub stop: StopSignal,
    /// A bug to plant on every shard, so that a test can show that it finds it; an unknown name ends the server.
    #[cfg(feature = "planted-bugs")]
    pub planted: Option<String>,
}

impl Default for ServerOptions {
    fn default() -> Self {
        ServerOptions {
            allow_sharing_cpus: false,
            backend: Backend::Direct,
            limits: Limits::default(),
            observer: None,
            discard_after: None,
            stop: StopSignal::new(),
            #[cfg(feature = "planted-bugs")]
            planted: None,
        }
    }
}

/// A running server.
pub struct Server {
    process: Process<Coordination>,
}

impl Server {
    /// Starts a server and waits until it serves.
    pub async fn launch(config: ServerConfig, options: ServerOptions) -> Result<Server, ServerError> {
        let shards = usize::from(config.shards.unwrap_or_else(default_shards));
        let address = client_address(&config)?;
        let spin = Duration::from_micros(config.spin_micros.into());
        let process = ProcessConfig {
            shards,
            cpus: config.cpus.as_ref().map(|cpus| cpus.iter().map(|cpu| *cpu as usize).collect()),
            allow_sharing_cpus: options.allow_sharing_cpus,
            spin_before_park: (!spin.is_zero()).then_some(spin),
            listen: vec![ListenAt::from(address).with_backlog(config.client_port_listen_backlog)],
            connections_max: config.max_cnxns.map_or(usize::MAX, |max| max as usize),
            stop: options.stop.clone(),
        };
        // What the configuration asks for must be there before anything is written.
        let prepared = Prepared::new(process)?;
        let directories = DataDir::open(&options.backend, &config.data_dir, &config.data_log_dir)?;
        let written = vec![directories.log.clone(), directories.snapshots.clone()];
        let service = Coordination::new(config, options, directories, shards);
        Ok(Server { process: prepared.start(written, service).await? })
    }

    /// [`Server::launch`] for a thread that may block.
    pub fn start(config: ServerConfig, options: ServerOptions) -> Result<Server, ServerError> {
        futures_lite::future::block_on(Server::launch(config, options))
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.process.addresses()[0]
    }

    /// Raised to stop the server.
    pub fn stop_signal(&self) -> StopSignal {
        self.process.stop_signal()
    }

    /// Waits for the end of the server.
    pub async fn ended(&self) -> Result<(), ServerError> {
        self.process.ended().await
    }

    /// [`Server::ended`] for a thread that may block; waits for the server's threads as well.
    pub fn join(self) -> Result<(), ServerError> {
        self.process.join()
    }
}

fn default_shards() -> u16 {
    crate::runtime::shards::allowed_cpus().map_or(1, |cpus| cpus.len().clamp(1, u16::MAX.into()) as u16)
}

fn client_address(config: &ServerConfig) -> Result<SocketAddr, ServerError> {
    let host = config.client_port_address.as_deref().unwrap_or("0.0.0.0");
    let failed =
        |reason: String| ServerError::ClientAddress { address: format!("{host}:{}", config.client_port), reason };
    let mut addresses = (host, config.client_port).to_socket_addrs().map_err(|error| failed(error.to_string()))?;
    addresses.next().ok_or_else(|| failed("the name has no address".into()))
}
