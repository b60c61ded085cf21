//! Messages that set out together, and who waits until all of them have arrived.

use std::collections::VecDeque;

use super::Done;
use crate::fault::Fault;
use crate::packet::REFUSED;

/// What is on its way, or is to be.
#[derive(Debug, Default)]
pub(super) struct Groups {
    /// In the order in which they began; those that are over go when they are the first.
    all: VecDeque<Group>,
    /// The number of the first.
    first: u64,
}

#[derive(Debug)]
struct Group {
    /// Messages that the broker has not answered.
    left: usize,
    refusal: Option<u8>,
    /// Nothing when whoever waits was told.
    done: Option<Done>,
}

impl Groups {
    /// Begins one of so many messages; returns its number.
    pub(super) fn begin(&mut self, count: usize, done: Done) -> u64 {
        let number = self.first + self.all.len() as u64;
        self.all.push_back(Group {
            left: count,
            refusal: None,
            done: Some(done),
        });
        number
    }

    /// A message of a group was answered, with the broker's code.
    pub(super) fn land(&mut self, number: u64, code: u8) {
        let Some(group) = self.get_mut(number) else {
            return;
        };
        group.left = group.left.saturating_sub(1);
        if code >= REFUSED {
            group.refusal.get_or_insert(code);
        }
        if group.left == 0
            && let Some(done) = group.done.take()
        {
            let outcome = match group.refusal {
                Some(code) => Err(Fault::Refused(code)),
                None => Ok(code),
            };
            // Whoever asked may have left.
            let _is_told = done.send(outcome).is_ok();
        }
        self.drop_over();
    }

    /// Whether nobody waits for a group any more.
    pub(super) fn is_unawaited(&self, number: u64) -> bool {
        let index = number.checked_sub(self.first);
        let index = index.and_then(|index| usize::try_from(index).ok());
        let group = index.and_then(|index| self.all.get(index));
        group.is_none_or(|of| of.done.as_ref().is_none_or(|done| done.is_closed()))
    }

    /// Forgets those for which nobody waits, none of whose messages are on their way.
    pub(super) fn forget_unawaited(&mut self) {
        for group in &mut self.all {
            group.done.take_if(|done| done.is_closed());
        }
        self.drop_over();
    }

    fn get_mut(&mut self, number: u64) -> Option<&mut Group> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.all.get_mut(index)
    }

    fn drop_over(&mut self) {
        while self.all.front().is_some_and(|first| first.done.is_none()) {
            self.all.pop_front();
            self.first += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn whoever_waits_is_told_when_all_have_arrived_and_of_the_first_refusal() {
        let mut groups = Groups::default();
        let (done, mut one) = oneshot::channel();
        let first = groups.begin(2, done);
        let (done, mut two) = oneshot::channel();
        let second = groups.begin(3, done);
        for code in [0x87, 0x97, 0] {
            assert!(two.try_recv().is_err());
            groups.land(second, code);
        }
        let told = two.try_recv().unwrap();
        assert!(matches!(told, Err(Fault::Refused(0x87))), "{told:?}");
        groups.land(first, 0);
        assert!(one.try_recv().is_err());
        groups.land(first, 0x10);
        assert!(matches!(one.try_recv().unwrap(), Ok(0x10)));
        assert!(groups.all.is_empty());
        let (done, _three) = oneshot::channel();
        assert_eq!(groups.begin(1, done), 2);
    }

    #[test]
    fn what_nobody_waits_for_is_forgotten() {
        let mut groups = Groups::default();
        let (done, waits) = oneshot::channel();
        let left = groups.begin(1, done);
        let (done, mut other) = oneshot::channel();
        let kept = groups.begin(1, done);
        assert!(!groups.is_unawaited(left));
        drop(waits);
        assert!(groups.is_unawaited(left) && !groups.is_unawaited(kept));
        groups.forget_unawaited();
        assert!(groups.is_unawaited(left));
        groups.land(left, 0);
        groups.land(kept, 0);
        assert!(matches!(other.try_recv().unwrap(), Ok(0)));
    }
}
