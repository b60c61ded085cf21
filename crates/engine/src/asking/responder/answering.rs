//! A request from its turn to its end.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use sealcast_protocol::{
    COVERS_MAX, Claim, CoverSpec, Position, Refusal, RefusalReason, Solicitation, UserId, Want,
};

use super::memory::SKEW_MS;
use super::open::{Open, Stage};
use super::{AskBody, Decision, Key, Question, Responder, ResponderOutput};
use crate::share::{HandoutKey, Verdict, handouts, verdicts};
use crate::view::StreamView;

/// Bytes of all requests that are open, at most.
const OPEN_BYTES_MAX: usize = 16 << 20;
/// Time between two looks at a request that names log entries which are not known here. After the
/// first, what the log allows as far as it is known is given, if it is less.
const HEADS_PAUSE_MS: u64 = 5_000;
/// Time for the first look into an inbox, in milliseconds.
const FOLLOW_MS: u64 = 500;
/// Bundles that one request is answered with, at most.
const BUNDLES_MAX: usize = 32;

impl Responder {
    /// Lets a checked request wait for this device's turn.
    pub(super) fn open(
        &mut self,
        now: Position,
        view: &StreamView,
        asked: Solicitation,
        len: usize,
    ) {
        let clock = self.steady.clock();
        let live = |of: &sealcast_protocol::CardList| {
            of.device(&asked.device).is_some_and(|of| of.is_live(clock))
        };
        if !view.list(&asked.user).is_some_and(live)
            || self.open.len() >= self.limits.open_max
            || self.open_bytes + len > OPEN_BYTES_MAX
        {
            return;
        }
        let Ok(to) = asked.wrap_key() else {
            return;
        };
        let key = (asked.device, asked.request);
        let seen = (key, self.steady.time_at(asked.expires.after(SKEW_MS)));
        let open_max = self.limits.open_of_user_max;
        if !self.memory.admit(now, asked.user, open_max, seen) {
            return;
        }
        self.ground.refresh(view);
        let turn = self.ground.turn(view, clock, &asked);
        let open = Open::new(asked, to, len, now, turn);
        self.open_bytes += len;
        self.wakes.insert((open.wake_at, key));
        self.open.insert(key, open);
    }

    /// Looks at a request again when this device's turn comes after something became free.
    pub(super) fn wake_in_turn(&mut self, key: Key, freed: Position) {
        if let Some(open) = self.open.get(&key) {
            let at = freed.after(open.turn.delay).min(open.wake_at);
            self.wake(key, at);
        }
    }

    /// Looks at a request again at a time, but not before its turn has come.
    pub(super) fn wake(&mut self, key: Key, at: Position) {
        if let Some(open) = self.open.get_mut(&key) {
            self.wakes.remove(&(open.wake_at, key));
            open.wake_at = at.max(open.turn_at).min(open.until);
            self.wakes.insert((open.wake_at, key));
        }
    }

    /// Goes on with every request whose time has come.
    pub(super) fn advance(&mut self, now: Position, view: &StreamView) {
        while let Some((at, key)) = self.wakes.first().copied()
            && at <= now
        {
            self.wakes.remove(&(at, key));
            self.go_on(now, view, key);
        }
    }

    fn go_on(&mut self, now: Position, view: &StreamView, key: Key) {
        self.ground.refresh(view);
        let Some(open) = self.open.get_mut(&key) else {
            return;
        };
        if now >= open.until || open.is_over() {
            return self.close(key);
        }
        if let Stage::Deciding(_) = open.stage {
            let until = open.until;
            return self.wake(key, until);
        }
        if open.has_lapsed(now) && !open.is_followed {
            open.is_followed = true;
            return self.follow(now, key);
        }
        let knows_all = view.knows(&open.asked.heads);
        let mut said = verdicts(
            view,
            &self.ground.sessions,
            self.steady.clock(),
            &open.asked,
            open.free(now),
        );
        let is_late = now >= open.turn_at.after(HEADS_PAUSE_MS);
        said.retain(|at, verdict| match verdict {
            Verdict::Give(covers) => {
                let want = open.asked.wants.get(usize::from(*at));
                let is_whole = covers
                    .iter()
                    .all(|of| want.is_some_and(|want| want.interval == of.interval));
                (knows_all || is_late || is_whole) && self.memory.may_give(now, &open.asked.user)
            }
            Verdict::Refuse(_) => {
                let want = open.asked.wants.get(usize::from(*at));
                let was_refused = want.is_some_and(|of| self.memory.was_refused(key.0, of));
                knows_all && !was_refused && !open.is_refused(*at)
            }
        });
        if said.is_empty() {
            let pause = (!knows_all).then(|| now.after(HEADS_PAUSE_MS));
            return match super::earlier(open.next_turn(now), pause) {
                Some(at) => self.wake(key, at),
                None => self.close(key),
            };
        }
        // The turn of those who are no keyholders comes so late that others may well have given, and
        // all that they said been lost on its way here.
        if !open.turn.is_keyholder && !open.is_followed {
            open.is_followed = true;
            return self.follow(now, key);
        }
        open.stage = Stage::Deciding(said.keys().copied().collect());
        let until = open.until;
        self.ask_application(view, key, &said);
        self.wake(key, until);
    }

