//! Somebody who signs what the rules do not allow: a user with a card, who may be granted reading
//! and nothing else.

use sealcast_crypto::{Cover, SessionRoot, SigningKey, Walker};
use sealcast_engine::Identity;
use sealcast_protocol::{
    BundleContext, CardList, CoverSpec, DecodeError, DeviceId, EnvelopeHash, Flags, Grant, Header,
    InstanceId, Interval, KeyUse, ListPin, LogBody, LogEntry, Position, Revoke, Roles, SessionId,
    SessionKind, SessionRecord, StreamId, StreamTopics, Suite, Targets, UserId, seal, seal_bundle,
    sign, wrap_key_hash,
};

use crate::around::Around;
use crate::world::World;

/// Signs with keys of its own.
#[derive(Debug)]
pub(crate) struct Forger {
    identity: Identity,
    list: CardList,
    count: u64,
}

impl Forger {
    /// Its card goes to the bus.
    pub(crate) fn new(around: &mut Around) -> Self {
        let now = Position(around.now);
        let identity = Identity::generate(&mut around.rng);
        let mut list = CardList::new(identity.user());
        if let Some(root) = identity.root()
            && let Ok(card) = list.append(root, now, identity.card(now))
        {
            let topic = identity.user().devices_topic();
            around.bus.put(&topic, around.now, card.wire());
        }
        Self {
            identity,
            list,
            count: 0,
        }
    }

    pub(crate) fn user(&self) -> UserId {
        self.identity.user()
    }

    pub(crate) fn device(&self) -> DeviceId {
        self.identity.device()
    }

    pub(crate) fn pin(&self) -> Option<ListPin> {
        self.list.pin()
    }

    pub(crate) fn key(&self) -> &SigningKey {
        self.identity.signing()
    }
}

