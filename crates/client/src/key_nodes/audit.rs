//! What a key node did, read back and checked.

use std::fmt;
use std::sync::Arc;

use sealcast_crypto::SecretBytes;
use sealcast_engine::{CLOCK_BEHIND_MS_MAX, Space};
use sealcast_protocol::{
    AuditChain, AuditEnd, AuditEntry, AuditEvent, AuditFault, DeviceId, Interval, KeyNode,
    NodeRefusalReason, Position, REQUEST_LIFETIME_MS_MAX, SessionId, StreamId, Unverified, UserId,
};

use crate::blocking::off_thread;
use crate::core::Core;
use crate::error::Error;
use crate::stream::Stream;
use crate::vault::{Vault, key, odd_key};

/// Entries that are read and checked at once.
const CHUNK: u64 = 512;
/// How much older than the newest an entry is whose request cannot be replayed any more: it may be from
/// two minutes ahead, lives for five, is remembered for two minutes more, and the clock may be behind.
const REPLAYED_WITHIN_MS: u64 = REQUEST_LIFETIME_MS_MAX + 240_000 + CLOCK_BEHIND_MS_MAX;
/// Entries on no request, one behind the other, behind which no request can be replayed. A node that began
/// to run so often took longer for it.
const IDLE_MAX: usize = 16_384;

/// Reads back what a key node did in a stream, and checks every entry; made by [`Stream::audit`].
#[derive(Debug)]
pub struct Audit {
    core: Arc<Core>,
    chain: AuditChain,
    end: AuditEnd,
}

/// One thing that a key node did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuditLine {
    /// Its number, from 0.
    pub seq: u64,
    /// When, by the node's clock.
    pub time: Position,
    /// What it did.
    pub event: AuditedEvent,
}

/// What a key node did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AuditedEvent {
    /// It began to run.
    Began,
    /// Somebody asked, and was answered or refused.
    Asked(AskedOfNode),
    /// It refused so many requests that have no entry of their own.
    TurnedAway(u64),
    /// Whoever runs it said that its clock is right, though it is behind earlier entries.
    ClockSet,
}

/// Who asked a key node, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AskedOfNode {
    /// Who.
    pub user: UserId,
    /// With which device.
    pub device: DeviceId,
    /// Whose lane.
    pub lane: UserId,
    /// Which session.
    pub session: SessionId,
    /// Which segments of it.
    pub segments: Vec<Interval>,
    /// Why nothing was released, if nothing was.
    pub refused: Option<NodeRefusalReason>,
}

impl From<&AuditEntry> for AuditLine {
    fn from(entry: &AuditEntry) -> Self {
        let asked = |of: &sealcast_protocol::AuditedRequest, refused| {
            AuditedEvent::Asked(AskedOfNode {
                user: of.user,
                device: of.device,
                lane: of.lane,
                session: of.session,
                segments: of.segments.iter().map(|of| of.interval()).collect(),
                refused,
            })
        };
        let event = match &entry.event {
            AuditEvent::Began => AuditedEvent::Began,
            AuditEvent::Released(of) => asked(of, None),
            AuditEvent::Refused(of, reason) => asked(of, Some(*reason)),
            AuditEvent::TurnedAway(count) => AuditedEvent::TurnedAway(*count),
            AuditEvent::ClockSet => AuditedEvent::ClockSet,
        };
        Self {
            seq: entry.seq,
            time: entry.time,
            event,
        }
    }
}

/// What this device is and holds as a key node of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OwnKeyNode {
    /// Whether the access log names it.
    pub is_named: bool,
    /// How many shares it holds, one of each deal.
    pub shares: usize,
    /// How many entries its audit has, of which the newest were checked.
    pub audit_entries: u64,
    /// Whether the bus shows all of access log and device lists that it showed. Nothing is released while
    /// it does not.
    pub is_shown_all: bool,
}

impl Audit {
    /// How many entries there are.
    pub fn len(&self) -> u64 {
        self.end.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.end.len == 0
    }

    /// The next entries, oldest first; none at the end. What was checked so far is not held.
    ///
    /// # Errors
    ///
    /// Fails when an entry was altered, taken out or put in.
    pub async fn next(&mut self) -> Result<Vec<AuditLine>, Error> {
        let (core, mut chain, end) = (self.core.clone(), self.chain, self.end);
        let read = off_thread(move || {
            let until = end.len.min(chain.len().saturating_add(CHUNK));
            let lines = take_until(&core, &mut chain, until, |entry| AuditLine::from(entry))?;
            match until == end.len {
                true => Ok((chain.ends(end).map_err(Error::Audit)?, lines)),
                false => Ok::<_, Error>((chain, lines)),
            }
        });
        let lines;
        (self.chain, lines) = read.await??;
        Ok(lines)
    }
}

