//! What was before the storm: a stream, a year of messages, and everybody who was let in.

use std::collections::BTreeMap;

use sealcast_crypto::{SecretBytes, SigningKey, UnwrapKey};
use sealcast_engine::{
    ControlTopic, Identity, Lane, NotSealed, Output, Publisher, StreamView, author, genesis,
};
use sealcast_protocol::{
    CardList, Draft, Grant, Interval, LogBody, Position, Roles, SessionKind, Sharing, StreamId,
    StreamTopics, UserId,
};

use crate::seeded::Seeded;
use crate::violation::Violation;

/// When the stream begins.
const START: Position = Position(1_760_000_000_000);
const DAY_MS: u64 = 24 * 3_600_000;
const MONTH_MS: u64 = 30 * DAY_MS;
const MONTHS: usize = 12;
const MESSAGES_A_MONTH: u64 = 4;
/// Devices of a user who has as many as possible.
const DEVICES_A_USER: usize = 10;
/// Readers who have the keys before the storm, and may hand them on.
const CO_READERS: usize = 4;

/// A device, and how far it has read the control topics.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) identity: Identity,
    pub(super) view: StreamView,
    read: BTreeMap<String, usize>,
}

/// Everything that is on the bus before anybody asks.
#[derive(Debug)]
pub(super) struct Past {
    pub(super) rng: Seeded,
    pub(super) now: Position,
    pub(super) stream: StreamId,
    pub(super) data: Vec<Vec<u8>>,
    owner: UserId,
    topics: BTreeMap<String, Vec<Vec<u8>>>,
    lists: BTreeMap<UserId, CardList>,
    /// Whose lists and chains everybody reads: those of whom one may hear.
    heard: Vec<UserId>,
}

/// Who is there when the storm begins.
#[derive(Debug)]
pub(super) struct Cast {
    /// The devices of the owner, of an admin and of the publisher.
    pub(super) keyholders: Vec<Known>,
    /// Those of readers who may hand keys on.
    pub(super) co_readers: Vec<Known>,
    /// Those that will ask.
    pub(super) askers: Vec<Known>,
}

/// The year that everybody may read.
pub(super) fn year() -> Interval {
    Interval {
        from: START,
        until: START.after(MONTHS as u64 * MONTH_MS),
    }
}

/// A stream with a year of messages, and as many devices as asked for that may read it.
pub(super) fn set_up(seed: u64, devices: usize) -> Result<(Past, Cast), Violation> {
    let mut rng = Seeded::new(seed);
    let owner = Identity::generate(&mut rng);
    let begun = genesis(&owner, &mut rng, START, Sharing::OnRequest, false);
    let (stream, first) = begun.map_err(|_| Violation::Odd("a stream that does not begin"))?;
    let mut past = Past {
        rng,
        now: START,
        stream,
        data: Vec::new(),
        owner: owner.user(),
        topics: BTreeMap::new(),
        lists: BTreeMap::new(),
        heard: Vec::new(),
    };
    past.put(StreamTopics(stream).access(&owner.device()), first.wire());
    let mut keyholders = Vec::new();
    for identity in [owner, past.draw(), past.draw()] {
        past.heard.push(identity.user());
        past.list(&identity, &identity)?;
        keyholders.push(past.known(identity));
    }
    let [owner, admin, publisher] = &mut keyholders[..] else {
        return Err(Violation::Odd("a founder who is not there"));
    };
    past.grant(owner, admin.identity.user(), Roles::ADMIN, Interval::ALL)?;
    let publishing = publisher.identity.user();
    past.grant(owner, publishing, Roles::PUBLISHER, Interval::ALL)?;
    past.publish_for_a_year(publisher)?;
    let co_readers = past.readers(owner, CO_READERS, 1)?;
    let askers = past.readers(owner, devices, DEVICES_A_USER)?;
    let mut cast = Cast {
        keyholders,
        co_readers: co_readers.into_iter().map(|of| past.known(of)).collect(),
        askers: askers.into_iter().map(|of| past.known(of)).collect(),
    };
    let everybody = cast.keyholders.iter_mut().chain(&mut cast.co_readers);
    for of in everybody.chain(&mut cast.askers) {
        past.read(of)?;
    }
    // Whoever answers knows the devices of all who ask.
    for of in cast.keyholders.iter_mut().chain(&mut cast.co_readers) {
        past.read_lists(of)?;
    }
    Ok((past, cast))
}

impl Past {
    fn draw(&mut self) -> Identity {
        Identity::generate(&mut self.rng)
    }

    fn known(&self, identity: Identity) -> Known {
        Known {
            view: StreamView::new(self.stream, self.owner, &identity),
            identity,
            read: BTreeMap::new(),
        }
    }

    fn put(&mut self, topic: String, bytes: &[u8]) {
        self.topics.entry(topic).or_default().push(bytes.to_vec());
    }

    /// Adds a device to its user's list.
    fn list(&mut self, first: &Identity, device: &Identity) -> Result<(), Violation> {
        let user = first.user();
        let list = self
            .lists
            .entry(user)
            .or_insert_with(|| CardList::new(user));
        let root = first
            .root()
            .ok_or(Violation::Odd("a user without a root"))?;
        let entry = list.append(root, self.now, device.card(self.now));
        let entry = entry.map_err(|_| Violation::Odd("a card that is refused"))?;
        self.put(user.devices_topic(), entry.wire());
        Ok(())
    }

