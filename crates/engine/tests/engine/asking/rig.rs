//! Devices that ask and answer, an `ask` topic with a delay, inboxes, and a clock that jumps.

use std::collections::{BTreeMap, BTreeSet};

use sealcast_crypto::{Cover, SessionRoot, UnwrapKey};
use sealcast_engine::{
    AskBody, Asker, AskerEvent, AskerInput, AskerLimits, AskerOutput, ControlTopic, Decision, End,
    Event, Handout, HandoutKey, OneUse, Output, Question, Responder, ResponderInput,
    ResponderLimits, ResponderOutput, wrap_handout,
};
use sealcast_protocol::{
    AskItem, Bundle, BundleContext, DeviceId, Grant, Interval, KeyUse, LogBody, LogHash, Position,
    RequestId, Roles, SessionId, Sharing, Solicitation, StreamTopics, UserId, Want, seal_bundle,
    sign, wrap_key_hash,
};

use crate::rig::{OWNER, World, header};

/// How long anything takes from one device to another.
pub(crate) const DELAY_MS: u64 = 20;

/// What a device does with the answers that it should give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Giving {
    Honest,
    /// Claims, and is gone before it gives.
    Dies,
    /// Gives covers of a root that it made up.
    False,
}

pub(crate) struct Node {
    pub(crate) asker: Asker,
    pub(crate) responder: Responder,
    pub(crate) answers: bool,
    pub(crate) is_up: bool,
    pub(crate) policy: fn(&Question) -> Decision,
    pub(crate) giving: Giving,
    pub(crate) events: Vec<AskerEvent>,
    pub(crate) questions: Vec<Question>,
    pub(crate) opened: BTreeSet<String>,
    pub(crate) bad_covers: usize,
    /// What of the `ask` topic does not reach it.
    pub(crate) misses: fn(&AskItem) -> bool,
    followed: BTreeSet<DeviceId>,
}

/// What went over the bus.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) solicitations: usize,
    pub(crate) claims: usize,
    pub(crate) refusals: usize,
    pub(crate) receipts: usize,
    pub(crate) bundles: usize,
}

enum Carried {
    Ask(Vec<u8>),
    Inbox(DeviceId, Vec<u8>),
}

pub(crate) struct Net {
    pub(crate) world: World,
    pub(crate) nodes: Vec<Node>,
    pub(crate) sent: Sent,
    /// Every item of the `ask` topic, in order.
    pub(crate) asked: Vec<Vec<u8>>,
    /// Answers on their way, and who gave them.
    pub(crate) given: Vec<(usize, Vec<u8>)>,
    /// Items of the `ask` topic that reach nobody, from now on.
    pub(crate) loses: usize,
    on_the_way: BTreeMap<(Position, usize), Carried>,
    counter: usize,
}

impl Net {
    /// A stream whose keys are given on request only. Nobody answers yet.
    pub(crate) fn new(seed: u64) -> Self {
        Self::of(World::with(seed, Sharing::OnRequest, false))
    }

    pub(crate) fn of(world: World) -> Self {
        let mut net = Self {
            world,
            nodes: Vec::new(),
            sent: Sent::default(),
            asked: Vec::new(),
            given: Vec::new(),
            loses: 0,
            on_the_way: BTreeMap::new(),
            counter: 0,
        };
        net.admit();
        net
    }

    fn admit(&mut self) {
        while self.nodes.len() < self.world.peers.len() {
            self.nodes.push(Node {
                asker: Asker::new(AskerLimits::default()),
                responder: Responder::new(ResponderLimits::default()),
                answers: false,
                is_up: true,
                policy: |_| Decision::Give,
                giving: Giving::Honest,
                events: Vec::new(),
                questions: Vec::new(),
                opened: BTreeSet::new(),
                bad_covers: 0,
                misses: |_| false,
                followed: BTreeSet::new(),
            });
        }
    }

    pub(crate) fn user(&mut self) -> usize {
        let peer = self.world.user();
        self.admit();
        peer
    }

    pub(crate) fn device_of(&mut self, peer: usize) -> usize {
        let device = self.world.device_of(peer);
        self.admit();
        device
    }

    /// A user who may read an interval, without the keys.
    pub(crate) fn reader(&mut self, interval: Interval) -> usize {
        let reader = self.user();
        self.grant(reader, Roles::READER, interval, false);
        reader
    }

    /// A user who may read an interval and hand its keys on.
    pub(crate) fn resharer(&mut self, interval: Interval) -> usize {
        let reader = self.user();
        self.grant(reader, Roles::READER, interval, true);
        reader
    }

    /// A user who holds every key, and answers.
    pub(crate) fn admin(&mut self) -> usize {
        let admin = self.user();
        self.grant(admin, Roles::ADMIN, Interval::ALL, false);
        self.world
            .share(OWNER, sealcast_engine::SharedWith::Everyone);
        self.world.sync(admin);
        self.answers(admin);
        admin
    }

