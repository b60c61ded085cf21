//! Checkpoints of device lists.

use sealcast_crypto::SigningKey;
use sealcast_protocol::{
    Applied, Card, CardList, CardRevocation, Checkpoint, CheckpointStanding, DEVICES_MAX, ListBody,
    ListEntry, ListFault, LogHash, Position, Signable, Verified, sign,
};

use crate::support::{Device, NEXT_YEAR, NOW, Person};

/// A list with a live, an expired and a revoked device, and the entries that made it so.
fn grown(anna: &Person) -> (CardList, Vec<Verified<ListEntry>>) {
    let mut list = CardList::new(anna.user);
    let (old, lost) = (Device::new(&anna.user, 50), Device::new(&anna.user, 60));
    let expired = Box::new(old.card(&anna.user, NOW));
    let mut entries = vec![anna.add(&mut list, &anna.phone), anna.add(&mut list, &lost)];
    entries.push(write(anna, &mut list, ListBody::Card(expired)));
    entries.push(write(anna, &mut list, out(&lost)));
    (list, entries)
}

fn write(anna: &Person, list: &mut CardList, body: ListBody) -> Verified<ListEntry> {
    list.append(&anna.root, NOW, body).unwrap()
}

fn check(anna: &Person, list: &mut CardList) -> Verified<ListEntry> {
    let body = list.checkpoint();
    write(anna, list, body)
}

fn out(device: &Device) -> ListBody {
    ListBody::Revoke(CardRevocation {
        device: device.id,
        time: NOW.after(7),
    })
}

fn read(anna: &Person, entries: &[Verified<ListEntry>]) -> Result<CardList, ListFault> {
    let mut list = CardList::new(anna.user);
    for entry in entries {
        list.apply(entry.wire())?;
    }
    Ok(list)
}

fn shown(list: &CardList) -> String {
    format!("{:?} {:?}", list.pin(), list.devices().collect::<Vec<_>>())
}

/// Every signing key is kept with its validity, so that what was signed stays verifiable.
#[test]
fn a_reader_who_starts_at_a_checkpoint_knows_what_one_knows_who_read_everything() {
    let anna = Person::new(1);
    let (mut list, mut entries) = grown(&anna);
    let lost = Device::new(&anna.user, 60);
    assert_eq!(list.since_checkpoint(), 4);
    entries.push(check(&anna, &mut list));
    assert_eq!(list.since_checkpoint(), 0);
    let all = read(&anna, &entries).unwrap();
    let mut late = read(&anna, &entries[4..]).unwrap();
    assert_eq!(shown(&all), shown(&list));
    assert_eq!(shown(&late), shown(&list));
    assert_eq!(late.sign_key(&lost.id), Some(lost.signing.verifying_key()));
    let of_lost = late.device(&lost.id).unwrap();
    assert_eq!(
        (of_lost.expires, of_lost.revoked, &of_lost.wrap_key),
        (NEXT_YEAR, Some(NOW.after(7)), &None)
    );
    let next = anna.add(&mut list, &Device::new(&anna.user, 70));
    late.apply(next.wire()).unwrap();
    assert_eq!(shown(&late), shown(&list));
    assert_eq!(late.since_checkpoint(), 1);
}

#[test]
fn a_device_that_a_checkpoint_calls_revoked_does_not_come_back() {
    let anna = Person::new(1);
    let (mut list, _) = grown(&anna);
    let entry = check(&anna, &mut list);
    let mut late = read(&anna, &[entry]).unwrap();
    let lost = Device::new(&anna.user, 60);
    let card = ListBody::Card(Box::new(lost.card(&anna.user, NEXT_YEAR)));
    let back = late.append(&anna.root, NOW, card).map(|_| ());
    assert_eq!(back, Err(ListFault::NoSuchDevice));
    let twice = late.append(&anna.root, NOW, out(&lost)).map(|_| ());
    assert_eq!(twice, Err(ListFault::NoSuchDevice));
}

#[test]
fn an_expired_device_is_renewed_behind_a_checkpoint() {
    let anna = Person::new(1);
    let (mut list, _) = grown(&anna);
    let entry = check(&anna, &mut list);
    let mut late = read(&anna, &[entry]).unwrap();
    let old = Device::new(&anna.user, 50);
    assert!(!late.device(&old.id).unwrap().is_live(NOW));
    let card = ListBody::Card(Box::new(old.card(&anna.user, NEXT_YEAR)));
    late.append(&anna.root, NOW, card).unwrap();
    assert!(late.device(&old.id).unwrap().is_live(NOW));
}

