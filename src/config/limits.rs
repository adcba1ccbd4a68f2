//! Defaults and bounds of every honoured key, with the relations between them checked at compile time.
//!
//! The defaults are those of ZooKeeper 3.9; where ZooKeeper resets a too small value, the bound is ZooKeeper's own.

/// `tickTime` when the file does not set it.
pub const TICK_TIME_MS_DEFAULT: u32 = 3_000;
/// `tickTime` of the sample configuration and of `ringkeeper dev`.
pub const TICK_TIME_MS_SAMPLE: u32 = 2_000;
/// Largest `tickTime`: `20 x tickTime`, the default session timeout, must fit the wire's signed 32 bits.
pub const TICK_TIME_MS_MAX: u32 = 100_000_000;
/// Default `minSessionTimeout` in ticks.
pub const SESSION_TIMEOUT_TICKS_MIN: u32 = 2;
/// Default `maxSessionTimeout` in ticks.
pub const SESSION_TIMEOUT_TICKS_MAX: u32 = 20;
/// The largest duration that the wire and ZooKeeper's own parser can hold.
pub const DURATION_MS_MAX: u32 = i32::MAX as u32;

/// `clientPort` of the sample configuration and of `ringkeeper dev`.
pub const CLIENT_PORT_SAMPLE: u16 = 2181;
/// `maxClientCnxns`: connections of one client address.
pub const MAX_CLIENT_CNXNS_DEFAULT: u32 = 60;
/// `nio.sessionlessCnxnTimeout`: how long a connection may live without a session.
pub const SESSIONLESS_CNXN_TIMEOUT_MS_DEFAULT: u32 = 10_000;
/// `globalOutstandingLimit`: requests in flight before reading from clients stops.
pub const GLOBAL_OUTSTANDING_LIMIT_DEFAULT: u32 = 1_000;

/// `jute.maxbuffer`: the largest request packet.
pub const JUTE_MAX_BUFFER_BYTES_DEFAULT: u32 = 0xf_ffff;
/// Smallest `jute.maxbuffer`: handshakes and small requests must fit.
pub const JUTE_MAX_BUFFER_BYTES_MIN: u32 = 1_024;
/// Largest `jute.maxbuffer`: a packet length is a signed 32-bit integer.
pub const JUTE_MAX_BUFFER_BYTES_MAX: u32 = i32::MAX as u32;

/// `snapCount`: transactions between snapshots.
pub const SNAP_COUNT_DEFAULT: u32 = 100_000;
/// ZooKeeper resets a smaller `snapCount` to this.
pub const SNAP_COUNT_MIN: u32 = 2;
/// `snapSizeLimitInKb`: log bytes between snapshots.
pub const SNAP_SIZE_LIMIT_KIB_DEFAULT: u64 = 4 * 1_024 * 1_024;
/// `preAllocSize`: log bytes made ready ahead of the writer. A quarter of ZooKeeper's default: here they are written over with
/// zeros, and then recycled.
pub const PRE_ALLOC_SIZE_KIB_DEFAULT: u32 = 16 * 1_024;
/// Largest `preAllocSize`: 4 GiB, the largest segment of the log. More is a unit mistake, since the key counts in KiB.
pub const PRE_ALLOC_SIZE_KIB_MAX: u32 = 4 * 1_024 * 1_024;
/// `autopurge.snapRetainCount`, which is also the least that ZooKeeper allows.
pub const SNAP_RETAIN_COUNT_MIN: u32 = 3;
/// `fsync.warningthresholdms`: a slower flush is reported.
pub const FSYNC_WARNING_THRESHOLD_MS_DEFAULT: u32 = 1_000;

/// Most shards of one process (`ringkeeper.shards`).
pub const SHARDS_MAX: u16 = 1_024;
/// Largest CPU number accepted in `ringkeeper.cpus`, above what Linux supports on any machine.
pub const CPU_NUMBER_MAX: u32 = 8_191;
/// Longest spin before an idle shard parks: 10 ms; more only heats the machine.
pub const SPIN_MICROS_MAX: u32 = 10_000;
/// `ringkeeper.readCacheMiB`: what a shard may keep of other shards' records.
pub const READ_CACHE_MIB_DEFAULT: u32 = 32;
/// Largest `ringkeeper.readCacheMiB`: 1 TiB a shard.
pub const READ_CACHE_MIB_MAX: u32 = 1 << 20;

const _: () = assert!(SESSION_TIMEOUT_TICKS_MIN < SESSION_TIMEOUT_TICKS_MAX);
const _: () = assert!(TICK_TIME_MS_MAX as u64 * SESSION_TIMEOUT_TICKS_MAX as u64 <= DURATION_MS_MAX as u64);
const _: () = assert!(TICK_TIME_MS_DEFAULT <= TICK_TIME_MS_MAX && TICK_TIME_MS_SAMPLE <= TICK_TIME_MS_MAX);
const _: () = assert!(JUTE_MAX_BUFFER_BYTES_MIN < JUTE_MAX_BUFFER_BYTES_DEFAULT);
const _: () = assert!(PRE_ALLOC_SIZE_KIB_DEFAULT <= PRE_ALLOC_SIZE_KIB_MAX);
