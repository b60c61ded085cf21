//! Appending in turn: the server is told of the next append while it makes the one before durable.
//!
//! Appends that follow each other at once go over one connection, as one writer, each on the condition that the one before
//! it was made. So the server takes them in order, and none without those before it.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

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
    tips: Mutex<BTreeMap<Topic, Tip>>,
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
}

/// An append that has set out.
struct Sent {
    row: Arc<Row>,
    call: Call,
    /// The append of the same writer that it follows.
    behind: Option<i64>,
}

impl Tip {
    /// Has another append follow this one, unless one is made again, or was, over another connection.
    fn follow(self) -> Option<Sent> {
        let Self { row, .. } = self;
        let call = {
            let mut taken = row.taken.try_lock().ok()?;
            let desk = taken.desk().ok().filter(|desk| desk.is_on(&row.session))?;
            desk.next_call()
        };
        Some(Sent {
            row,
            call,
            behind: Some(call.serial - 1),
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
        let mark = turn.mark();
        let Some(sent) = self.set_out(topic, &mut turn).await? else {
            turn.come().await?;
            self.call(&append).await?;
            turn.stored();
            return Ok(());
        };
        let made = self.make(&append, sent, &mut turn).await;
        // Nothing follows any more that has not yet.
        let mut tips = self.in_turn.tips.lock().await;
        if tips.get(topic).is_some_and(|tip| tip.mark.is(&mark)) {
            tips.remove(topic);
        }
        drop(tips);
        made?;
        turn.stored();
        Ok(())
    }

    /// Finds the connection that an append is to go over. Nothing, where it has none to itself.
    async fn set_out(&self, topic: &Topic, turn: &mut Turn) -> Result<Option<Sent>, BusError> {
        let mut tips = self.in_turn.tips.lock().await;
        let ahead = tips.remove(topic).filter(|tip| turn.is_behind(&tip.mark));
        let sent = match ahead.and_then(Tip::follow) {
            Some(sent) => sent,
            None => {
                drop(tips);
                turn.come().await?;
                let Some(sent) = self.begin_row().await else {
                    return Ok(None);
                };
                tips = self.in_turn.tips.lock().await;
                sent
            }
        };
        let (mark, row) = (turn.mark(), Arc::clone(&sent.row));
        tips.insert(topic.clone(), Tip { mark, row });
        Ok(Some(sent))
    }

    async fn begin_row(&self) -> Option<Sent> {
        let mut taken = self.take_spare()?;
        let desk = taken.desk().ok()?;
        let session = desk.session(&self.settings).await.ok()?;
        let call = desk.next_call();
        let taken = Mutex::new(taken);
        Some(Sent {
            row: Arc::new(Row { session, taken }),
            call,
            behind: None,
        })
    }

    /// Makes an append, and again once it is known what became of those before it.
    async fn make(&self, append: &Append<'_>, sent: Sent, turn: &mut Turn) -> Result<(), BusError> {
        let Sent {
            row,
            mut call,
            behind,
        } = sent;
        let first = Append { behind, ..*append };
        let made = {
            // The answer comes behind those to the ones before.
            let asking = asked(&row.session, &first, call, patience(&first) * 2);
            let mut asking = pin!(asking);
            // The library hands it to the connection when it is first polled.
            let early = poll_fn(|cx| Poll::Ready(asking.as_mut().poll(cx))).await;
            turn.pass();
            match early {
                Poll::Ready(answer) => answer,
                Poll::Pending => asking.await,
            }
        };
        turn.come().await?;
        let mut taken = row.taken.lock().await;
        let is_on = taken.desk().is_ok_and(|desk| desk.is_on(&row.session));
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
