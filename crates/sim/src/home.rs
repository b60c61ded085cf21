//! The store of a device, as the engine's records.

mod nodes;
mod parked;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use sealcast_crypto::SecretBytes;
use sealcast_engine::{
    ControlTopic, Identity, Lane, NewSession, Put, Space, StreamView, persisted,
};
use sealcast_protocol::{
    DeviceId, LogBody, LogEntry, SessionId, StreamId, Unverified, UserId, Verified, decode, encode,
};
use sealcast_store::{Key, MemoryStore, Store as _, StoreError, Txn, transact_with};

use crate::around::Stop;
use crate::place::{Place, Reached, topic_id};

const LANE_LEN_MAX: usize = 4096;

/// What a device keeps of one stream.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    store: MemoryStore,
    stream: StreamId,
    /// Items that it took in and will not forget: the simulator's knowledge, not the device's.
    taken_in: Rc<RefCell<BTreeSet<Taken>>>,
}

/// A topic, and an item that it showed.
type Taken = ([u8; 32], Arc<[u8]>);

/// The newest access-log entry that a home wrote.
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

/// A session that this home drew.
#[derive(Debug)]
pub(crate) struct OwnSession {
    pub(crate) record: Vec<u8>,
    pub(crate) root: SecretBytes,
    pub(crate) is_drawn: bool,
}

/// What was learned and is to be kept.
#[derive(Debug, Default)]
pub(crate) struct News {
    pub(crate) puts: Vec<Put>,
    pub(crate) places: Vec<([u8; 32], Reached)>,
    pub(crate) forgets_given: bool,
    pub(crate) taken_in: Vec<Taken>,
    /// Topics of which the bus shows less than is known here, from now on or no more.
    pub(crate) lost: Vec<([u8; 32], bool)>,
}

fn key(space: Space, parts: &[&[u8]]) -> Key {
    Key {
        space: sealcast_store::Space(space as u8),
        id: persisted(parts),
    }
}

const SPACES: [Space; 16] = [
    Space::ListEntry,
    Space::LogEntry,
    Space::Record,
    Space::Root,
    Space::Cover,
    Space::Delivered,
    Space::Cursor,
    Space::Track,
    Space::Parked,
    Space::ParkedEnvelope,
    Space::Deal,
    Space::SegmentRecords,
    Space::LaneSecret,
    Space::OwnSegments,
    Space::Audit,
    Space::Lost,
];
const PLACES: [Space; 3] = [Space::Lane, Space::OwnEntry, Space::Drawn];

impl Home {
    pub(crate) fn new(stream: StreamId) -> Self {
        Self {
            store: MemoryStore::default(),
            stream,
            taken_in: Rc::default(),
        }
    }

    /// A copy that later changes do not reach.
    pub(crate) fn copied(&self) -> Result<Self, Stop> {
        let copy = Self::new(self.stream);
        *copy.taken_in.borrow_mut() = self.taken_in.borrow().clone();
        for space in SPACES.into_iter().chain(PLACES) {
            let rows = self.store.scan(sealcast_store::Space(space as u8), &[])?;
            transact_with(&copy.store, |txn| {
                for (key, value) in &rows {
                    txn.put(key, value.expose())?;
                }
                Ok::<_, StoreError>(())
            })?;
        }
        Ok(copy)
    }

    fn write<T>(&self, step: impl FnOnce(&mut dyn Txn) -> Result<T, Stop>) -> Result<T, Stop> {
        transact_with(&self.store, step)
    }

    /// Keeps an entry of the user's own device list.
    pub(crate) fn put_list_entry(&self, user: &UserId, seq: u32, entry: &[u8]) -> Result<(), Stop> {
        let place = key(Space::ListEntry, &[&user.0, &seq.to_be_bytes()]);
        self.write(|txn| Ok(txn.put(&place, entry)?))
    }

    pub(crate) fn list_entries(&self) -> Result<Vec<(UserId, Vec<u8>)>, Stop> {
        let space = sealcast_store::Space(Space::ListEntry as u8);
        let rows = self.store.scan(space, &[])?.into_iter();
        let user = |id: &[u8]| id.first_chunk().map(|user| UserId(*user));
        let entries =
            rows.filter_map(|(key, value)| Some((user(&key.id)?, value.expose().to_vec())));
        Ok(entries.collect())
    }

    pub(crate) fn of_stream(&self, space: Space) -> Result<Vec<(Vec<u8>, SecretBytes)>, Stop> {
        let rows = self
            .store
            .scan(sealcast_store::Space(space as u8), &self.stream.0)?;
        let rest = |id: &[u8]| id.get(32..).unwrap_or_default().to_vec();
        let rows = rows.into_iter().map(|(key, value)| (rest(&key.id), value));
        Ok(rows.collect())
    }

