//! A publisher seals batches of records, inside the store transaction that holds its lane.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use rand_core::CryptoRng;
use sealcast_crypto::{Cover, SessionRoot, SigningKey, Walker, WrapKey};
use sealcast_protocol::{
    DataTopic, DecodeError, DeviceId, Draft, EnvelopeHash, Flags, Header, InstanceId, LogHash,
    Position, SealedEnvelope, SessionId, SessionKind, SessionRecord, StreamId, Suite, UserId,
    Verified, WRAPS_MAX, seal_unsigned, sign, sign_batch, wrap_root,
};

use crate::dealing::{Covered, smallest};
use crate::identity::Identity;
use crate::lane::{ClockBehind, Lane};
use crate::view::StreamView;

/// Envelopes that share a signature, at most: with more each would grow by another 32 bytes, and what
/// a signature costs is by then a small part of each.
const SIGNED_AT_ONCE_MAX: usize = 16;
/// The longest that share one, as long as a full frame and some more. What is longer has its size whatever
/// is sealed beside it, so that a bus with little room takes it or not by its own length.
const SHARING_LEN_MAX: usize = 80 << 10;
/// The fewest records of a frame that shares one: what it grows by is then little more than a byte for each.
const SHARING_RECORDS_MIN: usize = 128;

/// Seals for one device in one run of its process.
///
/// Draw up a batch with [`seal`](Self::seal) inside the transaction that reads and writes the
/// [`Lane`]; when the transaction is durable, [`advance`](Self::advance) and let the envelopes
/// leave. A batch that was not advanced over never happened.
#[derive(Debug)]
pub struct Publisher {
    stream: StreamId,
    user: UserId,
    device: DeviceId,
    signing: SigningKey,
    instance: InstanceId,
    seq: u32,
    prev: Option<EnvelopeHash>,
    walker: Option<(SessionId, Walker)>,
    checked: Option<Checked>,
    revoked: Revoked,
    /// How far there are records for key nodes of the session that is sealed with.
    covered: Covered,
    /// Of a backfill session, of which segments.
    covered_past: Option<CoveredPast>,
}

/// Of which segments of a backfill session there are records for key nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoveredPast {
    /// The session.
    pub session: SessionId,
    /// The access-log entry for whose key nodes the secret was found fit.
    pub set: LogHash,
    /// Names the secret that they were made with.
    pub secret: [u8; 32],
    /// The smallest segments; there are records of the larger ones around each, too.
    pub smallest: BTreeSet<u64>,
}

/// What was found out about a session, as long as nothing new is learned.
#[derive(Clone, Copy, Debug)]
struct Checked {
    session: SessionId,
    revision: u64,
    /// Whether no removal is known that it does not know of.
    is_sound: bool,
    /// When this device started another.
    ends: Position,
}

/// Revoked cards of devices that may have asked key nodes, as they were noticed in this run.
#[derive(Debug, Default)]
struct Revoked {
    session: Option<SessionId>,
    devices: BTreeSet<DeviceId>,
    /// Whether one was noticed while the session was sealed with.
    is_over: bool,
}

impl Revoked {
    /// Notices what there is, and says whether another session is needed. One that is new here may have been drawn for what
    /// was revoked before its start, and what is to be revoked would have each run begin another; whatever its time, what is
    /// read from then on counts.
    fn notice(
        &mut self,
        record: &SessionRecord,
        now: Position,
        revoked: BTreeMap<DeviceId, Position>,
    ) -> bool {
        if record.kind != SessionKind::Live {
            return false;
        }
        let is_new_here = self.session != Some(record.session);
        let mut unknown = revoked.iter().filter(|(of, _)| !self.devices.contains(of));
        let is_since = |out: Position| record.start < out && out <= now;
        let is_noticed = unknown.any(|(_, out)| !is_new_here || is_since(*out));
        self.is_over = is_noticed || (self.is_over && !is_new_here);
        self.session = Some(record.session);
        self.devices.extend(revoked.into_keys());
        self.is_over
    }
}