    pub(crate) fn grant(&mut self, to: usize, roles: Roles, interval: Interval, reshare: bool) {
        let grant = Grant {
            user: self.world.id(to),
            devices: Vec::new(),
            roles,
            lanes: Vec::new(),
            interval,
            reshare,
        };
        self.world.write(OWNER, LogBody::Grant(grant)).unwrap();
        self.learn();
    }

    /// Lets everybody read the control topics to their end.
    pub(crate) fn learn(&mut self) {
        for peer in 0..self.nodes.len() {
            self.world.sync(peer);
            self.respond(peer, ResponderInput::Learned);
        }
    }

    pub(crate) fn answers(&mut self, peer: usize) {
        self.nodes[peer].answers = true;
    }

    /// Reads all messages; what does not open is asked for.
    pub(crate) fn read(&mut self, peer: usize) {
        for event in self.world.events(peer, Interval::ALL) {
            match event {
                Event::Opened {
                    header, payload, ..
                } => {
                    let text = String::from_utf8(payload.expose().to_vec()).unwrap();
                    self.nodes[peer].opened.insert(text);
                    let (session, position) = (header.session, header.position);
                    self.ask(peer, AskerInput::Opened { session, position });
                }
                Event::Sealed { header, user, .. } => self.miss(peer, user, &header),
                Event::Rejected {
                    header: Some(header),
                    user: Some(user),
                    givers,
                    ..
                } if !givers.is_empty() => self.miss(peer, user, &header),
                Event::BadCover { giver, session } => {
                    self.nodes[peer].bad_covers += 1;
                    self.world.peers[peer].view.doubt(&session, &giver);
                }
                Event::Rejected { .. } | Event::Noticed { .. } => (),
            }
        }
    }

    pub(crate) fn miss(&mut self, peer: usize, lane: UserId, header: &sealcast_protocol::Header) {
        let missing = AskerInput::Missing {
            lane,
            session: header.session,
            interval: crate::rig::between(header.position, header.position.after(1)),
        };
        self.ask(peer, missing);
    }

    /// Hands something to the asker of a device, and does what comes out.
    pub(crate) fn ask(&mut self, peer: usize, input: AskerInput<'_>) {
        let now = self.world.now;
        let view = &self.world.peers[peer].view;
        self.nodes[peer].asker.handle(now, view, input);
        while let Some(output) = self.nodes[peer].asker.poll_output() {
            match output {
                AskerOutput::Draw => {
                    let mut request = [0; 16];
                    rand_core::Rng::fill_bytes(&mut self.world.rng, &mut request);
                    let drawn = OneUse {
                        request: RequestId(request),
                        key: UnwrapKey::generate(&mut self.world.rng),
                    };
                    self.ask(peer, AskerInput::Drawn(drawn));
                }
                AskerOutput::Send(body) => self.send(peer, body),
                AskerOutput::Take(answer) => {
                    let of = &mut self.world.peers[peer];
                    of.view.take_answer(answer);
                    while let Some(output) = of.view.poll_output() {
                        match output {
                            Output::Persist(put) => {
                                let value = put.value.expose().to_vec();
                                of.store.insert((put.space, put.id), value);
                            }
                            Output::Tell(alarm) => of.alarms.push(alarm),
                        }
                    }
                    self.read(peer);
                }
                AskerOutput::Tell(event) => self.nodes[peer].events.push(event),
            }
        }
    }

    /// Does something to the responder of a device, and what comes out.
    pub(crate) fn respond(&mut self, peer: usize, input: ResponderInput<'_>) {
        if !self.nodes[peer].answers || !self.nodes[peer].is_up {
            return;
        }
        let now = self.world.now;
        let view = &self.world.peers[peer].view;
        self.nodes[peer].responder.handle(now, view, input);
        while let Some(output) = self.nodes[peer].responder.poll_output() {
            match output {
                ResponderOutput::Send(body) => self.send(peer, body),
                ResponderOutput::Decide(question) => self.decide(peer, question),
                ResponderOutput::Give(handout) => self.give(peer, &handout),
                ResponderOutput::Follow(device) => {
                    self.nodes[peer].followed.insert(device);
                    let inbox = self.world.bus.get(&device.inbox_topic());
                    for item in inbox.cloned().unwrap_or_default() {
                        self.respond(peer, ResponderInput::InboxItem(&item));
                    }
                }
                ResponderOutput::Unfollow(device) => {
                    self.nodes[peer].followed.remove(&device);
                }
                ResponderOutput::ReadList(user) => {
                    let topic = ControlTopic::Devices(user);
                    let items = self.world.bus.get(&user.devices_topic()).cloned();
                    let view = &mut self.world.peers[peer].view;
                    for item in items.unwrap_or_default() {
                        view.handle(&topic, &item);
                    }
                    view.settle();
                    self.respond(peer, ResponderInput::Learned);
                }
            }
        }
    }

