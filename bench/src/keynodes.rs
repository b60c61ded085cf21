//! Key nodes: what dealing, sealing for them, answering and opening cost, beside one X-Wing unwrap.

use std::hint::black_box;
use std::time::Duration;

use anyhow::Context as _;
use getrandom::SysRng;
use rand_core::{Rng as _, UnwrapErr};
use sealcast_crypto::{
    Cover, LaneSecret, NodeId, NodeKey, NodeShare, POSITION_BITS, Quorum, SEALED_SEGMENT_LEN,
    SEGMENT_HEIGHTS, SigningKey, UnwrapKey, WrapKey, segments,
};
use sealcast_protocol::{
    Condition, Deal, DealId, Dealer, DeviceId, KeyNode, KeyNodes, ListPin, LogHash, NodeAnswer,
    NodeRequest, RequestId, Segment, SegmentRecords, SessionId, StreamId, Unverified, UserId,
    Verified, sign,
};

use crate::clock::timed;
use crate::contest::{Contest, Outcome, Spread};
use crate::floors::Floors;
use crate::lane::{START, root};
use crate::report::Page;
use crate::scale::Scale;

const DEALER: Dealer = Dealer {
    stream: StreamId([1; 32]),
    lane: UserId([2; 32]),
    device: DeviceId([3; 16]),
};
const SESSION: SessionId = SessionId([4; 16]);
/// How many of the nodes are needed, and how many there are.
const SETS: [(u8, u8); 2] = [(2, 3), (3, 5)];
/// Segments of a quarter of an hour, which are sealed together, and of a long request.
const BLOCK_HEIGHT: u8 = 20;
const MANY: usize = 32;
/// Years of which the segments are counted.
const YEARS: usize = 4_096;
const YEAR_MS: u64 = 365 * 24 * 3600 * 1000;

fn rng() -> UnwrapErr<SysRng> {
    UnwrapErr(SysRng)
}

/// A set of nodes, and all that it takes to ask them.
struct Net {
    threshold: u8,
    named: KeyNodes,
    keys: Vec<Option<WrapKey>>,
    shares: Vec<NodeShare>,
    deal: Verified<Deal>,
}

/// A publisher's side, and a reader's.
struct Bench {
    secret: LaneSecret,
    signing: SigningKey,
    unwrap: UnwrapKey,
    whole: Cover,
}

impl Bench {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            secret: LaneSecret::generate(&mut rng())?,
            signing: SigningKey::from_seed(&[5; 32]),
            unwrap: UnwrapKey::from_seed(&[6; 32]),
            whole: Cover::whole(&root()),
        })
    }

    /// The secret, dealt to some nodes that all have one key.
    fn net(&self, (threshold, count): (u8, u8)) -> anyhow::Result<Net> {
        let node = |at: u8| KeyNode {
            user: UserId([at; 32]),
            device: DeviceId([at; 16]),
        };
        let named = KeyNodes {
            threshold,
            nodes: (1..=count).map(node).collect(),
            condition: Condition::default(),
            generation: 0,
        };
        let keys = named.nodes.iter().map(|_| Some(self.unwrap.wrap_key()));
        let keys: Vec<_> = keys.collect();
        let deal = self.deal(&named, &keys)?;
        let nodes = named.nodes.iter();
        let shares = nodes.map(|of| deal.body().unwrap_share(of, &self.unwrap));
        Ok(Net {
            threshold,
            shares: shares.collect::<Result<_, _>>()?,
            named,
            keys,
            deal,
        })
    }

    fn deal(&self, named: &KeyNodes, keys: &[Option<WrapKey>]) -> anyhow::Result<Verified<Deal>> {
        let set = (LogHash([7; 32]), named);
        let deal = Deal::seal(&mut rng(), DEALER, set, &self.secret, keys)?;
        Ok(sign(&self.signing, deal)?)
    }

    /// The records of some segments, as they travel.
    fn records(&self, nodes: &[NodeId]) -> anyhow::Result<Verified<SegmentRecords>> {
        let keys: Option<Vec<NodeKey>> = nodes.iter().map(|of| self.whole.node_key(*of)).collect();
        let keys = keys.context("the tree has all nodes")?;
        let pairs: Vec<_> = nodes.iter().copied().zip(&keys).collect();
        let records = SegmentRecords::seal(DEALER, SESSION, &self.secret, &pairs);
        Ok(sign(&self.signing, records.context("all are segments")?)?)
    }

    /// A request to as many nodes as are needed.
    fn request(&self, net: &Net, count: usize) -> anyhow::Result<Verified<NodeRequest>> {
        let body = NodeRequest {
            version: 1,
            stream: DEALER.stream,
            user: UserId([8; 32]),
            device: DeviceId([9; 16]),
            list: ListPin {
                seq: 0,
                half: [0; 16],
            },
            request: RequestId([1; 16]),
            key: self.unwrap.wrap_key().as_bytes().to_vec(),
            deal: DealId::from(net.deal.digest()),
            nodes: (1..=net.threshold).collect(),
            lane: DEALER.lane,
            session: SESSION,
            segments: minutes(count).into_iter().map(Segment::from).collect(),
            heads: Vec::new(),
            time: START,
            expires: START.after(30_000),
        };
        Ok(sign(&self.signing, body)?)
    }
}

