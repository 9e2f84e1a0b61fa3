//! Names, looked up in the DNS by the rules of RFC 3263: NAPTR, then SRV, then A and AAAA.
//!
//! Every question is a task of its own with a time limit, and only so many are under way at once: a DNS that does not
//! answer holds up nothing but the NOTIFYs that wait for that name.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::Dns;
use crate::count::one_more;
use crate::notifier::control::LOOKUPS;
use crate::notifier::names::{Answer, Candidate, Question, Unresolved};
use crate::sip::Transport;
use crate::transport::Listener;

/// How long an answer may take in all; the NOTIFYs that wait for it go without after three seconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// How long one server may take before it, or another, is asked again.
const SERVER_WITHIN: Duration = Duration::from_millis(600);
/// How long an answer is good of which a part did not come in time (seconds).
const PART_FOR: u32 = 30;
/// How many questions may be under way at once, and ...
const AT_ONCE: usize = 64;
/// ... how many may wait for that.
pub(super) const QUEUE: usize = 1_024;
/// How many hosts a name may stand for, and how many addresses each may have; what is beyond is not tried.
const MOST_HOSTS: usize = 16;
const MOST_ADDRESSES: usize = 8;

/// Looks names up.
pub(super) struct Resolver {
    /// None if there is no server to ask.
    dns: Option<TokioResolver>,
    /// What we speak, what is liked best first.
    transports: Vec<Transport>,
    /// The kinds of addresses that we can send to.
    kinds: Vec<RecordType>,
    room: Arc<Semaphore>,
    counts: [AtomicU64; LOOKUPS.len()],
}

/// Where a service is offered: from the DNS, or guessed from the name.
struct Service {
    /// The rank among its alternatives.
    rank: u16,
    transport: Transport,
    name: Name,
}

/// Hosts of one service, or the certainty that it is not offered (RFC 2782: a target of ".").
enum Offer {
    Hosts(Vec<(u32, SRV, Transport)>),
    Nothing,
    Unknown,
}

impl Resolver {
    pub(super) fn new(config: &Dns, listeners: &[Listener]) -> Arc<Resolver> {
        let builder = if config.servers.is_empty() {
            TokioResolver::builder_tokio()
        } else {
            let server = |address: &SocketAddr| {
                let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
                connections.iter_mut().for_each(|connection| connection.port = address.port());
                NameServerConfig::new(address.ip(), true, connections)
            };
            let config = ResolverConfig::from_name_servers(config.servers.iter().map(server).collect());
            Ok(TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()))
        };
        let dns = builder.and_then(|mut builder| {
            let options = builder.options_mut();
            options.timeout = SERVER_WITHIN;
            options.attempts = 2;
            builder.build()
        });
        if let Err(error) = &dns {
            tracing::warn!(%error, "names in Contact and Route cannot be looked up; set dns.servers");
        }
        let spoken = |transport| listeners.iter().any(|listener| listener.transport == transport);
        let sends_to = |v4| listeners.iter().any(|listener| listener.address.is_ipv4() == v4);
        let kinds = [(true, RecordType::A), (false, RecordType::AAAA)];
        Arc::new(Resolver {
            dns: dns.ok(),
            transports: [Transport::Udp, Transport::Tcp, Transport::Tls].into_iter().filter(|t| spoken(*t)).collect(),
            kinds: kinds.into_iter().filter(|(v4, _)| sends_to(*v4)).map(|(_, kind)| kind).collect(),
            room: Arc::new(Semaphore::new(AT_ONCE)),
            counts: Default::default(),
        })
    }

    /// Waits until another question may be asked.
    pub(super) async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        // It is never closed.
        Arc::clone(&self.room).acquire_owned().await.ok()
    }

    /// Answers a question, in no more than two seconds.
    pub(super) async fn answer(&self, question: &Question) -> Result<Answer, Unresolved> {
        let answer = self.search(question).await;
        one_more(
            &self.counts[match &answer {
                Ok(_) => 0,
                Err(Unresolved::Unknown) => 1,
                Err(Unresolved::Late) => 2,
                Err(Unresolved::NoServer) => 3,
            }],
        );
        answer
    }

    /// How many are being answered, and what became of the others: by [`LOOKUPS`].
    pub(super) fn stats(&self) -> (usize, [u64; LOOKUPS.len()]) {
        let under_way = AT_ONCE - self.room.available_permits();
        (under_way, std::array::from_fn(|outcome| self.counts[outcome].load(Relaxed)))
    }

    async fn search(&self, question: &Question) -> Result<Answer, Unresolved> {
        let dns = self.dns.as_ref().ok_or(Unresolved::NoServer)?;
        let mut search = Search { dns, kinds: &self.kinds, found: Vec::new(), until: None };
        let searched = tokio::time::timeout(ANSWER_WITHIN, search.run(question, &self.transports)).await;
        let Search { found, until, .. } = search;
        let left = until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()));
        let left = u32::try_from(left.as_secs()).unwrap_or(u32::MAX);
        match searched {
            _ if found.is_empty() && searched.is_err() => Err(Unresolved::Late),
            _ if found.is_empty() => Err(Unresolved::Unknown),
            Ok(()) => Ok(Answer { candidates: found, ttl: left }),
            // One of its hosts has kept us waiting; the others serve until we look again.
            Err(_) => Ok(Answer { candidates: found, ttl: left.min(PART_FOR) }),
        }
    }
}

