//! Phones: they subscribe, refresh, answer NOTIFYs and show the state they receive, correctly or not.

use super::lamp::{Lamp, Memo};
use super::message::{self, Pending};
use super::plan::Plan;
use super::random::Random;
use crate::package::{self, PackageId};
use crate::sip::headers::NameAddr;
use crate::sip::wire::{Message, Name};

/// Behaviour of a phone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// Works normally.
    Well,
    /// Answers NOTIFYs with this status, and perhaps with a Retry-After (seconds).
    Failing(u16, Option<u32>),
    /// Answers no NOTIFY.
    Mute,
}

/// Timer of a phone. It names a lamp by its index, and carries a number that tells whether the timer still applies.
#[derive(Clone, Copy, Debug)]
pub enum Wake {
    /// Subscribe, for the first time or anew.
    Subscribe(usize, u64),
    /// Retransmit a request.
    Repeat(usize, u64),
    /// Refresh the subscription.
    Refresh(usize, u64),
}

/// Actions of a phone.
#[derive(Debug, Default)]
pub struct Wishes {
    /// Messages for the server, each with its delay (ms).
    pub sends: Vec<(u64, Vec<u8>)>,
    /// Timers, each with its delay (ms).
    pub wakes: Vec<(u64, Wake)>,
    /// Call-IDs of new dialogs, each with the index of its lamp.
    pub opened: Vec<(String, usize)>,
    /// Indices of the lamps that have changed.
    pub redrawn: Vec<usize>,
}

/// One lamp of a phone.
#[derive(Debug)]
pub struct Watch {
    /// Index of the presentity it watches.
    pub presentity: usize,
    /// Event package of the subscription.
    pub package: PackageId,
    /// Subscription dialog, if there is one.
    pub leg: Option<Leg>,
    serial: u64,
}

/// The phone's side of a subscription dialog.
#[derive(Debug)]
pub struct Leg {
    /// Call-ID of the dialog.
    pub call_id: String,
    /// True if the server has accepted it.
    pub established: bool,
    /// Time at which the phone sent the last request that was accepted (ms).
    pub renewed_at: u64,
    /// True if the phone is ending it.
    pub leaving: bool,
    /// State that the lamp shows; none before the first NOTIFY.
    pub screen: Option<Lamp>,
    tag: String,
    remote_tag: Option<String>,
    remote_target: Option<String>,
    cseq: u32,
    heard: Option<u32>,
    version: Option<u32>,
    pending: Option<Pending>,
}

/// A phone.
#[derive(Debug)]
pub struct Phone {
    /// Index of the phone.
    pub number: usize,
    /// Index of its account.
    pub account: usize,
    /// Source address that the server sees.
    pub address: String,
    /// Address that the phone writes into its Contact.
    pub contact: String,
    /// Its user; two phones may share one.
    pub user: String,
    /// True if its Contact carries an instance ID.
    pub instance: bool,
    /// Index of the edge proxy in front of it.
    pub edge: Option<usize>,
    /// True if it uses TCP.
    pub tcp: bool,
    /// Its present behaviour.
    pub mood: Mood,
    /// Its lamps.
    pub watches: Vec<Watch>,
    /// Time at which the server lost the route to it, unless it has refreshed since (ms).
    pub moved_at: u64,
    /// True if it refreshes in time.
    pub punctual: bool,
    fetches: Vec<String>,
    made: u32,
}

impl Phone {
    /// A phone with lamps for these presentities and packages.
    pub fn new(number: usize, account: usize, watches: &[(usize, PackageId)]) -> Phone {
        let watch = |&(presentity, package)| Watch { presentity, package, leg: None, serial: 0 };
        Phone {
            number,
            account,
            address: String::new(),
            contact: String::new(),
            user: format!("phone{number}"),
            instance: false,
            edge: None,
            tcp: false,
            mood: Mood::Well,
            watches: watches.iter().map(watch).collect(),
            moved_at: 0,
            punctual: true,
            fetches: Vec::new(),
            made: 0,
        }
    }

