//! What a key node that lies says.

use rand_core::Rng as _;
use sealcast_crypto::{NodeShare, SecretBytes, WRAP_OVERHEAD, delimited};
use sealcast_protocol::{
    KeyNode, NodeAnswer, NodeRefusal, NodeRefusalReason, NodeReplyTo, NodeRequest, RequestId,
    Verified, encode, sign, wrap_key_hash,
};

use crate::around::Around;

/// One lie. Those before `Pepper` are certain at once to whoever was told them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lie {
    /// It answers with another share than it was dealt, to all appearances well.
    Share,
    /// The proof is of something else.
    Proof,
    /// What it sealed is no answer.
    Garbage,
    /// What it sealed does not open.
    Unopened,
    /// The pepper is another one.
    Pepper,
    /// It says that it is the node next to it.
    Name,
    /// It says again what it said to another request.
    Replay,
    /// It says that whoever asks is not entitled.
    Refusal,
    /// It says nothing.
    Silence,
}

impl Lie {
    const ALL: [Self; 9] = [
        Self::Share,
        Self::Proof,
        Self::Garbage,
        Self::Unopened,
        Self::Pepper,
        Self::Name,
        Self::Replay,
        Self::Refusal,
        Self::Silence,
    ];

    /// One of them.
    pub(crate) fn draw(around: &mut Around) -> Self {
        let pick = around.chance.below(Self::ALL.len() as u64) as usize;
        Self::ALL.get(pick).copied().unwrap_or(Self::Silence)
    }

    /// Whether whoever is told it knows at once that it is one.
    pub(crate) fn is_certain(self) -> bool {
        self < Self::Pepper
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Share => "false share",
            Self::Proof => "false proof",
            Self::Garbage => "garbage answer",
            Self::Unopened => "answer that does not open",
            Self::Pepper => "false pepper",
            Self::Name => "answer in another's name",
            Self::Replay => "replayed answer",
            Self::Refusal => "false refusal",
            Self::Silence => "silence",
        }
    }
}

/// A lie that was told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    pub(crate) lie: Lie,
    pub(crate) node: KeyNode,
    pub(crate) index: u8,
    pub(crate) request: RequestId,
}

/// A node that is asked, what it holds, and its key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Liar<'a> {
    pub(crate) node: KeyNode,
    pub(crate) share: &'a NodeShare,
    pub(crate) key: &'a sealcast_crypto::SigningKey,
}

impl Liar<'_> {
    /// What it says to a request. Nothing where it says nothing new.
    pub(crate) fn says(
        &self,
        around: &mut Around,
        asked: &Verified<NodeRequest>,
        lie: Lie,
    ) -> Option<Vec<u8>> {
        let to = NodeReplyTo::new(asked, self.share.index(), self.node);
        let labels = asked.body().labels();
        let honest = |around: &mut Around, share: &NodeShare| {
            share.answer(&mut around.rng, &labels).expose().to_vec()
        };
        let answer = match lie {
            Lie::Share | Lie::Pepper => {
                let mut bytes = *self.share.expose();
                let at = if lie == Lie::Share { 0 } else { 40 };
                *bytes.get_mut(at)? ^= 1;
                honest(
                    around,
                    &NodeShare::from_bytes(self.share.index(), &bytes).ok()?,
                )
            }
            Lie::Proof => {
                let mut bytes = honest(around, self.share);
                *bytes.iter_mut().nth_back(40)? ^= 1;
                bytes
            }
            Lie::Garbage => {
                let mut bytes = honest(around, self.share);
                around.rng.fill_bytes(&mut bytes);
                bytes
            }
            Lie::Name => return self.in_another_name(around, asked, to),
            Lie::Unopened => {
                let mut wrapped = honest(around, self.share);
                wrapped.extend([0; WRAP_OVERHEAD]);
                return self.signed(to, wrapped);
            }
            Lie::Refusal => {
                let refusal = NodeRefusal {
                    version: 1,
                    to,
                    reason: NodeRefusalReason::NotEntitled,
                    wait_ms: 0,
                };
                return Some(sign(self.key, refusal).ok()?.wire().to_vec());
            }
            Lie::Replay | Lie::Silence => return None,
        };
        self.sealed(around, asked, to, answer)
    }

    /// A good answer, said to be of the node next to it: it opens for the asker, and is not that node's.
    fn in_another_name(
        &self,
        around: &mut Around,
        asked: &Verified<NodeRequest>,
        to: NodeReplyTo,
    ) -> Option<Vec<u8>> {
        let others = asked.body().nodes.iter();
        let index = others.copied().find(|index| *index != to.index)?;
        let answer = self.share.answer(&mut around.rng, &asked.body().labels());
        let to = NodeReplyTo { index, ..to };
        self.sealed(around, asked, to, answer.expose().to_vec())
    }

    fn sealed(
        &self,
        around: &mut Around,
        asked: &Verified<NodeRequest>,
        to: NodeReplyTo,
        answer: Vec<u8>,
    ) -> Option<Vec<u8>> {
        let key = asked.body().wrap_key().ok()?;
        let label = "sealcast.v1 key node answer wrap";
        let info = delimited(label, &[&encode(&to), &wrap_key_hash(&key)]);
        let answer = SecretBytes::from(answer);
        let wrapped = key.wrap(&mut around.rng, &info, answer.expose()).ok()?;
        self.signed(to, wrapped)
    }

    fn signed(&self, to: NodeReplyTo, wrapped: Vec<u8>) -> Option<Vec<u8>> {
        let answer = NodeAnswer {
            version: 1,
            to,
            wrapped,
        };
        Some(sign(self.key, answer).ok()?.wire().to_vec())
    }
}
