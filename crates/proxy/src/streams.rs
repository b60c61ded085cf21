//! The streams of a home, sealed for and opened.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sealcast::{
    AskingCounts, Carried, DataTopic, Home, Name, Opener, OpenerOptions, Position, Reason, Shelf,
    State, Stream, StreamId,
};
use tokio::time::{Instant, sleep};

use crate::counts::because;
use crate::park::Keeping;
use crate::rules::Rules;
use crate::sealing::{
    Envelope, NotOpened, NotSealed, OpenFuture, Opened, Opening, SealFuture, Sealing, Unopened,
    Waiting,
};

/// Between two tries to reach a bus.
const RETRY: Duration = Duration::from_secs(1);
/// For how long nobody waits for a bus that somebody has waited for in vain.
const AWAY_FOR: Duration = Duration::from_secs(5);

/// The streams that rules name. Sealing has a handle of its own, so that it does not wait for opening.
#[derive(Debug)]
pub struct Streams {
    sealing: BTreeMap<Name, Gate>,
    opening: BTreeMap<Name, Arc<Way>>,
    home: Home,
    shelf: Shelf,
    age_max: Duration,
}

impl Streams {
    /// Opens the streams that rules name. What was sealed longer ago than `age_max` when its client connected is
    /// opened only where the broker had retained it.
    ///
    /// # Errors
    ///
    /// Fails when the home does not have one of them, or its bus cannot be reached.
    pub async fn open(
        home: &Home,
        rules: &Rules,
        age_max: Duration,
    ) -> Result<Self, sealcast::Error> {
        let (mut sealing, mut opening) = (BTreeMap::new(), BTreeMap::new());
        for rule in rules.all() {
            let Some(name) = rule.act.stream() else {
                continue;
            };
            if rule.act.seals() && !sealing.contains_key(name) {
                let gate = Gate {
                    stream: home.stream(name).await?,
                    is_away: Arc::default(),
                };
                sealing.insert(name.clone(), gate);
            }
            if rule.act.opens() && !opening.contains_key(name) {
                let way = Way {
                    stream: home.stream(name).await?,
                    failed: Mutex::default(),
                };
                opening.insert(name.clone(), Arc::new(way));
            }
        }
        Ok(Self {
            sealing,
            opening,
            home: home.clone(),
            shelf: home.shelf(),
            age_max,
        })
    }

    /// All handles.
    pub fn all(&self) -> impl Iterator<Item = &Stream> {
        let opening = self.opening.values().map(|of| &of.stream);
        let sealing = self.sealing.values().map(|of| &of.stream);
        sealing.chain(opening)
    }
}

impl Sealing for Streams {
    fn seal<'a>(
        &'a self,
        stream: &'a Name,
        messages: &'a [(&'a DataTopic, &'a [u8])],
    ) -> SealFuture<'a> {
        Box::pin(async move {
            let gate = self.sealing.get(stream).ok_or(NotSealed {
                code: "stream.unknown",
                is_lasting: true,
            })?;
            gate.seal(messages).await
        })
    }

    fn id(&self, stream: &Name) -> Option<StreamId> {
        self.sealing.get(stream).map(|gate| gate.stream.id())
    }

    fn can_seal<'a>(&'a self, stream: &'a Name) -> Waiting<'a, bool> {
        Box::pin(async move {
            match self.sealing.get(stream) {
                Some(gate) => gate.can_seal().await,
                None => false,
            }
        })
    }

    fn keeping(&self) -> Arc<dyn Keeping> {
        Arc::new(self.shelf.clone())
    }

    fn asked(&self) -> AskingCounts {
        self.home.asked()
    }

    fn opening(&self, stream: &Name) -> Box<dyn Opening> {
        Box::new(StreamOpening {
            way: self.opening.get(stream).cloned(),
            age_max: self.age_max,
            opener: None,
        })
    }
}

/// Seals for one stream. While its bus is away nobody waits for that.
#[derive(Debug)]
struct Gate {
    stream: Stream,
    is_away: Arc<AtomicBool>,
}

impl Gate {
    async fn seal(&self, messages: &[(&DataTopic, &[u8])]) -> Result<Vec<Vec<u8>>, NotSealed> {
        if self.is_away.load(Ordering::Relaxed) {
            return Err(NotSealed {
                code: "bus.failed",
                is_lasting: false,
            });
        }
        let messages: Vec<_> = messages
            .iter()
            .map(|(topic, payload)| (Some(*topic), *payload))
            .collect();
        let sealed = self.stream.seal_all(&messages).await;
        let sealed = sealed.map_err(|error| self.failed(&error))?;
        Ok(sealed.into_iter().map(|of| of.envelope).collect())
    }

    fn failed(&self, error: &sealcast::Error) -> NotSealed {
        if error.is_bus_away() && !self.is_away.swap(true, Ordering::Relaxed) {
            let (stream, is_away) = (self.stream.clone(), Arc::clone(&self.is_away));
            tokio::spawn(async move {
                // Where it ends otherwise, what is wrong is told to whoever seals next.
                let _is_back = stream.wait_for_bus().await.is_ok();
                is_away.store(false, Ordering::Relaxed);
            });
        }
        NotSealed {
            code: error.code(),
            is_lasting: is_lasting(error),
        }
    }

    async fn can_seal(&self) -> bool {
        if self.is_away.load(Ordering::Relaxed) {
            return false;
        }
        match self.stream.check_seal().await {
            Ok(()) => true,
            Err(error) => self.failed(&error).is_lasting,
        }
    }
}

