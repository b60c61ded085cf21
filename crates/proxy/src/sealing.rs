//! What the relay needs of streams: single messages sealed and opened.

use std::fmt;
use std::pin::Pin;

use sealcast::{DataTopic, Name};

use crate::json::{Field, Odd, envelope_of, put_back, take_out};

/// A message on its way to its envelope.
pub type SealFuture<'a> = Pin<Box<dyn Future<Output = Result<Vec<u8>, NotSealed>> + Send + 'a>>;
/// An envelope on its way to the records in it.
pub type OpenFuture<'a> =
    Pin<Box<dyn Future<Output = Result<Vec<Vec<u8>>, NotOpened>> + Send + 'a>>;

/// Seals messages for streams, and opens those of streams.
pub trait Sealing: fmt::Debug + Send + Sync {
    /// Seals a message for a stream, with its topic bound into it.
    fn seal<'a>(
        &'a self,
        stream: &'a Name,
        topic: &'a DataTopic,
        payload: &'a [u8],
    ) -> SealFuture<'a>;

    /// What opens the messages of a stream for one client, in the order in which it receives them.
    fn opening(&self, stream: &Name) -> Box<dyn Opening>;
}

/// Opens the messages of one stream for one client.
pub trait Opening: Send {
    /// Opens what came on a topic. `is_retained` where the broker had kept it, so that it may have been opened
    /// before.
    fn open<'a>(
        &'a mut self,
        topic: &'a DataTopic,
        envelope: &'a [u8],
        is_retained: bool,
    ) -> OpenFuture<'a>;
}

/// Seals a message, or of one that is JSON the values of some fields.
pub(crate) async fn seal(
    sealing: &dyn Sealing,
    (stream, fields): (&Name, &[Field]),
    topic: &DataTopic,
    payload: &[u8],
) -> Result<Vec<u8>, NotSealed> {
    if fields.is_empty() {
        return sealing.seal(stream, topic, payload).await;
    }
    let emptied = take_out(payload, fields).map_err(|odd| NotSealed {
        code: odd.code(),
        is_lasting: true,
    })?;
    let envelope = sealing.seal(stream, topic, &emptied.sealed).await?;
    Ok(emptied.with(&envelope))
}

/// Opens a message, or puts back what was sealed of it.
pub(crate) async fn open(
    opening: &mut dyn Opening,
    fields: &[Field],
    topic: &DataTopic,
    (payload, is_retained): (&[u8], bool),
) -> Result<Vec<Vec<u8>>, NotOpened> {
    if fields.is_empty() {
        return opening.open(topic, payload, is_retained).await;
    }
    let odd = |odd: Odd| NotOpened {
        code: odd.code(),
        why: Unopened::Foreign,
    };
    let envelope = envelope_of(payload, fields).map_err(odd)?;
    let records = opening.open(topic, &envelope, is_retained).await?;
    let [values] = records.as_slice() else {
        return Err(odd(Odd::OtherShape));
    };
    Ok(vec![put_back(payload, values, fields).map_err(odd)?])
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