/// One question on its way.
struct Search<'a> {
    dns: &'a TokioResolver,
    kinds: &'a [RecordType],
    /// What has been found so far.
    found: Vec<Candidate>,
    /// When the first of the records that were used is out of date.
    until: Option<Instant>,
}

impl Search<'_> {
    async fn run(&mut self, question: &Question, spoken: &[Transport]) {
        let Question { host, port, transport, secure } = question;
        let Ok(name) = Name::from_ascii(&**host) else { return };
        let usual = transport.unwrap_or(if *secure { Transport::Tls } else { Transport::Udp });
        let usual_port = if usual == Transport::Tls { 5061 } else { 5060 };
        if let Some(port) = port {
            return self.host(&name, *port, usual, (0, 0)).await;
        }
        // Below the search domains of resolv.conf there are hosts, but no services.
        let mut absolute = name.clone();
        absolute.set_fqdn(true);
        let services = match transport {
            Some(transport) => guessed(&absolute, &[*transport]),
            None => {
                let usable = |t: &Transport| (*t == Transport::Tls) == *secure;
                let spoken: Vec<_> = spoken.iter().copied().filter(usable).collect();
                match self.offered(&absolute, &spoken).await {
                    services if services.is_empty() => guessed(&absolute, &spoken),
                    services => services,
                }
            }
        };
        match self.hosts(services).await {
            Offer::Hosts(hosts) => self.all_addresses(hosts).await,
            Offer::Nothing => {}
            Offer::Unknown => self.host(&name, usual_port, usual, (0, 0)).await,
        }
    }

    /// What NAPTR records say is offered, of what we speak (RFC 3263 section 4.1).
    async fn offered(&mut self, name: &Name, spoken: &[Transport]) -> Vec<Service> {
        let mut found: Vec<_> = self.records(name, RecordType::NAPTR).await;
        found.retain(|data| matches!(data, RData::NAPTR(naptr) if naptr.flags.eq_ignore_ascii_case(b"s")));
        found.sort_by_key(|data| match data {
            RData::NAPTR(naptr) => (naptr.order, naptr.preference),
            _ => (u16::MAX, u16::MAX),
        });
        let service = |(rank, data)| {
            let RData::NAPTR(naptr) = data else { return None };
            let transport = match naptr.services.to_ascii_uppercase().as_slice() {
                b"SIP+D2U" => Transport::Udp,
                b"SIP+D2T" => Transport::Tcp,
                b"SIPS+D2T" => Transport::Tls,
                _ => return None,
            };
            spoken.contains(&transport).then_some(Service { rank, transport, name: naptr.replacement })
        };
        (0..).zip(found).filter_map(service).take(MOST_HOSTS).collect()
    }

    /// The hosts that SRV records name, all alternatives together.
    async fn hosts(&mut self, services: Vec<Service>) -> Offer {
        let (mut hosts, mut denied) = (Vec::new(), false);
        for Service { rank, transport, name } in services {
            for data in self.records(&name, RecordType::SRV).await {
                match data {
                    RData::SRV(srv) if srv.target.is_root() => denied = true,
                    RData::SRV(srv) => {
                        hosts.push((u32::from(rank) << 16 | u32::from(srv.priority), srv, transport));
                    }
                    _ => {}
                }
            }
        }
        match (hosts.is_empty(), denied) {
            (false, _) => Offer::Hosts(hosts),
            (true, true) => Offer::Nothing,
            (true, false) => Offer::Unknown,
        }
    }

    async fn all_addresses(&mut self, mut hosts: Vec<(u32, SRV, Transport)>) {
        hosts.sort_by_key(|(priority, ..)| *priority);
        for (priority, srv, transport) in hosts.into_iter().take(MOST_HOSTS) {
            self.host(&srv.target, srv.port, transport, (priority, srv.weight)).await;
        }
    }

    /// All addresses of a host, which has this priority and weight.
    async fn host(&mut self, name: &Name, port: u16, transport: Transport, (priority, weight): (u32, u16)) {
        let mut addresses = Vec::new();
        for kind in self.kinds {
            let found = self.records(name, *kind).await;
            addresses.extend(found.iter().filter_map(RData::ip_addr).map(|ip| SocketAddr::new(ip, port)));
        }
        addresses.truncate(MOST_ADDRESSES);
        if !addresses.is_empty() {
            self.found.push(Candidate { priority, weight, transport, addresses });
        }
    }

    /// The records of one kind. None if there are none or nobody knows: what comes next in RFC 3263 may still help.
    async fn records(&mut self, name: &Name, kind: RecordType) -> Vec<RData> {
        let Ok(found) = self.dns.lookup(name.clone(), kind).await else { return Vec::new() };
        self.until = Some(self.until.map_or(found.valid_until(), |until| until.min(found.valid_until())));
        let records = found.answers().iter().filter(|record| record.record_type() == kind);
        records.map(|record| record.data.clone()).collect()
    }
}

/// The services that a name may offer without saying so in a NAPTR record.
fn guessed(name: &Name, transports: &[Transport]) -> Vec<Service> {
    let service = |(rank, transport): (u16, &Transport)| {
        let prefix = match transport {
            Transport::Udp => "_sip._udp",
            Transport::Tcp => "_sip._tcp",
            _ => "_sips._tcp",
        };
        let name = Name::from_ascii(prefix).ok()?.append_domain(name).ok()?;
        Some(Service { rank, transport: *transport, name })
    };
    (0..).zip(transports).filter_map(service).collect()
}
