use proptest::prelude::*;
use sealcast_crypto::SigningKey;
use sealcast_protocol::{
    Applied, Card, CardError, CardList, CardRevocation, DEVICES_MAX, DecodeError, DeviceId,
    ListBody, ListEntry, ListFault, ListPin, LogHash, Position, SessionRecord, Signable,
    Unverified, UserId, encode, sign,
};

use crate::support::{Device, NEXT_YEAR, NOW, Person, flips};

#[test]
fn a_list_read_entry_by_entry_is_the_list_that_was_written() {
    let anna = Person::new(1);
    let laptop = Device::new(&anna.user, 50);
    let mut list = CardList::new(anna.user);
    let first = anna.add(&mut list, &anna.phone);
    let second = anna.add(&mut list, &laptop);
    let third = list.append(&anna.root, NOW, revocation(laptop.id)).unwrap();

    let mut read = CardList::new(anna.user);
    assert_eq!(read.apply(first.wire()), Ok(Applied::Added(anna.phone.id)));
    assert_eq!(read.apply(second.wire()), Ok(Applied::Added(laptop.id)));
    assert_eq!(read.apply(second.wire()), Ok(Applied::Known));
    assert_eq!(read.live(NOW).count(), 2);
    assert_eq!(read.apply(third.wire()), Ok(Applied::Revoked(laptop.id)));
    assert_eq!(read.apply(first.wire()), Ok(Applied::Known));
    assert_eq!(read.pin(), list.pin());

    let live: Vec<_> = read.live(NOW).map(|(id, _)| *id).collect();
    assert_eq!(live, [anna.phone.id]);
    assert_eq!(read.device(&laptop.id).unwrap().revoked, Some(NOW));
    let laptop_key = laptop.signing.verifying_key();
    assert_eq!(read.sign_key(&laptop.id), Some(laptop_key));
    assert_eq!(read.sign_key(&DeviceId([0; 16])), None);
}

#[test]
fn an_expired_card_is_not_live_until_it_is_renewed() {
    let anna = Person::new(1);
    let mut list = CardList::new(anna.user);
    anna.add(&mut list, &anna.phone);
    let last = Position(NEXT_YEAR.0 - 1);
    assert_eq!(list.live(last).count(), 1);
    assert_eq!(list.live(NEXT_YEAR).count(), 0);

    let card = Box::new(anna.phone.card(&anna.user, NEXT_YEAR.after(1)));
    list.append(&anna.root, NOW, ListBody::Card(card)).unwrap();
    assert_eq!(list.live(NEXT_YEAR).count(), 1);
    assert_eq!(list.devices().count(), 1);
}

#[test]
fn a_revoked_device_does_not_come_back() {
    let anna = Person::new(1);
    let mut list = CardList::new(anna.user);
    anna.add(&mut list, &anna.phone);
    list.append(&anna.root, NOW, revocation(anna.phone.id))
        .unwrap();
    let before = list.pin();
    let card = Box::new(anna.phone.card(&anna.user, NEXT_YEAR));
    let again = list.append(&anna.root, NOW, ListBody::Card(card));
    assert_eq!(again.map(|_| ()), Err(ListFault::NoSuchDevice));
    let twice = list.append(&anna.root, NOW.after(1), revocation(anna.phone.id));
    assert_eq!(twice.map(|_| ()), Err(ListFault::NoSuchDevice));
    assert_eq!(list.device(&anna.phone.id).unwrap().revoked, Some(NOW));
    assert_eq!(list.pin(), before);
}

#[test]
fn a_second_entry_for_one_place_is_a_fork_wherever_it_is() {
    let anna = Person::new(1);
    let mut list = CardList::new(anna.user);
    anna.add(&mut list, &anna.phone);
    let mut twin = list.clone();
    anna.add(&mut list, &Device::new(&anna.user, 50));
    let other = anna.add(&mut twin, &Device::new(&anna.user, 60));
    let later = anna.add(&mut twin, &Device::new(&anna.user, 70));

    assert_eq!(list.apply(other.wire()), Err(ListFault::Forked { seq: 1 }));
    assert_eq!(list.apply(later.wire()), Err(ListFault::Forked { seq: 1 }));
    assert_eq!(
        list.check_pin(&twin.pin().unwrap()),
        Err(ListFault::Shortened { seq: 2 })
    );
    anna.add(&mut list, &Device::new(&anna.user, 80));
    assert_eq!(
        list.check_pin(&twin.pin().unwrap()),
        Err(ListFault::Forked { seq: 2 })
    );
}

