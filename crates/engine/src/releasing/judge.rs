//! Whether a key node releases what a request asks for, `spec/key-nodes.md`, section "How a node
//! decides", steps 4 to 7.

use sealcast_protocol::{KeyNode, NodeRefusalReason, NodeRequest, Position, UserId};

use crate::view::StreamView;

/// After how long it may be worth to ask a node again that has not read the access log so far.
const BEHIND_WAIT_MS: u64 = 5_000;

/// What a node does about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It says nothing: the request is not to it.
    Silent,
    /// It releases what is asked for, as far as log and condition go.
    Entitled,
    /// It releases nothing, for so many milliseconds.
    Refuse(NodeRefusalReason, u64),
}

/// Judges a request by what is known now. `is_whole` tells whether the access log was read to its
/// end after the request came, and still shows all that it showed.
pub(super) fn judge(
    view: &StreamView,
    clock: Position,
    is_whole: bool,
    asked: &NodeRequest,
) -> Verdict {
    let (user, device) = view.me();
    let me = KeyNode { user, device };
    let Some(deal) = view.deal(&asked.deal) else {
        return Verdict::Silent;
    };
    let index = deal.index_of(&me).filter(|index| asked.asks(*index));
    let is_own_out = view.is_card_revoked(&user, &device);
    if index.is_none() || is_own_out {
        return Verdict::Silent;
    }
    let refuse = |reason| Verdict::Refuse(reason, 0);
    let knows_all = asked.heads.iter().all(|head| view.log().contains(head));
    if !is_whole || !knows_all || !view.state().has_begun() || view.missing_entries() > 0 {
        return Verdict::Refuse(NodeRefusalReason::LogBehind, BEHIND_WAIT_MS);
    }
    let set = view.state().key_nodes().map(|(_, set)| set);
    let Some(set) = set.filter(|set| set.nodes.contains(&me)) else {
        return refuse(NodeRefusalReason::UnknownDeal);
    };
    if view.share(&asked.deal).is_none() || !deal.is_enough_for(set) {
        return refuse(NodeRefusalReason::UnknownDeal);
    }
    if deal.dealer.lane != asked.lane || !is_entitled(view, clock, asked) {
        return refuse(NodeRefusalReason::NotEntitled);
    }
    match set.condition.holds(clock) {
        true => Verdict::Entitled,
        false => {
            let wait = set.condition.wait_ms(clock).unwrap_or_default();
            Verdict::Refuse(NodeRefusalReason::Condition, wait)
        }
    }
}

/// Whether the access log gives the device every position of each segment in the lane.
fn is_entitled(view: &StreamView, clock: Position, asked: &NodeRequest) -> bool {
    let list = view.list(&asked.user);
    let card = list.and_then(|list| list.device(&asked.device));
    if !card.is_some_and(|card| card.is_live(clock)) {
        return false;
    }
    let (user, device): (&UserId, _) = (&asked.user, &asked.device);
    let readable = view.state().readable(user, device, &asked.lane);
    asked.segments.iter().all(|segment| {
        let interval = segment.interval();
        readable.iter().any(|of| of.covers(&interval))
    })
}
