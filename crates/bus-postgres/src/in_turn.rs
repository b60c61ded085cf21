//! Appending in turn: the server is told of the next append while it makes the one before durable.
//!
//! Appends that follow each other at once go over one connection, as one writer, each on the condition that the one before
//! it was made. So the server takes them in order, and none without those before it.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex as SyncMutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use sealcast_bus::{Attempts, BusError, Topic, Turn, TurnMark};
use tokio::sync::Mutex;

use crate::desks::{Call, Desks, Taken, asked, patience};
use crate::fault::Fault;
use crate::log::Append;
use crate::session::Session;

/// Which appends are under way that others may follow.
#[derive(Debug, Default)]
pub(crate) struct InTurn {
    tips: SyncMutex<BTreeMap<Topic, Tip>>,
}

/// The append that set out last.
#[derive(Debug)]
struct Tip {
    mark: TurnMark,
    row: Arc<Row>,
}

/// Appends that follow each other over one connection. Their desk is given back with the last of them.
#[derive(Debug)]
struct Row {
    session: Arc<Session>,
    /// Held by whoever makes an append again.
    taken: Mutex<Taken>,
    owed: Arc<Owed>,
}

/// How long the answers may take that a connection owes: they come one behind the other.
#[derive(Debug, Default)]
struct Owed(SyncMutex<Duration>);

/// An answer that is owed, until it has come or nobody waits for it any more.
#[derive(Debug)]
struct Debt {
    owed: Arc<Owed>,
    own: Duration,
}

/// Has others follow an append for as long as somebody waits for it.
struct Followable<'a> {
    in_turn: &'a InTurn,
    topic: &'a Topic,
    mark: TurnMark,
}

/// An append that has set out.
struct Sent {
    row: Arc<Row>,
    call: Call,
    /// The append of the same writer that it follows.
    behind: Option<i64>,
    debt: Debt,
    /// How long its answer may take.
    limit: Duration,
}

impl InTurn {
    fn tips(&self) -> MutexGuard<'_, BTreeMap<Topic, Tip>> {
        self.tips.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Followable<'_> {
    fn drop(&mut self) {
        let mut tips = self.in_turn.tips();
        if tips
            .get(self.topic)
            .is_some_and(|tip| tip.mark.is(&self.mark))
        {
            tips.remove(self.topic);
        }
    }
}

impl Owed {
    fn lock(&self) -> MutexGuard<'_, Duration> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn all(&self) -> Duration {
        *self.lock()
    }

    /// Owes one more answer; says how long that may take, with all before it.
    fn one_more(self: &Arc<Self>, own: Duration) -> (Debt, Duration) {
        let mut all = self.lock();
        *all = all.saturating_add(own);
        let owed = Arc::clone(self);
        (Debt { owed, own }, *all)
    }
}

impl Drop for Debt {
    fn drop(&mut self) {
        let mut all = self.owed.lock();
        *all = all.saturating_sub(self.own);
    }
}

impl Tip {
    /// Has another append follow this one, unless one is made again, or was, over another connection.
    fn follow(self, patience: Duration) -> Option<Sent> {
        let Self { row, .. } = self;
        let (call, debt, limit) = {
            let mut taken = row.taken.try_lock().ok()?;
            let desk = taken.desk().ok().filter(|desk| desk.is_on(&row.session))?;
            let (debt, limit) = row.owed.one_more(patience);
            desk.owes(limit);
            (desk.next_call(), debt, limit)
        };
        Some(Sent {
            row,
            call,
            behind: Some(call.serial - 1),
            debt,
            limit,
        })
    }
}

impl Desks {
    /// Appends payloads behind those whose turns came before.
    pub(crate) async fn append_in_turn(
        &self,
        topic: &Topic,
        payloads: &[Bytes],
        mut turn: Turn,
    ) -> Result<(), BusError> {
        let payloads: Vec<&[u8]> = payloads.iter().map(AsRef::as_ref).collect();
        let append = Append {
            topic,
            at: None,
            payloads: &payloads,
            channel: self.settings.schema(),
            behind: None,
        };
        let Some(sent) = self.set_out(&append, &mut turn).await? else {
            return turn.take(self.call(&append)).await;
        };
        let followable = self.followable(topic, &turn, &sent);
        let made = self.make(&append, sent, &mut turn).await;
        // Nothing follows any more that has not yet.
        drop(followable);
        made?;
        turn.stored();
        Ok(())
    }

