//! Clients that have left while what they said last is still on its way to the broker.
//!
//! Whoever comes again at once has another connection to the broker, on which it may be heard before the former is read to its
//! end, which a broker does not do then. So it waits for that.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sealcast::ShelfOwner;
use tokio::sync::watch;
use tokio::time::timeout;

/// How long after a client has left that is seen at the latest.
const MOMENT: Duration = Duration::from_millis(50);
/// How long is waited for what it said to arrive.
const WITHIN: Duration = Duration::from_secs(10);

/// The last connection of each client.
#[derive(Debug, Default)]
pub(crate) struct Leaving(Mutex<BTreeMap<ShelfOwner, Last>>);

#[derive(Debug)]
struct Last {
    connection: u64,
    has_left: watch::Receiver<bool>,
    is_over: watch::Receiver<()>,
}

/// A connection, as who comes after it sees it.
#[derive(Debug)]
pub(crate) struct Presence {
    leaving: Arc<Leaving>,
    owner: Option<ShelfOwner>,
    connection: u64,
    has_left: watch::Sender<bool>,
    /// Whoever waits for it sees that it is dropped.
    _is_over: watch::Sender<()>,
}

impl Leaving {
    /// A connection of a client begins, once what the client said over the former has arrived if it has left that. Who has no
    /// name comes for the first time.
    pub(crate) async fn after(
        self: &Arc<Self>,
        owner: Option<ShelfOwner>,
        connection: u64,
    ) -> Presence {
        let (left, has_left) = watch::channel(false);
        let (over, is_over) = watch::channel(());
        let presence = Presence {
            leaving: Arc::clone(self),
            owner,
            connection,
            has_left: left,
            _is_over: over,
        };
        let last = Last {
            connection,
            has_left,
            is_over,
        };
        let former = owner.and_then(|owner| self.all().insert(owner, last));
        if let Some(former) = former {
            former.ends().await;
        }
        presence
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<ShelfOwner, Last>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Last {
    /// Waits until it is over, where its client has left.
    async fn ends(mut self) {
        let left = self.has_left.wait_for(|has_left| *has_left);
        let has_left = timeout(MOMENT, left).await.is_ok_and(|of| of.is_ok());
        if has_left {
            // Nobody ever says anything: it fails when the connection is over.
            let _is_over = timeout(WITHIN, self.is_over.changed()).await.is_ok();
        }
    }
}

impl Presence {
    /// Where it is told that the client has left.
    pub(crate) fn has_left(&self) -> watch::Sender<bool> {
        self.has_left.clone()
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        let Some(owner) = self.owner else {
            return;
        };
        let mut all = self.leaving.all();
        if all
            .get(&owner)
            .is_some_and(|of| of.connection == self.connection)
        {
            all.remove(&owner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_comes_again_waits_for_what_was_said_before_and_nothing_is_kept_of_who_is_gone() {
        let leaving = Arc::<Leaving>::default();
        let owner = Some(ShelfOwner([1; 16]));
        let first = leaving.after(owner, 1).await;
        // It is there still.
        let second = leaving.after(owner, 2).await;
        drop(first);
        second.has_left().send_replace(true);
        let third = leaving.after(owner, 3);
        let mut third = std::pin::pin!(third);
        tokio::select! {
            biased;
            _ = &mut third => panic!("it does not wait"),
            () = tokio::task::yield_now() => {}
        }
        drop(second);
        drop(third.await);
        assert!(leaving.all().is_empty());
        drop((leaving.after(None, 4).await, leaving.after(None, 5).await));
    }
}
