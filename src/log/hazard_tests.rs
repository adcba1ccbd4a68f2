//! One test for each way in which a log can lose or invent records. Each opens with its story.

use super::damage::DamageCause;
use super::format::{
    BLOCK_HEADER_BYTES, BlockFault, BlockHeader, BlockSeed, Life, RECORD_HEAD_BYTES, RecordHead, SegmentFault,
};
use super::inspect::{BlockStatus, inspect_segment};
use super::position::Position;
use super::recovery::{Recovered, RecoveryOptions, Verdict};
use super::test_disk::{
    BLOCK, OWNER, SECTOR_BYTES, TestDisk, append_each, checked_positions, new_log, record, tiny_config,
};
use super::writer::{LogConfig, LogError, LogStart, LogWriter, Refusal};

fn cause_of(recovered: &Recovered) -> &DamageCause {
    match &recovered.verdict {
        Verdict::Damage(damage) => &damage.cause,
        other => panic!("damage expected, got {other:?}"),
    }
}

fn end_of(recovered: &Recovered) -> u64 {
    match recovered.verdict {
        Verdict::Clean { end } | Verdict::TornTail { end, .. } => end.0,
        Verdict::Empty | Verdict::Damage(_) => panic!("a log expected, got {:?}", recovered.verdict),
    }
}

fn segment_seed(life: Life) -> BlockSeed {
    BlockSeed::new(7, life)
}

/// C1: r1 to r5 are acknowledged, the flush of r6 is torn. A tail block rewritten in place would take r1 to r5 with it.
#[test]
fn torn_flush_leaves_acknowledged_records_alone() {
    for lost_sector in 0..8 {
        let (mut disk, mut writer) = new_log(tiny_config());
        append_each(&mut disk, &mut writer, 1..=5, 100);
        writer.append(Position(6), &record(6, 4000)).unwrap();
        let plan = writer.next_flush().unwrap().unwrap();
        disk.write(&plan, |sector| sector != lost_sector);
        let (recovered, records) = disk.recover_all();
        assert_eq!(checked_positions(&records), [1, 2, 3, 4, 5]);
        assert_eq!(end_of(&recovered), 5);
    }
}

/// C6: a recycled segment holds good blocks of its earlier life behind the new tail, at the very place where the next block
/// would be. They are not part of the log.
#[test]
fn stale_blocks_of_a_recycled_segment_are_not_records() {
    let (mut disk, mut writer) = new_log(tiny_config());
    append_each(&mut disk, &mut writer, 1..=20, 100);
    let purged = writer.purge_below(Position(14));
    assert_eq!(purged, [Life(1)]);
    disk.recycle(&purged);
    append_each(&mut disk, &mut writer, 21..=30, 100);
    let active = writer.segments().last().unwrap().life;
    let after_tail =
        BlockHeader::decode(&disk.files[&active][3 * BLOCK..], active, segment_seed(active), 3 * BLOCK as u64);
    assert_eq!(after_tail, Err(BlockFault::OtherLife(Life(1))), "an old block stands where the next one would");
    let (recovered, records) = disk.recover(RecoveryOptions::new(Position(13), Life::NONE));
    assert_eq!(checked_positions(&records), (14..=30).collect::<Vec<_>>());
    assert_eq!(recovered.verdict, Verdict::Clean { end: Position(30) });
}

/// C6, the other way round: segments are discarded and recycled, and the server dies before the first segment of the new
/// stream has its name. If the highest life left decided the next one, the recycled file would get its old number back
/// and its old blocks would be good again.
#[test]
fn a_life_is_not_given_out_again_after_its_file_became_a_spare() {
    let (mut disk, mut writer) = new_log(tiny_config());
    append_each(&mut disk, &mut writer, 1..=12, 100);
    let (recovered, _) = disk.recover(RecoveryOptions {
        discard_after: Some(Position(3)),
        ..RecoveryOptions::new(Position::ZERO, Life::NONE)
    });
    let cut_off: Vec<_> = recovered.recycle_now.iter().chain(&recovered.recycle_when_ready).copied().collect();
    disk.recycle(&cut_off);
    assert!(disk.spares.iter().any(|(life, _)| *life == Life(2)), "a segment with discarded blocks is spare");
    let (recovered, _) = disk.recover(RecoveryOptions {
        discard_after: Some(Position(3)),
        ..RecoveryOptions::new(Position::ZERO, Life::NONE)
    });
    let mut writer = disk.resume(tiny_config(), &recovered);
    append_each(&mut disk, &mut writer, [100], 100);
    assert_eq!(checked_positions(&disk.recover_all().1), [1, 2, 3, 100]);
}

