//! The task that keeps a connection, makes it anew when it breaks, and sends again what was not acknowledged.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use sealcast_bus::jittered;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::groups::Groups;
use super::ids::Ids;
use super::{
    BURST, Came, Client, Command, Event, FILTERS_MAX, FLIGHT_BYTES_MAX, FLIGHT_MAX, Held, LASTING,
    PACKETS_WAITING_MAX, PING, RECONNECT, RECONNECT_MAX, Reading, Receipt, SILENCE_MAX, Subscribed,
    Taken, read_all, write_out,
};
use crate::dial::{Connection, Dial, Incoming, TAKEN_MIN};
use crate::fault::Fault;
use crate::packet::{
    Filter, Packet, Publish, REFUSED, Version, Welcome, put_goodbye, put_ping, put_publish,
    put_publish_done, put_subscribe, put_unsubscribe,
};

/// A message that is on its way, or is to be again.
struct Flight {
    id: u16,
    publish: Publish,
    group: u64,
    /// The connection over which it was sent last.
    connection: u64,
}

/// A message that is to set out when there is room.
struct Ready {
    publish: Publish,
    group: u64,
    /// What the whole group takes, with its last message.
    held: Option<Held>,
}

/// What its users hold the other ends of.
pub(super) struct Ends {
    pub(super) commands: mpsc::Receiver<Command>,
    /// Apart, since they have their turn also while no more messages may set out.
    pub(super) receipts: mpsc::UnboundedReceiver<Receipt>,
    pub(super) taken: watch::Sender<Option<Taken>>,
}

pub(super) struct Runner {
    dial: Dial,
    client: Client,
    ends: Ends,
    on_event: Box<dyn FnMut(Event) + Send>,
    /// How many connections there were.
    connections: u64,
    ids: Ids,
    groups: Groups,
    ready: VecDeque<Ready>,
    flight: VecDeque<Flight>,
    flight_bytes: usize,
    /// Who waits for subscriptions, and to what.
    asked: BTreeMap<u16, (Vec<Filter>, Subscribed)>,
    /// What is subscribed to with each connection.
    filters: BTreeSet<Filter>,
}

impl Runner {
    pub(super) fn new(
        dial: Dial,
        client: Client,
        ends: Ends,
        on_event: Box<dyn FnMut(Event) + Send>,
    ) -> Self {
        Self {
            dial,
            client,
            ends,
            on_event,
            connections: 0,
            ids: Ids::default(),
            groups: Groups::default(),
            ready: VecDeque::new(),
            flight: VecDeque::new(),
            flight_bytes: 0,
            asked: BTreeMap::new(),
            filters: BTreeSet::new(),
        }
    }

    /// `first`: where there is a connection already.
    pub(super) async fn run(mut self, mut first: Option<Connection>) {
        let mut pause = RECONNECT;
        loop {
            let connection = match first.take() {
                Some(connection) => connection,
                None => self.connect(&mut pause).await,
            };
            let begun = Instant::now();
            let _fault = self.serve(connection).await;
            // One that was closed at once may be closed again: another has the same client id.
            pause = match begun.elapsed() < LASTING {
                true => RECONNECT_MAX.min(pause * 2),
                false => RECONNECT,
            };
            self.asked.clear();
            self.forget_unawaited();
            sleep(jittered(pause)).await;
        }
    }

    /// Makes a connection, as often as it takes.
    async fn connect(&mut self, pause: &mut Duration) -> Connection {
        loop {
            let dialled = self.dial.connect(&self.client.id, self.client.kept_for);
            if let Ok(connection) = dialled.await {
                return connection;
            }
            *pause = RECONNECT_MAX.min(*pause * 2);
            sleep(jittered(*pause)).await;
        }
    }

