//! One client, from its first packet to its last, and the connection to the broker that is its own.

use std::sync::Arc;
use std::time::Duration;

use sealcast::DataTopic;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use crate::config::Limits;
use crate::counts::{Counts, Exception, Ledger, because};
use crate::down::Down;
use crate::flow::Flow;
use crate::lane::{End, Lane, Reading, Writing, lanes};
use crate::lasting::Lasts;
use crate::leaving::{Leaving, Presence};
use crate::numbers::Numbers;
use crate::packet::{
    CONNECT, Connect, NoConnect, OTHER_VERSION, Side, Version, Will, disconnect, reason,
    turned_away,
};
use crate::park::{Lot, Who};
use crate::recall::{Origin, Recall};
use crate::room::Room;
use crate::rules::Up as Act;
use crate::ruling::Ruling;
use crate::sealing::{Draft, Sealed, seal_all};
use crate::sent::Sent;
use crate::told::Told;
use crate::up::{GROWTH_MAX, Up};
use crate::upstream::{Fault, Upstream};
use crate::wire::{Incoming, Packet, PacketReader, Wire};

/// How long who is sent the last words has to take them, and the other direction to come to its end.
const LINGER: Duration = Duration::from_secs(2);
/// How long a client waits for its will to be sealed.
const WILL_WITHIN: Duration = Duration::from_secs(10);
/// The most bytes of a will, sealed or not.
const WILL_MAX: usize = u16::MAX as usize;

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) ruling: Arc<Ruling>,
    pub(crate) upstream: Upstream,
    pub(crate) limits: Limits,
    pub(crate) counts: Arc<Counts>,
    pub(crate) room: Arc<Room>,
    pub(crate) leaving: Arc<Leaving>,
    pub(crate) recall: Arc<Recall>,
}

/// A client that has not been let in yet.
struct Caller {
    number: u64,
    origin: Origin,
    /// Until when it has to say who it is.
    known_by: Instant,
    reading: Reading,
    writing: Writing,
}

/// What a client said first, as far as it is needed later.
struct Introduction {
    version: Version,
    keep_alive: u16,
    client_packet_max: usize,
    receive_max: u16,
    /// For how long its session outlives the connection.
    lasts: Lasts,
    who: Who,
    /// What goes to the broker.
    connect: Vec<u8>,
}

