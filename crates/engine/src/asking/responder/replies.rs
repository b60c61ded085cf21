//! What others say to requests that are open here.

use alloc::vec::Vec;

use sealcast_crypto::VerifyingKey;
use sealcast_protocol::{
    Bundle, Claim, DeviceId, Position, Receipt, Refusal, RequestId, Signable, Unverified, UserId,
    Verified,
};

use super::open::Stage;
use super::{Key, Responder};
use crate::asking::LEASE_MS;
use crate::asking::turn::{is_before, may_hold_back};
use crate::view::StreamView;

impl Responder {
    /// Checks a reply's signature, as often as the pace allows.
    fn verified<T: Signable>(
        &mut self,
        now: Position,
        view: &StreamView,
        (of, (user, device)): (Key, (UserId, DeviceId)),
        item: Unverified<T>,
    ) -> Option<Verified<T>> {
        let key: VerifyingKey = view.sign_key(&user, &device)?;
        let open = self.open.get_mut(&of)?;
        let may_check = !view.is_card_revoked(&user, &device)
            && open.may_check()
            && self.reply_checks.take(now);
        may_check.then(|| item.verify(&key).ok()).flatten()
    }

    /// Lets whoever may answer do so alone for a time.
    pub(super) fn take_claim(
        &mut self,
        now: Position,
        view: &StreamView,
        claim: Unverified<Claim>,
    ) {
        let said = claim.claims();
        let (key, by) = ((said.asker, said.request), (said.user, said.device));
        let me = view.me();
        let Some(open) = self.open.get(&key).filter(|of| of.heeds(&by.0)) else {
            return;
        };
        let asked = &open.asked;
        let is_mine = |at: u8| match &open.stage {
            Stage::Waiting => open.is_answered(at),
            Stage::Deciding(places) => places.contains(&at),
        };
        // A claim of this device that is none of this machine's is another process of its home.
        let holds = |at: &u8| {
            let Some(want) = asked.wants.get(usize::from(*at)) else {
                return false;
            };
            let goes_on = by.1 == me.1 || is_before(view, asked, &want.lane, me, by);
            may_hold_back(view, asked, &want.lane, by) && !(is_mine(*at) && goes_on)
        };
        let held = said.wants.iter().copied().filter(holds);
        let held: Vec<u8> = held.collect();
        if held.is_empty() || self.verified(now, view, (key, by), claim).is_none() {
            return;
        }
        if let Some(open) = self.open.get_mut(&key) {
            open.hold(by.0, by.1, &held, now.after(LEASE_MS));
        }
    }

    /// Notes a keyholder's refusal.
    pub(super) fn take_refusal(
        &mut self,
        now: Position,
        view: &StreamView,
        refusal: Unverified<Refusal>,
    ) {
        let said = refusal.claims();
        let (key, by) = ((said.asker, said.request), (said.user, said.device));
        let Some(open) = self.open.get(&key) else {
            return;
        };
        let rules = |at: &u8| {
            let want = open.asked.wants.get(usize::from(*at));
            want.is_some_and(|of| view.state().is_keyholder(&by.0, &by.1, &of.lane))
        };
        let refused: Vec<u8> = said.wants.iter().copied().filter(rules).collect();
        if refused.is_empty() || self.verified(now, view, (key, by), refusal).is_none() {
            return;
        }
        if let Some(open) = self.open.get_mut(&key) {
            refused.iter().for_each(|at| open.refuse(by.1, *at));
        }
        self.wake_in_turn(key, now);
    }

    /// Ends what the asker itself says has worked.
    pub(super) fn take_receipt(
        &mut self,
        now: Position,
        view: &StreamView,
        receipt: Unverified<Receipt>,
    ) {
        let said = receipt.claims();
        let (key, by) = ((said.device, said.request), (said.user, said.device));
        let is_open = self.open.get(&key).is_some_and(|of| of.asked.user == by.0);
        if !is_open {
            return;
        }
        let Some(receipt) = self.verified(now, view, (key, by), receipt) else {
            return;
        };
        if let Some(open) = self.open.get_mut(&key) {
            receipt.body().wants.iter().for_each(|at| open.meet(*at));
            if open.is_over() {
                self.close(key);
            }
        }
    }

    /// Takes in what lies in the inbox of a device that asked: what it was given, and its receipts.
    pub(super) fn take_inbox_item(&mut self, now: Position, view: &StreamView, bytes: &[u8]) {
        if let Ok(receipt) = Unverified::<Receipt>::decode(bytes) {
            if receipt.claims().stream == view.stream() {
                self.take_receipt(now, view, receipt);
            }
        } else if let Ok(bundle) = Unverified::decode(bytes) {
            self.take_bundle(now, view, bundle);
        }
    }

    /// Notes what a keyholder gave to a device that asked, and waits for the receipt.
    fn take_bundle(&mut self, now: Position, view: &StreamView, bundle: Unverified<Bundle>) {
        let context = &bundle.claims().context;
        let key = (context.device, RequestId(context.request));
        let by = (context.giver_user, context.giver_device);
        let is_keyholder = view.state().is_keyholder(&by.0, &by.1, &context.lane);
        let is_answer = is_keyholder && context.stream == view.stream();
        if !is_answer || !self.open.contains_key(&key) {
            return;
        }
        let Some(bundle) = self.verified(now, view, (key, by), bundle) else {
            return;
        };
        let context = &bundle.body().context;
        let Some(open) = self.open.get_mut(&key) else {
            return;
        };
        let gives = |want: &sealcast_protocol::Want| {
            want.lane == context.lane
                && context.covers.iter().any(|cover| {
                    want.names(&cover.session) && want.interval.covers(&cover.interval)
                })
        };
        let wants = (0..).zip(&open.asked.wants);
        let given = wants.filter(|(_, want)| gives(want)).map(|(at, _)| at);
        for at in given.collect::<Vec<u8>>() {
            open.give(by.0, by.1, at, now.after(LEASE_MS));
        }
        self.wake(key, now);
    }
}
