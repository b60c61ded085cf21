//! One stream, as one device sees it.

use std::sync::Arc;
use std::time::Duration;

use sealcast_bus::{Bus, BusError, BusUrl};
use sealcast_crypto::SecretBytes;
use sealcast_engine::Alarm;
use sealcast_protocol::{
    DataTopic, Interval, Name, PAYLOAD_MAX, Position, SessionKind, StreamId, Ticket,
};

use crate::archive::Archive;
use crate::asking::{AnswerOptions, Answering};
use crate::attend::Attendant;
use crate::backfill::Backfill;
use crate::blocking::off_thread;
use crate::core::{Core, put_off};
use crate::error::Error;
use crate::home::Inner;
use crate::opener::{Opener, OpenerOptions};
use crate::options::SubscribeOptions;
use crate::parking::{self, ParkedState};
use crate::publisher::{Published, Publisher};
use crate::read::Reader;
use crate::seal::{SealedMessage, Sealer};
use crate::singles::Message;
use crate::subscribe::Subscription;

/// Between two looks whether a bus is back, at first and at last.
const AWAY_PAUSE: Duration = Duration::from_millis(250);
const AWAY_PAUSE_MAX: Duration = Duration::from_secs(4);

/// A stream, opened from a [`Home`](crate::Home).
///
/// Cloning gives another handle on the same run; all of them seal in one order.
#[derive(Clone, Debug)]
pub struct Stream {
    pub(crate) core: Arc<Core>,
    sealer: Sealer,
}

impl Stream {
    pub(crate) async fn open(
        home: Arc<Inner>,
        bus: Arc<dyn Bus>,
        ticket: Ticket,
        name: Name,
    ) -> Result<Self, Error> {
        let core = Core::open(home, bus, ticket, name).await?;
        Ok(Self {
            sealer: Sealer::new(core.clone()),
            core,
        })
    }

    /// Its id.
    pub fn id(&self) -> StreamId {
        self.core.id()
    }

    /// Its name in this home.
    pub fn name(&self) -> &Name {
        &self.core.name
    }

    /// What others need to join.
    pub fn ticket(&self) -> &Ticket {
        &self.core.ticket
    }

    /// Reads the access log, the session records and the keys on the bus to their end, and hands
    /// out the keys that others wait for, as far as this device may.
    ///
    /// # Errors
    ///
    /// Fails when the bus cannot be reached or the store cannot be written.
    pub async fn sync(&self) -> Result<(), Error> {
        self.core.sync().await?;
        self.core.share_owed().await
    }

    /// Follows the access log and the keys without the messages, and hands out keys as they become
    /// due, for as long as it is driven.
    pub fn attend(&self) -> Attendant {
        Attendant::new(self.core.clone())
    }

    /// Waits until the bus can be used again, after something failed because it is
    /// [away](Error::is_bus_away). Who follows the stream goes on then: nothing was lost.
    ///
    /// # Errors
    ///
    /// Fails where something else goes wrong, or where another folder has taken the place of the bus:
    /// then the stream is to be opened anew.
    pub async fn wait_for_bus(&self) -> Result<(), Error> {
        let mut pause = AWAY_PAUSE;
        loop {
            tokio::time::sleep(pause).await;
            pause = AWAY_PAUSE_MAX.min(pause * 2);
            // One that is there and that this handle cannot use is another.
            let is_folder_there = self.core.is_folder_there().await;
            match self.core.sync().await {
                Ok(()) => return Ok(()),
                Err(Error::Bus(BusError::Busy { .. })) => {}
                Err(error) if is_folder_there || !error.is_bus_away() => return Err(error),
                Err(_) => {}
            }
        }
    }

    /// Copies all that the bus has of the stream, and what comes, to another bus: messages stay
    /// sealed, and no key is needed. What an earlier run copied is not copied again.
    ///
    /// # Errors
    ///
    /// Fails when that bus cannot be opened, or is the stream's own.
    pub async fn archive_to(&self, url: &BusUrl) -> Result<Archive, Error> {
        Archive::open(self.core.clone(), url).await
    }

    /// What the bus showed since the last call that honest devices and buses do not do. Each is told
    /// once, and at most 256 wait to be taken.
    pub fn alarms(&self) -> Vec<Alarm> {
        self.core.take_alarms()
    }

    /// Seals one message and stores it on the bus; it is durable there when this returns. For many
    /// messages in a row a [`publisher`](Self::publisher) is much faster.
    ///
    /// Messages of all handles on this stream arrive in the order in which they were sealed.
    /// Dropping the future does not take the message back.
    ///
    /// # Errors
    ///
    /// Fails when this user may not publish, the message is too large, the clock is far behind, or
    /// the log is not complete: nothing was sealed then. Fails when store or bus fail. Where the bus
    /// failed after the message was sealed, and that [may pass](BusError::may_pass), the message leaves
    /// before the next one that is published through this handle, and readers are told a gap if there
    /// is none. Where the bus refused it for good, it never leaves, and readers are told a gap.
    pub async fn publish(&self, payload: &[u8]) -> Result<Published, Error> {
        publish(&self.sealer, None, payload).await
    }

