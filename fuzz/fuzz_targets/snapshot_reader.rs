//! Snapshots: what was written is read again, however the bytes are cut; damaged, it is read as it was or refused, within memory
//! that follows from its length.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use ringkeeper::base::{SessionId, Zxid};
use ringkeeper::coordination::persistence::snapshot_format::{
    Manifest, NodeRecord, PartSummary, SnapshotError, SnapshotRecord,
};
use ringkeeper::coordination::persistence::snapshot_part::{CHUNK_BYTES, PartReader, PartWriter};
use ringkeeper_fuzz::allocation::bounded;
use ringkeeper_fuzz::mutation::Mutation;

const START: Zxid = Zxid(0x1_0000_0005);
const PART: u32 = 2;

#[derive(Arbitrary, Clone, Debug)]
enum AnyRecord<'a> {
    Session {
        id: i64,
        timeout_ms: u32,
    },
    Acl {
        hash: u128,
        bytes: &'a [u8],
    },
    Meta {
        key: u8,
        bytes: &'a [u8],
    },
    Node {
        path: &'a str,
        data: Option<&'a [u8]>,
        zxids: [u64; 3],
        times_ms: [i64; 2],
        owner: i64,
        versions: [i32; 3],
    },
    /// Longer than a chunk.
    LongNode {
        path: &'a str,
        data_bytes: u16,
    },
}

static LONG: [u8; CHUNK_BYTES + u16::MAX as usize] = [7; CHUNK_BYTES + u16::MAX as usize];

impl<'a> AnyRecord<'a> {
    fn record(&self) -> SnapshotRecord<'a> {
        match *self {
            AnyRecord::Session { id, timeout_ms } => SnapshotRecord::Session { id: SessionId(id), timeout_ms },
            AnyRecord::Acl { hash, bytes } => SnapshotRecord::Acl { hash, bytes },
            AnyRecord::Meta { key, bytes } => SnapshotRecord::Meta { key, bytes },
            AnyRecord::Node { path, data, zxids, times_ms, owner, versions } => {
                node(path, data, zxids, times_ms, owner, versions)
            }
            AnyRecord::LongNode { path, data_bytes } => {
                let data = &LONG[..CHUNK_BYTES + usize::from(data_bytes)];
                node(path, Some(data), [1; 3], [2; 2], 0, [3; 3])
            }
        }
    }
}

fn node<'a>(
    path: &'a str,
    data: Option<&'a [u8]>,
    [czxid, mzxid, pzxid]: [u64; 3],
    [ctime_ms, mtime_ms]: [i64; 2],
    ephemeral_owner: i64,
    [version, cversion, aversion]: [i32; 3],
) -> SnapshotRecord<'a> {
    let (czxid, mzxid, pzxid) = (Zxid(czxid), Zxid(mzxid), Zxid(pzxid));
    SnapshotRecord::Node(NodeRecord {
        path,
        data,
        czxid,
        mzxid,
        pzxid,
        ctime_ms,
        mtime_ms,
        ephemeral_owner,
        version,
        cversion,
        aversion,
        acl_hash: 9,
    })
}

#[derive(Arbitrary, Debug)]
enum Case<'a> {
    Part {
        records: Vec<AnyRecord<'a>>,
        more: u8,
        mutations: Vec<Mutation>,
        piece_bytes: u16,
    },
    PartBytes {
        bytes: &'a [u8],
        piece_bytes: u16,
    },
    /// Good checksums over what no writer of ours wrote.
    ForgedPart {
        records: Vec<AnyRecord<'a>>,
        mutations: Vec<Mutation>,
        count: Option<u8>,
        piece_bytes: u16,
    },
    Manifest {
        end: u32,
        epoch: u64,
        parts: Vec<(u64, u64, u32)>,
        mutations: Vec<Mutation>,
    },
    ManifestBytes(&'a [u8]),
}