#[test]
fn a_list_shorter_than_it_was_is_noticed() {
    let anna = Person::new(1);
    let mut list = CardList::new(anna.user);
    let empty = list.clone();
    anna.add(&mut list, &anna.phone);
    let short = list.clone();
    anna.add(&mut list, &Device::new(&anna.user, 50));
    let pin = list.pin().unwrap();
    assert_eq!(list.check_pin(&pin), Ok(()));
    assert_eq!(list.check_pin(&short.pin().unwrap()), Ok(()));
    assert_eq!(short.check_pin(&pin), Err(ListFault::Shortened { seq: 1 }));
    assert_eq!(empty.check_pin(&pin), Err(ListFault::Shortened { seq: 1 }));
    let other = ListPin {
        half: [1; 16],
        ..pin
    };
    assert_eq!(list.check_pin(&other), Err(ListFault::Forked { seq: 1 }));
}

#[test]
fn an_entry_out_of_turn_waits_for_those_before_it() {
    let anna = Person::new(1);
    let mut list = CardList::new(anna.user);
    anna.add(&mut list, &anna.phone);
    let second = anna.add(&mut list, &Device::new(&anna.user, 50));
    let mut read = CardList::new(anna.user);
    assert_eq!(
        read.apply(second.wire()),
        Err(ListFault::Gap { expected: 0 })
    );
    assert_eq!(read.pin(), None);
}

#[test]
fn nobody_else_writes_into_a_list() {
    let anna = Person::new(1);
    let mallory = Person::new(2);
    let mut list = CardList::new(mallory.user);
    let entry = mallory.add(&mut list, &mallory.phone);
    let mut annas = CardList::new(anna.user);
    assert_eq!(annas.apply(entry.wire()), Err(ListFault::OtherUser));

    let claimed = ListEntry {
        user: anna.user,
        ..entry.body().clone()
    };
    let forged = sign(&mallory.root, claimed).unwrap();
    assert_eq!(annas.apply(forged.wire()), Err(ListFault::BadSignature));
    let written = annas.append(&mallory.root, NOW, revocation(anna.phone.id));
    assert_eq!(written.map(|_| ()), Err(ListFault::BadSignature));
}

#[test]
fn a_card_that_is_not_sound_is_refused_with_the_reason() {
    let anna = Person::new(1);
    let other = Device::new(&anna.user, 50);
    let fault = |change: &dyn Fn(&mut Card)| {
        let mut card = anna.phone.card(&anna.user, NEXT_YEAR);
        change(&mut card);
        card.verify(&anna.user).map(|_| ()).unwrap_err()
    };
    assert_eq!(fault(&|card| card.device = other.id), CardError::DeviceId);
    assert_eq!(
        fault(&|card| card.possession[0] ^= 1),
        CardError::Possession
    );
    assert_eq!(
        fault(&|card| card.wrap_key.fill(0xff)),
        CardError::InvalidKey
    );
    let swapped = other.unwrap.wrap_key().as_bytes().to_vec();
    assert_eq!(
        fault(&|card| card.wrap_key = swapped.clone()),
        CardError::Possession
    );
    let small_order = |card: &mut Card| {
        card.sign_key = [0; 32];
        card.device = DeviceId::derive(&anna.user, &card.sign_key);
    };
    assert_eq!(fault(&small_order), CardError::InvalidKey);
}

#[test]
fn a_device_cannot_be_claimed_by_a_user_it_did_not_consent_to() {
    let anna = Person::new(1);
    let mallory = Person::new(2);
    let mut card = anna.phone.card(&anna.user, NEXT_YEAR);
    assert_eq!(
        card.verify(&mallory.user).map(|_| ()),
        Err(CardError::DeviceId)
    );
    card.device = DeviceId::derive(&mallory.user, &card.sign_key);
    assert_eq!(
        card.verify(&mallory.user).map(|_| ()),
        Err(CardError::Possession)
    );
}

