//! Requests that no grant covers and that wait for a person's yes or no.
//!
//! They are kept in memory alone: whoever asked was told to wait, and asks again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sealcast::{Interval, Position, Question, StreamId, UserId, Verdict};

/// Requests that wait, at most, and those of one user. What comes on top is refused, so that nothing
/// pushes out what somebody may be looking at.
const WAITING_MAX: usize = 256;
const OF_USER_MAX: usize = 4;
/// Intervals that one request may ask for: as many as a person looks through, and no more than a yes
/// grants.
const INTERVALS_MAX: usize = 16;
/// Answers of no that are remembered, at most.
const DENIED_MAX: usize = 1_024;

/// What a yes would grant, and to whom; two requests for the same are one question.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Subject {
    stream: StreamId,
    user: UserId,
    wanted: BTreeSet<(Interval, UserId)>,
}

impl Subject {
    fn of(question: &Question) -> Self {
        let wanted = question.beyond_log().map(|of| (of.interval, of.lane));
        Self {
            stream: question.stream,
            user: question.user,
            wanted: wanted.collect(),
        }
    }
}

/// A request that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// By which a person names it; drawn at random.
    pub(crate) id: u32,
    pub(crate) question: Question,
    pub(crate) asked: Position,
    /// When it is over without an answer, which is a no.
    pub(crate) until: Position,
}

impl Waiting {
    /// What a yes would grant: lanes and intervals.
    pub(crate) fn wanted(&self) -> Vec<(Interval, UserId)> {
        Subject::of(&self.question).wanted.into_iter().collect()
    }
}

/// What waits for a person, and what a person said no to.
#[derive(Debug)]
pub(crate) struct Questions {
    /// How long each waits, and how long a no holds, in milliseconds.
    wait_ms: u64,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    waiting: BTreeMap<Subject, Waiting>,
    /// The oldest first.
    denied: VecDeque<(Position, Subject)>,
}

impl Questions {
    pub(crate) fn new(wait: Duration) -> Self {
        Self {
            wait_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
            kept: Mutex::default(),
        }
    }

    /// Lets a question wait, unless the person said no to it lately or there is no room. `id` names
    /// it if it is new. Returns what to say meanwhile, and whether it is new.
    pub(crate) fn ask(&self, now: Position, id: u32, question: Question) -> (Verdict, bool) {
        let mut kept = self.kept(now);
        let subject = Subject::of(&question);
        if kept.waiting.contains_key(&subject) {
            return (Verdict::Later, false);
        }
        let of_user = kept.waiting.keys().filter(|of| of.user == question.user);
        let intervals = subject.wanted.iter().map(|(of, _)| of);
        let intervals: BTreeSet<_> = intervals.collect();
        if kept.denied.iter().any(|(_, of)| *of == subject)
            || kept.waiting.len() >= WAITING_MAX
            || of_user.count() >= OF_USER_MAX
            || intervals.len() > INTERVALS_MAX
            || kept.waiting.values().any(|of| of.id == id)
        {
            return (Verdict::No, false);
        }
        let waiting = Waiting {
            id,
            question,
            asked: now,
            until: now.after(self.wait_ms),
        };
        kept.waiting.insert(subject, waiting);
        (Verdict::Later, true)
    }

    /// What waits, the oldest first.
    pub(crate) fn waiting(&self, now: Position) -> Vec<Waiting> {
        let kept = self.kept(now);
        let mut waiting: Vec<_> = kept.waiting.values().cloned().collect();
        waiting.sort_unstable_by_key(|of| (of.asked, of.id));
        waiting
    }

    /// Takes out what waits under an id.
    pub(crate) fn take(&self, now: Position, id: u32) -> Option<Waiting> {
        let mut kept = self.kept(now);
        let found = kept.waiting.iter().find(|(_, of)| of.id == id);
        let subject = found.map(|(subject, _)| subject.clone())?;
        kept.waiting.remove(&subject)
    }

    /// Lets wait again what was taken out.
    pub(crate) fn put_back(&self, now: Position, waiting: Waiting) {
        let subject = Subject::of(&waiting.question);
        self.kept(now).waiting.insert(subject, waiting);
    }

    /// Says no to what waits under an id, and to the same as often as it is asked for in a while.
    pub(crate) fn deny(&self, now: Position, id: u32) -> Option<Waiting> {
        let denied = self.take(now, id)?;
        let mut kept = self.kept(now);
        if kept.denied.len() >= DENIED_MAX {
            kept.denied.pop_front();
        }
        let until = now.after(self.wait_ms);
        let subject = Subject::of(&denied.question);
        kept.denied.push_back((until, subject));
        Some(denied)
    }

    /// What is kept, without what is over.
    fn kept(&self, now: Position) -> MutexGuard<'_, Kept> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.waiting.retain(|_, of| now < of.until);
        kept.denied.retain(|(until, _)| now < *until);
        kept
    }
}

#[cfg(test)]
mod tests {
    use sealcast::{AskedFor, AskerStanding, DeviceId, RefusalReason, RequestId};

