//! Which key nodes a stream has, and whether they answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rand_core::Rng as _;
use sealcast_bus::Offset;
use sealcast_crypto::{NodeIndex, Quorum, SEGMENT_HEIGHTS, UnwrapKey};
use sealcast_engine::StreamView;
use sealcast_protocol::{
    Condition, DealId, DeviceId, KeyNode, KeyNodes, LogHash, NodeAnswer, NodeRefusal,
    NodeRefusalReason, NodeRequest, RequestId, Segment, SessionId, Unverified, UserId, Verified,
    sign,
};
use tokio::time::{Instant, timeout_at};

use crate::blocking::off_thread;
use crate::clock;
use crate::core::{Core, READ_BYTES};
use crate::error::Error;
use crate::home::topic;
use crate::stream::Stream;

/// How long a probe may be answered, in milliseconds.
const PROBE_LIFETIME_MS: u64 = 60_000;
/// Depth of the leaves of a key tree.
pub(super) const LEAF_DEPTH: u8 = 48;

/// The key nodes of a stream, as [`Stream::key_nodes`] shows them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyNodesInfo {
    /// The access-log entry that names them.
    pub id: LogHash,
    /// How many must answer.
    pub threshold: u8,
    /// What must hold besides what the access log says.
    pub condition: Condition,
    /// How often it was said that publishers are to draw new secrets.
    pub generation: u32,
    /// The nodes.
    pub nodes: Vec<KeyNodeInfo>,
    /// The lanes of which there are sessions, and how far they were dealt to these nodes.
    pub dealt: BTreeMap<UserId, LaneDealt>,
}

/// How far key nodes open a lane. Each of its devices deals secrets of its own, and each of these opens what was
/// sealed with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LaneDealt {
    /// Secrets that were dealt to some key nodes.
    pub secrets: usize,
    /// Those of them that enough of the nodes in force hold shares of. What was sealed with the others opens by
    /// asking alone, until their publishers come by.
    pub open: usize,
    /// The fewest nodes that hold shares of one of the latter.
    pub nodes: usize,
}

/// One key node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyNodeInfo {
    /// Its user.
    pub user: UserId,
    /// Its device.
    pub device: DeviceId,
    /// How it stands.
    pub standing: NodeStanding,
}

/// How a key node stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeStanding {
    /// Nobody asked it: no lane has been dealt yet, or it was not to be asked.
    Unasked,
    /// It answered truly.
    Answers,
    /// It refused.
    Refuses(NodeRefusalReason),
    /// It signed something false.
    Lies,
    /// It said nothing in time.
    Silent,
    /// Its device is revoked, expired, or not known on this bus.
    NoCard,
}

/// How key nodes are named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NamingOptions {
    /// Publishers draw new secrets for what they seal from then on, also where the nodes are those that they
    /// were: whoever may have seen shares of the old ones is to read nothing more. They do so by themselves
    /// where a node goes, or more are needed.
    pub new_secrets: bool,
    /// It is done though lanes close by it until their publishers come by: too few of those nodes stay that
    /// hold shares for them, or more are needed than they were dealt for.
    pub closes_lanes: bool,
}

impl Stream {
    /// Names the key nodes of the stream, of which `threshold` together release keys to whom the access
    /// log entitles. A node is a user with one device, or the device that is named; each must be known on
    /// the stream's bus. Without nodes the stream has none any more. The condition stays as it is; where several
    /// sets stand side by side, that of each must hold from then on.
    ///
    /// # Errors
    ///
    /// Fails when the access log does not let this user do it, when a node has no device or several, when
    /// the threshold is out of range, when lanes would close that are not to, when conditions that stand side
    /// by side do not fit into one, or when key nodes were named meanwhile.
    pub async fn set_key_nodes(
        &self,
        threshold: u8,
        nodes: &[(UserId, Option<DeviceId>)],
        options: NamingOptions,
    ) -> Result<LogHash, Error> {
        self.core.sync().await?;
        let read = self.core.newest_key_nodes();
        let condition = match nodes.is_empty() {
            true => Condition::default(),
            false => self.core.condition_to_keep()?,
        };
        self.name_key_nodes(&read, (threshold, nodes, condition), options)
            .await
    }

