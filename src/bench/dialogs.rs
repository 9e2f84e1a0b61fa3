//! Table of dialogs. One takes a few words of memory, so that a million fit beside the server on one machine.

use super::messages::Party;

/// Number of no request.
pub(super) const NOTHING: u32 = u32::MAX;

/// State of a dialog.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum DialogState {
    /// Not requested yet, refused, or lost.
    #[default]
    Closed,
    /// The first SUBSCRIBE is in flight.
    Opening,
    /// There is a subscription.
    Open,
    /// The last SUBSCRIBE is in flight.
    Closing,
}

/// One dialog as its phone sees it.
#[derive(Clone, Debug)]
pub(super) struct Watcher {
    pub(super) extension: u32,
    /// CSeq of our latest SUBSCRIBE.
    pub(super) cseq: u32,
    /// CSeq of the newest NOTIFY; 0 before the first.
    pub(super) heard: u32,
    /// Hash of the branch of that NOTIFY. A NOTIFY with the same CSeq must have the same branch.
    pub(super) branch: u32,
    /// Version of the newest document; none before the first.
    pub(super) version: Option<u32>,
    /// Newest step that it has shown.
    pub(super) step: u32,
    /// Request in flight.
    pub(super) op: u32,
    /// Offset of the server's tag in `tags`.
    tag_at: u32,
    /// Index of its target in `targets`.
    target: u16,
    /// Number of times that this dialog number was given out, so that late NOTIFYs of an earlier dialog are
    /// recognised.
    pub(super) epoch: u16,
    tag_length: u8,
    pub(super) life: DialogState,
}

/// All dialogs.
#[derive(Debug, Default)]
pub(super) struct DialogTable {
    watchers: Vec<Watcher>,
    tags: Vec<u8>,
    /// Remote targets and route sets that the server gave. They differ at most by the extension and by our tag; with
    /// placeholders for these only a handful remain.
    targets: Vec<Target>,
    epoch: u16,
}

#[derive(Debug, PartialEq, Eq)]
struct Target {
    contact: String,
    routes: String,
}

/// Placeholders for the extension and for our own tag in a target.
const EXTENSION: &str = "\u{1}";
const OWN_TAG: &str = "\u{2}";
/// Most targets. A server with more is taken as one that gives each dialog a target of its own.
const MOST_TARGETS: usize = 4_096;

impl DialogTable {
    pub(super) fn len(&self) -> u32 {
        self.watchers.len() as u32
    }

    /// Adds a dialog about an extension and returns its number.
    pub(super) fn add(&mut self, extension: u32) -> u32 {
        self.watchers.push(Watcher {
            extension,
            cseq: 0,
            heard: 0,
            branch: 0,
            version: None,
            step: 0,
            op: NOTHING,
            tag_at: 0,
            target: 0,
            epoch: self.epoch,
            tag_length: 0,
            life: DialogState::Closed,
        });
        self.len() - 1
    }

    /// Removes all dialogs from this number on; the numbers are given out again.
    pub(super) fn truncate(&mut self, length: u32) {
        self.watchers.truncate(length as usize);
        let used = |watcher: &Watcher| watcher.tag_at as usize + usize::from(watcher.tag_length);
        self.tags.truncate(self.watchers.iter().map(used).max().unwrap_or(0));
        self.epoch = self.epoch.wrapping_add(1);
    }

    /// Returns the dialog of a Call-ID.
    pub(super) fn find(&self, who: Party) -> Option<u32> {
        let Party::Watcher(number, epoch) = who else { return None };
        self.watchers.get(number as usize).filter(|watcher| watcher.epoch == epoch).map(|_| number)
    }

    pub(super) fn get(&self, number: u32) -> &Watcher {
        &self.watchers[number as usize]
    }

    pub(super) fn get_mut(&mut self, number: u32) -> &mut Watcher {
        &mut self.watchers[number as usize]
    }

