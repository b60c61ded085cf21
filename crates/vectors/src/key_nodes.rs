//! Segments, dealings, shares, answers and what comes of them.

use sealcast_crypto::{
    Dealing, LaneSecret, NodeId, NodeIndex, NodeKey, NodeShare, PepperCommitment, Quorum,
    SEALED_SEGMENT_LEN, SegmentLabel, segments,
};

use crate::case::{Given, Lines, Outcome, array, must, named, unhex};
use crate::keys::{Drawn, OPENS};

const FAILURES: &[(&str, &str)] = &[
    ("Identity", "identity"),
    ("Length", "answer length"),
    ("NotCanonical", "not canonical"),
    ("OtherDealing", "another dealing"),
    ("OtherPepper", "another pepper"),
    ("Proof", "not proved"),
    ("Repeated", "answered already"),
    ("Threshold", "threshold"),
    ("TooFewAnswers", "too few"),
    ("Zero", "identity"),
];

fn failure(error: impl std::fmt::Debug) -> String {
    named(FAILURES)(&error)
}

pub(crate) fn intervals(given: &mut Given) -> Outcome {
    let (from, until) = (given.number("from")?, given.number("until")?);
    let (mut at, mut lines) = (from, Lines::default());
    let mut left = Vec::new();
    for node in segments(from, until) {
        left.push((at, node.from()));
        lines = lines.text("node", format!("{} {}", node.depth, node.index));
        at = node.until();
    }
    left.push((at, until));
    let left = left.into_iter().filter(|(from, until)| from < until);
    lines
        .each(left, |lines, (from, until)| {
            lines.text("left", format!("{from} {until}"))
        })
        .done()
}

pub(crate) fn segment(given: &mut Given) -> Outcome {
    let secret = LaneSecret::from_bytes(&given.array("lane-secret")?);
    let labels = labels(given)?;
    let (seals, opens) = (given.maybe_array("node-key")?, given.maybe_array("sealed")?);
    let [label] = labels?[..] else {
        return Err("one segment".to_owned());
    };
    let key = secret.map_err(failure)?.segment_key(&label);
    let authentic = |sealed: &[u8; SEALED_SEGMENT_LEN]| {
        let opened = key.open(sealed).map_err(|_| "not authentic".to_owned())?;
        Ok::<[u8; 32], String>(*opened.expose())
    };
    if let Some(sealed) = opens {
        return Lines::default().hex("node-key", authentic(&sealed)?).done();
    }
    let node: [u8; 32] = seals.ok_or("nothing to seal")?;
    let sealed = key.seal(&NodeKey::init_with(|bytes| *bytes = node));
    must(authentic(&sealed)? == node, OPENS)?;
    Lines::default().hex("sealed", sealed).done()
}

pub(crate) fn dealings(given: &mut Given) -> Outcome {
    let secret = LaneSecret::from_bytes(&given.array("lane-secret")?);
    let mut drawn = Drawn(given.bytes("drawn")?);
    let number = |number: u64| u8::try_from(number).map_err(|error| error.to_string());
    let (threshold, nodes) = (given.number("threshold")?, given.number("nodes")?);
    let dealt = secret
        .map_err(failure)?
        .deal(&mut drawn, number(threshold)?, number(nodes)?);
    let (dealing, shares) = dealt.map_err(failure)?;
    must(drawn.0.is_empty(), "all that is drawn is used")?;
    for share in &shares {
        share.check(&dealing).map_err(failure)?;
    }
    Lines::default()
        .each(dealing.commitments(), |lines, of| {
            lines.hex("commitment", of)
        })
        .hex("pepper-commitment", dealing.pepper().0)
        .each(shares, |lines, share| lines.hex("share", share.expose()))
        .done()
}

pub(crate) fn shares(given: &mut Given) -> Outcome {
    let pepper = given.array("pepper-commitment")?;
    let dealing = dealing(given, pepper)?;
    let share = share(given)?;
    share?.check(&dealing?).map_err(failure)?;
    Lines::default().done()
}

pub(crate) fn answers(given: &mut Given) -> Outcome {
    let share = share(given)?;
    let mut drawn = Drawn(given.bytes("drawn")?);
    let labels = labels(given)?;
    let answer = share?.answer(&mut drawn, &labels?);
    Lines::default().hex("answer", answer.expose()).done()
}

pub(crate) fn quorums(given: &mut Given) -> Outcome {
    // Answers are not held against the pepper's commitment: each has the image for its segments only.
    let (dealing, labels) = (dealing(given, [0; 32])?, labels(given)?);
    let mut answers = Vec::new();
    while let Some(answer) = given.maybe_text("answer") {
        let (node, answer) = answer.split_once(' ').ok_or("a node and its answer")?;
        answers.push((index(node)?, unhex(answer)?));
    }
    let records = given.each("record")?;
    let mut quorum = Quorum::new(dealing?, labels?);
    for (node, answer) in answers {
        quorum.take(node?, &answer).map_err(failure)?;
    }
    let records: Result<Vec<_>, String> = records.iter().map(|of| array(of)).collect();
    let opened = quorum.open(&records?).map_err(failure)?;
    let keys: Option<Vec<NodeKey>> = opened.keys.into_iter().collect();
    Lines::default()
        .each(keys.ok_or("not authentic")?, |lines, key| {
            lines.hex("node-key", key.expose())
        })
        .each(opened.liars, |lines, node| lines.text("liar", node.get()))
        .done()
}

type Read<T> = Result<Result<T, String>, String>;

/// `commitment`s.
fn dealing(given: &mut Given, pepper: [u8; 32]) -> Read<Dealing> {
    let commitments = given.each("commitment")?;
    let commitments: Result<Vec<_>, String> = commitments.iter().map(|of| array(of)).collect();
    let pepper = PepperCommitment(pepper);
    Ok(Dealing::from_commitments(&commitments?, pepper).map_err(failure))
}

/// `index` and `share`.
fn share(given: &mut Given) -> Read<NodeShare> {
    let (index, share) = (index(&given.text("index")?)?, given.array("share")?);
    Ok(index.and_then(|index| NodeShare::from_bytes(index, &share).map_err(failure)))
}

fn index(text: &str) -> Read<NodeIndex> {
    let number: u8 = text.parse().map_err(|_| format!("no number: {text}"))?;
    Ok(NodeIndex::new(number).ok_or("no node".to_owned()))
}

/// `stream`, `lane`, `session`, and every `node` of the tree.
fn labels(given: &mut Given) -> Read<Vec<SegmentLabel>> {
    let (stream, lane) = (given.array("stream")?, given.array("lane")?);
    let session = given.array("session")?;
    let mut nodes = Vec::new();
    while let Some(node) = given.maybe_text("node") {
        let (depth, index) = node.split_once(' ').ok_or("a depth and an index")?;
        let number = |text: &str| text.parse().map_err(|_| format!("no number: {text}"));
        let depth = u8::try_from(number(depth)?).map_err(|_| "no depth")?;
        let index: u64 = number(index)?;
        nodes.push(NodeId { depth, index });
    }
    let label = |node| SegmentLabel::new(&stream, &lane, &session, node);
    let labels: Option<Vec<_>> = nodes.into_iter().map(label).collect();
    Ok(labels.ok_or("no segment".to_owned()))
}
