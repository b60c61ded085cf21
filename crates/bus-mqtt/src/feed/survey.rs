//! What the broker has retained is gone through with each connection, and what it lost is put back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sealcast_bus::{Arrival, ArrivalId, Offset, Topic};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::asking::Step;
use super::{ASK_AGAIN, FeedFault, Feeder};
use crate::home::Mark;
use crate::link::empty;
use crate::message::{MessageId, has_live, is_live, put_sent};
use crate::packet::{Filter, Publish};
use crate::past;
use crate::put_back::{Links, PutBackFault, Shown, put_back};

/// How long after a survey a process that begins to feed takes it that others have nothing that the
/// broker lost meanwhile.
const SURE_FOR_MS: u64 = 60 * 1_000;

/// Until a subscription that the broker refused is tried again.
const TRY_REFUSED_AGAIN: Duration = Duration::from_secs(5);

/// All that the broker has retained of some scopes, as it comes, in no order.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// The question whose answer comes behind all of it.
    pub(super) number: u64,
    scopes: BTreeSet<String>,
    /// Scopes of which something may have passed since others were asked last, as far as the broker may
    /// have gone back.
    doubtful: BTreeSet<String>,
    /// What lies there if the broker has not gone back since, and whether it does.
    pub(super) mark: Option<Mark>,
    pub(super) is_marked: bool,
    /// Whether it is of all that is followed.
    is_whole: bool,
    pub(super) held: Vec<(MessageId, Arrival)>,
    pub(super) held_bytes: usize,
    pub(super) shown: Shown,
    /// What of it the broker does not let this home subscribe to, once it has answered.
    refused: Arc<Mutex<BTreeSet<String>>>,
    /// Subscribes, and puts the question.
    asking: JoinSet<()>,
}

