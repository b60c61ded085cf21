//! Device lists that reach a reader in any order, in part, and with entries that the user's root key
//! signed and should not have.

use std::sync::OnceLock;

use arbitrary::{Result, Unstructured};
use sealcast_crypto::{SigningKey, UnwrapKey};
use sealcast_protocol::{
    Applied, Card, CardList, CardRevocation, Checkpoint, DeviceId, DeviceState, ListBody,
    ListEntry, LogHash, Position, UserId, sign,
};

const WRITTEN_MAX: usize = 12;
const READ_MAX: usize = 32;
const NO_ENTRY: LogHash = LogHash([0; 32]);

/// Entries that are written, and in which order they are read.
pub(crate) fn device_list(bytes: &[u8]) {
    let mut choices = Unstructured::new(bytes);
    if let Ok(items) = written(&mut choices) {
        read(&mut choices, &items);
    }
}

/// The keys of a user and of four devices.
struct Keys {
    root: SigningKey,
    user: UserId,
    cards: Vec<Card>,
}

fn keys() -> &'static Keys {
    static KEYS: OnceLock<Keys> = OnceLock::new();
    KEYS.get_or_init(|| {
        let root = SigningKey::from_seed(&[1; 32]);
        let user = UserId(*root.verifying_key().as_bytes());
        let card = |seed: u8| {
            let signing = SigningKey::from_seed(&[seed; 32]);
            let wrap_key = UnwrapKey::from_seed(&[seed; 32]).wrap_key();
            Card::new(&user, &signing, &wrap_key, Position(1_000))
        };
        let cards = (2..6).map(card).collect();
        Keys { root, user, cards }
    })
}

fn written(choices: &mut Unstructured<'_>) -> Result<Vec<Vec<u8>>> {
    let keys = keys();
    let mut list = CardList::new(keys.user);
    let (mut items, mut hashes) = (Vec::new(), vec![NO_ENTRY]);
    let mut checkpoints = Vec::new();
    for _ in 0..choices.int_in_range(1..=WRITTEN_MAX)? {
        let body = body(choices, &list, &checkpoints)?;
        if let ListBody::Checkpoint(of) = &body {
            checkpoints.push(of.clone());
        }
        let time = Position(choices.int_in_range(0..=2_000)?);
        let entry = match choices.ratio(1, 4)? {
            true => {
                let entry = ListEntry {
                    version: 1,
                    user: keys.user,
                    seq: choices.int_in_range(0..=list.next_seq().saturating_add(1))?,
                    prev: *choices.choose(&hashes)?,
                    time,
                    body,
                };
                sign(&keys.root, entry).ok()
            }
            false => list.append(&keys.root, time, body).ok(),
        };
        if let Some(entry) = entry {
            hashes.push(LogHash::from(entry.digest()));
            items.push(entry.wire().to_vec());
        }
    }
    Ok(items)
}

fn body(
    choices: &mut Unstructured<'_>,
    list: &CardList,
    checkpoints: &[Checkpoint],
) -> Result<ListBody> {
    let card = choices.choose(&keys().cards)?;
    Ok(match choices.int_in_range(0..=11)? {
        0..=3 => {
            let expires = Position(choices.int_in_range(0..=2_000)?);
            ListBody::Card(Box::new(card.renewed(expires)))
        }
        4 | 5 => ListBody::Revoke(CardRevocation {
            device: card.device,
            time: Position(choices.int_in_range(0..=2_000)?),
        }),
        6 | 7 => list.checkpoint(),
        8 => match choices.choose(checkpoints) {
            Ok(older) => ListBody::Checkpoint(older.clone()),
            Err(_) => list.checkpoint(),
        },
        _ => spoilt(choices, list.checkpoint())?,
    })
}

/// A checkpoint that says what is not so.
fn spoilt(choices: &mut Unstructured<'_>, body: ListBody) -> Result<ListBody> {
    let ListBody::Checkpoint(mut of) = body else {
        return Ok(body);
    };
    if choices.arbitrary()? {
        let at = choices.choose_index(of.devices.len().max(1))?;
        if at < of.devices.len() {
            of.devices.remove(at);
        }
    }
    if choices.arbitrary()?
        && let Some(byte) = of.entries.last_mut()
    {
        *byte ^= 1;
    }
    if choices.arbitrary()? {
        of.entries.truncate(of.entries.len().saturating_sub(16));
    }
    Ok(ListBody::Checkpoint(of))
}

type Seen = (LogHash, u32, Vec<(DeviceId, DeviceState)>);

fn seen(list: &CardList) -> Seen {
    let devices = list.devices().map(|(id, of)| (*id, of.clone()));
    (list.head(), list.next_seq(), devices.collect())
}

/// Whatever comes, a list grows or stays as it is.
fn read(choices: &mut Unstructured<'_>, items: &[Vec<u8>]) {
    let mut list = CardList::new(keys().user);
    // First in the order in which they were written, where nothing else is said.
    let mixed = choices.ratio(1, 2).unwrap_or(false);
    for at in 0..READ_MAX {
        let said = choices.choose_index(items.len().max(1));
        let at = said.ok().filter(|_| mixed).unwrap_or(at);
        let Some(item) = items.get(at) else {
            return;
        };
        let (before, pin) = (seen(&list), list.pin());
        let applied = list.apply(item);
        let after = seen(&list);
        match applied {
            Err(_) | Ok(Applied::Known) => assert!(after == before, "nothing has changed"),
            Ok(_) => grown(&before, &after),
        }
        assert!(pin.is_none_or(|pin| list.check_pin(&pin).is_ok()));
        assert!(list.since_checkpoint() <= list.next_seq());
    }
}

/// Nobody is forgotten, and nobody comes back.
fn grown(before: &Seen, after: &Seen) {
    assert!(after.1 > before.1 && after.0 != before.0);
    for (device, old) in &before.2 {
        let new = after.2.iter().find(|(id, _)| id == device);
        let is_kept = new.is_some_and(|(_, new)| {
            let is_out = old.revoked.is_none() || new.revoked == old.revoked;
            (new.sign_key, new.added) == (old.sign_key, old.added) && is_out
        });
        assert!(is_kept, "{device} is in the list for good");
    }
    for (_, of) in &after.2 {
        assert_eq!(of.card.is_some(), of.revoked.is_none());
        assert_eq!(of.wrap_key.is_some(), of.revoked.is_none());
    }
}
