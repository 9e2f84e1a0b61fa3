//! Definition of a fuzz target.

/// A property that must hold for any bytes.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    /// Panics if the property does not hold.
    pub(crate) run: fn(&[u8]),
    /// Seeds of the target.
    pub(crate) seeds: fn() -> Vec<Vec<u8>>,
    /// Tokens of the syntax that its parsers know.
    pub(crate) words: &'static [&'static [u8]],
}
