//! Keeps what is known of a stream in step with the bus, for all who open what a carrier brings.
//!
//! A task of its own follows the control topics. Beside that, an envelope of which something is not
//! known may have them read once more before it is told: what a carrier brings may be faster than the
//! bus. That is done so often at most, whoever writes what.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use sealcast_engine::{Allowed, Pace, Sightings};
use sealcast_protocol::{DeviceId, EnvelopeHash, Position};
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::attend::Attendant;
use crate::core::{Core, lock, put_off};
use crate::error::Error;
use crate::judging::{Brought, Judged, Judging};
use crate::read::allowed_now;

/// Looks in a second, and at once.
const LOOKS_PER_SECOND: u32 = 4;
const LOOKS_AT_ONCE: u32 = 8;
/// How long a look may hold up an envelope.
const LOOK_FOR: Duration = Duration::from_secs(5);
/// Between two tries to reach a bus that is away, at first and at last.
const PAUSE: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(4);

/// Where the one [`Lookout`] of a stream is found, while there is one, and what it tells.
#[derive(Debug, Default)]
pub(crate) struct LookoutSlot {
    slot: tokio::sync::Mutex<Weak<Lookout>>,
    /// Whether something was read that was not told.
    has_news: AtomicBool,
    news: watch::Sender<u64>,
}

impl LookoutSlot {
    pub(crate) fn note_news(&self) {
        self.has_news.store(true, Ordering::Relaxed);
    }

    /// Tells whoever waits that something was learned, where it was.
    pub(crate) fn tell_news(&self) {
        if self.has_news.swap(false, Ordering::Relaxed) {
            self.news.send_modify(|count| *count += 1);
        }
    }
}

/// Follows a stream for as long as somebody holds it.
#[derive(Debug)]
pub(crate) struct Lookout {
    watch: Arc<Watch>,
    judging: Judging,
    task: AbortHandle,
}

impl Drop for Lookout {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What came of a look at the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Looked {
    /// All that was there when it was asked for is known.
    Done,
    /// Others looked too often.
    Spared,
    /// The bus is away.
    Away,
}

#[derive(Debug)]
struct Watch {
    core: Arc<Core>,
    revoked: Mutex<Revoked>,
    /// How many looks were begun.
    begun: AtomicU64,
    looks: tokio::sync::Mutex<Looks>,
    /// Whether the bus was away when it was looked at, and nobody reached it since.
    is_behind: AtomicBool,
    nudge: Notify,
}

/// What revoked devices had published before, and for which tips that was found out.
#[derive(Debug, Default)]
struct Revoked {
    tips: BTreeMap<DeviceId, Vec<EnvelopeHash>>,
    allowed: Arc<Allowed>,
}

#[derive(Debug)]
struct Looks {
    /// The last that reached the bus.
    done: u64,
    pace: Pace,
    since: Instant,
}

impl Core {
    /// What follows this stream; it begins when it is first needed. Must be called on a runtime.
    pub(crate) async fn lookout(self: &Arc<Self>) -> Result<Arc<Lookout>, Error> {
        let mut slot = self.lookout.slot.lock().await;
        if let Some(lookout) = slot.upgrade() {
            return Ok(lookout);
        }
        self.sync().await?;
        put_off(self.share_owed().await)?;
        let watch = Arc::new(Watch {
            core: self.clone(),
            revoked: Mutex::default(),
            begun: AtomicU64::new(0),
            looks: tokio::sync::Mutex::new(Looks {
                done: 0,
                pace: Pace::new(LOOKS_PER_SECOND, LOOKS_AT_ONCE),
                since: Instant::now(),
            }),
            is_behind: AtomicBool::new(false),
            nudge: Notify::new(),
        });
        watch.allow_revoked().await?;
        let lookout = Arc::new(Lookout {
            judging: Judging::default(),
            task: tokio::spawn(follow(watch.clone())).abort_handle(),
            watch,
        });
        *slot = Arc::downgrade(&lookout);
        Ok(lookout)
    }
}

impl Lookout {
    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.watch.core
    }

