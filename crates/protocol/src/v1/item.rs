//! What lies in a stream's data log, `spec/envelope.md`, section "Items": an envelope, by itself or
//! behind the topic on which it came.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use crate::encoding::DecodeError;
use crate::ids::{EnvelopeHash, StreamId};
use crate::v1::envelope::{BoundEnvelope, EnvelopeView};
use crate::v1::header::Header;

/// The first byte of an item that names a topic. No version of an envelope is as high.
const WITH_TOPIC: u8 = 0x80;

/// The topic of a message below its stream, such as `plant/7/temperature`. It is bound into the
/// envelope, and everybody on the bus may read it. Cloning is cheap.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DataTopic(Arc<str>);

impl DataTopic {
    /// The most bytes a topic may have.
    pub const LEN_MAX: usize = 1024;

    /// The topic as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// How many bytes an item with this topic has more than its envelope.
    pub fn overhead(&self) -> usize {
        3 + self.0.len()
    }

    /// Puts the topic before an envelope.
    pub fn item(&self, envelope: &[u8]) -> Vec<u8> {
        let len = u16::try_from(self.0.len()).unwrap_or_default();
        let mut item = Vec::with_capacity(self.overhead() + envelope.len());
        item.push(WITH_TOPIC);
        item.extend_from_slice(&len.to_be_bytes());
        item.extend_from_slice(self.0.as_bytes());
        item.extend_from_slice(envelope);
        item
    }
}

impl FromStr for DataTopic {
    type Err = DataTopicError;

    fn from_str(text: &str) -> Result<Self, DataTopicError> {
        match is_topic(text) {
            true => Ok(Self(text.into())),
            false => Err(DataTopicError),
        }
    }
}

impl fmt::Display for DataTopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Not a topic below a stream: empty, too long, or with `+`, `#` or a control character in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a topic has 1 to {} bytes, and no `+`, `#` or control character",
    DataTopic::LEN_MAX
)]
pub struct DataTopicError;

fn is_topic(text: &str) -> bool {
    let is_odd = |of: char| matches!(of, '+' | '#') || of.is_control();
    (1..=DataTopic::LEN_MAX).contains(&text.len()) && !text.contains(is_odd)
}

/// An item whose shape is right, and of which nothing may be believed yet.
#[derive(Clone, Copy, Debug)]
pub struct DataItem<'a> {
    topic: &'a str,
    envelope: EnvelopeView<'a>,
}

impl<'a> DataItem<'a> {
    /// Takes an item apart, without copying it.
    ///
    /// # Errors
    ///
    /// Fails when its topic is none, or what follows is not an envelope that can be opened here.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let (topic, envelope) = Self::split(bytes)?;
        Ok(Self {
            topic,
            envelope: EnvelopeView::parse(envelope)?,
        })
    }

    /// An envelope that came by itself, and the topic that it came on.
    ///
    /// # Errors
    ///
    /// Fails when it is not an envelope that can be opened here.
    pub fn of(topic: Option<&'a DataTopic>, envelope: &'a [u8]) -> Result<Self, DecodeError> {
        Ok(Self {
            topic: topic.map_or("", DataTopic::as_str),
            envelope: EnvelopeView::parse(envelope)?,
        })
    }

    /// The topic, empty where there is none, and the bytes of the envelope, whatever they are.
    ///
    /// # Errors
    ///
    /// Fails when the topic is none.
    pub fn split(bytes: &'a [u8]) -> Result<(&'a str, &'a [u8]), DecodeError> {
        let Some(rest) = bytes.strip_prefix(&[WITH_TOPIC]) else {
            return Ok(("", bytes));
        };
        let parts = || {
            let (len, rest) = rest.split_first_chunk()?;
            let (topic, envelope) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
            let topic = core::str::from_utf8(topic).ok()?;
            is_topic(topic).then_some((topic, envelope))
        };
        parts().ok_or(DecodeError::Malformed)
    }

    /// The topic that the bus says it came on; empty where it says none.
    pub fn topic(&self) -> Option<DataTopic> {
        (!self.topic.is_empty()).then(|| DataTopic(self.topic.into()))
    }

    /// What the envelope says about itself.
    pub fn header(&self) -> &Header {
        self.envelope.header()
    }

    /// Binds the envelope to its stream and topic; hashes all of it.
    pub fn bind(self, stream: &'a StreamId) -> BoundEnvelope<'a> {
        self.envelope.bind(stream, self.topic.as_bytes())
    }

    /// What the next envelope's `prev` says. Costs a pass over the ciphertext.
    pub fn hash(&self, stream: &StreamId) -> EnvelopeHash {
        self.envelope.hash(stream, self.topic.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_says_its_topic_or_none() {
        let topic: DataTopic = "plant/7".parse().unwrap();
        let item = topic.item(b"rest");
        assert_eq!(item, b"\x80\0\x07plant/7rest");
        assert_eq!(item.len(), topic.overhead() + 4);
        assert_eq!(DataItem::split(&item), Ok(("plant/7", &b"rest"[..])));
        assert_eq!(DataItem::split(b"rest"), Ok(("", &b"rest"[..])));
        assert_eq!(DataItem::split(b""), Ok(("", &b""[..])));
    }

    #[test]
    fn what_names_no_topic_is_refused() {
        for odd in [
            &b"\x80"[..],
            b"\x80\0",
            b"\x80\0\0rest",
            b"\x80\0\x02a",
            b"\x80\0\x02a+",
            b"\x80\0\x02#a",
            b"\x80\0\x02a\n",
            b"\x80\0\x02a\0",
            b"\x80\0\x02\xc3\x28",
        ] {
            assert_eq!(DataItem::split(odd), Err(DecodeError::Malformed), "{odd:?}");
        }
        assert_eq!("".parse::<DataTopic>(), Err(DataTopicError));
        let longest = "x".repeat(DataTopic::LEN_MAX);
        assert!(longest.parse::<DataTopic>().is_ok());
        assert!((longest + "x").parse::<DataTopic>().is_err());
    }
}
