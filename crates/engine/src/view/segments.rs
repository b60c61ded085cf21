//! Deals to key nodes and the segment records that they open, `spec/key-nodes.md`.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::fmt;

use sealcast_crypto::{Cover, Dealing, NodeIndex, NodeKey, NodeShare, SecretBytes};
use sealcast_protocol::{
    Deal, DealId, Dealer, DeviceId, Interval, KeyNode, KeyNodes, LogHash, Position, Segment,
    SegmentRecords, SessionId, UnwrapShareError, UserId, Verified,
};

use super::waiting::KeyItem;
use super::{Alarm, Output, StreamView};
use crate::persist::{Space, persisted};

mod held;
mod regrants;

pub(crate) use held::OfSecret;

use held::{HeldRecords, Record, Sealed, Taken, Whose};
use regrants::Regrants;

/// Deals of one device that are known, at most. One to the nodes that are in force takes the place of one to
/// others.
const DEALS_OF_DEVICE_MAX: usize = 1_024;
/// How far the clocks of key nodes may be behind this device's, in milliseconds: it takes no segment for one that has
/// ended before.
pub(crate) const CLOCKS_MS: u64 = 5_000;
/// A clock that is set back by more has what was taken for ended looked at again.
const SET_BACK_MS: u64 = 60_000;
/// Records that are remembered as false, at most.
const FALSE_MAX: usize = 4_096;

/// What a stream's view knows for key nodes and of them.
#[derive(Debug, Default)]
pub(super) struct Segments {
    deals: BTreeMap<DealId, KnownDeal>,
    /// Of this device, where it is a key node.
    shares: BTreeMap<DealId, NodeShare>,
    records: HeldRecords,
    /// Those that did not open with enough answers, so that they are not taken in again.
    disproved: BTreeSet<(SessionId, [u8; 32], SealedRecord)>,
    /// Whether there was no room, which is told once.
    is_full: bool,
    /// What the log let this device read of each lane when it was last looked at.
    readable: BTreeMap<UserId, Vec<Interval>>,
    /// Lanes of which it gave other parts since, while there were no key nodes.
    changed: BTreeSet<UserId>,
    /// Lanes of which records were passed over, as those that this device might not read, or deals, as those of
    /// somebody who might not publish.
    passed_over: BTreeSet<UserId>,
    regrants: Regrants,
    /// Whether the condition on which key nodes release can end, by the last that were in force.
    can_end: bool,
    /// What the clock said when the keys were last about to be read.
    clock: Option<Position>,
    /// Up to where segments have ended, by the clock and while the condition can end.
    over: Option<Position>,
}

type SealedRecord = (Segment, Sealed);

impl Segments {
    /// What the log lets this device read of a lane.
    pub(super) fn readable(&self, lane: &UserId) -> &[Interval] {
        self.readable.get(lane).map_or(&[], Vec::as_slice)
    }

    /// Up to where segments have ended, while that matters.
    pub(super) fn over(&self) -> Position {
        self.over.unwrap_or(Position::START)
    }

    /// Takes back up to where they had ended for an earlier run: what lay in those it did not keep.
    pub(super) fn restore_over(&mut self, over: Position) {
        if self.can_end {
            self.over = Some(over);
            let _none_is_lacking = self.records.set_over(over);
        }
    }

    /// Has the keys read again for somebody of whom something may have been passed over.
    pub(super) fn owe_if_missed(&mut self, lane: UserId, may_be_missed: bool) {
        if self.passed_over.remove(&lane) || may_be_missed {
            self.regrants.owe(lane);
        }
    }
}

/// What everybody may know of a deal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownDeal {
    /// Who dealt.
    pub dealer: Dealer,
    /// The access-log entry that names the nodes.
    pub set: LogHash,
    /// The nodes, in their order.
    pub nodes: Vec<KeyNode>,
    /// Those of them that were given a share.
    pub holders: BTreeSet<KeyNode>,
    /// What answers are checked by.
    pub dealing: Dealing,
}

impl KnownDeal {
    /// Which of the nodes a device is.
    pub fn index_of(&self, node: &KeyNode) -> Option<NodeIndex> {
        let at = self.nodes.iter().position(|of| of == node)?;
        NodeIndex::new(u8::try_from(at + 1).ok()?)
    }

