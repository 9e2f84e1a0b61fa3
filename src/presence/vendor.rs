//! Phone vendors, recognised by the User-Agent header. There are few and they are known in advance, so metrics can be
//! counted per vendor.

/// Text that a User-Agent contains, in lower case, and the vendor that it stands for.
const PARTS: [(&str, &str); 20] = [
    ("yealink", "Yealink"),
    ("poly", "Poly"),
    ("snom", "Snom"),
    ("grandstream", "Grandstream"),
    ("cisco", "Cisco"),
    ("linksys", "Cisco"),
    ("fanvil", "Fanvil"),
    ("aastra", "Mitel"),
    ("mitel", "Mitel"),
    ("gigaset", "Gigaset"),
    ("panasonic", "Panasonic"),
    ("avaya", "Avaya"),
    ("auerswald", "Auerswald"),
    ("zoiper", "Zoiper"),
    ("bria", "Bria"),
    ("linphone", "Linphone"),
    ("microsip", "MicroSIP"),
    ("jssip", "JsSIP"),
    ("sip.js", "SIP.js"),
    ("lamplighter", "Lamplighter"),
];

/// Phone vendor; the default is an unknown one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vendor(u8);

impl Vendor {
    /// Number of vendors, including the unknown one.
    pub const COUNT: usize = PARTS.len() + 1;

    /// Recognises the vendor by a User-Agent. The search tries every name in turn, so callers keep the result.
    pub fn of(user_agent: &str) -> Vendor {
        let agent = user_agent.to_ascii_lowercase();
        let Some(found) = PARTS.iter().position(|(part, _)| agent.contains(part)) else { return Vendor::default() };
        // A vendor with several names is counted under the first.
        let first = PARTS.iter().position(|(_, name)| *name == PARTS[found].1).unwrap_or(found);
        Vendor(first as u8 + 1)
    }

    /// Index of the vendor, below [`Vendor::COUNT`].
    pub fn number(self) -> usize {
        usize::from(self.0)
    }

    /// Vendor with this index; the unknown one if the index is out of range.
    pub fn numbered(number: usize) -> Vendor {
        Vendor(if number < Vendor::COUNT { number as u8 } else { 0 })
    }

    /// Name of the vendor; none if it is unknown.
    pub fn name(self) -> Option<&'static str> {
        PARTS.get(self.number().checked_sub(1)?).map(|(_, name)| *name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phones_are_known_by_their_user_agent() {
        assert_eq!(Vendor::of("Yealink SIP-T46U 108.86.0.20").name(), Some("Yealink"));
        assert_eq!(Vendor::of("PolycomVVX-VVX_411-UA/5.9").name(), Some("Poly"));
        assert_eq!(Vendor::of("a phone of my own").name(), None);
        assert_eq!(Vendor::of("Linksys/SPA942"), Vendor::of("Cisco/SPA303"), "one make, one number");
    }

    #[test]
    fn a_number_names_its_family() {
        for number in 0..Vendor::COUNT {
            assert_eq!(Vendor::numbered(number).number(), number);
        }
        assert_eq!(Vendor::numbered(Vendor::COUNT), Vendor::default());
    }
}
