//! Users, devices, a bus in memory and a clock in one hand.

use std::collections::{BTreeMap, BTreeSet};

use sealcast_crypto::{SecretBytes, SigningKey, UnwrapKey};
use sealcast_engine::{
    Alarm, Allowed, AuthorError, ControlTopic, DealtLane, Event, Identity, Lane, Lineage, Mode,
    NewSession, NotSealed, Notice, Output, Publisher, Reader, Refusal, Sealed, SharedWith, Space,
    StreamView, Tips, author, genesis, plan_handouts, wrap_handout,
};
use sealcast_protocol::{
    CardList, DeviceId, DeviceTarget, DeviceTips, Draft, Grant, Header, Interval, ListBody,
    LogBody, LogHash, Position, Revoke, Roles, SessionId, SessionKind, Sharing, StreamId,
    StreamTopics, Targets, UserId,
};

use crate::rng::Seeded;

/// Where the clock of every test starts.
pub(crate) const NOON: Position = Position(1_790_000_000_000);
/// The user who starts the stream.
pub(crate) const OWNER: usize = 0;

/// One device of one user, with its store.
pub(crate) struct Peer {
    pub(crate) identity: Identity,
    pub(crate) view: StreamView,
    pub(crate) lane: Lane,
    pub(crate) publisher: Publisher,
    pub(crate) alarms: Vec<Alarm>,
    pub(crate) store: BTreeMap<(Space, Vec<u8>), Vec<u8>>,
    pub(crate) cursors: BTreeMap<String, usize>,
    pub(crate) dealt: Option<DealtLane>,
    /// How often it read the keys again from their start.
    pub(crate) rereads: usize,
}

/// Everybody, and what is between them.
pub(crate) struct World {
    pub(crate) rng: Seeded,
    pub(crate) now: Position,
    pub(crate) stream: StreamId,
    pub(crate) bus: BTreeMap<String, Vec<Vec<u8>>>,
    pub(crate) peers: Vec<Peer>,
    pub(crate) lists: BTreeMap<UserId, (CardList, usize)>,
    sessions: Vec<(SessionId, usize)>,
}

impl World {
    /// A stream whose keys are handed out at once.
    pub(crate) fn new(seed: u64) -> Self {
        Self::with(seed, Sharing::Active, false)
    }

    pub(crate) fn with(seed: u64, sharing: Sharing, public: bool) -> Self {
        let mut rng = Seeded::new(seed);
        let owner = Identity::generate(&mut rng);
        let (stream, first) = genesis(&owner, &mut rng, NOON, sharing, public).unwrap();
        let mut world = Self {
            rng,
            now: NOON,
            stream,
            bus: BTreeMap::new(),
            peers: Vec::new(),
            lists: BTreeMap::new(),
            sessions: Vec::new(),
        };
        let chain = StreamTopics(stream).access(&owner.device());
        world.put(&chain, first.wire());
        world.admit(owner);
        world
    }

    /// A new user with one device.
    pub(crate) fn user(&mut self) -> usize {
        let identity = Identity::generate(&mut self.rng);
        self.admit(identity)
    }

    /// Another device of a user.
    pub(crate) fn device_of(&mut self, peer: usize) -> usize {
        let user = self.id(peer);
        let signing = SigningKey::generate(&mut self.rng);
        let unwrap = UnwrapKey::generate(&mut self.rng);
        let identity = Identity::added(user, signing, unwrap);
        self.admit(identity)
    }

    fn admit(&mut self, identity: Identity) -> usize {
        let at = self.peers.len();
        let owner = self
            .peers
            .first()
            .map_or(identity.user(), |of| of.identity.user());
        let peer = Peer {
            view: StreamView::new(self.stream, owner, &identity),
            publisher: Publisher::new(self.stream, &identity, &mut self.rng),
            lane: Lane::default(),
            alarms: Vec::new(),
            store: BTreeMap::new(),
            cursors: BTreeMap::new(),
            dealt: None,
            rereads: 0,
            identity,
        };
        let user = peer.identity.user();
        self.peers.push(peer);
        self.lists
            .entry(user)
            .or_insert_with(|| (CardList::new(user), at));
        let card = self.peers[at].identity.card(self.now);
        self.list(at, card);
        at
    }

