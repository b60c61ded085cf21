//! What a device does for itself and for others of its user on each bus that it uses, however long
//! it runs: its fallback key is replaced and named there, cards are renewed, the list is brought there.

use sealcast_engine::ControlTopic;
use sealcast_protocol::{CardList, FallbackKey, ListEntry, Position, Unverified};

use crate::blocking::off_thread;
use crate::core::{Core, lock, put_off};
use crate::error::Error;

/// How often it is looked whether there is something to do, in milliseconds.
const TEND_EVERY_MS: u64 = 10 * 60 * 1000;

impl Core {
    /// Whether to look: it was not done in this run, or long ago, or in another week.
    pub(crate) fn is_to_tend(&self) -> bool {
        let now = self.now();
        let is_of_now = |at: Position| {
            now.0.abs_diff(at.0) < TEND_EVERY_MS
                && FallbackKey::period_at(at) == FallbackKey::period_at(now)
        };
        !lock(&self.tended_at).is_some_and(is_of_now)
    }

    /// Replaces the fallback key, or takes over the one that another stream of this home drew. To be
    /// called before the bus is read, since others may use the new key already.
    pub(crate) async fn tend_fallback(&self) -> Result<(), Error> {
        put_off(self.home.tend_fallback(&*self.bus).await)?;
        self.view().set_fallbacks(self.home.fallbacks());
        Ok(())
    }

    /// Takes in what this home has learned on its other buses of the users' device lists: a bus may
    /// withhold that a device is revoked.
    pub(crate) async fn recall_lists(&self) -> Result<(), Error> {
        let vault = self.vault().clone();
        for (user, entry) in off_thread(move || vault.list_entries()).await?? {
            let seq = Unverified::<ListEntry>::decode(entry.expose()).map(|of| of.claims().seq);
            let mut view = self.view();
            let next = view.list(&user).map_or(0, CardList::next_seq);
            if seq.is_ok_and(|seq| seq >= next) {
                view.handle(&ControlTopic::Devices(user), entry.expose());
            }
        }
        Ok(())
    }

    /// Brings the user's device list to the bus, with what is due in it. To be called after the bus
    /// was read, so that it is told first what it lost. Returns whether there is more to read now.
    pub(crate) async fn tend_list(&self) -> Result<bool, Error> {
        let list = match self.home.tend_list(&*self.bus).await {
            Ok(list) => list,
            Err(Error::ListForked | Error::List(_)) => return Ok(false),
            Err(error) => return put_off(Err(error)).map(|()| false),
        };
        let view = self.view();
        let known = view.list(&list.user()).and_then(CardList::pin);
        Ok(known != list.pin())
    }

    /// Notes that this was done.
    pub(crate) fn tended(&self, at: Position) {
        *lock(&self.tended_at) = Some(at);
    }
}
