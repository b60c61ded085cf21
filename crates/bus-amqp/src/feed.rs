//! What the queue of a log delivers, from some place on.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt as _, Stream as _};
use lapin::Consumer;
use lapin::options::{BasicAckOptions, BasicCancelOptions};
use lapin::types::{AMQPValue, FieldTable};
use tokio::time::timeout;

use crate::fault::Fault;
use crate::server::{ANSWER_TIMEOUT, Desk};

/// Where in a queue its delivery is to begin, and where a message is.
const OFFSET: &str = "x-stream-offset";

/// How long the first message may take before it is asked for once more.
const FIRST_TIMEOUT: Duration = Duration::from_secs(2);

/// Where a delivery begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    First,
    /// Somewhere near the end, but not behind the last message.
    Last,
    At(u64),
}

/// A message of a queue.
#[derive(Clone, Debug)]
pub(crate) struct Delivered {
    pub(crate) at: u64,
    pub(crate) bytes: Bytes,
}

/// Delivers the messages of a queue, in their order.
///
/// The server delivers `credit` messages, and more for each that is acknowledged. To be asked whether
/// there are more it must be told of one, so some are kept for that.
#[derive(Debug)]
pub(crate) struct Feed {
    desk: Desk,
    queue: String,
    consumer: Consumer,
    /// Those that the server was not told of, the oldest first.
    kept: VecDeque<u64>,
    /// The next message is there or behind it.
    next: u64,
    /// What came and comes once more.
    back: Option<Delivered>,
    /// What the server had delivered, at most, when it last answered, without having been told.
    open: usize,
}

/// What a server delivered is not all that there is.
pub(crate) fn left_out() -> Fault {
    Fault::no_answer("the server left something out")
}

impl Feed {
    /// Begins somewhere with a message, which is known to be there, or behind it.
    ///
    /// No client that consumes as this one does is known to lose what a server delivers early. Where it
    /// is lost all the same, a later one comes first: whoever needs the very first looks where it lies.
    pub(crate) async fn attach(desk: &Desk, queue: &str, start: Start) -> Result<Self, Fault> {
        // Where everything was lost, nothing comes.
        for patience in [FIRST_TIMEOUT, ANSWER_TIMEOUT] {
            let mut feed = Self::consume(desk, queue, start)?;
            let first = poll_fn(|context| feed.poll_next(context));
            if let Ok(first) = timeout(patience, first).await {
                feed.back = Some(first?);
                return Ok(feed);
            }
        }
        Err(Fault::no_answer("the server delivers nothing"))
    }

    fn consume(desk: &Desk, queue: &str, start: Start) -> Result<Self, Fault> {
        let mut arguments = FieldTable::default();
        let offset = match start {
            Start::First => AMQPValue::LongString("first".into()),
            Start::Last => AMQPValue::LongString("last".into()),
            Start::At(at) => AMQPValue::LongLongInt(i64::try_from(at).unwrap_or(i64::MAX)),
        };
        arguments.insert(OFFSET.into(), offset);
        Ok(Self {
            consumer: desk.consume(queue, arguments)?,
            desk: desk.clone(),
            queue: queue.to_owned(),
            kept: VecDeque::new(),
            open: 0,
            back: None,
            next: match start {
                Start::At(at) => at,
                Start::First | Start::Last => 0,
            },
        })
    }

    /// Whether it can go on.
    pub(crate) fn is_up(&self) -> bool {
        self.desk.is_up()
    }

    /// The next message.
    pub(crate) fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Delivered, Fault>> {
        if let Some(back) = self.back.take() {
            return Poll::Ready(Ok(back));
        }
        loop {
            let consumer = Pin::new(&mut self.consumer);
            let delivery = match consumer.poll_next(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => {
                    let says = "the server ended the delivery";
                    return Poll::Ready(Err(Fault::no_answer(says)));
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error.into())),
                Poll::Ready(Some(Ok(delivery))) => delivery,
            };
            self.open += 1;
            self.keep(delivery.delivery_tag);
            let headers = delivery.properties.headers().as_ref();
            let at = headers.and_then(|headers| match headers.inner().get(OFFSET) {
                Some(AMQPValue::LongLongInt(at)) => u64::try_from(*at).ok(),
                _ => None,
            });
            let Some(at) = at else {
                let says = "the queue is there, and it is not a stream";
                return Poll::Ready(Err(Fault::Odd(says)));
            };
            // A chunk begins where it does.
            if at >= self.next {
                self.next = at.saturating_add(1);
                let bytes = delivery.data.into();
                return Poll::Ready(Ok(Delivered { at, bytes }));
            }
        }
    }

    /// Waits for the next message, which is known to be there.
    pub(crate) async fn next(&mut self) -> Result<Delivered, Fault> {
        let desk = self.desk.clone();
        desk.waited(poll_fn(|context| self.poll_next(context)))
            .await
    }

    /// Has a message come once more.
    pub(crate) fn put_back(&mut self, delivered: Delivered) {
        self.back = Some(delivered);
    }

    /// The next message, if it has been delivered.
    pub(crate) fn ready(&mut self) -> Result<Option<Delivered>, Fault> {
        let next = poll_fn(|context| self.poll_next(context));
        next.now_or_never().transpose()
    }

    /// Has the server deliver nothing more, and gives what it delivered before.
    pub(crate) async fn end(&mut self) -> Result<Vec<Delivered>, Fault> {
        let (desk, tag) = (self.desk.clone(), self.consumer.tag());
        let ending = desk
            .channel
            .basic_cancel(tag, BasicCancelOptions::default());
        desk.waited(ending).await?;
        let mut came = Vec::new();
        // The last of them is the end.
        while let Ok(Some(delivered)) = self.ready() {
            came.push(delivered);
        }
        for tag in std::mem::take(&mut self.kept) {
            self.acknowledge(tag);
        }
        Ok(came)
    }

    /// Has the server deliver what it has. Says whether that can be asked.
    pub(crate) async fn ask(&mut self) -> Result<bool, Fault> {
        if self.kept.is_empty() {
            self.begin_again().await?;
        }
        let Some(tag) = self.kept.pop_front() else {
            return Ok(false);
        };
        self.open = self.kept.len();
        self.acknowledge(tag);
        self.desk.round_trip().await?;
        Ok(true)
    }

    /// Has the last message delivered once more, so that there is one to ask with.
    async fn begin_again(&mut self) -> Result<(), Fault> {
        let Some(last) = self.next.checked_sub(1) else {
            return Ok(());
        };
        let mut again = Self::attach(&self.desk, &self.queue, Start::At(last)).await?;
        if again.next().await?.at != last {
            return Err(left_out());
        }
        *self = again;
        Ok(())
    }

    /// Whether nothing was held back for want of credit when the server was last asked. Only known once
    /// everything that is ready was taken.
    pub(crate) fn is_at_end(&self) -> bool {
        self.open < self.desk.credit.into()
    }

    fn keep(&mut self, tag: u64) {
        self.kept.push_back(tag);
        while self.kept.len() > (usize::from(self.desk.credit) / 2).max(1) {
            let Some(tag) = self.kept.pop_front() else {
                return;
            };
            self.acknowledge(tag);
        }
    }

    fn acknowledge(&self, tag: u64) {
        let told = self.desk.channel.basic_ack(tag, BasicAckOptions::default());
        // It is on its way with the first poll, and a broken connection shows elsewhere.
        let _ = told.now_or_never();
    }
}
