//! Messages that keep their place behind what waits, though they cannot wait with it.
//!
//! One of QoS 2 that comes again may be with the client already, and so keeps the broker's number; and there may be no room
//! before the broker has said what comes again. They are not acknowledged, so that the broker has them still, and go on when
//! it was looked at what was there before them.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::future::poll_fn;
use std::task::Poll;

use sealcast::Name;

use crate::ahead::Ahead;
use crate::down::Down;
use crate::late::Scan;
use crate::packet::Publish;
use crate::rules::Down as Act;
use crate::wire::{Incoming, Packet};

/// What is put aside at most: as much as brokers send that was not acknowledged, unless they are told to send more. What is
/// beyond has no place to keep.
const MESSAGES_MAX: usize = 64;
const BYTES_MAX: usize = 1 << 20;

/// One of them.
struct Put {
    /// What waits under lower numbers goes before it.
    before: u64,
    id: u16,
    stream: Name,
    packet: Packet,
    bytes: usize,
    /// What it was opened to already.
    opened: Option<Ahead>,
}

/// Nothing is shown of what it was opened to.
impl fmt::Debug for Put {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Put({}, before {})", self.id, self.before)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Aside {
    all: VecDeque<Put>,
    bytes: usize,
    /// Numbers of those whose turn it is.
    turn: HashSet<u16>,
}

impl Aside {
    /// Whether any of a stream has not gone on yet.
    fn has(&self, stream: &Name) -> bool {
        self.all.iter().any(|of| of.stream == *stream)
    }

    /// Up to which number of what waits the next one lets others go first.
    pub(crate) fn next(&self) -> Option<u64> {
        self.all.front().map(|of| of.before)
    }

    /// Whether one of them is about to go on, and nothing else of what waits.
    pub(crate) fn is_going_on(&self) -> bool {
        !self.turn.is_empty()
    }

    /// It has gone on, or never will.
    pub(crate) fn went(&mut self, id: u16) {
        self.turn.remove(&id);
    }

    /// Whether it is the turn of the one with some number.
    fn is_turn(&self, id: Option<u16>) -> bool {
        id.is_some_and(|id| self.turn.contains(&id))
    }
}

impl Down {
    /// Whether a message can be put aside: the broker has it still, and it says its topic.
    pub(crate) fn may_put_aside(&self, publish: &Publish<'_>) -> bool {
        let is_room = self.aside.all.len() < MESSAGES_MAX
            && self.aside.bytes + publish.payload.len() <= BYTES_MAX;
        is_room && publish.id.is_some() && publish.alias.is_none() && !self.is_stuck(publish.id)
    }

    /// Puts one aside, with what it was opened to if it was.
    pub(crate) fn put_aside(
        &mut self,
        packet: &Packet,
        publish: &Publish<'_>,
        opened: Option<Ahead>,
    ) {
        let now = self.ruling.now();
        let (Some(id), Act::Open(stream, ..)) = (publish.id, now.rules.down(publish.topic)) else {
            return;
        };
        self.aside.bytes += publish.payload.len();
        self.aside.all.push_back(Put {
            before: self.lot.next(),
            id,
            stream: stream.clone(),
            packet: packet.clone(),
            bytes: publish.payload.len(),
            opened,
        });
    }

    /// Whether one that the client may have is to keep its place behind what is looked at.
    pub(crate) fn keeps_its_place(&self, publish: &Publish<'_>, stream: &Name) -> bool {
        let is_behind = self.lot.has(stream) || self.aside.has(stream);
        self.looks.scan != Scan::Idle
            && is_behind
            && self.is_clients(publish)
            && !self.aside.is_turn(publish.id)
            && self.may_put_aside(publish)
    }

    /// The next of them goes on.
    pub(crate) fn take_aside(&mut self) {
        if let Some(put) = self.aside.all.pop_front() {
            self.aside.bytes -= put.bytes;
            self.aside.turn.insert(put.id);
            self.stalled.push_front(Incoming::Packet(put.packet));
            // What others were opened to is theirs.
            self.ahead.push_front(put.opened);
        }
    }

    /// Whether the client may have a message with that number of the broker's: then it goes on with the number, or stays
    /// with the broker.
    pub(crate) fn is_clients(&self, publish: &Publish<'_>) -> bool {
        let is_known = |id| self.lot.has_number(id) || self.flow.holds(id);
        let comes_again = publish.qos() == 2 && publish.comes_again();
        comes_again && publish.id.is_some_and(|id| !is_known(id))
    }

    /// Whether others of its stream go first: they are looked at, or what opened it may open them.
    pub(crate) async fn goes_behind(&mut self, stream: &Name, publish: &Publish<'_>) -> bool {
        let is_any = self.lot.has(stream) || self.aside.has(stream);
        if self.is_clients(publish) || !is_any || self.aside.is_turn(publish.id) {
            return false;
        }
        if self.looks.scan != Scan::Idle {
            return true;
        }
        let Some(opening) = self.opening.get_mut(stream) else {
            return false;
        };
        let mut changed = opening.changed();
        let has_changed = poll_fn(|context| Poll::Ready(changed.as_mut().poll(context).is_ready()));
        let has_news = self.looks.is_fresh || has_changed.await;
        if has_news {
            self.looks.begin();
        }
        has_news
    }
}
