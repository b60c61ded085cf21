//! Device lists (`spec/devices.md`).

use sealcast_crypto::{SigningKey, VerifyingKey};
use sealcast_protocol::{
    Card, CardList, CardRevocation, Checkpoint, CheckpointStanding, DeviceId, FallbackKey,
    ListBody, ListEntry, LogHash, Position, Signable, UserId, encode, sign, wrap_key_hash,
};

use super::case::{Case, hex};
use super::cast::{Device, NOW, Person, anna, ben, device};
use super::raw;

const LABEL: &str = ListEntry::LABEL;

pub(super) fn cases() -> anyhow::Result<Vec<Case>> {
    Ok([
        good()?,
        encodings()?,
        ranges()?,
        order()?,
        cards()?,
        checkpoints()?,
        pins()?,
        proofs()?,
        fallbacks()?,
    ]
    .concat())
}

/// A list that is being written.
struct List {
    person: Person,
    list: CardList,
    wires: Vec<Vec<u8>>,
}

impl List {
    fn new() -> Self {
        let person = anna();
        let list = CardList::new(person.user);
        Self {
            person,
            list,
            wires: Vec::new(),
        }
    }

    /// With the card of the first device.
    fn started() -> anyhow::Result<Self> {
        let mut list = Self::new();
        list.add(card(&list.person.device, &list.person.user))?;
        Ok(list)
    }

    fn add(&mut self, body: ListBody) -> anyhow::Result<()> {
        let entry = self.list.append(&self.person.root, NOW, body)?;
        self.wires.push(entry.wire().to_vec());
        Ok(())
    }

    /// The entry that would come next, not signed yet.
    fn next(&self, body: ListBody) -> ListEntry {
        ListEntry {
            version: 1,
            user: self.person.user,
            seq: self.list.next_seq(),
            prev: self.list.head(),
            time: NOW,
            body,
        }
    }

    /// The list with one more entry, signed by its root key whatever it says.
    fn with(&self, entry: &ListEntry) -> Vec<Vec<u8>> {
        self.with_wire(raw::signed(&self.person.root, LABEL, &encode(entry)))
    }

    fn with_wire(&self, wire: Vec<u8>) -> Vec<Vec<u8>> {
        let mut wires = self.wires.clone();
        wires.push(wire);
        wires
    }

    fn id(&self) -> DeviceId {
        self.person.device.id
    }
}

fn card(device: &Device, user: &UserId) -> ListBody {
    ListBody::Card(Box::new(device.card(user)))
}

fn revocation(device: DeviceId) -> ListBody {
    ListBody::Revoke(CardRevocation { device, time: NOW })
}

fn tablet() -> Device {
    device(&anna().user, 0x12)
}

fn given(name: &str, about: &str, wires: &[Vec<u8>]) -> Case {
    Case::new("device-list", name, about)
        .hex("user", anna().user.0)
        .each(wires, |case, wire| case.hex("entry", wire))
}

/// Adds the state of the list at `now`.
fn read(case: Case, list: &CardList, now: Position) -> Case {
    let head = list.head().0;
    let state = |state: &sealcast_protocol::DeviceState| match state.revoked {
        Some(_) => "revoked",
        None if state.is_live(now) => "live",
        None => "expired",
    };
    case.with("now", now.0)
        .ok()
        .hex("head", head)
        .each(list.devices(), |case, (id, of)| {
            let key = hex(of.sign_key.as_bytes());
            case.with("device", format!("{id} {} {key}", state(of)))
        })
}

