//! The numbers of messages that are on their way to a client and that it has not acknowledged.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::BuildHasher as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::fields::Malformed;
use crate::packet::{PUBACK, PUBCOMP, PUBREC, Publish, id_of};
use crate::recall::Recalled;

/// From this code on, a PUBREC ends its handshake, and nothing says that who sends it has the message.
const REFUSED: u8 = 0x80;
/// Messages of the proxy's own that are on their way at most.
pub(crate) const OWN_MAX: usize = 16;
/// What is known of a message that was passed, or of which the broker says over this connection only that its number is free.
const UNKNOWN: u64 = 0;
/// Acknowledgements of them that wait to be looked at.
const ACKS_MAX: usize = 1024;

/// What is on its way to a client, by number. Both directions know it: one notes what goes there, the other what is
/// acknowledged.
#[derive(Debug)]
pub(crate) struct Numbers {
    inner: Mutex<Inner>,
    hashing: RandomState,
    /// Tells of acknowledgements.
    news: Notify,
    /// The most messages that the client takes at a time.
    receive_max: usize,
}

#[derive(Debug)]
struct Inner {
    of_broker: HashMap<u16, u64>,
    /// Numbers of the proxy's own, with what has them.
    own: BTreeMap<u16, Own>,
    next: u16,
    acks: VecDeque<Ack>,
}

#[derive(Clone, Copy, Debug)]
struct Own {
    number: u64,
    /// Whether it was sent over this connection.
    is_sent: bool,
}

impl Inner {
    /// How many messages of the proxy's own the client has to acknowledge.
    fn own_sent(&self) -> usize {
        self.own.values().filter(|of| of.is_sent).count()
    }

    /// How many messages it has to acknowledge in all.
    fn sent(&self) -> usize {
        self.of_broker.len() + self.own_sent()
    }
}

/// What a client says of a message of the proxy's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ack {
    /// It has it, and the handshake is at its end.
    Done(u16, u64),
    /// It has it, and waits to be told to give the number back.
    Received(u16, u64),
}

impl Numbers {
    pub(crate) fn new(receive_max: u16, hashing: RandomState) -> Self {
        Self {
            inner: Mutex::new(Inner {
                of_broker: HashMap::new(),
                own: BTreeMap::new(),
                next: u16::MAX,
                acks: VecDeque::new(),
            }),
            hashing,
            news: Notify::new(),
            receive_max: receive_max.into(),
        }
    }

    /// Of what a client takes at a time, how many messages may be the proxy's own.
    pub(crate) fn own_max(receive_max: u16) -> u16 {
        (receive_max / 2).clamp(1, OWN_MAX as u16)
    }

    /// A message of the broker goes on, or the second half of its handshake.
    pub(crate) fn goes_on(&self, publish: &Publish<'_>, topic: &str) {
        if let Some(id) = publish.id {
            let hash = self.hash(publish, topic);
            self.inner().of_broker.insert(id, hash);
        }
    }

    /// The same for a message that was never sealed: there is nothing by which it would be known again.
    pub(crate) fn passes(&self, publish: &Publish<'_>) {
        if let Some(id) = publish.id {
            self.inner().of_broker.insert(id, UNKNOWN);
        }
    }

    /// The broker releases a number over this connection.
    pub(crate) fn releases(&self, id: u16) {
        self.inner().of_broker.entry(id).or_insert(UNKNOWN);
    }

    /// Whether a message of the broker has to wait until the client has acknowledged others.
    pub(crate) fn has_to_wait(&self, id: Option<u16>) -> bool {
        let inner = self.inner();
        id.is_some_and(|id| {
            let is_new = !inner.of_broker.contains_key(&id);
            let is_full = inner.sent() >= self.receive_max;
            inner.own.contains_key(&id) || (is_new && is_full && inner.own_sent() > 0)
        })
    }

    /// Whether something of the proxy's own has a number.
    pub(crate) fn is_own(&self, id: u16) -> bool {
        self.inner().own.contains_key(&id)
    }

    /// Whether messages of the proxy's own are on their way. Where none are, nothing of the broker's has to wait.
    pub(crate) fn has_own(&self) -> bool {
        !self.inner().own.is_empty()
    }

    /// Whether the client takes another message of the proxy's own.
    pub(crate) fn has_room(&self) -> bool {
        let inner = self.inner();
        let own_max = usize::from(Self::own_max(
            u16::try_from(self.receive_max).unwrap_or(u16::MAX),
        ));
        inner.own_sent() < own_max && inner.sent() < self.receive_max
    }