    /// Writes an entry of a user's device list.
    pub(crate) fn list(&mut self, peer: usize, body: ListBody) -> Vec<u8> {
        let user = self.id(peer);
        let (list, first) = self.lists.get_mut(&user).unwrap();
        let root = self.peers[*first].identity.root().unwrap();
        let entry = list.append(root, self.now, body).unwrap();
        let wire = entry.wire().to_vec();
        self.put(&user.devices_topic(), &wire);
        wire
    }

    pub(crate) fn id(&self, peer: usize) -> UserId {
        self.peers[peer].identity.user()
    }

    pub(crate) fn device(&self, peer: usize) -> DeviceId {
        self.peers[peer].identity.device()
    }

    pub(crate) fn put(&mut self, topic: &str, item: &[u8]) {
        self.bus
            .entry(topic.into())
            .or_default()
            .push(item.to_vec());
    }

    pub(crate) fn keys(&self) -> &[Vec<u8>] {
        let topic = StreamTopics(self.stream).keys();
        self.bus.get(&topic).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn put_key_item(&mut self, item: &[u8]) {
        self.put(&StreamTopics(self.stream).keys(), item);
    }

    /// Puts something else in the place of an item of the keys topic.
    pub(crate) fn spoil_key_item(&mut self, at: usize) -> Vec<u8> {
        let topic = StreamTopics(self.stream).keys();
        let keys = self.bus.entry(topic).or_default();
        std::mem::replace(&mut keys[at], b"spoilt".to_vec())
    }

    pub(crate) fn data(&mut self) -> &mut Vec<Vec<u8>> {
        self.bus
            .entry(StreamTopics(self.stream).data())
            .or_default()
    }

    /// Reads every control topic to its end, until none names another.
    pub(crate) fn sync(&mut self, peer: usize) {
        let peer = &mut self.peers[peer];
        loop {
            let mut is_news = false;
            for of in peer.view.wanted() {
                is_news |= of != ControlTopic::Keys && read_on(&self.bus, self.stream, peer, &of);
            }
            peer.view.settle();
            if !is_news {
                break;
            }
        }
        if peer.view.needs_reread(self.now) {
            peer.rereads += 1;
            let keys = ControlTopic::Keys.name(self.stream);
            peer.cursors.remove(&keys);
        }
        read_on(&self.bus, self.stream, peer, &ControlTopic::Keys);
        peer.view.settle();
        while let Some(output) = peer.view.poll_output() {
            match output {
                Output::Persist(put) => {
                    let value = put.value.expose().to_vec();
                    match value.is_empty() {
                        true => peer.store.remove(&(put.space, put.id)),
                        false => peer.store.insert((put.space, put.id), value),
                    };
                }
                Output::Tell(alarm) => peer.alarms.push(alarm),
            }
        }
    }

    /// A view of a device as it is after its program was started again.
    pub(crate) fn restart(&mut self, peer: usize) {
        let peer = &mut self.peers[peer];
        let owner = peer.view.state().owner();
        peer.view = restored(self.stream, owner, &peer.identity, &peer.store);
        peer.publisher = Publisher::new(self.stream, &peer.identity, &mut self.rng);
    }

    pub(crate) fn write(&mut self, peer: usize, body: LogBody) -> Result<LogHash, AuthorError> {
        self.sync(peer);
        let of = &self.peers[peer];
        let entry = author(&of.view, &of.identity, self.now, body)?;
        let chain = StreamTopics(self.stream).access(&of.identity.device());
        self.put(&chain, entry.wire());
        self.sync(peer);
        Ok(LogHash::from(entry.digest()))
    }

    /// Grants, and hands out what follows.
    pub(crate) fn grant(
        &mut self,
        by: usize,
        to: usize,
        roles: Roles,
        interval: Interval,
    ) -> Result<LogHash, AuthorError> {
        let id = self.write_grant(by, to, roles, interval)?;
        self.share(by, SharedWith::User(self.id(to)));
        Ok(id)
    }

    pub(crate) fn write_grant(
        &mut self,
        by: usize,
        to: usize,
        roles: Roles,
        interval: Interval,
    ) -> Result<LogHash, AuthorError> {
        let grant = Grant {
            user: self.id(to),
            devices: Vec::new(),
            roles,
            lanes: Vec::new(),
            interval,
            reshare: false,
        };
        self.write(by, LogBody::Grant(grant))
    }

    /// Takes users, grants or devices out, with the tips of what they published.
    pub(crate) fn revoke(&mut self, by: usize, targets: Targets) -> Result<LogHash, AuthorError> {
        self.sync(by);
        let view = &self.peers[by].view;
        let users: BTreeSet<_> = match &targets {
            Targets::Users(users) => users.iter().copied().collect(),
            Targets::Grants(ids) => {
                let of = view
                    .state()
                    .grants()
                    .iter()
                    .filter(|of| ids.contains(&of.id));
                of.map(|of| of.grant.user).collect()
            }
            Targets::Devices(devices) => devices.iter().map(|of| of.user).collect(),
        };
        let lists = users.iter().filter_map(|user| view.list(user));
        let devices = lists.flat_map(|list| list.devices().map(|(device, _)| *device));
        let mut tips = Tips::new(devices, self.allowed(by));
        let data = self.bus.get(&StreamTopics(self.stream).data());
        for item in data.into_iter().flatten() {
            tips.observe(view, item);
        }
        let tips = tips.found().into_iter();
        let last = tips
            .map(|(device, tips)| DeviceTips { device, tips })
            .collect();
        self.write(by, LogBody::Revoke(Revoke { targets, last }))
    }

    pub(crate) fn revoke_user(&mut self, by: usize, user: usize) -> Result<LogHash, AuthorError> {
        let targets = Targets::Users(vec![self.id(user)]);
        self.revoke(by, targets)
    }

    /// The proof that a device's card is revoked, as its list carries it.
    pub(crate) fn out(&mut self, peer: usize) -> DeviceTarget {
        let revocation = sealcast_protocol::CardRevocation {
            device: self.device(peer),
            time: self.now,
        };
        DeviceTarget {
            user: self.id(peer),
            device: self.device(peer),
            proof: self.list(peer, ListBody::Revoke(revocation)),
        }
    }

    pub(crate) fn allowed(&self, peer: usize) -> Allowed {
        let mut lineage = Lineage::new(self.peers[peer].view.state().revoked_tips());
        let data = self.bus.get(&StreamTopics(self.stream).data());
        for item in data.into_iter().flatten() {
            lineage.observe(&self.stream, item);
        }
        lineage.resolve()
    }

    /// Hands out what a device holds and others lack. Returns the bytes of the bundles.
    pub(crate) fn share(&mut self, peer: usize, with: SharedWith) -> usize {
        self.sync(peer);
        let of = &self.peers[peer];
        let mut bundles = Vec::new();
        for handout in plan_handouts(&of.view, self.now, with) {
            let bundle = wrap_handout(&of.view, &of.identity, &mut self.rng, &handout).unwrap();
            bundles.push(bundle.unwrap().wire().to_vec());
        }
        let bytes = bundles.iter().map(Vec::len).sum();
        bundles.iter().for_each(|bundle| self.put_key_item(bundle));
        self.sync(peer);
        bytes
    }

    /// Seals one message, and puts it on the bus. A session is drawn, announced and shared where
    /// one is needed.
    pub(crate) fn publish(&mut self, peer: usize, text: &str) -> Result<Header, NotSealed> {
        let sealed = self.seal(peer, text)?;
        let bytes = sealed.envelopes[0].bytes.clone();
        self.data().push(bytes);
        Ok(header(self.data().last().unwrap()))
    }

    pub(crate) fn seal(&mut self, peer: usize, text: &str) -> Result<Sealed, NotSealed> {
        self.sync(peer);
        loop {
            let now = self.now;
            let of = &mut self.peers[peer];
            let drafts = [Draft::Single(text.as_bytes())];
            match of.publisher.seal(now, &mut of.lane, &of.view, &drafts) {
                Ok(sealed) => {
                    of.publisher.advance(&sealed);
                    return Ok(sealed);
                }
                Err(NotSealed::NeedsSession) => self.rekey(peer),
                Err(NotSealed::NeedsSegments(session, at)) => self.cover(peer, session, at),
                Err(other) => return Err(other),
            }
        }
    }

    /// Starts a session of live messages.
    pub(crate) fn rekey(&mut self, peer: usize) {
        let of = &self.peers[peer];
        let start = of.publisher.position(self.now, &of.lane, &of.view).unwrap();
        let new = self.draw(peer, start, SessionKind::Live);
        let lane = &mut self.peers[peer].lane;
        lane.session = new.session;
        lane.is_announced = true;
        self.put_key_item(new.record.wire());
        self.share(peer, SharedWith::Everyone);
    }

    /// Draws a session and keeps it, without announcing it.
    pub(crate) fn draw(&mut self, peer: usize, start: Position, kind: SessionKind) -> NewSession {
        let (now, of) = (self.now, &mut self.peers[peer]);
        let new = of
            .publisher
            .start_session(&mut self.rng, now, start, kind, &of.view);
        let new = new.unwrap();
        let id = [&self.stream.0[..], &new.session.0].concat();
        of.store
            .insert((Space::Root, id), new.root.expose().to_vec());
        let root = SecretBytes::from(new.root.expose().to_vec());
        of.view.restore_root(new.session, &root);
        of.view.handle(&ControlTopic::Keys, new.record.wire());
        self.sessions.push((new.session, peer));
        new
    }

    /// Brings older data in, in a session of its own.
    pub(crate) fn backfill(&mut self, peer: usize, interval: Interval, records: &[(u64, &str)]) {
        self.sync(peer);
        let new = self.draw(peer, self.now, SessionKind::Backfill { interval });
        self.put_key_item(new.record.wire());
        let records: Vec<_> = records
            .iter()
            .map(|(at, text)| (Position(*at), text.as_bytes().to_vec()))
            .collect();
        let of = &mut self.peers[peer];
        let mut run = Publisher::new(self.stream, &of.identity, &mut self.rng);
        let sealed = run
            .seal_past(&mut of.lane, &of.view, new.session, &records)
            .unwrap();
        run.advance(&sealed);
        self.data()
            .extend(sealed.envelopes.into_iter().map(|envelope| envelope.bytes));
        self.share(peer, SharedWith::Everyone);
    }

    /// Steps past every position sealed so far.
    pub(crate) fn cut(&mut self, peer: usize) -> Position {
        self.sync(peer);
        let of = &mut self.peers[peer];
        of.lane.cut(self.now, of.view.state().mark()).unwrap()
    }

    /// Starts another run of a publisher's program.
    pub(crate) fn new_run(&mut self, peer: usize) {
        let identity = &self.peers[peer].identity;
        self.peers[peer].publisher = Publisher::new(self.stream, identity, &mut self.rng);
    }

    /// Seals messages, one text each, and takes them off the bus again.
    pub(crate) fn sealed(&mut self, peer: usize, texts: &[&str]) -> Vec<Vec<u8>> {
        let before = self.data().len();
        for text in texts {
            self.publish(peer, text).unwrap();
        }
        self.data().split_off(before)
    }

    /// Hands items to a reader. What becomes of them, a line each.
    pub(crate) fn feed<'a>(
        &self,
        peer: usize,
        reader: &mut Reader,
        items: impl IntoIterator<Item = &'a Vec<u8>>,
    ) -> String {
        let view = &self.peers[peer].view;
        items.into_iter().for_each(|item| reader.handle(view, item));
        lines(std::iter::from_fn(|| reader.poll_event()).collect())
    }

