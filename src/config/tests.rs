//! Hazards of reading other people's configuration files.

use super::*;

const BASE: &str = "dataDir=/var/lib/zk\nclientPort=2181\n";

fn parse_text(text: &str) -> Result<Loaded, ConfigError> {
    parse("zoo.cfg", text.as_bytes(), &[], &[])
}

fn good(extra: &str) -> Loaded {
    parse_text(&format!("{BASE}{extra}")).unwrap_or_else(|error| panic!("{extra:?} refused: {error}"))
}

fn refusal(extra: &str) -> String {
    match parse_text(&format!("{BASE}{extra}")) {
        Ok(loaded) => panic!("{extra:?} accepted as {:?}", loaded.config),
        Err(error) => error.to_string(),
    }
}

fn with_flags(extra: &str, flags: &str) -> Loaded {
    parse("zoo.cfg", format!("{BASE}{extra}").as_bytes(), &[], &[flags.to_owned()]).unwrap()
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| text.to_string()).collect()
}

/// A default that differs from ZooKeeper's changes a cluster's behaviour on the day it moves.
#[test]
fn defaults_drift_from_zookeeper() {
    let config = good("").config;
    assert_eq!(config.tick_time_ms, 3000);
    assert_eq!((config.min_session_timeout_ms, config.max_session_timeout_ms), (6000, 60_000));
    assert_eq!((config.max_client_cnxns, config.max_cnxns), (Some(60), None));
    assert_eq!(config.data_log_dir, config.data_dir);
    assert_eq!((config.snap_count, config.pre_alloc_size_kib), (100_000, 16_384));
    assert_eq!(config.snap_size_limit_kib, Some(4_194_304));
    assert_eq!((config.global_outstanding_limit, config.jute_max_buffer_bytes), (1000, 1_048_575));
    assert_eq!((config.snap_retain_count, config.purge_interval_hours), (3, None));
    assert_eq!((config.sessionless_cnxn_timeout_ms, config.fsync_warning_threshold_ms), (10_000, 1000));
    assert!(config.force_sync && config.digest_enabled && !config.skip_acl);
    assert_eq!(config.four_letter_whitelist, "srvr");
}

/// The sample that ships with ZooKeeper must start without a change. The container image's file has its client port in
/// the server line; its `admin.enableServer=true` is the one line that must be changed.
#[test]
fn shipped_sample_refused() {
    let sample = "tickTime=2000\ninitLimit=10\nsyncLimit=5\ndataDir=/tmp/zookeeper\nclientPort=2181\n";
    let loaded = parse_text(sample).unwrap();
    assert_eq!((loaded.config.min_session_timeout_ms, loaded.config.max_session_timeout_ms), (4000, 40_000));
    assert_eq!(loaded.warnings.len(), 2, "{:?}", loaded.warnings);
    let image = "dataDir=/data\ndataLogDir=/datalog\ntickTime=2000\nstandaloneEnabled=true\n\
                 admin.enableServer=false\nserver.1=localhost:2888:3888;2181\n";
    let config = parse_text(image).unwrap().config;
    assert_eq!((config.client_port, config.client_port_address), (2181, None));
}

/// Java's syntax: blanks and colons separate, lines continue, escapes, CRLF, values are trimmed.
#[test]
fn java_syntax_read_as_toml() {
    let text = "! note\r\ndataDir : /var/\\\r\n   lib/zk\r\nclientPort 21\\u0038\\u0031  \r\ntickTime=2000\\\n\n";
    let config = parse_text(text).unwrap().config;
    assert_eq!(config.data_dir, Path::new("/var/lib/zk"));
    assert_eq!((config.client_port, config.tick_time_ms), (2181, 2000));
}

/// The properties crate unescapes comments: a Windows path in one would be a malformed `\u` and stop the start.
/// A line that only looks like a comment, because it continues a value, must stay.
#[test]
fn comment_with_backslash_u_stops_the_start() {
    good("# was C:\\users\\zk\n  ! \\uZZ\n# ends in backslash \\\ntickTime=2000\n");
    let config = parse_text("clientPort=1\ndataDir=/a\\\n#b\n").unwrap().config;
    assert_eq!(config.data_dir, Path::new("/a#b"));
    let error = parse_text("dataDir=/a\n# x\n\nclientPort=\\u00\n").unwrap_err().to_string();
    assert!(error.starts_with("zoo.cfg:4: "), "{error}");
}

