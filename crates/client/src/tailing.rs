//! A tail that is read ahead of whoever follows it.

use sealcast_bus::{BusError, Item, Tail, Topic};
use tokio::task::JoinHandle;

use crate::error::Error;

type News = (Topic, Vec<Item>);

/// Behind a batch of so many bytes the next one is likely to be there.
const AHEAD_BYTES_MIN: usize = 256 << 10;

/// A tail that waits on a task of its own: behind a large batch for the next one, while that is being opened.
#[derive(Debug)]
pub(crate) struct Tailing(State);

#[derive(Debug)]
enum State {
    Idle(Box<dyn Tail>),
    Waiting(JoinHandle<(Box<dyn Tail>, Result<News, BusError>)>),
    Lost,
}

impl Tailing {
    pub(crate) fn new(tail: Box<dyn Tail>) -> Self {
        Self(State::Idle(tail))
    }

    /// The next batch. Drop this and come back at will. After a fault the tail is asked again only when
    /// the caller does.
    pub(crate) async fn next(&mut self) -> Result<News, Error> {
        self.begin();
        let State::Waiting(waiting) = &mut self.0 else {
            return Err(LOST);
        };
        let waited = waiting.await;
        self.0 = State::Lost;
        let (tail, news) = waited.map_err(|_| LOST)?;
        self.0 = State::Idle(tail);
        let (topic, items) = news?;
        let bytes: usize = items.iter().map(|item| item.payload.len()).sum();
        if bytes >= AHEAD_BYTES_MIN {
            self.begin();
        }
        Ok((topic, items))
    }

    fn begin(&mut self) {
        self.0 = match std::mem::replace(&mut self.0, State::Lost) {
            State::Idle(mut tail) => State::Waiting(tokio::spawn(async move {
                let news = tail.next().await;
                (tail, news)
            })),
            state @ (State::Waiting(_) | State::Lost) => state,
        };
    }
}

impl Drop for Tailing {
    fn drop(&mut self) {
        if let State::Waiting(waiting) = &self.0 {
            waiting.abort();
        }
    }
}

const LOST: Error = Error::Internal("a tail's task ended early");

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sealcast_bus::{Bus as _, BusFuture, FileBus, Offset};
    use tokio::time::timeout;

    use super::*;

    /// For what must come.
    const PATIENCE: Duration = Duration::from_secs(120);

    async fn number(tailing: &mut Tailing) -> u8 {
        let next = timeout(PATIENCE, tailing.next()).await;
        let (_, items) = next.expect("the next batch comes").unwrap();
        assert_eq!(items.len(), 1, "each is a batch of its own");
        items[0].payload[0]
    }

    #[tokio::test]
    async fn large_items_come_once_and_in_order_to_whoever_gives_up_now_and_then() {
        let folder = tempfile::tempdir().unwrap();
        let bus = FileBus::open(folder.path().join("bus")).await.unwrap();
        let topic = Topic::new("data").unwrap();
        for of in 0..8 {
            let large = vec![of; 4 << 20];
            bus.append(&topic, vec![large]).await.unwrap();
        }
        let mut tailing = Tailing::new(bus.tail(vec![(topic, Offset(0))]));
        for of in 0..8 {
            let given_up = timeout(Duration::ZERO, tailing.next()).await;
            let came = match given_up {
                Ok(news) => news.unwrap().1[0].payload[0],
                Err(_) => number(&mut tailing).await,
            };
            assert_eq!(came, of);
        }
    }

    /// Fails every other time.
    #[derive(Debug, Default)]
    struct Shaky(u64);

    impl Tail for Shaky {
        fn next(&mut self) -> BusFuture<'_, News> {
            self.0 += 1;
            let (number, topic) = (self.0, Topic::new("data").unwrap());
            Box::pin(async move {
                let busy = || BusError::Busy {
                    place: String::new(),
                };
                let item = Item {
                    offset: Offset(number),
                    payload: vec![0; AHEAD_BYTES_MIN],
                };
                match number.is_multiple_of(2) {
                    true => Err(busy()),
                    false => Ok((topic, vec![item])),
                }
            })
        }
    }

    #[tokio::test]
    async fn a_fault_is_told_once_and_the_next_call_goes_on() {
        let mut tailing = Tailing::new(Box::new(Shaky::default()));
        for _ in 0..3 {
            assert!(tailing.next().await.is_ok());
            assert!(tailing.next().await.is_err());
        }
    }
}