    /// Uses a connection until it breaks.
    async fn serve(&mut self, connection: Connection) -> Result<(), Fault> {
        let Connection {
            version,
            welcome,
            reader,
            mut writer,
        } = connection;
        let pulse = Arc::clone(&reader.pulse);
        let (packets_tx, mut packets) = mpsc::channel(PACKETS_WAITING_MAX);
        // Reads on while the other side is slow to take what is written.
        let _reading = Reading(tokio::spawn(read_all(reader, packets_tx)));
        let mut out = BytesMut::new();
        self.begin(version, welcome, &mut out);
        let flight_max = FLIGHT_MAX.min(usize::from(welcome.receive_max));
        let mut ping_at = Instant::now() + PING;
        loop {
            self.set_out(version, flight_max, &mut out);
            write_out(&mut writer, &mut out, &pulse).await?;
            let has_room = self.ready.is_empty() && self.has_room(flight_max, &out);
            tokio::select! {
                packet = packets.recv() => {
                    self.take(packet.unwrap_or(Err(Fault::Closed))?, &mut out)?;
                    for _ in 0..BURST {
                        let Ok(packet) = packets.try_recv() else { break };
                        self.take(packet?, &mut out)?;
                    }
                }
                Some(receipt) = self.ends.receipts.recv() => {
                    self.acknowledge(receipt, &mut out);
                    while let Ok(receipt) = self.ends.receipts.try_recv() {
                        self.acknowledge(receipt, &mut out);
                    }
                }
                command = self.ends.commands.recv(), if has_room => {
                    let Some(command) = command else {
                        put_goodbye(&mut out);
                        return writer.write_all(&out).await.map_err(Fault::no_answer);
                    };
                    self.obey(version, command, &mut out);
                    for _ in 0..BURST {
                        self.set_out(version, flight_max, &mut out);
                        if !self.ready.is_empty() || !self.has_room(flight_max, &out) {
                            break;
                        }
                        let Ok(command) = self.ends.commands.try_recv() else { break };
                        self.obey(version, command, &mut out);
                    }
                }
                () = sleep_until(ping_at) => {
                    if pulse.silence() > SILENCE_MAX {
                        return Err(Fault::Late);
                    }
                    put_ping(&mut out);
                    ping_at = Instant::now() + PING;
                }
            }
        }
    }

    /// Subscribes, and sends again what was not acknowledged.
    fn begin(&mut self, version: Version, welcome: Welcome, out: &mut BytesMut) {
        self.connections += 1;
        let packet_max = match version {
            Version::Three => TAKEN_MIN,
            Version::Five => welcome.packet_max,
        };
        let packet_max = usize::try_from(packet_max).unwrap_or(usize::MAX);
        self.ends.taken.send_replace(Some(Taken {
            packet_max,
            has_of_others: version == Version::Five,
        }));
        let filters: Vec<_> = self.filters.iter().cloned().collect();
        for some in filters.chunks(FILTERS_MAX) {
            // Nobody waits for the answer, so that the number is free again.
            let id = self.ids.draw();
            put_subscribe(version, id, some, out);
            self.ids.give_back(id);
        }
        for of in &mut self.flight {
            // To a broker that does not know the session, it is another message.
            let is_again = welcome.has_session && of.connection > 0;
            put_publish(version, (of.id, is_again), &of.publish, out);
            of.connection = self.connections;
        }
        self.flight_bytes = self.flight.iter().map(|of| of.publish.payload.len()).sum();
        let has_session = welcome.has_session;
        (self.on_event)(Event::Up { has_session });
    }

    fn obey(&mut self, version: Version, command: Command, out: &mut BytesMut) {
        match command {
            Command::Publish(group, done, held) => {
                if done.is_closed() {
                    return;
                }
                let number = self.groups.begin(group.len(), done);
                let ready = group.into_iter().map(|publish| Ready {
                    publish,
                    group: number,
                    held: None,
                });
                self.ready.extend(ready);
                if let Some(last) = self.ready.back_mut() {
                    last.held = Some(held);
                }
            }
            // Whoever asked may have asked again.
            Command::Subscribe(_, done) if done.is_closed() => {}
            Command::Subscribe(filters, done) => {
                let id = self.ids.draw();
                put_subscribe(version, id, &filters, out);
                if self.client.kept_for == 0 {
                    self.filters.extend(filters.iter().cloned());
                }
                self.asked.insert(id, (filters, done));
            }
            Command::Unsubscribe(filters) => {
                let id = self.ids.draw();
                put_unsubscribe(version, id, &filters, out);
                self.ids.give_back(id);
                self.filters
                    .retain(|filter| !filters.contains(&filter.name));
            }
        }
    }

