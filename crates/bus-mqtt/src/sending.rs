//! What this process publishes on data topics, and puts in the mirror itself.
//!
//! Where it feeds the mirror, it publishes over the connection that feeds, over which the broker does not bring it
//! back. So that nothing is missing in the mirror that others have when this process is killed between the two,
//! it notes in a file before what it is about to publish; whoever feeds next takes that in.

mod notes;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use sealcast_bus::{Arrival, BusError, Offset, Turn};
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use crate::fault::Fault;
use crate::feed::MIRROR_PAUSE;
use crate::home::Home;
use crate::line::Line;
use crate::link::{Link, PATIENCE, landed};
use crate::packet::Publish;
use notes::{Left, Note, Notes};

/// What is on its way over the connection that feeds.
#[derive(Debug)]
pub(crate) struct Sending {
    notes: Notes,
    state: Mutex<State>,
    /// Something is in the mirror, or will not be.
    less: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// The connection that feeds, while this process does.
    way: Weak<Link>,
    /// The numbers of appends that are not settled.
    under_way: BTreeSet<u64>,
    next: u64,
}

/// What leaves.
pub(crate) struct Leaving {
    /// The messages in which it travels.
    pub(crate) all: Vec<Publish>,
    /// What is put in the mirror.
    pub(crate) arrivals: Arc<[Arrival]>,
    /// Where another append is ahead of it, or may be behind.
    pub(crate) turn: Option<Turn>,
}

/// An append that is not settled until this is dropped.
struct UnderWay {
    home: Arc<Home>,
    number: u64,
}

