//! Gaps of a history, told when all of it was read: what is missing may come behind what follows it. So it does in a home that was
//! shown the newest messages first, and the older ones by an archive.

use std::collections::{BTreeMap, VecDeque};

use sealcast_engine::{Event, Notice, Refusal};
use sealcast_protocol::{Header, InstanceId};

/// Gaps that are held at most. Where there are more, all are told as they come.
const HELD_MAX: usize = 4096;

type Number = (InstanceId, u32);

/// Gaps that may be filled yet.
#[derive(Debug, Default)]
pub(crate) struct Gaps {
    /// By the number of the envelope before which they are, with how many are missing there, in the order in which they were noticed.
    held: BTreeMap<Number, (usize, u32, Event)>,
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
        match &event {
            Event::Noticed {
                header,
                notice: Notice::Gap { missing: 1.. },
                ..
            } if !self.is_full => {
                let number = (header.instance, header.seq);
                self.hold(number, event);
                return None;
            }
            Event::Opened { header, .. }
            | Event::Sealed { header, .. }
            // Its order was judged, unlike that of what is refused for another reason.
            | Event::Rejected {
                header: Some(header),
                refusal: Refusal::NotAuthentic,
                ..
            } => self.came(header),
            Event::Rejected { .. } | Event::Noticed { .. } | Event::BadCover { .. } => {}
        }
        Some(event)
    }

    fn hold(&mut self, before: Number, gap: Event) {
        if let Event::Noticed {
            notice: Notice::Gap { missing },
            ..
        } = gap
        {
            self.held.insert(before, (self.noticed, missing, gap));
            self.noticed += 1;
        }
        if self.held.len() > HELD_MAX {
            self.is_full = true;
            self.tell_all();
        }
    }

    /// An envelope came. Where it was missing, one less is.
    pub(crate) fn came(&mut self, header: &Header) {
        let number = (header.instance, header.seq);
        if self.held.is_empty() || self.last.replace(number) == Some(number) {
            return;
        }
        let (instance, seq) = number;
        let behind = (instance, seq.saturating_add(1))..=(instance, u32::MAX);
        if let Some((of, (_, missing, _))) = self.held.range_mut(behind).next() {
            *missing -= 1;
            if *missing == 0 {
                let of = *of;
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
        held.sort_unstable_by_key(|(noticed, ..)| *noticed);
        self.due
            .extend(held.into_iter().map(|(_, missing, event)| match event {
                Event::Noticed { header, user, .. } => Event::Noticed {
                    header,
                    user,
                    notice: Notice::Gap { missing },
                },
                other @ (Event::Opened { .. }
                | Event::Sealed { .. }
                | Event::Rejected { .. }
                | Event::BadCover { .. }) => other,
            }));
    }
}
