//! What others say to this device's requests, and what it says then.

use alloc::vec::Vec;

use sealcast_crypto::Cover;
use sealcast_protocol::{
    Bundle, CoverSpec, DeviceId, Interval, KeyUse, Position, Receipt, Refusal, RefusalReason,
    RequestId, SessionId, Unverified, UserId, Want, open_bundle,
};

use super::request::{Place, PlaceState, Request};
use super::{AskBody, Asker, AskerEvent, AskerOutput, End, Outcome, RECEIPT_DELAY_MS, entitled};
use crate::share::may_give;
use crate::view::{Answer, StreamView, root_of};

/// What others say.
impl Asker {
    /// Takes in what lies in the inbox; what is neither answer nor refusal is passed over.
    pub(super) fn take_inbox_item(&mut self, now: Position, view: &StreamView, bytes: &[u8]) {
        if let Ok(refusal) = Unverified::decode(bytes) {
            return self.take_refusal(view, refusal);
        }
        if let Ok(bundle) = Unverified::decode(bytes) {
            self.take_bundle(now, view, bundle);
        }
    }

    /// Takes in a keyholder's refusal of an open request of this device; any other is passed over.
    fn take_refusal(&mut self, view: &StreamView, refusal: Unverified<Refusal>) {
        let said = refusal.claims();
        let (user, device) = (said.user, said.device);
        let is_ours = said.stream == view.stream() && said.asker == view.me().1;
        let Some(request) = self.open.get(&said.request).filter(|_| is_ours) else {
            return;
        };
        let rules = |want: &Want| {
            view.state().is_keyholder(&user, &device, &want.lane)
                && !view.is_card_revoked(&user, &device)
        };
        let wants = said.wants.iter().map(|at| usize::from(*at));
        let is_refused = |at: &usize| {
            let place = request.places.get(*at);
            place.is_some_and(|of| of.is_open() && rules(&of.want))
        };
        let refused: Vec<_> = wants.filter(is_refused).collect();
        let Some(key) = view
            .sign_key(&user, &device)
            .filter(|_| !refused.is_empty())
        else {
            return;
        };
        let Ok(refusal) = refusal.verify(&key) else {
            return;
        };
        let (id, reason) = (refusal.body().request, refusal.body().reason);
        let Some(request) = self.open.get_mut(&id) else {
            return;
        };
        request.unanswered = None;
        for at in refused {
            let Some(place) = request.places.get_mut(at) else {
                continue;
            };
            // Where the log entitles this device, another keyholder may well give.
            let want = &place.want;
            let mut entitled = entitled(view, &want.lane).into_iter();
            let is_entitled = entitled.any(|of| of.intersect(&want.interval).is_some());
            let rules_lane = user == view.state().owner() || user == want.lane;
            let is_last = rules_lane && reason != RefusalReason::UnknownSession && !is_entitled;
            place.state = match is_last {
                true => PlaceState::Refused(reason),
                false => PlaceState::Open(Some(reason)),
            };
        }
    }

    /// Takes in a bundle that answers an open request of this device; anything else is passed over
    /// and changes nothing.
    fn take_bundle(&mut self, now: Position, view: &StreamView, bundle: Unverified<Bundle>) {
        let context = &bundle.claims().context;
        let id = RequestId(context.request);
        let is_answer = context.stream == view.stream()
            && (context.user, context.device) == view.me()
            && context.key == KeyUse::OneUse;
        let Some(request) = self.open.get_mut(&id).filter(|_| is_answer) else {
            return;
        };
        let giver = (context.giver_user, context.giver_device);
        let is_keyholder = view.state().is_keyholder(&giver.0, &giver.1, &context.lane);
        let limits = may_give(view, giver, &context.lane, &context.user);
        // Of what no record names nothing is taken, and nothing is kept.
        let known = |of: &&CoverSpec| view.lane_of(&of.session) == Some(context.lane);
        let known: Vec<_> = context.covers.iter().filter(known).copied().collect();
        let is_asked = context.wrap_key_hash == request.key_hash
            && request.has_room(giver, is_keyholder, &known)
            && context.covers.iter().all(|cover| {
                request.asks_for(&context.lane, cover)
                    && limits.iter().any(|of| of.covers(&cover.interval))
            });
        let Some(key) = view.sign_key(&giver.0, &giver.1).filter(|_| is_asked) else {
            return;
        };
        let Ok(bundle) = bundle.verify(&key) else {
            return;
        };
        let context = &bundle.body().context;
        request.note(giver, is_keyholder, &known);
        match open_bundle(bundle.body(), &request.key) {
            Ok(covers) => self.take_covers(now, view, id, giver, context.lane, covers),
            Err(_) => self.tell(AskerEvent::BadAnswer { request: id, giver }),
        }
    }

