//! A reader judges envelopes in the order of `spec/reading.md`: shape, sender, right, signature,
//! session, order, key.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use sealcast_crypto::{SecretBytes, Verifier};
use sealcast_protocol::{
    DataItem, DataTopic, DeviceId, EnvelopeHash, Header, Interval, OpenFrame, Position,
    PublishRight, SessionId, SessionKind, SessionRecord, StreamId, UserId, VerifiedEnvelope,
};

use crate::candidates::{KeyRing, Outcome};
use crate::events::Events;
use crate::lineage::Allowed;
use crate::parking::{Cause, Parked, Unopened};
use crate::track::{Notice, Tracker};
use crate::view::StreamView;

mod carried;
mod parked;

pub use carried::{Arrival, Carried, Prospect};
pub use parked::Reopened;

/// Opens the envelopes of one stream.
///
/// Feed every item of the data topic to [`handle`](Self::handle) and drain
/// [`poll_event`](Self::poll_event). Nothing on the bus is an error: whatever an item is, an event
/// says what became of it.
#[derive(Debug)]
pub struct Reader {
    mode: Mode,
    /// Whether it reads the topic from its start.
    is_whole: bool,
    floor: Position,
    trackers: BTreeMap<DeviceId, Tracker>,
    /// Envelopes of revoked devices that lie at or before a tip.
    allowed: Arc<Allowed>,
    keys: KeyRing,
    verifier: Verifier,
    /// Whether the topic is read once more, so that what is known is no replay.
    is_again: bool,
    /// Whether what may open later is handed out for a [`Parking`](crate::Parking).
    parks: bool,
    /// What waits, so that it waits no more when it is met again and opens.
    parked: BTreeMap<EnvelopeHash, u64>,
    events: Events,
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
        /// On which topic below the stream.
        topic: Option<DataTopic>,
        /// The record's own time.
        time: Position,
        /// What it says.
        payload: SecretBytes,
        /// Whether it waited for its key.
        parked: Parked,
    },
    /// An authentic envelope for which there is no key here.
    Sealed {
        /// The envelope.
        header: Header,
        /// Who sealed it.
        user: UserId,
        /// Whether a grant reaches its position, so that the key may still come.
        is_granted: bool,
        /// Whether it waits for the key.
        parked: Parked,
    },
    /// An item that is not accepted.
    Rejected {
        /// What it says of itself, where it is an envelope.
        header: Option<Header>,
        /// Whose device it names, where known.
        user: Option<UserId>,
        /// Why.
        refusal: Refusal,
        /// Who gave the covers that did not open it, where its signature holds and nothing that is
        /// here opens it: either they or its sender are false.
        givers: Vec<(UserId, DeviceId)>,
        /// Whether it waits for what would mend that.
        parked: Parked,
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
    /// Its sender did not announce its session, as far as the keys topic was read.
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

impl Reader {
    /// Starts reading.
    pub fn new(mode: Mode) -> Self {
        Self {
            mode,
            is_whole: matches!(mode, Mode::History(_)),
            floor: Position::START,
            trackers: BTreeMap::new(),
            allowed: Arc::default(),
            keys: KeyRing::default(),
            verifier: Verifier::default(),
            is_again: false,
            parks: false,
            parked: BTreeMap::new(),
            events: Events::default(),
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

    /// Tells which envelopes of revoked devices lie at or before which tips, from a
    /// [`Lineage`](crate::Lineage) of all tips that are known now; it replaces what was told before.
    pub fn allow(&mut self, allowed: impl Into<Arc<Allowed>>) {
        self.allowed = allowed.into();
    }

    /// Goes from history on to live reading. What was sealed before the history's interval is not
    /// live.
    pub fn go_live(&mut self) {
        if let Mode::History(interval) = self.mode {
            self.raise_floor(interval.from);
        }
        self.mode = Mode::Live;
    }

    /// Says whether what comes next was read before, in part: the bus was put back to an older state,
    /// and is read once more. What is known of it is passed over, and the rest judged as usual.
    pub fn read_again(&mut self, is_again: bool) {
        self.is_again = is_again;
    }

    /// Takes nothing of a run as live that began below a position: somewhat before the clock, when
    /// live reading starts without history.
    pub fn raise_floor(&mut self, floor: Position) {
        self.floor = self.floor.max(floor);
        for tracker in self.trackers.values_mut() {
            tracker.raise_floor(floor);
        }
    }

    /// Notes an item that came before live reading started, so that it is known when it comes again
    /// and others may follow it.
    pub fn pass(&mut self, view: &StreamView, bytes: &[u8]) {
        if let Ok(envelope) = DataItem::parse(bytes) {
            self.pass_by(view, &envelope);
        }
    }

    /// Takes in one item of the data topic. One that is refused for what the view does not know
    /// (sender, right, session) may be handed in again when the control topics were read on.
    pub fn handle(&mut self, view: &StreamView, bytes: &[u8]) {
        let Ok(envelope) = DataItem::parse(bytes) else {
            self.reject(None, None, Refusal::Malformed, Vec::new());
            return;
        };
        let header = *envelope.header();
        if let Mode::History(interval) = self.mode
            && !interval.contains(header.position)
        {
            self.pass_by(view, &envelope);
            return;
        }
        let stream = view.stream();
        match accept(view, &stream, envelope, &self.allowed, &mut self.verifier) {
            Ok(accepted) => self.judge(view, &accepted, bytes),
            Err((user, refusal)) => {
                let cause = user.and_then(|user| self.waits_for(view, &user, refusal));
                match user.zip(cause) {
                    Some((user, cause)) => {
                        self.refuse_for_now(view, user, &envelope, (cause, refusal), bytes);
                    }
                    None => self.reject(Some(header), user, refusal, Vec::new()),
                }
            }
        }
    }

    /// Gives up on all envelopes that later ones named and that did not come; with `at_once` not
    /// set, on those for which enough others came. At the end of history, and now and then when
    /// reading live.
    pub fn give_up(&mut self, view: &StreamView, at_once: bool) {
        for tracker in self.trackers.values_mut() {
            tell_gone(&mut self.events, view, tracker.give_up(at_once));
        }
    }

    /// Hands out the next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.poll()
    }

    /// Hands out all events that there are.
    pub fn take_events(&mut self) -> Events {
        core::mem::take(&mut self.events)
    }

    fn reject(
        &mut self,
        header: Option<Header>,
        user: Option<UserId>,
        refusal: Refusal,
        givers: Vec<(UserId, DeviceId)>,
    ) {
        self.events.push(Event::Rejected {
            header,
            user,
            refusal,
            givers,
            parked: Parked::No,
        });
    }

    /// Notes an envelope outside the interval. Whoever is not known keeps nothing busy here.
    fn pass_by(&mut self, view: &StreamView, envelope: &DataItem<'_>) {
        let header = *envelope.header();
        if view.user_of(&header.device).is_some() {
            let hash = envelope.hash(&view.stream());
            self.tracker(&header.device).pass_by(&header, hash);
        }
    }

    fn tracker(&mut self, device: &DeviceId) -> &mut Tracker {
        let (is_whole, floor) = (self.is_whole, self.floor);
        self.trackers.entry(*device).or_insert_with(|| {
            let mut tracker = match is_whole {
                true => Tracker::from_start(),
                false => Tracker::midway(),
            };
            tracker.raise_floor(floor);
            tracker
        })
    }

    fn judge(&mut self, view: &StreamView, accepted: &Accepted<'_>, bytes: &[u8]) {
        let (user, envelope) = (accepted.user, &accepted.envelope);
        let header = *envelope.header();
        let gone = match self.note(user, &header, envelope.hash(), accepted.at) {
            Order::Fresh(gone) => {
                self.open(view, accepted, bytes);
                gone
            }
            Order::Old(gone) => gone,
        };
        tell_gone(&mut self.events, view, gone);
    }

    /// Judges the order of an envelope, and tells what there is to know about it.
    fn note(&mut self, user: UserId, header: &Header, hash: EnvelopeHash, at: Position) -> Order {
        let tracker = self.tracker(&header.device);
        let notices = tracker.observe(header, hash, at);
        let gone = tracker.give_up(false);
        let is_fresh = notices.contains(&Notice::Fresh);
        let is_again = self.is_again;
        let is_told = |of: &Notice| *of != Notice::Fresh && !(is_again && *of == Notice::Replay);
        for notice in notices.into_iter().filter(is_told) {
            self.events.push(Event::Noticed {
                header: *header,
                user,
                notice,
            });
        }
        match is_fresh {
            true => Order::Fresh(gone),
            false => Order::Old(gone),
        }
    }

    fn open(&mut self, view: &StreamView, accepted: &Accepted<'_>, bytes: &[u8]) {
        let (user, envelope) = (accepted.user, &accepted.envelope);
        let header = *envelope.header();
        let (cause, givers) = match self.keys.open(view, envelope) {
            Outcome::NoKey => (lacking(view, &user, header.position), Vec::new()),
            // Where no root is here, another cover may fit.
            Outcome::NotAuthentic(givers) if self.parks && !givers.is_empty() => {
                (Cause::OtherKey, givers)
            }
            Outcome::NotAuthentic(givers) => {
                return self.reject(Some(header), Some(user), Refusal::NotAuthentic, givers);
            }
            Outcome::Opened(plaintext, liars) => {
                self.tell_liars(header.session, liars);
                self.deliver(
                    (header, accepted.topic.clone()),
                    user,
                    plaintext,
                    Parked::No,
                );
                let number = match self.parked.is_empty() {
                    true => None,
                    false => self.parked.remove(&envelope.hash()),
                };
                number.into_iter().for_each(|of| self.events.push_done(of));
                return;
            }
        };
        self.leave(Unopened {
            header,
            user,
            hash: envelope.hash(),
            cause,
            givers,
            bytes: match self.parks {
                true => bytes.to_vec(),
                false => Vec::new(),
            },
        });
    }

    /// Hands out what did not open.
    fn leave(&mut self, mut of: Unopened) {
        match self.parks {
            true => self.events.push_unopened(of),
            false => self.events.push(of.event(Parked::No)),
        }
    }

    fn tell_liars(&mut self, session: SessionId, liars: Vec<(UserId, DeviceId)>) {
        for giver in liars {
            self.events.push(Event::BadCover { giver, session });
        }
    }

    fn deliver(
        &mut self,
        (header, topic): (Header, Option<DataTopic>),
        user: UserId,
        plaintext: SecretBytes,
        parked: Parked,
    ) {
        if !header.flags.frame {
            let time = header.position;
            self.events.push(Event::Opened {
                header,
                user,
                topic,
                time,
                payload: plaintext,
                parked,
            });
            return;
        }
        match OpenFrame::decode(plaintext, header.position) {
            Ok(records) => self
                .events
                .push_frame((header, topic), user, records, parked),
            Err(_) => self.events.push(Event::Rejected {
                header: Some(header),
                user: Some(user),
                refusal: Refusal::Malformed,
                givers: Vec::new(),
                parked,
            }),
        }
    }
}

/// What an envelope lacks for which there is no key here.
fn lacking(view: &StreamView, user: &UserId, position: Position) -> Cause {
    let (me, device) = view.me();
    let held = view.state().readable(&me, &device, user);
    match held.iter().any(|of| of.contains(position)) {
        true => Cause::Key,
        false => Cause::Grant,
    }
}

/// Whether an envelope is to be opened by its order, and envelopes that named others which did not
/// come.
enum Order {
    Fresh(Vec<Header>),
    Old(Vec<Header>),
}

fn tell_gone(events: &mut Events, view: &StreamView, gone: Vec<Header>) {
    let known = gone
        .into_iter()
        .filter_map(|header| Some((header, view.user_of(&header.device)?)));
    for (header, user) in known {
        events.push(Event::Noticed {
            header,
            user,
            notice: Notice::Gap { missing: 0 },
        });
    }
}

/// An envelope of a device that might publish it, unaltered, in this stream.
pub(crate) struct Accepted<'a> {
    /// Who sealed it.
    pub(crate) user: UserId,
    /// When it was sealed by its publisher's clock.
    pub(crate) at: Position,
    pub(crate) topic: Option<DataTopic>,
    pub(crate) envelope: VerifiedEnvelope<'a>,
}

/// Judges all of an envelope but its place in the order and its content.
pub(crate) fn accept<'a>(
    view: &StreamView,
    stream: &'a StreamId,
    envelope: DataItem<'a>,
    allowed: &Allowed,
    verifier: &mut Verifier,
) -> Result<Accepted<'a>, (Option<UserId>, Refusal)> {
    let header = *envelope.header();
    let user = view
        .user_of(&header.device)
        .ok_or((None, Refusal::UnknownSender))?;
    let refuse = |refusal| (Some(user), refusal);
    let device = view
        .list(&user)
        .and_then(|list| list.device(&header.device));
    let device = device.ok_or(refuse(Refusal::UnknownSender))?;
    let record = view.record(&header.session, &header.device);
    let right = view
        .state()
        .publish_right(&user, &header.device, header.position, |grant| {
            record.is_some_and(|record| view.log().reaches(&record.heads, grant))
        });
    let at = match record.map(|record| (record.kind, record.start)) {
        Some((SessionKind::Backfill { .. }, start)) => start,
        Some((SessionKind::Live, _)) | None => header.position,
    };
    if right == PublishRight::Missing || at >= device.expires {
        return Err(refuse(Refusal::NotEntitled));
    }
    let topic = envelope.topic();
    let bound = envelope.bind(stream);
    let hash = bound.hash();
    let verified = bound
        .verify_by(verifier, &device.sign_key)
        .map_err(|_| refuse(Refusal::BadSignature))?;
    let is_late = match &right {
        PublishRight::UpTo(tips) => !allowed.after(&hash, tips).any(|session| {
            let tip = view.record(session, &header.device);
            let is_up_to = |tips: &[_]| allowed.after(&hash, tips).next().is_some();
            !view.is_cut_off(&header, record, tip, is_up_to)
        }),
        PublishRight::Held | PublishRight::Missing => device.revoked.is_some_and(|out| out <= at),
    };
    if is_late {
        return Err(refuse(Refusal::AfterRevocation));
    }
    let record = record.ok_or(refuse(Refusal::UnknownSession))?;
    match may_carry(record, user, &header) {
        true => Ok(Accepted {
            user,
            at,
            topic,
            envelope: verified,
        }),
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
