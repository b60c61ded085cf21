//! A publisher's side of key nodes, `spec/key-nodes.md`: its lane's secrets, deals, and the records of
//! the segments in which it seals.
//!
//! Whoever holds enough shares of a secret opens all that was and will be sealed with it. So there is
//! another one, and another session, as soon as somebody holds a share of it who is no key node any
//! more, or more nodes are needed than were, or whoever names them says so. The secrets before stay
//! here, and are dealt to the new nodes too, for what was sealed with them.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use minicbor::{CborLen, Decode, Encode};
use rand_core::CryptoRng;
use sealcast_crypto::{
    Cover, DealError, LaneSecret, NodeId, NodeKey, POSITION_BITS, SEGMENT_HEIGHTS, SecretBytes,
};
use sealcast_protocol::{
    Deal, Dealer, KeyNode, KeyNodes, LogHash, Position, SEGMENT_RECORDS_MAX, SegmentRecords,
    SessionId, Verified, decode, encode, sign,
};
use zeroize::Zeroize;

use crate::identity::Identity;
use crate::view::{KnownDeal, StreamView};

/// Records are made for all segments up to this height that lie in one of this height: for a quarter of an
/// hour at a time, so that they travel together.
const BLOCK_HEIGHT: u8 = 20;
/// The smallest segments.
const SMALLEST_HEIGHT: u8 = SEGMENT_HEIGHTS[0];

/// Secrets of a lane that are kept and dealt, at most, with the one that records are made with.
const SECRETS_MAX: usize = 256;

/// What a device keeps of its lane for key nodes. Whoever has it opens every segment record of the lane.
#[derive(Debug)]
pub struct DealtLane {
    /// The secret that records are made with.
    secret: LaneSecret,
    /// Those before it, the newest first.
    past: Vec<LaneSecret>,
    /// That of the key nodes for which the secret was drawn.
    generation: u32,
    /// Who may hold a share of the secret.
    holders: BTreeSet<KeyNode>,
    /// The fewest nodes that open by a deal of it; 0 where there is none.
    fewest: u8,
    /// Whether there are records that were made with it.
    is_used: bool,
    /// How many objects with records this device has made.
    made: u64,
    /// To whom all secrets were dealt last.
    dealt: Option<Dealt>,
    /// The session of which there are records on the bus, and until where: of all segments in which this
    /// device may have sealed.
    pub covered: Covered,
}

/// To whom the secrets of a lane were dealt.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct Dealt {
    #[n(0)]
    threshold: u8,
    #[n(1)]
    nodes: Vec<KeyNode>,
    /// Those of them that were given shares.
    #[n(2)]
    given: Vec<KeyNode>,
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
    /// The access-log entry whose key nodes the secret was found fit for that they were made with.
    #[n(3)]
    pub set: LogHash,
}

#[derive(Encode, Decode, CborLen)]
#[cbor(array)]
struct Stored {
    /// All secrets, the newest first.
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    secrets: Vec<u8>,
    #[n(1)]
    generation: u32,
    #[n(2)]
    holders: Vec<KeyNode>,
    #[n(3)]
    fewest: u8,
    #[n(4)]
    is_used: bool,
    #[n(5)]
    covered: Covered,
    #[n(6)]
    dealt: Option<Dealt>,
    #[n(7)]
    made: u64,
}

impl Drop for Stored {
    fn drop(&mut self) {
        self.secrets.zeroize();
    }
}

const SECRET_LEN: usize = 64;
const STORED_LEN_MAX: usize = SECRETS_MAX * SECRET_LEN + 64 * 1024;

impl Covered {
    /// Nothing.
    pub const NONE: Self = Self {
        session: SessionId([0; 16]),
        from: Position::START,
        until: Position::START,
        set: LogHash([0; 32]),
    };

    /// Whether there are records of every segment that a position of a session lies in.
    pub fn covers(&self, session: &SessionId, position: Position) -> bool {
        self.session == *session && self.from <= position && position < self.until
    }

