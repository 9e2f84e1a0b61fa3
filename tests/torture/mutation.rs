//! Messages a little off: the fixtures, changed here and there.

use std::path::Path;
use std::sync::LazyLock;

/// Every fixture: what mutations start from.
pub(crate) static SEEDS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let mut files: Vec<_> = ["phones", "publish", "bad"]
        .iter()
        .flat_map(|dir| std::fs::read_dir(root.join(dir)).expect("the fixtures"))
        .map(|entry| entry.expect("a file").path())
        .collect();
    files.sort();
    assert!(files.len() > 100, "where are the fixtures?");
    files.iter().map(|file| std::fs::read(file).expect("a fixture")).collect()
});

/// What mutations put in: the bits of syntax on which readers trip.
pub(crate) const TOKENS: [&[u8]; 36] = [
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"\n\n",
    b"\r",
    b"\r\n ",
    b"\r\nEvil: 1\r\n",
    b"\nEvil: 1\n",
    b"\rEvil: 1\r",
    b"%0d%0aEvil: 1",
    b"\xe2\x80\xa8Evil: 1",
    b"\r\nContent-Length: 5\r\n",
    b"\r\nl: 18446744073709551615\r\n",
    b"\r\nv: SIP/2.0/UDP x;branch=z9hG4bK9\r\n",
    b"\r\nRequire: a\r\n",
    b"\0",
    b"\xff",
    b"\\",
    b"\\\"",
    b"\"",
    b"<",
    b">",
    b";",
    b",",
    b";tag=",
    b";rport;received=1.2.3.4",
    b"=",
    b":",
    b"@",
    b"?",
    b"%",
    b" ",
    b"[::1]",
    b"[",
    b"-1",
    b"99999999999999999999",
];

/// One change to a message: where, what kind, how much.
pub(crate) type Change = (u16, u8, u8);

pub(crate) fn mutate(seed: &[u8], changes: &[Change]) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for &(place, kind, amount) in changes {
        let at = usize::from(place) % (bytes.len() + 1);
        let end = (at + usize::from(amount) % 32).min(bytes.len());
        match kind % 8 {
            0 => drop(bytes.drain(at..end)),
            1 | 2 => drop(bytes.splice(at..at, TOKENS[usize::from(amount) % TOKENS.len()].iter().copied())),
            3 => bytes.truncate(at.max(1)),
            4 if at < bytes.len() => bytes[at] = amount,
            5 => change_line(&mut bytes, at, |_| Vec::new()),
            6 => change_line(&mut bytes, at, |line| [line, line].concat()),
            _ => {
                let copy = bytes[at..end].to_vec();
                drop(bytes.splice(end..end, copy));
            }
        }
    }
    bytes
}

/// Puts something else in the place of the line that `at` stands in.
fn change_line(bytes: &mut Vec<u8>, at: usize, change: impl FnOnce(&[u8]) -> Vec<u8>) {
    let begin = bytes[..at].iter().rposition(|c| *c == b'\n').map_or(0, |i| i + 1);
    let end = bytes[at..].iter().position(|c| *c == b'\n').map_or(bytes.len(), |i| at + i + 1);
    let line = change(&bytes[begin..end]);
    drop(bytes.splice(begin..end, line));
}

/// What a mutation of one of the fixtures is made of.
pub(crate) type Mutation = (u8, Vec<Change>);

pub(crate) fn mutated((seed, changes): &Mutation) -> Vec<u8> {
    mutate(&SEEDS[usize::from(*seed) % SEEDS.len()], &changes[..changes.len().min(4)])
}

/// A text of the letters that mean something to the readers of values.
pub(crate) fn speckled(bytes: &[u8]) -> String {
    let letters = "aZ9:@;=,<>\"\\ \t\r\n?%[].-/*+&sip:tag=branch=\u{e9}\0";
    let letters: Vec<char> = letters.chars().collect();
    bytes.iter().map(|i| letters[usize::from(*i) % letters.len()]).collect()
}
