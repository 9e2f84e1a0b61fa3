//! Scanning text with SIMD, sixteen octets at a time, for the checks that every octet of every message needs.

use wide::u8x16;

/// Octets per SIMD vector.
const LANES: usize = 16;
/// Octets per bit mask, one bit each.
const BLOCK: usize = 64;
/// Padding for a text that does not fill its block. Printable, and never searched for.
const FILLER: u8 = b'0';

/// Mask with all ones where an octet is not printable ASCII of at least `least`.
#[inline]
fn outside(octets: u8x16, least: u8) -> u8x16 {
    let (shifted, room) = (octets - u8x16::splat(least), u8x16::splat(0x7f - least));
    shifted.max(room).simd_eq(shifted)
}

/// Returns true if a text is printable ASCII, each octet of it at least `least` and none of `but`.
#[inline]
pub(super) fn is_printable<const N: usize>(text: &[u8], least: u8, but: [u8; N]) -> bool {
    let odd = |block: &[u8; LANES]| {
        let octets = u8x16::new(*block);
        but.iter().fold(outside(octets, least), |odd, c| odd | octets.simd_eq(u8x16::splat(*c)))
    };
    let all = match text.last_chunk() {
        // The last vector overlaps the one before it, which is cheaper than a loop over single octets.
        Some(last) => text.as_chunks().0.iter().fold(odd(last), |all, block| all | odd(block)),
        None => {
            let mut block = [FILLER; LANES];
            block[..text.len()].copy_from_slice(text);
            odd(&block)
        }
    };
    all.to_bitmask() == 0
}

/// Number of octets that are not printable ASCII.
#[inline]
pub(super) fn count_odd(text: &[u8]) -> usize {
    let (blocks, rest) = text.as_chunks();
    let mut last = [FILLER; LANES];
    last[..rest.len()].copy_from_slice(rest);
    // Each octet of the sum counts one position of every vector, and overflows above 255.
    blocks.chunks(254).chain([[last].as_slice()]).fold(0, |count, blocks| {
        let one = u8x16::splat(1);
        let sums = blocks.iter().fold(u8x16::splat(0), |sums, block| sums + (outside(u8x16::new(*block), b' ') & one));
        count + sums.to_array().iter().map(|sum| usize::from(*sum)).sum::<usize>()
    })
}

/// Position of the first `wanted` octet in a text.
#[inline]
pub(super) fn find(text: &[u8], wanted: u8) -> Option<usize> {
    let at = |block: &[u8; LANES]| {
        let found = u8x16::new(*block).simd_eq(u8x16::splat(wanted)).to_bitmask();
        (found != 0).then(|| found.trailing_zeros() as usize)
    };
    let Some(last) = text.last_chunk() else {
        let mut block = [!wanted; LANES];
        block[..text.len()].copy_from_slice(text);
        return at(&block);
    };
    let blocks = text.as_chunks().0.iter().enumerate();
    let whole = blocks.map(|(number, block)| (number * LANES, block));
    // The last vector overlaps octets that have been searched without a match.
    whole.chain([(text.len() - LANES, last)]).find_map(|(from, block)| Some(from + at(block)?))
}

/// Iterator over the octets of a text that are not printable ASCII. In a message these are its line ends and little
/// else.
pub(super) struct NonPrintable<'a> {
    text: &'a [u8],
    /// Start of the block that `mask` belongs to.
    block: usize,
    mask: u64,
}

impl<'a> NonPrintable<'a> {
    pub(super) fn of(text: &'a [u8]) -> NonPrintable<'a> {
        let mut odd = NonPrintable { text, block: 0, mask: 0 };
        odd.look(0);
        odd
    }

    fn look(&mut self, block: usize) {
        let mut room = [FILLER; BLOCK];
        let rest = self.text.get(block..).unwrap_or_default();
        let octets = match rest.first_chunk() {
            Some(octets) => octets,
            None => {
                room[..rest.len()].copy_from_slice(rest);
                &room
            }
        };
        let (lanes, _) = octets.as_chunks::<LANES>();
        let mask = |lane: usize| u64::from(outside(u8x16::new(lanes[lane]), b' ').to_bitmask()) << (lane * LANES);
        (self.block, self.mask) = (block, mask(0) | mask(1) | mask(2) | mask(3));
    }

    /// Position of the first such octet at or after `from`.
    #[inline]
    pub(super) fn next(&mut self, from: usize) -> Option<usize> {
        let mut from = from;
        loop {
            if from >= self.text.len() {
                return None;
            }
            let block = from - from % BLOCK;
            if block != self.block {
                self.look(block);
            }
            let ahead = self.mask & u64::MAX << (from % BLOCK);
            if ahead != 0 {
                return Some(block + ahead.trailing_zeros() as usize);
            }
            from = block + BLOCK;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts of every length around the block sizes, each with one octet of every kind at every position.
    fn texts() -> impl Iterator<Item = Vec<u8>> {
        (0..150).flat_map(|length| {
            (0..length).flat_map(move |place| {
                [b'a', b' ', b'"', b'~', 0x7f, 0x80, 0xff, 0, b'\r', b'\n', 0x1f].map(|c| {
                    let mut text = vec![b'x'; length];
                    text[place] = c;
                    text
                })
            })
        })
    }

    #[test]
    fn an_octet_that_may_not_be_there_is_seen_wherever_it_is() {
        assert!(is_printable(b"", b' ', [b'"']));
        assert_eq!(count_odd(&[7; 100_000]), 100_000);
        for text in texts() {
            let slowly = |least: u8, but: &[u8]| text.iter().all(|c| (least..0x7f).contains(c) && !but.contains(c));
            assert_eq!(is_printable(&text, b' ', []), slowly(b' ', &[]), "{text:?}");
            assert_eq!(is_printable(&text, b'!', [b'"', b'~']), slowly(b'!', b"\"~"), "{text:?}");
            assert_eq!(count_odd(&text), text.iter().filter(|c| !(b' '..0x7f).contains(c)).count());
            for c in [b'"', b'x', 0] {
                assert_eq!(find(&text, c), text.iter().position(|d| *d == c), "{text:?}");
            }
        }
    }

    #[test]
    fn odd_octets_are_found_in_order_and_from_anywhere() {
        assert_eq!(NonPrintable::of(b"").next(0), None);
        for mut text in texts() {
            let middle = text.len() / 2;
            text[middle] = b'\n';
            let slowly = |from: usize| (from..text.len()).find(|i| !(b' '..0x7f).contains(&text[*i]));
            let (mut odd, mut from) = (NonPrintable::of(&text), 0);
            while let Some(at) = odd.next(from) {
                assert_eq!(Some(at), slowly(from));
                from = at + 1;
            }
            assert_eq!(slowly(from), None);
            assert_eq!(odd.next(0), slowly(0), "and back to the start");
        }
    }
}
