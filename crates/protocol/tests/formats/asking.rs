use proptest::prelude::*;
use sealcast_protocol::{
    AskItem, Claim, DecodeError, Interval, ListPin, LogHash, Position, Receipt, Refusal,
    RefusalReason, RequestId, SessionId, Signable, Solicitation, Unverified, UserId, VerifyError,
    WANTS_MAX, Want, sign,
};

use crate::support::{NOW, Person, STREAM, flips};

#[test]
fn the_fullest_objects_fit_their_own_bounds() {
    let anna = Person::new(1);
    let mut asked = solicitation(WANTS_MAX as u64);
    asked.heads = (0..1_024_u64).map(numbered).collect();
    let last = Position(Position::END.0 - 1);
    asked.time = Position(last.0 - 1);
    asked.expires = last;
    asked.list.seq = u32::MAX;
    let signed = sign(&anna.phone.signing, asked).unwrap();
    assert!(Unverified::<Solicitation>::decode(signed.wire()).is_ok());
    let all: Vec<u8> = (0..128).collect();
    let refusal = Refusal {
        wants: all,
        ..refusal()
    };
    let signed = sign(&anna.phone.signing, refusal).unwrap();
    assert!(Unverified::<Refusal>::decode(signed.wire()).is_ok());
}

/// A kind never reads as another, whichever is tried first.
#[test]
fn each_kind_is_told_from_the_others() {
    let key = Person::new(1).phone.signing;
    let kind = |wire: &[u8]| match AskItem::decode(wire) {
        Ok(AskItem::Solicitation(_)) => "solicitation",
        Ok(AskItem::Claim(_)) => "claim",
        Ok(AskItem::Refusal(_)) => "refusal",
        Ok(AskItem::Receipt(_)) => "receipt",
        Err(_) => "nothing",
    };
    let asked = sign(&key, solicitation(1)).unwrap();
    let (claimed, refused) = (sign(&key, claim()).unwrap(), sign(&key, refusal()).unwrap());
    let received = sign(&key, receipt()).unwrap();
    assert_eq!(kind(asked.wire()), "solicitation");
    assert_eq!(kind(claimed.wire()), "claim");
    assert_eq!(kind(refused.wire()), "refusal");
    assert_eq!(kind(received.wire()), "receipt");
    assert_eq!(kind(b""), "nothing");
    let items = [
        asked.wire(),
        claimed.wire(),
        refused.wire(),
        received.wire(),
    ];
    let reads: Vec<[bool; 4]> = items
        .iter()
        .map(|wire| {
            [
                Unverified::<Solicitation>::decode(wire).is_ok(),
                Unverified::<Claim>::decode(wire).is_ok(),
                Unverified::<Refusal>::decode(wire).is_ok(),
                Unverified::<Receipt>::decode(wire).is_ok(),
            ]
        })
        .collect();
    for (at, reads) in reads.iter().enumerate() {
        assert_eq!(reads.iter().position(|of| *of), Some(at));
        assert_eq!(reads.iter().filter(|of| **of).count(), 1);
    }
}

/// faults 4 and 5: every field is signed, under a label of its kind.
#[test]
fn an_object_with_any_byte_changed_is_refused() {
    let anna = Person::new(1);
    let key = anna.phone.signing.verifying_key();
    let items = [
        sign(&anna.phone.signing, claim()).unwrap().wire().to_vec(),
        sign(&anna.phone.signing, refusal())
            .unwrap()
            .wire()
            .to_vec(),
        sign(&anna.phone.signing, receipt())
            .unwrap()
            .wire()
            .to_vec(),
        sign(&anna.phone.signing, solicitation(2))
            .unwrap()
            .wire()
            .to_vec(),
    ];
    for flipped in items.iter().flat_map(|wire| flips(wire)) {
        let refused = match AskItem::decode(&flipped) {
            Ok(AskItem::Claim(of)) => of.verify(&key).map(|_| ()),
            Ok(AskItem::Refusal(of)) => of.verify(&key).map(|_| ()),
            Ok(AskItem::Receipt(of)) => of.verify(&key).map(|_| ()),
            Ok(AskItem::Solicitation(of)) => of.verify(&key).map(|_| ()),
            Err(_) => continue,
        };
        assert_eq!(refused, Err(VerifyError::BadSignature));
    }
}

