//! The numbers of what is to be acknowledged.

/// Words with a bit for each number.
const WORDS: usize = (1 << 16) / 64;

/// Which numbers are in use: those of messages on their way, and of requests that wait for their answer.
#[derive(Debug)]
pub(super) struct Ids {
    next: u16,
    used: Box<[u64; WORDS]>,
}

impl Default for Ids {
    fn default() -> Self {
        Self {
            next: 1,
            used: Box::new([0; WORDS]),
        }
    }
}

impl Ids {
    /// The next number that is free. There are always some: a client has fewer messages and requests on their way
    /// than there are numbers.
    pub(super) fn draw(&mut self) -> u16 {
        loop {
            let id = self.next;
            self.next = self.next.checked_add(1).unwrap_or(1);
            if !self.is_used(id) {
                self.take(id);
                return id;
            }
        }
    }

    /// Notes that a number is in use.
    pub(super) fn take(&mut self, id: u16) {
        if let Some(word) = self.used.get_mut(usize::from(id / 64)) {
            *word |= 1 << (id % 64);
        }
    }

    pub(super) fn give_back(&mut self, id: u16) {
        if let Some(word) = self.used.get_mut(usize::from(id / 64)) {
            *word &= !(1 << (id % 64));
        }
    }

    fn is_used(&self, id: u16) -> bool {
        let word = self.used.get(usize::from(id / 64));
        word.is_some_and(|word| word & 1 << (id % 64) > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_drawn_again_only_when_it_was_given_back() {
        let mut ids = Ids::default();
        let first = ids.draw();
        assert_eq!((first, ids.draw()), (1, 2));
        ids.take(4);
        assert_eq!((ids.draw(), ids.draw()), (3, 5));
        ids.give_back(2);
        for expected in 6..=u16::MAX {
            let id = ids.draw();
            assert_eq!(id, expected);
            ids.give_back(id);
        }
        // 0 is none, and 1 is on its way yet.
        assert_eq!((ids.draw(), ids.draw()), (2, 6));
    }
}
