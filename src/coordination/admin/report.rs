//! The answers, from plain numbers.

use core::net::{IpAddr, SocketAddr};
use std::fmt::Write;

use super::{FourLetterWord, Whitelist};
use crate::base::Zxid;
use crate::metrics::Latency;

/// The version of ZooKeeper whose behaviour is served; clients read the digits up to the first `-`.
const ZOOKEEPER_VERSION: &str = "3.9.5";
const NOT_SERVING: &str = "This ZooKeeper instance is not currently serving requests\n";

/// The numbers of a server, summed over its shards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerStats {
    /// `standalone`; the role in an ensemble.
    pub mode: &'static str,
    /// From a request's arrival to its reply.
    pub latency: Latency,
    /// Requests received.
    pub packets_received: u64,
    /// Replies and events sent.
    pub packets_sent: u64,
    /// Client connections open now, the asking one among them.
    pub num_alive_connections: u64,
    /// Requests received and not yet answered.
    pub outstanding_requests: u64,
    /// The last transaction applied.
    pub zxid: Zxid,
    /// Since the server began to serve.
    pub uptime_ms: u64,
    /// Znodes, counted as ZooKeeper does.
    pub znode_count: u64,
    /// Pairs of a path and a watcher.
    pub watch_count: u64,
    /// Ephemeral znodes.
    pub ephemerals_count: u64,
    /// Bytes of paths and data.
    pub approximate_data_size: u64,
    /// Files open in this process.
    pub open_file_descriptor_count: u64,
    /// Files that this process may open.
    pub max_file_descriptor_count: u64,
    /// Sessions in the log.
    pub global_sessions: u64,
}

/// The numbers of one client connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionStats {
    /// The client's address.
    pub peer: SocketAddr,
    /// What the connection waits for: 1 to read, 4 to write, 5 for both, 0 while it is held back.
    pub interest_ops: u32,
    /// Requests received and not yet answered.
    pub queued: u64,
    /// Requests received.
    pub received: u64,
    /// Replies and events sent.
    pub sent: u64,
}

/// All that the words need.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatsReport {
    /// Whether requests are served; if not, most words answer only that.
    pub is_serving: bool,
    /// The server's numbers.
    pub server: ServerStats,
    /// Every client connection, the asking one among them.
    pub connections: Vec<ConnectionStats>,
    /// Further rows of `mntr`: names without `zk_`, and values.
    pub extra: Vec<(String, String)>,
    /// Rows of `envi` behind the version: names as ZooKeeper gives them, and values. There is no JVM, so no `java.` ones.
    pub environment: Vec<(String, String)>,
}

/// The version text: `3.9.5-ringkeeper-0.1.0, built on DATE`.
///
/// The date is that of the environment variable `RINGKEEPER_BUILD_DATE` at compile time, so that builds can be repeated.
pub fn version() -> String {
    let date = option_env!("RINGKEEPER_BUILD_DATE").unwrap_or("an unrecorded date");
    format!("{ZOOKEEPER_VERSION}-ringkeeper-{}, built on {date}", env!("CARGO_PKG_VERSION"))
}

/// The answer to `word`, or why there is none.
pub fn answer(word: FourLetterWord, whitelist: &Whitelist, report: &StatsReport) -> String {
    if whitelist.allows(word) {
        render(word, report)
    } else {
        format!("{} is not executed because it is not in the whitelist.\n", word.name())
    }
}

/// The answer to an enabled `word`.
pub fn render(word: FourLetterWord, report: &StatsReport) -> String {
    match word {
        FourLetterWord::Ruok => "imok".to_owned(),
        FourLetterWord::Srvr | FourLetterWord::Stat | FourLetterWord::Mntr if !report.is_serving => {
            NOT_SERVING.to_owned()
        }
        FourLetterWord::Srvr => version_line() + &server_lines(&report.server),
        FourLetterWord::Stat => version_line() + &connection_lines(&report.connections) + &server_lines(&report.server),
        FourLetterWord::Mntr => monitor_lines(report),
        FourLetterWord::Envi => environment_lines(report),
        _ => format!("{} is not implemented in this version.\n", word.name()),
    }
}