    /// Whether there is a number that nothing has.
    pub(crate) fn has_number(&self) -> bool {
        let inner = self.inner();
        inner.own.len() + inner.of_broker.len() < usize::from(u16::MAX)
    }

    /// A number for something, that nothing else has, if there is one.
    pub(crate) fn draw(&self, number: u64) -> Option<u16> {
        let mut inner = self.inner();
        for _ in 0..u16::MAX {
            let id = inner.next;
            inner.next = id.checked_sub(1).filter(|of| *of > 0).unwrap_or(u16::MAX);
            if !inner.own.contains_key(&id) && !inner.of_broker.contains_key(&id) {
                let is_sent = true;
                inner.own.insert(id, Own { number, is_sent });
                return Some(id);
            }
        }
        None
    }

    /// Something has its number since another connection, and is not sent over this one yet.
    pub(crate) fn redraw(&self, id: u16, number: u64) {
        let is_sent = false;
        self.inner().own.insert(id, Own { number, is_sent });
    }

    /// Something of another connection is sent over this one.
    pub(crate) fn sent_again(&self, id: u16) {
        if let Some(own) = self.inner().own.get_mut(&id) {
            own.is_sent = true;
        }
    }

    /// Whether a message is one that went on before, and comes again for want of an acknowledgement.
    pub(crate) fn comes_again(&self, publish: &Publish<'_>, topic: &str) -> bool {
        let id = publish.id.filter(|_| publish.comes_again());
        let before = id.and_then(|id| self.inner().of_broker.get(&id).copied());
        before.is_some_and(|before| before == self.hash(publish, topic))
    }

    /// Whether the client had a message before, over this connection or another of its session, and has acknowledged it. Where
    /// the broker says that it comes again it has the number that it had; another may be for another subscription.
    pub(crate) fn was_had(
        &self,
        session: Option<&Recalled>,
        publish: &Publish<'_>,
        topic: &str,
    ) -> bool {
        let session = session.filter(|_| publish.id.is_some() && !publish.is_retained());
        let id = publish.id.filter(|_| publish.comes_again());
        session.is_some_and(|of| of.had(self.hash(publish, topic), id))
    }

    /// The client acknowledges something: whether that is of the proxy's own. What it has then is remembered.
    pub(crate) fn acknowledged(
        &self,
        kind: u8,
        body: &[u8],
        session: Option<&Recalled>,
    ) -> Result<bool, Malformed> {
        let is_end = match kind {
            PUBACK | PUBCOMP => true,
            PUBREC => body.get(2).is_some_and(|reason| *reason >= REFUSED),
            _ => return Ok(false),
        };
        let id = id_of(body)?;
        let mut inner = self.inner();
        let Some(Own { number, .. }) = inner.own.get(&id).copied() else {
            let mark = is_end.then(|| inner.of_broker.remove(&id)).flatten();
            let is_had = body.get(2).is_none_or(|reason| *reason < REFUSED);
            let mark = mark.filter(|of| is_had && *of != UNKNOWN);
            if let (Some(session), Some(mark)) = (session, mark) {
                session.has(mark, id);
            }
            self.news.notify_one();
            return Ok(false);
        };
        let ack = match is_end {
            true => Ack::Done(id, number),
            false => Ack::Received(id, number),
        };
        if inner.acks.len() < ACKS_MAX {
            inner.acks.push_back(ack);
        }
        self.news.notify_one();
        Ok(true)
    }

    /// What was acknowledged of the proxy's own since.
    pub(crate) fn take_acks(&self) -> Vec<Ack> {
        let mut inner = self.inner();
        let acks: Vec<_> = inner.acks.drain(..).collect();
        for ack in &acks {
            if let Ack::Done(id, _) = ack {
                inner.own.remove(id);
            }
        }
        acks
    }

    pub(crate) fn has_acks(&self) -> bool {
        !self.inner().acks.is_empty()
    }

    /// What was to have a number does not go on.
    pub(crate) fn give_up(&self, id: u16) {
        self.inner().own.remove(&id);
    }

    /// Waits until something is acknowledged.
    pub(crate) async fn news(&self) {
        self.news.notified().await;
    }

    /// What nobody else can bring to the same number for another message.
    fn hash(&self, publish: &Publish<'_>, topic: &str) -> u64 {
        self.hashing.hash_one((topic, publish.payload))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
