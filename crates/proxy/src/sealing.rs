//! What the relay needs of streams: single messages sealed and opened.

use std::fmt;
use std::pin::Pin;

use sealcast::{DataTopic, Name};

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
}