    fn followable<'a>(&'a self, topic: &'a Topic, turn: &Turn, sent: &Sent) -> Followable<'a> {
        let (mark, row) = (turn.mark(), Arc::clone(&sent.row));
        let tip = Tip { mark, row };
        self.in_turn.tips().insert(topic.clone(), tip);
        Followable {
            in_turn: &self.in_turn,
            topic,
            mark: turn.mark(),
        }
    }

    /// Finds the connection that an append is to go over. Nothing, where it has none to itself.
    async fn set_out(
        &self,
        append: &Append<'_>,
        turn: &mut Turn,
    ) -> Result<Option<Sent>, BusError> {
        let patience = patience(append);
        let ahead = self.in_turn.tips().remove(append.topic);
        let ahead = ahead.filter(|tip| turn.is_behind(&tip.mark));
        match ahead.and_then(|tip| tip.follow(patience)) {
            Some(sent) => Ok(Some(sent)),
            None => {
                turn.come().await?;
                Ok(self.begin_row(patience).await)
            }
        }
    }

    async fn begin_row(&self, patience: Duration) -> Option<Sent> {
        let mut taken = self.take_spare()?;
        let desk = taken.desk().ok()?;
        let session = desk.session(&self.settings).await.ok()?;
        let call = desk.next_call();
        let owed = Arc::<Owed>::default();
        let (debt, limit) = owed.one_more(patience);
        desk.owes(limit);
        let taken = Mutex::new(taken);
        Some(Sent {
            row: Arc::new(Row {
                session,
                taken,
                owed,
            }),
            call,
            behind: None,
            debt,
            limit,
        })
    }

    /// Makes an append, and again once it is known what became of those before it.
    async fn make(&self, append: &Append<'_>, sent: Sent, turn: &mut Turn) -> Result<(), BusError> {
        let Sent {
            row,
            mut call,
            behind,
            debt,
            limit,
        } = sent;
        let first = Append { behind, ..*append };
        let made = {
            let asking = asked(&row.session, &first, call, limit);
            let mut asking = pin!(asking);
            // The library hands it to the connection when it is first polled.
            let early = poll_fn(|cx| Poll::Ready(asking.as_mut().poll(cx))).await;
            turn.pass();
            match early {
                Poll::Ready(answer) => answer,
                Poll::Pending => asking.await,
            }
        };
        drop(debt);
        turn.come().await?;
        let mut taken = row.taken.lock().await;
        let is_on = taken.desk().is_ok_and(|desk| desk.is_on(&row.session));
        if let (true, Ok(desk)) = (is_on && made.is_ok(), taken.desk()) {
            desk.owes(row.owed.all());
        }
        let again = match made {
            Ok(Some(_)) if is_on => return Ok(()),
            // The one before it was made on what may be another server.
            Ok(Some(_)) => Err(Fault::NoAnswer("the connection was given up".into())),
            // The one before was not made at once.
            Ok(None) => Ok(()),
            Err(fault) => Err(fault),
        };
        let asked_again = async {
            let desk = taken.desk()?;
            call.last = desk.serial;
            if let Err(fault) = again {
                desk.mind(&fault, &mut call);
                let after = Attempts::new().after(fault).await;
                after.map_err(|fault| match call.is_open {
                    true => Fault::NoAnswer(Box::new(fault)),
                    false => fault,
                })?;
            }
            desk.insist(&self.settings, append, &mut call).await
        };
        let made = asked_again.await;
        made.map_err(|fault| fault.at(self.place()))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_may_take_as_long_as_all_that_come_before_it() {
        let (owed, [long, short]) = (Arc::<Owed>::default(), [42, 10].map(Duration::from_secs));
        let (first, limit) = owed.one_more(long);
        assert_eq!(limit, long);
        let (_second, limit) = owed.one_more(short);
        assert_eq!(limit, long + short);
        // The answer that is owed still counts from the moment on at which it was asked for.
        drop(first);
        let (_third, limit) = owed.one_more(short);
        assert_eq!(limit, short * 2);
    }
}
