//! Order of NOTIFYs: those of one dialog leave in the order of CSeq, whichever threads create them, after pauses of
//! the whole process and under concurrent load. The mechanism is tested without sockets in `src/transport/order.rs`.

#![allow(clippy::unwrap_used)] // a test that unwraps fails, which is what it is for

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use phone::Phone;
use server::Server;

#[allow(dead_code)] // tests/flood.rs uses the rest
#[path = "flood/phone.rs"]
mod phone;
mod secure;
#[allow(dead_code)] // tests/flood.rs uses the rest
#[path = "flood/server.rs"]
mod server;

/// Number of phones that watch the changing extension.
const PHONES: usize = 20;
/// Number of times that the server is stopped and continued.
const PAUSES: usize = 8;
/// Duration of a stop, after which retransmissions are due (T1 is 500 ms), and of the work in between. The test waits
/// for nothing here: this is the load.
const PAUSE: Duration = Duration::from_millis(550);
const WORK: Duration = Duration::from_millis(150);

/// Changes the state of the extension repeatedly until `stop` is set.
fn keep_changing(http: SocketAddr, stop: &AtomicBool) {
    let states = ["early", "confirmed", "terminated"];
    for state in states.iter().cycle().take_while(|_| !stop.load(Ordering::Relaxed)) {
        let body = format!("{{\"data\":{{\"action\":\"set\",\"state\":\"{state}\"}}}}");
        let mut stream = TcpStream::connect(http).unwrap();
        write!(
            stream,
            "POST /v2/accounts/a/presence/1001 HTTP/1.1\r\nHost: x\r\nX-Auth-Token: a-token-for-tests-only\r\nConnection: close\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

#[test]
fn after_pauses_of_the_process_no_phone_gets_an_older_notify_after_a_newer_one() {
    let trusted = "data.durability = \"strict\"\n[access]\ntrusted_proxies = [\"127.0.0.0/8\"]\n";
    let server = Server::start("127.0.0.1".parse().unwrap(), trusted);
    let process = Pid::from_raw(server.id().try_into().unwrap());
    let stop = AtomicBool::new(false);
    let notified: Vec<Vec<u32>> = std::thread::scope(|threads| {
        let (stop, http, udp) = (&stop, server.http(), server.udp());
        for _ in 0..2 {
            threads.spawn(move || keep_changing(http, stop));
        }
        let phones: Vec<_> = (0..PHONES)
            .map(|_| {
                threads.spawn(move || {
                    let mut phone = Phone::settled(udp);
                    while !stop.load(Ordering::Relaxed) {
                        phone.refresh().expect("an answer");
                        phone.hear_until(Instant::now() + Duration::from_millis(5));
                    }
                    phone.notified
                })
            })
            .collect();
        for _ in 0..PAUSES {
            std::thread::sleep(WORK);
            kill(process, Signal::SIGSTOP).unwrap();
            std::thread::sleep(PAUSE);
            kill(process, Signal::SIGCONT).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        phones.into_iter().map(|phone| phone.join().unwrap()).collect()
    });
    let fell = |cseqs: &Vec<u32>| cseqs.windows(2).find(|pair| pair[1] < pair[0]).map(<[u32]>::to_vec);
    let fallen: Vec<_> = notified.iter().filter_map(fell).collect();
    assert!(fallen.is_empty(), "an older NOTIFY came after a newer one: {fallen:?}");
    let all: usize = notified.iter().map(Vec::len).sum();
    assert!(all > PHONES * PAUSES, "the load was real: {all} NOTIFYs");
}
