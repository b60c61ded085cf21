//! What anybody may send to those who ask for keys and to those who answer: garbage, what was sent
//! before, and what is signed by somebody else than it says.

use std::sync::Arc;

use sealcast_crypto::{Cover, SessionRoot, UnwrapKey};
use sealcast_engine::AskBody;
use sealcast_protocol::{
    AskItem, BundleContext, Claim, CoverSpec, DeviceId, Interval, KeyUse, LogHash, Position,
    Receipt, Refusal, RefusalReason, RequestId, Solicitation, StreamId, UserId, Want, seal_bundle,
    sign, wrap_key_hash,
};

use crate::faults::{flipped, garbage};
use crate::world::World;

impl World {
    /// Disturbs those who ask for keys, and those who answer.
    pub(crate) fn disturb_asking(&mut self) {
        let heard = self.some_heard();
        let sent = match (self.around.chance.below(10), heard) {
            (0, _) | (_, None) => Some(("ask garbage", garbage(&mut self.around.chance))),
            (1, Some(item)) => Some(("ask bit flip", flipped(&mut self.around.chance, &item))),
            (2, Some(item)) => Some(("ask replay", item.to_vec())),
            (3, Some(_)) => self.false_request(),
            (4, Some(_)) => self.request_elsewhere(),
            (5, Some(_)) => self.false_reply(),
            (6, Some(_)) => self.false_receipt(),
            (_, Some(_)) => return self.false_answer(),
        };
        if let Some((kind, bytes)) = sent {
            self.around.fly(&bytes);
            self.around.fault(kind, format_args!("to all who listen"));
        }
    }

    fn some_heard(&mut self) -> Option<Arc<[u8]>> {
        let pick = self.below(self.around.air.heard().len());
        self.around.air.heard().get(pick).cloned()
    }

    /// The newest request that was sent and did not come from a forger.
    fn some_request(&mut self) -> Option<Solicitation> {
        let heard = self.around.air.heard().iter().rev();
        let mut requests = heard.filter_map(|item| match AskItem::decode(item) {
            Ok(AskItem::Solicitation(of)) => Some(of.claims().clone()),
            Ok(AskItem::Claim(_) | AskItem::Refusal(_) | AskItem::Receipt(_)) | Err(_) => None,
        });
        requests.find(|of| of.device != self.forger.device())
    }

    /// As whom the forger speaks: mostly as somebody else.
    fn some_name(&mut self) -> (UserId, DeviceId) {
        let pick = self.below(self.devices.len());
        let named = self.devices.get(pick).map(crate::device::Device::who);
        match named.filter(|_| self.around.chance.hits(2, 3)) {
            Some(who) => who,
            None => (self.forger.user(), self.forger.device()),
        }
    }

    /// In its own name, which may be good, or in another's, under its own key.
    fn false_request(&mut self) -> Option<(&'static str, Vec<u8>)> {
        let like = self.some_request()?;
        let (user, device) = self.some_name();
        let list = match user == self.forger.user() {
            true => self.forger.pin()?,
            false => like.list,
        };
        let mut body = self.request_of(&like, user, device);
        body.list = list;
        if device == self.forger.device() {
            self.around.ground.asked(&body);
        }
        let body = AskBody::Solicitation(Box::new(body));
        Some(("forged request", body.sign(self.forger.key()).ok()?))
    }

    /// A true device asks for the same in another stream.
    fn request_elsewhere(&mut self) -> Option<(&'static str, Vec<u8>)> {
        let like = self.some_request()?;
        let mut body = self.request_of(&like, like.user, like.device);
        body.stream = StreamId([7; 32]);
        let asker = self.devices.iter().find(|of| of.who().1 == like.device)?;
        let body = AskBody::Solicitation(Box::new(body));
        let signed = body.sign(asker.identity.signing()).ok()?;
        Some(("request of another stream", signed))
    }

