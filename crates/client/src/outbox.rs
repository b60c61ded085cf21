//! Sealed envelopes on their way to the bus, in the order in which they were sealed.
//!
//! What the bus does not take for now stays first, and leaves before anything later does. What it
//! refuses for good is left out, and whoever published it is told. Its place in the chain is never used
//! again, so that readers are told a gap.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sealcast_bus::{Bus, BusError, Topic};
use tokio::sync::Notify;

/// Bytes that may be on their way while more is sealed: an append, and what leaves with the next one.
const AHEAD_BYTES_MAX: usize = 4 << 20;
/// Bytes of one append, unless one envelope alone has more.
const APPEND_BYTES_MAX: usize = 2 << 20;

/// What was sealed and is not known to be on the bus.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    waiting: Mutex<Waiting>,
    /// Held by whoever sends.
    sending: tokio::sync::Mutex<()>,
    /// The bus took something, or somebody sends no more.
    less: Notify,
}

/// Whoever has it sends what was put in; when it is dropped, nobody does any more.
#[derive(Debug)]
#[must_use]
pub(crate) struct Errand {
    outbox: Arc<Outbox>,
    /// How many envelopes were put in up to there.
    until: u64,
    refusal: Arc<Refusal>,
}

/// Why the bus refused the first of an errand's envelopes that it refused for good.
#[derive(Debug, Default)]
struct Refusal(Mutex<Option<BusError>>);

/// An envelope, and where its errand learns that it was refused.
#[derive(Debug)]
struct Envelope {
    bytes: Vec<u8>,
    refusal: Arc<Refusal>,
}

#[derive(Debug, Default)]
struct Waiting {
    envelopes: VecDeque<Envelope>,
    bytes: usize,
    /// Envelopes that the bus has taken or refused for good.
    gone: u64,
    /// Errands that are out.
    errands: usize,
}

impl Outbox {
    /// Puts envelopes behind all that wait.
    pub(crate) fn put(self: &Arc<Self>, envelopes: impl Iterator<Item = Vec<u8>>) -> Errand {
        let refusal = Arc::default();
        let mut waiting = self.waiting();
        for bytes in envelopes {
            waiting.bytes += bytes.len();
            let refusal = Arc::clone(&refusal);
            waiting.envelopes.push_back(Envelope { bytes, refusal });
        }
        waiting.errands += 1;
        Errand {
            outbox: self.clone(),
            until: waiting.last(),
            refusal,
        }
    }

    /// Returns when more may be sealed. What the bus did not take, so that nobody sends it any more, is
    /// sent first.
    pub(crate) async fn make_room(&self, bus: &dyn Bus, data: &Topic) -> Result<(), BusError> {
        loop {
            let less = self.less.notified();
            let (bytes, errands, last) = {
                let waiting = self.waiting();
                (waiting.bytes, waiting.errands, waiting.last())
            };
            match errands {
                0 if bytes > 0 => return self.send_until(bus, data, last).await,
                _ if bytes < AHEAD_BYTES_MAX => return Ok(()),
                _ => less.await,
            }
        }
    }

    /// Returns when the bus has taken or refused so many, with as much at once as it takes. Where it
    /// refuses several, each is tried by itself.
    async fn send_until(&self, bus: &dyn Bus, data: &Topic, until: u64) -> Result<(), BusError> {
        let _turn = self.sending.lock().await;
        let limit = bus.limits().batch_max.min(APPEND_BYTES_MAX);
        let mut alone_until = 0;
        while let Some(append) = self.next_append(limit, until, alone_until) {
            let count = append.len();
            match bus.append(data, append).await {
                Ok(_) => self.waiting().take(count),
                Err(error) if error.may_pass() => return Err(error),
                Err(error) if count == 1 => self.waiting().leave_out(error),
                Err(_) => {
                    alone_until = self.waiting().gone + count as u64;
                    continue;
                }
            }
            self.less.notify_waiters();
        }
        Ok(())
    }