    /// The segments whose records are due before something is sealed at a position of a session, and how
    /// far there are records then, for the key nodes of an entry.
    pub fn due(&self, session: SessionId, position: Position, set: LogHash) -> (Vec<NodeId>, Self) {
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
            set,
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
    pub fn draw(rng: &mut (impl CryptoRng + ?Sized), generation: u32) -> Result<Self, DealError> {
        Ok(Self {
            secret: LaneSecret::generate(rng)?,
            past: Vec::new(),
            generation,
            holders: BTreeSet::new(),
            fewest: 0,
            is_used: false,
            made: 0,
            dealt: None,
            covered: Covered::NONE,
        })
    }

    /// Whether records may be made with the secret for the key nodes that the stream has now: nobody else
    /// holds a share of it, no fewer of them can open by it, and it was drawn since a new one was wanted.
    pub fn is_fit(&self, view: &StreamView, set: &KeyNodes) -> bool {
        let is_in =
            |of: &KeyNode| set.nodes.contains(of) && !view.is_card_revoked(&of.user, &of.device);
        // A home that was put back to an older state does not know of all whom it dealt to.
        let (_, device) = view.me();
        let secret = self.secret.public();
        let deals = view.deals().map(|(_, deal)| deal);
        let is_own = |of: &&KnownDeal| of.dealer.device == device && of.secret() == secret;
        let shown: Vec<_> = deals.filter(is_own).collect();
        let fewest = (self.fewest > 0).then_some(usize::from(self.fewest));
        let mut fewest = shown.iter().map(|of| of.dealing.threshold()).chain(fewest);
        let is_low = fewest.any(|fewest| fewest < usize::from(set.threshold));
        let shown = shown.iter().flat_map(|of| &of.holders);
        let mut holders = self.holders.iter().chain(shown);
        self.generation == set.generation && !is_low && holders.all(is_in)
    }

    /// Draws another secret for what is sealed from now on, which has to be in another session: the
    /// segments of one reach beyond what was sealed in it so far.
    ///
    /// # Errors
    ///
    /// Fails when the randomness is none.
    pub fn renew(
        &mut self,
        rng: &mut (impl CryptoRng + ?Sized),
        generation: u32,
    ) -> Result<(), DealError> {
        let new = Self::draw(rng, generation)?;
        let mut old = core::mem::replace(self, new);
        if old.is_used {
            self.past.push(old.secret);
        }
        self.past.append(&mut old.past);
        self.made = old.made;
        self.past.truncate(SECRETS_MAX - 1);
        Ok(())
    }

    /// The form in which a store keeps it, encrypted.
    pub fn to_bytes(&self) -> SecretBytes {
        let mut secrets = Vec::with_capacity((1 + self.past.len()) * SECRET_LEN);
        for secret in self.secrets() {
            secrets.extend_from_slice(secret.expose());
        }
        SecretBytes::from(encode(&Stored {
            secrets,
            generation: self.generation,
            holders: self.holders.iter().copied().collect(),
            fewest: self.fewest,
            is_used: self.is_used,
            made: self.made,
            dealt: self.dealt.clone(),
            covered: self.covered,
        }))
    }

    /// Reads what [`to_bytes`](Self::to_bytes) made; `None` when it is not that.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let stored: Stored = decode(bytes, STORED_LEN_MAX).ok()?;
        let (secrets, []) = stored.secrets.as_chunks() else {
            return None;
        };
        let secrets = secrets.iter().map(|of| LaneSecret::from_bytes(of).ok());
        let mut secrets = secrets.collect::<Option<Vec<_>>>()?.into_iter();
        Some(Self {
            secret: secrets.next()?,
            past: secrets.collect(),
            generation: stored.generation,
            holders: stored.holders.iter().copied().collect(),
            fewest: stored.fewest,
            is_used: stored.is_used,
            made: stored.made,
            dealt: stored.dealt.clone(),
            covered: stored.covered,
        })
    }

    fn secrets(&self) -> impl Iterator<Item = &LaneSecret> {
        core::iter::once(&self.secret).chain(&self.past)
    }

    /// Deals all secrets to the key nodes that the stream has now, as far as their cards are known and live.
    /// Nothing where that was done, where fewer of them are live than are needed, or where the secret is not
    /// [fit](Self::is_fit) for them. Keep [`note_given`](Self::note_given) before the deals leave, and
    /// [`note_dealt`](Self::note_dealt) when they are on the bus.
    pub fn deal(
        &self,
        view: &StreamView,
        identity: &Identity,
        rng: &mut (impl CryptoRng + ?Sized),
        now: Position,
    ) -> Option<(Vec<Verified<Deal>>, Dealt)> {
        let (set, named) = view.state().key_nodes()?;
        let key = |node: &KeyNode| {
            let card = view.list(&node.user)?.device(&node.device)?;
            card.wrap_key.clone().filter(|_| card.is_live(now))
        };
        let keys: Vec<_> = named.nodes.iter().map(key).collect();
        let given = named.nodes.iter().zip(&keys);
        let given: Vec<_> = given
            .filter_map(|(node, key)| key.is_some().then_some(*node))
            .collect();
        let is_enough = given.len() >= usize::from(named.threshold);
        if !is_enough || self.has_dealt(named, &given) || !self.is_fit(view, named) {
            return None;
        }
        let deals = self.secrets().map(|secret| {
            let deal = Deal::seal(rng, dealer(view), (set, named), secret, &keys).ok()?;
            sign(identity.signing(), deal).ok()
        });
        let dealt = Dealt {
            threshold: named.threshold,
            nodes: named.nodes.clone(),
            given,
        };
        Some((deals.collect::<Option<_>>()?, dealt))
    }

    /// Whether these nodes, as many of them needed, have been dealt to, and each that could be given a share.
    /// A condition alone changes nothing.
    fn has_dealt(&self, named: &KeyNodes, given: &[KeyNode]) -> bool {
        self.dealt.as_ref().is_some_and(|dealt| {
            dealt.threshold == named.threshold
                && dealt.nodes == named.nodes
                && given.iter().all(|node| dealt.given.contains(node))
        })
    }

    /// Names the secret that records are made with.
    pub fn public(&self) -> [u8; 32] {
        self.secret.public()
    }

    /// Notes that an object with records leaves, so that the secret is kept for it. Returns its number.
    pub fn note_made(&mut self) -> u64 {
        self.is_used = true;
        self.made += 1;
        self.made
    }

    /// Notes who is about to be given shares.
    pub fn note_given(&mut self, dealt: &Dealt) {
        self.holders.extend(&dealt.given);
        self.fewest = match self.fewest {
            0 => dealt.threshold,
            fewest => fewest.min(dealt.threshold),
        };
    }

    /// Notes that the deals are on the bus.
    pub fn note_dealt(&mut self, dealt: Dealt) {
        self.dealt = Some(dealt);
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
