//! Gaps of a history, told when all of it was read: what is missing may come behind what follows it. So it does in a home that was
//! shown the newest messages first, and the older ones by an archive.

use std::collections::{BTreeMap, VecDeque};

use sealcast_engine::{Event, Notice, Refusal};
use sealcast_protocol::{Header, InstanceId, UserId};

/// Gaps that are held at most. Where there are more, all are told as they come.
const HELD_MAX: usize = 4096;

type Number = (InstanceId, u32);

/// A gap that may be filled yet.
#[derive(Debug)]
struct Gap {
    /// How many gaps were noticed before it.
    place: usize,
    /// The envelope before which it is.
    header: Header,
    user: UserId,
    missing: u32,
}

impl From<Gap> for Event {
    fn from(gap: Gap) -> Self {
        let missing = gap.missing;
        Self::Noticed {
            header: gap.header,
            user: gap.user,
            notice: Notice::Gap { missing },
        }
    }
}

/// Gaps that may be filled yet.
#[derive(Debug, Default)]
pub(crate) struct Gaps {
    /// By the number of the envelope before which they are.
    held: BTreeMap<Number, Gap>,
    /// The envelope that came last: of a frame each record is told.
    last: Option<Number>,
    noticed: usize,
    /// What is told before anything else.
    due: VecDeque<Event>,
    is_full: bool,
}

impl Gaps {
    /// Takes in what was told; hands it on where it is to be told now.
    pub(crate) fn take(&mut self, event: Event) -> Option<Event> {
        match event {
            Event::Noticed {
                header,
                user,
                notice: Notice::Gap {
                    missing: missing @ 1..,
                },
            } if !self.is_full => {
                self.hold(header, user, missing);
                return None;
            }
            Event::Opened { ref header, .. }
            | Event::Sealed { ref header, .. }
            // Its order was judged, unlike that of what is refused for another reason.
            | Event::Rejected {
                header: Some(ref header),
                refusal: Refusal::NotAuthentic,
                ..
            } => self.came(header),
            Event::Rejected { .. } | Event::Noticed { .. } | Event::BadCover { .. } => {}
        }
        Some(event)
    }

    fn hold(&mut self, header: Header, user: UserId, missing: u32) {
        let gap = Gap {
            place: self.noticed,
            header,
            user,
            missing,
        };
        self.held.insert((header.instance, header.seq), gap);
        self.noticed += 1;
        if self.held.len() > HELD_MAX {
            self.is_full = true;
            self.tell_all();
        }
    }

    /// An envelope came. Where it was missing, one less is: of two gaps of a run the later one begins behind the number before which the
    /// earlier one is, and what comes late and lies in no gap is a replay.
    pub(crate) fn came(&mut self, header: &Header) {
        let number = (header.instance, header.seq);
        if self.held.is_empty() || self.last.replace(number) == Some(number) {
            return;
        }
        let (instance, seq) = number;
        let behind = (instance, seq.saturating_add(1))..=(instance, u32::MAX);
        if let Some((&of, gap)) = self.held.range_mut(behind).next() {
            gap.missing -= 1;
            if gap.missing == 0 {
                self.held.remove(&of);
            }
        }
    }

    /// What is to be told before anything else.
    pub(crate) fn due(&mut self) -> Option<Event> {
        self.due.pop_front()
    }

    /// What did not come does not any more.
    pub(crate) fn tell_all(&mut self) {
        let mut held: Vec<_> = std::mem::take(&mut self.held).into_values().collect();
        held.sort_unstable_by_key(|gap| gap.place);
        self.due.extend(held.into_iter().map(Event::from));
    }
}
