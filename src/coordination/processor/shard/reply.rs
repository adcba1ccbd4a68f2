//! Replies to requests that needed agreement: built from the transaction and what the client asked.

use super::connection::Expected;
use crate::coordination::processor::txn::{MalformedTxn, Txn, TxnRecord};
use crate::protocol::jute::Output;
use crate::protocol::zookeeper::{ErrorCode, MultiResult, OpCode, Reply, ReplyHeader};

/// Appends the reply frame for `txn`.
pub(super) fn encode(expected: &Expected, xid: i32, txn: &Txn<'_>, buffer: &mut Vec<u8>) -> Result<(), MalformedTxn> {
    let zxid = txn.header.zxid.wire();
    let mut records = txn.records();
    let first = records.next().ok_or(MalformedTxn)??;
    if let TxnRecord::Error { code } = first {
        Output::new(buffer).framed(|out| ReplyHeader { xid, zxid, error: code }.encode(out));
        return Ok(());
    }
    let mut result = Ok(());
    Output::new(buffer).framed(|out| {
        ReplyHeader { xid, zxid, error: 0 }.encode(out);
        result = match expected {
            Expected::Single(op) => encode_single(*op, txn, &first, out),
            Expected::Multi(ops) => encode_multi(ops, txn, &first, records, out),
            Expected::CloseSession | Expected::Connect { .. } | Expected::Sync { .. } => Ok(()),
        };
    });
    result
}

fn encode_single(op: OpCode, txn: &Txn<'_>, record: &TxnRecord<'_>, out: &mut Output<'_>) -> Result<(), MalformedTxn> {
    match slot(op, txn, record)? {
        MultiResult::Create { path } => Reply::Path(path).encode(out),
        MultiResult::Create2 { path, stat } => Reply::PathAndStat(path, stat).encode(out),
        MultiResult::SetData { stat } => Reply::Stat(stat).encode(out),
        _ => {}
    }
    Ok(())
}

fn encode_multi<'a>(
    ops: &[OpCode],
    txn: &Txn<'_>,
    first: &TxnRecord<'_>,
    records: impl Iterator<Item = Result<TxnRecord<'a>, MalformedTxn>>,
    out: &mut Output<'_>,
) -> Result<(), MalformedTxn> {
    match *first {
        TxnRecord::MultiFailed { slot: failed, slots, code } => {
            for place in 0..slots {
                let error = match place.cmp(&failed) {
                    std::cmp::Ordering::Less => 0,
                    std::cmp::Ordering::Equal => code,
                    std::cmp::Ordering::Greater => ErrorCode::RuntimeInconsistency.wire(),
                };
                MultiResult::Error(error).encode(out);
            }
        }
        TxnRecord::Multi { .. } => {
            for (op, record) in ops.iter().zip(records) {
                slot(*op, txn, &record?)?.encode(out);
            }
        }
        _ => return Err(MalformedTxn),
    }
    MultiResult::encode_end(out);
    Ok(())
}

/// The result of one sub-operation, as an operation of this kind answers it. setACL answers with a Stat, as setData does.
fn slot<'a>(op: OpCode, txn: &Txn<'_>, record: &TxnRecord<'a>) -> Result<MultiResult<'a>, MalformedTxn> {
    Ok(match *record {
        TxnRecord::Create { path, .. } if op == OpCode::Create => MultiResult::Create { path },
        TxnRecord::Create { path, data, owner, .. } => {
            let length = data.map_or(0, <[u8]>::len) as i32;
            MultiResult::Create2 { path, stat: txn.created_stat(owner).to_wire(length, 0) }
        }
        TxnRecord::Delete { .. } => MultiResult::Delete,
        TxnRecord::SetData { data, stat, num_children, .. } => {
            let length = data.map_or(0, <[u8]>::len) as i32;
            MultiResult::SetData { stat: stat.to_wire(length, num_children) }
        }
        TxnRecord::SetAcl { stat, num_children, data_length, .. } => {
            MultiResult::SetData { stat: stat.to_wire(data_length, num_children) }
        }
        TxnRecord::Check => MultiResult::Check,
        _ => return Err(MalformedTxn),
    })
}
