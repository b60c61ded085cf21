//! The people, their homes, the bus, and what all who act there share.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sealcast_crash::Chance;
use serde_json::Value;

use super::ledger::{Heard, Ledger, Record};
use super::process::{Ended, Fate, Running};
use crate::devices;
use crate::rig::{Person, Rig};

/// A number that many count up.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self, of: u64) {
        self.0.fetch_add(of, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What there was, for the report.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) kills: Count,
    pub(super) told: Count,
    pub(super) stops: Count,
    pub(super) commands: Count,
    /// Agents that began to serve a home, and those that were told that one does already.
    pub(super) served: Count,
    pub(super) refused: Count,
    pub(super) grants: Count,
    pub(super) revocations: Count,
    pub(super) rekeys: Count,
}

/// A step about eve, whose grants come and go.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// From when until when.
    Grant(u64, u64),
    Revoke,
}

/// Alice owns the stream, on two devices that both have an agent; pat publishes; bob reads
/// all of it; lee follows and is granted one piece after another, late; eve is granted pieces and
/// loses them; mal has the ticket and nothing else.
pub(super) struct World {
    pub(super) rig: Rig,
    pub(super) alice: Person,
    pub(super) phone: Person,
    pub(super) pat: Person,
    pub(super) bob: Person,
    pub(super) lee: Person,
    pub(super) eve: Person,
    pub(super) mal: Person,
    pub(super) tally: Tally,
    /// What those who follow were told: on alice's devices, by bob, and by lee.
    pub(super) heard: [Mutex<Heard>; 4],
    began: Instant,
    until: Instant,
    log: Mutex<File>,
    heard_log: Mutex<File>,
    ledger: Mutex<Ledger>,
    steps: Mutex<Vec<(Step, bool)>>,
    /// Grants to bob that were acknowledged.
    grants: Mutex<BTreeSet<String>>,
    opened_by_eve: Mutex<BTreeSet<Record>>,
    faults: Mutex<Vec<String>>,
    /// Whether an agent is to die at once.
    pub(super) is_moment: AtomicBool,
    is_faulty: AtomicBool,
    is_settled: AtomicBool,
    number: AtomicU64,
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap()
}

/// The time in milliseconds, as positions have it.
pub(super) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}

/// A position as the command line takes and prints it.
pub(super) fn time_text(ms: u64) -> String {
    let time = jiff::Timestamp::from_millisecond(i64::try_from(ms).unwrap()).unwrap();
    format!("{time:.3}")
}

impl World {
    pub(super) fn new(lasts: Duration) -> Self {
        let rig = Rig::small();
        let (alice, ticket) = rig.owner("alice", "s");
        for folder in ["said", "archive"] {
            fs::create_dir(rig.path().join(folder)).unwrap();
        }
        let phone = devices::add(&rig, &alice, "phone");
        let others = ["pat", "bob", "lee", "eve", "mal"].map(|name| {
            let person = rig.person(name);
            person.done(&["join", &ticket]);
            let id = person.id();
            for of in [&alice, &phone] {
                of.done(&["contact", "add", name, &id]);
            }
            person
        });
        alice.done(&["grant", "s", "pat", "--role", "publisher"]);
        alice.done(&["grant", "s", "bob", "--from", "start"]);
        let archive = format!("archive = \"file:{}/archive\"\n", rig.path().display());
        for (person, more) in [(&alice, archive.as_str()), (&phone, ""), (&others[2], "")] {
            let config = format!("[agent]\nlisten = \"off\"\n{more}");
            fs::write(person.home().join("config.toml"), config).unwrap();
        }
        let [pat, bob, lee, eve, mal] = others;
        let log = |name| Mutex::new(File::create(rig.path().join(name)).unwrap());
        Self {
            alice,
            phone,
            pat,
            bob,
            lee,
            eve,
            mal,
            tally: Tally::default(),
            heard: Default::default(),
            began: Instant::now(),
            until: Instant::now() + lasts,
            log: log("events.log"),
            heard_log: log("heard.log"),
            ledger: Mutex::default(),
            steps: Mutex::default(),
            grants: Mutex::default(),
            opened_by_eve: Mutex::default(),
            faults: Mutex::default(),
            is_moment: AtomicBool::new(false),
            is_faulty: AtomicBool::new(false),
            is_settled: AtomicBool::new(false),
            number: AtomicU64::new(0),
            rig,
        }
    }

