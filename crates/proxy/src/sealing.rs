//! What the relay needs of streams: single messages sealed and opened.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use sealcast::{Arrival, AskingCounts, DataTopic, Name, Shelf, StreamId};

use crate::counts::because;
use crate::json::{Emptied, Field, Odd, envelope_of, put_back, take_out};
use crate::park::Keeping;

/// Messages on their way to their envelopes.
pub type SealFuture<'a> =
    Pin<Box<dyn Future<Output = Result<Vec<Vec<u8>>, NotSealed>> + Send + 'a>>;
/// The records that were in an envelope.
pub type Opened = Result<Vec<Vec<u8>>, NotOpened>;
/// Envelopes on their way to the records in them.
pub type OpenFuture<'a> = Pin<Box<dyn Future<Output = Vec<Opened>> + Send + 'a>>;
/// Something that is waited for.
pub type Waiting<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Seals messages for streams, and opens those of streams.
pub trait Sealing: fmt::Debug + Send + Sync {
    /// Seals messages for a stream, in their order, each with its topic bound into it. All or none.
    fn seal<'a>(
        &'a self,
        stream: &'a Name,
        messages: &'a [(&'a DataTopic, &'a [u8])],
    ) -> SealFuture<'a>;

    /// What a stream is known by, whoever has its name: nothing where there is none of that name.
    fn id(&self, stream: &Name) -> Option<StreamId>;

    /// Whether messages can be sealed for a stream, where that failed before.
    fn can_seal<'a>(&'a self, stream: &'a Name) -> Waiting<'a, bool>;

    /// Where what cannot be opened yet is kept.
    fn keeping(&self) -> Arc<dyn Keeping>;

    /// What asking for keys of what did not open came to.
    fn asked(&self) -> AskingCounts {
        AskingCounts::default()
    }

    /// What opens the messages of a stream for one client, in the order in which it receives them.
    fn opening(&self, stream: &Name) -> Box<dyn Opening>;
}

/// Opens the messages of one stream for one client.
pub trait Opening: Send {
    /// Opens what came at once, each as if one after another, and says of each what came of it.
    fn open<'a>(&'a mut self, envelopes: &'a [Envelope<'a>]) -> OpenFuture<'a>;

    /// Waits until what did not open may open, for lack of a key or because it could not be looked at. It may be given
    /// up, and is told once.
    fn changed(&mut self) -> Waiting<'_, ()>;
}

/// An envelope that came on a topic. What is [kept](Arrival::Kept) may have been opened before.
#[derive(Clone, Copy, Debug)]
pub struct Envelope<'a> {
    /// The topic.
    pub topic: &'a DataTopic,
    /// The envelope.
    pub bytes: &'a [u8],
    /// How it came.
    pub arrival: Arrival,
}

/// A message on its way to being sealed.
#[derive(Debug)]
pub(crate) struct Draft<'a> {
    stream: &'a Name,
    fields: &'a [Field],
    topic: DataTopic,
    content: Content<'a>,
}

/// What is sealed of a message: all of it, or the values of some fields.
#[derive(Debug)]
enum Content<'a> {
    Whole(&'a [u8]),
    Fields(Emptied<'a>),
}

impl<'a> Draft<'a> {
    /// Begins with a message, or with one that is JSON and of which some fields are sealed.
    pub(crate) fn new(
        (stream, fields): (&'a Name, &'a [Field]),
        topic: DataTopic,
        payload: &'a [u8],
    ) -> Result<Self, NotSealed> {
        let content = match fields.is_empty() {
            true => Content::Whole(payload),
            false => {
                let emptied = take_out(payload, fields).map_err(|odd| NotSealed {
                    code: odd.code(),
                    is_lasting: true,
                })?;
                Content::Fields(emptied)
            }
        };
        Ok(Self {
            stream,
            fields,
            topic,
            content,
        })
    }

    pub(crate) fn stream(&self) -> &'a Name {
        self.stream
    }

    /// By what it is known again without saying anything of what is in it: its stream, its topic, how long it is, and which
    /// fields of it are sealed, since others stand in clear.
    pub(crate) fn mark(&self, sealing: &dyn Sealing) -> [u8; 16] {
        let (topic, payload) = self.to_seal();
        let len = (payload.len() as u64).to_be_bytes();
        let id = sealing.id(self.stream);
        let stream = id.as_ref().map_or(&[][..], |id| &id.0);
        let topic = topic.as_str().as_bytes();
        let fields: Vec<_> = self.fields.iter().map(Field::to_string).collect();
        let fields = fields.iter().map(String::as_bytes);
        let parts: Vec<_> = [stream, topic, &len].into_iter().chain(fields).collect();
        Shelf::mark(&parts)
    }

    fn to_seal(&self) -> (&DataTopic, &[u8]) {
        match &self.content {
            Content::Whole(payload) => (&self.topic, payload),
            Content::Fields(emptied) => (&self.topic, &emptied.sealed),
        }
    }

    /// The payload that goes on, and whether that is an envelope alone.
    fn with(&self, envelope: Vec<u8>) -> Sealed {
        match &self.content {
            Content::Whole(_) => Sealed {
                payload: envelope,
                is_envelope: true,
            },
            Content::Fields(emptied) => Sealed {
                payload: emptied.with(&envelope),
                is_envelope: false,
            },
        }
    }
}