/// C9: closeSession of a million ephemerals is one record, larger than a block, a flush and a segment.
#[test]
fn giant_record_runs_over_segments_and_is_whole_or_absent() {
    let giant_bytes = 3 * 8 * BLOCK + 1234;
    let (mut disk, mut writer) = new_log(tiny_config());
    append_each(&mut disk, &mut writer, [1], 100);
    writer.append(Position(2), &record(2, giant_bytes)).unwrap();
    writer.append(Position(3), &record(3, 10)).unwrap();
    let mut unfinished = Vec::new();
    loop {
        disk.make_segments(&mut writer);
        let Some(plan) = writer.next_flush().unwrap() else { break };
        if disk.finish(&mut writer, plan) == Position(1) {
            unfinished.push(disk.clone());
        }
    }
    assert_eq!(writer.durable_position(), Position(3));
    assert!(disk.files.len() > 3 && unfinished.len() > 5);
    assert_eq!(checked_positions(&disk.recover_all().1), [1, 2, 3]);
    for mut disk in unfinished {
        let (recovered, records) = disk.recover_all();
        assert_eq!(checked_positions(&records), [1]);
        assert!(matches!(recovered.verdict, Verdict::TornTail { end: Position(1), .. }));
        // The log goes on behind the unfinished record, which must not swallow what follows.
        let mut writer = disk.resume(tiny_config(), &recovered);
        append_each(&mut disk, &mut writer, [2, 3], 50);
        assert_eq!(checked_positions(&disk.recover_all().1), [1, 2, 3]);
    }
}

/// E6: an acknowledged block rots. With any later block on disk this is damage, never a torn tail: cutting there would
/// drop acknowledged records silently.
#[test]
fn damage_before_the_last_block_is_reported_at_every_block() {
    let (mut disk, mut writer) = new_log(tiny_config());
    append_each(&mut disk, &mut writer, 1..=20, 100);
    let written: Vec<_> = writer.segments().map(|segment| segment.life).collect();
    let mut checked = 0;
    for life in written {
        for offset in (BLOCK..8 * BLOCK).step_by(BLOCK) {
            for at in [0, 5, 16, 60, 70] {
                let mut damaged = disk.clone();
                damaged.files.get_mut(&life).unwrap()[offset + at] ^= 0x40;
                let (recovered, records) = damaged.recover_all();
                let lost = (life.0 - 1) * 7 + offset as u64 / BLOCK as u64;
                if lost >= 20 {
                    continue;
                }
                let Verdict::Damage(damage) = &recovered.verdict else { panic!("{life} {offset} {at}: {recovered:?}") };
                assert_eq!(
                    (damage.life, damage.offset, damage.recoverable_to),
                    (life, offset as u64, Position(lost - 1))
                );
                assert!(recovered.resume(7).is_err());
                assert_eq!(checked_positions(&records), (1..lost).collect::<Vec<_>>());
                checked += 1;
            }
        }
    }
    assert_eq!(checked, 19 * 5);
}

/// E6: the very last acknowledged block rots. Without a word after it, it looks torn; the idle block is that word.
#[test]
fn idle_block_makes_damage_of_the_last_record_visible() {
    let (mut disk, mut writer) = new_log(tiny_config());
    append_each(&mut disk, &mut writer, 1..=3, 100);
    let mut silent = disk.clone();
    let plan = writer.idle_block().unwrap().expect("the last block does not say that 3 is durable");
    disk.finish(&mut writer, plan);
    assert!(writer.idle_block().unwrap().is_none(), "said once is enough");
    for disk in [&mut silent, &mut disk] {
        disk.files.get_mut(&Life(1)).unwrap()[3 * BLOCK + 100] ^= 1;
    }
    assert_eq!(end_of(&silent.recover_all().0), 2);
    let (recovered, _) = disk.recover_all();
    assert!(matches!(cause_of(&recovered), DamageCause::Block { fault: BlockFault::PayloadChecksum(_), .. }));
}