/// What is forged: which topic, and which bytes.
type Forged = Option<(&'static str, String, Vec<u8>)>;

impl World {
    /// Puts something on the bus that is signed, and not by whom it should be.
    pub(crate) fn forge_signed(&mut self) {
        self.forger.count += 1;
        let forged = match self.around.chance.below(6) {
            0 => self.forged_entry(),
            1 => self.forged_entry_of_another(),
            2 => self.forged_record(),
            3 => self.forged_bundle(),
            _ => self.forged_envelope(),
        };
        if let Some((kind, topic, bytes)) = forged {
            self.around.bus.put(&topic, self.around.now, &bytes);
            self.littered.insert(topic);
            self.around.fault(kind, format_args!("on the bus"));
        }
    }

    fn some_user(&mut self) -> UserId {
        let pick = self.below(self.users.len());
        self.users.get(pick).map_or(self.forger.user(), |of| of.id)
    }

    fn body(&mut self) -> LogBody {
        let (user, me) = (self.some_user(), self.forger.user());
        let to = if self.around.chance.hits(1, 2) {
            me
        } else {
            user
        };
        match self.around.chance.below(3) {
            0 => LogBody::Revoke(Revoke {
                targets: Targets::Users(vec![user]),
                last: Vec::new(),
            }),
            1 => LogBody::Close,
            _ => LogBody::Grant(Grant {
                user: to,
                devices: Vec::new(),
                roles: Roles::ADMIN,
                lanes: Vec::new(),
                interval: Interval::ALL,
                reshare: false,
            }),
        }
    }

    /// In its own chain, by a right that it does not have.
    fn forged_entry(&mut self) -> Forged {
        let body = self.body();
        let (user, device) = (self.forger.user(), self.forger.identity.device());
        let entry = self.entry(user, device, body)?;
        let chain = StreamTopics(self.around.stream).access(&device);
        Some(("forged entry", chain, signed(self.forger.key(), entry)?))
    }

    /// In another's chain and name, under its own key.
    fn forged_entry_of_another(&mut self) -> Forged {
        let body = self.body();
        let pick = self.below(self.devices.len());
        let victim = &self.devices.get(pick)?.identity;
        let (user, device) = (victim.user(), victim.device());
        let entry = self.entry(user, device, body)?;
        let chain = StreamTopics(self.around.stream).access(&device);
        Some(("forged entry", chain, signed(self.forger.key(), entry)?))
    }

    fn entry(&self, user: UserId, device: DeviceId, body: LogBody) -> Option<LogEntry> {
        let log = self.devices.first()?.run.as_ref()?.view.log();
        let (seq, prev) = log.next_seat(&user, &device);
        Some(LogEntry {
            version: 1,
            stream: self.around.stream,
            user,
            device,
            seq,
            prev,
            heads: log.heads(&prev),
            time: Position(self.around.now),
            body,
        })
    }

    /// A session in another's lane, or in one of its own.
    fn forged_record(&mut self) -> Forged {
        let lane = self.some_user();
        let lane = match self.around.chance.hits(1, 2) {
            true => lane,
            false => self.forger.user(),
        };
        let root = SessionRoot::generate(&mut self.around.rng);
        let commitment = root.commitment();
        let record = SessionRecord {
            version: 1,
            stream: self.around.stream,
            lane,
            device: self.forger.identity.device(),
            session: SessionId::derive(&self.around.stream, &lane, &commitment),
            commitment,
            start: Position(self.around.now),
            kind: SessionKind::Live,
            heads: Vec::new(),
            open_root: Vec::new(),
            wraps: Vec::new(),
        };
        let bytes = signed(self.forger.key(), record)?;
        Some(("forged record", self.around.keys(), bytes))
    }

    /// False keys of a true session, to one who waits for the true ones.
    fn forged_bundle(&mut self) -> Forged {
        let pick = self.below(self.around.ground.messages.len());
        let header = self.around.ground.messages.get(pick)?.header;
        let lane = self.around.ground.messages.get(pick)?.user;
        let pick = self.below(self.devices.len());
        let victim = &self.devices.get(pick)?.identity;
        let owner = &self.devices.first()?.identity;
        let giver = match self.around.chance.hits(1, 2) {
            true => owner,
            false => &self.forger.identity,
        };
        let root = SessionRoot::generate(&mut self.around.rng);
        let key = victim.unwrap_key().wrap_key();
        let interval = Interval {
            from: Position(header.position.0.saturating_sub(5)),
            until: header.position.after(5),
        };
        let context = BundleContext {
            stream: self.around.stream,
            lane,
            giver_user: giver.user(),
            giver_device: giver.device(),
            user: victim.user(),
            device: victim.device(),
            key: KeyUse::LongLived,
            wrap_key_hash: wrap_key_hash(&key),
            heads: Vec::new(),
            request: [0; 16],
            covers: vec![CoverSpec {
                session: header.session,
                interval,
            }],
        };
        let cover = Cover::from_root(&root, interval.from.0, interval.until.0);
        let bundle = seal_bundle(&mut self.around.rng, context, &[&cover], &key).ok()?;
        let bytes = signed(self.forger.key(), bundle)?;
        Some(("forged bundle", self.around.keys(), bytes))
    }

    /// In a true session, by its own device or by another's.
    fn forged_envelope(&mut self) -> Forged {
        let pick = self.below(self.around.ground.messages.len());
        let like = self.around.ground.messages.get(pick)?.header;
        let device = match self.around.chance.hits(1, 2) {
            true => like.device,
            false => self.forger.identity.device(),
        };
        let header = Header {
            suite: Suite::TreeV1,
            flags: Flags::default(),
            content: 0,
            session: like.session,
            position: like.position,
            device,
            instance: InstanceId(self.forger.count.to_be_bytes()),
            seq: 0,
            prev: EnvelopeHash::NONE,
        };
        let bytes = forged_bytes(&mut self.around, self.forger.key(), &header)?;
        Some(("forged envelope", self.around.data(), bytes))
    }
}

fn forged_bytes(around: &mut Around, key: &SigningKey, header: &Header) -> Option<Vec<u8>> {
    let root = SessionRoot::generate(&mut around.rng);
    let mut walker = Walker::new(Cover::whole(&root));
    let leaf = walker.leaf(header.position.0)?;
    let stream: StreamId = around.stream;
    let sealed = seal(&leaf, key, &stream, b"", header, b"forged");
    sealed.ok().map(|of| of.bytes)
}

fn signed<T: sealcast_protocol::Signable>(key: &SigningKey, body: T) -> Option<Vec<u8>> {
    let signed: Result<_, DecodeError> = sign(key, body);
    signed.ok().map(|of| of.wire().to_vec())
}
