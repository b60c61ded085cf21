//! What a key node did, read back and checked.

use std::fmt;

use sealcast_engine::Space;
use sealcast_protocol::{
    AuditChain, AuditEntry, AuditEvent, DeviceId, Interval, KeyNode, NodeRefusalReason, Position,
    SessionId, StreamId, UserId,
};

use crate::blocking::off_thread;
use crate::core::Core;
use crate::error::Error;
use crate::stream::Stream;
use crate::vault::{Vault, key};

/// What a key node did in a stream, every entry checked; made by [`Stream::audit`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Audit {
    /// How many entries there are.
    pub entries: u64,
    /// The digest of the last one. Kept elsewhere, it shows whether entries were cut off since.
    pub head: [u8; 32],
    /// The newest of them, oldest first.
    pub lines: Vec<AuditLine>,
}

/// One thing that a key node did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuditLine {
    /// Its number, from 0.
    pub seq: u64,
    /// When, by the node's clock.
    pub time: Position,
    /// Who asked for what; nothing where the node began to run.
    pub asked: Option<AskedOfNode>,
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
        let refused = match &entry.event {
            AuditEvent::Refused(_, reason) => Some(*reason),
            AuditEvent::Began | AuditEvent::Released(_) => None,
        };
        let asked = entry.event.request().map(|of| AskedOfNode {
            user: of.user,
            device: of.device,
            lane: of.lane,
            session: of.session,
            segments: of.segments.iter().map(|of| of.interval()).collect(),
            refused,
        });
        Self {
            seq: entry.seq,
            time: entry.time,
            asked,
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
    /// How many entries its audit has, every one checked.
    pub audit_entries: u64,
}

/// Shows the digest of the last entry.
impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.head
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
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
        let core = self.core.clone();
        off_thread(move || {
            let (chain, _) = read(&core, 0)?;
            let view = core.view();
            let (user, device) = view.me();
            let set = view.state().key_nodes();
            Ok(OwnKeyNode {
                is_named: set.is_some_and(|(_, set)| set.nodes.contains(&KeyNode { user, device })),
                shares: view.shares(),
                audit_entries: chain.len(),
            })
        })
        .await?
    }

    /// Reads back what this device did as a key node of the stream, and checks signatures and chain.
    /// Keeps the newest `lines_max` entries.
    ///
    /// # Errors
    ///
    /// Fails when an entry was altered, taken out or put in.
    pub async fn audit(&self, lines_max: usize) -> Result<Audit, Error> {
        let core = self.core.clone();
        off_thread(move || {
            let (chain, entries) = read(&core, lines_max)?;
            Ok(Audit {
                entries: chain.len(),
                head: *chain.head(),
                lines: entries.iter().map(AuditLine::from).collect(),
            })
        })
        .await?
    }
}

/// The end of this device's chain, checked from its start, and the newest entries of it.
pub(super) fn read(core: &Core, newest: usize) -> Result<(AuditChain, Vec<AuditEntry>), Error> {
    let identity = core.identity();
    let node = KeyNode {
        user: identity.user(),
        device: identity.device(),
    };
    let verifying = identity.signing().verifying_key();
    let mut chain = AuditChain::new(core.id(), node);
    let rows = core.vault().of_stream(Space::Audit, &core.id())?;
    let first = rows.len().saturating_sub(newest);
    let mut entries = Vec::with_capacity(rows.len().min(newest));
    for (at, (_, bytes)) in rows.iter().enumerate() {
        let entry = chain.take(bytes.expose(), &verifying);
        let entry = entry.map_err(Error::Audit)?;
        if at >= first {
            entries.push(entry.body().clone());
        }
    }
    Ok((chain, entries))
}

impl Vault {
    /// Keeps an audit entry; false where there is one in its place, which another process wrote.
    pub(super) fn put_audit(
        &self,
        stream: &StreamId,
        seq: u64,
        wire: &[u8],
    ) -> Result<bool, Error> {
        let place = key(Space::Audit, &[&stream.0, &seq.to_be_bytes()]);
        self.change_lane(stream, |_, txn| {
            if txn.get(&place)?.is_some() {
                return Ok(false);
            }
            txn.put(&place, wire)?;
            Ok(true)
        })
    }
}
