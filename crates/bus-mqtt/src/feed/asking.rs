//! What a survey ends with: others are asked for what had passed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sealcast_bus::Arrival;
use tokio::time::Instant;

use super::{FeedFault, Feeder};
use crate::link::Receipt;
use crate::packet::{NO_SUBSCRIBERS, Publish};
use crate::past::{Answer, Question, now_ms};

/// How long archives have for their first answer, and for each that follows.
const FIRST_ANSWER: Duration = Duration::from_secs(3);
const NEXT_ANSWER: Duration = Duration::from_secs(10);

/// What a task has come to.
pub(super) enum Step {
    /// What the broker lacked at a survey is there again.
    PutBack(u64),
    /// There is no archive that a question would be answered by.
    NobodyHas(u64),
}

/// Archives that are asked for what had passed.
pub(super) struct Asked {
    /// For which survey.
    pub(super) survey: u64,
    /// By number of the question, for which scope and age.
    pub(super) open: BTreeMap<u64, (String, u64)>,
    /// When no more is waited for.
    pub(super) until: Instant,
    /// What comes meanwhile, and lies behind what had passed.
    pub(super) later: Vec<(Arrival, Option<Receipt>)>,
}

impl Feeder {
    /// Asks others for what had passed, each scope by a question of its own.
    pub(super) fn ask(&mut self, survey: u64, since: BTreeMap<String, u64>) {
        let later = self.asked.take().map(|asked| asked.later);
        let mut open = BTreeMap::new();
        for (scope, since) in since {
            let age_ms = match since {
                0 => u64::MAX,
                since => now_ms().saturating_sub(since),
            };
            self.questions += 1;
            self.put_question(self.questions, (&scope, age_ms), Bytes::new());
            open.insert(self.questions, (scope, age_ms));
        }
        self.asked = Some(Asked {
            survey,
            open,
            until: Instant::now() + FIRST_ANSWER,
            later: later.unwrap_or_default(),
        });
    }

    fn put_question(&self, number: u64, (scope, age_ms): (&str, u64), cursor: Bytes) {
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
        tokio::spawn(async move {
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
        let (number, answer) = match Answer::decode(&publish.payload) {
            Some((_, Answer::Message { name, payload })) => {
                if let Some(asked) = &mut self.asked {
                    asked.until = Instant::now() + NEXT_ANSWER;
                }
                let message = Publish {
                    topic: name,
                    payload,
                    is_retained: false,
                };
                return self.log(message, receipt, true).await;
            }
            Some(told) => told,
            None => {
                self.link.acknowledge(receipt).await;
                return Ok(());
            }
        };
        self.link.acknowledge(receipt).await;
        let Some(asked) = &mut self.asked else {
            return Ok(());
        };
        match answer {
            Answer::More(cursor) => {
                if let Some((scope, age_ms)) = asked.open.get(&number).cloned() {
                    asked.until = Instant::now() + NEXT_ANSWER;
                    self.put_question(number, (&scope, age_ms), cursor);
                }
                Ok(())
            }
            Answer::Done | Answer::Message { .. } => self.step(Step::NobodyHas(number)).await,
        }
    }

    pub(super) async fn step(&mut self, step: Step) -> Result<(), FeedFault> {
        match step {
            // Unless another survey has begun.
            Step::PutBack(number) if number == self.surveys => {
                self.home.set_settled(true).await?;
                self.is_settled = true;
            }
            Step::PutBack(_) => {}
            Step::NobodyHas(number) => {
                if let Some(asked) = &mut self.asked
                    && asked.open.remove(&number).is_some()
                    && asked.open.is_empty()
                {
                    self.finish().await?;
                }
            }
        }
        Ok(())
    }

    /// The mirror has all that is to be had of what a survey was for.
    pub(super) async fn finish(&mut self) -> Result<(), FeedFault> {
        let asked = self.asked.take();
        let of = asked.as_ref().map(|asked| asked.survey);
        let number = self.survey.as_ref().map(|survey| survey.number);
        // Another survey may have begun, whose question is not back.
        let is_over = of.is_none() || of == number;
        if is_over {
            self.release().await?;
        }
        if let Some(asked) = asked {
            self.arrived.extend(asked.later);
        }
        self.take_in().await?;
        let Some(survey) = self.survey.take_if(|_| is_over) else {
            return Ok(());
        };
        self.home.set_ready(&survey.scopes).await?;
        let mut asked = self.home.asked().await?;
        asked.retain(|scope, _| !survey.scopes.contains(scope));
        self.home.set_asked(&asked).await?;
        self.put_back(survey);
        for id in std::mem::take(&mut self.fences) {
            self.answer(id);
        }
        Ok(())
    }
}