/// Smallest segments, one behind the other.
fn minutes(count: usize) -> Vec<NodeId> {
    let height = SEGMENT_HEIGHTS[0];
    let first = START.0 >> height;
    let node = |index| NodeId {
        depth: POSITION_BITS as u8 - height,
        index,
    };
    (first..).take(count).map(node).collect()
}

/// All segments that a publisher seals with the first message of a session.
fn block() -> Vec<NodeId> {
    let from = START.0 >> BLOCK_HEIGHT << BLOCK_HEIGHT;
    let of = |height: u8| {
        let first = from >> height;
        let last = (from + (1 << BLOCK_HEIGHT) - 1) >> height;
        (first..=last).map(move |index| NodeId {
            depth: POSITION_BITS as u8 - height,
            index,
        })
    };
    SEGMENT_HEIGHTS.into_iter().flat_map(of).collect()
}

/// What one request costs on both sides.
struct Exchange<'a> {
    bench: &'a Bench,
    net: &'a Net,
    asked: Verified<NodeRequest>,
    answers: Vec<Vec<u8>>,
    sealed: Vec<[u8; SEALED_SEGMENT_LEN]>,
}

impl<'a> Exchange<'a> {
    fn new(bench: &'a Bench, net: &'a Net, segments: usize) -> anyhow::Result<Self> {
        let records = bench.records(&minutes(segments))?;
        let mut exchange = Self {
            bench,
            net,
            asked: bench.request(net, segments)?,
            answers: Vec::new(),
            sealed: records.body().records.iter().map(|of| of.sealed).collect(),
        };
        for at in 0..usize::from(net.threshold) {
            exchange.answers.push(exchange.answer(at)?);
        }
        Ok(exchange)
    }

    /// What a node does when it has decided: the shares, their proof, and the sealing.
    fn answer(&self, at: usize) -> anyhow::Result<Vec<u8>> {
        let (share, node) = (&self.net.shares[at], self.net.named.nodes[at]);
        let answer = NodeAnswer::seal(&mut rng(), &self.asked, share, node)?;
        Ok(sign(&self.bench.signing, answer)?.wire().to_vec())
    }

    /// What a reader does with the answers of as many as are needed.
    fn open(&self) -> anyhow::Result<Vec<Option<NodeKey>>> {
        let dealing = self.net.deal.body().dealing()?;
        let mut quorum = Quorum::new(dealing, self.asked.body().labels());
        for (wire, share) in self.answers.iter().zip(&self.net.shares) {
            let key = self.bench.signing.verifying_key();
            let answer = Unverified::<NodeAnswer>::decode(wire)?.verify(&key)?;
            let opened = answer.body().open(&self.asked, &self.bench.unwrap)?;
            quorum.take(share.index(), opened.expose())?;
        }
        Ok(quorum.open(&self.sealed)?.keys)
    }

    fn answer_many(&self, count: usize) -> anyhow::Result<Duration> {
        timed(|| {
            for _ in 0..count {
                black_box(self.answer(0)?);
            }
            Ok(())
        })
    }

    fn open_many(&self, count: usize) -> anyhow::Result<Duration> {
        timed(|| {
            for _ in 0..count {
                let keys = black_box(self.open()?);
                anyhow::ensure!(keys.iter().all(Option::is_some), "a record does not open");
            }
            Ok(())
        })
    }
}