fn good() -> anyhow::Result<Vec<Case>> {
    let user = anna().user;
    let one = List::started()?;
    let mut renewed = List::started()?;
    let mut newer = one.person.device.card(&user);
    newer.expires = newer.expires.after(1_000);
    renewed.add(ListBody::Card(Box::new(newer)))?;
    let mut revoked = List::started()?;
    revoked.add(revocation(revoked.id()))?;
    let mut two = List::started()?;
    two.add(card(&tablet(), &user))?;
    let mut lost = List::started()?;
    lost.add(card(&tablet(), &user))?;
    lost.add(revocation(lost.id()))?;
    let again = one.with_wire(one.wires[0].clone());
    let expires = NOW.after(sealcast_protocol::CARD_LIFETIME_MS);
    let last = Position(expires.0 - 1);
    #[rustfmt::skip]
    let rows = [
        ("card", "the example of the page", &one, &one.wires, NOW),
        ("last-day", "the last position of the card", &one, &one.wires, last),
        ("expired", "the first position behind the card", &one, &one.wires, expires),
        ("renewed", "a second card of the same device, at the first one's end", &renewed, &renewed.wires, expires),
        ("revoked", "a card, then its revocation", &revoked, &revoked.wires, NOW),
        ("two-devices", "a second device", &two, &two.wires, NOW),
        ("one-of-two-revoked", "the first device is revoked", &lost, &lost.wires, NOW),
        ("entry-again", "an entry comes twice", &one, &again, NOW),
    ];
    let case = |(name, about, list, wires, now): (_, _, &List, &Vec<_>, _)| {
        read(given(name, about, wires), &list.list, now)
    };
    Ok(rows.into_iter().map(case).collect())
}

/// The entry that most faults are shown with: short, and good.
fn encodings() -> anyhow::Result<Vec<Case>> {
    let list = List::started()?;
    let body = encode(&list.next(revocation(list.id())));
    let faults = raw::faults(
        &list.person.root,
        &ben().root,
        LABEL,
        "sealcast.v1 session record",
        &body,
    );
    let faults = faults.into_iter().map(|fault| {
        given(fault.name, fault.about, &list.with_wire(fault.wire)).fails(fault.failure)
    });
    Ok(faults.collect())
}

fn ranges() -> anyhow::Result<Vec<Case>> {
    let list = List::started()?;
    let end = Position::END;
    type Change = (&'static str, &'static str, fn(&mut ListEntry));
    #[rustfmt::skip]
    let changes: [Change; 4] = [
        ("time-out-of-range", "the time is 2^48", |entry| entry.time = Position::END),
        ("first-with-prev", "seq 0 and an entry before", |entry| entry.seq = 0),
        ("second-without-prev", "seq 1 and no entry before", |entry| entry.prev = LogHash([0; 32])),
        ("revoked-out-of-range", "revoked from 2^48", |entry| {
            if let ListBody::Revoke(revocation) = &mut entry.body {
                revocation.time = Position::END;
            }
        }),
    ];
    let mut cases = Vec::new();
    for (name, about, change) in changes {
        let mut entry = list.next(revocation(list.id()));
        change(&mut entry);
        cases.push(given(name, about, &list.with(&entry)).fails("out of range"));
    }
    let with = |change: &dyn Fn(&mut Card)| {
        let mut card = tablet().card(&list.person.user);
        change(&mut card);
        list.with(&list.next(ListBody::Card(Box::new(card))))
    };
    let expires = with(&|card| card.expires = Position(end.0 + 1));
    let short = with(&|card| card.wrap_key.truncate(1_215));
    cases
        .push(given("expires-out-of-range", "expires at 2^48 + 1", &expires).fails("out of range"));
    cases.push(
        given("wrap-key-short", "a wrapping key of 1,215 bytes", &short).fails("out of range"),
    );
    Ok(cases)
}

