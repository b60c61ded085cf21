//! Typed reads and writes of a home's store.

use std::sync::Arc;

use minicbor::{CborLen, Decode, Encode};
use sealcast_crypto::SecretBytes;
use sealcast_engine::{Identity, Lane, NewSession, Put, Space, persisted};
use sealcast_protocol::{
    DeviceId, ExportedRecord, LogEntry, Name, Position, SessionId, StreamId, Ticket, UserId,
    Verified, decode, encode,
};
use sealcast_store::{Key, Store, StoreError, Txn};

use crate::asking::InboxMark;
use crate::error::Error;
use crate::own_list::drop_before_checkpoint;

mod parked;
mod places;
mod shelf;

pub(crate) use places::Placed;

/// A home's store, as the engine's records.
#[derive(Clone, Debug)]
pub(crate) struct Vault(pub(crate) Arc<dyn Store>);

/// What a home knows of itself besides its identity.
#[derive(Clone, Debug, Encode, Decode, CborLen)]
#[cbor(array)]
pub(crate) struct Settings {
    /// Empty where the user gave none.
    #[n(0)]
    pub(crate) name: String,
    /// The bus of new streams.
    #[n(1)]
    pub(crate) bus: String,
}

/// A stream that a home knows.
#[derive(Clone, Debug, Encode, Decode, CborLen)]
#[cbor(array)]
pub(crate) struct Membership {
    /// Its name in this home.
    #[n(0)]
    pub(crate) name: Name,
    /// Its ticket, as text.
    #[n(1)]
    pub(crate) ticket: String,
}

/// What was learned and is to be kept.
#[derive(Debug, Default)]
pub(crate) struct News {
    pub(crate) puts: Vec<Put>,
    /// How far topics were read.
    pub(crate) places: Vec<Placed>,
    /// Whether what was noted before of keys given to others holds no more.
    pub(crate) forgets_given: bool,
    /// Topics of which the bus shows less than is known here, and those of which it no more does.
    pub(crate) lost: Vec<([u8; 32], bool)>,
}

/// The newest access-log entry that a home wrote in a stream.
#[derive(Clone, Debug)]
pub(crate) struct OwnEntry {
    pub(crate) is_sent: bool,
    pub(crate) wire: Vec<u8>,
}

impl OwnEntry {
    fn read(value: &SecretBytes) -> Option<Self> {
        let (is_sent, wire) = value.expose().split_first()?;
        Some(Self {
            is_sent: *is_sent == 1,
            wire: wire.to_vec(),
        })
    }

    fn to_bytes(&self) -> Vec<u8> {
        [&[u8::from(self.is_sent)], self.wire.as_slice()].concat()
    }
}

/// A session that a process of this home drew.
#[derive(Debug)]
pub(crate) struct OwnSession {
    pub(crate) record: SecretBytes,
    pub(crate) root: SecretBytes,
    /// Whether the record is not known to be on the bus.
    pub(crate) is_drawn: bool,
}

/// The last backup of a home: when, and the state of its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub(crate) struct BackupMark {
    #[n(0)]
    pub(crate) time: Position,
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub(crate) state: [u8; 32],
}

const RECORD_LEN_MAX: usize = 4096;
pub(crate) const IDENTITY: &[u8] = b"identity";
pub(crate) const SETTINGS: &[u8] = b"settings";
pub(crate) const FALLBACKS: &[u8] = b"fallbacks";
const BACKUP: &[u8] = b"backup";
/// Stands before the digest of a bus.
const INBOX: &[u8] = b"inbox";
/// Stands before the id of a stream that this home was restored with and has not looked through.
const RESTORED: &[u8] = b"restored";

pub(crate) fn key(space: Space, parts: &[&[u8]]) -> Key {
    Key {
        space: sealcast_store::Space(space as u8),
        id: persisted(parts),
    }
}

pub(crate) fn record<T>(value: &SecretBytes) -> Result<T, Error>
where
    T: for<'b> Decode<'b, ()> + Encode<()> + CborLen<()>,
{
    decode(value.expose(), RECORD_LEN_MAX).map_err(|_| Error::Internal("a stored record is odd"))
}

impl Vault {
    /// Keeps what makes a home, all of it or nothing.
    pub(crate) fn begin(
        &self,
        identity: &Identity,
        settings: &Settings,
        card: &Put,
    ) -> Result<(), Error> {
        self.write(|txn| {
            txn.put(&key(card.space, &[&card.id]), card.value.expose())?;
            txn.put(&key(Space::Home, &[IDENTITY]), identity.to_bytes().expose())?;
            txn.put(&key(Space::Home, &[SETTINGS]), &encode(settings))
        })
    }

