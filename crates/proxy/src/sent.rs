//! What was sealed of a client's messages of QoS 2 that are on their way to the broker: `spec/proxy.md`.
//!
//! A broker may hold a message that comes again against what it has under that number, and takes another envelope for
//! another message. So a client that sends one again has the same envelope sent, whatever became of connections, or of
//! the proxy, in between.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sealcast::{ShelfChange, ShelfOwner};

use crate::counts::{Counts, because};
use crate::packet::{PUBLISH, PUBREL, Publish, id_at_start};
use crate::park::{CONTENT_MAX, Keeping, NotKept, Who, now};
use crate::room::Room;
use crate::sealing::Sealed;
use crate::told::{Answer, Told};
use crate::wire::Incoming;

/// The version of a label.
const LABEL: u8 = 3;
const LABEL_LEN: usize = 30;

/// What is known of an envelope that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Label {
    /// Else there is JSON around it.
    is_envelope: bool,
    /// When it was sealed, in milliseconds of Unix time.
    sealed: u64,
    pub(crate) bytes: u64,
    /// Of its stream, its topic, how long its message is and which fields of it are sealed: nothing is kept that says what is in
    /// that.
    mark: [u8; 16],
}

impl Label {
    fn encode(&self) -> Vec<u8> {
        let bytes = u32::try_from(self.bytes).unwrap_or(u32::MAX);
        let mut label = vec![LABEL, self.is_envelope.into()];
        label.extend_from_slice(&self.sealed.to_be_bytes());
        label.extend_from_slice(&bytes.to_be_bytes());
        label.extend_from_slice(&self.mark);
        label
    }

    pub(crate) fn read(label: &[u8]) -> Option<Self> {
        let label: &[u8; LABEL_LEN] = label.try_into().ok()?;
        let (head, rest) = label.split_first_chunk::<2>()?;
        let (sealed, rest) = rest.split_first_chunk()?;
        let (bytes, mark) = rest.split_first_chunk()?;
        let [LABEL, is_envelope @ (0 | 1)] = *head else {
            return None;
        };
        Some(Self {
            is_envelope: is_envelope == 1,
            sealed: u64::from_be_bytes(*sealed),
            bytes: u32::from_be_bytes(*bytes).into(),
            mark: mark.try_into().ok()?,
        })
    }

    pub(crate) fn is_old(&self, now: u64, age_max: Duration) -> bool {
        u128::from(now.saturating_sub(self.sealed)) > age_max.as_millis()
    }
}

/// The envelopes of one client's session, by the numbers that the client gave its messages.
#[derive(Debug)]
pub(crate) struct Sent {
    keeping: Arc<dyn Keeping>,
    room: Arc<Room>,
    /// There is none where no session outlives the connection, or where the broker does not let the client in.
    owner: Option<ShelfOwner>,
    /// Not looked up as long as there is nothing of QoS 2.
    known: Option<BTreeMap<u16, Label>>,
    /// Those that come again with what is dealt with now.
    found: BTreeMap<u16, Sealed>,
    /// What is not durable yet.
    changes: Vec<ShelfChange>,
    /// How many envelopes that takes away, and bytes of them.
    freed: (u64, u64),
}

impl Sent {
    pub(crate) fn new(
        keeping: Arc<dyn Keeping>,
        room: Arc<Room>,
        who: &Who,
        is_brief: bool,
    ) -> Self {
        Self {
            keeping,
            room,
            owner: (!is_brief && !who.client.is_empty()).then(|| who.sender()),
            known: None,
            found: BTreeMap::new(),
            changes: Vec::new(),
            freed: (0, 0),
        }
    }

    /// Finds the envelopes of what comes again. Where the broker has a new session, nothing does.
    ///
    /// Before it has let the client in that may be anybody: it waits for that, with QoS 1 as well, of which nothing is kept here.
    pub(crate) async fn find(
        &mut self,
        burst: &[Incoming],
        told: &Told,
        counts: &Counts,
    ) -> Result<(), NotKept> {
        self.found.clear();
        let Some(owner) = self.owner else {
            return Ok(());
        };
        let Interest {
            is_acknowledged,
            is_any,
            again,
        } = of_interest(burst);
        if !is_acknowledged && !is_any {
            return Ok(());
        }
        let answer = told.answer().await;
        if answer == Answer::Refused {
            self.owner = None;
            return Ok(());
        }
        if !is_any {
            return Ok(());
        }
        let is_session_new = answer == Answer::NewSession;
        if let Err(fault) = self.look_up(owner, is_session_new, counts).await {
            if fault != NotKept::DAMAGED {
                return Err(fault);
            }
            // Clients are served without.
            self.owner = None;
            return Ok(());
        }
        let known = self.known.iter().flatten();
        let again = known.filter(|(id, _)| again.contains(id));
        let (ids, labels): (Vec<_>, Vec<_>) = again.map(|(id, of)| (*id, *of)).unzip();
        if ids.is_empty() {
            return Ok(());
        }
        let numbers = ids.iter().copied().map(u64::from).collect();
        let contents = self.keeping.contents(owner, numbers).await?;
        for ((id, label), payload) in ids.into_iter().zip(labels).zip(contents) {
            if let Some(payload) = payload {
                let is_envelope = label.is_envelope;
                let sealed = Sealed {
                    payload,
                    is_envelope,
                };
                self.found.insert(id, sealed);
            }
        }
        Ok(())
    }

