//! What a hop to another shard costs: CPU time per request and answer, both cores added up, by batch size.
//!
//! Two shards on two CPUs. Shard 0 sends a batch of requests and waits for all answers before the next; shard 1 answers each
//! batch with one of the same size. Batch size 1 shows the price of a wake-up, 100 that of a message.

use ringkeeper::base::ShardId;
use ringkeeper::loadgen::CpuReading;
use ringkeeper::runtime::{Mesh, MeshEnd, ShardsConfig, clock, run_shards};
use std::time::Duration;

const CLIENT: ShardId = ShardId(0);
const SERVER: ShardId = ShardId(1);
const BATCH_SIZES: [u64; 3] = [1, 16, 100];
const MESSAGES: u64 = 400_000;
const MESSAGES_UNBATCHED: u64 = 40_000;

/// A request as large as a read's: two ids, a path's hash and some flags.
type Message = [u64; 4];

async fn ask(end: &MeshEnd<Message>, batch_size: u64, batches: u64) {
    for number in 0..batches {
        for index in 0..batch_size {
            end.push(SERVER, [number, index, 0, 0]);
        }
        end.flush();
        let mut answers = 0;
        while answers < batch_size {
            let batch = end.receive(SERVER).await.expect("the server answers until asked to stop");
            answers += batch.len() as u64;
            end.recycle(batch);
        }
    }
}

async fn answer(end: &MeshEnd<Message>) {
    while let Some(mut batch) = end.receive(CLIENT).await {
        for message in batch.drain(..) {
            end.push(CLIENT, message);
        }
        end.recycle(batch);
        end.flush();
    }
}

fn measure(spin: Option<Duration>) {
    let mesh: Mesh<Message> = Mesh::new(2);
    let config = ShardsConfig { allow_sharing_cpus: true, spin_before_park: spin, ..ShardsConfig::new(2) };
    let handle = run_shards(&config, move |context| async move {
        let end = mesh.connect(context.shard).await;
        if context.shard == SERVER {
            answer(&end).await;
            end.close();
            return Ok(());
        }
        ask(&end, 100, 100).await; // warms up
        for batch_size in BATCH_SIZES {
            let messages = if batch_size == 1 { MESSAGES_UNBATCHED } else { MESSAGES };
            let batches = messages / batch_size;
            let (cpu, wall_us) = (CpuReading::of(std::process::id())?, clock::monotonic_us());
            ask(&end, batch_size, batches).await;
            let pairs = (batches * batch_size) as f64;
            println!(
                "spin {:>6?}  batch {batch_size:>3}: {:.3} us CPU per request and answer, {:.1} us per round trip",
                spin.unwrap_or_default(),
                cpu.since()?.scheduled_us as f64 / pairs,
                (clock::monotonic_us() - wall_us) as f64 / batches as f64
            );
        }
        end.close();
        Ok(())
    });
    let ended = handle.and_then(|handle| handle.join());
    if let Err(error) = ended {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

fn main() {
    measure(None);
    measure(Some(Duration::from_micros(100)));
}
