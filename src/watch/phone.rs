//! SIP side of `lamplighter watch`: one subscription dialog over one socket.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::Instant;

use super::tag_of;
use crate::cli::WatchArgs;
use crate::notifier::new_secret;
use crate::package;
use crate::sip::StatusCode;
use crate::sip::headers::{MAGIC_COOKIE, NameAddr, list};
use crate::sip::transaction::T1;
use crate::sip::wire::{self, Frame, Framer, Message, Name, Writer};

enum Socket {
    Udp(UdpSocket),
    Tcp(Box<(TcpStream, Framer)>),
}

/// SIP subscriber with one dialog.
pub(super) struct Phone {
    socket: Socket,
    local: std::net::SocketAddr,
    target: String,
    event: String,
    accept: &'static str,
    call_id: String,
    tag: String,
    cseq: u32,
    /// Set by the first response or NOTIFY.
    remote_tag: Option<String>,
    remote_target: Option<String>,
    routes: Vec<String>,
    /// CSeq of the newest NOTIFY.
    heard: Option<u32>,
    pending: Option<Pending>,
}

/// A request that waits for its response.
struct Pending {
    bytes: Vec<u8>,
    cseq: u32,
    at: Instant,
    interval: Duration,
}

impl Phone {
    pub(super) async fn connect(args: &WatchArgs, target: &str) -> io::Result<Phone> {
        let server = args.server.address;
        let (socket, local) = if args.server.tcp {
            let stream = TcpStream::connect(server).await?;
            let local = stream.local_addr()?;
            (Socket::Tcp(Box::new((stream, Framer::default()))), local)
        } else {
            let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any).await?;
            socket.connect(server).await?;
            let local = socket.local_addr()?;
            (Socket::Udp(socket), local)
        };
        let random = u128::from_ne_bytes(new_secret());
        Ok(Phone {
            socket,
            local,
            target: target.into(),
            event: args.event.clone(),
            accept: package::by_name(&args.event).map_or("*/*", |id| package::get(id).content_type()),
            call_id: format!("{:016x}@{}", random as u64, local.ip()),
            tag: format!("{:08x}", (random >> 64) as u32),
            cseq: 0,
            remote_tag: None,
            remote_target: None,
            routes: Vec::new(),
            heard: None,
            pending: None,
        })
    }

    fn transport(&self) -> &'static str {
        match self.socket {
            Socket::Udp(_) => "UDP",
            Socket::Tcp(_) => "TCP",
        }
    }

    /// Sends a SUBSCRIBE: the first one, a refresh, or with `expires` 0 the unsubscribe.
    pub(super) async fn subscribe(&mut self, expires: u32) -> io::Result<()> {
        self.cseq += 1;
        let (local, target, transport) = (self.local, &self.target, self.transport());
        let realm = target.split_once('@').map_or("invalid", |(_, realm)| realm);
        let mut bytes = Vec::new();
        let first_uri = format!("sip:{target}");
        let mut w = Writer::request(&mut bytes, "SUBSCRIBE", self.remote_target.as_deref().unwrap_or(&first_uri));
        let branch = format_args!("{MAGIC_COOKIE}{}.{}", self.tag, self.cseq);
        w.header("Via", format_args!("SIP/2.0/{transport} {local};branch={branch};rport"));
        for route in &self.routes {
            w.header("Route", route);
        }
        w.header("Max-Forwards", 70);
        w.header("From", format_args!("<sip:watcher@{realm}>;tag={}", self.tag));
        match &self.remote_tag {
            Some(tag) => w.header("To", format_args!("<sip:{target}>;tag={tag}")),
            None => w.header("To", format_args!("<sip:{target}>")),
        };
        w.header("Call-ID", &self.call_id).header("CSeq", format_args!("{} SUBSCRIBE", self.cseq));
        let parameter = if transport == "TCP" { ";transport=tcp" } else { "" };
        w.header("Contact", format_args!("<sip:watcher@{local}{parameter}>"));
        w.header("Event", &self.event).header("Accept", self.accept).header("Expires", expires);
        w.header("User-Agent", concat!("lamplighter-watch/", env!("CARGO_PKG_VERSION")));
        w.end();
        self.send(&bytes).await?;
        let interval = Duration::from_millis(T1);
        self.pending = Some(Pending { bytes, cseq: self.cseq, at: Instant::now() + interval, interval });
        Ok(())
    }

    /// Time of the next retransmission of the pending request; `None` on TCP, which is reliable.
    pub(super) fn repeat_at(&self) -> Option<Instant> {
        match self.socket {
            Socket::Udp(_) => self.pending.as_ref().map(|p| p.at),
            Socket::Tcp(_) => None,
        }
    }

    /// Retransmits the pending request if it is due.
    pub(super) async fn repeat(&mut self) -> io::Result<()> {
        if self.repeat_at().is_none_or(|at| at > Instant::now()) {
            return Ok(());
        }
        let Some(mut pending) = self.pending.take() else { return Ok(()) };
        pending.interval *= 2;
        pending.at = Instant::now() + pending.interval;
        self.send(&pending.bytes).await?;
        self.pending = Some(pending);
        Ok(())
    }

    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.socket {
            Socket::Udp(socket) => socket.send(bytes).await.map(drop),
            Socket::Tcp(tcp) => tcp.0.write_all(bytes).await,
        }
    }

    /// Receives the next message.
    pub(super) async fn receive(&mut self) -> io::Result<Bytes> {
        match &mut self.socket {
            Socket::Udp(socket) => {
                let mut buffer = vec![0; wire::MAX_MESSAGE];
                let length = socket.recv(&mut buffer).await?;
                buffer.truncate(length);
                Ok(buffer.into())
            }
            Socket::Tcp(tcp) => {
                let (stream, framer) = &mut **tcp;
                loop {
                    match framer.next_frame() {
                        Ok(Some(Frame::Message(bytes))) => return Ok(bytes),
                        Ok(Some(Frame::Ping | Frame::TooLarge(_))) => {}
                        Err((fault, _)) => return Err(io::Error::other(fault)),
                        Ok(None) => {
                            if stream.read_buf(framer.buffer()).await? == 0 {
                                return Err(io::ErrorKind::UnexpectedEof.into());
                            }
                        }
                    }
                }
            }
        }
    }

    /// Handles a response; true if it belongs to the pending request. The first success sets the dialog's remote tag
    /// and target.
    pub(super) fn take_answer(&mut self, answer: &Message<'_>) -> bool {
        let expected = self.pending.as_ref().is_some_and(|p| p.cseq == answer.cseq.number);
        if !expected || answer.call_id != self.call_id {
            return false;
        }
        self.pending = None;
        if self.remote_target.is_none() && answer.status().is_some_and(|status| status < 300) {
            self.remote_tag = answer.to.tag().map(String::from);
            let contact = answer.first(Name::Contact).and_then(|c| NameAddr::read(list(c).next()?));
            self.remote_target = contact.map(|contact| contact.uri.into());
            self.routes = answer.all(Name::RecordRoute).flat_map(list).map(String::from).collect();
            self.routes.reverse();
        }
        true
    }

    /// Returns true if a NOTIFY belongs to this subscription.
    pub(super) fn is_ours(&self, notify: &Message<'_>) -> bool {
        notify.call_id == self.call_id && tag_of(notify.to.text) == Some(&self.tag)
    }

    /// Returns true if a NOTIFY is newer than all before. A retransmitted one is answered but not printed again.
    pub(super) fn is_news(&mut self, notify: &Message<'_>) -> bool {
        let news = self.heard.is_none_or(|heard| notify.cseq.number > heard);
        if news {
            self.heard = Some(notify.cseq.number);
        }
        news
    }

    /// Responds to a request of the server.
    pub(super) async fn answer(&mut self, request: &Message<'_>, status: StatusCode, reason: &str) -> io::Result<()> {
        let mut bytes = Vec::new();
        let peer = match &self.socket {
            Socket::Udp(socket) => socket.peer_addr()?,
            Socket::Tcp(tcp) => tcp.0.peer_addr()?,
        };
        let mut w = wire::reply(&mut bytes, &status, reason, &request.head, peer, Some(&self.tag));
        if status == StatusCode::MethodNotAllowed {
            w.header("Allow", "NOTIFY");
        }
        w.end();
        self.send(&bytes).await
    }
}
