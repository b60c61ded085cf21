//! A task that takes what subscriptions bring as it comes, so that the connection never waits.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_nats::{Message, Subscriber};
use futures_util::StreamExt as _;
use futures_util::stream::SelectAll;
use sealcast_bus::Topic;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::fault::Fault;
use crate::server::Server;

/// Listens until it is dropped, and keeps in a `T` what it heard.
#[derive(Debug)]
pub(crate) struct Ears<T> {
    heard: Arc<Heard<T>>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Heard<T> {
    kept: Mutex<T>,
    more: Notify,
}

impl<T> Heard<T> {
    fn lock(&self) -> MutexGuard<'_, T> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Default + Send + 'static> Ears<T> {
    /// Listens to a subject for each topic. What is sent there once this has returned is heard;
    /// `keep` is given the index of the topic, too.
    pub(crate) async fn open(
        server: &Server,
        topics: &[Topic],
        subject: impl Fn(&Topic) -> String + Send,
        keep: impl Fn(&mut T, usize, Message) + Send + 'static,
    ) -> Result<Self, Fault> {
        let mut subscriptions = SelectAll::new();
        for (index, topic) in topics.iter().enumerate() {
            let subscriber: Subscriber = server.subscribe(subject(topic)).await?;
            subscriptions.push(subscriber.map(move |message| (index, message)));
        }
        server.round_trip().await?;
        let heard = Arc::new(Heard {
            kept: Mutex::default(),
            more: Notify::new(),
        });
        let keeping = Arc::clone(&heard);
        let task = tokio::spawn(async move {
            while let Some((index, message)) = subscriptions.next().await {
                keep(&mut keeping.lock(), index, message);
                keeping.more.notify_one();
            }
        });
        Ok(Self { heard, task })
    }

    /// What was heard.
    pub(crate) fn kept(&self) -> MutexGuard<'_, T> {
        self.heard.lock()
    }

    /// Returns when more was heard since it last returned.
    pub(crate) async fn more(&self) {
        self.heard.more.notified().await;
    }
}

impl<T> Drop for Ears<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}
