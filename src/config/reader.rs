//! Typed reading of single settings.
//!
//! Each reader returns its default when the value is wrong and leaves a problem behind, so that one start tells all
//! problems.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use super::java;
use super::known_keys::{self, Kind, OWN_PREFIX};
use super::my_id::MyId;
use super::problem::{Place, Problem};
use super::zoo_cfg::{Setting, Settings};
use super::{DigestAlgorithm, ServerConfig, limits, server_line};

pub(super) const FLAG_EXPECTED: &str = "expected true or false";
const SERVER_LINE_EXPECTED: &str =
    "expected host:quorumPort:electionPort[:participant|observer][;[clientHost:]clientPort] with two different ports";

/// `true` or `false` in any case.
pub(super) fn parse_flag(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

/// Reads settings and gathers what is wrong with them.
pub(super) struct Reader {
    pub settings: Settings,
    /// What `dataDir/myid` says, if there is one.
    pub my_id: Option<MyId>,
}

/// The parser that stands behind `key`.
fn kind_of(key: &str) -> Kind {
    known_keys::find(key).map_or(Kind::Text, |row| row.kind)
}

impl Reader {
    fn get(&self, key: &str) -> Option<Setting> {
        self.settings.by_key.get(key).cloned()
    }

    fn refuse(&mut self, key: &str, setting: &Setting, expected: impl Into<String>) {
        self.settings.problems.push(Problem::new(setting.place.clone(), key, &setting.value, expected));
    }

    fn warn(&mut self, key: &str, setting: &Setting, text: &str) {
        self.settings.warnings.push(format!("{}: {key}={}: {text}", setting.place, setting.value));
    }

    /// Reports `key` if it is not there.
    fn missing(&mut self, key: &str, expected: &str) {
        // An unusable value has its own problem.
        if self.get(key).is_none() {
            let place = Place::Missing { name: self.settings.file_name.clone() };
            let problem = Problem { place, key: key.to_owned(), value: None, expected: expected.to_owned() };
            self.settings.problems.push(problem);
        }
    }

    /// The value if `parse` accepts it, else a problem.
    fn typed<T>(&mut self, key: &str, expected: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let setting = self.get(key)?;
        let parsed = parse(&setting.value);
        if parsed.is_none() {
            self.refuse(key, &setting, expected);
        }
        parsed
    }

    pub fn text(&mut self, key: &str) -> Option<String> {
        self.get(key).map(|setting| setting.value)
    }

    pub fn path(&mut self, key: &str) -> Option<PathBuf> {
        self.typed(key, "expected a directory", |value| (!value.is_empty()).then(|| PathBuf::from(value)))
    }

    /// The one key without a default.
    pub fn data_dir(&mut self) -> PathBuf {
        self.missing("dataDir", "not set; expected the directory for snapshots");
        self.path("dataDir").unwrap_or_default()
    }

    pub fn flag(&mut self, key: &str, default: bool) -> bool {
        if kind_of(key) == Kind::Flag {
            return self.typed(key, FLAG_EXPECTED, parse_flag).unwrap_or(default);
        }
        let Some(setting) = self.get(key) else { return default };
        if parse_flag(&setting.value).is_none() {
            self.warn(key, &setting, "neither true nor false; it counts as false, as in ZooKeeper");
        }
        java::parse_boolean(&setting.value)
    }

    /// A key of which ZooKeeper knows only the exact word that is not the default; any other word leaves the default.
    pub fn yes_no(&mut self, key: &str, default: bool) -> bool {
        match self.get(key) {
            Some(setting) if setting.value == if default { "no" } else { "yes" } => !default,
            Some(setting) => {
                if setting.value != if default { "yes" } else { "no" } {
                    self.warn(key, &setting, "neither yes nor no; the default stays, as in ZooKeeper");
                }
                default
            }
            None => default,
        }
    }

    /// A number within `range`, as the parser of `key` reads it.
    fn integer(&mut self, key: &str, range: RangeInclusive<i64>) -> Option<i64> {
        let expected = format!("expected a whole number from {} to {}", range.start(), range.end());
        self.typed(key, &expected, |value| kind_of(key).integer(value).filter(|number| range.contains(number)))
    }

    /// A number within `range`, which is itself within 32 bits.
    pub fn u32(&mut self, key: &str, default: u32, range: RangeInclusive<i64>) -> u32 {
        self.integer(key, range).and_then(|number| number.try_into().ok()).unwrap_or(default)
    }

    pub fn duration_ms(&mut self, key: &str, default: u32) -> u32 {
        self.u32(key, default, 1..=i64::from(limits::DURATION_MS_MAX))
    }

    /// A number of which zero and less mean "none".
    pub fn limit(&mut self, key: &str, default: Option<u32>) -> Option<u32> {
        match self.integer(key, i64::from(i32::MIN)..=i64::from(i32::MAX)) {
            Some(number) => u32::try_from(number).ok().filter(|&n| n > 0),
            None => default,
        }
    }

    /// `globalOutstandingLimit`: below zero is as strict as zero.
    pub fn outstanding_limit(&mut self, default: u32) -> u32 {
        let number = self.integer("globalOutstandingLimit", i64::from(i32::MIN)..=i64::from(i32::MAX));
        number.map_or(default, |number| u32::try_from(number).unwrap_or(0))
    }

    /// `fsync.warningthresholdms`: below zero every flush is too slow.
    pub fn fsync_warning_threshold_ms(&mut self, default: i64) -> i64 {
        self.integer("fsync.warningthresholdms", i64::MIN..=i64::MAX).unwrap_or(default)
    }

    /// A number that ZooKeeper raises to `min` instead of refusing it.
    pub fn at_least(&mut self, key: &str, default: u32, min: u32) -> u32 {
        let number = match self.get(key) {
            Some(_) => self.limit(key, Some(default)).unwrap_or(0),
            None => return default,
        };
        if number < min
            && let Some(setting) = self.get(key)
        {
            self.warn(key, &setting, &format!("raised to the least that is allowed, {min}"));
        }
        number.max(min)
    }

    /// `preAllocSize`, rounded up to what a segment of the log can be long.
    pub fn pre_alloc_size_kib(&mut self, default: u32) -> u32 {
        let key = "preAllocSize";
        let asked = self.u32(key, default, 1..=i64::from(limits::PRE_ALLOC_SIZE_KIB_MAX));
        let used = asked.next_multiple_of(limits::PRE_ALLOC_SIZE_KIB_STEP).max(limits::PRE_ALLOC_SIZE_KIB_MIN);
        if used != asked
            && let Some(setting) = self.get(key)
        {
            self.warn(key, &setting, &format!("rounded up to {used}: the log is made of whole blocks, four at least"));
        }
        used
    }

    pub fn snap_size_limit_kib(&mut self, default: Option<u64>) -> Option<u64> {
        match self.integer("snapSizeLimitInKb", i64::MIN..=i64::MAX) {
            Some(number) => u64::try_from(number).ok().filter(|&n| n > 0),
            None => default,
        }
    }

    /// Both session timeouts; -1 is the default of so many ticks.
    pub fn session_timeouts(&mut self, defaults: &ServerConfig) -> (u32, u32) {
        let min = self.session_timeout("minSessionTimeout", defaults.min_session_timeout_ms);
        let max = self.session_timeout("maxSessionTimeout", defaults.max_session_timeout_ms);
        if min > max {
            let key = if self.get("minSessionTimeout").is_some() { "minSessionTimeout" } else { "maxSessionTimeout" };
            if let Some(setting) = self.get(key) {
                self.refuse(key, &setting, format!("the least session timeout, {min} ms, is above the most, {max} ms"));
            }
        }
        (min, max)
    }

    fn session_timeout(&mut self, key: &str, default: u32) -> u32 {
        match self.get(key) {
            Some(setting) if kind_of(key).integer(&setting.value) == Some(-1) => default,
            _ => self.duration_ms(key, default),
        }
    }

    /// Port and address for clients, from `clientPort` and `clientPortAddress` or from the one `server.N` line.
    pub fn client_listener(&mut self) -> (u16, Option<String>) {
        let address = self.typed("clientPortAddress", "expected a host name or an address", |value| {
            (!value.is_empty()).then(|| value.to_owned())
        });
        let port = self.integer("clientPort", 0..=i64::from(u16::MAX)).and_then(|port| port.try_into().ok());
        let (line_port, line_address) = match self.only_server_line() {
            Some((line_address, line_port)) => (Some(line_port), line_address),
            None => (None, None),
        };
        self.must_agree("clientPort", port, line_port);
        self.must_agree("clientPortAddress", address.as_ref(), line_address.as_ref());
        if port.is_none() && line_port.is_none() {
            self.missing("clientPort", "not set; expected the port for clients");
        }
        (port.or(line_port).unwrap_or(0), address.or(line_address))
    }

    fn must_agree<T: PartialEq + std::fmt::Display>(&mut self, key: &str, set: Option<T>, in_line: Option<T>) {
        if let (Some(set), Some(in_line)) = (set, in_line)
            && set != in_line
            && let Some(setting) = self.get(key)
        {
            self.refuse(key, &setting, format!("expected {in_line}, as the server line says, or nothing"));
        }
    }

    /// The client part of the only server line. One participant is a standalone server, as in ZooKeeper; the line is not about
    /// this server when `myid` names another.
    fn only_server_line(&mut self) -> Option<(Option<String>, u16)> {
        let standalone = self.flag("standaloneEnabled", true);
        let is_line = |(key, _): &(&String, &Setting)| key.starts_with("server.");
        let lines: Vec<(String, Setting)> =
            self.settings.by_key.iter().filter(is_line).map(|(key, line)| (key.clone(), line.clone())).collect();
        if !standalone && let Some(setting) = self.get("standaloneEnabled") {
            let text = "this version does not have ensembles, also not of one server; set it to true or remove it";
            self.refuse("standaloneEnabled", &setting, text);
        }
        for (key, line) in &lines {
            let id = java::parse_long(&key["server.".len()..]).map(MyId);
            match server_line::parse(&line.value) {
                Some(_) if id.is_none() => self.refuse(key, line, "expected server.N with N the number in myid"),
                None => self.refuse(key, line, SERVER_LINE_EXPECTED),
                Some(_) if lines.len() > 1 => self.refuse(
                    key,
                    line,
                    "this version does not have ensembles; keep at most one server line, which is a standalone server",
                ),
                Some(parsed) if !parsed.is_participant => self.refuse(key, line, "observers need participants"),
                Some(parsed) => return self.client_of_line(key, line, id, parsed.client),
            }
        }
        None
    }

    fn client_of_line(
        &mut self,
        key: &str,
        line: &Setting,
        id: Option<MyId>,
        client: Option<(Option<String>, u16)>,
    ) -> Option<(Option<String>, u16)> {
        match self.my_id {
            Some(MyId(mine)) if self.my_id != id => {
                self.settings.warnings.push(format!(
                    "{}: {key} is not about this server, whose myid is {mine}: serving standalone, the line is unused",
                    line.place
                ));
                None
            }
            _ => {
                self.settings
                    .warnings
                    .push(format!("{}: one server line: serving standalone, its quorum ports are unused", line.place));
                client
            }
        }
    }

    /// `closeSessionTxn.enabled=false` asks for a log that older servers can read; ours they cannot read anyway.
    pub fn close_session_txn(&mut self) {
        let key = "closeSessionTxn.enabled";
        if !self.flag(key, true)
            && let Some(setting) = self.get(key)
        {
            self.warn(key, &setting, "a close is always one transaction that carries all its deletions");
        }
    }

    pub fn digest_algorithm(&mut self) -> DigestAlgorithm {
        let key = "DigestAuthenticationProvider.digestAlg";
        let parse = |value: &str| match value.to_ascii_uppercase().as_str() {
            "SHA1" | "SHA-1" | "SHA" => Some(DigestAlgorithm::Sha1),
            "SHA-256" | "SHA256" => Some(DigestAlgorithm::Sha256),
            "SHA-512" | "SHA512" => Some(DigestAlgorithm::Sha512),
            _ => None,
        };
        self.typed(key, "expected SHA1, SHA-256 or SHA-512", parse).unwrap_or_default()
    }

    pub fn super_digest(&mut self) -> Option<String> {
        let key = "DigestAuthenticationProvider.superDigest";
        self.typed(key, "expected user:base64(hash of user:password)", |value| {
            let (user, hash) = value.split_once(':')?;
            (!user.is_empty() && !hash.is_empty() && !hash.contains(':')).then(|| value.to_owned())
        })
    }

    pub fn shards(&mut self) -> Option<u16> {
        let key = format!("{OWN_PREFIX}shards");
        self.integer(&key, 1..=i64::from(limits::SHARDS_MAX)).and_then(|shards| shards.try_into().ok())
    }

    pub fn cpus(&mut self) -> Option<Vec<u32>> {
        let key = format!("{OWN_PREFIX}cpus");
        let expected = format!("expected CPU numbers such as 0-3,5, none above {}", limits::CPU_NUMBER_MAX);
        self.typed(&key, &expected, parse_cpus)
    }
}

/// `0-3,5` in Linux's own notation of CPU lists.
fn parse_cpus(value: &str) -> Option<Vec<u32>> {
    let number = |text: &str| text.trim().parse().ok().filter(|&cpu: &u32| cpu <= limits::CPU_NUMBER_MAX);
    let mut cpus = BTreeSet::new();
    for part in value.split(',') {
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(part)?, number(part)?),
        };
        if first > last {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus.into_iter().collect())
}
