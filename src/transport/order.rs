//! Order of the NOTIFYs of one dialog across threads.
//!
//! A NOTIFY is created under the lock of its presentity and sent later: after the journal has committed, by another
//! thread, or after the process was paused. By then a newer NOTIFY of the dialog may exist. So just before a NOTIFY
//! goes to the kernel or into the queue of a connection, it is checked to be the newest of its dialog; if not, it is
//! superseded and not sent.
//!
//! Between this check and the system call no other thread may send a NOTIFY of the same dialog. So each dialog belongs
//! to a lane, which is a lock that several dialogs share. A [`SendTurn`] holds the lanes of all messages that leave in one
//! call.

use std::sync::atomic::AtomicU64;

use parking_lot::{Mutex, MutexGuard};

use super::DeliveryToken;
use crate::util::counters::{increment, total};
use crate::util::per_thread::{CachePadded, PerThread};

/// Number of lanes. It exceeds the packets in the batches of all threads together, so that two batches seldom need the
/// same lane.
const LANES: usize = 1_024;
/// Most lanes that one turn holds: the number of datagrams that one call sends.
pub(super) const MOST_LANES: usize = 32;

/// Decides whether the NOTIFY with a ticket is the newest of its dialog. It is called while lanes are held and may lock
/// a presentity; so no thread may send while it holds the lock of a presentity.
pub type IsLatest = Box<dyn Fn(DeliveryToken) -> bool + Send + Sync>;

/// Lanes of all dialogs.
pub struct NotifyOrder {
    is_latest: IsLatest,
    lanes: Box<[CachePadded<Mutex<()>>]>,
    superseded: PerThread<AtomicU64>,
}

/// Decision about a packet in a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SendDecision {
    /// It is sent in this turn.
    Leaves,
    /// It is not sent: a newer NOTIFY of its dialog exists.
    Superseded,
    /// It has to wait for the next turn: another thread holds its lane, or this turn holds as many lanes as it may.
    NextTurn,
}

/// Messages that one thread sends at once. Dropping it releases the lanes.
pub(super) struct SendTurn<'a> {
    order: &'a NotifyOrder,
    held: [Option<(usize, MutexGuard<'a, ()>)>; MOST_LANES],
    count: usize,
}

impl NotifyOrder {
    /// Creates the lanes; `is_latest` decides what is superseded.
    pub fn new(is_latest: IsLatest) -> NotifyOrder {
        let lanes = (0..LANES).map(|_| CachePadded::default()).collect();
        NotifyOrder { is_latest, lanes, superseded: PerThread::default() }
    }

    pub(super) fn turn(&self) -> SendTurn<'_> {
        SendTurn { order: self, held: [const { None }; MOST_LANES], count: 0 }
    }

    /// Number of NOTIFYs that were not sent because a newer one existed.
    pub(super) fn superseded(&self) -> u64 {
        total(&self.superseded, |superseded| superseded)
    }
}

impl SendTurn<'_> {
    /// Decides whether a packet is sent in this turn. It waits for a lane only while the turn holds none, so two turns
    /// cannot deadlock.
    pub(super) fn admit(&mut self, ticket: Option<DeliveryToken>) -> SendDecision {
        let Some(ticket) = ticket else { return SendDecision::Leaves };
        let lane = lane_of(ticket);
        let held = self.held[..self.count].iter().flatten().any(|(held, _)| *held == lane);
        if !held {
            let mutex = &self.order.lanes[lane].0;
            let guard = match self.count {
                0 => Some(mutex.lock()),
                MOST_LANES => None,
                _ => mutex.try_lock(),
            };
            let Some(guard) = guard else { return SendDecision::NextTurn };
            self.held[self.count] = Some((lane, guard));
            self.count += 1;
        }
        match (self.order.is_latest)(ticket) {
            true => SendDecision::Leaves,
            false => {
                increment(self.order.superseded.mine());
                SendDecision::Superseded
            }
        }
    }
}

