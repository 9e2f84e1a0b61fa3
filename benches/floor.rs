//! Cost of the sockets alone: `cargo bench --bench floor -- [CYCLES [RATE]]`. With RATE, that many cycles begin per
//! second, one at a time; without it, as many as the server can serve.
//!
//! It sends the four datagrams of SUBSCRIBE, 200, NOTIFY and 200, with the lengths of the load generator's and the
//! server's messages, through the server's own socket code (batches, tokio), but without reading or writing any SIP.
//! No server can cost less. Compare the server's cost with this, on the same machine and at the same time.

mod office;

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use lamplighter::transport::{BatchUdpSocket, Destination, ListenerId, NotifyOrder, OutboundMessage, Source};
use office::cpu_time;

/// Lengths of a SUBSCRIBE, its 200, the NOTIFY and the 200 to that (octets).
const LENGTHS: [usize; 4] = [560, 440, 860, 400];
/// Cycles in flight at the same time.
const WINDOW: u64 = 256;
/// A cycle that has not ended by then counts as lost, and another begins.
const PATIENCE: Duration = Duration::from_millis(200);

fn main() {
    let mut numbers = std::env::args().filter_map(|argument| argument.parse().ok());
    let (cycles, rate): (u64, Option<u64>) = (numbers.next().unwrap_or(300_000), numbers.next());
    let (over, spent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (tell, told) = std::sync::mpsc::channel();
    let server = {
        let (over, spent) = (Arc::clone(&over), Arc::clone(&spent));
        std::thread::spawn(move || serve(&over, &spent, |address| tell.send(address).expect("the client waits")))
    };
    let server_address = told.recv().expect("a server");
    let client = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let [subscribe, answer] = [LENGTHS[0], LENGTHS[3]].map(|length| vec![b'x'; length]);
    let (mut done, mut room) = (0_u64, vec![0; 2_048]);
    let begin = |count: u64| (0..count).for_each(|_| _ = client.send_to(&subscribe, server_address));
    // Time before which the next cycle may not begin, if there is a rate.
    let mut turn = Instant::now();
    let window = if rate.is_some() { 1 } else { WINDOW };
    begin(window);
    while done < cycles {
        match client.recv(&mut room) {
            Ok(length) if length == LENGTHS[2] => {
                let _ = client.send_to(&answer, server_address);
                done += 1;
                if let Some(rate) = rate {
                    turn += Duration::from_secs(1) / rate as u32;
                    std::thread::sleep(turn.saturating_duration_since(Instant::now()));
                }
                begin(1);
            }
            Ok(_) => {}
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => begin(window),
            Err(e) => panic!("{e}"),
        }
    }
    over.store(true, Ordering::Relaxed);
    begin(1);
    server.join().expect("the server ends");
    let per_thousand = spent.load(Ordering::Relaxed) as f64 / 1e9 / (done as f64 / 1e3);
    println!("{done} cycles: {per_thousand:.4} CPU seconds per 1,000 for their four datagrams alone");
}

/// Sends two datagrams for each long one. At the end `spent` contains its CPU time (ns).
fn serve(over: &AtomicBool, spent: &AtomicU64, ready: impl FnOnce(SocketAddr)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let order = NotifyOrder::new(Box::new(|_| true));
        let socket = BatchUdpSocket::bind(SocketAddr::from(([127, 0, 0, 1], 0)), ListenerId(0)).expect("a socket");
        ready(socket.local_addr().expect("an address"));
        let [answer, notify] = [LENGTHS[1], LENGTHS[2]].map(|length| Bytes::from(vec![b'x'; length]));
        let mut packets = Vec::new();
        let began = cpu_time();
        while !over.load(Ordering::Relaxed) {
            let take = |datagrams: &mut dyn Iterator<Item = (Source, &[u8])>| {
                for (source, _) in datagrams.filter(|(_, octets)| octets.len() == LENGTHS[0]) {
                    let to = Destination::Datagram { listener: ListenerId(0), peer: source.peer };
                    for bytes in [&answer, &notify] {
                        packets.push(OutboundMessage { to: to.clone(), bytes: bytes.clone(), ticket: None });
                    }
                }
            };
            socket.receive(take).await.expect("datagrams");
            socket.send_all(&packets, &order, |_| {}).await;
            packets.clear();
        }
        spent.store((cpu_time() - began).as_nanos() as u64, Ordering::Relaxed);
    });
}
