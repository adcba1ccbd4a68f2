//! What can be wrong with a configuration, told so that the reader knows which line to change and to what.

use std::fmt;

/// Where a setting was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The configuration file, and the line (from 1) on which the setting starts.
    File {
        /// Name of the file, as the user gave it.
        name: String,
        /// Line number, from 1.
        line: usize,
    },
    /// `--override key=value`.
    Override,
    /// `-Dkey=value` in `JVMFLAGS` or `SERVER_JVMFLAGS`.
    JvmFlags,
    /// Nowhere: the key is missing from the named file.
    Missing {
        /// Name of the file, as the user gave it.
        name: String,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::File { name, line } => write!(f, "{name}:{line}"),
            Place::Override => f.write_str("--override"),
            Place::JvmFlags => f.write_str("JVMFLAGS"),
            Place::Missing { name } => f.write_str(name),
        }
    }
}

/// One thing wrong with one setting.
///
/// The text shows place, key, value and what is expected. The value of a key that holds a secret is never shown: such
/// texts end in logs (a leak that ZooKeeper itself fixed only in 3.9.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where the setting was written.
    pub place: Place,
    /// The key as written.
    pub key: String,
    /// The value, masked if secret; `None` when the key is missing.
    pub value: Option<String>,
    /// What is expected, or why it is refused, as the end of a sentence.
    pub expected: String,
}

impl Problem {
    /// A problem with the setting `key=value` at `place`.
    pub fn new(place: Place, key: &str, value: &str, expected: impl Into<String>) -> Problem {
        let shown = if is_secret(key) { "(hidden)" } else { value };
        Problem { place, key: key.to_owned(), value: Some(shown.to_owned()), expected: expected.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{}: {}={}: {}", self.place, self.key, value, self.expected),
            None => write!(f, "{}: {}: {}", self.place, self.key, self.expected),
        }
    }
}

/// Whether the value of `key` may not be shown.
fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    key.contains("password") || key.contains("superdigest")
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("{name}: cannot read the configuration: {source}")]
    Unreadable {
        /// Name of the file, as the user gave it.
        name: String,
        /// What the file system said.
        source: std::io::Error,
    },
    /// The file is not in the syntax of Java properties.
    #[error("{name}:{line}: not a Java properties line (expected key=value, # or ! for comments): {reason}")]
    Syntax {
        /// Name of the file, as the user gave it.
        name: String,
        /// Line number, from 1; 0 if unknown.
        line: usize,
        /// What the parser said.
        reason: String,
    },
    /// Settings are wrong or ask for something that this version does not have. All of them, so that one start shows
    /// all that must be changed.
    #[error("{}", lines(.0))]
    Refused(Vec<Problem>),
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
}
