//! What is remembered of clients' sessions in memory, so that little is doubled where a connection ends while messages of QoS 1
//! and their acknowledgements are on their way.
//!
//! What a client sends again for want of an acknowledgement is the same envelope again, so that whoever opens it twice can tell. And what
//! a client has acknowledged is not delivered to it once more, though its broker did not hear of that and sends it again.
//!
//! Nothing of it outlives the proxy: then more is doubled, as without one, and nothing else is different.
//!
//! That an envelope goes out again says that a message is the one before. Whoever has the client's name and a broker that helps could try
//! guesses so: hence there is one for each message, from where the client was, and not for long.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, VecDeque};
use std::hash::BuildHasher as _;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sealcast::ShelfOwner;
use tokio::time::{Instant, sleep};

use crate::packet::Publish;
use crate::park::now;
use crate::sealing::Sealed;

/// Messages that a client has acknowledged, and those that a broker has to, which are remembered of a session.
const HAD_MAX: usize = 256;
const SENT_MAX: usize = 256;
/// Bytes of the latter, of a session and of all.
const SENT_BYTES_MAX: usize = 4 << 20;
const ALL_SENT_BYTES_MAX: usize = 32 << 20;
/// For how long an envelope goes out again: clients are back within seconds, who tries guesses may need longer, and far from the
/// ten minutes after which those who read live take what was sealed before for a replay, so that it would be lost.
const AGAIN_WITHIN: Duration = Duration::from_secs(60);
/// Sessions that are remembered beside those that are connected, and for how long.
const SESSIONS_MAX: usize = 4096;
const AGE_MAX: Duration = Duration::from_secs(3_600);
/// How often what is too old is thrown away.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Where a client comes from: by its certificate where its listener asks for one, else by its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin(ShelfOwner);

impl Origin {
    pub(crate) fn of_certificate(certificate: &[u8]) -> Self {
        Self(ShelfOwner::of(&[b"certificate", certificate]))
    }

    pub(crate) fn of_address(address: IpAddr) -> Self {
        let address = address.to_canonical().to_string();
        Self(ShelfOwner::of(&[b"address", address.as_bytes()]))
    }
}

/// What is remembered of all sessions.
#[derive(Debug, Default)]
pub(crate) struct Recall {
    hashing: RandomState,
    sessions: Mutex<Sessions>,
    /// Bytes of what was sealed, for all.
    bytes: Arc<AtomicUsize>,
}

type Sessions = BTreeMap<ShelfOwner, Arc<Recalled>>;

/// What is remembered of one session.
#[derive(Debug)]
pub(crate) struct Recalled {
    hashing: RandomState,
    owner: ShelfOwner,
    origin: Origin,
    inner: Mutex<Inner>,
    all_bytes: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct Inner {
    /// What the client has acknowledged, with the broker's number of it, the newest last.
    had: VecDeque<(u64, u16)>,
    /// What was sealed and its broker has not acknowledged, by the numbers that the client gave its messages.
    sent: BTreeMap<u16, Sent>,
    bytes: usize,
    /// Whether what came again was another message: somebody may be guessing, and nothing goes out again.
    is_guessed: bool,
    used: Instant,
}

#[derive(Debug)]
struct Sent {
    /// What anybody may know of it.
    shape: [u8; 16],
    /// By what the message is known again.
    mark: u64,
    sealed: Sealed,
    at: Moment,
}

/// When something is, by two clocks: one stands still while the machine sleeps, and the other may be set.
#[derive(Clone, Copy, Debug)]
struct Moment {
    instant: Instant,
    /// In milliseconds of Unix time.
    date: u64,
}

impl Moment {
    fn now() -> Self {
        Self {
            instant: Instant::now(),
            date: now(),
        }
    }

    fn is_within(self, of: Self, time: Duration) -> bool {
        let by_date = self.date.checked_sub(of.date).map(Duration::from_millis);
        self.instant - of.instant <= time && by_date.is_some_and(|age| age <= time)
    }
}

fn is_left(session: &Arc<Recalled>) -> bool {
    Arc::strong_count(session) == 1
}

impl Recall {
    /// By what messages are known again while the proxy lives, and nobody else can find another for.
    pub(crate) fn hashing(&self) -> RandomState {
        self.hashing.clone()
    }

