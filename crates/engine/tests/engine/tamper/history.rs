//! The history that is tampered with, and how it is read.

use std::collections::{BTreeMap, BTreeSet};

use sealcast_engine::{ControlTopic, Lineage, Mode, Output, Reader, StreamView};
use sealcast_protocol::{Draft, Frame, Interval, Position, Roles, StreamTopics};

use crate::rig::{NOON, OWNER, World, between, header, lines, since};

pub(super) type Bus = BTreeMap<String, Vec<Vec<u8>>>;

/// Until when the publisher may publish who is revoked.
pub(super) const TERM: Interval = Interval {
    from: Position::START,
    until: Position(NOON.0 + 86_400_000),
};

/// A small history, and who reads it.
pub(super) struct History {
    pub(super) world: World,
    reader: usize,
    pam: usize,
    rob: usize,
    ray: usize,
    /// What each item of the data topic is.
    pub(super) texts: Vec<&'static str>,
}

/// What became of each item of the data topic, of the topic's end, and what was told besides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) of_items: Vec<String>,
    pub(super) at_end: String,
    pub(super) alarms: BTreeSet<String>,
}

impl Outcome {
    /// Every text that opened, as often as it did.
    pub(super) fn opened(&self) -> BTreeMap<&str, usize> {
        let mut opened = BTreeMap::new();
        let all = self.of_items.iter().flat_map(|of| of.lines());
        for line in all.filter(|line| line.starts_with('"')) {
            *opened.entry(line).or_default() += 1;
        }
        opened
    }

    /// Without what is told of objects that nobody signed.
    pub(super) fn but_forged(mut self) -> Self {
        self.alarms.retain(|alarm| !alarm.starts_with("Forged"));
        self
    }

    /// What became of an item, without what is told of others that are missing.
    pub(super) fn but_gaps(&self, at: usize) -> Vec<&str> {
        let lines = self.of_items[at].lines();
        lines.filter(|line| !line.starts_with("gap")).collect()
    }

    pub(super) fn gaps(&self) -> usize {
        let all = self.of_items.iter().chain([&self.at_end]);
        all.map(|of| of.matches("gap").count()).sum()
    }
}

impl History {
    /// Owner, two publishers of whom one is revoked, two readers of whom one is; single messages,
    /// a frame, older data, a new session and a cut.
    pub(super) fn new() -> Self {
        let mut world = World::new(1_300);
        let (pam, rob) = (world.user(), world.user());
        let (reader, ray) = (world.user(), world.user());
        // Not the whole of time, so that covers are given and no roots.
        let most = since(Position(1));
        world.publish(OWNER, "\"owner 1\"").unwrap();
        world
            .grant(OWNER, pam, Roles::PUBLISHER, Interval::ALL)
            .unwrap();
        world.grant(OWNER, rob, Roles::PUBLISHER, TERM).unwrap();
        world.grant(OWNER, reader, Roles::READER, most).unwrap();
        world.grant(OWNER, ray, Roles::READER, most).unwrap();
        world.tick(10);
        world.publish(pam, "\"pam 1\"").unwrap();
        world.publish(rob, "\"rob 1\"").unwrap();
        world.publish(rob, "\"rob 2\"").unwrap();
        frame(&mut world, pam, &["\"framed 1\"", "\"framed 2\""]);
        world.tick(10);
        world.revoke_user(OWNER, rob).unwrap();
        world.revoke_user(OWNER, ray).unwrap();
        world.cut(OWNER);
        world.publish(OWNER, "\"owner 2\"").unwrap();
        let past = between(Position(5_000), Position(9_000));
        world.backfill(
            OWNER,
            past,
            &[(5_000, "\"older 1\""), (6_000, "\"older 2\"")],
        );
        world.tick(10);
        world.new_run(OWNER);
        world.rekey(OWNER);
        world.publish(OWNER, "\"owner 3\"").unwrap();
        world.publish(OWNER, "\"owner 4\"").unwrap();
        world.publish(pam, "\"pam 2\"").unwrap();
        Self {
            world,
            reader,
            pam,
            rob,
            ray,
            texts: vec![
                "owner 1", "pam 1", "rob 1", "rob 2", "framed", "owner 2", "older 1", "older 2",
                "owner 3", "owner 4", "pam 2",
            ],
        }
    }

    pub(super) fn bus(&self) -> Bus {
        self.world.bus.clone()
    }

    pub(super) fn data(&self) -> String {
        StreamTopics(self.world.stream).data()
    }