/// The device writes a block to another place of the file and reports success. The next block proves it; and even without
/// one, a good block where it does not belong is not what a crash leaves.
#[test]
fn misplaced_write_is_damage() {
    for next_follows in [false, true] {
        let (mut disk, mut writer) = new_log(tiny_config());
        append_each(&mut disk, &mut writer, 1..=2, 100);
        writer.append(Position(3), &record(3, 100)).unwrap();
        let mut plan = writer.next_flush().unwrap().unwrap();
        plan.offset += 2 * BLOCK as u64;
        disk.finish(&mut writer, plan);
        if next_follows {
            append_each(&mut disk, &mut writer, [4], 100);
        }
        let (recovered, records) = disk.recover_all();
        assert_eq!(checked_positions(&records), [1, 2]);
        assert!(matches!(cause_of(&recovered), DamageCause::Block { .. }));
    }
}

/// A client stores the image of a good-looking block in a znode, where a torn flush leaves it at a block boundary. Without the
/// secret in the seed it would pass for evidence, or for a record.
#[test]
fn block_image_in_client_data_is_not_a_block() {
    let (mut disk, mut writer) = new_log(tiny_config());
    append_each(&mut disk, &mut writer, [1], 100);
    let mut forged = vec![0; BLOCK_HEADER_BYTES];
    RecordHead { record_bytes: 0, position: Position(9), version: 3 }.put(&mut forged);
    let header = BlockHeader {
        payload_bytes: (forged.len() - BLOCK_HEADER_BYTES) as u32,
        life: Life(1),
        offset: 3 * BLOCK as u64,
        first_record: Some((Position(9), 0)),
        previous_position: Position(1),
        durable_position: Position(1),
        committed_position: Position(1),
        synced: true,
    };
    header.seal(&mut forged, BlockSeed::new(0, Life(1)), BLOCK as u32);
    let mut data = vec![1; BLOCK - BLOCK_HEADER_BYTES - RECORD_HEAD_BYTES];
    data.extend_from_slice(&forged);
    writer.append(Position(2), &data).unwrap();
    let plan = writer.next_flush().unwrap().unwrap();
    disk.write(&plan, |sector| sector != 1);
    assert!(disk.files[&Life(1)][3 * BLOCK..].starts_with(b"RKBL"), "the image stands where a block would");
    let (recovered, records) = disk.recover_all();
    assert_eq!(checked_positions(&records), [1]);
    assert!(matches!(recovered.verdict, Verdict::TornTail { end: Position(1), .. }));
}

/// A segment header that rots where records follow is damage, also in the last segment; one of a segment that was only
/// prepared is nothing.
#[test]
fn bad_segment_header_is_damage_only_where_records_were() {
    let (mut disk, mut writer) = new_log(tiny_config());
    append_each(&mut disk, &mut writer, 1..=10, 100);
    assert_eq!(disk.files.keys().map(|life| life.0).collect::<Vec<_>>(), [1, 2, 3]);
    let mut unused = disk.clone();
    unused.files.get_mut(&Life(3)).unwrap()[9] ^= 1;
    let (recovered, records) = unused.recover_all();
    assert_eq!((end_of(&recovered), records.len()), (10, 10));
    assert_eq!(recovered.recycle_now, [Life(3)]);
    let mut writer = unused.resume(tiny_config(), &recovered);
    append_each(&mut unused, &mut writer, [11], 10);
    assert_eq!(unused.recover_all().1.len(), 11);

    for (life, unused_gone) in [(Life(1), false), (Life(2), false), (Life(2), true)] {
        let mut damaged = disk.clone();
        damaged.files.get_mut(&life).unwrap()[9] ^= 1;
        if unused_gone {
            damaged.files.remove(&Life(3));
        }
        let (recovered, _) = damaged.recover_all();
        assert_eq!(*cause_of(&recovered), DamageCause::SegmentHeader(SegmentFault::Checksum), "{life}");
    }
}