    pub(crate) fn tick(&mut self, ms: u64) {
        self.now = self.now.after(ms);
    }

    /// A reader of history, with what revoked publishers had published let in.
    pub(crate) fn reader(&self, peer: usize, mode: Mode) -> Reader {
        let mut reader = Reader::new(mode);
        reader.allow(self.allowed(peer));
        reader
    }

    /// Reads all of the data topic with what a device knows now.
    pub(crate) fn events(&mut self, peer: usize, interval: Interval) -> Vec<Event> {
        self.sync(peer);
        let mut reader = self.reader(peer, Mode::History(interval));
        let view = &self.peers[peer].view;
        let data = self.bus.get(&StreamTopics(self.stream).data());
        for item in data.into_iter().flatten() {
            reader.handle(view, item);
        }
        reader.give_up(view, true);
        std::iter::from_fn(|| reader.poll_event()).collect()
    }

    /// What becomes of each item, a line each.
    pub(crate) fn transcript(&mut self, peer: usize) -> String {
        lines(self.events(peer, Interval::ALL))
    }

    /// The texts that a device opens, in order.
    pub(crate) fn opened(&mut self, peer: usize) -> Vec<String> {
        texts(self.events(peer, Interval::ALL))
    }
}

pub(crate) fn read_on(
    bus: &BTreeMap<String, Vec<Vec<u8>>>,
    stream: StreamId,
    peer: &mut Peer,
    of: &ControlTopic,
) -> bool {
    let name = of.name(stream);
    let items = bus.get(&name).map_or(&[][..], Vec::as_slice);
    let from = peer.cursors.insert(name, items.len()).unwrap_or(0);
    for item in &items[from..] {
        peer.view.handle(of, item);
    }
    from < items.len()
}

