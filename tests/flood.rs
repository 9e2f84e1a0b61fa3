//! Floods from one address, over every transport and both address families: the server's memory stays bounded, and a
//! well-behaved phone is served meanwhile. `cargo bench --bench flood -- streams` is the long form, with figures.

#![allow(clippy::unwrap_used)] // a test that unwraps fails, which is what it is for

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use nix::sys::ptrace;
use nix::unistd::Pid;

use phone::Phone;
use server::Server;
use streams::Attack;

#[path = "flood/phone.rs"]
mod phone;
mod secure;
#[path = "flood/server.rs"]
mod server;
#[path = "flood/streams.rs"]
mod streams;

/// Pause of the well-behaved phone between two refreshes.
const REFRESH_PAUSE: Duration = Duration::from_millis(5);
/// Duration of each stream. The test waits for nothing here: this is the load.
const LOAD: Duration = Duration::from_millis(1_200);
/// Largest allowed growth of the server's memory during a flood (KiB).
const GROWTH: u64 = 64 * 1024;
/// Longest allowed wait of a phone for a response. The machine may be busy with other tests; a phone that gets no
/// service would wait longer than this on an idle machine too.
const SERVED_WITHIN: Duration = Duration::from_secs(3);

const GUARDED: &str = "data.durability = \"memory\"\n[access]\nauthenticate = \"digest\"\ntrusted_proxies = []\n";

/// Runs every attack possible over one transport, one after the other.
fn all_attacks_over(transport: &str, ip: &str) {
    let server = Server::start(ip.parse().unwrap(), GUARDED);
    let mut phone = Phone::settled(server.udp());
    let before = server.cost();
    for attack in Attack::over(transport) {
        let ((most, worst), taken) = attack.during(&server, transport, || {
            let deadline = Instant::now() + LOAD;
            let (mut most, mut worst) = (0, Duration::ZERO);
            while Instant::now() < deadline {
                worst = worst.max(phone.refresh().unwrap_or(Duration::MAX));
                most = most.max(server.cost().rss);
                // A well-behaved phone stays far below the rate limit of a verified source.
                std::thread::sleep(REFRESH_PAUSE);
            }
            (most, worst)
        });
        let grown = most.saturating_sub(before.rss);
        assert!(grown < GROWTH, "{attack:?} over {transport}: {grown} KiB more, {taken} octets sent");
        assert!(worst < SERVED_WITHIN, "{attack:?} over {transport}: the phone waited {worst:?}");
        assert!(taken > 0 || attack == Attack::Storm, "{attack:?} over {transport} was none");
    }
}

#[test]
fn a_flood_over_tcp_is_bounded() {
    all_attacks_over("tcp", "127.0.0.1");
}

#[test]
fn a_flood_over_tls_is_bounded() {
    all_attacks_over("tls", "127.0.0.1");
}

#[test]
fn a_flood_over_ws_is_bounded() {
    all_attacks_over("ws", "127.0.0.1");
}

#[test]
fn a_flood_over_wss_is_bounded() {
    all_attacks_over("wss", "127.0.0.1");
}

#[test]
fn a_flood_over_ipv6_is_bounded() {
    all_attacks_over("tcp", "::1");
}

/// Sends this many OPTIONS over UDP from a trusted address, as fast as the kernel accepts them.
fn flood_with_options(server: &Server, count: usize) -> u64 {
    let socket = UdpSocket::bind((server.udp().ip(), 0)).unwrap();
    let mut most = 0;
    for n in 0..count {
        let request = format!(
            "OPTIONS sip:acme.test SIP/2.0\r\nVia: SIP/2.0/UDP h.invalid;branch=z9hG4bKf{n};rport\r\n\
             From: <sip:f@acme.test>;tag=f\r\nTo: <sip:acme.test>\r\nCall-ID: {n}\r\nCSeq: 1 OPTIONS\r\n\
             Content-Length: 0\r\n\r\n"
        );
        socket.send_to(request.as_bytes(), server.udp()).unwrap();
        if n.is_multiple_of(1_000) {
            most = most.max(server.cost().rss);
        }
    }
    most.max(server.cost().rss)
}

/// Thread of the server with this name.
fn thread(server: &Server, name: &str) -> Pid {
    let folder = format!("/proc/{}/task", server.id());
    let mut tasks = std::fs::read_dir(&folder).unwrap().map(|task| task.unwrap().file_name().into_string().unwrap());
    let is_it =
        |task: &String| std::fs::read_to_string(format!("{folder}/{task}/comm")).is_ok_and(|comm| comm.trim() == name);
    Pid::from_raw(tasks.find(is_it).unwrap().parse().unwrap())
}

const TRUSTED: &str = "data.durability = \"strict\"\n[access]\ntrusted_proxies = [\"127.0.0.0/8\"]\n";

#[test]
fn options_of_a_trusted_source_are_bounded_while_the_disk_is_well() {
    let server = Server::start("127.0.0.1".parse().unwrap(), TRUSTED);
    let mut phone = Phone::settled(server.udp());
    let before = server.cost().rss;
    let grown = flood_with_options(&server, 150_000).saturating_sub(before);
    assert!(grown < GROWTH, "{grown} KiB more");
    assert!(phone.refresh().is_some());
}

#[test]
fn options_of_a_trusted_source_are_bounded_while_the_disk_hangs() {
    let server = Server::start("127.0.0.1".parse().unwrap(), TRUSTED);
    let mut phone = Phone::settled(server.udp());
    let before = server.cost().rss;
    // Stopping the journal thread has the same effect as a disk that hangs.
    let journal = thread(&server, "journal");
    ptrace::seize(journal, ptrace::Options::empty()).unwrap();
    ptrace::interrupt(journal).unwrap();
    // This request waits for the disk, and every other one behind it.
    phone.send_refresh();
    let grown = flood_with_options(&server, 300_000).saturating_sub(before);
    assert!(grown < GROWTH, "{grown} KiB more");
    ptrace::detach(journal, None).unwrap();
    assert!(phone.refresh().is_some(), "all is well again");
}
