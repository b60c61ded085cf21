//! What is said on the channel of a bus: spec/bus-postgres.md, section 6.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sealcast_bus::{Limits, Topic};

/// A channel takes less than 8,000 bytes at once; a payload of more than so many bytes is stored.
pub(crate) const TOLD_MAX: usize = 5_000;

/// Something that a server told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// A log ends there now.
    Grown { topic: Topic, end: u64 },
    /// A payload was sent on an ephemeral topic.
    Sent { topic: Topic, payload: Vec<u8> },
    /// A payload was sent, and stored.
    Stored { topic: Topic, id: i64 },
    /// Whoever wrote this knows that all that was said before it was heard.
    Mark(String),
}

impl Notice {
    pub(crate) fn sent(topic: &Topic, payload: &[u8]) -> String {
        format!("sent {topic} {}", BASE64.encode(payload))
    }

    /// The id follows.
    pub(crate) fn stored(topic: &Topic) -> String {
        format!("stored {topic} ")
    }

    pub(crate) fn mark(id: &str) -> String {
        format!("mark {id}")
    }

    /// Reads what was said, if it is something that a bus says.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(' ')?;
        if kind == "mark" {
            return Some(Self::Mark(rest.to_owned()));
        }
        let (topic, rest) = rest.split_once(' ')?;
        let topic = Topic::new(topic).ok()?;
        match kind {
            "grown" => {
                let end = rest.parse().ok()?;
                Some(Self::Grown { topic, end })
            }
            "sent" => {
                let payload = BASE64.decode(rest).ok()?;
                let is_small = payload.len() <= Limits::SENT_MAX;
                is_small.then_some(Self::Sent { topic, payload })
            }
            "stored" => {
                let id = rest.parse().ok()?;
                Some(Self::Stored { topic, id })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood() {
        let topic = Topic::new("a/b").unwrap();
        for (text, notice) in [
            (
                "grown a/b 7",
                Some(Notice::Grown {
                    topic: topic.clone(),
                    end: 7,
                }),
            ),
            (
                "sent a/b AP8=",
                Some(Notice::Sent {
                    topic: topic.clone(),
                    payload: vec![0, 255],
                }),
            ),
            (
                "sent a/b ",
                Some(Notice::Sent {
                    topic: topic.clone(),
                    payload: vec![],
                }),
            ),
            (
                "stored a/b 12",
                Some(Notice::Stored {
                    topic: topic.clone(),
                    id: 12,
                }),
            ),
            ("mark 00ff", Some(Notice::Mark("00ff".into()))),
            ("", None),
            ("grown", None),
            ("grown a/b", None),
            ("grown a/b -1", None),
            ("grown a//b 1", None),
            ("sent a/b AP8", None),
            ("sent a/b AP8= ", None),
            ("stored a/b x", None),
            ("hello world 1", None),
        ] {
            assert_eq!(Notice::parse(text), notice, "{text}");
        }
        assert_eq!(Notice::sent(&topic, &[0, 255]), "sent a/b AP8=");
        assert_eq!(Notice::stored(&topic) + "12", "stored a/b 12");
        assert_eq!(Notice::mark("00ff"), "mark 00ff");
    }

    #[test]
    fn the_longest_that_is_told_fits_on_a_channel() {
        let topic = Topic::new(&"t".repeat(Topic::BYTES_MAX)).unwrap();
        assert!(Notice::sent(&topic, &[0; TOLD_MAX]).len() < 8_000);
    }
}