/// An operator can only mend what the text names: file, line, key, value and what is expected, all at once.
#[test]
fn error_without_the_line_to_change() {
    let text = refusal("tickTime=soon\nautopurge.purgeInterval=1h\n");
    assert!(text.contains("zoo.cfg:3: tickTime=soon: expected a whole number from 1 to 100000000"), "{text}");
    assert!(text.contains("zoo.cfg:4: autopurge.purgeInterval=1h: expected"), "{text}");
    let text = parse_text("tickTime=2000\n").unwrap_err().to_string();
    assert!(text.contains("dataDir: not set") && text.contains("clientPort: not set"), "{text}");
}

/// Start-up errors end in logs that many can read.
#[test]
fn secret_printed_in_an_error() {
    let text =
        refusal("DigestAuthenticationProvider.superDigest=hunter2\nSASLAuthenticationProvider.superPassword=pw1\n");
    assert!(text.contains("superDigest=(hidden)") && !text.contains("hunter2") && !text.contains("pw1"), "{text}");
    let loaded = with_flags("", "-Djavax.net.ssl.keyStorePassword=hunter2");
    assert!(loaded.warnings[0].contains("keyStorePassword") && !loaded.warnings[0].contains("hunter2"));
    let text = parse("zoo.cfg", BASE.as_bytes(), &[], &strings(&["-Dzookeeper.ssl.keyStore.password=hunter2"]));
    assert!(text.unwrap().warnings.iter().all(|warning| !warning.contains("hunter2")));
}

/// A feature that is asked for and absent must stop the start; the same key with the value that we match must not.
#[test]
fn absent_feature_taken_in_silence() {
    for asked in [
        "secureClientPort=2281",
        "dynamicConfigFile=/x",
        "enforceQuota=true",
        "enforceQuota=yes",
        "localSessionsEnabled=true",
        "authProvider.1=org.apache.zookeeper.server.auth.SASLAuthenticationProvider",
        "sessionRequireClientSASLAuth=true",
        "enforce.auth.enabled=true",
        "readonlymode.enabled=true",
        "metricsProvider.className=org.apache.zookeeper.metrics.prometheus.PrometheusMetricsProvider",
        "metricsProvider.httpPort=7000",
        "admin.enableServer=true",
        "audit.enable=true",
        "extendedTypesEnabled=true",
        "snapshot.compression.method=gz",
        "reconfigEnabled=true",
        "sslQuorum=true",
        "peerType=observer",
        "group.1=1:2",
        "superUser.2=root",
    ] {
        let text = refusal(asked);
        assert!(text.contains("this version does not have"), "{asked}: {text}");
    }
    for matched in ["enforceQuota=False", "admin.enableServer=false", "snapshot.compression.method=", "electionAlg=3"] {
        assert_eq!(good(matched).warnings, strings(&[]), "{matched}");
    }
}

/// Keys without effect are named once each; unknown ones too; unknown ones of our own are typing mistakes.
#[test]
fn key_ignored_in_silence() {
    for (line, reason) in [
        ("nio.numWorkerThreads=8", "has no effect"),
        ("commitProcessor.numWorkerThreads=8", "has no effect"),
        ("ssl.keyStore.location=/k", "has no effect"),
        ("jvm.pause.monitor=true", "has no effect"),
        ("tickTme=2000", "unknown key tickTme"),
        ("zookeeper.skipACL=yes", "in this file the key is skipACL"),
    ] {
        let loaded = good(line);
        assert_eq!(loaded.warnings.len(), 1, "{line}: {:?}", loaded.warnings);
        assert!(loaded.warnings[0].contains(reason), "{line}: {:?}", loaded.warnings);
        assert!(!loaded.config.skip_acl);
    }
    assert!(refusal("ringkeeper.shard=2").contains("ringkeeper.shard=2: no such key"));
}

/// Every key of the list can be looked up as itself: a prefix row before it must not shadow it.
#[test]
fn prefix_row_shadows_an_honoured_key() {
    assert_eq!(good("nio.sessionlessCnxnTimeout=5000").config.sessionless_cnxn_timeout_ms, 5000);
    assert!(refusal("admin.enableServer=true").contains("admin server"));
    assert!(refusal("quorum.auth.enableSasl=true").contains("SASL"));
}

