//! From a real `zoo.cfg` to a typed [`ServerConfig`].
//!
//! Contract: a configuration that starts Apache ZooKeeper 3.9 standalone either means the same here, or the start is
//! refused with the lines to change. No key is taken in silence: what has no effect here is named in a warning, what is
//! not built yet stops the start (`known_keys.rs` is the list). All problems are told at once.
//!
//! The parsing is a function of its arguments; only [`load`] touches the file system, and only reads. Names are not resolved here.

mod java;
mod known_keys;
pub mod limits;
mod my_id;
mod problem;
mod reader;
mod server_line;
#[cfg(test)]
mod tests;
mod validate;
mod zoo_cfg;

use std::path::{Path, PathBuf};

pub use problem::{ConfigError, Place, Problem};

use zoo_cfg::Settings;

/// Hash function of the `digest` scheme (`DigestAuthenticationProvider.digestAlg`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DigestAlgorithm {
    /// `SHA1`, the default.
    #[default]
    Sha1,
    /// `SHA-256`.
    Sha256,
    /// `SHA-512`.
    Sha512,
}

/// Everything that a standalone server is told at start.
///
/// Invariants: `min_session_timeout_ms <= max_session_timeout_ms`; every number is within its bound of [`limits`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// `dataDir`: snapshots and `myid`.
    pub data_dir: PathBuf,
    /// `dataLogDir`: the transaction log; the same as `data_dir` unless set.
    pub data_log_dir: PathBuf,
    /// `clientPort`; 0 asks the system for a free one.
    pub client_port: u16,
    /// `clientPortAddress`: name or address to listen on, not resolved; `None` means every address.
    pub client_port_address: Option<String>,
    /// `clientPortListenBacklog`; `None` leaves it to the system.
    pub client_port_listen_backlog: Option<u32>,
    /// `tickTime`.
    pub tick_time_ms: u32,
    /// `minSessionTimeout`: what a client asks for is raised to this.
    pub min_session_timeout_ms: u32,
    /// `maxSessionTimeout`: what a client asks for is lowered to this.
    pub max_session_timeout_ms: u32,
    /// `maxClientCnxns`: connections of one client address; `None` is no limit.
    pub max_client_cnxns: Option<u32>,
    /// `maxCnxns`: connections in total; `None` is no limit but the one of open files.
    pub max_cnxns: Option<u32>,
    /// `nio.sessionlessCnxnTimeout`.
    pub sessionless_cnxn_timeout_ms: u32,
    /// `globalOutstandingLimit`: requests in flight before reading from clients stops.
    pub global_outstanding_limit: u32,
    /// `jute.maxbuffer`: the largest request packet.
    pub jute_max_buffer_bytes: u32,
    /// `snapCount`: transactions between snapshots.
    pub snap_count: u32,
    /// `snapSizeLimitInKb`: log KiB between snapshots; `None` is no limit.
    pub snap_size_limit_kib: Option<u64>,
    /// `preAllocSize`: log KiB made ready ahead of the writer.
    pub pre_alloc_size_kib: u32,
    /// `forceSync`: whether a write is acknowledged only when it is on disk.
    pub force_sync: bool,
    /// `fsync.warningthresholdms`: a slower flush is reported; below zero every flush.
    pub fsync_warning_threshold_ms: i64,
    /// `autopurge.snapRetainCount`.
    pub snap_retain_count: u32,
    /// `autopurge.purgeInterval`: old snapshots and the log below them are removed at least this often, and after each
    /// snapshot; `None` is never.
    pub purge_interval_hours: Option<u32>,
    /// `4lw.commands.whitelist`, as written.
    pub four_letter_whitelist: String,
    /// `skipACL`: whether ACLs are not checked at all.
    pub skip_acl: bool,
    /// `DigestAuthenticationProvider.enabled`.
    pub digest_enabled: bool,
    /// `DigestAuthenticationProvider.digestAlg`.
    pub digest_algorithm: DigestAlgorithm,
    /// `DigestAuthenticationProvider.superDigest`: `user:base64(hash)` of the super user.
    pub super_digest: Option<String>,
    /// `ringkeeper.shards`; `None` is one on each usable CPU.
    pub shards: Option<u16>,
    /// `ringkeeper.cpus`, ascending and without doubles; `None` is every CPU that the process may use.
    pub cpus: Option<Vec<u32>>,
    /// `ringkeeper.spinMicros`: how long an idle shard spins before it parks; 0 is off.
    pub spin_micros: u32,
    /// `ringkeeper.readCacheMiB`: what each shard may keep of other shards' records; 0 is nothing.
    pub read_cache_mib: u32,
}

