//! Messages that are sealed by themselves at the same time: they share a transaction of the store, and their way.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sealcast_crypto::SecretBytes;
use sealcast_protocol::DataTopic;
use tokio::sync::{Notify, oneshot};

use crate::error::Error;
use crate::seal::{Left, SealedMessage};

/// Bytes and number of messages that are sealed at once, at most.
const BYTES_MAX: usize = 2 << 20;
const COUNT_MAX: usize = 512;

/// Messages that are sealed without waiting for others.
const MANY: usize = COUNT_MAX / 2;

/// What waits for its turn to be sealed.
#[derive(Debug, Default)]
pub(crate) struct Singles {
    waiting: Mutex<Waiting>,
    /// Many wait.
    many: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    singles: VecDeque<Single>,
    /// Somebody seals what waits.
    is_served: bool,
}

/// Whoever has it seals what waits, and what comes meanwhile. Dropped before nothing waits any more, it tells all who wait
/// that they were not sealed.
#[derive(Debug)]
pub(crate) struct Serving {
    singles: Arc<Singles>,
    is_over: bool,
}

/// A message, and where below the stream it is published.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) topic: Option<DataTopic>,
    pub(crate) payload: SecretBytes,
}

/// Messages of one caller, all of which are sealed or none, and where they go.
#[derive(Debug)]
pub(crate) struct Single {
    pub(crate) messages: Vec<Arc<Message>>,
    pub(crate) way: Way,
}

/// What becomes of messages.
pub(crate) type Fate<T> = Result<T, Error>;

/// Where sealed messages go, and who waits for them; dropped, it tells that they were not sealed.
#[derive(Debug)]
pub(crate) enum Way {
    /// One, to the bus; told when it is there.
    Bus(oneshot::Sender<Fate<Left>>),
    /// To whoever sealed them.
    Carrier(oneshot::Sender<Fate<Vec<SealedMessage>>>),
}

impl Way {
    pub(crate) fn is_carrier(&self) -> bool {
        matches!(self, Self::Carrier(_))
    }

    /// Tells whoever waits why nothing was sealed, if somebody does.
    pub(crate) fn refuse(self, error: Error) {
        let _is_heard = match self {
            Self::Bus(tell) => tell.send(Err(error)).is_ok(),
            Self::Carrier(tell) => tell.send(Err(error)).is_ok(),
        };
    }
}

impl Single {
    fn bytes(&self) -> usize {
        self.messages.iter().map(|of| of.payload.len()).sum()
    }
}

