//! Homes that outlive their commands, and what must hold after each death.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sealcast::{GrantStatus, Home, Interval, Position, State, Stream};
use sealcast_crash::{Chance, Sent};
use tokio::runtime::Runtime;

use super::victim::{Claim, Kind};
use crate::rig::{Person, Rig};

const SESSION: std::ops::Range<usize> = 4..20;

/// Alice owns the stream, bob reads all of it from the start, and carol is granted by commands that
/// die.
pub(crate) struct Scene {
    rig: Rig,
    pub(crate) alice: Person,
    bob: Person,
    carol: Person,
    runtime: Runtime,
    topic: String,
    /// How many items of the topic were looked at.
    seen: usize,
    sessions: BTreeSet<Vec<u8>>,
    sent: Sent,
    /// How many lines of each tag are stored for certain, and which may be.
    stored: BTreeMap<String, (u64, u64)>,
    /// Whatever was said between the rounds, and where the last of it lies.
    said: Vec<String>,
    last: Position,
    grants: BTreeSet<String>,
    typical: BTreeMap<Kind, Duration>,
}

type Checked = Result<(), String>;

fn holds(is_so: bool, says: impl FnOnce() -> String) -> Checked {
    match is_so {
        true => Ok(()),
        false => Err(says()),
    }
}

fn failed(what: &'static str) -> impl Fn(sealcast::Error) -> String {
    move |error| format!("{what}: {error}: {:?}", error)
}

impl Scene {
    pub(crate) fn new() -> Self {
        let rig = Rig::small();
        let (alice, ticket) = rig.owner("alice", "s");
        let [bob, carol] = ["bob", "carol"].map(|name| {
            let person = rig.person(name);
            person.done(&["join", &ticket]);
            alice.done(&["contact", "add", name, &person.id()]);
            person
        });
        alice.done(&["grant", "s", "bob", "--from", "start"]);
        let started = std::time::Instant::now();
        alice.done(&["pub", "s", "-m", "first"]);
        let run = started.elapsed();
        let kinds = [Kind::Publish, Kind::Grant, Kind::Rekey];
        Self {
            topic: alice.data_topic(),
            rig,
            alice,
            bob,
            carol,
            runtime: Runtime::new().unwrap(),
            seen: 0,
            sessions: BTreeSet::new(),
            sent: Sent::default(),
            stored: BTreeMap::new(),
            said: Vec::from(["first".to_owned()]),
            last: Position::START,
            grants: BTreeSet::new(),
            typical: kinds.map(|kind| (kind, run)).into(),
        }
    }

    /// Leaves the folder behind, and says where.
    pub(crate) fn keep(&mut self) -> String {
        self.rig.keep().display().to_string()
    }

    /// When to kill: anywhere from the start of a command to behind its usual end.
    pub(crate) fn delay(&self, kind: Kind, chance: &mut Chance) -> Duration {
        let whole = self.typical[&kind];
        let micros = u64::try_from(whole.as_micros()).unwrap();
        Duration::from_micros(chance.below(micros * 3 / 2))
    }

    /// Takes in what was acknowledged, and looks at what must hold whenever a command died.
    pub(crate) fn settle(&mut self, round: usize, claims: &[Claim]) -> Checked {
        for claim in claims {
            self.take(claim)?;
        }
        let sessions = self.sessions.clone();
        self.look_at_bus()?;
        let before = self.seen;
        let home = self.home("alice")?;
        let said = format!("after {round}");
        let from = self.last;
        let (opened, last) = self.runtime.block_on(async {
            let stream = home.stream(&"s".parse().unwrap()).await;
            let stream = stream.map_err(failed("the stream does not open"))?;
            let published = stream.publish(said.as_bytes()).await;
            let last = published
                .map_err(failed("publishing does not go on"))?
                .position;
            in_order(&home, &stream, &self.grants).await?;
            let until = Position::END;
            Ok::<_, String>((opened(&stream, Interval { from, until }).await?, last))
        })?;
        drop(home);
        holds(last >= from, || format!("from {from:?} back to {last:?}"))?;
        self.last = last;
        self.said.push(said);
        self.look_at_bus()?;
        if claims.iter().any(|of| of.kind == Kind::Rekey && of.is_done) {
            let newest = self.rig.items(&self.topic, before);
            let is_new = newest.iter().all(|of| !sessions.contains(&of[SESSION]));
            holds(is_new, || "a rekey was forgotten".to_owned())?;
        }
        // What lies at the same millisecond as what was read last time is read again.
        let tags: BTreeSet<_> = claims.iter().map(|of| of.tag.as_str()).collect();
        let is_due = |text: &&String| {
            let tag = text.split_once(' ').map_or("", |(tag, _)| tag);
            tags.contains(tag)
        };
        self.complete(&tags, opened.iter().filter(is_due))
    }

