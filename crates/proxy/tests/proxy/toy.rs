//! Sealing for tests: what it makes hides nothing from anybody who knows how, but shows no eight bytes of what was in it.

use std::sync::{Arc, Mutex};

use sealcast::{DataTopic, Name};
use sealcast_proxy::{NotOpened, NotSealed, OpenFuture, Opening, SealFuture, Sealing, Unopened};

const MAGIC: &[u8] = b"toy envelope";
/// Between the records of one envelope.
pub(crate) const NEXT: u8 = 0x1e;

/// Seals and opens; or says why it does not.
#[derive(Debug, Default)]
pub(crate) struct Toy {
    pub(crate) fault: Mutex<Option<NotSealed>>,
    /// Whether nothing can be looked at now.
    pub(crate) is_away: Arc<Mutex<bool>>,
}

/// The envelope of a payload, bound to a stream and a topic.
pub(crate) fn envelope(stream: &str, topic: &str, payload: &[u8]) -> Vec<u8> {
    let bound = format!("{stream}\n{topic}\n");
    let hidden = payload.iter().map(|byte| byte ^ 0xa5);
    let mut all = [MAGIC, bound.as_bytes()].concat();
    all.extend(hidden);
    // As long as one is at least.
    all.extend([0xee; 176]);
    all
}

/// What is in one, where it is of that stream and topic.
pub(crate) fn payload(stream: &str, topic: &str, bytes: &[u8]) -> Option<Vec<u8>> {
    let bound = format!("{stream}\n{topic}\n");
    let rest = bytes.strip_prefix(MAGIC)?.strip_prefix(bound.as_bytes())?;
    let hidden = rest.strip_suffix(&[0xee; 176])?;
    Some(hidden.iter().map(|byte| byte ^ 0xa5).collect())
}

impl Toy {
    pub(crate) fn fails(&self, code: &'static str, is_lasting: bool) {
        *self.fault.lock().unwrap() = Some(NotSealed { code, is_lasting });
    }
}

impl Sealing for Toy {
    fn seal<'a>(
        &'a self,
        stream: &'a Name,
        topic: &'a DataTopic,
        payload: &'a [u8],
    ) -> SealFuture<'a> {
        Box::pin(async move {
            match *self.fault.lock().unwrap() {
                Some(fault) => Err(fault),
                None => Ok(envelope(stream.as_str(), topic.as_str(), payload)),
            }
        })
    }

    fn opening(&self, stream: &Name) -> Box<dyn Opening> {
        Box::new(ToyOpening(stream.clone(), Arc::clone(&self.is_away)))
    }
}

struct ToyOpening(Name, Arc<Mutex<bool>>);

impl Opening for ToyOpening {
    fn open<'a>(
        &'a mut self,
        topic: &'a DataTopic,
        envelope: &'a [u8],
        _is_retained: bool,
    ) -> OpenFuture<'a> {
        let opened = payload(self.0.as_str(), topic.as_str(), envelope);
        let records = opened.map(|all| {
            all.split(|byte| *byte == NEXT)
                .map(<[u8]>::to_vec)
                .collect()
        });
        // Another stream's lacks a key.
        let other = format!("\n{}\n", topic.as_str());
        let is_sealed = envelope
            .strip_prefix(MAGIC)
            .and_then(|rest| rest.strip_prefix(b"other"))
            .is_some_and(|rest| rest.starts_with(other.as_bytes()));
        let is_away = *self.1.lock().unwrap();
        let fault = NotOpened {
            code: "toy.not-opened",
            why: match (is_away, is_sealed) {
                (true, _) => Unopened::NotNow,
                (false, true) => Unopened::Sealed,
                (false, false) => Unopened::Foreign,
            },
        };
        let records = records.filter(|_| !is_away);
        Box::pin(async move { records.ok_or(fault) })
    }
}
