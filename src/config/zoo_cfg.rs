//! From the bytes of a `zoo.cfg`, the `-D` strings of a JVM and `--override` to one map of settings, not yet typed.
//!
//! Precedence, weakest first, as ZooKeeper has it: `-Dzookeeper.key`, the file (ZooKeeper turns its unknown keys into
//! those same system properties), `-Dkey` for the keys that ZooKeeper reads only as plain system properties, and then
//! our own `--override`. What loses, or cannot have an effect, is told in a warning.

use std::collections::BTreeMap;

use java_properties::{LineContent, PropertiesIter};

use super::known_keys::{self, Origin};
use super::problem::{ConfigError, Place, Problem};

/// A value and where it was written.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    pub value: String,
    pub place: Place,
}

/// All settings by key, in key order, so that every run tells problems and warnings in the same order.
#[derive(Debug)]
pub(super) struct Settings {
    pub file_name: String,
    pub by_key: BTreeMap<String, Setting>,
    pub warnings: Vec<String>,
    pub problems: Vec<Problem>,
}

/// A spelling that ZooKeeper has as a system property, accepted in the file as well.
const SUPER_DIGEST_PREFIXED: &str = "zookeeper.DigestAuthenticationProvider.superDigest";

impl Settings {
    /// Reads the file's bytes and the JVM flag strings, with ZooKeeper's precedence.
    pub fn read(file_name: &str, bytes: &[u8], jvm_flags: &[String]) -> Result<Settings, ConfigError> {
        let mut settings = Settings {
            file_name: file_name.to_owned(),
            by_key: BTreeMap::new(),
            warnings: Vec::new(),
            problems: Vec::new(),
        };
        let flags = settings.jvm_properties(jvm_flags);
        let (plain, prefixed): (Vec<_>, Vec<_>) = flags.into_iter().partition(|flag| flag.is_plain);
        for flag in prefixed {
            settings.put(flag.key, flag.value, Place::JvmFlags);
        }
        settings.read_file(bytes)?;
        for flag in plain {
            settings.put(flag.key, flag.value, Place::JvmFlags);
        }
        Ok(settings)
    }

    /// Applies `--override key=value` strings on top; the last one of a key wins.
    pub fn apply_overrides(&mut self, overrides: &[String]) {
        for text in overrides {
            match text.split_once('=') {
                Some((key, value)) if !key.trim().is_empty() => {
                    let setting = Setting { value: value.trim().to_owned(), place: Place::Override };
                    self.by_key.insert(key.trim().to_owned(), setting);
                }
                _ => self.problems.push(Problem {
                    place: Place::Override,
                    key: text.clone(),
                    value: None,
                    expected: "expected key=value".to_owned(),
                }),
            }
        }
    }

    fn read_file(&mut self, bytes: &[u8]) -> Result<(), ConfigError> {
        if !bytes.is_ascii() {
            self.warnings.push(format!(
                "{}: holds bytes above ASCII; properties are read as ISO 8859-1, write other characters as \\uXXXX",
                self.file_name
            ));
        }
        let without_comments = blank_comments(bytes);
        for line in PropertiesIter::new(without_comments.as_slice()) {
            let line = line.map_err(|error| ConfigError::Syntax {
                name: self.file_name.clone(),
                line: error.line_number().unwrap_or(0),
                reason: error.to_string(),
            })?;
            let place = Place::File { name: self.file_name.clone(), line: line.line_number() };
            if let LineContent::KVPair(key, value) = line.consume_content() {
                let key = key.trim();
                let key = key.strip_prefix("zookeeper.").filter(|_| key == SUPER_DIGEST_PREFIXED).unwrap_or(key);
                self.put(key.to_owned(), value, place);
            }
        }
        Ok(())
    }

    fn put(&mut self, key: String, value: String, place: Place) {
        let setting = Setting { value: value.trim().to_owned(), place };
        if let Some(loser) = self.by_key.get(&key)
            && loser.value != setting.value
        {
            self.warnings.push(format!("{}: {key} is set again at {}, which wins", loser.place, setting.place));
        }
        self.by_key.insert(key, setting);
    }

    /// Picks the `-D` strings out of JVM flags, which the start script splits at white space and nothing else.
    fn jvm_properties(&mut self, jvm_flags: &[String]) -> Vec<JvmProperty> {
        let mut found = Vec::new();
        let mut meaningless = Vec::new();
        for flag in jvm_flags.iter().flat_map(|flags| flags.split_whitespace()) {
            let Some(definition) = flag.strip_prefix("-D") else {
                meaningless.push(flag);
                continue;
            };
            let (name, value) = definition.split_once('=').unwrap_or((definition, ""));
            match jvm_property_key(name) {
                Some((key, is_plain)) => {
                    found.push(JvmProperty { key: key.to_owned(), value: value.to_owned(), is_plain })
                }
                // The name only: the value may be a secret.
                None => meaningless.push(flag.split('=').next().unwrap_or(flag)),
            }
        }
        if !meaningless.is_empty() {
            self.warnings.push(format!("JVMFLAGS: without meaning here, there is no JVM: {}", meaningless.join(" ")));
        }
        found
    }
}

struct JvmProperty {
    key: String,
    value: String,
    is_plain: bool,
}

/// The key that the system property `name` sets, and whether ZooKeeper reads it without the `zookeeper.` prefix.
/// `None` for a property that ZooKeeper does not read.
fn jvm_property_key(name: &str) -> Option<(&str, bool)> {
    if let Some(key) = name.strip_prefix("zookeeper.") {
        // `-Dzookeeper.clientPort` has no effect in ZooKeeper and must not have one here.
        return known_keys::find(key).is_some_and(|row| row.origin == Origin::System).then_some((key, false));
    }
    if name == "fsync.warningthresholdms" {
        // The old spelling of the prefixed property, which ZooKeeper still reads.
        return Some((name, false));
    }
    let is_ours = name.starts_with(known_keys::OWN_PREFIX);
    let is_plain = known_keys::find(name).is_some_and(|row| row.origin == Origin::Plain);
    (is_ours || is_plain).then_some((name, true))
}

/// Empties the comment lines and keeps their line ends, so that line numbers stay.
///
/// Java never looks into a comment; the parser below unescapes it, and `# was C:\users\zk` would be a malformed `\u`
/// escape that keeps the server from starting. A line that continues the one before it is not a comment.
fn blank_comments(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut continues = false;
    for line in bytes.split_inclusive(|&byte| byte == b'\n' || byte == b'\r') {
        let content = line.strip_suffix(b"\n").or_else(|| line.strip_suffix(b"\r")).unwrap_or(line);
        // The second half of "\r\n" is not a line of its own.
        let is_half = content.is_empty() && line == b"\n" && out.last() == Some(&b'\r');
        let is_comment = !continues && matches!(content.trim_ascii_start().first(), Some(b'#' | b'!'));
        out.extend_from_slice(if is_comment { &line[content.len()..] } else { line });
        if !is_half {
            let backslashes = content.iter().rev().take_while(|&&byte| byte == b'\\').count();
            continues = !is_comment && backslashes % 2 == 1;
        }
    }
    out
}