    pub(crate) fn identity(&self) -> Result<Option<Identity>, Error> {
        let value = self.0.get(&key(Space::Home, &[IDENTITY]))?;
        Ok(value.and_then(|value| Identity::from_bytes(value.expose())))
    }

    pub(crate) fn settings(&self) -> Result<Option<Settings>, Error> {
        let value = self.0.get(&key(Space::Home, &[SETTINGS]))?;
        value.as_ref().map(record).transpose()
    }

    /// Keeps which bus new streams are made on.
    pub(crate) fn put_bus(&self, bus: String) -> Result<(), Error> {
        let place = key(Space::Home, &[SETTINGS]);
        sealcast_store::transact_with(&*self.0, |txn| {
            let value = txn.get(&place)?;
            let value = value.ok_or(Error::Internal("a home has no settings"))?;
            let settings = Settings {
                bus,
                ..record(&value)?
            };
            Ok(txn.put(&place, &encode(&settings))?)
        })
    }

    pub(crate) fn contacts(&self) -> Result<Vec<(Name, UserId)>, Error> {
        let rows = self
            .0
            .scan(sealcast_store::Space(Space::Contact as u8), &[])?;
        let mut contacts = Vec::with_capacity(rows.len());
        for (key, value) in rows {
            let user = key.id.as_slice().try_into().map_err(|_| odd_key())?;
            contacts.push((record(&value)?, UserId(user)));
        }
        contacts.sort_unstable_by(|a: &(Name, _), b| a.0.as_str().cmp(b.0.as_str()));
        Ok(contacts)
    }

    pub(crate) fn put_contact(&self, user: UserId, name: &Name) -> Result<(), Error> {
        self.write(|txn| txn.put(&key(Space::Contact, &[&user.0]), &encode(name)))
    }

    pub(crate) fn memberships(&self) -> Result<Vec<Membership>, Error> {
        let rows = self
            .0
            .scan(sealcast_store::Space(Space::Stream as u8), &[])?;
        rows.iter().map(|(_, value)| record(value)).collect()
    }

    /// Keeps that this home is in a stream, and where. On another bus than before nothing is where it was.
    pub(crate) fn put_membership(&self, ticket: &Ticket, name: &Name) -> Result<(), Error> {
        let membership = Membership {
            name: name.clone(),
            ticket: ticket.to_string(),
        };
        let place = key(Space::Stream, &[&ticket.stream().0]);
        sealcast_store::transact_with(&*self.0, |txn| {
            for (other, value) in txn.scan(place.space, &[])? {
                let other = (other != place).then(|| record::<Membership>(&value));
                if other.transpose()?.is_some_and(|other| other.name == *name) {
                    return Err(Error::NameTaken(name.to_string()));
                }
            }
            places::take_along(txn, ticket)?;
            Ok(txn.put(&place, &encode(&membership))?)
        })
    }

    /// Every entry of every device list that this home has seen, in order.
    pub(crate) fn list_entries(&self) -> Result<Vec<(UserId, SecretBytes)>, Error> {
        let rows = self
            .0
            .scan(sealcast_store::Space(Space::ListEntry as u8), &[])?;
        let user = |id: &[u8]| {
            id.first_chunk()
                .map(|user| UserId(*user))
                .ok_or_else(odd_key)
        };
        rows.into_iter()
            .map(|(key, value)| Ok((user(&key.id)?, value)))
            .collect()
    }

    /// The records of one table that belong to a stream, with what follows the stream in their ids.
    pub(crate) fn of_stream(
        &self,
        space: Space,
        stream: &StreamId,
    ) -> Result<Vec<(Vec<u8>, SecretBytes)>, Error> {
        let rows = self.0.scan(sealcast_store::Space(space as u8), &stream.0)?;
        let rest = |id: &[u8]| id.get(32..).unwrap_or_default().to_vec();
        Ok(rows
            .into_iter()
            .map(|(key, value)| (rest(&key.id), value))
            .collect())
    }

