//! What users do to the lists of their devices: cards are renewed, devices are taken out.

use sealcast_protocol::{CardRevocation, DeviceId, ListBody, Position};

use crate::around::Stop;
use crate::violation::Violation;
use crate::world::World;

/// A device whose card is revoked, and the entry that says so.
#[derive(Clone, Debug)]
pub(crate) struct Removed {
    pub(crate) user: usize,
    device: DeviceId,
    proof: Vec<u8>,
}

impl World {
    /// A user renews a card, or takes out a device that was added.
    pub(crate) fn change_list(&mut self) -> Result<(), Stop> {
        let user = self.below(self.users.len());
        let devices = self.users.get(user).map(|of| of.devices.clone());
        let Some((first, more)) = devices.as_deref().and_then(<[usize]>::split_first) else {
            return Ok(());
        };
        if !self.running().contains(first) {
            return Ok(());
        }
        let pick = self.below(more.len());
        match more.get(pick).filter(|_| self.around.chance.hits(3, 4)) {
            Some(at) => self.remove_device(user, *first, *at),
            None => self.renew_card(user, *first),
        }
    }

    fn renew_card(&mut self, user: usize, first: usize) -> Result<(), Stop> {
        let now = Position(self.around.now);
        let Some(device) = self.devices.get(first) else {
            return Ok(());
        };
        let card = device.identity.card(now);
        self.around.note(first, format_args!("renews its card"));
        self.write_list(user, first, card).map(|_| ())
    }

    fn remove_device(&mut self, user: usize, first: usize, at: usize) -> Result<(), Stop> {
        let device = self.devices.get(at).map(|of| of.identity.device());
        let Some(device) = device.filter(|of| !self.around.ground.is_ever_out(of)) else {
            return Ok(());
        };
        let time = Position(self.around.now);
        self.around.ground.took_out(device);
        self.around.note(first, format_args!("takes d{at} out"));
        let out = ListBody::Revoke(CardRevocation { device, time });
        let (proof, written) = self.append_list(user, first, out)?;
        let removed = Removed {
            user,
            device,
            proof,
        };
        self.removed.push(removed.clone());
        written?;
        self.finish_removal(&removed)
    }

    /// What a crash left undone of a removal.
    pub(crate) fn finish_removal(&mut self, removed: &Removed) -> Result<(), Stop> {
        let first = self
            .users
            .get(removed.user)
            .and_then(|of| of.devices.first());
        let Some(first) = first.copied().filter(|at| self.running().contains(at)) else {
            return Ok(());
        };
        match self.at(first) {
            Some((device, around)) => device.act(around, |acting| {
                acting.publish_cards()?;
                acting.revoke_own_device(removed.device, &removed.proof)
            }),
            None => Ok(()),
        }
    }

    fn write_list(&mut self, user: usize, first: usize, body: ListBody) -> Result<(), Stop> {
        let (_, written) = self.append_list(user, first, body)?;
        written
    }

    /// Signs an entry of a user's list and hands it to the user's first device. Returns the entry,
    /// and what came of that.
    fn append_list(
        &mut self,
        user: usize,
        first: usize,
        body: ListBody,
    ) -> Result<(Vec<u8>, Result<(), Stop>), Stop> {
        let now = Position(self.around.now);
        let (users, devices) = (&mut self.users, &mut self.devices);
        let Some((of, device)) = users.get_mut(user).zip(devices.get_mut(first)) else {
            return Err(Violation::Odd("a user without a device").into());
        };
        let root = device.identity.root();
        let root = root.ok_or(Violation::Odd("a first device without the root key"))?;
        let seq = of.list.next_seq();
        let entry = of.list.append(root, now, body);
        let entry = entry.map_err(|_| Violation::Odd("an entry of a device list"))?;
        let entry = entry.wire().to_vec();
        let written = device.act(&mut self.around, |acting| acting.put_on_list(seq, &entry));
        Ok((entry, written))
    }
}