    fn take_covers(
        &mut self,
        now: Position,
        view: &StreamView,
        request: RequestId,
        giver: (UserId, DeviceId),
        lane: UserId,
        covers: Vec<(SessionId, Cover)>,
    ) {
        let end = (Position::START.0, Position::END.0);
        let (mut kept, mut roots) = (Vec::new(), Vec::new());
        for (session, cover) in covers {
            if view.lane_of(&session) != Some(lane) {
                continue;
            }
            if (cover.from(), cover.until()) == end {
                if root_of(&view.stream(), &session, &lane, &cover).is_none() {
                    self.tell(AskerEvent::BadAnswer { request, giver });
                    continue;
                }
                roots.push(session);
            }
            kept.push((session, cover));
        }
        if kept.is_empty() {
            return;
        }
        self.outputs.push_back(AskerOutput::Take(Answer {
            giver,
            lane,
            covers: kept,
        }));
        for session in roots {
            self.meet(now, lane, session, |_| true);
        }
    }
}

/// What works.
impl Asker {
    pub(super) fn opened(
        &mut self,
        now: Position,
        view: &StreamView,
        session: SessionId,
        position: Position,
    ) {
        if self.wants.is_empty() {
            return;
        }
        if let Some(lane) = view.lane_of(&session) {
            self.meet(now, lane, session, |of| of.contains(position));
        }
    }

    /// Settles every want of a session in whose interval keys have worked.
    fn meet(
        &mut self,
        now: Position,
        lane: UserId,
        session: SessionId,
        has_worked: impl Fn(&Interval) -> bool,
    ) {
        let start = Interval {
            from: Position::START,
            until: Position::START,
        };
        let of = |session| {
            let first = Want {
                lane,
                session,
                interval: start,
            };
            self.wants
                .range(first..)
                .map(|(want, _)| *want)
                .take_while(move |want| (want.lane, want.session) == (lane, session))
        };
        let met = of(Want::EVERY_SESSION).chain(of(session));
        let met: Vec<_> = met.filter(|want| has_worked(&want.interval)).collect();
        for want in met {
            self.note_met(now, &want);
            self.mark_met(now, &want);
            let outcome = Outcome::Opened;
            self.tell(AskerEvent::Settled { want, outcome });
        }
    }

    fn mark_met(&mut self, now: Position, want: &Want) {
        for request in self.open.values_mut() {
            let place = request.places.iter_mut().find(|of| of.want == *want);
            if let Some(place) = place.filter(|of| of.is_open()) {
                place.state = PlaceState::Met;
                let soon = now.after(RECEIPT_DELAY_MS);
                request.receipt_at = Some(request.receipt_at.map_or(soon, |at| at.min(soon)));
            }
        }
    }
}

/// Receipts, and the end of a request.
impl Asker {
    /// Sends the receipts that are due, and ends the requests in which nothing is open.
    pub(super) fn acknowledge(&mut self, now: Position, view: &StreamView) {
        let is_due = |of: &Request| {
            of.is_settled() || of.expires <= now || of.receipt_at.is_some_and(|at| at <= now)
        };
        let due = self.open.iter().filter(|(_, of)| is_due(of));
        for id in due.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.send_receipt(view, id);
            if self.open.get(&id).is_some_and(|of| of.is_over(now)) {
                self.end(now, id);
            }
        }
    }

    fn send_receipt(&mut self, view: &StreamView, id: RequestId) {
        let wants = self.open.get_mut(&id).map(Request::acknowledge);
        let Some(wants) = wants.filter(|wants| !wants.is_empty()) else {
            return;
        };
        let (user, device) = view.me();
        let receipt = Receipt {
            version: 1,
            stream: view.stream(),
            user,
            device,
            request: id,
            wants,
        };
        let receipt = AskBody::Receipt(receipt);
        self.outputs.push_back(AskerOutput::Send(receipt));
    }

    /// Ends a request, and its key with it; what was not met is put off.
    fn end(&mut self, now: Position, id: RequestId) {
        let Some(request) = self.open.remove(&id) else {
            return;
        };
        let met = request.places.iter().filter(|of| of.is_met()).count();
        let refusal = request.places.iter().find_map(Place::refusal);
        for place in request.places.iter().filter(|of| !of.is_met()) {
            let want = place.want;
            let outcome = place.refusal().map_or(Outcome::TimedOut, Outcome::Refused);
            self.put_off(now, want, true);
            self.tell(AskerEvent::Settled { want, outcome });
        }
        let end = match (met, refusal) {
            (met, _) if met == request.places.len() => End::Opened,
            (0, Some(reason)) => End::Refused(reason),
            (0, None) => End::TimedOut,
            (_, _) => End::Partly,
        };
        self.tell(AskerEvent::Ended { request: id, end });
    }
}
