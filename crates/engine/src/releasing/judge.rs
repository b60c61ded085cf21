//! Whether a key node releases what a request asks for, `spec/key-nodes.md`, section "How a node
//! decides", steps 5 to 9.

use alloc::collections::BTreeSet;

use sealcast_protocol::{DeviceId, KeyNode, NodeRefusalReason, NodeRequest, Position, UserId};

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
/// end after the request came, and still shows all that it showed; `withheld` are users of whose device
/// lists the bus is known to show less than there is.
pub(super) fn judge(
    view: &StreamView,
    clock: Position,
    is_whole: bool,
    withheld: &BTreeSet<UserId>,
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
    let is_withheld = is_withheld(view, withheld, &asked.user);
    if !is_whole
        || is_withheld
        || !view.knows(&asked.heads)
        || !knows_session(view, asked, &deal.dealer.device)
        || !view.state().has_begun()
        || view.missing_entries() > 0
    {
        return Verdict::Refuse(NodeRefusalReason::LogBehind, BEHIND_WAIT_MS);
    }
    let set = view.state().key_nodes().map(|(_, set)| set);
    let Some(set) = set.filter(|set| set.nodes.contains(&me)) else {
        return refuse(NodeRefusalReason::UnknownDeal);
    };
    if view.share(&asked.deal).is_none() || !deal.is_enough_for(set) {
        return refuse(NodeRefusalReason::UnknownDeal);
    }
    let lanes = [Some(deal.dealer.lane), view.lane_of(&asked.session)];
    if lanes != [Some(asked.lane); 2] || !is_entitled(view, clock, asked) {
        return refuse(NodeRefusalReason::NotEntitled);
    }
    let approves = |by: &UserId| approves(view, clock, by, &asked.user);
    let is_known = |by: &UserId| approves(by) && !is_in_doubt(view, withheld, by);
    if set.condition.holds(clock, is_known) {
        return match set.condition.can_end() {
            true => all_ended(clock, asked),
            false => Verdict::Entitled,
        };
    }
    if set.condition.holds(clock, approves) {
        return Verdict::Refuse(NodeRefusalReason::LogBehind, BEHIND_WAIT_MS);
    }
    let wait = set.condition.wait_ms(clock).unwrap_or_default();
    Verdict::Refuse(NodeRefusalReason::Condition, wait)
}

/// Whether all is known here of the log that was known when the session was drawn. Who asks names what it likes; the
/// publisher of what is asked for began the session for what it knew: a removal, or another condition. What another
/// device says of the session, and copies, is not heard.
fn knows_session(view: &StreamView, asked: &NodeRequest, dealer: &DeviceId) -> bool {
    let record = view.record(&asked.session, dealer);
    record.is_some_and(|record| view.knows(&record.heads))
}

/// What may be released under a condition that can end: what is yet to be published is not, since nothing could
/// take it back.
fn all_ended(clock: Position, asked: &NodeRequest) -> Verdict {
    let ends = asked.segments.iter().map(|of| of.interval().until);
    let wait = ends.max().map_or(0, |end| end.0.saturating_sub(clock.0));
    match wait {
        0 => Verdict::Entitled,
        wait => Verdict::Refuse(NodeRefusalReason::NotEnded, wait),
    }
}

/// Whether a user approves of another, with devices whose cards are not revoked: what others said may be
/// whoever has them, with a time from before.
fn approves(view: &StreamView, clock: Position, by: &UserId, user: &UserId) -> bool {
    let mut devices = view.state().approving_devices(by, user);
    view.state().approves(by, user, clock)
        && devices.all(|device| !view.is_card_revoked(by, &device))
}

/// Whether the bus is known to hide something of a user, which may take back what it approved.
fn is_in_doubt(view: &StreamView, withheld: &BTreeSet<UserId>, of: &UserId) -> bool {
    withheld.contains(of) || view.hidden_lists().contains(of) || view.has_hidden_entries(of)
}

/// Whether a device list is withheld by which it is judged: that of who asks, or of whoever rules. What
/// is hidden may revoke the device that asked, or the one that granted.
fn is_withheld(view: &StreamView, withheld: &BTreeSet<UserId>, user: &UserId) -> bool {
    let hidden = view.hidden_lists();
    let mut lacking = hidden.iter().chain(withheld);
    lacking.any(|of| of == user || view.is_ruler(of))
}

/// Whether the access log gives the device every position of each segment in the lane.
fn is_entitled(view: &StreamView, clock: Position, asked: &NodeRequest) -> bool {
    let list = view.list(&asked.user);
    let card = list.and_then(|list| list.device(&asked.device));
    let is_revoked = view.is_card_revoked(&asked.user, &asked.device);
    if is_revoked || !card.is_some_and(|card| card.is_live(clock)) {
        return false;
    }
    let (user, device): (&UserId, _) = (&asked.user, &asked.device);
    let readable = view.state().readable(user, device, &asked.lane);
    asked.segments.iter().all(|segment| {
        let interval = segment.interval();
        readable.iter().any(|of| of.covers(&interval))
    })
}
