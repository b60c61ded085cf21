//! The numbers of messages that are on their way to a client and that it has not acknowledged.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::fields::Malformed;
use crate::packet::{PUBACK, PUBCOMP, PUBREC, Publish, id_of};

/// From this code on, a PUBREC ends its handshake.
const REFUSED: u8 = 0x80;

/// What a broker has on its way to a client, by number. Both directions know it: one notes what goes there, the other
/// what is acknowledged.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    of_broker: Mutex<HashMap<u16, u64>>,
    hashing: RandomState,
}

impl Numbers {
    /// A message of the broker goes on.
    pub(crate) fn goes_on(&self, publish: &Publish<'_>, topic: &str) {
        if let Some(id) = publish.id {
            self.of_broker().insert(id, self.hash(publish, topic));
        }
    }

    /// Whether a message is one that went on before, and comes again for want of an acknowledgement.
    pub(crate) fn comes_again(&self, publish: &Publish<'_>, topic: &str) -> bool {
        let id = publish.id.filter(|_| publish.comes_again());
        let before = id.and_then(|id| self.of_broker().get(&id).copied());
        before.is_some_and(|before| before == self.hash(publish, topic))
    }

    /// The client acknowledges something.
    pub(crate) fn acknowledged(&self, kind: u8, body: &[u8]) -> Result<(), Malformed> {
        let is_end = match kind {
            PUBACK | PUBCOMP => true,
            PUBREC => body.get(2).is_some_and(|reason| *reason >= REFUSED),
            _ => return Ok(()),
        };
        let id = id_of(body)?;
        if is_end {
            self.of_broker().remove(&id);
        }
        Ok(())
    }

    /// What nobody else can bring to the same number for another message.
    fn hash(&self, publish: &Publish<'_>, topic: &str) -> u64 {
        self.hashing.hash_one((topic, publish.payload))
    }

    fn of_broker(&self) -> MutexGuard<'_, HashMap<u16, u64>> {
        self.of_broker
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
