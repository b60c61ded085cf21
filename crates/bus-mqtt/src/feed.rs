//! Taking into the mirror what the broker brings: one process of a home does it for all.

mod asking;
mod control;
mod holding;
mod survey;
mod unwhole;
mod users;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use sealcast_bus::{Arrival, ArrivalId, ArrivalPart, BusError, Item, Topic, jittered};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::dial::Dial;
use crate::fault::Fault;
use crate::home::{Home, text};
use crate::line::Line;
use crate::link::{Client, Event, Link, Receipt, draw};
use crate::message::{
    Append, CONTROL, MessageId, Names, PartOf, WHOLE_MAX, is_inbox, is_live, put_sent, take_sent,
    uncut,
};
use crate::packet::Publish;
use crate::past::Desk;
use crate::sending;
use crate::users::data_logs;
use asking::{Asking, Step};
use control::Control;
use survey::{Refused, Survey, Trace};
use unwhole::{HELD_MAX, Piece, Unwhole};
use users::Unasked;

/// How often a process looks whether the one that feeds has ended.
const TAKE_OVER: Duration = Duration::from_millis(500);
/// How long the broker keeps what comes for a home of which no process runs.
const KEPT_FOR: u32 = 7 * 24 * 60 * 60;
/// Messages, and bytes of them, that are taken in at once.
const BATCH: usize = 1_024;
const BATCH_BYTES: usize = 4 << 20;
/// Bytes of retained messages that are put in order before they are taken in.
const HELD_BYTES_MAX: usize = 64 << 20;
/// Messages that wait for what had passed before them.
const LATER_MAX: usize = 8;
/// Questions how far the mirror is that wait for that; of more, each is put again.
const FENCES_MAX: usize = 4_096;
/// How long an answer is waited for before the question is put again.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// Between two attempts to write to the mirror.
pub(crate) const MIRROR_PAUSE: Duration = Duration::from_millis(500);

/// Feeds the mirror of a home whenever no other process does.
///
/// `is_archive`: whether it hands out all that it has to homes that come late.
pub(crate) async fn attend(
    home: Arc<Home>,
    line: Arc<Line>,
    dial: Dial,
    is_archive: bool,
) -> Infallible {
    loop {
        if let Some(_lock) = home.lock_feed() {
            // What went wrong is met by whoever waits for the mirror.
            home.own_back.await_back(true);
            let feeding = async {
                sending::recover(&home).await?;
                feed(&home, &line, dial.clone(), is_archive).await
            };
            let _fault = feeding.await;
            home.own_back.await_back(false);
        }
        sleep(jittered(TAKE_OVER)).await;
    }
}