    /// Notes what is kept since before, or throws it away.
    async fn look_up(
        &mut self,
        owner: ShelfOwner,
        is_session_new: bool,
        counts: &Counts,
    ) -> Result<(), NotKept> {
        if self.known.is_some() {
            return Ok(());
        }
        self.room.look(&*self.keeping, counts).await?;
        let mut known = BTreeMap::new();
        for label in self.keeping.labels(Some(owner)).await?.readable {
            let (id, of) = (u16::try_from(label.number), Label::read(&label.label));
            match (id, of) {
                (Ok(id), Some(of)) if !is_session_new => {
                    known.insert(id, of);
                }
                (_, of) => self.throw_away(label.number, of.map_or(0, |of| of.bytes)),
            }
        }
        self.known = Some(known);
        Ok(())
    }

    /// What was sealed of a message before, where it is one that comes again.
    pub(crate) fn again(&mut self, publish: &Publish<'_>, mark: &[u8; 16]) -> Option<Sealed> {
        let id = publish.id.filter(|_| publish.comes_again())?;
        let label = self.known.as_ref()?.get(&id)?;
        (label.mark == *mark).then(|| self.found.remove(&id))?
    }

    /// Something was sealed, and is kept for as long as its client may send it again, where there is room.
    pub(crate) fn note(&mut self, publish: &Publish<'_>, mark: [u8; 16], sealed: Sealed) {
        let (Some(owner), Some(id)) = (self.owner, publish.id) else {
            return;
        };
        if publish.qos() != 2 {
            return;
        }
        self.released(id);
        if sealed.payload.len() > CONTENT_MAX {
            return;
        }
        let bytes = sealed.payload.len() as u64;
        let Some(known) = self.known.as_mut() else {
            return;
        };
        if !self.room.take_sent(owner, bytes) {
            return;
        }
        let label = Label {
            is_envelope: sealed.is_envelope,
            sealed: now(),
            bytes,
            mark,
        };
        known.insert(id, label);
        self.changes.push(ShelfChange::Put {
            number: id.into(),
            label: label.encode(),
            content: sealed.payload,
        });
    }

    /// Another message has the number of what was sealed before, if that is of QoS 2.
    pub(crate) fn replaced(&mut self, publish: &Publish<'_>) {
        if let Some(id) = publish.id.filter(|_| publish.qos() == 2) {
            self.released(id);
        }
    }

    /// A client does not send again what had a number.
    pub(crate) fn released(&mut self, id: u16) {
        let known = self.known.as_mut();
        if let Some(label) = known.and_then(|known| known.remove(&id)) {
            self.throw_away(id.into(), label.bytes);
        }
    }

    fn throw_away(&mut self, number: u64, bytes: u64) {
        self.freed.0 += 1;
        self.freed.1 += bytes;
        self.changes.push(ShelfChange::Remove { number });
    }

    /// Makes durable what was changed. Before that nothing of it may leave. Where this is given up, that goes on, and so
    /// does what it means for the room.
    pub(crate) async fn keep(&mut self) -> Result<(), NotKept> {
        let Some(owner) = self.owner.filter(|_| !self.changes.is_empty()) else {
            return Ok(());
        };
        let changes = std::mem::take(&mut self.changes);
        let (freed, put) = (std::mem::take(&mut self.freed), put(&changes));
        let (keeping, room) = (Arc::clone(&self.keeping), Arc::clone(&self.room));
        let changing = tokio::spawn(async move {
            let kept = keeping.change(owner, changes).await;
            // What is not gone takes room still, and what is not there none.
            let (messages, bytes) = if kept.is_ok() { freed } else { put };
            room.give_back(owner, messages, bytes);
            kept
        });
        changing.await.unwrap_or(Err(NotKept(because::INTERNAL)))
    }
}

/// How many envelopes some changes put, and bytes of them.
fn put(changes: &[ShelfChange]) -> (u64, u64) {
    let bytes = changes.iter().filter_map(|change| match change {
        ShelfChange::Put { content, .. } => Some(content.len() as u64),
        ShelfChange::Relabel { .. } | ShelfChange::Remove { .. } => None,
    });
    bytes.fold((0, 0), |(count, all), bytes| (count + 1, all + bytes))
}

/// What a burst has of messages that are acknowledged.
#[derive(Debug, Default)]
struct Interest {
    /// Whether there are any.
    is_acknowledged: bool,
    /// Whether anything has to do with those of QoS 2.
    is_any: bool,
    /// The numbers of those of QoS 2 that come again.
    again: Vec<u16>,
}