    /// Keeps what the engine wants kept, with how far topics were read on the bus of a ticket, in one
    /// transaction.
    pub(crate) fn keep(&self, ticket: &Ticket, news: &News) -> Result<(), Error> {
        let is_same = news.puts.is_empty() && news.places.is_empty() && news.lost.is_empty();
        if is_same && !news.forgets_given {
            return Ok(());
        }
        let stream = ticket.stream();
        sealcast_store::transact_with(&*self.0, |txn| {
            if news.forgets_given {
                let given = sealcast_store::Space(Space::Delivered as u8);
                for (key, _) in txn.scan(given, &stream.0)? {
                    txn.delete(&key)?;
                }
            }
            for put in &news.puts {
                let place = key(put.space, &[&put.id]);
                match put.value.is_empty() {
                    true => txn.delete(&place)?,
                    false => txn.put(&place, put.value.expose())?,
                }
                drop_before_checkpoint(txn, put)?;
            }
            places::put_lost(txn, &stream, &news.lost)?;
            places::put(txn, ticket, &news.places)
        })
    }

    /// Whether a process of this home wrote what a put would keep, or kept it before. A record that
    /// was drawn moves to the others, so it is looked for first where it was.
    pub(crate) fn holds(&self, put: &Put) -> Result<bool, Error> {
        let has = |space| Ok::<_, Error>(self.0.get(&key(space, &[&put.id]))?.is_some());
        Ok((put.space == Space::Record && has(Space::Drawn)?) || has(put.space)?)
    }

    pub(crate) fn lane(&self, stream: &StreamId) -> Result<Lane, Error> {
        let value = self.0.get(&key(Space::Lane, &[&stream.0]))?;
        value.as_ref().map_or(Ok(Lane::default()), record)
    }

    /// Reads, changes and keeps the lane, with all other processes of the home shut out.
    pub(crate) fn change_lane<T>(
        &self,
        stream: &StreamId,
        change: impl FnOnce(&mut Lane, &mut dyn Txn) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let place = key(Space::Lane, &[&stream.0]);
        sealcast_store::transact_with(&*self.0, |txn| {
            let value = txn.get(&place)?;
            let mut lane = value.as_ref().map_or(Ok(Lane::default()), record)?;
            let before = lane;
            let result = change(&mut lane, txn)?;
            if lane != before {
                txn.put(&place, &encode(&lane))?;
            }
            Ok(result)
        })
    }

    /// One session of this home, as one of its processes kept it.
    pub(crate) fn session(
        &self,
        stream: &StreamId,
        session: &SessionId,
        device: &DeviceId,
    ) -> Result<Option<OwnSession>, Error> {
        let place = |space| key(space, &[&stream.0, &session.0, &device.0]);
        let drawn = self.0.get(&place(Space::Drawn))?;
        let is_drawn = drawn.is_some();
        let record = match drawn {
            Some(record) => Some(record),
            None => self.0.get(&place(Space::Record))?,
        };
        let root = self.0.get(&key(Space::Root, &[&stream.0, &session.0]))?;
        Ok(record.zip(root).map(|(record, root)| OwnSession {
            record,
            root,
            is_drawn,
        }))
    }

    /// The sessions that a process of this home drew, and of which none noted that the record is on
    /// the bus.
    pub(crate) fn drawn_sessions(&self, stream: &StreamId) -> Result<Vec<SessionId>, Error> {
        let rows = self.of_stream(Space::Drawn, stream)?;
        let session = |id: &[u8]| id.first_chunk().map(|id| SessionId(*id));
        rows.iter()
            .map(|(id, _)| session(id).ok_or_else(odd_key))
            .collect()
    }

    /// Notes that a session's record is on the bus.
    pub(crate) fn session_announced(
        &self,
        stream: &StreamId,
        session: SessionId,
        device: &DeviceId,
    ) -> Result<(), Error> {
        let place = |space| key(space, &[&stream.0, &session.0, &device.0]);
        self.change_lane(stream, |lane, txn| {
            lane.is_announced |= lane.session() == Some(session);
            if let Some(record) = txn.get(&place(Space::Drawn))? {
                txn.put(&place(Space::Record), record.expose())?;
                txn.delete(&place(Space::Drawn))?;
            }
            Ok(())
        })
    }

    /// The newest access-log entry that this home wrote in a stream, and whether it is known to be
    /// on the bus.
    pub(crate) fn newest_entry(&self, stream: &StreamId) -> Result<Option<OwnEntry>, Error> {
        let value = self.0.get(&key(Space::OwnEntry, &[&stream.0]))?;
        Ok(value.and_then(|value| OwnEntry::read(&value)))
    }