    /// What is remembered of a session that a broker has let in, where it goes on and its client comes from where it came
    /// from; else it begins with nothing.
    pub(crate) fn session(
        &self,
        owner: ShelfOwner,
        origin: Origin,
        goes_on: bool,
    ) -> Arc<Recalled> {
        let mut sessions = self.sessions();
        let known = sessions.get(&owner);
        if known.is_some_and(|known| !goes_on || known.origin != origin) {
            sessions.remove(&owner);
        }
        let new = || {
            let whose = (owner, origin);
            Recalled::new(self.hashing.clone(), whose, Arc::clone(&self.bytes))
        };
        let session = sessions.entry(owner).or_insert_with(|| Arc::new(new()));
        let session = Arc::clone(session);
        session.inner().used = Instant::now();
        make_room(&mut sessions);
        session
    }

    /// A connection of a session is at its end. Where there is no other, and nothing to remember of the session, it goes.
    pub(crate) fn left(&self, session: &Arc<Recalled>) {
        session.inner().used = Instant::now();
        let mut sessions = self.sessions();
        let known = sessions.get(&session.owner);
        let is_known = known.is_some_and(|known| Arc::ptr_eq(known, session));
        // Whoever says so has it, too.
        if is_known && Arc::strong_count(session) <= 2 && !session.worth().0 {
            sessions.remove(&session.owner);
        }
    }

    /// Throws away what is too old, now and then. Never ends.
    pub(crate) async fn age(&self) {
        loop {
            sleep(LOOK_EVERY).await;
            self.throw_away(Moment::now());
        }
    }

    fn throw_away(&self, now: Moment) {
        let mut sessions = self.sessions();
        sessions.retain(|_, session| {
            session.throw_away(now);
            !is_left(session) || now.instant - session.inner().used <= AGE_MAX
        });
    }

    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets as many sessions as are too many: first those of which nothing is known, then those that were left first.
fn make_room(sessions: &mut Sessions) {
    if sessions.len() <= SESSIONS_MAX {
        return;
    }
    let left = sessions.iter().filter(|(_, session)| is_left(session));
    let mut left: Vec<_> = left.map(|(of, session)| (session.worth(), *of)).collect();
    left.sort_by_key(|(worth, _)| *worth);
    let too_many = left.len().saturating_sub(SESSIONS_MAX);
    for (_, owner) in left.into_iter().take(too_many) {
        sessions.remove(&owner);
    }
}

impl Recalled {
    fn new(
        hashing: RandomState,
        (owner, origin): (ShelfOwner, Origin),
        all_bytes: Arc<AtomicUsize>,
    ) -> Self {
        Self {
            hashing,
            owner,
            origin,
            inner: Mutex::new(Inner {
                had: VecDeque::new(),
                sent: BTreeMap::new(),
                bytes: 0,
                is_guessed: false,
                used: Instant::now(),
            }),
            all_bytes,
        }
    }

    /// The client has a message and has said so.
    pub(crate) fn has(&self, mark: u64, id: u16) {
        let mut inner = self.inner();
        inner.had.push_back((mark, id));
        if inner.had.len() > HAD_MAX {
            inner.had.pop_front();
        }
        inner.used = Instant::now();
    }

    /// Whether it has, of what comes with a number that matters, or with any.
    pub(crate) fn had(&self, mark: u64, id: Option<u16>) -> bool {
        let inner = self.inner();
        let is_it = |of: &(u64, u16)| of.0 == mark && id.is_none_or(|id| id == of.1);
        inner.had.iter().any(is_it)
    }

    /// What was sealed of a message that comes again, and that its broker has not acknowledged.
    pub(crate) fn again(&self, publish: &Publish<'_>, shape: &[u8; 16]) -> Option<Sealed> {
        self.again_at(publish, shape, Moment::now())
    }

