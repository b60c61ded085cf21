//! What key nodes answer, put together, and what they and publishers keep.

use std::sync::OnceLock;

use sealcast_crypto::{Dealing, LaneSecret, NodeId, NodeKey, NodeShare, Quorum, SegmentLabel};
use sealcast_engine::{
    Combiner, CombinerInput, CombinerLimits, CombinerOutput, DealtLane, Identity, Releaser,
    ReleaserInput, ReleaserLimits, ReleaserOutput, StreamView,
};
use sealcast_protocol::{AuditChain, KeyNode, NodeRequest, Position, StreamId, Unverified, sign};

use crate::seeded::Seeded;
use crate::signed::own_key;

const NOON: Position = Position(1_790_000_000_000);

/// Of an answer's part, so many bytes are proved; the others are a pepper.
const PROVED_LEN: usize = 32;
const PART_LEN: usize = 64;

/// The first byte says for how many segments.
pub(crate) fn node_answer(bytes: &[u8]) {
    kept(bytes);
    let Some((count, bytes)) = bytes.split_first() else {
        return;
    };
    let labels = labels(usize::from(count % 3) + 1);
    let mut rng = Seeded::new(8);
    let Ok(secret) = LaneSecret::from_bytes(&[7; 64]) else {
        return;
    };
    let Ok((dealing, shares)) = secret.deal(&mut rng, 2, 3) else {
        return;
    };
    let [first, second, _] = shares.as_slice() else {
        return;
    };
    let mut quorum = Quorum::new(dealing.clone(), labels.clone());
    let taken = quorum.take(first.index(), bytes);
    assert!(taken.is_err(), "no node answered so");

    let mut answer = first.answer(&mut rng, &labels).expose().to_vec();
    let at = alter(&mut answer, bytes);
    let is_proved = at % PART_LEN < PROVED_LEN || at >= labels.len() * PART_LEN;
    let taken = quorum.take(first.index(), &answer);
    assert_eq!(taken.is_ok(), !is_proved, "what is proved was altered");
    let honest = second.answer(&mut rng, &labels);
    assert_eq!(quorum.take(second.index(), honest.expose()), Ok(()));
    let sealed: Vec<_> = labels
        .iter()
        .map(|label| {
            secret
                .segment_key(label)
                .seal(&NodeKey::init_with(|key| key.fill(5)))
        })
        .collect();
    match quorum.open(&sealed) {
        Ok(opened) => {
            assert!(!is_proved, "one is too few");
            assert!(opened.keys.iter().all(Option::is_some));
            assert_eq!(opened.liars, [first.index()]);
        }
        Err(_) => assert!(is_proved, "two are enough"),
    }
    share(bytes, &dealing, &shares);
}

fn labels(count: usize) -> Vec<SegmentLabel> {
    let segments = (0..count as u64).map(|index| NodeId { depth: 32, index });
    let label = |node| SegmentLabel::new(&[1; 32], &[2; 32], &[3; 16], node);
    segments.filter_map(label).collect()
}

/// A share that a dealer states is taken where it is the one that the dealing gives, and else refused.
fn share(bytes: &[u8], dealing: &Dealing, shares: &[NodeShare]) {
    let stated = bytes.first_chunk::<64>();
    for own in shares {
        assert_eq!(own.check(dealing), Ok(()));
        let stated = stated.and_then(|of| NodeShare::from_bytes(own.index(), of).ok());
        if let Some(stated) = stated {
            let is_own = stated.expose() == own.expose();
            assert_eq!(stated.check(dealing).is_ok(), is_own);
        }
    }
}

/// What a publisher keeps of its lane.
fn kept(bytes: &[u8]) {
    if let Some(lane) = DealtLane::from_bytes(bytes) {
        let again = DealtLane::from_bytes(lane.to_bytes().expose());
        let again = again.map(|of| of.to_bytes().expose().to_vec());
        assert_eq!(again.as_deref(), Some(lane.to_bytes().expose()));
    }
}

/// Alters one byte, and says which.
fn alter(answer: &mut [u8], bytes: &[u8]) -> usize {
    let said = |at: usize| bytes.get(at).copied().unwrap_or(1);
    let at = usize::from(u16::from_be_bytes([said(0), said(1)])) % answer.len().max(1);
    if let Some(byte) = answer.get_mut(at) {
        *byte ^= said(2).max(1);
    }
    at
}

/// Nothing is released to whom no access log names, whoever signs, and nothing is taken of whom nobody asked.
pub(crate) fn node_inbox(bytes: &[u8]) {
    static IDENTITY: OnceLock<Identity> = OnceLock::new();
    let me = IDENTITY.get_or_init(|| Identity::generate(&mut Seeded::new(12)));
    let asked = Unverified::<NodeRequest>::decode(bytes).ok();
    let (stream, now) = asked.as_ref().map_or((StreamId([1; 32]), NOON), |asked| {
        (asked.claims().stream, asked.claims().time)
    });
    let view = StreamView::new(stream, me.user(), me);
    let node = KeyNode {
        user: me.user(),
        device: me.device(),
    };
    let chain = AuditChain::new(stream, node);
    let mut releaser = Releaser::new(ReleaserLimits::default(), now, chain, []);
    let own = asked.map(|asked| {
        let body = NodeRequest {
            user: me.user(),
            device: me.device(),
            ..asked.claims().clone()
        };
        let signed = [sign(me.signing(), body.clone()), sign(&own_key(), body)];
        signed.map(|of| of.map(|of| of.wire().to_vec()).unwrap_or_default())
    });
    let items = own.iter().flatten().map(Vec::as_slice).chain([bytes]);
    for item in items {
        for input in [
            ReleaserInput::Item(item),
            ReleaserInput::LogRead { is_whole: true },
            ReleaserInput::Learned,
            ReleaserInput::Tick,
        ] {
            releaser.handle(now, &view, input);
            let mut outputs = std::iter::from_fn(|| releaser.poll_output());
            let is_said = |of: ReleaserOutput| {
                matches!(of, ReleaserOutput::Release(_) | ReleaserOutput::Refuse(..))
            };
            assert!(!outputs.any(is_said), "nobody may ask");
        }
    }
    let mut combiner = Combiner::new(CombinerLimits::default());
    combiner.handle(now, &view, CombinerInput::InboxItem(bytes));
    let mut outputs = std::iter::from_fn(|| combiner.poll_output());
    assert!(
        !outputs.any(|of| !matches!(of, CombinerOutput::Done(_))),
        "nobody was asked"
    );
}

/// Something to start from: true answers by shares of another dealing, and what a publisher keeps.
pub(crate) fn examples() -> Vec<Vec<u8>> {
    let mut rng = Seeded::new(9);
    let dealt = LaneSecret::from_bytes(&[6; 64]).ok();
    let dealt = dealt.and_then(|secret| secret.deal(&mut rng, 1, 1).ok());
    let shares = dealt.map(|(_, shares)| shares).unwrap_or_default();
    let answers = shares.iter().flat_map(|share| {
        let mut rng = Seeded::new(10);
        let answer = (1..=3).map(|count| {
            let answer = share.answer(&mut rng, &labels(count));
            [&[count as u8 - 1], answer.expose()].concat()
        });
        answer.collect::<Vec<_>>()
    });
    let stated = shares
        .iter()
        .map(|share| [&[0], &share.expose()[..]].concat());
    let lane = DealtLane::draw(&mut Seeded::new(11), 3).ok();
    let lane = lane.map(|lane| lane.to_bytes().expose().to_vec());
    answers.chain(stated).chain(lane).collect()
}
