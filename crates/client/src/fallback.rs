//! The fallback keys of this device: replaced weekly, named on each bus, deleted after two weeks,
//! `spec/devices.md`.

use std::sync::PoisonError;

use sealcast_bus::{Bus, Offset};
use sealcast_engine::{Fallbacks, Space};
use sealcast_protocol::{DeviceId, FallbackKey, Position, UserId};

use crate::blocking::off_thread;
use crate::clock;
use crate::error::Error;
use crate::home::{Inner, topic};
use crate::vault::{Vault, key};

/// Items at the end of a topic among which a fallback key is looked for.
const LOOK_BACK: u64 = 16;
const READ_BYTES: usize = 1 << 16;
/// Items that stay in this device's own topic besides a new one.
const KEPT: u64 = 3;
const FALLBACKS: &[u8] = b"fallbacks";

impl Inner {
    /// Replaces the fallback key when its week is over, and names the newest on a bus that does not
    /// show it.
    pub(crate) async fn tend_fallback(&self, bus: &dyn Bus) -> Result<(), Error> {
        let (vault, store, now) = (self.vault.clone(), self.store.clone(), self.now());
        let fallbacks = off_thread(move || {
            let (fallbacks, is_new) = vault.rotate_fallbacks(now)?;
            if is_new {
                // Where another process is at work, the log is emptied when the last of them ends.
                let _is_empty = store.purge().is_ok();
            }
            Ok::<_, Error>(fallbacks)
        });
        let fallbacks = fallbacks.await??;
        let named = fallbacks.announcement(&self.identity);
        *self
            .fallbacks
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = fallbacks;
        let named = named.map_err(|_| Error::Internal("a fallback key is odd"))?;
        let Some(named) = named else {
            return Ok(());
        };
        let device = self.identity.device();
        let shown = newest_items(bus, &device).await?;
        if !shown.iter().any(|item| item == named.wire()) {
            let own = topic(&device.fallback_topic())?;
            let at = bus.append(&own, vec![named.wire().to_vec()]).await?;
            let old = Offset(at.0.saturating_sub(KEPT));
            // What is not removed now is removed in a week.
            let _is_trimmed = bus.trim(&own, old).await.is_ok();
        }
        Ok(())
    }

    /// The fallback keys, for a view to open with.
    pub(crate) fn fallbacks(&self) -> Fallbacks {
        let fallbacks = self.fallbacks.lock();
        fallbacks
            .unwrap_or_else(PoisonError::into_inner)
            .duplicate()
    }

    /// Whether a week has begun since the newest fallback key was drawn.
    pub(crate) fn owes_fallback(&self) -> bool {
        let fallbacks = self.fallbacks.lock();
        let period = fallbacks.unwrap_or_else(PoisonError::into_inner).period();
        period.is_none_or(|period| period < FallbackKey::period_at(self.now()))
    }
}

impl Vault {
    pub(crate) fn fallbacks(&self) -> Result<Fallbacks, Error> {
        let value = self.0.get(&key(Space::Home, &[FALLBACKS]))?;
        let read = value.and_then(|value| Fallbacks::from_bytes(value.expose()));
        Ok(read.unwrap_or_default())
    }

    /// Draws the key of this week, with all other processes of the home shut out, and deletes those
    /// that have served. Returns whether it drew one.
    fn rotate_fallbacks(&self, now: Position) -> Result<(Fallbacks, bool), Error> {
        let place = key(Space::Home, &[FALLBACKS]);
        sealcast_store::transact_with(&*self.0, |txn| {
            let value = txn.get(&place)?;
            let read = value.and_then(|value| Fallbacks::from_bytes(value.expose()));
            let mut fallbacks = read.unwrap_or_default();
            let is_new = fallbacks.rotate(&mut clock::rng(), now);
            if is_new {
                txn.put(&place, fallbacks.to_bytes().expose())?;
            }
            Ok((fallbacks, is_new))
        })
    }
}

/// The period of the newest fallback key that a bus shows of a device.
pub(crate) async fn newest_period(
    bus: &dyn Bus,
    user: &UserId,
    device: &DeviceId,
    sign_key: &sealcast_crypto::VerifyingKey,
    now: Position,
) -> Result<Option<u32>, Error> {
    let items = newest_items(bus, device).await?;
    let newest = FallbackKey::newest(user, sign_key, items.iter().map(Vec::as_slice), now);
    Ok(newest.map(|(period, _)| period))
}

async fn newest_items(bus: &dyn Bus, device: &DeviceId) -> Result<Vec<Vec<u8>>, Error> {
    let own = topic(&device.fallback_topic())?;
    let end = bus.end(&own).await?;
    let from = Offset(end.0.saturating_sub(LOOK_BACK));
    let items = match from < end {
        true => bus.read(&own, from, READ_BYTES).await?,
        false => Vec::new(),
    };
    Ok(items.into_iter().map(|item| item.payload).collect())
}