/// ZooKeeper does not start with `yes` in a boolean of its own; a start that guesses would guess wrong one day.
#[test]
fn boolean_guessed() {
    for line in ["standaloneEnabled=yes", "syncEnabled=1", "jvm.pause.monitor="] {
        assert!(refusal(line).contains("expected true or false"), "{line}");
    }
    assert!(!good("DigestAuthenticationProvider.enabled=FALSE").config.digest_enabled);
    assert!(refusal("initLimit=ten").contains("expected a whole number"));
    // This one is a system property, of which everything but true is false: ZooKeeper starts, and so must its meaning be kept.
    let loaded = good("DigestAuthenticationProvider.enabled=on");
    assert!(!loaded.config.digest_enabled && loaded.warnings[0].contains("counts as false"), "{:?}", loaded.warnings);
}

/// Only the exact word switches durability or access control off, as in ZooKeeper; anything near it warns.
#[test]
fn near_miss_switches_durability_off() {
    for near in ["false", "No", "0", ""] {
        let loaded = good(&format!("forceSync={near}"));
        assert!(loaded.config.force_sync, "{near}");
        assert_eq!(loaded.warnings.len(), 1, "{near}");
    }
    let loaded = good("forceSync=no\nskipACL=yes");
    assert!(!loaded.config.force_sync && loaded.config.skip_acl);
    assert_eq!(loaded.warnings.len(), 2, "{:?}", loaded.warnings);
    assert!(!good("skipACL=true").config.skip_acl);
}

/// Session timeouts: -1 is the default, the defaults follow the tick, and an empty range is refused.
#[test]
fn session_timeout_range_empty() {
    let config = good("tickTime=500\nminSessionTimeout=-1\nmaxSessionTimeout=90000").config;
    assert_eq!((config.min_session_timeout_ms, config.max_session_timeout_ms), (1000, 90_000));
    assert!(refusal("minSessionTimeout=70000").contains("70000 ms, is above the most, 60000 ms"));
    assert!(refusal("maxSessionTimeout=100").contains("above the most, 100 ms"));
    assert!(refusal("minSessionTimeout=0").contains("minSessionTimeout=0"));
    assert_eq!(good("tickTime=100000000").config.max_session_timeout_ms, 2_000_000_000);
    assert!(refusal("tickTime=100000001").contains("tickTime"));
    assert!(refusal("tickTime=0").contains("tickTime"));
}

/// Numbers at their edges: what ZooKeeper raises is raised with a warning, zero switches limits off, sizes do not wrap.
#[test]
fn number_wraps_or_zero_means_zero() {
    let loaded = good("snapCount=1\nautopurge.snapRetainCount=1");
    assert_eq!((loaded.config.snap_count, loaded.config.snap_retain_count), (2, 3));
    assert_eq!(loaded.warnings.len(), 2);
    let config = good("maxClientCnxns=0\nmaxCnxns=-1\nsnapSizeLimitInKb=-1\nautopurge.purgeInterval=24").config;
    assert_eq!((config.max_client_cnxns, config.max_cnxns, config.snap_size_limit_kib), (None, None, None));
    assert_eq!(config.purge_interval_hours, Some(24));
    assert_eq!(good("clientPortListenBacklog=-1").config.client_port_listen_backlog, None);
    // The log has no larger segments than 4 GiB: a start must say so, not fail later with a log of impossible sizes.
    assert_eq!(good("preAllocSize=4194304").config.pre_alloc_size_kib, 4_194_304);
    for line in ["maxClientCnxns=4294967296", "preAllocSize=0", "preAllocSize=99999999999", "preAllocSize=4194305"] {
        assert!(refusal(line).contains("expected a whole number"), "{line}");
    }
    assert!(parse_text("dataDir=/d\nclientPort=65536").unwrap_err().to_string().contains("clientPort=65536"));
    assert!(refusal("jute.maxbuffer=0x-5").contains("expected"));
    let limits = ["7", "0", "-1"].map(|limit| good(&format!("globalOutstandingLimit={limit}")).config);
    assert_eq!(limits.map(|config| config.global_outstanding_limit), [7, 0, 0]);
    let thresholds = ["50", "0", "-1"].map(|limit| good(&format!("fsync.warningthresholdms={limit}")).config);
    assert_eq!(thresholds.map(|config| config.fsync_warning_threshold_ms), [50, 0, -1]);
    let loaded = good("preAllocSize=17");
    assert_eq!((loaded.config.pre_alloc_size_kib, loaded.warnings.len()), (20, 1), "a segment is whole blocks");
    assert_eq!(good("preAllocSize=1").config.pre_alloc_size_kib, 16);
    assert_eq!(good("preAllocSize=4194304").config.pre_alloc_size_kib, 4_194_304);
}