/// fault 13
#[test]
fn a_live_card_is_never_pushed_out_by_newer_ones() {
    let anna = Person::new(1);
    let mut list = CardList::new(anna.user);
    anna.add(&mut list, &anna.phone);
    let keys = Device::new(&anna.user, 50);
    let wrap_key = keys.unwrap.wrap_key();
    let mut add = |i: usize| {
        let mut seed = [0x77; 32];
        seed[..8].copy_from_slice(&i.to_le_bytes());
        let signing = SigningKey::from_seed(&seed);
        let card = Card::new(&anna.user, &signing, &wrap_key, NEXT_YEAR);
        list.append(&anna.root, NOW, ListBody::Card(Box::new(card)))
            .map(|_| ())
    };
    for i in 1..DEVICES_MAX {
        assert_eq!(add(i), Ok(()));
    }
    assert_eq!(add(DEVICES_MAX), Err(ListFault::Full));
    assert_eq!(list.live(NOW).count(), 1_024);
    assert!(list.device(&anna.phone.id).unwrap().is_live(NOW));

    list.append(&anna.root, NOW, revocation(anna.phone.id))
        .unwrap();
    anna.add(&mut list, &keys);
    assert_eq!(list.live(NOW).count(), 1_024);
}

/// fault 4
#[test]
fn an_entry_with_any_byte_changed_is_refused() {
    let anna = Person::new(1);
    let mut list = CardList::new(anna.user);
    let entry = anna.add(&mut list, &anna.phone);
    for flipped in flips(entry.wire()) {
        let mut read = CardList::new(anna.user);
        let refused = read.apply(&flipped);
        assert!(
            matches!(
                refused,
                Err(ListFault::Malformed(_) | ListFault::OtherUser | ListFault::BadSignature)
            ),
            "{refused:?}"
        );
    }
}

/// fault 5
#[test]
fn a_byte_moved_over_a_border_between_body_and_signature_or_fields_is_refused() {
    let anna = Person::new(1);
    let mut list = CardList::new(anna.user);
    anna.add(&mut list, &anna.phone);
    let mut read = list.clone();
    let entry = list
        .append(&anna.root, NOW.after(7), revocation(anna.phone.id))
        .unwrap();
    let (_, signature) = entry.wire().split_last_chunk::<64>().unwrap();
    let body = encode(entry.body());
    assert_eq!(wire(&body, signature), entry.wire());

    let mut longer = vec![body[body.len() - 1]];
    longer.extend_from_slice(signature);
    let moved = wire(&body[..body.len() - 1], &longer);
    assert_eq!(
        read.apply(&moved),
        Err(ListFault::Malformed(DecodeError::Malformed))
    );

    let mut swapped = entry.body().clone();
    swapped.time = NOW;
    swapped.body = ListBody::Revoke(CardRevocation {
        device: anna.phone.id,
        time: NOW.after(7),
    });
    let moved = wire(&encode(&swapped), signature);
    assert_eq!(read.apply(&moved), Err(ListFault::BadSignature));
    assert_eq!(
        read.apply(entry.wire()),
        Ok(Applied::Revoked(anna.phone.id))
    );
}

