//! Request frames made once and patched: an xid and a key number are all that differs from request to request.

use crate::protocol::zookeeper::{Acl, AclVector, Create, CreateFlags, Request};

/// The node below which the generator works.
pub(super) const ROOT: &str = "/ringkeeper-bench";
/// Digits of a key number.
const KEY_DIGITS: usize = 8;
/// Most keys that [`KEY_DIGITS`] can number.
pub(super) const KEYS_MAX: u32 = 10u32.pow(KEY_DIGITS as u32);
/// Where the xid of a frame stands.
const XID: std::ops::Range<usize> = 4..8;
/// Where the digits of the key stand: behind length, xid, op, the path's length and `ROOT/k`.
const KEY_START: usize = 16 + ROOT.len() + 2;

/// The digits of every key number, so that patching is a copy.
pub(super) struct Keys {
    digits: Vec<[u8; KEY_DIGITS]>,
}

impl Keys {
    /// Keys 0 to `count - 1`.
    pub fn new(count: u32) -> Keys {
        let digits = (0..count).map(|number| {
            let text = format!("{number:0KEY_DIGITS$}");
            text.as_bytes().try_into().expect("a key number below KEYS_MAX has that many digits")
        });
        Keys { digits: digits.collect() }
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        self.digits.len() as u32
    }
}

/// A frame to copy and patch.
pub(super) struct Template {
    frame: Vec<u8>,
}

impl Template {
    /// getData of a key.
    pub fn get_data() -> Template {
        Template::of(&Request::GetData { path: &path(0), watch: false })
    }

    /// setData of a key.
    pub fn set_data(value: &[u8]) -> Template {
        Template::of(&Request::SetData { path: &path(0), data: Some(value), version: -1 })
    }

    /// create of a key.
    pub fn create(value: &[u8]) -> Template {
        let mut scratch = Vec::new();
        Template::of(&create_request(&path(0), value, &mut scratch))
    }

    fn of(request: &Request<'_>) -> Template {
        let mut frame = Vec::new();
        request.encode_frame(0, &mut frame);
        Template { frame }
    }

    /// Appends the request for key number `key` with `xid`.
    pub fn append(&self, xid: i32, key: u32, keys: &Keys, output: &mut Vec<u8>) {
        let start = output.len();
        output.extend_from_slice(&self.frame);
        let frame = &mut output[start..];
        frame[XID].copy_from_slice(&xid.to_be_bytes());
        frame[KEY_START..KEY_START + KEY_DIGITS].copy_from_slice(&keys.digits[key as usize]);
    }
}

/// The create that makes [`ROOT`].
pub(super) fn create_root(xid: i32, output: &mut Vec<u8>) {
    let mut scratch = Vec::new();
    create_request(ROOT, &[], &mut scratch).encode_frame(xid, output);
}

fn create_request<'a>(path: &'a str, value: &'a [u8], scratch: &'a mut Vec<u8>) -> Request<'a> {
    let acl = AclVector::from_acls(&[Acl::open()], scratch);
    Request::Create(Create {
        path,
        data: Some(value),
        acl,
        flags: CreateFlags::PERSISTENT,
        with_stat: false,
        ttl_ms: None,
    })
}

fn path(key: u32) -> String {
    format!("{ROOT}/k{key:0KEY_DIGITS$}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::jute::Input;
    use crate::protocol::zookeeper::{FrameReader, RequestHeader};

    /// A patch at the wrong offset gives requests that a server answers quickly with an error: the figures look splendid.
    #[test]
    fn patched_requests_are_well_formed() {
        let (keys, value) = (Keys::new(12_346), vec![7; 100]);
        let mut bytes = Vec::new();
        Template::get_data().append(5, 12_345, &keys, &mut bytes);
        Template::set_data(&value).append(-6, 0, &keys, &mut bytes);
        Template::create(&value).append(7, 99, &keys, &mut bytes);
        let mut frames = FrameReader::new(&bytes, 4096);
        let mut next = || {
            let mut input = Input::new(frames.next().unwrap().unwrap().body);
            let header = RequestHeader::decode(&mut input).unwrap();
            (header.xid, Request::decode(header.op, input.rest()).unwrap())
        };
        assert_eq!(next(), (5, Request::GetData { path: "/ringkeeper-bench/k00012345", watch: false }));
        let set = Request::SetData { path: "/ringkeeper-bench/k00000000", data: Some(&value), version: -1 };
        assert_eq!(next(), (-6, set));
        let (xid, Request::Create(create)) = next() else { panic!("not a create") };
        assert_eq!((xid, create.path, create.data), (7, "/ringkeeper-bench/k00000099", Some(&value[..])));
    }
}