/// Why a client is not let in; what it is told.
struct TurnedAway(&'static str, Vec<u8>);

impl Shared {
    /// Serves a client until it or its broker is gone, or until it is told to stop.
    pub(crate) async fn serve(
        &self,
        number: u64,
        (client, origin): (Box<dyn Wire>, Origin),
        known_by: Instant,
        stop: watch::Receiver<bool>,
    ) {
        tracing::debug!(connection = number, "connected");
        let (reading, writing) = tokio::io::split(client);
        let packet_max = usize::try_from(self.limits.packet_max).unwrap_or(usize::MAX);
        let caller = Caller {
            number,
            origin,
            known_by,
            reading: PacketReader::new(reading, packet_max),
            writing,
        };
        let ended = self.attend(caller, stop).await;
        tracing::debug!(connection = number, why = ended, "disconnected");
    }

    /// Ends with why.
    async fn attend(&self, mut caller: Caller, mut stop: watch::Receiver<bool>) -> &'static str {
        let introduced = tokio::select! {
            _ = stop.wait_for(|is_stopped| *is_stopped) => return "stopped",
            introduced = self.introduce(&mut caller) => introduced,
        };
        let introduction = match introduced {
            Ok(introduction) => introduction,
            Err(TurnedAway(why, words)) => {
                farewell((caller.reading, caller.writing), &words, |_| {}).await;
                return why;
            }
        };
        let owner = introduction.who.named();
        let presence = tokio::select! {
            _ = stop.wait_for(|is_stopped| *is_stopped) => return "stopped",
            presence = self.leaving.after(owner, caller.number) => presence,
        };
        let broker = match self.reach(&introduction).await {
            Ok(broker) => broker,
            Err(error) => {
                let (connection, kind) = (caller.number, error.kind());
                let Fault(why) = Fault::of(&error);
                tracing::warn!(connection, ?kind, why, "the broker cannot be reached");
                let words = turned_away(introduction.version, reason::UNAVAILABLE);
                farewell((caller.reading, caller.writing), &words, |_| {}).await;
                return "broker away";
            }
        };
        let introduced = (&introduction, presence);
        self.relay(caller, broker, introduced, stop).await
    }

    async fn introduce(&self, caller: &mut Caller) -> Result<Introduction, TurnedAway> {
        let silently = |why| TurnedAway(why, Vec::new());
        let first = timeout_at(caller.known_by, caller.reading.next()).await;
        let packet = match first {
            Ok(Ok(Incoming::Packet(packet))) if packet.head.kind() == CONNECT => packet,
            Ok(Ok(_)) => return Err(silently("no connect")),
            Ok(Err(_)) => return Err(silently("malformed")),
            Err(_) => return Err(silently("connect late")),
        };
        let connect = read_connect(&packet)?;
        let sealed = match &connect.will {
            None => None,
            Some(will) => {
                let sealed = tokio::select! {
                    sealed = self.judge_will(caller.number, will) => sealed,
                    () = caller.reading.closed() => return Err(silently("client gone")),
                };
                let turned = |why| TurnedAway("will refused", turned_away(connect.version, why));
                sealed.map_err(turned)?
            }
        };
        // A message that grew by being sealed shrinks before the client has it.
        let growth = if self.ruling.now().rules.open() {
            GROWTH_MAX
        } else {
            0
        };
        let growth = u32::try_from(growth).unwrap_or(u32::MAX);
        let grown = connect.packet_max.map(|of| of.saturating_add(growth));
        let told = grown.into_iter().chain(self.limits.packet_limit()).min();
        // A broker that is told what the client says keeps to that itself.
        let client_max = connect.packet_max.filter(|_| growth > 0);
        let client_max = client_max.unwrap_or(u32::MAX);
        Ok(Introduction {
            version: connect.version,
            keep_alive: connect.keep_alive,
            client_packet_max: usize::try_from(client_max).unwrap_or(usize::MAX),
            receive_max: connect.receive_max.unwrap_or(u16::MAX),
            lasts: connect.lasts,
            who: Who {
                client: connect.client.to_vec(),
                user: connect.user.to_vec(),
                origin: caller.origin,
                number: caller.number,
            },
            connect: connect.encode(
                sealed.as_ref().map(|of| (&of.payload[..], of.is_envelope)),
                told,
            ),
        })
    }

    /// The envelope that a will becomes; `None` where it goes on in clear, as rules say or because there is nothing in it.
    async fn judge_will(&self, number: u64, will: &Will<'_>) -> Result<Option<Sealed>, u8> {
        let mut ledger = Ledger::new(Arc::clone(&self.counts), number);
        let mut refused = |code, why| {
            ledger.note(Exception::Refused, will.topic, code);
            Err(why)
        };
        let now = self.ruling.now();
        let (stream, fields) = match now.rules.up(will.topic) {
            Act::Pass => return Ok(None),
            Act::Seal(..) if will.clears() => return Ok(None),
            Act::Seal(stream, fields) => (stream, fields),
            Act::NoRule => return refused(because::NO_RULE, reason::NOT_AUTHORIZED),
            Act::OpenOnly => return refused(because::OPEN_ONLY, reason::NOT_AUTHORIZED),
        };
        let Ok(topic) = will.topic.parse::<DataTopic>() else {
            return refused(because::TOPIC, reason::NOT_AUTHORIZED);
        };
        if will.payload.len() + GROWTH_MAX > WILL_MAX {
            return refused(because::TOO_LARGE, reason::NOT_AUTHORIZED);
        }
        let sealing = (stream, fields);
        let draft = match Draft::new(sealing, topic, will.payload) {
            Ok(draft) => draft,
            Err(fault) => return refused(fault.code, reason::NOT_AUTHORIZED),
        };
        let drafts = [draft];
        let sealing = timeout(WILL_WITHIN, seal_all(&*now.sealing, &drafts)).await;
        match sealing.ok().and_then(|sealed| sealed.into_iter().next()) {
            Some(Ok(sealed)) if sealed.payload.len() <= WILL_MAX => {
                self.counts.count_sealed();
                Ok(Some(sealed))
            }
            Some(Ok(_)) => refused(because::TOO_LARGE, reason::NOT_AUTHORIZED),
            Some(Err(fault)) if fault.is_lasting => refused(fault.code, reason::NOT_AUTHORIZED),
            Some(Err(fault)) => refused(fault.code, reason::UNAVAILABLE),
            None => refused(because::LATE, reason::UNAVAILABLE),
        }
    }

    async fn reach(&self, introduction: &Introduction) -> std::io::Result<Box<dyn Wire>> {
        let mut broker = self.upstream.dial().await?;
        broker.write_all(&introduction.connect).await?;
        broker.flush().await?;
        Ok(broker)
    }

    async fn relay(
        &self,
        caller: Caller,
        broker: Box<dyn Wire>,
        (introduction, presence): (&Introduction, Presence),
        mut stop: watch::Receiver<bool>,
    ) -> &'static str {
        let (version, number) = (introduction.version, caller.number);
        let (broker_reading, broker_writing) = tokio::io::split(broker);
        let packet_max = usize::try_from(self.limits.packet_max).unwrap_or(usize::MAX);
        let broker_reading = PacketReader::new(broker_reading, packet_max);
        let told = Arc::new(Told::new(introduction.keep_alive, introduction.lasts));
        let hashing = self.recall.hashing();
        let numbers = Arc::new(Numbers::new(introduction.receive_max, hashing));
        let up = Up::new(
            Arc::clone(&self.ruling),
            Flow::new(version, packet_max),
            (Arc::clone(&told), Arc::clone(&numbers)),
            Ledger::new(Arc::clone(&self.counts), number),
            (self.sent(introduction), presence.has_left()),
        );
        let down = Down::new(
            Arc::clone(&self.ruling),
            Flow::new(version, packet_max),
            (
                Arc::clone(&told),
                Arc::clone(&numbers),
                Arc::clone(&self.recall),
            ),
            Ledger::new(Arc::clone(&self.counts), number),
            (introduction.client_packet_max, &self.limits),
            Lot::new(
                self.ruling.now().sealing.keeping(),
                Arc::clone(&self.room),
                introduction.who.clone(),
            ),
        );
        let (mut up, mut down) = lanes(
            (caller.reading, caller.writing),
            (broker_reading, broker_writing),
            (up, down),
        );
        let leave = down.take.lot.leave();
        let stopped = async {
            tokio::select! {
                // Who could tell is gone where this fails, and so is the reason to go on.
                _ = stop.wait_for(|is_stopped| *is_stopped) => {}
                () = leave.notified() => {}
            }
        };
        let (why, can_be_told) = run(&mut up, &mut down, stopped).await;
        if why == Why::BrokerGone {
            self.upstream.was_lost();
        }
        down.take.end().await;
        let words = match why.reason() {
            Some(reason) if can_be_told => last_words(version, down.take.is_welcome(), reason),
            _ => Vec::new(),
        };
        // A broker that is gone does not hear what its client has by now, and sends it again.
        let hears = |packet: &Packet| {
            let (kind, body) = (packet.head.kind(), packet.body());
            let session = told.session().map(|of| &**of);
            let _is_whole = numbers.acknowledged(kind, body, session).is_ok();
        };
        // Whoever comes next is to know that, and the broker to have read all that the client said.
        presence.has_left().send_replace(true);
        tokio::join!(
            farewell((up.from, down.to), &words, hears),
            farewell((down.from, up.to), &[], |_| {})
        );
        drop(presence);
        if let Some(session) = told.session() {
            self.recall.left(session);
        }
        why.as_str()
    }

    /// What was sealed of the client's messages that are on their way.
    fn sent(&self, introduction: &Introduction) -> Sent {
        Sent::new(
            self.ruling.now().sealing.keeping(),
            Arc::clone(&self.room),
            &introduction.who,
            introduction.lasts.is_brief(),
        )
    }
}