    /// Names the lane secret that was dealt.
    pub fn secret(&self) -> [u8; 32] {
        let commitments = self.dealing.commitments();
        commitments.first().copied().unwrap_or_default()
    }

    /// The nodes of a set that hold shares, each with its index.
    pub fn still_in<'a>(
        &'a self,
        set: &'a KeyNodes,
    ) -> impl Iterator<Item = (NodeIndex, KeyNode)> + 'a {
        let indexed = (1..=u8::MAX).zip(&self.nodes);
        let kept =
            indexed.filter(|(_, node)| set.nodes.contains(node) && self.holders.contains(node));
        kept.filter_map(|(index, node)| Some((NodeIndex::new(index)?, *node)))
    }

    /// Whether nodes of a set release by it: it needs as many of them as the set says, or more.
    pub fn is_enough_for(&self, set: &KeyNodes) -> bool {
        self.dealing.threshold() >= usize::from(set.threshold)
    }

    /// Whether enough nodes of a set hold shares, and release by them.
    pub fn opens_with(&self, set: &KeyNodes) -> bool {
        self.is_enough_for(set) && self.still_in(set).count() >= self.dealing.threshold()
    }
}

/// Taking in.
impl StreamView {
    /// Tells of sets of key nodes of which none is in force, and of those that are void, once.
    pub(super) fn tell_beside(&mut self) {
        let void = self.state.void_key_nodes();
        if self.void != void {
            self.void = void.to_vec();
            let alarm = (!void.is_empty()).then_some(Alarm::KeyNodesVoid(void.len()));
            self.outputs.extend(alarm.map(Output::Tell));
        }
        let beside = self.state.unsettled_key_nodes();
        if self.beside != beside {
            self.beside = beside.to_vec();
            let alarm = (!beside.is_empty()).then_some(Alarm::KeyNodesBeside(beside.len()));
            self.outputs.extend(alarm.map(Output::Tell));
        }
    }

    /// Takes in a deal that its dealer signed. Gives it back where it may become believable once more
    /// is known.
    pub(super) fn take_deal(&mut self, deal: Verified<Deal>) -> Option<KeyItem> {
        let (id, body) = (DealId::from(deal.digest()), deal.body());
        if self.segments.deals.contains_key(&id) {
            return None;
        }
        let is_publisher = self.announcers.contains(&body.dealer.lane);
        let named = self.state.key_nodes_of(&body.set).filter(|_| is_publisher);
        let Some(named) = named else {
            let is_final = self.log.contains(&body.set);
            if is_final && !is_publisher {
                self.segments.passed_over.insert(body.dealer.lane);
            }
            return (!is_final).then_some(KeyItem::SignedDeal(deal));
        };
        let Ok(dealing) = body.dealing() else {
            return None;
        };
        if !body.is_for(&body.set, named) || !self.has_room_for(body) {
            return None;
        }
        let wire = SecretBytes::from(deal.wire().to_vec());
        self.take_share(id, body);
        let known = KnownDeal {
            dealer: body.dealer,
            set: body.set,
            nodes: body.shares.iter().map(|share| share.node).collect(),
            holders: body.holders().collect(),
            dealing,
        };
        self.segments.deals.insert(id, known);
        let key = persisted(&[&self.stream.0, &id.0]);
        self.persist(Space::Deal, key, wire);
        self.revision += 1;
        None
    }

    /// Makes room for a deal where its dealer has used up its own: those to nodes that are in force come before
    /// those to others, whichever came first.
    fn has_room_for(&mut self, deal: &Deal) -> bool {
        let of_device = self.segments.deals.iter();
        let of_device = of_device.filter(|(_, of)| of.dealer == deal.dealer);
        if of_device.clone().count() < DEALS_OF_DEVICE_MAX {
            return true;
        }
        let in_force = self.state.key_nodes().map(|(_, set)| set);
        let is_now = |set: &LogHash| {
            let named = self.state.key_nodes_of(set);
            let both = named.zip(in_force);
            both.is_some_and(|(named, now)| named.nodes == now.nodes)
        };
        let old = of_device.filter(|(_, of)| !is_now(&of.set));
        let Some(old) = old.map(|(id, _)| *id).next().filter(|_| is_now(&deal.set)) else {
            return false;
        };
        self.segments.deals.remove(&old);
        self.segments.shares.remove(&old);
        true
    }

