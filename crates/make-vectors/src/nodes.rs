//! Deals, segment records, requests to key nodes, answers and refusals, and audits (`spec/key-nodes.md`).

use anyhow::Context as _;
use sealcast_crypto::{LaneSecret, NodeId, NodeKey, SigningKey, UnwrapKey, digest};
use sealcast_protocol::{
    Condition, Deal, DealId, Dealer, KeyNode, KeyNodes, ListPin, LogHash, NodeAnswer, NodeRefusal,
    NodeRefusalReason, NodeReplyTo, NodeRequest, Position, RequestId, Segment, SegmentRecords,
    SessionId, Signable, UserId, Verified, encode, sign, wrap_key_hash,
};

use super::case::{Case, hex};
use super::cast::{Given, NOW, Person, SEEN, STREAM, anna, ben, person};
use super::raw;

mod audit;

const SET: LogHash = LogHash([0x5e; 32]);
const SESSION: SessionId = SessionId([3; 16]);
/// A coefficient, and an encapsulation for each node.
const DRAWN: [u8; 192] = [8; 192];

/// Anna deals to two nodes, both needed. Ben asks them.
struct World {
    nodes: [Person; 2],
    deal: Verified<Deal>,
    records: SegmentRecords,
    asked: Verified<NodeRequest>,
    answer: NodeAnswer,
}

pub(super) fn cases() -> anyhow::Result<Vec<Case>> {
    let world = World::new()?;
    Ok([
        world.deals(),
        world.records(),
        world.requests(),
        world.answers()?,
        world.refusals(),
        world.audit(),
    ]
    .concat())
}

impl World {
    fn new() -> anyhow::Result<Self> {
        let anna = anna();
        let secret = LaneSecret::from_bytes(&[7; 64])?;
        let mut nodes = [person(0x21), person(0x25)];
        nodes.sort_by_key(|node| node.user);
        let named = KeyNodes {
            threshold: 2,
            nodes: nodes.each_ref().map(key_node).to_vec(),
            condition: Condition::default(),
            generation: 0,
        };
        let dealer = Dealer {
            stream: STREAM,
            lane: anna.user,
            device: anna.device.id,
        };
        let keys = nodes
            .each_ref()
            .map(|node| Some(node.device.unwrap.wrap_key()));
        let deal = Deal::seal(&mut Given(&DRAWN), dealer, (SET, &named), &secret, &keys)?;
        let deal = sign(&anna.device.signing, deal)?;
        let key = NodeKey::init_with(|bytes| bytes.fill(5));
        let segments = [7, 8].map(|index| (NodeId { depth: 32, index }, &key));
        let records = SegmentRecords::seal(dealer, SESSION, &secret, &segments);
        let records = records.context("both are segments")?;
        let ben = ben();
        let asked = NodeRequest {
            version: 1,
            stream: STREAM,
            user: ben.user,
            device: ben.device.id,
            list: ListPin {
                seq: 0,
                half: [6; 16],
            },
            request: RequestId([9; 16]),
            key: one_use().wrap_key().as_bytes().to_vec(),
            deal: DealId::from(deal.digest()),
            nodes: vec![1, 2],
            lane: anna.user,
            session: SESSION,
            segments: records.records.iter().map(|of| of.segment).collect(),
            heads: vec![SEEN],
            time: NOW,
            expires: Position(NOW.0 + 30_000),
        };
        let asked = sign(&ben.device.signing, asked)?;
        let node = key_node(&nodes[0]);
        let share = deal.body().unwrap_share(&node, &nodes[0].device.unwrap)?;
        let answer = NodeAnswer::seal(&mut Given(&DRAWN[..96]), &asked, &share, node)?;
        Ok(Self {
            nodes,
            deal,
            records,
            asked,
            answer,
        })
    }

