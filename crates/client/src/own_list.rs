//! The device list of the home's own user: writing it, bringing it to a bus, and renewing its cards,
//! `spec/devices.md`.

use std::collections::BTreeMap;

use sealcast_bus::{Bus, Offset};
use sealcast_crypto::SecretBytes;
use sealcast_engine::{Identity, Put, Space, persisted};
use sealcast_protocol::{
    Applied, CARD_LIFETIME_MS, CardList, DeviceId, ListBody, ListEntry, Position, Unverified,
    UserId,
};
use sealcast_store::{StoreError, Txn};

use crate::access::TURNS_AT_END;
use crate::blocking::off_thread;
use crate::damage::read_past;
use crate::error::Error;
use crate::home::{Inner, topic};
use crate::vault::{Vault, key};

/// How long before its end a card is renewed, in milliseconds.
const RENEW_WITHIN_MS: u64 = 60 * 24 * 3600 * 1000;
/// Entries behind the newest checkpoint after which there is another, at least. They must also be
/// more than the devices, or checkpoints would take more room than what they save.
const CHECKPOINT_EVERY: u32 = 64;
/// The entry that waits to be on a bus; there is one at most.
const WAITING: &[u8] = b"entry";

/// The own list after a bus was brought level with this home.
pub(crate) struct Levelled {
    pub(crate) list: CardList,
    /// Where the bus ends it; `None` where it shows another list.
    end: Option<Offset>,
}

/// The entries that a bus does not show, in their order; `None` where it shows another list.
type Lacking = Option<Vec<Vec<u8>>>;

/// What a bus shows of a device list.
struct Shown {
    list: CardList,
    /// Behind the last item that was read.
    end: Offset,
    /// The entries that belong to the list, by their places.
    entries: BTreeMap<u32, Vec<u8>>,
    /// Where the newest checkpoint of the list lies, if anything lies before it.
    checkpoint: Option<Offset>,
}

impl Inner {
    /// The user's own device list, as this home knows it.
    pub(crate) async fn own_list(&self) -> Result<CardList, Error> {
        let (vault, user) = (self.vault.clone(), self.identity.user());
        off_thread(move || vault.own_list(user)).await?
    }

    /// Brings the list on a bus up to what this home knows, and this home up to what the bus shows.
    /// Whoever holds the root key removes what lies before a checkpoint.
    /// Where the bus shows another list, its readers are told, and nothing is brought there.
    pub(crate) async fn level_list(&self, bus: &dyn Bus) -> Result<Levelled, Error> {
        let user = self.identity.user();
        let devices = topic(&user.devices_topic())?;
        let mut turns_at_end = 0..TURNS_AT_END;
        loop {
            let shown = read_list(bus, &user).await?;
            let (end, checkpoint) = (shown.end, shown.checkpoint);
            let vault = self.vault.clone();
            let (list, lacking) = off_thread(move || vault.take_shown(user, &shown)).await??;
            let Some(lacking) = lacking else {
                return Ok(Levelled { list, end: None });
            };
            if let Some(checkpoint) = checkpoint
                && self.identity.root().is_some()
            {
                // What is not removed now is removed by the next command.
                let _is_trimmed = bus.trim(&devices, checkpoint).await.is_ok();
            }
            let count = lacking.len() as u64;
            let at = if lacking.is_empty() {
                Some(end)
            } else if turns_at_end.next().is_some() {
                let is_put = bus.append_at(&devices, end, lacking).await?;
                is_put.then_some(end)
            } else {
                // Rubbish comes faster than it is read here. An entry that comes twice is taken once.
                Some(bus.append(&devices, lacking).await?)
            };
            if let Some(at) = at {
                let end = Some(Offset(at.0.saturating_add(count)));
                return Ok(Levelled { list, end });
            }
        }
    }

    /// Writes the entries of the own list that `body` asks for until it asks for no more, each behind
    /// what the bus shows, and only there, as long as no stranger keeps that end moving: of two copies
    /// of the home that write at one instant, one reads the other's entry first. Returns the list.
    pub(crate) async fn write_list(
        &self,
        bus: &dyn Bus,
        body: impl Fn(&CardList) -> Option<ListBody> + Clone + Send + 'static,
    ) -> Result<CardList, Error> {
        let (user, now) = (self.identity.user(), self.now());
        let root = self.identity.root().ok_or(Error::NoRoot)?;
        let devices = topic(&user.devices_topic())?;
        let mut turns_at_end = 0..TURNS_AT_END;
        loop {
            let Levelled { list, end } = self.level_list(bus).await?;
            let end = end.ok_or(Error::ListForked)?;
            let (vault, root, body) = (self.vault.clone(), root.duplicate(), body.clone());
            let next = off_thread(move || {
                vault.next_list_entry(user, |list| {
                    let Some(body) = body(list) else {
                        return Ok(None);
                    };
                    let entry = list.append(&root, now, body);
                    let entry = entry.map_err(Error::List)?;
                    Ok(Some(entry.wire().to_vec()))
                })
            });
            let Some(wire) = next.await?? else {
                return Ok(list);
            };
            let is_put = match turns_at_end.next() {
                Some(_) => bus.append_at(&devices, end, vec![wire.clone()]).await?,
                // Rubbish must not keep a device from being revoked.
                None => bus
                    .append(&devices, vec![wire.clone()])
                    .await
                    .map(|_| true)?,
            };
            if is_put {
                turns_at_end = 0..TURNS_AT_END;
                let vault = self.vault.clone();
                off_thread(move || vault.list_entry_sent(user, &wire)).await??;
            }
        }
    }

