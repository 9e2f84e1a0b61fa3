//! A phone of the demo office: it subscribes to its colleagues, responds to NOTIFYs with a delay of its own, and
//! publishes its calls.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::bodies::{self, Call};
use super::people::{PEOPLE, Person, REALM};
use crate::notifier::new_secret;
use crate::sip::StatusCode;
use crate::sip::headers::{MAGIC_COOKIE, seconds};
use crate::sip::transaction::T1;
use crate::sip::wire::{self, Message, Name, Writer};

/// Expiry of the phone's subscriptions and publications (seconds).
const EXPIRES: u32 = 600;
/// Most retransmissions of a request.
const COPIES: u32 = 6;
/// Most voice messages in a mailbox; the next one sets the count back to 0, as if the owner had listened to them.
const MESSAGES: u32 = 3;

/// Commands to a phone.
enum Act {
    Call(Call),
    Message,
    Plug(bool),
}

/// Handle for sending commands to a phone.
#[derive(Clone)]
pub(super) struct Line {
    pub(super) n: usize,
    acts: mpsc::UnboundedSender<Act>,
}

impl Line {
    /// Reports the new state of a call.
    pub(super) fn say(&self, call: &Call) {
        // Fails only when the demo ends.
        let _ = self.acts.send(Act::Call(call.clone()));
    }

    /// Adds a voice message.
    pub(super) fn message(&self) {
        let _ = self.acts.send(Act::Message);
    }

    /// Connects the phone to the network, or disconnects it.
    pub(super) fn plug(&self, plugged: bool) {
        let _ = self.acts.send(Act::Plug(plugged));
    }
}

/// A subscription or publication: a sequence of requests with one Call-ID.
struct Thread {
    event: &'static str,
    /// Extension that it is about.
    extension: &'static str,
    call_id: String,
    cseq: u32,
    /// Only for a subscription.
    remote_tag: Option<String>,
    /// Only for a publication.
    etag: Option<String>,
    /// Request that waits for its response.
    pending: Option<Pending>,
    /// True if the state has changed since the last request was sent.
    dirty: bool,
    refresh_at: Option<Instant>,
}

struct Pending {
    bytes: Vec<u8>,
    at: Instant,
    copies: u32,
}

pub(super) struct Phone {
    person: &'static Person,
    socket: UdpSocket,
    server: SocketAddr,
    local: SocketAddr,
    tag: String,
    acts: mpsc::UnboundedReceiver<Act>,
    threads: HashMap<String, Thread>,
    calls: Vec<Call>,
    messages: u32,
    plugged: bool,
    /// Responses to NOTIFYs that are sent after the phone's delay.
    answers: Vec<(Instant, Vec<u8>)>,
}

impl Phone {
    pub(super) async fn connect(server: SocketAddr, n: usize, person: &'static Person) -> io::Result<(Phone, Line)> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        socket.connect(server).await?;
        let local = socket.local_addr()?;
        let random = format!("{:08x}", u128::from_ne_bytes(new_secret()) as u32);
        let (sender, acts) = mpsc::unbounded_channel();
        let colleagues = (1..PEOPLE.len()).map(|step| PEOPLE[(n + step) % PEOPLE.len()].extension);
        let watched = colleagues.take(person.lamps).map(|extension| ("dialog", extension));
        let own = [("message-summary", person.extension), ("publish:dialog", person.extension)];
        let all = watched.chain(own).chain([("publish:message-summary", person.extension)]);
        let threads = all.enumerate().map(|(i, (event, extension))| {
            let call_id = format!("{random}-{i}@{}", local.ip());
            let thread = Thread {
                event,
                extension,
                call_id: call_id.clone(),
                cseq: 0,
                remote_tag: None,
                etag: None,
                pending: None,
                dirty: true,
                refresh_at: None,
            };
            (call_id, thread)
        });
        let threads = threads.collect();
        let phone = Phone {
            person,
            socket,
            server,
            local,
            tag: random,
            acts,
            threads,
            calls: Vec::new(),
            messages: 0,
            plugged: true,
            answers: Vec::new(),
        };
        Ok((phone, Line { n, acts: sender }))
    }