    /// Takes this device's share out of a deal, if it has one that fits.
    fn take_share(&mut self, id: DealId, deal: &Deal) {
        let me = KeyNode {
            user: self.user,
            device: self.device,
        };
        match deal.unwrap_share(&me, &self.unwrap) {
            Ok(share) => {
                self.segments.shares.insert(id, share);
            }
            Err(UnwrapShareError::NoShare) => (),
            Err(_) => {
                let Dealer { lane, device, .. } = deal.dealer;
                let alarm = Alarm::BadShare(lane, device);
                self.outputs.push_back(Output::Tell(alarm));
            }
        }
    }

    /// Takes in segment records that a dealer signed: those of a session that the same device announced.
    pub(super) fn take_segments(&mut self, records: Verified<SegmentRecords>) -> Option<KeyItem> {
        let body = records.body();
        let own = self.records.get(&(body.session, body.dealer.device));
        let Some(own) = own else {
            return Some(KeyItem::SignedSegments(records));
        };
        if own.lane != body.dealer.lane {
            return None;
        }
        let key = persisted(&[&self.stream.0, &body.session.0, records.digest().as_bytes()]);
        let source = *records.digest().as_bytes();
        let is_news = self.learn_segments(body, source);
        self.forget_gone();
        if is_news {
            let wire = SecretBytes::from(records.wire().to_vec());
            self.persist(Space::SegmentRecords, key, wire);
        }
        None
    }

    /// Keeps no object any more of which nothing is held.
    fn forget_gone(&mut self) {
        let gone: Vec<_> = self.segments.records.take_gone().collect();
        for (session, source) in gone {
            let key = persisted(&[&self.stream.0, &session.0, &source]);
            self.persist(Space::SegmentRecords, key, SecretBytes::from(Vec::new()));
        }
    }

    /// Holds what may have to be opened: what this device may read, and of segments that lie in each other
    /// the largest that has ended and those that have not. False where nothing of it is new, there is no room, or the
    /// root is here, so that none of it is needed.
    fn learn_segments(&mut self, body: &SegmentRecords, source: [u8; 32]) -> bool {
        if self.roots.contains_key(&body.session) {
            return false;
        }
        let lane = body.dealer.lane;
        let readable = self.state.readable(&self.user, &self.device, &lane);
        let is_readable =
            |of: &Segment| readable.iter().any(|within| within.covers(&of.interval()));
        let whose = Whose {
            lane,
            session: body.session,
            secret: body.secret,
        };
        let of = &mut self.segments;
        let (mut is_news, mut is_full) = (false, false);
        for record in &body.records {
            if !is_readable(&record.segment) {
                of.passed_over.insert(lane);
                continue;
            }
            let sealed = (record.segment, record.sealed);
            if of.disproved.contains(&(body.session, body.secret, sealed)) {
                continue;
            }
            let sealed = record.sealed;
            let record_of = Record { sealed, source };
            let taken = of.records.take(&whose, record.segment, record_of);
            is_news |= matches!(taken, Taken::Held | Taken::Displaced);
            is_full |= matches!(taken, Taken::NoRoom | Taken::Displaced);
        }
        if is_full && !core::mem::replace(&mut self.segments.is_full, true) {
            let alarm = Alarm::RecordsFull;
            self.outputs.push_back(Output::Tell(alarm));
        }
        is_news
    }

