//! Encoder of HEP version 3 packets: "HEP3", the total length, then chunks of vendor, type, length and value. All
//! numbers are in network byte order. The constants below are the protocol's generic chunk types (vendor 0).

use std::net::IpAddr;
use std::time::UNIX_EPOCH;

use super::CapturedMessage;

/// Largest UDP payload over IPv4 (octets).
const MOST: usize = 65_507;

const IP_FAMILY: u16 = 0x0001;
const IP_PROTOCOL: u16 = 0x0002;
const SOURCE_V4: u16 = 0x0003;
const DESTINATION_V4: u16 = 0x0004;
const SOURCE_V6: u16 = 0x0005;
const DESTINATION_V6: u16 = 0x0006;
const SOURCE_PORT: u16 = 0x0007;
const DESTINATION_PORT: u16 = 0x0008;
const SECONDS: u16 = 0x0009;
const MICROSECONDS: u16 = 0x000a;
const PROTOCOL: u16 = 0x000b;
const NODE: u16 = 0x000c;
const KEY: u16 = 0x000e;
const PAYLOAD: u16 = 0x000f;
const CORRELATION: u16 = 0x0011;

/// Address family numbers of Linux, which the protocol uses.
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const TCP: u8 = 6;
const UDP: u8 = 17;
const SIP: u8 = 1;

/// Identity of this capture agent, which is part of every packet.
pub(super) struct HepEncoder {
    agent_id: u32,
    password: Option<Box<[u8]>>,
}

impl HepEncoder {
    pub(super) fn new(agent_id: u32, password: Option<&[u8]>) -> HepEncoder {
        HepEncoder { agent_id, password: password.map(Into::into) }
    }

    /// Writes one packet into `out`, replacing its content. Returns false if the packet is too large for a datagram.
    pub(super) fn write(&self, out: &mut Vec<u8>, passed: &CapturedMessage, correlation: Option<&str>) -> bool {
        out.clear();
        out.extend_from_slice(b"HEP3\0\0");
        let since = passed.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        // Both ends are of the same family, as a listener is either IPv4 or IPv6.
        let v4 = passed.from.is_ipv4() && passed.to.is_ipv4();
        put(out, IP_FAMILY, &[if v4 { AF_INET } else { AF_INET6 }]);
        put(out, IP_PROTOCOL, &[if passed.datagram { UDP } else { TCP }]);
        for (ip, chunk_v4, chunk_v6) in
            [(passed.from.ip(), SOURCE_V4, SOURCE_V6), (passed.to.ip(), DESTINATION_V4, DESTINATION_V6)]
        {
            match ip {
                IpAddr::V4(ip) if v4 => put(out, chunk_v4, &ip.octets()),
                IpAddr::V4(ip) => put(out, chunk_v6, &ip.to_ipv6_mapped().octets()),
                IpAddr::V6(ip) => put(out, chunk_v6, &ip.octets()),
            }
        }
        put(out, SOURCE_PORT, &passed.from.port().to_be_bytes());
        put(out, DESTINATION_PORT, &passed.to.port().to_be_bytes());
        put(out, SECONDS, &(since.as_secs() as u32).to_be_bytes());
        put(out, MICROSECONDS, &since.subsec_micros().to_be_bytes());
        put(out, PROTOCOL, &[SIP]);
        put(out, NODE, &self.agent_id.to_be_bytes());
        if let Some(password) = &self.password {
            put(out, KEY, password);
        }
        if let Some(id) = correlation {
            put(out, CORRELATION, id.as_bytes());
        }
        if out.len() + 6 + passed.bytes.len() > MOST {
            return false;
        }
        put(out, PAYLOAD, &passed.bytes);
        let length = (out.len() as u16).to_be_bytes();
        out[4..6].copy_from_slice(&length);
        true
    }
}

/// Appends one chunk. The caller makes sure that it fits: keys and ids are short, and the payload is measured before.
fn put(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = (value.len() + 6) as u16;
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn passed(from: &str, to: &str, bytes: &'static [u8]) -> CapturedMessage {
        let at = UNIX_EPOCH + Duration::from_micros(1_700_000_000_000_321);
        CapturedMessage {
            at,
            from: from.parse().unwrap(),
            to: to.parse().unwrap(),
            datagram: true,
            bytes: bytes.into(),
        }
    }

    /// The expected octets were written by hand from the protocol's specification.
    #[test]
    fn a_packet_is_octet_for_octet_what_the_protocol_says() {
        let mut out = b"left over".to_vec();
        let agent = HepEncoder::new(0x0102_0304, Some(b"key"));
        assert!(agent.write(&mut out, &passed("192.0.2.1:5060", "192.0.2.2:5061", b"SIP"), Some("c@x")));
        let expected: Vec<u8> = [
            &b"HEP3\0\x78"[..],
            &[0, 0, 0, 1, 0, 7, 2],
            &[0, 0, 0, 2, 0, 7, 17],
            &[0, 0, 0, 3, 0, 10, 192, 0, 2, 1],
            &[0, 0, 0, 4, 0, 10, 192, 0, 2, 2],
            &[0, 0, 0, 7, 0, 8, 0x13, 0xc4],
            &[0, 0, 0, 8, 0, 8, 0x13, 0xc5],
            &[0, 0, 0, 9, 0, 10, 0x65, 0x53, 0xf1, 0],
            &[0, 0, 0, 10, 0, 10, 0, 0, 1, 0x41],
            &[0, 0, 0, 11, 0, 7, 1],
            &[0, 0, 0, 12, 0, 10, 1, 2, 3, 4],
            &[0, 0, 0, 14, 0, 9, b'k', b'e', b'y'],
            &[0, 0, 0, 17, 0, 9, b'c', b'@', b'x'],
            &[0, 0, 0, 15, 0, 9, b'S', b'I', b'P'],
        ]
        .concat();
        assert_eq!(expected.len(), 0x78);
        assert_eq!(out, expected);
    }

    #[test]
    fn ipv6_has_chunks_of_its_own_and_nothing_is_said_that_is_not_there() {
        let mut out = Vec::new();
        assert!(HepEncoder::new(1, None).write(
            &mut out,
            &passed("[2001:db8::1]:5060", "[2001:db8::2]:5060", b"x"),
            None
        ));
        assert_eq!(out[6..13], [0, 0, 0, 1, 0, 7, 10]);
        assert_eq!(out[20..28], [0, 0, 0, 5, 0, 22, 0x20, 0x01]);
        let has = |kind: u8| out.windows(4).any(|at| at == [0, 0, 0, kind]);
        assert!(has(6) && !has(3) && !has(14) && !has(17));
    }

    #[test]
    fn what_does_not_fit_is_not_written() {
        let message = |length: usize| CapturedMessage {
            bytes: vec![b'x'; length].into(),
            ..passed("192.0.2.1:5060", "192.0.2.2:5060", b"")
        };
        let mut out = Vec::new();
        assert!(HepEncoder::new(1, None).write(&mut out, &message(65_000), None));
        assert_eq!(usize::from(u16::from_be_bytes([out[4], out[5]])), out.len());
        assert!(!HepEncoder::new(1, None).write(&mut out, &message(65_500), None));
    }
}
