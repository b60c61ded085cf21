//! One device: its home, and the run of its program. The steps and their order are those of the
//! client, without its threads.

mod access;
mod asker;
mod combiner;
mod dealing;
mod devices;
mod due;
mod live;
mod lost;
mod parked;
mod publish;
mod releaser;
mod request;
mod responder;
mod rollback;
mod share;
mod sync;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use sealcast_engine::{Alarm, ControlTopic, Identity, Output, Publisher, Put, StreamView};
use sealcast_protocol::{CardList, DeviceId, Position, UserId};

use crate::around::{Around, Stop};
use crate::ground::Entries;
use crate::home::Home;
use crate::model::Who;
use crate::place::{Place, Places};
use crate::plant::Plant;
use crate::seeded::Seeded;

use asker::Asking;
use lost::Lost;
use releaser::Releasing;
use request::Lacking;
use responder::Answering;

pub(crate) use access::{Bound, Terms};
pub(crate) use live::{Live, Outcome};
pub(crate) use publish::Draft;
pub(crate) use releaser::Nature;

/// One device of one user.
#[derive(Debug)]
pub(crate) struct Device {
    /// Its number, by which the bus knows it.
    pub(crate) at: usize,
    pub(crate) identity: Identity,
    pub(crate) home: Home,
    /// How far its clock is ahead, or behind.
    pub(crate) skew_ms: i64,
    /// What its program knows while it runs.
    pub(crate) run: Option<Box<Run>>,
    /// Never to be started again.
    pub(crate) is_gone: bool,
    /// Older states of its home.
    pub(crate) copies: Vec<Home>,
    /// The most that its clock ever was ahead.
    pub(crate) skew_max_ms: i64,
    /// Whether its home was put back, so that only its clock may tell it what it had done.
    pub(crate) was_restored: bool,
    pub(crate) starts: u64,
    /// Records that live reading delivered, up to the last time its place was kept.
    pub(crate) delivered: RefCell<BTreeSet<(usize, usize)>>,
    /// Messages of which it was said that they wait.
    pub(crate) parked: RefCell<BTreeSet<usize>>,
    /// Publishers' devices of whose gaps it was told, by whichever run.
    pub(crate) gaps: RefCell<BTreeSet<DeviceId>>,
    /// Whether it answers who asks for keys.
    pub(crate) answers: bool,
    /// Whether it is a key node, and which kind.
    pub(crate) node: Option<Nature>,
}

/// What a device knows while its program runs.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) view: StreamView,
    pub(crate) alarms: Vec<Alarm>,
    places: Places,
    /// Whether the keys topic is being read again from its start, and was not read to its end yet.
    rereads_keys: bool,
    gone_back: BTreeSet<ControlTopic>,
    lost: Lost,
    puts: Vec<Put>,
    moved: BTreeMap<[u8; 32], Place>,
    taken_in: Vec<([u8; 32], Arc<[u8]>)>,
    forgets_given: bool,
    read_at: Option<u64>,
    owes_keys: bool,
    lost_keys: BTreeSet<UserId>,
    publisher: Publisher,
    unsent: Vec<Vec<u8>>,
    pub(crate) live: Option<Live>,
    known: Rc<Entries>,
    known_at: (usize, usize),
    asking: Asking,
    answering: Option<Answering>,
    releasing: Option<Releasing>,
    lacking: Lacking,
}

impl Run {
    /// When its asker has something to do.
    pub(crate) fn asks_at(&self, skew_ms: i64) -> Option<u64> {
        self.asking.next_at(skew_ms)
    }

    /// When its responder has something to do.
    pub(crate) fn answers_at(&self, skew_ms: i64) -> Option<u64> {
        self.answering.as_ref()?.next_at(skew_ms)
    }

    /// What releases keys here, where this is a key node.
    pub(crate) fn releasing(&self) -> Option<&Releasing> {
        self.releasing.as_ref()
    }
}

/// A device at work.
#[derive(Debug)]
pub(crate) struct Acting<'a> {
    pub(crate) device: &'a Device,
    pub(crate) run: &'a mut Run,
    pub(crate) around: &'a mut Around,
}

/// What a device must not meet.
const ALARMS_MAX: usize = 256;