    /// Renews the cards of this user's devices that end soon, and writes a checkpoint when one is
    /// due. Only who holds the root key can. Returns the list.
    pub(crate) async fn tend_list(&self, bus: &dyn Bus) -> Result<CardList, Error> {
        let list = self.own_list().await?;
        let (now, me) = (self.now(), self.identity.device());
        if self.identity.root().is_some() && due(&list, me, now).is_some() {
            self.write_list(bus, move |list| due(list, me, now)).await
        } else if list.next_seq() > 1 {
            Ok(self.level_list(bus).await?.list)
        } else {
            Ok(list)
        }
    }
}

impl Vault {
    pub(crate) fn own_list(&self, user: UserId) -> Result<CardList, Error> {
        let rows = self
            .0
            .scan(sealcast_store::Space(Space::ListEntry as u8), &user.0)?;
        Ok(list_of(user, rows.iter().map(|(_, entry)| entry.expose())))
    }

    /// The entry that revoked a device, where it was seen.
    pub(crate) fn revocation_of(
        &self,
        user: UserId,
        device: DeviceId,
    ) -> Result<Option<Vec<u8>>, Error> {
        let rows = self
            .0
            .scan(sealcast_store::Space(Space::ListEntry as u8), &user.0)?;
        let mut entries = rows.iter().map(|(_, entry)| entry.expose());
        let found = entries.find(|entry| {
            Unverified::<ListEntry>::decode(entry).is_ok_and(|entry| {
                matches!(&entry.claims().body, ListBody::Revoke(out) if out.device == device)
            })
        });
        Ok(found.map(<[u8]>::to_vec))
    }

    /// Keeps what a bus shows of the list and is not here. Returns the list, and the entries that are
    /// not there; `None` where the bus shows another list.
    fn take_shown(&self, user: UserId, shown: &Shown) -> Result<(CardList, Lacking), Error> {
        sealcast_store::transact_with(&*self.0, |txn| {
            let rows = txn.scan(sealcast_store::Space(Space::ListEntry as u8), &user.0)?;
            let mut list = list_of(user, rows.iter().map(|(_, entry)| entry.expose()));
            for (seq, entry) in &shown.entries {
                let before = list.next_seq();
                if list.apply(entry).is_ok() && list.next_seq() > before {
                    let put = list_put(&user, *seq, entry);
                    txn.put(&key(put.space, &[&put.id]), entry)?;
                    drop_before_checkpoint(txn, &put)?;
                }
            }
            let pin = shown.list.pin();
            if pin.is_some_and(|pin| list.check_pin(&pin).is_err()) {
                return Ok((list, None));
            }
            let needed = list.newest_checkpoint().unwrap_or(0);
            let from = shown.list.next_seq().max(needed);
            let mut lacking = Vec::new();
            for (place, entry) in rows {
                let seq = place.id.last_chunk().map(|seq| u32::from_be_bytes(*seq));
                let is_lacking = seq.is_some_and(|seq| seq >= from);
                lacking.extend(is_lacking.then(|| entry.expose().to_vec()));
            }
            Ok((list, Some(lacking)))
        })
    }

    /// The entry to put on a bus next, kept before it leaves: one that waits already, or what `write`
    /// makes of the list, with all other processes of the home shut out. One that another copy of
    /// the home left no place for is given up.
    fn next_list_entry(
        &self,
        user: UserId,
        write: impl FnOnce(&mut CardList) -> Result<Option<Vec<u8>>, Error>,
    ) -> Result<Option<Vec<u8>>, Error> {
        let place = key(Space::OwnListEntry, &[WAITING]);
        sealcast_store::transact_with(&*self.0, |txn| {
            let rows = txn.scan(sealcast_store::Space(Space::ListEntry as u8), &user.0)?;
            let mut list = list_of(user, rows.iter().map(|(_, entry)| entry.expose()));
            if let Some(waiting) = txn.get(&place)? {
                let before = list.next_seq();
                let fits = list.clone().apply(waiting.expose()).is_ok()
                    && Unverified::<ListEntry>::decode(waiting.expose())
                        .is_ok_and(|entry| entry.claims().seq == before);
                if fits {
                    return Ok(Some(waiting.expose().to_vec()));
                }
                txn.delete(&place)?;
            }
            let next = write(&mut list)?;
            if let Some(wire) = &next {
                txn.put(&place, wire)?;
            }
            Ok(next)
        })
    }

