//! The fallback keys of this device: replaced weekly, named on each bus, deleted after two weeks,
//! `spec/devices.md`.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use sealcast_bus::{Bus, Offset};
use sealcast_engine::{Fallbacks, Space};
use sealcast_protocol::{DeviceId, FallbackKey, Position, Signable as _, UserId};

use crate::blocking::off_thread;
use crate::clock;
use crate::error::Error;
use crate::home::{Inner, topic};
use crate::vault::{FALLBACKS, Vault, key};

/// Items at the end of a topic among which a fallback key is looked for.
const LOOK_BACK: u64 = 16;
const READ_BYTES: usize = 1 << 16;
/// Items that stay in this device's own topic besides a new one.
const KEPT: u64 = 3;

impl Inner {
    /// Replaces the fallback key when its week is over, and names the newest on a bus that does not
    /// show it.
    pub(crate) async fn tend_fallback(&self, bus: &dyn Bus) -> Result<(), Error> {
        let (vault, store, now) = (self.vault.clone(), self.store.clone(), self.now());
        let owed = self.owes_purge.load(Ordering::Relaxed);
        let fallbacks = off_thread(move || {
            let (fallbacks, is_new) = vault.rotate_fallbacks(now)?;
            // Where another process is at work now, the log is emptied when the last of them ends, or
            // when this one comes back.
            let is_owed = (owed || is_new) && store.purge().is_err();
            Ok::<_, Error>((fallbacks, is_owed))
        });
        let (fallbacks, is_owed) = fallbacks.await??;
        self.owes_purge.store(is_owed, Ordering::Relaxed);
        let named = fallbacks.announcement(&self.identity, now);
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
}

impl Vault {
    pub(crate) fn fallbacks(&self) -> Result<Fallbacks, Error> {
        let value = self.0.get(&key(Space::Home, &[FALLBACKS]))?;
        let read = value.and_then(|value| Fallbacks::from_bytes(value.expose()));
        Ok(read.unwrap_or_default())
    }

    /// Draws the key of this week, with all other processes of the home shut out, and deletes those
    /// that have served. Returns whether it changed anything.
    fn rotate_fallbacks(&self, now: Position) -> Result<(Fallbacks, bool), Error> {
        let place = key(Space::Home, &[FALLBACKS]);
        sealcast_store::transact_with(&*self.0, |txn| {
            let value = txn.get(&place)?;
            let read = value.and_then(|value| Fallbacks::from_bytes(value.expose()));
            let mut fallbacks = read.unwrap_or_default();
            let has_changed = fallbacks.rotate(&mut clock::rng(), now);
            if has_changed {
                txn.put(&place, fallbacks.to_bytes().expose())?;
            }
            Ok((fallbacks, has_changed))
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
    let mut at = Offset(end.0.saturating_sub(LOOK_BACK));
    let mut newest = Vec::new();
    while at < end {
        let items = bus.read(&own, at, READ_BYTES).await?;
        let Some(last) = items.last() else {
            break;
        };
        at = Offset(last.offset.0.saturating_add(1));
        // Rubbish takes no room here, however long it is.
        let items = items.into_iter().map(|item| item.payload);
        newest.extend(items.filter(|item| item.len() <= FallbackKey::LEN_MAX));
    }
    Ok(newest)
}