    pub(crate) fn keep(&self, news: &News) -> Result<(), Stop> {
        self.write(|txn| {
            if news.forgets_given {
                let given = sealcast_store::Space(Space::Delivered as u8);
                for (key, _) in txn.scan(given, &self.stream.0)? {
                    txn.delete(&key)?;
                }
            }
            for put in &news.puts {
                let place = key(put.space, &[&put.id]);
                match put.value.is_empty() {
                    true => txn.delete(&place)?,
                    false => txn.put(&place, put.value.expose())?,
                }
            }
            for (topic, place) in &news.places {
                txn.put(
                    &key(Space::Cursor, &[&self.stream.0, topic]),
                    &place.to_bytes(),
                )?;
            }
            for (topic, is_lost) in &news.lost {
                let place = key(Space::Lost, &[&self.stream.0, topic]);
                match is_lost {
                    true => txn.put(&place, &[])?,
                    false => txn.delete(&place)?,
                }
            }
            Ok(())
        })?;
        let taken_in = news.taken_in.iter().cloned();
        self.taken_in.borrow_mut().extend(taken_in);
        Ok(())
    }

    /// Whether it took in an item of a topic.
    pub(crate) fn has_taken_in(&self, topic: [u8; 32], item: &Arc<[u8]>) -> bool {
        self.taken_in.borrow().contains(&(topic, item.clone()))
    }

    /// Whether this home wrote what a put would keep, or kept it before.
    fn holds(&self, put: &Put) -> Result<bool, Stop> {
        let has = |space| Ok::<_, Stop>(self.store.get(&key(space, &[&put.id]))?.is_some());
        Ok((put.space == Space::Record && has(Space::Drawn)?) || has(put.space)?)
    }