    fn deals(&self) -> Vec<Case> {
        let (anna, deal) = (anna(), self.deal.body());
        let with_node = |case: Case, at: usize, seed: &[u8; 32]| {
            let node = &self.nodes[at];
            case.hex("node", node.user.0)
                .with("node-device", node.device.id)
                .hex("unwrap-seed", seed)
        };
        let goods = [0, 1].into_iter().zip(["first-node", "second-node"]);
        let good = goods.map(|(at, name)| {
            let node = &self.nodes[at];
            let share = deal.unwrap_share(&key_node(node), &node.device.unwrap);
            let case = given("deal", name, "two of two", &anna, self.deal.wire());
            let case = with_node(case, at, node.device.unwrap.expose_seed()).ok();
            let case = dealt(case, &self.deal);
            case.with("index", at + 1).hex(
                "share",
                share.as_ref().map_or(&[][..], |share| share.expose()),
            )
        });
        let wire = |change: &dyn Fn(&mut Deal)| {
            let mut deal = deal.clone();
            change(&mut deal);
            signed(&anna, &deal)
        };
        let own = *self.nodes[0].device.unwrap.expose_seed();
        let other = *self.nodes[1].device.unwrap.expose_seed();
        #[rustfmt::skip]
        let rows = [
            ("another-nodes-key", "unwrapped with another node's key", other, wire(&|_| ())),
            ("another-stream", "the share was wrapped in another stream's deal", own, wire(&|deal| deal.dealer.stream.0[0] ^= 1)),
            ("another-lane", "the share was wrapped in another lane's deal", own, wire(&|deal| deal.dealer.lane.0[0] ^= 1)),
            ("another-set", "the share was wrapped for another set of nodes", own, wire(&|deal| deal.set.0[0] ^= 1)),
            ("another-pepper", "the share was wrapped with another pepper commitment", own, wire(&|deal| deal.pepper[0] ^= 1)),
            ("fewer-commitments", "the share was wrapped with more commitments", own, wire(&|deal| deal.commitments.truncate(32))),
        ];
        let refused = rows.map(|(name, about, seed, wire)| {
            with_node(given("deal", name, about, &anna, &wire), 0, &seed).fails("not authentic")
        });
        let stranger = given(
            "deal",
            "no-share",
            "the deal is not to this node",
            &anna,
            self.deal.wire(),
        )
        .hex("node", ben().user.0)
        .with("node-device", ben().device.id)
        .hex("unwrap-seed", own)
        .fails("no share");
        let without = self.without_a_card();
        let cases = good.chain(refused).chain([stranger]).chain(without);
        cases.chain(self.deal_faults()).collect()
    }

    /// Of two nodes, of which one is needed, the second has no live card.
    fn without_a_card(&self) -> Option<Case> {
        let named = KeyNodes {
            threshold: 1,
            nodes: self.nodes.each_ref().map(key_node).to_vec(),
            condition: Condition::default(),
            generation: 0,
        };
        let (anna, secret) = (anna(), LaneSecret::from_bytes(&[7; 64]).ok()?);
        let keys = [Some(self.nodes[0].device.unwrap.wrap_key()), None];
        let drawn = &mut Given(&DRAWN[..64]);
        let dealer = self.deal.body().dealer;
        let deal = Deal::seal(drawn, dealer, (SET, &named), &secret, &keys).ok()?;
        let deal = sign(&anna.device.signing, deal).ok()?;
        let about = "the dealer knew of no live card of the node";
        let case = given("deal", "no-live-card", about, &anna, deal.wire());
        let node = &self.nodes[1];
        let case = case
            .hex("node", node.user.0)
            .with("node-device", node.device.id)
            .hex("unwrap-seed", node.device.unwrap.expose_seed());
        Some(case.fails("no share"))
    }