    use super::*;

    const WAIT: Duration = Duration::from_secs(60);
    const NOW: Position = Position(1_000_000);

    /// What a user asks for, from a time on.
    fn question(user: u8, froms: &[u64]) -> Question {
        let want = |from: &u64| AskedFor {
            lane: UserId([1; 32]),
            session: None,
            interval: Interval {
                from: Position(*from),
                until: Position::END,
            },
            refused: Some(RefusalReason::NotEntitled),
        };
        Question {
            stream: StreamId([3; 32]),
            name: "kitchen".parse().unwrap(),
            user: UserId([user; 32]),
            device: DeviceId([5; 16]),
            request: RequestId([6; 16]),
            wants: froms.iter().map(want).collect(),
            standing: AskerStanding::Stranger,
        }
    }

    fn ids(questions: &Questions, now: Position) -> Vec<u32> {
        questions.waiting(now).iter().map(|of| of.id).collect()
    }

    #[test]
    fn the_same_question_waits_once_and_another_beside_it() {
        let questions = Questions::new(WAIT);
        let ask = |id, question| questions.ask(NOW.after(u64::from(id)), id, question);
        assert_eq!(ask(7, question(1, &[5, 9])), (Verdict::Later, true));
        let again = Question {
            device: DeviceId([9; 16]),
            request: RequestId([9; 16]),
            ..question(1, &[9, 5])
        };
        assert_eq!(ask(8, again), (Verdict::Later, false));
        assert_eq!(ask(9, question(1, &[5])), (Verdict::Later, true));
        assert_eq!(ids(&questions, NOW), [7, 9]);
        let taken = questions.take(NOW, 7).unwrap();
        assert_eq!(taken.wanted().len(), 2);
        assert_eq!(ids(&questions, NOW), [9]);
        questions.put_back(NOW, taken);
        assert_eq!(ids(&questions, NOW), [7, 9]);
        assert_eq!(questions.take(NOW, 8), None);
    }

    #[test]
    fn a_question_is_over_when_nobody_answers_and_may_be_asked_again() {
        let questions = Questions::new(WAIT);
        questions.ask(NOW, 7, question(1, &[5]));
        assert_eq!(ids(&questions, NOW.after(59_999)), [7]);
        assert_eq!(ids(&questions, NOW.after(60_000)), [0; 0]);
        let again = questions.ask(NOW.after(60_000), 8, question(1, &[5]));
        assert_eq!(again, (Verdict::Later, true));
    }

    #[test]
    fn a_no_holds_for_the_same_question_and_a_time() {
        let questions = Questions::new(WAIT);
        questions.ask(NOW, 7, question(1, &[5]));
        assert_eq!(questions.deny(NOW, 7).unwrap().id, 7);
        assert_eq!(questions.deny(NOW, 7), None);
        let at = |ms, id, froms| questions.ask(NOW.after(ms), id, question(1, froms)).0;
        assert_eq!(at(59_999, 8, &[5]), Verdict::No);
        assert_eq!(at(59_999, 8, &[6]), Verdict::Later);
        assert_eq!(at(60_000, 9, &[5]), Verdict::Later);
    }

    #[test]
    fn nobody_fills_the_list_and_what_waits_stays() {
        let questions = Questions::new(WAIT);
        let mut ids = 0..;
        let mut ask = |user, from| {
            let id = ids.next().unwrap();
            questions.ask(NOW, id, question(user, &[from])).0
        };
        for from in 1..=9 {
            let verdict = ask(1, from);
            let is_late = from > OF_USER_MAX as u64;
            assert_eq!(verdict == Verdict::No, is_late, "{from}");
        }
        for user in 2..=255 {
            ask(user, 1);
            ask(user, 2);
        }
        assert_eq!(questions.waiting(NOW).len(), WAITING_MAX);
        assert_eq!(ask(0, 1), Verdict::No);
        assert!(
            questions
                .waiting(NOW)
                .iter()
                .any(|of| of.question.user.0[0] == 1)
        );
        questions.deny(NOW, 0).unwrap();
        assert_eq!(ask(0, 1), Verdict::Later);
    }

    #[test]
    fn what_nobody_would_look_through_is_refused() {
        let questions = Questions::new(WAIT);
        let many: Vec<_> = (0..=INTERVALS_MAX as u64).collect();
        let ask = |of| questions.ask(NOW, 7, question(1, of)).0;
        assert_eq!(ask(&many), Verdict::No);
        assert_eq!(ask(&many[1..]), Verdict::Later);
    }

    #[test]
    fn no_more_answers_of_no_are_remembered_than_there_is_room_for() {
        let questions = Questions::new(WAIT);
        for from in 0..=DENIED_MAX as u64 {
            questions.ask(NOW, 7, question(1, &[from]));
            questions.deny(NOW, 7).unwrap();
        }
        assert_eq!(questions.kept(NOW).denied.len(), DENIED_MAX);
        let first = questions.ask(NOW, 7, question(1, &[0])).0;
        assert_eq!(first, Verdict::Later);
    }
}