/// Entries that do not follow.
fn order() -> anyhow::Result<Vec<Case>> {
    let (user, one) = (anna().user, List::started()?);
    let mut two = List::started()?;
    two.add(card(&tablet(), &user))?;
    let mut revoked = List::started()?;
    revoked.add(revocation(revoked.id()))?;
    let renewal = ListBody::Card(Box::new(one.person.device.card(&user)));

    let mut other_prev = one.next(renewal.clone());
    other_prev.prev = LogHash([9; 32]);
    let twin = {
        let mut twin = two.next(revocation(one.id()));
        (twin.seq, twin.prev) = (1, one.next(renewal.clone()).prev);
        twin
    };
    let mut other_first = List::new().next(card(&tablet(), &user));
    other_first.time = NOW.after(1);
    let mut ahead = one.next(revocation(one.id()));
    ahead.seq = 2;
    let foreign = sign(
        &ben().root,
        ListEntry {
            user: ben().user,
            ..one.next(renewal.clone())
        },
    )?;
    let small = small_order_user();
    #[rustfmt::skip]
    let rows = [
        ("forked-at-the-end", "two entries with seq 1", two.with(&twin), "fork"),
        ("forked-at-the-start", "two entries with seq 0", one.with(&other_first), "fork"),
        ("forked-before", "prev is another entry's", one.with(&other_prev), "fork"),
        ("gap", "seq 2 after seq 0", one.with(&ahead), "gap"),
        ("starts-late", "the first entry is missing", vec![two.wires[1].clone()], "gap"),
        ("another-user", "an entry of another user's list", one.with_wire(foreign.wire().to_vec()), "another user"),
        ("revoked-twice", "a revoked device is revoked again", revoked.with(&revoked.next(revocation(one.id()))), "no such device"),
        ("revoked-unknown", "a device that is not in the list is revoked", one.with(&one.next(revocation(tablet().id))), "no such device"),
        ("comes-back", "a revoked device comes back", revoked.with(&revoked.next(renewal)), "no such device"),
    ];
    let mut cases: Vec<Case> = rows
        .into_iter()
        .map(|(name, about, wires, failure)| given(name, about, &wires).fails(failure))
        .collect();
    let wire = raw::signed(
        &anna().root,
        LABEL,
        &encode(&ListEntry {
            user: small,
            ..List::new().next(revocation(one.id()))
        }),
    );
    cases.push(
        Case::new(
            "device-list",
            "user-of-small-order",
            "the user id is no key",
        )
        .hex("user", small.0)
        .hex("entry", wire)
        .fails("signature"),
    );
    Ok(cases)
}

fn small_order_user() -> UserId {
    UserId(super::points::number(1))
}

/// Cards that are not sound.
fn cards() -> anyhow::Result<Vec<Case>> {
    let (list, user) = (List::new(), anna().user);
    let mine = &list.person.device;
    let good = mine.card(&user);
    let of = |change: &dyn Fn(&mut Card)| {
        let mut card = good.clone();
        change(&mut card);
        list.with(&list.next(ListBody::Card(Box::new(card))))
    };
    let stranger = ben().device.card(&ben().user);
    let odd = super::points::number(1);
    #[rustfmt::skip]
    let rows = [
        ("card-device-id", "the device id differs", of(&|card| card.device.0[0] ^= 1), "card id"),
        ("card-of-another-user", "a sound card of another user's device", of(&|card| *card = stranger.clone()), "card id"),
        ("card-possession-altered", "a bit of the proof of possession is flipped", of(&|card| card.possession[0] ^= 1), "possession"),
        ("card-possession-of-another-key", "the proof is over another wrapping key", of(&|card| card.wrap_key.clone_from(&tablet().card(&user).wrap_key)), "possession"),
        ("card-wrap-key-odd", "the X25519 half of the wrapping key is 1", of(&|card| card.wrap_key[1_184..].copy_from_slice(&odd)), "card key"),
        ("card-sign-key-odd", "the signing key is a point of small order", of(&|card| {
            card.sign_key = odd;
            card.device = DeviceId::derive(&user, &odd);
        }), "card key"),
    ];
    let rows = rows.into_iter();
    Ok(rows
        .map(|(name, about, wires, failure)| given(name, about, &wires).fails(failure))
        .collect())
}

/// The list of the checkpoint cases: two devices, the first of which is revoked.
fn compacted() -> anyhow::Result<List> {
    let mut list = List::started()?;
    list.add(card(&tablet(), &list.person.user))?;
    list.add(revocation(list.id()))?;
    Ok(list)
}

fn checkpoints() -> anyhow::Result<Vec<Case>> {
    let user = anna().user;
    let before = compacted()?;
    let mut whole = compacted()?;
    whole.add(whole.list.checkpoint())?;
    let mut grown = compacted()?;
    grown.add(grown.list.checkpoint())?;
    grown.add(card(&device(&user, 0x14), &user))?;
    let last = &whole.wires[3..];
    let over_a_gap = [&whole.wires[..1], last].concat();
    #[rustfmt::skip]
    let good = [
        ("checkpoint", "a checkpoint behind all that it replaces", &whole, whole.wires.clone()),
        ("checkpoint-first", "the list begins with a checkpoint", &whole, last.to_vec()),
        ("checkpoint-over-a-gap", "entries between are not shown", &whole, over_a_gap),
        ("checkpoint-goes-on", "a card behind a checkpoint that came first", &grown, grown.wires[3..].to_vec()),
        ("checkpoint-and-before", "an entry that it replaces comes behind it", &whole, vec![last[0].clone(), before.wires[0].clone()]),
    ];
    let mut cases: Vec<_> = good
        .into_iter()
        .map(|(name, about, list, wires)| read(given(name, about, &wires), &list.list, NOW))
        .collect();
    let forked = given(
        "checkpoint-pin-forked",
        "the pin names another entry before",
        last,
    )
    .with("pin", format!("1 {}", hex(&[9; 16])));
    cases.push(forked.fails("fork"));
    cases.extend(false_checkpoints(&before, last)?);
    Ok(cases)
}

