//! The generator against the bare responder, both on one shard.

use super::*;
use crate::client::Host;
use crate::runtime::{Queue, ShardsConfig, StopSignal, run_shards, spawn};
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

async fn run(config: RatioConfig) -> Result<BenchReport, LoadError> {
    let stop = StopSignal::new();
    let port = Rc::new(Cell::new(0));
    let (told, stopping) = (port.clone(), stop.clone());
    let server = spawn(Queue::Serving, async move {
        let address = "127.0.0.1:0".parse().expect("an address");
        serve_bare(BareResponderConfig { address }, stopping, |address| told.set(address.port())).await
    });
    while port.get() == 0 {
        crate::runtime::sleep(Duration::from_millis(1)).await;
    }
    let hosts = vec![Host { name: "127.0.0.1".into(), port: port.get() }];
    let report = run_ratio(RatioConfig { hosts, ..config }, |_| {}).await;
    stop.stop();
    server.await.expect("not cancelled")?;
    report
}

fn config() -> RatioConfig {
    RatioConfig {
        hosts: Vec::new(),
        read_shares_percent: vec![0.0, 50.0, 100.0],
        value_bytes: 100,
        connections: 3,
        outstanding: 7,
        keys: 300,
        duration: Duration::from_millis(100),
        warmup: Duration::from_millis(10),
        seed: 1,
        session_timeout_ms: 30_000,
        server_pids: vec![std::process::id()],
    }
}

/// The whole path from templates to report: any request that the generator malforms, miscounts or mismatches shows as an error
/// or as a wrong ratio.
#[test]
fn a_run_against_the_bare_responder_is_free_of_errors() {
    let shard = run_shards(&ShardsConfig::new(1), |_| async {
        let report = run(config()).await?;
        for ratio in &report.ratios {
            assert_eq!((ratio.errors, &ratio.first_error), (0, &None));
            assert!(ratio.requests > 100, "{ratio:?}");
            assert!(ratio.servers[0].scheduled_us_per_request > 0.0, "{ratio:?}");
        }
        let reads: Vec<f64> = report.ratios.iter().map(|r| r.reads as f64 / r.requests as f64).collect();
        assert_eq!((reads[0], reads[2]), (0.0, 1.0));
        assert!((0.4..0.6).contains(&reads[1]), "{reads:?}");
        Ok(())
    });
    shard.unwrap().join().unwrap_or_else(|error| panic!("{error}"));
}

/// Values beyond the socket's buffers: generator and server both have more to send than the other takes, and a generator that
/// only sends would wait for ever.
#[test]
fn large_values_both_ways_do_not_dead_lock() {
    let shard = run_shards(&ShardsConfig::new(1), |_| async {
        let large = RatioConfig {
            read_shares_percent: vec![50.0],
            value_bytes: 500_000,
            connections: 2,
            outstanding: 64,
            keys: 4,
            ..config()
        };
        let report = run(large).await?;
        assert_eq!(report.ratios[0].errors, 0);
        Ok(())
    });
    shard.unwrap().join().unwrap_or_else(|error| panic!("{error}"));
}

/// A configuration that can give no sensible figure is refused before anything runs.
#[test]
fn senseless_configurations_are_refused() {
    let shard = run_shards(&ShardsConfig::new(1), |_| async {
        for wrong in [
            RatioConfig { keys: 0, ..config() },
            RatioConfig { outstanding: 0, ..config() },
            RatioConfig { read_shares_percent: vec![101.0], ..config() },
            RatioConfig { read_shares_percent: vec![f64::NAN], ..config() },
            RatioConfig { duration: Duration::ZERO, ..config() },
        ] {
            assert!(matches!(run(wrong).await, Err(LoadError::Config(_))));
        }
        Ok(())
    });
    shard.unwrap().join().unwrap_or_else(|error| panic!("{error}"));
}
