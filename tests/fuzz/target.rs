//! What a target is.

/// Something that must hold for any bytes whatever.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    /// Panics if it does not.
    pub(crate) run: fn(&[u8]),
    /// What to start from.
    pub(crate) seeds: fn() -> Vec<Vec<u8>>,
    /// The bits of syntax that its readers look for.
    pub(crate) words: &'static [&'static [u8]],
}
