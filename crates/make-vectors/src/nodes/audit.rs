//! What key nodes keep of what they do.

use sealcast_protocol::{
    AuditChain, AuditEntry, AuditEvent, AuditedRequest, NodeRefusalReason, RequestId,
};

use super::super::case::Case;
use super::super::cast::{NOW, SEEN, STREAM};
use super::{Change, World, encodings, good, key_node, ranges};

impl World {
    pub(super) fn audit(&self) -> Vec<Case> {
        let node = &self.nodes[0];
        let mut chain = AuditChain::new(STREAM, key_node(node));
        let asked = AuditedRequest::new(&self.asked, &[SEEN]);
        let refused = AuditEvent::Refused(asked.clone(), NodeRefusalReason::Throttled);
        let events = [
            ("began", "it began to run", AuditEvent::Began),
            ("released", "it released", AuditEvent::Released(asked)),
            ("refused", "it refused", refused),
            (
                "turned-away",
                "it refused some without an entry each",
                AuditEvent::TurnedAway(70_000),
            ),
            (
                "clock-set",
                "its clock is right, said who runs it",
                AuditEvent::ClockSet,
            ),
        ];
        let entries = events.map(|(name, about, event)| (name, about, chain.append(NOW, event)));
        let read = entries.clone().map(|(name, about, entry)| {
            let case = good("audit-entry", name, about, node, &entry);
            audited(case, &entry)
        });
        let [_, (_, _, released), ..] = entries;
        #[rustfmt::skip]
        let changes: [Change<AuditEntry>; 6] = [
            ("none-turned-away", "it turned none away", |of| of.event = AuditEvent::TurnedAway(0)),
            ("first-with-one-before", "the first names one before", |of| of.seq = 0),
            ("none-before", "a later one names none before", |of| of.prev = [0; 32]),
            ("no-segment", "nothing was asked for", |of| change_asked(of, |asked| asked.segments.clear())),
            ("no-request-id", "the request is zero", |of| change_asked(of, |asked| asked.request = RequestId::NONE)),
            ("segments-unsorted", "the segments are not ascending", |of| change_asked(of, |asked| asked.segments.reverse())),
        ];
        let ranges = ranges("audit-entry", node, &released, &changes);
        let encodings = encodings("audit-entry", node, &released);
        [read.to_vec(), ranges, encodings].concat()
    }
}

fn change_asked(entry: &mut AuditEntry, change: fn(&mut AuditedRequest)) {
    if let AuditEvent::Released(asked) | AuditEvent::Refused(asked, _) = &mut entry.event {
        change(asked);
    }
}

fn audited(case: Case, entry: &AuditEntry) -> Case {
    let reason = match &entry.event {
        AuditEvent::Refused(_, reason) => Some(*reason as u8),
        AuditEvent::Began
        | AuditEvent::Released(_)
        | AuditEvent::TurnedAway(_)
        | AuditEvent::ClockSet => None,
    };
    let turned_away = match &entry.event {
        AuditEvent::TurnedAway(count) => Some(*count),
        AuditEvent::Began
        | AuditEvent::Released(_)
        | AuditEvent::Refused(..)
        | AuditEvent::ClockSet => None,
    };
    let case = case
        .with("stream", entry.stream)
        .hex("node", entry.node.user.0)
        .with("node-device", entry.node.device)
        .with("seq", entry.seq)
        .hex("prev", entry.prev)
        .with("time", entry.time.0);
    let Some(asked) = entry.event.request() else {
        let is_set = (entry.event == AuditEvent::ClockSet).then_some("set");
        return case
            .each(turned_away, |case, count| case.with("turned-away", count))
            .each(is_set, |case, set| case.with("clock", set));
    };
    case.hex("user", asked.user.0)
        .with("device", asked.device)
        .with("request", asked.request)
        .hex("asked-digest", asked.asked)
        .with("expires", asked.expires.0)
        .with("deal", asked.deal)
        .hex("lane", asked.lane.0)
        .with("session", asked.session)
        .each(&asked.segments, |case, of| {
            case.with("segment", format!("{} {}", of.depth, of.index))
        })
        .hex("log", asked.log)
        .each(reason, |case, reason| case.with("reason", reason))
}