/// Half of ZooKeeper's keys go through `Integer.parseInt`, the others are system properties and go through `Integer.decode`: a
/// leading zero is decimal for the first and octal for the second, and only the second know hexadecimal. One parser stood for
/// both.
#[test]
fn number_read_by_the_parser_of_another_key() {
    let ms = |value: &str| parse_text(&format!("{BASE}tickTime={value}")).map(|loaded| loaded.config.tick_time_ms).ok();
    assert_eq!(["002000", "+2000", "2000", "0x7d0", "#7d0"].map(ms), [Some(2000), Some(2000), Some(2000), None, None]);
    let count =
        |value: &str| parse_text(&format!("{BASE}snapCount={value}")).map(|loaded| loaded.config.snap_count).ok();
    assert_eq!(
        ["002000", "+2000", "0x7d0", "#7d0", "08"].map(count),
        [Some(1024), Some(2000), Some(2000), Some(2000), None]
    );
    let parsed = "clientPort clientPortListenBacklog tickTime maxClientCnxns minSessionTimeout maxSessionTimeout \
                  autopurge.snapRetainCount autopurge.purgeInterval initLimit syncLimit connectToLearnerMasterLimit \
                  quorum.cnxn.threads.size jvm.pause.sleep.time.ms jvm.pause.info-threshold.ms jvm.pause.warn-threshold.ms \
                  multiAddress.reachabilityCheckTimeoutMs preAllocSize ringkeeper.readCacheMiB";
    for key in parsed.split_whitespace() {
        let base = "dataDir=/d\ntickTime=2000\nmaxSessionTimeout=40000\nclientPort=2181\n";
        let with = |value: &str| parse("zoo.cfg", format!("{base}{key}={value}").as_bytes(), &[], &[]);
        assert!(with("020000").is_ok(), "{key}: {:?}", with("020000"));
        assert!(with("0x4e20").is_err(), "{key}");
    }
    let decoded = "maxCnxns snapCount snapSizeLimitInKb globalOutstandingLimit fsync.warningthresholdms \
                   nio.sessionlessCnxnTimeout jute.maxbuffer";
    for key in decoded.split_whitespace() {
        let with = |value: &str| parse_text(&format!("{BASE}{key}={value}")).map(|loaded| loaded.config);
        assert_eq!(with("0x4000").unwrap(), with("16384").unwrap(), "{key}");
        assert_eq!(with("040000").unwrap(), with("16384").unwrap(), "{key}");
        assert!(with("08").is_err(), "{key}");
    }
    for matched in
        ["electionAlg=03", "observerMasterPort=+0", "connection_throttle_tokens=0x0", "largeRequestThreshold=-01"]
    {
        assert_eq!(good(matched).warnings, strings(&[]), "{matched}");
    }
    assert_eq!(good("minSessionTimeout=-01").config.min_session_timeout_ms, 6000);
}

