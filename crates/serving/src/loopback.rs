//! Listening on loopback, for every user of this machine.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};

/// Connections that one listener has at once; more wait.
const CONNECTIONS_MAX: usize = 64;
/// How long a connection on loopback lasts: whoever is slow must not keep its place from others.
const LOOPBACK_WITHIN: Duration = Duration::from_secs(10);
/// How long to wait when the system has no connection to give, such as for want of descriptors.
pub const REST: Duration = Duration::from_millis(100);

/// Room for as many connections as a listener may have at once; more wait.
#[derive(Debug)]
pub struct Places(Arc<Semaphore>);

/// Room for one.
#[derive(Debug)]
pub struct Place(Option<OwnedSemaphorePermit>);

impl Default for Places {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(CONNECTIONS_MAX)))
    }
}

impl Places {
    /// Waits for room.
    pub async fn take(&self) -> Place {
        // It is never closed.
        Place(Arc::clone(&self.0).acquire_owned().await.ok())
    }
}

impl Place {
    /// A connection that has this room until it is dropped, and may be used for so long, or without end.
    pub fn seat<T>(self, io: T, lasts: Option<Duration>) -> Connection<T> {
        Connection {
            io,
            _room: self.0,
            lasts: lasts.map(|of| Box::pin(sleep(of))),
        }
    }
}

/// A port on loopback.
#[derive(Debug)]
pub struct Loopback {
    listener: TcpListener,
    places: Places,
}

impl Loopback {
    /// Listens on an address.
    ///
    /// # Errors
    ///
    /// Fails when the system does not let it.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        Ok(Self {
            listener: TcpListener::bind(address).await?,
            places: Places::default(),
        })
    }
}

impl Listener for Loopback {
    type Io = Connection<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            let place = self.places.take().await;
            match self.listener.accept().await {
                Ok((io, from)) => return (place.seat(io, Some(LOOPBACK_WITHIN)), from),
                Err(_) => sleep(REST).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Reads an address and a port on which everybody on this machine may ask, and nobody else; else says what is one.
///
/// # Errors
///
/// Fails when it is no such address.
pub fn loopback_address(text: &str, example: &str) -> Result<SocketAddr, String> {
    let address = text.parse::<SocketAddr>();
    let address = address.map_err(|_| format!("an address and a port, such as \"{example}\""))?;
    match address.ip().is_loopback() {
        true => Ok(address),
        false => Err(format!(
            "only loopback, such as \"{example}\"; to offer it to others put a server of theirs in front"
        )),
    }
}

/// A connection, which takes the room of one.
#[derive(Debug)]
pub struct Connection<T> {
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

    /// Connections on which nothing comes, or from which nothing is taken, make room by themselves.
    #[tokio::test(start_paused = true)]
    async fn slow_connections_on_loopback_keep_nobody_out() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        use tokio::time::timeout;
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut loopback = Loopback::bind(any).await.unwrap();
        let address = loopback.local_addr().unwrap();
        let mut slow = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            let (came, accepted) = tokio::join!(TcpStream::connect(address), loopback.accept());
            slow.push((came.unwrap(), accepted.0));
        }
        assert!(loopback.places.0.try_acquire().is_err());
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