    /// As [`set_key_nodes`](Self::set_key_nodes), with the condition on which they release, in place of those that
    /// there were.
    ///
    /// # Errors
    ///
    /// As [`set_key_nodes`](Self::set_key_nodes); conditions that stand side by side are no reason.
    pub async fn set_key_nodes_on(
        &self,
        threshold: u8,
        nodes: &[(UserId, Option<DeviceId>)],
        condition: Condition,
        options: NamingOptions,
    ) -> Result<LogHash, Error> {
        self.core.sync().await?;
        let read = self.core.newest_key_nodes();
        self.name_key_nodes(&read, (threshold, nodes, condition), options)
            .await
    }

    /// Names what follows from the newest entries about key nodes that were read, and only that.
    async fn name_key_nodes(
        &self,
        read: &[LogHash],
        (threshold, nodes, condition): (u8, &[(UserId, Option<DeviceId>)], Condition),
        options: NamingOptions,
    ) -> Result<LogHash, Error> {
        let core = &self.core;
        let mut named = BTreeSet::new();
        for (user, device) in nodes {
            named.insert(core.find_node(*user, *device).await?);
        }
        let users: BTreeSet<UserId> = named.iter().map(|of| of.user).collect();
        let (count, needed) = (named.len(), usize::from(threshold));
        if users.len() != nodes.len() || needed > count || (needed == 0) != (count == 0) {
            return Err(Error::KeyNodes(
                "the threshold is out of range, or a node stands twice",
            ));
        }
        let body = KeyNodes {
            threshold,
            nodes: named.into_iter().collect(),
            condition,
            generation: core.next_generation(options.new_secrets),
        };
        let closed = core.lanes_closed_by(&body);
        if !options.closes_lanes && !closed.is_empty() {
            return Err(Error::LanesClose(closed));
        }
        let id = core.write_key_nodes(read, body).await?;
        core.deal_owed().await?;
        Ok(id)
    }

    /// Puts one key node in the place of another. Those that stay go on releasing what was sealed
    /// before; publishers draw new secrets, and deal them and the old ones to all, as they come by.
    ///
    /// # Errors
    ///
    /// As [`set_key_nodes`](Self::set_key_nodes), and when the first is no key node.
    pub async fn replace_key_node(
        &self,
        old: UserId,
        new: (UserId, Option<DeviceId>),
        options: NamingOptions,
    ) -> Result<LogHash, Error> {
        self.core.sync().await?;
        let read = self.core.newest_key_nodes();
        let set = self.core.key_nodes()?;
        let is_old = |of: &KeyNode| of.user == old;
        if !set.nodes.iter().any(is_old) {
            return Err(Error::KeyNodes("the user is no key node of this stream"));
        }
        let kept = set.nodes.iter().filter(|of| !is_old(of));
        let kept = kept.map(|of| (of.user, Some(of.device)));
        let nodes: Vec<_> = kept.chain([new]).collect();
        self.name_key_nodes(&read, (set.threshold, &nodes, set.condition), options)
            .await
    }

    /// Has key nodes release on this condition only, besides what the access log says.
    ///
    /// # Errors
    ///
    /// As [`set_key_nodes`](Self::set_key_nodes), and when there are none.
    pub async fn set_condition(&self, condition: Condition) -> Result<LogHash, Error> {
        self.core.sync().await?;
        let read = self.core.newest_key_nodes();
        let set = self.core.key_nodes()?;
        let nodes = set.nodes.iter().map(|of| (of.user, Some(of.device)));
        let nodes: Vec<_> = nodes.collect();
        let options = NamingOptions::default();
        self.name_key_nodes(&read, (set.threshold, &nodes, condition), options)
            .await
    }

