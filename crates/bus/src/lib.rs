//! What carries and stores ciphertext: topics of opaque bytes.
//!
//! ```
//! use sealcast_bus::{Bus, FileBus, Offset, Topic};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! let bus = FileBus::open(folder.path().join("bus")).await?;
//!
//! let topic = Topic::new("s/1f00/data/kitchen")?;
//! let mut tail = bus.tail(vec![(topic.clone(), Offset(0))]);
//! bus.append(&topic, vec![b"one".to_vec(), b"two".to_vec()]).await?;
//!
//! let items = bus.read(&topic, Offset(1), 1024).await?;
//! assert_eq!(items[0].payload, b"two");
//! assert_eq!(bus.end(&topic).await?, Offset(2));
//!
//! let (from, items) = tail.next().await?;
//! assert_eq!((from, items.len()), (topic, 2));
//!
//! // Logs are stored. On an ephemeral topic only those who listen hear what is sent.
//! let ask = Topic::new("s/1f00/ask")?;
//! let mut listener = bus.listen(vec![ask.clone()]).await?;
//! bus.send(&ask, b"who has it?".to_vec()).await?;
//! tokio::select! {
//!     items = tail.next() => println!("{:?}", items?),
//!     heard = listener.next() => assert_eq!(heard?, (ask, b"who has it?".to_vec())),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A bus knows nothing of what it carries and is not trusted: whoever writes to it may write
//! anything. What any bus must offer is written in `spec/bus.md` and checked by the `conformance`
//! suite (a feature of that name). [`FileBus`] is the bus without a server: a folder that several
//! processes of one machine use at once; its format is `spec/bus-file.md`.

mod attempts;
mod bus;
#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
mod file;
mod packed;
mod report;
mod server_address;
mod server_options;
mod topic;
mod turn;
mod url;
mod users_topics;

pub use attempts::{Attempts, MayPass, jittered};
pub use bus::{Bus, BusFuture, Item, Limits, Listener, Offset, Tail, each_once};
pub use error::BusError;
pub use file::{Arrival, ArrivalId, ArrivalPart, FileBus, Mirror, Origin};
pub use packed::Packed;
pub use report::{Aspect, BusReport, BusSetup, Standing, Warning};
pub use server_address::ServerAddress;
pub use server_options::{Credentials, ServerOptions};
pub use topic::{Topic, TopicError};
pub use turn::{Turn, TurnMark, Turns};
pub use url::{BusUrl, BusUrlError, Place};
pub use users_topics::{TopicFilter, TopicFilterError, TopicItem, UsersTopics};
