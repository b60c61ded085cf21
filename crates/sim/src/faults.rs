//! What goes wrong.

use sealcast_crash::Chance;
use sealcast_protocol::StreamTopics;

use crate::around::short;
use crate::world::World;

impl World {
    /// Lets one thing go wrong.
    pub(crate) fn inject(&mut self) {
        let who = self.below(self.devices.len());
        match self.around.chance.below(100) {
            0..=29 => self.delay(who),
            30..=42 => self.cut_off(who),
            43..=50 if self.plan.forgets => self.show_another_tail(who),
            51..=55 => self.replay(),
            56..=60 if self.plan.forgets => self.truncate(),
            61..=70 => self.forge(),
            43..=50 | 56..=60 | 71..=80 => self.disturb_asking(),
            81..=85 => self.set_clock(who),
            86..=91 => self.kill(who),
            92..=96 => self.restore(who),
            _ => self.cross_post(),
        }
    }

    /// A topic that the stream has, other than one's own chain.
    fn topic(&mut self) -> Option<String> {
        let names = self.around.bus.names();
        let pick = self.below(names.len());
        match self.around.chance.below(8) {
            0 | 1 => Some(self.around.keys()),
            2 | 3 => Some(self.around.data()),
            4 | 5 => Some(self.chain()),
            _ => names.get(pick).cloned(),
        }
    }

    /// The chain of a device, mostly of the owner's first.
    fn chain(&mut self) -> String {
        let pick = match self.around.chance.hits(1, 2) {
            true => 0,
            false => self.below(self.devices.len()),
        };
        let device = self.devices.get(pick).map(|of| of.identity.device());
        let device = device.unwrap_or_else(|| self.first_device());
        StreamTopics(self.around.stream).access(&device)
    }

    pub(crate) fn delay(&mut self, who: usize) {
        let Some(topic) = self.topic() else {
            return;
        };
        let ms = match self.around.chance.below(3) {
            0 => self.around.chance.below(1_000),
            1 => self.around.chance.below(60_000),
            _ => self.around.chance.below(1_000_000),
        };
        let now = self.around.now;
        self.around.bus.delay(who, &topic, ms, now);
        self.around.fault(
            "delay",
            format_args!("{} for d{who} by {ms} ms", short(&topic)),
        );
    }

    pub(crate) fn cut_off(&mut self, who: usize) {
        self.around.bus.cut_off(who);
        self.around.fault("partition", format_args!("d{who}"));
    }

    /// Faults of the bus pass.
    pub(crate) fn mend_some(&mut self) {
        for who in 0..self.devices.len() {
            if self.around.bus.is_cut_off(who) && self.around.chance.hits(15, 100) {
                self.around.bus.reconnect(who);
                self.around.note(who, format_args!("is reconnected"));
            }
        }
        let who = self.below(self.devices.len());
        if self.around.chance.hits(self.plan.faults, 300) && self.around.bus.heal(Some(who)) {
            self.around
                .note(who, format_args!("is shown everything again"));
        }
    }

    /// Withholds items from one device, so that others see another topic than it does. Nobody is
    /// shown another past of itself: a device whose home is old would repeat what it had done.
    pub(crate) fn show_another_tail(&mut self, who: usize) {
        let Some(topic) = self.topic() else {
            return;
        };
        let own = self.devices.get(who).map(|of| of.identity.device());
        let is_own = own.is_some_and(|own| topic.ends_with(&own.to_string()));
        let len = self.around.bus.len(&topic);
        if len == 0 || is_own {
            return;
        }
        let from = self.below(len);
        let count = 1 + self.below(3);
        let items: Vec<_> = (from..len.min(from + count)).collect();
        let now = self.around.now;
        self.around.bus.withhold(who, &topic, now, &items);
        self.is_calm = false;
        let what = format_args!("{} {items:?} from d{who}", short(&topic));
        self.around.fault("fork", what);
    }

    /// Puts an old item at the end of its topic again.
    fn replay(&mut self) {
        let Some(topic) = self.topic() else {
            return;
        };
        let len = self.around.bus.len(&topic);
        let recent = match self.around.chance.hits(1, 2) {
            true => len.min(8),
            false => len,
        };
        let pick = len - recent + self.below(recent);
        if let Some(item) = self.around.bus.item(&topic, pick) {
            let now = self.around.now;
            self.around.bus.put(&topic, now, &item);
            self.around
                .fault("replay", format_args!("{} {pick}", short(&topic)));
        }
    }

