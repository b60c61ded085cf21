//! Taking out another device of one's own user.

use sealcast_protocol::{DeviceId, DeviceTarget, LogBody, Revoke, Roles, Targets};

use super::Acting;
use crate::around::Stop;

impl Acting<'_> {
    /// Keeps an entry of the own device list, and puts the list on the bus.
    pub(crate) fn put_on_list(&mut self, seq: u32, entry: &[u8]) -> Result<(), Stop> {
        let user = self.device.user();
        self.device.home.put_list_entry(&user, seq, entry)?;
        self.publish_cards()
    }

    /// Takes a device of this user out of the stream, with the proof that its card is revoked, unless
    /// that was done or the stream does not name the user.
    pub(crate) fn revoke_own_device(&mut self, device: DeviceId, proof: &[u8]) -> Result<(), Stop> {
        self.sync()?;
        let has_lane = self.has_lane();
        let (me, _) = self.run.view.me();
        let is_named = self.run.view.log().named_users().contains(&me);
        if !is_named || self.run.view.state().is_out(&me, &device) {
            return Ok(());
        }
        let last = match self.publishes() {
            true => self.last_of_devices([device])?,
            false => Vec::new(),
        };
        let target = DeviceTarget {
            user: me,
            device,
            proof: proof.to_vec(),
        };
        let revoke = LogBody::Revoke(Revoke {
            targets: Targets::Devices(vec![target]),
            last,
        });
        self.write(self.now(), revoke)?;
        if has_lane {
            self.cut_session()?;
        }
        Ok(())
    }

    /// Whether devices of this user may have published at some time.
    fn publishes(&self) -> bool {
        let (me, _) = self.run.view.me();
        let state = self.run.view.state();
        let mut grants = state.grants().iter();
        state.owner() == me
            || grants.any(|of| {
                let roles = of.grant.roles;
                of.grant.user == me
                    && (roles.contains(Roles::PUBLISHER) || roles.contains(Roles::ADMIN))
            })
    }
}