    fn decide(&mut self, peer: usize, question: Question) {
        if self.nodes[peer].giving == Giving::Dies {
            self.nodes[peer].is_up = false;
            return;
        }
        let decision = (self.nodes[peer].policy)(&question);
        let (asker, request) = (question.asker, question.request);
        self.nodes[peer].questions.push(question);
        let decided = ResponderInput::Decided {
            asker,
            request,
            decision,
        };
        self.respond(peer, decided);
    }

    fn give(&mut self, peer: usize, handout: &Handout) {
        let of = &self.world.peers[peer];
        let rng = &mut self.world.rng;
        let bundle = match self.nodes[peer].giving {
            Giving::False => Some(false_bundle(&self.world, peer, handout)),
            Giving::Honest | Giving::Dies => wrap_handout(&of.view, &of.identity, rng, handout)
                .unwrap()
                .map(|bundle| bundle.wire().to_vec()),
        };
        if let Some(bundle) = bundle {
            self.given.push((peer, bundle.clone()));
            self.sent.bundles += 1;
            self.carry(Carried::Inbox(handout.device, bundle));
        }
    }

    fn send(&mut self, peer: usize, body: AskBody) {
        let count = match &body {
            AskBody::Solicitation(_) => &mut self.sent.solicitations,
            AskBody::Claim(_) => &mut self.sent.claims,
            AskBody::Refusal(_) => &mut self.sent.refusals,
            AskBody::Receipt(_) => &mut self.sent.receipts,
        };
        *count += 1;
        let inbox = body.inbox();
        let bytes = self.signed(peer, body);
        self.put_ask(bytes.clone());
        if let Some(device) = inbox {
            self.carry(Carried::Inbox(device, bytes));
        }
    }

    /// Puts something on the `ask` topic.
    pub(crate) fn put_ask(&mut self, bytes: Vec<u8>) {
        self.asked.push(bytes.clone());
        match self.loses.checked_sub(1) {
            Some(left) => self.loses = left,
            None => self.carry(Carried::Ask(bytes)),
        }
    }

    /// Puts something in a device's inbox.
    pub(crate) fn put_inbox(&mut self, peer: usize, bytes: Vec<u8>) {
        self.carry(Carried::Inbox(self.world.device(peer), bytes));
    }

    fn carry(&mut self, carried: Carried) {
        self.counter += 1;
        let at = self.world.now.after(DELAY_MS);
        self.on_the_way.insert((at, self.counter), carried);
    }

    fn deliver(&mut self, carried: Carried) {
        match carried {
            Carried::Ask(bytes) => {
                let item = AskItem::decode(&bytes);
                for peer in 0..self.nodes.len() {
                    let misses = self.nodes[peer].misses;
                    if !item.as_ref().is_ok_and(misses) {
                        self.respond(peer, ResponderInput::Item(&bytes));
                    }
                }
            }
            Carried::Inbox(device, bytes) => {
                self.world.put(&device.inbox_topic(), &bytes);
                for peer in 0..self.nodes.len() {
                    if self.world.device(peer) == device {
                        self.ask(peer, AskerInput::InboxItem(&bytes));
                    }
                    if self.nodes[peer].followed.contains(&device) {
                        self.respond(peer, ResponderInput::InboxItem(&bytes));
                    }
                }
            }
        }
    }

    /// When something happens next.
    fn next(&self) -> Option<Position> {
        let nodes = self.nodes.iter();
        let askers = nodes.clone().filter_map(|of| of.asker.next_timeout());
        let answering = nodes.filter(|of| of.answers && of.is_up);
        let responders = answering.filter_map(|of| of.responder.next_timeout());
        let carried = self.on_the_way.keys().next().map(|(at, _)| *at);
        askers.chain(responders).chain(carried).min()
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, ms: u64) {
        let end = self.world.now.after(ms);
        while let Some(at) = self.next().filter(|at| *at <= end) {
            self.world.now = self.world.now.max(at);
            while let Some((at, carried)) = self.on_the_way.pop_first() {
                if at.0 > self.world.now {
                    self.on_the_way.insert(at, carried);
                    break;
                }
                self.deliver(carried);
            }
            self.tick();
        }
        self.world.now = end;
        self.tick();
    }

    fn tick(&mut self) {
        for peer in 0..self.nodes.len() {
            self.ask(peer, AskerInput::Tick);
            self.respond(peer, ResponderInput::Tick);
        }
    }

    /// How long a device waits for the messages that it lacks, at most so long.
    pub(crate) fn time_to_open(&mut self, peer: usize, ms_max: u64) -> Option<u64> {
        let start = self.world.now;
        self.read(peer);
        while self.world.now.0 - start.0 < ms_max {
            if self.nodes[peer].asker.wants() == 0 {
                return Some(self.world.now.0 - start.0);
            }
            self.run(1);
        }
        None
    }

