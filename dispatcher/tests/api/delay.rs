//! A proxy that holds back what the server says, so that a replica is seen to lag behind.

use std::io::{Read as _, Write as _, copy};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

/// Above what a call takes on the loopback, and below what lies between two catch-ups.
const DELAY: Duration = Duration::from_millis(30);

/// Address of a proxy to `server`. Its threads end with the connections, or with the process.
pub(crate) fn in_front_of(server: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(server) = TcpStream::connect(&server) else {
                return;
            };
            let (mut up_from, mut up_to) =
                (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || {
                copy(&mut up_from, &mut up_to).ok();
                up_to.shutdown(Shutdown::Both).ok();
            });
            std::thread::spawn(move || late(server, client));
        }
    });
    address
}

fn late(mut from: TcpStream, mut to: TcpStream) {
    let mut chunk = vec![0; 64 << 10];
    while let Ok(bytes @ 1..) = from.read(&mut chunk) {
        #[expect(clippy::disallowed_methods, reason = "the delay is the point")]
        std::thread::sleep(DELAY);
        if to.write_all(&chunk[..bytes]).is_err() {
            break;
        }
    }
    to.shutdown(Shutdown::Both).ok();
}
