//! Stands between a client and its server, and keeps the server's answers back when told to.

use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What becomes of what passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Open,
    /// What the server says is thrown away.
    Mute,
    /// Connections are closed, and new ones are too.
    Cut,
}

pub(crate) struct Proxy {
    port: u16,
    mode: Arc<watch::Sender<Mode>>,
}

impl Proxy {
    /// Stands before the server on a port of this machine.
    pub(crate) async fn before(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mode = Arc::new(watch::channel(Mode::Open).0);
        let modes = Arc::clone(&mode);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, server, modes.subscribe()));
            }
        });
        Self { port, mode }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn mute(&self) {
        self.mode.send_replace(Mode::Mute);
    }

    /// Closes all connections, and lets new ones through.
    pub(crate) async fn renew(&self) {
        self.mode.send_replace(Mode::Cut);
        tokio::task::yield_now().await;
        self.mode.send_replace(Mode::Open);
    }
}

async fn pass(mut client: TcpStream, server: u16, mut mode: watch::Receiver<Mode>) {
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", server)).await else {
        return;
    };
    let (mut said, mut answered) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    mode.mark_unchanged();
    loop {
        tokio::select! {
            count = client.read(&mut said) => match count {
                Ok(count) if count > 0 => {
                    if server.write_all(&said[..count]).await.is_err() {
                        return;
                    }
                }
                _ => return,
            },
            count = server.read(&mut answered) => match count {
                Ok(count) if count > 0 => {
                    let is_open = *mode.borrow() == Mode::Open;
                    if is_open && client.write_all(&answered[..count]).await.is_err() {
                        return;
                    }
                }
                _ => return,
            },
            // Once a connection was muted, whatever follows ends it.
            changed = mode.changed() => {
                if changed.is_err() || *mode.borrow() != Mode::Mute {
                    return;
                }
            }
        }
    }
}