    /// Handles a timer.
    pub fn wake(&mut self, now: u64, wake: Wake, plan: &Plan, random: &mut Random, out: &mut Wishes) {
        match wake {
            Wake::Subscribe(at, serial) if self.watches[at].serial == serial => {
                self.watches[at].leg = None;
                self.subscribe(now, at, Some(random.pick(&[120, 180, 300, 600])), plan, out);
            }
            Wake::Refresh(at, serial) if self.watches[at].serial == serial => {
                let expires = random.pick(&[120, 180, 300, 600]);
                self.subscribe(now, at, Some(expires), plan, out);
            }
            Wake::Repeat(at, serial) if self.watches[at].serial == serial => {
                let Some(pending) = self.watches[at].leg.as_mut().and_then(|leg| leg.pending.as_mut()) else { return };
                match pending.repeat(now) {
                    Some(wait) => {
                        if !self.tcp {
                            out.sends.push((0, pending.bytes.clone()));
                        }
                        out.wakes.push((wait, wake));
                    }
                    // The request timed out: the phone forgets the dialog and subscribes anew after a while.
                    None => self.start_anew(at, random.between(500, 30_000), out),
                }
            }
            _ => {}
        }
    }

    /// Gives a dialog up, and opens a new one after `wait` ms.
    pub fn start_anew(&mut self, at: usize, wait: u64, out: &mut Wishes) {
        let watch = &mut self.watches[at];
        watch.leg = None;
        watch.serial += 1;
        out.wakes.push((wait, Wake::Subscribe(at, watch.serial)));
        out.redrawn.push(at);
    }

    /// Reboots: forgets all dialogs and subscribes anew.
    pub fn reboot(&mut self, random: &mut Random, out: &mut Wishes) {
        self.fetches.clear();
        for at in 0..self.watches.len() {
            self.start_anew(at, random.between(1_000, 20_000), out);
        }
    }

    /// Refreshes every subscription now, as after a new connection.
    pub fn refresh_all(&mut self, now: u64, plan: &Plan, out: &mut Wishes) {
        for at in 0..self.watches.len() {
            if self.watches[at].leg.as_ref().is_some_and(|leg| leg.established && !leg.leaving) {
                self.subscribe(now, at, Some(300), plan, out);
            }
        }
    }

    /// Ends one subscription, and opens it anew after a while.
    pub fn unsubscribe(&mut self, now: u64, at: usize, plan: &Plan, random: &mut Random, out: &mut Wishes) {
        if self.watches[at].leg.as_ref().is_some_and(|leg| leg.established && !leg.leaving) {
            self.subscribe(now, at, Some(0), plan, out);
            let serial = self.watches[at].serial;
            out.wakes.push((random.between(34_000, 60_000), Wake::Subscribe(at, serial)));
        }
    }

    /// Fetches a state once: SUBSCRIBE with Expires 0 (RFC 6665 section 4.4.3).
    pub fn fetch(&mut self, at: usize, plan: &Plan, out: &mut Wishes) {
        self.made += 1;
        let call_id = format!("fetch{}-{}", self.number, self.made);
        out.opened.push((call_id.clone(), at));
        let watch = &self.watches[at];
        let text = self.write(watch, &call_id, "f", None, None, 1, 0, plan);
        self.fetches.push(call_id);
        out.sends.push((0, text.into_bytes()));
    }