    /// As [`publish`](Self::publish), on a topic below the stream, which everybody on the bus may
    /// read and which is bound into the message: on another topic it does not open. Where the bus
    /// lies on a broker whose users have topics of their own for it, it is published there.
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish), and where these topics do not include this one.
    pub async fn publish_on(&self, topic: &DataTopic, payload: &[u8]) -> Result<Published, Error> {
        self.core.check_topic(topic)?;
        publish(&self.sealer, Some(topic), payload).await
    }

    /// Seals one message, bound to a topic below the stream where there is one, and hands the envelope to
    /// the caller, who carries it: over a connection of its own, on that topic. Its position and its
    /// place in the order are durable, and the record of its session is on the bus, when this returns.
    /// What several seal at the same time, on whatever topics, shares one transaction of the store.
    ///
    /// What is handed out has its place in one order with what this handle publishes. Whoever reads all
    /// of it tells a gap where an envelope is not carried, or while it is overtaken; so dropping the
    /// future, or what it returns, leaves a gap. An envelope is to be carried at once: sealed before a
    /// removal, it opens for whom was removed, however late it comes.
    ///
    /// The bus has no say in the topic or the size, but is needed: nothing is sealed unless the access
    /// log was read within the last seconds. Beside [`Opener`]s that do much, a handle of the
    /// stream of its own seals faster: two of one handle wait for each other.
    ///
    /// ```
    /// # use sealcast::{BusUrl, DataTopic, Home, InitOptions, Passphrase, StreamOptions};
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let bus = Some(BusUrl::file(&folder.path().join("bus"))?);
    /// # let options = InitOptions { name: None, bus, passphrase: Passphrase::None };
    /// # let home = Home::init(&folder.path().join("home"), options).await?;
    /// # let plant = home.create_stream(&"plant".parse()?, StreamOptions::default()).await?;
    /// let topic: DataTopic = "plant/7/temperature".parse()?;
    /// let sealed = plant.seal(Some(&topic), b"61.4 C").await?;
    /// assert!(!sealed.envelope.windows(6).any(|bytes| bytes == b"61.4 C"));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Fails when this user may not publish, the message has more than 16 MiB, the clock is far behind,
    /// the log is not complete, or store or bus fail: nothing was sealed then.
    pub async fn seal(
        &self,
        topic: Option<&DataTopic>,
        payload: &[u8],
    ) -> Result<SealedMessage, Error> {
        let mut sealed = self.seal_all(&[(topic, payload)]).await?;
        let unsealed = Error::Internal("a message was not sealed");
        sealed.pop().ok_or(unsealed)
    }

    /// As [`seal`](Self::seal), several messages in their order, all or none, in one transaction: also with
    /// those that others seal at the same time.
    ///
    /// # Errors
    ///
    /// As [`seal`](Self::seal).
    pub async fn seal_all(
        &self,
        messages: &[(Option<&DataTopic>, &[u8])],
    ) -> Result<Vec<SealedMessage>, Error> {
        messages
            .iter()
            .try_for_each(|(_, payload)| check_carried(payload))?;
        let messages = messages.iter().map(|(topic, payload)| Message {
            topic: topic.cloned(),
            payload: SecretBytes::from(payload.to_vec()),
        });
        self.sealer.hand_out(messages.collect()).await
    }

    /// Whether a message would be sealed now: for who has one that was not, and wants to know when to bring it again.
    ///
    /// # Errors
    ///
    /// As [`seal`](Self::seal).
    pub async fn check_seal(&self) -> Result<(), Error> {
        self.sealer.check().await
    }

    /// Opens envelopes that a carrier brings; each connection of it has one of its own. Must be called
    /// on a tokio runtime, as everything here.
    ///
    /// # Errors
    ///
    /// Fails when the bus cannot be reached, unless this handle has another opener.
    pub async fn opener(&self) -> Result<Opener, Error> {
        self.opener_with(OpenerOptions::default()).await
    }

    /// As [`opener`](Self::opener), with all that can be chosen.
    ///
    /// # Errors
    ///
    /// As [`opener`](Self::opener).
    pub async fn opener_with(&self, options: OpenerOptions) -> Result<Opener, Error> {
        Opener::start(&self.core, options).await
    }

    /// Starts publishing many records, sealed in frames of up to 64 KiB or 20 ms. Must be called on
    /// a tokio runtime, as everything here.
    ///
    /// # Errors
    ///
    /// Fails when this user may not publish now.
    pub async fn publisher(&self) -> Result<Publisher, Error> {
        self.check_right().await?;
        Ok(Publisher::start(self.sealer.clone()))
    }

    /// As [`publisher`](Self::publisher), on a topic below the stream, as
    /// [`publish_on`](Self::publish_on) has it.
    ///
    /// # Errors
    ///
    /// As [`publisher`](Self::publisher), and where the bus has no such topic.
    pub async fn publisher_on(&self, topic: &DataTopic) -> Result<Publisher, Error> {
        self.core.check_topic(topic)?;
        self.check_right().await?;
        Ok(Publisher::start(self.sealer.on(topic)))
    }

    /// Starts bringing in older data, sealed at the past times that the caller states.
    ///
    /// # Errors
    ///
    /// Fails when this user may not publish now.
    pub async fn backfill(&self) -> Result<Backfill, Error> {
        self.check_right().await?;
        Ok(Backfill::new(self.sealer.clone()))
    }

    async fn check_right(&self) -> Result<(), Error> {
        self.core.freshen().await?;
        if !self.core.has_lane() {
            // The right may have been given just now.
            self.core.sync().await?;
        }
        match self.core.has_lane() {
            true => Ok(()),
            false => Err(Error::NotAllowed("no grant lets you publish now")),
        }
    }

    /// Reads what was published at the positions of an interval, then ends.
    ///
    /// # Errors
    ///
    /// Fails when the bus cannot be reached.
    pub async fn read(&self, interval: Interval) -> Result<Reader, Error> {
        self.core.sync().await?;
        put_off(self.core.share_owed().await)?;
        Reader::history(self.core.clone(), interval).await
    }

    /// Follows the stream: from now on, or from a position on with all that was published since.
    ///
    /// From now on means that what this home saw live before, or what is on the bus already, is
    /// told as a replay when it comes again. Either way, what cannot be opened yet waits on disk, and
    /// comes when its key does, through this subscription or a later one.
    ///
    /// # Errors
    ///
    /// Fails when the bus cannot be reached.
    pub async fn subscribe(&self, from: Option<Position>) -> Result<Subscription, Error> {
        self.subscribe_with(SubscribeOptions {
            from,
            ..SubscribeOptions::default()
        })
        .await
    }

    /// As [`subscribe`](Self::subscribe), with all that can be chosen.
    ///
    /// # Errors
    ///
    /// As [`subscribe`](Self::subscribe).
    pub async fn subscribe_with(&self, options: SubscribeOptions) -> Result<Subscription, Error> {
        self.core.sync().await?;
        put_off(self.core.share_owed().await)?;
        Subscription::start(self.core.clone(), options).await
    }

    /// What waits on disk for keys, told by a [`Subscription`] of this home and not opened since.
    ///
    /// # Errors
    ///
    /// Fails when the store cannot be read.
    pub async fn parked(&self) -> Result<ParkedState, Error> {
        let core = self.core.clone();
        off_thread(move || parking::state(&core)).await?
    }

    /// Answers those who ask for keys, as far as the access log and the policy allow it, until what
    /// is returned is dropped. Whoever asks after this has returned is heard. Meanwhile keys that
    /// become due to others are handed out, too.
    ///
    /// # Errors
    ///
    /// Fails when the bus cannot be reached.
    pub async fn answer(&self, options: AnswerOptions) -> Result<Answering, Error> {
        Answering::start(self.core.clone(), options).await
    }

    /// Starts a new session in this device's lane. Those still entitled are given its keys.
    ///
    /// # Errors
    ///
    /// Fails when this user may not publish now.
    pub async fn rekey(&self) -> Result<(), Error> {
        self.core.sync().await?;
        if !self.core.has_lane() {
            return Err(Error::NotAllowed(
                "only who publishes has a session to replace",
            ));
        }
        self.core.end_session().await?;
        self.sealer
            .start_session(self.core.now(), SessionKind::Live)
            .await?;
        self.core.share_owed().await
    }

    /// Makes a cut in this device's lane: returns the first position that nothing sealed so far
    /// has. Whoever's interval goes on needs nothing to follow; whoever's ended does not.
    ///
    /// # Errors
    ///
    /// Fails when this user may not publish now.
    pub async fn rotate(&self) -> Result<Position, Error> {
        self.core.sync().await?;
        match self.core.has_lane() {
            true => self.core.cut().await,
            false => Err(Error::NotAllowed("only who publishes has a lane to cut")),
        }
    }
}

async fn publish(
    sealer: &Sealer,
    topic: Option<&DataTopic>,
    payload: &[u8],
) -> Result<Published, Error> {
    let left = sealer.publish_single(topic, payload).await?;
    Ok(Published {
        position: left.position,
        records: 1,
        envelopes: left.envelopes,
    })
}

/// What is carried by others must fit into an envelope, and no more.
fn check_carried(payload: &[u8]) -> Result<(), Error> {
    match payload.len() > PAYLOAD_MAX {
        true => Err(Error::TooLarge {
            size: payload.len(),
            limit: PAYLOAD_MAX,
        }),
        false => Ok(()),
    }
}
