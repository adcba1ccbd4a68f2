//! A log that was damaged where it holds acknowledged writes must never be taken for a shorter log.
//!
//! The hazard: recovery reads up to the first block that is not good and calls the rest a torn tail. After a power failure
//! that is right; after a disk has lost a sector in the middle it silently throws away what clients were promised. So a
//! server refuses to start when anything shows that there was more, says where, and goes on only when told what to give up.
//! A refusal too many is a hazard as well: a torn tail, or damage where nothing is written, must not keep a server down.

mod common;

use common::{Client, Refusal, SHARD_COUNTS, Setup, TestDir, number_from_env};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use ringkeeper::base::Zxid;
use ringkeeper::log::format::{BLOCK_HEADER_BYTES, BlockHeader, Life, RecordHead, SEGMENT_HEADER_BYTES, SegmentHeader};
use ringkeeper::log::inspect::{BlockStatus, inspect_segment};
use ringkeeper::log::position::Position;
use ringkeeper::protocol::zookeeper::CreateFlags;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// Writes that the log under test holds, each in a block of its own.
const WRITES: usize = 40;
/// Segments of 16 blocks: the writes fill some.
const SEGMENT_KIB: u64 = 64;
const BLOCK: u64 = 4096;

/// A block of the log under test.
#[derive(Clone, Copy, Debug)]
struct Block {
    life: Life,
    header: BlockHeader,
}

impl Block {
    fn used_bytes(&self) -> u64 {
        BLOCK_HEADER_BYTES as u64 + u64::from(self.header.payload_bytes)
    }
}

/// The data of a server that has stopped cleanly after [`WRITES`] acknowledged creates of `/n<number>`.
struct Stopped {
    directory: TestDir,
    shards: u16,
    /// Zxids of the creates, in order.
    zxids: Vec<i64>,
    /// Blocks in the order of the log.
    blocks: Vec<Block>,
}

fn node(number: usize) -> String {
    format!("/n{number}")
}

fn data(number: usize) -> Vec<u8> {
    format!("{number} ").repeat(300).into_bytes()
}

impl Stopped {
    fn new(test: &str, shards: u16) -> Stopped {
        let mut stopped = Stopped { directory: TestDir::new(test), shards, zxids: Vec::new(), blocks: Vec::new() };
        let server = stopped.setup().start();
        let mut client = Client::connect(server.address).expect("a connection");
        for number in 0..WRITES {
            let made = client.create(&node(number), &data(number), CreateFlags::PERSISTENT).expect("a reply");
            assert_eq!(made.error, 0);
            stopped.zxids.push(made.zxid);
        }
        server.stop();
        stopped.blocks = stopped.read_blocks();
        assert!(stopped.lives().len() >= 3, "the log has segments before, within and after");
        stopped
    }

    fn setup(&self) -> Setup {
        let mut setup = Setup::new(self.directory.path(), self.shards);
        setup.line(&format!("preAllocSize={SEGMENT_KIB}"));
        setup
    }

    fn log_directory(&self) -> PathBuf {
        self.directory.join("data/ringkeeper")
    }

    fn file(&self, life: Life) -> PathBuf {
        self.log_directory().join(life.file_name())
    }

    /// Segments that hold blocks, in order.
    fn lives(&self) -> Vec<Life> {
        let mut lives: Vec<Life> = self.blocks.iter().map(|block| block.life).collect();
        lives.dedup();
        lives
    }

    fn header(&self, life: Life) -> SegmentHeader {
        let bytes = fs::read(self.file(life)).expect("the segment is read");
        SegmentHeader::decode(&bytes, life).expect("a good header")
    }

    fn read_blocks(&self) -> Vec<Block> {
        let names = fs::read_dir(self.log_directory()).expect("the directory is listed");
        let mut lives: Vec<Life> =
            names.filter_map(|entry| Life::from_file_name(entry.expect("an entry").file_name().to_str()?)).collect();
        lives.sort();
        let mut blocks = Vec::new();
        for life in lives {
            let bytes = fs::read(self.file(life)).expect("the segment is read");
            let header = SegmentHeader::decode(&bytes, life).expect("a good header");
            for report in inspect_segment(&header, &bytes) {
                if let BlockStatus::Good(header) = report.status {
                    blocks.push(Block { life, header });
                }
            }
        }
        blocks
    }

    /// The block that holds the create of `number`.
    fn block_of(&self, number: usize) -> Block {
        let zxid = Zxid(self.zxids[number] as u64);
        let holds = |block: &&Block| block.header.first_record.is_some_and(|(first, _)| first == zxid.into());
        *self.blocks.iter().find(holds).expect("each create was flushed alone")
    }

    fn overwrite(&self, life: Life, offset: u64, bytes: &[u8]) {
        let file = OpenOptions::new().write(true).open(self.file(life)).expect("the segment is opened");
        file.write_all_at(bytes, offset).expect("the segment is written");
    }

    fn flip_bit(&self, life: Life, offset: u64, bit: u8) {
        let byte = fs::read(self.file(life)).expect("the segment is read")[offset as usize];
        self.overwrite(life, offset, &[byte ^ (1 << bit)]);
    }