/// Checkpoints that are refused; `last` is the one that is not.
fn false_checkpoints(before: &List, last: &[Vec<u8>]) -> anyhow::Result<Vec<Case>> {
    let user = anna().user;
    let with = |change: &dyn Fn(&mut ListEntry, &mut Checkpoint)| {
        let mut entry = before.next(before.list.checkpoint());
        let mut body = match &entry.body {
            ListBody::Checkpoint(checkpoint) => checkpoint.clone(),
            ListBody::Card(_) | ListBody::Revoke(_) => unreachable!("a checkpoint was made"),
        };
        change(&mut entry, &mut body);
        entry.body = ListBody::Checkpoint(body);
        before.with(&entry)
    };
    let back = card(&anna().device, &user);
    let mut twin = List::started()?;
    twin.add(card(&device(&user, 0x14), &user))?;
    let odd = super::points::number(1);
    #[rustfmt::skip]
    let faults = [
        ("checkpoint-entries-missing", "one half digest too few", with(&|_, of| of.entries.truncate(32)), "out of range"),
        ("checkpoint-unsorted", "the devices are not ascending", with(&|_, of| of.devices.reverse()), "out of range"),
        ("checkpoint-drops-a-device", "a live device is left out", with(&|_, of| of.devices.retain(|of| matches!(of.standing, CheckpointStanding::Revoked(_)))), "contradicted"),
        ("checkpoint-brings-back", "a revoked device stands again", with(&|_, of| for of in &mut of.devices {
            if let (CheckpointStanding::Revoked(_), ListBody::Card(card)) = (&of.standing, &back) {
                of.standing = CheckpointStanding::Stands(card.clone());
            }
        }), "contradicted"),
        ("checkpoint-of-another-prev", "the last half digest is not that of prev", with(&|entry, _| entry.prev = LogHash([9; 32])), "contradicted"),
        ("checkpoint-forked", "a half digest differs from the entry's", with(&|_, of| of.entries[20] ^= 1), "fork"),
        ("checkpoint-forked-over-a-gap", "another entry is known before it", [&twin.wires[..], last].concat(), "fork"),
        ("checkpoint-key-odd", "a revoked signing key is a point of small order", with(&|_, of| for of in &mut of.devices {
            if let CheckpointStanding::Revoked(out) = &mut of.standing {
                out.sign_key = odd;
            }
        }), "card id"),
        ("checkpoint-card-altered", "the possession of a card does not hold", with(&|_, of| for of in &mut of.devices {
            if let CheckpointStanding::Stands(card) = &mut of.standing {
                card.possession[0] ^= 1;
            }
        }), "possession"),
    ];
    let faults = faults.into_iter();
    Ok(faults
        .map(|(name, about, wires, failure)| given(name, about, &wires).fails(failure))
        .collect())
}

