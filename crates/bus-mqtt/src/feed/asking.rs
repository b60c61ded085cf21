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

/// What a task has come to.
pub(super) enum Step {
    /// What the broker lacked at a survey is there again.
    Marked(Mark),
    /// There is no archive that a question would be answered by.
    NobodyHas(u64),
}

/// Who is asked for what had passed.
#[derive(Default)]
pub(super) struct Asking {
    /// By its number, each question that is not answered.
    open: BTreeMap<u64, Open>,
    /// How many there were.
    count: u64,
    /// What comes meanwhile, and lies behind what had passed.
    pub(super) later: Vec<(Arrival, Option<Receipt>)>,
}

/// A question for what had passed in a scope.
struct Open {
    scope: String,
    age_ms: u64,
    /// When no more is waited for.
    until: Instant,
}

impl Asking {
    pub(super) fn is_waited_for(&self) -> bool {
        !self.open.is_empty()
    }

    /// When the next question counts as answered.
    pub(super) fn given_up_at(&self) -> Option<Instant> {
        self.open.values().map(|open| open.until).min()
    }

    /// Asks nobody any more; returns what was held for that.
    pub(super) fn end(&mut self) -> Vec<(Arrival, Option<Receipt>)> {
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
        self.asking.count += 1;
        let number = self.asking.count;
        self.put_question(number, (&scope, age_ms), Bytes::new());
        let until = Instant::now() + FIRST_ANSWER;
        let open = Open {
            scope,
            age_ms,
            until,
        };
        self.asking.open.insert(number, open);
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
            self.link.acknowledge(receipt).await;
            return Ok(());
        };
        let open = self.asking.open.get_mut(&number);
        match answer {
            Answer::Message { name, payload } => {
                if let Some(open) = open {
                    open.until = Instant::now() + NEXT_ANSWER;
                }
                let message = Publish {
                    topic: name,
                    payload,
                    is_retained: false,
                };
                return self.log(message, receipt, true).await;
            }
            Answer::More(cursor) => {
                if let Some(open) = open {
                    open.until = Instant::now() + NEXT_ANSWER;
                    let (scope, age_ms) = (open.scope.clone(), open.age_ms);
                    self.put_question(number, (&scope, age_ms), cursor);
                }
            }
            Answer::Done => self.nobody_has(number),
        }
        self.link.acknowledge(receipt).await;
        Ok(())
    }

    pub(super) async fn step(&mut self, step: Step) -> Result<(), FeedFault> {
        match step {
            // Unless it is of another connection, which begins with another survey.
            Step::Marked(mark) if mark.id.number == self.connections => {
                self.home.set_mark(mark).await?;
            }
            Step::Marked(_) => {}
            Step::NobodyHas(number) => self.nobody_has(number),
        }
        Ok(())
    }

    /// A question is answered.
    fn nobody_has(&mut self, number: u64) {
        if let Some(open) = self.asking.open.remove(&number) {
            self.answered.insert(open.scope);
        }
    }

    /// Takes questions for answered that nobody has answered for too long.
    pub(super) fn give_up(&mut self) {
        let now = Instant::now();
        self.asking.open.retain(|_, open| {
            let is_waited_for = open.until > now;
            if !is_waited_for {
                self.answered.insert(open.scope.clone());
            }
            is_waited_for
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
