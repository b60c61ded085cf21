//! A reader opens envelopes in the order of `spec/envelope.md`: parse, sender entitled, signature,
//! replay, key, commitment, decrypt.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use sealcast_crypto::{Cover, SecretBytes, Walker};
use sealcast_protocol::{
    DeviceId, EnvelopeHash, EnvelopeView, Header, Interval, Position, PublishRight, Records,
    SessionId, SessionKind, SessionRecord, UserId, VerifiedEnvelope,
};

use crate::track::{Notice, Tracker};
use crate::view::StreamView;

/// Opens the envelopes of one stream.
///
/// Feed every item of the data topic to [`handle`](Self::handle) and drain
/// [`poll_event`](Self::poll_event). Nothing on the bus is an error: whatever an item is, an event
/// says what became of it.
#[derive(Debug)]
pub struct Reader {
    mode: Mode,
    trackers: BTreeMap<DeviceId, Tracker>,
    /// Envelopes of revoked devices that were accepted when they were revoked.
    allowed: BTreeSet<EnvelopeHash>,
    keys: BTreeMap<SessionId, Keys>,
    events: VecDeque<Event>,
}

/// What a reader is reading for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// What was sealed in an interval; read from the start of the topic.
    History(Interval),
    /// What comes now; the topic's earlier items are not looked at.
    Live,
}

/// What became of an item.
#[derive(Debug)]
pub enum Event {
    /// A record was opened.
    Opened {
        /// Its envelope.
        header: Header,
        /// Who sealed it.
        user: UserId,
        /// The record's own time.
        time: Position,
        /// What it says.
        payload: SecretBytes,
    },
    /// An authentic envelope for which there is no key here.
    Sealed {
        /// The envelope.
        header: Header,
        /// Who sealed it.
        user: UserId,
        /// Whether a grant reaches its position, so that the key may still come.
        is_granted: bool,
    },
    /// An item that is not accepted.
    Rejected {
        /// What it says of itself, where it is an envelope.
        header: Option<Header>,
        /// Whose device it names, where known.
        user: Option<UserId>,
        /// Why.
        refusal: Refusal,
    },
    /// Something to know about the order of an envelope.
    Noticed {
        /// The envelope.
        header: Header,
        /// Who sealed it.
        user: UserId,
        /// What.
        notice: Notice,
    },
    /// A giver's cover failed on a message that another's opened. It is not used any more.
    BadCover {
        /// Who gave it.
        giver: (UserId, DeviceId),
        /// Of which session.
        session: SessionId,
    },
}

/// Why an item was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The bytes are not an envelope, or not records.
    Malformed,
    /// No device of this stream has this id.
    UnknownSender,
    /// Nobody announced its session.
    UnknownSession,
    /// The signature does not hold.
    BadSignature,
    /// Its session may not be used there, or not by this device.
    WrongSession,
    /// Its sender may not publish at this position.
    NotEntitled,
    /// Its sender was revoked before it.
    AfterRevocation,
    /// No key that is here opens it.
    NotAuthentic,
}

/// Keys of one session, and for how many of the view's covers they stand.
#[derive(Debug, Default)]
struct Keys {
    candidates: Vec<Candidate>,
    covers_taken: usize,
    has_root: bool,
}

#[derive(Debug)]
struct Candidate {
    giver: Option<(UserId, DeviceId)>,
    walker: Walker,
}

impl Reader {
    /// Starts reading.
    pub fn new(mode: Mode) -> Self {
        Self {
            mode,
            trackers: BTreeMap::new(),
            allowed: BTreeSet::new(),
            keys: BTreeMap::new(),
            events: VecDeque::new(),
        }
    }

    /// Goes on where a device's live reading stood.
    pub fn resume(&mut self, device: DeviceId, tracker: Tracker) {
        self.trackers.insert(device, tracker);
    }

    /// Where the live reading of each device stands.
    pub fn trackers(&self) -> impl Iterator<Item = (&DeviceId, &Tracker)> {
        self.trackers.iter()
    }

    /// Envelopes of revoked devices that were accepted when they were revoked, from a
    /// [`Lineage`](crate::Lineage).
    pub fn allow(&mut self, envelopes: BTreeSet<EnvelopeHash>) {
        self.allowed.extend(envelopes);
    }

