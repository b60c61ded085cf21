//! One direction of a connection: what is there is dealt with at once, in its order, and goes on before more is read. So
//! whoever sends more than the other side takes is held up by TCP.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use crate::packet::reason;
use crate::wire::{Incoming, PacketReader, ReadFault, Wire};

/// What is dealt with at once has about so many bytes, and so many packets, at most.
const BURST: usize = 64 << 10;
const BURST_PACKETS: usize = 256;
/// How often is looked whether a sender was silent for too long.
const LOOK: Duration = Duration::from_secs(2);
/// Bytes of answers that may wait for the other direction to send them. Whoever makes more has more messages on the
/// way than MQTT allows.
const ANSWERS_BYTES_MAX: usize = 512 << 10;

/// The two halves of a connection.
pub(crate) type Reading = PacketReader<ReadHalf<Box<dyn Wire>>>;
pub(crate) type Writing = WriteHalf<Box<dyn Wire>>;

/// Why nothing more comes in some direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Whoever sends is gone.
    SenderGone,
    /// Whoever receives is gone.
    ReceiverGone,
    /// It was told to end.
    Halted,
    /// Whoever sends cannot be served, for a reason as MQTT 5 has it.
    Refused(u8),
}

impl From<ReadFault> for End {
    fn from(fault: ReadFault) -> Self {
        match fault {
            ReadFault::Malformed => Self::Refused(reason::MALFORMED),
            ReadFault::TooLarge => Self::Refused(reason::PACKET_TOO_LARGE),
            ReadFault::Closed => Self::SenderGone,
        }
    }
}

/// What is done with packets in one direction.
pub(crate) trait Take: Send {
    /// Deals with what came one after another: puts into `out` what goes on, and into `back` what is answered to its
    /// sender.
    fn take(
        &mut self,
        burst: Vec<Incoming>,
        out: &mut Vec<u8>,
        back: &mut Vec<u8>,
    ) -> impl Future<Output = Result<(), End>> + Send;

    /// Whether the receiver may be told anything but what comes.
    fn may_answer(&self) -> bool;

    /// Whether something that came cannot be dealt with yet, so that nothing more is to be read.
    fn is_stalled(&self) -> bool;

    /// Waits until there is something to do though nothing came. It may be given up.
    fn due(&mut self) -> impl Future<Output = ()> + Send;

    /// Does it.
    fn act(
        &mut self,
        out: &mut Vec<u8>,
        back: &mut Vec<u8>,
    ) -> impl Future<Output = Result<(), End>> + Send;

    /// Where it is told that the sender was seen to be gone, as soon as it is.
    fn sender_gone(&self) -> watch::Sender<bool>;

    /// How long the sender may be silent.
    fn patience(&self) -> Option<Duration>;
}

/// One direction.
pub(crate) struct Lane<T> {
    pub(crate) from: Reading,
    pub(crate) to: Writing,
    pub(crate) take: T,
    answers: Answers,
    back: Back,
}

/// What one direction answers, and the other sends.
struct Answers {
    queue: mpsc::UnboundedReceiver<Vec<u8>>,
    waiting: Arc<AtomicUsize>,
}

struct Back {
    queue: mpsc::UnboundedSender<Vec<u8>>,
    waiting: Arc<AtomicUsize>,
}

fn answers() -> (Back, Answers) {
    let (sending, queue) = mpsc::unbounded_channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    let back = Back {
        queue: sending,
        waiting: Arc::clone(&waiting),
    };
    (back, Answers { queue, waiting })
}

impl Back {
    /// Puts an answer behind those that wait, where there is room.
    fn put(&self, answer: Vec<u8>) -> Result<(), End> {
        let len = answer.len();
        let waiting = self.waiting.fetch_add(len, Ordering::Relaxed) + len;
        match waiting <= ANSWERS_BYTES_MAX && self.queue.send(answer).is_ok() {
            true => Ok(()),
            false => Err(End::Refused(reason::PROTOCOL_ERROR)),
        }
    }
}

impl Answers {
    async fn next(&mut self) -> Option<Vec<u8>> {
        let answer = self.queue.recv().await?;
        self.waiting.fetch_sub(answer.len(), Ordering::Relaxed);
        Some(answer)
    }

    fn ready(&mut self) -> Option<Vec<u8>> {
        let answer = self.queue.try_recv().ok()?;
        self.waiting.fetch_sub(answer.len(), Ordering::Relaxed);
        Some(answer)
    }
}

/// The two directions of a connection, of which each sends what the other answers.
pub(crate) fn lanes<U: Take, D: Take>(
    (client_reading, client_writing): (Reading, Writing),
    (broker_reading, broker_writing): (Reading, Writing),
    (up, down): (U, D),
) -> (Lane<U>, Lane<D>) {
    let (to_broker, for_broker) = answers();
    let (to_client, for_client) = answers();
    let up = Lane {
        from: client_reading,
        to: broker_writing,
        take: up,
        answers: for_broker,
        back: to_client,
    };
    let down = Lane {
        from: broker_reading,
        to: client_writing,
        take: down,
        answers: for_client,
        back: to_broker,
    };
    (up, down)
}

