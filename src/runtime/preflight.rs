//! Looks at the machine before the shards start, so that a limit is told in words and not met in the middle of the night.
//!
//! Raises what an unprivileged process may raise (soft limits to hard ones) and refuses what cannot work. Each refusal says
//! what happened, where, and what to do next. What merely costs performance or durability is a warning.

use super::locked_memory::{IO_BYTES_MIN, RING_DEPTH_MIN, wait_while_short};
use glommio::{LocalExecutorBuilder, Placement};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Below this the executor library refuses to start.
const LOCKED_MEMORY_MIN: u64 = 512 << 10;
/// Each shard has this many rings; its registered memory is charged once for each.
const RINGS_PER_SHARD: u64 = 3;
/// The least a shard registers.
const IO_MEMORY_MIN: u64 = IO_BYTES_MIN as u64;
/// More registered memory than this brings nothing: reads and writes are at most 512 KiB, four in flight.
const IO_MEMORY_MAX: u64 = 2 << 20;
/// Ring depth of a server that has the memory for it.
const RING_DEPTH_MAX: usize = 1024;
/// Descriptors kept for logs, snapshots, peers and the start of a new process image.
const DESCRIPTORS_RESERVED: u64 = 128;
/// Descriptors an executor needs (rings, event descriptors, its listeners).
const DESCRIPTORS_PER_SHARD: u64 = 16;
/// Unit of the direct-IO probe.
const PROBE_BYTES: usize = 4096;
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// What the server is going to need.
#[derive(Clone, Debug)]
pub struct PreflightConfig {
    /// Number of shards.
    pub shards: usize,
    /// Directories for logs and snapshots; they exist and are writable.
    pub directories: Vec<PathBuf>,
    /// Connections that must be possible at least.
    pub connections_min: u64,
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Report {
    /// Release of the running kernel.
    pub kernel: String,
    /// Memory to register per shard ([`super::ShardsConfig::io_memory_bytes`]) so that all shards fit the limit.
    pub io_memory_bytes: usize,
    /// Depth of the rings ([`super::ShardsConfig::ring_depth`]) so that all shards fit the limit.
    pub ring_depth: usize,
    /// Open files permitted, after raising the soft limit.
    pub open_files_max: u64,
    /// Connections that leave enough descriptors for everything else ([`super::ConnectionLimit`]).
    pub connections_max: usize,
    /// Things an operator should know, a sentence each.
    pub warnings: Vec<String>,
}

/// Why the server cannot run here: what happened, where, and what to do next.
#[derive(Debug, thiserror::Error)]
#[error("{problem}. {advice}")]
pub struct PreflightError {
    /// What is wrong and where.
    pub problem: String,
    /// What to do.
    pub advice: String,
}

fn refuse<T>(problem: impl fmt::Display, advice: impl fmt::Display) -> Result<T, PreflightError> {
    Err(PreflightError { problem: problem.to_string(), advice: advice.to_string() })
}

/// Checks the machine and raises this process's soft limits.
pub fn check(config: &PreflightConfig) -> Result<Report, PreflightError> {
    let mut warnings = Vec::new();
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    let locked = raise_soft_limit(Resource::Memlock);
    let MemoryPlan { ring_depth, io_memory_bytes } = plan_memory(config.shards, locked, &mut warnings)?;
    let open_files_max = raise_soft_limit(Resource::Nofile);
    let connections_max = plan_connections(config, open_files_max)?;
    try_io_uring(&kernel)?;
    for directory in &config.directories {
        try_direct_io(directory, &mut warnings)?;
        if polls_its_queues(directory) {
            warnings.push(format!(
                "the disk under {} has poll queues (queue/io_poll is 1): each disk request then burns CPU until it is done; \
                 load its driver without them (nvme.poll_queues=0)",
                directory.display()
            ));
        }
    }
    Ok(Report { kernel, io_memory_bytes, ring_depth, open_files_max, connections_max, warnings })
}

/// Raises a soft limit to the hard one and gives what now holds.
fn raise_soft_limit(resource: Resource) -> u64 {
    let limit = getrlimit(resource);
    if limit.current != limit.maximum {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let Err(error) = setrlimit(resource, raised) {
            tracing::debug!("cannot raise a limit from {:?} to {:?}: {error}", limit.current, limit.maximum);
        }
    }
    getrlimit(resource).current.unwrap_or(u64::MAX)
}

#[derive(Debug, PartialEq, Eq)]
struct MemoryPlan {
    ring_depth: usize,
    io_memory_bytes: usize,
}

/// Memory the kernel charges for a ring: entries of 64 bytes, twice as many completions of 16, an index, and two headers.
/// (Kernels from 5.12 to 6.13 charge it elsewhere.)
fn ring_bytes(depth: usize) -> u64 {
    depth as u64 * (64 + 2 * 16 + 4) + 2 * 4096
}

/// Divides half of the locked-memory limit: first the rings, without which nothing works, then registered memory. The other half
/// is for other processes of the same user, above all this server before its restart: the kernel gives memory back late.
fn plan_memory(shards: usize, locked_max: u64, warnings: &mut Vec<String>) -> Result<MemoryPlan, PreflightError> {
    const ADVICE: &str =
        "Set LimitMEMLOCK=infinity in the service's unit, or raise memlock in /etc/security/limits.conf";
    let rings = shards.max(1) as u64 * RINGS_PER_SHARD;
    let usable = locked_max / 2;
    let mut ring_depth = RING_DEPTH_MAX;
    while ring_depth > RING_DEPTH_MIN && rings * ring_bytes(ring_depth) > usable / 2 {
        ring_depth /= 2;
    }
    let needed = (rings * ring_bytes(ring_depth)).max(LOCKED_MEMORY_MIN);
    if locked_max < needed {
        return refuse(
            format_args!(
                "this process may lock {} KiB of memory, but io_uring needs {} KiB for {shards} shards",
                locked_max >> 10,
                needed >> 10
            ),
            ADVICE,
        );
    }
    let share = usable.saturating_sub(rings * ring_bytes(ring_depth)) / rings;
    if share < IO_MEMORY_MIN || ring_depth < RING_DEPTH_MAX {
        warnings.push(format!(
            "the locked-memory limit of {} KiB is small for {shards} shards: short rings (depth {ring_depth}) and little \
             registered IO memory cost CPU. {ADVICE}",
            locked_max >> 10
        ));
    }
    // The library hands the memory out in halves of halves: only a power of two is used in full.
    let io_memory_bytes = 1 << share.clamp(IO_MEMORY_MIN, IO_MEMORY_MAX).ilog2();
    Ok(MemoryPlan { ring_depth, io_memory_bytes })
}

fn plan_connections(config: &PreflightConfig, open_files_max: u64) -> Result<usize, PreflightError> {
    let reserved = DESCRIPTORS_RESERVED + DESCRIPTORS_PER_SHARD * config.shards as u64;
    let left = open_files_max.saturating_sub(reserved);
    if left < config.connections_min {
        return refuse(
            format_args!(
                "this process may open {open_files_max} files; {} shards and the logs need {reserved} of them, which leaves fewer \
                 than the {} connections wanted",
                config.shards, config.connections_min
            ),
            "Raise LimitNOFILE in the service's unit, or nofile in /etc/security/limits.conf",
        );
    }
    Ok(left as usize)
}

/// Starts a small executor and lets it go.
fn try_io_uring(kernel: &str) -> Result<(), PreflightError> {
    let build = || {
        let builder = LocalExecutorBuilder::new(Placement::Unbound).io_memory(IO_MEMORY_MIN as usize).ring_depth(16);
        builder.make().map(drop).map_err(|error| (error.raw_os_error(), error.to_string()))
    };
    // On a thread of its own: the caller may be an executor, and a thread can have only one.
    let attempt =
        || std::thread::spawn(build).join().unwrap_or_else(|_| Err((None, "the executor panicked".to_owned())));
    let outcome = wait_while_short(attempt, |(number, _)| *number == Some(rustix::io::Errno::NOMEM.raw_os_error()));
    let Err((number, text)) = outcome else { return Ok(()) };
    let disabled = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    explain_io_uring(kernel, number, &text, disabled.trim())
}

fn explain_io_uring(kernel: &str, number: Option<i32>, text: &str, disabled: &str) -> Result<(), PreflightError> {
    let problem = format!("io_uring does not work on this machine (kernel {kernel}): {text}");
    match (number.map(rustix::io::Errno::from_raw_os_error), disabled) {
        (_, "1") => refuse(
            problem,
            "kernel.io_uring_disabled is 1: set it to 0 with sysctl, or put this user in kernel.io_uring_group",
        ),
        (_, "2") => refuse(problem, "kernel.io_uring_disabled is 2: set it to 0 with sysctl"),
        (Some(rustix::io::Errno::PERM | rustix::io::Errno::ACCESS), _) => refuse(
            problem,
            "A seccomp filter forbids it, as in the default profile of container runtimes: permit io_uring_setup, io_uring_enter and \
             io_uring_register there",
        ),
        (Some(rustix::io::Errno::NOSYS), _) => {
            refuse(problem, "Use a kernel built with io_uring, 5.8 or later; 6.x is tested")
        }
        (Some(rustix::io::Errno::NOMEM), _) => refuse(
            problem,
            "Raise the locked-memory limit (LimitMEMLOCK), or stop other users of io_uring under this user",
        ),
        (Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE), _) => {
            refuse(problem, "Raise the open-file limit (LimitNOFILE)")
        }
        _ => refuse(problem, "Run `ringkeeper doctor` for details about this machine"),
    }
}

