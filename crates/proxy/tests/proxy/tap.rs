//! A way to a broker on which all that goes there is recorded.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// What went to the broker over all connections.
#[derive(Clone, Default)]
pub(crate) struct Tap(Arc<Mutex<Vec<u8>>>);

impl Tap {
    /// Stands before a broker; the port of it. It ends with the process.
    pub(crate) fn before(broker: u16) -> (Self, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let tap = Self::default();
        let all = tap.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.unwrap();
                let server = TcpStream::connect(("127.0.0.1", broker)).unwrap();
                let back = (server.try_clone().unwrap(), client.try_clone().unwrap());
                let tap = all.clone();
                thread::spawn(move || {
                    carry(client, server, |bytes| tap.0.lock().unwrap().extend(bytes))
                });
                thread::spawn(move || carry(back.0, back.1, |_| {}));
            }
        });
        (tap, port)
    }

    /// All of it so far.
    pub(crate) fn recorded(&self) -> Vec<u8> {
        self.0.lock().unwrap().clone()
    }
}

/// Until one of them is gone, which the other is told.
fn carry(mut from: TcpStream, mut to: TcpStream, record: impl Fn(&[u8])) {
    let mut bytes = vec![0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        // Before it arrives, so that what came of it is never seen first.
        record(&bytes[..count]);
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    to.shutdown(Shutdown::Write).ok();
}