    /// Runs until the demo ends.
    pub(super) async fn run(mut self) {
        let mut buffer = vec![0; wire::MAX_MESSAGE];
        loop {
            self.speak().await;
            let wake = self.next_deadline();
            tokio::select! {
                act = self.acts.recv() => match act {
                    Some(act) => self.take(act),
                    None => return,
                },
                received = self.socket.recv(&mut buffer) => {
                    // An error means that the server has closed its port; the demo is then about to end.
                    if let Ok(length) = received && self.plugged && let Ok(Some(message)) = wire::read(&buffer[..length]) {
                        self.hear(&message, &buffer[..length]);
                    }
                }
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    fn take(&mut self, act: Act) {
        match act {
            Act::Call(call) => {
                self.calls.retain(|known| known.id != call.id && known.state != "terminated");
                self.calls.push(call);
                self.changed("publish:dialog");
            }
            Act::Message => {
                self.messages = (self.messages + 1) % (MESSAGES + 1);
                self.changed("publish:message-summary");
            }
            Act::Plug(plugged) => self.plugged = plugged,
        }
    }

    fn changed(&mut self, event: &str) {
        self.threads.values_mut().filter(|thread| thread.event == event).for_each(|thread| thread.dirty = true);
    }

    fn hear(&mut self, message: &Message<'_>, bytes: &[u8]) {
        match message.status() {
            Some(status) if status >= 200 => self.take_answer(message, status, etag_of(bytes)),
            Some(_) => {}
            None => {
                let known = self.threads.contains_key(message.call_id);
                let (status, reason) = match known {
                    true => (StatusCode::OK, "OK"),
                    false => (StatusCode::CallTransactionDoesNotExist, "Subscription Does Not Exist"),
                };
                let mut bytes = Vec::new();
                wire::reply(&mut bytes, &status, reason, &message.head, self.server, Some(&self.tag)).end();
                self.answers.push((Instant::now() + Duration::from_millis(self.person.slowness), bytes));
                let state = message.first(Name::SubscriptionState).unwrap_or_default();
                if state.starts_with("terminated")
                    && let Some(thread) = self.threads.get_mut(message.call_id)
                {
                    // The subscription was ended by the server or an operator; subscribe again.
                    thread.remote_tag = None;
                    thread.refresh_at = Some(Instant::now() + Duration::from_secs(5));
                }
            }
        }
    }

    fn take_answer(&mut self, answer: &Message<'_>, status: u16, etag: Option<String>) {
        let Some(thread) = self.threads.get_mut(answer.call_id) else { return };
        if thread.cseq != answer.cseq.number || thread.pending.take().is_none() {
            return;
        }
        if status >= 300 {
            (thread.remote_tag, thread.etag) = (None, None);
            thread.refresh_at = Some(Instant::now() + Duration::from_secs(2));
            return;
        }
        if thread.remote_tag.is_none() {
            thread.remote_tag = answer.to.tag().map(String::from);
        }
        thread.etag = etag;
        let granted = answer.first(Name::Expires).and_then(seconds).unwrap_or(EXPIRES);
        thread.refresh_at = Some(Instant::now() + Duration::from_secs(u64::from(granted)) * 4 / 5);
    }

    /// Sends responses and requests that are due.
    async fn speak(&mut self) {
        let now = Instant::now();
        let mut due = Vec::new();
        let (ready, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.answers).into_iter().partition(|(at, _)| *at <= now);
        self.answers = later;
        due.extend(ready.into_iter().map(|(_, bytes)| bytes));
        let (calls, messages) = (&self.calls, self.messages);
        for thread in self.threads.values_mut().filter(|_| self.plugged) {
            let refresh = thread.refresh_at.is_some_and(|at| at <= now);
            match &mut thread.pending {
                Some(pending) if pending.at <= now && pending.copies < COPIES => {
                    pending.copies += 1;
                    pending.at = now + Duration::from_millis(T1 << pending.copies);
                    due.push(pending.bytes.clone());
                }
                Some(pending) if pending.copies >= COPIES => thread.pending = None,
                Some(_) => {}
                None if thread.dirty || refresh => {
                    let bytes = request(self.person, self.local, &self.tag, thread, calls, messages);
                    due.push(bytes.clone());
                    (thread.dirty, thread.refresh_at) = (false, None);
                    thread.pending = Some(Pending { bytes, at: now + Duration::from_millis(T1), copies: 0 });
                }
                None => {}
            }
        }
        for bytes in due {
            // A lost message is retransmitted.
            let _ = self.socket.send(&bytes).await;
        }
    }

    fn next_deadline(&self) -> Instant {
        let threads = self.threads.values();
        let of_threads = threads.filter_map(|t| t.pending.as_ref().map(|p| p.at).or(t.refresh_at));
        let all = of_threads.filter(|_| self.plugged).chain(self.answers.iter().map(|(at, _)| *at));
        all.min().unwrap_or_else(|| Instant::now() + Duration::from_secs(60))
    }
}

/// Entity-tag in the response to a PUBLISH. A server never reads this header, so `wire` does not know it.
fn etag_of(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    text.lines().find_map(|line| line.strip_prefix("SIP-ETag: ")).map(String::from)
}

/// Next request of a subscription or publication: SUBSCRIBE or PUBLISH.
fn request(
    person: &Person,
    local: SocketAddr,
    tag: &str,
    thread: &mut Thread,
    calls: &[Call],
    messages: u32,
) -> Vec<u8> {
    thread.cseq += 1;
    let (cseq, extension) = (thread.cseq, thread.extension);
    let (method, event) = match thread.event.strip_prefix("publish:") {
        Some(event) => ("PUBLISH", event),
        None => ("SUBSCRIBE", thread.event),
    };
    let mut bytes = Vec::new();
    let mut w = Writer::request(&mut bytes, method, &format!("sip:{extension}@{REALM}"));
    let branch = format_args!("{MAGIC_COOKIE}{}.{cseq}", thread.call_id.replace(['@', ':'], "-"));
    w.header("Via", format_args!("SIP/2.0/UDP {local};branch={branch};rport")).header("Max-Forwards", 70);
    w.header("From", format_args!("\"{}\" <sip:{}@{REALM}>;tag={tag}", person.name, person.extension));
    match &thread.remote_tag {
        Some(tag) if method == "SUBSCRIBE" => w.header("To", format_args!("<sip:{extension}@{REALM}>;tag={tag}")),
        _ => w.header("To", format_args!("<sip:{extension}@{REALM}>")),
    };
    w.header("Call-ID", &thread.call_id).header("CSeq", format_args!("{cseq} {method}"));
    w.header("Contact", format_args!("<sip:{}@{local}>", person.extension));
    w.header("Event", event).header("Expires", EXPIRES).header("User-Agent", person.user_agent);
    if method == "SUBSCRIBE" {
        w.end();
        return bytes;
    }
    if let Some(etag) = &thread.etag {
        w.header("SIP-If-Match", etag);
    }
    match event {
        "dialog" => {
            w.body("application/dialog-info+xml", &[bodies::dialog_info(cseq, extension, calls).as_bytes()]);
        }
        _ => {
            w.body("application/simple-message-summary", &[bodies::summary(extension, messages).as_bytes()]);
        }
    }
    bytes
}