    fn has_room(&self, flight_max: usize, out: &BytesMut) -> bool {
        self.flight.len() < flight_max
            && self.flight_bytes < FLIGHT_BYTES_MAX
            && out.len() < FLIGHT_BYTES_MAX
    }

    /// Has as many messages set out as there is room for.
    fn set_out(&mut self, version: Version, flight_max: usize, out: &mut BytesMut) {
        while self.has_room(flight_max, out)
            && let Some(ready) = self.ready.pop_front()
        {
            let Ready {
                publish,
                group,
                held,
            } = ready;
            let id = self.ids.draw();
            put_publish(version, (id, false), &publish, out);
            self.flight_bytes += publish.payload.len();
            self.flight.push_back(Flight {
                id,
                publish,
                group,
                connection: self.connections,
            });
            drop(held);
        }
    }

    /// Leaves out what nobody waits for any more.
    fn forget_unawaited(&mut self) {
        self.flight.retain(|of| !self.groups.is_unawaited(of.group));
        self.ready.retain(|of| !self.groups.is_unawaited(of.group));
        self.groups.forget_unawaited();
        self.ids = Ids::default();
        for of in &self.flight {
            self.ids.take(of.id);
        }
    }

    fn acknowledge(&self, receipt: Receipt, out: &mut BytesMut) {
        // The broker sends what another connection brought over this one, too.
        if receipt.connection == self.connections {
            put_publish_done(receipt.id, out);
        }
    }

    fn take(&mut self, (incoming, held): Came, out: &mut BytesMut) -> Result<(), Fault> {
        match incoming {
            Incoming::Packet(Packet::Publish(publish, Some(id))) => {
                let connection = self.connections;
                if self.client.kept_for == 0 {
                    put_publish_done(id, out);
                }
                let receipt = Receipt { connection, id };
                (self.on_event)(Event::Message {
                    publish,
                    receipt,
                    held,
                });
            }
            Incoming::Packet(Packet::Publish(publish, None)) => {
                (self.on_event)(Event::Message {
                    publish,
                    receipt: Receipt::NONE,
                    held,
                });
            }
            Incoming::Oversized(None) => {}
            Incoming::Oversized(Some(id)) => put_publish_done(id, out),
            Incoming::Packet(Packet::PublishDone { id, code }) => self.land(id, code),
            Incoming::Packet(Packet::SubscribeDone { id, codes }) => {
                if let Some((mut filters, done)) = self.asked.remove(&id) {
                    self.ids.give_back(id);
                    let mut codes = codes.iter();
                    filters.retain(|_| codes.next().is_none_or(|code| *code >= REFUSED));
                    let refused = filters.into_iter().map(|filter| filter.name);
                    // Whoever asked may have left.
                    let _is_told = done.send(refused.collect()).is_ok();
                }
            }
            Incoming::Packet(Packet::Goodbye(code)) => return Err(Fault::Goodbye(code)),
            Incoming::Packet(
                Packet::Pong | Packet::UnsubscribeDone | Packet::Welcome(_) | Packet::Turned(_),
            ) => {}
        }
        Ok(())
    }

    /// A message has arrived.
    fn land(&mut self, id: u16, code: u8) {
        let Some(index) = self.flight.iter().position(|of| of.id == id) else {
            return;
        };
        if let Some(landed) = self.flight.remove(index) {
            self.ids.give_back(id);
            self.flight_bytes -= landed.publish.payload.len();
            self.groups.land(landed.group, code);
        }
    }
}
