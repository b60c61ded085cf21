use std::collections::VecDeque;
use std::future::{self, poll_fn};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt as _;
use sealcast_bus::{
    Attempts, BusFuture, Item, MayPass as _, Offset, Packed, Tail, Topic, each_once, jittered,
};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::fault::Fault;
use crate::scan::{Found, Log, Payloads, Scan};
use crate::server::{CREDIT, Desk, Hearing, Server};

/// Before a topic is opened anew whose queue was consumed in vain, at first and at last.
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Payload bytes of one batch, unless one item alone is larger.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// Topics that are opened at once.
const OPENING_MAX: usize = 16;
/// Messages that all queues of a tail together may deliver before they are taken.
const CREDIT_OF_ALL: usize = 2_048;
/// Of which each has so many.
const CREDIT_MIN: usize = 4;

/// Follows topics of a bus on RabbitMQ: each queue delivers what comes.
#[derive(Debug)]
pub(crate) struct AmqpTail {
    follows: Vec<Follow>,
    /// Those that no queue delivers for.
    closed: VecDeque<usize>,
    opening: JoinSet<(usize, Result<Box<Opened>, Fault>)>,
    desk: Arc<OwnDesk>,
    server: Arc<Server>,
    /// The topic that is looked at first, so that each gets its turn.
    turn: usize,
}

/// One topic.
#[derive(Debug)]
struct Follow {
    log: Log,
    /// What it goes on with.
    position: u64,
    scan: Option<Scan>,
    /// Messages that came and were not handed on to their end.
    waiting: VecDeque<Found>,
    /// Gets the payloads of the first of them, which goes on when nobody waits for it.
    fetching: JoinSet<Result<Packed, Fault>>,
    /// What came behind them in place of another.
    broken: Option<Fault>,
    /// How often its queue was consumed in vain since it last delivered anything.
    vain: u32,
}

/// A topic that has come to what it goes on with.
#[derive(Debug)]
struct Opened {
    position: u64,
    scan: Scan,
    waiting: VecDeque<Found>,
}

/// A channel of its own, on whatever connection there is.
#[derive(Debug)]
struct OwnDesk {
    credit: u16,
    slot: Mutex<Option<Desk>>,
}

impl OwnDesk {
    async fn on(&self, hearing: &Hearing) -> Result<Desk, Fault> {
        let mut slot = self.slot.lock().await;
        if let Some(desk) = slot.as_ref().filter(|of| of.is_up()) {
            return Ok(desk.clone());
        }
        let desk = hearing.desk_of(self.credit).await?;
        *slot = Some(desk.clone());
        Ok(desk)
    }
}

/// What a tail waits for.
enum Event {
    Opened(usize, Result<Box<Opened>, Fault>),
    /// Something waits, or has gone wrong.
    Came(usize, Result<(), Fault>),
}

impl AmqpTail {
    pub(crate) fn new(server: &Arc<Server>, topics: Vec<(Topic, Offset)>) -> Self {
        let follow = |(topic, from): (Topic, Offset)| Follow {
            log: Log::new(server, &topic),
            position: from.0,
            scan: None,
            waiting: VecDeque::new(),
            fetching: JoinSet::new(),
            broken: None,
            vain: 0,
        };
        let follows: Vec<Follow> = each_once(topics).into_iter().map(follow).collect();
        let credit = (CREDIT_OF_ALL / follows.len().max(1)).max(CREDIT_MIN);
        Self {
            closed: (0..follows.len()).collect(),
            follows,
            opening: JoinSet::new(),
            desk: Arc::new(OwnDesk {
                credit: u16::try_from(credit).unwrap_or(CREDIT).min(CREDIT),
                slot: Mutex::new(None),
            }),
            server: Arc::clone(server),
            turn: 0,
        }
    }