    /// Goes from history on to live reading.
    pub fn go_live(&mut self) {
        self.mode = Mode::Live;
    }

    /// Takes in one item of the data topic.
    pub fn handle(&mut self, view: &StreamView, bytes: &[u8]) {
        let Ok(envelope) = EnvelopeView::parse(bytes) else {
            self.reject(None, None, Refusal::Malformed);
            return;
        };
        let header = *envelope.header();
        if let Mode::History(interval) = self.mode
            && !interval.contains(header.position)
        {
            let hash = envelope.hash(&view.stream(), b"");
            self.tracker(&header.device).pass_by(hash);
            return;
        }
        let stream = view.stream();
        match accept(view, &stream, envelope, &self.allowed) {
            Ok((user, envelope)) => self.judge(view, user, &envelope),
            Err((user, refusal)) => self.reject(Some(header), user, refusal),
        }
    }

    /// Gives up on envelopes that later ones named and that did not come; at the end of history and
    /// now and then when reading live.
    pub fn give_up(&mut self, view: &StreamView, at_once: bool) {
        let mut gone = Vec::new();
        for tracker in self.trackers.values_mut() {
            gone.extend(tracker.give_up(at_once));
        }
        for header in gone {
            if let Some(user) = view.user_of(&header.device) {
                let notice = Notice::Gap { missing: 0 };
                self.events.push_back(Event::Noticed {
                    header,
                    user,
                    notice,
                });
            }
        }
    }

    /// Hands out the next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn reject(&mut self, header: Option<Header>, user: Option<UserId>, refusal: Refusal) {
        self.events.push_back(Event::Rejected {
            header,
            user,
            refusal,
        });
    }

    fn tracker(&mut self, device: &DeviceId) -> &mut Tracker {
        let mode = self.mode;
        self.trackers.entry(*device).or_insert_with(|| match mode {
            Mode::History(_) => Tracker::from_start(),
            Mode::Live => Tracker::midway(),
        })
    }

    fn judge(&mut self, view: &StreamView, user: UserId, envelope: &VerifiedEnvelope<'_>) {
        let header = *envelope.header();
        let notices = self
            .tracker(&header.device)
            .observe(&header, envelope.hash());
        for notice in notices {
            match notice {
                Notice::Fresh => self.open(view, user, envelope),
                Notice::Replay | Notice::Fork | Notice::Branch | Notice::Gap { .. } => {
                    self.events.push_back(Event::Noticed {
                        header,
                        user,
                        notice,
                    });
                }
            }
        }
    }

    fn open(&mut self, view: &StreamView, user: UserId, envelope: &VerifiedEnvelope<'_>) {
        let header = *envelope.header();
        let keys = self.keys.entry(header.session).or_default();
        keys.refresh(view, &header.session);
        match keys.open(envelope) {
            Outcome::NoKey => {
                let (me, device) = view.me();
                let held = view.state().readable(&me, &device, &user);
                let is_granted = held
                    .iter()
                    .any(|interval| interval.contains(header.position));
                self.events.push_back(Event::Sealed {
                    header,
                    user,
                    is_granted,
                });
            }
            Outcome::NotAuthentic => self.reject(Some(header), Some(user), Refusal::NotAuthentic),
            Outcome::Opened(plaintext, liars) => {
                let session = header.session;
                let bad = liars
                    .into_iter()
                    .map(|giver| Event::BadCover { giver, session });
                self.events.extend(bad);
                self.deliver(header, user, plaintext);
            }
        }
    }

    fn deliver(&mut self, header: Header, user: UserId, plaintext: SecretBytes) {
        if !header.flags.frame {
            let time = header.position;
            self.events.push_back(Event::Opened {
                header,
                user,
                time,
                payload: plaintext,
            });
            return;
        }
        let Ok(records) = Records::decode(plaintext.expose(), header.position, true) else {
            self.reject(Some(header), Some(user), Refusal::Malformed);
            return;
        };
        for record in records {
            let payload = SecretBytes::from(record.payload.to_vec());
            let time = record.time;
            self.events.push_back(Event::Opened {
                header,
                user,
                time,
                payload,
            });
        }
    }
}

