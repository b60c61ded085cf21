//! A publisher and a reader of one session, straight on the formats.

use anyhow::Context as _;
use sealcast_crypto::{
    Cover, Leaf, SecretBytes, SessionRoot, SigningKey, Verifier, VerifyingKey, Walker,
};
use sealcast_protocol::{
    DeviceId, Draft, EnvelopeHash, EnvelopeView, Flags, Frame, Header, InstanceId, Position,
    SealError, SealedEnvelope, SessionId, StreamId, Suite, seal, seal_unsigned, sign_batch,
};

/// The publisher's clock when a benchmark starts.
pub(crate) const START: Position = Position(1_790_000_000_000);

const STREAM: StreamId = StreamId([1; 32]);
const TOPIC: &[u8] = b"";

/// Seals at positions that never go back.
pub(crate) struct Sealer {
    walker: Walker,
    signing: SigningKey,
    header: Header,
}

/// Opens what a [`Sealer`] sealed, holding the cover of everything from [`START`] on.
pub(crate) struct Opener {
    walker: Walker,
    verifier: Verifier,
    key: VerifyingKey,
}

/// The session of all sealers and openers.
pub(crate) fn root() -> SessionRoot {
    SessionRoot::init_with(|bytes| bytes.fill(7))
}

impl Sealer {
    pub(crate) fn new() -> Self {
        Self {
            walker: Walker::new(Cover::whole(&root())),
            signing: SigningKey::from_seed(&[3; 32]),
            header: Header {
                suite: Suite::TreeV1,
                flags: Flags::default(),
                content: 0,
                session: SessionId([4; 16]),
                position: START,
                device: DeviceId([5; 16]),
                instance: InstanceId([6; 8]),
                seq: 0,
                prev: EnvelopeHash::NONE,
            },
        }
    }

    /// Lets the clock go on.
    pub(crate) fn wait(&mut self, ms: u64) {
        self.header.position = self.header.position.after(ms);
    }

    pub(crate) fn seal(&mut self, payload: &[u8]) -> anyhow::Result<Vec<u8>> {
        self.seal_with(|leaf, signing, header| seal(leaf, signing, &STREAM, TOPIC, header, payload))
    }

    pub(crate) fn seal_frame(&mut self, frame: &Frame) -> anyhow::Result<Vec<u8>> {
        self.seal_with(|leaf, signing, header| {
            let sealed = seal_unsigned(leaf, &STREAM, TOPIC, header, Draft::Frame(frame))?;
            Ok(sealed.sign(signing))
        })
    }

    /// Messages that share a signature, all in one millisecond.
    pub(crate) fn seal_batch(&mut self, payloads: &[&[u8]]) -> anyhow::Result<Vec<Vec<u8>>> {
        let mut unsigned = Vec::with_capacity(payloads.len());
        for payload in payloads {
            let mut header = self.header;
            header.flags.batch = true;
            let leaf = self.walker.leaf(header.position.0);
            let leaf = leaf.context("outside the tree")?;
            let draft = Draft::Single(payload);
            let sealed = seal_unsigned(&leaf, &STREAM, TOPIC, &header, draft)?;
            self.header.seq = self.header.seq.wrapping_add(1);
            self.header.prev = sealed.hash();
            unsigned.push(sealed);
        }
        let signed = sign_batch(&self.signing, unsigned)?;
        Ok(signed.into_iter().map(|of| of.bytes).collect())
    }

    fn seal_with(
        &mut self,
        seal: impl FnOnce(&Leaf<'_>, &SigningKey, &Header) -> Result<SealedEnvelope, SealError>,
    ) -> anyhow::Result<Vec<u8>> {
        let header = self.header;
        let leaf = self
            .walker
            .leaf(header.position.0)
            .context("outside the tree")?;
        let sealed = seal(&leaf, &self.signing, &header)?;
        self.header.seq = self.header.seq.wrapping_add(1);
        self.header.prev = sealed.hash;
        Ok(sealed.bytes)
    }
}

impl Opener {
    pub(crate) fn new() -> Self {
        let cover = Cover::from_root(&root(), START.0, Position::END.0);
        Self {
            walker: Walker::new(cover),
            verifier: Verifier::default(),
            key: SigningKey::from_seed(&[3; 32]).verifying_key(),
        }
    }

    /// Makes ready for envelopes that were opened before. What was learned of the sender stays.
    pub(crate) fn rewind(&mut self) {
        self.walker = Self::new().walker;
    }

    pub(crate) fn open(&mut self, bytes: &[u8]) -> anyhow::Result<(Header, SecretBytes)> {
        let envelope = EnvelopeView::parse(bytes)?.bind(&STREAM, TOPIC);
        let verified = envelope.verify_by(&mut self.verifier, &self.key)?;
        let header = *verified.header();
        let leaf = self.walker.leaf(header.position.0).context("no key")?;
        Ok((header, verified.open(&leaf)?))
    }
}
