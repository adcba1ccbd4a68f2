//! Snapshot files: what is written is read again, and nothing else is believed.

use super::snapshot_format::{
    Manifest, NodeRecord, PartSummary, SnapshotError, SnapshotFault, SnapshotFile, SnapshotRecord,
};
use super::snapshot_part::{CHUNK_BYTES, PartReader, PartWriter};
use crate::base::{SessionId, Zxid};
use proptest::prelude::*;

const START: Zxid = Zxid(0x10_0000_0005);

fn node<'a>(path: &'a str, data: Option<&'a [u8]>) -> SnapshotRecord<'a> {
    SnapshotRecord::Node(NodeRecord {
        path,
        data,
        czxid: Zxid(1),
        mzxid: Zxid(u64::MAX),
        pzxid: Zxid(3),
        ctime_ms: -4,
        mtime_ms: i64::MAX,
        ephemeral_owner: i64::MIN,
        version: -1,
        cversion: i32::MAX,
        aversion: 7,
        acl_hash: u128::MAX - 5,
    })
}

fn write(records: &[SnapshotRecord<'_>]) -> (Vec<u8>, PartSummary) {
    let mut writer = PartWriter::new(START, 2);
    let mut file = Vec::new();
    for record in records {
        writer.push(record).expect("short fields");
        while let Some(bytes) = writer.take_filled() {
            file.extend_from_slice(&bytes);
            writer.give_back(bytes);
        }
    }
    let (rest, summary) = writer.finish(Zxid(START.0 + 9));
    rest.iter().for_each(|bytes| file.extend_from_slice(bytes));
    assert_eq!((summary.file_bytes, summary.records), (file.len() as u64, records.len() as u64));
    (file, summary)
}

/// Reads a file in pieces of `piece_bytes`; gives the records in their debug form.
fn read(file: &[u8], piece_bytes: usize) -> Result<(Vec<String>, PartSummary), SnapshotError> {
    let mut reader = PartReader::new(START, 2);
    let mut records = Vec::new();
    for piece in file.chunks(piece_bytes) {
        reader.feed(piece, &mut |record| records.push(format!("{record:?}")))?;
    }
    let (summary, finished_at) = reader.finish()?;
    assert_eq!(finished_at, Zxid(START.0 + 9));
    Ok((records, summary))
}

fn debug_forms(records: &[SnapshotRecord<'_>]) -> Vec<String> {
    records.iter().map(|record| format!("{record:?}")).collect()
}

fn some_of_each() -> [SnapshotRecord<'static>; 7] {
    [
        SnapshotRecord::Meta { key: 3, bytes: b"epoch" },
        SnapshotRecord::Session { id: SessionId(-2), timeout_ms: 30_000 },
        SnapshotRecord::Acl { hash: 9, bytes: b"\0\0\0\x1f" },
        node("/", Some(b"")),
        node("/null", None),
        node("/caf\u{e9}", Some(b"data")),
        SnapshotRecord::Meta { key: 0, bytes: b"" },
    ]
}

/// The format is a promise to the next version: these bytes must be read for ever.
#[test]
fn layout_is_what_the_documentation_draws() {
    let (file, summary) = write(&[SnapshotRecord::Session { id: SessionId(5), timeout_ms: 6 }]);
    assert_eq!(file.len(), 32 + 8 + 13 + 32);
    assert_eq!(file[..20], *b"RKSP\x01\0\0\0\x05\0\0\0\x10\0\0\0\x02\0\0\0");
    assert_eq!(file[32..36], [13, 0, 0, 0]);
    assert_eq!(file[40..53], *b"\x01\x05\0\0\0\0\0\0\0\x06\0\0\0");
    assert_eq!(file[53..57], [0; 4]);
    assert_eq!(file[57..61], summary.crc.to_le_bytes());
    assert_eq!(file[61..77], *b"\x01\0\0\0\0\0\0\0\x0e\0\0\0\x10\0\0\0");
    let (file, _) = write(&[node("/p", Some(b"dd"))]);
    assert_eq!(file.len(), 32 + 8 + 85 + 4 + 32);
    assert_eq!(file[40 + 85..40 + 89], *b"/pdd");
}

/// Pieces may end anywhere: inside a header, a length, a record.
#[test]
fn part_is_read_from_pieces_of_any_size() {
    let records = some_of_each();
    let (file, summary) = write(&records);
    for piece_bytes in 1..=file.len() {
        let (read, read_summary) = read(&file, piece_bytes).expect("a good part");
        assert_eq!(read, debug_forms(&records));
        assert_eq!(read_summary, summary);
    }
}

/// Chunks fill, and a record larger than a chunk gets one of its own.
#[test]
fn large_records_and_many_chunks_are_read_again() {
    let large = vec![5; 3 * CHUNK_BYTES];
    let paths: Vec<_> = (0..9000).map(|i| format!("/nodes/{i}")).collect();
    let mut records: Vec<_> = paths.iter().map(|path| node(path, Some(path.as_bytes()))).collect();
    records.insert(4000, node("/large", Some(&large)));
    let (file, _) = write(&records);
    assert!(file.len() > 5 * CHUNK_BYTES);
    for piece_bytes in [1000, CHUNK_BYTES, file.len()] {
        assert_eq!(read(&file, piece_bytes).expect("a good part").0, debug_forms(&records));
    }
}

/// A crash while writing leaves a prefix: it must never pass for a part.
#[test]
fn every_truncation_is_noticed() {
    let (file, _) = write(&some_of_each());
    for bytes in 0..file.len() {
        let error = read(&file[..bytes], 64).expect_err("a truncated part");
        assert_eq!(error.fault, SnapshotFault::Truncated, "{bytes}");
    }
    let mut longer = file.clone();
    longer.push(0);
    assert_eq!(read(&longer, 64).expect_err("too long").fault, SnapshotFault::TrailingBytes);
}

/// Rot at rest: any bit of any byte.
#[test]
fn every_corruption_is_noticed() {
    let (file, _) = write(&some_of_each());
    for at in 0..file.len() {
        for bit in 0..8 {
            let mut damaged = file.clone();
            damaged[at] ^= 1 << bit;
            assert!(read(&damaged, 64).is_err(), "byte {at} bit {bit}");
        }
    }
}

/// A chunk that is dropped, doubled or swapped has a good length and content, but not the place.
#[test]
fn chunks_out_of_place_are_noticed() {
    let data = vec![1; CHUNK_BYTES];
    let (file, _) = write(&[node("/a", Some(&data)), node("/b", Some(&data)), node("/c", Some(&data))]);
    let chunk_bytes = (file.len() - 64) / 3;
    let chunk = |n: usize| &file[32 + n * chunk_bytes..32 + (n + 1) * chunk_bytes];
    let trailer = &file[file.len() - 32..];
    for order in [&[0, 1][..], &[0, 2], &[0, 1, 1, 2], &[1, 0, 2]] {
        let chunks = order.iter().flat_map(|n| chunk(*n)).copied();
        let forged: Vec<_> = file[..32].iter().copied().chain(chunks).chain(trailer.iter().copied()).collect();
        assert_eq!(read(&forged, 5000).expect_err("moved chunks").fault, SnapshotFault::Checksum, "{order:?}");
    }
}

/// Lengths that would have the reader allocate gigabytes, with right checksums.
#[test]
fn hostile_lengths_are_refused_before_allocation() {
    let (file, _) = write(&[]);
    let chained = |payload: &[u8]| {
        let crc = u32::from_le_bytes(file[28..32].try_into().expect("four bytes"));
        let bytes = (payload.len() as u32).to_le_bytes();
        let crc = crc32c::crc32c_append(crc32c::crc32c_append(crc, &bytes), payload);
        [&file[..32], &bytes, &crc.to_le_bytes(), payload].concat()
    };
    let mut huge_chunk = file[..32].to_vec();
    huge_chunk.extend_from_slice(&[0xff; 8]);
    assert_eq!(read(&huge_chunk, 7).expect_err("huge").fault, SnapshotFault::TooLong(u64::from(u32::MAX)));

    let mut node_bytes = Vec::new();
    node("/a", Some(b"x")).encode(&mut node_bytes);
    for field in [1, 5] {
        let mut hostile = node_bytes.clone();
        hostile[field..field + 4].copy_from_slice(&0xffff_fff0_u32.to_le_bytes());
        assert!(matches!(read(&chained(&hostile), 7).expect_err("hostile").fault, SnapshotFault::Malformed(_)));
    }
    for hostile in [&b"\x02"[..], &[0xff; 20], b"\x04\0\xff\xff\xff\x7f", &[KIND_OF_NOTHING; 3]] {
        assert!(matches!(read(&chained(hostile), 7).expect_err("hostile").fault, SnapshotFault::Malformed(_)));
    }
    node_bytes[85] = 0xff;
    assert!(matches!(read(&chained(&node_bytes), 7).expect_err("not UTF-8").fault, SnapshotFault::Malformed(_)));
}

const KIND_OF_NOTHING: u8 = 77;

/// A part of another snapshot, or another part, has every checksum right.
#[test]
fn good_part_of_something_else_is_refused() {
    let (file, summary) = write(&some_of_each());
    let (other, other_summary) = write(&some_of_each()[1..]);
    let parts = vec![other_summary, PartSummary::default(), summary];
    let manifest = Manifest { start: START, end: Zxid(START.0 + 9), epoch: 1, parts };
    let outcome = |manifest: &Manifest, index: u32, file: &[u8]| {
        let mut reader = manifest.part_reader(index).expect("a part");
        reader.feed(file, &mut |_| {})?;
        reader.finish()
    };
    assert!(outcome(&manifest, 2, &file).is_ok());
    let later = Manifest { start: Zxid(START.0 + 1), ..manifest.clone() };
    for (manifest, index, file) in [(&manifest, 2, &other), (&manifest, 0, &other), (&later, 2, &file)] {
        assert_eq!(outcome(manifest, index, file).expect_err("another part").fault, SnapshotFault::OtherPart);
    }
    assert!(manifest.part_reader(3).is_none());
}

/// The manifest is what makes a snapshot exist: no damaged one may be believed.
#[test]
fn manifest_round_trip_truncation_and_corruption() {
    let part = |n: u64| PartSummary { file_bytes: n << 33, records: n, crc: n as u32 };
    let manifest = Manifest { start: START, end: Zxid(START.0 + 1), epoch: 42, parts: (0..3).map(part).collect() };
    let bytes = manifest.encode();
    assert_eq!(bytes.len(), 40 + 3 * 24 + 4);
    assert_eq!(Manifest::decode(&bytes), Ok(manifest));
    for at in 0..bytes.len() {
        assert_eq!(Manifest::decode(&bytes[..at]).expect_err("truncated").fault, SnapshotFault::Truncated);
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        assert!(Manifest::decode(&damaged).is_err(), "byte {at}");
    }
    let longer = [&bytes[..], b"\0"].concat();
    assert_eq!(Manifest::decode(&longer).expect_err("too long").fault, SnapshotFault::TrailingBytes);
}

/// After damage the reader must not find its feet again in the middle.
#[test]
fn failed_reader_stays_failed() {
    let (mut file, _) = write(&some_of_each());
    file[50] ^= 1;
    let mut reader = PartReader::new(START, 2);
    let error = reader.feed(&file, &mut |_| {}).expect_err("damaged");
    assert_eq!((error.offset, error.fault), (40, SnapshotFault::Checksum));
    assert_eq!(reader.feed(&[], &mut |_| {}), Err(error));
    assert_eq!(reader.finish(), Err(error));
}

/// Names are exact, so that a stray file is never taken for a part.
#[test]
fn file_names_have_one_spelling() {
    for file in [SnapshotFile::Manifest(START), SnapshotFile::Part(START, 0), SnapshotFile::Part(Zxid::ZERO, 12)] {
        assert_eq!(SnapshotFile::parse(&file.to_string()), Some(file));
    }
    assert_eq!(SnapshotFile::Part(Zxid(0xab), 3).to_string(), "snapshot.ab.part3");
    for name in ["snapshot.", "snapshot.AB", "snapshot.0ab", "snapshot.ab.part03", "snapshot.ab.part", "log.ab"] {
        assert_eq!(SnapshotFile::parse(name), None, "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Any bytes: an answer, no panic, no allocation beyond what came.
    #[test]
    fn garbage_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..300), at in 0usize..200, piece in 1usize..50) {
        let (mut file, _) = write(&some_of_each());
        let at = at.min(file.len());
        file.splice(at.., bytes);
        let intact = write(&some_of_each()).0 == file;
        prop_assert_eq!(read(&file, piece).is_ok(), intact);
    }
}
