//! DNS server of a test: a few records, over UDP.

use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};

pub(crate) const A: u16 = 1;
pub(crate) const SRV: u16 = 33;
pub(crate) const NAPTR: u16 = 35;

/// Name and type of a query.
type Asked = (String, u16);

pub(crate) struct Dns {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Dns {
    /// Serves these records for as long as the test runs, each with name, type and data.
    pub(crate) fn open(records: Vec<(&'static str, u16, Vec<u8>)>) -> Dns {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (address, asked) = (socket.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let heard = Arc::clone(&asked);
        std::thread::spawn(move || {
            let mut query = [0; 1_500];
            while let Ok((length, from)) = socket.recv_from(&mut query) {
                let (question, end) = read_question(&query[..length]);
                heard.lock().unwrap().push(question.clone());
                let found = || records.iter().filter(|(name, kind, _)| (*name, *kind) == (&*question.0, question.1));
                let mut answer = query[..2].to_vec();
                // An authoritative response with recursion: one question, this many answers, no other section.
                answer.extend([0x85, 0x80, 0, 1, 0, found().count() as u8, 0, 0, 0, 0]);
                answer.extend(&query[12..end]);
                for (_, kind, data) in found() {
                    // The name of the question; the class; a lifetime of a minute.
                    answer.extend([0xc0, 12]);
                    answer.extend(kind.to_be_bytes());
                    answer.extend([0, 1, 0, 0, 0, 60]);
                    answer.extend((data.len() as u16).to_be_bytes());
                    answer.extend(data);
                }
                socket.send_to(&answer, from).unwrap();
            }
        });
        Dns { address, asked }
    }

    pub(crate) fn config(&self) -> String {
        format!("[dns]\nservers = [\"{}\"]", self.address)
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

/// Parses the question; returns its end too.
fn read_question(query: &[u8]) -> (Asked, usize) {
    let (mut at, mut labels) = (12, Vec::new());
    while query[at] > 0 {
        let end = at + 1 + usize::from(query[at]);
        labels.push(String::from_utf8(query[at + 1..end].to_vec()).unwrap().to_lowercase());
        at = end;
    }
    ((labels.join("."), u16::from_be_bytes([query[at + 1], query[at + 2]])), at + 5)
}

fn name(text: &str) -> Vec<u8> {
    let labels = text.split('.').flat_map(|label| std::iter::once(label.len() as u8).chain(label.bytes()));
    labels.chain([0]).collect()
}

fn text(text: &str) -> Vec<u8> {
    std::iter::once(text.len() as u8).chain(text.bytes()).collect()
}

pub(crate) fn srv(priority: u16, port: u16, target: &str) -> Vec<u8> {
    let numbers = [priority, 0, port].map(u16::to_be_bytes).concat();
    [numbers, name(target)].concat()
}

pub(crate) fn naptr(order: u16, service: &str, replacement: &str) -> Vec<u8> {
    let numbers = [order, 50].map(u16::to_be_bytes).concat();
    [numbers, text("s"), text(service), text(""), name(replacement)].concat()
}
