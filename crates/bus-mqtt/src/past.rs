//! What passed on data topics before a home followed them, or while the broker lost it: who kept it
//! hands it out. spec/bus-mqtt.md, section 7.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use sealcast_bus::{Bus as _, BusError, Offset, Origin, Topic};
use tokio::sync::Semaphore;

use crate::append::messages;
use crate::fault::Fault;
use crate::home::Home;
use crate::link::{Flying, Link};
use crate::message::{MessageId, Names, is_live, topics_start};
use crate::packet::Publish;
use crate::put_back::{PutBackFault, append_at};

/// Items beyond which no more follow on one page, and of the newest that a home hands out what it
/// wrote itself without being an archive.
pub(crate) const PAGE: u64 = 256;
/// Questions that are answered at once, and those that wait for it.
const AT_ONCE: usize = 4;
const WAITING_MAX: usize = 256;
/// Arrivals that are looked up at once.
const ORIGINS: u32 = 256;
/// How far the clocks of two homes, and what was on its way, may be apart.
const SLACK: Duration = Duration::from_secs(60);
/// Bytes of an answer before the message that it hands out, its name included, at most.
const ANSWER_HEAD: usize = 1_024;

/// A question for what has passed in a scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    /// The name of the home that asks.
    pub(crate) home: String,
    pub(crate) number: u64,
    /// How old what is asked for may be, in milliseconds.
    pub(crate) age_ms: u64,
    /// Where an earlier page ended, as whoever sent it said.
    pub(crate) cursor: Bytes,
}

/// What is said to a home that asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A message as it was published, and on which topic.
    Message { name: String, payload: Bytes },
    /// The page of a home is over, and more follows behind a place, which begins with its name.
    More { home: String, cursor: Bytes },
    /// A home has handed out all.
    Done { home: String },
}

const MESSAGE: u8 = 0;
const MORE: u8 = 1;
const DONE: u8 = 2;
const HOME_BYTES: usize = 16;

impl Question {
    pub(crate) fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::new();
        bytes.put_slice(self.home.as_bytes());
        bytes.put_u64(self.number);
        bytes.put_u64(self.age_ms);
        bytes.put_slice(&self.cursor);
        bytes.freeze()
    }

    pub(crate) fn decode(bytes: &Bytes) -> Option<Self> {
        let mut rest = bytes.clone();
        let home = home_name(rest.get(..HOME_BYTES)?)?;
        rest.advance(HOME_BYTES);
        Some(Self {
            home,
            number: rest.try_get_u64().ok()?,
            age_ms: rest.try_get_u64().ok()?,
            cursor: rest,
        })
    }
}

/// A name that may stand in a topic of the broker.
fn home_name(bytes: &[u8]) -> Option<String> {
    let is_name = bytes
        .iter()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let name = std::str::from_utf8(bytes).ok()?;
    is_name.then(|| name.to_owned())
}

impl Answer {
    pub(crate) fn encode(&self, number: u64) -> Bytes {
        let mut bytes = BytesMut::new();
        bytes.put_u64(number);
        match self {
            Self::Message { name, payload } => {
                bytes.put_u8(MESSAGE);
                bytes.put_u16(u16::try_from(name.len()).unwrap_or(u16::MAX));
                bytes.put_slice(name.as_bytes());
                bytes.put_slice(payload);
            }
            Self::More { cursor, .. } => {
                bytes.put_u8(MORE);
                bytes.put_slice(cursor);
            }
            Self::Done { home } => {
                bytes.put_u8(DONE);
                bytes.put_slice(home.as_bytes());
            }
        }
        bytes.freeze()
    }

    pub(crate) fn decode(bytes: &Bytes) -> Option<(u64, Self)> {
        let mut rest = bytes.clone();
        let number = rest.try_get_u64().ok()?;
        let answer = match rest.try_get_u8().ok()? {
            MESSAGE => {
                let length = usize::from(rest.try_get_u16().ok()?);
                let name = std::str::from_utf8(rest.get(..length)?).ok()?.to_owned();
                rest.advance(length);
                Self::Message {
                    name,
                    payload: rest,
                }
            }
            MORE => Self::More {
                home: home_name(rest.get(..HOME_BYTES)?)?,
                cursor: rest,
            },
            DONE => Self::Done {
                home: home_name(&rest).filter(|_| rest.len() == HOME_BYTES)?,
            },
            _ => return None,
        };
        Some((number, answer))
    }
}