    /// The key nodes of the stream; each is asked for one segment, as this device is entitled to it, and
    /// waited for. None where the stream has none.
    ///
    /// # Errors
    ///
    /// Fails when the bus cannot be reached.
    pub async fn key_nodes(&self, wait: Duration) -> Result<Option<KeyNodesInfo>, Error> {
        let core = &self.core;
        core.sync().await?;
        core.deal_owed().await?;
        core.sync().await?;
        let Some((id, set)) = core.named() else {
            return Ok(None);
        };
        let said = core.probe(&set, wait).await?;
        let now = core.now();
        let view = core.view();
        let info = |node: &KeyNode| {
            let card = view.list(&node.user).and_then(|of| of.device(&node.device));
            let standing = match card.is_some_and(|card| card.is_live(now)) {
                true => said.get(node).copied().unwrap_or(NodeStanding::Unasked),
                false => NodeStanding::NoCard,
            };
            KeyNodeInfo {
                user: node.user,
                device: node.device,
                standing,
            }
        };
        let dealt = lanes_dealt(&view, &set);
        Ok(Some(KeyNodesInfo {
            id,
            threshold: set.threshold,
            generation: set.generation,
            nodes: set.nodes.iter().map(info).collect(),
            condition: set.condition,
            dealt,
        }))
    }
}

impl Stream {
    /// The sets of key nodes that were named without knowing of each other, or with a device that wrote two
    /// entries in one place, with the entries that name them: none of them is in force until somebody names key
    /// nodes again. Empty where there is no such thing.
    pub fn key_nodes_beside(&self) -> Vec<(LogHash, KeyNodes)> {
        let view = self.core.view();
        let state = view.state();
        let sets = state.unsettled_key_nodes().iter();
        let sets = sets.filter_map(|entry| Some((*entry, state.key_nodes_of(entry)?.clone())));
        sets.collect()
    }

    /// The entries about key nodes that do not count since whoever wrote them was removed, where nobody who named key
    /// nodes since knew of them: what was in force before them is in force, or nothing.
    pub fn key_nodes_void(&self) -> Vec<LogHash> {
        self.core.view().state().void_key_nodes().to_vec()
    }
}

fn lanes_dealt(view: &StreamView, set: &KeyNodes) -> BTreeMap<UserId, LaneDealt> {
    let mut best = BTreeMap::new();
    for (_, deal) in view.deals() {
        let nodes = match deal.opens_with(set) {
            true => deal.still_in(set).count(),
            false => 0,
        };
        let most = best.entry((deal.dealer, deal.secret())).or_insert(0);
        *most = nodes.max(*most);
    }
    let mut lanes: BTreeMap<UserId, LaneDealt> = BTreeMap::new();
    for record in view.records() {
        lanes.entry(record.lane).or_default();
    }
    for ((dealer, _), nodes) in best {
        let lane = lanes.entry(dealer.lane).or_default();
        lane.secrets += 1;
        if nodes > 0 {
            lane.nodes = match lane.open {
                0 => nodes,
                _ => lane.nodes.min(nodes),
            };
            lane.open += 1;
        }
    }
    lanes
}

impl Core {
    fn newest_key_nodes(&self) -> Vec<LogHash> {
        self.view().state().newest_key_nodes().to_vec()
    }

    fn named(&self) -> Option<(LogHash, KeyNodes)> {
        let view = self.view();
        let named = view.state().key_nodes();
        named.map(|(id, set)| (id, set.clone()))
    }

    pub(super) fn key_nodes(&self) -> Result<KeyNodes, Error> {
        let named = self
            .named()
            .ok_or(Error::KeyNodes("the stream has no key nodes"));
        named.map(|(_, set)| set)
    }

    /// What holds of the conditions of all sets that no other follows.
    fn condition_to_keep(&self) -> Result<Condition, Error> {
        let view = self.view();
        let state = view.state();
        let named = state.newest_key_nodes().iter();
        let mut named = named.filter_map(|entry| state.key_nodes_of(entry));
        let all = named.try_fold(Condition::default(), |all, set| all.and(&set.condition));
        all.ok_or(Error::KeyNodes(
            "the conditions of the sets that stand side by side do not fit into one: name key nodes together with \
             the condition that is to hold",
        ))
    }

    /// The generation of those that are named next: another than that of all before, where new secrets are
    /// wanted.
    fn next_generation(&self, is_new: bool) -> u32 {
        let view = self.view();
        let state = view.state();
        if is_new {
            return state.new_generation();
        }
        let named = state.newest_key_nodes().iter();
        let named = named.filter_map(|entry| state.key_nodes_of(entry));
        named.map(|set| set.generation).max().unwrap_or_default()
    }

