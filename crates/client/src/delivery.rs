//! What a reader is told.

use std::fmt;
use std::ops::Deref;

use sealcast_crypto::SecretBytes;
use sealcast_engine::{Alarm, Cause, Event, Events, Notice, OpenedRecord, Parked, Refusal};
use sealcast_protocol::{DataTopic, DeviceId, Header, Position, UserId};

use crate::asking::Asking;
use crate::core::Core;
use crate::gaps::Gaps;

/// One record, or one thing to know about the stream, in the order of the bus; what was parked comes
/// late, and so do gaps of a history.
#[derive(Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The record's own time; the envelope's position where nothing was opened.
    pub time: Position,
    /// Who sealed it; `None` where the item names no known device.
    pub publisher: Option<UserId>,
    /// On which device; `None` where the item is not an envelope.
    pub device: Option<DeviceId>,
    /// The envelope's number within one run of the publisher. Records of a frame share it.
    pub seq: Option<u32>,
    /// On which topic below the stream it was published, told of what was opened.
    pub topic: Option<DataTopic>,
    /// What became of it.
    pub state: State,
    /// The payload, exactly when `state` is [`State::Opened`].
    pub payload: Option<Payload>,
    /// Why it was not opened, or what was noticed.
    pub reason: Option<Reason>,
    /// Whether it waits on disk until it opens, or waited. Only a
    /// [`Subscription`](crate::Subscription) parks.
    pub parked: Parked,
}

/// A record that was opened, where it lies; made by [`Reader::lend`](crate::Reader::lend).
pub struct Lent<'a>(pub(crate) OpenedRecord<'a>);

impl Lent<'_> {
    /// What was published.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        self.0.record.payload
    }

    /// A copy of it, with all that is known of it.
    #[inline]
    pub fn to_delivery(&self) -> Delivery {
        Delivery::of_record(&self.0)
    }
}

/// Shows what a delivery shows.
impl fmt::Debug for Lent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lent").field(&self.to_delivery()).finish()
    }
}

/// What was published. Wiped when dropped; reads as a slice of bytes.
///
/// ```
/// use sealcast::Payload;
///
/// let payload = Payload::from(b"21.5 C".to_vec());
/// assert_eq!(payload.len(), 6);
/// assert_eq!(std::str::from_utf8(&payload), Ok("21.5 C"));
/// assert_eq!(format!("{payload:?}"), "Payload(6 bytes)");
/// ```
pub struct Payload(SecretBytes);

impl Payload {
    /// Hands the bytes over to a caller who wipes them, or need not.
    pub fn into_vec(self) -> Vec<u8> {
        self.0.into_vec()
    }
}

/// An empty one.
impl Default for Payload {
    fn default() -> Self {
        Self::from(Vec::new())
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Self(SecretBytes::from(bytes))
    }
}

impl Deref for Payload {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.0.expose()
    }
}

impl AsRef<[u8]> for Payload {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Clone for Payload {
    fn clone(&self) -> Self {
        Self(self.0.duplicate())
    }
}

impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Payload {}

/// Shows how long it is, not what it says.
impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.len())
    }
}

/// What became of an envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Opened: authentic, in place, and the keys are there.
    Opened,
    /// Authentic, but no key for its position is here.
    Sealed,
    /// Not accepted: forged, altered, or its sender may not publish.
    Rejected,
    /// Envelopes of this publisher are missing before this one.
    Gap,
    /// Two envelopes follow the same one: two processes of one device, or a restored copy.
    Branch,
    /// Two different envelopes have one number: a cloned device, or an attack.
    Fork,
    /// The same envelope came again.
    Replay,
}

/// Why an envelope was not opened, or what was noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// No grant reaches this position.
    NotGranted,
    /// A grant reaches it, but no keyholder has delivered the key yet.
    KeyNotHere,
    /// No record of its session is on the bus.
    UnknownSession,
    /// Its sender is not a device that the access log names.
    UnknownSender,
    /// Its sender may not publish at this position.
    NotEntitled,
    /// Its sender was revoked before it.
    AfterRevocation,
    /// The bytes are not an envelope.
    Malformed,
    /// The signature does not hold.
    BadSignature,
    /// The key that is here does not open it.
    NotAuthentic,
    /// Its session may not be used at its position, or with this removal known.
    WrongSession,
    /// This many envelopes are missing; 0 where the number cannot be known.
    Missing(u32),
}

/// Shows how long a payload is, not what it says.
impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("time", &self.time)
            .field("publisher", &self.publisher)
            .field("device", &self.device)
            .field("seq", &self.seq)
            .field("topic", &self.topic)
            .field("state", &self.state)
            .field("payload_len", &self.payload.as_ref().map(|of| of.len()))
            .field("reason", &self.reason)
            .field("parked", &self.parked)
            .finish()
    }
}

