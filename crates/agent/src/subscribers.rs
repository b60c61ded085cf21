//! Those who follow a stream through the agent.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, BodyDataStream, Bytes};
use futures_core::Stream as Chunks;
use sealcast::{
    Alarm, Delivery, Error, Parked, Position, State, Stream, StreamId, SubscribeOptions,
    Subscription,
};
use serde::Serialize;
use tokio::sync::broadcast::Receiver as Alarms;
use tokio::sync::mpsc;

use crate::api::Fault;
use crate::hub::Hub;
use crate::line::{BusState, DeliveryLine, base64_of};

/// Lines that wait for a subscriber who is slow to take them. When there are so many, reading waits.
const LINES_WAITING: usize = 16;

/// The lines of one subscriber.
#[derive(Debug)]
pub(crate) struct Lines(mpsc::Receiver<Bytes>);

impl Chunks for Lines {
    type Item = Result<Bytes, std::convert::Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context).map(|line| line.map(Ok))
    }
}

/// What a subscriber wants.
#[derive(Debug)]
pub(crate) struct Wanted {
    /// From when on; from now on where not given.
    pub(crate) from: Option<Position>,
    /// How many messages; no end where not given.
    pub(crate) count: Option<u64>,
    /// Where it says what it has taken, if it does.
    pub(crate) confirmations: Option<Confirmations>,
}

/// Says of each message that had waited that the subscriber is done with it, a byte each.
#[derive(Debug)]
pub(crate) struct Confirmations {
    body: BodyDataStream,
    /// Those that came and belong to messages that are not delivered yet.
    early: usize,
}

impl Confirmations {
    pub(crate) fn of(body: Body) -> Self {
        Self {
            body: body.into_data_stream(),
            early: 0,
        }
    }

    /// Waits for the next; false where none comes any more.
    async fn next(&mut self) -> bool {
        while self.early == 0 {
            match poll_fn(|context| Pin::new(&mut self.body).poll_next(context)).await {
                Some(Ok(bytes)) => self.early = bytes.len(),
                Some(Err(_)) | None => return false,
            }
        }
        self.early -= 1;
        true
    }
}

/// Begins to follow a stream for a subscriber, until there were so many messages, the lines are
/// dropped or the agent stops.
pub(crate) async fn follow(
    hub: &Arc<Hub>,
    stream: &Stream,
    wanted: Wanted,
) -> Result<Lines, Error> {
    let waiting = stream.parked().await?.messages;
    let options = SubscribeOptions {
        from: wanted.from,
        parking: hub.config.parking,
    };
    let subscription = stream.subscribe_with(options).await?;
    let (lines, taken) = mpsc::channel(LINES_WAITING);
    // There is room for the first.
    let _is_told = lines.try_send(line(&Waiting { waiting })).is_ok();
    let follower = Follower {
        hub: hub.clone(),
        stream: stream.clone(),
        id: stream.id(),
        alarms: hub.alarms_of(&stream.id()),
        lines,
        left: wanted.count,
        confirmations: wanted.confirmations,
        is_away: false,
    };
    tokio::spawn(follower.run(subscription));
    Ok(Lines(taken))
}

struct Follower {
    hub: Arc<Hub>,
    stream: Stream,
    id: StreamId,
    alarms: Option<Alarms<Alarm>>,
    lines: mpsc::Sender<Bytes>,
    /// How many messages it still wants, where it said so.
    left: Option<u64>,
    confirmations: Option<Confirmations>,
    /// Whether the bus is away, and waited for.
    is_away: bool,
}

/// Why no more is told.
enum Ending {
    /// There is nobody to tell, or it has all that it wanted.
    Done,
    /// Nobody confirmed what was told last: it must not count as delivered.
    Unconfirmed(Option<Fault>),
    Fault(Fault),
}

/// What comes next.
enum Next {
    Delivery(Result<Delivery, Error>),
    Alarm(Alarm),
    /// The bus is back.
    Back(Result<(), Error>),
    Stopping,
    Gone,
}

impl Follower {
    async fn run(mut self, mut subscription: Subscription) {
        let _at_work = self.hub.at_work();
        let number = self.hub.number(&self.id);
        self.hub.subscribed(&self.id, 1);
        tracing::debug!(stream = number, "subscriber came");
        let end = self.tell(&mut subscription).await;
        if let Ending::Fault(fault) | Ending::Unconfirmed(Some(fault)) = &end {
            // Whoever does not take the lines before does not wait for this one.
            let _is_told = self.lines.try_send(line(&End { end: fault })).is_ok();
        }
        if !matches!(end, Ending::Unconfirmed(_))
            && let Err(error) = subscription.finish().await
        {
            tracing::warn!(stream = number, code = error.code(), "place not kept");
        }
        self.hub.subscribed(&self.id, -1);
        tracing::debug!(stream = number, "subscriber went");
    }

