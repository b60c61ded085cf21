//! What a survey ends with: others are asked for what had passed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sealcast_bus::Arrival;
use tokio::time::Instant;

use super::{FeedFault, Feeder};
use crate::home::Mark;
use crate::link::Receipt;
use crate::packet::{NO_SUBSCRIBERS, Publish};
use crate::past::{Answer, Question, now_ms};

/// How long archives have for their first answer, and for each that follows.
const FIRST_ANSWER: Duration = Duration::from_secs(3);
const NEXT_ANSWER: Duration = Duration::from_secs(10);
/// How long others have when one has said that this was all.
const OTHERS: Duration = Duration::from_secs(1);
/// How long answers may keep a home waiting.
const WAITED_MAX: Duration = Duration::from_secs(600);
/// Archives that may have more for one question.
const ARCHIVES_MAX: usize = 16;

/// What a task has come to.
pub(super) enum Step {
    /// What the broker lacked at a survey is there again.
    Marked(Mark),
    /// There is no archive that a question would be answered by.
    NobodyHas(u64),
}

/// Who is asked for what had passed.
pub(super) struct Asking {
    /// By its number.
    open: BTreeMap<u64, Open>,
    /// Of the next question.
    number: u64,
    /// What comes meanwhile, and lies behind what had passed.
    pub(super) later: Vec<(Arrival, Vec<Receipt>)>,
}

/// A question for what had passed in a scope.
struct Open {
    scope: String,
    age_ms: u64,
    begun: Instant,
    /// When the last answer came.
    heard: Option<Instant>,
    /// Archives that have more.
    midway: BTreeSet<String>,
    /// Whether one has said that this was all.
    is_done: bool,
    /// Whether nothing is waited for any more; what still comes is taken in.
    is_over: bool,
}

impl Open {
    fn new(scope: String, age_ms: u64) -> Self {
        Self {
            scope,
            age_ms,
            begun: Instant::now(),
            heard: None,
            midway: BTreeSet::new(),
            is_done: false,
            is_over: false,
        }
    }

    /// When the mirror counts as having all; once it does, when nobody is expected to go on any more.
    fn until(&self) -> Instant {
        let heard = self.heard.unwrap_or(self.begun);
        let until = match self.heard {
            _ if self.is_over => return heard + NEXT_ANSWER,
            None => self.begun + FIRST_ANSWER,
            Some(_) if self.is_done && self.midway.is_empty() => heard + OTHERS,
            Some(_) => heard + NEXT_ANSWER,
        };
        until.min(self.begun + WAITED_MAX)
    }
}

impl Asking {
    /// `number`: of the first question, which strangers should not guess.
    pub(super) fn starting_at(number: u64) -> Self {
        Self {
            open: BTreeMap::new(),
            number,
            later: Vec::new(),
        }
    }

    pub(super) fn is_waited_for(&self) -> bool {
        self.open.values().any(|open| !open.is_over)
    }

    /// When the next question counts as answered.
    pub(super) fn given_up_at(&self) -> Option<Instant> {
        self.open.values().map(Open::until).min()
    }

    /// Asks nobody any more; returns what was held for that.
    pub(super) fn end(&mut self) -> Vec<(Arrival, Vec<Receipt>)> {
        self.open.clear();
        std::mem::take(&mut self.later)
    }
}

impl Feeder {
    /// Asks others for what had passed in a scope; `since`: in milliseconds since the Unix epoch, 0 for
    /// all.
    pub(super) fn ask(&mut self, scope: String, since: u64) {
        let age_ms = match since {
            0 => u64::MAX,
            since => now_ms().saturating_sub(since),
        };
        self.asking.open.retain(|_, open| open.scope != scope);
        self.asking.number = self.asking.number.wrapping_add(1);
        let number = self.asking.number;
        self.put_question(number, (&scope, age_ms), Bytes::new());
        self.asking.open.insert(number, Open::new(scope, age_ms));
    }

