//! Sealed envelopes on their way to the bus, in the order in which they were sealed.
//!
//! Several appends are under way at once, in turn: none is stored that is not behind the one ahead of it. What the bus
//! does not take for now stays first, and leaves before anything later does. What it
//! refuses for good is left out, and whoever published it is told. Its place in the chain is never used
//! again, so that readers are told a gap.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use sealcast_bus::{Bus, BusError, Topic, Turn, Turns};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::error::again;

/// Bytes that may be on their way while more is sealed: all appends under way, and what leaves with the next one.
const AHEAD_BYTES_MAX: usize = 8 << 20;
/// Bytes of one append, unless one envelope alone has more.
const APPEND_BYTES_MAX: usize = 1 << 20;
/// Appends that are under way at once, so that a server that takes its time over one keeps nobody waiting.
const UNDER_WAY_MAX: usize = 6;

/// What was sealed and is not known to be on the bus.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    waiting: Mutex<Waiting>,
    /// Held by whoever sends.
    sending: tokio::sync::Mutex<Sending>,
    /// Something was put in.
    more: Notify,
    /// The bus took something, or somebody sends no more.
    less: Notify,
}

/// Whoever has it sends what was put in; when it is dropped, nobody does any more.
#[derive(Debug)]
#[must_use]
pub(crate) struct Errand {
    outbox: Arc<Outbox>,
    /// The numbers of its envelopes, as they were put in.
    numbers: Range<u64>,
    refusals: Arc<Refusals>,
}

/// Why the bus refused envelopes of an errand for good, by their numbers.
#[derive(Debug, Default)]
struct Refusals(Mutex<BTreeMap<u64, BusError>>);

/// An envelope, and where its errand learns that it was refused.
#[derive(Debug)]
struct Envelope {
    bytes: Bytes,
    refusals: Arc<Refusals>,
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

/// The appends that are under way. They go on when nobody waits for them.
#[derive(Debug, Default)]
struct Sending {
    under_way: VecDeque<Append>,
    turns: Turns,
    /// The first of them failed, and so do those that are left.
    has_failed: bool,
    /// Up to there envelopes are tried by themselves.
    alone_until: u64,
}

/// The first envelopes that wait, behind those of the appends before it.
#[derive(Debug)]
struct Append {
    count: usize,
    done: JoinHandle<Result<(), BusError>>,
}

impl Outbox {
    /// Puts envelopes behind all that wait.
    pub(crate) fn put(self: &Arc<Self>, envelopes: impl Iterator<Item = Vec<u8>>) -> Errand {
        let refusals = Arc::default();
        let mut waiting = self.waiting();
        let first = waiting.last();
        for bytes in envelopes {
            waiting.bytes += bytes.len();
            waiting.envelopes.push_back(Envelope {
                bytes: bytes.into(),
                refusals: Arc::clone(&refusals),
            });
        }
        waiting.errands += 1;
        self.more.notify_one();
        Errand {
            outbox: self.clone(),
            numbers: first..waiting.last(),
            refusals,
        }
    }