    fn again_at(&self, publish: &Publish<'_>, shape: &[u8; 16], now: Moment) -> Option<Sealed> {
        // Another value may have been retained since, and who had this one would not take it again.
        let id = publish
            .id
            .filter(|_| publish.comes_again() && !publish.is_retained())?;
        let mark = self.mark(publish, shape);
        let mut inner = self.inner();
        let sent = inner.sent.get(&id).filter(|sent| sent.shape == *shape)?;
        if !now.is_within(sent.at, AGAIN_WITHIN) {
            self.forget(&mut inner, id);
            return None;
        }
        if sent.mark != mark {
            self.forget_all(&mut inner);
            inner.is_guessed = true;
            return None;
        }
        Some(sent.sealed.clone())
    }

    /// Something was sealed and goes on. It is remembered as far as there is room: as much as it leaves free, so that whoever
    /// comes finds some.
    pub(crate) fn sent(&self, publish: &Publish<'_>, shape: &[u8; 16], sealed: Sealed) {
        let Some(id) = publish.id else {
            return;
        };
        let (mark, bytes) = (self.mark(publish, shape), sealed.payload.len());
        let mut inner = self.inner();
        inner.used = Instant::now();
        self.forget(&mut inner, id);
        if publish.is_retained() || inner.is_guessed {
            return;
        }
        let all = self.all_bytes.load(Ordering::Relaxed);
        let free = ALL_SENT_BYTES_MAX.checked_sub(all.saturating_add(bytes));
        let own = inner.bytes.saturating_add(bytes);
        let is_room = inner.sent.len() < SENT_MAX
            && own <= SENT_BYTES_MAX
            && free.is_some_and(|free| own <= free);
        if is_room {
            inner.bytes += bytes;
            self.all_bytes.fetch_add(bytes, Ordering::Relaxed);
            let sent = Sent {
                shape: *shape,
                mark,
                sealed,
                at: Moment::now(),
            };
            inner.sent.insert(id, sent);
        }
    }

    /// The client may give a number to another message, or has.
    pub(crate) fn released(&self, id: u16) {
        self.forget(&mut self.inner(), id);
    }

    fn throw_away(&self, now: Moment) {
        let mut inner = self.inner();
        let old = inner.sent.iter();
        let old = old.filter(|(_, sent)| !now.is_within(sent.at, AGAIN_WITHIN));
        let old: Vec<_> = old.map(|(id, _)| *id).collect();
        for id in old {
            self.forget(&mut inner, id);
        }
    }

    /// Whether anything is known of it, and since when it was not used.
    fn worth(&self) -> (bool, Instant) {
        let inner = self.inner();
        let is_any = !inner.had.is_empty() || !inner.sent.is_empty() || inner.is_guessed;
        (is_any, inner.used)
    }

