//! How long to wait before what failed is tried again.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(30);

/// Waits that double, each shortened or lengthened by up to a quarter so that many who failed
/// together do not come back together.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl Backoff {
    /// Begins anew: it worked.
    pub(crate) fn reset(&mut self) {
        self.next = FIRST;
    }

    /// The next wait. `jitter` is any number.
    pub(crate) fn wait(&mut self, jitter: u8) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(LONGEST);
        wait.mul_f64(0.75 + f64::from(jitter) / 510.0)
    }
}

/// A number to spread waits by; where the system has none to give, they are not spread.
pub(crate) fn jitter() -> u8 {
    let mut byte = [127];
    let _is_drawn = getrandom::fill(&mut byte).is_ok();
    byte[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_a_longest_and_begin_anew() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..9).map(|_| backoff.wait(127).as_millis()).collect();
        assert_eq!(waits[..4], [249, 499, 999, 1998]);
        assert_eq!(waits[8], 29970);
        backoff.reset();
        assert_eq!(backoff.wait(0), FIRST.mul_f64(0.75));
        assert_eq!(backoff.wait(255), (FIRST * 2).mul_f64(1.25));
    }
}
