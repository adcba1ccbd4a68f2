//! CPU time of processes, this one or another, from `/proc`.

use std::collections::HashMap;
use std::io;

/// `USER_HZ`: the unit of the times in `/proc/PID/stat`. Part of the kernel's interface, 100 on every architecture that we
/// build for.
const TICKS_PER_SECOND: u64 = 100;
/// Fields of `/proc/PID/stat` behind the command's name: state is the first, utime the 12th and stime the 13th.
const UTIME_FIELD: usize = 11;

/// What a process has used so far.
pub struct CpuReading {
    pid: u32,
    user_us: u64,
    system_us: u64,
    /// Time on a CPU by thread, to the nanosecond.
    thread_ns: HashMap<u32, u64>,
}

/// What a process used between two readings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct CpuUse {
    /// In user space, to 10 ms.
    pub user_us: u64,
    /// In the kernel, to 10 ms.
    pub system_us: u64,
    /// Both, by the scheduler's exact account, of the threads alive at the end.
    pub scheduled_us: u64,
}

impl CpuReading {
    /// Reads `/proc/PID`. The error names the file.
    pub fn of(pid: u32) -> io::Result<CpuReading> {
        let (user_ticks, system_ticks) = ticks(&read(&format!("/proc/{pid}/stat"))?)?;
        let us = |ticks: u64| ticks * (1_000_000 / TICKS_PER_SECOND);
        Ok(CpuReading { pid, user_us: us(user_ticks), system_us: us(system_ticks), thread_ns: threads(pid)? })
    }

    /// What the process has used since this reading.
    pub fn since(&self) -> io::Result<CpuUse> {
        let now = CpuReading::of(self.pid)?;
        let of_thread = |(thread, ns): (&u32, &u64)| ns - self.thread_ns.get(thread).copied().unwrap_or(0).min(*ns);
        Ok(CpuUse {
            user_us: now.user_us.saturating_sub(self.user_us),
            system_us: now.system_us.saturating_sub(self.system_us),
            scheduled_us: now.thread_ns.iter().map(of_thread).sum::<u64>() / 1000,
        })
    }
}

/// utime and stime of the text of a `stat` file. The name may hold anything, also spaces and brackets.
fn ticks(stat: &str) -> io::Result<(u64, u64)> {
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "a stat file without utime and stime");
    let mut fields = stat.rsplit_once(')').ok_or_else(malformed)?.1.split_whitespace().skip(UTIME_FIELD);
    let mut field = || fields.next().and_then(|field| field.parse().ok()).ok_or_else(malformed);
    Ok((field()?, field()?))
}

fn threads(pid: u32) -> io::Result<HashMap<u32, u64>> {
    let directory = format!("/proc/{pid}/task");
    let mut threads = HashMap::new();
    for entry in std::fs::read_dir(&directory).map_err(|error| named(&directory, error))? {
        let Some(thread) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        match std::fs::read_to_string(format!("{directory}/{thread}/schedstat")) {
            Ok(text) => {
                let on_cpu_ns = text.split_whitespace().next().and_then(|field| field.parse().ok());
                threads.insert(thread, on_cpu_ns.unwrap_or(0));
            }
            // The thread ended since the directory was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {}
            Err(error) => return Err(named(&directory, error)),
        }
    }
    Ok(threads)
}

fn read(path: &str) -> io::Result<String> {
    std::fs::read_to_string(path).map_err(|error| named(path, error))
}

fn named(path: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{path}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process may call itself `a) R 9`: fields counted from the first bracket would be somebody else's numbers.
    #[test]
    fn command_names_do_not_shift_the_fields() {
        let stat = "7 (a) R 9) S 1 2 3 4 5 6 7 8 9 10 111 222 0 0 20 0\n";
        assert_eq!(ticks(stat).unwrap(), (111, 222));
        assert!(ticks("7 (x) S 1 2").is_err());
    }

    /// Work done between the readings must show, in the process that did it.
    #[test]
    fn own_work_shows() {
        let before = CpuReading::of(std::process::id()).unwrap();
        let mut sum = 0u64;
        let used = loop {
            (0..1_000_000u64).for_each(|n| sum = std::hint::black_box(sum ^ n));
            let used = before.since().unwrap();
            if used.user_us > 0 && used.scheduled_us > 0 {
                break used;
            }
        };
        assert!(used.scheduled_us < 60_000_000, "{used:?}");
        assert!(CpuReading::of(u32::MAX).is_err());
    }
}