#[test]
fn a_pin_from_before_a_checkpoint_holds_and_that_of_another_list_does_not() {
    let anna = Person::new(1);
    let (mut list, entries) = grown(&anna);
    let pin = read(&anna, &entries[..2]).unwrap().pin().unwrap();
    let mut twin = read(&anna, &entries[..1]).unwrap();
    anna.add(&mut twin, &Device::new(&anna.user, 80));
    let entry = check(&anna, &mut list);
    let late = read(&anna, &[entry]).unwrap();
    assert_eq!(late.check_pin(&pin), Ok(()));
    let forked = late.check_pin(&twin.pin().unwrap());
    assert_eq!(forked, Err(ListFault::Forked { seq: 1 }));
}

/// Who knows the beginning follows a checkpoint over what is not shown any more, and only one that
/// follows from the beginning.
#[test]
fn a_checkpoint_is_followed_over_a_gap_unless_it_forks_or_takes_something_back() {
    let anna = Person::new(1);
    let (mut list, entries) = grown(&anna);
    let entry = check(&anna, &mut list);
    let mut early = read(&anna, &entries[..2]).unwrap();
    assert_eq!(early.apply(entry.wire()), Ok(Applied::Checkpoint));
    assert_eq!(shown(&early), shown(&list));

    let mut twin = read(&anna, &entries[..1]).unwrap();
    anna.add(&mut twin, &Device::new(&anna.user, 80));
    let before = shown(&twin);
    assert_eq!(twin.apply(entry.wire()), Err(ListFault::Forked { seq: 1 }));
    assert_eq!(shown(&twin), before);

    let mut ahead = read(&anna, &entries).unwrap();
    anna.add(&mut ahead, &Device::new(&anna.user, 80));
    assert_eq!(ahead.apply(entry.wire()), Err(ListFault::Forked { seq: 4 }));
}

/// fault 13: neither a live card nor a revocation is lost in a checkpoint, whoever wrote it.
#[test]
fn a_checkpoint_that_says_other_than_the_entries_before_it_is_refused() {
    let anna = Person::new(1);
    let (list, entries) = grown(&anna);
    type Change = fn(&mut Checkpoint);
    let changes: [Change; 5] = [
        |of| drop(of.devices.pop()),
        |of| of.devices.iter_mut().for_each(|of| of.added = Position(5)),
        |of| {
            let mut standing = of.devices.iter_mut();
            let card = standing.find_map(|of| match &mut of.standing {
                CheckpointStanding::Stands(card) => Some(card),
                CheckpointStanding::Revoked(_) => None,
            });
            card.unwrap().expires = NEXT_YEAR.after(1);
        },
        |of| {
            let mut standing = of.devices.iter_mut();
            let out = standing.find_map(|of| match &mut of.standing {
                CheckpointStanding::Stands(_) => None,
                CheckpointStanding::Revoked(out) => Some(out),
            });
            out.unwrap().revoked = NOW.after(8);
        },
        |of| {
            let anna = Person::new(1);
            let lost = Device::new(&anna.user, 60);
            let back = Box::new(lost.card(&anna.user, NEXT_YEAR));
            let mut all = of.devices.iter_mut();
            let of_lost = all.find(|of| of.device == lost.id).unwrap();
            of_lost.standing = CheckpointStanding::Stands(back);
        },
    ];
    for (at, change) in changes.into_iter().enumerate() {
        let mut body = list.checkpoint();
        let ListBody::Checkpoint(checkpoint) = &mut body else {
            panic!("a checkpoint");
        };
        change(checkpoint);
        let entry = ListEntry {
            version: 1,
            user: anna.user,
            seq: 4,
            prev: list.head(),
            time: NOW,
            body,
        };
        let entry = sign(&anna.root, entry).unwrap();
        // Who missed the last entry can only see that nothing known is taken back.
        for (known, is_seen) in [(4, true), (3, [true, true, false, false, false][at])] {
            let mut reader = read(&anna, &entries[..known]).unwrap();
            let taken = reader.apply(entry.wire());
            let refused = Err(ListFault::Contradicted { seq: 4 });
            assert_eq!(taken == refused, is_seen, "{at} {known} {taken:?}");
        }
    }
}

