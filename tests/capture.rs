//! Capture of the SIP traffic for Homer (HEP version 3). The packets are decoded by a decoder that the tests have
//! written from the protocol description, and by Kamailio, whose `sipcapture` module is a common collector.

#![allow(clippy::unwrap_used)] // a test that unwraps fails, which is what it is for

#[path = "peers/harness/folder.rs"]
#[allow(dead_code)]
mod folder;
#[path = "peers/harness/ports.rs"]
mod ports;
#[path = "peers/harness/process.rs"]
#[allow(dead_code)] // others do more with processes
mod process;
#[path = "lamps/world.rs"]
#[allow(dead_code)] // others ask for more
mod world;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use folder::Folder;
use md5::{Digest as _, Md5};
use process::Process;
use world::{PATIENCE, Phone, World};

/// Receiver of captures.
struct Collector(UdpSocket);

/// One captured message.
#[derive(Debug)]
struct Packet {
    from: SocketAddr,
    to: SocketAddr,
    protocol: u8,
    at: Duration,
    node: u32,
    key: Option<String>,
    id: Option<String>,
    message: String,
}

impl Collector {
    fn new() -> Collector {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Collector(socket)
    }

    /// Configuration that sends captures to this collector.
    fn configured(&self, more: &str) -> String {
        format!("hep = {{ server = \"udp://{}\"{more} }}", self.0.local_addr().unwrap())
    }

    fn next(&self) -> Packet {
        let mut octets = [0; 65_536];
        let length = self.0.recv(&mut octets).expect("a capture in time");
        Packet::read(&octets[..length])
    }
}

fn number(octets: &[u8]) -> u64 {
    octets.iter().fold(0, |number, octet| number << 8 | u64::from(*octet))
}

impl Packet {
    /// Decodes every octet; an unexpected octet fails the test.
    fn read(packet: &[u8]) -> Packet {
        assert_eq!(&packet[..4], b"HEP3");
        assert_eq!(number(&packet[4..6]) as usize, packet.len(), "the length is that of all");
        let mut chunks = BTreeMap::new();
        let mut rest = &packet[6..];
        while !rest.is_empty() {
            let (vendor, kind, length) = (number(&rest[..2]), number(&rest[2..4]), number(&rest[4..6]) as usize);
            assert_eq!(vendor, 0, "only generic chunks");
            assert!(chunks.insert(kind, &rest[6..length]).is_none(), "chunk {kind} stands twice");
            rest = &rest[length..];
        }
        let mut take = |kind: u64| chunks.remove(&kind);
        let mut fixed = |kind: u64, length: usize| {
            let value = take(kind).unwrap_or_else(|| panic!("chunk {kind} is missing"));
            assert_eq!(value.len(), length, "length of chunk {kind}");
            number(value)
        };
        assert_eq!((fixed(1, 1), fixed(11, 1)), (2, 1), "IPv4, SIP");
        let mut end =
            |ip, port| SocketAddr::new(IpAddr::V4(Ipv4Addr::from_bits(fixed(ip, 4) as u32)), fixed(port, 2) as u16);
        let (from, to) = (end(3, 7), end(4, 8));
        let packet = Packet {
            from,
            to,
            protocol: fixed(2, 1) as u8,
            at: Duration::from_secs(fixed(9, 4)) + Duration::from_micros(fixed(10, 4)),
            node: fixed(12, 4) as u32,
            key: take(14).map(text),
            id: take(17).map(text),
            message: take(15).map(text).expect("a payload"),
        };
        assert!(chunks.is_empty(), "chunks that nobody expects: {chunks:?}");
        packet
    }

    fn start(&self) -> &str {
        self.message.lines().next().unwrap()
    }
}

fn text(octets: &[u8]) -> String {
    String::from_utf8(octets.to_vec()).unwrap()
}

#[test]
fn every_message_of_a_subscription_is_copied_in_both_directions() {
    let collector = Collector::new();
    let world = World::new(&collector.configured(", agent_id = 2001, password = \"let me in\""));
    let phone = Phone::new(&world);
    let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    phone.subscribe("1001", "acme.test");
    let packets: Vec<_> = (0..4).map(|_| collector.next()).collect();
    let after = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let (us, it) = (world.sip, phone.address());
    let seen: Vec<_> = packets.iter().map(|p| (p.start(), p.from, p.to)).collect();
    assert_eq!(
        seen,
        [
            ("SUBSCRIBE sip:1001@acme.test SIP/2.0", it, us),
            ("SIP/2.0 200 OK", us, it),
            (&*format!("NOTIFY sip:1002@{it} SIP/2.0"), us, it),
            ("SIP/2.0 200 OK", it, us),
        ]
    );
    for packet in &packets {
        assert_eq!((packet.protocol, packet.node, packet.key.as_deref()), (17, 2001, Some("let me in")));
        assert_eq!(packet.id, Some(format!("1001@{it}")), "the Call-ID holds them together");
        assert!(packet.at + Duration::from_millis(1) >= before && packet.at <= after, "{packet:?}");
    }
    assert!(packets[2].message.contains("</dialog-info>"), "whole, with its body: {}", packets[2].message);
    assert!(packets.windows(2).all(|two| two[0].at <= two[1].at), "in their order");
}