impl<T: Take> Lane<T> {
    /// Passes on what comes, until that ends. It ends between two packets, unless this is given up.
    pub(crate) async fn run(&mut self, halt: watch::Receiver<bool>) -> End {
        match self.pass(halt).await {
            Err(end) => end,
        }
    }

    async fn pass(&mut self, mut halt: watch::Receiver<bool>) -> Result<Infallible, End> {
        let (mut heard, mut look_at) = (Instant::now(), Instant::now() + LOOK);
        let (mut out, mut back) = (Vec::new(), Vec::new());
        loop {
            let taken = self.take_ready(&halt, &mut out, &mut back).await;
            self.hand_over(&mut out, &mut back).await?;
            if taken? {
                continue;
            }
            let is_late = |patience: Option<Duration>| {
                patience.is_some_and(|patience| heard.elapsed() >= patience)
            };
            // What there is to read comes first: patience may have run out while the last of it was dealt with.
            let is_due = tokio::select! {
                biased;
                () = halted(&mut halt) => return Err(End::Halted),
                // Not behind what comes without end.
                () = self.take.due() => true,
                filled = self.from.fill(), if !self.take.is_stalled() => {
                    if filled.is_err() {
                        self.take.sender_gone().send_replace(true);
                    }
                    filled?;
                    heard = Instant::now();
                    false
                }
                () = sleep_until(look_at) => {
                    look_at = Instant::now() + LOOK;
                    if is_late(self.take.patience()) {
                        return Err(End::Refused(reason::KEEP_ALIVE));
                    }
                    false
                }
                Some(answer) = self.answers.next(), if self.take.may_answer() => {
                    out = answer;
                    false
                }
            };
            if is_due {
                let acted = self.take.act(&mut out, &mut back).await;
                self.hand_over(&mut out, &mut back).await?;
                acted?;
            }
            while self.take.may_answer()
                && let Some(answer) = self.answers.ready()
            {
                out.extend_from_slice(&answer);
            }
        }
    }

    /// Deals with the packets that are there, and tells whether there may be more.
    async fn take_ready(
        &mut self,
        halt: &watch::Receiver<bool>,
        out: &mut Vec<u8>,
        back: &mut Vec<u8>,
    ) -> Result<bool, End> {
        if self.take.is_stalled() {
            return Ok(false);
        }
        let (mut burst, mut bytes) = (Vec::new(), 0);
        let more = loop {
            if bytes >= BURST || burst.len() >= BURST_PACKETS {
                break Ok(true);
            }
            match self.from.ready() {
                Ok(Some(incoming)) => {
                    bytes += incoming.len();
                    burst.push(incoming);
                }
                Ok(None) => break Ok(false),
                Err(fault) => break Err(fault.into()),
            }
        };
        if *halt.borrow() {
            return Err(End::Halted);
        }
        let is_any = !burst.is_empty();
        if is_any {
            let gone = self.take.sender_gone();
            let mut taking = std::pin::pin!(self.take.take(burst, out, back));
            let taken = tokio::select! {
                biased;
                taken = &mut taking => Some(taken),
                () = self.from.closed() => None,
            };
            match taken {
                Some(taken) => taken?,
                None => {
                    gone.send_replace(true);
                    taking.await?;
                }
            }
        }
        // What came meanwhile may have been read to see whether the sender is gone.
        more.map(|more| more || is_any)
    }

    async fn hand_over(&mut self, out: &mut Vec<u8>, back: &mut Vec<u8>) -> Result<(), End> {
        if !back.is_empty() {
            self.back.put(std::mem::take(back))?;
        }
        if out.is_empty() {
            return Ok(());
        }
        let gone = |_| End::ReceiverGone;
        self.to.write_all(out).await.map_err(gone)?;
        self.to.flush().await.map_err(gone)?;
        // It may have held somebody's message.
        *out = Vec::new();
        Ok(())
    }
}

