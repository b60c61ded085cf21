use proptest::prelude::*;
use sealcast_crypto::{
    Cover, LaneSecret, NodeId, NodeIndex, Quorum, SessionRoot, ShareError, UnwrapKey,
    WRAP_OVERHEAD, segments,
};
use sealcast_protocol::{
    Condition, Deal, DealId, Dealer, DecodeError, DeviceId, KeyNode, KeyNodes, ListPin, LogHash,
    NodeAnswer, NodeRefusal, NodeRefusalReason, NodeReplyTo, NodeRequest, OpenAnswerError,
    Position, RequestId, SEGMENT_RECORDS_MAX, SEGMENTS_MAX, SealDealError, Segment, SegmentRecord,
    SegmentRecords, SessionId, Signable, Unverified, UnwrapShareError, UserId, Verified,
    VerifyError, sign,
};

use crate::support::{NOW, Person, STREAM, Seeded, flips};

const SET: LogHash = LogHash([0x5e; 32]);
const SESSION: SessionId = SessionId([3; 16]);
const LANE: UserId = UserId([7; 32]);
const ONE_USE: [u8; 32] = [0x33; 32];

/// All that travels, from dealing to reading.
#[test]
fn a_segment_opens_with_what_two_of_three_nodes_answer() {
    let world = World::new();
    let root = SessionRoot::init_with(|bytes| bytes.fill(9));
    let nodes = segments(NOW.0, NOW.0 + 86_400_000);
    let keys: Vec<_> = nodes
        .iter()
        .map(|node| Cover::whole(&root).node_key(*node).unwrap())
        .collect();
    let keys: Vec<_> = nodes.iter().copied().zip(&keys).collect();
    let records = SegmentRecords::seal(DEALER, SESSION, &world.secret, &keys).unwrap();
    let records = over_the_bus(records);
    assert_eq!(records.secret, world.secret.public());

    let mut request = world.request();
    request.segments = records.records.iter().map(|of| of.segment).collect();
    let asked = signed(request);
    let deal = over_the_bus(world.deal.clone());
    let labels: Option<Vec<_>> = records.records.iter().map(|of| records.label(of)).collect();
    assert_eq!(labels.as_ref(), Some(&asked.body().labels()));
    let mut quorum = Quorum::new(deal.dealing().unwrap(), labels.unwrap());
    for at in [2, 0] {
        let answer = over_the_bus(world.answer(&asked, at));
        let answer = answer
            .open(&asked, &UnwrapKey::from_seed(&ONE_USE))
            .unwrap();
        quorum.take(index(at), answer.expose()).unwrap();
    }
    let sealed: Vec<_> = records.records.iter().map(|of| of.sealed).collect();
    let opened = quorum.open(&sealed).unwrap();
    for (record, key) in records.records.iter().zip(opened.keys) {
        let own = Cover::whole(&root).node_key(record.segment.node()).unwrap();
        assert_eq!(key.unwrap().expose(), own.expose());
    }
    assert_eq!(opened.liars, []);
}

#[test]
fn a_share_unwraps_for_its_own_node_in_its_own_deal_alone() {
    let world = World::new();
    let (one, two) = (world.nodes.nodes[0], world.nodes.nodes[1]);
    let refused = |deal: &Deal, node: &KeyNode, at: u8| {
        let share = deal.unwrap_share(node, &unwrap_key(at));
        share.map(|_| ()).unwrap_err()
    };
    for at in 0..3 {
        let node = &world.nodes.nodes[usize::from(at)];
        let share = world.deal.unwrap_share(node, &unwrap_key(at)).unwrap();
        assert_eq!(share.index(), index(usize::from(at)));
    }
    assert_eq!(
        refused(&world.deal, &one, 1),
        UnwrapShareError::NotAuthentic
    );
    let stranger = KeyNode {
        user: UserId([9; 32]),
        ..one
    };
    assert_eq!(
        refused(&world.deal, &stranger, 0),
        UnwrapShareError::NoShare
    );
    let other_device = KeyNode {
        device: two.device,
        ..one
    };
    assert_eq!(
        refused(&world.deal, &other_device, 0),
        UnwrapShareError::NoShare
    );

    let changes: [fn(&mut Deal); 8] = [
        |deal| deal.dealer.stream.0[0] ^= 1,
        |deal| deal.dealer.lane.0[0] ^= 1,
        |deal| deal.dealer.device.0[0] ^= 1,
        |deal| deal.set.0[0] ^= 1,
        |deal| deal.pepper[0] ^= 1,
        |deal| deal.commitments.truncate(32),
        |deal| deal.shares[0].wrapped[0] ^= 1,
        |deal| drop(deal.shares.remove(0)),
    ];
    for change in changes {
        let mut deal = world.deal.clone();
        change(&mut deal);
        let expected = match deal.shares.len() {
            2 => UnwrapShareError::NoShare,
            _ => UnwrapShareError::NotAuthentic,
        };
        assert_eq!(refused(&deal, &one, 0), expected);
    }
    // Another's share in a node's place, as a dealer may put it.
    let mut deal = world.deal.clone();
    deal.shares.remove(0);
    assert_eq!(refused(&deal, &two, 1), UnwrapShareError::NotAuthentic);
}

