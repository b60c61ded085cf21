//! Control objects as they travel: signed by whoever, or by nobody.

use sealcast_crypto::UnwrapKey;
use sealcast_protocol::{
    AskItem, AuditEntry, Bundle, CardList, CardRevocation, Claim, Condition, Deal, Demand,
    FallbackKey, ListBody, ListEntry, LogBody, LogEntry, NodeAnswer, NodeRefusal, NodeRequest,
    Position, Receipt, Refusal, SegmentRecords, SessionRecord, Signable, Solicitation, Targets,
    Unverified, UserId, open_bundle, unwrap_root, wrap_key_hash,
};

use crate::signed::{decoded, own_key, refused};

/// An entry of an access log.
pub(crate) fn log_entry(bytes: &[u8]) {
    let Some(entry) = decoded::<LogEntry>(bytes) else {
        return;
    };
    match &entry.claims().body {
        LogBody::KeyNodes(set) => condition(&set.condition),
        LogBody::Approve(approval) => {
            assert_ne!(approval.user, entry.claims().user);
            assert!(approval.until <= Position::END);
        }
        LogBody::Genesis(_)
        | LogBody::Grant(_)
        | LogBody::Revoke(_)
        | LogBody::Settings(_)
        | LogBody::Close => {}
    }
    if let LogBody::Revoke(revoke) = &entry.claims().body
        && let Targets::Devices(devices) = &revoke.targets
    {
        for of in devices {
            let proof = CardRevocation::from_proof(&of.user, &of.proof);
            let proven = proof.is_ok_and(|out| out.device == of.device);
            assert_eq!(of.is_proven(), proven);
        }
    }
}

/// What a condition lacks is what it holds with, at each time that it names and around it.
fn condition(of: &Condition) {
    assert_eq!(of.and(&Condition::default()), Some(of.clone()));
    let demands = of.0.iter().flatten();
    let times = demands.filter_map(|demand| match demand {
        Demand::After(time) | Demand::Before(time) => Some(*time),
        Demand::Approved(_) => None,
    });
    for time in times.chain([Position::START, Position::END]) {
        for now in [Position(time.0.saturating_sub(1)), time] {
            for parity in 0..3 {
                let approves = |by: &UserId| by.0[31] % 2 == parity;
                at_a_time(of, now, approves);
            }
        }
    }
}

fn at_a_time(of: &Condition, now: Position, approves: impl Fn(&UserId) -> bool + Copy) {
    let (holds, lacks) = (of.holds(now, approves), of.lacks(now, approves));
    let twice = of.and(of);
    assert!(twice.is_none_or(|twice| twice.holds(now, approves) == holds));
    let is_over = |all: &Vec<Demand>| {
        let mut ends = all.iter();
        ends.any(|demand| matches!(demand, Demand::Before(end) if now >= *end))
    };
    assert_eq!(lacks.is_empty(), holds || of.0.iter().all(is_over));
    assert!(lacks.iter().all(|all| !all.is_empty()));
    let waits = of.wait_ms(now);
    assert!(waits.is_none_or(|wait| wait > 0 && now.0 + wait < Position::END.0));
    let without_approvals = lacks.iter().find(|all| {
        let mut all = all.iter();
        all.all(|demand| matches!(demand, Demand::After(_)))
    });
    assert!(without_approvals.is_none() || waits.is_some());
}

/// An entry of a device list.
pub(crate) fn list_entry(bytes: &[u8]) {
    let Some(entry) = decoded::<ListEntry>(bytes) else {
        return;
    };
    let user = entry.claims().user;
    if let ListBody::Card(card) = &entry.claims().body
        && let Ok(keys) = card.verify(&user)
    {
        assert_eq!(*keys.sign_key.as_bytes(), card.sign_key);
        assert_eq!(keys.wrap_key.as_bytes().as_slice(), card.wrap_key);
    }
    let mut list = CardList::new(user);
    match list.apply(bytes) {
        Ok(_) => assert!(list.next_seq() == entry.claims().seq + 1),
        Err(_) => assert!(list.pin().is_none() && list.devices().next().is_none()),
    }
    if let Ok(out) = CardRevocation::from_proof(&user, bytes) {
        assert_eq!(entry.claims().body, ListBody::Revoke(out));
    }
}