    pub(super) fn who(&self, number: u32) -> Party {
        Party::Watcher(number, self.get(number).epoch)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Watcher> {
        self.watchers.iter()
    }

    /// The server's tag; empty before the dialog is established.
    pub(super) fn tag(&self, number: u32) -> &str {
        let watcher = self.get(number);
        let from = watcher.tag_at as usize;
        std::str::from_utf8(&self.tags[from..from + usize::from(watcher.tag_length)]).unwrap_or_default()
    }

    /// Establishes the dialog: stores the server's tag, its Contact and its Record-Route header lines. Returns false
    /// if they exceed the limits of the table.
    pub(super) fn establish(&mut self, number: u32, tag: &str, contact: &str, routes: &str, own_tag: &str) -> bool {
        let Ok(length) = u8::try_from(tag.len()) else { return false };
        let Ok(at) = u32::try_from(self.tags.len()) else { return false };
        let extension = format!("e{}", self.get(number).extension);
        let general = |text: &str| text.replace(own_tag, OWN_TAG).replace(&extension, EXTENSION);
        let target = Target { contact: general(contact), routes: general(routes) };
        let place = self.targets.iter().position(|known| *known == target).unwrap_or_else(|| {
            self.targets.push(target);
            self.targets.len() - 1
        });
        if place >= MOST_TARGETS {
            self.targets.pop();
            return false;
        }
        self.tags.extend_from_slice(tag.as_bytes());
        let watcher = self.get_mut(number);
        (watcher.tag_at, watcher.tag_length, watcher.target) = (at, length, place as u16);
        true
    }

    /// Returns Contact and Route lines for a request within the dialog.
    pub(super) fn target(&self, number: u32, own_tag: &str, contact: &mut String, routes: &mut String) {
        contact.clear();
        routes.clear();
        let watcher = self.get(number);
        if let Some(target) = self.targets.get(usize::from(watcher.target)).filter(|_| watcher.tag_length > 0) {
            for (pattern, text) in [(&target.contact, contact), (&target.routes, routes)] {
                for part in pattern.split_inclusive(['\u{1}', '\u{2}']) {
                    match part.strip_suffix(EXTENSION) {
                        Some(before) => {
                            text.push_str(before);
                            text.push('e');
                            text.push_str(&watcher.extension.to_string());
                        }
                        None => match part.strip_suffix(OWN_TAG) {
                            Some(before) => {
                                text.push_str(before);
                                text.push_str(own_tag);
                            }
                            None => text.push_str(part),
                        },
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dialog_takes_no_more_than_it_must() {
        assert!(size_of::<Watcher>() <= 48, "{}", size_of::<Watcher>());
    }

    #[test]
    fn targets_are_kept_once_for_all_who_have_the_like() {
        let mut book = DialogTable::default();
        for n in 0..1_000 {
            let number = book.add(n / 10);
            let (contact, own) = (format!("sip:e{}@127.0.0.1:5060", n / 10), format!("run.w0.{number}"));
            let routes = format!("Route: <sip:127.0.0.1;lr;ftag={own}>\r\n");
            assert!(book.establish(number, &format!("tag-{n}"), &contact, &routes, &own));
        }
        assert_eq!(book.targets.len(), 1);
        let (mut contact, mut routes) = (String::new(), String::new());
        book.target(999, "run.w0.999", &mut contact, &mut routes);
        assert_eq!(book.tag(999), "tag-999");
        assert_eq!(contact, "sip:e99@127.0.0.1:5060");
        assert_eq!(routes, "Route: <sip:127.0.0.1;lr;ftag=run.w0.999>\r\n");
    }

    #[test]
    fn a_number_that_is_given_out_again_is_somebody_else() {
        let mut book = DialogTable::default();
        book.add(1);
        let old = book.who(0);
        book.establish(0, "t", "c", "", "o");
        book.truncate(0);
        book.add(1);
        assert_eq!((book.find(old), book.find(book.who(0))), (None, Some(0)));
        assert_eq!((book.tag(0), book.tags.len()), ("", 0));
    }
}
