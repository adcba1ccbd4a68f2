//! Every key that ZooKeeper 3.9 knows, and what this version does with it: the one list.
//!
//! A key is honoured, or has no meaning here and is named in one warning, or belongs to something that is not built yet
//! and then stops the start unless its value is the one this version matches anyway. None is taken in silence.

use super::java;

/// Prefix of our own keys.
pub(super) const OWN_PREFIX: &str = "ringkeeper.";

/// How ZooKeeper reads the key, which decides whether a `-D` string can set it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// From the file only.
    File,
    /// As system property `zookeeper.<key>`, which a line of the file also becomes.
    System,
    /// As system property `<key>`; ZooKeeper takes it from `-D` only, we also take it from the file.
    Plain,
}

/// Which parser stands behind the key in ZooKeeper: it decides what a value means, also for keys without meaning here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `true` or `false` in any case; ZooKeeper does not start with anything else.
    Flag,
    /// `Boolean.parseBoolean`: anything but `true` is false.
    Boolean,
    /// `Integer.parseInt`.
    Int,
    /// `Long.parseLong`.
    Long,
    /// `Integer.getInteger`, which falls back to the default in silence where we refuse.
    IntProperty,
    /// `Long.getLong`, likewise.
    LongProperty,
    /// Not a number and not a boolean.
    Text,
}

impl Kind {
    /// The number that ZooKeeper reads from `text`; `None` when it reads none, or the key holds no number.
    pub fn integer(self, text: &str) -> Option<i64> {
        let int32 = |number: &i64| i32::try_from(*number).is_ok();
        match self {
            Kind::Int => java::parse_long(text).filter(int32),
            Kind::Long => java::parse_long(text),
            Kind::IntProperty => java::decode_long(text).filter(int32),
            Kind::LongProperty => java::decode_long(text),
            Kind::Flag | Kind::Boolean | Kind::Text => None,
        }
    }