    fn deal_faults(&self) -> Vec<Case> {
        let (anna, deal) = (anna(), self.deal.body());
        let changes: [Change<Deal>; 7] = [
            ("no-commitment", "none is needed", |deal| {
                deal.commitments.clear()
            }),
            (
                "commitment-of-the-identity",
                "a commitment that is the identity",
                |deal| deal.commitments[..32].fill(0),
            ),
            ("half-a-commitment", "a commitment of 31 bytes", |deal| {
                deal.commitments.truncate(63)
            }),
            ("more-needed", "two needed of one", |deal| {
                deal.shares.truncate(1)
            }),
            ("nodes-unsorted", "the nodes are not ascending", |deal| {
                deal.shares.reverse()
            }),
            ("share-too-long", "a wrapped share of 1,201 bytes", |deal| {
                deal.shares[0].wrapped.push(0)
            }),
            (
                "fewer-shares",
                "two needed, and one given a share",
                |deal| deal.shares[1].wrapped.clear(),
            ),
        ];
        let ranges = ranges("deal", &anna, deal, &changes);
        [ranges, encodings("deal", &anna, deal)].concat()
    }

    fn records(&self) -> Vec<Case> {
        let anna = anna();
        let read = good(
            "segment-records",
            "two",
            "two segments of one session",
            &anna,
            &self.records,
        );
        let read = dealer(read, &self.records.dealer)
            .with("session", self.records.session)
            .hex("secret", self.records.secret)
            .each(&self.records.records, |case, record| {
                let Segment { depth, index } = record.segment;
                case.with("record", format!("{depth} {index} {}", hex(&record.sealed)))
            });
        let changes: [Change<SegmentRecords>; 6] = [
            ("no-record", "no record", |of| of.records.clear()),
            ("records-unsorted", "the records are not ascending", |of| {
                of.records.reverse()
            }),
            ("record-twice", "a segment stands twice", |of| {
                of.records[1].segment = of.records[0].segment
            }),
            ("no-such-height", "15 levels above the leaves", |of| {
                of.records[1].segment.depth = 33
            }),
            (
                "behind-the-end",
                "an index that the depth does not have",
                |of| of.records[1].segment.index = 1 << 32,
            ),
            (
                "secret-of-the-identity",
                "a secret that protects nothing",
                |of| of.secret = [0; 32],
            ),
        ];
        let ranges = ranges("segment-records", &anna, &self.records, &changes);
        let encodings = encodings("segment-records", &anna, &self.records);
        [vec![read], ranges, encodings].concat()
    }

    fn requests(&self) -> Vec<Case> {
        let (ben, asked) = (ben(), self.asked.body());
        let key = wrap_key_hash(&one_use().wrap_key());
        let read = good(
            "node-request",
            "two-nodes",
            "two nodes are asked for two segments",
            &ben,
            asked,
        )
        .with("stream", asked.stream)
        .hex("user", asked.user.0)
        .with("device", asked.device)
        .with(
            "list",
            format!("{} {}", asked.list.seq, hex(&asked.list.half)),
        )
        .with("request", asked.request)
        .hex("key-hash", key)
        .with("deal", asked.deal)
        .each(&asked.nodes, |case, node| case.with("node", node))
        .hex("lane", asked.lane.0)
        .with("session", asked.session)
        .each(&asked.segments, |case, of| {
            case.with("segment", format!("{} {}", of.depth, of.index))
        })
        .each(&asked.heads, |case, head| case.with("head", head))
        .with("time", asked.time.0)
        .with("expires", asked.expires.0);
        let changes: [Change<NodeRequest>; 11] = [
            ("no-request-id", "the request is zero", |of| {
                of.request = RequestId::NONE
            }),
            ("key-too-short", "a key of 1,215 bytes", |of| {
                of.key.truncate(1_215)
            }),
            ("no-node", "nobody is asked", |of| of.nodes.clear()),
            ("node-zero", "node 0 is asked", |of| of.nodes = vec![0]),
            ("node-thirty-three", "node 33 is asked", |of| {
                of.nodes = vec![33]
            }),
            ("nodes-unsorted", "the nodes are not ascending", |of| {
                of.nodes.reverse()
            }),
            ("no-segment", "nothing is asked for", |of| {
                of.segments.clear()
            }),
            ("segment-twice", "a segment stands twice", |of| {
                of.segments[1] = of.segments[0]
            }),
            ("no-such-height", "15 levels above the leaves", |of| {
                of.segments[1].depth = 33
            }),
            ("expires-at-once", "it expires when it is made", |of| {
                of.expires = of.time
            }),
            ("lives-too-long", "it lives for 300,001 ms", |of| {
                of.expires = Position(of.time.0 + 300_001)
            }),
        ];
        let ranges = ranges("node-request", &ben, asked, &changes);
        [vec![read], ranges, encodings("node-request", &ben, asked)].concat()
    }

