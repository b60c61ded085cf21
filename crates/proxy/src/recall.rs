//! What is remembered of clients' sessions in memory, so that little is doubled where a connection ends while messages of QoS 1
//! and their acknowledgements are on their way.
//!
//! What a client sends again for want of an acknowledgement is the same envelope again, so that whoever opens it twice can tell. And what
//! a client has acknowledged is not delivered to it once more, though its broker did not hear of that and sends it again.
//!
//! Nothing of it outlives the proxy: then more is doubled, as without one, and nothing else is different.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, VecDeque};
use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sealcast::ShelfOwner;
use tokio::time::Instant;

use crate::packet::Publish;
use crate::sealing::Sealed;

/// Messages that a client has acknowledged, and those that a broker has to, which are remembered of a session.
const HAD_MAX: usize = 256;
const SENT_MAX: usize = 256;
/// Bytes of the latter, of a session and of all.
const SENT_BYTES_MAX: usize = 4 << 20;
const ALL_SENT_BYTES_MAX: usize = 32 << 20;
/// Sessions that are remembered beside those that are connected, and for how long.
const SESSIONS_MAX: usize = 4096;
const AGE_MAX: Duration = Duration::from_secs(3_600);

/// What is remembered of all sessions.
#[derive(Debug, Default)]
pub(crate) struct Recall {
    hashing: RandomState,
    sessions: Mutex<BTreeMap<ShelfOwner, Arc<Recalled>>>,
    /// Bytes of what was sealed, for all.
    bytes: Arc<AtomicUsize>,
}

/// What is remembered of one session.
#[derive(Debug)]
pub(crate) struct Recalled {
    hashing: RandomState,
    inner: Mutex<Inner>,
    all_bytes: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct Inner {
    /// What the client has acknowledged, the newest last.
    had: VecDeque<u64>,
    /// What was sealed and its broker has not acknowledged, by the numbers that the client gave its messages.
    sent: BTreeMap<u16, Sent>,
    bytes: usize,
    used: Instant,
}

#[derive(Debug)]
struct Sent {
    /// By what the message is known again.
    mark: u64,
    sealed: Sealed,
}

impl Recall {
    /// By what messages are known again while the proxy lives, and nobody else can find another for.
    pub(crate) fn hashing(&self) -> RandomState {
        self.hashing.clone()
    }

    /// What is remembered of a session that a broker has let in, where it goes on; else it begins with nothing.
    pub(crate) fn session(&self, owner: ShelfOwner, goes_on: bool) -> Arc<Recalled> {
        self.session_at(owner, goes_on, Instant::now())
    }

    fn session_at(&self, owner: ShelfOwner, goes_on: bool, now: Instant) -> Arc<Recalled> {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let is_left = |of: &Arc<Recalled>| Arc::strong_count(of) == 1;
        sessions.retain(|of, known| {
            let is_another = *of == owner && !goes_on;
            let is_old = is_left(known) && now - known.inner().used > AGE_MAX;
            !is_another && !is_old
        });
        let left = sessions.iter().filter(|(_, of)| is_left(of));
        if left.clone().count() > SESSIONS_MAX {
            let oldest = left.min_by_key(|(_, of)| of.inner().used);
            if let Some(oldest) = oldest.map(|(owner, _)| *owner) {
                sessions.remove(&oldest);
            }
        }
        let new = || Recalled::new(self.hashing.clone(), Arc::clone(&self.bytes), now);
        let session = sessions.entry(owner).or_insert_with(|| Arc::new(new()));
        session.inner().used = now;
        Arc::clone(session)
    }
}

impl Recalled {
    fn new(hashing: RandomState, all_bytes: Arc<AtomicUsize>, used: Instant) -> Self {
        Self {
            hashing,
            inner: Mutex::new(Inner {
                had: VecDeque::new(),
                sent: BTreeMap::new(),
                bytes: 0,
                used,
            }),
            all_bytes,
        }
    }

    /// The client has a message and has said so.
    pub(crate) fn has(&self, mark: u64) {
        let mut inner = self.inner();
        inner.had.push_back(mark);
        if inner.had.len() > HAD_MAX {
            inner.had.pop_front();
        }
        inner.used = Instant::now();
    }

    /// Whether it has.
    pub(crate) fn had(&self, mark: u64) -> bool {
        self.inner().had.contains(&mark)
    }

    /// What was sealed of a message that comes again, and that its broker has not acknowledged.
    pub(crate) fn again(&self, publish: &Publish<'_>, mark: &[u8; 16]) -> Option<Sealed> {
        let id = publish.id.filter(|_| publish.comes_again())?;
        let mark = self.mark(publish, mark);
        let inner = self.inner();
        let sent = inner.sent.get(&id)?;
        (sent.mark == mark).then(|| sent.sealed.clone())
    }