    /// Has the keys read again where the log gives this device other parts of a lane than it did, and
    /// records of it may have been passed over; where there are no key nodes now, once there are some again.
    pub(super) fn note_readable(&mut self, is_first: bool) {
        let were_named = !self.state.newest_key_nodes().is_empty();
        if !were_named && self.segments.readable.is_empty() {
            return;
        }
        let of_lane = |lane: &UserId| self.state.readable(&self.user, &self.device, lane);
        let lanes = self.announcers.iter();
        let now: BTreeMap<_, _> = lanes.map(|lane| (*lane, of_lane(lane))).collect();
        let before = core::mem::replace(&mut self.segments.readable, now);
        let is_in_force = self.state.key_nodes().is_some();
        // By what earlier runs read while nodes were in force is noted with how far they did.
        if !(is_first && is_in_force) {
            let now = self.segments.readable.iter();
            let changed =
                now.filter(|(lane, readable)| before.get(*lane).unwrap_or(&NOTHING) != *readable);
            self.segments.changed.extend(changed.map(|(lane, _)| *lane));
        }
        if !is_in_force {
            return;
        }
        for lane in core::mem::take(&mut self.segments.changed) {
            // What earlier runs passed over is not known.
            let is_missed = self.segments.passed_over.remove(&lane) || self.is_restored;
            if self.forget_unreadable(&lane) || is_missed {
                self.segments.regrants.owe(lane);
            }
        }
    }

    /// Whether the keys are to be read again for what the log gives now.
    pub(super) fn takes_regrants(&mut self, now: Position, is_read_anyway: bool) -> bool {
        self.segments.clock = Some(now);
        self.note_ended();
        self.segments.regrants.take(now, is_read_anyway)
    }

    /// Notes whether the condition of the key nodes in force can end: then what has not ended is not released.
    pub(super) fn note_condition(&mut self) {
        let can_end = self
            .state
            .key_nodes()
            .map(|(_, set)| set.condition.can_end());
        self.segments.can_end = can_end.unwrap_or(self.segments.can_end);
        self.note_ended();
    }

    /// Holds of segments that lie in each other what may be asked for now, and has the keys read again where
    /// smaller ones may be lacking.
    fn note_ended(&mut self) {
        let of = &mut self.segments;
        let clock = of.clock.map_or(0, |clock| clock.0);
        let over = clock.saturating_sub(CLOCKS_MS);
        let before = of.over.map_or(0, |before| before.0);
        let is_set_back = of.clock.is_some() && over.saturating_add(SET_BACK_MS) < before;
        let over = match is_set_back {
            true => over,
            false => over.max(before),
        };
        of.over = of.can_end.then_some(Position(over));
        let lacking = of.records.set_over(of.over.unwrap_or(Position::END));
        for lane in lacking {
            of.regrants.owe(lane);
        }
        self.forget_gone();
    }

    /// Whether the keys topic is to be read again from its start, and not yet: since [`needs_reread`](Self::needs_reread)
    /// was not asked yet, or since the log changes too often. A program that ends before has to know it when it starts
    /// again, and so has one that ends before it has read all of that topic. What looks at the stream from time to time
    /// comes to it.
    pub fn owes_reread(&self) -> bool {
        self.needs_reread || self.segments.regrants.is_owed()
    }

    /// Forgets the records of a lane that are too large now, and says whether there were any.
    fn forget_unreadable(&mut self, lane: &UserId) -> bool {
        let readable = self.state.readable(&self.user, &self.device, lane);
        let records = &mut self.segments.records;
        records.retain(lane, |of| {
            readable.iter().any(|within| within.covers(&of.interval()))
        })
    }

    /// Forgets records that enough key nodes did not open, and has the keys read again, for the records of the
    /// smaller segments that lie in theirs.
    pub fn forget_false(&mut self, records: &FalseRecords) {
        let FalseRecords {
            session,
            secret,
            segments,
        } = records;
        let Some(lane) = self.lane_of(session) else {
            return;
        };
        let whose = Whose {
            lane,
            session: *session,
            secret: *secret,
        };
        for segment in segments {
            if self.segments.disproved.len() >= FALSE_MAX {
                return;
            }
            if let Some(sealed) = self.segments.records.remove(&whose, segment) {
                let disproved = (*session, *secret, (*segment, sealed));
                self.segments.disproved.insert(disproved);
                self.needs_reread = true;
            }
        }
        self.forget_gone();
    }

