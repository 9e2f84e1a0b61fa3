//! What can stand in a message, and how it becomes octets.
//!
//! Text and numbers go straight into the buffer: formatters are general and cost several times as much, and most of what
//! this server does is writing messages.

use std::borrow::Cow;
use std::fmt;
use std::io::Write as _;
use std::net::IpAddr;

/// Something that can be written into a line of a message. Tuples are written one part after the other.
pub trait Value {
    /// Appends it as it is. What a line must not hold is replaced by [`super::Writer`].
    fn put(&self, out: &mut Vec<u8>);
}

impl Value for str {
    #[inline]
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }
}

impl<T: Value + ?Sized> Value for &T {
    fn put(&self, out: &mut Vec<u8>) {
        (**self).put(out);
    }
}

impl Value for Box<str> {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }
}

impl Value for String {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }
}

impl Value for Cow<'_, str> {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }
}

impl Value for fmt::Arguments<'_> {
    fn put(&self, out: &mut Vec<u8>) {
        // Writing to memory cannot fail.
        let _ = out.write_fmt(*self);
    }
}

macro_rules! decimal {
    ($($number:ty)*) => {$(
        impl Value for $number {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(itoa::Buffer::new().format(*self).as_bytes());
            }
        }
    )*};
}

decimal! { u8 u16 u32 u64 usize i32 }

impl Value for IpAddr {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            IpAddr::V4(ip) => {
                let [a, b, c, d] = ip.octets();
                (a, ".", b, ".", c, ".", d).put(out);
            }
            IpAddr::V6(ip) => format_args!("{ip}").put(out),
        }
    }
}

/// A number in hexadecimal digits, at least so many of them.
#[derive(Clone, Copy, Debug)]
pub struct Hex(pub u64, pub usize);

impl Hex {
    /// Reads a number of up to 16 hexadecimal digits in either case.
    pub fn read(text: &str) -> Option<u64> {
        let digit = |c: u8| match c {
            b'0'..=b'9' => Some(u64::from(c - b'0')),
            b'a'..=b'f' | b'A'..=b'F' => Some(u64::from((c | 0x20) - b'a' + 10)),
            _ => None,
        };
        let sized = (1..=16).contains(&text.len());
        text.bytes().filter(|_| sized).try_fold(0, |number, c| Some(number << 4 | digit(c)?)).filter(|_| sized)
    }
}

impl Value for Hex {
    fn put(&self, out: &mut Vec<u8>) {
        let Hex(number, least) = *self;
        let digits = (16 - number.leading_zeros() as usize / 4).max(least.clamp(1, 16));
        out.extend((0..digits).rev().map(|place| b"0123456789abcdef"[(number >> (4 * place)) as usize & 0xf]));
    }
}

macro_rules! tuple {
    ($($part:ident)*) => {
        impl<$($part: Value),*> Value for ($($part,)*) {
            fn put(&self, out: &mut Vec<u8>) {
                #[allow(non_snake_case)]
                let ($($part,)*) = self;
                $($part.put(out);)*
            }
        }
    };
}

tuple! { A B }
tuple! { A B C }
tuple! { A B C D }
tuple! { A B C D E }
tuple! { A B C D E F }
tuple! { A B C D E F G }

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: impl Value) -> String {
        let mut out = Vec::new();
        value.put(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_are_written_as_formatters_would() {
        for number in [0, 1, 9, 10, 0xf, 0x10, 0x9c2e, u64::from(u32::MAX), u64::MAX] {
            assert_eq!(text(number), number.to_string());
            assert_eq!(text(Hex(number, 0)), format!("{number:x}"));
            assert_eq!(text(Hex(number, 16)), format!("{number:016x}"));
            assert_eq!(
                (Hex::read(&format!("{number:x}")), Hex::read(&format!("{number:016X}"))),
                (Some(number), Some(number))
            );
        }
        assert_eq!(["", "g", "+1", "1 ", "00000000000000001"].map(Hex::read), [None; 5]);
        for ip in ["127.0.0.1", "255.0.10.199", "2001:db8::7"] {
            assert_eq!(text(ip.parse::<IpAddr>().unwrap()), ip);
        }
    }

    #[test]
    fn parts_follow_each_other() {
        assert_eq!(text(("active;expires=", 3_600_u32, String::from(";"), "x")), "active;expires=3600;x");
        assert_eq!(text(format_args!("{}-{}", "a", 1)), "a-1");
    }
}