    /// Whether the bus showed something of this device that its home did not write.
    pub(crate) fn has_unknown(&self, me: DeviceId, puts: &[Put]) -> Result<bool, Stop> {
        let is_own_entry = |put: &Put| {
            let entry = Unverified::<LogEntry>::decode(put.value.expose());
            entry.is_ok_and(|of| {
                let is_first = matches!(of.claims().body, LogBody::Genesis(_));
                of.claims().device == me && !is_first
            })
        };
        for put in puts {
            let is_own = match put.space == Space::LogEntry {
                true => is_own_entry(put),
                false => put.space == Space::Record && put.id.ends_with(&me.0),
            };
            if !is_own {
                continue;
            }
            let newest = self.newest_entry()?;
            let is_newest = newest.is_some_and(|own| own.wire == put.value.expose());
            if !is_newest && !self.holds(put)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(crate) fn places(&self) -> Result<BTreeMap<[u8; 32], Reached>, Stop> {
        let rows = self.of_stream(Space::Cursor)?.into_iter();
        let place = |(id, value): (Vec<u8>, SecretBytes)| {
            Some((id.try_into().ok()?, Reached::from_bytes(value.expose())?))
        };
        Ok(rows.filter_map(place).collect())
    }

    pub(crate) fn lost(&self) -> Result<BTreeSet<[u8; 32]>, Stop> {
        let rows = self.of_stream(Space::Lost)?.into_iter();
        Ok(rows.filter_map(|(id, _)| id.try_into().ok()).collect())
    }

    pub(crate) fn lane(&self) -> Result<Lane, Stop> {
        let value = self.store.get(&key(Space::Lane, &[&self.stream.0]))?;
        value.map_or(Ok(Lane::default()), |value| read_lane(&value))
    }

    /// Reads, changes and keeps the lane, in one transaction.
    pub(crate) fn change_lane<T>(
        &self,
        change: impl FnOnce(&mut Lane, &mut dyn Txn) -> Result<T, Stop>,
    ) -> Result<T, Stop> {
        let place = key(Space::Lane, &[&self.stream.0]);
        self.write(|txn| {
            let value = txn.get(&place)?;
            let mut lane = value.map_or(Ok(Lane::default()), |value| read_lane(&value))?;
            let before = lane;
            let result = change(&mut lane, txn)?;
            if lane != before {
                txn.put(&place, &encode(&lane))?;
            }
            Ok(result)
        })
    }

    /// For a planted fault.
    pub(crate) fn danger_lose_lane(&self) -> Result<(), Stop> {
        self.write(|txn| Ok(txn.delete(&key(Space::Lane, &[&self.stream.0]))?))
    }
}

/// Sessions, and entries of the access log.
impl Home {
    /// Keeps a drawn session, root and record together.
    pub(crate) fn put_session(
        &self,
        txn: &mut dyn Txn,
        device: &DeviceId,
        new: &NewSession,
    ) -> Result<(), Stop> {
        let (stream, session) = (&self.stream.0, &new.session.0);
        txn.put(&key(Space::Root, &[stream, session]), new.root.expose())?;
        let drawn = key(Space::Drawn, &[stream, session, &device.0]);
        Ok(txn.put(&drawn, new.record.wire())?)
    }

    pub(crate) fn session(
        &self,
        session: &SessionId,
        device: &DeviceId,
    ) -> Result<Option<OwnSession>, Stop> {
        let place = |space| key(space, &[&self.stream.0, &session.0, &device.0]);
        let drawn = self.store.get(&place(Space::Drawn))?;
        let is_drawn = drawn.is_some();
        let record = match drawn {
            Some(record) => Some(record),
            None => self.store.get(&place(Space::Record))?,
        };
        let root = self
            .store
            .get(&key(Space::Root, &[&self.stream.0, &session.0]))?;
        Ok(record.zip(root).map(|(record, root)| OwnSession {
            record: record.expose().to_vec(),
            root,
            is_drawn,
        }))
    }

    pub(crate) fn drawn_sessions(&self) -> Result<Vec<SessionId>, Stop> {
        let rows = self.of_stream(Space::Drawn)?;
        let session = |(id, _): &(Vec<u8>, SecretBytes)| id.first_chunk().map(|id| SessionId(*id));
        Ok(rows.iter().filter_map(session).collect())
    }

    pub(crate) fn session_announced(
        &self,
        session: SessionId,
        device: &DeviceId,
    ) -> Result<(), Stop> {
        let place = |space| key(space, &[&self.stream.0, &session.0, &device.0]);
        self.change_lane(|lane, txn| {
            lane.is_announced |= lane.session() == Some(session);
            if let Some(record) = txn.get(&place(Space::Drawn))? {
                txn.put(&place(Space::Record), record.expose())?;
                txn.delete(&place(Space::Drawn))?;
            }
            Ok(())
        })
    }

    pub(crate) fn newest_entry(&self) -> Result<Option<OwnEntry>, Stop> {
        let value = self.store.get(&key(Space::OwnEntry, &[&self.stream.0]))?;
        Ok(value.and_then(|value| OwnEntry::read(&value)))
    }

    /// Keeps an entry that `write` makes, before it may travel; `None` while the newest one is not
    /// known to be on the bus.
    pub(crate) fn write_entry(
        &self,
        write: impl FnOnce(Option<OwnEntry>) -> Result<Option<Verified<LogEntry>>, Stop>,
    ) -> Result<Option<Verified<LogEntry>>, Stop> {
        let newest = self.newest_entry()?;
        if newest.as_ref().is_some_and(|own| !own.is_sent) {
            return Ok(None);
        }
        let Some(entry) = write(newest)? else {
            return Ok(None);
        };
        self.put_entry(&OwnEntry {
            is_sent: false,
            wire: entry.wire().to_vec(),
        })?;
        Ok(Some(entry))
    }

    /// Notes that an entry is on the bus, or that another has its place there.
    pub(crate) fn put_entry(&self, own: &OwnEntry) -> Result<(), Stop> {
        let place = key(Space::OwnEntry, &[&self.stream.0]);
        self.write(|txn| Ok(txn.put(&place, &own.to_bytes())?))
    }

    /// Keeps where live reading stands.
    pub(crate) fn track(
        &self,
        trackers: &[(DeviceId, Vec<u8>)],
        (topic, at): ([u8; 32], Place),
    ) -> Result<(), Stop> {
        self.write(|txn| {
            for (device, bytes) in trackers {
                txn.put(&key(Space::Track, &[&self.stream.0, &device.0]), bytes)?;
            }
            let place = key(Space::Cursor, &[&self.stream.0, &topic]);
            Ok(txn.put(&place, &at.to_bytes())?)
        })
    }
}

/// What was kept comes back.
impl Home {
    pub(crate) fn view(&self, owner: UserId, identity: &Identity) -> Result<StreamView, Stop> {
        let mut view = StreamView::new(self.stream, owner, identity);
        for (user, entry) in self.list_entries()? {
            view.handle(&ControlTopic::Devices(user), &entry);
        }
        for (_, entry) in self.of_stream(Space::LogEntry)? {
            view.restore_log_entry(entry.expose());
        }
        view.settle();
        let session = |id: &[u8]| id.first_chunk().map(|id| SessionId(*id));
        for (id, root) in self.of_stream(Space::Root)? {
            if let Some(session) = session(&id) {
                view.restore_root(session, &root);
            }
        }
        for space in [Space::Record, Space::Deal, Space::SegmentRecords] {
            for (_, record) in self.of_stream(space)? {
                view.handle(&ControlTopic::Keys, record.expose());
            }
        }
        for (id, cover) in self.of_stream(Space::Cover)? {
            if let Some(session) = session(&id) {
                view.restore_cover(session, &cover);
            }
        }
        for (id, given) in self.of_stream(Space::Delivered)? {
            let device = id.get(16..).and_then(|id| id.first_chunk());
            if let Some((session, device)) = session(&id).zip(device) {
                view.restore_delivered(session, DeviceId(*device), given.expose());
            }
        }
        view.settle();
        let keys = topic_id(&ControlTopic::Keys.name(self.stream));
        let reached = self.places()?.remove(&keys).unwrap_or_default();
        if reached.place != Place::default() {
            view.restore_read_by(reached.by.as_ref());
        }
        Ok(view)
    }
}

fn read_lane(value: &SecretBytes) -> Result<Lane, Stop> {
    decode(value.expose(), LANE_LEN_MAX).map_err(|_| Stop::Refused("the lane in the store is odd"))
}