    /// Every item of the control topics: its topic, its place, and what it is.
    pub(super) fn control(&self) -> Vec<(String, usize, String)> {
        let names = [(OWNER, "owner"), (self.pam, "pam"), (self.rob, "rob")];
        let names = names
            .into_iter()
            .chain([(self.reader, "reader"), (self.ray, "ray")]);
        let mut items = Vec::new();
        for (peer, name) in names {
            let list = self.world.id(peer).devices_topic();
            let chain = StreamTopics(self.world.stream).access(&self.world.device(peer));
            for (topic, kind) in [(list, "list"), (chain, "log")] {
                let len = self.world.bus.get(&topic).map_or(0, Vec::len);
                items.extend((0..len).map(|at| (topic.clone(), at, format!("{kind} {name} {at}"))));
            }
        }
        let keys = StreamTopics(self.world.stream).keys();
        let what = |item: &[u8]| match item.len() > 16 && is_record(item) {
            true => "record",
            false => "bundle",
        };
        let all = self.world.keys().iter().enumerate();
        items.extend(all.map(|(at, item)| (keys.clone(), at, format!("{} {at}", what(item)))));
        items
    }

    /// A view of the reader's that has read this bus, and nothing before.
    pub(super) fn view(&self, bus: &Bus) -> (StreamView, BTreeSet<String>) {
        let (world, mut read) = (&self.world, BTreeMap::new());
        let owner = world.id(OWNER);
        let mut view = StreamView::new(world.stream, owner, &world.peers[self.reader].identity);
        let mut read_on = |view: &mut StreamView, of: &ControlTopic| {
            let name = of.name(world.stream);
            let items = bus.get(&name).map_or(&[][..], Vec::as_slice);
            let from = read.insert(name, items.len()).unwrap_or(0);
            items[from..].iter().for_each(|item| view.handle(of, item));
            from < items.len()
        };
        loop {
            let mut is_news = false;
            for of in view.wanted().iter().filter(|of| **of != ControlTopic::Keys) {
                is_news |= read_on(&mut view, of);
            }
            view.settle();
            if !is_news {
                break;
            }
        }
        read_on(&mut view, &ControlTopic::Keys);
        view.settle();
        let outputs = std::iter::from_fn(|| view.poll_output());
        let alarms = outputs.filter_map(|output| match output {
            Output::Tell(alarm) => Some(format!("{alarm:?}")),
            Output::Persist(_) => None,
        });
        let alarms = alarms.collect();
        (view, alarms)
    }

    pub(super) fn read(&self, bus: &Bus) -> Outcome {
        let (view, alarms) = self.view(bus);
        self.read_with(&view, alarms, bus)
    }

    pub(super) fn read_with(
        &self,
        view: &StreamView,
        alarms: BTreeSet<String>,
        bus: &Bus,
    ) -> Outcome {
        let data = bus.get(&self.data()).map_or(&[][..], Vec::as_slice);
        let mut lineage = Lineage::new(view.state().revoked_tips());
        data.iter()
            .for_each(|item| lineage.observe(&self.world.stream, item));
        let mut reader = Reader::new(Mode::History(Interval::ALL));
        reader.allow(lineage.resolve());
        let drain =
            |reader: &mut Reader| lines(std::iter::from_fn(|| reader.poll_event()).collect());
        let mut of_items = Vec::new();
        for item in data {
            reader.handle(view, item);
            of_items.push(drain(&mut reader));
        }
        reader.give_up(view, true);
        Outcome {
            of_items,
            at_end: drain(&mut reader),
            alarms,
        }
    }

    /// Who sealed an item of the data topic, and when the log lets them.
    pub(super) fn term(&self, item: &[u8]) -> Interval {
        match header(item).device == self.world.device(self.rob) {
            true => TERM,
            false => Interval::ALL,
        }
    }
}

fn frame(world: &mut World, peer: usize, texts: &[&str]) {
    world.sync(peer);
    let mut frame = Frame::with_capacity(4096);
    for text in texts {
        frame.push(world.now, text.as_bytes()).unwrap();
    }
    let now = world.now;
    let of = &mut world.peers[peer];
    let drafts = [Draft::Frame(&frame)];
    let sealed = of.publisher.seal(now, &mut of.lane, &of.view, &drafts);
    let sealed = sealed.unwrap();
    of.publisher.advance(&sealed);
    world.data().push(sealed.envelopes[0].bytes.clone());
}