enum Outcome {
    NoKey,
    NotAuthentic,
    Opened(SecretBytes, Vec<(UserId, DeviceId)>),
}

impl Keys {
    /// Takes in what the view has learned since.
    fn refresh(&mut self, view: &StreamView, session: &SessionId) {
        if !self.has_root
            && let Some(root) = view.root(session)
        {
            self.has_root = true;
            let walker = Walker::new(Cover::whole(root));
            self.candidates.insert(
                0,
                Candidate {
                    giver: None,
                    walker,
                },
            );
        }
        let held = view.covers(session);
        for cover in held.get(self.covers_taken..).unwrap_or_default() {
            self.candidates.push(Candidate {
                giver: Some(cover.giver),
                walker: Walker::new(cover.cover.duplicate()),
            });
        }
        self.covers_taken = held.len();
    }

    /// Tries each candidate; one that fails where another opens is dropped, its giver named.
    fn open(&mut self, envelope: &VerifiedEnvelope<'_>) -> Outcome {
        let position = envelope.header().position.0;
        let mut failed = Vec::new();
        let mut opened = None;
        for (i, candidate) in self.candidates.iter_mut().enumerate() {
            let Some(leaf) = candidate.walker.leaf(position) else {
                continue;
            };
            match envelope.open(&leaf) {
                Ok(plaintext) => {
                    opened = Some(plaintext);
                    break;
                }
                Err(_) => failed.push(i),
            }
        }
        match opened {
            Some(plaintext) => Outcome::Opened(plaintext, self.drop_candidates(&failed)),
            None if failed.is_empty() => Outcome::NoKey,
            None => Outcome::NotAuthentic,
        }
    }

    fn drop_candidates(&mut self, failed: &[usize]) -> Vec<(UserId, DeviceId)> {
        let dropped = failed.iter().rev().map(|&i| self.candidates.remove(i));
        dropped.filter_map(|candidate| candidate.giver).collect()
    }
}

type Accepted<'a> = (UserId, VerifiedEnvelope<'a>);
type Refused = (Option<UserId>, Refusal);

/// Whether an envelope is one of a device that might publish it, unaltered, in this stream.
pub(crate) fn accept<'a>(
    view: &StreamView,
    stream: &'a sealcast_protocol::StreamId,
    envelope: EnvelopeView<'a>,
    allowed: &BTreeSet<EnvelopeHash>,
) -> Result<Accepted<'a>, Refused> {
    let header = *envelope.header();
    let user = view
        .user_of(&header.device)
        .ok_or((None, Refusal::UnknownSender))?;
    let refuse = |refusal| (Some(user), refusal);
    let key = view
        .sign_key(&user, &header.device)
        .ok_or(refuse(Refusal::UnknownSender))?;
    let record = view.record(&header.session, &header.device);
    let right = view
        .state()
        .publish_right(&user, &header.device, header.position, |grant| {
            record.is_some_and(|record| view.log().reaches(&record.heads, grant))
        });
    if right == PublishRight::Missing {
        return Err(refuse(Refusal::NotEntitled));
    }
    let bound = envelope.bind(stream, b"");
    let hash = bound.hash();
    let verified = bound
        .verify(&key)
        .map_err(|_| refuse(Refusal::BadSignature))?;
    if let PublishRight::UpTo(_) = right
        && !allowed.contains(&hash)
    {
        return Err(refuse(Refusal::AfterRevocation));
    }
    let record = record.ok_or(refuse(Refusal::UnknownSession))?;
    match may_carry(record, user, &header) {
        true => Ok((user, verified)),
        false => Err(refuse(Refusal::WrongSession)),
    }
}

/// A live session takes live messages from its start on; a backfill session takes older data in its
/// range. The device that announced a session is the one that seals with it.
fn may_carry(record: &SessionRecord, user: UserId, header: &Header) -> bool {
    record.lane == user
        && match record.kind {
            SessionKind::Live => !header.flags.backfill && record.start <= header.position,
            SessionKind::Backfill { interval } => {
                header.flags.backfill && interval.contains(header.position)
            }
        }
}