    async fn next_batch(&mut self) -> Result<(Topic, Vec<Item>), Fault> {
        if self.follows.is_empty() {
            return future::pending().await;
        }
        loop {
            self.open_closed();
            match poll_fn(|context| self.poll_event(context)).await {
                Event::Opened(index, Ok(opened)) => {
                    if let Some(follow) = self.follows.get_mut(index) {
                        follow.position = opened.position;
                        follow.scan = Some(opened.scan);
                        follow.waiting = opened.waiting;
                    }
                }
                Event::Came(index, Ok(())) => {
                    let Some(follow) = self.follows.get_mut(index) else {
                        continue;
                    };
                    // Whatever comes of it, others are looked at before it is again.
                    self.turn = index + 1;
                    let batch = follow.batch(&self.desk).await?;
                    if !batch.is_empty() {
                        follow.vain = 0;
                        return Ok((follow.log.topic.clone(), batch));
                    }
                }
                Event::Came(index, Err(fault)) => {
                    if let Some(follow) = self.follows.get_mut(index) {
                        follow.scan = None;
                        follow.vain = follow.vain.saturating_add(1);
                        self.closed.push_back(index);
                    }
                    if !fault.may_pass() {
                        return Err(fault);
                    }
                }
                Event::Opened(index, Err(fault)) => {
                    self.closed.push_back(index);
                    return Err(fault);
                }
            }
        }
    }

    /// Has topics opened, which goes on when nobody waits for it.
    fn open_closed(&mut self) {
        while self.opening.len() < OPENING_MAX {
            let Some(index) = self.closed.pop_front() else {
                return;
            };
            let Some(follow) = self.follows.get_mut(index) else {
                return;
            };
            follow.waiting.clear();
            let (log, position) = (follow.log.clone(), follow.position);
            let desk = Arc::clone(&self.desk);
            let pause = pause_after(follow.vain);
            self.opening.spawn(async move {
                sleep(jittered(pause)).await;
                (index, open(&log, &desk, position).await)
            });
        }
    }

    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Event> {
        // First, for there may always be something of those that are open. Of a task that panicked
        // nothing more comes.
        if let Poll::Ready(Some(Ok((index, opened)))) = self.opening.poll_join_next(context) {
            return Poll::Ready(Event::Opened(index, opened));
        }
        let count = self.follows.len();
        for index in (0..count).map(|index| (self.turn + index) % count) {
            let Some(follow) = self.follows.get_mut(index) else {
                continue;
            };
            if let Poll::Ready(came) = follow.poll_come(context) {
                return Poll::Ready(Event::Came(index, came));
            }
        }
        Poll::Pending
    }
}

impl Follow {
    /// Waits until something does.
    fn poll_come(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        if !self.waiting.is_empty() {
            return Poll::Ready(Ok(()));
        }
        if let Some(fault) = self.broken.take() {
            return Poll::Ready(Err(fault));
        }
        let Some(scan) = &mut self.scan else {
            return Poll::Pending;
        };
        let Poll::Ready(found) = scan.poll_found(context)? else {
            return Poll::Pending;
        };
        self.waiting.push_back(found);
        Poll::Ready(Ok(()))
    }

    /// The next items of what waits.
    async fn batch(&mut self, desk: &Arc<OwnDesk>) -> Result<Vec<Item>, Fault> {
        let (mut items, mut room) = (Vec::new(), BATCH_BYTES_MAX);
        while let Some(found) = self.waiting.front_mut() {
            if found.header.end() > self.position {
                // What is here is not lost to what may fail.
                if !matches!(found.payloads, Payloads::Here(_)) && !items.is_empty() {
                    break;
                }
                let packed = match &found.payloads {
                    Payloads::Here(packed) => packed.clone(),
                    Payloads::Odd => return Err(Fault::Parts),
                    Payloads::Apart { .. } => {
                        if self.fetching.is_empty() {
                            let fetched = fetch(self.log.clone(), Arc::clone(desk), found.clone());
                            self.fetching.spawn(fetched);
                        }
                        let fetched = self.fetching.join_next().await;
                        let is_gone = || Fault::no_answer("what asked for it ended");
                        fetched.ok_or_else(is_gone)?.map_err(|_| is_gone())??
                    }
                };
                let is_whole = packed.add_to(&mut items, self.position, &mut room);
                if let Some(last) = items.last() {
                    self.position = last.offset.0.saturating_add(1);
                }
                if !is_whole {
                    found.payloads = Payloads::Here(packed);
                    break;
                }
            }
            self.waiting.pop_front();
            if room > 0 && self.waiting.is_empty() {
                self.take_another();
            }
        }
        Ok(items)
    }