impl Singles {
    /// Lets messages wait; who gets something back has to seal what waits.
    pub(crate) fn put(self: &Arc<Self>, messages: Vec<Arc<Message>>, way: Way) -> Option<Serving> {
        let mut waiting = self.waiting();
        waiting.singles.push_back(Single { messages, way });
        if waiting.singles.len() == MANY {
            self.many.notify_one();
        }
        let was_served = std::mem::replace(&mut waiting.is_served, true);
        (!was_served).then(|| Serving {
            singles: Arc::clone(self),
            is_over: false,
        })
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Serving {
    /// Takes out the first that waits, and of the others those that go the same way: as many as are sealed at once with
    /// it. After nothing, this is over.
    pub(crate) fn take(&mut self) -> Vec<Single> {
        let mut waiting = self.singles.waiting();
        let Some(first) = waiting.singles.pop_front() else {
            waiting.is_served = false;
            self.is_over = true;
            return Vec::new();
        };
        let is_carrier = first.way.is_carrier();
        let (mut bytes, mut count) = (first.bytes(), first.messages.len());
        let mut taken = Vec::from([first]);
        let mut left = VecDeque::new();
        for of in std::mem::take(&mut waiting.singles) {
            let is_full = count >= COUNT_MAX || bytes >= BYTES_MAX;
            if of.way.is_carrier() != is_carrier || is_full {
                left.push_back(of);
                continue;
            }
            (bytes, count) = (bytes + of.bytes(), count + of.messages.len());
            taken.push(of);
        }
        waiting.singles = left;
        taken
    }

    /// Whether anything waits.
    pub(crate) fn is_awaited(&self) -> bool {
        !self.singles.waiting().singles.is_empty()
    }

    /// Returns when many wait.
    pub(crate) async fn many(&self) {
        while self.singles.waiting().singles.len() < MANY {
            self.singles.many.notified().await;
        }
    }

    /// Takes out all.
    pub(crate) fn take_all(&self) -> VecDeque<Single> {
        std::mem::take(&mut self.singles.waiting().singles)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if !self.is_over {
            let mut waiting = self.singles.waiting();
            waiting.is_served = false;
            waiting.singles.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who waits for a message that goes to the bus.
    type Waits = oneshot::Receiver<Fate<Left>>;

    fn put(
        singles: &Arc<Singles>,
        topic: Option<DataTopic>,
        len: usize,
    ) -> (Option<Serving>, Waits) {
        let payload = SecretBytes::from(vec![7; len]);
        let (tell, waits) = oneshot::channel();
        let message = Arc::new(Message { topic, payload });
        (singles.put(vec![message], Way::Bus(tell)), waits)
    }

    fn lens(taken: &[Single]) -> Vec<usize> {
        taken.iter().map(Single::bytes).collect()
    }

    #[test]
    fn those_that_go_one_way_are_sealed_at_once_and_the_others_wait() {
        let singles = Arc::default();
        let topic: DataTopic = "plant/7".parse().unwrap();
        let (serving, _first) = put(&singles, None, 1);
        let mut serving = serving.unwrap();
        let payload = SecretBytes::from(vec![7; 2]);
        let (tell, _carried) = oneshot::channel();
        let message = Arc::new(Message {
            topic: None,
            payload,
        });
        let carried = singles.put(vec![message.clone(), message], Way::Carrier(tell));
        let (second, _second) = put(&singles, Some(topic), 3);
        let (third, _third) = put(&singles, None, 5);
        assert!(carried.is_none() && second.is_none() && third.is_none());
        assert_eq!(lens(&serving.take()), [1, 3, 5]);
        assert_eq!(lens(&serving.take()), [4]);
        let (fourth, _fourth) = put(&singles, None, 6);
        assert!(fourth.is_none());
        assert_eq!(lens(&serving.take()), [6]);
        assert!(serving.take().is_empty());
    }

    #[test]
    fn no_more_are_taken_than_are_sealed_at_once() {
        let singles = Arc::default();
        let small: Vec<_> = (0..=COUNT_MAX).map(|_| put(&singles, None, 0)).collect();
        let mut serving = small.into_iter().find_map(|(serving, _)| serving).unwrap();
        assert_eq!(serving.take().len(), COUNT_MAX);
        assert_eq!(serving.take().len(), 1);
        let _large: Vec<_> = (0..3).map(|_| put(&singles, None, BYTES_MAX / 2)).collect();
        assert_eq!(serving.take().len(), 2);
        assert_eq!(serving.take().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn many_are_waited_for_until_they_are_there() {
        let singles = Arc::default();
        let mut waits = Vec::from([put(&singles, None, 0)]);
        let mut serving = waits[0].0.take().unwrap();
        for _ in 0..2 {
            let moment = std::time::Duration::from_millis(1);
            assert!(tokio::time::timeout(moment, serving.many()).await.is_err());
            waits.extend((1..MANY).map(|_| put(&singles, None, 0)));
            serving.many().await;
            serving.take();
            waits.push(put(&singles, None, 0));
        }
    }

    #[test]
    fn whoever_comes_when_nothing_waits_any_more_seals() {
        let singles = Arc::default();
        let (first, _first) = put(&singles, None, 1);
        let mut first = first.unwrap();
        assert_eq!(first.take().len(), 1);
        assert!(first.take().is_empty());
        let (second, _second) = put(&singles, None, 1);
        // That the first is gone is nothing to those behind it.
        drop(first);
        assert_eq!(second.unwrap().take().len(), 1);
    }

    #[test]
    fn who_was_not_sealed_hears_of_it_whether_it_was_taken_or_not() {
        let singles = Arc::default();
        let (serving, mut first) = put(&singles, None, 1);
        let mut serving = serving.unwrap();
        let taken = serving.take();
        let (_, mut second) = put(&singles, None, 1);
        for waits in [&mut first, &mut second] {
            let heard = waits.try_recv().map(drop);
            assert_eq!(heard, Err(oneshot::error::TryRecvError::Empty));
        }
        drop(taken);
        drop(serving);
        for waits in [&mut first, &mut second] {
            let heard = waits.try_recv().map(drop);
            assert_eq!(heard, Err(oneshot::error::TryRecvError::Closed));
        }
        assert!(put(&singles, None, 1).0.is_some());
    }
}