    fn starts_with(&self, numbers: usize) -> String {
        self.starts_with_arguments(numbers, &[])
    }

    /// Starts the server and checks that exactly the first `numbers` nodes are there. Returns its log.
    fn starts_with_arguments(&self, numbers: usize, arguments: &[&str]) -> String {
        let server = self.setup().arguments(arguments).start();
        let mut client = Client::connect(server.address).expect("a connection");
        for number in 0..WRITES {
            let found = client.get(&node(number)).expect("a reply");
            assert_eq!(found.error == 0, number < numbers, "node {number}, when {numbers} are expected");
            if number < numbers {
                assert_eq!(found.data(), data(number));
            }
        }
        let written = client.set("/n0", &data(0)).expect("a reply");
        assert_eq!(written.error, 0);
        if numbers > 0 {
            assert!(written.zxid > self.zxids[numbers - 1]);
        }
        server.stop()
    }

    fn refuses(&self) -> Refusal {
        self.setup().start_refused()
    }
}

fn zxid_text(zxid: i64) -> String {
    Zxid(zxid as u64).to_string()
}

/// A bit flips in a block whose write was acknowledged, and more was acknowledged after it.
#[test]
fn flipped_bit_before_acknowledged_writes_is_refused_and_only_told_to_is_gone_past() {
    for shards in SHARD_COUNTS {
        let stopped = Stopped::new("flip", shards);
        let damaged = stopped.block_of(20);
        stopped.flip_bit(damaged.life, damaged.header.offset + BLOCK_HEADER_BYTES as u64 + 7, 3);
        let refusal = stopped.refuses();
        let keep = zxid_text(stopped.zxids[19]);
        refusal.names(&[
            &damaged.life.file_name(),
            &format!("offset {}", damaged.header.offset),
            &format!("up to {keep}"),
            &format!("--discard-after {keep}"),
        ]);
        stopped.refuses().names(&["is damaged"]);
        let log = stopped.starts_with_arguments(20, &["--discard-after", &keep]);
        assert!(log.contains(&format!("everything after {keep} is given up")), "{log}");
        // It was told once; from then on the log is whole again.
        stopped.starts_with(20);
    }
}

/// Damage at random places: what it must do is known from the block that it hits.
#[test]
fn damage_at_random_places_is_refused_exactly_where_something_was_written() {
    let seed = number_from_env("RINGKEEPER_DAMAGE_SEED", 1);
    println!("RINGKEEPER_DAMAGE_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    for shards in SHARD_COUNTS {
        let stopped = Stopped::new("random", shards);
        let (last, earlier) = stopped.blocks.split_last().expect("blocks");
        let last_holds_a_write = last.header.first_record.is_some_and(|(zxid, _)| zxid.0 as i64 >= stopped.zxids[0]);
        for _ in 0..8 {
            let block = earlier[random.random_range(0..earlier.len())];
            let offset = random.random_range(0..BLOCK);
            let (at, bit) = (block.header.offset + offset, random.random_range(0..8));
            stopped.flip_bit(block.life, at, bit);
            if offset < block.used_bytes() {
                let refusal = stopped.refuses();
                refusal.names(&[
                    &block.life.file_name(),
                    &format!("offset {}", block.header.offset),
                    "records up to 0x",
                ]);
            } else {
                // Padding holds nothing; a start adds a segment and so changes the log, so look without one.
                let bytes = fs::read(stopped.file(block.life)).expect("the segment is read");
                let header = stopped.header(block.life);
                let good = inspect_segment(&header, &bytes).any(|report| {
                    report.offset == block.header.offset && matches!(report.status, BlockStatus::Good(_))
                });
                assert!(good, "the block at {} does not depend on its padding", block.header.offset);
            }
            stopped.flip_bit(block.life, at, bit);
        }
        for _ in 0..3 {
            let life = stopped.lives()[random.random_range(0..stopped.lives().len())];
            let (at, bit) = (random.random_range(0..SEGMENT_HEADER_BYTES as u64), random.random_range(0..8));
            stopped.flip_bit(life, at, bit);
            stopped.refuses().names(&[&life.file_name()]);
            stopped.flip_bit(life, at, bit);
        }
        // All bits are as they were. The last block alone cannot be told from a torn one: it is cut.
        stopped.flip_bit(last.life, last.header.offset + 60, 7);
        stopped.starts_with(WRITES - usize::from(last_holds_a_write));
    }
}