/// Where a page ended: by whose order, in which topic, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cursor {
    topic: Option<Topic>,
    at: Offset,
}

impl Cursor {
    fn encode(&self, home: &str) -> Bytes {
        let mut bytes = BytesMut::new();
        bytes.put_slice(home.as_bytes());
        bytes.put_u64(self.at.0);
        if let Some(topic) = &self.topic {
            bytes.put_slice(topic.as_ref().as_bytes());
        }
        bytes.freeze()
    }

    /// `None` for one of another home.
    fn decode(home: &str, bytes: &Bytes) -> Option<Self> {
        if bytes.is_empty() {
            return Some(Self {
                topic: None,
                at: Offset(0),
            });
        }
        let mut rest = bytes.strip_prefix(home.as_bytes())?;
        let at = Offset(rest.try_get_u64().ok()?);
        let topic = std::str::from_utf8(rest).ok()?;
        Some(Self {
            topic: Some(Topic::new(topic).ok()?),
            at,
        })
    }
}

/// When the newest message of a scope's data came that is in the mirror, in milliseconds since the Unix
/// epoch; 0 where there is none.
pub(crate) async fn newest_of(home: &Home, scope: &str) -> Result<u64, BusError> {
    let mut newest = 0;
    for topic in live_topics(home, scope).await? {
        let end = home.mirror.bus().end(&topic).await?;
        let last = Offset(end.0.saturating_sub(1));
        let found = home.mirror.origins(&topic, last, 1).await?;
        newest = newest.max(found.first().map_or(0, |of| of.time_ms));
    }
    Ok(newest)
}

async fn live_topics(home: &Home, scope: &str) -> Result<Vec<Topic>, BusError> {
    let topics = home.mirror.topics(topics_start(scope)).await?;
    Ok(topics.into_iter().filter(is_live).collect())
}

pub(crate) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

/// Where questions of others are answered, a few at a time.
#[derive(Debug)]
pub(crate) struct Desk {
    is_archive: bool,
    /// How many may be answered at once, and how many may wait for that.
    at_once: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl Desk {
    pub(crate) fn new(is_archive: bool) -> Self {
        Self {
            is_archive,
            at_once: Arc::new(Semaphore::new(AT_ONCE)),
            waiting: Arc::new(Semaphore::new(WAITING_MAX)),
        }
    }

    pub(crate) fn is_archive(&self) -> bool {
        self.is_archive
    }

    /// What answers a question. Of more than can wait, none is answered: whoever asked goes on without.
    pub(crate) fn answer(
        &self,
        home: Arc<Home>,
        (names, link): (Names, Arc<Link>),
        scope: String,
        (question, is_to_archives): (&Bytes, bool),
    ) -> Option<impl Future<Output = ()> + Send + use<>> {
        let question = Question::decode(question).filter(|of| of.home != home.name)?;
        let place = Arc::clone(&self.waiting).try_acquire_owned().ok()?;
        if is_to_archives && !self.is_archive {
            return None;
        }
        let at_once = Arc::clone(&self.at_once);
        Some(async move {
            let _turn = at_once.acquire().await;
            let page = Page {
                home,
                names,
                link,
                question,
                is_archive: is_to_archives,
            };
            // Whoever asked has waited long enough by then.
            let _answered = page.hand_out(&scope).await;
            drop(place);
        })
    }
}

/// An answer to a question: a page of what the mirror has; of a home that is no archive, the newest
/// that it wrote itself.
struct Page {
    home: Arc<Home>,
    names: Names,
    link: Arc<Link>,
    question: Question,
    is_archive: bool,
}

impl Page {
    async fn hand_out(&self, scope: &str) -> Result<(), PutBackFault> {
        let Some(cursor) = Cursor::decode(&self.home.name, &self.question.cursor) else {
            return Ok(());
        };
        let mut flying = Vec::new();
        let (found, more) = self.find(scope, cursor).await?;
        for (topic, origin) in found {
            let Some(append) = append_at(&self.home, &topic, &origin).await? else {
                continue;
            };
            let of = (&topic, MessageId::from(origin.id));
            let (names, link) = (&self.names, &self.link);
            for publish in messages(names, link, of, &append, ANSWER_HEAD).await? {
                let (name, payload) = (publish.topic, publish.payload);
                flying.push(self.say(&Answer::Message { name, payload }).await?);
            }
        }
        if self.is_archive {
            let home = self.home.name.clone();
            let last = match more {
                Some(at) => Answer::More {
                    cursor: at.encode(&home),
                    home,
                },
                None => Answer::Done { home },
            };
            flying.push(self.say(&last).await?);
        }
        for flying in flying {
            flying.landed().await?;
        }
        Ok(())
    }

