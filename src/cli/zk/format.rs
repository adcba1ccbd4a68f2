//! What the user sees: stats in zkCli's words, events, errors.

use crate::client::{ClientError, NodeEvent, WatchEvent};
use crate::protocol::zookeeper::{ErrorCode, Stat};
use std::borrow::Cow;

/// The stat in the words of ZooKeeper's own command line; times in UTC.
pub(super) fn stat(stat: &Stat) -> String {
    format!(
        "cZxid = 0x{:x}\nctime = {}\nmZxid = 0x{:x}\nmtime = {}\npZxid = 0x{:x}\ncversion = {}\ndataVersion = {}\n\
         aclVersion = {}\nephemeralOwner = 0x{:x}\ndataLength = {}\nnumChildren = {}",
        stat.czxid,
        time(stat.ctime_ms),
        stat.mzxid,
        time(stat.mtime_ms),
        stat.pzxid,
        stat.cversion,
        stat.version,
        stat.aversion,
        stat.ephemeral_owner,
        stat.data_length,
        stat.num_children
    )
}

/// `2026-03-01 09:05:07.123 UTC`, by the proleptic Gregorian calendar.
fn time(ms: i64) -> String {
    let (days, ms_of_day) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000));
    let (year, month, day) = civil(days);
    let seconds = ms_of_day / 1000;
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}.{:03} UTC",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        ms_of_day % 1000
    )
}

/// Year, month and day of a day counted from 1970-01-01 (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// A watch event on one line.
pub(super) fn event(event: &WatchEvent) -> String {
    match event {
        WatchEvent::Node(NodeEvent { kind, path, zxid: -1 }) => format!("{kind:?} {}", printable(path)),
        WatchEvent::Node(NodeEvent { kind, path, zxid }) => format!("{kind:?} {} zxid=0x{zxid:x}", printable(path)),
        WatchEvent::Missed => "the connection was interrupted: events may be missing".to_owned(),
        WatchEvent::SessionEnded => "the session has ended: no more events".to_owned(),
    }
}

/// Text for a terminal: control characters, which could do anything to it, are shown escaped.
pub(super) fn printable(text: &str) -> Cow<'_, str> {
    let harmless = |c: char| !c.is_control() || c == '\n' || c == '\t';
    if text.chars().all(harmless) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match harmless(c) {
            true => escaped.push(c),
            false => escaped.extend(c.escape_default()),
        }
    }
    Cow::Owned(escaped)
}

/// What the user was doing, for a better message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Doing {
    /// Creating a node: a missing node is its parent.
    Create,
    /// Anything else.
    Other,
}

/// The error in the user's words.
pub(super) fn error(error: &ClientError, doing: Doing) -> String {
    let ClientError::Refused { code, path } = error else { return error.to_string() };
    let path = printable(path);
    match code {
        ErrorCode::NoNode if doing == Doing::Create => {
            format!("cannot create {path}: its parent does not exist")
        }
        ErrorCode::NoNode => format!("node {path} does not exist"),
        ErrorCode::NodeExists => format!("node {path} already exists"),
        ErrorCode::NotEmpty => format!("node {path} has children: delete them first"),
        ErrorCode::BadVersion => format!("node {path} has another version: it was changed meanwhile"),
        ErrorCode::NoAuth => format!("not permitted on node {path} by its access control list"),
        ErrorCode::NoChildrenForEphemerals => {
            format!("cannot create {path}: its parent is ephemeral and cannot have children")
        }
        ErrorCode::BadArguments => format!("the server does not accept the path {path} for this"),
        code => format!("{path}: the server answered {code:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Leap days and times before 1970 are where calendars written by hand go wrong.
    #[test]
    fn times_are_right_at_the_edges() {
        assert_eq!(time(0), "1970-01-01 00:00:00.000 UTC");
        assert_eq!(time(-1), "1969-12-31 23:59:59.999 UTC");
        assert_eq!(time(951_782_400_000), "2000-02-29 00:00:00.000 UTC");
        assert_eq!(time(1_772_355_907_123), "2026-03-01 09:05:07.123 UTC");
        assert_eq!(time(4_107_542_399_000), "2100-02-28 23:59:59.000 UTC");
        assert_eq!(time(4_107_542_400_000), "2100-03-01 00:00:00.000 UTC");
    }

    /// Node data is anybody's: an escape sequence in it must not reach the terminal of the operator who looks at it.
    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(printable("a\u{1b}[2Jb\u{9b}c"), "a\\u{1b}[2Jb\\u{9b}c");
        assert_eq!(printable("zwölf\n\t"), "zwölf\n\t");
    }

    /// A missing parent and a missing node are the same code on the wire, but not for the user.
    #[test]
    fn errors_name_the_node_and_the_reason() {
        let refused = |code| ClientError::Refused { code, path: "/a/b".into() };
        assert_eq!(error(&refused(ErrorCode::NoNode), Doing::Other), "node /a/b does not exist");
        assert_eq!(error(&refused(ErrorCode::NoNode), Doing::Create), "cannot create /a/b: its parent does not exist");
    }
}
