use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;

/// What passes at once.
const PIECE: usize = 64 << 10;
/// By how much something is late that is delayed.
const DELAY: Duration = Duration::from_millis(40);
/// What passes at once where little does, and how long nothing does after it.
const THROTTLED: usize = 4_000;
const BETWEEN: Duration = Duration::from_millis(2);

/// What becomes of what passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Open,
    /// What the server says is thrown away.
    Mute,
    /// Connections are closed, and new ones are too.
    Cut,
    /// So many bytes at once, and such a wait after them, each way.
    Slow(usize, Duration),
}

/// What may be the matter with a way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Connections are closed.
    Cut,
    /// Connections are reset: what was on its way is gone.
    Reset,
    /// What passes comes later.
    Delay,
    /// Little passes at a time.
    Throttle,
    /// The server hears, and nothing that it says is heard, until connections are closed.
    Unanswered,
    /// Connections look as if they were open, and nothing passes.
    HalfOpen,
}

impl Trouble {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Cut,
        Self::Reset,
        Self::Delay,
        Self::Throttle,
        Self::Unanswered,
        Self::HalfOpen,
    ];
}

/// What the way is like now.
#[derive(Clone, Copy, Debug)]
struct Way {
    mode: Mode,
    /// How often all connections were closed.
    cuts: u64,
    /// How often they were closed without a word.
    resets: u64,
    /// How often all connections fell silent.
    hushes: u64,
    /// How often answers began to be thrown away.
    mutes: u64,
}

/// Stands between clients and their server, and is a bad way when told to.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    way: Arc<watch::Sender<Way>>,
}

impl Proxy {
    /// Stands before the server on a port of this machine. Must be called on a tokio runtime.
    ///
    /// # Panics
    ///
    /// When there is no free port.
    pub async fn before(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let way = Arc::new(watch::Sender::new(Way {
            mode: Mode::Open,
            cuts: 0,
            resets: 0,
            hushes: 0,
            mutes: 0,
        }));
        let ways = Arc::clone(&way);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, server, ways.subscribe()));
            }
        });
        Self { port, way }
    }

    /// Where it listens, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on nothing comes back from the server, while connections look as if they were open.
    pub fn mute(&self) {
        self.way.send_modify(|way| {
            way.mode = Mode::Mute;
            way.mutes += 1;
        });
    }

    /// From now on at most `bytes` pass at once, and such a wait follows them.
    pub fn slow(&self, bytes: usize, wait: Duration) {
        self.set(Mode::Slow(bytes.max(1), wait));
    }

    /// Nothing comes over the connections that are there any more, though they look as if they were open.
    /// New ones are let through.
    pub fn hush(&self) {
        self.way.send_modify(|way| way.hushes += 1);
    }

    /// Closes all connections, and each that is made from now on.
    pub fn cut(&self) {
        self.way.send_modify(|way| {
            way.mode = Mode::Cut;
            way.cuts += 1;
        });
    }

    /// Resets all connections, and lets new ones through.
    pub fn reset(&self) {
        self.way.send_modify(|way| {
            way.mode = Mode::Open;
            way.cuts += 1;
            way.resets += 1;
        });
    }

    /// Ends the trouble there was and begins another. Where nothing is answered, that lasts until something has come
    /// to be.
    pub async fn suffer(&self, trouble: Trouble, unanswered: impl Future<Output = ()>) {
        self.open();
        match trouble {
            Trouble::Cut => self.renew().await,
            Trouble::Reset => self.reset(),
            Trouble::Delay => self.slow(PIECE, DELAY),
            Trouble::Throttle => self.slow(THROTTLED, BETWEEN),
            Trouble::Unanswered => {
                self.mute();
                unanswered.await;
                self.renew().await;
            }
            Trouble::HalfOpen => self.hush(),
        }
    }

    /// Closes all connections, and lets new ones through.
    pub async fn renew(&self) {
        self.cut();
        tokio::task::yield_now().await;
        self.open();
    }

    /// Lets everything through from now on, but on connections that were muted.
    pub fn open(&self) {
        self.set(Mode::Open);
    }

    fn set(&self, mode: Mode) {
        self.way.send_modify(|way| way.mode = mode);
    }
}

async fn pass(client: TcpStream, server: u16, mut ways: watch::Receiver<Way>) {
    let way = *ways.borrow_and_update();
    if way.mode == Mode::Cut {
        return;
    }
    let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else {
        return;
    };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let there = carry(&mut from_client, &mut to_server, ways.clone(), false);
    let back = carry(&mut from_server, &mut to_client, ways.clone(), true);
    let is_reset = tokio::select! {
        () = there => false,
        () = back => false,
        ending = ended(ways, way) => ending.resets != way.resets,
    };
    if is_reset {
        for end in [from_client.as_ref(), from_server.as_ref()] {
            end.set_zero_linger().expect("an open connection");
        }
    }
}

/// Returns when a connection is to be closed that began on some way, with what that is by then. Once it was muted, whatever
/// follows closes it, however soon that comes.
async fn ended(mut ways: watch::Receiver<Way>, begun: Way) -> Way {
    loop {
        let way = *ways.borrow_and_update();
        let was_muted = begun.mode == Mode::Mute || way.mutes != begun.mutes;
        if way.cuts != begun.cuts || (was_muted && way.mode != Mode::Mute) {
            return way;
        }
        if ways.changed().await.is_err() {
            return way;
        }
    }
}

async fn carry(
    from: &mut (impl tokio::io::AsyncRead + Unpin),
    to: &mut (impl tokio::io::AsyncWrite + Unpin),
    ways: watch::Receiver<Way>,
    is_answer: bool,
) {
    let mut bytes = vec![0; PIECE];
    let hushes = ways.borrow().hushes;
    loop {
        let size = match ways.borrow().mode {
            Mode::Slow(size, _) => size.min(PIECE),
            Mode::Open | Mode::Mute | Mode::Cut => PIECE,
        };
        let count = match from.read(&mut bytes[..size]).await {
            Ok(count) if count > 0 => count,
            _ => return,
        };
        let Way {
            mode, hushes: now, ..
        } = *ways.borrow();
        if let Mode::Slow(_, wait) = mode {
            sleep(wait).await;
        }
        let is_dropped = now != hushes || (is_answer && mode == Mode::Mute);
        if !is_dropped && to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}
