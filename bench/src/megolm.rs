//! The baseline: Megolm for messages, Olm for giving its keys, of vodozemac.

use std::time::Duration;

use anyhow::Context as _;
use vodozemac::megolm::{GroupSession, InboundGroupSession, MegolmMessage, SessionConfig};
use vodozemac::olm::{self, Account, OlmMessage};

use crate::clock::timed;

/// Messages that are decrypted with one session before the next one is set up, untimed.
const PASS: usize = 512;

/// Encrypts `count` messages, as bytes that travel.
pub(crate) fn encrypt(
    session: &mut GroupSession,
    count: usize,
    payload: &[u8],
) -> anyhow::Result<Duration> {
    timed(|| {
        for _ in 0..count {
            std::hint::black_box(session.encrypt(payload).to_bytes());
        }
        Ok(())
    })
}

/// Messages of one session, and what decrypts them.
pub(crate) struct Received {
    session: GroupSession,
    messages: Vec<Vec<u8>>,
}

impl Received {
    pub(crate) fn new(payload: &[u8]) -> Self {
        let mut sender = GroupSession::new(SessionConfig::version_1());
        let session = GroupSession::from_pickle(sender.pickle());
        let messages = (0..PASS).map(|_| sender.encrypt(payload).to_bytes());
        Self {
            messages: messages.collect(),
            session,
        }
    }

    /// Bytes of one message.
    pub(crate) fn message_len(&self) -> usize {
        self.messages.last().map_or(0, Vec::len)
    }

    /// Decrypts `count` messages in order, from the bytes that travel.
    pub(crate) fn decrypt(&self, count: usize) -> anyhow::Result<Duration> {
        let mut spent = Duration::ZERO;
        for done in (0..count).step_by(PASS) {
            let key = self.session.session_key();
            let mut session = InboundGroupSession::new(&key, SessionConfig::version_1());
            let messages = self.messages.iter().take(count - done);
            spent += timed(|| {
                for bytes in messages {
                    let message = MegolmMessage::from_bytes(bytes)?;
                    std::hint::black_box(session.decrypt(&message)?);
                }
                Ok(())
            })?;
        }
        Ok(spent)
    }
}

/// Two accounts, one of which gives Megolm session keys to the other.
pub(crate) struct Givers {
    giver: Account,
    taker: Account,
    key: String,
}

impl Givers {
    pub(crate) fn new() -> Self {
        let session = GroupSession::new(SessionConfig::version_1());
        Self {
            giver: Account::new(),
            taker: Account::new(),
            key: session.session_key().to_base64(),
        }
    }

    fn one_time_key(&mut self) -> anyhow::Result<vodozemac::Curve25519PublicKey> {
        let made = self.taker.generate_one_time_keys(1);
        self.taker.mark_keys_as_published();
        made.created.first().copied().context("no one-time key")
    }

    fn give(&self, to: vodozemac::Curve25519PublicKey) -> anyhow::Result<Vec<u8>> {
        let taker = self.taker.curve25519_key();
        let config = olm::SessionConfig::version_1();
        let mut session = self.giver.create_outbound_session(config, taker, to)?;
        let (_, bytes) = session.encrypt(&self.key)?.to_parts();
        Ok(bytes)
    }

    /// Bytes of a session key on its way.
    pub(crate) fn message_len(&mut self) -> anyhow::Result<usize> {
        let to = self.one_time_key()?;
        Ok(self.give(to)?.len())
    }

    /// Gives a session key to `count` devices that there is no Olm session with yet.
    pub(crate) fn give_many(&mut self, count: usize) -> anyhow::Result<Duration> {
        let mut spent = Duration::ZERO;
        for _ in 0..count {
            let to = self.one_time_key()?;
            spent += timed(|| self.give(to))?;
        }
        Ok(spent)
    }

    /// Takes `count` session keys in.
    pub(crate) fn take_many(&mut self, count: usize) -> anyhow::Result<Duration> {
        let mut spent = Duration::ZERO;
        for _ in 0..count {
            let to = self.one_time_key()?;
            let bytes = self.give(to)?;
            let giver = self.giver.curve25519_key();
            spent += timed(|| {
                let OlmMessage::PreKey(message) = OlmMessage::from_parts(0, &bytes)? else {
                    anyhow::bail!("not a first message");
                };
                let config = olm::SessionConfig::version_1();
                Ok(self.taker.create_inbound_session(config, giver, &message)?)
            })?;
        }
        Ok(spent)
    }
}
