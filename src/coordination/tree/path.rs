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

fn is_forbidden(c: char) -> bool {
    matches!(c, '\u{0}'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{e000}'..='\u{f8ff}' | '\u{fff0}'..='\u{ffff}')
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

    /// Only writes are validated; the ranges and the dot rules are ZooKeeper's.
    #[test]
    fn paths_that_zookeeper_refuses_are_refused() {
        for good in ["/", "/a", "/a/b", "/a.b/..c", "/a/.b", "/\u{a0}", "/\u{fb00}"] {
            assert_eq!(validate(good), Ok(()), "{good:?}");
        }
        for bad in [
            "",
            "a",
            "/a/",
            "//",
            "/a//b",
            "/.",
            "/a/..",
            "/a/./b",
            "/a\u{0}",
            "/a\u{1f}",
            "/a\u{7f}",
            "/\u{e000}",
            "/\u{fff1}",
        ] {
            assert_eq!(validate(bad), Err(InvalidPath), "{bad:?}");
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
