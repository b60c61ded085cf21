use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;

/// What passes at once.
const PIECE: usize = 64 << 10;

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

/// Stands between clients and their server, and is a bad way when told to.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    mode: Arc<watch::Sender<Mode>>,
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
        let mode = Arc::new(watch::channel(Mode::Open).0);
        let modes = Arc::clone(&mode);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, server, modes.subscribe()));
            }
        });
        Self { port, mode }
    }

    /// Where it listens, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on nothing comes back from the server, while connections look as if they were open.
    pub fn mute(&self) {
        self.mode.send_replace(Mode::Mute);
    }

    /// From now on at most `bytes` pass at once, and such a wait follows them.
    pub fn slow(&self, bytes: usize, wait: Duration) {
        self.mode.send_replace(Mode::Slow(bytes.max(1), wait));
    }

    /// Closes all connections, and each that is made from now on.
    pub fn cut(&self) {
        self.mode.send_replace(Mode::Cut);
    }

    /// Closes all connections, and lets new ones through.
    pub async fn renew(&self) {
        self.cut();
        tokio::task::yield_now().await;
        self.open();
    }

    /// Lets everything through from now on, but on connections that were muted.
    pub fn open(&self) {
        self.mode.send_replace(Mode::Open);
    }
}

async fn pass(client: TcpStream, server: u16, mut modes: watch::Receiver<Mode>) {
    if *modes.borrow_and_update() == Mode::Cut {
        return;
    }
    let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else {
        return;
    };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let there = carry(from_client, to_server, modes.clone(), false);
    let back = carry(from_server, to_client, modes.clone(), true);
    tokio::select! {
        () = there => {}
        () = back => {}
        () = ended(modes) => {}
    }
}

/// Returns when connections are to be closed. Once a connection was muted, whatever follows closes it.
async fn ended(mut modes: watch::Receiver<Mode>) {
    let mut was_muted = false;
    loop {
        let mode = *modes.borrow_and_update();
        if mode == Mode::Cut || (was_muted && mode != Mode::Mute) {
            return;
        }
        was_muted |= mode == Mode::Mute;
        if modes.changed().await.is_err() {
            return;
        }
    }
}

async fn carry(
    mut from: impl tokio::io::AsyncRead + Unpin,
    mut to: impl tokio::io::AsyncWrite + Unpin,
    modes: watch::Receiver<Mode>,
    is_answer: bool,
) {
    let mut bytes = vec![0; PIECE];
    loop {
        let size = match *modes.borrow() {
            Mode::Slow(size, _) => size.min(PIECE),
            Mode::Open | Mode::Mute | Mode::Cut => PIECE,
        };
        let count = match from.read(&mut bytes[..size]).await {
            Ok(count) if count > 0 => count,
            _ => return,
        };
        let mode = *modes.borrow();
        if let Mode::Slow(_, wait) = mode {
            sleep(wait).await;
        }
        let is_dropped = is_answer && mode == Mode::Mute;
        if !is_dropped && to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}
