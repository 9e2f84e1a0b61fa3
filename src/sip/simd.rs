//! Looking at sixteen octets at once: what is asked of every octet of every message.

use wide::u8x16;

/// As many octets as are looked at in one step.
const LANES: usize = 16;
/// As many as are remembered at once, one bit each.
const BLOCK: usize = 64;
/// Stands behind a text that does not fill its block, and is never asked for.
const FILLER: u8 = b'0';

/// All ones where an octet is not printable ASCII of at least `least`.
#[inline]
fn outside(octets: u8x16, least: u8) -> u8x16 {
    let (shifted, room) = (octets - u8x16::splat(least), u8x16::splat(0x7f - least));
    shifted.max(room).simd_eq(shifted)
}

/// Whether a text is printable ASCII without control characters, each octet of it at least `least` and none of `but`.
#[inline]
pub(super) fn is_printable<const N: usize>(text: &[u8], least: u8, but: [u8; N]) -> bool {
    let odd = |block: &[u8; LANES]| {
        let octets = u8x16::new(*block);
        but.iter().fold(outside(octets, least), |odd, c| odd | octets.simd_eq(u8x16::splat(*c)))
    };
    let all = match text.last_chunk() {
        // The last ones are looked at twice, rather than one by one.
        Some(last) => text.as_chunks().0.iter().fold(odd(last), |all, block| all | odd(block)),
        None => {
            let mut block = [FILLER; LANES];
            block[..text.len()].copy_from_slice(text);
            odd(&block)
        }
    };
    all.to_bitmask() == 0
}

/// How many octets of a text are no printable ASCII.
#[inline]
pub(super) fn count_odd(text: &[u8]) -> usize {
    let (blocks, rest) = text.as_chunks();
    let mut last = [FILLER; LANES];
    last[..rest.len()].copy_from_slice(rest);
    // Each of these adds up what stands in one place of every block, and holds no more than 255.
    blocks.chunks(254).chain([[last].as_slice()]).fold(0, |count, blocks| {
        let one = u8x16::splat(1);
        let sums = blocks.iter().fold(u8x16::splat(0), |sums, block| sums + (outside(u8x16::new(*block), b' ') & one));
        count + sums.to_array().iter().map(|sum| usize::from(*sum)).sum::<usize>()
    })
}

/// Where an octet first stands in a text.
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
    // What is in the last ones again has been looked at, and it is not there.
    whole.chain([(text.len() - LANES, last)]).find_map(|(from, block)| Some(from + at(block)?))
}

/// Finds the octets of a text that are no printable ASCII: in a message, its line ends and little else.
pub(super) struct NonPrintable<'a> {
    text: &'a [u8],
    /// Where the block begins of which `mask` is.
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

    /// The first at or behind `from`.
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

    /// Texts of every length around the sizes of blocks, each with one octet of every kind at every place.
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
