//! What a key node keeps of what it did: a chain that was kept, and one that somebody laid hands on.

use sealcast_crypto::VerifyingKey;
use sealcast_protocol::{
    AuditChain, AuditEnd, AuditEntry, AuditFault, DeviceId, KeyNode, StreamId, Unverified, UserId,
    Verified, sign,
};

use crate::signed::own_key;

const ENTRIES_MAX: usize = 16;
const NODE: KeyNode = KeyNode {
    user: UserId([1; 32]),
    device: DeviceId([2; 16]),
};

/// Where a chain ends, what is done to one, and entries, each behind its length.
pub(crate) fn audit(bytes: &[u8]) {
    let Some((end, rest)) = bytes.split_first_chunk::<48>() else {
        assert_eq!(AuditEnd::from_bytes(bytes), None);
        return;
    };
    let Some(end) = AuditEnd::from_bytes(end) else {
        unreachable!("48 bytes are an end");
    };
    assert_eq!(end.to_bytes(), bytes[..48]);
    let Some((done, rest)) = rest.split_first_chunk::<2>() else {
        return;
    };
    let entries = entries(rest);
    as_they_came(end, &entries);
    made(*done, &entries);
}

fn entries(mut bytes: &[u8]) -> Vec<Verified<AuditEntry>> {
    let mut entries = Vec::new();
    while let Some((len, rest)) = bytes.split_first_chunk::<2>()
        && entries.len() < ENTRIES_MAX
    {
        let len = usize::from(u16::from_be_bytes(*len)).min(rest.len());
        let (wire, rest) = rest.split_at(len);
        bytes = rest;
        let entry = Unverified::<AuditEntry>::decode(wire).ok();
        let again = entry.and_then(|of| sign(&own_key(), of.claims().clone()).ok());
        entries.extend(again);
    }
    entries
}

/// A chain goes on behind what follows, and stays where it is behind all else.
fn as_they_came(end: AuditEnd, entries: &[Verified<AuditEntry>]) {
    let Some(first) = entries.first() else {
        return;
    };
    let (stream, node) = (first.body().stream, first.body().node);
    let key = own_key().verifying_key();
    let start = AuditChain::new(stream, node);
    let Ok(mut chain) = start.before(first.wire(), &key) else {
        unreachable!("it is an entry of this node");
    };
    assert_eq!(chain.len(), first.body().seq);
    for entry in entries {
        let (body, before) = (entry.body(), chain);
        let follows = (body.seq, &body.prev) == (chain.len(), chain.head());
        let is_own = (body.stream, body.node) == (stream, node);
        match chain.take(entry.wire(), &key) {
            Ok(taken) => {
                assert!(follows && is_own);
                assert_eq!(*chain.head(), taken.body().hash());
                assert_eq!(chain.len(), body.seq.saturating_add(1));
            }
            Err(fault) => {
                assert!(!follows || !is_own, "{fault}");
                assert_eq!(chain, before);
            }
        }
    }
    let is_there = (chain.len(), chain.head()) == (end.len, &end.head);
    let ends = chain.ends(end);
    assert_eq!(ends.is_ok(), is_there);
    assert!(ends.is_ok_and(|of| *of.end() == end) || !is_there);
}

/// A chain that a node made holds, and one of which an entry was altered, exchanged or taken out does not.
fn made(done: [u8; 2], entries: &[Verified<AuditEntry>]) {
    let key = own_key();
    let stream = entries
        .first()
        .map_or(StreamId([3; 32]), |of| of.body().stream);
    let mut chain = AuditChain::new(stream, NODE);
    let mut wires = Vec::new();
    for entry in entries.iter().filter(|of| of.body().stream == stream) {
        let body = entry.body();
        let next = chain.append(body.time, body.event.clone());
        let Ok(signed) = sign(&key, next) else {
            unreachable!("it could be signed before");
        };
        wires.push(signed.wire().to_vec());
    }
    let end = AuditEnd::from_bytes(&chain.end().to_bytes());
    assert_eq!(end.as_ref(), Some(chain.end()));
    let key = key.verifying_key();
    assert_eq!(gone_along(stream, &wires, *chain.end(), &key), Ok(()));
    let [at, how] = done;
    let at = usize::from(at);
    let Some(wire) = wires.get_mut(at) else {
        return;
    };
    match how % 3 {
        0 => {
            let place = usize::from(how) * 7 % wire.len().max(1);
            if let Some(byte) = wire.get_mut(place) {
                *byte ^= 1 + how / 3;
            }
        }
        1 => drop(wires.remove(at)),
        _ if at > 0 => wires.swap(at - 1, at),
        _ => return,
    }
    assert_ne!(gone_along(stream, &wires, *chain.end(), &key), Ok(()));
}

fn gone_along(
    stream: StreamId,
    wires: &[Vec<u8>],
    end: AuditEnd,
    key: &VerifyingKey,
) -> Result<(), AuditFault> {
    let mut chain = AuditChain::new(stream, NODE);
    for wire in wires {
        chain.take(wire, key)?;
    }
    chain.ends(end).map(drop)
}