    /// Keeps keys of segments that key nodes released, in the name of who sealed their records:
    /// candidates until a message opens under them. That enough nodes found this device entitled is what
    /// gives them; who sealed the records may have lost every right since.
    pub fn take_released(&mut self, released: Released) {
        let Released {
            dealer,
            session,
            keys,
        } = released;
        let covers = keys.into_iter();
        let covers = covers.map(|(of, key)| Cover::from_node(of.node(), &key));
        let covers: Vec<_> = covers.collect();
        let giver = (dealer.lane, dealer.device);
        let kept = covers.iter().map(|of| (session, of.duplicate()));
        self.keep_covers(giver, &dealer.lane, kept);
        for of in &covers {
            self.drop_within(giver, &session, of);
        }
    }
}

const NOTHING: Vec<Interval> = Vec::new();

/// Reads segments of one session that enough key nodes released. Only a [`Combiner`](crate::Combiner)
/// makes one.
pub struct Released {
    pub(crate) dealer: Dealer,
    pub(crate) session: SessionId,
    pub(crate) keys: Vec<(Segment, NodeKey)>,
}

impl Released {
    /// Which segments.
    pub fn segments(&self) -> impl Iterator<Item = Segment> + '_ {
        self.keys.iter().map(|(segment, _)| *segment)
    }
}

/// Shows how many they are.
impl fmt::Debug for Released {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Released({} segments)", self.keys.len())
    }
}

/// Records of one session that did not open though enough key nodes answered. Only a
/// [`Combiner`](crate::Combiner) makes it.
#[derive(Debug)]
pub struct FalseRecords {
    pub(crate) session: SessionId,
    pub(crate) secret: [u8; 32],
    pub(crate) segments: Vec<Segment>,
}

/// What is known.
impl StreamView {
    /// A deal that is known.
    pub fn deal(&self, id: &DealId) -> Option<&KnownDeal> {
        self.segments.deals.get(id)
    }

    /// Every deal that is known.
    pub fn deals(&self) -> impl Iterator<Item = (&DealId, &KnownDeal)> {
        self.segments.deals.iter()
    }

    /// This device's share of a deal, where it is a key node and the dealer did not lie.
    pub fn share(&self, id: &DealId) -> Option<&NodeShare> {
        self.segments.shares.get(id)
    }

    /// How many shares this device holds.
    pub fn shares(&self) -> usize {
        self.segments.shares.len()
    }

    /// How many segment records of a session are at hand.
    pub fn segment_records(&self, session: &SessionId) -> usize {
        self.records_by_secret(session)
            .map(|(_, of)| of.len())
            .sum()
    }

    /// Up to where key nodes may release when a clock says this: segments that reach further are refused while the
    /// condition can end.
    pub fn released_until(&self, clock: Position) -> Position {
        let set = self.state.key_nodes().map(|(_, set)| set);
        match set.is_some_and(|set| set.condition.can_end()) {
            true => Position(clock.0.saturating_sub(CLOCKS_MS)),
            false => Position::END,
        }
    }

    /// The records of a session, by the lane secret that they are sealed with.
    pub(crate) fn records_by_secret(
        &self,
        session: &SessionId,
    ) -> impl Iterator<Item = (&[u8; 32], &OfSecret)> {
        let lane = self.lane_of(session);
        let records = &self.segments.records;
        let of_session = lane.map(|lane| records.of_session(&lane, session));
        of_session.into_iter().flatten()
    }

    /// The deal of a session's dealer by which records with this secret open: that of which the most present
    /// key nodes that have shares may fail.
    pub(crate) fn deal_for(
        &self,
        session: &SessionId,
        secret: &[u8; 32],
        set: &KeyNodes,
    ) -> Option<(DealId, &KnownDeal)> {
        let dealers: BTreeSet<(UserId, DeviceId)> = self
            .records_of(*session)
            .map(|of| (of.lane, of.device))
            .collect();
        let deals = self.segments.deals.iter().filter(|(_, deal)| {
            dealers.contains(&(deal.dealer.lane, deal.dealer.device))
                && deal.secret() == *secret
                && deal.opens_with(set)
        });
        let spare = |deal: &KnownDeal| {
            let held = deal.still_in(set).count();
            held.saturating_sub(deal.dealing.threshold())
        };
        let best = deals.min_by_key(|(id, deal)| (core::cmp::Reverse(spare(deal)), **id));
        best.map(|(id, deal)| (*id, deal))
    }
}
