//! Free loopback ports, for both UDP and TCP.

use std::net::{TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};

/// Lowest port. The range is below the one from which Linux picks the ports of outgoing connections (32768 and up), or
/// SIPp's many sockets could take one between our check and the peer's bind.
const FIRST: u16 = 12_000;
const COUNT: u16 = 20_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// A port that was free a moment ago and that no other test of this process gets.
pub(crate) fn free() -> u16 {
    // Two test processes at the same time start at different places.
    let start = (std::process::id() % 97) as u16 * 200;
    for _ in 0..COUNT {
        let port = FIRST + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        if UdpSocket::bind(("127.0.0.1", port)).is_ok() && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between {FIRST} and {}", FIRST + COUNT);
}
