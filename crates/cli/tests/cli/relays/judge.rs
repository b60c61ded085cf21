//! Counts what became of messages. It knows of nothing but what publishers and subscribers said.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What was told of one flow of messages.
#[derive(Debug, Default)]
struct Flow {
    sent: BTreeSet<u64>,
    acked: BTreeSet<u64>,
    /// How often each arrived.
    got: BTreeMap<u64, u64>,
    /// The highest number that arrived so far.
    last: u64,
    /// Messages that arrived for the first time after one that was published later.
    late: u64,
}

/// Everything that publishers and subscribers of one side said.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    flows: BTreeMap<String, Flow>,
    /// How often publishers of a flow, or subscribers of a version, had to connect again.
    again: BTreeMap<String, u64>,
    /// What nobody may say.
    odd: Vec<String>,
}

/// What became of all messages of a QoS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) acked: u64,
    /// Acknowledged, and never received.
    pub(super) lost: u64,
    /// Received more often than once: how often, beyond that.
    pub(super) doubled: u64,
    /// Received after one that was published later, and not before.
    pub(super) late: u64,
    /// How often publishers had to connect again, and subscribers.
    pub(super) again: (u64, u64),
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            acked,
            lost,
            doubled,
            late,
            again: (published, subscribed),
        } = self;
        write!(
            f,
            "{acked} acknowledged, {lost} lost, {doubled} doubled, {late} late; {published} and {subscribed} \
             connections anew of who published and who received"
        )
    }
}

impl Ledger {
    /// Takes down a line. What says nothing of a message is handed back.
    pub(super) fn note(&mut self, line: &str) -> bool {
        let words: Vec<_> = line.split(' ').collect();
        match words[..] {
            ["sent" | "acked", flow, number] | ["got", flow, number, _]
                if number.parse::<u64>().is_ok() =>
            {
                let flow = self.flows.entry(flow.to_owned()).or_default();
                flow.note(words[0], number.parse().unwrap());
                true
            }
            ["again", who] => {
                *self.again.entry(who.to_owned()).or_default() += 1;
                true
            }
            ["ready"] => false,
            _ => {
                self.odd.push(line.to_owned());
                true
            }
        }
    }

    /// Whether all that was acknowledged has arrived.
    pub(super) fn is_complete(&self) -> bool {
        self.flows.values().all(|flow| flow.lost() == 0)
    }

    /// What nobody may say, or nobody published.
    pub(super) fn odd(&self) -> Vec<String> {
        let mut odd = self.odd.clone();
        for (name, flow) in &self.flows {
            let strange = flow.got.keys().filter(|number| !flow.sent.contains(number));
            odd.extend(strange.map(|number| format!("nobody sent {name} {number}")));
        }
        odd
    }

    /// What became of all messages of a QoS.
    pub(super) fn count(&self, qos: u8) -> Count {
        let suffix = format!("-{qos}");
        let flows = self
            .flows
            .iter()
            .filter(|(name, _)| name.ends_with(&suffix));
        let again = |is_it: &dyn Fn(&str) -> bool| {
            let of_it = self.again.iter().filter(|(who, _)| is_it(who));
            of_it.map(|(_, times)| times).sum()
        };
        let none = Count {
            again: (
                again(&|who| who.ends_with(&suffix)),
                again(&|who| !who.contains('-')),
            ),
            ..Count::default()
        };
        flows.fold(none, |sum, (_, flow)| Count {
            acked: sum.acked + flow.acked.len() as u64,
            lost: sum.lost + flow.lost(),
            doubled: sum.doubled + flow.got.values().map(|times| times - 1).sum::<u64>(),
            late: sum.late + flow.late,
            ..sum
        })
    }
}

impl Flow {
    fn note(&mut self, what: &str, number: u64) {
        match what {
            "sent" => {
                self.sent.insert(number);
            }
            "acked" => {
                self.acked.insert(number);
            }
            _ => {
                let times = self.got.entry(number).or_default();
                *times += 1;
                self.late += u64::from(*times == 1 && number < self.last);
                self.last = self.last.max(number);
            }
        }
    }

    fn lost(&self) -> u64 {
        let is_lost = |number: &&u64| !self.got.contains_key(number);
        self.acked.iter().filter(is_lost).count() as u64
    }
}

#[test]
fn what_is_lost_doubled_late_and_strange_is_counted() {
    let mut ledger = Ledger::default();
    let said = "sent 5-2 1/acked 5-2 1/sent 5-2 2/sent 5-2 3/acked 5-2 2/acked 5-2 3/\
                got 5-2 3 2/got 5-2 1 2/got 5-2 3 2/got 5-2 4 2/sent 3-1 1/again 5-2/again 5/again 3-1";
    assert!(said.split('/').all(|line| ledger.note(line)));
    assert!(!ledger.is_complete());
    assert_eq!(
        ledger.count(2),
        Count {
            acked: 3,
            lost: 1,
            doubled: 1,
            late: 1,
            again: (1, 1),
        }
    );
    assert_eq!(ledger.count(1).again, (1, 1));
    assert_eq!(ledger.odd(), ["nobody sent 5-2 4"]);
    ledger.note("got 5-2 2 2");
    assert!(ledger.is_complete());
    for odd in ["session lost", "got ? plant/x 'text' 1", "acked 5-2 x"] {
        ledger.note(odd);
    }
    assert_eq!(ledger.odd().len(), 4);
}
