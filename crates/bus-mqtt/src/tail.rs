use std::collections::BTreeSet;
use std::sync::Arc;

use sealcast_bus::{Bus as _, BusFuture, Item, Offset, Tail, Topic};

use crate::home::Home;
use crate::message::scope;

/// Follows topics in the mirror.
#[derive(Debug)]
pub(crate) struct MqttTail {
    home: Arc<Home>,
    place: String,
    /// What has to be in the mirror before anything is waited for.
    scopes: BTreeSet<String>,
    inner: Box<dyn Tail>,
}

impl MqttTail {
    pub(crate) fn new(home: Arc<Home>, place: &str, topics: Vec<(Topic, Offset)>) -> Self {
        Self {
            scopes: topics.iter().map(|(topic, _)| scope(topic)).collect(),
            inner: home.mirror.bus().tail(topics),
            place: place.to_owned(),
            home,
        }
    }
}

impl Tail for MqttTail {
    fn next(&mut self) -> BusFuture<'_, (Topic, Vec<Item>)> {
        Box::pin(async move {
            if !self.scopes.is_empty() {
                self.home.follow(&self.scopes, &self.place).await?;
                self.scopes.clear();
            }
            self.inner.next().await
        })
    }
}
