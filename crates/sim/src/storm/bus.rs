//! What carries a storm: it is late, loses, and repeats, and counts what it carries.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use sealcast_crash::Chance;
use sealcast_protocol::{DeviceId, Position};

use super::traffic::{Kind, Traffic};

/// How long an item is on its way, at least and at most.
const DELAY_MS: (u64, u64) = (5, 80);
/// Of a thousand items that nobody keeps, so many reach nobody, and so many of the rest do not
/// reach one of those who listen.
const LOST_ON_THE_WAY_IN: u64 = 2;
const LOST_ON_THE_WAY_OUT: u64 = 10;
/// Of a thousand deliveries, so many come twice.
const TWICE: u64 = 10;

/// What happens to one member at a time.
#[derive(Debug)]
pub(super) enum Happening {
    /// It looks for messages, and asks for what it lacks.
    Begin,
    /// A time-out that it named has come.
    Tick,
    /// An item of the `ask` topic.
    Ask(Rc<[u8]>),
    /// An item of an inbox.
    Inbox(DeviceId, Rc<[u8]>),
}

/// On which side a member is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Asks,
    Answers,
}

#[derive(Debug)]
pub(super) struct Bus {
    pub(super) now: Position,
    chance: Chance,
    queue: BTreeMap<(Position, u64), (usize, Happening)>,
    count: u64,
    /// Those who follow the `ask` topic.
    pub(super) listeners: Vec<usize>,
    /// Whose inbox is whose.
    pub(super) owners: BTreeMap<DeviceId, usize>,
    inboxes: BTreeMap<DeviceId, Vec<Rc<[u8]>>>,
    bundles: BTreeMap<DeviceId, u64>,
    /// Those who follow the inbox of another.
    followers: BTreeSet<(DeviceId, usize)>,
    pub(super) askers: Traffic,
    pub(super) responders: Traffic,
}

impl Bus {
    pub(super) fn new(seed: u64, now: Position) -> Self {
        Self {
            now,
            chance: Chance::new(seed),
            queue: BTreeMap::new(),
            count: 0,
            listeners: Vec::new(),
            owners: BTreeMap::new(),
            inboxes: BTreeMap::new(),
            bundles: BTreeMap::new(),
            followers: BTreeSet::new(),
            askers: Traffic::default(),
            responders: Traffic::default(),
        }
    }

    /// Lets something happen at a time.
    pub(super) fn plan(&mut self, at: Position, to: usize, what: Happening) {
        self.count += 1;
        self.queue.insert((at, self.count), (to, what));
    }

    /// Takes out what happens next, until a time, and lets the clock go on to it.
    pub(super) fn next(&mut self, until: Position) -> Option<(usize, Happening)> {
        let next = self.queue.first_entry()?;
        let (at, _) = *next.key();
        if at > until {
            return None;
        }
        self.now = self.now.max(at);
        Some(next.remove())
    }

    /// Counts nothing of what has been.
    pub(super) fn count_anew(&mut self) {
        self.askers = Traffic::default();
        self.responders = Traffic::default();
    }

    /// How many bundles lie in an inbox.
    pub(super) fn bundles_of(&self, device: &DeviceId) -> u64 {
        self.bundles.get(device).copied().unwrap_or_default()
    }

    /// Draws a time within a span.
    pub(super) fn within(&mut self, ms: u64) -> Position {
        self.now.after(self.chance.below(ms))
    }

    fn traffic(&mut self, side: Side) -> &mut Traffic {
        match side {
            Side::Asks => &mut self.askers,
            Side::Answers => &mut self.responders,
        }
    }

    pub(super) fn note_heard(&mut self, side: Side, bytes: &[u8]) {
        self.traffic(side).heard.add(bytes);
    }

    /// Sends an item to whoever follows the `ask` topic.
    pub(super) fn send(&mut self, side: Side, kind: Kind, bytes: &Rc<[u8]>) {
        self.traffic(side).note_sent(kind, bytes);
        if self.chance.hits(LOST_ON_THE_WAY_IN, 1_000) {
            return;
        }
        for to in self.listeners.clone() {
            if !self.chance.hits(LOST_ON_THE_WAY_OUT, 1_000) {
                self.deliver(to, || Happening::Ask(bytes.clone()));
            }
        }
    }

    /// Appends an item to an inbox, where it stays.
    pub(super) fn append(&mut self, side: Side, kind: Kind, of: DeviceId, bytes: Rc<[u8]>) {
        self.traffic(side).note_sent(kind, &bytes);
        if kind == Kind::Bundle {
            *self.bundles.entry(of).or_default() += 1;
        }
        self.inboxes.entry(of).or_default().push(bytes.clone());
        let owner = self.owners.get(&of).copied();
        let followers = self.followers.range((of, 0)..=(of, usize::MAX));
        let all: Vec<_> = owner
            .into_iter()
            .chain(followers.map(|(_, at)| *at))
            .collect();
        for to in all {
            self.deliver(to, || Happening::Inbox(of, bytes.clone()));
        }
    }

    fn deliver(&mut self, to: usize, what: impl Fn() -> Happening) {
        let times = 1 + u64::from(self.chance.hits(TWICE, 1_000));
        for _ in 0..times {
            let (least, most) = DELAY_MS;
            let at = self.now.after(least + self.chance.below(most - least));
            self.plan(at, to, what());
        }
    }

    /// Lets a member follow the inbox of another. Returns what lies there.
    pub(super) fn follow(&mut self, of: DeviceId, who: usize) -> Vec<Rc<[u8]>> {
        self.followers.insert((of, who));
        self.inboxes.get(&of).cloned().unwrap_or_default()
    }

    pub(super) fn unfollow(&mut self, of: DeviceId, who: usize) {
        self.followers.remove(&(of, who));
    }

    pub(super) fn is_followed(&self, of: DeviceId, who: usize) -> bool {
        self.followers.contains(&(of, who))
    }
}
