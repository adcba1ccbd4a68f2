//! The results of a run: for people as a table, for programs as JSON.

use super::cpu::CpuUse;
use super::recorder::Recorder;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::fmt::Write;
use std::time::Duration;

/// Percentiles in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct Latency {
    pub p50_us: u64,
    pub p90_us: u64,
    pub p99_us: u64,
    pub p99_9_us: u64,
    pub max_us: u64,
}

/// What a server used in the measured window.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ServerCpu {
    /// The process.
    pub pid: u32,
    /// Its CPU time.
    pub used: CpuUse,
    /// User and system time for each request of the run, by `/proc/PID/stat`.
    pub us_per_request: f64,
    /// The same by the scheduler's account of its threads.
    pub scheduled_us_per_request: f64,
}

/// One ratio's results.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RatioReport {
    /// Share of reads.
    pub read_share_percent: f64,
    /// Length of the measured window.
    pub seconds: f64,
    /// Requests answered in it, errors included.
    pub requests: u64,
    /// Of these, reads.
    pub reads: u64,
    /// Per second.
    pub requests_per_second: f64,
    /// Replies that were errors, or of the wrong size.
    pub errors: u64,
    /// The first of them.
    pub first_error: Option<String>,
    /// Of all requests.
    pub latency: Latency,
    /// Of the reads, if there were any.
    pub read_latency: Option<Latency>,
    /// Of the writes, if there were any.
    pub write_latency: Option<Latency>,
    /// The generator's own CPU time.
    pub generator: CpuUse,
    /// The generator's CPU time for each request.
    pub generator_us_per_request: f64,
    /// The part of one CPU that the generator used. Above 0.8 the generator may be what limits the throughput.
    pub generator_cpu_share: f64,
    /// Of the processes asked for.
    pub servers: Vec<ServerCpu>,
}

/// A whole run.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct BenchReport {
    pub version: &'static str,
    pub servers: Vec<String>,
    pub connections: usize,
    pub outstanding: usize,
    pub value_bytes: usize,
    pub keys: u32,
    pub seed: u64,
    pub warmup_seconds: f64,
    pub ratios: Vec<RatioReport>,
}

/// Above this share of its CPU the generator says so.
const GENERATOR_CPU_SHARE_MAX: f64 = 0.8;

impl Latency {
    fn of(histogram: &Histogram<u64>) -> Option<Latency> {
        let at = |quantile| histogram.value_at_quantile(quantile);
        (!histogram.is_empty()).then(|| Latency {
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p99_9_us: at(0.999),
            max_us: histogram.max(),
        })
    }
}

impl RatioReport {
    /// The results of a window of `length`. `None` when nothing was answered in it.
    pub(super) fn new(
        read_share_percent: f64,
        length: Duration,
        recorder: &Recorder,
        generator: CpuUse,
        servers: &[(u32, CpuUse)],
    ) -> Option<RatioReport> {
        let requests = recorder.requests();
        let per_request = |us: u64| us as f64 / requests as f64;
        let seconds = length.as_secs_f64();
        let server = |(pid, used): &(u32, CpuUse)| ServerCpu {
            pid: *pid,
            used: *used,
            us_per_request: per_request(used.user_us + used.system_us),
            scheduled_us_per_request: per_request(used.scheduled_us),
        };
        Some(RatioReport {
            read_share_percent,
            seconds,
            requests,
            reads: recorder.reads_us.len(),
            requests_per_second: requests as f64 / seconds,
            errors: recorder.errors,
            first_error: recorder.first_error.clone(),
            latency: Latency::of(&recorder.all_us())?,
            read_latency: Latency::of(&recorder.reads_us),
            write_latency: Latency::of(&recorder.writes_us),
            generator,
            generator_us_per_request: per_request(generator.scheduled_us),
            generator_cpu_share: generator.scheduled_us as f64 / 1e6 / seconds,
            servers: servers.iter().map(server).collect(),
        })
    }
}

impl BenchReport {
    /// The run as a table, with what a reader must know to trust it below.
    pub fn to_table(&self) -> String {
        let mut text = format!(
            "{} connection(s) x {} outstanding, {}-byte values, {} keys, on {}\n\n",
            self.connections,
            self.outstanding,
            self.value_bytes,
            self.keys,
            self.servers.join(",")
        );
        text.push_str(
            " reads %        req/s   p50 us   p90 us   p99 us  p99.9 us    max us   errors  gen us/req  gen CPU  server us/req\n",
        );
        for ratio in &self.ratios {
            let Latency { p50_us, p90_us, p99_us, p99_9_us, max_us } = ratio.latency;
            let servers: Vec<_> =
                ratio.servers.iter().map(|server| format!("{:.2}", server.scheduled_us_per_request)).collect();
            let _ = writeln!(
                text,
                "{:8.1} {:12.0} {p50_us:8} {p90_us:8} {p99_us:8} {p99_9_us:9} {max_us:9} {:8} {:11.2} {:7.0}%  {:>13}",
                ratio.read_share_percent,
                ratio.requests_per_second,
                ratio.errors,
                ratio.generator_us_per_request,
                ratio.generator_cpu_share * 100.0,
                servers.join(" + ")
            );
        }
        for ratio in &self.ratios {
            if let Some(error) = &ratio.first_error {
                let _ = writeln!(text, "at {}% reads the first error was: {error}", ratio.read_share_percent);
            }
            if ratio.generator_cpu_share > GENERATOR_CPU_SHARE_MAX {
                let _ = writeln!(
                    text,
                    "at {}% reads the generator used {:.0}% of its CPU: req/s is its limit, not the server's",
                    ratio.read_share_percent,
                    ratio.generator_cpu_share * 100.0
                );
            }
        }
        text
    }

    /// The run as JSON.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ratio() -> RatioReport {
        let mut recorder = Recorder::new();
        recorder.record(false, 100, 99);
        recorder.record(true, 1000, 1);
        recorder.record_error(|| "error -101 in reply to xid 5".into());
        let generator = CpuUse { user_us: 0, system_us: 0, scheduled_us: 1_900_000 };
        let server = CpuUse { user_us: 300, system_us: 700, scheduled_us: 990 };
        RatioReport::new(99.0, Duration::from_secs(2), &recorder, generator, &[(7, server)]).unwrap()
    }

    /// The two ways a benchmark lies: errors that are not shown, and a generator that was the bottleneck.
    #[test]
    fn table_names_errors_and_a_saturated_generator() {
        let report = BenchReport {
            version: "1",
            servers: vec!["h:1".into()],
            connections: 1,
            outstanding: 2,
            value_bytes: 3,
            keys: 4,
            seed: 5,
            warmup_seconds: 0.0,
            ratios: vec![ratio()],
        };
        let table = report.to_table();
        assert!(table.contains("error -101") && table.contains("95% of its CPU"), "{table}");
        let json: serde_json::Value = serde_json::from_str(&report.to_json().unwrap()).unwrap();
        assert_eq!(json["ratios"][0]["servers"][0]["us_per_request"], 10.0);
        assert_eq!(json["ratios"][0]["latency"]["p50_us"], 100);
    }

    /// A window without a reply has no percentiles: it is a failure, not a row of zeros.
    #[test]
    fn empty_window_is_no_result() {
        let none = RatioReport::new(1.0, Duration::from_secs(1), &Recorder::new(), CpuUse::default(), &[]);
        assert_eq!(none, None);
        assert_eq!((ratio().requests, ratio().requests_per_second), (100, 50.0));
    }
}