    /// Tells what comes, until there is nobody to tell; else returns why no more comes.
    async fn tell(&mut self, subscription: &mut Subscription) -> Ending {
        while self.left != Some(0) {
            // Room for the next line comes first, so that nothing is taken from the stream that
            // the subscriber does not take.
            let room = self.lines.clone().reserve_owned();
            let room = tokio::select! {
                room = room => room,
                () = self.hub.stopping() => return Ending::Fault(Fault::stopping()),
            };
            let Ok(room) = room else {
                return Ending::Done;
            };
            let mut waited = false;
            let damages = subscription.damages_passed();
            let line = match self.next(subscription).await {
                Next::Delivery(Ok(delivery)) => {
                    self.hub.delivered(&self.id, delivery.state);
                    let is_message = matches!(
                        delivery.state,
                        State::Opened | State::Sealed | State::Rejected
                    );
                    self.left = self.left.map(|left| left - u64::from(is_message));
                    waited = delivery.parked == Parked::Waited;
                    let base64 = base64_of(&delivery);
                    line(&DeliveryLine::of(&delivery, base64.as_ref()))
                }
                Next::Delivery(Err(error)) if error.is_bus_away() => {
                    self.is_away = true;
                    line(&Bus {
                        bus: BusState::Away,
                    })
                }
                Next::Back(Ok(())) => {
                    self.is_away = false;
                    line(&Bus {
                        bus: BusState::Back,
                    })
                }
                Next::Delivery(Err(_)) if subscription.damages_passed() > damages => line(&Bus {
                    bus: BusState::Damaged,
                }),
                Next::Delivery(Err(error)) | Next::Back(Err(error)) => {
                    return Ending::Fault(Fault::of(&error));
                }
                Next::Alarm(alarm) => line(&AlarmLine {
                    alarm: alarm.to_string(),
                    hint: alarm.hint(),
                }),
                Next::Stopping => return Ending::Fault(Fault::stopping()),
                Next::Gone => return Ending::Done,
            };
            let _lines = room.send(line);
            if waited && let Err(end) = self.confirmed().await {
                return end;
            }
        }
        Ending::Done
    }

    /// Waits until the subscriber is done with what it was told last, where it says so.
    async fn confirmed(&mut self) -> Result<(), Ending> {
        let Some(confirmations) = &mut self.confirmations else {
            return Ok(());
        };
        tokio::select! {
            biased;
            is_confirmed = confirmations.next() => match is_confirmed {
                true => Ok(()),
                false => Err(Ending::Unconfirmed(None)),
            },
            () = self.lines.closed() => Err(Ending::Unconfirmed(None)),
            () = self.hub.stopping() => Err(Ending::Unconfirmed(Some(Fault::stopping()))),
        }
    }

    async fn next(&mut self, subscription: &mut Subscription) -> Next {
        // What reading this subscription brought to light is told to all who follow.
        self.hub.alarmed(&self.id, self.stream.alarms());
        tokio::select! {
            biased;
            () = self.hub.stopping() => Next::Stopping,
            alarm = alarm(&mut self.alarms) => Next::Alarm(alarm),
            () = self.lines.closed() => Next::Gone,
            back = self.stream.wait_for_bus(), if self.is_away => Next::Back(back),
            delivery = subscription.next(), if !self.is_away => Next::Delivery(delivery),
        }
    }
}

/// The next alarm. Whoever is slow misses some; all are counted.
async fn alarm(alarms: &mut Option<Alarms<Alarm>>) -> Alarm {
    use tokio::sync::broadcast::error::RecvError;
    loop {
        match alarms {
            Some(waiting) => match waiting.recv().await {
                Ok(alarm) => return alarm,
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => *alarms = None,
            },
            None => return std::future::pending().await,
        }
    }
}

#[derive(Serialize)]
struct Waiting {
    waiting: u64,
}

#[derive(Serialize)]
struct AlarmLine {
    alarm: String,
    hint: &'static str,
}

#[derive(Serialize)]
struct Bus {
    bus: BusState,
}

#[derive(Serialize)]
struct End<'a> {
    end: &'a Fault,
}

/// A line of JSON. What is dropped is wiped by the program's allocator.
fn line(of: &impl Serialize) -> Bytes {
    let mut line = serde_json::to_vec(of).unwrap_or_default();
    line.push(b'\n');
    Bytes::from(line)
}
