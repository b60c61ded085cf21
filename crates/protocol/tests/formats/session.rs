use proptest::prelude::*;
use sealcast_crypto::{SessionRoot, delimited};
use sealcast_protocol::{
    DecodeError, DeviceId, Interval, LogHash, Position, RootWrap, SessionId, SessionKind,
    SessionRecord, Signable, StreamId, Unverified, UnwrapRootError, UserId, VerifyError, encode,
    sign, unwrap_root, wrap_key_hash, wrap_root,
};

use crate::support::{NOW, Person, STREAM, Seeded, flips};

#[test]
fn a_keyholder_finds_the_root_and_no_one_else_does() {
    let (anna, bob, carol) = (Person::new(1), Person::new(2), Person::new(3));
    let record = record(&anna, &[&anna, &bob]);
    let unwrap = |who: &Person| record.unwrap_root(&who.user, &who.phone.id, &who.phone.unwrap);
    assert_eq!(unwrap(&bob).unwrap().expose(), root().expose());
    assert_eq!(unwrap(&carol).map(|_| ()), Err(UnwrapRootError::NoWrap));
    let with_another_key = record.unwrap_root(&bob.user, &bob.phone.id, &carol.phone.unwrap);
    assert_eq!(
        with_another_key.map(|_| ()),
        Err(UnwrapRootError::NotAuthentic)
    );
}

#[test]
fn a_wrap_is_bound_to_every_field_of_its_context() {
    let (anna, bob) = (Person::new(1), Person::new(2));
    let record = record(&anna, &[&bob]);
    let context = record.wrap_context(&bob.user, &bob.phone.id);
    let wrapped = &record.wraps[0].wrapped;
    assert!(unwrap_root(wrapped, &context, &bob.phone.unwrap).is_ok());
    let changes: [fn(&mut sealcast_protocol::RootWrapContext); 7] = [
        |c| c.stream.0[0] ^= 1,
        |c| c.lane.0[0] ^= 1,
        |c| c.session.0[0] ^= 1,
        |c| c.commitment[0] ^= 1,
        |c| c.giver.0[0] ^= 1,
        |c| c.user.0[0] ^= 1,
        |c| c.device.0[0] ^= 1,
    ];
    for change in changes {
        let mut other = context;
        change(&mut other);
        let refused = unwrap_root(wrapped, &other, &bob.phone.unwrap);
        assert_eq!(refused.map(|_| ()), Err(UnwrapRootError::NotAuthentic));
    }
}

#[test]
fn a_root_that_does_not_fit_the_commitment_is_refused_by_name() {
    let (anna, bob) = (Person::new(1), Person::new(2));
    let context = record(&anna, &[]).wrap_context(&bob.user, &bob.phone.id);
    let to = bob.phone.unwrap.wrap_key();
    let lie = SessionRoot::init_with(|bytes| bytes.fill(9));
    let wrap = wrap_root(&mut Seeded(1), &lie, &context, &to).unwrap();
    let refused = unwrap_root(&wrap.wrapped, &context, &bob.phone.unwrap);
    assert_eq!(refused.map(|_| ()), Err(UnwrapRootError::OtherRoot));

    let label = "sealcast.v1 root wrap";
    let info = delimited(label, &[&encode(&context), &wrap_key_hash(&to)]);
    let long = to.wrap(&mut Seeded(1), &info, &[8; 33]).unwrap();
    let refused = unwrap_root(&long, &context, &bob.phone.unwrap);
    assert_eq!(refused.map(|_| ()), Err(UnwrapRootError::OtherRoot));
}

#[test]
fn the_session_id_follows_from_stream_lane_and_commitment() {
    let (stream, lane) = (STREAM, UserId([2; 32]));
    let id = SessionId::derive(&stream, &lane, &[3; 32]);
    assert_ne!(id, SessionId::derive(&StreamId([9; 32]), &lane, &[3; 32]));
    assert_ne!(id, SessionId::derive(&stream, &UserId([9; 32]), &[3; 32]));
    assert_ne!(id, SessionId::derive(&stream, &lane, &[9; 32]));
}

#[test]
fn a_public_record_shows_its_root_and_a_false_one_is_refused() {
    let anna = Person::new(1);
    let mut open = record(&anna, &[]);
    assert!(open.public_root().is_none());
    open.open_root = root().expose().to_vec();
    assert_eq!(open.check(), Ok(()));
    assert_eq!(open.public_root().unwrap().expose(), root().expose());
    open.open_root[0] ^= 1;
    assert_eq!(open.check(), Err(DecodeError::OutOfRange));
    open.open_root.truncate(31);
    assert_eq!(open.check(), Err(DecodeError::OutOfRange));
}