    /// Users with so many devices each are let in to read the year. Returns the devices.
    fn readers(
        &mut self,
        owner: &mut Known,
        devices: usize,
        of_user: usize,
    ) -> Result<Vec<Identity>, Violation> {
        let mut drawn: Vec<Identity> = Vec::new();
        while drawn.len() < devices {
            let at = drawn.len();
            let user = self.draw();
            self.list(&user, &user)?;
            if of_user == 1 {
                self.heard.push(user.user());
            }
            self.grant(owner, user.user(), Roles::READER, year())?;
            drawn.push(user);
            for _ in 1..of_user.min(devices - at) {
                let signing = SigningKey::generate(&mut self.rng);
                let unwrap = UnwrapKey::generate(&mut self.rng);
                let first = drawn
                    .get(at)
                    .ok_or(Violation::Odd("a user without a device"))?;
                let added = Identity::added(first.user(), signing, unwrap);
                self.list(first, &added)?;
                drawn.push(added);
            }
        }
        Ok(drawn)
    }

    /// Lets a user in; a reader of whom others have heard may hand on.
    fn grant(
        &mut self,
        by: &mut Known,
        user: UserId,
        roles: Roles,
        interval: Interval,
    ) -> Result<(), Violation> {
        self.read(by)?;
        let grant = Grant {
            user,
            devices: Vec::new(),
            roles,
            lanes: Vec::new(),
            interval,
            reshare: roles == Roles::READER && self.heard.contains(&user),
        };
        let entry = author(&by.view, &by.identity, self.now, LogBody::Grant(grant));
        let entry = entry.map_err(|_| Violation::Odd("a grant that is refused"))?;
        let chain = StreamTopics(self.stream).access(&by.identity.device());
        self.put(chain, entry.wire());
        self.read(by)
    }

    fn publish_for_a_year(&mut self, by: &mut Known) -> Result<(), Violation> {
        let mut lane = Lane::default();
        let mut publisher = Publisher::new(self.stream, &by.identity, &mut self.rng);
        for month in 0..MONTHS as u64 {
            for week in 0..MESSAGES_A_MONTH {
                let since = month * MONTH_MS + week * MONTH_MS / MESSAGES_A_MONTH;
                self.now = START.after(since.max(1));
                self.read(by)?;
                if week == 0 {
                    self.start_session(by, &publisher, &mut lane)?;
                }
                let text = format!("message {week} of month {month}");
                let drafts = [Draft::Single(text.as_bytes())];
                let sealed = publisher.seal(self.now, &mut lane, &by.view, &drafts);
                let sealed = sealed.map_err(odd)?;
                publisher.advance(&sealed);
                self.data
                    .extend(sealed.envelopes.into_iter().map(|of| of.bytes));
            }
        }
        self.now = year().until.after(DAY_MS);
        Ok(())
    }

    fn start_session(
        &mut self,
        by: &mut Known,
        publisher: &Publisher,
        lane: &mut Lane,
    ) -> Result<(), Violation> {
        let start = publisher.position(self.now, lane, &by.view).map_err(odd)?;
        let kind = SessionKind::Live;
        let new = publisher.start_session(&mut self.rng, self.now, start, kind, &by.view);
        let new = new.map_err(|_| Violation::Odd("a session that is refused"))?;
        let root = SecretBytes::from(new.root.expose().to_vec());
        by.view.restore_root(new.session, &root);
        lane.session = new.session;
        lane.is_announced = true;
        self.put(StreamTopics(self.stream).keys(), new.record.wire());
        self.read(by)
    }
}

fn odd(_: NotSealed) -> Violation {
    Violation::Odd("a message that is not sealed")
}

/// Reading.
impl Past {
    /// Reads the control topics to their ends: the access log, the keys, and the device lists of
    /// those who publish, hold keys or hand them on. The lists of all others are long, and of no
    /// use to somebody who asks.
    pub(super) fn read(&self, of: &mut Known) -> Result<(), Violation> {
        let me = of.identity.user();
        loop {
            let mut is_news = false;
            for topic in of.view.wanted() {
                is_news |= match topic {
                    ControlTopic::Devices(user) | ControlTopic::Access(user, _) => {
                        (user == me || self.heard.contains(&user)) && self.read_on(of, &topic)
                    }
                    ControlTopic::Keys => false,
                };
            }
            of.view.settle();
            if !is_news {
                break;
            }
        }
        self.read_on(of, &ControlTopic::Keys);
        of.view.settle();
        keep(&mut of.view)
    }

    /// Reads the device lists of all.
    fn read_lists(&self, of: &mut Known) -> Result<(), Violation> {
        for user in self.lists.keys() {
            self.read_on(of, &ControlTopic::Devices(*user));
        }
        of.view.settle();
        keep(&mut of.view)
    }

    fn read_on(&self, of: &mut Known, topic: &ControlTopic) -> bool {
        let name = topic.name(self.stream);
        let items = self.topics.get(&name).map_or(&[][..], Vec::as_slice);
        let from = of.read.insert(name, items.len()).unwrap_or_default();
        let new = items.get(from..).unwrap_or_default();
        new.iter().for_each(|item| of.view.handle(topic, item));
        !new.is_empty()
    }
}

/// Makes durable what a view has learned. Nobody lies here, so that nothing is to be told.
pub(super) fn keep(view: &mut StreamView) -> Result<(), Violation> {
    while let Some(output) = view.poll_output() {
        match output {
            Output::Persist(_) => (),
            Output::Tell(_) => return Err(Violation::Odd("an alarm in a storm")),
        }
    }
    Ok(())
}
