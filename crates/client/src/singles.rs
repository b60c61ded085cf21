//! Messages that are sealed by themselves at the same time, and share a transaction of the store.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sealcast_crypto::SecretBytes;
use sealcast_protocol::DataTopic;
use tokio::sync::oneshot;

use crate::error::Error;
use crate::outbox::Errand;
use crate::seal::{Left, SealedMessage};

/// Bytes and number of messages that are sealed at once, at most.
const BYTES_MAX: usize = 2 << 20;
const COUNT_MAX: usize = 512;

/// What waits for its turn to be sealed.
#[derive(Debug, Default)]
pub(crate) struct Singles(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    /// How many were put in, ever.
    count: u64,
    singles: Vec<Single>,
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
    number: u64,
    pub(crate) messages: Vec<Arc<Message>>,
    pub(crate) way: Way,
}

/// What becomes of messages.
pub(crate) type Fate<T> = Result<T, Error>;

/// Where sealed messages go, and who waits for them; dropped, it tells that they were not sealed.
#[derive(Debug)]
pub(crate) enum Way {
    /// One, to the bus.
    Bus(oneshot::Sender<Fate<(Left, Errand)>>),
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
    /// One that does not wait for others.
    pub(crate) fn alone(messages: Vec<Arc<Message>>, way: Way) -> Self {
        Self {
            number: 0,
            messages,
            way,
        }
    }

    fn bytes(&self) -> usize {
        self.messages.iter().map(|of| of.payload.len()).sum()
    }
}

impl Singles {
    /// Lets messages wait, under one number.
    pub(crate) fn put(&self, messages: Vec<Arc<Message>>, way: Way) -> u64 {
        let mut waiting = self.waiting();
        waiting.count += 1;
        let number = waiting.count;
        waiting.singles.push(Single {
            number,
            messages,
            way,
        });
        number
    }

    /// Takes out what waits under a number, and behind it the first of the others that go the same way: as many as are
    /// sealed at once with it.
    pub(crate) fn take_with(&self, number: u64) -> Vec<Single> {
        let mut waiting = self.waiting();
        let of_number = |of: &Single| of.number == number;
        let Some(at) = waiting.singles.iter().position(of_number) else {
            return Vec::new();
        };
        let own = waiting.singles.remove(at);
        let is_carrier = own.way.is_carrier();
        let (mut bytes, mut count) = (own.bytes(), own.messages.len());
        let goes = |of: &mut Single| {
            let is_full = count >= COUNT_MAX || bytes >= BYTES_MAX;
            if of.way.is_carrier() != is_carrier || is_full {
                return false;
            }
            (bytes, count) = (bytes + of.bytes(), count + of.messages.len());
            true
        };
        let others: Vec<_> = waiting.singles.extract_if(.., goes).collect();
        [own].into_iter().chain(others).collect()
    }

    /// Takes out all.
    pub(crate) fn take_all(&self) -> Vec<Single> {
        std::mem::take(&mut self.waiting().singles)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who waits for a message that goes to the bus.
    type Waits = oneshot::Receiver<Fate<(Left, Errand)>>;

    fn put(singles: &Singles, topic: Option<DataTopic>, len: usize) -> (u64, Waits) {
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
        let singles = Singles::default();
        let topic: DataTopic = "plant/7".parse().unwrap();
        let (first, _first) = put(&singles, None, 1);
        let payload = SecretBytes::from(vec![7; 2]);
        let (tell, _carried) = oneshot::channel();
        let message = Arc::new(Message {
            topic: None,
            payload,
        });
        let carried = singles.put(vec![message.clone(), message], Way::Carrier(tell));
        let (_, _second) = put(&singles, Some(topic), 3);
        let (third, _third) = put(&singles, None, 4);
        assert_eq!(lens(&singles.take_with(third)), [4, 1, 3]);
        assert!(singles.take_with(first).is_empty());
        let (_, _last) = put(&singles, None, 5);
        assert_eq!(lens(&singles.take_with(carried)), [4]);
    }

    #[test]
    fn no_more_are_taken_than_are_sealed_at_once() {
        let singles = Singles::default();
        let small: Vec<_> = (0..=COUNT_MAX).map(|_| put(&singles, None, 0)).collect();
        assert_eq!(singles.take_with(small[0].0).len(), COUNT_MAX);
        assert_eq!(singles.take_with(small[COUNT_MAX].0).len(), 1);
        let large: Vec<_> = (0..3).map(|_| put(&singles, None, BYTES_MAX / 2)).collect();
        assert_eq!(singles.take_with(large[0].0).len(), 2);
        assert_eq!(singles.take_with(large[2].0).len(), 1);
    }

    #[test]
    fn who_was_taken_and_not_sealed_hears_of_it() {
        let singles = Singles::default();
        let (first, _first) = put(&singles, None, 1);
        let (_, mut second) = put(&singles, None, 1);
        let taken = singles.take_with(first);
        assert!(matches!(
            second.try_recv(),
            Err(oneshot::error::TryRecvError::Empty)
        ));
        drop(taken);
        assert!(matches!(
            second.try_recv(),
            Err(oneshot::error::TryRecvError::Closed)
        ));
    }
}
