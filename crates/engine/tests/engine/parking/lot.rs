//! A device that parks, with its store in memory.

use std::collections::BTreeMap;

use sealcast_engine::{
    Change, Event, Missing, Mode, Parked, Parking, ParkingLimits, Reader, Space,
};
use sealcast_protocol::{Interval, Roles};

use crate::rig::{OWNER, World, lines};

/// A reader that parks, the index and a store of one device, as a driver keeps them.
pub(super) struct Lot {
    peer: usize,
    pub(super) reader: Reader,
    pub(super) parking: Parking,
    pub(super) store: BTreeMap<(Space, Vec<u8>), Vec<u8>>,
}

impl Lot {
    pub(super) fn new(world: &World, peer: usize) -> Self {
        Self::with(world, peer, ParkingLimits::default())
    }

    pub(super) fn with(world: &World, peer: usize, limits: ParkingLimits) -> Self {
        let mut reader = Reader::new(Mode::Live);
        reader.park(BTreeMap::new());
        Self {
            peer,
            reader,
            parking: Parking::new(world.stream, limits),
            store: BTreeMap::new(),
        }
    }

    /// Another run, or another process, on the same store.
    pub(super) fn again(&self, world: &World) -> Self {
        let mut lot = Self::new(world, self.peer);
        lot.store = self.store.clone();
        lot.restore();
        lot
    }

    pub(super) fn restore(&mut self) {
        let stamp_id = self.parking.stamp_id();
        let stamp = self.store.get(&(Space::Parked, stamp_id));
        let index = self.store.iter().filter(|of| of.0.0 == Space::Parked);
        let rows = index.map(|((_, id), value)| (&id[32..], value.as_slice()));
        self.parking.restore(stamp.map(Vec::as_slice), rows);
    }

    /// Reads items, and parks what does not open. What is told, a line each.
    pub(super) fn read(&mut self, world: &World, items: &[Vec<u8>]) -> String {
        let view = &world.peers[self.peer].view;
        for item in items {
            self.reader.handle(view, item);
        }
        let admit = |of| self.parking.admit(world.now, of);
        let parked: Vec<_> = self.reader.unopened().map(admit).collect();
        self.reader.settle(parked);
        self.keep();
        let told = std::iter::from_fn(|| self.reader.poll_event());
        let mut told: Vec<_> = told.collect();
        told.extend(self.parking.take_told());
        told_lines(told)
    }

    pub(super) fn keep(&mut self) {
        for change in self.parking.take_changes() {
            match change {
                Change::Put(put) => {
                    let value = put.value.expose().to_vec();
                    self.store.insert((put.space, put.id), value);
                }
                Change::Remove(space, id) => drop(self.store.remove(&(space, id)).unwrap()),
            }
        }
        self.parking.kept();
    }

    /// Opens what opens by now, and notes that it was handed out.
    pub(super) fn release(&mut self, world: &World) -> String {
        let view = &world.peers[self.peer].view;
        self.parking.look(view);
        let mut told = Vec::new();
        loop {
            let numbers = self.parking.take_due(100, 1 << 20);
            if numbers.is_empty() {
                return told_lines(told);
            }
            for number in numbers {
                let place = (Space::ParkedEnvelope, self.parking.envelope_id(number));
                let reopened = self.reader.reopen(view, number, &self.store[&place]);
                self.parking.put_back(number, reopened);
            }
            told.extend(std::iter::from_fn(|| self.reader.poll_event()));
            let done = self.reader.take_events().take_done();
            self.parking.hand_out(done);
            self.parking.record_handed_out();
            self.keep();
        }
    }

    pub(super) fn missing(&self, world: &World) -> Vec<Missing> {
        self.parking.missing(&world.peers[self.peer].view)
    }

    pub(super) fn count(&self) -> u64 {
        let count = self.parking.used().0;
        let rows = |space| self.store.keys().filter(|of| of.0 == space).count() as u64;
        assert_eq!(rows(Space::ParkedEnvelope), count);
        assert!(rows(Space::Parked) <= count + 1);
        count
    }
}

/// As [`lines`], and whether each waits or waited.
pub(super) fn told_lines(events: Vec<Event>) -> String {
    let told = events.into_iter().map(|event| {
        let parked = match &event {
            Event::Opened { parked, .. }
            | Event::Sealed { parked, .. }
            | Event::Rejected { parked, .. } => *parked,
            Event::Noticed { .. } | Event::BadCover { .. } => Parked::No,
        };
        let line = lines(vec![event]);
        match parked == Parked::No {
            true => line,
            false => format!("{} {parked:?}\n", line.trim_end()),
        }
    });
    told.collect()
}

pub(super) fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|i| format!("m{i}")).collect()
}

pub(super) fn sealed(world: &mut World, peer: usize, texts: &[String]) -> Vec<Vec<u8>> {
    let texts: Vec<_> = texts.iter().map(String::as_str).collect();
    world.sealed(peer, &texts)
}

pub(super) fn opened_late(texts: &[String]) -> String {
    texts
        .iter()
        .map(|text| format!("{text} Waited\n"))
        .collect()
}

/// Lets a reader in, who learns of it.
pub(super) fn let_in(world: &mut World, reader: usize) {
    world
        .grant(OWNER, reader, Roles::READER, Interval::ALL)
        .unwrap();
    world.sync(reader);
}

/// A reader without a grant for whom so many messages of the owner wait.
pub(super) fn with_waiting(seed: u64, count: usize) -> (World, usize, Lot) {
    let mut world = World::new(seed);
    let reader = world.user();
    let items = sealed(&mut world, OWNER, &numbered(count));
    world.sync(reader);
    let mut lot = Lot::new(&world, reader);
    lot.read(&world, &items);
    (world, reader, lot)
}