    /// Takes an entry that is on a bus now into the list.
    fn list_entry_sent(&self, user: UserId, wire: &[u8]) -> Result<(), Error> {
        let entry = Unverified::<ListEntry>::decode(wire);
        let entry = entry.map_err(|_| Error::Internal("an entry of the device list is odd"))?;
        let put = list_put(&user, entry.claims().seq, wire);
        let waiting = key(Space::OwnListEntry, &[WAITING]);
        sealcast_store::transact_with(&*self.0, |txn| {
            if txn.get(&waiting)?.is_some_and(|of| of.expose() == wire) {
                txn.delete(&waiting)?;
            }
            txn.put(&key(put.space, &[&put.id]), wire)?;
            Ok(drop_before_checkpoint(txn, &put)?)
        })
    }
}

/// Takes out what a checkpoint replaces, except revocations, which are proofs.
pub(crate) fn drop_before_checkpoint(txn: &mut dyn Txn, put: &Put) -> Result<(), StoreError> {
    let is = |entry: &[u8], wanted: fn(&ListBody) -> bool| {
        Unverified::<ListEntry>::decode(entry).is_ok_and(|entry| wanted(&entry.claims().body))
    };
    let is_checkpoint = |body: &ListBody| matches!(body, ListBody::Checkpoint(_));
    if put.space != Space::ListEntry || !is(put.value.expose(), is_checkpoint) {
        return Ok(());
    }
    let user = put.id.get(..32).unwrap_or_default();
    for (place, entry) in txn.scan(sealcast_store::Space(Space::ListEntry as u8), user)? {
        let is_revocation = is(entry.expose(), |body| matches!(body, ListBody::Revoke(_)));
        if place.id < put.id && !is_revocation {
            txn.delete(&place)?;
        }
    }
    Ok(())
}

fn list_of<'a>(user: UserId, entries: impl Iterator<Item = &'a [u8]>) -> CardList {
    let mut list = CardList::new(user);
    for entry in entries {
        // What lies before a checkpoint does not fit, and need not.
        let _is_of_list = list.apply(entry).is_ok();
    }
    list
}

/// What a bus has of a user's device list.
async fn read_list(bus: &dyn Bus, user: &UserId) -> Result<Shown, Error> {
    let devices = topic(&user.devices_topic())?;
    let mut shown = Shown {
        list: CardList::new(*user),
        end: Offset(0),
        entries: BTreeMap::new(),
        checkpoint: None,
    };
    let (mut at, mut first) = (Offset(0), None);
    shown.end = bus.end(&devices).await?;
    loop {
        let items = read_past(bus, &devices, at, shown.end).await?;
        let Some(last) = items.last() else {
            return Ok(shown);
        };
        first = first.or(items.first().map(|item| item.offset));
        at = Offset(last.offset.0.saturating_add(1));
        for item in items.into_iter().filter(|of| of.offset < shown.end) {
            let seq = Unverified::<ListEntry>::decode(&item.payload).map(|of| of.claims().seq);
            let before = shown.list.next_seq();
            if let Ok(seq) = seq
                && let Ok(applied) = shown.list.apply(&item.payload)
                && shown.list.next_seq() > before
            {
                if applied == Applied::Checkpoint && first < Some(item.offset) {
                    shown.checkpoint = Some(item.offset);
                }
                shown.entries.insert(seq, item.payload);
            }
        }
    }
}

pub(crate) fn list_put(user: &UserId, seq: u32, entry: &[u8]) -> Put {
    Put {
        space: Space::ListEntry,
        id: persisted(&[&user.0, &seq.to_be_bytes()]),
        value: SecretBytes::from(entry.to_vec()),
    }
}

/// What whoever holds the root key should write next: a card for a device whose card ends soon, or a
/// checkpoint. A card that has ended is not renewed without being asked, except that of this device.
fn due(list: &CardList, me: DeviceId, now: Position) -> Option<ListBody> {
    let soon = now.after(RENEW_WITHIN_MS);
    let mut ending = list.devices().filter(|(device, of)| {
        let is_used = of.is_live(now) || **device == me;
        of.revoked.is_none() && of.expires < soon && is_used
    });
    let card = ending.find_map(|(_, of)| of.card.as_ref());
    if let Some(card) = card {
        let renewed = card.renewed(now.after(CARD_LIFETIME_MS));
        return Some(ListBody::Card(renewed.into()));
    }
    let devices = u32::try_from(list.devices().count()).unwrap_or(u32::MAX);
    (list.since_checkpoint() >= devices.max(CHECKPOINT_EVERY)).then(|| list.checkpoint())
}

/// The first entry of a new user's list.
pub(crate) fn first_card(identity: &Identity, now: Position) -> Result<Put, Error> {
    let root = identity.root().ok_or(Error::NoRoot)?;
    let mut list = CardList::new(identity.user());
    let card = list.append(root, now, identity.card(now));
    let card = card.map_err(|_| Error::Internal("the first card is odd"))?;
    Ok(list_put(&identity.user(), 0, card.wire()))
}