#[test]
fn a_body_out_of_range_is_not_signed() {
    let key = Person::new(1).phone.signing;
    let asked = Solicitation {
        wants: Vec::new(),
        ..solicitation(1)
    };
    let refused = sign(&key, asked).map(|_| ());
    assert_eq!(refused, Err(DecodeError::OutOfRange));
    let nothing = Claim {
        wants: Vec::new(),
        ..claim()
    };
    let refused = sign(&key, nothing).map(|_| ());
    assert_eq!(refused, Err(DecodeError::OutOfRange));
    let newer = Receipt {
        version: 2,
        ..receipt()
    };
    assert_eq!(newer.check(), Err(DecodeError::UnknownVersion { found: 2 }));
}

#[test]
fn a_want_of_every_session_names_each() {
    let one = want(3);
    let all = Want {
        session: Want::EVERY_SESSION,
        ..one
    };
    let (three, four) = (SessionId([3; 16]), SessionId([4; 16]));
    assert!(one.names(&three) && !one.names(&four));
    assert!(all.names(&three) && all.names(&four));
}

#[test]
fn debug_shows_no_key() {
    let shown = format!("{:?}", solicitation(1));
    assert!(shown.starts_with("Solicitation"), "{shown}");
    assert!(shown.len() < 500 && !shown.contains("key"), "{shown}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_solicitation_reads_back(
        wants in prop::collection::btree_set(any_want(), 1..WANTS_MAX),
        heads in prop::collection::btree_set(any::<u64>(), 0..20),
        time in 0..Position::END.0 - 300_001,
        life in 1..=300_000_u64,
        request in prop::array::uniform16(1_u8..),
    ) {
        let anna = Person::new(1);
        let asked = Solicitation {
            wants: wants.into_iter().collect(),
            heads: heads.into_iter().map(numbered).collect(),
            time: Position(time),
            expires: Position(time + life),
            request: RequestId(request),
            ..solicitation(1)
        };
        let signed = sign(&anna.phone.signing, asked.clone()).unwrap();
        let read = Unverified::<Solicitation>::decode(signed.wire()).unwrap();
        let read = read.verify(&anna.phone.signing.verifying_key()).unwrap();
        prop_assert_eq!(read.body(), &asked);
        prop_assert!(read.body().wrap_key().is_ok());
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(0_u8.., 0..300)) {
        prop_assert!(AskItem::decode(&bytes).is_err());
    }
}

fn any_want() -> impl Strategy<Value = Want> {
    (any::<u8>(), 0..Position::END.0, 1..Position::END.0).prop_map(|(session, from, len)| Want {
        session: SessionId([session; 16]),
        interval: Interval {
            from: Position(from),
            until: Position((from + len).min(Position::END.0)),
        },
        ..want(0)
    })
}

fn numbered(number: u64) -> LogHash {
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&number.to_be_bytes());
    LogHash(hash)
}

fn want(from: u64) -> Want {
    Want {
        lane: UserId([7; 32]),
        session: SessionId([3; 16]),
        interval: Interval {
            from: Position(from),
            until: Position::END,
        },
    }
}

fn solicitation(wants: u64) -> Solicitation {
    let bob = Person::new(2);
    Solicitation {
        version: 1,
        stream: STREAM,
        user: bob.user,
        device: bob.phone.id,
        list: ListPin {
            seq: 0,
            half: [6; 16],
        },
        request: RequestId([9; 16]),
        key: bob.phone.fallback.wrap_key().as_bytes().to_vec(),
        wants: (0..wants)
            .map(|at| want(Position::END.0 - 200 + at))
            .collect(),
        heads: vec![LogHash([1; 32])],
        time: NOW,
        expires: NOW.after(30_000),
    }
}

fn claim() -> Claim {
    let (anna, bob) = (Person::new(1), Person::new(2));
    Claim {
        version: 1,
        stream: STREAM,
        asker: bob.phone.id,
        request: RequestId([9; 16]),
        user: anna.user,
        device: anna.phone.id,
        wants: vec![0],
    }
}

fn refusal() -> Refusal {
    let claim = claim();
    Refusal {
        version: 1,
        stream: claim.stream,
        asker: claim.asker,
        request: claim.request,
        user: claim.user,
        device: claim.device,
        wants: claim.wants,
        reason: RefusalReason::UnknownSession,
    }
}

fn receipt() -> Receipt {
    let bob = Person::new(2);
    Receipt {
        version: 1,
        stream: STREAM,
        user: bob.user,
        device: bob.phone.id,
        request: RequestId([9; 16]),
        wants: vec![0],
    }
}