    /// Something was sealed and goes on. It is remembered as far as there is room.
    pub(crate) fn sent(&self, publish: &Publish<'_>, mark: &[u8; 16], sealed: Sealed) {
        let Some(id) = publish.id else {
            return;
        };
        let (mark, bytes) = (self.mark(publish, mark), sealed.payload.len());
        let mut inner = self.inner();
        inner.used = Instant::now();
        self.forget(&mut inner, id);
        let all = self.all_bytes.load(Ordering::Relaxed);
        let is_room = inner.sent.len() < SENT_MAX
            && inner.bytes + bytes <= SENT_BYTES_MAX
            && all + bytes <= ALL_SENT_BYTES_MAX;
        if is_room {
            inner.bytes += bytes;
            self.all_bytes.fetch_add(bytes, Ordering::Relaxed);
            inner.sent.insert(id, Sent { mark, sealed });
        }
    }

    /// The client may give a number to another message, or has.
    pub(crate) fn released(&self, id: u16) {
        self.forget(&mut self.inner(), id);
    }

    fn forget(&self, inner: &mut Inner, id: u16) {
        if let Some(sent) = inner.sent.remove(&id) {
            let bytes = sent.sealed.payload.len();
            inner.bytes -= bytes;
            self.all_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// Says what is in it as well: it is not kept anywhere, and without its key no guess can be tried.
    fn mark(&self, publish: &Publish<'_>, mark: &[u8; 16]) -> u64 {
        self.hashing.hash_one((mark, publish.payload))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Recalled {
    fn drop(&mut self) {
        let bytes = self.inner().bytes;
        self.all_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Version;

    const OWNER: ShelfOwner = ShelfOwner([1; 16]);

    fn sealed(len: usize) -> Sealed {
        Sealed {
            payload: vec![0; len],
            is_envelope: true,
        }
    }

    /// Sends a message with some number, and tells whether it would be the same again.
    fn is_remembered(session: &Recalled, id: u16, len: usize) -> bool {
        let [high, low] = id.to_be_bytes();
        let body = [0, 1, b't', high, low, b'x'];
        let [new, again] = [0x32, 0x3a].map(|first| Publish::parse(Version::Three, first, &body));
        session.sent(&new.unwrap(), &[0; 16], sealed(len));
        session.again(&again.unwrap(), &[0; 16]).is_some()
    }

    #[test]
    fn so_much_is_remembered_of_a_session_and_no_more() {
        let recall = Recall::default();
        let session = recall.session(OWNER, true);
        let last = HAD_MAX as u64;
        (0..=last).for_each(|mark| session.has(mark));
        assert!(!session.had(0) && session.had(1) && session.had(last));
        let all = 1..=SENT_MAX as u16 + 1;
        let count = all.filter(|id| is_remembered(&session, *id, 1)).count();
        assert_eq!(count, SENT_MAX);
        // There is room when something is acknowledged.
        session.released(1);
        assert!(!is_remembered(&session, 1, SENT_BYTES_MAX));
        assert!(is_remembered(&session, 1, SENT_BYTES_MAX + 1 - SENT_MAX));
        assert!(!is_remembered(&session, 2, 2));
    }

    #[test]
    fn all_sessions_together_have_so_much_and_what_is_forgotten_leaves_room() {
        let recall = Recall::default();
        let session = |of: u8| recall.session(ShelfOwner([of; 16]), true);
        let full = (ALL_SENT_BYTES_MAX / SENT_BYTES_MAX) as u8;
        for of in 0..full {
            assert!(is_remembered(&session(of), 7, SENT_BYTES_MAX));
        }
        assert!(!is_remembered(&session(full), 7, 1));
        recall.session(ShelfOwner([0; 16]), false);
        assert!(is_remembered(&session(full), 7, 1));
    }

    #[test]
    fn a_session_is_forgotten_when_nobody_comes_back_to_it() {
        let recall = Recall::default();
        let (left, there) = (ShelfOwner([2; 16]), ShelfOwner([3; 16]));
        let known = recall.session(left, true);
        known.has(7);
        let in_time = known.inner().used + AGE_MAX;
        drop(known);
        let stays = recall.session(there, true);
        stays.has(7);
        assert!(recall.session_at(left, true, in_time).had(7));
        let late = in_time + AGE_MAX + Duration::from_millis(1);
        assert!(!recall.session_at(left, true, late).had(7));
        assert!(recall.session(there, true).had(7));
        for of in 0..=SESSIONS_MAX as u64 + 1 {
            let mut owner = [4; 16];
            owner[..8].copy_from_slice(&of.to_be_bytes());
            recall.session(ShelfOwner(owner), true);
        }
        assert!(recall.sessions.lock().unwrap().len() <= SESSIONS_MAX + 2);
        assert!(stays.had(7));
    }
}