impl Device {
    /// Starts the program, if it does not run: what is kept comes back, and the bus is read.
    pub(crate) fn start(&mut self, around: &mut Around) -> Result<(), Stop> {
        if self.run.is_some() || self.is_gone {
            return Ok(());
        }
        self.starts += 1;
        let mut view = self.home.view(around.owner, &self.identity)?;
        let mut alarms = Vec::new();
        while let Some(output) = view.poll_output() {
            if let Output::Tell(alarm) = output {
                alarms.push(alarm);
            }
        }
        let publisher = new_run(&self.identity, around);
        self.run = Some(Box::new(Run {
            view,
            alarms,
            places: Places::new(self.home.places()?),
            rereads_keys: false,
            gone_back: BTreeSet::new(),
            lost: Lost::new(self.home.lost()?),
            puts: Vec::new(),
            moved: BTreeMap::new(),
            taken_in: Vec::new(),
            forgets_given: false,
            read_at: None,
            owes_keys: true,
            lost_keys: BTreeSet::new(),
            publisher,
            unsent: Vec::new(),
            live: None,
            known: Rc::default(),
            known_at: (usize::MAX, 0),
            asking: Asking::new(),
            answering: self.answers.then(Answering::new),
            releasing: None,
            lacking: BTreeMap::new(),
        }));
        around.air.deafen(self.at);
        if self.answers {
            around.air.listen(self.at);
        }
        let opened = self.act(around, |acting| {
            acting.publish_cards()?;
            acting.sync()?;
            acting.resend_entry()?;
            acting.announce_drawn()?;
            acting.look_back()?;
            acting.begin_releasing()?;
            acting.go_on_answering()
        });
        if opened.is_err() {
            self.run = None;
        }
        opened
    }

    /// Lets the program do something. It ends where it crashes.
    pub(crate) fn act<T>(
        &mut self,
        around: &mut Around,
        step: impl FnOnce(&mut Acting<'_>) -> Result<T, Stop>,
    ) -> Result<T, Stop> {
        let Some(mut run) = self.run.take() else {
            return Err(Stop::Refused("it does not run"));
        };
        let result = step(&mut Acting {
            device: self,
            run: &mut run,
            around,
        });
        match &result {
            Err(Stop::Crashed) => match around.plant {
                Some(Plant::LoseLane) => self.home.danger_lose_lane()?,
                Some(Plant::LoseParked) => self.home.danger_lose_parked()?,
                _ => {}
            },
            Ok(_) | Err(Stop::Unreachable | Stop::Refused(_) | Stop::Violated(_)) => {
                self.run = Some(run);
            }
        }
        result
    }

    pub(crate) fn user(&self) -> UserId {
        self.identity.user()
    }

    /// The device and its user.
    pub(crate) fn who(&self) -> Who {
        (self.identity.user(), self.identity.device())
    }

    fn has_delivered(&self, record: &(usize, usize)) -> bool {
        self.delivered.borrow().contains(record)
    }
}

fn new_run(identity: &Identity, around: &mut Around) -> Publisher {
    match around.plant {
        Some(Plant::RepeatRun) => Publisher::new(around.stream, identity, &mut Seeded::new(0)),
        _ => Publisher::new(around.stream, identity, &mut around.rng),
    }
}

impl Acting<'_> {
    /// This device's clock.
    pub(crate) fn now(&self) -> Position {
        Position(self.around.now.saturating_add_signed(self.device.skew_ms))
    }

    pub(crate) fn note(&mut self, what: std::fmt::Arguments<'_>) {
        self.around.note(self.device.at, what);
    }

    fn effect(&mut self, what: &str) -> Result<(), Stop> {
        self.around.effect(self.device.at, what)
    }

    pub(crate) fn tell(&mut self, alarm: Alarm) {
        if self.run.alarms.len() < ALARMS_MAX && !self.run.alarms.contains(&alarm) {
            self.note(format_args!("alarm: {alarm}"));
            self.run.alarms.push(alarm);
        }
    }

    /// What this device knows of the access log now.
    fn known(&mut self) -> Rc<Entries> {
        let log = self.run.view.log().entries().count();
        let at = (log, self.around.ground.entries.len());
        if self.run.known_at != at {
            self.run.known = Rc::new(self.around.ground.known_to(&self.run.view));
            self.run.known_at = at;
        }
        self.run.known.clone()
    }

    /// As [`publish_cards`](Self::publish_cards), on the device that writes the list.
    pub(crate) fn level_list(&mut self) -> Result<(), Stop> {
        match self.device.identity.root().is_some() {
            true => self.publish_cards(),
            false => Ok(()),
        }
    }

    /// Puts on the bus what it lacks of this user's device list.
    pub(crate) fn publish_cards(&mut self) -> Result<(), Stop> {
        let user = self.device.user();
        let topic = user.devices_topic();
        let mut there = CardList::new(user);
        for item in self.around.read(self.device.at, &topic, 0, usize::MAX)? {
            let _is_of_list = there.apply(&item.bytes).is_ok();
        }
        let own = self.device.home.list_entries()?.into_iter();
        let own = own.filter(|(of, _)| *of == user);
        let lacking: Vec<_> = own
            .skip(there.next_seq() as usize)
            .map(|(_, entry)| entry)
            .collect();
        if !lacking.is_empty() {
            self.around.append(self.device.at, &topic, &lacking)?;
        }
        Ok(())
    }
}