#[test]
fn what_comes_and_goes_over_a_connection_says_so() {
    let collector = Collector::new();
    let world = World::new(&collector.configured(""));
    let mut stream = TcpStream::connect(world.sip).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let options = "OPTIONS sip:acme.test SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.1:9;branch=z9hG4bKo\r\n\
                   From: <sip:1@acme.test>;tag=n\r\nTo: <sip:acme.test>\r\nCall-ID: o\r\nCSeq: 1 OPTIONS\r\n\
                   Content-Length: 0\r\n\r\n";
    // A keep-alive and its reply are not SIP messages.
    stream.write_all(format!("\r\n\r\n{options}").as_bytes()).unwrap();
    let mut answer = [0; 4_096];
    while stream.read(&mut answer).unwrap() == 2 {}
    let (asked, answered) = (collector.next(), collector.next());
    let it = stream.local_addr().unwrap();
    assert_eq!((asked.message.as_str(), asked.from, asked.to), (options, it, world.sip));
    assert_eq!((answered.start(), answered.from, answered.to), ("SIP/2.0 200 OK", world.sip, it));
    assert_eq!((asked.protocol, answered.protocol, asked.node, asked.key), (6, 6, 1, None));
}

#[test]
fn only_the_realms_and_addresses_that_were_asked_for_are_copied() {
    let collector = Collector::new();
    let world = World::new(&collector.configured(", traffic = [\"umbrella.test\", \"1002@ACME.test\"]"));
    let phone = Phone::new(&world);
    let other = |realm: &str| {
        phone.send(&format!(
            "OPTIONS sip:{realm} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:9;branch=z9hG4bK{realm};rport\r\n\
             From: <sip:1003@{realm}>;tag=n\r\nTo: <sip:{realm}>\r\nCall-ID: {realm}\r\nCSeq: 1 OPTIONS\r\n\r\n"
        ));
        phone.hear_start("SIP/2.0 200");
    };
    other("acme.test");
    other("umbrella.test");
    phone.subscribe("1001", "acme.test");
    let starts: Vec<_> =
        (0..6).map(|_| collector.next()).map(|p| p.start().split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(starts, ["OPTIONS", "SIP/2.0", "SUBSCRIBE", "SIP/2.0", "NOTIFY", "SIP/2.0"]);
    let (_, metrics) = world.text_as("root-token", "/metrics", "");
    for line in
        ["{outcome=\"sent\"} 6", "{outcome=\"filtered\"} 2", "{outcome=\"dropped\"} 0", "{outcome=\"failed\"} 0"]
    {
        assert!(metrics.contains(&format!("lamplighter_hep_packets_total{line}")), "{line}: {metrics}");
    }
}

#[test]
fn kamailio_reads_the_same_out_of_it() {
    if process::skip_without("kamailio") {
        return;
    }
    let folder = Folder::new("hep");
    let tables = folder.path().join("tables");
    std::fs::create_dir_all(&tables).unwrap();
    std::fs::copy("/usr/share/kamailio/dbtext/kamailio/version", tables.join("version")).unwrap();
    let configuration = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/kamailio-hep.cfg");
    let port = ports::free();
    let mut command = Command::new("/usr/sbin/kamailio");
    command.args(["-DD", "-E", "-n", "1", "-m", "64", "-M", "8", "-f", configuration, "-w"]).arg(folder.path());
    command.arg("-P").arg(folder.path().join("kamailio.pid")).args(["-l", &format!("udp:127.0.0.1:{port}")]);
    command.args(["-A", &format!("DATABASE=\"text://{}\"", tables.display())]);
    let _kamailio = Process::start("kamailio", &mut command, folder.path());
    until_it_answers(port);
    let world =
        World::new(&format!("hep = {{ server = \"udp://127.0.0.1:{port}\", agent_id = 2001, password = \"key\" }}"));
    let phone = Phone::new(&world);
    phone.subscribe("1001", "acme.test");
    world.set("1001", "early");
    let notify = phone.hear_start("NOTIFY");
    let digest: String = Md5::digest(&notify).iter().map(|octet| format!("{octet:02x}")).collect();
    let (us, it) = (world.sip, phone.address());
    let end = format!(" 1 2001 key 1001@{it} {} {digest}", notify.len());
    let deadline = Instant::now() + PATIENCE;
    let line = loop {
        // Kamailio prints other output in between.
        let said = std::fs::read(folder.path().join("kamailio.out")).unwrap();
        let said = String::from_utf8_lossy(&said);
        if let Some(line) = said.lines().find(|line| line.ends_with(&end)) {
            break line[line.find("HEP").unwrap()..].to_owned();
        }
        assert!(Instant::now() < deadline, "no line ends with {end}: {said}");
        std::thread::yield_now();
    };
    assert!(line.starts_with(&format!("HEP3 2 17 {us} {it} ")), "{line}");
    let at: u64 = line.split(' ').nth(5).unwrap().split('.').next().unwrap().parse().unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    assert!((now - 120..=now).contains(&at), "{line}");
}

/// Waits until the proxy on this port answers.
fn until_it_answers(port: u16) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let own = socket.local_addr().unwrap();
    let deadline = Instant::now() + PATIENCE;
    let ping = format!(
        "OPTIONS sip:127.0.0.1:{port} SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bKping;rport\r\nMax-Forwards: 70\r\n\
         From: <sip:ping@127.0.0.1>;tag=1\r\nTo: <sip:127.0.0.1:{port}>\r\nCall-ID: ping\r\nCSeq: 1 OPTIONS\r\n\
         Content-Length: 0\r\n\r\n"
    );
    loop {
        // Sending is refused while nothing listens on the port.
        let _ = socket.send_to(ping.as_bytes(), ("127.0.0.1", port));
        if socket.recv(&mut [0; 2_048]).is_ok() {
            return;
        }
        assert!(Instant::now() < deadline, "no answer from {port}");
    }
}
