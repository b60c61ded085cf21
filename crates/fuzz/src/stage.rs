//! A stream that is there before the input comes: an owner, a publisher, a reader of an hour, a reader
//! who may hand on, and somebody whom the log does not name; and all that they wrote.

use std::collections::BTreeMap;

use arbitrary::{Result, Unstructured};
use sealcast_crypto::SecretBytes;
use sealcast_engine::{
    ControlTopic, Identity, Lane, Publisher, SharedWith, StreamView, author, genesis,
    plan_handouts, wrap_handout,
};
use sealcast_protocol::{
    CardList, Draft, Grant, Interval, LogBody, LogEntry, LogHash, Position, Revoke, Roles,
    SessionKind, Settings, Sharing, StreamId, Targets, Unverified, UserId, sign,
};

use crate::seeded::Seeded;

pub(crate) const NOON: Position = Position(1_790_000_000_000);
pub(crate) const HOUR_MS: u64 = 3_600_000;

pub(crate) const OWNER: usize = 0;
pub(crate) const PUBLISHER: usize = 1;
pub(crate) const READER: usize = 2;
pub(crate) const CO_READER: usize = 3;
pub(crate) const STRANGER: usize = 4;
const PEOPLE: usize = 5;

/// When messages are sealed, after noon, and what they say. The reader's hour has the first three.
const MESSAGES: [(u64, &str); 5] = [
    (1_000, "one"),
    (1_000, "two"),
    (60_000, "three"),
    (HOUR_MS, "four"),
    (2 * HOUR_MS, "five"),
];

/// The stream, and all that honest devices put on its bus.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) stream: StreamId,
    pub(crate) people: Vec<Identity>,
    /// Items of device lists, of chains of the access log, and of the keys topic, in order.
    pub(crate) control: Vec<(ControlTopic, Vec<u8>)>,
    pub(crate) data: Vec<Vec<u8>>,
    /// What was sealed, and where.
    pub(crate) sealed: BTreeMap<Vec<u8>, Position>,
}

/// The interval that the reader was granted.
pub(crate) fn readers_hour() -> Interval {
    Interval {
        from: NOON,
        until: NOON.after(HOUR_MS),
    }
}

impl Stage {
    /// Lets them write. Nothing of it can fail; where it did, there would be no stage.
    pub(crate) fn set(sharing: Sharing) -> Option<Self> {
        let mut rng = Seeded::new(8);
        let people: Vec<_> = (0..PEOPLE).map(|_| Identity::generate(&mut rng)).collect();
        let owner = people.get(OWNER)?;
        let (stream, first) = genesis(owner, &mut rng, NOON, sharing, false).ok()?;
        let mut stage = Self {
            stream,
            control: Vec::new(),
            data: Vec::new(),
            sealed: BTreeMap::new(),
            people,
        };
        for of in &stage.people {
            let mut list = CardList::new(of.user());
            let card = list.append(of.root()?, NOON, of.card(NOON)).ok()?;
            let topic = ControlTopic::Devices(of.user());
            stage.control.push((topic, card.wire().to_vec()));
        }
        stage.put(OWNER, first.wire())?;
        stage.grant(PUBLISHER, Roles::PUBLISHER, Interval::ALL, false)?;
        stage.grant(READER, Roles::READER, readers_hour(), false)?;
        stage.grant(CO_READER, Roles::READER, Interval::ALL, true)?;
        stage.publish(&mut rng)?;
        Some(stage)
    }

    fn put(&mut self, by: usize, wire: &[u8]) -> Option<()> {
        let of = self.people.get(by)?;
        let topic = ControlTopic::Access(of.user(), of.device());
        self.control.push((topic, wire.to_vec()));
        Some(())
    }

    fn grant(&mut self, to: usize, roles: Roles, interval: Interval, reshare: bool) -> Option<()> {
        let body = LogBody::Grant(Grant {
            user: self.people.get(to)?.user(),
            devices: Vec::new(),
            roles,
            lanes: Vec::new(),
            interval,
            reshare,
        });
        let owner = self.people.get(OWNER)?;
        let entry = author(&self.view(OWNER)?, owner, NOON, body).ok()?;
        self.put(OWNER, entry.wire())
    }