    fn put_question(&mut self, number: u64, (scope, age_ms): (&str, u64), cursor: Bytes) {
        let is_first = cursor.is_empty();
        let question = Question {
            home: self.home.name.clone(),
            number,
            age_ms,
            cursor,
        };
        let publish = |topic| Publish {
            topic,
            payload: question.encode(),
            is_retained: false,
        };
        let (to_all, to_archives) = (self.names.again(scope), self.names.ask(scope));
        let (to_all, to_archives) = (publish(to_all), publish(to_archives));
        let (link, steps) = (Arc::clone(&self.link), self.steps.clone());
        self.tasks.spawn(async move {
            if is_first {
                // What comes of it is taken in whenever it comes.
                let _asked = link.publish(to_all).await;
            }
            let is_heard = match link.publish(to_archives).await {
                Ok(code) => code != NO_SUBSCRIBERS,
                Err(_) => false,
            };
            if !is_heard {
                let _is_told = steps.send(Step::NobodyHas(number)).is_ok();
            }
        });
    }

    pub(super) async fn answered(
        &mut self,
        publish: Publish,
        receipt: Receipt,
    ) -> Result<(), FeedFault> {
        let Some((number, answer)) = Answer::decode(&publish.payload) else {
            self.link.acknowledge(receipt);
            return Ok(());
        };
        let open = self.asking.open.get_mut(&number);
        match (answer, open) {
            (Answer::Message { name, payload }, open) => {
                if let Some(open) = open {
                    open.heard = Some(Instant::now());
                }
                let message = Publish {
                    topic: name,
                    payload,
                    is_retained: false,
                };
                return self.log(message, receipt, true).await;
            }
            (Answer::More { home, cursor }, Some(open)) => {
                let is_known = open.midway.contains(&home);
                if is_known || open.midway.len() < ARCHIVES_MAX {
                    open.heard = Some(Instant::now());
                    open.midway.insert(home);
                    let (scope, age_ms) = (open.scope.clone(), open.age_ms);
                    self.put_question(number, (&scope, age_ms), cursor);
                }
            }
            (Answer::Done { home }, Some(open)) => {
                open.heard = Some(Instant::now());
                open.midway.remove(&home);
                open.is_done = true;
            }
            // Nobody asked for that.
            (Answer::More { .. } | Answer::Done { .. }, None) => {}
        }
        self.link.acknowledge(receipt);
        Ok(())
    }

    pub(super) async fn step(&mut self, step: Step) -> Result<(), FeedFault> {
        match step {
            // Unless it is of another connection, which begins with another survey.
            Step::Marked(mark) if mark.id.number == self.connections => {
                self.home.set_mark(mark).await?;
            }
            Step::Marked(_) => {}
            Step::NobodyHas(number) => {
                if let Some(open) = self.asking.open.remove(&number) {
                    self.answered.insert(open.scope);
                }
            }
        }
        Ok(())
    }

    /// Takes questions for answered that nobody has answered for too long.
    pub(super) fn give_up(&mut self) {
        let now = Instant::now();
        self.asking.open.retain(|_, open| {
            if open.until() > now {
                return true;
            }
            if open.is_over {
                return false;
            }
            open.is_over = true;
            self.answered.insert(open.scope.clone());
            true
        });
    }

    /// Says of scopes that the mirror has all that is to be had of them.
    pub(super) async fn make_ready(&mut self) -> Result<(), FeedFault> {
        if !self.asking.is_waited_for() {
            self.arrived.append(&mut self.asking.later);
        }
        self.take_in().await?;
        if self.answered.is_empty() {
            return Ok(());
        }
        let answered = std::mem::take(&mut self.answered);
        let new: BTreeSet<_> = answered.difference(&self.ready).cloned().collect();
        if !new.is_empty() {
            self.home.set_ready(&new).await?;
            self.ready.extend(new);
        }
        let mut asked = self.asked.clone();
        asked.retain(|scope, _| !answered.contains(scope));
        self.note_asked(asked).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> Open {
        Open::new("s/1f/#".into(), u64::MAX)
    }

    #[test]
    fn all_who_have_more_are_waited_for_and_nobody_for_ever() {
        let mut open = open();
        assert_eq!(open.until(), open.begun + FIRST_ANSWER);
        let heard = open.begun + FIRST_ANSWER;
        open.heard = Some(heard);
        assert_eq!(open.until(), heard + NEXT_ANSWER);
        // One has more, and another has said that this was all.
        open.midway.insert("0123456789abcdef".into());
        open.is_done = true;
        assert_eq!(open.until(), heard + NEXT_ANSWER);
        open.midway.clear();
        assert_eq!(open.until(), heard + OTHERS);
        open.heard = Some(open.begun + WAITED_MAX * 2);
        assert_eq!(open.until(), open.begun + WAITED_MAX);
    }
}
