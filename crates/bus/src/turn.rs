use tokio::sync::watch;

use crate::BusError;

/// How far an append in turn has come. One that fails ends without having been stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    SettingOut,
    UnderWay,
    Landed,
    Stored,
}

/// Lets the appends of one writer to one topic set out one after the other, each while those ahead of it are under way.
///
/// Once one has failed, all behind it do. Whoever makes them again begins with new turns.
#[derive(Debug, Default)]
pub struct Turns {
    ahead: Option<watch::Receiver<Stage>>,
}

/// The turn of one append: handed to [`Bus::append_in_turn`](crate::Bus::append_in_turn), made by [`Turns::next`].
#[derive(Debug)]
pub struct Turn {
    ahead: Option<watch::Receiver<Stage>>,
    own: watch::Sender<Stage>,
}

/// Which append it was that had a turn.
#[derive(Clone, Debug)]
pub struct TurnMark(watch::Receiver<Stage>);

impl TurnMark {
    /// Whether both mark the same append.
    pub fn is(&self, other: &Self) -> bool {
        self.0.same_channel(&other.0)
    }
}

impl Turns {
    /// Waits until the next append may set out. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Turn {
        if let Some(ahead) = &mut self.ahead {
            // One that is gone does not keep the next from learning that.
            let _is_under_way = ahead
                .wait_for(|stage| *stage != Stage::SettingOut)
                .await
                .is_ok();
        }
        let (own, stage) = watch::channel(Stage::SettingOut);
        let ahead = self.ahead.replace(stage);
        Turn { ahead, own }
    }
}

impl Turn {
    /// Lets the next append set out. It does not overtake this one, for it waits for [`come`](Self::come).
    pub fn pass(&self) {
        self.reach(Stage::UnderWay);
    }

    /// Says that the server has this append, where something is to be done yet before it is stored.
    pub fn land(&self) {
        self.reach(Stage::Landed);
    }

    /// Returns when the server has the append ahead.
    ///
    /// # Errors
    ///
    /// [`BusError::OutOfTurn`] where the one ahead failed before.
    pub async fn ahead_landed(&mut self) -> Result<(), BusError> {
        self.ahead_reached(Stage::Landed).await
    }

    /// Returns when the append ahead is stored. Nothing may be added before, unless it cannot stay without that one.
    ///
    /// # Errors
    ///
    /// [`BusError::OutOfTurn`] where the one ahead failed.
    pub async fn come(&mut self) -> Result<(), BusError> {
        self.ahead_reached(Stage::Stored).await
    }

    /// Whether the append ahead has failed.
    pub fn has_failed(&self) -> bool {
        let has_ended = |ahead: &watch::Receiver<Stage>| ahead.has_changed().is_err();
        self.ahead
            .as_ref()
            .is_some_and(|ahead| has_ended(ahead) && *ahead.borrow() != Stage::Stored)
    }

    /// Returns only once the append ahead has failed: whoever prepares one need not go on.
    pub async fn is_lost(&mut self) {
        if self.come().await.is_ok() {
            std::future::pending().await
        }
    }

    /// Makes the append when it is its turn, and says that it is stored.
    ///
    /// # Errors
    ///
    /// [`BusError::OutOfTurn`] where the one ahead failed; otherwise what the append fails with.
    pub async fn take<T>(
        mut self,
        append: impl Future<Output = Result<T, BusError>>,
    ) -> Result<(), BusError> {
        self.come().await?;
        append.await?;
        self.stored();
        Ok(())
    }

    /// Marks the append, for a bus that has to know it again.
    pub fn mark(&self) -> TurnMark {
        TurnMark(self.own.subscribe())
    }

    /// Whether it is the next one behind an append.
    pub fn is_behind(&self, mark: &TurnMark) -> bool {
        let ahead = self.ahead.as_ref();
        ahead.is_some_and(|ahead| ahead.same_channel(&mark.0))
    }

    /// Says that this append is stored. A turn that is dropped without says that it failed.
    pub fn stored(self) {
        self.own.send_replace(Stage::Stored);
    }

    fn reach(&self, reached: Stage) {
        self.own.send_if_modified(|stage| {
            let is_new = *stage < reached;
            *stage = reached.max(*stage);
            is_new
        });
    }

    async fn ahead_reached(&mut self, reached: Stage) -> Result<(), BusError> {
        if let Some(ahead) = &mut self.ahead {
            let came = ahead.wait_for(|stage| *stage >= reached).await;
            came.map_err(|_| BusError::OutOfTurn)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    /// Whether it is waited for. The clock goes on only while nobody has anything to do.
    async fn is_awaited<T>(coming: impl Future<Output = T>) -> bool {
        timeout(Duration::from_secs(1), coming).await.is_err()
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_sets_out_when_one_passes_and_comes_when_it_is_stored() {
        let mut turns = Turns::default();
        let mut first = turns.next().await;
        assert!(first.come().await.is_ok());
        assert!(is_awaited(turns.next()).await);
        first.pass();
        let mut second = turns.next().await;
        assert!(second.is_behind(&first.mark()) && !first.is_behind(&second.mark()));
        assert!(is_awaited(second.come()).await);
        first.stored();
        assert!(second.come().await.is_ok() && !second.has_failed());
        assert!(is_awaited(second.is_lost()).await);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_has_landed_lets_the_next_follow_to_the_server_and_no_further() {
        let mut turns = Turns::default();
        let mut first = turns.next().await;
        assert!(first.ahead_landed().await.is_ok());
        first.pass();
        let mut second = turns.next().await;
        assert!(is_awaited(second.ahead_landed()).await);
        first.land();
        first.pass();
        assert!(second.ahead_landed().await.is_ok());
        assert!(is_awaited(second.come()).await);
        second.pass();
        let mut third = turns.next().await;
        first.stored();
        assert!(second.come().await.is_ok());
        drop(second);
        let failed = third.ahead_landed().await;
        assert!(matches!(failed, Err(BusError::OutOfTurn)));
    }

    #[tokio::test(start_paused = true)]
    async fn all_behind_one_that_failed_fail() {
        let mut turns = Turns::default();
        let first = turns.next().await;
        first.pass();
        let mut second = turns.next().await;
        second.pass();
        let mut third = turns.next().await;
        drop(first);
        assert!(matches!(second.come().await, Err(BusError::OutOfTurn)));
        assert!(second.has_failed() && !third.has_failed());
        drop(second);
        third.is_lost().await;
        assert!(matches!(third.come().await, Err(BusError::OutOfTurn)));
        drop(third);
        let mut fourth = turns.next().await;
        assert!(matches!(fourth.come().await, Err(BusError::OutOfTurn)));
        assert!(Turns::default().next().await.come().await.is_ok());
    }
}
