//! Extensions as the PBX knows them: the last published step of each, and its time.

use super::book::NOTHING;

/// Number of latest steps whose times are remembered. The delay of a watcher that is further behind is not known
/// exactly.
const REMEMBERED: usize = 4;

/// One extension.
#[derive(Clone, Debug)]
pub(super) struct Lamp {
    /// The newest published step.
    pub(super) sent: u32,
    /// The newest step whose PUBLISH was answered with 200.
    pub(super) accepted: u32,
    /// Number of watchers that have received the newest step.
    pub(super) reached: u32,
    /// The PUBLISH in flight.
    pub(super) op: u32,
    pub(super) cseq: u32,
    /// Entity-tag of the publication; empty while there is none.
    pub(super) etag: Box<str>,
    moments: [u64; REMEMBERED],
}

impl Default for Lamp {
    fn default() -> Self {
        let (etag, moments) = (Box::default(), [0; REMEMBERED]);
        Lamp { sent: 0, accepted: 0, reached: 0, op: NOTHING, cseq: 0, etag, moments }
    }
}

impl Lamp {
    /// Records that a new step is published now.
    pub(super) fn advance(&mut self, now: u64) {
        self.sent += 1;
        self.reached = 0;
        self.moments[self.sent as usize % REMEMBERED] = now;
    }

    /// Time at which a step was published, or the oldest remembered time after it.
    pub(super) fn published_at(&self, step: u32) -> u64 {
        let oldest = (self.sent + 1).saturating_sub(REMEMBERED as u32);
        self.moments[step.max(oldest) as usize % REMEMBERED]
    }
}

/// All extensions, including those without a watcher so far.
#[derive(Debug, Default)]
pub(super) struct Lamps(Vec<Lamp>);

impl Lamps {
    pub(super) fn get_mut(&mut self, extension: u32) -> &mut Lamp {
        let at = extension as usize;
        if at >= self.0.len() {
            self.0.resize_with(at + 1, Lamp::default);
        }
        &mut self.0[at]
    }

    /// Extensions that have a publication at the server.
    pub(super) fn published(&self) -> Vec<u32> {
        let published = self.0.iter().enumerate().filter(|(_, lamp)| !lamp.etag.is_empty());
        published.map(|(extension, _)| extension as u32).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_moments_are_remembered() {
        let mut lamp = Lamp::default();
        for now in 1..=10 {
            lamp.advance(now * 100);
        }
        assert_eq!([10, 7, 6, 1].map(|step| lamp.published_at(step)), [1_000, 700, 700, 700]);
    }
}
