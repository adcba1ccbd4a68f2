//! Executors, the mesh between them, sockets and time. Together with [`crate::storage`] the only code that names glommio.
//!
//! Contract: everything else of this crate runs as tasks on one of the shards started here and reaches the machine through
//! the types below. The hazards of the executor library are contained in this module, so that no caller has to know them:
//!
//! - an executor with latency-sensitive queues can sleep for ever: [`queues`] creates only `Latency::NotImportant` ones, and
//!   [`watchdog`] checks that every shard still turns;
//! - any executor can sleep on tasks that are ready: `heartbeat` wakes each from time to time;
//! - tasks that still wait when their executor ends are leaked with their sockets, and disk operations are abandoned: `tasks`
//!   ends the ones and finishes the others;
//! - a full channel between two shards that answer each other dead-locks: in [`mesh`] nobody waits in a send;
//! - the CPUs of the machine are not the CPUs we may use, and an executor that fails to start is otherwise lost in silence:
//!   [`shards`] takes the affinity mask and starts all of them or none;
//! - what becomes ready on a socket is told once: `readiness` keeps it until a system call has found nothing more;
//! - an accept loop without descriptors spins: [`listener`] counts connections and backs off;
//! - the system's allocator keeps the memory of what was deleted: [`allocator`] is what the binary uses instead;
//! - too little locked memory, no io_uring, no direct IO: [`preflight`] says what to do before anything starts.

pub mod allocator;
pub mod clock;
mod heartbeat;
pub mod listener;
mod locked_memory;
pub mod mesh;
#[cfg(test)]
mod network_tests;
pub mod notify;
pub mod preflight;
pub mod queues;
pub mod random;
mod readiness;
pub mod shards;
pub mod socket;
pub(crate) mod tasks;
mod tcp;
pub mod watchdog;
pub mod world;

pub use allocator::Allocator;
pub use listener::{
    Accepted, BoundListener, ConnectionLimit, ConnectionPermit, ListenAt, Listener, PeerLimit, PeerPermit,
    bind_listeners,
};
pub use mesh::{Mesh, MeshEnd};
pub use notify::{LocalNotify, StopSignal};
pub use queues::{Queue, TaskHandle, TimedOut, need_preempt, sleep, spawn, timeout, yield_if_needed};
pub use shards::{RuntimeError, ShardContext, ShardResult, ShardsConfig, ShardsHandle, run_shards};
pub use socket::Socket;
pub use watchdog::{TurnCounter, Watchdog, WatchdogConfig};