    /// Lanes of which key nodes open something now, and will open less until their publishers deal anew.
    fn lanes_closed_by(&self, new: &KeyNodes) -> Vec<UserId> {
        let view = self.view();
        let me = view.me();
        let Some((_, now)) = view.state().key_nodes() else {
            return Vec::new();
        };
        if new.nodes.is_empty() {
            return Vec::new();
        }
        let mut stays = BTreeMap::new();
        for (_, deal) in view.deals().filter(|(_, deal)| deal.opens_with(now)) {
            let dealer = (deal.dealer.lane, deal.dealer.device);
            let stays = stays.entry((dealer, deal.secret())).or_insert(dealer == me);
            *stays |= deal.opens_with(new);
        }
        let closed = stays.into_iter().filter(|(_, stays)| !stays);
        let lanes: BTreeSet<UserId> = closed.map(|(((lane, _), _), _)| lane).collect();
        lanes.into_iter().collect()
    }

    /// The device that a user is a key node with.
    async fn find_node(
        self: &Arc<Self>,
        user: UserId,
        device: Option<DeviceId>,
    ) -> Result<KeyNode, Error> {
        self.read_list(user).await?;
        let now = self.now();
        let view = self.view();
        let live = view.live_devices(&user, now).map(|(device, _)| *device);
        let live: Vec<_> = live
            .filter(|of| device.is_none_or(|named| named == *of))
            .collect();
        match live.as_slice() {
            [device] => Ok(KeyNode {
                user,
                device: *device,
            }),
            [] => Err(Error::KeyNodes(
                "a key node has no such device on this bus: it must join the stream first",
            )),
            _ => Err(Error::KeyNodes(
                "a key node has several devices: name one of them",
            )),
        }
    }

    /// Asks every node for a segment that this device may read, and tells what each said.
    async fn probe(
        self: &Arc<Self>,
        set: &KeyNodes,
        wait: Duration,
    ) -> Result<BTreeMap<KeyNode, NodeStanding>, Error> {
        let mut said = BTreeMap::new();
        let Some((deal, session, segment)) = self.segment_to_probe(set) else {
            return Ok(said);
        };
        let inbox = topic(&self.identity().device().inbox_topic())?;
        let mut at = self.bus.end(&inbox).await?;
        let (asked, key) = self.draw_probe(set, deal, session, segment).await?;
        let nodes = {
            let view = self.view();
            view.deal(&deal)
                .map(|of| of.nodes.clone())
                .unwrap_or_default()
        };
        let asked_nodes = asked.body().nodes.clone();
        for (index, node) in (1..=u8::MAX).zip(&nodes) {
            if asked_nodes.contains(&index) {
                said.insert(*node, NodeStanding::Silent);
                let inbox = topic(&node.device.inbox_topic())?;
                self.bus
                    .append(&inbox, Vec::from([asked.wire().to_vec()]))
                    .await?;
            }
        }
        let deadline = Instant::now() + wait;
        let mut tail = self.bus.tail(Vec::from([(inbox.clone(), at)]));
        while said.values().any(|of| *of == NodeStanding::Silent) {
            let Ok(news) = timeout_at(deadline, tail.next()).await else {
                break;
            };
            drop(news?);
            let items = self.bus.read(&inbox, at, READ_BYTES).await?;
            for item in &items {
                at = Offset(item.offset.0.saturating_add(1));
                if let Some((node, standing)) = self.judge_probe(&asked, &key, &item.payload) {
                    said.entry(node).and_modify(|of| {
                        if *of == NodeStanding::Silent {
                            *of = standing;
                        }
                    });
                }
            }
        }
        Ok(said)
    }