fn fallbacks() -> anyhow::Result<Vec<Case>> {
    let anna = anna();
    let (signing, key) = (&anna.device.signing, anna.device.fallback.wrap_key());
    let period = FallbackKey::period_at(NOW);
    let good = FallbackKey::sign(&anna.user, signing, &key, period)?;
    let label = FallbackKey::LABEL;
    let given = |name: &str, about: &str, wire: &[u8]| {
        Case::new("fallback-key", name, about)
            .hex("user", anna.user.0)
            .hex("public-key", signing.verifying_key().as_bytes())
            .hex("wire", wire)
            .with("now", NOW.0)
    };
    let mut cases = vec![
        given("good", "the example of the page", good.wire())
            .hex("signing-seed", signing.expose_seed())
            .ok()
            .hex("digest", good.digest().as_bytes())
            .with("period", period)
            .hex("wrap-key-hash", wrap_key_hash(&key)),
    ];
    let body = encode(good.body());
    let stranger = ben().device.signing;
    let faults = raw::faults(signing, &stranger, label, ListEntry::LABEL, &body);
    let faults = faults.into_iter();
    cases.extend(faults.map(|of| given(of.name, of.about, &of.wire).fails(of.failure)));
    let with = |change: &dyn Fn(&mut FallbackKey)| {
        let mut key = good.body().clone();
        change(&mut key);
        raw::signed(signing, label, &encode(&key))
    };
    let odd = super::points::number(1);
    let none = "no fallback key";
    #[rustfmt::skip]
    let rows = [
        ("too-long", "1,609 bytes of wrapper", raw::wrapper(&[0; 1_537], &[0; 64]), "too long"),
        ("wrap-key-short", "a wrapping key of 1,215 bytes", with(&|key| key.wrap_key.truncate(1_215)), "out of range"),
        ("another-user", "the key names another user", with(&|key| key.user = ben().user), none),
        ("another-device", "the key names another device", with(&|key| key.device = ben().device.id), none),
        ("wrap-key-odd", "the X25519 half of the wrapping key is 1", with(&|key| key.wrap_key[1_184..].copy_from_slice(&odd)), none),
        ("to-come", "the period begins later", with(&|key| key.period += 1), none),
    ];
    let rows = rows.into_iter();
    cases.extend(rows.map(|(name, about, wire, failure)| given(name, about, &wire).fails(failure)));
    Ok(cases)
}

/// Lists as somebody remembers them.
fn pins() -> anyhow::Result<Vec<Case>> {
    let one = List::started()?;
    let mut two = List::started()?;
    two.add(card(&tablet(), &anna().user))?;
    let pinned = |name, about, list: &List, seq: u32, half: [u8; 16]| {
        let pin = format!("{seq} {}", hex(&half));
        given(name, about, &list.wires).with("pin", pin)
    };
    let head = |list: &List| list.list.pin().map_or([0; 16], |pin| pin.half);
    let grown = pinned("pin-grown", "the list has grown since", &two, 0, head(&one));
    let same = pinned(
        "pin-same",
        "the list has not changed since",
        &two,
        1,
        head(&two),
    );
    Ok(vec![
        read(grown, &two.list, NOW),
        read(same, &two.list, NOW),
        pinned(
            "pin-shortened",
            "a newer entry was seen before",
            &one,
            1,
            head(&two),
        )
        .fails("shortened"),
        pinned(
            "pin-forked",
            "another entry was seen in this place",
            &one,
            0,
            [9; 16],
        )
        .fails("fork"),
    ])
}

/// Revocations carried away from their list.
fn proofs() -> anyhow::Result<Vec<Case>> {
    let list = List::started()?;
    let entry = list.next(revocation(list.id()));
    let root = &list.person.root;
    let signed = |key: &SigningKey, entry: &ListEntry| raw::signed(key, LABEL, &encode(entry));
    let foreign = ListEntry {
        user: ben().user,
        ..entry.clone()
    };
    let given = |name, about, proof: Vec<u8>| {
        Case::new("revocation-proof", name, about)
            .hex("user", anna().user.0)
            .hex("proof", proof)
    };
    let key: VerifyingKey = root.verifying_key();
    assert!(
        *key.as_bytes() == list.person.user.0,
        "a user id is the root key"
    );
    Ok(vec![
        given(
            "good",
            "the place in the list is not looked at",
            signed(root, &entry),
        )
        .ok()
        .with("device", list.id())
        .with("time", NOW.0),
        given(
            "card",
            "an entry that revokes nothing",
            list.wires[0].clone(),
        )
        .fails("out of range"),
        given(
            "another-key",
            "signed by another user",
            signed(&ben().root, &entry),
        )
        .fails("signature"),
        given(
            "another-user",
            "for another user's list",
            signed(root, &foreign),
        )
        .fails("another user"),
        given("nothing", "no bytes", Vec::new()).fails("malformed"),
    ])
}