    /// Whether two values of a key mean the same.
    pub fn is_same(self, one: &str, other: &str) -> bool {
        one.eq_ignore_ascii_case(other) || self.integer(one).is_some_and(|number| self.integer(other) == Some(number))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Treatment {
    /// Typed into `ServerConfig`.
    Honoured,
    /// Accepted with a warning that says why nothing follows from it.
    Meaningless(&'static str),
    /// Refused, naming the feature, unless the value is `same_as` ignoring case.
    NotYet { feature: &'static str, same_as: Option<&'static str> },
}

/// One row: a key, or all keys with a prefix when `key` ends in `.`.
#[derive(Clone, Copy, Debug)]
pub(super) struct KnownKey {
    pub key: &'static str,
    pub origin: Origin,
    pub kind: Kind,
    pub treatment: Treatment,
}

/// The row of `key`: the exact one, else the one with the longest prefix.
pub(super) fn find(key: &str) -> Option<&'static KnownKey> {
    let rows = || TABLES.iter().flat_map(|table| table.iter());
    rows().find(|row| row.key == key).or_else(|| {
        rows().filter(|row| row.key.ends_with('.') && key.starts_with(row.key)).max_by_key(|row| row.key.len())
    })
}

use Kind::{Boolean, Flag, Int, IntProperty, Long, LongProperty, Text};
use Origin::{File, Plain, System};

const fn honoured(origin: Origin, key: &'static str, kind: Kind) -> KnownKey {
    KnownKey { key, origin, kind, treatment: Treatment::Honoured }
}

const fn meaningless(origin: Origin, key: &'static str, kind: Kind, why: &'static str) -> KnownKey {
    KnownKey { key, origin, kind, treatment: Treatment::Meaningless(why) }
}

const fn system(key: &'static str, why: &'static str) -> KnownKey {
    // ZooKeeper reads system properties leniently, so nothing is asked of the value.
    meaningless(System, key, Text, why)
}

const fn not_yet(origin: Origin, key: &'static str, same_as: &'static str, feature: &'static str) -> KnownKey {
    KnownKey { key, origin, kind: Text, treatment: Treatment::NotYet { feature, same_as: Some(same_as) } }
}

const fn not_yet_number(
    origin: Origin,
    key: &'static str,
    kind: Kind,
    same_as: &'static str,
    feature: &'static str,
) -> KnownKey {
    KnownKey { key, origin, kind, treatment: Treatment::NotYet { feature, same_as: Some(same_as) } }
}

const fn refused(origin: Origin, key: &'static str, feature: &'static str) -> KnownKey {
    KnownKey { key, origin, kind: Text, treatment: Treatment::NotYet { feature, same_as: None } }
}

const ENSEMBLE: &str = "it tunes an ensemble, and this server is standalone";
const JVM: &str = "it tunes the JVM, NIO or Netty, which are not used here";
const PIPELINE: &str = "it tunes a stage of ZooKeeper's request pipeline that does not exist here";
const STORAGE: &str = "it tunes ZooKeeper's own file formats, which are not used here";
const OFF: &str = "it tunes a feature that is off";
const ADMIN: &str = "it tunes the HTTP admin server, which this version does not have";
const LOGGING: &str = "it tunes the logging of a JVM";
const CONTAINER: &str = "it tunes container nodes, which this version does not have";
const DIGEST: &str = "the digest of the tree is not kept in this version";

const F_ENSEMBLE: &str = "ensembles";
const F_TLS: &str = "TLS";
const F_SASL: &str = "SASL authentication";
const F_AUTH: &str = "mandatory or pluggable authentication";
const F_THROTTLE: &str = "request and connection throttling beyond globalOutstandingLimit and maxCnxns";
const F_LOCAL: &str = "local sessions";
const F_METRICS: &str = "metrics providers";
const F_KEEPALIVE: &str = "TCP keep-alive on client connections";

const TABLES: [&[KnownKey]; 4] = [HONOURED, PARSED, SYSTEM, PLAIN];

const HONOURED: &[KnownKey] = &[
    honoured(File, "dataDir", Text),
    honoured(File, "dataLogDir", Text),
    honoured(File, "clientPort", Int),
    honoured(File, "clientPortAddress", Text),
    honoured(File, "clientPortListenBacklog", Int),
    honoured(File, "tickTime", Int),
    honoured(File, "maxClientCnxns", Int),
    honoured(File, "minSessionTimeout", Int),
    honoured(File, "maxSessionTimeout", Int),
    honoured(File, "autopurge.snapRetainCount", Int),
    honoured(File, "autopurge.purgeInterval", Int),
    honoured(File, "standaloneEnabled", Flag),
    honoured(File, "server.", Text),
    honoured(System, "maxCnxns", IntProperty),
    honoured(System, "snapCount", IntProperty),
    honoured(System, "snapSizeLimitInKb", LongProperty),
    honoured(System, "preAllocSize", Long),
    honoured(System, "globalOutstandingLimit", IntProperty),
    honoured(System, "forceSync", Text),
    honoured(System, "fsync.warningthresholdms", LongProperty),
    honoured(System, "nio.sessionlessCnxnTimeout", IntProperty),
    honoured(System, "4lw.commands.whitelist", Text),
    honoured(System, "skipACL", Text),
    honoured(System, "DigestAuthenticationProvider.enabled", Boolean),
    honoured(System, "DigestAuthenticationProvider.superDigest", Text),
    honoured(System, "DigestAuthenticationProvider.digestAlg", Text),
    honoured(System, "closeSessionTxn.enabled", Boolean),
    honoured(Plain, "jute.maxbuffer", IntProperty),
    honoured(Plain, "ringkeeper.shards", Int),
    honoured(Plain, "ringkeeper.cpus", Text),
    honoured(Plain, "ringkeeper.spinMicros", Int),
    honoured(Plain, "ringkeeper.readCacheMiB", Int),
];

/// Keys that ZooKeeper's configuration parser reads itself.
const PARSED: &[KnownKey] = &[
    refused(File, "secureClientPort", F_TLS),
    refused(File, "secureClientPortAddress", F_TLS),
    not_yet_number(File, "observerMasterPort", Int, "0", F_ENSEMBLE),
    meaningless(File, "initLimit", Int, ENSEMBLE),
    meaningless(File, "syncLimit", Int, ENSEMBLE),
    meaningless(File, "connectToLearnerMasterLimit", Int, ENSEMBLE),
    not_yet_number(File, "electionAlg", Int, "3", "any election algorithm but 3, in ZooKeeper too"),
    meaningless(File, "quorumListenOnAllIPs", Flag, ENSEMBLE),
    not_yet(File, "peerType", "participant", F_ENSEMBLE),
    meaningless(File, "syncEnabled", Flag, ENSEMBLE),
    refused(File, "dynamicConfigFile", F_ENSEMBLE),
    not_yet(File, "reconfigEnabled", "false", "reconfiguration"),
    not_yet(File, "localSessionsEnabled", "false", F_LOCAL),
    not_yet(File, "localSessionsUpgradingEnabled", "false", F_LOCAL),
    not_yet(File, "sslQuorum", "false", F_TLS),
    not_yet(File, "portUnification", "false", F_TLS),
    not_yet(File, "sslQuorumReloadCertFiles", "false", F_TLS),
    not_yet(File, "quorum.auth.enableSasl", "false", F_SASL),
    not_yet(File, "quorum.auth.serverRequireSasl", "false", F_SASL),
    not_yet(File, "quorum.auth.learnerRequireSasl", "false", F_SASL),
    meaningless(File, "quorum.auth.learner.saslLoginContext", Text, ENSEMBLE),
    meaningless(File, "quorum.auth.server.saslLoginContext", Text, ENSEMBLE),
    meaningless(File, "quorum.auth.kerberos.servicePrincipal", Text, ENSEMBLE),
    meaningless(File, "quorum.cnxn.threads.size", Int, ENSEMBLE),
    meaningless(File, "jvm.pause.monitor", Flag, JVM),
    meaningless(File, "jvm.pause.sleep.time.ms", Long, JVM),
    meaningless(File, "jvm.pause.info-threshold.ms", Long, JVM),
    meaningless(File, "jvm.pause.warn-threshold.ms", Long, JVM),
    not_yet(File, "metricsProvider.className", "org.apache.zookeeper.metrics.impl.DefaultMetricsProvider", F_METRICS),
    refused(File, "metricsProvider.", F_METRICS),
    not_yet(File, "multiAddress.enabled", "false", F_ENSEMBLE),
    meaningless(File, "multiAddress.reachabilityCheckEnabled", Flag, ENSEMBLE),
    meaningless(File, "multiAddress.reachabilityCheckTimeoutMs", Int, ENSEMBLE),
    refused(File, "oraclePath", F_ENSEMBLE),
    refused(File, "group.", F_ENSEMBLE),
    refused(File, "weight.", F_ENSEMBLE),
];

/// Keys that become `zookeeper.<key>` system properties.
const SYSTEM: &[KnownKey] = &[
    system("commitLogCount", ENSEMBLE),
    system("txnLogSizeLimitInKb", STORAGE),
    system("snapshotSizeFactor", ENSEMBLE),
    system("maxResponseCacheSize", "replies are written from the tree without a cache"),
    system("maxGetChildrenResponseCacheSize", "replies are written from the tree without a cache"),
    system("intBufferStartingSizeBytes", JVM),
    system("flushDelay", PIPELINE),
    system("maxWriteQueuePollTime", PIPELINE),
    system("maxBatchSize", PIPELINE),
    not_yet(System, "enforceQuota", "false", "quotas"),
    not_yet(System, "extendedTypesEnabled", "false", "TTL nodes"),
    not_yet(System, "emulate353TTLNodes", "false", "TTL nodes"),
    system("watchManagerName", "there is one watch table, which knows all watch modes"),
    system("bitHashCacheSize", PIPELINE),
    system("watcherCleanThreadsNum", PIPELINE),
    system("watcherCleanThreshold", PIPELINE),
    system("watcherCleanIntervalInSeconds", PIPELINE),
    system("maxInProcessingDeadWatchers", PIPELINE),
    system("fastleader.minNotificationInterval", ENSEMBLE),
    system("fastleader.maxNotificationInterval", ENSEMBLE),
    system("cnxTimeout", ENSEMBLE),
    system("quorumCnxnTimeoutMs", ENSEMBLE),
    system("leader.maxTimeToWaitForEpoch", ENSEMBLE),
    system("electionPortBindRetry", ENSEMBLE),
    system("tcpKeepAlive", ENSEMBLE),
    not_yet(System, "clientTcpKeepAlive", "false", F_KEEPALIVE),
    system("observer.syncEnabled", ENSEMBLE),
    system("observer.reconnectDelayMs", ENSEMBLE),
    system("observer.election.DelayMs", ENSEMBLE),
    system("observerMaster.sizeLimit", ENSEMBLE),
    system("leaderConnectDelayDuringRetryMs", ENSEMBLE),
    not_yet_number(System, "connection_throttle_tokens", IntProperty, "0", F_THROTTLE),
    system("connection_throttle_fill_time", OFF),
    system("connection_throttle_fill_count", OFF),
    system("connection_throttle_freeze_time", OFF),
    system("connection_throttle_drop_increase", OFF),
    system("connection_throttle_drop_decrease", OFF),
    system("connection_throttle_decrease_ratio", OFF),
    not_yet(System, "connection_throttle_weight_enabled", "false", F_THROTTLE),
    system("connection_throttle_global_session_weight", OFF),
    system("connection_throttle_renew_session_weight", OFF),
    system("connection_throttle_local_session_weight", OFF),
    not_yet_number(System, "request_throttle_max_requests", IntProperty, "0", F_THROTTLE),
    system("request_throttle_stall_time", OFF),
    system("request_throttle_drop_stale", OFF),
    system("request_throttler.shutdownTimeout", OFF),
    system("request_stale_latency_check", OFF),
    system("request_stale_connection_check", OFF),
    not_yet_number(System, "throttled_op_wait_time", IntProperty, "0", F_THROTTLE),
    not_yet_number(System, "largeRequestThreshold", IntProperty, "-1", F_THROTTLE),
    system("largeRequestMaxBytes", OFF),
    system("enableEagerACLCheck", ENSEMBLE),
    system("leader.maxConcurrentSnapSyncs", ENSEMBLE),
    system("leader.maxConcurrentDiffSyncs", ENSEMBLE),
    system("leader.closeSocketAsync", ENSEMBLE),
    system("learner.closeSocketAsync", ENSEMBLE),
    system("learner.asyncSending", ENSEMBLE),
    system("leaderServes", ENSEMBLE),
    system("follower.skipLearnerRequestToNextProcessor", ENSEMBLE),
    system("forward_learner_requests_to_commit_processor_disabled", ENSEMBLE),
    system("commitProcessor.", PIPELINE),
    system("nio.", JVM),
    system("serverCnxnFactory", JVM),
    system("netty.", JVM),
    system("digest.enabled", DIGEST),
    system("serializeLastProcessedZxid.enabled", STORAGE),
    not_yet(System, "snapshot.compression.method", "", "snapshot compression"),
    system("snapshot.trust.empty", STORAGE),
    not_yet(System, "db.autocreate", "true", "starting only from an existing database"),
    not_yet(System, "datadir.autocreate", "true", "starting only in an existing dataDir"),
    not_yet(System, "audit.enable", "false", "audit logging"),
    system("audit.impl.class", OFF),
    not_yet(System, "admin.enableServer", "false", "the HTTP admin server"),
    system("admin.", ADMIN),
    not_yet(System, "pathStats.enabled", "false", "path statistics"),
    system("pathStats.", OFF),
    not_yet(System, "sessionRequireClientSASLAuth", "false", F_SASL),
    not_yet(System, "allowSaslFailedClients", "false", F_SASL),
    not_yet(System, "enforce.auth.enabled", "false", F_AUTH),
    system("enforce.auth.schemes", OFF),
    refused(System, "authProvider.", F_AUTH),
    refused(System, "X509AuthenticationProvider.superUser", F_TLS),
    refused(System, "superUser", F_SASL),
    refused(System, "superUser.", F_SASL),
    refused(System, "SASLAuthenticationProvider.superPassword", F_SASL),
    not_yet(System, "IPAuthenticationProvider.usexforwardedfor", "false", "the HTTP admin server"),
    refused(System, "ensembleAuthName", F_AUTH),
    refused(System, "letAnySaslUserDoX", F_SASL),
    system("sasl.", OFF),
    system("kerberos.", OFF),
    system("security.", OFF),
    system("ssl.", OFF),
    system("fips-mode", OFF),
    not_yet(System, "client.portUnification", "false", F_TLS),
    system("client.certReload", OFF),
    system("messageTracker.", OFF),
    system("log.", LOGGING),
    system("root.logger", LOGGING),
    system("console.threshold", LOGGING),
    system("jmx.", JVM),
];

/// Keys that ZooKeeper reads only as plain `-D` properties.
const PLAIN: &[KnownKey] = &[
    meaningless(Plain, "jute.maxbuffer.extrasize", Text, STORAGE),
    not_yet(Plain, "readonlymode.enabled", "false", "read-only mode"),
    meaningless(Plain, "znode.container.", Text, CONTAINER),
    meaningless(Plain, "follower.nodelay", Text, ENSEMBLE),
    meaningless(Plain, "leader.nodelay", Text, ENSEMBLE),
    refused(Plain, "java.security.auth.login.config", F_SASL),
];