/// A sealed batch.
#[derive(Debug)]
#[must_use]
pub struct Sealed {
    /// The envelopes, in order, each behind its topic where it has one.
    pub envelopes: Vec<SealedEnvelope>,
    /// Where the last one was sealed.
    pub position: Position,
    seq: u32,
    prev: Option<EnvelopeHash>,
}

/// A session that was drawn: keep it, then announce it, then seal with it.
#[derive(Debug)]
pub struct NewSession {
    /// Its id.
    pub session: SessionId,
    /// Its root.
    pub root: SessionRoot,
    /// Its record, with the root wrapped for every keyholder device.
    pub record: Verified<SessionRecord>,
}

/// Why a batch was not sealed. Nothing changed. Exhaustive: most of them are for the driver to mend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSealed {
    /// The log is not whole, so that a removal may be hidden: read it again.
    #[error("{0} access-log entries are missing")]
    LogIncomplete(usize),
    /// The stream has ended.
    #[error("the stream is closed")]
    Closed,
    /// The log does not let this device publish now.
    #[error("this device may not publish")]
    NotEntitled,
    /// The clock must be set.
    #[error(transparent)]
    ClockBehind(#[from] ClockBehind),
    /// There is no session, or a removal or its age ended it: start one.
    #[error("a new session is needed")]
    NeedsSession,
    /// Another process of the home started this session: take its root and record from the store.
    #[error("the session is not known here yet")]
    UnknownSession(SessionId),
    /// The session's record is not known to be on the bus: put it there.
    #[error("the session is not announced yet")]
    NotAnnounced(SessionId),
    /// The stream has key nodes, and there are no records for them yet of the segments in which it would
    /// be sealed: put them on the bus.
    #[error("key nodes could not open it yet")]
    NeedsSegments(SessionId, Position),
    /// This run has used up its numbers: start another.
    #[error("this run has used up its numbers")]
    Exhausted,
    /// A record is too long, a frame is empty, or a record of older data is not where it must be.
    #[error("a record does not fit into an envelope")]
    OutOfRange,
}

impl Publisher {
    /// Starts a run. `rng` must not repeat, not even in a restored copy of the home.
    pub fn new(stream: StreamId, identity: &Identity, rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let mut instance = [0; 8];
        rng.fill_bytes(&mut instance);
        Self {
            stream,
            user: identity.user(),
            device: identity.device(),
            signing: identity.signing().duplicate(),
            instance: InstanceId(instance),
            seq: 0,
            prev: None,
            walker: None,
            checked: None,
            revoked: Revoked::default(),
            covered: Covered::NONE,
            covered_past: None,
        }
    }

