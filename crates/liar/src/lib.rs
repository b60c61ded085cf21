//! A key node that lies, in the home of one that does not, and whoever has a home and does with it what its program
//! would not: asks key nodes for what it may not read, and looks at what lies in its store.
//!
//! The node has the home's device key, so that what it says is signed as a key node's answer is, and it is in
//! the set and was dealt to. It answers whoever asks, at once and without asking the log. For tests only.

mod asking;
mod home;

use std::error::Error;
use std::path::Path;

use getrandom::SysRng;
use rand_core::UnwrapErr;
use sealcast_bus::{Bus, FileBus, Offset, Topic};
use sealcast_crypto::NodeShare;
use sealcast_engine::Identity;
use sealcast_protocol::{
    CardList, Deal, DealId, KeyNode, NodeAnswer, NodeRequest, StreamTopics, Unverified, Verified,
    sign,
};

pub use asking::ask_again;
pub use home::kept;
pub use sealcast_engine::Space;

/// Bytes that are read of a topic at once.
const READ_BYTES: usize = 1 << 20;

/// What is false about an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// It is that of another share, to all appearances a good one.
    Share,
    /// The pepper, which no proof covers.
    Pepper,
}

/// Why it does not go on lying, or cannot be done.
pub type Failure = Box<dyn Error + Send + Sync>;

/// A key node on a bus of files.
#[derive(Debug)]
pub struct Liar {
    identity: Identity,
    bus: FileBus,
    lie: Lie,
}

impl Liar {
    /// Opens a node's home, which no passphrase protects.
    ///
    /// # Errors
    ///
    /// Fails where there is none, or no bus.
    pub async fn open(home: &Path, bus: &Path, lie: Lie) -> Result<Self, Failure> {
        let identity = home::identity(home)?;
        let bus = FileBus::open(bus).await?;
        Ok(Self { identity, bus, lie })
    }

    /// Lies to all who ask from now on, and says so each time.
    ///
    /// # Errors
    ///
    /// Fails with the bus.
    pub async fn run(&self, mut says: impl FnMut(&str)) -> Result<(), Failure> {
        let inbox = Topic::new(&self.identity.device().inbox_topic())?;
        let end = self.bus.end(&inbox).await?;
        let mut news = self.bus.tail(Vec::from([(inbox, end)]));
        says("listens");
        loop {
            for item in news.next().await?.1 {
                if let Some(asked) = self.asked(&item.payload).await? {
                    self.answer(&asked).await?;
                    says("lied");
                }
            }
        }
    }

    fn me(&self) -> KeyNode {
        KeyNode {
            user: self.identity.user(),
            device: self.identity.device(),
        }
    }

    /// A request that somebody signed who has a card.
    async fn asked(&self, item: &[u8]) -> Result<Option<Verified<NodeRequest>>, Failure> {
        let Ok(asked) = Unverified::<NodeRequest>::decode(item) else {
            return Ok(None);
        };
        let (user, device) = (asked.claims().user, asked.claims().device);
        let mut list = CardList::new(user);
        for entry in self.items(&user.devices_topic()).await? {
            list.apply(&entry)?;
        }
        let key = list.device(&device).map(|of| of.sign_key);
        Ok(key.and_then(|key| asked.verify(&key).ok()))
    }

    async fn answer(&self, asked: &Verified<NodeRequest>) -> Result<(), Failure> {
        let keys = StreamTopics(asked.body().stream).keys();
        let items = self.items(&keys).await?;
        let mut deals = items.iter().filter_map(|item| {
            let deal = Unverified::<Deal>::decode(item).ok()?;
            (DealId::from(deal.digest()) == asked.body().deal).then(|| deal.claims().clone())
        });
        let deal = deals.next_back().ok_or("the deal is not there")?;
        let share = deal.unwrap_share(&self.me(), self.identity.unwrap_key())?;
        let mut bytes = *share.expose();
        match self.lie {
            Lie::Share => bytes[0] ^= 1,
            Lie::Pepper => bytes[63] ^= 1,
        }
        let share = NodeShare::from_bytes(share.index(), &bytes)?;
        let answer = NodeAnswer::seal(&mut UnwrapErr(SysRng), asked, &share, self.me())?;
        let wire = sign(self.identity.signing(), answer)?.wire().to_vec();
        let inbox = Topic::new(&asked.body().device.inbox_topic())?;
        self.bus.append(&inbox, Vec::from([wire])).await?;
        Ok(())
    }

    async fn items(&self, topic: &str) -> Result<Vec<Vec<u8>>, Failure> {
        let (topic, mut from, mut all) = (Topic::new(topic)?, Offset(0), Vec::new());
        loop {
            let items = self.bus.read(&topic, from, READ_BYTES).await?;
            let Some(last) = items.last() else {
                return Ok(all);
            };
            from = Offset(last.offset.0 + 1);
            all.extend(items.iter().map(|of| of.payload.to_vec()));
        }
    }
}
