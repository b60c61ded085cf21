//! Key nodes, and what a publisher does for them.

use std::collections::BTreeMap;

use rand_core::Rng as _;
use sealcast_crypto::{NodeShare, UnwrapKey};
use sealcast_engine::{
    Covered, DealtLane, OneUse, Releaser, ReleaserInput, ReleaserLimits, ReleaserOutput, Space,
    answer_request,
};
use sealcast_protocol::{
    AuditChain, AuditEntry, Condition, Interval, KeyNode, KeyNodes, LogBody, LogEntry, LogHash,
    NodeAnswer, NodeRefusal, NodeRefusalReason, NodeReplyTo, NodeRequest, Position, RequestId,
    Roles, SessionId, Sharing, StreamTopics, Unverified, Verified, sign,
};

pub(super) use super::asker::Asking;
use crate::rig::{OWNER, World, since};

/// What a publisher does for key nodes.
impl World {
    /// Puts records for key nodes on the bus, and deals to these if that is due. Where another secret has to be
    /// drawn, the session is over.
    pub(crate) fn cover(&mut self, peer: usize, session: SessionId, at: Position) {
        if self.fit_lane(peer, true) {
            let of = &mut self.peers[peer];
            let set = of.view.state().key_nodes().unwrap().0;
            let dealt = of.dealt.as_mut().unwrap();
            let (due, covered) = match dealt.covered.covers(&session, at) {
                true => (
                    Vec::new(),
                    Covered {
                        set,
                        ..dealt.covered
                    },
                ),
                false => dealt.covered.due(session, at, set),
            };
            let records = dealt.seal(&of.view, &of.identity, session, &due).unwrap();
            dealt.covered = covered;
            dealt.note_made();
            of.publisher.note_covered(covered);
            for records in records {
                self.put_key_item(records.wire());
            }
        }
        self.deal(peer);
    }

    /// Whether a lane has a secret that is fit for the key nodes that there are, and had it before.
    fn fit_lane(&mut self, peer: usize, draws: bool) -> bool {
        let of = &mut self.peers[peer];
        let Some((_, set)) = of.view.state().key_nodes() else {
            return false;
        };
        let Some(dealt) = &mut of.dealt else {
            if draws {
                of.dealt = Some(DealtLane::draw(&mut self.rng, set.generation).unwrap());
            }
            return draws;
        };
        if dealt.is_fit(&of.view, set) {
            return true;
        }
        dealt.renew(&mut self.rng, set.generation).unwrap();
        of.lane.end_session();
        false
    }

    /// Deals to the key nodes that there are now, unless that was done.
    pub(crate) fn deal(&mut self, peer: usize) {
        self.sync(peer);
        self.fit_lane(peer, false);
        let of = &mut self.peers[peer];
        let Some(dealt) = &mut of.dealt else {
            return;
        };
        // As a store would have it.
        *dealt = DealtLane::from_bytes(dealt.to_bytes().expose()).unwrap();
        let made = dealt.deal(&of.view, &of.identity, &mut self.rng, self.now);
        if let Some((deals, to)) = made {
            dealt.note_given(&to);
            dealt.note_dealt(to);
            for deal in deals {
                self.put_key_item(deal.wire());
            }
        }
    }
}

/// A stream with key nodes whose keys nobody hands out otherwise.
pub(super) struct Net {
    pub(super) world: World,
    pub(super) nodes: Vec<Node>,
    pub(super) limits: ReleaserLimits,
    read: BTreeMap<String, usize>,
    /// Nodes that were replaced.
    pub(super) gone: Vec<usize>,
}

/// What a bus showed, and what the nodes had kept.
#[derive(Clone)]
pub(super) struct Past {
    bus: BTreeMap<String, Vec<Vec<u8>>>,
    kept: Vec<(Store, Vec<AuditEntry>)>,
}

type Store = BTreeMap<(Space, Vec<u8>), Vec<u8>>;

pub(super) struct Node {
    pub(super) peer: usize,
    /// What its bus shows it of logs, lists and keys, where that is not what there is.
    pub(super) sees: Option<Past>,
    pub(super) is_up: bool,
    /// Whether the bus shows it all that it showed.
    pub(super) is_whole: bool,
    pub(super) audit: Vec<AuditEntry>,
    /// Whether it reads the log also when nobody says so.
    pub(super) reads_on: bool,
    /// How often its machine had the log read.
    pub(super) logs_read: usize,
    machine: Option<Releaser>,
    /// Whether who runs it says that its clock is right.
    pub(super) trusts_clock: bool,
    /// Whether it answers for other segments than it was asked for.
    pub(super) lies: bool,
    /// Whether it says of all that it would release that it has not ended.
    pub(super) stalls: bool,
    /// How far its clock is behind.
    pub(super) behind_ms: u64,
}