    /// Finds out whether others have given before that is done once more.
    fn follow(&mut self, now: Position, key: Key) {
        let count = self.followed.entry(key.0).or_default();
        *count += 1;
        if *count == 1 {
            self.outputs.push_back(ResponderOutput::Follow(key.0));
        }
        self.wake(key, now.after(FOLLOW_MS));
    }

    /// Claims what can be given, and asks whether it should be.
    fn ask_application(&mut self, view: &StreamView, key: Key, said: &BTreeMap<u8, Verdict>) {
        let Some(open) = self.open.get(&key) else {
            return;
        };
        let given = said.iter().filter(|(_, of)| matches!(of, Verdict::Give(_)));
        let given: Vec<u8> = given.map(|(at, _)| *at).collect();
        let (user, device) = view.me();
        if !given.is_empty() {
            let claim = Claim {
                version: 1,
                stream: view.stream(),
                asker: key.0,
                request: key.1,
                user,
                device,
                wants: given,
            };
            let claim = AskBody::Claim(claim);
            self.outputs.push_back(ResponderOutput::Send(claim));
        }
        let wants = said.iter().filter_map(|(at, verdict)| {
            let decision = match verdict {
                Verdict::Give(_) => Decision::Give,
                Verdict::Refuse(reason) => Decision::Refuse(*reason),
            };
            Some((*open.asked.wants.get(usize::from(*at))?, decision))
        });
        let question = Question {
            asker: key.0,
            request: key.1,
            user: open.asked.user,
            wants: wants.collect(),
        };
        self.outputs.push_back(ResponderOutput::Decide(question));
    }

    /// Does what was decided, as far as the log allows it by now and nobody else did it meanwhile.
    pub(super) fn decided(
        &mut self,
        now: Position,
        view: &StreamView,
        key: Key,
        decision: Decision,
    ) {
        self.ground.refresh(view);
        let Some(open) = self.open.get_mut(&key) else {
            return;
        };
        let Stage::Deciding(places) = core::mem::replace(&mut open.stage, Stage::Waiting) else {
            return;
        };
        let free = open.free(now);
        let places = places.into_iter().filter(|at| free.contains(at));
        let clock = self.steady.clock();
        let said = verdicts(view, &self.ground.sessions, clock, &open.asked, places);
        let (mut given, mut refused) = (Vec::new(), BTreeMap::<_, Vec<u8>>::new());
        for (at, verdict) in said {
            let Some(want) = open.asked.wants.get(usize::from(at)).copied() else {
                continue;
            };
            match (decision, verdict) {
                (Decision::Give, Verdict::Give(covers)) => given.push((at, want, covers)),
                (Decision::Give, Verdict::Refuse(reason)) if !open.is_refused(at) => {
                    refused.entry(reason).or_default().push(at);
                }
                (Decision::Refuse(reason), _) => refused.entry(reason).or_default().push(at),
                (Decision::Give, Verdict::Refuse(_)) => (),
            }
        }
        self.give(now, key, given);
        for (reason, places) in refused {
            self.refuse(now, view, key, reason, places);
        }
        self.wake(key, now);
    }

    fn give(&mut self, now: Position, key: Key, given: Vec<(u8, Want, Vec<CoverSpec>)>) {
        let Some(open) = self.open.get_mut(&key) else {
            return;
        };
        let user = open.asked.user;
        let mut lanes = Vec::new();
        let mut room = BUNDLES_MAX * COVERS_MAX;
        for (at, want, mut covers) in given {
            open.answer(at);
            let wanted = covers.len().min(room);
            covers.truncate(self.memory.take_covers(now, &user, wanted));
            room -= covers.len();
            lanes.push((want.lane, covers));
        }
        let to = HandoutKey::OneUse {
            request: key.1,
            key: open.key.clone(),
        };
        let handouts = handouts(&open.asked, &to, lanes);
        self.outputs
            .extend(handouts.into_iter().map(ResponderOutput::Give));
    }

    /// Refuses where this device rules: what others refuse is not heard.
    fn refuse(
        &mut self,
        now: Position,
        view: &StreamView,
        key: Key,
        reason: RefusalReason,
        places: Vec<u8>,
    ) {
        let Some(open) = self.open.get_mut(&key) else {
            return;
        };
        let (user, device) = view.me();
        let rules = |lane: &UserId| view.state().is_keyholder(&user, &device, lane);
        let mut named = Vec::new();
        for at in places {
            open.answer(at);
            if let Some(want) = open.asked.wants.get(usize::from(at))
                && rules(&want.lane)
            {
                self.memory.note_refused(now, key.0, *want, reason);
                named.push(at);
            }
        }
        if named.is_empty() {
            return;
        }
        let refusal = Refusal {
            version: 1,
            stream: view.stream(),
            asker: key.0,
            request: key.1,
            user,
            device,
            wants: named,
            reason,
        };
        let refusal = AskBody::Refusal(refusal);
        self.outputs.push_back(ResponderOutput::Send(refusal));
    }

    /// Is done with a request. Its id stays remembered.
    pub(super) fn close(&mut self, key: Key) {
        let Some(open) = self.open.remove(&key) else {
            return;
        };
        self.wakes.remove(&(open.wake_at, key));
        self.open_bytes -= open.len;
        self.memory.close(&open.asked.user);
        if open.is_followed
            && let Some(count) = self.followed.get_mut(&key.0)
        {
            *count -= 1;
            if *count == 0 {
                self.followed.remove(&key.0);
                self.outputs.push_back(ResponderOutput::Unfollow(key.0));
            }
        }
    }
}