    /// Seals a batch at the lane's next position.
    ///
    /// # Errors
    ///
    /// Fails with what must be done first; neither lane nor publisher has changed then.
    pub fn seal(
        &mut self,
        now: Position,
        lane: &mut Lane,
        view: &StreamView,
        drafts: &[Draft<'_>],
    ) -> Result<Sealed, NotSealed> {
        self.seal_on(None, now, lane, view, drafts)
    }

    /// As [`seal`](Self::seal), on a topic below the stream, which is bound into each envelope.
    ///
    /// # Errors
    ///
    /// As [`seal`](Self::seal).
    pub fn seal_on(
        &mut self,
        topic: Option<&DataTopic>,
        now: Position,
        lane: &mut Lane,
        view: &StreamView,
        drafts: &[Draft<'_>],
    ) -> Result<Sealed, NotSealed> {
        let position = self.position(now, lane, view)?;
        let session = self.ready(now, position, lane, view)?;
        let drafts: Vec<_> = drafts.iter().map(|draft| (position, *draft)).collect();
        let sealed = self.seal_all((lane, view), topic, session, Flags::default(), &drafts)?;
        if !sealed.envelopes.is_empty() {
            lane.seal_at(position);
        }
        lane.last = sealed.prev.unwrap_or(lane.last);
        Ok(sealed)
    }

    /// Seals older data, each record at its own position, in a backfill session of this device
    /// whose record is on the bus. The positions must ascend and lie in the session's interval.
    ///
    /// # Errors
    ///
    /// Fails with what must be done first; neither lane nor publisher has changed then.
    pub fn seal_past(
        &mut self,
        lane: &mut Lane,
        view: &StreamView,
        session: SessionId,
        records: &[(Position, impl AsRef<[u8]>)],
    ) -> Result<Sealed, NotSealed> {
        self.check_log(view)?;
        let state = view.state();
        if !records
            .iter()
            .all(|(at, _)| state.may_publish(&self.user, &self.device, *at))
        {
            return Err(NotSealed::NotEntitled);
        }
        let record = view
            .record(&session, &self.device)
            .ok_or(NotSealed::UnknownSession(session))?;
        let SessionKind::Backfill { interval } = record.kind else {
            return Err(NotSealed::OutOfRange);
        };
        let is_inside = records.iter().all(|(at, _)| interval.contains(*at));
        if !is_inside || !records.is_sorted_by_key(|(at, _)| *at) {
            return Err(NotSealed::OutOfRange);
        }
        if !self.check(record.start, view, record).is_sound {
            return Err(NotSealed::NeedsSession);
        }
        let is_covered = |set: LogHash| {
            let known = self.covered_past_of(&session);
            let known = known.filter(|of| of.set == set);
            let is_known =
                |at: &Position| known.is_some_and(|of| of.smallest.contains(&smallest(*at)));
            records.iter().all(|(at, _)| is_known(at))
        };
        if nodes_to_seal_for(view).is_some_and(|set| !is_covered(set)) {
            return Err(NotSealed::NeedsSegments(session, Position::START));
        }
        let flags = Flags {
            backfill: true,
            ..Flags::default()
        };
        let drafts: Vec<_> = records
            .iter()
            .map(|(at, payload)| (*at, Draft::Single(payload.as_ref())))
            .collect();
        let sealed = self.seal_all((lane, view), None, session, flags, &drafts)?;
        lane.last = sealed.prev.unwrap_or(lane.last);
        Ok(sealed)
    }

    /// Notes that a batch is durable and leaves.
    pub fn advance(&mut self, sealed: &Sealed) {
        self.seq = sealed.seq;
        self.prev = sealed.prev;
    }

    /// Notes that records for key nodes are on the bus.
    pub fn note_covered(&mut self, covered: Covered) {
        self.covered = covered;
    }

    /// As [`note_covered`](Self::note_covered), of a backfill session.
    pub fn note_covered_past(&mut self, covered: CoveredPast) {
        self.covered_past = Some(covered);
    }

    /// Of which segments of a backfill session there are records for key nodes.
    pub fn covered_past_of(&self, session: &SessionId) -> Option<&CoveredPast> {
        let covered = self.covered_past.as_ref();
        covered.filter(|of| of.session == *session)
    }

    /// Where a message would be sealed now.
    ///
    /// # Errors
    ///
    /// Fails when nothing may be sealed.
    pub fn position(
        &self,
        now: Position,
        lane: &Lane,
        view: &StreamView,
    ) -> Result<Position, NotSealed> {
        self.check_log(view)?;
        let position = lane.next_position(now, view.mark())?;
        let may_publish = view.state().may_publish(&self.user, &self.device, position);
        match may_publish && !view.is_card_expired(&self.user, &self.device, position) {
            true => Ok(position),
            false => Err(NotSealed::NotEntitled),
        }
    }

    fn check_log(&self, view: &StreamView) -> Result<(), NotSealed> {
        let missing = view.missing_entries();
        if missing > 0 || !view.state().has_begun() {
            return Err(NotSealed::LogIncomplete(missing.max(1)));
        }
        if view.is_card_revoked(&self.user, &self.device) {
            return Err(NotSealed::NotEntitled);
        }
        match view.state().is_closed() {
            true => Err(NotSealed::Closed),
            false => Ok(()),
        }
    }

    fn ready(
        &mut self,
        now: Position,
        position: Position,
        lane: &Lane,
        view: &StreamView,
    ) -> Result<SessionId, NotSealed> {
        let session = lane.session().ok_or(NotSealed::NeedsSession)?;
        let record = view
            .record(&session, &self.device)
            .ok_or(NotSealed::UnknownSession(session))?;
        let every = view.state().settings().rekey_every_ms;
        let is_old = every > 0 && now.0.saturating_sub(record.start.0) >= every;
        let is_live = record.kind == SessionKind::Live && record.start <= position;
        let checked = self.check(now, view, record);
        if is_old || !is_live || !checked.is_sound || checked.ends <= position {
            return Err(NotSealed::NeedsSession);
        }
        if !lane.is_announced {
            return Err(NotSealed::NotAnnounced(session));
        }
        let is_covered = |set| self.covered.set == set && self.covered.covers(&session, position);
        match nodes_to_seal_for(view) {
            Some(set) if !is_covered(set) => Err(NotSealed::NeedsSegments(session, position)),
            Some(_) | None => Ok(session),
        }
    }

    /// Finds out whether a session may still be sealed with.
    fn check(&mut self, now: Position, view: &StreamView, record: &SessionRecord) -> Checked {
        let (session, revision) = (record.session, view.revision());
        if let Some(known) = self.checked
            && (known.session, known.revision) == (session, revision)
        {
            return known;
        }
        let reaches = |entry: &LogHash| view.log().reaches(&record.heads, entry);
        let mut removals = view.state().removals(&self.user);
        let lacks_removal = removals.any(|removal| !reaches(&removal));
        let knows_nodes = view.state().key_nodes().is_some()
            || view.state().newest_key_nodes().iter().all(reaches);
        let is_bound = view.state().bounds_keys_of(reaches);
        let later = view.records().filter(|of| {
            of.device == self.device && of.kind == SessionKind::Live && of.start > record.start
        });
        let askers = view.revoked_askers(record);
        let is_with_revoked =
            self.revoked.notice(record, now, askers) || view.is_with_revoked(&session);
        let checked = Checked {
            session,
            revision,
            is_sound: !lacks_removal && knows_nodes && is_bound && !is_with_revoked,
            ends: later.map(|of| of.start).min().unwrap_or(Position::END),
        };
        self.checked = Some(checked);
        checked
    }

    fn seal_all(
        &mut self,
        (lane, view): (&Lane, &StreamView),
        topic: Option<&DataTopic>,
        session: SessionId,
        flags: Flags,
        drafts: &[(Position, Draft<'_>)],
    ) -> Result<Sealed, NotSealed> {
        self.load(view, session)?;
        let Some((_, walker)) = &mut self.walker else {
            return Err(NotSealed::UnknownSession(session));
        };
        let mut sealed = Sealed {
            envelopes: Vec::with_capacity(drafts.len()),
            position: lane.mark,
            seq: self.seq,
            prev: self.prev,
        };
        let on = topic.map_or(&b""[..], |of| of.as_str().as_bytes());
        let runs = drafts.chunk_by(|one, next| shares_signature(one) && shares_signature(next));
        for batch in runs.flat_map(|run| run.chunks(SIGNED_AT_ONCE_MAX)) {
            let is_batch = batch.len() > 1;
            let mut unsigned = Vec::with_capacity(batch.len());
            for (position, draft) in batch {
                let leaf = walker.leaf(position.0).ok_or(NotSealed::OutOfRange)?;
                let header = Header {
                    suite: Suite::TreeV1,
                    flags: Flags {
                        batch: is_batch,
                        ..flags
                    },
                    content: 0,
                    session,
                    position: *position,
                    device: self.device,
                    instance: self.instance,
                    seq: sealed.seq,
                    prev: sealed.prev.unwrap_or(lane.last),
                };
                let envelope = seal_unsigned(&leaf, &self.stream, on, &header, *draft);
                let envelope = envelope.map_err(|_| NotSealed::OutOfRange)?;
                sealed.seq = sealed.seq.checked_add(1).ok_or(NotSealed::Exhausted)?;
                sealed.prev = Some(envelope.hash());
                sealed.position = *position;
                unsigned.push(envelope);
            }
            let mut signed = match is_batch {
                true => sign_batch(&self.signing, unsigned).map_err(|_| NotSealed::OutOfRange)?,
                false => unsigned
                    .into_iter()
                    .map(|of| of.sign(&self.signing))
                    .collect(),
            };
            if let Some(topic) = topic {
                for envelope in &mut signed {
                    envelope.bytes = topic.item(&envelope.bytes);
                }
            }
            sealed.envelopes.append(&mut signed);
        }
        Ok(sealed)
    }

    /// Takes the root of a session that this device drew, and of no other.
    fn load(&mut self, view: &StreamView, session: SessionId) -> Result<(), NotSealed> {
        if self.walker.as_ref().is_some_and(|(of, _)| *of == session) {
            return Ok(());
        }
        let is_own = view
            .record(&session, &self.device)
            .is_some_and(|of| of.lane == self.user);
        let root = view.root(&session).filter(|_| is_own);
        let root = root.ok_or(NotSealed::UnknownSession(session))?;
        self.walker = Some((session, Walker::new(Cover::whole(root))));
        Ok(())
    }

    /// Draws a session that starts at `start`, a [`position`](Self::position) of now whatever the
    /// kind is.
    ///
    /// # Errors
    ///
    /// Fails when its record would not be one that others take.
    pub fn start_session(
        &self,
        rng: &mut (impl CryptoRng + ?Sized),
        now: Position,
        start: Position,
        kind: SessionKind,
        view: &StreamView,
    ) -> Result<NewSession, DecodeError> {
        let root = SessionRoot::generate(rng);
        let commitment = root.commitment();
        let session = SessionId::derive(&self.stream, &self.user, &commitment);
        let mut record = SessionRecord {
            version: 1,
            stream: self.stream,
            lane: self.user,
            device: self.device,
            session,
            commitment,
            start,
            kind,
            heads: view.log().heads(&LogHash([0; 32])),
            open_root: Vec::new(),
            wraps: Vec::new(),
        };
        if view.state().is_public() {
            record.open_root = root.expose().to_vec();
        }
        for (user, device, key) in self.holders(view, now) {
            let context = record.wrap_context(&user, &device);
            let wrap = wrap_root(rng, &root, &context, &key);
            record
                .wraps
                .push(wrap.map_err(|_| DecodeError::OutOfRange)?);
        }
        record.wraps.sort_unstable();
        Ok(NewSession {
            session,
            root,
            record: sign(&self.signing, record)?,
        })
    }

    /// The keyholder devices that a record wraps the root for: where they are too many, the
    /// publisher's own and the owner's first. The others are given it in bundles.
    fn holders(&self, view: &StreamView, now: Position) -> Vec<(UserId, DeviceId, WrapKey)> {
        let state = view.state();
        let mut users: Vec<_> = state.keyholders(&self.user).into_iter().collect();
        users.sort_by_key(|user| (*user != self.user, *user != state.owner()));
        let mut holders = Vec::new();
        for user in users {
            let live = view.live_devices(&user, now);
            let may_hold = live.filter(|(device, _)| state.is_keyholder(&user, device, &self.user));
            let keys = may_hold.filter_map(|(device, of)| Some((*device, of.wrap_key.clone()?)));
            holders.extend(keys.map(|(device, key)| (user, device, key)));
        }
        holders.truncate(WRAPS_MAX);
        holders
    }
}

/// The entry that names the key nodes which have to be able to open what is sealed.
fn nodes_to_seal_for(view: &StreamView) -> Option<LogHash> {
    let set = view.state().key_nodes().map(|(set, _)| set);
    set.filter(|_| !view.state().is_public())
}

/// Whether what is sealed beside others is signed with them: not where its length must not depend on
/// them, nor where the records are few and short enough to feel the bytes.
fn shares_signature((position, draft): &(Position, Draft<'_>)) -> bool {
    let is_short_frame = matches!(draft, Draft::Frame(frame) if frame.len() < SHARING_RECORDS_MIN);
    !is_short_frame && draft.plaintext_len(*position) <= SHARING_LEN_MAX
}
