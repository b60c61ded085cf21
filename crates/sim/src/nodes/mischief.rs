//! What goes wrong around key nodes.

use std::sync::Arc;

use sealcast_crypto::UnwrapKey;
use sealcast_protocol::{
    CardList, Grant, Interval, LogBody, NodeRequest, Position, RequestId, Roles, Segment,
    StreamTopics, Unverified, sign,
};

use super::{ADMIN, Field, OWNER, PUBLISHER, READERS};
use crate::faults::{flipped, garbage};

impl Field {
    /// Lets one thing go wrong.
    pub(super) fn inject(&mut self) {
        let who = self.world.below(self.world.devices.len());
        let node = self.some_node();
        match self.world.around.chance.below(100) {
            0..=14 => self.delay_log(node),
            15..=22 => self.withhold_log(node),
            23..=29 => self.world.delay(who),
            30..=37 => self.world.cut_off(who),
            38..=52 => self.stop(node),
            53..=58 => self.stop(who),
            59..=68 => self.put_back(node),
            69..=74 if self.plan.forks => self.fork(),
            69..=71 => self.put_back(who),
            72..=77 if self.plan.sides => self.name_apart(),
            72..=77 => self.set_clock(node),
            78..=88 => self.send_again(),
            _ => self.ask_as_another(),
        }
    }

    fn some_node(&mut self) -> usize {
        let pick = self.world.below(self.nodes.len());
        self.nodes.get(pick).copied().unwrap_or(OWNER)
    }

    /// The chain of the owner, or of somebody who approves.
    fn some_log(&mut self) -> String {
        let approver = self.some_approver();
        let is_approver = self.plan.approvals && self.world.around.chance.hits(1, 2);
        let who = if is_approver { approver } else { OWNER };
        self.log_of(who)
    }

    fn log_of(&self, who: usize) -> String {
        let device = self.world.devices.get(who);
        let device = device.map_or_else(|| self.world.first_device(), |of| of.identity.device());
        StreamTopics(self.world.around.stream).access(&device)
    }

    /// Shows a node the log as it was some time ago.
    fn delay_log(&mut self, node: usize) {
        let (log, now) = (self.some_log(), self.world.around.now);
        let ms = self.world.around.chance.below(2_000_000);
        self.world.around.bus.delay(node, &log, ms, now);
        self.world
            .around
            .fault("stale log", format_args!("for d{node} by {ms} ms"));
    }

    /// Shows a node a log without some of its last entries.
    fn withhold_log(&mut self, node: usize) {
        let (log, now) = (self.some_log(), self.world.around.now);
        let len = self.world.around.bus.len(&log);
        let from = len.saturating_sub(1 + self.world.below(3));
        let items: Vec<_> = (from..len).take(1 + self.world.below(2)).collect();
        self.world.around.bus.withhold(node, &log, now, &items);
        self.world
            .around
            .fault("other log", format_args!("without {items:?} for d{node}"));
    }

    /// Ends a program, and now and then a device for good.
    fn stop(&mut self, who: usize) {
        let is_for_good = who != OWNER && self.world.around.chance.hits(1, 8);
        if let Some((device, around)) = self.world.at(who) {
            device.run = None;
            device.is_gone |= is_for_good;
            let how = if is_for_good { " for good" } else { "" };
            around.fault("stop", format_args!("d{who}{how}"));
        }
    }

    /// Puts a home back to an older state; not the owner's, who would write another log.
    fn put_back(&mut self, who: usize) {
        if who == OWNER || who == ADMIN {
            return;
        }
        self.world.restore(who);
        if let Some(node) = self.key_node(who) {
            self.world.around.ground.said.forgets(&node);
        }
    }

    /// A node's clock is off, by less than requests may be.
    fn set_clock(&mut self, node: usize) {
        let skew = self.world.around.chance.below(120_000) as i64 - 60_000;
        if let Some((device, around)) = self.world.at(node) {
            device.skew_ms = skew;
            device.skew_max_ms = skew.max(device.skew_max_ms);
            around.fault("clock", format_args!("d{node} is {skew} ms off"));
        }
    }

    /// The owner and an admin name key nodes, and neither knows of the other.
    fn name_apart(&mut self) {
        let caught_up = self.world.catch_up(ADMIN);
        self.world.ended(ADMIN, caught_up);
        let (log, now) = (self.log_of(OWNER), self.world.around.now);
        self.world.around.bus.delay(ADMIN, &log, 60_000, now);
        for who in [OWNER, ADMIN] {
            let named = self.change_nodes(who);
            self.world.ended(who, named);
        }
        let what = format_args!("by d{OWNER} and d{ADMIN}");
        self.world.around.fault("sets apart", what);
    }

