//! Transactions and records in words.

use crate::coordination::processor::txn::{Txn, TxnRecord};
use std::fmt::Write;

/// A transaction on one line: zxid, time, session, what.
pub(super) fn transaction(bytes: &[u8]) -> String {
    let Ok(txn) = Txn::decode(bytes) else { return format!("a malformed transaction of {} bytes", bytes.len()) };
    let header = &txn.header;
    let mut line = format!("{} time {} session {}", header.zxid, header.time_ms, header.session);
    for record in txn.records() {
        let what = record.map_or_else(|error| error.to_string(), |record| self::record(&record));
        // Writing to a string cannot fail.
        let _ = write!(line, " | {what}");
    }
    line
}

fn record(record: &TxnRecord<'_>) -> String {
    match record {
        TxnRecord::Create { path, data, owner, .. } if owner.0 != 0 => {
            format!("create {path:?} {}, ephemeral of {owner}", self::data(*data))
        }
        TxnRecord::Create { path, data, .. } => format!("create {path:?} {}", self::data(*data)),
        TxnRecord::Delete { path, .. } => format!("delete {path:?}"),
        TxnRecord::SetData { path, data, stat, .. } => {
            format!("setData {path:?} {}, version {}", self::data(*data), stat.version)
        }
        TxnRecord::SetAcl { path, acl, stat, .. } => {
            format!("setACL {path:?} {:?}, version {}", acl.hash, stat.aversion)
        }
        TxnRecord::Check => "check".into(),
        TxnRecord::Error { code } => format!("error {code}"),
        TxnRecord::MultiFailed { slot, slots, code } => format!("multi failed: slot {slot} of {slots}, error {code}"),
        TxnRecord::Multi { slots } => format!("multi of {slots}"),
        TxnRecord::CreateSession { session, timeout_ms } => format!("createSession {session}, {timeout_ms} ms"),
        TxnRecord::MoveSession { session, timeout_ms } => format!("moveSession {session}, {timeout_ms} ms"),
        TxnRecord::CloseSession { session } => format!("closeSession {session}"),
        TxnRecord::OpenEpoch => "openEpoch".into(),
    }
}

/// How much data there is.
pub(super) fn data(data: Option<&[u8]>) -> String {
    data.map_or_else(|| "null".into(), |data| format!("{} bytes", data.len()))
}