    /// A deal of which most nodes are in force, with a segment of its dealer's that this device may read. Where the
    /// condition can end, it is one that has ended.
    fn segment_to_probe(&self, set: &KeyNodes) -> Option<(DealId, SessionId, Segment)> {
        let now = self.now();
        let view = self.view();
        let (me, device) = view.me();
        let over = view.released_until(now);
        let mut deals: Vec<_> = view.deals().collect();
        deals.sort_by_key(|(_, deal)| {
            let is_refused = !deal.is_enough_for(set);
            (is_refused, std::cmp::Reverse(deal.still_in(set).count()))
        });
        deals.into_iter().find_map(|(id, deal)| {
            let dealer = &deal.dealer;
            let readable = view.state().readable(&me, &device, &dealer.lane);
            let is_its = |of: &&sealcast_protocol::SessionRecord| {
                (of.lane, of.device) == (dealer.lane, dealer.device)
            };
            view.records().filter(is_its).find_map(|record| {
                let segments = SEGMENT_HEIGHTS.iter().flat_map(|height| {
                    let first = readable.iter().map(|of| of.from.0.max(record.start.0));
                    let first = first.map(move |at| at.div_ceil(1 << height));
                    let last = readable
                        .iter()
                        .map(move |of| of.until.0.min(over.0) >> height);
                    let last = last.filter_map(|behind| behind.checked_sub(1));
                    first.chain(last).map(move |index| Segment {
                        depth: LEAF_DEPTH - height,
                        index,
                    })
                });
                let is_readable =
                    |of: &Segment| readable.iter().any(|within| within.covers(&of.interval()));
                let mut ended = segments.filter(|of| of.interval().until <= over);
                let segment = ended.find(is_readable)?;
                Some((*id, record.session, segment))
            })
        })
    }

    async fn draw_probe(
        self: &Arc<Self>,
        set: &KeyNodes,
        deal: DealId,
        session: SessionId,
        segment: Segment,
    ) -> Result<(Verified<NodeRequest>, UnwrapKey), Error> {
        let (core, set) = (self.clone(), set.clone());
        off_thread(move || {
            let mut rng = clock::rng();
            let mut request = [0; 16];
            rng.fill_bytes(&mut request);
            let key = UnwrapKey::generate(&mut rng);
            let (view, now) = (core.view(), core.now());
            let (user, device) = view.me();
            let known = view.deal(&deal);
            let known = known.ok_or(Error::Internal("a deal is gone"))?;
            let nodes = known.still_in(&set).map(|(index, _)| index.get());
            let list = view.list(&user).and_then(|list| list.pin());
            let body = NodeRequest {
                version: 1,
                stream: view.stream(),
                user,
                device,
                list: list.ok_or(Error::Internal("the own device list is empty"))?,
                request: RequestId(request),
                key: key.wrap_key().as_bytes().to_vec(),
                deal,
                nodes: nodes.collect(),
                lane: known.dealer.lane,
                session,
                segments: Vec::from([segment]),
                heads: view.log().heads(&LogHash([0; 32])),
                time: now,
                expires: now.after(PROBE_LIFETIME_MS),
            };
            let asked = sign(core.identity().signing(), body);
            let asked = asked.map_err(|_| Error::Internal("a request is odd"))?;
            Ok((asked, key))
        })
        .await?
    }

    /// Which node an item of the inbox is a reply of, and what it comes to.
    fn judge_probe(
        &self,
        asked: &Verified<NodeRequest>,
        key: &UnwrapKey,
        item: &[u8],
    ) -> Option<(KeyNode, NodeStanding)> {
        let view = self.view();
        let deal = view.deal(&asked.body().deal)?;
        let is_its = |to: &sealcast_protocol::NodeReplyTo| {
            let index = deal.index_of(&to.node);
            to.answers(asked) && index.is_some_and(|index| index.get() == to.index)
        };
        if let Ok(refusal) = Unverified::<NodeRefusal>::decode(item) {
            let to = refusal.claims().to;
            let key = view.sign_key(&to.node.user, &to.node.device)?;
            let refusal = refusal.verify(&key).ok().filter(|_| is_its(&to))?;
            return Some((to.node, NodeStanding::Refuses(refusal.body().reason)));
        }
        let answer = Unverified::<NodeAnswer>::decode(item).ok()?;
        let to = answer.claims().to;
        let signer = view.sign_key(&to.node.user, &to.node.device)?;
        let answer = answer.verify(&signer).ok().filter(|_| is_its(&to))?;
        let labels = asked.body().labels();
        let mut quorum = Quorum::new(deal.dealing.clone(), labels);
        let opened = answer.body().open(asked, key).ok();
        let index = NodeIndex::new(to.index)?;
        let is_true = opened.is_some_and(|of| quorum.take(index, of.expose()).is_ok());
        let standing = match is_true {
            true => NodeStanding::Answers,
            false => NodeStanding::Lies,
        };
        Some((to.node, standing))
    }
}