/// A directory with a `zoo.cfg` whose `dataDir` is there and has this `myid`.
fn with_my_id(name: &str, my_id: Option<&str>, lines: &str) -> Result<Loaded, ConfigError> {
    let directory = std::env::temp_dir().join(format!("ringkeeper-config-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    if let Some(my_id) = my_id {
        std::fs::write(directory.join("myid"), my_id).unwrap();
    }
    let file = directory.join("zoo.cfg");
    std::fs::write(&file, format!("dataDir={}\n{lines}", directory.display())).unwrap();
    let loaded = load(&file, &[], &[]);
    std::fs::remove_dir_all(&directory).unwrap();
    loaded
}

/// A server line was taken for this server's whatever `myid` said, so that a server with the `myid` of another, or with none that is
/// a number, served under its name. A `myid` that is there must be a number also without any server line, as for ZooKeeper.
#[test]
fn server_line_of_another_server_taken() {
    const LINE: &str = "server.1=a:2888:3888;2182\n";
    for (name, my_id) in [("one", "one"), ("empty", ""), ("blank", " 1")] {
        for lines in [LINE, "clientPort=2181\n"] {
            let text = with_my_id(name, Some(my_id), lines).unwrap_err().to_string();
            assert!(text.contains("myid:1: myid=") && text.contains("expected the N of"), "{text}");
        }
    }
    for my_id in [None, Some("1"), Some("01\n")] {
        assert_eq!(with_my_id("mine", my_id, LINE).unwrap().config.client_port, 2182, "{my_id:?}");
    }
    let text = with_my_id("other", Some("2"), LINE).unwrap_err().to_string();
    assert!(text.contains("clientPort: not set"), "{text}");
    let loaded = with_my_id("both", Some("2"), &format!("{LINE}clientPort=2181\n")).unwrap();
    assert_eq!(loaded.config.client_port, 2181);
    assert!(loaded.warnings.iter().any(|warning| warning.contains("whose myid is 2")), "{:?}", loaded.warnings);
}

/// ZooKeeper takes `jute.maxbuffer` from the JVM's flags only: a move that drops it cuts clients with large values off.
#[test]
fn jvm_flag_lost_in_the_move() {
    let loaded =
        with_flags("snapCount=7", "-Xmx1g -Djute.maxbuffer=0x400000 -Dzookeeper.snapCount=9 -Dzookeeper.maxCnxns=5");
    assert_eq!((loaded.config.jute_max_buffer_bytes, loaded.config.max_cnxns), (0x40_0000, Some(5)));
    assert_eq!(loaded.config.snap_count, 7, "the file wins over -Dzookeeper.*");
    assert_eq!(loaded.warnings.len(), 2, "{:?}", loaded.warnings);
    assert_eq!(with_flags("jute.maxbuffer=2000", "-Djute.maxbuffer=3000").config.jute_max_buffer_bytes, 3000);
    assert_eq!(with_flags("", "-Dzookeeper.clientPort=1").config.client_port, 2181);
    let digest = "-Dzookeeper.DigestAuthenticationProvider.superDigest=super:xQJmxLMiHGwaqBvst5y6rkB6HQs=";
    assert_eq!(with_flags("", digest).config.super_digest.as_deref(), Some("super:xQJmxLMiHGwaqBvst5y6rkB6HQs="));
    let flags = strings(&["-Djava.security.auth.login.config=/jaas"]);
    assert!(parse("zoo.cfg", BASE.as_bytes(), &[], &flags).is_err());
}

/// The super user's digest ends in `=`, which also separates keys from values, and has two spellings.
#[test]
fn super_digest_loses_its_padding() {
    for prefix in ["", "zookeeper."] {
        let line = format!("{prefix}DigestAuthenticationProvider.superDigest=super:xQJmxLMiHGwaqBvst5y6rkB6HQs=");
        assert_eq!(good(&line).config.super_digest.as_deref(), Some("super:xQJmxLMiHGwaqBvst5y6rkB6HQs="));
    }
    assert_eq!(good("DigestAuthenticationProvider.digestAlg=sha-256").config.digest_algorithm, DigestAlgorithm::Sha256);
    assert!(refusal("DigestAuthenticationProvider.digestAlg=MD4").contains("expected SHA1, SHA-256 or SHA-512"));
}

/// An override wins over everything, also over a value that would not have started, and is itself checked.
#[test]
fn override_loses_or_escapes_the_check() {
    let overrides = strings(&["clientPort=0", "secureClientPort=1", "clientPort = 5 ", "jute.maxbuffer=4096"]);
    let flags = strings(&["-Djute.maxbuffer=2048"]);
    let text = parse("zoo.cfg", BASE.as_bytes(), &overrides, &flags).unwrap_err().to_string();
    assert!(text.contains("--override: secureClientPort=1: "), "{text}");
    let kept = [&overrides[..1], &overrides[2..]].concat();
    let config = parse("zoo.cfg", b"dataDir=/d\nclientPort=never\n", &kept, &flags).unwrap().config;
    assert_eq!((config.client_port, config.jute_max_buffer_bytes), (5, 4096));
    for wrong in ["clientPort", "=5"] {
        let text = parse("zoo.cfg", BASE.as_bytes(), &strings(&[wrong]), &[]).unwrap_err().to_string();
        assert!(text.contains("expected key=value"), "{text}");
    }
}

/// One participant is standalone; several servers served by one that never talks to the others would split the brain.
#[test]
fn ensemble_served_standalone() {
    let three = "server.1=a:2888:3888\nserver.2=b:2888:3888\nserver.3=c:2888:3888";
    assert!(refusal(three).contains("server.2=b:2888:3888: this version does not have ensembles"));
    assert!(refusal("server.1=a:2888:3888\nserver.2=b:2888:3888:observer").contains("ensembles"));
    assert!(refusal("server.1=a:2888:3888:observer").contains("participants"));
    assert!(refusal("standaloneEnabled=false\nserver.1=a:2888:3888").contains("also not of one server"));
    for wrong in ["a", "a:1", "a:1:1", "a:1:2:boss", "a:1:2;x", ":1:2", "a:1:2:participant:3", "[::1:1:2", "a:1:70000"]
    {
        assert!(refusal(&format!("server.1={wrong}")).contains("expected host:quorumPort"), "{wrong}");
    }
    assert!(refusal("server.one=a:1:2").contains("expected server.N"));
    good("server.1=[::1]:2888:3888:participant");
}

/// Two places name the client port: they must agree, and each alone is enough.
#[test]
fn client_port_of_the_other_place_lost() {
    let config = parse_text("dataDir=/d\nserver.1=a:1:2;[::1]:2182\n").unwrap().config;
    assert_eq!((config.client_port, config.client_port_address.as_deref()), (2182, Some("::1")));
    good("server.1=a:1:2;2181");
    assert!(refusal("server.1=a:1:2;2182").contains("clientPort=2181: expected 2182"));
    assert!(refusal("clientPortAddress=10.0.0.1\nserver.1=a:1:2;10.0.0.2:2181").contains("expected 10.0.0.2"));
}

/// A CPU list read wrong pins two shards to one CPU or refuses to start on the right machine.
#[test]
fn cpu_list_misread() {
    assert_eq!(good("ringkeeper.cpus=5, 0-3,3").config.cpus, Some(vec![0, 1, 2, 3, 5]));
    for wrong in ["", "3-1", "a", "1,,2", "-1", "0-99999", "1-2-3"] {
        assert!(refusal(&format!("ringkeeper.cpus={wrong}")).contains("expected CPU numbers"), "{wrong}");
    }
    let config = good("ringkeeper.shards=3\nringkeeper.spinMicros=50").config;
    assert_eq!((config.shards, config.spin_micros), (Some(3), 50));
    assert!(refusal("ringkeeper.shards=0").contains("from 1 to"));
    assert!(refusal("ringkeeper.spinMicros=10001").contains("from 0 to 10000"));
    assert_eq!(good("ringkeeper.readCacheMiB=0").config.read_cache_mib, 0);
    assert!(refusal("ringkeeper.readCacheMiB=1048577").contains("from 0 to 1048576"));
}

/// The same key twice: the last one wins, as in Java, but nobody finds out by reading the top of the file.
#[test]
fn doubled_key_goes_unnoticed() {
    let loaded = good("tickTime=1000\ntickTime=2000");
    assert_eq!(loaded.config.tick_time_ms, 2000);
    assert_eq!(loaded.warnings, strings(&["zoo.cfg:3: tickTime is set again at zoo.cfg:4, which wins"]));
}

/// `dev` must not listen to the world, nor need a file.
#[test]
fn dev_listens_to_the_world() {
    let config = ServerConfig::for_dev(PathBuf::from("/tmp/d"));
    assert_eq!(config.client_port_address.as_deref(), Some("127.0.0.1"));
    assert_eq!((config.client_port, config.tick_time_ms, config.max_session_timeout_ms), (2181, 2000, 40_000));
    assert_eq!(config.data_dirs(), [Path::new("/tmp/d")]);
    let split = good("dataLogDir=/log").config;
    assert_eq!(split.data_dirs(), [Path::new("/var/lib/zk"), Path::new("/log")]);
}

/// The file that we ship is the first one that a new user starts.
#[test]
fn shipped_tuning_file_refused() {
    let loaded = parse("tuning/zoo.cfg", include_bytes!("../../tuning/zoo.cfg"), &[], &[]).unwrap();
    assert_eq!(loaded.warnings, strings(&[]));
}

/// A missing file is an error with its name, not a panic and not an empty configuration.
#[test]
fn missing_file_starts_with_defaults() {
    let error = load(Path::new("/nonexistent/zoo.cfg"), &[], &[]).unwrap_err().to_string();
    assert!(error.starts_with("/nonexistent/zoo.cfg: cannot read"), "{error}");
}
