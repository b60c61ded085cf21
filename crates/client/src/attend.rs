//! Following a stream without its messages.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sealcast_bus::Tail;
use sealcast_protocol::{DeviceId, Position};
use tokio::time::timeout;

use crate::blocking::off_thread;
use crate::core::Core;
use crate::error::Error;
use crate::share::Shared;

/// How often the bus is looked at though it tells nothing new: one that was put back to an older
/// state may not tell.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// How long until a revoked device is taken out that a bus did not let be taken out, in milliseconds.
const AGAIN_MS: u64 = 10 * 60 * 1000;

/// Follows a stream's access log, session records and keys, not its messages; made by
/// [`Stream::attend`](crate::Stream::attend).
///
/// While one is driven, whoever is granted something gets the keys, as far as this device may hand
/// them out, what the bus lost is put back, and devices of the user that were revoked while the stream
/// could not be reached are taken out of it.
///
/// ```no_run
/// # async fn doc(stream: sealcast::Stream) -> Result<(), sealcast::Error> {
/// let mut attendant = stream.attend();
/// loop {
///     let attended = attendant.next().await?;
///     println!("{} bundles handed out", attended.bundles);
/// }
/// # }
/// ```
pub struct Attendant {
    core: Arc<Core>,
    tail: Option<(Box<dyn Tail>, usize)>,
    is_due: bool,
    /// What was handed out and told already.
    told: Shared,
    /// Revoked devices of the user, and before when they need not be looked at again.
    taken_out: BTreeMap<DeviceId, Position>,
}

/// What one step of an [`Attendant`] came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attended {
    /// Bundles of keys that were handed out since the last one, by any handle of the stream's run.
    pub bundles: u64,
    /// Bytes of these bundles.
    pub bundle_bytes: u64,
}

impl Attendant {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self {
            core,
            tail: None,
            is_due: true,
            told: Shared::default(),
            taken_out: BTreeMap::new(),
        }
    }

    /// Waits until the access log or the keys change, takes the change in, and hands out the keys
    /// that are due then. The first call does not wait. A caller may stop waiting and come back:
    /// nothing is lost.
    ///
    /// # Errors
    ///
    /// Fails when bus or store cannot be read or written; it may be called again, after a while,
    /// and goes on.
    pub async fn next(&mut self) -> Result<Attended, Error> {
        while !self.is_due {
            let Some((tail, _)) = &mut self.tail else {
                break;
            };
            if let Ok(news) = timeout(LOOK_AGAIN, tail.next()).await {
                drop(news?);
            }
            self.is_due = true;
        }
        self.core.sync().await?;
        self.take_out_revoked().await?;
        self.core.share_owed().await?;
        let topics = self.core.control_places().await?;
        if self.tail.as_ref().is_none_or(|(_, of)| *of != topics.len()) {
            let count = topics.len();
            self.tail = Some((self.core.bus.tail(topics), count));
        }
        self.is_due = false;
        let (told, now) = (self.told, *self.core.handed_out());
        self.told = now;
        Ok(Attended {
            bundles: (now.bundles - told.bundles) as u64,
            bundle_bytes: (now.bytes - told.bytes) as u64,
        })
    }

    /// Each once: where it has no effect, it would have none the next time either. What a bus does not
    /// take is tried again, and keeps nobody from being given keys.
    async fn take_out_revoked(&mut self) -> Result<(), Error> {
        let now = self.core.now();
        for device in self.core.revoked_and_not_out() {
            if self.taken_out.get(&device).is_some_and(|at| now < *at) {
                continue;
            }
            let (vault, user) = (self.core.vault().clone(), self.core.identity().user());
            let proof = off_thread(move || vault.revocation_of(user, device)).await??;
            let again = match proof {
                Some(proof) => match self.core.revoke_own_device(device, &proof).await {
                    Err(error @ Error::Store(_)) => return Err(error),
                    Ok(()) | Err(Error::NotAllowed(_) | Error::Forked) => Position::END,
                    Err(_) => now.after(AGAIN_MS),
                },
                None => Position::END,
            };
            self.taken_out.insert(device, again);
        }
        Ok(())
    }
}

impl fmt::Debug for Attendant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attendant")
            .field("is_due", &self.is_due)
            .finish_non_exhaustive()
    }
}
