use proptest::prelude::*;
use sealcast_crypto::{Cover, SessionRoot, WrapKey, cover, delimited};
use sealcast_protocol::{
    Bundle, BundleContext, CoverSpec, DecodeError, Interval, KeyUse, LogHash, OpenBundleError,
    Position, SealBundleError, SessionId, Signable, Unverified, VerifyError, encode, open_bundle,
    seal_bundle, sign, wrap_key_hash,
};

use crate::support::{NOW, Person, STREAM, Seeded, flips};

const YEAR_MS: u64 = 365 * 24 * 3600 * 1000;

#[test]
fn covers_of_several_sessions_open_as_they_were() {
    let (anna, bob) = people();
    let specs = [
        spec(1, 0, 1_000),
        spec(1, 5_000, 5_001),
        spec(2, 7, Position::END.0),
    ];
    let bundle = bundle(&specs);
    let covers = open_bundle(&bundle, &bob.phone.unwrap).unwrap();
    assert_eq!(covers.len(), 3);
    for ((session, cover), spec) in covers.iter().zip(&specs) {
        assert_eq!(*session, spec.session);
        let own = cover_of(spec);
        assert_eq!((cover.from(), cover.until()), (own.from(), own.until()));
        assert_eq!(cover.key_bytes().expose(), own.key_bytes().expose());
    }
    let signed = sign(&anna.phone.signing, bundle).unwrap();
    let key = anna.phone.signing.verifying_key();
    let read = Unverified::<Bundle>::decode(signed.wire()).unwrap();
    assert!(read.verify(&key).is_ok());
}

#[test]
fn another_device_or_key_opens_nothing() {
    let (anna, bob) = people();
    let bundle = bundle(&[spec(1, 0, 1_000)]);
    for key in [&anna.phone.unwrap, &bob.phone.fallback] {
        let refused = open_bundle(&bundle, key).map(|_| ());
        assert_eq!(refused, Err(OpenBundleError::OtherKey));
    }
}

/// fault 1: a cover sealed in one stream, lane or session is no cover of another.
#[test]
fn the_keys_are_bound_to_every_field_of_the_context() {
    let (_, bob) = people();
    let good = bundle(&[spec(1, 0, 1_000)]);
    let changes: [fn(&mut BundleContext); 11] = [
        |c| c.stream.0[0] ^= 1,
        |c| c.lane.0[0] ^= 1,
        |c| c.giver_user.0[0] ^= 1,
        |c| c.giver_device.0[0] ^= 1,
        |c| c.user.0[0] ^= 1,
        |c| c.device.0[0] ^= 1,
        |c| c.key = KeyUse::Fallback { period: 1 },
        |c| c.heads.clear(),
        |c| c.request[0] ^= 1,
        |c| c.covers[0].session.0[0] ^= 1,
        |c| {
            c.covers[0].interval.from.0 += 1_000;
            c.covers[0].interval.until.0 += 1_000;
        },
    ];
    for change in changes {
        let mut bundle = good.clone();
        change(&mut bundle.context);
        let refused = open_bundle(&bundle, &bob.phone.unwrap).map(|_| ());
        let refused = refused.unwrap_err();
        let expected = [
            OpenBundleError::NotAuthentic,
            OpenBundleError::Malformed(DecodeError::OutOfRange),
        ];
        assert!(expected.contains(&refused), "{refused:?}");
    }
    assert!(open_bundle(&good, &bob.phone.unwrap).is_ok());
}

#[test]
fn covers_or_a_key_other_than_the_context_names_are_not_sealed() {
    let (_, bob) = people();
    let specs = [spec(1, 0, 1_000), spec(2, 0, 1_000)];
    let to = bob.phone.unwrap.wrap_key();
    let good = cover_of(&specs[0]);
    let narrow = good.narrow(0, 999).unwrap();
    let seal = |covers: &[&Cover], to: &WrapKey| {
        seal_bundle(&mut Seeded(1), context(&specs), covers, to).map(|_| ())
    };
    assert_eq!(seal(&[&good, &good], &to), Ok(()));
    assert_eq!(seal(&[&good], &to), Err(SealBundleError::Mismatch));
    assert_eq!(seal(&[&good, &narrow], &to), Err(SealBundleError::Mismatch));
    let other = bob.phone.fallback.wrap_key();
    assert_eq!(
        seal(&[&good, &good], &other),
        Err(SealBundleError::Mismatch)
    );
}

