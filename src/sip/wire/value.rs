//! Values in a message, and their encoding as octets.
//!
//! Text and numbers are written directly into the buffer. Formatters of the standard library are general and cost
//! several times as much, and most of the work of this server is writing messages.

use std::borrow::Cow;
use std::fmt;
use std::io::Write as _;
use std::net::IpAddr;

/// Value that can be written into a line of a message. A tuple is written one part after the other.
pub trait Value {
    /// Appends the value unchecked. [`super::Writer`] replaces the characters that a line must not hold.
    fn put(&self, out: &mut Vec<u8>);
}

impl Value for str {
    #[inline(always)]
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }
}

impl<T: Value + ?Sized> Value for &T {
    #[inline(always)]
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
                let (mut text, mut length) = ([b'.'; 16], 0);
                for octet in ip.octets() {
                    let mut digits = itoa::Buffer::new();
                    let digits = digits.format(octet).as_bytes();
                    text[length..length + digits.len()].copy_from_slice(digits);
                    length += digits.len() + 1;
                }
                out.extend_from_slice(&text[..length - 1]);
            }
            IpAddr::V6(ip) => format_args!("{ip}").put(out),
        }
    }
}

/// Text of a value on its own.
pub fn text_of(value: impl Value) -> String {
    let mut out = Vec::with_capacity(40);
    value.put(&mut out);
    String::from_utf8(out).unwrap_or_default()
}

/// Number in lower-case hexadecimal, and its least number of digits.
#[derive(Clone, Copy, Debug)]
pub struct Hex(pub u64, pub usize);

impl Hex {
    /// Parses a number of up to 16 hexadecimal digits in either case.
    pub fn read(text: &str) -> Option<u64> {
        if !(1..=16).contains(&text.len()) {
            return None;
        }
        let digits = text.bytes().map(|c| DIGITS[usize::from(c)]);
        let (number, all) = digits.fold((0, 0), |(number, all), d| (number << 4 | u64::from(d), all | d));
        (all < 16).then_some(number)
    }

    /// Digits of the number, and how many octets of the array they take. Built with copies of fixed size: a copy of
    /// variable length costs more than the digits.
    #[inline]
    pub fn digits(self) -> ([u8; 16], usize) {
        let Hex(number, least) = self;
        let count = (16 - number.leading_zeros() as usize / 4).max(least.clamp(1, 16));
        let (high, low) = (Hex::eight((number >> 32) as u32), Hex::eight(number as u32));
        let mut digits = [b'0'; 16];
        match count.checked_sub(8) {
            Some(more) => {
                // Eight high digits may be too many; the low digits overwrite the surplus.
                let shifted = high.checked_shl(8 * (8 - more) as u32).unwrap_or_default();
                digits[..8].copy_from_slice(&shifted.to_be_bytes());
                digits[more..more + 8].copy_from_slice(&low.to_be_bytes());
            }
            None => digits[..8].copy_from_slice(&(low << (8 * (8 - count))).to_be_bytes()),
        }
        (digits, count)
    }

    /// Eight digits of a number, the first in the highest octet.
    fn eight(number: u32) -> u64 {
        const ONES: u64 = 0x0101_0101_0101_0101;
        // The nibbles are spread over one octet each; then all of them become digits at once.
        let n = u64::from(number);
        let n = (n | n << 16) & 0x0000_ffff_0000_ffff;
        let n = (n | n << 8) & 0x00ff_00ff_00ff_00ff;
        let n = (n | n << 4) & 0x0f0f_0f0f_0f0f_0f0f;
        let letters = (n + 6 * ONES) >> 4 & ONES;
        n + u64::from(b'0') * ONES + letters * u64::from(b'a' - b'9' - 1)
    }
}

/// Value of each hexadecimal digit; 255 for other characters.
const DIGITS: [u8; 256] = {
    let (mut table, mut c) = ([255; 256], 0);
    while c < 128 {
        table[c] = match c as u8 {
            c @ b'0'..=b'9' => c - b'0',
            c @ (b'a'..=b'f' | b'A'..=b'F') => (c | 0x20) - b'a' + 10,
            _ => 255,
        };
        c += 1;
    }
    table
};

impl Value for Hex {
    fn put(&self, out: &mut Vec<u8>) {
        let (digits, count) = self.digits();
        out.extend_from_slice(&digits[..count]);
    }
}

macro_rules! tuple {
    ($($part:ident)*) => {
        impl<$($part: Value),*> Value for ($($part,)*) {
            #[inline(always)] // constant parts become a few moves
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