    fn subscribe(&mut self, now: u64, at: usize, expires: Option<u32>, plan: &Plan, out: &mut Wishes) {
        if self.watches[at].leg.is_none() {
            self.made += 1;
            let call_id = format!("phone{}-{}", self.number, self.made);
            out.opened.push((call_id.clone(), at));
            self.watches[at].leg = Some(Leg {
                call_id,
                established: false,
                renewed_at: 0,
                leaving: false,
                screen: None,
                tag: format!("t{}", self.made),
                remote_tag: None,
                remote_target: None,
                cseq: 0,
                heard: None,
                version: None,
                pending: None,
            });
        }
        self.watches[at].serial += 1;
        let expires = expires.unwrap_or(300);
        let Some(leg) = &mut self.watches[at].leg else { return };
        leg.cseq += 1;
        leg.leaving = expires == 0;
        let cseq = leg.cseq;
        let watch = &self.watches[at];
        let Some(leg) = &watch.leg else { return };
        let (tag, target) = (leg.remote_tag.as_deref(), leg.remote_target.as_deref());
        let bytes = self.write(watch, &leg.call_id, &leg.tag, tag, target, cseq, expires, plan).into_bytes();
        out.sends.push((0, bytes.clone()));
        out.wakes.push((500, Wake::Repeat(at, watch.serial)));
        if let Some(leg) = &mut self.watches[at].leg {
            leg.pending = Some(Pending::new(now, cseq, bytes));
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn write(
        &self,
        watch: &Watch,
        call_id: &str,
        tag: &str,
        remote_tag: Option<&str>,
        target: Option<&str>,
        cseq: u32,
        expires: u32,
        plan: &Plan,
    ) -> String {
        let (user, realm) = plan.name(watch.presentity);
        let to = remote_tag.map(|tag| format!(";tag={tag}")).unwrap_or_default();
        let uri = target.map_or_else(|| format!("sip:{user}@{realm}"), String::from);
        let (transport, parameter) = if self.tcp { ("TCP", ";transport=tcp") } else { ("UDP", "") };
        let (user_of_phone, contact) = (&self.user, &self.contact);
        let instance = match self.instance {
            true => format!(";+sip.instance=\"<urn:uuid:00000000-0000-1000-8000-{:012x}>\"", self.number),
            false => String::new(),
        };
        format!(
            "SUBSCRIBE {uri} SIP/2.0\r\nVia: SIP/2.0/{transport} {contact};branch=z9hG4bK{call_id}.{cseq};rport\r\n\
             Max-Forwards: 70\r\nFrom: <sip:{user_of_phone}@{realm}>;tag={tag}\r\nTo: <sip:{user}@{realm}>{to}\r\n\
             Call-ID: {call_id}\r\nCSeq: {cseq} SUBSCRIBE\r\nContact: <sip:{user_of_phone}@{contact}{parameter}>{instance}\r\n\
             Event: {}\r\nExpires: {expires}\r\nContent-Length: 0\r\n\r\n",
            package::get(watch.package).name()
        )
    }

    /// Handles a message from the server. The error describes a message that no server may send.
    pub fn receive(
        &mut self,
        now: u64,
        m: &Message<'_>,
        memo: &mut Memo,
        random: &mut Random,
        out: &mut Wishes,
    ) -> Result<(), String> {
        match m.status() {
            Some(status) => self.take_answer(now, m, status, random, out),
            None => self.take_notify(m, memo, random, out),
        }
    }

    fn take_answer(
        &mut self,
        now: u64,
        m: &Message<'_>,
        status: u16,
        random: &mut Random,
        out: &mut Wishes,
    ) -> Result<(), String> {
        let mine = |w: &Watch| w.leg.as_ref().is_some_and(|leg| leg.call_id == m.call_id);
        let Some(at) = self.watches.iter().position(mine) else { return Ok(()) };
        let Some(leg) = &mut self.watches[at].leg else { return Ok(()) };
        if leg.pending.as_ref().is_none_or(|pending| pending.cseq != m.cseq.number) || status < 200 {
            return Ok(());
        }
        // The address at the first transmission counts. Retransmissions do not change it.
        let sent_at = leg.pending.take().map_or(now, |pending| pending.sent_at());
        let leaving = leg.leaving;
        match status {
            200 => {
                (leg.established, leg.renewed_at) = (true, sent_at);
                let tag = m.to.tag().map(String::from);
                if leg.remote_tag.is_some() && leg.remote_tag != tag {
                    // One request has created two dialogs because a crash came between. The phone continues with this
                    // one.
                    (leg.heard, leg.version) = (None, None);
                }
                leg.remote_tag = tag;
                let contact = m.first(Name::Contact).and_then(NameAddr::read);
                leg.remote_target = contact.map(|contact| contact.uri.to_string());
                if leaving {
                    return Ok(());
                }
                let granted: u64 = m.first(Name::Expires).and_then(|e| e.parse().ok()).unwrap_or(300);
                let share = if self.punctual { random.between(500, 900) } else { random.between(900, 1_100) };
                out.wakes.push((granted * share, Wake::Refresh(at, self.watches[at].serial)));
                out.redrawn.push(at);
                Ok(())
            }
            _ if leaving => Ok(()),
            481 if leg.established => {
                self.start_anew(at, random.between(10, 2_000), out);
                Ok(())
            }
            _ => {
                self.start_anew(at, random.between(2_000, 30_000), out);
                // A retransmission that arrives after the server has forgotten the transaction is out of order in its
                // dialog (500); one that arrives by another path is a merged request (482). The journal may refuse the
                // change (503).
                match status {
                    500 | 482 | 503 => Ok(()),
                    _ => Err(format!("a SUBSCRIBE in good order was refused with {status}")),
                }
            }
        }
    }

    fn take_notify(
        &mut self,
        m: &Message<'_>,
        memo: &mut Memo,
        random: &mut Random,
        out: &mut Wishes,
    ) -> Result<(), String> {
        if self.mood == Mood::Mute {
            return Ok(());
        }
        let wait = if random.chance(0.05) { random.between(50, 1_500) } else { random.between(1, 15) };
        let mut reply = |status, retry_after| out.sends.push((wait, message::answer(m, status, retry_after)));
        if self.fetches.iter().any(|call_id| call_id == m.call_id) {
            reply(200, None);
            return Ok(());
        }
        let mine = |w: &Watch| {
            w.leg.as_ref().is_some_and(|leg| {
                leg.call_id == m.call_id
                    && m.to.tag() == Some(&leg.tag)
                    && leg.remote_tag.as_deref().is_none_or(|tag| m.from.tag() == Some(tag))
            })
        };
        let Some(at) = self.watches.iter().position(mine) else {
            reply(481, None);
            return Ok(());
        };
        if let Mood::Failing(status, retry_after) = self.mood {
            reply(status, retry_after);
            return Ok(());
        }
        reply(200, None);
        let package = self.watches[at].package;
        let Some(leg) = &mut self.watches[at].leg else { return Ok(()) };
        if leg.heard.is_some_and(|heard| m.cseq.number <= heard) {
            return Ok(());
        }
        leg.heard = Some(m.cseq.number);
        leg.remote_tag = m.from.tag().map(String::from);
        let version = version_of(m.body);
        if package.0 == 0 && leg.version.is_some_and(|old| version.is_none_or(|new| new <= old)) {
            return Err(format!("version {version:?} after {:?} under a higher CSeq", leg.version));
        }
        leg.version = version;
        leg.screen = Some(memo.read(package, m.body)?);
        out.redrawn.push(at);
        let over = m.first(Name::SubscriptionState).is_some_and(|state| state.starts_with("terminated"));
        if over && leg.leaving {
            leg.screen = None;
        } else if over {
            self.start_anew(at, random.between(10, 2_000), out);
        }
        Ok(())
    }
}

/// Returns the `version` of a dialog-info document.
pub fn version_of(body: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(body).ok()?;
    // The first `version` in the text is that of the XML declaration, so the search starts at the root element.
    let (_, rest) = text.split_once("<dialog-info")?.1.split_once("version=\"")?;
    rest.split('"').next()?.parse().ok()
}