    /// Looks at everything, from the start, as each of those who may read.
    pub(crate) fn look_at_all(&mut self) -> Checked {
        let granted = self.alice.run(&["grant", "s", "carol", "--from", "start"]);
        holds(granted.code == 0, || format!("carol: {}", granted.stderr))?;
        let problems = self.alice.problems();
        let is_well = problems.iter().all(|text| is_of_backups(text));
        holds(is_well, || format!("doctor: {problems:?}"))?;
        let who = self.alice.run(&["who", "s"]);
        holds(who.code == 0, || format!("who: {}", who.stderr))?;
        let mut sent = Sent::default();
        sent.extend(&self.topic, &self.rig.items(&self.topic, 0));
        holds(sent.reused().is_empty(), || format!("{:?}", sent.reused()))?;
        for reader in ["alice", "bob", "carol"] {
            let home = self.home(reader)?;
            let all = self.runtime.block_on(async {
                let stream = home.stream(&"s".parse().unwrap()).await;
                let stream = stream.map_err(failed("the stream does not open"))?;
                opened(&stream, Interval::ALL).await
            });
            let all = all.map_err(|fault| format!("{reader}: {fault}"))?;
            let said: Vec<_> = all.iter().filter(|of| self.is_said(of)).collect();
            holds(said == self.said.iter().collect::<Vec<_>>(), || {
                format!("{reader}: what was said between: {said:?}")
            })?;
            let tags: BTreeSet<_> = self.stored.keys().map(String::as_str).collect();
            let rest = all.iter().filter(|of| !self.is_said(of));
            self.complete(&tags, rest)
                .map_err(|fault| format!("{reader}: {fault}"))?;
        }
        Ok(())
    }

    fn is_said(&self, text: &str) -> bool {
        text == "first" || text.starts_with("after ")
    }

    fn home(&self, name: &str) -> Result<Home, String> {
        let person = match name {
            "alice" => &self.alice,
            "bob" => &self.bob,
            _ => &self.carol,
        };
        let opened = self.runtime.block_on(Home::open(person.home(), None));
        opened.map_err(failed("the home does not open"))
    }

    fn take(&mut self, claim: &Claim) -> Checked {
        let is_quiet = claim.said.is_empty() || claim.kind != Kind::Publish;
        holds(is_quiet, || format!("it complained: {}", claim.said))?;
        if claim.kind == Kind::Publish {
            let range = (claim.stored, claim.written);
            self.stored.insert(claim.tag.clone(), range);
        }
        self.grants.extend(claim.grant.clone());
        if claim.is_done {
            let typical = self.typical.entry(claim.kind).or_default();
            *typical = (*typical * 7 + claim.ran) / 8;
        } else if claim.kind == Kind::Publish && claim.stored == 0 {
            // Not there yet: later ones are given longer.
            let typical = self.typical.entry(claim.kind).or_default();
            *typical = (*typical).max(claim.ran * 3 / 2);
        }
        Ok(())
    }

    fn look_at_bus(&mut self) -> Checked {
        let new = self.rig.items(&self.topic, self.seen);
        self.seen += new.len();
        self.sent.extend(&self.topic, &new);
        self.sessions
            .extend(new.iter().map(|of| of[SESSION].to_vec()));
        holds(self.sent.reused().is_empty(), || {
            format!("{:?}", self.sent.reused())
        })
    }

    /// Whether of each tag the first lines are there, each once, in order, none of them missing that
    /// was said to be stored, and none that nobody wrote.
    fn complete<'a>(
        &self,
        tags: &BTreeSet<&str>,
        opened: impl Iterator<Item = &'a String>,
    ) -> Checked {
        let mut found: BTreeMap<&str, u64> = BTreeMap::new();
        for text in opened {
            let parts = text.split_once(' ');
            let known = parts.filter(|(tag, _)| tags.contains(tag));
            let (tag, number) = known.ok_or_else(|| format!("nobody wrote `{text}`"))?;
            let next = found.entry(tag).or_default();
            holds(number == next.to_string(), || {
                format!("`{text}` stands where {next} belongs")
            })?;
            *next += 1;
        }
        for (tag, (stored, written)) in &self.stored {
            let there = found.get(tag.as_str()).copied().unwrap_or(0);
            let is_whole = (*stored..=*written).contains(&there);
            holds(is_whole || !tags.contains(tag.as_str()), || {
                format!("{tag}: {there} lines; {stored} said to be stored, {written} written")
            })?;
        }
        Ok(())
    }
}

/// Whether the log shows each grant that was acknowledged, and nothing is amiss.
async fn in_order(home: &Home, stream: &Stream, grants: &BTreeSet<String>) -> Checked {
    let who = stream.who().await.map_err(failed("nobody says who"))?;
    let held = |of: &sealcast::GrantInfo| of.status != GrantStatus::Revoked;
    let shown: BTreeSet<_> = who
        .iter()
        .filter(|of| held(of))
        .map(|of| of.id.to_string())
        .collect();
    let lost: Vec<_> = grants.difference(&shown).collect();
    holds(lost.is_empty(), || format!("grants are lost: {lost:?}"))?;
    let alarms = stream.alarms();
    holds(alarms.is_empty(), || format!("alarms: {alarms:?}"))?;
    let findings = home.doctor().await.map_err(failed("doctor"))?;
    let problems = findings.iter().filter(|of| of.is_problem);
    let bad: Vec<_> = problems.filter(|of| !is_of_backups(&of.text)).collect();
    holds(bad.is_empty(), || format!("doctor: {bad:?}"))
}

/// Nobody makes backups here, which doctor tells.
fn is_of_backups(problem: &str) -> bool {
    problem.contains("in this home alone")
}

/// The texts of an interval. Killed commands and several at once may leave gaps and branches,
/// nothing else.
async fn opened(stream: &Stream, interval: Interval) -> Result<Vec<String>, String> {
    let mut reader = stream.read(interval).await.map_err(failed("reading"))?;
    let mut texts = Vec::new();
    while let Some(delivery) = reader.next().await.map_err(failed("reading"))? {
        match delivery.state {
            State::Opened => {
                let text = delivery.payload.unwrap_or_default();
                texts.push(String::from_utf8_lossy(&text).into_owned());
            }
            State::Gap | State::Branch => (),
            state @ (State::Sealed | State::Rejected | State::Fork | State::Replay) => {
                return Err(format!("{state:?}: {delivery:?}"));
            }
        }
    }
    Ok(texts)
}