/// Lane of a dialog. From its highest bits down a ticket holds presentity, slot and CSeq; the upper 64 bits identify
/// the dialog.
fn lane_of(ticket: DeliveryToken) -> usize {
    let dialog = (ticket.0 >> 64) as u64;
    // Fibonacci hashing: dialogs of neighbouring slots are notified together, so they should not share a lane.
    (dialog.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as usize % LANES
}

impl std::fmt::Debug for NotifyOrder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NotifyOrder").field("superseded", &self.superseded()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
    use std::sync::mpsc;

    use super::*;

    fn notify(slot: u32, cseq: u32) -> Option<DeliveryToken> {
        Some(DeliveryToken(u128::from(slot) << 64 | u128::from(cseq) << 32))
    }

    /// Order for one dialog, in which `latest` holds the CSeq of the newest NOTIFY.
    fn order_of(latest: &Arc<AtomicU32>) -> NotifyOrder {
        let latest = Arc::clone(latest);
        NotifyOrder::new(Box::new(move |ticket| (ticket.0 >> 32) as u32 >= latest.load(SeqCst)))
    }

    #[test]
    fn a_notify_that_is_late_does_not_leave_after_a_newer_one() {
        let latest = Arc::new(AtomicU32::new(68));
        let order = order_of(&latest);
        assert_eq!(order.turn().admit(notify(1, 68)), SendDecision::Leaves);
        latest.store(69, SeqCst);
        assert_eq!(order.turn().admit(notify(1, 68)), SendDecision::Superseded);
        assert_eq!(order.turn().admit(notify(1, 69)), SendDecision::Leaves, "and so does each copy of it");
        assert_eq!(order.turn().admit(notify(1, 69)), SendDecision::Leaves);
        assert_eq!((order.turn().admit(None), order.superseded()), (SendDecision::Leaves, 1));
    }

    #[test]
    fn a_newer_notify_waits_for_an_older_one_that_is_just_leaving() {
        let latest = Arc::new(AtomicU32::new(68));
        let order = order_of(&latest);
        let sent = Mutex::new(Vec::new());
        std::thread::scope(|threads| {
            let (made, made_by_other) = mpsc::channel();
            let mut turn = order.turn();
            assert_eq!(turn.admit(notify(1, 68)), SendDecision::Leaves);
            // `is_latest` blocks this thread between the check and the system call.
            let (order, latest, sent) = (&order, &latest, &sent);
            threads.spawn(move || {
                latest.store(69, SeqCst);
                made.send(()).unwrap();
                let mut turn = order.turn();
                assert_eq!(turn.admit(notify(1, 69)), SendDecision::Leaves);
                sent.lock().push(69);
            });
            made_by_other.recv().unwrap();
            for _ in 0..1_000 {
                std::thread::yield_now();
            }
            sent.lock().push(68);
            drop(turn);
        });
        assert_eq!(*sent.lock(), [68, 69]);
    }

    #[test]
    fn no_two_turns_wait_for_each_other() {
        let order = order_of(&Arc::new(AtomicU32::new(1)));
        let (mut one, mut other) = (order.turn(), order.turn());
        assert_eq!([one.admit(notify(1, 1)), other.admit(notify(2, 1))], [SendDecision::Leaves; 2]);
        assert_eq!([one.admit(notify(2, 1)), other.admit(notify(1, 1))], [SendDecision::NextTurn; 2]);
        assert_eq!(one.admit(notify(1, 1)), SendDecision::Leaves, "its own lane is no obstacle");
        drop(other);
        assert_eq!(one.admit(notify(2, 1)), SendDecision::Leaves);
        let all = (3..100).map(|slot| one.admit(notify(slot, 1))).filter(|each| *each == SendDecision::Leaves).count();
        assert!(all >= MOST_LANES - 2, "as many as leave in one call: {all}");
    }

    /// Threads create and send NOTIFYs of a few dialogs, as the notifier and the sender of each I/O thread do.
    #[test]
    fn whatever_threads_do_the_numbers_of_a_dialog_only_rise() {
        const DIALOGS: usize = 3;
        let made: Arc<Vec<Mutex<u32>>> = Arc::new((0..DIALOGS).map(|_| Mutex::new(0)).collect());
        let order = {
            let made = Arc::clone(&made);
            NotifyOrder::new(Box::new(move |ticket| (ticket.0 >> 32) as u32 == *made[(ticket.0 >> 64) as usize].lock()))
        };
        let wire = Mutex::new(Vec::new());
        std::thread::scope(|threads| {
            for thread in 0..4 {
                let (order, made, wire) = (&order, &made, &wire);
                threads.spawn(move || {
                    for n in 0..2_000 {
                        let dialog = (n + thread) % DIALOGS;
                        let cseq = {
                            let mut cseq = made[dialog].lock();
                            *cseq += 1;
                            *cseq
                        };
                        if n % 3 == 0 {
                            std::thread::yield_now();
                        }
                        let mut turn = order.turn();
                        if turn.admit(notify(dialog as u32, cseq)) == SendDecision::Leaves {
                            wire.lock().push((dialog, cseq));
                        }
                    }
                });
            }
        });
        for dialog in 0..DIALOGS {
            let sent: Vec<_> = wire.lock().iter().filter(|(of, _)| *of == dialog).map(|(_, cseq)| *cseq).collect();
            assert!(sent.is_sorted(), "{sent:?}");
            assert_eq!(sent.last(), Some(&*made[dialog].lock()), "the latest has left");
        }
    }
}
