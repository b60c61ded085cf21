use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Between two requests of one call, at first and at last.
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// How an adapter makes a call again while nobody answers: less and less often, for a while.
#[derive(Debug)]
pub struct Attempts {
    /// Known once one has failed: what waited for its turn before may be asked for as long.
    until: Option<Instant>,
    pause: Duration,
}

/// Why an adapter could not do what was asked, where it knows whether that passes.
pub trait MayPass {
    /// Whether the same request may do better in a moment.
    fn may_pass(&self) -> bool;
}

impl Attempts {
    /// How long a call goes on asking: a cluster finds another leader meanwhile, and a server that was
    /// killed reads its log.
    pub const PATIENCE: Duration = Duration::from_secs(30);

    /// Nothing has failed yet.
    pub fn new() -> Self {
        Self {
            until: None,
            pause: PAUSE,
        }
    }

    /// Waits before the next attempt.
    ///
    /// # Errors
    ///
    /// Gives the fault back where there is to be no other attempt.
    pub async fn after<F: MayPass>(&mut self, fault: F) -> Result<(), F> {
        let now = Instant::now();
        let until = *self.until.get_or_insert(now + Self::PATIENCE);
        if !fault.may_pass() || now >= until {
            return Err(fault);
        }
        sleep(jittered(self.pause)).await;
        self.pause = PAUSE_MAX.min(self.pause * 2);
        Ok(())
    }
}

impl Default for Attempts {
    fn default() -> Self {
        Self::new()
    }
}

/// A duration of three to five quarters of `about`, so that many who wait do not come at once.
pub fn jittered(about: Duration) -> Duration {
    let mut byte = [128];
    // Without randomness it is the duration itself.
    let _is_drawn = getrandom::fill(&mut byte).is_ok();
    about * (384 + u32::from(byte[0])) / 512
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fault(bool);

    impl MayPass for Fault {
        fn may_pass(&self) -> bool {
            self.0
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_is_made_again_for_half_a_minute_and_less_and_less_often() {
        let start = Instant::now();
        let mut attempts = Attempts::new();
        let mut made = 0;
        while attempts.after(Fault(true)).await.is_ok() {
            made += 1;
        }
        assert!(start.elapsed() >= Attempts::PATIENCE);
        assert!((25..=50).contains(&made), "{made} attempts");
        // What does not pass is not tried again.
        assert!(Attempts::new().after(Fault(false)).await.is_err());
    }

    #[test]
    fn a_jittered_duration_is_near_the_one_meant() {
        let about = Duration::from_secs(4);
        for _ in 0..1_000 {
            let bounds = Duration::from_secs(3)..=Duration::from_secs(5);
            assert!(bounds.contains(&jittered(about)));
        }
    }
}