fn environment_lines(report: &StatsReport) -> String {
    let mut text = format!("Environment:\nzookeeper.version={}\n", version());
    for (name, value) in &report.environment {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name}={value}");
    }
    text
}

fn version_line() -> String {
    format!("Zookeeper version: {}\n", version())
}

fn server_lines(server: &ServerStats) -> String {
    let latency = &server.latency;
    format!(
        "Latency min/avg/max: {}/{}/{}\nReceived: {}\nSent: {}\nConnections: {}\nOutstanding: {}\nZxid: {}\nMode: {}\n\
         Node count: {}\n",
        latency.min_ms(),
        latency.avg_ms(),
        latency.max_ms(),
        server.packets_received,
        server.packets_sent,
        server.num_alive_connections,
        server.outstanding_requests,
        server.zxid,
        server.mode,
        server.znode_count,
    )
}

fn connection_lines(connections: &[ConnectionStats]) -> String {
    let mut text = "Clients:\n".to_owned();
    for connection in connections {
        let ConnectionStats { peer, interest_ops, queued, received, sent } = connection;
        let peer = java_address(peer);
        // Writing to a string cannot fail.
        let _ = writeln!(text, " {peer}[{interest_ops:x}](queued={queued},recved={received},sent={sent})");
    }
    text.push('\n');
    text
}

/// The address as Java writes it: `/host:port`, IPv6 in brackets and never shortened.
fn java_address(address: &SocketAddr) -> String {
    match address.ip() {
        IpAddr::V4(ip) => format!("/{ip}:{}", address.port()),
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(ip) => format!("/{ip}:{}", address.port()),
            None => {
                let groups = ip.segments().map(|group| format!("{group:x}"));
                format!("/[{}]:{}", groups.join(":"), address.port())
            }
        },
    }
}

