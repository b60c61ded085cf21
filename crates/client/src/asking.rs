//! Asking for keys and answering who asks, `spec/asking.md`: what drives the engine's machines.
//!
//! An [`Asking`] is shared by all who lack keys of one stream in this process: subscriptions tell it
//! what stayed sealed, [`Stream::request`](crate::Stream::request) what somebody wants. An
//! [`Answering`] is as independent as a process of its own. Both end when nobody holds them, and
//! what was asked for ends with its key.

use std::time::Duration;

use sealcast_engine::{AskBody, AskerEvent, AskerLimits, CombinerEvent, Pace};
use sealcast_protocol::{Position, StreamTopics, Want};
use tokio::time::{Instant, sleep};

use crate::blocking::off_thread;
use crate::core::Core;
use crate::error::Error;
use crate::home::topic;

mod answering;
mod approval;
mod asker;
mod counts;
mod inbox;
mod machines;
mod nodes_said;
mod policy;
mod request;

pub use answering::{AnswerOptions, Answered, Answering};
pub(crate) use asker::{Asking, AskingSlot};
pub(crate) use counts::Counted;
pub use counts::{AskingCounts, NodesAsked, OthersAsked};
pub(crate) use inbox::InboxMark;
pub use nodes_said::NodesSaid;
pub use policy::{AskedFor, AskerStanding, Decision, Policy, Question, Verdict};
pub use request::{RequestOptions, Requested};

/// How long to wait before what failed is tried again.
pub(crate) const PAUSE: Duration = Duration::from_secs(1);

/// How a home asks others for keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AskingOptions {
    /// Whether a subscription asks by itself for the keys of what it cannot open.
    pub subscriptions_ask: bool,
    /// How long one request waits for keys that work; five minutes at most.
    pub key_request_timeout: Duration,
    /// Requests that an opened home sends in a second, at most, in all its streams together.
    pub max_key_requests_per_second: u32,
}

impl Default for AskingOptions {
    fn default() -> Self {
        let limits = AskerLimits::default();
        Self {
            subscriptions_ask: true,
            key_request_timeout: Duration::from_millis(limits.key_request_timeout_ms),
            max_key_requests_per_second: limits.max_key_requests_per_second,
        }
    }
}

impl AskingOptions {
    fn limits(&self) -> AskerLimits {
        let timeout_ms = self.key_request_timeout.as_millis();
        AskerLimits {
            key_request_timeout_ms: u64::try_from(timeout_ms).unwrap_or(u64::MAX),
            max_key_requests_per_second: self.max_key_requests_per_second,
            ..AskerLimits::default()
        }
    }
}

/// What becomes of what is wanted.
#[derive(Clone, Debug)]
pub(crate) enum AskingEvent {
    /// By asking others.
    Asker(AskerEvent),
    /// By asking key nodes.
    Nodes(CombinerEvent),
    /// Key nodes are done with it, and nobody else was to be asked.
    Left(Want),
}

/// How a home asks, and how often it did lately, by a clock that nobody sets.
#[derive(Debug)]
pub(crate) struct HomeAsking {
    pub(crate) options: AskingOptions,
    pace: Pace,
    began: Instant,
}

impl HomeAsking {
    pub(crate) fn new(options: AskingOptions) -> Self {
        let per_second = options.max_key_requests_per_second;
        Self {
            options,
            pace: Pace::new(per_second, per_second),
            began: Instant::now(),
        }
    }

    /// When the next request may leave, which is counted as sent.
    pub(crate) fn reserve(&mut self) -> Instant {
        let ms = self.began.elapsed().as_millis();
        let now = Position(u64::try_from(ms).unwrap_or(u64::MAX));
        let at = Duration::from_millis(self.pace.reserve(now).0);
        self.began.checked_add(at).unwrap_or(self.began)
    }
}

impl Default for HomeAsking {
    fn default() -> Self {
        Self::new(AskingOptions::default())
    }
}

impl Core {
    /// Signs what goes to the `ask` topic, and sends it to whoever listens, and to an inbox if it
    /// goes there, too.
    async fn send_ask(&self, body: AskBody) -> Result<(), Error> {
        let inbox = body.inbox();
        let home = self.home.clone();
        let wire = off_thread(move || body.sign(home.identity.signing())).await?;
        let wire = wire.map_err(|_| Error::Internal("an object about keys is odd"))?;
        let ask = topic(&StreamTopics(self.id()).ask())?;
        self.bus.send(&ask, wire.clone()).await?;
        if let Some(device) = inbox {
            let inbox = topic(&device.inbox_topic())?;
            self.bus.append(&inbox, Vec::from([wire])).await?;
        }
        Ok(())
    }
}

/// Waits until a time by the home's clock; for ever without one.
pub(crate) async fn until(core: &Core, at: Option<Position>) {
    match at {
        Some(at) => {
            let ms = at.0.saturating_sub(core.now().0).max(1);
            sleep(Duration::from_millis(ms)).await;
        }
        None => std::future::pending().await,
    }
}