/// A dealer whose commitments are of another secret than the shares that it wraps.
#[test]
fn a_dealer_that_lies_is_refused_by_the_node() {
    let world = World::new();
    let mut rng = Seeded(50);
    let (dealing, _) = world.secret.deal(&mut rng, 2, 3).unwrap();
    let mut lying = world.deal.clone();
    lying.commitments = dealing.commitments().concat();
    let info = sealcast_crypto::delimited(
        "sealcast.v1 key node share",
        &[
            &sealcast_protocol::encode(&lying.dealer),
            &sealcast_protocol::encode(&lying.set),
            &lying.commitments,
            &lying.pepper,
            &[1],
            &sealcast_protocol::encode(&lying.shares[0].node),
            &sealcast_protocol::wrap_key_hash(&unwrap_key(0).wrap_key()),
        ],
    );
    let node = lying.shares[0].node;
    let share = world.deal.unwrap_share(&node, &unwrap_key(0)).unwrap();
    let wrapped = unwrap_key(0)
        .wrap_key()
        .wrap(&mut rng, &info, share.expose());
    lying.shares[0].wrapped = wrapped.unwrap();
    let refused = lying.unwrap_share(&node, &unwrap_key(0)).map(|_| ());
    assert_eq!(
        refused,
        Err(UnwrapShareError::False(ShareError::OtherDealing))
    );
}

#[test]
fn a_deal_is_for_the_nodes_and_the_threshold_that_the_log_names() {
    let World { deal, nodes, .. } = World::new();
    assert!(deal.is_for(&SET, &nodes));
    assert!(!deal.is_for(&LogHash([1; 32]), &nodes));
    let with = |change: fn(&mut KeyNodes)| {
        let mut nodes = nodes.clone();
        change(&mut nodes);
        deal.is_for(&SET, &nodes)
    };
    assert!(!with(|nodes| nodes.threshold = 1));
    assert!(!with(|nodes| nodes.threshold = 3));
    assert!(!with(|nodes| nodes.nodes.truncate(2)));
    assert!(!with(|nodes| nodes.nodes[1].device = DeviceId([1; 16])));
}

#[test]
fn what_is_no_set_of_nodes_is_not_dealt_to() {
    let world = World::new();
    let dealt = |nodes: &KeyNodes, keys: u8| {
        let keys: Vec<_> = (0..keys)
            .map(|at| Some(unwrap_key(at).wrap_key()))
            .collect();
        let deal = Deal::seal(&mut Seeded(1), DEALER, (SET, nodes), &world.secret, &keys);
        deal.map(|_| ())
    };
    assert_eq!(dealt(&world.nodes, 3), Ok(()));
    assert_eq!(dealt(&world.nodes, 2), Err(SealDealError::Keys));
    let mut too_few = world.nodes.clone();
    too_few.threshold = 4;
    assert_eq!(dealt(&too_few, 3), Err(SealDealError::Keys));
    let mut unsorted = world.nodes.clone();
    unsorted.nodes.reverse();
    assert_eq!(dealt(&unsorted, 3), Err(SealDealError::Keys));
}