/// A file of the middle is gone, or the first one is although it is needed.
#[test]
fn missing_segment_is_damage_unless_nothing_of_it_is_needed() {
    let (mut disk, mut writer) = new_log(tiny_config());
    append_each(&mut disk, &mut writer, 1..=20, 100);
    disk.files.remove(&Life(2));
    let (recovered, _) = disk.recover_all();
    let Verdict::Damage(damage) = &recovered.verdict else { panic!("{recovered:?}") };
    assert_eq!(
        (damage.life, damage.cause.clone()),
        (Life(2), DamageCause::BeginsTooLate { begins_after: Position(14) })
    );
    let (recovered, records) = disk.recover(RecoveryOptions::new(Position(14), Life::NONE));
    assert_eq!(checked_positions(&records), (15..=20).collect::<Vec<_>>());
    assert_eq!(recovered.recycle_now.first(), Some(&Life(1)), "what lies before the hole is void");
}

/// The log's first segment was purged while a record ran on into the second: reading begins inside it.
#[test]
fn reading_begins_inside_a_purged_record() {
    let (mut disk, mut writer) = new_log(tiny_config());
    append_each(&mut disk, &mut writer, [1], 100);
    append_each(&mut disk, &mut writer, [2], 10 * BLOCK);
    append_each(&mut disk, &mut writer, [3], 100);
    let purged = writer.purge_below(Position(3));
    assert_eq!(purged, [Life(1)]);
    purged.iter().for_each(|life| drop(disk.files.remove(life)));
    let (recovered, records) = disk.recover(RecoveryOptions::new(Position(2), Life::NONE));
    assert_eq!(checked_positions(&records), [3]);
    assert_eq!(recovered.verdict, Verdict::Clean { end: Position(3) });
    assert!(matches!(cause_of(&disk.recover_all().0), DamageCause::BeginsTooLate { begins_after: Position(2) }));
}

/// All old segments are purged right after the roll; then the first flush to the new segment is torn. Something must be left
/// that says where the log ends.
#[test]
fn purge_waits_for_a_block_in_the_new_segment() {
    let (mut disk, mut writer) = new_log(tiny_config());
    append_each(&mut disk, &mut writer, 1..=7, 100);
    writer.append(Position(8), &record(8, 100)).unwrap();
    let plan = writer.next_flush().unwrap().unwrap();
    assert_eq!(plan.life, Life(2));
    assert!(writer.purge_below(Position::MAX).is_empty());
    disk.finish(&mut writer, plan);
    assert_eq!(writer.purge_below(Position::MAX), [Life(1)]);
}

/// `--discard-after` goes on behind damage, keeps what is whole up to there, and the next start must not stumble over
/// the damage that was cut off.
#[test]
fn discard_after_cuts_for_good() {
    let (mut disk, mut writer) = new_log(tiny_config());
    append_each(&mut disk, &mut writer, 1..=20, 100);
    disk.files.get_mut(&Life(1)).unwrap()[6 * BLOCK + 80] ^= 1;
    let discard = |position| RecoveryOptions {
        discard_after: Some(Position(position)),
        ..RecoveryOptions::new(Position::ZERO, Life::NONE)
    };
    assert!(matches!(cause_of(&disk.recover(discard(10)).0), DamageCause::Block { .. }), "10 cannot be kept");
    for keep in [5, 3] {
        let mut disk = disk.clone();
        let (recovered, _) = disk.recover(discard(keep));
        assert_eq!(end_of(&recovered), keep);
        let mut writer = disk.resume(tiny_config(), &recovered);
        append_each(&mut disk, &mut writer, 30..=50, 100);
        let (recovered, records) = disk.recover_all();
        assert_eq!(checked_positions(&records), (1..=keep).chain(30..=50).collect::<Vec<_>>());
        assert_eq!(recovered.verdict, Verdict::Clean { end: Position(50) });
    }
}

