//! Carries bytes and time between a [`Session`] and its connections: one task for the life of a client.
//!
//! On each connection three things go on at once: receiving, sending (all that became possible in one turn leaves in one
//! send) and keeping alive. The first of them to end ends the connection.

use super::blocking::run_blocking;
use super::chroot::Host;
use super::connection::{Connection, ConnectionError};
use super::error::ClientError;
use super::rotation::Rotation;
use super::session::{Session, TimerOutcome};
use crate::runtime::{LocalNotify, clock, sleep, timeout};
use futures_lite::future::or;
use rand::Rng;
use rand::rngs::SmallRng;
use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

/// What the driver and the handles of a client share.
pub(super) struct Shared {
    pub session: RefCell<Session>,
    /// Raised when the session may have something to send, or its state has changed.
    pub output: LocalNotify,
    pub hosts: Vec<Host>,
    pub reply_bytes_max: usize,
    pub session_timeout_ms: u64,
    /// How the last connection, or attempt to make one, ended.
    pub last_failure: RefCell<Option<String>>,
}

/// Least time that an attempt to connect is given, however short the session timeout.
const ATTEMPT_MS_MIN: u64 = 500;
/// Each end of a connection is one line under this name.
const LOG_TARGET: &str = "client";

/// Runs the client until its session is over.
pub(super) async fn drive(shared: &Shared, mut random: SmallRng) {
    let mut rotation = Rotation::new(shared.hosts.len(), random.random_range(0..shared.hosts.len()));
    loop {
        let (host, wait_ms) = rotation.next();
        sleep_ms(random.random_range(wait_ms)).await;
        if is_over(shared) {
            return;
        }
        let host = &shared.hosts[host];
        let started_ms = clock::monotonic_ms();
        let failure = match attempt(shared, host, &mut random).await {
            Ok(connection) => run_connection(shared, connection).await,
            Err(failure) => failure,
        };
        let lived_ms = clock::monotonic_ms() - started_ms;
        shared.session.borrow_mut().on_disconnected();
        if is_over(shared) {
            return;
        }
        tracing::info!(target: LOG_TARGET, "{}:{}: {failure}", host.name, host.port);
        *shared.last_failure.borrow_mut() = Some(format!("{}:{}: {failure}", host.name, host.port));
        rotation.ended(lived_ms);
    }
}

fn is_over(shared: &Shared) -> bool {
    let session = shared.session.borrow();
    session.state().is_final() || session.is_closing() && session.state() != super::SessionState::Connected
}

async fn sleep_ms(wait_ms: u64) {
    if wait_ms > 0 {
        sleep(Duration::from_millis(wait_ms)).await;
    }
}

/// How a connection ended.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("cannot resolve: {0}")]
    Resolve(std::io::Error),
    #[error("no answer within {0} ms")]
    NoAnswer(u64),
    #[error("no traffic for two thirds of the session timeout")]
    Silent,
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    #[error(transparent)]
    Session(#[from] ClientError),
}

async fn attempt(shared: &Shared, host: &Host, random: &mut SmallRng) -> Result<Connection, Failure> {
    let limit_ms = (shared.session_timeout_ms / shared.hosts.len() as u64).max(ATTEMPT_MS_MIN);
    match timeout(Duration::from_millis(limit_ms), connect(shared, host, random)).await {
        Ok(result) => result,
        Err(_) => Err(Failure::NoAnswer(limit_ms)),
    }
}

async fn connect(shared: &Shared, host: &Host, random: &mut SmallRng) -> Result<Connection, Failure> {
    let addresses = resolve(host).await.map_err(Failure::Resolve)?;
    let address = addresses[random.random_range(0..addresses.len())];
    // The password is copied: the session is not borrowed across the handshake.
    let (mut request, password) = {
        let session = shared.session.borrow();
        let request = session.connect_request();
        let password = request.password.to_owned();
        (crate::protocol::zookeeper::ConnectRequest { password: &[], ..request }, password)
    };
    request.password = &password;
    let (connection, response) = Connection::open(address, &request, shared.reply_bytes_max).await?;
    shared.session.borrow_mut().on_connected(&response, clock::monotonic_us())?;
    tracing::debug!(target: LOG_TARGET, "{address}: attached, timeout {} ms", response.timeout_ms);
    Ok(connection)
}

/// The addresses of `host`; at least one. Names are looked up anew for every attempt, away from the shard.
async fn resolve(host: &Host) -> std::io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.name.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, host.port)]);
    }
    let target = (host.name.clone(), host.port);
    let addresses: Vec<_> = run_blocking("resolve", move || target.to_socket_addrs().map(Iterator::collect)).await??;
    match addresses.is_empty() {
        true => Err(std::io::Error::other("the name has no address")),
        false => Ok(addresses),
    }
}

async fn run_connection(shared: &Shared, mut connection: Connection) -> Failure {
    let socket = connection.socket().clone();
    let failure = or(receive(shared, &mut connection), or(send(shared, &socket), keep_alive(shared))).await;
    socket.close();
    failure
}

async fn receive(shared: &Shared, connection: &mut Connection) -> Failure {
    loop {
        if let Err(error) = connection.receive().await {
            return error.into();
        }
        let now_us = clock::monotonic_us();
        let taken = {
            let mut session = shared.session.borrow_mut();
            connection.frames(|frame| session.on_frame(frame, now_us).map_err(Failure::from))
        };
        if let Err(failure) = taken {
            return failure;
        }
        if shared.session.borrow().state().is_final() {
            return ClientError::Closed.into();
        }
        // A reply may have made room for a queued request.
        shared.output.notify();
    }
}

async fn send(shared: &Shared, socket: &crate::runtime::Socket) -> Failure {
    let mut output = Vec::new();
    loop {
        shared.session.borrow_mut().take_output(clock::monotonic_us(), &mut output);
        if output.is_empty() {
            shared.output.notified().await;
            continue;
        }
        if let Err(error) = socket.write_all(&output).await {
            return ConnectionError::from(error).into();
        }
        output.clear();
    }
}

async fn keep_alive(shared: &Shared) -> Failure {
    loop {
        let now_us = clock::monotonic_us();
        if shared.session.borrow_mut().on_timer(now_us) == TimerOutcome::ServerSilent {
            return Failure::Silent;
        }
        shared.output.notify();
        let due_us = shared.session.borrow().next_deadline_us();
        // At least a millisecond, so that a deadline that has just passed does not make this loop spin.
        sleep(Duration::from_micros(due_us.saturating_sub(now_us).max(1_000))).await;
    }
}