#[derive(Debug, thiserror::Error)]
enum FeedFault {
    #[error(transparent)]
    Broker(#[from] Fault),
    #[error(transparent)]
    Mirror(#[from] BusError),
}

async fn feed(
    home: &Arc<Home>,
    line: &Arc<Line>,
    dial: Dial,
    is_archive: bool,
) -> Result<Infallible, FeedFault> {
    let (followed, next) = home.followed().await?;
    let mut wanted = home.tail_followed(next)?;
    let (events_tx, mut events) = mpsc::unbounded_channel();
    let (steps_tx, mut steps) = mpsc::unbounded_channel();
    let client = Client {
        id: format!("sc{}", home.name),
        kept_for: KEPT_FOR,
    };
    // What waits here is bounded by the room that each message holds.
    let unasked = Unasked::default();
    let admitting = unasked.clone();
    let on_event = move |event| drop(admitting.admits(&event).then(|| events_tx.send(event)));
    let link = Arc::new(Link::open(dial.clone(), client, on_event).await?);
    home.sending.set_way(&link);
    let (control, mut control_events) = Control::open(dial, home).await?;
    let (writer, question) = (draw()?, draw()?);
    let mut feeder = Feeder {
        home: Arc::clone(home),
        line: Arc::clone(line),
        names: line.names.clone(),
        link,
        control,
        writer,
        followed,
        ready: home.ready().await?,
        asked: home.asked().await?,
        connections: 0,
        arrived: Vec::new(),
        arrived_bytes: 0,
        unwhole: Unwhole::default(),
        survey: None,
        surveys: 0,
        fences: Vec::new(),
        parted: Vec::new(),
        tasks: JoinSet::new(),
        steps: steps_tx,
        asking: Asking::starting_at(question),
        answered: BTreeSet::new(),
        refused: Refused::default(),
        desk: Desk::new(is_archive),
        unasked,
    };
    loop {
        let wakes_at = feeder.wakes_at();
        tokio::select! {
            step = steps.recv() => match step {
                Some(step) => feeder.step(step).await?,
                None => return Err(Fault::Closed.into()),
            },
            event = events.recv() => {
                feeder.handle(event.ok_or(Fault::Closed)?).await?;
                feeder.handle_waiting(&mut events).await?;
            }
            event = control_events.recv() => {
                let event = event.ok_or(Fault::Closed)?;
                feeder.handle_control(event, &mut control_events).await?;
            }
            () = home.own_back.settled() => feeder.settle_own(false).await?,
            () = sleep_until(wakes_at.unwrap_or_else(Instant::now)), if wakes_at.is_some() => {
                feeder.wake(&mut events).await?;
            }
            items = wanted.next() => feeder.follow(items?.1).await?,
        }
        while let Ok(step) = steps.try_recv() {
            feeder.step(step).await?;
        }
        while feeder.tasks.try_join_next().is_some() {}
        feeder.make_ready().await?;
    }
}

struct Feeder {
    home: Arc<Home>,
    /// Of a handle of this process.
    line: Arc<Line>,
    names: Names,
    link: Arc<Link>,
    /// What comes on control logs also comes over a connection of their own.
    control: Control,
    writer: u64,
    followed: BTreeSet<String>,
    /// As the home's folder has them.
    ready: BTreeSet<String>,
    asked: BTreeMap<String, u64>,
    /// How many connections there were.
    connections: u64,
    /// What came and is not in the mirror yet, in order.
    arrived: Vec<(Arrival, Vec<Receipt>)>,
    arrived_bytes: usize,
    unwhole: Unwhole,
    /// While the broker hands out what it has retained.
    survey: Option<Survey>,
    surveys: u64,
    /// Who waits for its end to be told how far the mirror is.
    fences: Vec<MessageId>,
    /// What came whole in parts, which are of no use once it is in the mirror.
    parted: Vec<(Topic, ArrivalId)>,
    /// What it has others do; ends with it.
    tasks: JoinSet<()>,
    /// Told what they have come to.
    steps: mpsc::UnboundedSender<Step>,
    /// Whom is asked for what had passed.
    asking: Asking,
    /// Scopes of which the mirror has all that is to be had, once it has what arrived.
    answered: BTreeSet<String>,
    refused: Refused,
    /// Where others are answered.
    desk: Desk,
    unasked: Unasked,
}

impl Feeder {
    /// Follows scopes from now on.
    async fn follow(&mut self, wanted: Vec<Item>) -> Result<(), FeedFault> {
        let scopes = wanted.into_iter().filter_map(text);
        let new: BTreeSet<_> = scopes.filter(|of| !self.followed.contains(of)).collect();
        if new.is_empty() {
            return Ok(());
        }
        self.followed.extend(new.iter().cloned());
        self.ask_control(new.clone());
        self.survey(&new).await
    }

    /// When something is to be done by itself.
    fn wakes_at(&self) -> Option<Instant> {
        let all = [
            self.asking.given_up_at(),
            self.refused.until,
            self.unwhole.until(),
        ];
        all.into_iter().flatten().min()
    }

    /// Does what is to be done by itself at this time.
    async fn wake(&mut self, events: &mut mpsc::UnboundedReceiver<Event>) -> Result<(), FeedFault> {
        // An answer may be there that is not looked at yet, or a part.
        self.handle_waiting(events).await?;
        self.give_up();
        self.try_refused_again().await?;
        match self.unwhole.until() {
            Some(until) if until <= Instant::now() => self.wait_no_longer().await,
            Some(_) | None => Ok(()),
        }
    }

    /// Deals with what has come, and takes it in.
    async fn handle_waiting(
        &mut self,
        events: &mut mpsc::UnboundedReceiver<Event>,
    ) -> Result<(), FeedFault> {
        for _ in 0..BATCH {
            if self.arrived_bytes >= BATCH_BYTES {
                break;
            }
            let Ok(event) = events.try_recv() else { break };
            self.handle(event).await?;
        }
        self.take_in().await
    }

    async fn handle(&mut self, event: Event) -> Result<(), FeedFault> {
        self.unasked.handled(&event);
        match event {
            Event::Up { has_session } => self.up(has_session).await,
            Event::Message {
                publish,
                receipt,
                held,
            } => {
                drop(held);
                self.message(publish, receipt).await
            }
        }
    }

    async fn message(&mut self, publish: Publish, receipt: Receipt) -> Result<(), FeedFault> {
        if let Some(item) = self.names.users_item(&publish) {
            // Whoever published it put it into one log.
            let is_for_one = data_logs(&self.followed).nth(1).is_none();
            if is_for_one && self.is_back(&publish, receipt) {
                return Ok(());
            }
            return self.users_item(item, receipt).await;
        }
        // It was not published by a bus.
        if receipt.is_none() {
            return Ok(());
        }
        if publish.topic == self.names.fence() {
            match take_sent(&publish.payload) {
                // What it asks itself of control logs is for the other connection.
                Some((id, CONTROL)) if id.writer == self.writer => self.first_has(id).await?,
                Some((id, _)) => {
                    self.catch_up().await?;
                    self.fence(id).await?;
                }
                None => {}
            }
            self.link.acknowledge(receipt);
            return Ok(());
        }
        if publish.topic == self.names.mark() {
            if let Some(survey) = self.survey.as_mut().filter(|_| publish.is_retained) {
                let id = take_sent(&publish.payload).map(|(id, _)| id);
                survey.is_marked = survey.mark.is_some_and(|mark| Some(mark.id) == id);
            }
            self.link.acknowledge(receipt);
            return Ok(());
        }
        if publish.topic == self.names.past() {
            return self.answered(publish, receipt).await;
        }
        if let Some((scope, is_to_archives)) = self.names.parse_question(&publish.topic) {
            if self.followed.contains(&scope) {
                let (names, link) = (self.names.clone(), Arc::clone(&self.link));
                let home = Arc::clone(&self.home);
                let question = (&publish.payload, is_to_archives);
                let answering = self.desk.answer(home, (names, link), scope, question);
                if let Some(answering) = answering {
                    self.tasks.spawn(answering);
                }
            }
            self.link.acknowledge(receipt);
            return Ok(());
        }
        self.log(publish, receipt, false).await
    }

    /// Takes a message of a log, which came by itself or was handed out by who kept it.
    async fn log(
        &mut self,
        publish: Publish,
        receipt: Receipt,
        is_past: bool,
    ) -> Result<(), FeedFault> {
        let bytes = publish.payload.len();
        let found = self.names.parse_log(&publish.topic);
        if let Some((topic, id, part)) = &found
            && is_live(topic)
            && bytes > 0
        {
            if !is_past && self.is_back(&publish, receipt) {
                return Ok(());
            }
            if self.unwhole.has_before(topic, *id) {
                self.wait_no_longer().await?;
            }
            if let Some(part) = *part
                && usize::try_from(part.count).is_ok_and(|count| count <= HELD_MAX)
                && uncut(&publish.payload).is_ok()
            {
                let piece = Piece {
                    topic: topic.clone(),
                    id: *id,
                    part,
                    publish,
                    receipts: vec![receipt],
                    is_past,
                };
                return self.piece(piece).await;
            }
        }
        let arrived = match found {
            Some((topic, id, part)) if bytes > 0 && (!is_past || is_live(&topic)) => {
                if let Some(survey) = self.survey.as_mut().filter(|_| publish.is_retained) {
                    survey.shown.note(&publish);
                }
                let append = match part {
                    None => Append::decode(&publish.payload).ok(),
                    Some(part) => self.part(&topic, (id, part), &publish).await?,
                };
                append.map(|append| (topic, id, append, part.map_or(0, |part| part.count)))
            }
            // The owner of an inbox has taken it, or somebody says so.
            Some((topic, id, _)) if bytes == 0 && is_inbox(&topic) => {
                self.take_in().await?;
                self.home.mirror.disown(&topic, id.into()).await?;
                None
            }
            // Cleared, or not of a bus.
            Some(_) | None => None,
        };
        match arrived {
            Some((topic, id, append, parts)) => {
                let arrival = append.arrival(topic, id, parts);
                self.arrive(arrival, (bytes, is_past), vec![receipt]).await
            }
            None => {
                self.link.acknowledge(receipt);
                Ok(())
            }
        }
    }

    /// Keeps a part; returns the whole when it was the last.
    async fn part(
        &mut self,
        topic: &Topic,
        (id, part): (MessageId, PartOf),
        publish: &Publish,
    ) -> Result<Option<Append>, FeedFault> {
        let Ok(piece) = uncut(&publish.payload) else {
            return Ok(None);
        };
        let part = ArrivalPart {
            topic: topic.clone(),
            id: id.into(),
            number: part.number,
            count: part.count,
            bytes: piece.to_vec(),
        };
        let Some(whole) = self.home.mirror.keep_part(part).await? else {
            return Ok(None);
        };
        let append = match whole.len() <= WHOLE_MAX {
            true => Append::decode(&whole.into()).ok(),
            false => None,
        };
        self.parted.push((topic.clone(), id.into()));
        Ok(append)
    }

    async fn arrive(
        &mut self,
        arrival: Arrival,
        (bytes, is_past): (usize, bool),
        receipts: Vec<Receipt>,
    ) -> Result<(), FeedFault> {
        // It would come again for ever, with all that is taken in at once with it.
        if !self.home.admits(&arrival) {
            self.acknowledge(receipts);
            return Ok(());
        }
        let is_live = is_live(&arrival.topic);
        if let Some(survey) = &mut self.survey
            && !is_live
        {
            survey.held.push((arrival.id.into(), arrival));
            survey.held_bytes += bytes;
            let is_full = survey.held_bytes >= HELD_BYTES_MAX;
            self.acknowledge(receipts);
            if is_full {
                self.release().await?;
            }
            return Ok(());
        }
        if self.asking.is_waited_for() && !is_past {
            let later = &mut self.asking.later;
            later.push((arrival, receipts));
            // A broker that waits for more acknowledgements sends no history either.
            if later.len() < LATER_MAX {
                return Ok(());
            }
            self.arrived.append(later);
            return self.take_in().await;
        }
        self.arrived.push((arrival, receipts));
        self.arrived_bytes += bytes;
        Ok(())
    }

    /// Puts what came in the mirror, and then acknowledges it.
    async fn take_in(&mut self) -> Result<(), FeedFault> {
        if self.arrived.is_empty() {
            return Ok(());
        }
        self.arrived_bytes = 0;
        let (arrivals, receipts): (Vec<_>, Vec<_>) = self.arrived.drain(..).unzip();
        let traces: Vec<_> = arrivals.iter().map(Trace::of).collect();
        let offsets = self.home.take_in(arrivals, MIRROR_PAUSE).await?;
        self.clear_trimmed(traces, offsets).await?;
        for (topic, id) in std::mem::take(&mut self.parted) {
            self.home.mirror.drop_parts(&topic, id).await?;
        }
        self.acknowledge(receipts.into_iter().flatten().collect());
        Ok(())
    }

    /// Has the mirror take in what waits for others, too.
    async fn catch_up(&mut self) -> Result<(), FeedFault> {
        self.settle_own(true).await?;
        self.wait_no_longer().await?;
        self.take_in().await
    }

    /// Says that the mirror has all that came before a question.
    async fn fence(&mut self, id: MessageId) -> Result<(), FeedFault> {
        if id.writer != self.writer {
            if self.survey.is_none() {
                self.arrived.append(&mut self.asking.later);
                self.take_in().await?;
                self.answer(id);
            } else if self.fences.len() < FENCES_MAX {
                self.fences.push(id);
            }
            return Ok(());
        }
        // It was put more than once.
        if self
            .survey
            .as_ref()
            .is_some_and(|of| of.number == id.number)
        {
            self.release().await?;
            return self.shown().await;
        }
        Ok(())
    }

    fn answer(&mut self, id: MessageId) {
        let answer = Publish {
            topic: self.names.fenced(id.writer),
            payload: put_sent(id, b""),
            is_retained: false,
        };
        let (home, link) = (Arc::clone(&self.home), Arc::clone(&self.link));
        self.tasks.spawn(async move {
            // It may have been taken before the question, and does not come back.
            home.sending.settled().await;
            // Whoever gets no answer asks again.
            drop(link.publish(answer).await);
        });
    }
}
