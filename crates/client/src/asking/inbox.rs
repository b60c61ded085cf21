//! The inbox of this device, trimmed behind what was taken.

use std::sync::Arc;

use minicbor::{CborLen, Decode, Encode};
use sealcast_bus::Offset;
use sealcast_crypto::digest;
use sealcast_protocol::{Position, REQUEST_LIFETIME_MS_MAX};

use crate::blocking::off_thread;
use crate::core::Core;
use crate::error::Error;
use crate::home::topic;

const BUS_LABEL: &str = "sealcast.v1 inbox bus";
/// What lay in an inbox this long ago was given to a request that is over.
const OVER_MS: u64 = REQUEST_LIFETIME_MS_MAX + 60_000;

/// Where an inbox ended, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub(crate) struct InboxMark {
    #[n(0)]
    end: u64,
    #[n(1)]
    time: Position,
}

impl Core {
    /// Removes from this device's inbox what no request of any of the home's processes can be
    /// waiting for: what lay there longer than a request may live.
    pub(crate) async fn trim_inbox(self: &Arc<Self>) -> Result<(), Error> {
        let inbox = topic(&self.identity().device().inbox_topic())?;
        let end = self.bus.end(&inbox).await?.0;
        let bus = *digest(BUS_LABEL, &[self.ticket.bus().as_bytes()]).as_bytes();
        let now = self.now();
        let (vault, of) = (self.vault().clone(), bus);
        let mark = off_thread(move || vault.inbox_mark(&of)).await??;
        let known = mark.filter(|of| of.end <= end && of.time <= now);
        match known {
            Some(mark) if now.0 - mark.time.0 < OVER_MS => return Ok(()),
            Some(mark) => self.bus.trim(&inbox, Offset(mark.end)).await?,
            None => (),
        }
        let (vault, mark) = (self.vault().clone(), InboxMark { end, time: now });
        off_thread(move || vault.put_inbox_mark(&bus, &mark)).await?
    }
}