    /// What is on the page, and where the next begins.
    async fn find(
        &self,
        scope: &str,
        from: Cursor,
    ) -> Result<(Vec<(Topic, Origin)>, Option<Cursor>), BusError> {
        let (mut found, mut count) = (Vec::new(), 0);
        let slack = u64::try_from(SLACK.as_millis()).unwrap_or(u64::MAX);
        let since = now_ms().saturating_sub(self.question.age_ms.saturating_add(slack));
        for topic in live_topics(&self.home, scope).await? {
            let mut at = match &from.topic {
                Some(begun) if topic < *begun => continue,
                Some(begun) if topic == *begun => from.at,
                Some(_) | None => Offset(0),
            };
            if !self.is_archive {
                let end = self.home.mirror.bus().end(&topic).await?;
                at = at.max(Offset(end.0.saturating_sub(PAGE)));
            }
            // What was trimmed is no longer there to be handed out.
            at = at.max(self.home.first_of(&topic).await?);
            loop {
                let origins = self.home.mirror.origins(&topic, at, ORIGINS).await?;
                let Some(last) = origins.last() else { break };
                at = last.behind;
                for origin in origins {
                    if count >= PAGE {
                        let (topic, at) = (Some(topic), origin.first);
                        return Ok((found, Some(Cursor { topic, at })));
                    }
                    if origin.time_ms >= since && (self.is_archive || origin.is_own) {
                        count += origin.behind.0.saturating_sub(origin.first.0);
                        found.push((topic.clone(), origin));
                    }
                }
            }
        }
        Ok((found, None))
    }

    async fn say(&self, answer: &Answer) -> Result<Flying, Fault> {
        let publish = Publish {
            topic: self.names.past_of(&self.question.home),
            payload: answer.encode(self.question.number),
            is_retained: false,
        };
        self.link.set_out(publish).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_and_answers_come_back_from_their_bytes() {
        let question = Question {
            home: "0123456789abcdef".into(),
            number: 7,
            age_ms: u64::MAX,
            cursor: Bytes::from_static(b"where"),
        };
        let bytes = question.encode();
        assert_eq!(Question::decode(&bytes), Some(question));
        assert_eq!(Question::decode(&bytes.slice(..31)), None);
        for odd in ["0123456789abcde/", "+123456789abcdef", "0123456789ABCDEF"] {
            let odd = [odd.as_bytes(), &bytes[16..]].concat();
            assert_eq!(Question::decode(&odd.into()), None);
        }
        let message = Answer::Message {
            name: "p/log/a/@0.1".into(),
            payload: Bytes::from_static(b"x"),
        };
        let home = "0123456789abcdef".to_owned();
        let more = Answer::More {
            home: home.clone(),
            cursor: Bytes::from_static(b"0123456789abcdefc"),
        };
        for answer in [message, more, Answer::Done { home }] {
            let bytes = answer.encode(9);
            assert_eq!(Answer::decode(&bytes), Some((9, answer)));
            assert_eq!(Answer::decode(&bytes.slice(..8)), None);
        }
        // Whose is it?
        for odd in [&b"\x01"[..], b"\x02", b"\x02xyz", b"\x020123456789abcdef0"] {
            let odd = [&[0; 8], odd].concat();
            assert_eq!(Answer::decode(&odd.into()), None);
        }
        assert_eq!(
            Answer::decode(&Bytes::from_static(b"\0\0\0\0\0\0\0\x01\x09")),
            None
        );
    }

    #[test]
    fn a_place_is_known_to_who_named_it_alone() {
        let cursor = Cursor {
            topic: Some(Topic::new("s/1f/data").unwrap()),
            at: Offset(5),
        };
        let bytes = cursor.encode("0123456789abcdef");
        assert_eq!(Cursor::decode("0123456789abcdef", &bytes), Some(cursor));
        assert_eq!(Cursor::decode("fedcba9876543210", &bytes), None);
        let start = Cursor::decode("fedcba9876543210", &Bytes::new()).unwrap();
        assert_eq!((start.topic, start.at), (None, Offset(0)));
    }
}