/// Replayed, re-addressed, or with another one-use key: none of it is the request that was answered.
#[test]
fn an_answer_is_for_one_request_and_one_key() {
    let world = World::new();
    let asked = signed(world.request());
    let answer = world.answer(&asked, 0);
    let key = UnwrapKey::from_seed(&ONE_USE);
    assert!(answer.open(&asked, &key).is_ok());
    let other_key = answer.open(&asked, &UnwrapKey::from_seed(&[0x34; 32]));
    assert_eq!(other_key.err(), Some(OpenAnswerError::NotAuthentic));
    let changes: [fn(&mut NodeRequest); 10] = [
        |of| of.stream.0[0] ^= 1,
        |of| of.user.0[0] ^= 1,
        |of| of.device.0[0] ^= 1,
        |of| of.request.0[0] ^= 1,
        |of| {
            of.key = UnwrapKey::from_seed(&[1; 32])
                .wrap_key()
                .as_bytes()
                .to_vec()
        },
        |of| of.deal.0[0] ^= 1,
        |of| of.nodes = vec![2],
        |of| of.lane.0[0] ^= 1,
        |of| of.segments[0].index += 1,
        |of| of.expires.0 += 1,
    ];
    for change in changes {
        let mut request = world.request();
        change(&mut request);
        let opened = answer.open(&signed(request), &key).err();
        assert_eq!(opened, Some(OpenAnswerError::OtherRequest));
    }
    let fields: [fn(&mut NodeReplyTo); 3] = [
        |of| of.index = 3,
        |of| of.node.user.0[0] ^= 1,
        |of| of.node.device.0[0] ^= 1,
    ];
    for change in fields {
        let mut other = answer.clone();
        change(&mut other.to);
        assert_eq!(
            other.open(&asked, &key).err(),
            Some(OpenAnswerError::NotAuthentic)
        );
    }
    let mut short = answer.clone();
    short.wrapped.pop();
    let opened = short.open(&asked, &key).err();
    assert_eq!(opened, Some(OpenAnswerError::OtherRequest));
}

#[test]
fn only_the_nodes_that_a_request_names_are_asked() {
    let world = World::new();
    let mut request = world.request();
    request.nodes = vec![1, 3];
    assert!(request.asks(index(0)) && !request.asks(index(1)) && request.asks(index(2)));
    let asked = signed(request);
    let answer = world.answer(&asked, 1);
    let opened = answer.open(&asked, &UnwrapKey::from_seed(&ONE_USE)).err();
    assert_eq!(opened, Some(OpenAnswerError::OtherRequest));
}

/// faults 4 and 5: every field is signed, under a label of its kind.
#[test]
fn an_object_with_any_byte_changed_is_refused() {
    let world = World::new();
    let asked = signed(world.request());
    altered(&signed(world.deal.clone()));
    altered(&signed(world.records()));
    altered(&asked);
    altered(&signed(world.answer(&asked, 0)));
    altered(&signed(world.refusal(&asked)));
}

fn altered<T: Signable>(signed: &Verified<T>) {
    let key = Person::new(1).phone.signing.verifying_key();
    for bytes in flips(signed.wire()) {
        if let Ok(read) = Unverified::<T>::decode(&bytes) {
            assert_eq!(read.verify(&key).err(), Some(VerifyError::BadSignature));
        }
    }
}

