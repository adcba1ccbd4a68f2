//! Random requests over a few paths, so that conflicts are frequent.

use crate::base::prng::Prng;
use crate::protocol::jute::Output;
use crate::protocol::zookeeper::{
    Acl, AclVector, AddWatchMode, Create, CreateFlags, Id, MultiOp, MultiOps, Request, WatcherType, permission,
};
use crate::simulator::checker::access::digest_of;

/// The paths that clients fight over.
const PATHS: &[&str] = &["/a", "/b", "/a/x", "/a/y", "/a/x/p", "/b/x", "/b/e", "/c", "/c/1", "/c/1/2", "/ab", "/e"];

/// Paths that are wrong in one way or another, or special.
const ODD_PATHS: &[&str] = &[
    "",
    "/",
    "a",
    "/a/",
    "/a//b",
    "/a/./b",
    "/a/..",
    "//",
    "/zookeeper",
    "/zookeeper/config",
    "/zookeeper/quota",
    "/a\u{1}",
    "/b\0",
    "/nowhere/x",
];

/// Prefixes of sequential nodes.
const SEQUENTIAL: &[&str] = &["/a/s-", "/b/s-", "/a/x/", "/q-", "/c/n"];

/// What digest users prove; the last one is the super user.
pub(super) const CREDENTIALS: &[&[u8]] = &[b"alice:a", b"bob:b", b"carol:c", b"super:admin"];

fn path(prng: &mut Prng) -> &'static str {
    let paths = if prng.percent(4) { ODD_PATHS } else { PATHS };
    paths[prng.below(paths.len() as u64) as usize]
}

fn version(prng: &mut Prng) -> i32 {
    if prng.percent(70) { -1 } else { prng.below(4) as i32 }
}

fn data(prng: &mut Prng) -> Option<Vec<u8>> {
    let len = match prng.weighted(&[50, 100, 700, 100, 45, 5]) {
        0 => return None,
        1 => 0,
        2 => prng.between(1, 40),
        3 => prng.between(100, 1000),
        4 => prng.between(3000, 6000),
        // Longer than a flush, and at times than a segment of the log (rule C9).
        _ => prng.between(10_000, 70_000),
    };
    let letter = b'a' + prng.below(26) as u8;
    Some((0..len).map(|place| letter.wrapping_add((place % 7) as u8)).collect())
}

fn acl(prng: &mut Prng) -> Vec<Acl> {
    let entry = |perms, scheme: &str, id: String| Acl { perms, id: Id::new(scheme, id) };
    let anyone = |perms| entry(perms, "world", "anyone".into());
    let user = |prng: &mut Prng, perms| entry(perms, "digest", digest_of(prng.choose(&CREDENTIALS[..3])));
    match prng.weighted(&[60, 8, 8, 8, 4, 4, 4, 4]) {
        0 => vec![Acl::open()],
        1 => vec![anyone(permission::ALL & !permission::WRITE)],
        2 => vec![entry(permission::ALL, "auth", String::new()), anyone(permission::READ), anyone(permission::READ)],
        3 => vec![user(prng, permission::ALL), anyone(permission::CREATE | permission::DELETE)],
        4 => vec![entry(permission::ALL, "ip", "10.0.0.0/30".into()), user(prng, permission::ADMIN)],
        5 => vec![entry(permission::READ | permission::ADMIN, "ip", "10.0.0.2".into()), user(prng, permission::WRITE)],
        6 => vec![],
        _ => {
            vec![Acl::open(), entry(permission::ALL, prng.choose(&["super", "world", "digest", "ip"]), "nobody".into())]
        }
    }
}

/// Where a create goes and of which kind.
fn create_target(prng: &mut Prng) -> (&'static str, CreateFlags) {
    match prng.weighted(&[50, 15, 15, 15, 3, 2]) {
        0 => (path(prng), CreateFlags::PERSISTENT),
        1 => (path(prng), CreateFlags::EPHEMERAL),
        2 => (prng.choose(SEQUENTIAL), CreateFlags::PERSISTENT_SEQUENTIAL),
        3 => (prng.choose(SEQUENTIAL), CreateFlags::EPHEMERAL_SEQUENTIAL),
        4 => (path(prng), CreateFlags::PERSISTENT_SEQUENTIAL),
        _ => (path(prng), CreateFlags(7)),
    }
}

/// The pieces of a sub-operation; [`MultiOp`] borrows them.
struct Piece {
    kind: usize,
    path: &'static str,
    flags: CreateFlags,
    version: i32,
    data: Option<Vec<u8>>,
    acl: Vec<Acl>,
    acl_bytes: Vec<u8>,
    with_stat: bool,
}

impl Piece {
    fn random(prng: &mut Prng) -> Piece {
        let kind = prng.weighted(&[40, 20, 30, 10]);
        let (create_path, flags) = create_target(prng);
        let path = if kind == 0 { create_path } else { path(prng) };
        // A flag that does not exist fails the decoding of a whole multi; that is a case of its own.
        let flags = if flags.0 > 3 { CreateFlags::PERSISTENT } else { flags };
        Piece {
            kind,
            path,
            flags,
            version: version(prng),
            data: data(prng),
            acl: if prng.percent(80) { vec![Acl::open()] } else { acl(prng) },
            acl_bytes: Vec::new(),
            with_stat: prng.percent(40),
        }
    }