fn write(records: &[SnapshotRecord<'_>], end: Zxid) -> (Vec<u8>, PartSummary) {
    let mut writer = PartWriter::new(START, PART);
    let mut file = Vec::new();
    for record in records {
        writer.push(record).expect("fields of allowed lengths");
        while let Some(bytes) = writer.take_filled() {
            file.extend_from_slice(&bytes);
            writer.give_back(bytes);
        }
    }
    let (rest, summary) = writer.finish(end);
    rest.iter().for_each(|bytes| file.extend_from_slice(bytes));
    (file, summary)
}

/// What a part holds: its records, its summary, and when it was finished.
type Content = (Vec<Vec<u8>>, PartSummary, Zxid);

/// Bytes around both ends of a file and of each of its chunks that are cut as finely as a case says. Half a megabyte in pieces of
/// one byte would tell nothing more, and leave a second for a few dozen cases.
const FINE_BYTES: usize = 512;

/// Length of the piece at `offset` of a file of `file_bytes`.
fn piece_len(file_bytes: usize, offset: usize, piece_bytes: usize) -> usize {
    let (in_chunk, left) = (offset % CHUNK_BYTES, file_bytes - offset);
    if !(FINE_BYTES..CHUNK_BYTES - FINE_BYTES).contains(&in_chunk) || left <= FINE_BYTES {
        return piece_bytes.clamp(1, left);
    }
    // A coarse piece ends where the next fine ones begin.
    piece_bytes.max(file_bytes / FINE_BYTES).clamp(1, (CHUNK_BYTES - in_chunk).min(left) - FINE_BYTES)
}

fn read(file: &[u8], piece_bytes: usize) -> Result<Content, SnapshotError> {
    let mut reader = PartReader::new(START, PART);
    let (mut records, mut offset) = (Vec::new(), 0);
    while offset < file.len() {
        let piece = &file[offset..offset + piece_len(file.len(), offset, piece_bytes)];
        reader.feed(piece, &mut |record| records.push(encode(&record)))?;
        offset += piece.len();
    }
    let (summary, finished_at) = reader.finish()?;
    Ok((records, summary, finished_at))
}

/// The same outcome for every way to cut; memory for the records twice, and the chunk that is being read.
fn read_in_pieces(file: &[u8], piece_bytes: u16) -> Result<Content, SnapshotError> {
    let bytes_max = (4 << 10) + 2 * CHUNK_BYTES + 8 * file.len();
    let whole = bounded(bytes_max, || read(file, file.len()));
    let pieces = bounded(bytes_max, || read(file, piece_bytes.into()));
    assert_eq!(whole, pieces, "however the bytes are cut");
    whole
}

fn check_part(records: &[AnyRecord<'_>], more: u8, mutations: &[Mutation], piece_bytes: u16) {
    let records: Vec<_> = records.iter().take(64).map(AnyRecord::record).collect();
    let end = Zxid(START.0 + u64::from(more));
    let (mut file, summary) = write(&records, end);
    let content = (records.iter().map(encode).collect(), summary, end);
    assert_eq!(read_in_pieces(&file, piece_bytes), Ok(content.clone()));
    let original = file.clone();
    mutations.iter().take(8).for_each(|mutation| mutation.apply(&mut file));
    match read_in_pieces(&file, piece_bytes) {
        Ok(read) => assert!(file == original && read == content, "damage was believed"),
        Err(_) => assert!(file != original, "what was not damaged is refused"),
    }
}

fn encode(record: &SnapshotRecord<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    record.encode(&mut bytes);
    bytes
}

/// A part of one chunk with this payload: header, chunk and trailer, each checksum chained to the one before.
fn forge(payload: &[u8], records: u64) -> Vec<u8> {
    let (mut file, _) = write(&[], START);
    file.truncate(28);
    let mut crc = crc32c::crc32c(&file);
    file.extend_from_slice(&crc.to_le_bytes());
    let trailer = [records.to_le_bytes(), START.0.to_le_bytes(), [0; 8]].concat();
    // An empty chunk would be taken for the trailer.
    for (len, body) in [(payload.len() as u32, payload), (0, &trailer)] {
        if !body.is_empty() {
            crc = crc32c::crc32c_append(crc32c::crc32c_append(crc, &len.to_le_bytes()), body);
            file.extend_from_slice(&[len.to_le_bytes(), crc.to_le_bytes()].concat());
            file.extend_from_slice(body);
        }
    }
    file
}

fn check_forged(records: &[AnyRecord<'_>], mutations: &[Mutation], count: Option<u8>, piece_bytes: u16) {
    let records: Vec<_> = records.iter().take(64).map(AnyRecord::record).collect();
    let mut payload: Vec<u8> = records.iter().flat_map(encode).collect();
    mutations.iter().take(8).for_each(|mutation| mutation.apply(&mut payload));
    let count = count.map_or(records.len() as u64, u64::from);
    if let Ok((read, summary, _)) = read_in_pieces(&forge(&payload, count), piece_bytes) {
        assert_eq!(summary.records, count);
        assert_eq!(read.concat(), payload, "a record has one spelling");
    }
}

fn check_manifest(end: u32, epoch: u64, parts: &[(u64, u64, u32)], mutations: &[Mutation]) {
    let part = |&(file_bytes, records, crc): &(u64, u64, u32)| PartSummary { file_bytes, records, crc };
    let parts = parts.iter().take(64).map(part).collect();
    let manifest = Manifest { start: START, end: Zxid(START.0 + u64::from(end)), epoch, parts };
    let mut bytes = manifest.encode();
    assert_eq!(Manifest::decode(&bytes), Ok(manifest));
    let original = bytes.clone();
    mutations.iter().take(8).for_each(|mutation| mutation.apply(&mut bytes));
    if Manifest::decode(&bytes).is_ok() {
        assert_eq!(bytes, original, "damage was believed");
    }
}

fuzz_target!(|case: Case| {
    match case {
        Case::Part { records, more, mutations, piece_bytes } => check_part(&records, more, &mutations, piece_bytes),
        Case::ForgedPart { records, mutations, count, piece_bytes } => {
            check_forged(&records, &mutations, count, piece_bytes);
        }
        Case::PartBytes { bytes, piece_bytes } => drop(read_in_pieces(bytes, piece_bytes)),
        Case::Manifest { end, epoch, parts, mutations } => check_manifest(end, epoch, &parts, &mutations),
        Case::ManifestBytes(bytes) => {
            if let Ok(manifest) = bounded(4096 + 2 * bytes.len(), || Manifest::decode(bytes)) {
                assert_eq!(manifest.encode(), bytes);
            }
        }
    }
});