/// The kept tail rots after a restart wrote down that it was there.
#[test]
fn loss_of_what_a_restart_kept_is_damage() {
    let (mut disk, mut writer) = new_log(tiny_config());
    append_each(&mut disk, &mut writer, 1..=3, 100);
    let (recovered, _) = disk.recover_all();
    disk.resume(tiny_config(), &recovered);
    disk.files.get_mut(&Life(1)).unwrap()[3 * BLOCK + 70] ^= 1;
    assert_eq!(*cause_of(&disk.recover_all().0), DamageCause::CutNotMet { kept_to: Position(3) });
}

/// Restarts without a write must not pile up segments, nor lose the cut.
#[test]
fn idle_restarts_use_no_space() {
    let (mut disk, mut writer) = new_log(tiny_config());
    append_each(&mut disk, &mut writer, 1..=3, 100);
    for _ in 0..20 {
        let (recovered, records) = disk.recover_all();
        assert_eq!(checked_positions(&records), [1, 2, 3]);
        disk.resume(tiny_config(), &recovered);
        assert!(disk.files.len() + disk.spares.len() <= 5, "{:?}", disk.files.keys());
    }
}

/// Lengths and marks are hostile although every checksum is right: nothing is allocated or read by them.
#[test]
fn hostile_lengths_are_refused_before_allocation() {
    type Spoil = fn(&mut Vec<u8>, &mut BlockHeader);
    const LENGTH: usize = BLOCK_HEADER_BYTES;
    let spoilers: [(Spoil, DamageCause); 6] = [
        (
            |block, _| block[LENGTH..LENGTH + 4].copy_from_slice(&u32::MAX.to_le_bytes()),
            DamageCause::RecordTooLong { position: Position(2), record_bytes: u32::MAX },
        ),
        (
            |block, header| {
                block[LENGTH + 4..LENGTH + 12].copy_from_slice(&u64::MAX.to_le_bytes());
                header.first_record = Some((Position::MAX, 0));
            },
            DamageCause::OutOfOrder { last: Position(1), position: Position::MAX },
        ),
        (|_, header| header.first_record = Some((Position(2), 1 << 30)), DamageCause::Malformed),
        (|_, header| header.first_record = Some((Position(3), 0)), DamageCause::Malformed),
        (
            |_, header| header.previous_position = Position(5),
            DamageCause::Gap { expected: Position(1), found: Position(5) },
        ),
        (|_, header| header.durable_position = Position(2), DamageCause::Claim { durable_position: Position(2) }),
    ];
    for (spoil, cause) in spoilers {
        let (mut disk, mut writer) = new_log(tiny_config());
        append_each(&mut disk, &mut writer, [1], 100);
        let mut block = vec![0; BLOCK_HEADER_BYTES];
        RecordHead { record_bytes: 10, position: Position(2), version: 3 }.put(&mut block);
        block.extend_from_slice(&record(2, 10));
        let mut header = BlockHeader {
            payload_bytes: (RECORD_HEAD_BYTES + 10) as u32,
            life: Life(1),
            offset: 2 * BLOCK as u64,
            first_record: Some((Position(2), 0)),
            previous_position: Position(1),
            durable_position: Position(1),
            committed_position: Position(1),
            synced: true,
        };
        spoil(&mut block, &mut header);
        header.seal(&mut block, segment_seed(Life(1)), BLOCK as u32);
        disk.files.get_mut(&Life(1)).unwrap()[2 * BLOCK..3 * BLOCK].copy_from_slice(&block);
        let (recovered, records) = disk.recover_all();
        assert_eq!(checked_positions(&records), [1]);
        assert_eq!(*cause_of(&recovered), cause);
    }
}