/// Shows the digest of the last entry. Kept elsewhere, it shows whether entries were cut off since.
impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut head = self.end.head.iter();
        head.try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Stream {
    /// What this device is and holds as a key node of the stream.
    ///
    /// # Errors
    ///
    /// Fails when the bus cannot be reached, or the audit does not hold.
    pub async fn own_key_node(&self) -> Result<OwnKeyNode, Error> {
        self.core.sync().await?;
        let is_shown_all = self.core.shows_all().await;
        let core = self.core.clone();
        off_thread(move || {
            let (chain, _) = read_end(&core)?;
            let view = core.view();
            Ok(OwnKeyNode {
                is_named: view.is_key_node(),
                shares: view.shares(),
                audit_entries: chain.len(),
                is_shown_all,
            })
        })
        .await?
    }

    /// Reads back what this device did as a key node of the stream, up to now, and checks signatures and
    /// chain on the way.
    ///
    /// # Errors
    ///
    /// Fails when the store cannot be read.
    pub async fn audit(&self) -> Result<Audit, Error> {
        let core = self.core.clone();
        off_thread(move || {
            let end = core.vault().audit_end(&core.id())?;
            Ok(Audit {
                chain: begin(&core),
                core,
                end: end.unwrap_or(AuditEnd::START),
            })
        })
        .await?
    }
}

fn begin(core: &Core) -> AuditChain {
    let identity = core.identity();
    let node = KeyNode {
        user: identity.user(),
        device: identity.device(),
    };
    AuditChain::new(core.id(), node)
}

/// Goes along a chain to its entry with this number, and makes something of each on the way.
fn take_until<T>(
    core: &Core,
    chain: &mut AuditChain,
    until: u64,
    make: impl Fn(&AuditEntry) -> T,
) -> Result<Vec<T>, Error> {
    let verifying = core.identity().signing().verifying_key();
    let mut made = Vec::new();
    while chain.len() < until {
        let wire = core.vault().audit_entry(&core.id(), chain.len())?;
        let entry = chain.take(wire.expose(), &verifying);
        made.push(make(entry.map_err(Error::Audit)?.body()));
    }
    Ok(made)
}

/// The end of this device's chain, and the entries of which requests may still be replayed. Only these
/// are read and checked: where they begin is known, and that they end where they did.
pub(super) fn read_end(core: &Core) -> Result<(AuditChain, Vec<AuditEntry>), Error> {
    let Some(end) = core.vault().audit_end(&core.id())? else {
        return Ok((begin(core), Vec::new()));
    };
    let (mut seq, mut idle) = (end.len, 0);
    let mut first = None;
    while seq > 0 && idle < IDLE_MAX {
        let wire = core.vault().audit_entry(&core.id(), seq - 1)?;
        let entry = Unverified::<AuditEntry>::decode(wire.expose());
        let entry = entry.map_err(|of| Error::Audit(AuditFault::Decode(of)))?;
        let claims = entry.claims();
        let is_over = claims.time.after(REPLAYED_WITHIN_MS) < end.newest;
        match claims.event.request() {
            Some(_) if is_over => break,
            Some(_) => idle = 0,
            None => idle += 1,
        }
        seq -= 1;
        first = Some(wire);
    }
    let verifying = core.identity().signing().verifying_key();
    let mut chain = begin(core);
    if let Some(first) = first {
        chain = chain
            .before(first.expose(), &verifying)
            .map_err(Error::Audit)?;
    }
    let kept = take_until(core, &mut chain, end.len, AuditEntry::clone)?;
    Ok((chain.ends(end).map_err(Error::Audit)?, kept))
}

impl Vault {
    /// Where the audit of a stream ends; nothing where there is none. Entries of which nobody knows where they
    /// end do not hold.
    fn audit_end(&self, stream: &StreamId) -> Result<Option<AuditEnd>, Error> {
        if let Some(value) = self.0.get(&key(Space::AuditEnd, &[&stream.0]))? {
            return AuditEnd::from_bytes(value.expose())
                .map(Some)
                .ok_or_else(odd_key);
        }
        match self.of_stream(Space::Audit, stream)?.is_empty() {
            true => Ok(None),
            false => Err(Error::Audit(AuditFault::Broken { seq: 0 })),
        }
    }

    fn audit_entry(&self, stream: &StreamId, seq: u64) -> Result<SecretBytes, Error> {
        let place = key(Space::Audit, &[&stream.0, &seq.to_be_bytes()]);
        let wire = self.0.get(&place)?;
        wire.ok_or(Error::Audit(AuditFault::Broken { seq }))
    }

    /// Keeps an audit entry; false where the chain ends elsewhere, since another process wrote.
    pub(super) fn put_audit(&self, entry: &AuditEntry, wire: &[u8]) -> Result<bool, Error> {
        let stream = &entry.stream;
        let place = key(Space::Audit, &[&stream.0, &entry.seq.to_be_bytes()]);
        let end_place = key(Space::AuditEnd, &[&stream.0]);
        sealcast_store::transact_with(&*self.0, |txn| {
            let end = txn.get(&end_place)?;
            let end = end.map(|of| AuditEnd::from_bytes(of.expose()).ok_or_else(odd_key));
            let end = end.transpose()?.unwrap_or(AuditEnd::START);
            let Some(behind) = end.behind(entry) else {
                return Ok(false);
            };
            txn.put(&place, wire)?;
            txn.put(&end_place, &behind.to_bytes())?;
            Ok(true)
        })
    }
}