#[test]
fn padding_hides_the_number_of_nodes_and_must_be_empty() {
    let (_, bob) = people();
    let lengths = [spec(1, 0, 1), spec(1, 1, 200), spec(1, 0, Position::END.0)]
        .map(|spec| bundle(&[spec]).wrapped.len());
    assert_eq!(lengths, [256 + 1_136, 512 + 1_136, 256 + 1_136]);

    let context = context(&[spec(1, 0, 1)]);
    let info = delimited("sealcast.v1 bundle", &[&encode(&context)]);
    let mut keys = [0; 256];
    keys[..32].fill(7);
    keys[255] = 1;
    let wrapped = bob
        .phone
        .unwrap
        .wrap_key()
        .wrap(&mut Seeded(1), &info, &keys);
    let bundle = Bundle {
        version: 1,
        context,
        wrapped: wrapped.unwrap(),
    };
    let refused = open_bundle(&bundle, &bob.phone.unwrap).map(|_| ());
    assert_eq!(refused, Err(OpenBundleError::Padding));
}

#[test]
fn a_grant_over_any_year_in_one_session_fits_in_four_kibibytes() {
    let anna = Person::new(1);
    // Both ends as uneven as they can be: every level on either side adds a node.
    let middle = 1 << 40;
    let worst = [
        (NOW.0, NOW.0 + YEAR_MS),
        (NOW.0 | 1, (NOW.0 | 1) + YEAR_MS),
        (middle - (1 << 33) + 1, middle - (1 << 33) + 1 + YEAR_MS),
        (middle - (1 << 34) + 1, middle - (1 << 34) + 1 + YEAR_MS),
        (middle - YEAR_MS / 2 - 1, middle + YEAR_MS / 2 - 1),
    ];
    // 68 nodes span at least 2 * (2^34 - 1) positions, which is more than a year.
    let most = worst
        .iter()
        .map(|(from, until)| cover(*from, *until).len())
        .max();
    assert!(most.unwrap() > 40 && most.unwrap() <= 67, "{most:?} nodes");
    for (from, until) in worst {
        let mut bundle = bundle(&[spec(1, from, until)]);
        bundle
            .wrapped
            .resize((67 * 32_usize).next_multiple_of(256) + 1_136, 0);
        let signed_len = encode(&bundle).len() + 1 + 3 + 2 + 64;
        assert!(signed_len <= 4_096, "{signed_len} bytes");
    }
    let signed = sign(
        &anna.phone.signing,
        bundle(&[spec(1, worst[0].0, worst[0].1)]),
    );
    assert!(signed.unwrap().wire().len() <= 4_096);
}

#[test]
fn fields_out_of_range_are_refused() {
    let good = bundle(&[spec(1, 0, 1_000), spec(2, 0, 1_000)]);
    assert_eq!(good.check(), Ok(()));
    let refusal = |change: &dyn Fn(&mut Bundle)| {
        let mut bundle = good.clone();
        change(&mut bundle);
        bundle.check().unwrap_err()
    };
    let version = refusal(&|bundle| bundle.version = 2);
    assert_eq!(version, DecodeError::UnknownVersion { found: 2 });
    for error in [
        refusal(&|bundle| {
            bundle.context.covers.clear();
            bundle.wrapped.truncate(1_136);
        }),
        refusal(&|bundle| bundle.context.covers.reverse()),
        refusal(&|bundle| bundle.context.covers[0] = bundle.context.covers[1]),
        refusal(&|bundle| bundle.context.covers[0].interval.until = Position(0)),
        refusal(&|bundle| bundle.context.covers[0].interval.until = Position(1 << 49)),
        refusal(&|bundle| bundle.context.heads.reverse()),
        refusal(&|bundle| bundle.context.key = KeyUse::OneUse),
        refusal(&|bundle| bundle.wrapped.push(0)),
        refusal(&|bundle| bundle.wrapped.truncate(1_136)),
        refusal(&|bundle| {
            let many = (0..65).map(|i| spec(i, 0, 1)).collect();
            bundle.context.covers = many;
            bundle
                .wrapped
                .resize((65 * 32_usize).next_multiple_of(256) + 1_136, 0);
        }),
    ] {
        assert_eq!(error, DecodeError::OutOfRange);
    }
}