#[test]
fn fields_out_of_range_are_refused() {
    let anna = Person::new(1);
    let good = record(&anna, &[&anna, &Person::new(2)]);
    assert_eq!(good.check(), Ok(()));
    let refusal = |change: &dyn Fn(&mut SessionRecord)| {
        let mut record = good.clone();
        change(&mut record);
        record.check().unwrap_err()
    };
    let version = refusal(&|record| record.version = 2);
    assert_eq!(version, DecodeError::UnknownVersion { found: 2 });
    let reversed = Interval {
        from: Position(2),
        until: Position(2),
    };
    for error in [
        refusal(&|record| record.session.0[0] ^= 1),
        refusal(&|record| record.lane.0[0] ^= 1),
        refusal(&|record| record.start = Position::END),
        refusal(&|record| record.kind = SessionKind::Backfill { interval: reversed }),
        refusal(&|record| record.heads.reverse()),
        refusal(&|record| record.heads[0] = record.heads[1]),
        refusal(&|record| record.heads = many_heads(1_025)),
        refusal(&|record| record.wraps.reverse()),
        refusal(&|record| record.wraps[0] = record.wraps[1].clone()),
        refusal(&|record| record.wraps[0].wrapped.truncate(9)),
        refusal(&|record| record.wraps = many_wraps(257)),
    ] {
        assert_eq!(error, DecodeError::OutOfRange);
    }
}

#[test]
fn the_fullest_record_fits_its_own_bound() {
    let anna = Person::new(1);
    let mut record = record(&anna, &[]);
    record.heads = many_heads(1_024);
    record.wraps = many_wraps(256);
    record.kind = SessionKind::Backfill {
        interval: Interval::ALL,
    };
    let signed = sign(&anna.phone.signing, record).unwrap();
    assert!(Unverified::<SessionRecord>::decode(signed.wire()).is_ok());
}

/// fault 4
#[test]
fn a_record_with_any_byte_changed_is_refused() {
    let anna = Person::new(1);
    let signed = sign(&anna.phone.signing, record(&anna, &[&anna])).unwrap();
    let key = anna.phone.signing.verifying_key();
    for flipped in flips(signed.wire()) {
        if let Ok(record) = Unverified::<SessionRecord>::decode(&flipped) {
            let refused = record.verify(&key).map(|_| ());
            assert_eq!(refused, Err(VerifyError::BadSignature));
        }
    }
}

/// fault 18
#[test]
fn debug_shows_no_wrapped_bytes() {
    let anna = Person::new(1);
    let wrap = &record(&anna, &[&anna]).wraps[0];
    assert_eq!(
        format!("{wrap:?}"),
        format!("RootWrap({} of {})", anna.phone.id, anna.user)
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn records_read_back(
        start in 0..Position::END.0,
        backfill in any::<bool>(),
        heads in prop::collection::btree_set(prop::array::uniform32(0_u8..), 0..5),
        open in any::<bool>(),
    ) {
        let anna = Person::new(1);
        let mut record = record(&anna, &[]);
        record.start = Position(start);
        record.heads = heads.into_iter().map(LogHash).collect();
        if backfill {
            record.kind = SessionKind::Backfill {
                interval: Interval { from: Position(start), until: Position::END },
            };
        }
        if open {
            record.open_root = root().expose().to_vec();
        }
        let signed = sign(&anna.phone.signing, record.clone()).unwrap();
        let read = Unverified::<SessionRecord>::decode(signed.wire()).unwrap();
        let read = read.verify(&anna.phone.signing.verifying_key()).unwrap();
        prop_assert_eq!(read.body(), &record);
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(0_u8.., 0..300)) {
        prop_assert!(Unverified::<SessionRecord>::decode(&bytes).is_err());
    }
}

fn root() -> SessionRoot {
    SessionRoot::init_with(|bytes| bytes.fill(8))
}

fn record(author: &Person, holders: &[&Person]) -> SessionRecord {
    let commitment = root().commitment();
    let mut record = SessionRecord {
        version: 1,
        stream: STREAM,
        lane: author.user,
        device: author.phone.id,
        session: SessionId::derive(&STREAM, &author.user, &commitment),
        commitment,
        start: NOW,
        kind: SessionKind::Live,
        heads: vec![LogHash([1; 32]), LogHash([2; 32])],
        open_root: Vec::new(),
        wraps: Vec::new(),
    };
    for (i, holder) in (1..).zip(holders) {
        let context = record.wrap_context(&holder.user, &holder.phone.id);
        let to = holder.phone.unwrap.wrap_key();
        let wrap = wrap_root(&mut Seeded(i * 1_000), &root(), &context, &to).unwrap();
        record.wraps.push(wrap);
    }
    record.wraps.sort();
    record
}

fn many_heads(count: u64) -> Vec<LogHash> {
    let head = |i: u64| {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&i.to_be_bytes());
        LogHash(bytes)
    };
    (0..count).map(head).collect()
}

fn many_wraps(count: u64) -> Vec<RootWrap> {
    let wrap = |i: u64| {
        let mut device = [0; 16];
        device[..8].copy_from_slice(&i.to_be_bytes());
        RootWrap {
            user: UserId([5; 32]),
            device: DeviceId(device),
            wrapped: vec![0; 1_168],
        }
    };
    (0..count).map(wrap).collect()
}