    /// What is to be sent next; `None` where so many are gone.
    fn next_append(&self, limit: usize, until: u64, alone_until: u64) -> Option<Vec<Vec<u8>>> {
        let waiting = self.waiting();
        if waiting.gone >= until {
            return None;
        }
        let mut size = 0;
        let fits = waiting.envelopes.iter().take_while(|envelope| {
            size += envelope.bytes.len();
            size <= limit
        });
        let count = match waiting.gone < alone_until {
            true => 1,
            false => fits.count().max(1),
        };
        let append = waiting.envelopes.iter().take(count);
        Some(append.map(|envelope| envelope.bytes.clone()).collect())
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Errand {
    /// Returns when the bus has all up to this errand, but what it refused for good.
    ///
    /// Fails where it refused any of this errand, or takes nothing for now.
    pub(crate) async fn send(self, bus: &dyn Bus, data: &Topic) -> Result<(), BusError> {
        let sent = self.outbox.send_until(bus, data, self.until).await;
        match self.refusal.lock().take() {
            Some(refusal) => Err(refusal),
            None => sent,
        }
    }
}

impl Refusal {
    fn lock(&self) -> MutexGuard<'_, Option<BusError>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Errand {
    fn drop(&mut self) {
        self.outbox.waiting().errands -= 1;
        self.outbox.less.notify_waiters();
    }
}

impl Waiting {
    /// How many envelopes were put in.
    fn last(&self) -> u64 {
        self.gone + self.envelopes.len() as u64
    }

    fn take(&mut self, count: usize) {
        for envelope in self.envelopes.drain(..count.min(self.envelopes.len())) {
            self.bytes -= envelope.bytes.len();
            self.gone += 1;
        }
    }

    /// The bus will never take the first.
    fn leave_out(&mut self, error: BusError) {
        if let Some(first) = self.envelopes.front() {
            first.refusal.lock().get_or_insert(error);
        }
        self.take(1);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sealcast_bus::{BusFuture, FileBus, Item, Limits, Listener, Offset, Tail};
    use tokio::sync::Semaphore;
    use tokio::time::timeout;

    use super::*;

    /// For what must come.
    const PATIENCE: Duration = Duration::from_secs(120);
    /// Long enough for something to have gone wrong, mostly.
    const MOMENT: Duration = Duration::from_millis(50);

    /// Bytes of an envelope that the bus takes, at most.
    const TAKEN_MAX: usize = AHEAD_BYTES_MAX;

    /// A bus that takes an append for each permit.
    #[derive(Debug)]
    struct Slow {
        inner: FileBus,
        may: Semaphore,
    }

    impl Bus for Slow {
        fn limits(&self) -> Limits {
            self.inner.limits()
        }

        fn append(&self, topic: &Topic, payloads: Vec<Vec<u8>>) -> BusFuture<'_, Offset> {
            let topic = topic.clone();
            Box::pin(async move {
                self.may.acquire().await.unwrap().forget();
                Limits::new(TAKEN_MAX, usize::MAX).check(&payloads)?;
                self.inner.append(&topic, payloads).await
            })
        }

        fn read(&self, topic: &Topic, from: Offset, bytes_max: usize) -> BusFuture<'_, Vec<Item>> {
            self.inner.read(topic, from, bytes_max)
        }

        fn end(&self, topic: &Topic) -> BusFuture<'_, Offset> {
            self.inner.end(topic)
        }

        fn tail(&self, topics: Vec<(Topic, Offset)>) -> Box<dyn Tail> {
            self.inner.tail(topics)
        }

        fn trim(&self, topic: &Topic, before: Offset) -> BusFuture<'_, ()> {
            self.inner.trim(topic, before)
        }

        fn send(&self, topic: &Topic, payload: Vec<u8>) -> BusFuture<'_, ()> {
            self.inner.send(topic, payload)
        }

        fn listen(&self, topics: Vec<Topic>) -> BusFuture<'_, Box<dyn Listener>> {
            self.inner.listen(topics)
        }
    }

    struct Scene {
        _folder: tempfile::TempDir,
        bus: Arc<Slow>,
        topic: Topic,
        outbox: Arc<Outbox>,
    }

    impl Scene {
        async fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let inner = FileBus::open(folder.path().join("bus")).await.unwrap();
            Self {
                _folder: folder,
                bus: Arc::new(Slow {
                    inner,
                    may: Semaphore::new(0),
                }),
                topic: Topic::new("data").unwrap(),
                outbox: Arc::default(),
            }
        }

        fn put(&self, bytes: usize) -> Errand {
            self.outbox.put([vec![7; bytes]].into_iter())
        }

        fn leave(&self, errand: Errand) {
            let (bus, topic) = (self.bus.clone(), self.topic.clone());
            tokio::spawn(async move { errand.send(&*bus, &topic).await.unwrap() });
        }

        /// Whether there is room before so long.
        async fn has_room(&self, before: Duration) -> bool {
            let room = self.outbox.make_room(&*self.bus, &self.topic);
            timeout(before, room).await.is_ok_and(|room| room.is_ok())
        }

        async fn end(&self) -> u64 {
            self.bus.end(&self.topic).await.unwrap().0
        }
    }

    #[tokio::test]
    async fn there_is_room_again_before_all_has_left() {
        let scene = Scene::new().await;
        let half = AHEAD_BYTES_MAX / 2;
        scene.leave(scene.put(half));
        assert!(scene.has_room(PATIENCE).await);
        scene.leave(scene.put(half));
        assert!(!scene.has_room(MOMENT).await);
        scene.bus.may.add_permits(1);
        assert!(scene.has_room(PATIENCE).await);
        assert_eq!(scene.end().await, 1);
    }

    #[tokio::test]
    async fn what_nobody_sends_any_more_leaves_before_more_is_sealed() {
        let scene = Scene::new().await;
        drop(scene.put(1));
        assert!(!scene.has_room(MOMENT).await);
        scene.bus.may.add_permits(1);
        assert!(scene.has_room(PATIENCE).await);
        assert_eq!(scene.end().await, 1);
    }

    #[tokio::test]
    async fn each_errand_hears_of_its_own_refusals_alone_and_what_is_behind_goes_on() {
        let scene = Scene::new().await;
        scene.bus.may.add_permits(64);
        let before = scene.put(1);
        let refused = scene.put(TAKEN_MAX + 1);
        let of_both = [2, TAKEN_MAX + 2, 3].map(|bytes| vec![7; bytes]);
        let of_both = scene.outbox.put(of_both.into_iter());
        let behind = scene.put(4);
        let (bus, topic) = (&*scene.bus, &scene.topic);
        behind.send(bus, topic).await.unwrap();
        assert_eq!(scene.end().await, 4);
        before.send(bus, topic).await.unwrap();
        for (errand, bytes) in [(refused, TAKEN_MAX + 1), (of_both, TAKEN_MAX + 2)] {
            let error = errand.send(bus, topic).await.unwrap_err();
            assert!(matches!(error, BusError::TooLarge { size, .. } if size == bytes));
        }
        assert!(scene.has_room(PATIENCE).await);
        assert_eq!(scene.end().await, 4);
    }
}