    /// Writes an access-log entry, with all other processes of the home shut out: `write` is given
    /// the newest one so far, and what it returns is kept before it may travel. `None` where
    /// `write` returns it, and while the newest one is not known to be on the bus.
    pub(crate) fn write_entry(
        &self,
        stream: &StreamId,
        write: impl FnOnce(Option<OwnEntry>) -> Result<Option<Verified<LogEntry>>, Error>,
    ) -> Result<Option<Verified<LogEntry>>, Error> {
        let place = key(Space::OwnEntry, &[&stream.0]);
        sealcast_store::transact_with(&*self.0, |txn| {
            let newest = txn.get(&place)?.and_then(|value| OwnEntry::read(&value));
            if newest.as_ref().is_some_and(|own| !own.is_sent) {
                return Ok(None);
            }
            let Some(entry) = write(newest)? else {
                return Ok(None);
            };
            let own = OwnEntry {
                is_sent: false,
                wire: entry.wire().to_vec(),
            };
            txn.put(&place, &own.to_bytes())?;
            Ok(Some(entry))
        })
    }

    /// Gives up an entry that the bus does not have, for one that has its place there.
    pub(crate) fn entry_lost(
        &self,
        stream: &StreamId,
        wire: &[u8],
        instead: &[u8],
    ) -> Result<(), Error> {
        let place = key(Space::OwnEntry, &[&stream.0]);
        let instead = OwnEntry {
            is_sent: true,
            wire: instead.to_vec(),
        };
        self.write(|txn| {
            let newest = txn.get(&place)?.and_then(|value| OwnEntry::read(&value));
            match newest.is_some_and(|own| own.wire == wire) {
                true => txn.put(&place, &instead.to_bytes()),
                false => Ok(()),
            }
        })
    }

    /// Notes that an entry is on the bus, unless a newer one was written meanwhile.
    pub(crate) fn entry_sent(&self, stream: &StreamId, wire: &[u8]) -> Result<(), Error> {
        let place = key(Space::OwnEntry, &[&stream.0]);
        self.write(|txn| {
            let newest = txn.get(&place)?.and_then(|value| OwnEntry::read(&value));
            match newest {
                Some(own) if own.wire == wire => {
                    let own = OwnEntry {
                        is_sent: true,
                        ..own
                    };
                    txn.put(&place, &own.to_bytes())
                }
                Some(_) | None => Ok(()),
            }
        })
    }

    fn write(
        &self,
        mut step: impl FnMut(&mut dyn Txn) -> Result<(), StoreError>,
    ) -> Result<(), Error> {
        Ok(self.0.transact(&mut step)?)
    }
}

/// Imported keys, and the last backup.
impl Vault {
    /// Keeps imported keys. Returns how many of them are new.
    pub(crate) fn import(&self, puts: &[Put]) -> Result<usize, Error> {
        sealcast_store::transact_with(&*self.0, |txn| {
            let mut new = 0;
            for put in puts {
                let place = key(put.space, &[&put.id]);
                let session = put.id.get(..48).unwrap_or_default();
                let has_root = txn.get(&key(Space::Root, &[session]))?.is_some();
                if !has_root && txn.get(&place)?.is_none() {
                    txn.put(&place, put.value.expose())?;
                    new += 1;
                }
            }
            Ok(new)
        })
    }

    /// Every record, as one transaction sees them, and the mark of a backup that holds them.
    pub(crate) fn snapshot(
        &self,
        user: &UserId,
        now: Position,
    ) -> Result<(Vec<ExportedRecord>, BackupMark), Error> {
        let fallbacks = key(Space::Home, &[FALLBACKS]);
        sealcast_store::transact_with(&*self.0, |txn| {
            let mut records = Vec::new();
            let left_out = [
                Space::Parked,
                Space::ParkedEnvelope,
                Space::Shelf,
                Space::ShelfContent,
            ];
            let is_left_out = |space: &u8| left_out.iter().any(|of| *of as u8 == *space);
            for space in (0..=u8::MAX).filter(|space| !is_left_out(space)) {
                let rows = txn.scan(sealcast_store::Space(space), &[])?;
                // Kept in a file they would open for as long as it lies there.
                let rows = rows.into_iter().filter(|(of, _)| *of != fallbacks);
                records.extend(rows.map(|(key, value)| ExportedRecord {
                    space,
                    id: key.id,
                    value,
                }));
            }
            let state = state(user, |space, prefix| Ok(txn.scan(space, prefix)?))?;
            Ok((records, BackupMark { time: now, state }))
        })
    }