    fn forget(&self, inner: &mut Inner, id: u16) {
        if let Some(sent) = inner.sent.remove(&id) {
            let bytes = sent.sealed.payload.len();
            inner.bytes -= bytes;
            self.all_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    fn forget_all(&self, inner: &mut Inner) {
        inner.sent.clear();
        let bytes = std::mem::take(&mut inner.bytes);
        self.all_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Says what is in it as well: it is not kept anywhere, and without its key no guess can be tried.
    fn mark(&self, publish: &Publish<'_>, shape: &[u8; 16]) -> u64 {
        self.hashing.hash_one((shape, publish.payload))
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
    const HERE: Origin = Origin(ShelfOwner([9; 16]));

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
        let session = recall.session(OWNER, HERE, true);
        let last = HAD_MAX as u64;
        (0..=last).for_each(|mark| session.has(mark, 7));
        let had = |mark| session.had(mark, None);
        assert!(!had(0) && had(1) && had(last));
        assert!(session.had(1, Some(7)) && !session.had(1, Some(8)));
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
    fn whoever_comes_finds_room_and_what_is_forgotten_leaves_some() {
        let recall = Recall::default();
        let session = |of: u8| recall.session(ShelfOwner([of; 16]), HERE, true);
        let full = (ALL_SENT_BYTES_MAX / SENT_BYTES_MAX) as u8;
        for of in 1..full {
            assert!(is_remembered(&session(of), 7, SENT_BYTES_MAX));
        }
        assert!(!is_remembered(&session(full), 7, SENT_BYTES_MAX));
        assert!(is_remembered(&session(full), 7, SENT_BYTES_MAX / 2));
        assert!(is_remembered(&session(full + 1), 7, SENT_BYTES_MAX / 4));
        recall.session(ShelfOwner([1; 16]), HERE, false);
        assert!(is_remembered(&session(0), 7, SENT_BYTES_MAX / 2));
    }

    #[test]
    fn an_envelope_goes_out_again_for_a_minute_by_either_clock() {
        let recall = Recall::default();
        let session = recall.session(OWNER, HERE, true);
        let body = [0, 1, b't', 0, 7, b'x'];
        let again = Publish::parse(Version::Three, 0x3a, &body).unwrap();
        let in_time = AGAIN_WITHIN.as_millis() as u64;
        for (instant, date, is_same) in [
            (in_time, in_time, true),
            (in_time + 1, in_time, false),
            // The machine slept, or its clock was set back.
            (0, in_time + 1, false),
            (in_time, u64::MAX, false),
        ] {
            assert!(is_remembered(&session, 7, 1));
            let at = session.inner().sent.get(&7).unwrap().at;
            let now = Moment {
                instant: at.instant + Duration::from_millis(instant),
                date: at.date.wrapping_add(date),
            };
            let found = session.again_at(&again, &[0; 16], now);
            assert_eq!(found.is_some(), is_same, "{instant} {date}");
            // Nothing else takes it away in time, nor keeps it.
            assert!(is_remembered(&session, 7, 1));
            let at = session.inner().sent.get(&7).unwrap().at;
            recall.throw_away(Moment {
                instant: at.instant + Duration::from_millis(instant),
                date: at.date.wrapping_add(date),
            });
            assert_eq!(session.inner().sent.len(), usize::from(is_same));
        }
    }

    #[test]
    fn a_session_is_forgotten_when_nobody_comes_back_to_it() {
        let recall = Recall::default();
        let (left, there) = (ShelfOwner([2; 16]), ShelfOwner([3; 16]));
        let known = recall.session(left, HERE, true);
        known.has(7, 1);
        recall.left(&known);
        let left_at = known.inner().used;
        let later = |time| Moment {
            instant: left_at + time,
            date: now(),
        };
        drop(known);
        let stays = recall.session(there, HERE, true);
        stays.has(7, 1);
        recall.throw_away(later(AGE_MAX));
        assert!(recall.sessions().contains_key(&left));
        recall.throw_away(later(AGE_MAX + Duration::from_millis(1)));
        assert!(!recall.sessions().contains_key(&left));
        assert!(recall.session(there, HERE, true).had(7, None));
    }

    #[test]
    fn nothing_is_kept_of_a_session_of_which_nothing_is_known() {
        let recall = Recall::default();
        let [first, second] = [(); 2].map(|()| recall.session(OWNER, HERE, true));
        recall.left(&first);
        drop(first);
        assert_eq!(recall.sessions().len(), 1, "another connection has it");
        recall.left(&second);
        assert!(recall.sessions().is_empty());
        drop(second);
        let known = recall.session(OWNER, HERE, true);
        known.has(7, 1);
        recall.left(&known);
        assert_eq!(recall.sessions().len(), 1);
        // One that took its place stays.
        let other = recall.session(OWNER, HERE, false);
        recall.left(&known);
        assert_eq!(recall.sessions().len(), 1);
        recall.left(&other);
        assert!(recall.sessions().is_empty());
    }

    #[test]
    fn of_too_many_sessions_those_go_first_of_which_nothing_is_known() {
        let recall = Recall::default();
        let owner = |of: u64| {
            let mut owner = [4; 16];
            owner[..8].copy_from_slice(&of.to_be_bytes());
            ShelfOwner(owner)
        };
        let max = SESSIONS_MAX as u64;
        let stays = recall.session(owner(0), HERE, true);
        recall.session(owner(1), HERE, true).has(7, 1);
        (2..max + 9).for_each(|of| drop(recall.session(owner(of), HERE, true)));
        let sessions = recall.sessions();
        // Beside the one that is connected, and the one that comes.
        assert!(sessions.len() <= SESSIONS_MAX + 2);
        assert!(sessions.contains_key(&owner(0)) && sessions.contains_key(&owner(1)));
        assert!(!sessions.contains_key(&owner(2)));
        drop(stays);
    }
}