    /// An admin writes two entries with one number, grants or sets of key nodes; some are shown the one, the
    /// others the other.
    fn fork(&mut self) {
        let sets = (self.varied_set(ADMIN), self.varied_set(ADMIN));
        let bodies = match sets {
            (Some(one), Some(two)) if one != two && self.world.around.chance.hits(1, 2) => {
                [one, two].map(LogBody::KeyNodes)
            }
            _ => [READERS, ADMIN].map(|at| {
                LogBody::Grant(Grant {
                    user: self.user(at),
                    devices: Vec::new(),
                    roles: Roles::READER,
                    lanes: Vec::new(),
                    interval: Interval::ALL,
                    reshare: false,
                })
            }),
        };
        let Some((device, around)) = self.world.at(ADMIN) else {
            return;
        };
        let chain = StreamTopics(around.stream).access(&device.identity.device());
        let forked = device.act(around, |acting| acting.fork_log(bodies));
        device.run = None;
        device.is_gone = true;
        if forked.is_err() {
            return;
        }
        let (len, now) = (around.bus.len(&chain), around.now);
        around.fault("fork", format_args!("by d{ADMIN}"));
        for who in 0..self.world.devices.len() {
            let hidden = len.saturating_sub(1 + self.world.below(2));
            let bus = &mut self.world.around.bus;
            bus.withhold(who, &chain, now, &[hidden]);
        }
    }

    /// Something from an inbox is put into it once more, or into another one, as it is or altered.
    fn send_again(&mut self) {
        let (from, to) = (self.some_inbox(), self.some_inbox());
        let item = self.some_item(&from);
        let around = &mut self.world.around;
        let (kind, bytes) = match (around.chance.below(6), item) {
            (0, _) | (_, None) => ("garbage", garbage(&mut around.chance)),
            (1, Some(item)) => ("bit flip", flipped(&mut around.chance, &item)),
            (_, Some(item)) => ("inbox replay", item.to_vec()),
        };
        let to = if around.chance.hits(1, 3) { from } else { to };
        around.bus.put(&to, around.now, &bytes);
        around.fault(kind, format_args!("in an inbox"));
    }

    fn some_inbox(&mut self) -> String {
        let pick = self.world.below(self.world.devices.len());
        let device = self.world.devices.get(pick);
        let device = device.map(|of| of.identity.device());
        device.map(|of| of.inbox_topic()).unwrap_or_default()
    }

    fn some_item(&mut self, topic: &str) -> Option<Arc<[u8]>> {
        let len = self.world.around.bus.len(topic);
        let pick = len.saturating_sub(1 + self.world.below(len.min(8)));
        self.world.around.bus.item(topic, pick)
    }

    /// Somebody asks for what another one asked for, or for more around it, in its own name and by its own
    /// key.
    fn ask_as_another(&mut self) {
        let node = self.some_node();
        let Some(inbox) = self.world.devices.get(node) else {
            return;
        };
        let inbox = inbox.identity.device().inbox_topic();
        let item = self.some_item(&inbox);
        let Some(asked) = item.and_then(|of| Unverified::<NodeRequest>::decode(&of).ok()) else {
            return;
        };
        let reader = match self.world.around.chance.hits(1, 4) {
            true => PUBLISHER,
            false => self.some_reader(),
        };
        let body = self.as_asked_by(reader, asked.claims());
        let signed = body.and_then(|body| {
            let device = self.world.devices.get(reader)?;
            sign(device.identity.signing(), body).ok()
        });
        if let Some(signed) = signed {
            let around = &mut self.world.around;
            around.bus.put(&inbox, around.now, signed.wire());
            let what = format_args!("for another's segments, by d{reader}");
            around.fault("request beyond right", what);
        }
    }

    fn as_asked_by(&mut self, reader: usize, like: &NodeRequest) -> Option<NodeRequest> {
        let device = self.world.devices.get(reader)?;
        let (user, device) = device.who();
        let mut list = CardList::new(user);
        for item in self.world.around.bus.items(&user.devices_topic()) {
            let _is_of_list = list.apply(item).is_ok();
        }
        let around = &mut self.world.around;
        let mut request = [0; 16];
        rand_core::Rng::fill_bytes(&mut around.rng, &mut request);
        let key = UnwrapKey::generate(&mut around.rng).wrap_key();
        let now = Position(around.now);
        let mut segments = like.segments.clone();
        if around.chance.hits(1, 2) {
            // All that is around the first of them.
            let first = *segments.first()?;
            let up = first.depth.saturating_sub(16);
            segments = vec![Segment {
                depth: 16,
                index: first.index >> up,
            }];
        }
        Some(NodeRequest {
            user,
            device,
            list: list.pin()?,
            request: RequestId(request),
            key: key.as_bytes().to_vec(),
            nodes: (1..=32).collect(),
            segments,
            time: now,
            expires: now.after(30_000),
            ..like.clone()
        })
    }
}