#[test]
fn fields_out_of_range_are_refused() {
    let world = World::new();
    out_of_range(
        &world.deal,
        &[
            |of| of.commitments.clear(),
            |of| of.commitments[0] ^= 1,
            |of| of.commitments[..32].fill(0),
            |of| of.commitments.truncate(63),
            |of| of.shares.truncate(1),
            |of| of.shares.reverse(),
            |of| of.shares[1].node.user = of.shares[0].node.user,
            |of| of.shares[0].wrapped.truncate(1_199),
        ],
    );
    out_of_range(
        &world.records(),
        &[
            |of| of.records.clear(),
            |of| of.records.reverse(),
            |of| of.records[1].segment = of.records[0].segment,
            |of| of.records[0].segment.depth = 15,
            |of| of.records[1].segment.index = 1 << 32,
            |of| of.secret = [0; 32],
            |of| of.secret = [0xff; 32],
            |of| of.records = vec![of.records[0]; SEGMENT_RECORDS_MAX + 1],
        ],
    );
    out_of_range(
        &world.request(),
        &[
            |of| of.request = RequestId::NONE,
            |of| of.key.truncate(1_215),
            |of| of.nodes.clear(),
            |of| of.nodes = vec![0],
            |of| of.nodes = vec![33],
            |of| of.nodes = vec![2, 1],
            |of| of.nodes = vec![1, 1],
            |of| of.segments.clear(),
            |of| of.segments.reverse(),
            |of| of.segments[0].depth = 15,
            |of| of.expires = of.time,
            |of| of.expires = of.time.after(300_001),
            |of| of.expires = Position::END,
            |of| of.heads = vec![SET, SET],
        ],
    );
    let asked = signed(world.request());
    out_of_range(
        &world.answer(&asked, 0),
        &[
            |of| of.to.index = 0,
            |of| of.to.index = 33,
            |of| of.to.request = RequestId::NONE,
            |of| of.wrapped.push(0),
            |of| of.wrapped.truncate(WRAP_OVERHEAD + 64),
        ],
    );
    out_of_range(&world.refusal(&asked), &[|of| of.to.index = 0]);
}

fn out_of_range<T: Signable + Clone>(good: &T, changes: &[fn(&mut T)]) {
    assert_eq!(good.check(), Ok(()));
    for (at, change) in changes.iter().enumerate() {
        let mut body = good.clone();
        change(&mut body);
        assert_eq!(body.check(), Err(DecodeError::OutOfRange), "{at}");
    }
}

#[test]
fn the_fullest_objects_fit_their_own_bounds() {
    let most: Vec<KeyNode> = (1..=32).map(node).collect();
    let nodes = KeyNodes {
        threshold: 32,
        nodes: most,
        condition: Condition::default(),
        generation: 0,
    };
    let world = World::dealt(nodes);
    over_the_bus(world.deal.clone());
    let last = Segment {
        depth: 32,
        index: (1 << 32) - 1,
    };
    let all = |count: u64| {
        (0..count).map(move |at| Segment {
            index: last.index - count + at,
            ..last
        })
    };
    let mut records = world.records();
    let sealed = records.records[0].sealed;
    let full = all(SEGMENT_RECORDS_MAX as u64);
    records.records = full
        .map(|segment| SegmentRecord { segment, sealed })
        .collect();
    let records = signed(records);
    assert!(records.wire().len() / SEGMENT_RECORDS_MAX < 90);
    let mut request = world.request();
    request.segments = all(SEGMENTS_MAX as u64).collect();
    request.nodes = (1..=32).collect();
    request.heads = (0..1_024_u64).map(numbered).collect();
    request.list.seq = u32::MAX;
    let asked = signed(request);
    over_the_bus(world.answer(&asked, 31));
    over_the_bus(NodeRefusal {
        wait_ms: u32::MAX,
        ..world.refusal(&asked)
    });
}

/// What the design promises: 128 bytes a record, when a few are published together.
#[test]
fn a_record_takes_128_bytes_at_most_when_eight_travel_together() {
    let mut records = World::new().records();
    let record = records.records[0];
    let at = |index| SegmentRecord {
        segment: Segment { depth: 32, index },
        sealed: record.sealed,
    };
    records.records = (0xff00_0000..0xff00_0008).map(at).collect();
    assert!(signed(records).wire().len() <= 8 * 128);
}

