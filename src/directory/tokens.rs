//! Bearer tokens: found by a keyed hash, then compared in constant time.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher as _;

use subtle::ConstantTimeEq as _;

use super::TokenScope;
use crate::util::secret::Secret;

/// Table of all tokens. The key of the hash is random and secret, so the time of a lookup reveals nothing about a
/// token; tokens with the same hash are compared in constant time. A lookup costs the same for one token and for a
/// hundred thousand.
pub(super) struct Tokens {
    key: RandomState,
    by_hash: HashMap<u64, Vec<(Secret, TokenScope)>>,
}

impl Tokens {
    pub(super) fn new(tokens: impl Iterator<Item = (Secret, TokenScope)>) -> Self {
        let key = RandomState::new();
        let mut by_hash: HashMap<u64, Vec<(Secret, TokenScope)>> = HashMap::new();
        for (token, bearer) in tokens {
            by_hash.entry(key.hash_one(token.expose())).or_default().push((token, bearer));
        }
        Self { key, by_hash }
    }

    pub(super) fn bearer(&self, token: &str) -> Option<TokenScope> {
        let alike = self.by_hash.get(&self.key.hash_one(token))?;
        let same = |known: &Secret| bool::from(known.expose().as_bytes().ct_eq(token.as_bytes()));
        alike.iter().find(|(known, _)| same(known)).map(|(_, bearer)| *bearer)
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tokens", self.by_hash.values().map(Vec::len).sum::<usize>())
    }
}