fn read_connect<'a>(packet: &'a Packet) -> Result<Connect<'a>, TurnedAway> {
    let is_right = packet.head.check(Version::Five, Side::Client);
    let connect = is_right.map_err(NoConnect::from);
    connect
        .and_then(|()| Connect::parse(packet.body()))
        .map_err(|fault| match fault {
            NoConnect::Malformed => TurnedAway("malformed", Vec::new()),
            NoConnect::OtherVersion => TurnedAway("other version", OTHER_VERSION.to_vec()),
        })
}

/// What a client is told before its connection is closed: it is turned away, where it was not let in.
fn last_words(version: Version, is_welcome: bool, reason: u8) -> Vec<u8> {
    match (is_welcome, version) {
        (true, Version::Five) => disconnect(reason).to_vec(),
        (true, Version::Three) => Vec::new(),
        (false, _) => {
            let is_both = !matches!(reason, reason::SHUTTING_DOWN | reason::KEEP_ALIVE);
            turned_away(version, if is_both { reason } else { reason::UNAVAILABLE })
        }
    }
}

/// Why a relay came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    ClientGone,
    /// The client cannot be served, for a reason as MQTT 5 has it.
    ClientRefused(u8),
    BrokerGone,
    /// The broker says what no broker may say.
    BrokerRefused(u8),
    Stopped,
}