/// Writes one block around the page cache and removes it again.
fn try_direct_io(directory: &Path, warnings: &mut Vec<String>) -> Result<(), PreflightError> {
    let where_ = directory.display();
    let statfs = match rustix::fs::statfs(directory) {
        Ok(statfs) => statfs,
        Err(error) => {
            return refuse(
                format_args!("cannot use the directory {where_}: {error}"),
                "Create it, or correct its path",
            );
        }
    };
    if statfs.f_type as u64 == TMPFS_MAGIC {
        warnings.push(format!("{where_} is on tmpfs: nothing in it survives a restart of the machine"));
    }
    let path = directory.join(format!(".preflight-{}", std::process::id()));
    let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = match rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) => file,
        Err(error) => {
            return refuse(
                format_args!("cannot create a file in {where_}: {error}"),
                "Make the directory writable for this user, on a file system that is neither full nor read-only",
            );
        }
    };
    let outcome = if statfs.f_type as u64 == TMPFS_MAGIC {
        Ok(()) // the storage layer does not ask tmpfs for direct IO
    } else {
        write_direct(&file)
    };
    if let Err(error) = fs::remove_file(&path) {
        return refuse(
            format_args!("cannot remove {}: {error}", path.display()),
            "Correct the directory's permissions",
        );
    }
    match outcome {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::StorageFull => {
            refuse(format_args!("no space is left in {where_}"), "Free some, or move the directory")
        }
        Err(error) => refuse(
            format_args!("the file system under {where_} cannot do direct IO: {error}"),
            "Put the directory on a local ext4 or xfs file system; overlay, network and encrypted ones often cannot",
        ),
    }
}

