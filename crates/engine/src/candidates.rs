//! The keys that a reader tries, session by session, `spec/reading.md`, section "Keys".

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use sealcast_crypto::{Cover, SecretBytes, Walker};
use sealcast_protocol::{DeviceId, SessionId, UserId, VerifiedEnvelope};

use crate::view::StreamView;

/// Sessions whose walkers are kept at hand. Of others they are made anew from what the view holds.
const SESSIONS_MAX: usize = 1024;

/// Opens envelopes with what a view holds.
#[derive(Debug, Default)]
pub(crate) struct KeyRing {
    sessions: BTreeMap<SessionId, Keys>,
    ticks: u64,
}

/// What became of opening.
pub(crate) enum Outcome {
    /// Nothing here reaches the position.
    NoKey,
    /// Nothing here opens it. The givers of what failed, where it was given.
    NotAuthentic(Vec<(UserId, DeviceId)>),
    /// What it says, and whose covers failed on it.
    Opened(SecretBytes, Vec<(UserId, DeviceId)>),
}

/// Keys of one session, and for how many of the view's covers they stand.
#[derive(Debug, Default)]
struct Keys {
    /// Fits the session's commitment, so that it alone decides.
    root: Option<Walker>,
    /// The one that opened last comes first.
    candidates: Vec<Candidate>,
    covers_taken: usize,
    /// How many of them went by then.
    covers_gone: usize,
    used: u64,
}

#[derive(Debug)]
struct Candidate {
    giver: (UserId, DeviceId),
    walker: Walker,
}

impl KeyRing {
    pub(crate) fn open(&mut self, view: &StreamView, envelope: &VerifiedEnvelope<'_>) -> Outcome {
        self.ticks += 1;
        let session = envelope.header().session;
        if !self.sessions.contains_key(&session) {
            self.make_room();
        }
        let keys = self.sessions.entry(session).or_default();
        keys.used = self.ticks;
        keys.refresh(view, &session);
        keys.open(envelope)
    }

    fn make_room(&mut self) {
        if self.sessions.len() < SESSIONS_MAX {
            return;
        }
        let mut uses: Vec<_> = self.sessions.values().map(|keys| keys.used).collect();
        uses.sort_unstable();
        let oldest = uses.get(SESSIONS_MAX / 4).copied().unwrap_or_default();
        self.sessions.retain(|_, keys| keys.used > oldest);
    }
}

impl Keys {
    /// Takes in what the view has learned since.
    fn refresh(&mut self, view: &StreamView, session: &SessionId) {
        if self.root.is_some() {
            return;
        }
        if let Some(root) = view.root(session) {
            self.root = Some(Walker::new(Cover::whole(root)));
            self.candidates.clear();
            return;
        }
        let held = view.covers(session);
        let (_, gone) = view.covers_moved(session);
        if gone != self.covers_gone {
            (self.covers_taken, self.covers_gone) = (0, gone);
            self.candidates.clear();
        }
        for cover in held.get(self.covers_taken..).unwrap_or_default() {
            self.candidates.push(Candidate {
                giver: cover.giver,
                walker: Walker::new(cover.cover.duplicate()),
            });
        }
        self.covers_taken = held.len();
    }

    fn open(&mut self, envelope: &VerifiedEnvelope<'_>) -> Outcome {
        let position = envelope.header().position.0;
        let Some(root) = &mut self.root else {
            return self.open_with_candidates(envelope);
        };
        let Some(leaf) = root.leaf(position) else {
            return Outcome::NoKey;
        };
        match envelope.open(&leaf) {
            Ok(plaintext) => Outcome::Opened(plaintext, Vec::new()),
            Err(_) => Outcome::NotAuthentic(Vec::new()),
        }
    }

    /// Tries each candidate; one that fails where another opens is dropped, its giver named.
    fn open_with_candidates(&mut self, envelope: &VerifiedEnvelope<'_>) -> Outcome {
        let position = envelope.header().position.0;
        let mut failed = Vec::new();
        let mut opened = None;
        for (i, candidate) in self.candidates.iter_mut().enumerate() {
            let Some(leaf) = candidate.walker.leaf(position) else {
                continue;
            };
            match envelope.open(&leaf) {
                Ok(plaintext) => {
                    opened = Some((i, plaintext));
                    break;
                }
                Err(_) => failed.push(i),
            }
        }
        match opened {
            Some((i, plaintext)) => {
                self.candidates
                    .get_mut(..=i)
                    .unwrap_or_default()
                    .rotate_right(1);
                let moved = failed.iter().map(|at| at + 1).collect::<Vec<_>>();
                Outcome::Opened(plaintext, self.drop_candidates(&moved))
            }
            None if failed.is_empty() => Outcome::NoKey,
            None => Outcome::NotAuthentic(self.givers(&failed)),
        }
    }

    fn givers(&self, of: &[usize]) -> Vec<(UserId, DeviceId)> {
        let candidates = of.iter().filter_map(|&i| self.candidates.get(i));
        let mut givers: Vec<_> = candidates.map(|candidate| candidate.giver).collect();
        givers.sort_unstable();
        givers.dedup();
        givers
    }

    fn drop_candidates(&mut self, failed: &[usize]) -> Vec<(UserId, DeviceId)> {
        let givers = self.givers(failed);
        for &i in failed.iter().rev() {
            self.candidates.remove(i);
        }
        givers
    }
}