/// What goes on in place of a message.
#[derive(Clone, Debug)]
pub(crate) struct Sealed {
    pub(crate) payload: Vec<u8>,
    /// Else there is JSON around it.
    pub(crate) is_envelope: bool,
}

/// Seals messages, those of a stream at once and in their order.
pub(crate) async fn seal_all(
    sealing: &dyn Sealing,
    drafts: &[Draft<'_>],
) -> Vec<Result<Sealed, NotSealed>> {
    let mut streams: Vec<_> = drafts.iter().map(Draft::stream).collect();
    streams.sort();
    streams.dedup();
    let mut sealed = BTreeMap::new();
    for stream in streams {
        let of = drafts.iter().enumerate();
        let of: Vec<_> = of.filter(|(_, draft)| draft.stream == stream).collect();
        let messages: Vec<_> = of.iter().map(|(_, draft)| draft.to_seal()).collect();
        for (number, result) in seal_some(sealing, stream, &messages)
            .await
            .into_iter()
            .enumerate()
        {
            if let Some((index, draft)) = of.get(number) {
                sealed.insert(*index, result.map(|envelope| draft.with(envelope)));
            }
        }
    }
    sealed.into_values().collect()
}

async fn seal_some(
    sealing: &dyn Sealing,
    stream: &Name,
    messages: &[(&DataTopic, &[u8])],
) -> Vec<Result<Vec<u8>, NotSealed>> {
    let fault = match sealing.seal(stream, messages).await {
        Ok(envelopes) => return envelopes.into_iter().map(Ok).collect(),
        Err(fault) => fault,
    };
    if !fault.is_lasting || messages.len() < 2 {
        return messages.iter().map(|_| Err(fault)).collect();
    }
    // It may be one of them alone.
    let mut all = Vec::with_capacity(messages.len());
    for message in messages {
        let sealed = sealing.seal(stream, std::slice::from_ref(message)).await;
        all.push(sealed.and_then(|envelopes| envelopes.into_iter().next().ok_or(fault)));
    }
    all
}

/// A message on its way to being opened, or to having put back what was sealed of it.
#[derive(Debug)]
pub(crate) struct Closed<'a> {
    pub(crate) fields: &'a [Field],
    pub(crate) topic: DataTopic,
    pub(crate) payload: &'a [u8],
    pub(crate) arrival: Arrival,
}

impl<'a> Closed<'a> {
    fn envelope(&self) -> Result<Cow<'a, [u8]>, NotOpened> {
        match self.fields.is_empty() {
            true => Ok(Cow::Borrowed(self.payload)),
            false => Ok(Cow::Owned(envelope_of(self.payload, self.fields)?)),
        }
    }

    /// What goes on in its place.
    fn with(&self, records: Vec<Vec<u8>>) -> Opened {
        if self.fields.is_empty() {
            return Ok(records);
        }
        let [values] = records.as_slice() else {
            return Err(Odd::OtherShape.into());
        };
        Ok(vec![put_back(self.payload, values, self.fields)?])
    }
}

impl From<Odd> for NotOpened {
    fn from(odd: Odd) -> Self {
        Self {
            code: odd.code(),
            why: Unopened::Foreign,
        }
    }
}

/// Opens messages of one stream, and says of each what came of it.
pub(crate) async fn open_all(opening: &mut dyn Opening, messages: &[Closed<'_>]) -> Vec<Opened> {
    let all: Vec<_> = messages.iter().map(Closed::envelope).collect();
    let whole = messages.iter().zip(&all).filter_map(|(message, bytes)| {
        Some(Envelope {
            topic: &message.topic,
            bytes: bytes.as_deref().ok()?,
            arrival: message.arrival,
        })
    });
    let whole: Vec<_> = whole.collect();
    let mut opened = opening.open(&whole).await.into_iter();
    let opened = messages.iter().zip(&all).map(|(message, bytes)| {
        bytes.as_ref().map_err(|fault| *fault)?;
        message.with(opened.next().unwrap_or(Err(NotOpened::INTERNAL))?)
    });
    opened.collect()
}

/// Why a message was not sealed, so that it does not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotSealed {
    /// A stable name for the reason.
    pub code: &'static str,
    /// Whether it would be the same if the message came again.
    pub is_lasting: bool,
}

/// Why a message was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotOpened {
    /// A stable name for the reason.
    pub code: &'static str,
    /// What that says of the message.
    pub why: Unopened,
}

impl NotOpened {
    /// It should have been looked at.
    pub(crate) const INTERNAL: Self = Self {
        code: because::INTERNAL,
        why: Unopened::NotNow,
    };

    /// Whether it, or another with its number, was opened before.
    pub(crate) fn is_seen(&self) -> bool {
        [because::REPLAY, because::FORK].contains(&self.code)
    }
}

/// What it says of a message that it was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unopened {
    /// Its publisher sealed it, and only the key is missing.
    Sealed,
    /// It may be anybody's, or came before.
    Foreign,
    /// Nothing: it could not be looked at now.
    NotNow,
}