fn of_interest(burst: &[Incoming]) -> Interest {
    let mut interest = Interest::default();
    for incoming in burst {
        let Incoming::Packet(packet) = incoming else {
            continue;
        };
        let first = packet.head.first;
        match packet.head.kind() {
            PUBREL => interest.is_any = true,
            PUBLISH if first >> 1 & 3 == 2 => {
                interest.is_any = true;
                let id = id_at_start(first, packet.body()).ok().flatten();
                interest.again.extend(id.filter(|_| first & 8 == 8));
            }
            PUBLISH => interest.is_acknowledged |= first >> 1 & 3 == 1,
            _ => {}
        }
    }
    interest
}

#[cfg(test)]
mod tests {
    use sealcast::ShelfLabels;
    use tokio::sync::Semaphore;

    use super::*;
    use crate::packet::Version;
    use crate::recall::Origin;
    use crate::room::ParkLimits;
    use crate::sealing::Waiting;

    /// Makes one change for each permit that it is given, and none where it is closed.
    #[derive(Debug)]
    struct Slow(Semaphore);

    impl Keeping for Slow {
        fn labels(&self, _: Option<ShelfOwner>) -> Waiting<'_, Result<ShelfLabels, NotKept>> {
            let labels = ShelfLabels {
                readable: Vec::new(),
                damaged: 0,
            };
            Box::pin(async move { Ok(labels) })
        }

        fn contents(
            &self,
            _: ShelfOwner,
            _: Vec<u64>,
        ) -> Waiting<'_, Result<Vec<Option<Vec<u8>>>, NotKept>> {
            Box::pin(async { Ok(Vec::new()) })
        }

        fn change(&self, _: ShelfOwner, _: Vec<ShelfChange>) -> Waiting<'_, Result<(), NotKept>> {
            Box::pin(async {
                let permit = self.0.acquire().await;
                permit.map_err(|_| NotKept("closed"))?.forget();
                Ok(())
            })
        }
    }

    /// The message 7 of a client that was let in, in a room for one, with `len` bytes of envelope.
    async fn notes(keeping: &Arc<Slow>, len: usize) -> Sent {
        let limits = ParkLimits {
            messages_max: 4,
            bytes_max: 1 << 30,
            ..ParkLimits::default()
        };
        let who = Who {
            client: b"desk".to_vec(),
            user: Vec::new(),
            origin: Origin::of_address([127, 0, 0, 1].into()),
            number: 1,
        };
        let keeping = Arc::clone(keeping) as Arc<dyn Keeping>;
        let mut sent = Sent::new(keeping, Arc::new(Room::new(limits)), &who, false);
        let (owner, counts) = (who.sender(), Counts::default());
        sent.look_up(owner, false, &counts).await.unwrap();
        let body = [0, 1, b't', 0, 7];
        let publish = Publish::parse(Version::Three, 0x34, &body).unwrap();
        let sealed = Sealed {
            payload: vec![0; len],
            is_envelope: true,
        };
        sent.note(&publish, [0; 16], sealed);
        sent
    }

    #[tokio::test]
    async fn what_could_not_be_kept_takes_no_room() {
        let keeping = Arc::new(Slow(Semaphore::new(0)));
        let mut sent = notes(&keeping, 9).await;
        assert!(!sent.room.take_sent(sent.owner.unwrap(), 1));
        keeping.0.close();
        assert_eq!(sent.keep().await, Err(NotKept("closed")));
        assert!(sent.room.take_sent(sent.owner.unwrap(), 1));
    }

    #[tokio::test]
    async fn what_is_removed_takes_no_room_though_nobody_waits_until_it_is() {
        let keeping = Arc::new(Slow(Semaphore::new(1)));
        let mut sent = notes(&keeping, 9).await;
        sent.keep().await.unwrap();
        sent.released(7);
        let (room, owner) = (Arc::clone(&sent.room), sent.owner.unwrap());
        // Its broker goes while that is made durable.
        let given_up = async {
            tokio::select! {
                biased;
                _ = sent.keep() => false,
                () = tokio::task::yield_now() => true,
            }
        };
        assert!(given_up.await);
        drop(sent);
        assert!(!room.take_sent(owner, 1));
        keeping.0.add_permits(1);
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(room.take_sent(owner, 1));
    }

    #[tokio::test]
    async fn what_is_larger_than_the_store_takes_is_not_kept() {
        let keeping = Arc::new(Slow(Semaphore::new(0)));
        for (len, is_kept) in [(CONTENT_MAX, true), (CONTENT_MAX + 1, false)] {
            let sent = notes(&keeping, len).await;
            assert_eq!(!sent.changes.is_empty(), is_kept);
            assert_eq!(sent.room.take_sent(sent.owner.unwrap(), 1), !is_kept);
        }
    }

    #[test]
    fn a_label_is_what_it_was_and_none_of_another_kind() {
        let label = Label {
            is_envelope: true,
            sealed: 1_700_000_000_000,
            bytes: 300,
            mark: [0xab; 16],
        };
        let encoded = label.encode();
        assert_eq!(Label::read(&encoded), Some(label));
        for cut in 0..LABEL_LEN {
            assert_eq!(Label::read(&encoded[..cut]), None);
        }
        for (at, value) in [(0, 1), (1, 2)] {
            let mut odd = encoded.clone();
            odd[at] = value;
            assert_eq!(Label::read(&odd), None, "{at}");
        }
    }
}
