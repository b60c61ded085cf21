use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// A way to a server on which all that passes is recorded, both ways.
#[derive(Clone, Debug, Default)]
pub struct Tap(Arc<Mutex<Vec<u8>>>);

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
            let tap = self.clone();
            thread::spawn(move || tap.carry(from, to));
        }
    }

    /// Until one of them is gone, which the other is told.
    fn carry(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut bytes = vec![0; 16 << 10];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            // Before it arrives, so that what came of it is never seen first.
            let mut all = self.0.lock().expect("no panic before");
            all.extend(&bytes[..count]);
            drop(all);
            if to.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
        to.shutdown(Shutdown::Write).ok();
    }

    /// All of it so far. What passed at the same time stands in it piece by piece.
    ///
    /// # Panics
    ///
    /// When recording did.
    pub fn recorded(&self) -> Vec<u8> {
        self.0.lock().expect("no panic before").clone()
    }
}