/// The last segment is cut short, by a copy that ran out of room: no block is left behind the cut to show that there was
/// more. The file had its whole length before it got its name, so its end is not the log's. The block at the cut has a
/// payload length that points beyond the file.
#[test]
fn shortened_segment_is_damage() {
    for file_bytes in [0, 10, BLOCK, 2 * BLOCK, 2 * BLOCK + 100, 3 * BLOCK, 5 * BLOCK + 7, 8 * BLOCK - 100] {
        let (mut disk, mut writer) = new_log(tiny_config());
        append_each(&mut disk, &mut writer, 1..=2, 100);
        disk.files.get_mut(&Life(1)).unwrap().truncate(file_bytes);
        let (recovered, records) = disk.recover_all();
        assert_eq!(checked_positions(&records).len(), (file_bytes / BLOCK).saturating_sub(1).min(2));
        let Verdict::Damage(damage) = &recovered.verdict else { panic!("{file_bytes}: {:?}", recovered.verdict) };
        assert_eq!((damage.life, damage.recoverable_to.0), (Life(1), records.len() as u64));
    }
}

/// forceSync=no: after a power failure a later block may be on disk without an earlier one. Nothing was promised, so it is
/// a cut, not damage.
#[test]
fn hole_in_a_log_without_sync_is_cut() {
    let config = LogConfig { sync: false, ..tiny_config() };
    let (mut disk, mut writer) = new_log(config.clone());
    append_each(&mut disk, &mut writer, 1..=3, 100);
    let (recovered, _) = disk.recover_all();
    let mut writer = disk.resume(config, &recovered);
    append_each(&mut disk, &mut writer, 4..=6, 100);
    let active = writer.segments().last().unwrap().life;
    disk.files.get_mut(&active).unwrap()[2 * BLOCK..3 * BLOCK].fill(0);
    let (recovered, records) = disk.recover_all();
    assert_eq!(checked_positions(&records), [1, 2, 3, 4]);
    assert_eq!(end_of(&recovered), 4);
}

/// E3: what a restart reads back may be in no stable place yet.
#[test]
fn nothing_is_durable_before_the_recovered_tail_is_synced() {
    let (mut disk, mut writer) = new_log(tiny_config());
    append_each(&mut disk, &mut writer, 1..=9, 100);
    writer.append(Position(10), &record(10, 100)).unwrap();
    let plan = writer.next_flush().unwrap().unwrap();
    disk.write(&plan, |_| true);
    let (recovered, records) = disk.recover_all();
    assert_eq!(records.len(), 10);
    let mut writer: LogWriter = LogWriter::start(tiny_config(), recovered.resume(7).unwrap()).unwrap();
    assert_eq!(writer.tail_to_sync(), [Life(2)]);
    assert_eq!(writer.durable_position(), Position::ZERO);
    assert!(writer.wants_segment().unwrap().is_none());
    writer.append(Position(11), b"x").unwrap();
    assert!(writer.next_flush().unwrap().is_none());
    assert_eq!(writer.on_tail_synced(Ok(())).unwrap(), Position(10));
    assert!(writer.wants_segment().unwrap().is_some());

    let mut failing: LogWriter = LogWriter::start(tiny_config(), recovered.resume(7).unwrap()).unwrap();
    assert!(failing.on_tail_synced(Err("EIO".into())).is_err());
    assert!(matches!(failing.wants_segment(), Err(LogError::Stopped(_))));
}

/// After a failed sync nobody knows what is on disk: going on would acknowledge records behind a hole.
#[test]
fn failed_flush_stops_the_log_for_good() {
    let (_disk, mut writer) = new_log(tiny_config());
    writer.append(Position(1), b"x").unwrap();
    writer.next_flush().unwrap().unwrap();
    let stopped = Err(LogError::Stopped("EIO".into()));
    assert_eq!(writer.on_flushed(Err("EIO".into())), stopped);
    assert_eq!(writer.on_flushed(Ok(())), stopped);
    assert_eq!(writer.append(Position(2), b"x").map(|()| Position(2)), stopped);
    assert!(writer.next_flush().is_err() && writer.idle_block().is_err() && writer.wants_segment().is_err());
    assert_eq!(writer.try_reserve(1), Err(Refusal::Stopped("EIO".into())));
    assert_eq!(writer.durable_position(), Position::ZERO);
}

