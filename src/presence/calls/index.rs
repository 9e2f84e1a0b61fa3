//! Index of calls by Call-ID and tags, in a time that does not depend on how many there are: a document may list a
//! thousand calls, each to be compared with hundreds of known ones.
//!
//! Calls with the same Call-ID are in one chain; calls without one are in the chain of their id. Along a chain only
//! the hashes of tags are compared. The caller compares the candidates by text, as two texts may have one hash.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};

use crate::presence::state::CallReport;

/// Index over a list of calls, by position.
#[derive(Default)]
pub(super) struct Index {
    hasher: RandomState,
    /// First and last position of each chain.
    chains: HashMap<u64, (u32, u32)>,
    entries: Vec<Entry>,
}

struct Entry {
    next: Option<u32>,
    tags: Tags,
}

/// Hashes of the local and the remote tag; 0 where there is no tag.
#[derive(Clone, Copy)]
struct Tags([u32; 2]);

impl Tags {
    /// Returns true if no tag is known on both sides with different values.
    fn agree(self, other: Tags) -> bool {
        let agree = |a: u32, b: u32| a == 0 || b == 0 || a == b;
        agree(self.0[0], other.0[0]) && agree(self.0[1], other.0[1])
    }
}

impl Index {
    /// Adds the call at the next position of the list. `id` is the one that its publisher gave it.
    pub(super) fn push(&mut self, call: &CallReport, id: &str) {
        let position = self.entries.len() as u32;
        let entry = Entry { next: None, tags: self.tags(call) };
        self.entries.push(entry);
        let chain = self.chain(call, id);
        let (_, last) = self.chains.entry(chain).or_insert((position, position));
        if *last != position {
            self.entries[*last as usize].next = Some(position);
            *last = position;
        }
    }

    /// Updates the tags of the call at a position, of which more may be known now.
    pub(super) fn learn(&mut self, position: usize, call: &CallReport) {
        self.entries[position].tags = self.tags(call);
    }

    /// Positions of the calls that a report may be about, in the order of the list.
    pub(super) fn candidates<'a>(&'a self, report: &CallReport) -> impl Iterator<Item = usize> + 'a {
        let tags = self.tags(report);
        let mut next = self.chains.get(&self.chain(report, &report.id)).map(|(first, _)| *first);
        std::iter::from_fn(move || {
            loop {
                let position = next?;
                let entry = self.entries.get(position as usize)?;
                next = entry.next;
                if entry.tags.agree(tags) {
                    return Some(position as usize);
                }
            }
        })
    }

    fn chain(&self, call: &CallReport, id: &str) -> u64 {
        self.hasher.hash_one((call.call_id.is_some(), call.call_id.as_deref().unwrap_or(id)))
    }

    fn tags(&self, call: &CallReport) -> Tags {
        let hash = |tag: &Option<Box<str>>| tag.as_ref().map_or(0, |tag| self.hasher.hash_one(tag) as u32 | 1);
        Tags([hash(&call.local_tag), hash(&call.remote_tag)])
    }
}
