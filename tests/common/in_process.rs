//! A server on threads of this process.

use super::TestDir;
use ringkeeper::config::ServerConfig;
use ringkeeper::coordination::server::{Server, ServerOptions};
use std::net::SocketAddr;

/// A running server with a data directory of its own; stopped and removed in the end.
pub struct InProcess {
    server: Option<Server>,
    _directory: TestDir,
}

impl InProcess {
    /// Starts a server with short ticks and small log segments, after `adjust` has had its say.
    pub fn start(test: &str, shards: u16, adjust: impl FnOnce(&mut ServerConfig)) -> InProcess {
        let directory = TestDir::new(test);
        let mut config = ServerConfig::for_dev(directory.join("data"));
        config.client_port = 0;
        config.shards = Some(shards);
        config.tick_time_ms = 100;
        config.min_session_timeout_ms = 200;
        config.pre_alloc_size_kib = 1024;
        adjust(&mut config);
        let options = ServerOptions { allow_sharing_cpus: true, ..ServerOptions::default() };
        let server = Server::start(config, options).expect("the server starts");
        InProcess { server: Some(server), _directory: directory }
    }

    /// Where it serves.
    pub fn address(&self) -> SocketAddr {
        self.server.as_ref().expect("running until dropped").address()
    }
}

impl Drop for InProcess {
    fn drop(&mut self) {
        let Some(server) = self.server.take() else { return };
        server.stop_signal().stop();
        let result = server.join();
        if !std::thread::panicking() {
            result.expect("the server stops without an error");
        }
    }
}