#[test]
fn a_checkpoint_whose_numbers_do_not_fit_is_out_of_range() {
    let anna = Person::new(1);
    let (mut list, _) = grown(&anna);
    let good = check(&anna, &mut list).body().clone();
    assert_eq!(good.check(), Ok(()));
    let changes: [fn(&mut Checkpoint); 5] = [
        |of| of.entries.truncate(48),
        |of| of.entries.push(0),
        |of| of.devices.reverse(),
        |of| of.devices[0].added = Position::END,
        |of| {
            let next = of.devices[1].device;
            of.devices[0].device = next;
        },
    ];
    for change in changes {
        let mut entry = good.clone();
        let ListBody::Checkpoint(checkpoint) = &mut entry.body else {
            panic!("a checkpoint");
        };
        change(checkpoint);
        assert!(entry.check().is_err());
    }
    let first = ListEntry {
        seq: 0,
        prev: LogHash([0; 32]),
        ..good.clone()
    };
    assert!(first.check().is_err());
    let mut other = good;
    other.prev = LogHash([9; 32]);
    let other = sign(&anna.root, other).unwrap();
    let refused = read(&anna, &[other]).map(|_| ());
    assert_eq!(refused, Err(ListFault::Contradicted { seq: 4 }));
}

#[test]
fn a_card_in_a_checkpoint_is_sound_or_the_checkpoint_is_refused() {
    let anna = Person::new(1);
    let mut list = CardList::new(anna.user);
    anna.add(&mut list, &anna.phone);
    let mut body = list.checkpoint();
    let ListBody::Checkpoint(checkpoint) = &mut body else {
        panic!("a checkpoint");
    };
    let CheckpointStanding::Stands(card) = &mut checkpoint.devices[0].standing else {
        panic!("it stands");
    };
    card.possession[0] ^= 1;
    let entry = ListEntry {
        version: 1,
        user: anna.user,
        seq: 1,
        prev: list.head(),
        time: NOW,
        body,
    };
    let entry = sign(&anna.root, entry).unwrap();
    let refused = read(&anna, &[entry]).map(|_| ());
    assert!(matches!(refused, Err(ListFault::Card(_))), "{refused:?}");
}

/// fault 13
#[test]
fn a_full_list_fits_into_a_checkpoint() {
    let anna = Person::new(1);
    let mut list = CardList::new(anna.user);
    let wrap_key = anna.phone.unwrap.wrap_key();
    for i in 0..DEVICES_MAX {
        let mut seed = [0x77; 32];
        seed[..8].copy_from_slice(&i.to_le_bytes());
        let signing = SigningKey::from_seed(&seed);
        let card = Card::new(&anna.user, &signing, &wrap_key, NEXT_YEAR);
        write(&anna, &mut list, ListBody::Card(Box::new(card)));
    }
    let entry = check(&anna, &mut list);
    let late = read(&anna, &[entry]).unwrap();
    assert_eq!(late.live(NOW).count(), DEVICES_MAX);
}

/// Who missed entries before a checkpoint still knows what was revoked earlier.
#[test]
fn a_checkpoint_over_a_gap_takes_back_nothing_that_is_known() {
    let anna = Person::new(1);
    let (mut list, entries) = grown(&anna);
    anna.add(&mut list, &Device::new(&anna.user, 70));
    let lost = Device::new(&anna.user, 60);
    type Change = fn(&mut Checkpoint);
    let back: Change = |of| {
        let anna = Person::new(1);
        let lost = Device::new(&anna.user, 60);
        let mut all = of.devices.iter_mut();
        let of_lost = all.find(|of| of.device == lost.id).unwrap();
        let card = Box::new(lost.card(&anna.user, NEXT_YEAR));
        of_lost.standing = CheckpointStanding::Stands(card);
    };
    let gone: Change = |of| {
        let anna = Person::new(1);
        of.devices.retain(|of| of.device != anna.phone.id);
    };
    let honest: Change = |_| ();
    for (change, is_taken) in [(back, false), (gone, false), (honest, true)] {
        let mut body = list.checkpoint();
        let ListBody::Checkpoint(checkpoint) = &mut body else {
            panic!("a checkpoint");
        };
        change(checkpoint);
        let entry = ListEntry {
            version: 1,
            user: anna.user,
            seq: 5,
            prev: list.head(),
            time: NOW,
            body,
        };
        let entry = sign(&anna.root, entry).unwrap();
        let mut reader = read(&anna, &entries).unwrap();
        let taken = reader.apply(entry.wire());
        match is_taken {
            true => assert_eq!(taken, Ok(Applied::Checkpoint)),
            false => assert_eq!(taken, Err(ListFault::Contradicted { seq: 5 })),
        }
        assert!(reader.device(&lost.id).unwrap().revoked.is_some());
    }
}
