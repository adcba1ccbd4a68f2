//! What a process promises to whoever starts it, on real executors and in a world.

use super::*;
use crate::base::ShardId;
use crate::runtime::sleep;
use crate::runtime::world::{HostId, World, pause_us};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

#[derive(Debug, Error)]
enum TestError {
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error("shard {0} lost its disk")]
    Cause(ShardId),
    #[error("shard {0} ended because another one did")]
    Consequence(ShardId),
}

/// One shard fails, before or after it serves, and the others fail because of that.
struct Failing {
    first: ShardId,
    serves: bool,
}

impl Service for Failing {
    type Error = TestError;

    async fn run(self: Arc<Self>, place: Place) -> Result<(), TestError> {
        let shard = place.context.shard;
        if self.serves {
            place.serves();
        }
        if shard == self.first {
            sleep(Duration::from_millis(20)).await;
            return Err(TestError::Cause(shard));
        }
        place.stop.stopped().await;
        Err(TestError::Consequence(shard))
    }
}

fn three_shards() -> ProcessConfig {
    ProcessConfig {
        shards: 3,
        cpus: None,
        allow_sharing_cpus: true,
        spin_before_park: None,
        listen: Vec::new(),
        connections_max: 10,
        stop: StopSignal::new(),
    }
}

async fn outcome(service: Failing) -> String {
    let error = match Prepared::new(three_shards()).unwrap().start(Vec::new(), service).await {
        Ok(process) => process.ended().await,
        Err(error) => Err(error),
    };
    error.expect_err("a shard fails").to_string()
}

/// A disk failed on shard 2; the operator was told that shard 0 had been stopped, which was true and of no use.
#[test]
fn the_first_error_is_told_and_not_what_follows_from_it() {
    for serves in [false, true] {
        let service = Failing { first: ShardId(2), serves };
        assert_eq!(futures_lite::future::block_on(outcome(service)), "shard 2 lost its disk");
        for seed in 0..20 {
            let world = World::new(seed);
            let this = world.clone();
            let told = world.run(async move {
                let told = Rc::new(RefCell::new(String::new()));
                let process = this.start_process(HostId::new(1), "test");
                let end = told.clone();
                this.start_main(process, async move {
                    *end.borrow_mut() = outcome(Failing { first: ShardId(2), serves }).await;
                });
                pause_us(1_000_000).await;
                told.take()
            });
            assert_eq!(told.as_deref(), Some("shard 2 lost its disk"), "seed {seed}");
        }
    }
}

/// A start that is given up must not leave shards behind that run on.
#[test]
fn a_process_that_is_stopped_before_it_serves_says_so() {
    struct Never;
    impl Service for Never {
        type Error = TestError;
        async fn run(self: Arc<Self>, place: Place) -> Result<(), TestError> {
            place.stop.stopped().await;
            Ok(())
        }
    }
    let config = three_shards();
    config.stop.stop();
    let error = futures_lite::future::block_on(Prepared::new(config).unwrap().start(Vec::new(), Never))
        .err()
        .expect("it never served");
    assert!(matches!(error, TestError::Process(ProcessError::Stopped)), "{error}");
}