/// Whether the same message would not be sealed later either.
fn is_lasting(error: &sealcast::Error) -> bool {
    matches!(
        error.code(),
        "access.not-allowed"
            | "access.forked"
            | "device.revoked"
            | "message.too-large"
            | "stream.closed"
    )
}

/// What opens for one stream begins here.
#[derive(Debug)]
struct Way {
    stream: Stream,
    /// When that failed, and why.
    failed: Mutex<Option<(Instant, NotOpened)>>,
}

struct StreamOpening {
    way: Option<Arc<Way>>,
    age_max: Duration,
    opener: Option<Opener>,
}

impl Opening for StreamOpening {
    fn open<'a>(&'a mut self, envelopes: &'a [Envelope<'a>]) -> OpenFuture<'a> {
        Box::pin(async move {
            let opener = match self.opener().await {
                Ok(opener) => opener,
                Err(fault) => return envelopes.iter().map(|_| Err(fault)).collect(),
            };
            let of = envelopes.iter();
            let messages: Vec<_> = of
                .map(|of| (Some(of.topic), of.bytes, of.arrival))
                .collect();
            let mut opened = Vec::with_capacity(messages.len());
            while let Some(rest) = messages.get(opened.len()..).filter(|of| !of.is_empty()) {
                match opener.open_some(rest).await {
                    Ok(told) => opened.extend(told.into_iter().map(records_of)),
                    Err(error) => {
                        let fault = failed(error);
                        opened.resize(messages.len(), Err(fault));
                    }
                }
            }
            opened
        })
    }

    fn changed(&mut self) -> Waiting<'_, ()> {
        Box::pin(async move {
            if let Some(opener) = &mut self.opener {
                return opener.changed().await;
            }
            // There is none as long as the bus cannot be reached.
            while self.opener().await.is_err() {
                sleep(RETRY).await;
            }
        })
    }
}

impl Way {
    /// Fails at once where it has just failed for somebody else, since many may want one.
    async fn opener(&self, options: OpenerOptions) -> Result<Opener, NotOpened> {
        let failed = *self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, fault)) = failed.filter(|(at, _)| at.elapsed() < AWAY_FOR) {
            return Err(fault);
        }
        let opener = self.stream.opener_with(options).await.map_err(self::failed);
        let fault = opener.as_ref().err().map(|fault| (Instant::now(), *fault));
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = fault;
        opener
    }
}

impl StreamOpening {
    async fn opener(&mut self) -> Result<&mut Opener, NotOpened> {
        let opener = match self.opener.take() {
            Some(opener) => opener,
            None => {
                let way = self.way.as_ref().ok_or(NotOpened {
                    code: "stream.unknown",
                    why: Unopened::Foreign,
                })?;
                let from = Some(before(self.age_max));
                way.opener(OpenerOptions { from }).await?
            }
        };
        Ok(self.opener.insert(opener))
    }
}

fn records_of(told: Carried) -> Opened {
    let last = told.deliveries.last().map(|of| (of.state, of.reason));
    let records = told.deliveries.into_iter().filter_map(|of| of.payload);
    let records: Vec<_> = records.map(|of| of.into_vec()).collect();
    match records.is_empty() {
        true => Err(NotOpened {
            code: last.map_or("rejected", |(state, reason)| code(state, reason)),
            why: why(told.may_open_later, told.is_signed),
        }),
        false => Ok(records),
    }
}

/// What it says of an envelope that it did not open.
fn why(may_open_later: bool, is_signed: bool) -> Unopened {
    match (may_open_later, is_signed) {
        (true, true) => Unopened::Sealed,
        // The bus is away, so that nobody can say who sealed it, or whether they may.
        (true, false) => Unopened::NotNow,
        (false, _) => Unopened::Foreign,
    }
}

fn failed(error: sealcast::Error) -> NotOpened {
    NotOpened {
        code: error.code(),
        why: Unopened::NotNow,
    }
}

/// So long ago.
fn before(age: Duration) -> Position {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let then = now.saturating_sub(age).as_millis();
    Position(u64::try_from(then).unwrap_or_default())
}

/// A name for what became of an envelope that did not open.
fn code(state: State, reason: Option<Reason>) -> &'static str {
    match (state, reason) {
        (_, Some(Reason::NotGranted)) => "not-granted",
        (_, Some(Reason::KeyNotHere)) => "key-not-here",
        (_, Some(Reason::UnknownSession)) => "unknown-session",
        (_, Some(Reason::UnknownSender)) => "unknown-sender",
        (_, Some(Reason::NotEntitled)) => "not-entitled",
        (_, Some(Reason::AfterRevocation)) => "after-revocation",
        (_, Some(Reason::Malformed)) => "malformed",
        (_, Some(Reason::BadSignature)) => "bad-signature",
        (_, Some(Reason::NotAuthentic)) => "not-authentic",
        (_, Some(Reason::WrongSession)) => "wrong-session",
        (State::Replay, _) => because::REPLAY,
        (State::Fork, _) => because::FORK,
        (State::Sealed, _) => "sealed",
        _ => "rejected",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever it lacks: a key, a grant, or the record of a session that has just begun.
    #[test]
    fn what_may_open_later_is_not_dropped() {
        assert_eq!(why(true, true), Unopened::Sealed);
        assert_eq!(why(true, false), Unopened::NotNow);
        assert_eq!(why(false, false), Unopened::Foreign);
    }
}