    /// Changes whenever something was learned.
    pub(crate) fn news(&self) -> watch::Receiver<u64> {
        self.core().lookout.news.subscribe()
    }

    /// Judges each of some envelopes by what is known. Nothing is noted.
    pub(crate) async fn judge(
        &self,
        brought: Arc<[Brought]>,
        seen: Arc<Mutex<Sightings>>,
    ) -> Result<Vec<Judged>, Error> {
        let allowed = || lock(&self.watch.revoked).allowed.clone();
        let of = (brought, seen);
        self.judging.judge(self.core(), allowed, of).await
    }

    /// Which look comes next, by which [`look`](Self::look) knows whether one began after this.
    pub(crate) fn before_next_look(&self) -> u64 {
        self.watch.begun.load(Ordering::Relaxed)
    }

    /// Reads what is on the bus, unless a look that began after another was done.
    ///
    /// Fails when the store cannot be written.
    pub(crate) async fn look(&self, after: u64) -> Result<Looked, Error> {
        let watch = &*self.watch;
        if watch.is_behind() {
            return Ok(Looked::Away);
        }
        let mut looks = watch.looks.lock().await;
        if looks.done > after {
            return Ok(Looked::Done);
        }
        if watch.is_behind() {
            return Ok(Looked::Away);
        }
        if !looks.may_look() {
            return Ok(Looked::Spared);
        }
        let number = watch.begun.fetch_add(1, Ordering::Relaxed) + 1;
        match timeout(LOOK_FOR, watch.catch_up()).await {
            Ok(Ok(())) => {
                looks.done = number;
                Ok(Looked::Done)
            }
            Ok(Err(Error::Bus(_) | Error::RolledBack(_))) | Err(_) => {
                watch.fall_behind();
                Ok(Looked::Away)
            }
            Ok(Err(worse)) => Err(worse),
        }
    }
}

impl Looks {
    fn may_look(&mut self) -> bool {
        let ms = self.since.elapsed().as_millis();
        self.pace
            .take(Position(u64::try_from(ms).unwrap_or(u64::MAX)))
    }
}

impl Watch {
    async fn catch_up(&self) -> Result<(), Error> {
        self.core.sync().await?;
        self.allow_revoked().await
    }

    /// Lets in what revoked devices had published before.
    async fn allow_revoked(&self) -> Result<(), Error> {
        let tips = self.core.view().state().revoked_tips();
        if lock(&self.revoked).tips == tips {
            return Ok(());
        }
        let allowed = Arc::new(allowed_now(&self.core).await?);
        *lock(&self.revoked) = Revoked { tips, allowed };
        Ok(())
    }

    async fn attend(&self, attendant: &mut Attendant) -> Result<(), Error> {
        attendant.next().await?;
        self.allow_revoked().await
    }

    fn is_behind(&self) -> bool {
        self.is_behind.load(Ordering::Relaxed)
    }

    fn fall_behind(&self) {
        self.is_behind.store(true, Ordering::Relaxed);
        self.nudge.notify_one();
    }

    /// Whoever was told something while the bus was away may ask again.
    fn get_in_step(&self) {
        if self.is_behind.swap(false, Ordering::Relaxed) {
            self.core.lookout.note_news();
            self.core.lookout.tell_news();
        }
    }
}

/// Follows the control topics, whatever fails. What goes wrong with the store shows in the next look.
async fn follow(watch: Arc<Watch>) {
    let mut attendant = Attendant::new(watch.core.clone());
    let mut pause = PAUSE;
    loop {
        let step = match watch.is_behind() {
            true => watch.catch_up().await,
            false => tokio::select! {
                biased;
                () = watch.nudge.notified() => continue,
                step = watch.attend(&mut attendant) => step,
            },
        };
        match step {
            Ok(()) => {
                pause = PAUSE;
                watch.get_in_step();
            }
            Err(_) => {
                sleep(pause).await;
                pause = PAUSE_MAX.min(pause * 2);
            }
        }
    }
}