/// A view that starts with what a store kept.
pub(crate) fn restored(
    stream: StreamId,
    owner: UserId,
    identity: &Identity,
    store: &BTreeMap<(Space, Vec<u8>), Vec<u8>>,
) -> StreamView {
    let mut view = StreamView::new(stream, owner, identity);
    let of = |wanted: Space| store.iter().filter(move |((space, _), _)| *space == wanted);
    for ((_, id), value) in of(Space::ListEntry) {
        let user = UserId(*id.first_chunk().unwrap());
        view.handle(&ControlTopic::Devices(user), value);
    }
    for (_, value) in of(Space::LogEntry) {
        view.restore_log_entry(value);
    }
    view.settle();
    let session = |id: &[u8]| SessionId(*id[32..].first_chunk().unwrap());
    for ((_, id), value) in of(Space::Root) {
        view.restore_root(session(id), &SecretBytes::from(value.clone()));
    }
    for space in [Space::Record, Space::Deal, Space::SegmentRecords] {
        for (_, value) in of(space) {
            view.handle(&ControlTopic::Keys, value);
        }
    }
    for ((_, id), value) in of(Space::Cover) {
        view.restore_cover(session(id), &SecretBytes::from(value.clone()));
    }
    for ((_, id), value) in of(Space::Delivered) {
        let device = DeviceId(*id[48..].first_chunk().unwrap());
        view.restore_delivered(session(id), device, value);
    }
    view.settle();
    while view.poll_output().is_some() {}
    view
}