/// B11: the disk is full. What was admitted still fits, what was not prepared is refused, and with room again it goes on.
#[test]
fn full_disk_refuses_before_prep_and_recovers() {
    let (mut disk, mut writer) = new_log(tiny_config());
    let mut position = 0;
    let mut reservations = Vec::new();
    let refusal = loop {
        if let Some(spec) = writer.wants_segment().unwrap() {
            writer.segment_failed(spec.life, "ENOSPC".into()).unwrap();
        }
        match writer.try_reserve(3000) {
            Ok(reservation) => reservations.push(reservation),
            Err(refusal) => break refusal,
        }
        if reservations.len() == 2 {
            for reservation in reservations.drain(..) {
                position += 1;
                writer.append(Position(position), &record(position, 3000)).unwrap();
                writer.release(reservation);
                // Each alone: the worst case that reservations count with.
                let plan = writer.next_flush().unwrap().expect("what was admitted has room");
                disk.finish(&mut writer, plan);
            }
        }
    };
    assert_eq!(refusal, Refusal::NoSpace("ENOSPC".into()));
    assert!(position >= 6, "the room at hand was used");
    assert_eq!(writer.out_of_space(), Some("ENOSPC"));
    assert!(writer.wants_segment().unwrap().is_none(), "not again before the driver says so");
    writer.retry_segment();
    disk.make_segments(&mut writer);
    let reservation = writer.try_reserve(3000).expect("room again");
    writer.release(reservation);
    assert_eq!(disk.recover_all().1.len() as u64, position);
}

/// A burst larger than the room at hand waits for segments; the writer asks for as many as it takes.
#[test]
fn large_reservation_is_granted_after_enough_segments() {
    let (mut disk, mut writer) = new_log(tiny_config());
    assert_eq!(writer.try_reserve(20 * BLOCK), Err(Refusal::Busy));
    disk.make_segments(&mut writer);
    let reservation = writer.try_reserve(20 * BLOCK).expect("segments were made for it");
    writer.append(Position(1), &record(1, 20 * BLOCK)).unwrap();
    writer.release(reservation);
    while let Some(plan) = writer.next_flush().unwrap() {
        disk.finish(&mut writer, plan);
    }
    assert_eq!(writer.durable_position(), Position(1));
}

/// A snapshot from the leader replaces the log: the old segments are void the moment the new log has its first one.
#[test]
fn new_log_after_an_installed_snapshot_ignores_the_old_segments() {
    let (mut disk, mut writer) = new_log(tiny_config());
    append_each(&mut disk, &mut writer, 1..=9, 100);
    let highest = *disk.files.keys().next_back().unwrap();
    let start = LogStart::begin(99, OWNER, Life(highest.0 + 1), Position(500));
    let mut writer = LogWriter::start(tiny_config(), start).unwrap();
    disk.make_segments(&mut writer);
    append_each(&mut disk, &mut writer, [501], 10);
    let (recovered, records) = disk.recover(RecoveryOptions::new(Position(500), Life::NONE));
    assert_eq!(checked_positions(&records), [501]);
    assert!(recovered.recycle_now.contains(&Life(1)));
    assert!(matches!(cause_of(&disk.recover_all().0), DamageCause::BeginsTooLate { begins_after: Position(500) }));
}

/// The contract of order: a driver or caller that breaks it is told, and nothing changes.
#[test]
fn calls_out_of_order_are_refused() {
    let (_disk, mut writer) = new_log(tiny_config());
    writer.append(Position(5), b"x").unwrap();
    assert_eq!(
        writer.append(Position(5), b"x"),
        Err(LogError::OutOfOrder { last: Position(5), position: Position(5) })
    );
    assert_eq!(writer.on_flushed(Ok(())), Err(LogError::NotAsked("a flush")));
    assert_eq!(writer.segment_ready(Life(77)), Err(LogError::NotAsked("a segment")));
    let first = writer.next_flush().unwrap();
    writer.append(Position(6), b"x").unwrap();
    assert!(first.is_some() && writer.next_flush().unwrap().is_none(), "one flush at a time");
}

