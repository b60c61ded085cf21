//! How streams stand, as their last messages showed it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sealcast::{AskingCounts, DataTopic, Name, StreamId};
use tokio::time::{Duration, Instant};

use crate::park::Keeping;
use crate::rules::Rules;
use crate::sealing::{
    Envelope, NotOpened, OpenFuture, Opening, SealFuture, Sealing, Unopened, Waiting,
};

/// How long a fault says how a stream stands: it may be over, and nobody have sent anything since.
const LASTS: Duration = Duration::from_secs(60);

/// How streams stand, each by a number in the order in which rules named it first.
#[derive(Debug, Default)]
pub(crate) struct Standing(Mutex<BTreeMap<Name, Of>>);

/// How one stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Of {
    pub(crate) number: usize,
    /// How often a message could not be sealed or opened then, and might be later.
    pub(crate) faults: u64,
    last: Option<(Instant, &'static str)>,
}

impl Of {
    /// Why messages cannot be sealed or opened now.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        let (since, code) = self.last?;
        (since.elapsed() < LASTS).then_some(code)
    }
}

impl Standing {
    /// Gives numbers to streams that have none.
    pub(crate) fn name(&self, rules: &Rules) {
        let mut all = self.lock();
        for stream in rules.all().iter().filter_map(|rule| rule.act.stream()) {
            let (number, faults, last) = (all.len() + 1, 0, None);
            all.entry(stream.clone()).or_insert(Of {
                number,
                faults,
                last,
            });
        }
    }

    /// All of them, by their numbers.
    pub(crate) fn all(&self) -> Vec<Of> {
        let mut all: Vec<_> = self.lock().values().copied().collect();
        all.sort_by_key(|of| of.number);
        all
    }

    fn note(&self, stream: &Name, fault: Option<&'static str>) {
        if let Some(of) = self.lock().get_mut(stream) {
            of.faults += u64::from(fault.is_some());
            of.last = fault.map(|code| (Instant::now(), code));
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Name, Of>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Seals and opens as another does, and notes how that went.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) sealing: Arc<dyn Sealing>,
    pub(crate) standing: Arc<Standing>,
}

struct WatchedOpening {
    opening: Box<dyn Opening>,
    standing: Arc<Standing>,
    stream: Name,
}

impl Sealing for Watched {
    fn seal<'a>(
        &'a self,
        stream: &'a Name,
        messages: &'a [(&'a DataTopic, &'a [u8])],
    ) -> SealFuture<'a> {
        Box::pin(async move {
            let sealed = self.sealing.seal(stream, messages).await;
            match &sealed {
                Ok(_) => self.standing.note(stream, None),
                Err(fault) if !fault.is_lasting => self.standing.note(stream, Some(fault.code)),
                // That is about who seals, or what.
                Err(_) => {}
            }
            sealed
        })
    }

    fn id(&self, stream: &Name) -> Option<StreamId> {
        self.sealing.id(stream)
    }

    fn can_seal<'a>(&'a self, stream: &'a Name) -> Waiting<'a, bool> {
        self.sealing.can_seal(stream)
    }

    fn keeping(&self) -> Arc<dyn Keeping> {
        self.sealing.keeping()
    }

    fn asked(&self) -> AskingCounts {
        self.sealing.asked()
    }

    fn opening(&self, stream: &Name) -> Box<dyn Opening> {
        Box::new(WatchedOpening {
            opening: self.sealing.opening(stream),
            standing: Arc::clone(&self.standing),
            stream: stream.clone(),
        })
    }
}

impl Opening for WatchedOpening {
    fn open<'a>(&'a mut self, envelopes: &'a [Envelope<'a>]) -> OpenFuture<'a> {
        Box::pin(async move {
            let opened = self.opening.open(envelopes).await;
            for of in &opened {
                match of {
                    Ok(_) => self.standing.note(&self.stream, None),
                    Err(NotOpened {
                        why: Unopened::NotNow,
                        code,
                    }) => self.standing.note(&self.stream, Some(code)),
                    Err(_) => {}
                }
            }
            opened
        })
    }

    fn changed(&mut self) -> Waiting<'_, ()> {
        self.opening.changed()
    }
}
