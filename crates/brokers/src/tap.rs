use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// What is kept of each direction when the rest is taken, so that nothing is overlooked for having been cut in two.
const KEPT: usize = 128;

/// A way to a server on which all that passes is recorded, both ways.
#[derive(Clone, Debug, Default)]
pub struct Tap(Arc<Mutex<Vec<Direction>>>);

/// What passed in one direction of a connection.
type Direction = Arc<Mutex<Vec<u8>>>;

impl Tap {
    /// Stands before a server of this machine; the port to reach it by. It ends with the process.
    ///
    /// # Panics
    ///
    /// When there is no free port.
    pub fn before(server: u16) -> (Self, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let tap = Self::default();
        let all = tap.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A server that is away is what the client is told.
                if let Ok(server) = TcpStream::connect(("127.0.0.1", server)) {
                    all.join(client, server);
                }
            }
        });
        (tap, port)
    }

    fn join(&self, client: TcpStream, server: TcpStream) {
        let ends = (client.try_clone(), server.try_clone());
        let (Ok(to_client), Ok(to_server)) = ends else {
            return;
        };
        for (from, to) in [(client, to_server), (server, to_client)] {
            let direction = Direction::default();
            let mut all = self.0.lock().expect("no panic before");
            all.push(Arc::clone(&direction));
            thread::spawn(move || carry(from, to, &direction));
        }
    }

    /// All of it so far, each direction of a connection in one piece.
    ///
    /// # Panics
    ///
    /// When recording did.
    pub fn recorded(&self) -> Vec<u8> {
        self.read(|bytes| bytes.clone())
    }

    /// The same, but for what was taken before.
    ///
    /// # Panics
    ///
    /// When recording did.
    pub fn take(&self) -> Vec<u8> {
        self.read(|bytes| {
            let kept = bytes.split_off(bytes.len().saturating_sub(KEPT));
            let mut taken = std::mem::replace(bytes, kept.clone());
            taken.extend(kept);
            taken
        })
    }

    fn read(&self, of: impl Fn(&mut Vec<u8>) -> Vec<u8>) -> Vec<u8> {
        let all = self.0.lock().expect("no panic before");
        let read = |one: &Direction| of(&mut one.lock().expect("no panic before"));
        all.iter().flat_map(read).collect()
    }
}

/// Until one of them is gone, which the other is told.
fn carry(mut from: TcpStream, mut to: TcpStream, direction: &Direction) {
    let mut bytes = vec![0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        // Before it arrives, so that what came of it is never seen first.
        let mut all = direction.lock().expect("no panic before");
        all.extend(&bytes[..count]);
        drop(all);
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    to.shutdown(Shutdown::Write).ok();
}