    /// Fills a new store with the records of a backup.
    pub(crate) fn fill(&self, records: &[ExportedRecord], time: Position) -> Result<(), Error> {
        sealcast_store::transact_with(&*self.0, |txn| {
            for of in records {
                let place = Key::new(sealcast_store::Space(of.space), of.id.clone());
                txn.put(&place, of.value.expose())?;
                if of.space == Space::Lane as u8 {
                    txn.put(&key(Space::Home, &[RESTORED, &of.id]), &[])?;
                }
            }
            let identity = txn.get(&key(Space::Home, &[IDENTITY]))?;
            let identity = identity.and_then(|of| Identity::from_bytes(of.expose()));
            let user = identity.ok_or(Error::FileNotOurs)?.user();
            let state = state(&user, |space, prefix| Ok(txn.scan(space, prefix)?))?;
            let mark = encode(&BackupMark { time, state });
            Ok(txn.put(&key(Space::Home, &[BACKUP]), &mark)?)
        })
    }

    /// Whether this home was restored, and has not learned yet what its device sealed in a stream.
    pub(crate) fn is_restored(&self, stream: &StreamId) -> Result<bool, Error> {
        let place = key(Space::Home, &[RESTORED, &stream.0]);
        Ok(self.0.get(&place)?.is_some())
    }

    /// Notes that it has learned that.
    pub(crate) fn caught_up(&self, stream: &StreamId) -> Result<(), Error> {
        self.write(|txn| txn.delete(&key(Space::Home, &[RESTORED, &stream.0])))
    }

    /// Where this device's inbox on a bus ended when that was last looked at.
    pub(crate) fn inbox_mark(&self, bus: &[u8; 32]) -> Result<Option<InboxMark>, Error> {
        let value = self.0.get(&key(Space::Home, &[INBOX, bus]))?;
        value.as_ref().map(record).transpose()
    }

    pub(crate) fn put_inbox_mark(&self, bus: &[u8; 32], mark: &InboxMark) -> Result<(), Error> {
        self.write(|txn| txn.put(&key(Space::Home, &[INBOX, bus]), &encode(mark)))
    }

    pub(crate) fn backed_up(&self) -> Result<Option<BackupMark>, Error> {
        let value = self.0.get(&key(Space::Home, &[BACKUP]))?;
        value.as_ref().map(record).transpose()
    }

    pub(crate) fn put_backup(&self, mark: &BackupMark) -> Result<(), Error> {
        self.write(|txn| txn.put(&key(Space::Home, &[BACKUP]), &encode(mark)))
    }

    /// Names the streams that a user owns and the sessions in them whose roots are here.
    pub(crate) fn key_state(&self, user: &UserId) -> Result<[u8; 32], Error> {
        state(user, |space, prefix| Ok(self.0.scan(space, prefix)?))
    }
}

type Rows = Vec<(Key, SecretBytes)>;

fn state(
    user: &UserId,
    scan: impl Fn(sealcast_store::Space, &[u8]) -> Result<Rows, Error>,
) -> Result<[u8; 32], Error> {
    let mut parts = Vec::new();
    for (place, value) in scan(sealcast_store::Space(Space::Stream as u8), &[])? {
        let known: Membership = record(&value)?;
        let ticket = Ticket::parse(&known.ticket).map_err(Error::Ticket)?;
        if ticket.owner() == *user {
            let roots = scan(sealcast_store::Space(Space::Root as u8), &place.id)?;
            parts.push(place.id);
            parts.extend(roots.into_iter().map(|(place, _)| place.id));
        }
    }
    let parts: Vec<_> = parts.iter().map(Vec::as_slice).collect();
    Ok(*sealcast_crypto::digest("sealcast.v1 backup state", &parts).as_bytes())
}

/// Makes a lane as a restored home may go on with it, `spec/home.md`, section "Restore".
pub(crate) fn ended_lane(value: &SecretBytes) -> Result<SecretBytes, Error> {
    let mut lane: Lane = record(value)?;
    lane.end_session();
    Ok(SecretBytes::from(encode(&lane)))
}

/// Keeps a drawn session, root and record together. The record counts when it is on the bus: keys
/// that were handed out before would not be believed until then.
pub(crate) fn put_session(
    txn: &mut dyn Txn,
    stream: &StreamId,
    device: &DeviceId,
    new: &NewSession,
) -> Result<(), StoreError> {
    let root = key(Space::Root, &[&stream.0, &new.session.0]);
    txn.put(&root, new.root.expose())?;
    let record = key(Space::Drawn, &[&stream.0, &new.session.0, &device.0]);
    txn.put(&record, new.record.wire())
}

/// A topic's name on a bus may be long; its hash names its cursor.
pub(crate) fn topic_id(topic: &str) -> [u8; 32] {
    *sealcast_crypto::digest("sealcast.v1 cursor", &[topic.as_bytes()]).as_bytes()
}

pub(crate) fn odd_key() -> Error {
    Error::Internal("a stored key is odd")
}