    /// Everybody with a home, each with its name.
    pub(super) fn people(&self) -> [(&'static str, &Person); 7] {
        [
            ("alice", &self.alice),
            ("phone", &self.phone),
            ("pat", &self.pat),
            ("bob", &self.bob),
            ("lee", &self.lee),
            ("eve", &self.eve),
            ("mal", &self.mal),
        ]
    }

    pub(super) fn folder(&self, name: &str) -> PathBuf {
        self.rig.path().join(name)
    }

    /// Writes a line to the log of events.
    pub(super) fn note(&self, event: &str) {
        let ms = self.began.elapsed().as_millis();
        writeln!(locked(&self.log), "{ms:>7} {event}").unwrap();
    }

    /// Writes down what somebody was told.
    pub(super) fn hear(&self, who: &str, line: &str) {
        let ms = self.began.elapsed().as_millis();
        writeln!(locked(&self.heard_log), "{ms:>7} {who} {line}").unwrap();
    }

    pub(super) fn next_number(&self) -> u64 {
        self.tally.commands.add(1);
        self.number.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        locked(&self.ledger)
    }

    pub(super) fn steps(&self) -> MutexGuard<'_, Vec<(Step, bool)>> {
        locked(&self.steps)
    }

    pub(super) fn grants(&self) -> MutexGuard<'_, BTreeSet<String>> {
        locked(&self.grants)
    }

    pub(super) fn opened_by_eve(&self) -> MutexGuard<'_, BTreeSet<Record>> {
        locked(&self.opened_by_eve)
    }

    /// Begins a run of a publisher in the ledger.
    pub(super) fn begin(&self, tag: &str) {
        let steps = self.steps();
        let is_done = |of: &(Step, bool)| matches!(of, (Step::Revoke, true));
        let revoked_at = steps.iter().rposition(is_done);
        drop(steps);
        self.ledger().begin(tag, now_ms(), revoked_at);
    }

    /// Whether programs are still begun and killed.
    pub(super) fn goes_on(&self) -> bool {
        Instant::now() < self.until && !self.is_faulty.load(Ordering::Relaxed)
    }

    /// Whether everything was found to be there, or something not to be in order.
    pub(super) fn is_settled(&self) -> bool {
        self.is_settled.load(Ordering::Relaxed) || self.is_faulty.load(Ordering::Relaxed)
    }

    pub(super) fn settled(&self) {
        self.is_settled.store(true, Ordering::Relaxed);
    }

    /// Notes what went wrong, which ends the run.
    pub(super) fn judge(&self, who: &str, outcome: Result<(), String>) {
        if let Err(fault) = outcome {
            self.note(&format!("{who}: {fault}"));
            locked(&self.faults).push(format!("{who}: {fault}"));
            self.is_faulty.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn faults(&self) -> Vec<String> {
        locked(&self.faults).clone()
    }

    /// Waits a moment, no longer than the unrest lasts.
    pub(super) fn rest(&self, chance: &mut Chance, ms_max: u64) {
        let left = self.until.saturating_duration_since(Instant::now());
        thread::sleep(Duration::from_millis(chance.below(ms_max)).min(left));
    }

    /// Runs a command to its end, whatever that is; where it ends by itself, its exit code must be
    /// one of these.
    pub(super) fn command(
        &self,
        person: &Person,
        args: &[&str],
        codes: &[i32],
        fate: Fate,
    ) -> Result<Ended, String> {
        let running = Running::start(self, person, args);
        let what = running.what.clone();
        let ended = running.meet(self, fate)?;
        match ended.code {
            Some(code) if !codes.contains(&code) => {
                Err(format!("{what}: exit code {code}: {}", ended.said))
            }
            _ => Ok(ended),
        }
    }

    /// Runs a command that must do what it is asked; what it printed.
    pub(super) fn done(&self, person: &Person, args: &[&str]) -> Result<Vec<String>, String> {
        let ended = self.command(person, args, &[0], Fate::Lives)?;
        Ok(ended.lines)
    }
}

/// A field of a line of JSON.
pub(super) fn field(line: &str, key: &str) -> Option<String> {
    let line: Value = serde_json::from_str(line).ok()?;
    line[key].as_str().map(str::to_owned)
}
