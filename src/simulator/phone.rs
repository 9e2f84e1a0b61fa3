//! Phones: they subscribe, refresh, answer NOTIFYs and show what they are told, well or badly.

use super::lamp::{Lamp, Memo};
use super::message::{self, Pending};
use super::plan::Plan;
use super::random::Random;
use crate::package::{self, PackageId};
use crate::sip::headers::NameAddr;
use crate::sip::wire::{Message, Name};

/// How a phone feels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// It does what it should.
    Well,
    /// It answers NOTIFYs with this status, and perhaps a Retry-After.
    Failing(u16, Option<u32>),
    /// It answers no NOTIFY.
    Mute,
}

/// What a phone wants to be woken for. The number tells whether it still wants it.
#[derive(Clone, Copy, Debug)]
pub enum Wake {
    /// To subscribe, or to start anew.
    Subscribe(usize, u64),
    /// To repeat a request.
    Repeat(usize, u64),
    /// To refresh.
    Refresh(usize, u64),
}

/// What a phone wants done.
#[derive(Debug, Default)]
pub struct Wishes {
    /// Messages for the server, each after so many ms.
    pub sends: Vec<(u64, Vec<u8>)>,
    /// When to be woken (in so many ms).
    pub wakes: Vec<(u64, Wake)>,
    /// Call-IDs of new dialogs, and the watch that each is for.
    pub opened: Vec<(String, usize)>,
    /// Watches whose screen has changed.
    pub redrawn: Vec<usize>,
}

/// One lamp of a phone.
#[derive(Debug)]
pub struct Watch {
    /// Whom it watches.
    pub presentity: usize,
    /// By which package.
    pub package: PackageId,
    /// The subscription, if there is one.
    pub leg: Option<Leg>,
    serial: u64,
}

/// The phone's side of a subscription.
#[derive(Debug)]
pub struct Leg {
    /// Call-ID.
    pub call_id: String,
    /// The server has accepted it.
    pub established: bool,
    /// When the request was sent by which it was last accepted or refreshed.
    pub renewed_at: u64,
    /// It is being ended.
    pub leaving: bool,
    /// What the lamp shows; none before the first NOTIFY.
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
    /// Its number.
    pub number: usize,
    /// The account that it belongs to.
    pub account: usize,
    /// What the server sees as the source of its messages.
    pub address: String,
    /// What it believes to be its own address.
    pub contact: String,
    /// Its user; two phones may share one.
    pub user: String,
    /// It says in its Contact which phone it is.
    pub instance: bool,
    /// The edge that it stands behind.
    pub edge: Option<usize>,
    /// It speaks TCP.
    pub tcp: bool,
    /// How it feels.
    pub mood: Mood,
    /// Its lamps.
    pub watches: Vec<Watch>,
    /// When the server lost the way to it, unless it has refreshed since.
    pub moved_at: u64,
    /// It refreshes in time.
    pub punctual: bool,
    fetches: Vec<String>,
    made: u32,
}

impl Phone {
    /// A phone that watches these.
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

    /// Something that it wanted to be woken for.
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
                    // No answer: the phone forgets the dialog and starts anew after a while.
                    None => self.start_anew(at, random.between(500, 30_000), out),
                }
            }
            _ => {}
        }
    }

    /// Gives a dialog up, for a new one after a while.
    pub fn start_anew(&mut self, at: usize, wait: u64, out: &mut Wishes) {
        let watch = &mut self.watches[at];
        watch.leg = None;
        watch.serial += 1;
        out.wakes.push((wait, Wake::Subscribe(at, watch.serial)));
        out.redrawn.push(at);
    }

    /// Loses its memory and starts.
    pub fn reboot(&mut self, random: &mut Random, out: &mut Wishes) {
        self.fetches.clear();
        for at in 0..self.watches.len() {
            self.start_anew(at, random.between(1_000, 20_000), out);
        }
    }

    /// Refreshes everything now: after a new connection.
    pub fn refresh_all(&mut self, now: u64, plan: &Plan, out: &mut Wishes) {
        for at in 0..self.watches.len() {
            if self.watches[at].leg.as_ref().is_some_and(|leg| leg.established && !leg.leaving) {
                self.subscribe(now, at, Some(300), plan, out);
            }
        }
    }

    /// Ends one subscription, to start it anew after a while.
    pub fn unsubscribe(&mut self, now: u64, at: usize, plan: &Plan, random: &mut Random, out: &mut Wishes) {
        if self.watches[at].leg.as_ref().is_some_and(|leg| leg.established && !leg.leaving) {
            self.subscribe(now, at, Some(0), plan, out);
            let serial = self.watches[at].serial;
            out.wakes.push((random.between(34_000, 60_000), Wake::Subscribe(at, serial)));
        }
    }

    /// Looks at a state once, without a subscription.
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

    /// A message from the server. The error is what no server may send.
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
        // What counts is where it was when it first sent the request: repetitions of it change nothing.
        let sent_at = leg.pending.take().map_or(now, |pending| pending.sent_at());
        let leaving = leg.leaving;
        match status {
            200 => {
                (leg.established, leg.renewed_at) = (true, sent_at);
                let tag = m.to.tag().map(String::from);
                if leg.remote_tag.is_some() && leg.remote_tag != tag {
                    // Its request has made two dialogs (a crash came between): this is the one that it goes on with.
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
                // A repetition that comes after the server has forgotten the transaction is out of order in its dialog;
                // one that comes by another way is merged. And the journal may refuse what was asked for.
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

/// The `version` of a dialog-info document.
pub fn version_of(body: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(body).ok()?;
    // The first is that of the XML declaration.
    let (_, rest) = text.split_once("<dialog-info")?.1.split_once("version=\"")?;
    rest.split('"').next()?.parse().ok()
}