#[test]
fn debug_shows_no_key() {
    let world = World::new();
    let asked = signed(world.request());
    let shown = format!(
        "{:?} {:?} {:?} {:?}",
        world.deal,
        world.records(),
        asked.body(),
        world.answer(&asked, 0)
    );
    for hidden in ["wrapped", "sealed", "key:", "commitments"] {
        assert!(!shown.contains(hidden), "{shown}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
        prop_assert!(Unverified::<Deal>::decode(&bytes).is_err());
        prop_assert!(Unverified::<SegmentRecords>::decode(&bytes).is_err());
        prop_assert!(Unverified::<NodeRequest>::decode(&bytes).is_err());
        prop_assert!(Unverified::<NodeAnswer>::decode(&bytes).is_err());
        prop_assert!(Unverified::<NodeRefusal>::decode(&bytes).is_err());
    }
}

/// A lane secret, dealt to three nodes of which two are needed.
struct World {
    secret: LaneSecret,
    nodes: KeyNodes,
    deal: Deal,
}

const DEALER: Dealer = Dealer {
    stream: STREAM,
    lane: LANE,
    device: DeviceId([4; 16]),
};

impl World {
    fn new() -> Self {
        Self::dealt(KeyNodes {
            threshold: 2,
            nodes: (1..=3).map(node).collect(),
            condition: Condition::default(),
            generation: 0,
        })
    }

    fn dealt(nodes: KeyNodes) -> Self {
        let secret = LaneSecret::generate(&mut Seeded(1)).unwrap();
        let count = nodes.nodes.len() as u8;
        let keys: Vec<_> = (0..count)
            .map(|at| Some(unwrap_key(at).wrap_key()))
            .collect();
        let deal = Deal::seal(&mut Seeded(2), DEALER, (SET, &nodes), &secret, &keys).unwrap();
        Self {
            secret,
            nodes,
            deal,
        }
    }

    fn records(&self) -> SegmentRecords {
        let root = SessionRoot::init_with(|bytes| bytes.fill(9));
        let nodes = [(32, 7), (32, 9)].map(|(depth, index)| NodeId { depth, index });
        let keys = nodes.map(|node| Cover::whole(&root).node_key(node).unwrap());
        let keys: Vec<_> = nodes.into_iter().zip(&keys).collect();
        SegmentRecords::seal(DEALER, SESSION, &self.secret, &keys).unwrap()
    }

    fn request(&self) -> NodeRequest {
        let anna = Person::new(1);
        NodeRequest {
            version: 1,
            stream: STREAM,
            user: anna.user,
            device: anna.phone.id,
            list: ListPin {
                seq: 0,
                half: [6; 16],
            },
            request: RequestId([9; 16]),
            key: UnwrapKey::from_seed(&ONE_USE)
                .wrap_key()
                .as_bytes()
                .to_vec(),
            deal: DealId::from(signed(self.deal.clone()).digest()),
            nodes: (1..=self.nodes.nodes.len() as u8).collect(),
            lane: LANE,
            session: SESSION,
            segments: [7, 9].map(|index| Segment { depth: 32, index }).to_vec(),
            heads: vec![SET],
            time: NOW,
            expires: Position(NOW.0 + 30_000),
        }
    }

    fn answer(&self, asked: &Verified<NodeRequest>, at: usize) -> NodeAnswer {
        let node = self.nodes.nodes[at];
        let share = self
            .deal
            .unwrap_share(&node, &unwrap_key(at as u8))
            .unwrap();
        NodeAnswer::seal(&mut Seeded(3), asked, &share, node).unwrap()
    }

    fn refusal(&self, asked: &Verified<NodeRequest>) -> NodeRefusal {
        NodeRefusal {
            version: 1,
            to: NodeReplyTo::new(asked, index(0), self.nodes.nodes[0]),
            reason: NodeRefusalReason::Throttled,
            wait_ms: 5_000,
        }
    }
}

fn node(seed: u8) -> KeyNode {
    KeyNode {
        user: UserId([seed; 32]),
        device: DeviceId([seed; 16]),
    }
}

fn unwrap_key(at: u8) -> UnwrapKey {
    UnwrapKey::from_seed(&[0x60 + at; 32])
}

fn index(at: usize) -> NodeIndex {
    NodeIndex::new(at as u8 + 1).unwrap()
}

fn signed<T: Signable>(body: T) -> Verified<T> {
    sign(&Person::new(1).phone.signing, body).unwrap()
}

fn over_the_bus<T: Signable + Clone>(body: T) -> T {
    let key = Person::new(1).phone.signing.verifying_key();
    let read = Unverified::<T>::decode(signed(body).wire()).unwrap();
    read.verify(&key).unwrap().body().clone()
}

fn numbered(number: u64) -> LogHash {
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&number.to_be_bytes());
    LogHash(hash)
}