    fn answers(&self) -> anyhow::Result<Vec<Case>> {
        let node = &self.nodes[0];
        let area = "sealed-answer";
        let with_request = |case: Case, asked: &[u8], seed: [u8; 32]| {
            case.hex("asked", asked)
                .hex("asker-key", ben().device.signing.verifying_key().as_bytes())
                .hex("unwrap-seed", seed)
        };
        let own = *one_use().expose_seed();
        let opened = self.answer.open(&self.asked, &one_use())?;
        let wire = signed(node, &self.answer);
        let case = given(area, "good", "the first node's", node, &wire);
        let good = with_request(case, self.asked.wire(), own).ok().hex(
            "digest",
            digest(NodeAnswer::LABEL, &[&encode(&self.answer)]).as_bytes(),
        );
        let good = reply(good, &self.answer.to).hex("answer", opened.expose());
        let asked = |change: fn(&mut NodeRequest)| {
            let mut asked = self.asked.body().clone();
            change(&mut asked);
            signed(&ben(), &asked)
        };
        #[rustfmt::skip]
        let rows = [
            ("another-request", "a request with another id", asked(|of| of.request.0[0] ^= 1), own, "another request"),
            ("another-segment", "a request for other segments", asked(|of| of.segments[1].index += 1), own, "another request"),
            ("another-one-use-key", "a request with another key", asked(|of| of.key = UnwrapKey::from_seed(&[1; 32]).wrap_key().as_bytes().to_vec()), own, "another request"),
            ("node-not-asked", "a request to the second node alone", asked(|of| of.nodes = vec![2]), own, "another request"),
            ("another-key", "opened with another key", self.asked.wire().to_vec(), [1; 32], "not authentic"),
        ];
        let refused = rows.map(|(name, about, asked, seed, failure)| {
            with_request(given(area, name, about, node, &wire), &asked, seed).fails(failure)
        });
        let mut altered = self.answer.clone();
        altered.wrapped[1_200] ^= 1;
        let about = "a byte of the ciphertext differs";
        let altered = given(area, "altered", about, node, &signed(node, &altered));
        let altered = with_request(altered, self.asked.wire(), own).fails("not authentic");
        let changes: [Change<NodeAnswer>; 3] = [
            ("index-zero", "the node with the index 0", |of| {
                of.to.index = 0
            }),
            ("no-request-id", "the request is zero", |of| {
                of.to.request = RequestId::NONE
            }),
            ("too-long", "a byte more than two segments take", |of| {
                of.wrapped.push(0)
            }),
        ];
        let mut cases = vec![good, altered];
        cases.extend(refused);
        let faulty = ranges(area, node, &self.answer, &changes);
        cases.extend(
            faulty
                .into_iter()
                .chain(encodings(area, node, &self.answer)),
        );
        Ok(cases)
    }

    fn refusals(&self) -> Vec<Case> {
        let node = &self.nodes[0];
        let refusal = NodeRefusal {
            version: 1,
            to: self.answer.to,
            reason: NodeRefusalReason::NotEntitled,
            wait_ms: 0,
        };
        #[rustfmt::skip]
        let rows = [
            ("not-entitled", "the log entitles the asker to less", NodeRefusalReason::NotEntitled, 0),
            ("unknown-deal", "the node has no share", NodeRefusalReason::UnknownDeal, 0),
            ("condition", "the condition does not hold for another minute", NodeRefusalReason::Condition, 60_000),
            ("throttled", "too much was asked for", NodeRefusalReason::Throttled, 5_000),
            ("log-behind", "the node has not read so far", NodeRefusalReason::LogBehind, 1_000),
            ("not-ended", "a segment ends in a minute", NodeRefusalReason::NotEnded, 60_000),
        ];
        let read = rows.map(|(name, about, reason, wait_ms)| {
            let refusal = NodeRefusal {
                reason,
                wait_ms,
                ..refusal.clone()
            };
            let case = good("node-refusal", name, about, node, &refusal);
            reply(case, &refusal.to)
                .with("reason", reason as u8)
                .with("wait", wait_ms)
        });
        let changes: [Change<NodeRefusal>; 2] = [
            ("index-zero", "the node with the index 0", |of| {
                of.to.index = 0
            }),
            ("no-request-id", "the request is zero", |of| {
                of.to.request = RequestId::NONE
            }),
        ];
        let ranges = ranges("node-refusal", node, &refusal, &changes);
        let encodings = encodings("node-refusal", node, &refusal);
        [read.to_vec(), ranges, encodings].concat()
    }
}