pub(crate) fn header(envelope: &[u8]) -> Header {
    *sealcast_protocol::EnvelopeView::parse(envelope)
        .unwrap()
        .header()
}

pub(crate) fn texts(events: Vec<Event>) -> Vec<String> {
    let mut texts = Vec::new();
    for event in events {
        if let Event::Opened { payload, .. } = event {
            texts.push(String::from_utf8(payload.expose().to_vec()).unwrap());
        }
    }
    texts
}

pub(crate) fn lines(events: Vec<Event>) -> String {
    events.into_iter().map(line).collect()
}

fn line(event: Event) -> String {
    match event {
        Event::Opened { payload, .. } => {
            format!("{}\n", String::from_utf8_lossy(payload.expose()))
        }
        Event::Sealed {
            is_granted: true, ..
        } => "sealed, key not here\n".into(),
        Event::Sealed {
            is_granted: false, ..
        } => "sealed\n".into(),
        Event::Rejected { refusal, .. } => format!("rejected: {refusal:?}\n"),
        Event::Noticed {
            notice: Notice::Gap { missing },
            ..
        } => format!(
            "gap of {missing}
"
        ),
        Event::Noticed { notice, .. } => format!(
            "{notice:?}
"
        ),
        Event::BadCover { .. } => "bad cover\n".into(),
    }
}

pub(crate) fn refusals(events: &[Event]) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    for event in events {
        if let Event::Rejected { refusal, .. } = event {
            refusals.push(*refusal);
        }
    }
    refusals
}

pub(crate) fn between(from: Position, until: Position) -> Interval {
    Interval { from, until }
}

pub(crate) fn since(from: Position) -> Interval {
    between(from, Position::END)
}