/// fault 5: a body whose bytes are the same under another kind's label does not verify.
#[test]
fn the_signature_of_another_kind_of_object_does_not_verify() {
    #[derive(Debug, minicbor::Encode, minicbor::Decode, minicbor::CborLen)]
    #[cbor(transparent)]
    struct Lookalike(#[n(0)] ListEntry);

    impl Signable for Lookalike {
        const LABEL: &'static str = SessionRecord::LABEL;
        const LEN_MAX: usize = ListEntry::LEN_MAX;

        fn check(&self) -> Result<(), DecodeError> {
            self.0.check()
        }
    }

    let anna = Person::new(1);
    let mut list = CardList::new(anna.user);
    let entry = anna.add(&mut list.clone(), &anna.phone).body().clone();
    let forged = sign(&anna.root, Lookalike(entry.clone())).unwrap();
    assert_eq!(list.apply(forged.wire()), Err(ListFault::BadSignature));
    let own = sign(&anna.root, entry).unwrap();
    assert_eq!(list.apply(own.wire()), Ok(Applied::Added(anna.phone.id)));
}

#[test]
fn a_revocation_proves_itself_away_from_its_list() {
    let anna = Person::new(1);
    let mut list = CardList::new(anna.user);
    let card = anna.add(&mut list, &anna.phone);
    let out = list
        .append(&anna.root, NOW, revocation(anna.phone.id))
        .unwrap();
    let proof = CardRevocation::from_proof(&anna.user, out.wire());
    assert_eq!(proof.map(|r| r.device), Ok(anna.phone.id));

    assert!(CardRevocation::from_proof(&anna.user, card.wire()).is_err());
    let other = Person::new(2);
    assert_eq!(
        CardRevocation::from_proof(&other.user, out.wire()),
        Err(ListFault::BadSignature)
    );
    assert!(CardRevocation::from_proof(&UserId([0; 32]), out.wire()).is_err());
    let for_other = ListEntry {
        user: other.user,
        ..out.body().clone()
    };
    let for_other = sign(&anna.root, for_other).unwrap();
    assert_eq!(
        CardRevocation::from_proof(&anna.user, for_other.wire()),
        Err(ListFault::OtherUser)
    );
}

#[test]
fn fields_out_of_range_are_refused() {
    let anna = Person::new(1);
    let mut list = CardList::new(anna.user);
    let good = anna.add(&mut list, &anna.phone).body().clone();
    let refusal = |change: &dyn Fn(&mut ListEntry)| {
        let mut entry = good.clone();
        change(&mut entry);
        entry.check().unwrap_err()
    };
    let version = refusal(&|entry| entry.version = 2);
    assert_eq!(version, DecodeError::UnknownVersion { found: 2 });
    for error in [
        refusal(&|entry| entry.seq = 1),
        refusal(&|entry| entry.prev = LogHash([1; 32])),
        refusal(&|entry| entry.time = Position::END),
        refusal(&|entry| with_card(entry, |card| card.expires = Position(Position::END.0 + 1))),
        refusal(&|entry| with_card(entry, |card| card.wrap_key.push(0))),
        refusal(&|entry| with_card(entry, |card| card.wrap_key.truncate(9))),
    ] {
        assert_eq!(error, DecodeError::OutOfRange);
    }
}

#[test]
fn an_entry_with_a_card_stays_below_one_and_a_half_kibibytes() {
    let anna = Person::new(1);
    let entry = anna.add(&mut CardList::new(anna.user), &anna.phone);
    assert!(entry.wire().len() < 1_536, "{}", entry.wire().len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn entries_read_back(
        seq in 1_u32..,
        prev in prop::array::uniform32(1_u8..),
        time in 0..Position::END.0,
        is_card in any::<bool>(),
        other in 0..Position::END.0,
    ) {
        let anna = Person::new(1);
        let body = match is_card {
            true => ListBody::Card(Box::new(anna.phone.card(&anna.user, Position(other)))),
            false => ListBody::Revoke(CardRevocation {
                device: anna.phone.id,
                time: Position(other),
            }),
        };
        let entry = ListEntry {
            version: 1,
            user: anna.user,
            seq,
            prev: LogHash(prev),
            time: Position(time),
            body,
        };
        let signed = sign(&anna.root, entry.clone()).unwrap();
        let read = Unverified::<ListEntry>::decode(signed.wire()).unwrap();
        let read = read.verify(&anna.root.verifying_key()).unwrap();
        prop_assert_eq!(read.body(), &entry);
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(0_u8.., 0..300)) {
        let mut list = CardList::new(UserId([7; 32]));
        prop_assert!(list.apply(&bytes).is_err());
    }
}

/// The signed wrapper, as another program may write it.
fn wire(body: &[u8], signature: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    let mut encoder = minicbor::Encoder::new(&mut wire);
    encoder
        .array(2)
        .unwrap()
        .bytes(body)
        .unwrap()
        .bytes(signature)
        .unwrap();
    wire
}

fn revocation(device: DeviceId) -> ListBody {
    ListBody::Revoke(CardRevocation { device, time: NOW })
}

fn with_card(entry: &mut ListEntry, change: impl Fn(&mut Card)) {
    match &mut entry.body {
        ListBody::Card(card) => change(card),
        ListBody::Revoke(_) | ListBody::Checkpoint(_) => panic!("the entry is a card"),
    }
}
