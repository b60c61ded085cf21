//! Envelopes that several openers are brought at the same time, judged in one go off the runtime's
//! threads: one machine has the keys, and each opener its own memory.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use sealcast_engine::{Allowed, Arrival, Carried, Events, Mode, Reader as Machine, Sightings};
use sealcast_protocol::DataTopic;
use tokio::sync::oneshot;

use crate::blocking::off_thread;
use crate::core::{Core, lock};
use crate::error::Error;

/// Behind so many envelopes, or bytes of them, nothing more is judged in the same go.
const COUNT_MAX: usize = 64;
const BYTES_MAX: usize = 1 << 20;

/// Judges one after another.
#[derive(Debug)]
pub(crate) struct Judging {
    machine: Arc<tokio::sync::Mutex<Machine>>,
    waiting: Arc<Mutex<VecDeque<Case>>>,
}

/// What a carrier brought.
#[derive(Debug)]
pub(crate) struct Brought {
    pub(crate) topic: Option<DataTopic>,
    pub(crate) envelope: Vec<u8>,
    pub(crate) arrival: Arrival,
}

/// What was found of it.
#[derive(Debug)]
pub(crate) struct Judged {
    pub(crate) carried: Carried,
    pub(crate) events: Events,
}

/// What an opener was brought at once, and who waits for it to be judged.
#[derive(Debug)]
struct Case {
    brought: Arc<[Brought]>,
    seen: Arc<Mutex<Sightings>>,
    tell: oneshot::Sender<Vec<Judged>>,
}

impl Default for Judging {
    fn default() -> Self {
        Self {
            machine: Arc::new(tokio::sync::Mutex::new(Machine::new(Mode::Live))),
            waiting: Arc::default(),
        }
    }
}

impl Judging {
    /// Judges each of some envelopes by what is known. Nothing is noted, so none of them is judged by another. Whoever
    /// has the machine judges for others that wait, in the order in which they came.
    pub(crate) async fn judge(
        &self,
        core: &Arc<Core>,
        allowed: impl Fn() -> Arc<Allowed>,
        (brought, seen): (Arc<[Brought]>, Arc<Mutex<Sightings>>),
    ) -> Result<Vec<Judged>, Error> {
        let (tell, mut judged) = oneshot::channel();
        lock(&self.waiting).push_back(Case {
            brought,
            seen,
            tell,
        });
        loop {
            let mut machine = tokio::select! {
                biased;
                judged = &mut judged => {
                    return judged.map_err(|_| Error::Internal("an envelope was not judged"));
                }
                machine = self.machine.clone().lock_owned() => machine,
            };
            machine.allow(allowed());
            let (core, waiting) = (core.clone(), self.waiting.clone());
            off_thread(move || {
                for case in take_some(&waiting) {
                    case.close(&core, &mut machine);
                }
            })
            .await?;
        }
    }
}

/// The first that wait and for which somebody still does.
fn take_some(waiting: &Mutex<VecDeque<Case>>) -> Vec<Case> {
    let mut waiting = lock(waiting);
    let (mut some, mut count, mut bytes) = (Vec::new(), 0, 0);
    while count < COUNT_MAX
        && bytes < BYTES_MAX
        && let Some(case) = waiting.pop_front()
    {
        if !case.tell.is_closed() {
            count += case.brought.len();
            bytes += case.bytes();
            some.push(case);
        }
    }
    some
}

impl Case {
    fn bytes(&self) -> usize {
        self.brought.iter().map(|of| of.envelope.len()).sum()
    }

    fn close(self, core: &Core, machine: &mut Machine) {
        let seen = lock(&self.seen);
        let judged = self.brought.iter().map(|brought| {
            let of = (brought.topic.as_ref(), &brought.envelope[..]);
            Judged {
                carried: machine.judge_carried(&core.view(), &seen, of, brought.arrival),
                events: machine.take_events(),
            }
        });
        let judged = judged.collect();
        // Whoever does not listen any more may hand them in again.
        let _is_heard = self.tell.send(judged).is_ok();
    }
}