impl Survey {
    fn refused(&self) -> BTreeSet<String> {
        let refused = self.refused.lock();
        refused.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Scopes that the broker lets this home not subscribe to, and when that is tried again.
#[derive(Debug, Default)]
pub(super) struct Refused {
    scopes: BTreeSet<String>,
    pub(super) until: Option<Instant>,
}

/// By what an arrival that the broker retains is known there; nothing of those that it does not.
pub(super) struct Trace(Option<(Topic, ArrivalId, usize, u32)>);

impl Trace {
    pub(super) fn of(arrival: &Arrival) -> Self {
        let is_retained = !is_live(&arrival.topic);
        let (id, count) = (arrival.id, arrival.payloads.len());
        let trace = || (arrival.topic.clone(), id, count, arrival.parts);
        Self(is_retained.then(trace))
    }
}

impl Feeder {
    /// Clears what the home had trimmed, with all of its items, and somebody has put there again.
    pub(super) async fn clear_trimmed(
        &mut self,
        traces: Vec<Trace>,
        offsets: Vec<Offset>,
    ) -> Result<(), FeedFault> {
        let mut firsts = BTreeMap::new();
        let mut names = Vec::new();
        for (trace, at) in traces.into_iter().zip(offsets) {
            let Some((topic, id, count, parts)) = trace.0 else {
                continue;
            };
            if !firsts.contains_key(&topic) {
                let first = self.home.first_of(&topic).await?;
                firsts.insert(topic.clone(), first);
            }
            let behind = Offset(at.0.saturating_add(count as u64));
            if firsts.get(&topic).is_some_and(|first| behind <= *first) {
                names.extend(self.names.all(&topic, id.into(), parts));
            }
        }
        if !names.is_empty() {
            let link = Arc::clone(&self.link);
            self.tasks.spawn(async move {
                for name in names {
                    // Where that fails, it comes again with the next connection.
                    let _cleared = link.publish(empty(name, true)).await;
                }
            });
        }
        Ok(())
    }

    /// There is a connection. The broker may have been put back to an older state, while nobody of the
    /// home was there to see it, too.
    pub(super) async fn up(&mut self, has_session: bool) -> Result<(), FeedFault> {
        self.connections += 1;
        self.arrived.append(&mut self.asking.end());
        let mark = match has_session {
            true => self.home.mark().await?,
            false => None,
        };
        let survey = self.survey.get_or_insert_default();
        survey.shown = Shown::default();
        survey.is_marked = false;
        survey.is_whole = true;
        survey.mark = mark;
        survey.doubtful.clear();
        let mut asked = self.asked.clone();
        for scope in self.ready.iter().filter(|scope| has_live(scope)) {
            if !asked.contains_key(scope) {
                let newest = past::newest_of(&self.home, scope).await?;
                asked.insert(scope.clone(), newest);
                if self.connections == 1 {
                    survey.doubtful.insert(scope.clone());
                }
            }
        }
        self.note_asked(asked).await?;
        self.survey(&self.followed.clone()).await
    }

    /// Subscribes to scopes, and begins to hold what is retained of them.
    pub(super) async fn survey(&mut self, scopes: &BTreeSet<String>) -> Result<(), FeedFault> {
        let mut asked = self.asked.clone();
        for scope in scopes.difference(&self.ready).filter(|of| has_live(of)) {
            asked.insert(scope.clone(), 0);
        }
        self.note_asked(asked).await?;
        self.surveys += 1;
        let number = self.surveys;
        let survey = self.survey.get_or_insert_default();
        survey.number = number;
        survey.scopes.extend(scopes.iter().cloned());
        // The question has to be behind what is retained of all of them.
        let scopes = survey.scopes.clone();
        let refused = Arc::default();
        let asking = self.put_survey(number, scopes, Arc::clone(&refused));
        if let Some(survey) = &mut self.survey {
            survey.refused = refused;
            survey.asking = JoinSet::new();
            survey.asking.spawn(asking);
        }
        Ok(())
    }

    /// Notes of which scopes others have to be asked until that was answered.
    pub(super) async fn note_asked(
        &mut self,
        asked: BTreeMap<String, u64>,
    ) -> Result<(), FeedFault> {
        if asked != self.asked {
            self.home.set_asked(&asked).await?;
            self.asked = asked;
        }
        Ok(())
    }

    /// Subscribes, notes what is refused, and puts the question until somebody ends this, its answer being
    /// there.
    fn put_survey(
        &self,
        number: u64,
        scopes: BTreeSet<String>,
        refused: Arc<Mutex<BTreeSet<String>>>,
    ) -> impl Future<Output = ()> + Send + use<> {
        let names = self.names.clone();
        let own = [names.fence(), names.past(), names.mark()];
        // What this process publishes over this connection it puts in the mirror itself.
        let mut filters: Vec<_> = scopes
            .iter()
            .map(|of| match has_live(of) {
                true => Filter::of_others(names.scope(of)),
                false => names.scope(of).into(),
            })
            .collect();
        if scopes.iter().any(|scope| has_live(scope)) {
            filters.extend(names.users_filter().map(Filter::of_others));
        }
        let others = self.question_filters(&scopes).into_iter();
        filters.extend(others.chain(own.iter().cloned()).map(Filter::from));
        let id = MessageId {
            writer: self.writer,
            number,
        };
        let question = Publish {
            topic: names.fence(),
            payload: put_sent(id, b""),
            is_retained: false,
        };
        let link = Arc::clone(&self.link);
        async move {
            // Where the connection breaks, the next one begins anew. Without its own topics a home can do
            // nothing.
            let without = loop {
                match link.subscribe(&filters).await {
                    Ok(without) if !own.iter().any(|of| without.contains(of)) => break without,
                    Ok(_) | Err(_) => sleep(ASK_AGAIN).await,
                }
            };
            let is_refused = |scope: &String| {
                let users = names.users_filter().filter(|_| has_live(scope));
                let lacks = |filter: String| without.contains(&filter);
                lacks(names.scope(scope)) || users.is_some_and(lacks)
            };
            let found = scopes.into_iter().filter(is_refused).collect();
            *refused.lock().unwrap_or_else(PoisonError::into_inner) = found;
            loop {
                // A broker may drop it, having too much on its way to us.
                let _asked = link.publish(question.clone()).await;
                sleep(ASK_AGAIN).await;
            }
        }
    }

    /// Where others ask for what had passed in some scopes.
    fn question_filters(&self, scopes: &BTreeSet<String>) -> Vec<String> {
        let mut filters = Vec::new();
        for scope in scopes.iter().filter(|scope| has_live(scope)) {
            filters.push(self.names.again(scope));
            if self.desk.is_archive() {
                filters.push(self.names.ask(scope));
            }
        }
        filters
    }

    /// Takes in what is held, in the order in which its writers placed it.
    pub(super) async fn release(&mut self) -> Result<(), FeedFault> {
        let Some(survey) = &mut self.survey else {
            return Ok(());
        };
        survey.held_bytes = 0;
        let mut held = std::mem::take(&mut survey.held);
        held.sort_by(|(a, of_a), (b, of_b)| {
            (&of_a.topic, of_a.stamp, a).cmp(&(&of_b.topic, of_b.stamp, b))
        });
        for (_, arrival) in held {
            self.arrived.push((arrival, Vec::new()));
        }
        self.take_in().await
    }

    /// The mirror has all that the broker has retained of the scopes of a survey.
    pub(super) async fn shown(&mut self) -> Result<(), FeedFault> {
        let Some(mut survey) = self.survey.take() else {
            return Ok(());
        };
        survey.asking.abort_all();
        let refused = survey.refused();
        self.note_refused(&survey.scopes, &refused).await?;
        survey.scopes.retain(|scope| !refused.contains(scope));
        let mark = survey.mark.filter(|_| survey.is_marked);
        let now = past::now_ms();
        let is_recent = |mark: Mark| (mark.time_ms..=mark.time_ms + SURE_FOR_MS).contains(&now);
        let mut asked = self.asked.clone();
        if mark.is_some_and(is_recent) {
            asked.retain(|scope, _| !survey.doubtful.contains(scope));
        }
        self.note_asked(asked).await?;
        for scope in &survey.scopes {
            match self.asked.get(scope) {
                Some(since) => self.ask(scope.clone(), *since),
                None => drop(self.answered.insert(scope.clone())),
            }
        }
        self.put_back(survey, mark.map_or(0, |mark| mark.time_ms));
        self.arrived.append(&mut self.asking.later);
        self.take_in().await?;
        for id in std::mem::take(&mut self.fences) {
            self.answer(id);
        }
        self.level_control().await
    }

    /// Notes which of some scopes the broker lets this home not subscribe to.
    async fn note_refused(
        &mut self,
        of: &BTreeSet<String>,
        refused: &BTreeSet<String>,
    ) -> Result<(), FeedFault> {
        let scopes = &mut self.refused.scopes;
        let before = scopes.clone();
        scopes.retain(|scope| !of.contains(scope));
        scopes.extend(refused.iter().cloned());
        let is_any = !scopes.is_empty();
        self.refused.until = is_any.then(|| Instant::now() + TRY_REFUSED_AGAIN);
        // Whoever waits is told, also where nothing has changed.
        if !refused.is_empty() || *scopes != before {
            self.home.set_refused(scopes).await?;
        }
        Ok(())
    }

    /// Tries again what was refused, when it is time: somebody may have given the right to it.
    pub(super) async fn try_refused_again(&mut self) -> Result<(), FeedFault> {
        if self
            .refused
            .until
            .is_none_or(|until| until > Instant::now())
        {
            return Ok(());
        }
        self.refused.until = None;
        self.survey(&self.refused.scopes.clone()).await
    }

    /// Publishes again what this home wrote and the broker has not shown, and then leaves a mark.
    /// `since`: what was written to data topics before that, the broker has.
    fn put_back(&mut self, survey: Survey, since: u64) {
        let (home, names) = (Arc::clone(&self.home), self.names.clone());
        let (link, steps) = (Arc::clone(&self.link), self.steps.clone());
        let line = Arc::clone(&self.line);
        let time_ms = past::now_ms();
        let id = MessageId {
            writer: self.writer,
            number: self.connections,
        };
        let putting = async move {
            let Survey { scopes, shown, .. } = survey;
            let links = Links {
                feeding: &link,
                line: &line.link,
            };
            put_back(&home, (&names, links), &scopes, &shown, since).await?;
            if !survey.is_whole {
                return Ok(());
            }
            let mark = Publish {
                topic: names.mark(),
                payload: put_sent(id, b""),
                is_retained: true,
            };
            link.publish(mark).await?;
            let _is_told = steps.send(Step::Marked(Mark { id, time_ms })).is_ok();
            Ok::<_, PutBackFault>(())
        };
        // Where that failed, the next survey finds out what is still missing.
        self.tasks.spawn(async move { drop(putting.await) });
    }
}
