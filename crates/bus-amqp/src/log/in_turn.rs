//! Appending in turn: an append sets out while those before it are on their way, and names the one that it is behind.
//!
//! Appends that follow each other at once go over one connection, and are a row. As long as nobody else writes, each lies as
//! far behind the last that was seen as messages were sent, and need not be read: spec/bus-amqp.md, section 6. The server reads
//! much to show one of them, so that the last that has arrived is looked at for all before it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex as SyncMutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use sealcast_bus::{BusError, Topic, Turn, TurnMark};
use tokio::time::Instant;

use super::Logs;
use super::append::{Addition, Content, Progress, new_id};
use crate::chain::Place;
use crate::fault::Fault;
use crate::feed::{Feed, Start};
use crate::known::Open;
use crate::message::{AppendId, Header, Message, Record};
use crate::server::{OnTheWay, Speaking};

/// How long it is believed that not much came behind the last append.
const LEFT: Duration = Duration::from_secs(5);
/// Appends that wait for the one before them after others came first, at first and at last.
const ALONE: u32 = 4;
const ALONE_MAX: u32 = 64;

/// What a handle appends to one log in turn.
#[derive(Debug, Default)]
pub(crate) struct InTurn {
    /// The append that set out last, if another may follow it.
    tip: Option<Tip>,
    /// Where the last one was put, and when.
    left: Option<(Place, Instant)>,
    /// So many do not set out before the one ahead of them is stored, as others write there, too.
    alone: u32,
    was_alone: u32,
}

/// An append that set out.
#[derive(Debug)]
struct Tip {
    mark: TurnMark,
    row: Arc<Row>,
    id: AppendId,
    /// The offset behind its items.
    end: u64,
    /// Where the next message will lie if nobody else writes, or behind that.
    next: u64,
}

/// Appends that follow each other over one connection.
#[derive(Debug)]
struct Row {
    speaking: Arc<Speaking>,
    /// Behind the last of them that is stored, or where the first is to be.
    known: SyncMutex<Place>,
    /// One of them did not come to lie where it was to.
    is_broken: AtomicBool,
    arrivals: SyncMutex<Arrivals>,
}

/// What has arrived of a row.
#[derive(Debug, Default)]
struct Arrivals {
    /// By where its first message will lie if nobody else writes: where its last will, and what that is.
    waiting: BTreeMap<u64, (u64, Header)>,
    /// All lie where they were to, up to there.
    seen: Option<u64>,
}

/// An append that is on its way.
struct SetOut {
    row: Arc<Row>,
    header: Header,
    /// Where its first message will lie if nobody else writes, or behind that.
    next: u64,
    /// Where its last message will.
    at: u64,
    is_ahead: bool,
    handed: Result<OnTheWay, Fault>,
    /// Whether it may be stored: its message left, not its parts alone.
    has_left: bool,
}

impl InTurn {
    /// Where the last append was put, if that was a moment ago.
    pub(crate) fn left(&self) -> Option<Place> {
        let (place, since) = self.left?;
        (since.elapsed() < LEFT).then_some(place)
    }

    /// Nobody knows where the last append was put.
    pub(crate) fn forget_left(&mut self) {
        self.left = None;
    }

    fn leave(&mut self, place: Place) {
        self.left = Some((place, Instant::now()));
    }

    /// Others came first.
    fn crowded(&mut self) {
        self.was_alone = (self.was_alone * 2).clamp(ALONE, ALONE_MAX);
        self.alone = self.was_alone;
    }

    /// The append that the one with a turn may follow.
    fn tip_before(&mut self, turn: &Turn) -> Option<Tip> {
        let tip = self.tip.take_if(|tip| turn.is_behind(&tip.mark))?;
        let is_whole = !tip.row.is_broken.load(Ordering::Relaxed);
        (is_whole && tip.row.speaking.is_free()).then_some(tip)
    }
}

