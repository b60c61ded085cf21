//! Opening envelopes that the caller carries.

use std::sync::{Arc, Mutex};

use sealcast_engine::{Arrival, CLOCK_BEHIND_MS_MAX, Prospect, Sightings};
use sealcast_protocol::{DataTopic, Position};
use tokio::sync::watch;

use crate::asking::Asking;
use crate::core::{Core, lock};
use crate::delivery::{Delivery, next_delivery};
use crate::error::Error;
use crate::judging::{Brought, Judged};
use crate::lookout::{Looked, Lookout};

/// Envelopes that are judged at once, at most, and bytes of them behind which no other is.
const AT_ONCE_MAX: usize = 64;
const BYTES_AT_ONCE: usize = 1 << 20;

/// How to open what a carrier brings.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenerOptions {
    /// What was sealed before this is told as a replay, unless it is [kept](Arrival::Kept); ten minutes
    /// before now where not given. A carrier that hands out what had waited for its client, or wills,
    /// which are sealed long before they come, says since when that is.
    pub from: Option<Position>,
}

/// Opens envelopes of a stream that come over a connection of the caller's; made by
/// [`Stream::opener`](crate::Stream::opener). Each connection has its own.
///
/// What is told is what a [`Subscription`](crate::Subscription) tells, but gaps and branches: a carrier
/// shows a part of a stream, in any order, so that nothing can be said of what does not come. That a
/// publisher may publish, that the message is its own, unaltered, of this stream and this topic, and that
/// it comes once, is looked at as everywhere. Once means once for each opener, and for as long as it
/// remembers: 4,096 messages and more of each device; what is older than it remembers is a replay.
///
/// While there is one, the stream's access log, session records and keys are followed, and keys that
/// become due to others are handed out, as an [`Attendant`](crate::Attendant) does. All openers of one
/// handle of a stream share that, and open one after another.
///
/// What cannot be opened is told, and is not kept here: the caller keeps it, or lets it go. Keys that the
/// access log gives are asked for meanwhile, unless the home [says otherwise](crate::AskingOptions).
///
/// ```
/// # use sealcast::{Bound, BusUrl, GrantOptions, Home, InitOptions, Passphrase, Position, Roles, StreamOptions};
/// use sealcast::{Arrival, DataTopic, State};
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let bus = BusUrl::file(&folder.path().join("bus"))?;
/// # let options = || InitOptions { name: None, bus: Some(bus.clone()), passphrase: Passphrase::None };
/// # let alice = Home::init(&folder.path().join("alice"), options()).await?;
/// # let bob = Home::init(&folder.path().join("bob"), options()).await?;
/// # let plant = alice.create_stream(&"plant".parse()?, StreamOptions::default()).await?;
/// # let joined = bob.join(plant.ticket(), None).await?;
/// let topic: DataTopic = "plant/7/temperature".parse()?;
/// let sealed = plant.seal(Some(&topic), b"61.4 C").await?;
///
/// // The envelope travels, as it is, on that topic.
/// let mut opener = joined.opener().await?;
/// let told = opener.open(Some(&topic), &sealed.envelope, Arrival::Live).await?;
/// assert_eq!(told.deliveries[0].state, State::Sealed);
/// assert!(told.may_open_later);
///
/// # let all = GrantOptions { user: bob.user(), roles: Roles::READER, from: Bound::At(Position::START), until: Bound::At(Position::END), reshare: false };
/// plant.grant(all).await?;
/// let opened = loop {
///     opener.changed().await;
///     let told = opener.open(Some(&topic), &sealed.envelope, Arrival::Live).await?;
///     if !told.may_open_later {
///         break told;
///     }
/// };
/// assert_eq!(opened.deliveries[0].payload.as_deref(), Some(&b"61.4 C"[..]));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Opener {
    lookout: Arc<Lookout>,
    asking: Option<Arc<Asking>>,
    seen: Arc<Mutex<Sightings>>,
    /// As many envelopes are judged at once, at most.
    at_once: usize,
    news: watch::Receiver<u64>,
}

/// What became of an envelope that a carrier brought.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Carried {
    /// What there is to tell: its records where it opened, one or those of a frame, or why it did not.
    /// A fork is told before what opens in spite of it.
    pub deliveries: Vec<Delivery>,
    /// Whether the same bytes may open later: [`Opener::changed`] says when to try again. That is so of
    /// what its publisher signed and what lacks a key, a grant, or the record of its session; and of
    /// what an unknown sender sealed, while the bus is away and so nobody can say who that is.
    pub may_open_later: bool,
    /// Whether its sender signed it, where it did not open and may later: it is nobody else's.
    pub is_signed: bool,
}