    /// Puts an item where it does not belong.
    fn cross_post(&mut self) {
        let (Some(from), Some(to)) = (self.topic(), self.topic()) else {
            return;
        };
        let pick = self.below(self.around.bus.len(&from));
        if let Some(item) = self.around.bus.item(&from, pick)
            && from != to
        {
            let now = self.around.now;
            self.around.bus.put(&to, now, &item);
            self.littered.insert(to.clone());
            let what = format_args!("{} {pick} in {}", short(&from), short(&to));
            self.around.fault("misplace", what);
        }
    }

    /// Puts a topic back to an older state.
    fn truncate(&mut self) {
        let Some(topic) = self.topic() else {
            return;
        };
        let len = self.around.bus.len(&topic);
        if len == 0 {
            return;
        }
        let to = len - 1 - self.below(len.min(4));
        self.around.bus.truncate(&topic, to);
        self.is_calm = false;
        self.around.fault(
            "truncate",
            format_args!("{} to {to} of {len}", short(&topic)),
        );
    }

    /// Puts something on the bus that nobody by the rules wrote.
    fn forge(&mut self) {
        let Some(topic) = self.topic() else {
            return;
        };
        let pick = self.below(self.around.bus.len(&topic));
        let item = self.around.bus.item(&topic, pick);
        let (kind, bytes) = match (self.around.chance.below(3), item) {
            (0, _) | (_, None) => ("garbage", garbage(&mut self.around.chance)),
            (1, Some(item)) => ("bit flip", flipped(&mut self.around.chance, &item)),
            (_, Some(_)) => return self.forge_signed(),
        };
        let now = self.around.now;
        self.around.bus.put(&topic, now, &bytes);
        self.around.fault(kind, format_args!("{}", short(&topic)));
        self.littered.insert(topic);
    }

    fn set_clock(&mut self, who: usize) {
        let skew = match self.around.chance.below(3) {
            0 => 0,
            1 => self.around.chance.below(4_000) as i64 - 2_000,
            _ => self.around.chance.below(800_000) as i64 - 400_000,
        };
        if let Some((device, around)) = self.at(who) {
            if device.was_restored && skew < device.skew_ms {
                return;
            }
            device.skew_ms = skew;
            device.skew_max_ms = skew.max(device.skew_max_ms);
            around.fault("clock", format_args!("d{who} is {skew} ms off"));
        }
    }

    /// Ends a program, or a publisher's device for good.
    fn kill(&mut self, who: usize) {
        let is_for_good = who > 0 && self.around.chance.hits(1, 6);
        if let Some((device, around)) = self.at(who) {
            device.run = None;
            device.is_gone |= is_for_good;
            let how = if is_for_good { " for good" } else { "" };
            around.fault("kill", format_args!("d{who}{how}"));
        }
    }

    /// Puts a home back to an older state.
    pub(crate) fn restore(&mut self, who: usize) {
        if !self.plan.restores {
            return;
        }
        let Some((device, around)) = self.at(who) else {
            return;
        };
        let pick = around.chance.below(device.copies.len() as u64) as usize;
        let Some(copy) = device.copies.get(pick).and_then(|of| of.copied().ok()) else {
            return;
        };
        device.run = None;
        device.home = copy;
        // What it delivered since is not known to it any more.
        device.delivered.get_mut().clear();
        device.parked.get_mut().clear();
        around.fault("old home", format_args!("d{who} to copy {pick}"));
        // It learns what it had done from the bus and its clock, so these must show it.
        around.bus.heal(Some(who));
        device.skew_ms = device.skew_max_ms;
        device.was_restored = true;
        self.is_calm = false;
    }
}

pub(crate) fn garbage(chance: &mut Chance) -> Vec<u8> {
    let len = chance.below(300);
    (0..len).map(|_| chance.below(256) as u8).collect()
}

pub(crate) fn flipped(chance: &mut Chance, item: &[u8]) -> Vec<u8> {
    let mut bytes = item.to_vec();
    let at = chance.below(bytes.len() as u64) as usize;
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 1 << chance.below(8);
    }
    bytes
}