impl Sending {
    /// With notes in a folder, which is made when there is something to note.
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self {
            notes: Notes::new(folder),
            state: Mutex::default(),
            less: Notify::new(),
        }
    }

    /// Says over which connection this process feeds, as long as that lasts.
    pub(crate) fn set_way(&self, link: &Arc<Link>) {
        self.state().way = Arc::downgrade(link);
    }

    /// The connection that feeds, where the broker does not bring back what came over it.
    fn way(&self) -> Option<Arc<Link>> {
        let way = self.state().way.upgrade();
        way.filter(|link| link.has_of_others())
    }

    /// Returns when all that is on its way now is in the mirror, or will not be.
    pub(crate) async fn settled(&self) {
        let end = self.state().next;
        self.settled_before(end).await;
    }

    /// The same for what set out before a number.
    async fn settled_before(&self, end: u64) {
        loop {
            let less = self.less.notified();
            let first = self.state().under_way.first().copied();
            if first.is_none_or(|first| first >= end) {
                return;
            }
            less.await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UnderWay {
    fn begin(home: &Arc<Home>) -> Self {
        let mut state = home.sending.state();
        let number = state.next;
        state.next += 1;
        state.under_way.insert(number);
        let home = Arc::clone(home);
        Self { home, number }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let sending = &self.home.sending;
        sending.state().under_way.remove(&self.number);
        sending.less.notify_waiters();
    }
}

/// Takes in what processes that were killed had noted.
pub(crate) async fn recover(home: &Home) -> Result<(), BusError> {
    for path in home.sending.notes.places().await {
        let Some(left) = Left::at(path).await else {
            continue;
        };
        let arrivals = left.arrivals();
        if !arrivals.is_empty() {
            home.take_in(arrivals, MIRROR_PAUSE).await?;
        }
        left.done();
    }
    Ok(())
}

/// Has the broker take what was appended to data topics, and then puts it in the mirror; returns where the first
/// of it lies.
pub(crate) async fn leave(
    home: &Arc<Home>,
    line: &Arc<Line>,
    leaving: Leaving,
) -> Result<Offset, BusError> {
    let Some(way) = home.sending.way() else {
        return leave_by_line(home, line, leaving).await;
    };
    let under_way = UnderWay::begin(home);
    let Some(note) = home.sending.notes.note(Arc::clone(&leaving.arrivals)).await else {
        drop(under_way);
        return leave_by_line(home, line, leaving).await;
    };
    let (tell, told) = oneshot::channel();
    let line = Arc::clone(line);
    // Nobody else puts it in the mirror: it goes on when the caller stops waiting.
    let way = Arc::downgrade(&way);
    tokio::spawn(async move { leave_by_way(way, &line, (under_way, note), leaving, tell).await });
    told.await
        .unwrap_or_else(|_| Err(BusError::Backend("a task ended early".into())))
}

async fn leave_by_way(
    way: Weak<Link>,
    line: &Line,
    (under_way, note): (UnderWay, Note),
    leaving: Leaving,
    tell: oneshot::Sender<Result<Offset, BusError>>,
) {
    let Leaving {
        all,
        arrivals,
        mut turn,
    } = leaving;
    let home = &under_way.home;
    if let Err(failed) = follow(&mut turn).await {
        home.sending.notes.settle(note);
        // Whoever waits may have left.
        let _is_told = tell.send(Err(failed)).is_ok();
        return;
    }
    let publishing = async {
        // It ends when this process feeds no more.
        let flying = match way.upgrade() {
            Some(way) => way.set_out_all(all.clone()).await?,
            None => return Err(Fault::Closed),
        };
        landed(flying).await
    };
    let published = timeout(PATIENCE, publishing).await;
    let published = match published.map_err(|_| Fault::Late).flatten() {
        Err(Fault::Closed) => line.link.publish_all(all).await,
        published => published,
    };
    let outcome = match published {
        Ok(()) => take_in(home, Arc::clone(&arrivals), &mut turn).await,
        Err(fault) => Err(line.fault(fault)),
    };
    let left = match outcome {
        Err(BusError::Full { .. } | BusError::Busy { .. }) => Err(line.fault(Fault::Late)),
        Err(BusError::OutOfTurn) => Err(BusError::OutOfTurn),
        outcome => {
            home.sending.notes.settle(note);
            let first = outcome.map(|offsets| offsets.first().copied().unwrap_or_default());
            // Before whoever waits asks how far the mirror is.
            drop(under_way);
            if let (Ok(_), Some(turn)) = (&first, turn) {
                turn.stored();
            }
            let _is_told = tell.send(first).is_ok();
            return;
        }
    };
    // The broker has it, and it does not come back.
    let _is_told = tell.send(left).is_ok();
    drop(turn);
    home.sending.settled_before(under_way.number).await;
    let _taken_in = home.take_in(arrivals, MIRROR_PAUSE).await;
    home.sending.notes.settle(note);
}

/// Lets the next get ready, and returns when the broker has what is ahead.
async fn follow(turn: &mut Option<Turn>) -> Result<(), BusError> {
    let Some(turn) = turn else { return Ok(()) };
    turn.pass();
    turn.ahead_landed().await?;
    match turn.has_failed() {
        true => Err(BusError::OutOfTurn),
        false => Ok(()),
    }
}

/// Puts in the mirror what the broker has, behind what is ahead of it. The next may leave.
async fn take_in(
    home: &Home,
    arrivals: Arc<[Arrival]>,
    turn: &mut Option<Turn>,
) -> Result<Vec<Offset>, BusError> {
    if let Some(turn) = turn {
        turn.land();
        turn.come().await?;
    }
    home.mirror.take_in(arrivals).await
}

/// The same over a connection of its own, so that the broker may bring it back.
async fn leave_by_line(home: &Home, line: &Line, leaving: Leaving) -> Result<Offset, BusError> {
    let Leaving {
        all,
        arrivals,
        mut turn,
    } = leaving;
    follow(&mut turn).await?;
    let writing = home.own_back.begin(&all);
    let published = line.link.publish_all(all).await;
    published.map_err(|fault| line.fault(fault))?;
    let offsets = match take_in(home, arrivals, &mut turn).await {
        // The broker has it, so that it may come all the same.
        Err(BusError::Full { .. } | BusError::Busy { .. }) => return Err(line.fault(Fault::Late)),
        taken_in => taken_in?,
    };
    writing.taken_in();
    if let Some(turn) = turn {
        turn.stored();
    }
    Ok(offsets.first().copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sealcast_bus::{Bus as _, Topic, Turns};

    use super::*;

    fn arrival(id: u8) -> Arrival {
        Arrival {
            topic: Topic::new("s/1f/data").unwrap(),
            id: [id; 16],
            stamp: 0,
            payloads: vec![vec![id; 3].into()],
            is_own: true,
            parts: 0,
        }
    }

    #[tokio::test]
    async fn what_a_process_noted_that_was_killed_is_in_the_mirror_when_the_next_has_begun() {
        let folder = tempfile::tempdir().unwrap();
        let killed = Home::open(folder.path()).await.unwrap();
        let noted = killed.sending.notes.note([arrival(1)]).await.unwrap();
        let done = killed.sending.notes.note([arrival(2)]).await.unwrap();
        killed.sending.notes.settle(done);
        let next = Home::open(folder.path()).await.unwrap();
        recover(&next).await.unwrap();
        let data = arrival(1).topic;
        assert_eq!(next.mirror.bus().end(&data).await.unwrap(), Offset(0));
        drop((killed, noted));
        for _ in 0..2 {
            recover(&next).await.unwrap();
            assert_eq!(next.mirror.bus().end(&data).await.unwrap(), Offset(1));
        }
        let origin = next.mirror.origins(&data, Offset(0), 2).await.unwrap()[0];
        assert!(origin.is_own && origin.id == [1; 16]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_ready_leaves_when_the_broker_has_what_is_ahead_and_not_where_that_failed() {
        let mut turns = Turns::default();
        let mut first = Some(turns.next().await);
        follow(&mut first).await.unwrap();
        let mut second = Some(turns.next().await);
        let early = timeout(Duration::from_secs(1), follow(&mut second)).await;
        assert!(early.is_err());
        let mut third = Some(turns.next().await);
        first.as_ref().unwrap().land();
        follow(&mut second).await.unwrap();
        // It has landed, and is not stored.
        second.as_ref().unwrap().land();
        drop(second);
        let failed = follow(&mut third).await;
        assert!(matches!(failed, Err(BusError::OutOfTurn)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_fence_waits_for_what_set_out_before_it_and_for_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let home = Arc::new(Home::open(folder.path()).await.unwrap());
        home.sending.settled().await;
        let (first, second) = (UnderWay::begin(&home), UnderWay::begin(&home));
        let waiting = tokio::spawn({
            let home = Arc::clone(&home);
            async move { home.sending.settled().await }
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        let _later = UnderWay::begin(&home);
        drop(second);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!waiting.is_finished());
        drop(first);
        waiting.await.unwrap();
    }
}
