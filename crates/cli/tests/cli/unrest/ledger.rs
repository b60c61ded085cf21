//! What was handed over to be published, what was acknowledged of it, and what came back.

use std::collections::{BTreeMap, BTreeSet};

use sealcast_crash::Chance;
use serde_json::Value;

/// What every text has in it, and nothing else.
pub(super) const MARK: &str = "words-that-nobody-else-says";
/// Letters that make texts of different lengths.
const FILLED_MAX: u64 = 160;

/// One record: which program published it, and its number there.
pub(super) type Record = (String, u64);

/// The text of a record.
pub(super) fn text(tag: &str, number: u64) -> String {
    let seed = tag.bytes().fold(number, |sum, byte| {
        sum.wrapping_mul(257).wrapping_add(u64::from(byte))
    });
    let mut chance = Chance::new(seed);
    let filled = usize::try_from(chance.below(FILLED_MAX)).unwrap();
    let letters: String = (0..10).map(|_| format!("{:016x}", chance.draw())).collect();
    format!("{MARK} {tag} {number} {}", &letters[..filled])
}

/// The record whose text this is, to the letter.
pub(super) fn record(of: &str) -> Result<Record, String> {
    let mut words = of.split(' ');
    let (mark, tag, number) = (words.next(), words.next(), words.next());
    let number = number.and_then(|number| number.parse().ok());
    match (tag, number) {
        (Some(tag), Some(number)) if mark == Some(MARK) && text(tag, number) == of => {
            Ok((tag.to_owned(), number))
        }
        _ => Err(format!("nobody wrote `{of}`")),
    }
}

/// One run of a program that publishes.
#[derive(Clone, Debug)]
pub(super) struct Run {
    /// When it was about to begin; its positions are later.
    pub(super) began_ms: u64,
    /// The last step about eve that was acknowledged before it began, a revocation.
    pub(super) revoked_at: Option<usize>,
    pub(super) written: u64,
    pub(super) stored: u64,
    is_over: bool,
}

/// All runs, by tag.
#[derive(Debug, Default)]
pub(super) struct Ledger(pub(super) BTreeMap<String, Run>);

impl Ledger {
    pub(super) fn begin(&mut self, tag: &str, began_ms: u64, revoked_at: Option<usize>) {
        let run = Run {
            began_ms,
            revoked_at,
            written: 0,
            stored: 0,
            is_over: false,
        };
        self.0.insert(tag.to_owned(), run);
    }

    fn change(&mut self, tag: &str, change: impl FnOnce(&mut Run)) {
        change(self.0.get_mut(tag).unwrap());
    }

    /// Notes lines before they are handed over: from then on they may be read.
    pub(super) fn write(&mut self, tag: &str, until: u64) {
        self.change(tag, |run| run.written = until);
    }

    pub(super) fn store(&mut self, tag: &str, until: u64) -> Result<(), String> {
        let run = self.0.get_mut(tag).unwrap();
        if until < run.stored || until > run.written {
            return Err(format!("{tag}: {until} acknowledged, of {run:?}"));
        }
        run.stored = until;
        Ok(())
    }

    pub(super) fn over(&mut self, tag: &str) {
        self.change(tag, |run| run.is_over = true);
    }

    pub(super) fn stored(&self) -> u64 {
        self.0.values().map(|run| run.stored).sum()
    }
}

/// What one who follows the stream was told, over all of its runs.
#[derive(Debug, Default)]
pub(super) struct Heard {
    pub(super) seen: BTreeMap<String, BTreeSet<u64>>,
    /// What opened, in order, one list for each run; and whether it had waited.
    pub(super) runs: Vec<Vec<(Record, bool)>>,
    /// What was said to wait: device, number and position.
    pub(super) waits: BTreeSet<(String, u64, String)>,
    pub(super) delivered: u64,
    pub(super) twice: u64,
    pub(super) waited: u64,
}

impl Heard {
    /// Takes in a line of `sub --json`.
    pub(super) fn take(&mut self, line: &str, ledger: &Ledger) -> Result<(), String> {
        let of: Value = serde_json::from_str(line).map_err(|_| format!("no JSON: {line}"))?;
        let (state, parked) = (of["state"].as_str(), of["parked"].as_str());
        match (state, parked) {
            (Some("opened"), _) => {
                let of = of["text"].as_str().unwrap_or_default();
                let record = record(of)?;
                let run = ledger.0.get(&record.0);
                if run.is_none_or(|run| record.1 >= run.written) {
                    return Err(format!("nobody wrote `{of}` yet"));
                }
                let is_new = self.seen.entry(record.0.clone()).or_default();
                self.twice += u64::from(!is_new.insert(record.1));
                self.delivered += 1;
                self.waited += u64::from(parked == Some("waited"));
                let run = self.runs.last_mut().unwrap();
                run.push((record, parked == Some("waited")));
            }
            (Some("sealed" | "rejected"), Some("waits")) => {
                let word = |key: &str| of[key].as_str().unwrap_or_default().to_owned();
                let seq = of["seq"].as_u64().unwrap_or_default();
                self.waits.insert((word("device"), seq, word("time")));
            }
            // Another program of the home has it.
            (Some("sealed" | "rejected"), Some("elsewhere")) => {}
            (Some("gap" | "branch"), _) => {}
            _ => return Err(format!("never in order: {line}")),
        }
        Ok(())
    }

    /// From when on there may be records that it was not told: since the first program began that
    /// runs still or of which something acknowledged is missing here.
    pub(super) fn since(&self, ledger: &Ledger) -> Option<u64> {
        let has_all = |tag: &String, run: &Run| {
            let seen = self.seen.get(tag);
            let count = seen.map_or(0, |seen| seen.range(..run.stored).count() as u64);
            run.is_over && count == run.stored
        };
        let open = ledger.0.iter().filter(|(tag, run)| !has_all(tag, run));
        open.map(|(_, run)| run.began_ms).min()
    }

    /// How many acknowledged records it was not told.
    pub(super) fn missing(&self, ledger: &Ledger) -> Vec<Record> {
        let mut missing = Vec::new();
        for (tag, run) in &ledger.0 {
            let seen = self.seen.get(tag);
            let lacks = |number: &u64| seen.is_none_or(|seen| !seen.contains(number));
            missing.extend((0..run.stored).filter(lacks).map(|of| (tag.clone(), of)));
        }
        missing
    }
}
