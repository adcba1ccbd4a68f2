//! `dataDir/myid`: the number of this server among the `server.N` lines.

use std::io;
use std::path::Path;

use super::java;
use super::problem::{ConfigError, Place, Problem};

/// Longest `myid` that is read: a number of 64 bits has 20 characters.
const MY_ID_BYTES_MAX: u64 = 4_096;

/// What the file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MyId(pub i64);

/// Reads `dataDir/myid`; `Ok(None)` when there is no such file.
///
/// A file that is there must hold a number, also for a standalone server: ZooKeeper does not start otherwise.
pub(super) fn read(data_dir: &Path) -> Result<Option<MyId>, ConfigError> {
    let path = data_dir.join("myid");
    if !path.is_file() {
        return Ok(None);
    }
    let name = path.display().to_string();
    match read_start(&path) {
        Ok(bytes) => parse(&name, &bytes).map(Some).map_err(|problem| ConfigError::Refused(vec![problem])),
        Err(source) => Err(ConfigError::Unreadable { name, source }),
    }
}

fn read_start(path: &Path) -> io::Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MY_ID_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The first line, which ZooKeeper does not trim.
fn parse(name: &str, bytes: &[u8]) -> Result<MyId, Problem> {
    let line = bytes.split(|&byte| byte == b'\n' || byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    java::parse_long(&line).map(MyId).ok_or_else(|| {
        let place = Place::File { name: name.to_owned(), line: 1 };
        Problem::new(place, "myid", &line, "expected the N of this server's server.N line and nothing else")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that takes any `myid` serves under another server's line.
    #[test]
    fn my_id_that_is_no_number_passes() {
        for (bytes, id) in [(&b"1"[..], 1), (b"1\n", 1), (b"1\r\nmore", 1), (b"-3", -3), (b"007\n", 7)] {
            assert_eq!(parse("myid", bytes).unwrap(), MyId(id), "{bytes:?}");
        }
        for bytes in [&b""[..], b"one", b" 1", b"1 ", b"\n1", b"0x1", b"\xff", b"9223372036854775808"] {
            let text = parse("/d/myid", bytes).unwrap_err().to_string();
            assert!(text.starts_with("/d/myid:1: myid=") && text.contains("server.N"), "{text}");
        }
    }
}