/// All of it.
pub(crate) fn measure(page: &mut Page, floors: &mut Floors, scale: Scale) -> anyhow::Result<()> {
    let bench = Bench::new()?;
    page.heading("Key nodes");
    let record = once(&bench, page, scale)?;
    for set in SETS {
        per_segment(&bench, set, page, scale)?;
    }
    let eight = bench.records(&minutes(8))?.wire().len() as f64 / 8.0;
    let (most, usual) = openings();
    page.paragraph(&format!(
        "A segment's record adds {eight:.0} bytes where eight travel together. A year has {usual} segments, of which \
         each is opened once, whatever was published in it. Limited by ristretto255, by hashing to the group and multiplying: for \
         a segment at each node, and for each node at the reader, who checks what they say. What a request costs besides, \
         signatures and X-Wing, is in the rows of one segment."
    ));
    floors.at_most("bytes of a segment record, eight together", 128.0, eight);
    floors.at_most("CPU µs of a segment record", 100.0, record.micros);
    floors.at_most(
        "CPU time of a segment record, in X-Wing unwraps",
        1.0,
        record.unwraps,
    );
    floors.at_most("segments to open for a year", 60.0, most);
    Ok(())
}

/// What a segment record costs, the median.
struct Record {
    micros: f64,
    unwraps: f64,
}

/// What a publisher does: once for each set of nodes, and for each segment.
fn once(bench: &Bench, page: &mut Page, scale: Scale) -> anyhow::Result<Record> {
    let to = bench.unwrap.wrap_key();
    let wrapped = to.wrap(&mut rng(), b"", &[0; 64])?;
    let nets = SETS.map(|set| bench.net(set));
    let contest = Contest::default().enter("one X-Wing unwrap", |count| {
        timed(|| {
            for _ in 0..count {
                black_box(bench.unwrap.unwrap(b"", &wrapped)?);
            }
            Ok(())
        })
    });
    let mut contest = contest.enter("seal the key of a segment", |count| {
        let block = block();
        timed(|| {
            for _ in 0..count {
                black_box(bench.records(&block)?);
            }
            Ok(())
        })
    });
    for net in &nets {
        let net = net.as_ref().map_err(|why| anyhow::anyhow!("{why}"))?;
        let of = net.named.nodes.len();
        let name = format!("deal to {of} nodes, of which {} are needed", net.threshold);
        contest = contest.enter(name, move |count| {
            timed(|| {
                for _ in 0..count {
                    black_box(bench.deal(&net.named, &net.keys)?);
                }
                Ok(())
            })
        });
    }
    let mut outcomes = contest.run(scale)?;
    outcomes[1] = outcomes[1].per(block().len());
    page.head(&["a publisher", "CPU µs", "in X-Wing unwraps"]);
    table(page, &outcomes);
    let (unwrap, record) = (&outcomes[0], &outcomes[1]);
    Ok(Record {
        micros: record.spread().median / 1_000.0,
        unwraps: unwrap.against(record).median,
    })
}

/// What nodes and a reader do for a segment: where one is asked for, and where many are.
fn per_segment(bench: &Bench, set: (u8, u8), page: &mut Page, scale: Scale) -> anyhow::Result<()> {
    let net = bench.net(set)?;
    let (one, many) = (
        Exchange::new(bench, &net, 1)?,
        Exchange::new(bench, &net, MANY)?,
    );
    let wrapped = bench.unwrap.wrap_key().wrap(&mut rng(), b"", &[0; 64])?;
    let contest = Contest::default()
        .enter("one X-Wing unwrap", |count| {
            timed(|| {
                for _ in 0..count {
                    black_box(bench.unwrap.unwrap(b"", &wrapped)?);
                }
                Ok(())
            })
        })
        .enter("a node answers for one segment", |count| {
            one.answer_many(count)
        })
        .enter(format!("a node answers for each of {MANY}"), |count| {
            many.answer_many(count)
        })
        .enter("a reader opens one segment", |count| one.open_many(count))
        .enter(format!("a reader opens each of {MANY}"), |count| {
            many.open_many(count)
        });
    let mut outcomes = contest.run(scale)?;
    for at in [2, 4] {
        outcomes[at] = outcomes[at].per(MANY);
    }
    let (needed, of) = set;
    page.head(&[
        &format!("{needed} of {of} nodes"),
        "CPU µs",
        "in X-Wing unwraps",
    ]);
    table(page, &outcomes);
    Ok(())
}

fn table(page: &mut Page, outcomes: &[Outcome]) {
    let Some(unwrap) = outcomes.first() else {
        return;
    };
    for of in outcomes {
        // What the baseline takes is the unit here.
        let units = unwrap.against(of);
        page.row(&[&of.name, &of.spread().over(1_000.0), &units]);
    }
}

/// How many segments years have that begin anywhere: the most, and all of them.
fn openings() -> (f64, Spread) {
    let year = || {
        let from = START.0 + rng().next_u64() % YEAR_MS;
        segments(from, from + YEAR_MS).len() as f64
    };
    let counts: Vec<_> = (0..YEARS).map(|_| year()).collect();
    let most = counts.iter().copied().fold(0.0, f64::max);
    (most, Spread::of(counts))
}