impl Net {
    /// So many nodes, of which `threshold` are needed.
    pub(super) fn new(threshold: u8, nodes: usize) -> Self {
        let mut net = Self {
            world: World::with(7, Sharing::Manual, false),
            nodes: Vec::new(),
            limits: ReleaserLimits::default(),
            read: BTreeMap::new(),
            gone: Vec::new(),
        };
        for _ in 0..nodes {
            net.add_node();
        }
        net.name(threshold, Condition::default());
        net
    }

    pub(super) fn add_node(&mut self) -> usize {
        let peer = self.world.user();
        self.nodes.push(Node {
            peer,
            sees: None,
            is_up: true,
            is_whole: true,
            audit: Vec::new(),
            reads_on: true,
            logs_read: 0,
            machine: None,
            trusts_clock: false,
            lies: false,
            stalls: false,
            behind_ms: 0,
        });
        self.nodes.sort_by_key(|node| self.world.id(node.peer));
        peer
    }

    pub(super) fn key_node(&self, at: usize) -> KeyNode {
        let peer = self.nodes[at].peer;
        KeyNode {
            user: self.world.id(peer),
            device: self.world.device(peer),
        }
    }

    /// Names all nodes.
    pub(super) fn name(&mut self, threshold: u8, condition: Condition) -> LogHash {
        let all: Vec<_> = (0..self.nodes.len()).collect();
        self.name_some(threshold, condition, &all)
    }

    pub(super) fn name_some(
        &mut self,
        threshold: u8,
        condition: Condition,
        nodes: &[usize],
    ) -> LogHash {
        self.name_with(threshold, condition, nodes, 0)
    }

    pub(super) fn name_with(
        &mut self,
        threshold: u8,
        condition: Condition,
        nodes: &[usize],
        generation: u32,
    ) -> LogHash {
        let body = LogBody::KeyNodes(KeyNodes {
            threshold,
            nodes: nodes.iter().map(|at| self.key_node(*at)).collect(),
            condition,
            generation,
        });
        self.world.write(OWNER, body).unwrap()
    }

    /// A reader who may read from the beginning on, and is given nothing.
    pub(super) fn reader(&mut self, interval: Interval) -> usize {
        let reader = self.world.user();
        self.world.tick(1);
        self.world
            .write_grant(OWNER, reader, Roles::READER, interval)
            .unwrap();
        reader
    }

    pub(super) fn reader_of_all(&mut self) -> usize {
        self.reader(since(Position::START))
    }

    /// Has a device say another thing as well in the place of its last entry.
    pub(super) fn fork(&mut self, peer: usize) {
        let topic = StreamTopics(self.world.stream).access(&self.world.device(peer));
        let last = self.world.bus[&topic].last().unwrap();
        let twin = Unverified::<LogEntry>::decode(last).unwrap();
        let mut twin = twin.claims().clone();
        twin.time = twin.time.after(1);
        let twin = sign(self.world.peers[peer].identity.signing(), twin).unwrap();
        self.world.put(&topic, twin.wire());
    }

    /// Publishes texts, a minute apart.
    pub(super) fn publish(&mut self, texts: &[&str]) {
        for text in texts {
            self.world.publish(OWNER, text).unwrap();
            self.world.tick(60_000);
        }
    }

    fn inbox_of(&self, peer: usize) -> String {
        self.world.device(peer).inbox_topic()
    }

    pub(super) fn put_in_inbox(&mut self, peer: usize, wire: &[u8]) {
        let inbox = self.inbox_of(peer);
        self.world.put(&inbox, wire);
    }

    pub(super) fn news_of(&mut self, peer: usize) -> Vec<Vec<u8>> {
        let inbox = self.inbox_of(peer);
        let items = self.world.bus.get(&inbox).cloned().unwrap_or_default();
        let from = self.read.insert(inbox, items.len()).unwrap_or(0);
        items[from..].to_vec()
    }

    /// What a device's inbox has that nobody took.
    pub(super) fn inbox(&mut self, peer: usize) -> Vec<Vec<u8>> {
        self.news_of(peer)
    }