/// A power failure leaves a block half-written behind the last acknowledged one: that is no damage.
#[test]
fn torn_block_behind_the_acknowledged_writes_is_cut() {
    for shards in SHARD_COUNTS {
        let stopped = Stopped::new("torn", shards);
        let last = *stopped.blocks.last().expect("blocks");
        let header = stopped.header(last.life);
        let end = last.header.offset + last.header.padded_bytes(header.block_bytes);
        assert!(end < header.segment_bytes, "the last segment has room");
        let last_record = stopped.blocks.iter().filter_map(|block| block.header.first_record).next_back();
        let previous_position = last_record.expect("a record").0;
        let position = Position(previous_position.0 + 1);
        let mut block = vec![0; BLOCK_HEADER_BYTES];
        RecordHead { record_bytes: 3000, position, version: 1 }.put(&mut block);
        block.resize(block.len() + 3000, 7);
        let torn = BlockHeader {
            payload_bytes: (block.len() - BLOCK_HEADER_BYTES) as u32,
            offset: end,
            first_record: Some((position, 0)),
            previous_position,
            durable_position: Position(stopped.zxids[0] as u64),
            committed_position: Position::ZERO,
            ..last.header
        };
        torn.seal(&mut block, header.seed(), header.block_bytes);
        stopped.overwrite(last.life, end, &block[..1024]);
        let log = stopped.starts_with(WRITES);
        assert!(log.contains("cut an unfinished write"), "{log}");
        assert!(log.contains(&last.life.file_name()), "{log}");
    }
}

/// Zeros and rubbish behind the last block were never acknowledged, nor ours.
#[test]
fn rubbish_behind_the_last_block_does_not_keep_the_server_down() {
    for shards in SHARD_COUNTS {
        let stopped = Stopped::new("rubbish", shards);
        let last = *stopped.blocks.last().expect("blocks");
        let end = last.header.offset + last.header.padded_bytes(BLOCK as u32);
        stopped.overwrite(last.life, end, &[0; 512]);
        stopped.overwrite(last.life, end + 512, b"what another file left here");
        stopped.starts_with(WRITES);
    }
}

/// A copy that ran out of room leaves a shorter last segment, with nothing behind the cut that would show what is missing.
#[test]
fn shortened_segment_is_refused() {
    for shards in SHARD_COUNTS {
        let stopped = Stopped::new("short", shards);
        let life = *stopped.lives().last().expect("segments");
        let first = stopped.blocks.iter().find(|block| block.life == life).expect("a block");
        let whole = fs::read(stopped.file(life)).expect("the segment is read");
        for bytes in [0, 20, BLOCK, first.header.offset + 100, first.header.offset + BLOCK, SEGMENT_KIB * 1024 - 1] {
            fs::write(stopped.file(life), &whole[..bytes as usize]).expect("the segment is written");
            stopped.refuses().names(&[&life.file_name(), "is damaged"]);
        }
        fs::write(stopped.file(life), &whole).expect("the segment is written");
        stopped.starts_with(WRITES);
    }
}

/// Somebody deletes a file of the log to make room.
#[test]
fn deleted_segment_is_refused_by_name() {
    for shards in SHARD_COUNTS {
        let stopped = Stopped::new("deleted", shards);
        let lives = stopped.lives();
        for life in lives.iter().copied() {
            let aside = stopped.directory.join("aside");
            fs::rename(stopped.file(life), &aside).expect("the segment is moved away");
            // Without its beginning a log begins too late, without a later segment it is damaged: both say what is missing.
            stopped.refuses().names(&["the transaction log in", "missing"]);
            fs::rename(&aside, stopped.file(life)).expect("the segment is moved back");
        }
        stopped.starts_with(WRITES);
    }
}

/// The log is cut in the middle of an epoch, and what is given up belongs to later epochs. Clients know the zxids of those: had the
/// new epoch the number of one that was given up, its zxids would be given out a second time, for other writes.
#[test]
fn no_zxid_is_used_twice_after_a_cut_across_epochs() {
    for shards in SHARD_COUNTS {
        let directory = TestDir::new("cut-epochs");
        let mut setup = Setup::new(directory.path(), shards);
        setup.line(&format!("preAllocSize={SEGMENT_KIB}"));
        let write = |setup: &Setup, written: &mut Vec<i64>| {
            let server = setup.start();
            let mut client = Client::connect(server.address).expect("a connection");
            let zxid = client.set("/", b"x").expect("a reply").zxid;
            assert!(written.iter().all(|known| *known < zxid), "{zxid:x} follows {written:x?}");
            written.push(zxid);
            // No goodbye: an end in order would be written down.
            server.kill();
        };
        let mut written = Vec::new();
        for _ in 0..3 {
            write(&setup, &mut written);
        }
        let mut discarding = Setup::new(directory.path(), shards);
        discarding.line(&format!("preAllocSize={SEGMENT_KIB}"));
        discarding.arguments(&["--discard-after", &zxid_text(written[0])]);
        write(&discarding, &mut written);
        for _ in 0..2 {
            write(&setup, &mut written);
        }
    }
}

/// `preAllocSize` is changed between two starts; then files of the old size wait to be recycled.
#[test]
fn changed_segment_size_does_not_look_like_damage() {
    for shards in SHARD_COUNTS {
        let stopped = Stopped::new("resized", shards);
        for kib in [SEGMENT_KIB * 2, SEGMENT_KIB, SEGMENT_KIB * 3] {
            let server = stopped.setup().line(&format!("preAllocSize={kib}")).start();
            let mut client = Client::connect(server.address).expect("a connection");
            assert_eq!(client.get("/n0").expect("a reply").data(), data(0));
            for number in 0..WRITES {
                assert_eq!(client.set(&node(number), &data(number)).expect("a reply").error, 0);
            }
            server.kill();
        }
        stopped.starts_with(WRITES);
    }
}