/// The record of a session.
pub(crate) fn session_record(bytes: &[u8]) {
    let Some(record) = decoded::<SessionRecord>(bytes) else {
        return;
    };
    let record = record.claims();
    if let Some(root) = record.public_root() {
        assert_eq!(root.commitment(), record.commitment);
    }
    let key = UnwrapKey::from_seed(&[9; 32]);
    for wrap in record.wraps.iter().take(2) {
        let found = record.wrap_for(&wrap.user, &wrap.device);
        assert_eq!(found, Some(wrap));
        let context = record.wrap_context(&wrap.user, &wrap.device);
        assert!(unwrap_root(&wrap.wrapped, &context, &key).is_err());
    }
}

/// A bundle.
pub(crate) fn bundle(bytes: &[u8]) {
    let Some(bundle) = decoded::<Bundle>(bytes) else {
        return;
    };
    let key = UnwrapKey::from_seed(&[9; 32]);
    assert!(open_bundle(bundle.claims(), &key).is_err());
    // As if it named this key.
    let mut ours = bundle.claims().clone();
    ours.context.wrap_key_hash = wrap_key_hash(&key.wrap_key());
    assert!(open_bundle(&ours, &key).is_err());
}

/// A fallback key.
pub(crate) fn fallback_key(bytes: &[u8]) {
    let Some(fallback) = decoded::<FallbackKey>(bytes) else {
        return;
    };
    let (user, key) = (fallback.claims().user, own_key().verifying_key());
    assert!(FallbackKey::read(&user, &key, bytes).is_none());
    let now = Position(1_790_000_000_000);
    assert!(FallbackKey::newest(&user, &key, [bytes, bytes], now).is_none());
}

/// What travels to and from key nodes. No two kinds have bodies of one shape.
pub(crate) fn node_item(bytes: &[u8]) {
    let kinds = [
        is_one::<Deal>(bytes),
        is_one::<SegmentRecords>(bytes),
        is_one::<NodeRequest>(bytes),
        is_one::<NodeAnswer>(bytes),
        is_one::<NodeRefusal>(bytes),
        is_one::<AuditEntry>(bytes),
        is_one::<Bundle>(bytes),
        is_one::<SessionRecord>(bytes),
    ];
    let count = kinds.into_iter().filter(|is_one| *is_one).count();
    assert!(count <= 1, "it is of one kind");
    if let Ok(deal) = Unverified::<Deal>::decode(bytes) {
        dealt(deal.claims());
    }
    if let Ok(asked) = Unverified::<NodeRequest>::decode(bytes) {
        let asked = asked.claims();
        assert_eq!(asked.labels().len(), asked.segments.len());
    }
}

fn dealt(deal: &Deal) {
    let dealing = deal.dealing();
    let commitments = dealing.map(|dealing| dealing.commitments().concat());
    assert_eq!(commitments.as_ref(), Ok(&deal.commitments));
    let key = UnwrapKey::from_seed(&[9; 32]);
    for share in &deal.shares {
        assert!(deal.index_of(&share.node).is_some());
    }
    if let Some(first) = deal.shares.first() {
        assert!(deal.unwrap_share(&first.node, &key).is_err());
    }
}

/// What lies in an `ask` topic. No two kinds have bodies of one shape.
pub(crate) fn ask_item(bytes: &[u8]) {
    let kinds = [
        is_one::<Solicitation>(bytes),
        is_one::<Claim>(bytes),
        is_one::<Refusal>(bytes),
        is_one::<Receipt>(bytes),
    ];
    let count = kinds.into_iter().filter(|is_one| *is_one).count();
    match AskItem::decode(bytes) {
        Ok(item) => {
            assert_eq!(count, 1, "it is of one kind");
            if let AskItem::Solicitation(asked) = item {
                solicitation(asked.claims());
            }
        }
        Err(error) => {
            assert_eq!(count, 0, "it is of a kind");
            refused(error);
        }
    }
}

fn is_one<T: Signable + Clone>(bytes: &[u8]) -> bool {
    decoded::<T>(bytes).is_some()
}

fn solicitation(of: &Solicitation) {
    if let Ok(key) = of.wrap_key() {
        assert_eq!(key.as_bytes().as_slice(), of.key);
    }
    assert!(of.wants.iter().all(|want| want.names(&want.session)));
}