impl Open {
    pub(crate) fn in_turn(&self) -> MutexGuard<'_, InTurn> {
        self.in_turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Row {
    fn known(&self) -> MutexGuard<'_, Place> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn arrivals(&self) -> MutexGuard<'_, Arrivals> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Arrivals {
    /// The last append behind this one of which, and of all between them, it is known that they have arrived.
    fn last_behind(&self, mut at: u64, mut header: Header) -> (u64, Header) {
        while let Some(next) = at.checked_add(1).and_then(|next| self.waiting.get(&next)) {
            (at, header) = *next;
        }
        (at, header)
    }

    /// All lie where they were to, up to there.
    fn note_seen(&mut self, at: u64) {
        self.seen = self.seen.max(Some(at));
        self.waiting.retain(|_, (last, _)| *last > at);
    }
}

impl Logs {
    /// Appends payloads behind those whose turns came before.
    pub(crate) async fn append_in_turn(
        &self,
        topic: &Topic,
        payloads: Vec<Bytes>,
        mut turn: Turn,
    ) -> Result<(), BusError> {
        let fault = |fault| self.server.fault(fault);
        let open = self.known.open(topic);
        let mut addition = Addition::of(&payloads).map_err(fault)?;
        drop(payloads);
        match self.set_out(&open, &mut addition, &mut turn).await? {
            Some(set_out) => {
                let followed = self.follow(&open, &mut addition, set_out, &mut turn);
                followed.await?;
            }
            None => {
                turn.come().await?;
                let put = self.put(&open, None, &mut addition, Progress::default());
                put.await.map_err(fault)?;
            }
        }
        turn.stored();
        Ok(())
    }

    /// Has an append leave, if need be when those before it are stored. Nothing, where it is to leave by itself then.
    async fn set_out(
        &self,
        open: &Open,
        addition: &mut Addition,
        turn: &mut Turn,
    ) -> Result<Option<SetOut>, BusError> {
        let (ahead, may_begin) = {
            let mut in_turn = open.in_turn();
            in_turn.alone = in_turn.alone.saturating_sub(1);
            let is_large = matches!(addition.content, Content::Parts { .. });
            (in_turn.tip_before(turn), in_turn.alone == 0 && is_large)
        };
        let is_ahead = ahead.is_some();
        let (row, place, next) = match ahead {
            Some(Tip {
                row, id, end, next, ..
            }) => {
                let known = *row.known();
                let id = Some(id);
                (row, Place { id, end, ..known }, next)
            }
            None => {
                turn.come().await?;
                // Whatever is wrong is found again by the one that goes by itself.
                let begun = match may_begin {
                    true => self.begin_row(open).await.ok(),
                    false => None,
                };
                let Some(begun) = begun else { return Ok(None) };
                begun
            }
        };
        let header = addition.header(&place);
        let header = header.map_err(|fault| self.server.fault(fault))?;
        let (at, has_left, handed) = self.send(open, &row, addition, header, next).await;
        if handed.is_ok() {
            open.in_turn().tip = Some(Tip {
                mark: turn.mark(),
                row: Arc::clone(&row),
                id: header.id,
                end: header.end(),
                next: at.saturating_add(1),
            });
            turn.pass();
        }
        Ok(Some(SetOut {
            row,
            header,
            next,
            at,
            is_ahead,
            handed,
            has_left,
        }))
    }

    /// Finds the end of a log, and what is to be sent there is not delivered back.
    async fn begin_row(&self, open: &Open) -> Result<(Arc<Row>, Place, u64), Fault> {
        let mut slot = open.head.lock().await;
        let left = open.in_turn().left();
        let left = left.and_then(|place| Some((place, place.last?.checked_add(1)?)));
        // One that is asked for at times has not come as far.
        let left = left.filter(|(_, next)| slot.as_ref().is_none_or(|of| of.scan.seen() <= *next));
        let (place, next) = match left {
            Some(left) => {
                *slot = None;
                left
            }
            None => {
                let mut head = self.head_to_write(open, &mut slot, None).await?;
                head.scan.end(&mut head.recent).await?;
                (head.scan.place(), head.scan.seen())
            }
        };
        self.server.check_room().await?;
        let row = Row {
            speaking: self.server.speaking().await?,
            known: SyncMutex::new(place),
            is_broken: AtomicBool::new(false),
            arrivals: SyncMutex::default(),
        };
        open.in_turn().leave(place);
        Ok((Arc::new(row), place, next))
    }

    /// Sends the messages of an append, of which the first will lie at `next` or behind. Says where the last will, and whether
    /// that has left.
    async fn send(
        &self,
        open: &Open,
        row: &Row,
        addition: &Addition,
        header: Header,
        next: u64,
    ) -> (u64, bool, Result<OnTheWay, Fault>) {
        let parts = match &addition.content {
            Content::Whole(_) => &[][..],
            Content::Parts { parts, .. } => parts,
        };
        let at = next.saturating_add(parts.len() as u64);
        let body = addition.body_since(next);
        let message = Record::Message(Message { header, body });
        let message = [Bytes::from(message.encode(&open.log.topic))];
        let mut on_the_way = OnTheWay::to_a_queue();
        let (server, speaking, queue) = (&self.server, &row.speaking, &open.log.queue);
        let handed = server.hand_over(speaking, queue, parts, &mut on_the_way);
        if let Err(fault) = handed.await {
            return (at, false, Err(fault));
        }
        let handed = server.hand_over(speaking, queue, &message, &mut on_the_way);
        let handed = handed.await.map(|()| on_the_way);
        (at, true, handed)
    }

    /// Waits until an append that set out is stored behind the one before it, and puts it there where it is not.
    async fn follow(
        &self,
        open: &Open,
        addition: &mut Addition,
        set_out: SetOut,
        turn: &mut Turn,
    ) -> Result<(), BusError> {
        let SetOut {
            row,
            header,
            next,
            at,
            is_ahead,
            handed,
            has_left,
        } = set_out;
        let arrived = match handed {
            Ok(on_the_way) => self.server.arrived(&row.speaking, on_the_way).await,
            Err(fault) => Err(fault),
        };
        if arrived.is_ok() {
            row.arrivals().waiting.insert(next, (at, header));
        }
        turn.come().await?;
        if arrived.is_ok() {
            addition.content.came_since(next);
        }
        let known = *row.known();
        // One that is not behind what it names is lost, whatever became of it.
        let is_behind = known.id == header.behind;
        let is_in_row = is_behind && (!is_ahead || known.last == next.checked_sub(1));
        if is_in_row && arrived.is_ok() && self.lies_in(open, &row, at, &header).await {
            let place = Place::behind(at, &header);
            *row.known() = place;
            let mut in_turn = open.in_turn();
            in_turn.leave(place);
            if is_ahead {
                in_turn.was_alone = 0;
            }
            return Ok(());
        }
        row.is_broken.store(true, Ordering::Relaxed);
        let mut progress = Progress::default();
        if is_behind && has_left {
            progress.behind = Some(known);
        } else {
            addition.id = new_id().map_err(|fault| self.server.fault(fault))?;
        }
        let put = self.put(open, None, addition, progress).await;
        let put = put.map_err(|fault| self.server.fault(fault))?;
        if let Some((at, put)) = put {
            let mut in_turn = open.in_turn();
            if is_behind && put.behind != header.behind {
                in_turn.crowded();
            }
            let place = Place::behind(at, &put);
            in_turn.leave(place);
            *row.known() = place;
        }
        Ok(())
    }

    /// Whether an append of a row lies there, where it was to. Others that arrived meanwhile are where they were to only if
    /// it is.
    async fn lies_in(&self, open: &Open, row: &Row, at: u64, header: &Header) -> bool {
        let (last, of) = {
            let arrivals = row.arrivals();
            if arrivals.seen.is_some_and(|seen| at <= seen) {
                return true;
            }
            arrivals.last_behind(at, *header)
        };
        let mut seen = self
            .lies_at(open, last, &of)
            .await
            .unwrap_or(false)
            .then_some(last);
        if seen.is_none() && last != at {
            seen = self
                .lies_at(open, at, header)
                .await
                .unwrap_or(false)
                .then_some(at);
        }
        if let Some(seen) = seen {
            row.arrivals().note_seen(seen);
        }
        seen.is_some()
    }

    /// Whether a message lies there, and the log has no other there.
    async fn lies_at(&self, open: &Open, at: u64, header: &Header) -> Result<bool, Fault> {
        let desk = self.server.hearing().await?.desk_to_look().await?;
        let mut feed = Feed::attach(&desk, &open.log.queue, Start::At(at)).await?;
        let there = feed.next().await?;
        let is_it = |record| matches!(record, Record::Message(of) if of.header == *header);
        Ok(there.at == at && open.log.read(&there).is_some_and(is_it))
    }
}