/// A configuration and what its reader should know about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The typed configuration.
    pub config: ServerConfig,
    /// One line each, ready to be logged.
    pub warnings: Vec<String>,
}

/// Reads and parses the file at `path` and the `myid` in its `dataDir`; see [`parse`].
pub fn load(path: &Path, overrides: &[String], jvm_flags: &[String]) -> Result<Loaded, ConfigError> {
    let name = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|source| ConfigError::Unreadable { name: name.clone(), source })?;
    let settings = read_settings(&name, &bytes, overrides, jvm_flags)?;
    let my_id = match settings.by_key.get("dataDir") {
        Some(data_dir) => my_id::read(Path::new(&data_dir.value))?,
        None => None,
    };
    validate::into_config(settings, my_id)
}

/// Parses the bytes of a `zoo.cfg`, for a server without a `myid`.
///
/// `file_name` is for the texts. `overrides` are `key=value` strings that win over everything. `jvm_flags` are the
/// values of `JVMFLAGS` and `SERVER_JVMFLAGS`: their `-D` strings count as in ZooKeeper.
pub fn parse(file_name: &str, bytes: &[u8], overrides: &[String], jvm_flags: &[String]) -> Result<Loaded, ConfigError> {
    validate::into_config(read_settings(file_name, bytes, overrides, jvm_flags)?, None)
}

fn read_settings(
    file_name: &str,
    bytes: &[u8],
    overrides: &[String],
    jvm_flags: &[String],
) -> Result<Settings, ConfigError> {
    let mut settings = Settings::read(file_name, bytes, jvm_flags)?;
    settings.apply_overrides(overrides);
    Ok(settings)
}

impl ServerConfig {
    /// The configuration of `ringkeeper dev`: data under `data_dir`, port 2181 on the loopback address, ticks of two
    /// seconds, every four-letter word; old snapshots and logs are purged.
    pub fn for_dev(data_dir: PathBuf) -> ServerConfig {
        ServerConfig {
            client_port: limits::CLIENT_PORT_SAMPLE,
            client_port_address: Some("127.0.0.1".to_owned()),
            four_letter_whitelist: "*".to_owned(),
            purge_interval_hours: Some(1),
            ..ServerConfig::with_defaults(data_dir, limits::TICK_TIME_MS_SAMPLE)
        }
    }

    /// The directories that hold data, without doubles: `dataDir`, then `dataLogDir`.
    pub fn data_dirs(&self) -> Vec<&Path> {
        let mut dirs = vec![self.data_dir.as_path()];
        if self.data_log_dir != self.data_dir {
            dirs.push(&self.data_log_dir);
        }
        dirs
    }

    /// ZooKeeper's defaults, on a port that the system picks.
    fn with_defaults(data_dir: PathBuf, tick_time_ms: u32) -> ServerConfig {
        ServerConfig {
            data_log_dir: data_dir.clone(),
            data_dir,
            client_port: 0,
            client_port_address: None,
            client_port_listen_backlog: None,
            tick_time_ms,
            min_session_timeout_ms: tick_time_ms * limits::SESSION_TIMEOUT_TICKS_MIN,
            max_session_timeout_ms: tick_time_ms * limits::SESSION_TIMEOUT_TICKS_MAX,
            max_client_cnxns: Some(limits::MAX_CLIENT_CNXNS_DEFAULT),
            max_cnxns: None,
            sessionless_cnxn_timeout_ms: limits::SESSIONLESS_CNXN_TIMEOUT_MS_DEFAULT,
            global_outstanding_limit: limits::GLOBAL_OUTSTANDING_LIMIT_DEFAULT,
            jute_max_buffer_bytes: limits::JUTE_MAX_BUFFER_BYTES_DEFAULT,
            snap_count: limits::SNAP_COUNT_DEFAULT,
            snap_size_limit_kib: Some(limits::SNAP_SIZE_LIMIT_KIB_DEFAULT),
            pre_alloc_size_kib: limits::PRE_ALLOC_SIZE_KIB_DEFAULT,
            force_sync: true,
            fsync_warning_threshold_ms: limits::FSYNC_WARNING_THRESHOLD_MS_DEFAULT,
            snap_retain_count: limits::SNAP_RETAIN_COUNT_MIN,
            purge_interval_hours: None,
            four_letter_whitelist: "srvr".to_owned(),
            skip_acl: false,
            digest_enabled: true,
            digest_algorithm: DigestAlgorithm::Sha1,
            super_digest: None,
            shards: None,
            cpus: None,
            spin_micros: 0,
            read_cache_mib: limits::READ_CACHE_MIB_DEFAULT,
        }
    }
}
