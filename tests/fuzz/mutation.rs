//! Mutations of messages and bodies: small changes at random places.

/// One change to a message: position, kind, amount.
pub(crate) type Change = (u16, u8, u8);

/// Applies changes to a seed; `words` are the tokens to insert.
pub(crate) fn mutate(seed: &[u8], changes: &[Change], words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for &(place, kind, amount) in changes {
        let at = usize::from(place) % (bytes.len() + 1);
        let end = (at + usize::from(amount) % 32).min(bytes.len());
        match kind % 8 {
            0 => drop(bytes.drain(at..end)),
            1 | 2 => drop(bytes.splice(at..at, words[usize::from(amount) % words.len()].iter().copied())),
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

/// Replaces the line at offset `at`.
fn change_line(bytes: &mut Vec<u8>, at: usize, change: impl FnOnce(&[u8]) -> Vec<u8>) {
    let begin = bytes[..at].iter().rposition(|c| *c == b'\n').map_or(0, |i| i + 1);
    let end = bytes[at..].iter().position(|c| *c == b'\n').map_or(bytes.len(), |i| at + i + 1);
    let line = change(&bytes[begin..end]);
    drop(bytes.splice(begin..end, line));
}