impl Why {
    fn as_str(self) -> &'static str {
        match self {
            Self::ClientGone => "client gone",
            Self::ClientRefused(_) => "client refused",
            Self::BrokerGone => "broker gone",
            Self::BrokerRefused(_) => "broker refused",
            Self::Stopped => "stopped",
        }
    }

    /// What the client is told.
    fn reason(self) -> Option<u8> {
        match self {
            Self::ClientRefused(reason) => Some(reason),
            Self::BrokerRefused(reason::KEEP_ALIVE) => Some(reason::KEEP_ALIVE),
            Self::Stopped => Some(reason::SHUTTING_DOWN),
            Self::ClientGone | Self::BrokerGone | Self::BrokerRefused(_) => None,
        }
    }
}

/// Passes on in both directions. When one ends, the other comes to the end of the packet that it is at. Tells why it
/// ended, and whether the client can be told anything: it cannot in the middle of a packet.
async fn run(
    up: &mut Lane<Up>,
    down: &mut Lane<Down>,
    stopped: impl Future<Output = ()>,
) -> (Why, bool) {
    let (halting, halted) = watch::channel(false);
    let mut up = std::pin::pin!(up.run(halted.clone()));
    let mut down = std::pin::pin!(down.run(halted));
    let halt = || halting.send_replace(true);
    let (why, down_ended) = tokio::select! {
        ended = &mut up => {
            let why = match ended {
                End::SenderGone => Why::ClientGone,
                End::ReceiverGone => Why::BrokerGone,
                End::Halted => Why::Stopped,
                End::Refused(reason) => Why::ClientRefused(reason),
            };
            // What a broker said before it went is still to be passed on.
            if why != Why::BrokerGone {
                halt();
            }
            (why, timeout(LINGER, down).await.ok())
        }
        ended = &mut down => {
            halt();
            let why = match ended {
                End::SenderGone => Why::BrokerGone,
                End::ReceiverGone => Why::ClientGone,
                End::Halted => Why::Stopped,
                End::Refused(reason) => Why::BrokerRefused(reason),
            };
            // What it is at is for nobody where the broker is gone: the client sends it again.
            if why == Why::ClientGone || why == Why::Stopped {
                let _is_ended = timeout(LINGER, up).await.is_ok();
            }
            (why, Some(ended))
        }
        () = stopped => {
            halt();
            let (_, down) = tokio::join!(timeout(LINGER, up), timeout(LINGER, down));
            (Why::Stopped, down.ok())
        }
    };
    (why, down_ended.is_some_and(|of| of != End::ReceiverGone))
}

/// Says the last words, and closes when they have arrived: what was sent meanwhile is read, heard as far as it is packets, and
/// thrown away, since a connection that is closed before takes with it what was said.
async fn farewell(
    (mut reading, mut writing): (Reading, Writing),
    words: &[u8],
    hears: impl Fn(&Packet),
) {
    let all = async {
        writing.write_all(words).await?;
        writing.shutdown().await?;
        while let Ok(incoming) = reading.next().await {
            if let Incoming::Packet(packet) = incoming {
                hears(&packet);
            }
        }
        let wire = reading.wire();
        let mut thrown_away = [0; 4096];
        while wire.read(&mut thrown_away).await? > 0 {}
        Ok::<(), std::io::Error>(())
    };
    // Who does not take them in time goes without.
    let _is_said = timeout(LINGER, all).await.is_ok();
}