fn monitor_lines(report: &StatsReport) -> String {
    let server = &report.server;
    let mut text = format!("zk_version\t{}\nzk_server_state\t{}\n", version(), server.mode);
    text += &format!("zk_avg_latency\t{}\n", server.latency.avg_ms());
    let gauges = [
        ("max_latency", server.latency.max_ms()),
        ("min_latency", server.latency.min_ms()),
        ("packets_received", server.packets_received),
        ("packets_sent", server.packets_sent),
        ("num_alive_connections", server.num_alive_connections),
        ("outstanding_requests", server.outstanding_requests),
        ("uptime", server.uptime_ms),
        ("znode_count", server.znode_count),
        ("watch_count", server.watch_count),
        ("ephemerals_count", server.ephemerals_count),
        ("approximate_data_size", server.approximate_data_size),
        ("open_file_descriptor_count", server.open_file_descriptor_count),
        ("max_file_descriptor_count", server.max_file_descriptor_count),
        ("global_sessions", server.global_sessions),
        ("local_sessions", 0),
    ];
    let gauges = gauges.iter().map(|(name, value)| format!("zk_{name}\t{value}\n"));
    let extra = report.extra.iter().map(|(name, value)| format!("zk_{name}\t{value}\n"));
    text.extend(gauges.chain(extra));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> StatsReport {
        let mut latency = Latency::default();
        [1_000, 2_500].into_iter().for_each(|duration| latency.record_us(duration));
        let connection = |peer: &str, interest_ops| ConnectionStats {
            peer: peer.parse().unwrap(),
            interest_ops,
            queued: 0,
            received: 1,
            sent: 2,
        };
        StatsReport {
            is_serving: true,
            server: ServerStats {
                mode: "standalone",
                latency,
                packets_received: 3,
                packets_sent: 4,
                num_alive_connections: 5,
                outstanding_requests: 6,
                zxid: Zxid(0x1_0000_000a),
                uptime_ms: 7,
                znode_count: 8,
                watch_count: 9,
                ephemerals_count: 10,
                approximate_data_size: 11,
                open_file_descriptor_count: 12,
                max_file_descriptor_count: 13,
                global_sessions: 14,
            },
            connections: vec![
                connection("127.0.0.1:50000", 1),
                connection("[::1]:7", 5),
                connection("[::ffff:10.0.0.1]:8", 0),
            ],
            extra: vec![("commit_count".to_owned(), "15".to_owned())],
            environment: vec![("os.name".to_owned(), "Linux".to_owned())],
        }
    }

    const SERVER_LINES: &str = "Latency min/avg/max: 1/1.75/3\nReceived: 3\nSent: 4\nConnections: 5\nOutstanding: 6\n\
                                Zxid: 0x10000000a\nMode: standalone\nNode count: 8\n";

    /// Scripts match these labels to the letter, and health checks compare the whole of `imok`.
    #[test]
    fn label_differs_from_zookeeper() {
        let version = format!("Zookeeper version: {}\n", version());
        assert_eq!(render(FourLetterWord::Ruok, &report()), "imok");
        assert_eq!(render(FourLetterWord::Srvr, &report()), format!("{version}{SERVER_LINES}"));
        let clients = "Clients:\n /127.0.0.1:50000[1](queued=0,recved=1,sent=2)\n \
                       /[0:0:0:0:0:0:0:1]:7[5](queued=0,recved=1,sent=2)\n \
                       /10.0.0.1:8[0](queued=0,recved=1,sent=2)\n\n";
        assert_eq!(render(FourLetterWord::Stat, &report()), format!("{version}{clients}{SERVER_LINES}"));
    }

    /// Scrapers split each line at the tab and want the version and state first.
    #[test]
    fn monitor_row_missing_or_swapped() {
        let text = render(FourLetterWord::Mntr, &report());
        let expected = [
            &format!("zk_version\t{}", version()),
            "zk_server_state\tstandalone",
            "zk_avg_latency\t1.75",
            "zk_max_latency\t3",
            "zk_min_latency\t1",
            "zk_packets_received\t3",
            "zk_packets_sent\t4",
            "zk_num_alive_connections\t5",
            "zk_outstanding_requests\t6",
            "zk_uptime\t7",
            "zk_znode_count\t8",
            "zk_watch_count\t9",
            "zk_ephemerals_count\t10",
            "zk_approximate_data_size\t11",
            "zk_open_file_descriptor_count\t12",
            "zk_max_file_descriptor_count\t13",
            "zk_global_sessions\t14",
            "zk_local_sessions\t0",
            "zk_commit_count\t15",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
        assert!(text.ends_with('\n'));
    }

    /// Clients take the digits and dots in front (kazoo: `([\d\.]*).*`, split at dots) and choose features by them: a
    /// trailing dot or a missing digit makes them fail or choose wrong.
    #[test]
    fn version_that_clients_cannot_parse() {
        let version = version();
        let digits: String = version.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
        let numbers: Vec<u32> = digits.split('.').map(|number| number.parse().unwrap()).collect();
        assert_eq!(numbers, [3, 9, 5]);
        assert!(version.starts_with("3.9.5-ringkeeper-") && version.contains(", built on "), "{version}");
    }

    /// A word that is shut must say so, one that is open and not built must not look like an empty answer.
    #[test]
    fn shut_or_unbuilt_word_answers_nothing() {
        let whitelist = Whitelist::parse("cons");
        let shut = answer(FourLetterWord::Mntr, &whitelist, &report());
        assert_eq!(shut, "mntr is not executed because it is not in the whitelist.\n");
        let unbuilt = answer(FourLetterWord::Cons, &whitelist, &report());
        assert_eq!(unbuilt, "cons is not implemented in this version.\n");
        assert!(answer(FourLetterWord::Srvr, &whitelist, &report()).contains("Mode: standalone"));
    }

    /// A server that is starting has no numbers: it must not show zeros as if it served, yet it is alive.
    #[test]
    fn starting_server_reports_zeros() {
        let starting = StatsReport { is_serving: false, ..report() };
        for word in [FourLetterWord::Srvr, FourLetterWord::Stat, FourLetterWord::Mntr] {
            assert_eq!(render(word, &starting), "This ZooKeeper instance is not currently serving requests\n");
        }
        assert_eq!(render(FourLetterWord::Ruok, &starting), "imok");
    }
}