#[test]
fn the_fullest_bundle_fits_its_own_bound() {
    let anna = Person::new(1);
    let specs: Vec<_> = (0..64).map(|i| spec(i, 1, Position::END.0 - 1)).collect();
    let mut bundle = bundle(&specs);
    bundle.context.heads = (0..1_024_u64)
        .map(|i| {
            let mut head = [0; 32];
            head[..8].copy_from_slice(&i.to_be_bytes());
            LogHash(head)
        })
        .collect();
    let signed = sign(&anna.phone.signing, bundle).unwrap();
    assert!(Unverified::<Bundle>::decode(signed.wire()).is_ok());
}

/// fault 4
#[test]
fn a_bundle_with_any_byte_changed_is_refused() {
    let (anna, _) = people();
    let signed = sign(&anna.phone.signing, bundle(&[spec(1, 0, 1_000)])).unwrap();
    let key = anna.phone.signing.verifying_key();
    for flipped in flips(signed.wire()) {
        if let Ok(bundle) = Unverified::<Bundle>::decode(&flipped) {
            let refused = bundle.verify(&key).map(|_| ());
            assert_eq!(refused, Err(VerifyError::BadSignature));
        }
    }
}

/// fault 18
#[test]
fn debug_shows_no_wrapped_bytes() {
    let shown = format!("{:?}", bundle(&[spec(1, 0, 1)]));
    assert!(shown.starts_with("Bundle(BundleContext"), "{shown}");
    assert!(!shown.contains("wrapped"), "{shown}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_covers_read_back_and_open(
        specs in prop::collection::btree_set(any_spec(), 1..6),
        request in prop::array::uniform16(1_u8..),
        period in any::<u32>(),
    ) {
        let (anna, bob) = people();
        let specs: Vec<_> = specs.into_iter().collect();
        let mut context = context(&specs);
        context.request = request;
        context.key = KeyUse::Fallback { period };
        let covers: Vec<_> = specs.iter().map(cover_of).collect();
        let covers: Vec<_> = covers.iter().collect();
        let to = bob.phone.unwrap.wrap_key();
        let bundle = seal_bundle(&mut Seeded(1), context, &covers, &to).unwrap();
        let signed = sign(&anna.phone.signing, bundle.clone()).unwrap();
        let read = Unverified::<Bundle>::decode(signed.wire()).unwrap();
        let read = read.verify(&anna.phone.signing.verifying_key()).unwrap();
        prop_assert_eq!(read.body(), &bundle);
        let opened = open_bundle(read.body(), &bob.phone.unwrap).unwrap();
        for ((session, cover), spec) in opened.iter().zip(&specs) {
            prop_assert_eq!(*session, spec.session);
            let (keys, own) = (cover.key_bytes(), cover_of(spec).key_bytes());
            prop_assert_eq!(keys.expose(), own.expose());
        }
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(0_u8.., 0..300)) {
        prop_assert!(Unverified::<Bundle>::decode(&bytes).is_err());
    }
}

fn any_spec() -> impl Strategy<Value = CoverSpec> {
    (any::<u8>(), 0..Position::END.0, 1..Position::END.0)
        .prop_map(|(session, from, len)| spec(session, from, (from + len).min(Position::END.0)))
}

fn people() -> (Person, Person) {
    (Person::new(1), Person::new(2))
}

fn spec(session: u8, from: u64, until: u64) -> CoverSpec {
    CoverSpec {
        session: SessionId([session; 16]),
        interval: Interval {
            from: Position(from),
            until: Position(until),
        },
    }
}

fn cover_of(spec: &CoverSpec) -> Cover {
    let root = SessionRoot::init_with(|bytes| bytes.fill(8));
    Cover::from_root(&root, spec.interval.from.0, spec.interval.until.0)
}

fn context(specs: &[CoverSpec]) -> BundleContext {
    let (anna, bob) = people();
    BundleContext {
        stream: STREAM,
        lane: anna.user,
        giver_user: anna.user,
        giver_device: anna.phone.id,
        user: bob.user,
        device: bob.phone.id,
        key: KeyUse::LongLived,
        wrap_key_hash: wrap_key_hash(&bob.phone.unwrap.wrap_key()),
        heads: vec![LogHash([1; 32]), LogHash([2; 32])],
        request: [0; 16],
        covers: specs.to_vec(),
    }
}

fn bundle(specs: &[CoverSpec]) -> Bundle {
    let covers: Vec<_> = specs.iter().map(cover_of).collect();
    let covers: Vec<_> = covers.iter().collect();
    let to = people().1.phone.unwrap.wrap_key();
    seal_bundle(&mut Seeded(1), context(specs), &covers, &to).unwrap()
}
