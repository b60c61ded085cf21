//! The clients that seal nothing, as one, and as processes of their own.

use std::future::ready;
use std::io;
use std::path::Path;

use anyhow::{Context as _, bail};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::{Broker, EACH_WAITING_MAX, Place, Way, amqp, library, mqtt, nats, postgres};
use crate::clear::{Framing, Printing, lines_of_stdin};

/// The arguments that make this program a client that seals nothing.
pub(crate) const CLIENT: &str = "clear-client";
/// Has the client begin a session and leave.
pub(super) const SUBSCRIBE: &str = "subscribe";
/// And one that seals each line by itself.
pub(crate) const EACH: &str = "sealing-each";

/// Stores messages.
pub(super) enum Publisher {
    Nats(nats::Publisher),
    Postgres(postgres::Publisher),
    Amqp(amqp::Publisher),
    Mqtt(mqtt::Publisher),
    Library(library::Publisher),
}

impl Publisher {
    pub(super) async fn open(broker: Broker, place: &Place, way: Way) -> anyhow::Result<Self> {
        Ok(match broker {
            Broker::Nats | Broker::NatsSyncing => {
                Self::Nats(nats::Publisher::open(place, way == Way::Packed).await?)
            }
            Broker::Postgres => Self::Postgres(postgres::Publisher::open(place).await?),
            Broker::Rabbitmq => Self::Amqp(amqp::Publisher::open(place).await?),
            Broker::Mosquitto if way == Way::EachByLibrary => {
                Self::Library(library::Publisher::open(place, way.waiting_max())?)
            }
            Broker::Mosquitto => Self::Mqtt(mqtt::Publisher::open(place, way.waiting_max()).await?),
        })
    }

    /// Hands messages over; waits while too many are on their way.
    pub(super) async fn send(&mut self, batch: Vec<Vec<u8>>) -> anyhow::Result<()> {
        match self {
            Self::Nats(publisher) => publisher.send(batch).await,
            Self::Postgres(publisher) => publisher.send(batch).await,
            Self::Amqp(publisher) => publisher.send(batch).await,
            Self::Mqtt(publisher) => publisher.send(batch).await,
            Self::Library(publisher) => publisher.send(batch).await,
        }
    }

    /// Waits until all are acknowledged.
    pub(super) async fn finish(self) -> anyhow::Result<()> {
        match self {
            Self::Nats(publisher) => publisher.finish().await,
            Self::Postgres(publisher) => publisher.finish().await,
            Self::Amqp(publisher) => publisher.finish().await,
            Self::Mqtt(publisher) => publisher.finish().await,
            Self::Library(publisher) => publisher.finish().await,
        }
    }
}

/// Takes all messages in order, from the first that the server has.
pub(super) enum Reader {
    Nats(Box<nats::Reader>),
    Postgres(postgres::Reader),
    Amqp(Box<amqp::Reader>),
    Mqtt(mqtt::Reader),
    Library(Box<library::Reader>),
}

impl Reader {
    pub(super) async fn open(broker: Broker, place: &Place, way: Way) -> anyhow::Result<Self> {
        Ok(match broker {
            Broker::Nats | Broker::NatsSyncing => {
                Self::Nats(Box::new(nats::Reader::open(place).await?))
            }
            Broker::Postgres => Self::Postgres(postgres::Reader::open(place).await?),
            Broker::Rabbitmq => Self::Amqp(Box::new(amqp::Reader::open(place).await?)),
            Broker::Mosquitto if way == Way::EachByLibrary => {
                Self::Library(Box::new(library::Reader::open(place).await?))
            }
            Broker::Mosquitto => Self::Mqtt(mqtt::Reader::open(place).await?),
        })
    }

    /// The next message, with frames each behind their length.
    pub(super) async fn next(&mut self) -> anyhow::Result<Taking> {
        Ok(Taking(match self {
            Self::Nats(reader) => reader.next().await?,
            Self::Postgres(reader) => reader.next().await?,
            Self::Amqp(reader) => reader.next().await?,
            Self::Mqtt(reader) => reader.next().await?,
            Self::Library(reader) => reader.next().await?,
        }))
    }
}

/// A message that came.
pub(super) struct Taking(Vec<u8>);

impl Taking {
    pub(super) fn frames(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.0.as_slice();
        std::iter::from_fn(move || {
            let (length, behind) = rest.split_first_chunk()?;
            let (frame, behind) = behind.split_at_checked(u32::from_be_bytes(*length) as usize)?;
            rest = behind;
            Some(frame)
        })
    }
}

/// Does what the arguments say, and seals nothing: what, on which server, where, under which name, in
/// which way, how many lines, and a home to be opened.
pub(crate) async fn client(arguments: &[String]) -> anyhow::Result<()> {
    let [what, broker, url, name, way, lines, home, passphrase] = arguments else {
        bail!("eight words are needed");
    };
    crate::program::open_home(home.as_ref(), passphrase.as_ref()).await?;
    let broker = Broker::of(broker)?;
    let way = Way::ALL.into_iter().find(|of| of.word() == way.as_str());
    let way = way.context("no such way")?;
    let place = Place {
        url: url.clone(),
        name: name.clone(),
    };
    if what == "publish" {
        let mut publisher = Publisher::open(broker, &place, way).await?;
        let mut lines = match way {
            Way::Each | Way::EachByLibrary => Framing::of_single_lines(),
            Way::Frames | Way::Packed | Way::Sealed | Way::SealedEach => Framing::of_stdin(),
        };
        while let Some(batch) = lines.next()? {
            publisher.send(batch).await?;
        }
        return publisher.finish().await;
    }
    let mut reader = Reader::open(broker, &place, way).await?;
    if what == SUBSCRIBE {
        return Ok(());
    }
    let (mut left, mut out) = (lines.parse::<u64>()?, Printing::new()?);
    while left > 0 {
        for frame in reader.next().await?.frames() {
            left = left.saturating_sub(out.print(frame)?);
        }
    }
    out.finish()
}

/// Seals each line of standard input by itself, with several on their way.
pub(crate) async fn publish_each(home: &Path, passphrase: &Path) -> anyhow::Result<()> {
    let home = crate::program::open_home(home, passphrase).await?;
    let kitchen = home.stream(&"kitchen".parse()?).await?;
    let topic = "plant/7/t".parse()?;
    let publishing = |line: io::Result<String>| async {
        kitchen.publish_on(&topic, line?.as_bytes()).await?;
        Ok(())
    };
    let publishing = stream::iter(lines_of_stdin()).map(publishing);
    let published = publishing.buffer_unordered(EACH_WAITING_MAX);
    published.try_for_each(|()| ready(Ok(()))).await
}