    /// Takes one more message, if it is here.
    fn take_another(&mut self) {
        let Some(scan) = &mut self.scan else { return };
        match poll_fn(|context| scan.poll_found(context)).now_or_never() {
            None => {}
            Some(Ok(found)) => self.waiting.push_back(found),
            Some(Err(fault)) => self.broken = Some(fault),
        }
    }
}

/// How long to wait before what was in vain so many times, one after the other, is tried again.
fn pause_after(vain: u32) -> Duration {
    match vain.checked_sub(1) {
        None => Duration::ZERO,
        Some(times) => PAUSE_MAX.min(PAUSE.saturating_mul(1 << times.min(8))),
    }
}

async fn fetch(log: Log, desk: Arc<OwnDesk>, found: Found) -> Result<Packed, Fault> {
    let mut attempts = Attempts::new();
    loop {
        let fetched = async {
            let desk = desk.on(&*log.server.hearing().await?).await?;
            log.payloads(&desk, &found).await
        };
        match fetched.await {
            Ok(packed) => return Ok(packed),
            Err(fault) => attempts.after(fault).await?,
        }
    }
}

/// Comes to where a topic goes on. One that nobody wrote to is created, so that its queue can deliver.
async fn open(log: &Log, desk: &OwnDesk, position: u64) -> Result<Box<Opened>, Fault> {
    let mut attempts = Attempts::new();
    loop {
        match try_open(log, desk, position).await {
            Ok(opened) => return Ok(Box::new(opened)),
            Err(fault) => attempts.after(fault).await?,
        }
    }
}

async fn try_open(log: &Log, desk: &OwnDesk, position: u64) -> Result<Opened, Fault> {
    let hearing = log.server.hearing().await?;
    let desk = desk.on(&hearing).await?;
    let arrival = log.arrive(&hearing, &desk, true).await?;
    let arrival = arrival.ok_or_else(|| Fault::no_answer("the queue is gone"))?;
    let place = arrival.scan.place();
    let position = position.max(place.left);
    let waiting = match arrival.recent.from(position) {
        None if position >= place.end => Some(Vec::new()),
        waiting => waiting,
    };
    if let Some(waiting) = waiting {
        return Ok(Opened {
            position,
            scan: arrival.scan,
            waiting: waiting.into(),
        });
    }
    drop(arrival.scan);
    let last = place.last.unwrap_or_default();
    let mut scan = log.search(&desk, position, last).await?;
    let mut is_searched = true;
    loop {
        match scan.found_until(last).await? {
            Some(found) if found.header.first > position => {
                let expected = position;
                return Err(Fault::Missing { expected });
            }
            Some(found) if found.header.end() > position => {
                let waiting = VecDeque::from([found]);
                return Ok(Opened {
                    position,
                    scan,
                    waiting,
                });
            }
            Some(_) => {}
            None if is_searched => {
                // What looked like a message near it was none.
                is_searched = false;
                scan = log.at_the_beginning(&desk).await?;
            }
            None => {
                let expected = position;
                return Err(Fault::Missing { expected });
            }
        }
    }
}

impl Tail for AmqpTail {
    fn next(&mut self) -> BusFuture<'_, (Topic, Vec<Item>)> {
        Box::pin(async move {
            let server = Arc::clone(&self.server);
            self.next_batch().await.map_err(|fault| server.fault(fault))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_vain_again_and_again_is_tried_less_and_less_often() {
        let pauses: Vec<_> = (0..8).map(pause_after).collect();
        assert!(pauses.is_sorted(), "{pauses:?}");
        assert_eq!((pauses[0], pauses[1]), (Duration::ZERO, PAUSE));
        assert_eq!(pause_after(u32::MAX), PAUSE_MAX);
    }
}
