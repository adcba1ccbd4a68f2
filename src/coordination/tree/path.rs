//! Paths: `/` separated, absolute, `/` is the root.

use thiserror::Error;

/// The subtree that the server keeps for itself.
pub const RESERVED: &str = "/zookeeper";
/// Parent of the quota nodes.
pub const QUOTA: &str = "/zookeeper/quota";
/// The ensemble's configuration.
pub const CONFIG: &str = "/zookeeper/config";

/// A path that `PathUtils.validatePath` refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("invalid path")]
pub struct InvalidPath;

/// ZooKeeper's rules for a path that is written to (`PathUtils.validatePath`).
pub fn validate(path: &str) -> Result<(), InvalidPath> {
    let rest = path.as_bytes().strip_prefix(b"/").ok_or(InvalidPath)?;
    if rest.is_empty() {
        return Ok(());
    }
    let valid_component = |part: &[u8]| !matches!(part, b"" | b"." | b"..");
    // Most paths are plain: only the others are worth decoding.
    let plain = path.bytes().all(|byte| matches!(byte, 0x20..0x7f));
    if !rest.split(|byte| *byte == b'/').all(valid_component) || (!plain && path.chars().any(is_forbidden)) {
        return Err(InvalidPath);
    }
    Ok(())
}

/// Java looks at UTF-16 units: a character above U+FFFF is two surrogates there, and surrogates are forbidden.
fn is_forbidden(c: char) -> bool {
    matches!(c, '\u{0}'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{e000}'..='\u{f8ff}' | '\u{fff0}'..)
}

/// The path before the last `/`; `/` for a child of the root and for the root itself. `None` without any `/`.
pub fn parent(path: &str) -> Option<&str> {
    split(path).map(|(parent, _)| parent)
}

/// The parent, as [`parent`] gives it, and the name after the last `/`.
pub fn split(path: &str) -> Option<(&str, &str)> {
    // Names are short: a plain loop from the end is faster than a search for a character.
    let slash = path.bytes().rposition(|byte| byte == b'/')?;
    Some((if slash == 0 { "/" } else { &path[..slash] }, &path[slash + 1..]))
}

/// The key under which a path is stored: ZooKeeper knows the root as `""` too.
pub fn canonical(path: &str) -> &str {
    if path.is_empty() { "/" } else { path }
}

/// The node's ancestors, itself first, the root last.
pub fn self_and_ancestors(path: &str) -> impl Iterator<Item = &str> {
    let mut next = Some(path);
    std::iter::from_fn(move || {
        let current = next?;
        next = if current == "/" { None } else { parent(current) };
        Some(current)
    })
}

/// Nodes that may never be deleted.
pub fn is_special(path: &str) -> bool {
    matches!(path, "/" | RESERVED | QUOTA | CONFIG)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Apache's own `PathUtils` says of every code point and of every short word. `tests/interop/java/PathTable.java`
    /// writes the table, and the Java suite compares the file with the class.
    const TABLE: &str = include_str!("path_table.txt");

    /// Nodes with characters above U+FFFF in their names were created here, and Apache's clients cannot name such nodes. So no
    /// rule is tested by example: all code points stand in the table, in each place that a name has for them.
    #[test]
    fn character_that_zookeeper_refuses_in_a_name() {
        let mut next = 0;
        for row in TABLE.lines().filter(|row| !row.starts_with("words")) {
            let columns: Vec<&str> = row.split(' ').collect();
            let [first, last] = [columns[0], columns[1]].map(|point| u32::from_str_radix(point, 16).unwrap());
            assert_eq!(first, next, "the table has no gap");
            next = last + 1;
            // Half of a pair is no character here: such bytes are refused while they are decoded.
            for one in (first..=last).filter_map(char::from_u32) {
                let places = [format!("/{one}b"), format!("/a{one}b"), format!("/a{one}"), format!("/{one}")];
                let valid = places.map(|path| if validate(&path).is_ok() { '1' } else { '0' });
                assert_eq!(valid.iter().collect::<String>(), columns[2], "U+{:04X}", u32::from(one));
            }
        }
        assert_eq!(next, u32::from(char::MAX) + 1);
    }

    /// The rules for slashes and dots look at neighbours, so that an example for each says little of them together.
    #[test]
    fn word_of_slashes_and_dots_that_zookeeper_refuses() {
        const ALPHABET: [char; 4] = ['/', '.', 'a', '\0'];
        for row in TABLE.lines().filter_map(|row| row.strip_prefix("words ")) {
            let (units, verdicts) = row.split_once(' ').unwrap();
            let units: u32 = units.parse().unwrap();
            assert_eq!(verdicts.len(), ALPHABET.len().pow(units));
            for (number, verdict) in verdicts.chars().enumerate() {
                let letter = |unit| ALPHABET[number / ALPHABET.len().pow(unit) % ALPHABET.len()];
                let word: String = (0..units).map(letter).collect();
                assert_eq!(validate(&word).is_ok(), verdict == '1', "{word:?}");
            }
        }
    }

    /// The parent of `/a//b` is the missing node `/a/`, which is why creating it says NONODE and not BADARGUMENTS.
    #[test]
    fn parent_is_what_precedes_the_last_slash() {
        assert_eq!(parent("/a//b"), Some("/a/"));
        assert_eq!(parent("/a"), Some("/"));
        assert_eq!(parent("/"), Some("/"));
        assert_eq!(parent("a"), None);
        assert_eq!([split("/a//b"), split("/a"), split("/")], [Some(("/a/", "b")), Some(("/", "a")), Some(("/", ""))]);
        assert_eq!(self_and_ancestors("/a/b").collect::<Vec<_>>(), ["/a/b", "/a", "/"]);
    }
}
