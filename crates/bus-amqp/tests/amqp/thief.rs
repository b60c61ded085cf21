//! Between clients and a RabbitMQ server: takes away what comes first of a delivery, as clients lose what
//! comes before they know of it, and what says that something was stored.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A frame of AMQP 0.9.1 (section 4.2) with a method; the others have what comes with one.
const METHOD: u8 = 1;
const HEAD_LEN: usize = 7;
/// Methods by which a message is delivered, and by which one is confirmed.
const DELIVER: [u8; 4] = [0, 60, 0, 60];
const ACK: [u8; 4] = [0, 60, 0, 80];

type Channel = [u8; 2];

/// Stands before a server on a port of this machine, for as long as the test runs.
pub(crate) struct Thief {
    pub(crate) port: u16,
    loot: Arc<Mutex<Loot>>,
    confirms: Arc<watch::Sender<Confirms>>,
}

/// What is to be taken.
#[derive(Debug, Default)]
struct Loot {
    /// So many consumers on channels that had one before lose their first messages.
    deliveries: u32,
    messages: u32,
}

/// What becomes of confirms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Confirms {
    Passed,
    /// The next one is taken.
    Wanted,
    /// One was, and its connection waits.
    Held,
    /// It is closed.
    Closed,
}

impl Thief {
    pub(crate) async fn before(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let loot = Arc::<Mutex<Loot>>::default();
        let confirms = Arc::new(watch::Sender::new(Confirms::Passed));
        let (of, what) = (Arc::clone(&loot), Arc::clone(&confirms));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
                let (mut from_client, to_client) = client.into_split();
                let (from_server, mut to_server) = server.into_split();
                let back = pass(from_server, to_client, Arc::clone(&of), Arc::clone(&what));
                tokio::spawn(async move {
                    tokio::select! {
                        () = back => {}
                        _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
                    }
                });
            }
        });
        Self {
            port,
            loot,
            confirms,
        }
    }

    /// From now on so many deliveries lose so many messages each.
    pub(crate) fn rob(&self, deliveries: u32, messages: u32) {
        *self.loot.lock().unwrap() = Loot {
            deliveries,
            messages,
        };
    }

    /// How many of them did not yet.
    pub(crate) fn left(&self) -> u32 {
        self.loot.lock().unwrap().deliveries
    }

    /// Takes the next confirm; returns what is to be told when its connection is to be closed.
    pub(crate) fn take_confirm(&self) -> Held {
        self.confirms.send_replace(Confirms::Wanted);
        Held(Arc::clone(&self.confirms))
    }
}

/// A confirm that is taken, or will be.
pub(crate) struct Held(Arc<watch::Sender<Confirms>>);

impl Held {
    /// Returns when it is.
    pub(crate) async fn taken(&self) {
        let mut held = self.0.subscribe();
        held.wait_for(|of| *of == Confirms::Held).await.unwrap();
    }

    pub(crate) fn close(self) {
        self.0.send_replace(Confirms::Closed);
    }
}

/// Hands on what the server says, frame by frame, until one of the two has gone.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    loot: Arc<Mutex<Loot>>,
    confirms: Arc<watch::Sender<Confirms>>,
) {
    let (mut channels, mut consumers) = (BTreeSet::new(), BTreeSet::new());
    // The consumer that is robbed, and of how many messages still.
    let mut robbing: Option<(Channel, Vec<u8>, u32)> = None;
    // Channels of which everything is taken until the next method.
    let mut taken = BTreeSet::new();
    loop {
        let mut frame = vec![0; HEAD_LEN];
        if from.read_exact(&mut frame).await.is_err() {
            return;
        }
        let len = u32::from_be_bytes(frame[3..].try_into().unwrap()) as usize;
        // One more byte ends it.
        frame.resize(HEAD_LEN + len + 1, 0);
        if from.read_exact(&mut frame[HEAD_LEN..]).await.is_err() {
            return;
        }
        let channel = [frame[1], frame[2]];
        let (is_method, says) = (frame[0] == METHOD, &frame[HEAD_LEN..]);
        if is_method && says.starts_with(&ACK) && *confirms.borrow() == Confirms::Wanted {
            confirms.send_replace(Confirms::Held);
            let mut held = confirms.subscribe();
            held.wait_for(|of| *of == Confirms::Closed).await.unwrap();
            return;
        }
        // What follows a method on its channel comes with it.
        if is_method {
            taken.remove(&channel);
        }
        if is_method && let Some(tag) = consumer_of(says) {
            let is_new = consumers.insert((channel, tag.to_vec()));
            if is_new && !channels.insert(channel) {
                let mut loot = loot.lock().unwrap();
                if loot.deliveries > 0 {
                    loot.deliveries -= 1;
                    robbing = Some((channel, tag.to_vec(), loot.messages));
                }
            }
            if let Some((of, robbed, left)) = &mut robbing
                && (*of, robbed.as_slice()) == (channel, tag)
                && *left > 0
            {
                *left -= 1;
                taken.insert(channel);
            }
        }
        if !taken.contains(&channel) && to.write_all(&frame).await.is_err() {
            return;
        }
    }
}

/// The tag of the consumer to which a message is delivered, if that is what a method says.
fn consumer_of(says: &[u8]) -> Option<&[u8]> {
    let (len, tag) = says.strip_prefix(&DELIVER)?.split_first()?;
    tag.get(..usize::from(*len))
}
