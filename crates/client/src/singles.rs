//! Messages that are published by themselves at the same time, and share a transaction of the store.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sealcast_crypto::SecretBytes;
use sealcast_protocol::DataTopic;
use tokio::sync::oneshot;

use crate::outbox::Errand;
use crate::seal::Left;

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

#[derive(Debug)]
struct Single {
    number: u64,
    topic: Option<DataTopic>,
    payload: Arc<SecretBytes>,
    sealed: TellSealed,
}

/// Tells whoever waits for a message that it was sealed with others; dropped, that it was not.
pub(crate) type TellSealed = oneshot::Sender<(Left, Errand)>;

/// A message that waits.
#[derive(Debug)]
pub(crate) struct Waits {
    pub(crate) number: u64,
    pub(crate) sealed: oneshot::Receiver<(Left, Errand)>,
}

impl Singles {
    pub(crate) fn put(&self, topic: Option<DataTopic>, payload: Arc<SecretBytes>) -> Waits {
        let (tell, sealed) = oneshot::channel();
        let mut waiting = self.waiting();
        waiting.count += 1;
        let number = waiting.count;
        waiting.singles.push(Single {
            number,
            topic,
            payload,
            sealed: tell,
        });
        Waits { number, sealed }
    }

    /// Takes a message out, and the first of the others for its topic, which are returned: as many as
    /// are sealed at once with it.
    pub(crate) fn take_with(&self, number: u64) -> Vec<(Arc<SecretBytes>, TellSealed)> {
        let mut waiting = self.waiting();
        let of_number = |of: &Single| of.number == number;
        let Some(at) = waiting.singles.iter().position(of_number) else {
            return Vec::new();
        };
        let own = waiting.singles.remove(at);
        let (mut bytes, mut count) = (own.payload.len(), 1);
        let goes = |of: &mut Single| {
            if of.topic != own.topic || count >= COUNT_MAX || bytes >= BYTES_MAX {
                return false;
            }
            (bytes, count) = (bytes + of.payload.len(), count + 1);
            true
        };
        let others = waiting.singles.extract_if(.., goes);
        others.map(|of| (of.payload, of.sealed)).collect()
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(len: usize) -> Arc<SecretBytes> {
        Arc::new(SecretBytes::from(vec![7; len]))
    }

    #[test]
    fn those_of_one_topic_are_sealed_at_once_and_the_others_wait() {
        let singles = Singles::default();
        let topic: DataTopic = "plant/7".parse().unwrap();
        let first = singles.put(None, payload(1));
        let other = singles.put(Some(topic.clone()), payload(2));
        let _second = singles.put(None, payload(3));
        let third = singles.put(None, payload(4));
        let lens = |taken: Vec<(Arc<SecretBytes>, TellSealed)>| -> Vec<_> {
            taken
                .into_iter()
                .map(|(payload, _)| payload.len())
                .collect()
        };
        assert_eq!(lens(singles.take_with(third.number)), [1, 3]);
        assert!(singles.take_with(first.number).is_empty());
        let _last = singles.put(Some(topic), payload(5));
        assert_eq!(lens(singles.take_with(other.number)), [5]);
    }

    #[test]
    fn no_more_are_taken_than_are_sealed_at_once() {
        let singles = Singles::default();
        let small: Vec<_> = (0..=COUNT_MAX)
            .map(|_| singles.put(None, payload(0)))
            .collect();
        assert_eq!(singles.take_with(small[0].number).len(), COUNT_MAX - 1);
        assert!(singles.take_with(small[COUNT_MAX].number).is_empty());
        let large: Vec<_> = (0..3)
            .map(|_| singles.put(None, payload(BYTES_MAX / 2)))
            .collect();
        assert_eq!(singles.take_with(large[0].number).len(), 1);
        assert!(singles.take_with(large[2].number).is_empty());
    }

    #[test]
    fn who_was_taken_and_not_sealed_hears_of_it() {
        let singles = Singles::default();
        let (first, mut second) = (singles.put(None, payload(1)), singles.put(None, payload(1)));
        let taken = singles.take_with(first.number);
        assert!(matches!(
            second.sealed.try_recv(),
            Err(oneshot::error::TryRecvError::Empty)
        ));
        drop(taken);
        assert!(matches!(
            second.sealed.try_recv(),
            Err(oneshot::error::TryRecvError::Closed)
        ));
    }
}