    fn op(&mut self) -> MultiOp<'_> {
        let data = self.data.as_deref();
        match self.kind {
            0 => MultiOp::Create(Create {
                path: self.path,
                data,
                acl: AclVector::from_acls(&self.acl, &mut self.acl_bytes),
                flags: self.flags,
                with_stat: self.with_stat,
                ttl_ms: None,
            }),
            1 => MultiOp::Delete { path: self.path, version: self.version },
            2 => MultiOp::SetData { path: self.path, data, version: self.version },
            _ => MultiOp::Check { path: self.path, version: self.version },
        }
    }
}

/// The frame of a random request that a sane client may send.
pub(super) fn request_frame(prng: &mut Prng, xid: i32) -> Vec<u8> {
    let mut frame = Vec::new();
    match prng.weighted(&[50, 40, 14]) {
        0 => write(prng, xid, &mut frame),
        1 => read(prng, xid, &mut frame),
        _ => watch_operation(prng, xid, &mut frame),
    }
    frame
}

fn write(prng: &mut Prng, xid: i32, frame: &mut Vec<u8>) {
    let (data, acl, mut scratch) = (data(prng), acl(prng), Vec::new());
    let request = match prng.weighted(&[35, 15, 25, 5, 20]) {
        0 => {
            let (path, flags) = create_target(prng);
            let acl = if prng.percent(70) { vec![Acl::open()] } else { acl };
            let acl = AclVector::from_acls(&acl, &mut scratch);
            let with_stat = prng.percent(30);
            Request::Create(Create { path, data: data.as_deref(), acl, flags, with_stat, ttl_ms: None })
                .encode_frame(xid, frame);
            return;
        }
        1 => Request::Delete { path: path(prng), version: version(prng) },
        2 => Request::SetData { path: path(prng), data: data.as_deref(), version: version(prng) },
        3 => {
            let acl = AclVector::from_acls(&acl, &mut scratch);
            Request::SetAcl { path: path(prng), acl, version: version(prng) }
        }
        _ => {
            let mut pieces: Vec<Piece> = (0..prng.below(5)).map(|_| Piece::random(prng)).collect();
            Request::Multi(pieces.iter_mut().map(Piece::op).collect()).encode_frame(xid, frame);
            return;
        }
    };
    request.encode_frame(xid, frame);
}

fn read(prng: &mut Prng, xid: i32, frame: &mut Vec<u8>) {
    let watch = prng.percent(50);
    let request = match prng.weighted(&[20, 25, 10, 10, 5, 8, 4, 12]) {
        0 => Request::Exists { path: path(prng), watch },
        1 => Request::GetData { path: path(prng), watch },
        2 => Request::GetChildren { path: path(prng), watch, with_stat: false },
        3 => Request::GetChildren { path: path(prng), watch, with_stat: true },
        4 => Request::GetAcl { path: path(prng) },
        5 => Request::Sync { path: path(prng) },
        6 => Request::Ping,
        _ => {
            let ops: MultiOps<'_> = (0..prng.below(5))
                .map(|_| match prng.percent(60) {
                    true => MultiOp::GetData { path: path(prng) },
                    false => MultiOp::GetChildren { path: path(prng) },
                })
                .collect();
            Request::MultiRead(ops)
        }
    };
    request.encode_frame(xid, frame);
}

fn watch_operation(prng: &mut Prng, xid: i32, frame: &mut Vec<u8>) {
    use WatcherType::*;
    let kind = prng.choose(&[Children, Data, Any, Persistent, PersistentRecursive]);
    let mode = prng.choose(&[AddWatchMode::Persistent, AddWatchMode::PersistentRecursive]);
    let request = match prng.weighted(&[5, 3, 3]) {
        0 => Request::AddWatch { path: path(prng), mode },
        1 => Request::CheckWatches { path: path(prng), kind },
        _ => Request::RemoveWatches { path: path(prng), kind },
    };
    request.encode_frame(xid, frame);
}

/// The frame of a request that is badly formed inside a good frame: MARSHALLINGERROR.
pub(super) fn malformed_frame(prng: &mut Prng, xid: i32) -> Vec<u8> {
    let mut frame = Vec::new();
    Output::new(&mut frame).framed(|out| {
        out.i32(xid);
        match prng.below(4) {
            // A getData whose path is longer than the frame.
            0 => {
                out.i32(4);
                out.i32(1000);
            }
            // A create that ends after its path.
            1 => {
                out.i32(1);
                out.string("/a");
            }
            // A multi that mixes reads and writes.
            2 => {
                out.i32(14);
                out.i32(4);
                out.bool(false);
                out.i32(-1);
                out.string("/a");
                out.bool(false);
            }
            // An addWatch of a mode that does not exist.
            _ => {
                out.i32(106);
                out.string("/a");
                out.i32(9);
            }
        }
    });
    frame
}

/// The frame of an operation that does not exist.
pub(super) fn unknown_frame(prng: &mut Prng, xid: i32) -> Vec<u8> {
    let mut frame = Vec::new();
    Output::new(&mut frame).framed(|out| {
        out.i32(xid);
        out.i32(prng.choose(&[0, 13, 20, 500, -7]));
    });
    frame
}