    pub(crate) fn ends(&self, peer: usize) -> Vec<End> {
        let events = self.nodes[peer].events.iter();
        let end = |event: &AskerEvent| {
            let AskerEvent::Ended { end, .. } = event else {
                return None;
            };
            Some(*end)
        };
        events.filter_map(end).collect()
    }

    pub(crate) fn opened(&self, peer: usize) -> Vec<&str> {
        self.nodes[peer].opened.iter().map(String::as_str).collect()
    }

    /// The intervals in the answers that were given, by giver.
    pub(crate) fn given_covers(&self) -> Vec<(usize, SessionId, Interval)> {
        let mut covers = Vec::new();
        for (giver, bytes) in &self.given {
            let bundle = sealcast_protocol::Unverified::<Bundle>::decode(bytes).unwrap();
            let specs = &bundle.claims().context.covers;
            covers.extend(specs.iter().map(|of| (*giver, of.session, of.interval)));
        }
        covers
    }

    /// The requests on the `ask` topic.
    pub(crate) fn solicitations(&self) -> Vec<Solicitation> {
        let decoded = self.asked.iter().filter_map(|of| AskItem::decode(of).ok());
        let asked = decoded.filter_map(|item| match item {
            AskItem::Solicitation(of) => Some(of.claims().clone()),
            AskItem::Claim(_) | AskItem::Refusal(_) | AskItem::Receipt(_) => None,
        });
        asked.collect()
    }

    /// A request of a device as its program would make it, for wants of one's own.
    pub(crate) fn solicitation(&self, peer: usize, wants: Vec<Want>) -> Solicitation {
        let of = &self.world.peers[peer];
        let list = of.view.list(&of.identity.user()).unwrap();
        Solicitation {
            version: 1,
            stream: self.world.stream,
            user: of.identity.user(),
            device: of.identity.device(),
            list: list.pin().unwrap(),
            request: RequestId([1; 16]),
            key: one_use_key(peer).wrap_key().as_bytes().to_vec(),
            wants,
            heads: of.view.log().heads(&LogHash([0; 32])),
            time: self.world.now,
            expires: self.world.now.after(30_000),
        }
    }

    pub(crate) fn signed(&self, peer: usize, body: AskBody) -> Vec<u8> {
        let key = self.world.peers[peer].identity.signing();
        body.sign(key).unwrap()
    }

    pub(crate) fn put_solicitation(&mut self, peer: usize, body: Solicitation) {
        let bytes = self.signed(peer, AskBody::Solicitation(Box::new(body)));
        self.put_ask(bytes);
    }

    /// The session of each message, in order.
    pub(crate) fn sessions(&self) -> Vec<SessionId> {
        let topic = StreamTopics(self.world.stream).data();
        let data = self.world.bus.get(&topic).into_iter().flatten();
        data.map(|item| header(item).session).collect()
    }

    /// The session of the first message.
    pub(crate) fn session(&self) -> SessionId {
        self.sessions()[0]
    }

    pub(crate) fn want(&self, lane: usize, session: SessionId, interval: Interval) -> Want {
        Want {
            lane: self.world.id(lane),
            session,
            interval,
        }
    }
}

/// The one-use key of requests that tests make by hand.
pub(crate) fn one_use_key(peer: usize) -> UnwrapKey {
    UnwrapKey::from_seed(&[peer as u8 + 1; 32])
}

/// What a handout says, signed by a device, with keys that are none.
pub(crate) fn false_bundle(world: &World, peer: usize, handout: &Handout) -> Vec<u8> {
    let HandoutKey::OneUse { request, key } = &handout.to else {
        panic!("an answer");
    };
    let of = &world.peers[peer];
    let context = BundleContext {
        stream: world.stream,
        lane: handout.lane,
        giver_user: of.identity.user(),
        giver_device: of.identity.device(),
        user: handout.user,
        device: handout.device,
        key: KeyUse::OneUse,
        wrap_key_hash: wrap_key_hash(key),
        heads: Vec::new(),
        request: request.0,
        covers: handout.covers.clone(),
    };
    let root = SessionRoot::init_with(|bytes| bytes.fill(0xbd));
    let covers: Vec<_> = handout.covers.iter().map(|of| of.interval).collect();
    let covers: Vec<_> = covers
        .iter()
        .map(|of| Cover::from_root(&root, of.from.0, of.until.0))
        .collect();
    let covers: Vec<_> = covers.iter().collect();
    let mut rng = crate::rng::Seeded::new(9);
    let bundle = seal_bundle(&mut rng, context, &covers, key).unwrap();
    sign(of.identity.signing(), bundle).unwrap().wire().to_vec()
}
