//! What one shard counts.

use super::Latency;

/// Rows that a standalone ZooKeeper shows and never raises. They count TLS certificates that were refused, proposals that a leader
/// committed, requests refused by `largeRequestThreshold`, and snapshots that a leader sent to learners.
const OF_OTHER_SERVERS: [&str; 4] = ["auth_failed_count", "commit_count", "large_requests_rejected", "snap_count"];

/// The counters of one shard, or the sum of several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets received from clients: handshakes, requests and four-letter words.
    pub packets_received: u64,
    /// Packets sent to clients: replies, events, and answers to handshakes and to four-letter words.
    pub packets_sent: u64,
    /// Bytes of the packets received, lengths included.
    pub bytes_received: u64,
    /// Bytes of the replies to requests, lengths and events excluded.
    pub response_bytes: u64,
    /// Connections open now.
    pub connections_alive: u64,
    /// Requests received and not yet answered, now.
    pub outstanding_requests: u64,
    /// Connections closed at once because of a connection limit.
    pub connections_rejected: u64,
    /// Handshakes received that can be read.
    pub connection_requests: u64,
    /// Handshakes that asked to take up a session again and were answered, with whatever.
    pub connection_revalidations: u64,
    /// Connections dropped because they never opened a session.
    pub sessionless_connections_expired: u64,
    /// Sessions that ended because they were silent.
    pub stale_sessions_expired: u64,
    /// For how long writes have waited and nothing has moved, now, milliseconds.
    pub write_stall_ms: u64,
    /// How often that began.
    pub write_stalls: u64,
    /// From when a request was read to its reply.
    pub request_latency: Latency,
    /// Log flushes that took longer than `fsync.warningthresholdms`.
    pub fsync_threshold_exceeded: u64,
    /// Durations of log flushes; none while flushes are not synced (`forceSync=no`).
    pub fsync_latency: Latency,
    /// Durations of snapshots.
    pub snapshot_latency: Latency,
}

impl Counters {
    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Counters) {
        // Without `..`, so that a new counter cannot be left out of reports.
        let Counters {
            packets_received,
            packets_sent,
            bytes_received,
            response_bytes,
            connections_alive,
            outstanding_requests,
            connections_rejected,
            connection_requests,
            connection_revalidations,
            sessionless_connections_expired,
            stale_sessions_expired,
            write_stall_ms,
            write_stalls,
            request_latency,
            fsync_threshold_exceeded,
            fsync_latency,
            snapshot_latency,
        } = other;
        self.packets_received += packets_received;
        self.packets_sent += packets_sent;
        self.bytes_received += bytes_received;
        self.response_bytes += response_bytes;
        self.connections_alive += connections_alive;
        self.outstanding_requests += outstanding_requests;
        self.connections_rejected += connections_rejected;
        self.connection_requests += connection_requests;
        self.connection_revalidations += connection_revalidations;
        self.sessionless_connections_expired += sessionless_connections_expired;
        self.stale_sessions_expired += stale_sessions_expired;
        self.fsync_threshold_exceeded += fsync_threshold_exceeded;
        self.write_stall_ms += write_stall_ms;
        self.write_stalls += write_stalls;
        self.request_latency.merge(request_latency);
        self.fsync_latency.merge(fsync_latency);
        self.snapshot_latency.merge(snapshot_latency);
    }

    /// Names and values of the counters and summaries that ZooKeeper's monitoring knows beyond the fixed gauges.
    pub fn rows(&self) -> Vec<(String, String)> {
        let counters = [
            ("bytes_received_count", self.bytes_received),
            ("connection_rejected", self.connections_rejected),
            ("connection_request_count", self.connection_requests),
            ("connection_revalidate_count", self.connection_revalidations),
            ("fsync_threshold_exceed_count", self.fsync_threshold_exceeded),
            ("response_bytes", self.response_bytes),
            ("sessionless_connections_expired", self.sessionless_connections_expired),
            ("stale_sessions_expired", self.stale_sessions_expired),
            ("write_stall_count", self.write_stalls),
            ("write_stall_ms", self.write_stall_ms),
        ];
        let counters = counters.into_iter().chain(OF_OTHER_SERVERS.map(|name| (name, 0)));
        let mut rows: Vec<_> = counters.map(|(name, value)| (name.to_owned(), value.to_string())).collect();
        rows.extend(self.fsync_latency.rows("fsynctime"));
        rows.extend(self.snapshot_latency.rows("snapshottime"));
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A counter merged into its neighbour is wrong only in sums over shards, where nobody looks at one of them.
    #[test]
    fn counter_merged_into_its_neighbour() {
        let mut one = Counters::default();
        let plain: [fn(&mut Counters) -> &mut u64; 14] = [
            |c| &mut c.packets_received,
            |c| &mut c.packets_sent,
            |c| &mut c.bytes_received,
            |c| &mut c.response_bytes,
            |c| &mut c.connections_alive,
            |c| &mut c.outstanding_requests,
            |c| &mut c.connections_rejected,
            |c| &mut c.connection_requests,
            |c| &mut c.connection_revalidations,
            |c| &mut c.sessionless_connections_expired,
            |c| &mut c.stale_sessions_expired,
            |c| &mut c.fsync_threshold_exceeded,
            |c| &mut c.write_stall_ms,
            |c| &mut c.write_stalls,
        ];
        for (index, field) in plain.iter().enumerate() {
            *field(&mut one) = 1 << index;
        }
        one.request_latency.record_us(1_000);
        one.fsync_latency.record_us(2_000);
        one.snapshot_latency.record_us(3_000);
        let mut sum = Counters::default();
        sum.merge(&one);
        assert_eq!(sum, one);
        sum.merge(&one);
        for (index, field) in plain.iter().enumerate() {
            assert_eq!(*field(&mut sum), 2 << index, "counter {index}");
        }
        assert_eq!((sum.request_latency.count(), sum.request_latency.sum_ms()), (2, 2));
        assert_eq!((sum.fsync_latency.count(), sum.fsync_latency.sum_ms()), (2, 4));
        assert_eq!((sum.snapshot_latency.count(), sum.snapshot_latency.sum_ms()), (2, 6));
    }

    /// Two rows of one name make a scraper drop the whole page.
    #[test]
    fn row_named_twice() {
        let rows = Counters::default().rows();
        let names: std::collections::BTreeSet<_> = rows.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), rows.len());
        assert!(rows.contains(&("cnt_fsynctime".to_owned(), "0".to_owned())));
    }
}