/// `inspect` shows each block and where the damage is.
#[test]
fn inspect_names_good_and_bad_stretches() {
    let (mut disk, mut writer) = new_log(tiny_config());
    append_each(&mut disk, &mut writer, 1..=4, 100);
    let file = disk.files.get_mut(&Life(1)).unwrap();
    file[2 * BLOCK + SECTOR_BYTES / 4] ^= 1;
    let header = super::format::SegmentHeader::decode(file, Life(1)).unwrap();
    let shape: Vec<_> = inspect_segment(&header, file)
        .map(|report| (report.offset / BLOCK as u64, matches!(report.status, BlockStatus::Good(_))))
        .collect();
    assert_eq!(shape, [(1, true), (2, false), (3, true), (4, true), (5, false)]);
}

/// Names are exact: `log.1` or capitals are somebody else's file.
#[test]
fn file_names_are_canonical() {
    let life = Life(0xab);
    assert_eq!(life.file_name(), "log.00000000000000ab");
    assert_eq!(Life::from_file_name(&life.file_name()), Some(life));
    assert_eq!(Life::from_spare_file_name(&life.spare_file_name()), Some(life));
    for name in ["log.ab", "log.00000000000000AB", "log.+0000000000000ab", "log.0000000000000000", "snapshot.0"] {
        assert_eq!(Life::from_file_name(name), None, "{name}");
    }
    assert!(TestDisk::default().recover_all().0.resume(3).is_ok_and(|start| start.next_life == Life(1)));
}

/// Records were given out up to 12 and are cut back to 3. Whoever counts on must count from 12: clients have heard of those numbers.
/// The server dies whenever it likes: before the cut is made, right after it, or after records of the new count; and the same again
/// with a log that is damaged, where nobody reads beyond the damage.
#[test]
fn the_highest_position_survives_what_cuts_it_off() {
    for (damaged, suspect) in [(false, false), (true, false), (true, true)] {
        let (mut disk, mut writer) = new_log(tiny_config());
        append_each(&mut disk, &mut writer, 1..=9, 100);
        (10..=12).for_each(|position| writer.append(Position(position), &record(position, 100)).unwrap());
        disk.flush_all(&mut writer);
        if damaged {
            disk.files.get_mut(&Life(1)).unwrap()[4 * BLOCK + 100] ^= 1;
        }
        if suspect {
            disk.files.get_mut(&Life(2)).unwrap()[9] ^= 1;
            disk.files.remove(&Life(3)).expect("a segment that was only prepared");
        }
        let cut =
            RecoveryOptions { discard_after: Some(Position(3)), ..RecoveryOptions::new(Position::ZERO, Life::NONE) };
        let highest = |disk: &TestDisk, options| disk.recover(options).0.highest;
        assert_eq!(highest(&disk, cut), Position(12), "damaged: {damaged}, suspect: {suspect}");
        let (recovered, records) = disk.recover(cut);
        assert_eq!((end_of(&recovered), checked_positions(&records)), (3, vec![1, 2, 3]));
        disk.recycle(&recovered.recycle_now);
        assert_eq!(highest(&disk, cut), Position(12), "the cut is not made yet");
        let recovered = disk.recover(cut).0;
        let mut writer = LogWriter::start(tiny_config(), recovered.resume(7).unwrap()).unwrap();
        writer.on_tail_synced(Ok(())).unwrap();
        disk.make_segments(&mut writer);
        let all = RecoveryOptions::new(Position::ZERO, Life::NONE);
        assert_eq!(highest(&disk, all), Position(12), "the cut is made, what was cut off is still there");
        disk.recycle(&recovered.recycle_now);
        disk.recycle(&recovered.recycle_when_ready);
        assert_eq!((highest(&disk, all), end_of(&disk.recover(all).0)), (Position(12), 3));
        for round in 0..3 {
            let recovered = disk.recover(all).0;
            let mut writer = disk.resume(tiny_config(), &recovered);
            append_each(&mut disk, &mut writer, [20 + round], 100);
            assert_eq!(highest(&disk, all), Position(20 + round));
        }
    }
}