impl Opener {
    pub(crate) async fn start(core: &Arc<Core>, options: OpenerOptions) -> Result<Self, Error> {
        let lookout = core.lookout().await?;
        let slack = || Position(core.now().0.saturating_sub(CLOCK_BEHIND_MS_MAX));
        let from = options.from.unwrap_or_else(slack);
        let asks = core.home.asking().subscriptions_ask;
        Ok(Self {
            news: lookout.news(),
            lookout,
            asking: asks.then(|| core.asking()),
            seen: Arc::new(Mutex::new(Sightings::since(from))),
            at_once: AT_ONCE_MAX,
        })
    }

    /// Judges an envelope that came on a topic, and opens it. Where something of it is not known, what
    /// the bus has by now is read first, so often at most.
    ///
    /// An envelope that was opened is a replay when it comes again, unless it is kept. One that was not
    /// opened may come again at any time. Dropping the future changes nothing: the same envelope may be
    /// handed in again.
    ///
    /// # Errors
    ///
    /// Fails when the store cannot be read or written. Whatever an envelope is, and whether or not the
    /// bus is there, is no error.
    pub async fn open(
        &mut self,
        topic: Option<&DataTopic>,
        envelope: &[u8],
        arrival: Arrival,
    ) -> Result<Carried, Error> {
        let told = self.open_some(&[(topic, envelope, arrival)]).await?;
        let told = told.into_iter().next();
        told.ok_or(Error::Internal("an envelope was not judged"))
    }

    /// As [`open`](Self::open), several in their order, which is much faster: the first some of them, and one at least
    /// where there is one. Whoever has more hands in the rest. Nothing is told that would not be told of one after
    /// another.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub async fn open_some(
        &mut self,
        messages: &[(Option<&DataTopic>, &[u8], Arrival)],
    ) -> Result<Vec<Carried>, Error> {
        let brought = self.first_of(messages);
        if brought.is_empty() {
            return Ok(Vec::new());
        }
        let next_look = self.lookout.before_next_look();
        let judging = self.lookout.judge(brought.clone(), self.seen.clone());
        let (mut judged, mut looked) = (judging.await?, Looked::Done);
        let is_open = |of: &Judged| of.carried.prospect != Prospect::Settled;
        if judged.iter().any(is_open) {
            looked = self.lookout.look(next_look).await?;
            if looked == Looked::Done {
                judged = self.lookout.judge(brought, self.seen.clone()).await?;
            }
        }
        Ok(self.tell(judged, looked))
    }

    /// As many as are judged at once.
    fn first_of(&self, messages: &[(Option<&DataTopic>, &[u8], Arrival)]) -> Arc<[Brought]> {
        let mut bytes = 0;
        let first = messages.iter().take(self.at_once).take_while(|of| {
            let is_room = bytes < BYTES_AT_ONCE;
            bytes += of.1.len();
            is_room
        });
        let brought = first.map(|(topic, envelope, arrival)| Brought {
            topic: topic.cloned(),
            envelope: envelope.to_vec(),
            arrival: *arrival,
        });
        brought.collect()
    }

    /// Tells what was judged, up to the first that would be judged otherwise after those before it. Nobody can stop it:
    /// what is noted is handed out.
    fn tell(&mut self, judged: Vec<Judged>, looked: Looked) -> Vec<Carried> {
        let (mut told, count) = (Vec::with_capacity(judged.len()), judged.len());
        for mut of in judged {
            if let Some(sighting) = &of.carried.sighting {
                let mut seen = lock(&self.seen);
                if !told.is_empty() && !seen.is_new(sighting) {
                    break;
                }
                seen.note(sighting);
            }
            let (core, asking) = (self.lookout.core(), self.asking.as_deref());
            let next = || next_delivery(core, (asking, None), &mut of.events);
            told.push(Carried {
                deliveries: std::iter::from_fn(next).collect(),
                may_open_later: match of.carried.prospect {
                    Prospect::Settled => false,
                    Prospect::Unread => looked == Looked::Away,
                    Prospect::Waits => true,
                },
                is_signed: of.carried.prospect == Prospect::Waits,
            });
        }
        // Whoever has envelopes judged in vain has fewer of them judged at once.
        self.at_once = match told.len() == count {
            true => AT_ONCE_MAX.min(self.at_once * 2),
            false => told.len(),
        };
        told
    }

    /// Waits until something was learned, from the access log, session records or keys, since this
    /// returned before, or since the opener was made: what did not open may open now. A caller may stop
    /// waiting and come back: nothing is lost.
    pub async fn changed(&mut self) {
        if self.news.changed().await.is_err() {
            // Whoever tells lives as long as this.
            std::future::pending().await
        }
    }
}