    pub(super) fn past(&self) -> Past {
        let kept = self.nodes.iter().map(|node| {
            let store = self.world.peers[node.peer].store.clone();
            (store, node.audit.clone())
        });
        Past {
            bus: self.world.bus.clone(),
            kept: kept.collect(),
        }
    }

    /// Puts a node's store back to what it was.
    pub(super) fn put_back(&mut self, at: usize, past: &Past) {
        let (store, audit) = past.kept[at].clone();
        let peer = self.nodes[at].peer;
        self.world.peers[peer].store = store;
        self.world.peers[peer].cursors.clear();
        self.nodes[at].audit = audit;
        self.restart(at);
    }

    /// Has a node read on, and says whether its bus shows it all that it showed.
    fn sync_node(&mut self, at: usize) -> bool {
        let peer = self.nodes[at].peer;
        let Some(past) = &self.nodes[at].sees else {
            self.world.sync(peer);
            return self.nodes[at].is_whole;
        };
        let cursors = &self.world.peers[peer].cursors;
        let mut read = cursors.iter().filter(|(of, _)| !of.ends_with("/keys"));
        let shown = |of: &String| past.bus.get(of).map_or(0, Vec::len);
        read.all(|(of, count)| shown(of) >= *count)
    }

    /// Starts a node's program again, with its audit.
    pub(super) fn restart(&mut self, at: usize) {
        self.nodes[at].machine = None;
        self.world.restart(self.nodes[at].peer);
    }

    /// Lets every node that runs do what there is to do.
    pub(super) fn run_nodes(&mut self) {
        for at in 0..self.nodes.len() {
            if self.nodes[at].is_up {
                self.run_node(at);
            }
        }
    }

    pub(super) fn run_node(&mut self, at: usize) {
        let peer = self.nodes[at].peer;
        if self.nodes[at].reads_on {
            self.sync_node(at);
        }
        let items = self.news_of(peer);
        let mut machine = self.nodes[at].machine.take();
        let mut machine = machine.take().unwrap_or_else(|| self.begin(at));
        let now = self.clock_of(at);
        for item in &items {
            let view = &self.world.peers[peer].view;
            machine.handle(now, view, ReleaserInput::Item(item));
        }
        while let Some(output) = machine.poll_output() {
            self.perform(at, &mut machine, output);
        }
        self.nodes[at].machine = Some(machine);
    }

    fn clock_of(&self, at: usize) -> Position {
        Position(self.world.now.0 - self.nodes[at].behind_ms)
    }

    fn begin(&self, at: usize) -> Releaser {
        let node = &self.nodes[at];
        let mut chain = AuditChain::new(self.world.stream, self.key_node(at));
        let identity = &self.world.peers[node.peer].identity;
        let key = identity.signing().verifying_key();
        for entry in &node.audit {
            let signed = sign(identity.signing(), entry.clone()).unwrap();
            chain.take(signed.wire(), &key).unwrap();
        }
        let mut machine = Releaser::new(self.limits, self.clock_of(at), chain, node.audit.clone());
        if node.trusts_clock {
            machine.trust_clock();
        }
        machine
    }

    /// Tells a node that time has passed.
    pub(super) fn tick_node(&mut self, at: usize) {
        let mut machine = self.nodes[at].machine.take().unwrap();
        let view = &self.world.peers[self.nodes[at].peer].view;
        machine.handle(self.world.now, view, ReleaserInput::Tick);
        while let Some(output) = machine.poll_output() {
            self.perform(at, &mut machine, output);
        }
        self.nodes[at].machine = Some(machine);
    }

    /// When a node's machine wants to be told of the time.
    pub(super) fn next_timeout(&self, at: usize) -> Option<Position> {
        self.nodes[at].machine.as_ref().unwrap().next_timeout()
    }

    /// How far a node's clock is behind its audit, where it releases nothing for it.
    pub(super) fn clock_behind_ms(&self, at: usize) -> Option<u64> {
        self.nodes[at].machine.as_ref().unwrap().clock_behind_ms()
    }

