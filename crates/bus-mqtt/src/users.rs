//! Messages of streams on topics that the broker's users have for them: spec/bus-mqtt.md, section 11.

use std::sync::Arc;

use bytes::Bytes;
use sealcast_bus::{Arrival, ArrivalId, BusError, Offset, Topic, TopicItem, Turn};

use crate::append::{messages, parts_of};
use crate::home::Home;
use crate::line::Line;
use crate::message::{Append, Names, PART_MAX, has_live};
use crate::packet::Publish;
use crate::sending::{self, Leaving};

/// What an item is known by that came on a topic of the users. Nobody makes two that are known by the same.
pub(crate) fn id_of(item: &[u8]) -> ArrivalId {
    let hash = blake3::hash(item);
    std::array::from_fn(|at| hash.as_bytes()[at])
}

impl Names {
    /// What the broker is asked for to have the messages of the users' topics.
    pub(crate) fn users_filter(&self) -> Option<String> {
        let users = self.users.as_ref();
        users.map(|users| users.filter().to_string())
    }

    /// Whether a topic is one of the users'. What is below the prefix never is: no filter takes it.
    fn is_users(&self, topic: &str) -> bool {
        let users = self.users.as_ref();
        users.is_some_and(|users| users.has(topic))
    }

    /// What of an item travels on the users' topic that it says; nothing where it goes below the prefix.
    fn users_part<'a>(&self, item: &'a [u8]) -> Option<TopicItem<'a>> {
        let part = TopicItem::parse(item)?;
        let fits = (1..=PART_MAX).contains(&part.payload.len());
        (fits && self.is_users(part.topic)).then_some(part)
    }

    /// The message in which an item travels on the users' topic that it says.
    fn users_message(&self, item: &Bytes) -> Option<Publish> {
        let TopicItem { topic, payload } = self.users_part(item)?;
        let users = self.users.as_ref();
        Some(Publish {
            topic: topic.to_owned(),
            payload: item.slice_ref(payload),
            is_retained: users.is_some_and(|users| users.retains(topic)),
        })
    }

    /// The item that a message on a topic of the users is. An empty one clears what was retained.
    pub(crate) fn users_item(&self, publish: &Publish) -> Option<Vec<u8>> {
        if publish.payload.is_empty() || !self.is_users(&publish.topic) {
            return None;
        }
        let item = TopicItem {
            topic: &publish.topic,
            payload: &publish.payload,
        };
        item.encode()
    }
}

/// Whether any of the payloads travels on a topic of the users.
pub(crate) fn has_any(names: &Names, payloads: &[Bytes]) -> bool {
    let mut payloads = payloads.iter();
    names.users.is_some() && payloads.any(|item| names.users_part(item).is_some())
}

/// The data logs of the streams that are followed.
pub(crate) fn data_logs<'a>(
    followed: impl IntoIterator<Item = &'a String>,
) -> impl Iterator<Item = Topic> {
    let streams = followed.into_iter().filter(|scope| has_live(scope));
    streams.filter_map(|scope| Topic::new(&scope.replace('#', "data")).ok())
}

/// As [`append`](crate::append::append), each payload in a message of its own.
pub(crate) async fn append(
    home: &Arc<Home>,
    line: &Arc<Line>,
    topic: Topic,
    payloads: Vec<Bytes>,
    turn: Option<Turn>,
) -> Result<Offset, BusError> {
    let (mut all, mut arrivals) = (Vec::new(), Vec::new());
    for payload in payloads {
        let mut publish = line.names.users_message(&payload);
        if let Some(of) = &publish {
            let room = line.link.payload_max(&of.topic).await;
            let room = room.map_err(|fault| line.fault(fault))?;
            publish.take_if(|of| of.payload.len() > room);
        }
        let (id, parts) = match publish {
            Some(publish) => {
                all.push(publish);
                (id_of(&payload), 0)
            }
            None => {
                let id = line.next_id();
                let append = Append {
                    stamp: 0,
                    payloads: vec![payload.clone()],
                };
                let of = (&topic, id);
                let some = messages(&line.names, &line.link, of, &append, 0).await;
                let some = some.map_err(|fault| line.fault(fault))?;
                let parts = parts_of(some.len());
                all.extend(some);
                (id.into(), parts)
            }
        };
        arrivals.push(Arrival {
            topic: topic.clone(),
            id,
            stamp: 0,
            payloads: vec![payload],
            is_own: true,
            parts,
        });
    }
    let leaving = Leaving {
        all,
        arrivals: arrivals.into(),
        turn,
    };
    sending::leave(home, line, leaving).await
}

#[cfg(test)]
mod tests {
    use sealcast_bus::BusUrl;

    use super::*;

    fn names(url: &str) -> Names {
        let url = BusUrl::parse(url).unwrap();
        let users = url.server().unwrap().users_topics().cloned();
        Names::new("p", "h").with_users(users)
    }

    fn item(topic: &str, payload: &[u8]) -> Bytes {
        TopicItem { topic, payload }.encode().unwrap().into()
    }

    /// The worked examples of the specification.
    #[test]
    fn an_item_is_known_by_what_the_specification_shows() {
        let id = |item: &[u8]| u128::from_be_bytes(id_of(item));
        assert_eq!(id(b""), 0xaf13_49b9_f5f9_a1a6_a040_4dea_36dc_c949);
        assert_eq!(id(b"a"), 0x1776_2fdd_d969_a453_925d_6571_7ac3_eea2);
    }

    #[test]
    fn an_item_travels_on_the_topic_that_it_says_where_that_is_the_users() {
        let names = names("mqtt://h/p?topics=plant/#&retain=plant/+/state");
        let found = names.users_message(&item("plant/7/state", b"x")).unwrap();
        assert_eq!(
            (&*found.topic, &found.payload[..]),
            ("plant/7/state", &b"x"[..])
        );
        assert!(found.is_retained);
        let back = names.users_item(&found);
        assert_eq!(back.map(Bytes::from), Some(item("plant/7/state", b"x")));
        let live = names.users_message(&item("plant/7/t", b"x")).unwrap();
        assert!(!live.is_retained);
        for below in ["p", "p/log/s/1f/keys", "$SYS/x", "other/t"] {
            assert_eq!(names.users_message(&item(below, b"x")), None, "{below}");
        }
        assert_eq!(names.users_message(&Bytes::from_static(b"x")), None);
        assert_eq!(names.users_message(&item("plant", b"")), None);
        let large = vec![0; PART_MAX + 1];
        assert_eq!(names.users_message(&item("plant", &large)), None);
    }

    #[test]
    fn a_bus_without_topics_of_the_users_has_no_such_message() {
        let names = names("mqtt://h/p");
        assert!(!has_any(&names, &[item("plant", b"x")]));
        assert_eq!(names.users_filter(), None);
        let publish = Publish {
            topic: "plant".into(),
            payload: b"x".to_vec().into(),
            is_retained: false,
        };
        assert_eq!(names.users_item(&publish), None);
    }

    #[test]
    fn what_comes_is_of_the_streams_that_are_followed() {
        let followed = ["s/1f/#", "u/2e/#", "a/+", "s/3d/#"].map(str::to_owned);
        let logs: Vec<_> = data_logs(&followed).map(|log| log.to_string()).collect();
        assert_eq!(logs, ["s/1f/data", "s/3d/data"]);
    }
}