    /// Returns when more may be sealed. What the bus did not take, so that nobody sends it any more, is
    /// sent first.
    pub(crate) async fn make_room(&self, bus: &Arc<dyn Bus>, data: &Topic) -> Result<(), BusError> {
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

    /// Returns when nobody has anything sent.
    pub(crate) async fn idle(&self) {
        loop {
            let less = self.less.notified();
            if self.waiting().errands == 0 {
                return;
            }
            less.await;
        }
    }

    /// Returns when the bus has taken or refused so many, with as much at once as it takes. Where it
    /// refuses several, each is tried by itself.
    async fn send_until(
        &self,
        bus: &Arc<dyn Bus>,
        data: &Topic,
        until: u64,
    ) -> Result<(), BusError> {
        let mut sending = self.sending.lock().await;
        loop {
            if self.waiting().gone >= until {
                return Ok(());
            }
            if sending.has_failed {
                sending.give_up().await;
            }
            let has_more = self.has_more(&sending);
            let Sending {
                under_way, turns, ..
            } = &mut *sending;
            tokio::select! {
                biased;
                done = first_done(under_way) => self.settle(&mut sending, done)?,
                turn = turns.next(), if has_more => self.set_out(&mut sending, turn, bus, data),
                () = self.more.notified(), if !has_more => {}
            }
        }
    }

    /// Whether there is something for one more append.
    fn has_more(&self, sending: &Sending) -> bool {
        let is_free = sending.under_way.len() < UNDER_WAY_MAX;
        is_free && self.waiting().envelopes.len() > sending.count()
    }

    /// Has the next append set out.
    fn set_out(&self, sending: &mut Sending, turn: Turn, bus: &Arc<dyn Bus>, data: &Topic) {
        let limit = bus.limits().batch_max.min(APPEND_BYTES_MAX);
        let append = self.next_append(limit, sending.count(), sending.alone_until);
        let count = append.len();
        let (bus, data) = (Arc::clone(bus), data.clone());
        let done = async move { bus.append_in_turn(&data, append, turn).await };
        let done = tokio::spawn(done);
        sending.under_way.push_back(Append { count, done });
    }

    /// Takes out what the bus took with the first append, or says why it did not.
    fn settle(&self, sending: &mut Sending, done: Result<(), BusError>) -> Result<(), BusError> {
        let Some(Append { count, .. }) = sending.under_way.pop_front() else {
            return Ok(());
        };
        let Err(error) = done else {
            self.waiting().take(count);
            self.less.notify_waiters();
            return Ok(());
        };
        sending.has_failed = true;
        if error.may_pass() {
            return Err(error);
        }
        if count > 1 {
            sending.alone_until = self.waiting().gone + count as u64;
            return Ok(());
        }
        self.waiting().leave_out(error);
        self.less.notify_waiters();
        Ok(())
    }

    /// What is to be sent next, behind so many that are under way.
    fn next_append(&self, limit: usize, under_way: usize, alone_until: u64) -> Vec<Bytes> {
        let waiting = self.waiting();
        let envelopes = waiting.envelopes.iter().skip(under_way);
        let mut size = 0;
        let fits = envelopes.clone().take_while(|envelope| {
            size += envelope.bytes.len();
            size <= limit
        });
        let count = match waiting.gone + (under_way as u64) < alone_until {
            true => 1,
            false => fits.count().max(1),
        };
        let append = envelopes.take(count);
        append.map(|envelope| envelope.bytes.clone()).collect()
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sending {
    /// Envelopes that are under way.
    fn count(&self) -> usize {
        self.under_way.iter().map(|append| append.count).sum()
    }

    /// Waits until all are over that set out behind one that failed. They are to set out again.
    async fn give_up(&mut self) {
        while let Some(last) = self.under_way.back_mut() {
            let _has_failed = (&mut last.done).await.is_ok();
            self.under_way.pop_back();
        }
        self.turns = Turns::default();
        self.has_failed = false;
    }
}

/// Waits for the first append, if one is under way. Drop this and come back at will.
async fn first_done(under_way: &mut VecDeque<Append>) -> Result<(), BusError> {
    let Some(first) = under_way.front_mut() else {
        return std::future::pending().await;
    };
    let done = (&mut first.done).await;
    // What became of an append whose task ended is not known, so that it is made again.
    done.unwrap_or_else(|error| {
        Err(BusError::Unreachable {
            place: "an append that ended early".into(),
            cause: Box::new(error),
        })
    })
}

impl Errand {
    /// Returns when the bus has all up to this errand, but what it refused for good.
    ///
    /// Fails where it refused any of this errand, or takes nothing for now.
    pub(crate) async fn send(self, bus: &Arc<dyn Bus>, data: &Topic) -> Result<(), BusError> {
        let sent = self.outbox.send_until(bus, data, self.numbers.end).await;
        match self.refusals.lock().pop_first() {
            Some((_, refusal)) => Err(refusal),
            None => sent,
        }
    }

    /// The same, and says of each envelope what became of it.
    pub(crate) async fn send_each(
        self,
        bus: &Arc<dyn Bus>,
        data: &Topic,
    ) -> Vec<Result<(), BusError>> {
        let sent = self.outbox.send_until(bus, data, self.numbers.end).await;
        let gone = self.outbox.waiting().gone;
        let mut refusals = self.refusals.lock();
        let fate = |number| match (refusals.remove(&number), &sent) {
            (Some(refusal), _) => Err(refusal),
            (None, Err(error)) if number >= gone => Err(again(error)),
            (None, _) => Ok(()),
        };
        self.numbers.clone().map(fate).collect()
    }
}

impl Refusals {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, BusError>> {
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
            first.refusals.lock().insert(self.gone, error);
        }
        self.take(1);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering::SeqCst;
    use std::time::Duration;

    use sealcast_bus::{BusFuture, FileBus, Item, Limits, Listener, Offset, Tail};
    use tokio::sync::{Semaphore, watch};
    use tokio::time::timeout;

    use super::*;

    /// For what must come.
    const PATIENCE: Duration = Duration::from_secs(120);
    /// Long enough for something to have gone wrong, mostly.
    const MOMENT: Duration = Duration::from_millis(50);

    /// Bytes of an envelope that the bus takes, at most.
    const TAKEN_MAX: usize = AHEAD_BYTES_MAX;

    /// A bus that takes an append for each permit, in turn, and lets the next set out at once.
    #[derive(Debug)]
    struct Slow {
        inner: FileBus,
        may: Semaphore,
        /// Appends that have set out, and how many of the next that come fail.
        set_out: watch::Sender<usize>,
        failing: AtomicUsize,
    }

    impl Slow {
        fn fails(&self) -> bool {
            let less = |left: usize| left.checked_sub(1);
            let fails = self.failing.fetch_update(SeqCst, SeqCst, less);
            fails.is_ok()
        }
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

        fn append_in_turn(
            &self,
            topic: &Topic,
            payloads: Vec<Bytes>,
            mut turn: Turn,
        ) -> BusFuture<'_, ()> {
            let topic = topic.clone();
            Box::pin(async move {
                self.set_out.send_modify(|count| *count += 1);
                turn.pass();
                turn.come().await?;
                if self.fails() {
                    return Err(BusError::Full {
                        place: "here".into(),
                    });
                }
                let payloads = payloads.into_iter().map(Vec::from).collect();
                self.append(&topic, payloads).await?;
                turn.stored();
                Ok(())
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
        slow: Arc<Slow>,
        bus: Arc<dyn Bus>,
        topic: Topic,
        outbox: Arc<Outbox>,
    }

    impl Scene {
        async fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let inner = FileBus::open(folder.path().join("bus")).await.unwrap();
            let slow = Arc::new(Slow {
                inner,
                may: Semaphore::new(0),
                set_out: watch::Sender::new(0),
                failing: AtomicUsize::new(0),
            });
            Self {
                _folder: folder,
                bus: slow.clone(),
                slow,
                topic: Topic::new("data").unwrap(),
                outbox: Arc::default(),
            }
        }

        fn put(&self, bytes: usize) -> Errand {
            self.outbox.put([vec![7; bytes]].into_iter())
        }

        fn leave(&self, errand: Errand) -> JoinHandle<Result<(), BusError>> {
            let (bus, topic) = (self.bus.clone(), self.topic.clone());
            tokio::spawn(async move { errand.send(&bus, &topic).await })
        }

        /// Waits until so many appends have set out.
        async fn set_out(&self, count: usize) {
            let mut set_out = self.slow.set_out.subscribe();
            let reached = set_out.wait_for(|of| *of >= count);
            timeout(PATIENCE, reached).await.unwrap().unwrap();
        }

        /// How large the envelopes are that the bus has, in their order.
        async fn sizes(&self) -> Vec<usize> {
            let items = self.bus.read(&self.topic, Offset(0), usize::MAX).await;
            let sizes = items.unwrap().into_iter().map(|item| item.payload.len());
            sizes.collect()
        }

        /// Whether there is room before so long.
        async fn has_room(&self, before: Duration) -> bool {
            let room = self.outbox.make_room(&self.bus, &self.topic);
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
        let first = scene.leave(scene.put(half));
        assert!(scene.has_room(PATIENCE).await);
        let _second = scene.leave(scene.put(half));
        assert!(!scene.has_room(MOMENT).await);
        scene.slow.may.add_permits(1);
        first.await.unwrap().unwrap();
        assert!(scene.has_room(PATIENCE).await);
        assert_eq!(scene.end().await, 1);
    }

    #[tokio::test]
    async fn what_nobody_sends_any_more_leaves_before_more_is_sealed() {
        let scene = Scene::new().await;
        drop(scene.put(1));
        assert!(!scene.has_room(MOMENT).await);
        scene.slow.may.add_permits(1);
        assert!(scene.has_room(PATIENCE).await);
        assert_eq!(scene.end().await, 1);
    }

    #[tokio::test]
    async fn each_errand_hears_of_its_own_refusals_alone_and_what_is_behind_goes_on() {
        let scene = Scene::new().await;
        scene.slow.may.add_permits(64);
        let before = scene.put(1);
        let refused = scene.put(TAKEN_MAX + 1);
        let of_both = [2, TAKEN_MAX + 2, 3].map(|bytes| vec![7; bytes]);
        let of_both = scene.outbox.put(of_both.into_iter());
        let behind = scene.put(4);
        let (bus, topic) = (&scene.bus, &scene.topic);
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

    #[tokio::test]
    async fn an_append_sets_out_while_the_one_before_is_under_way() {
        const AT_ONCE: usize = 6;
        let scene = Scene::new().await;
        let mut left = Vec::new();
        for count in 1..=AT_ONCE {
            left.push(scene.leave(scene.put(count)));
            scene.set_out(count).await;
        }
        // No more: what is put in now leaves with what comes next.
        let more = [1, 2].map(|more| scene.leave(scene.put(AT_ONCE + more)));
        left.extend(more);
        tokio::time::sleep(MOMENT).await;
        assert_eq!(*scene.slow.set_out.borrow(), AT_ONCE);
        scene.slow.may.add_permits(64);
        for left in left {
            left.await.unwrap().unwrap();
        }
        assert_eq!(*scene.slow.set_out.borrow(), AT_ONCE + 1);
        let all: Vec<_> = (1..=AT_ONCE + 2).collect();
        assert_eq!(scene.sizes().await, all);
    }

    #[tokio::test]
    async fn what_set_out_behind_an_append_that_failed_sets_out_again_behind_it() {
        let scene = Scene::new().await;
        scene.slow.failing.store(1, SeqCst);
        let first = scene.put(1);
        let second = scene.put(2);
        let outbox = &scene.outbox;
        // Each by itself, so that there are two appends.
        outbox.sending.lock().await.alone_until = 2;
        let error = first.send(&scene.bus, &scene.topic).await.unwrap_err();
        assert!(matches!(error, BusError::Full { .. }), "{error:?}");
        assert_eq!(scene.end().await, 0);
        scene.slow.may.add_permits(64);
        second.send(&scene.bus, &scene.topic).await.unwrap();
        assert_eq!(scene.sizes().await, [1, 2]);
        assert!(scene.has_room(PATIENCE).await);
    }

    #[tokio::test]
    async fn one_that_is_refused_for_good_lets_what_set_out_behind_it_leave() {
        let scene = Scene::new().await;
        let (refused, behind) = (scene.put(TAKEN_MAX + 1), scene.put(2));
        let refused = scene.leave(refused);
        scene.set_out(2).await;
        let behind = scene.leave(behind);
        scene.slow.may.add_permits(64);
        let error = refused.await.unwrap().unwrap_err();
        assert!(matches!(error, BusError::TooLarge { .. }), "{error:?}");
        behind.await.unwrap().unwrap();
        assert_eq!(scene.sizes().await, [2]);
    }
}