fn one_use() -> UnwrapKey {
    UnwrapKey::from_seed(&[0x33; 32])
}

fn key_node(of: &Person) -> KeyNode {
    KeyNode {
        user: of.user,
        device: of.device.id,
    }
}

fn dealer(case: Case, dealer: &Dealer) -> Case {
    case.with("stream", dealer.stream)
        .hex("lane", dealer.lane.0)
        .with("device", dealer.device)
}

fn dealt(case: Case, deal: &Verified<Deal>) -> Case {
    let body = deal.body();
    dealer(case.hex("digest", deal.digest().as_bytes()), &body.dealer)
        .with("set", body.set)
        .each(body.commitments.chunks(32), |case, of| {
            case.hex("commitment", of)
        })
        .hex("pepper-commitment", body.pepper)
        .each(&body.shares, |case, share| {
            let UserId(user) = share.node.user;
            case.with("to", format!("{} {}", hex(&user), share.node.device))
        })
}

fn reply(case: Case, to: &NodeReplyTo) -> Case {
    case.with("stream", to.stream)
        .with("asker", to.asker)
        .with("request", to.request)
        .hex("asked-digest", to.asked)
        .with("deal", to.deal)
        .with("index", to.index)
        .hex("node", to.node.user.0)
        .with("node-device", to.node.device)
}

fn given(area: &'static str, name: &str, about: &str, signer: &Person, wire: &[u8]) -> Case {
    let key = signer.device.signing.verifying_key();
    Case::new(area, name, about)
        .hex("public-key", key.as_bytes())
        .hex("wire", wire)
}

fn signed<T: Signable>(signer: &Person, body: &T) -> Vec<u8> {
    raw::signed(&signer.device.signing, T::LABEL, &encode(body))
}

/// A case of a good object, up to its digest.
fn good<T: Signable>(
    area: &'static str,
    name: &str,
    about: &str,
    signer: &Person,
    body: &T,
) -> Case {
    given(area, name, about, signer, &signed(signer, body))
        .ok()
        .hex("digest", digest(T::LABEL, &[&encode(body)]).as_bytes())
}

type Change<T> = (&'static str, &'static str, fn(&mut T));

/// One object with each change, which puts it out of range.
fn ranges<T: Signable + Clone>(
    area: &'static str,
    signer: &Person,
    body: &T,
    changes: &[Change<T>],
) -> Vec<Case> {
    let case = |(name, about, change): &Change<T>| {
        let mut body = body.clone();
        change(&mut body);
        given(area, name, about, signer, &signed(signer, &body)).fails("out of range")
    };
    changes.iter().map(case).collect()
}

/// One object with each fault that any signed object can have.
fn encodings<T: Signable>(area: &'static str, signer: &Person, body: &T) -> Vec<Case> {
    let stranger = SigningKey::from_seed(&[0x77; 32]);
    let key = &signer.device.signing;
    let faults = raw::faults(
        key,
        &stranger,
        T::LABEL,
        "sealcast.v1 bundle",
        &encode(body),
    );
    let case = |of: raw::Fault| given(area, of.name, of.about, signer, &of.wire).fails(of.failure);
    faults.into_iter().map(case).collect()
}