    fn perform(&mut self, at: usize, machine: &mut Releaser, output: ReleaserOutput) {
        let (peer, now) = (self.nodes[at].peer, self.clock_of(at));
        match output {
            ReleaserOutput::ReadLog => {
                self.nodes[at].logs_read += 1;
                let is_whole = self.sync_node(at);
                let view = &self.world.peers[peer].view;
                machine.handle(now, view, ReleaserInput::LogRead { is_whole });
            }
            ReleaserOutput::ReadList(user) => {
                let topic = user.devices_topic();
                let of = sealcast_engine::ControlTopic::Devices(user);
                for item in self.world.bus.get(&topic).into_iter().flatten() {
                    self.world.peers[peer].view.handle(&of, item);
                }
                let view = &mut self.world.peers[peer].view;
                view.settle();
                machine.handle(now, view, ReleaserInput::Learned);
            }
            ReleaserOutput::Keep(entry) => self.nodes[at].audit.push(entry),
            ReleaserOutput::Release(asked) if self.nodes[at].stalls => {
                let (node, deal) = (self.key_node(at), asked.body().deal);
                let index = self.world.peers[peer].view.deal(&deal).unwrap();
                let refusal = NodeRefusal {
                    version: 1,
                    to: NodeReplyTo::new(&asked, index.index_of(&node).unwrap(), node),
                    reason: NodeRefusalReason::NotEnded,
                    wait_ms: 1,
                };
                self.perform(at, machine, ReleaserOutput::Refuse(refusal, now));
            }
            ReleaserOutput::Release(asked) => {
                let of = &self.world.peers[peer];
                let answer = match self.nodes[at].lies {
                    false => {
                        answer_request(&of.view, &of.identity, &mut self.world.rng, &asked).unwrap()
                    }
                    true => self.false_answer(peer, &asked),
                };
                let inbox = asked.body().device.inbox_topic();
                self.world.put(&inbox, answer.wire());
            }
            ReleaserOutput::Refuse(refusal, _) => {
                let inbox = refusal.to.asker.inbox_topic();
                let identity = &self.world.peers[peer].identity;
                let refusal = sign(identity.signing(), refusal).unwrap();
                self.world.put(&inbox, refusal.wire());
            }
        }
    }

    /// An answer with another share than the node was dealt, to all appearances a good one.
    fn false_answer(&mut self, peer: usize, asked: &Verified<NodeRequest>) -> Verified<NodeAnswer> {
        let of = &self.world.peers[peer];
        let (user, device) = of.view.me();
        let share = of.view.share(&asked.body().deal).unwrap();
        let mut bytes = *share.expose();
        bytes[0] ^= 1;
        let share = NodeShare::from_bytes(share.index(), &bytes).unwrap();
        let node = KeyNode { user, device };
        let answer = NodeAnswer::seal(&mut self.world.rng, asked, &share, node).unwrap();
        sign(of.identity.signing(), answer).unwrap()
    }

    pub(super) fn draw(&mut self) -> OneUse {
        let mut request = [0; 16];
        self.world.rng.fill_bytes(&mut request);
        OneUse {
            request: RequestId(request),
            key: UnwrapKey::generate(&mut self.world.rng),
        }
    }

    /// Signs a request of a device again, after a change.
    pub(super) fn resigned(
        &self,
        peer: usize,
        asked: &Verified<NodeRequest>,
        change: impl FnOnce(&mut NodeRequest),
    ) -> Verified<NodeRequest> {
        let mut body = asked.body().clone();
        change(&mut body);
        sign(self.world.peers[peer].identity.signing(), body).unwrap()
    }

    /// Signs a request of a device again, with another id and the present time.
    pub(super) fn renewed(
        &self,
        peer: usize,
        asked: &Verified<NodeRequest>,
        number: u8,
        change: impl FnOnce(&mut NodeRequest),
    ) -> Verified<NodeRequest> {
        self.resigned(peer, asked, |of| {
            let view = &self.world.peers[peer].view;
            (of.user, of.device) = view.me();
            of.list = view.list(&of.user).unwrap().pin().unwrap();
            of.request.0 = [number; 16];
            (of.time, of.expires) = (self.world.now, self.world.now.after(30_000));
            change(of);
        })
    }

    /// What the last entry of a node's audit says.
    pub(super) fn last(&self, at: usize) -> String {
        format!("{:?}", self.nodes[at].audit.last().unwrap().event)
    }

    /// What is told of a device's asking for all that it cannot open, until it is done.
    pub(super) fn unlock(&mut self, peer: usize) -> String {
        let mut asking = Asking::new(self, peer);
        while asking.combiner.open_requests() > 0 {
            asking.step(self);
        }
        asking.told
    }
}
