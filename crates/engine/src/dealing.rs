//! A publisher's side of key nodes, `spec/key-nodes.md`: its lane's secret, deals, and the records of
//! the segments in which it seals.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use minicbor::{CborLen, Decode, Encode};
use rand_core::CryptoRng;
use sealcast_crypto::{
    Cover, DealError, LaneSecret, NodeId, NodeKey, POSITION_BITS, SEGMENT_HEIGHTS, SecretBytes,
};
use sealcast_protocol::{
    Deal, Dealer, LogHash, Position, SEGMENT_RECORDS_MAX, SegmentRecords, SessionId, Verified,
    decode, encode, sign,
};
use zeroize::Zeroize;

use crate::identity::Identity;
use crate::view::StreamView;

/// Records are made for all segments up to this height that lie in one of this height: for a quarter of an
/// hour at a time, so that they travel together.
const BLOCK_HEIGHT: u8 = 20;
/// The smallest segments.
const SMALLEST_HEIGHT: u8 = SEGMENT_HEIGHTS[0];

/// What a device keeps of its lane for key nodes. Whoever has it opens every segment record of the lane.
#[derive(Debug)]
pub struct DealtLane {
    /// The secret.
    pub secret: LaneSecret,
    /// The access-log entry for whose nodes it was dealt last; zero before it was dealt.
    pub dealt: LogHash,
    /// The session of which there are records on the bus, and until where: of all segments in which this
    /// device may have sealed.
    pub covered: Covered,
}

/// How far there are records of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct Covered {
    /// The session.
    #[n(0)]
    pub session: SessionId,
    /// Where they begin.
    #[n(1)]
    pub from: Position,
    /// Where they end.
    #[n(2)]
    pub until: Position,
}

#[derive(Encode, Decode, CborLen)]
#[cbor(array)]
struct Stored {
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    secret: [u8; 64],
    #[n(1)]
    dealt: LogHash,
    #[n(2)]
    covered: Covered,
}

impl Drop for Stored {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

const STORED_LEN_MAX: usize = 256;

impl Covered {
    /// Nothing.
    pub const NONE: Self = Self {
        session: SessionId([0; 16]),
        from: Position::START,
        until: Position::START,
    };

    /// Whether there are records of every segment that a position of a session lies in.
    pub fn covers(&self, session: &SessionId, position: Position) -> bool {
        self.session == *session && self.from <= position && position < self.until
    }

    /// The segments whose records are due before something is sealed at a position of a session, and how
    /// far there are records then.
    pub fn due(&self, session: SessionId, position: Position) -> (Vec<NodeId>, Self) {
        let from = position.0 >> BLOCK_HEIGHT << BLOCK_HEIGHT;
        let until = from + (1 << BLOCK_HEIGHT);
        let goes_on = self.session == session && self.until > Position::START;
        let mut due = Vec::new();
        for height in SEGMENT_HEIGHTS {
            let size = 1_u64 << height;
            let first = from >> height << height;
            let is_there = goes_on && height > BLOCK_HEIGHT && first < self.until.0;
            if !is_there {
                let step = usize::try_from(size).unwrap_or(usize::MAX);
                due.extend((first..until).step_by(step).map(|at| node(height, at)));
            }
        }
        let begins = match goes_on && self.until.0 == from {
            true => self.from,
            false => Position(from),
        };
        let covered = Self {
            session,
            from: begins,
            until: Position(until),
        };
        (due, covered)
    }
}

fn node(height: u8, position: u64) -> NodeId {
    NodeId {
        depth: POSITION_BITS as u8 - height,
        index: position >> height,
    }
}

/// The smallest segment that a position lies in, as a number.
pub(crate) fn smallest(position: Position) -> u64 {
    position.0 >> SMALLEST_HEIGHT
}

/// The segments that positions lie in, but those that lie in smallest ones that are known.
pub fn segments_around(
    positions: impl IntoIterator<Item = Position>,
    known: &BTreeSet<u64>,
) -> (Vec<NodeId>, BTreeSet<u64>) {
    let positions = positions.into_iter().map(smallest);
    let new: BTreeSet<u64> = positions.filter(|of| !known.contains(of)).collect();
    let nodes = new.iter().flat_map(|smallest| {
        let at = smallest << SMALLEST_HEIGHT;
        SEGMENT_HEIGHTS.map(|height| node(height, at))
    });
    let mut nodes: Vec<_> = nodes.collect();
    nodes.sort_unstable();
    nodes.dedup();
    (nodes, new)
}

impl DealtLane {
    /// Draws the secret of a lane, dealt to nobody.
    ///
    /// # Errors
    ///
    /// Fails when the randomness is none.
    pub fn draw(rng: &mut (impl CryptoRng + ?Sized)) -> Result<Self, DealError> {
        Ok(Self {
            secret: LaneSecret::generate(rng)?,
            dealt: LogHash([0; 32]),
            covered: Covered::NONE,
        })
    }

    /// The form in which a store keeps it, encrypted.
    pub fn to_bytes(&self) -> SecretBytes {
        SecretBytes::from(encode(&Stored {
            secret: *self.secret.expose(),
            dealt: self.dealt,
            covered: self.covered,
        }))
    }

    /// Reads what [`to_bytes`](Self::to_bytes) made; `None` when it is not that.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let stored: Stored = decode(bytes, STORED_LEN_MAX).ok()?;
        Some(Self {
            secret: LaneSecret::from_bytes(&stored.secret).ok()?,
            dealt: stored.dealt,
            covered: stored.covered,
        })
    }

    /// Deals the secret to the key nodes that the stream has now. None where it has none, or not all of
    /// their cards are known and live.
    pub fn deal(
        &self,
        view: &StreamView,
        identity: &Identity,
        rng: &mut (impl CryptoRng + ?Sized),
        now: Position,
    ) -> Option<Verified<Deal>> {
        let (set, named) = view.state().key_nodes()?;
        let key = |node: &sealcast_protocol::KeyNode| {
            let card = view.list(&node.user)?.device(&node.device)?;
            card.wrap_key.clone().filter(|_| card.is_live(now))
        };
        let keys: Option<Vec<_>> = named.nodes.iter().map(key).collect();
        let deal = Deal::seal(rng, dealer(view), (set, named), &self.secret, &keys?);
        sign(identity.signing(), deal.ok()?).ok()
    }

    /// Seals the keys of segments of a session whose root is here. None where it is not.
    pub fn seal(
        &self,
        view: &StreamView,
        identity: &Identity,
        session: SessionId,
        segments: &[NodeId],
    ) -> Option<Vec<Verified<SegmentRecords>>> {
        let whole = Cover::whole(view.root(&session)?);
        let sealed = segments.chunks(SEGMENT_RECORDS_MAX).map(|some| {
            let keys: Option<Vec<NodeKey>> = some.iter().map(|of| whole.node_key(*of)).collect();
            let keys = keys?;
            let pairs: Vec<_> = some.iter().copied().zip(&keys).collect();
            let records = SegmentRecords::seal(dealer(view), session, &self.secret, &pairs)?;
            sign(identity.signing(), records).ok()
        });
        sealed.collect()
    }
}

fn dealer(view: &StreamView) -> Dealer {
    let (lane, device) = view.me();
    let stream = view.stream();
    Dealer {
        stream,
        lane,
        device,
    }
}
