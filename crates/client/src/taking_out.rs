//! Taking revoked devices of the user out of a stream, `spec/devices.md`, section "Proof of revocation".

use std::sync::Arc;

use sealcast_protocol::{CardList, DeviceId, DeviceTarget, LogBody, Position, Revoke, Targets};

use crate::core::Core;
use crate::error::Error;

/// How long the command that revokes a device has to take it out of a stream before others do, in
/// milliseconds.
const COMMAND_MS: u64 = 60_000;

impl Core {
    /// Devices of this user whose cards are revoked, and have been for a while, and that the log has not
    /// taken out.
    pub(crate) fn revoked_and_not_out(&self) -> Vec<DeviceId> {
        let (view, now) = (self.view(), self.now());
        let (me, _) = view.me();
        let devices = view.list(&me).into_iter().flat_map(CardList::devices);
        let is_due = |out: Position| out.after(COMMAND_MS) <= now;
        let revoked = devices.filter(|(_, of)| of.revoked.is_some_and(is_due));
        let left = revoked.filter(|(device, _)| !view.state().is_out(&me, device));
        left.map(|(device, _)| *device).collect()
    }

    /// Takes a device of this user out of the stream, with the proof that its card is revoked, unless
    /// that was done or the stream does not name the user.
    pub(crate) async fn revoke_own_device(
        self: &Arc<Self>,
        device: DeviceId,
        proof: &[u8],
    ) -> Result<(), Error> {
        self.sync().await?;
        let has_lane = self.has_lane();
        {
            let view = self.view();
            let (me, _) = view.me();
            let is_named = view.log().named_users().contains(&me);
            if !is_named || view.state().is_out(&me, &device) {
                return Ok(());
            }
        }
        let last = match self.publishes() {
            true => self.last_of_devices(Vec::from([device])).await?,
            false => Vec::new(),
        };
        let target = DeviceTarget {
            user: self.identity().user(),
            device,
            proof: proof.to_vec(),
        };
        let revoke = LogBody::Revoke(Revoke {
            targets: Targets::Devices(Vec::from([target])),
            last,
        });
        self.write(self.now(), revoke).await?;
        if has_lane {
            self.cut_session().await?;
        }
        Ok(())
    }
}
