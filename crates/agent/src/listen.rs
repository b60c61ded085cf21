//! Listening on a Unix socket, for this user alone.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use axum::serve::Listener;
use sealcast_serving::{Connection, Places, REST};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::sleep;

/// The socket in a home. It takes connections of this user, and of the system's administrator.
#[derive(Debug)]
pub(crate) struct HomeSocket {
    listener: UnixListener,
    own: u32,
    places: Places,
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
            places: Places::default(),
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
            let place = self.places.take().await;
            let accepted = self.listener.accept().await;
            let peer = accepted.and_then(|(stream, _)| Ok((stream.peer_cred()?.uid(), stream)));
            match peer {
                Ok((peer, io)) if is_welcome(peer, self.own) => {
                    return (place.seat(io, None), ());
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
}