    fn request_of(&mut self, like: &Solicitation, user: UserId, device: DeviceId) -> Solicitation {
        let mut request = [0; 16];
        rand_core::Rng::fill_bytes(&mut self.around.rng, &mut request);
        let key = UnwrapKey::generate(&mut self.around.rng).wrap_key();
        let now = Position(self.around.now);
        Solicitation {
            user,
            device,
            request: RequestId(request),
            key: key.as_bytes().to_vec(),
            time: now,
            expires: now.after(30_000),
            ..like.clone()
        }
    }

    /// Claims or refuses what it may not, or in another's name.
    fn false_reply(&mut self) -> Option<(&'static str, Vec<u8>)> {
        let of = self.some_request()?;
        let (user, device) = self.some_name();
        let wants = (0..).zip(&of.wants).map(|(at, _)| at).collect();
        let (kind, body) = match self.around.chance.hits(1, 2) {
            true => {
                let claim = Claim {
                    version: 1,
                    stream: of.stream,
                    asker: of.device,
                    request: of.request,
                    user,
                    device,
                    wants,
                };
                ("false claim", AskBody::Claim(claim))
            }
            false => {
                let refusal = Refusal {
                    version: 1,
                    stream: of.stream,
                    asker: of.device,
                    request: of.request,
                    user,
                    device,
                    wants,
                    reason: RefusalReason::NotEntitled,
                };
                ("false refusal", AskBody::Refusal(refusal))
            }
        };
        Some((kind, self.forged(body)?))
    }

    fn false_receipt(&mut self) -> Option<(&'static str, Vec<u8>)> {
        let of = self.some_request()?;
        let receipt = AskBody::Receipt(Receipt {
            version: 1,
            stream: of.stream,
            user: of.user,
            device: of.device,
            request: of.request,
            wants: (0..).zip(&of.wants).map(|(at, _)| at).collect(),
        });
        Some(("false receipt", self.forged(receipt)?))
    }

    /// Signs what others would sign, and puts it in the inbox if it goes there.
    fn forged(&mut self, body: AskBody) -> Option<Vec<u8>> {
        let inbox = body.inbox();
        let bytes = body.sign(self.forger.key()).ok()?;
        if let Some(device) = inbox {
            let now = self.around.now;
            self.around.bus.put(&device.inbox_topic(), now, &bytes);
        }
        Some(bytes)
    }

    /// False keys for a request, in the forger's name or in another's; or garbage.
    fn false_answer(&mut self) {
        let Some(of) = self.some_request() else {
            return;
        };
        let (user, device) = self.some_name();
        let bytes = match self.around.chance.hits(1, 4) {
            true => Some(garbage(&mut self.around.chance)),
            false => self.false_bundle(&of, user, device),
        };
        if let Some(bytes) = bytes {
            let inbox = of.device.inbox_topic();
            self.around.bus.put(&inbox, self.around.now, &bytes);
            // Whom the log lets hand keys on may be blamed for false ones, and whoever hands those on.
            self.is_calm = false;
            self.around
                .fault("false answer", format_args!("to {}", of.device));
        }
    }

    fn false_bundle(
        &mut self,
        of: &Solicitation,
        user: UserId,
        device: DeviceId,
    ) -> Option<Vec<u8>> {
        let pick = self.below(of.wants.len());
        let want = of.wants.get(pick)?;
        let root = SessionRoot::generate(&mut self.around.rng);
        let session = match want.session {
            Want::EVERY_SESSION => self.around.ground.messages.first()?.header.session,
            session => session,
        };
        let interval: Interval = want.interval;
        let cover = Cover::from_root(&root, interval.from.0, interval.until.0);
        let key = of.wrap_key().ok()?;
        let context = BundleContext {
            stream: of.stream,
            lane: want.lane,
            giver_user: user,
            giver_device: device,
            user: of.user,
            device: of.device,
            key: KeyUse::OneUse,
            wrap_key_hash: wrap_key_hash(&key),
            heads: Vec::<LogHash>::new(),
            request: of.request.0,
            covers: vec![CoverSpec { session, interval }],
        };
        let bundle = seal_bundle(&mut self.around.rng, context, &[&cover], &key).ok()?;
        let bundle = sign(self.forger.key(), bundle).ok()?;
        Some(bundle.wire().to_vec())
    }
}
