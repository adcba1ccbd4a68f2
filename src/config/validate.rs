//! From untyped settings to [`ServerConfig`]: first the policy for every key, then the values of the honoured ones.
//!
//! A configuration with any problem is never handed out.

use super::known_keys::{self, Kind, OWN_PREFIX, Treatment};
use super::my_id::MyId;
use super::problem::{ConfigError, Place, Problem};
use super::reader::{FLAG_EXPECTED, Reader, parse_flag};
use super::zoo_cfg::Settings;
use super::{Loaded, ServerConfig, limits};

/// Applies the policy and types the settings.
pub(super) fn into_config(mut settings: Settings, my_id: Option<MyId>) -> Result<Loaded, ConfigError> {
    apply_policy(&mut settings);
    let mut reader = Reader { settings, my_id };
    let config = read_config(&mut reader);
    let Settings { problems, mut warnings, .. } = reader.settings;
    if !problems.is_empty() {
        return Err(ConfigError::Refused(problems));
    }
    warn_about_dangers(&config, &mut warnings);
    Ok(Loaded { config, warnings })
}

/// Sorts out every key that is not honoured.
fn apply_policy(settings: &mut Settings) {
    for (key, setting) in &settings.by_key {
        let refuse = |text: String| Problem::new(setting.place.clone(), key, &setting.value, text);
        let Some(row) = known_keys::find(key) else {
            if key.starts_with(OWN_PREFIX) {
                settings.problems.push(refuse("no such key of ringkeeper's own".to_owned()));
            } else {
                settings.warnings.push(unknown_key(key, &setting.place));
            }
            continue;
        };
        match row.treatment {
            Treatment::Honoured => {}
            Treatment::Meaningless(why) => match wrong_kind(row.kind, &setting.value) {
                Some(expected) => settings.problems.push(refuse(expected.to_owned())),
                None => settings.warnings.push(format!("{}: {key} has no effect here: {why}", setting.place)),
            },
            Treatment::NotYet { feature, same_as } => {
                if !same_as.is_some_and(|value| row.kind.is_same(value, &setting.value)) {
                    settings.problems.push(refuse(not_built(feature, same_as)));
                }
            }
        }
    }
}

fn unknown_key(key: &str, place: &Place) -> String {
    match key.strip_prefix("zookeeper.").filter(|rest| known_keys::find(rest).is_some()) {
        Some(rest) => {
            format!("{place}: unknown key {key}, without effect as in ZooKeeper; in this file the key is {rest}")
        }
        None => format!("{place}: unknown key {key}, without effect"),
    }
}

fn wrong_kind(kind: Kind, value: &str) -> Option<&'static str> {
    match kind {
        Kind::Flag => parse_flag(value).is_none().then_some(FLAG_EXPECTED),
        Kind::Int | Kind::Long => kind.integer(value).is_none().then_some("expected a whole number"),
        // ZooKeeper starts with any value of these.
        Kind::Boolean | Kind::IntProperty | Kind::LongProperty | Kind::Text => None,
    }
}

fn not_built(feature: &str, same_as: Option<&str>) -> String {
    let remedy = match same_as {
        Some("") => "leave it empty or remove it".to_owned(),
        Some(value) => format!("set it to {value} or remove it"),
        None => "remove it".to_owned(),
    };
    format!("this version does not have {feature}; {remedy}")
}

/// Types the honoured keys.
fn read_config(reader: &mut Reader) -> ServerConfig {
    reader.close_session_txn();
    let data_dir = reader.data_dir();
    let tick_max = i64::from(limits::TICK_TIME_MS_MAX);
    let tick_time_ms = reader.u32("tickTime", limits::TICK_TIME_MS_DEFAULT, 1..=tick_max);
    let defaults = ServerConfig::with_defaults(data_dir, tick_time_ms);
    let (client_port, client_port_address) = reader.client_listener();
    let (min_session_timeout_ms, max_session_timeout_ms) = reader.session_timeouts(&defaults);
    ServerConfig {
        data_log_dir: reader.path("dataLogDir").unwrap_or_else(|| defaults.data_dir.clone()),
        client_port,
        client_port_address,
        client_port_listen_backlog: reader.limit("clientPortListenBacklog", None),
        min_session_timeout_ms,
        max_session_timeout_ms,
        max_client_cnxns: reader.limit("maxClientCnxns", defaults.max_client_cnxns),
        max_cnxns: reader.limit("maxCnxns", defaults.max_cnxns),
        sessionless_cnxn_timeout_ms: reader
            .duration_ms("nio.sessionlessCnxnTimeout", defaults.sessionless_cnxn_timeout_ms),
        global_outstanding_limit: reader.outstanding_limit(defaults.global_outstanding_limit),
        jute_max_buffer_bytes: reader.u32(
            "jute.maxbuffer",
            defaults.jute_max_buffer_bytes,
            i64::from(limits::JUTE_MAX_BUFFER_BYTES_MIN)..=i64::from(limits::JUTE_MAX_BUFFER_BYTES_MAX),
        ),
        snap_count: reader.at_least("snapCount", defaults.snap_count, limits::SNAP_COUNT_MIN),
        snap_size_limit_kib: reader.snap_size_limit_kib(defaults.snap_size_limit_kib),
        pre_alloc_size_kib: reader.pre_alloc_size_kib(defaults.pre_alloc_size_kib),
        force_sync: reader.yes_no("forceSync", true),
        fsync_warning_threshold_ms: reader.fsync_warning_threshold_ms(defaults.fsync_warning_threshold_ms),
        snap_retain_count: reader.at_least(
            "autopurge.snapRetainCount",
            defaults.snap_retain_count,
            limits::SNAP_RETAIN_COUNT_MIN,
        ),
        purge_interval_hours: reader.limit("autopurge.purgeInterval", None),
        four_letter_whitelist: reader
            .text("4lw.commands.whitelist")
            .unwrap_or_else(|| defaults.four_letter_whitelist.clone()),
        skip_acl: reader.yes_no("skipACL", false),
        digest_enabled: reader.flag("DigestAuthenticationProvider.enabled", true),
        digest_algorithm: reader.digest_algorithm(),
        super_digest: reader.super_digest(),
        shards: reader.shards(),
        cpus: reader.cpus(),
        spin_micros: reader.u32("ringkeeper.spinMicros", 0, 0..=i64::from(limits::SPIN_MICROS_MAX)),
        read_cache_mib: reader.u32(
            "ringkeeper.readCacheMiB",
            limits::READ_CACHE_MIB_DEFAULT,
            0..=i64::from(limits::READ_CACHE_MIB_MAX),
        ),
        ..defaults
    }
}

/// Settings that are valid and give something away.
fn warn_about_dangers(config: &ServerConfig, warnings: &mut Vec<String>) {
    if !config.force_sync {
        warnings.push("forceSync=no: acknowledged writes can be lost when the machine stops".to_owned());
    }
    if config.skip_acl {
        warnings.push("skipACL=yes: ACLs are not checked, every client may do everything".to_owned());
    }
    for dir in config.data_dirs().into_iter().filter(|dir| dir.is_relative()) {
        warnings.push(format!("{}: a relative path, taken from the directory of the start", dir.display()));
    }
}
