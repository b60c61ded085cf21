//! Fallback keys.

use sealcast_protocol::{DecodeError, FALLBACK_PERIOD_MS, FallbackKey, Position, Signable};

use crate::support::{NOW, Person, flips};

fn named(of: &Person, period: u32) -> Vec<u8> {
    let key = of.phone.fallback.wrap_key();
    let signed = FallbackKey::sign(&of.user, &of.phone.signing, &key, period);
    signed.unwrap().wire().to_vec()
}

fn read(of: &Person, bytes: &[u8]) -> Option<u32> {
    let key = of.phone.signing.verifying_key();
    FallbackKey::read(&of.user, &key, bytes).map(|(period, _)| period)
}

#[test]
fn a_week_is_a_period() {
    assert_eq!(FallbackKey::period_at(Position(0)), 0);
    assert_eq!(FallbackKey::period_at(Position(604_799_999)), 0);
    assert_eq!(FallbackKey::period_at(Position(604_800_000)), 1);
}

#[test]
fn a_key_serves_in_its_own_week_and_the_next() {
    let at = |week: u64| Position(week * FALLBACK_PERIOD_MS);
    let current: Vec<_> = (0..6)
        .filter(|w| FallbackKey::is_current(2, at(*w)))
        .collect();
    assert_eq!(current, [2, 3]);
    assert!(FallbackKey::is_current(2, Position(at(4).0 - 1)));
}

#[test]
fn a_device_names_its_fallback_key_and_nobody_else_does() {
    let (anna, mallory) = (Person::new(1), Person::new(2));
    assert_eq!(read(&anna, &named(&anna, 7)), Some(7));
    assert_eq!(read(&anna, &named(&mallory, 7)), None);
    let other_user = FallbackKey::sign(
        &mallory.user,
        &anna.phone.signing,
        &anna.phone.fallback.wrap_key(),
        7,
    );
    assert_eq!(read(&anna, other_user.unwrap().wire()), None);
    for flipped in flips(&named(&anna, 7)) {
        assert_eq!(read(&anna, &flipped), None);
    }
}

#[test]
fn the_newest_key_that_has_begun_is_taken_whatever_lies_beside_it() {
    let (anna, mallory) = (Person::new(1), Person::new(2));
    let now = FallbackKey::period_at(NOW);
    let items = [
        named(&anna, now - 1),
        named(&anna, now + 1),
        named(&anna, now),
        named(&mallory, now),
        b"anything".to_vec(),
    ];
    let items = items.iter().map(Vec::as_slice);
    let key = anna.phone.signing.verifying_key();
    let newest = FallbackKey::newest(&anna.user, &key, items, NOW);
    assert_eq!(newest, Some((now, anna.phone.fallback.wrap_key())));
}

#[test]
fn a_key_of_another_length_or_version_is_refused() {
    let anna = Person::new(1);
    let key = anna.phone.fallback.wrap_key();
    let good = FallbackKey::sign(&anna.user, &anna.phone.signing, &key, 7).unwrap();
    let mut short = good.body().clone();
    short.wrap_key.pop();
    assert_eq!(short.check(), Err(DecodeError::OutOfRange));
    let newer = FallbackKey {
        version: 2,
        ..good.body().clone()
    };
    assert_eq!(newer.check(), Err(DecodeError::UnknownVersion { found: 2 }));
}