    fn publish(&mut self, rng: &mut Seeded) -> Option<()> {
        let of = self.people.get(PUBLISHER)?;
        let mut publisher = Publisher::new(self.stream, of, rng);
        let (mut lane, mut view) = (Lane::default(), self.view(PUBLISHER)?);
        let start = publisher.position(NOON, &lane, &view).ok()?;
        let new = publisher.start_session(rng, NOON, start, SessionKind::Live, &view);
        let new = new.ok()?;
        view.restore_root(new.session, &SecretBytes::from(new.root.expose().to_vec()));
        (lane.session, lane.is_announced) = (new.session, true);
        view.handle(&ControlTopic::Keys, new.record.wire());
        let mut keys = vec![new.record.wire().to_vec()];
        view.settle();
        for handout in plan_handouts(&view, NOON, SharedWith::Everyone) {
            let bundle = wrap_handout(&view, of, rng, &handout).ok()??;
            keys.push(bundle.wire().to_vec());
        }
        for (after, text) in MESSAGES {
            let now = NOON.after(after);
            let drafts = [Draft::Single(text.as_bytes())];
            let sealed = publisher.seal(now, &mut lane, &view, &drafts).ok()?;
            publisher.advance(&sealed);
            self.data
                .extend(sealed.envelopes.into_iter().map(|of| of.bytes));
            self.sealed.insert(text.as_bytes().to_vec(), now);
        }
        let keys = keys.into_iter().map(|item| (ControlTopic::Keys, item));
        self.control.extend(keys);
        Some(())
    }

    /// What a device knows that has read everything.
    pub(crate) fn view(&self, of: usize) -> Option<StreamView> {
        let mut view = self.blank(of)?;
        self.feed(&mut view);
        while view.poll_output().is_some() {}
        Some(view)
    }

    /// What a device knows that has read nothing.
    pub(crate) fn blank(&self, of: usize) -> Option<StreamView> {
        let owner = self.people.get(OWNER)?.user();
        Some(StreamView::new(self.stream, owner, self.people.get(of)?))
    }

    /// Hands everything to a view, in an order in which a driver does.
    pub(crate) fn feed(&self, view: &mut StreamView) {
        let is_key = |of: &ControlTopic| *of == ControlTopic::Keys;
        for (topic, item) in self.control.iter().filter(|(of, _)| !is_key(of)) {
            view.handle(topic, item);
        }
        view.settle();
        for (topic, item) in self.control.iter().filter(|(of, _)| is_key(of)) {
            view.handle(topic, item);
        }
        view.settle();
    }

    pub(crate) fn user(&self, of: usize) -> UserId {
        let identity = self.people.get(of);
        identity.map_or(UserId([0; 32]), Identity::user)
    }

    /// Signs an entry of the access log that says anything, as one of those whom the log does not let
    /// say it. Where it belongs, and its bytes.
    pub(crate) fn forged(
        &self,
        choices: &mut Unstructured<'_>,
        by: usize,
    ) -> Result<Option<(ControlTopic, Vec<u8>)>> {
        let Some(of) = self.people.get(by) else {
            return Ok(None);
        };
        let hashes = self.hashes();
        let seq = choices.int_in_range(0..=2)?;
        let prev = match seq {
            0 => LogHash([0; 32]),
            _ => *choices.choose(&hashes)?,
        };
        let mut heads = vec![*choices.choose(&hashes)?];
        heads.retain(|head| *head != prev);
        let entry = LogEntry {
            version: 1,
            stream: self.stream,
            user: of.user(),
            device: of.device(),
            seq,
            prev,
            heads,
            time: NOON.after(choices.int_in_range(0..=2 * HOUR_MS)?),
            body: self.body(choices)?,
        };
        let topic = ControlTopic::Access(of.user(), of.device());
        let signed = sign(of.signing(), entry).ok();
        Ok(signed.map(|entry| (topic, entry.wire().to_vec())))
    }

    /// The entries that there are, and one that there is not.
    fn hashes(&self) -> Vec<LogHash> {
        let entries = self.control.iter().filter_map(|(topic, item)| {
            let is_access = matches!(topic, ControlTopic::Access(..));
            let entry = is_access.then(|| Unverified::<LogEntry>::decode(item));
            entry?.ok().map(|entry| LogHash::from(entry.digest()))
        });
        entries.chain([LogHash([0xee; 32])]).collect()
    }

    fn body(&self, choices: &mut Unstructured<'_>) -> Result<LogBody> {
        let whom = self.user(choices.choose_index(PEOPLE)?);
        Ok(match choices.int_in_range(0..=5)? {
            0 | 1 => LogBody::Grant(Grant {
                user: whom,
                devices: Vec::new(),
                roles: Roles(choices.int_in_range(1..=7)?),
                lanes: Vec::new(),
                interval: Interval::ALL,
                reshare: choices.arbitrary()?,
            }),
            2 => revoke(Targets::Users(vec![whom])),
            3 => revoke(Targets::Grants(vec![*choices.choose(&self.hashes())?])),
            4 => LogBody::Settings(Settings {
                rekey_every_ms: choices.int_in_range(0..=3)?,
            }),
            _ => LogBody::Close,
        })
    }
}

fn revoke(targets: Targets) -> LogBody {
    LogBody::Revoke(Revoke {
        targets,
        last: Vec::new(),
    })
}