fn is_record(item: &[u8]) -> bool {
    sealcast_protocol::Unverified::<sealcast_protocol::SessionRecord>::decode(item).is_ok()
}

/// How a byte is altered.
pub(super) const PATTERNS: [u8; 3] = [0x01, 0x80, 0xff];

impl History {
    /// What becomes of an item when another is refused or missing. What a revoked publisher sealed
    /// counts for what the tip of its branch leads to, over all that lies between and is named.
    fn but_without<'a>(
        &self,
        reference: &'a Outcome,
        at: usize,
        altered: usize,
        is_named: bool,
    ) -> Vec<&'a str> {
        let of_rob = |at: usize| self.texts[at].starts_with("rob");
        match of_rob(at) && of_rob(altered) && at < altered && !is_named {
            true => vec!["rejected: AfterRevocation"],
            false => reference.but_gaps(at),
        }
    }

    /// Checks a reading in which one item of the data topic, and nothing else, was refused.
    pub(super) fn check_others(
        &self,
        reference: &Outcome,
        found: &Outcome,
        altered: usize,
        what: &str,
    ) {
        self.check_others_named(reference, found, altered, false, what);
    }

    /// As [`check_others`](Self::check_others), where the hash of the refused item may be what it was.
    pub(super) fn check_others_named(
        &self,
        reference: &Outcome,
        found: &Outcome,
        altered: usize,
        is_named: bool,
        what: &str,
    ) {
        for at in (0..reference.of_items.len()).filter(|at| *at != altered) {
            let expected = self.but_without(reference, at, altered, is_named);
            assert_eq!(found.but_gaps(at), expected, "{what}: item {at}");
        }
        assert_eq!(found.alarms, reference.alarms, "{what}");
    }
}

impl History {
    /// The bus with other items in the place of one.
    pub(super) fn with(
        &self,
        topic: &str,
        at: usize,
        instead: impl IntoIterator<Item = Vec<u8>>,
    ) -> Bus {
        let mut bus = self.bus();
        bus.get_mut(topic).unwrap().splice(at..=at, instead);
        bus
    }

    pub(super) fn lost(&self, reference: &Outcome, without: &Outcome) -> String {
        let mut lost = BTreeMap::<String, Vec<&str>>::new();
        for (at, text) in self.texts.iter().enumerate() {
            if without.but_gaps(at) != reference.but_gaps(at) {
                let told = without.but_gaps(at).join(", ");
                lost.entry(told).or_default().push(text);
            }
        }
        let lost = lost.into_iter();
        let lost: Vec<_> = lost
            .map(|(told, texts)| format!("{told}: {}", texts.join(", ")))
            .collect();
        lost.join("; ")
    }
}

/// An item with each of its bytes altered, one at a time.
pub(super) fn altered(item: &[u8]) -> Vec<Vec<u8>> {
    let altered = |at: usize| {
        let mut item = item.to_vec();
        item[at] ^= PATTERNS[at % 3];
        item
    };
    (0..item.len()).map(altered).collect()
}

/// An item cut short at every length, and grown by a byte.
pub(super) fn cut(item: &[u8]) -> Vec<Vec<u8>> {
    let cut = (0..item.len()).map(|len| item[..len].to_vec());
    cut.chain([[item, &[0]].concat()]).collect()
}

/// What the others are compared with.
#[test]
fn the_history_that_is_tampered_with_opens_as_it_should() {
    let history = History::new();
    let outcome = history.read(&history.bus());
    let told: Vec<_> = outcome.of_items.iter().map(String::as_str).collect();
    assert_eq!(
        told,
        [
            "\"owner 1\"\n",
            "\"pam 1\"\n",
            "\"rob 1\"\n",
            "\"rob 2\"\n",
            "\"framed 1\"\n\"framed 2\"\n",
            "\"owner 2\"\n",
            "\"older 1\"\n",
            "\"older 2\"\n",
            "\"owner 3\"\n",
            "\"owner 4\"\n",
            "\"pam 2\"\n",
        ]
    );
    assert_eq!((outcome.at_end.as_str(), outcome.alarms.len()), ("", 0));
    let items = history.control();
    let all: BTreeMap<_, usize> = items.iter().fold(BTreeMap::new(), |mut all, (_, _, of)| {
        *all.entry(of.split(' ').next().unwrap()).or_default() += 1;
        all
    });
    let of = |kind: &str| all[kind];
    assert_eq!(
        (of("list"), of("log"), of("record"), of("bundle")),
        (5, 7, 7, 11)
    );
}