async fn halted(halt: &mut watch::Receiver<bool>) {
    // Who could tell is gone where this fails, and so is the reason to go on.
    let _is_told = halt.wait_for(|is_halted| *is_halted).await.is_ok();
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, DuplexStream};

    use super::*;

    #[test]
    fn answers_wait_as_far_as_there_is_room() {
        let (back, mut waiting) = answers();
        let half = vec![7; ANSWERS_BYTES_MAX / 2];
        for _ in 0..100 {
            assert_eq!(back.put(half.clone()), Ok(()));
            assert_eq!(back.put(half.clone()), Ok(()));
            assert_eq!(waiting.ready().map(|of| of.len()), Some(half.len()));
            assert_eq!(waiting.ready().map(|of| of.len()), Some(half.len()));
        }
        assert_eq!(back.put(half.clone()), Ok(()));
        assert_eq!(back.put(half.clone()), Ok(()));
        assert_eq!(back.put(vec![7]), Err(End::Refused(reason::PROTOCOL_ERROR)));
    }

    /// Deals with what comes for as long as its sender is there.
    struct Slow(watch::Sender<bool>);

    impl Take for Slow {
        async fn take(
            &mut self,
            burst: Vec<Incoming>,
            out: &mut Vec<u8>,
            _: &mut Vec<u8>,
        ) -> Result<(), End> {
            while !*self.0.borrow() {
                tokio::task::yield_now().await;
            }
            out.push(u8::try_from(burst.len()).unwrap());
            Ok(())
        }

        fn sender_gone(&self) -> watch::Sender<bool> {
            self.0.clone()
        }

        fn may_answer(&self) -> bool {
            true
        }

        fn is_stalled(&self) -> bool {
            false
        }

        async fn due(&mut self) {
            std::future::pending().await
        }

        async fn act(&mut self, _: &mut Vec<u8>, _: &mut Vec<u8>) -> Result<(), End> {
            Ok(())
        }

        fn patience(&self) -> Option<Duration> {
            None
        }
    }

    /// Both ends of a connection on which so many bytes are on their way at most.
    fn wire(bytes: usize) -> ((Reading, Writing), DuplexStream) {
        let (near, far) = tokio::io::duplex(bytes);
        let near: Box<dyn Wire> = Box::new(near);
        let (reading, writing) = tokio::io::split(near);
        ((PacketReader::new(reading, 64), writing), far)
    }

    #[tokio::test]
    async fn what_comes_while_something_is_dealt_with_does_not_wait_for_more_to_come() {
        let ((client, mut sender), (broker, mut receiver)) = (wire(2), wire(64));
        let (mut up, down) = lanes(
            client,
            broker,
            (
                Slow(watch::Sender::default()),
                Slow(watch::Sender::default()),
            ),
        );
        let (_halting, halted) = watch::channel(false);
        // There is room for the second ping when the first was read, and then nothing more comes.
        let sends = async move { sender.write_all(&[0xc0, 0, 0xc0, 0]).await.unwrap() };
        let (ended, ()) = tokio::join!(up.run(halted), sends);
        assert_eq!(ended, End::SenderGone);
        drop((up, down));
        let mut told = Vec::new();
        receiver.read_to_end(&mut told).await.unwrap();
        assert_eq!(told, [1, 1]);
    }

    #[tokio::test]
    async fn a_sender_that_leaves_is_seen_to_while_what_it_sent_is_dealt_with() {
        let ((client, mut sender), (broker, mut receiver)) = (wire(64), wire(64));
        let (mut up, _down) = lanes(
            client,
            broker,
            (
                Slow(watch::Sender::default()),
                Slow(watch::Sender::default()),
            ),
        );
        // Two pings, and it is gone.
        sender.write_all(&[0xc0, 0, 0xc0, 0]).await.unwrap();
        drop(sender);
        let (_halting, halted) = watch::channel(false);
        assert_eq!(up.run(halted).await, End::SenderGone);
        let mut told = [0];
        receiver.read_exact(&mut told).await.unwrap();
        assert_eq!(told, [2]);
    }

    /// Passes on what comes, as it is.
    struct AsItIs(watch::Sender<bool>);

    impl Take for AsItIs {
        async fn take(
            &mut self,
            burst: Vec<Incoming>,
            out: &mut Vec<u8>,
            _: &mut Vec<u8>,
        ) -> Result<(), End> {
            for incoming in &burst {
                if let Incoming::Packet(packet) = incoming {
                    out.extend_from_slice(&packet.bytes);
                }
            }
            Ok(())
        }

        fn sender_gone(&self) -> watch::Sender<bool> {
            self.0.clone()
        }

        fn may_answer(&self) -> bool {
            true
        }

        fn is_stalled(&self) -> bool {
            false
        }

        async fn due(&mut self) {
            std::future::pending().await
        }

        async fn act(&mut self, _: &mut Vec<u8>, _: &mut Vec<u8>) -> Result<(), End> {
            Ok(())
        }

        fn patience(&self) -> Option<Duration> {
            None
        }
    }

    #[tokio::test]
    async fn who_is_told_to_end_sends_to_its_end_what_it_has_begun_and_nothing_more() {
        let ((client, mut sender), (broker, mut receiver)) = (wire(64), wire(4));
        let takes = || AsItIs(watch::Sender::default());
        let (mut up, down) = lanes(client, broker, (takes(), takes()));
        let (halting, halted) = watch::channel(false);
        let message = [&[0x30, 18, 0, 1, b't'][..], &[b'x'; 15]].concat();
        sender.write_all(&message).await.unwrap();
        let reads = async move {
            let mut some = vec![0; 4];
            receiver.read_exact(&mut some).await.unwrap();
            halting.send_replace(true);
            sender.write_all(&message).await.unwrap();
            let mut rest = vec![0; message.len() - 4];
            receiver.read_exact(&mut rest).await.unwrap();
            assert_eq!([some, rest].concat(), message);
            (sender, receiver)
        };
        let (ended, (_sender, mut receiver)) = tokio::join!(up.run(halted), reads);
        assert_eq!(ended, End::Halted);
        drop((up, down));
        let mut more = Vec::new();
        receiver.read_to_end(&mut more).await.unwrap();
        assert!(more.is_empty(), "{more:x?}");
    }
}