fn write_direct(file: &impl std::os::fd::AsFd) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(file)?;
    rustix::fs::fcntl_setfl(file, flags | OFlags::DIRECT)?;
    let memory = vec![0u8; 2 * PROBE_BYTES];
    let start = memory.as_ptr().align_offset(PROBE_BYTES);
    match rustix::io::pwrite(file, &memory[start..start + PROBE_BYTES], 0)? {
        PROBE_BYTES => Ok(()),
        written => Err(io::Error::other(format!("only {written} of {PROBE_BYTES} bytes were written"))),
    }
}

/// Does the disk under `directory` complete requests by polling? False when that cannot be found out.
fn polls_its_queues(directory: &Path) -> bool {
    let Ok(stat) = rustix::fs::stat(directory) else { return false };
    let device = format!("/sys/dev/block/{}:{}", rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev));
    // A partition has no queue of its own; its disk is one directory up.
    let candidates = [format!("{device}/queue/io_poll"), format!("{device}/../queue/io_poll")];
    candidates.iter().filter_map(|path| fs::read_to_string(path).ok()).next().is_some_and(|text| text.trim() == "1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{ShardsConfig, run_shards};

    fn config(shards: usize, directories: Vec<PathBuf>) -> PreflightConfig {
        PreflightConfig { shards, directories, connections_min: 60 }
    }

    /// With the library's default of 10 MiB per shard an unprivileged user silently lost registered buffers; and since the kernel
    /// charges the rings too, eight shards with deep ones did not start under the usual limit of 8 MiB.
    #[test]
    fn the_memory_of_all_shards_fits_the_limit_of_an_unprivileged_user() {
        let mut warnings = Vec::new();
        for (shards, locked, ring_depth, io_memory_kib) in
            [(1, 8 << 20, 1024, 1024), (3, 8 << 20, 1024, 256), (6, 8 << 20, 1024, 64), (4, u64::MAX, 1024, 2048)]
        {
            let plan = plan_memory(shards, locked, &mut warnings).unwrap();
            assert_eq!(plan, MemoryPlan { ring_depth, io_memory_bytes: io_memory_kib << 10 }, "{shards} shards");
            let charged = (plan.io_memory_bytes as u64 + ring_bytes(ring_depth)) * RINGS_PER_SHARD * shards as u64;
            assert!(charged <= locked / 2, "{shards} shards fit beside those of a server that has just ended");
        }
        assert!(warnings.is_empty());
        let small = plan_memory(64, 8 << 20, &mut warnings).unwrap();
        assert_eq!(small, MemoryPlan { ring_depth: 128, io_memory_bytes: 64 << 10 });
        assert_eq!(warnings.len(), 1);
        for (shards, locked) in [(1, 64 << 10), (400, 8 << 20)] {
            let error = plan_memory(shards, locked, &mut warnings).unwrap_err().to_string();
            assert!(
                error.contains(&format!("may lock {} KiB", locked >> 10)) && error.contains("LimitMEMLOCK"),
                "{error}"
            );
        }
    }

    /// The plan is made with the same figures the kernel charges, so the shards must come up with it.
    #[test]
    fn shards_start_with_the_planned_memory() {
        let report = check(&config(2, vec![])).unwrap();
        let shards = ShardsConfig {
            allow_sharing_cpus: true,
            io_memory_bytes: report.io_memory_bytes,
            ring_depth: report.ring_depth,
            ..ShardsConfig::new(2)
        };
        run_shards(&shards, |_| async { Ok(()) }).unwrap().join().unwrap();
    }

    #[test]
    fn connections_leave_room_for_the_logs() {
        assert_eq!(plan_connections(&config(8, vec![]), 1024).unwrap(), 1024 - 128 - 128);
        let error = plan_connections(&config(8, vec![]), 256).unwrap_err().to_string();
        assert!(error.contains("256 files") && error.contains("LimitNOFILE"), "{error}");
    }

    #[test]
    fn a_refused_io_uring_names_its_likely_cause() {
        let advice = |number, disabled| explain_io_uring("6.1", number, "text", disabled).unwrap_err().to_string();
        assert!(advice(Some(1), "0").contains("seccomp"));
        assert!(advice(Some(1), "2").contains("kernel.io_uring_disabled is 2"));
        assert!(advice(Some(38), "").contains("kernel"));
        assert!(advice(Some(12), "0").contains("LimitMEMLOCK"));
        assert!(advice(None, "0").contains("text"));
    }

    #[test]
    fn this_machine_passes_and_nothing_is_left_behind() {
        let directory = crate::storage::test_directory("preflight");
        let report = check(&config(2, vec![directory.clone()])).unwrap();
        assert!(!report.kernel.is_empty());
        assert!(report.connections_max >= 60);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
    }

    #[test]
    fn tmpfs_passes_with_a_warning_and_a_missing_directory_is_refused() {
        let report = check(&config(1, vec![PathBuf::from("/dev/shm")])).unwrap();
        assert!(report.warnings.iter().any(|warning| warning.contains("tmpfs")), "{:?}", report.warnings);
        let error = check(&config(1, vec![PathBuf::from("/nonexistent/data")])).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/data") && error.contains("Create it"), "{error}");
    }
}
