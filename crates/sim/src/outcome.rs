use std::collections::BTreeMap;

use crate::around::Stop;
use crate::trace::Trace;
use crate::violation::Violation;

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// What must never happen and did, if anything.
    pub violation: Option<Violation>,
    /// What happened, in order.
    pub trace: Trace,
    /// Devices at the end.
    pub devices: usize,
    /// Records that were sealed.
    pub records: usize,
    /// Faults injected, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// What was asked for, answered and said, by kind.
    pub asking: BTreeMap<&'static str, u64>,
    /// What became of the messages.
    pub tally: Tally,
}

impl Report {
    /// Of a run that came to an end before its first step.
    pub(crate) fn unbegun(seed: u64, stop: Stop) -> Self {
        let violation = match stop {
            Stop::Violated(violation) => violation,
            Stop::Crashed | Stop::Unreachable | Stop::Refused(_) => {
                Violation::Odd("a run that does not begin")
            }
        };
        Self {
            seed,
            violation: Some(violation),
            trace: Trace::default(),
            devices: 0,
            records: 0,
            faults: BTreeMap::new(),
            asking: BTreeMap::new(),
            tally: Tally::default(),
        }
    }
}

/// What became of the messages on the bus, counted once for each device that runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Opened.
    pub opened: usize,
    /// Sealed for good, by cause.
    pub sealed: BTreeMap<&'static str, usize>,
}

/// Why a message stays sealed for a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Nothing was granted that reaches it.
    NotEntitled,
    /// What was granted was taken back.
    Revoked,
    /// The condition of the key nodes does not hold.
    NotApproved,
    /// No device that runs holds its keys and may hand them out.
    NoHolderReachable,
    /// The bus lost what belongs to it, and nobody has it.
    Withheld,
    /// Its publisher's right was taken, or the entry that gave it is lost.
    SenderRevoked,
    /// Nobody can say: a fault of ours.
    Unknown(String),
}

impl Cause {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::NotEntitled => "not entitled",
            Self::Revoked => "revoked",
            Self::NotApproved => "not approved",
            Self::NoHolderReachable => "no holder reachable",
            Self::Withheld => "withheld",
            Self::SenderRevoked => "sender revoked",
            Self::Unknown(_) => "unknown",
        }
    }
}
