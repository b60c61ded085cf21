//! What travels to and from key nodes: deals, records, requests, answers, refusals.

use sealcast_crypto::{UnwrapKey, VerifyingKey};
use sealcast_protocol::{
    AuditEntry, AuditEvent, Deal, Dealer, DeviceId, KeyNode, NodeAnswer, NodeRefusal, NodeReplyTo,
    NodeRequest, SegmentRecords, Unverified, UserId, wrap_key_hash,
};

use crate::case::{Given, Lines, Outcome, hex, named};
use crate::control::Signed;
use crate::keys::KEY;

const FAILURES: &[(&str, &str)] = &[
    ("NoShare", "no share"),
    ("NotAuthentic", "not authentic"),
    ("OtherRequest", "another request"),
];

fn failure(error: impl std::fmt::Debug) -> String {
    named(FAILURES)(&error)
}

pub(crate) fn deals(given: &mut Given) -> Outcome {
    let signed = Signed::take(given)?;
    let node = (given.maybe_array("node")?)
        .zip(given.maybe_array("node-device")?)
        .map(|(user, device)| KeyNode {
            user: UserId(user),
            device: DeviceId(device),
        });
    let seed = given.maybe_array("unwrap-seed")?;
    let verified = signed.verify::<Deal>()?;
    let (deal, (node, seed)) = (verified.body(), node.zip(seed).ok_or("no node")?);
    let share = deal.unwrap_share(&node, &UnwrapKey::from_seed(&seed));
    let share = share.map_err(failure)?;
    let lines = Lines::default().hex("digest", verified.digest().as_bytes());
    dealer(lines, &deal.dealer)
        .text("set", deal.set)
        .each(deal.commitments.chunks(32), |lines, of| {
            lines.hex("commitment", of)
        })
        .hex("pepper-commitment", deal.pepper)
        .each(&deal.shares, |lines, share| {
            let (user, device) = (hex(&share.node.user.0), share.node.device);
            lines.text("to", format!("{user} {device}"))
        })
        .text("index", share.index().get())
        .hex("share", share.expose())
        .done()
}

pub(crate) fn records(given: &mut Given) -> Outcome {
    let verified = Signed::take(given)?.verify::<SegmentRecords>()?;
    let of = verified.body();
    let lines = Lines::default().hex("digest", verified.digest().as_bytes());
    dealer(lines, &of.dealer)
        .text("session", of.session)
        .hex("secret", of.secret)
        .each(&of.records, |lines, record| {
            let (depth, index) = (record.segment.depth, record.segment.index);
            lines.text("record", format!("{depth} {index} {}", hex(&record.sealed)))
        })
        .done()
}

pub(crate) fn requests(given: &mut Given) -> Outcome {
    let verified = Signed::take(given)?.verify::<NodeRequest>()?;
    let asked = verified.body();
    let key = asked.wrap_key().map_err(|error| named(KEY)(&error))?;
    let list = format!("{} {}", asked.list.seq, hex(&asked.list.half));
    Lines::default()
        .hex("digest", verified.digest().as_bytes())
        .text("stream", asked.stream)
        .hex("user", asked.user.0)
        .text("device", asked.device)
        .text("list", list)
        .text("request", asked.request)
        .hex("key-hash", wrap_key_hash(&key))
        .text("deal", asked.deal)
        .each(&asked.nodes, |lines, node| lines.text("node", node))
        .hex("lane", asked.lane.0)
        .text("session", asked.session)
        .each(&asked.segments, |lines, of| {
            lines.text("segment", format!("{} {}", of.depth, of.index))
        })
        .each(&asked.heads, |lines, head| lines.text("head", head))
        .text("time", asked.time.0)
        .text("expires", asked.expires.0)
        .done()
}

pub(crate) fn answers(given: &mut Given) -> Outcome {
    let signed = Signed::take(given)?;
    let (asked, key) = (given.maybe_bytes("asked")?, given.maybe_array("asker-key")?);
    let seed = given.maybe_array("unwrap-seed")?;
    let verified = signed.verify::<NodeAnswer>()?;
    let asked = Unverified::<NodeRequest>::decode(&asked.ok_or("no request")?);
    let asked = asked.map_err(|error| error.to_string())?;
    let key = VerifyingKey::from_bytes(key.ok_or("no key")?).map_err(|_| "no key")?;
    let asked = asked.verify(&key).map_err(|_| "signature of the request")?;
    let answer = verified.body();
    let opened = answer.open(&asked, &UnwrapKey::from_seed(&seed.ok_or("no seed")?));
    let opened = opened.map_err(failure)?;
    let lines = Lines::default().hex("digest", verified.digest().as_bytes());
    reply(lines, &answer.to)
        .hex("answer", opened.expose())
        .done()
}

pub(crate) fn refusals(given: &mut Given) -> Outcome {
    let verified = Signed::take(given)?.verify::<NodeRefusal>()?;
    let refusal = verified.body();
    let lines = Lines::default().hex("digest", verified.digest().as_bytes());
    reply(lines, &refusal.to)
        .text("reason", refusal.reason as u8)
        .text("wait", refusal.wait_ms)
        .done()
}

pub(crate) fn audit_entries(given: &mut Given) -> Outcome {
    let verified = Signed::take(given)?.verify::<AuditEntry>()?;
    let entry = verified.body();
    let lines = Lines::default()
        .hex("digest", verified.digest().as_bytes())
        .text("stream", entry.stream)
        .hex("node", entry.node.user.0)
        .text("node-device", entry.node.device)
        .text("seq", entry.seq)
        .hex("prev", entry.prev)
        .text("time", entry.time.0);
    let Some(asked) = entry.event.request() else {
        return match &entry.event {
            AuditEvent::TurnedAway(count) => lines.text("turned-away", count).done(),
            AuditEvent::ClockSet => lines.text("clock", "set").done(),
            AuditEvent::Began | AuditEvent::Released(_) | AuditEvent::Refused(..) => lines.done(),
        };
    };
    let reason = match &entry.event {
        AuditEvent::Refused(_, reason) => Some(*reason as u8),
        AuditEvent::Began
        | AuditEvent::Released(_)
        | AuditEvent::TurnedAway(_)
        | AuditEvent::ClockSet => None,
    };
    lines
        .hex("user", asked.user.0)
        .text("device", asked.device)
        .text("request", asked.request)
        .hex("asked-digest", asked.asked)
        .text("expires", asked.expires.0)
        .text("deal", asked.deal)
        .hex("lane", asked.lane.0)
        .text("session", asked.session)
        .each(&asked.segments, |lines, of| {
            lines.text("segment", format!("{} {}", of.depth, of.index))
        })
        .hex("log", asked.log)
        .each(reason, |lines, reason| lines.text("reason", reason))
        .done()
}

fn dealer(lines: Lines, dealer: &Dealer) -> Lines {
    lines
        .text("stream", dealer.stream)
        .hex("lane", dealer.lane.0)
        .text("device", dealer.device)
}

fn reply(lines: Lines, to: &NodeReplyTo) -> Lines {
    lines
        .text("stream", to.stream)
        .text("asker", to.asker)
        .text("request", to.request)
        .hex("asked-digest", to.asked)
        .text("deal", to.deal)
        .text("index", to.index)
        .hex("node", to.node.user.0)
        .text("node-device", to.node.device)
}
