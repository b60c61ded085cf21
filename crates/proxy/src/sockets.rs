//! Connections of which the system finds out whether the other end is still there, though nobody says anything: who has lost its
//! network, and is not to be heard of by any time, else takes a place for ever.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};

/// Connections that wait to be taken.
const BACKLOG: u32 = 1024;

/// Listens. Connections that are taken there have of the socket what it is told.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(address)?;
    // There it would let others listen as well.
    #[cfg(not(windows))]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Connects to one of a host's addresses.
pub(crate) async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut fault = io::ErrorKind::NotFound.into();
    for address in lookup_host((host, port)).await? {
        match socket(address)?.connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => fault = error,
        }
    }
    Err(fault)
}

fn socket(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_keepalive(true)?;
    Ok(socket)
}