impl Delivery {
    pub(crate) fn from_event(event: Event) -> Option<Self> {
        Some(match event {
            Event::Opened {
                header,
                user,
                topic,
                time,
                payload,
                parked,
            } => Self {
                time,
                topic,
                payload: Some(Payload(payload)),
                parked,
                ..Self::about(Some(header), Some(user), State::Opened, None)
            },
            Event::Sealed {
                header,
                user,
                is_granted,
                parked,
            } => {
                let reason = match is_granted {
                    true => Reason::KeyNotHere,
                    false => Reason::NotGranted,
                };
                Self {
                    parked,
                    ..Self::about(Some(header), Some(user), State::Sealed, Some(reason))
                }
            }
            Event::Rejected {
                header,
                user,
                refusal,
                givers: _,
                parked,
            } => Self {
                parked,
                ..Self::about(header, user, State::Rejected, Some(refusal.into()))
            },
            Event::Noticed {
                header,
                user,
                notice,
            } => {
                let (state, reason) = match notice {
                    Notice::Fresh => return None,
                    Notice::Replay => (State::Replay, None),
                    Notice::Fork => (State::Fork, None),
                    Notice::Branch => (State::Branch, None),
                    Notice::Gap { missing } => (State::Gap, Some(Reason::Missing(missing))),
                };
                Self::about(Some(header), Some(user), state, reason)
            }
            Event::BadCover { .. } => return None,
        })
    }

    #[inline]
    pub(crate) fn of_record(opened: &OpenedRecord<'_>) -> Self {
        Self {
            time: opened.record.time,
            publisher: Some(*opened.user),
            device: Some(opened.header.device),
            seq: Some(opened.header.seq),
            topic: opened.topic.cloned(),
            state: State::Opened,
            payload: Some(Payload::from(opened.record.payload.to_vec())),
            reason: None,
            parked: opened.parked,
        }
    }

    fn about(
        header: Option<Header>,
        publisher: Option<UserId>,
        state: State,
        reason: Option<Reason>,
    ) -> Self {
        Self {
            time: header.map_or(Position::START, |header| header.position),
            publisher,
            device: header.map(|header| header.device),
            seq: header.map(|header| header.seq),
            topic: None,
            state,
            payload: None,
            reason,
            parked: Parked::No,
        }
    }
}

impl From<Refusal> for Reason {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Malformed => Self::Malformed,
            Refusal::UnknownSender => Self::UnknownSender,
            Refusal::UnknownSession => Self::UnknownSession,
            Refusal::BadSignature => Self::BadSignature,
            Refusal::WrongSession => Self::WrongSession,
            Refusal::NotEntitled => Self::NotEntitled,
            Refusal::AfterRevocation => Self::AfterRevocation,
            Refusal::NotAuthentic => Self::NotAuthentic,
        }
    }
}

impl From<Cause> for Reason {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::Grant => Self::NotGranted,
            Cause::Key => Self::KeyNotHere,
            Cause::OtherKey => Self::NotAuthentic,
            Cause::Session => Self::UnknownSession,
            Cause::Right => Self::NotEntitled,
        }
    }
}

/// Who learns of each delivery: whoever asks for keys, and what holds gaps.
pub(crate) type Known<'a> = (Option<&'a Asking>, Option<&'a mut Gaps>);

/// The next delivery of some events.
#[inline]
pub(crate) fn next_delivery(
    core: &Core,
    (asking, mut gaps): Known<'_>,
    events: &mut Events,
) -> Option<Delivery> {
    if let Some(opened) = next_record((asking, gaps.as_deref_mut()), events) {
        return Some(Delivery::of_record(&opened));
    }
    next_other(core, (asking, gaps), events)
}

/// As [`next_delivery`], where what comes next is a record.
#[inline]
pub(crate) fn next_record<'a>(
    (asking, gaps): Known<'_>,
    events: &'a mut Events,
) -> Option<OpenedRecord<'a>> {
    let opened = events.poll_record()?;
    if let Some(asking) = asking {
        asking.opened(opened.header.session, opened.header.position);
    }
    if let Some(gaps) = gaps {
        gaps.came(opened.header);
    }
    Some(opened)
}

/// As [`next_delivery`], where what comes next is no record.
fn next_other(core: &Core, (asking, mut gaps): Known<'_>, events: &mut Events) -> Option<Delivery> {
    loop {
        let due = gaps.as_mut().and_then(|gaps| gaps.due());
        let event = match (due, &mut gaps) {
            (Some(due), _) => due,
            (None, None) => events.poll()?,
            (None, Some(gaps)) => match gaps.take(events.poll()?) {
                Some(event) => event,
                None => continue,
            },
        };
        if let Some(asking) = asking {
            asking.note(&event);
        }
        tell_givers(core, &event);
        if let Some(delivery) = Delivery::from_event(event) {
            return Some(delivery);
        }
    }
}

/// Tells whose keys failed. Those that this device gave to itself were imported.
fn tell_givers(core: &Core, event: &Event) {
    match event {
        Event::BadCover { giver, session } => {
            core.view().doubt(session, giver);
            core.tell([match *giver == core.view().me() {
                true => Alarm::BadImport(*session),
                false => Alarm::BadKeys(giver.0, giver.1),
            }]);
        }
        Event::Rejected {
            header: Some(header),
            givers,
            ..
        } => {
            let (session, me) = (header.session, core.view().me());
            core.tell(givers.iter().map(|giver| match *giver == me {
                true => Alarm::MisfitImport(session),
                false => Alarm::Misfit(session, giver.0, giver.1),
            }));
        }
        Event::Rejected { .. }
        | Event::Opened { .. }
        | Event::Sealed { .. }
        | Event::Noticed { .. } => (),
    }
}
