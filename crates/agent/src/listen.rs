//! Listening: on a Unix socket for this user alone, and on loopback.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};

/// Connections that one listener has at once; more wait.
const CONNECTIONS_MAX: usize = 64;
/// How long a connection on loopback lasts: whoever is slow must not keep its place from others.
const LOOPBACK_WITHIN: Duration = Duration::from_secs(10);
/// How long to wait when the system has no connection to give, such as for want of descriptors.
const REST: Duration = Duration::from_millis(100);

/// The socket in a home. It takes connections of this user, and of the system's administrator.
#[derive(Debug)]
pub(crate) struct HomeSocket {
    listener: UnixListener,
    own: u32,
    room: Arc<Semaphore>,
    /// Removed when dropped.
    path: PathBuf,
}

impl HomeSocket {
    /// Listens at a path, in the place of whatever socket lies there: whoever calls this holds the
    /// home's lock, so nobody listens to that one any more.
    pub(crate) fn bind(path: &Path) -> io::Result<Self> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        Ok(Self {
            listener,
            own: rustix::process::geteuid().as_raw(),
            room: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            path: path.to_owned(),
        })
    }
}

impl Drop for HomeSocket {
    fn drop(&mut self) {
        let _is_removed = fs::remove_file(&self.path).is_ok();
    }
}

/// Whether a process of this user may use the home of that one.
fn is_welcome(peer: u32, own: u32) -> bool {
    peer == own || peer == 0
}

impl Listener for HomeSocket {
    type Io = Connection<UnixStream>;
    type Addr = ();

    async fn accept(&mut self) -> (Self::Io, ()) {
        loop {
            let room = room(&self.room).await;
            let accepted = self.listener.accept().await;
            let peer = accepted.and_then(|(stream, _)| Ok((stream.peer_cred()?.uid(), stream)));
            match peer {
                Ok((peer, io)) if is_welcome(peer, self.own) => {
                    let lasts = None;
                    return (
                        Connection {
                            io,
                            _room: room,
                            lasts,
                        },
                        (),
                    );
                }
                Ok(_) => tracing::warn!("another user's connection was refused"),
                Err(_) => sleep(REST).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A port on loopback.
#[derive(Debug)]
pub(crate) struct Loopback {
    pub(crate) listener: TcpListener,
    room: Arc<Semaphore>,
}

impl Loopback {
    pub(crate) fn new(listener: TcpListener) -> Self {
        Self {
            listener,
            room: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        }
    }
}

impl Listener for Loopback {
    type Io = Connection<TcpStream>;
    type Addr = ();

    async fn accept(&mut self) -> (Self::Io, ()) {
        loop {
            let room = room(&self.room).await;
            match self.listener.accept().await {
                Ok((io, _)) => {
                    let lasts = Some(Box::pin(sleep(LOOPBACK_WITHIN)));
                    return (
                        Connection {
                            io,
                            _room: room,
                            lasts,
                        },
                        (),
                    );
                }
                Err(_) => sleep(REST).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Room for one more connection. It is never closed.
async fn room(room: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    room.clone().acquire_owned().await.ok()
}

/// A connection, which takes the room of one.
#[derive(Debug)]
pub(crate) struct Connection<T> {
    io: T,
    _room: Option<OwnedSemaphorePermit>,
    /// Until when it may be used; without end where there is nothing.
    lasts: Option<Pin<Box<Sleep>>>,
}

impl<T> Connection<T> {
    /// Fails when its time is over, and else has the task woken when it is.
    fn check_time(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let lasts = self
            .lasts
            .as_mut()
            .map(|lasts| lasts.as_mut().poll(context));
        match lasts {
            Some(Poll::Ready(())) => Err(io::ErrorKind::TimedOut.into()),
            Some(Poll::Pending) | None => Ok(()),
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Connection<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check_time(context)?;
        Pin::new(&mut self.io).poll_read(context, into)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Connection<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check_time(context)?;
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check_time(context)?;
        Pin::new(&mut self.io).poll_write_vectored(context, bytes)
    }

    /// What is written in several pieces need not be gathered in a buffer that stays.
    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_user_and_the_administrator_are_welcome() {
        assert!(is_welcome(1000, 1000) && is_welcome(0, 1000));
        assert!(!is_welcome(1001, 1000) && !is_welcome(1000, 0));
    }

    #[tokio::test]
    async fn the_socket_is_for_its_user_and_goes_when_it_is_dropped() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("agent.sock");
        // A socket that a killed agent left.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let mut socket = HomeSocket::bind(&path).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let (_, came) = tokio::join!(socket.accept(), UnixStream::connect(&path));
        came.unwrap();
        drop(socket);
        assert!(!path.exists());
    }

    /// Connections on which nothing comes, or from which nothing is taken, make room by themselves.
    #[tokio::test(start_paused = true)]
    async fn slow_connections_on_loopback_keep_nobody_out() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        use tokio::time::timeout;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut loopback = Loopback::new(listener);
        let mut slow = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            let (came, accepted) = tokio::join!(TcpStream::connect(address), loopback.accept());
            slow.push((came.unwrap(), accepted.0));
        }
        assert!(loopback.room.try_acquire().is_err());
        for (at, (_came, mut io)) in slow.into_iter().enumerate() {
            let used = async {
                match at % 2 {
                    0 => io.read_u8().await.map(drop),
                    _ => io.write_all(&vec![0; 64 << 20]).await,
                }
            };
            // By a clock that goes on when nothing else does.
            let used = timeout(2 * LOOPBACK_WITHIN, used).await.unwrap();
            let error = used.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        }
        let (came, _accepted) = tokio::join!(TcpStream::connect(address), loopback.accept());
        came.unwrap();
    }
}
