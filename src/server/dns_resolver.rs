//! DNS resolver by the rules of RFC 3263: NAPTR, then SRV, then A and AAAA.
//!
//! Each query is a task of its own with a timeout, and the number of queries under way is limited. A DNS server that
//! does not answer delays only the NOTIFYs that need the name.

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
use crate::notifier::control::LOOKUPS;
use crate::notifier::dns_cache::{DnsAnswer, DnsError, DnsQuery, SrvTarget};
use crate::sip::Transport;
use crate::transport::Listener;
use crate::util::counters::increment;

/// Timeout of one query in total. NOTIFYs that wait for it fall back to the source address after three seconds.
const QUERY_TIMEOUT: Duration = Duration::from_secs(2);
/// Timeout of one DNS server, after which it or another is asked again.
const SERVER_TIMEOUT: Duration = Duration::from_millis(600);
/// Time to live of an answer that is incomplete because of the timeout (seconds).
const PARTIAL_TTL: u32 = 30;
/// Most queries under way ...
const MAX_CONCURRENT: usize = 64;
/// ... and most queries that wait.
pub(super) const QUEUE: usize = 1_024;
/// Most SRV targets of one name, and most addresses of each; the rest is not tried.
const MOST_HOSTS: usize = 16;
const MOST_ADDRESSES: usize = 8;

/// Resolver of SIP host names.
pub(super) struct Resolver {
    /// DNS client; none if no DNS server is known.
    dns: Option<TokioResolver>,
    /// Transports that the server sends over, preferred ones first.
    transports: Vec<Transport>,
    /// Address record types (A, AAAA) that the listeners can send to.
    kinds: Vec<RecordType>,
    room: Arc<Semaphore>,
    counts: [AtomicU64; LOOKUPS.len()],
}

/// Name to query for SRV records: from a NAPTR record, or a default.
struct SrvName {
    /// Rank among the alternatives; the lowest is tried first.
    rank: u16,
    transport: Transport,
    name: Name,
}

/// Result of the SRV queries: targets, an explicit "not offered" (a target of ".", RFC 2782), or no records.
enum SrvLookup {
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
            options.timeout = SERVER_TIMEOUT;
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
            room: Arc::new(Semaphore::new(MAX_CONCURRENT)),
            counts: Default::default(),
        })
    }

    /// Waits until another query may start.
    pub(super) async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        // An error is impossible: the semaphore is never closed.
        Arc::clone(&self.room).acquire_owned().await.ok()
    }

    /// Resolves one name, in at most two seconds.
    pub(super) async fn answer(&self, question: &DnsQuery) -> Result<DnsAnswer, DnsError> {
        let answer = self.search(question).await;
        increment(
            &self.counts[match &answer {
                Ok(_) => 0,
                Err(DnsError::Unknown) => 1,
                Err(DnsError::Late) => 2,
                Err(DnsError::NoServer) => 3,
            }],
        );
        answer
    }

    /// Number of queries under way, and number of finished ones by outcome (see [`LOOKUPS`]).
    pub(super) fn stats(&self) -> (usize, [u64; LOOKUPS.len()]) {
        let under_way = MAX_CONCURRENT - self.room.available_permits();
        (under_way, std::array::from_fn(|outcome| self.counts[outcome].load(Relaxed)))
    }

    async fn search(&self, question: &DnsQuery) -> Result<DnsAnswer, DnsError> {
        let dns = self.dns.as_ref().ok_or(DnsError::NoServer)?;
        let mut search = Search { dns, kinds: &self.kinds, found: Vec::new(), until: None };
        let searched = tokio::time::timeout(QUERY_TIMEOUT, search.run(question, &self.transports)).await;
        let Search { found, until, .. } = search;
        let left = until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()));
        let left = u32::try_from(left.as_secs()).unwrap_or(u32::MAX);
        match searched {
            _ if found.is_empty() && searched.is_err() => Err(DnsError::Late),
            _ if found.is_empty() => Err(DnsError::Unknown),
            Ok(()) => Ok(DnsAnswer { candidates: found, ttl: left }),
            // One target did not answer in time; the others are used until the next query.
            Err(_) => Ok(DnsAnswer { candidates: found, ttl: left.min(PARTIAL_TTL) }),
        }
    }
}

/// State of one query.
struct Search<'a> {
    dns: &'a TokioResolver,
    kinds: &'a [RecordType],
    /// Targets found so far.
    found: Vec<SrvTarget>,
    /// Time at which the first of the records used expires.
    until: Option<Instant>,
}

impl Search<'_> {
    async fn run(&mut self, question: &DnsQuery, spoken: &[Transport]) {
        let DnsQuery { host, port, transport, secure } = question;
        let Ok(name) = Name::from_ascii(&**host) else { return };
        let usual = transport.unwrap_or(if *secure { Transport::Tls } else { Transport::Udp });
        let usual_port = if usual == Transport::Tls { 5061 } else { 5060 };
        if let Some(port) = port {
            return self.host(&name, *port, usual, (0, 0)).await;
        }
        // The search domains of resolv.conf are for hosts. SRV and NAPTR names are absolute.
        let mut absolute = name.clone();
        absolute.set_fqdn(true);
        let services = match transport {
            Some(transport) => default_services(&absolute, &[*transport]),
            None => {
                let usable = |t: &Transport| (*t == Transport::Tls) == *secure;
                let spoken: Vec<_> = spoken.iter().copied().filter(usable).collect();
                match self.lookup_srv(&absolute, &spoken).await {
                    services if services.is_empty() => default_services(&absolute, &spoken),
                    services => services,
                }
            }
        };
        match self.hosts(services).await {
            SrvLookup::Hosts(hosts) => self.all_addresses(hosts).await,
            SrvLookup::Nothing => {}
            SrvLookup::Unknown => self.host(&name, usual_port, usual, (0, 0)).await,
        }
    }

    /// Services from NAPTR records whose transport the server supports (RFC 3263 section 4.1).
    async fn lookup_srv(&mut self, name: &Name, spoken: &[Transport]) -> Vec<SrvName> {
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
            spoken.contains(&transport).then_some(SrvName { rank, transport, name: naptr.replacement })
        };
        (0..).zip(found).filter_map(service).take(MOST_HOSTS).collect()
    }

    /// SRV targets of all services together.
    async fn hosts(&mut self, services: Vec<SrvName>) -> SrvLookup {
        let (mut hosts, mut denied) = (Vec::new(), false);
        for SrvName { rank, transport, name } in services {
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
            (false, _) => SrvLookup::Hosts(hosts),
            (true, true) => SrvLookup::Nothing,
            (true, false) => SrvLookup::Unknown,
        }
    }

    async fn all_addresses(&mut self, mut hosts: Vec<(u32, SRV, Transport)>) {
        hosts.sort_by_key(|(priority, ..)| *priority);
        for (priority, srv, transport) in hosts.into_iter().take(MOST_HOSTS) {
            self.host(&srv.target, srv.port, transport, (priority, srv.weight)).await;
        }
    }

    /// Adds all addresses of a host, with the priority and weight of its SRV record.
    async fn host(&mut self, name: &Name, port: u16, transport: Transport, (priority, weight): (u32, u16)) {
        let mut addresses = Vec::new();
        for kind in self.kinds {
            let found = self.records(name, *kind).await;
            addresses.extend(found.iter().filter_map(RData::ip_addr).map(|ip| SocketAddr::new(ip, port)));
        }
        addresses.truncate(MOST_ADDRESSES);
        if !addresses.is_empty() {
            self.found.push(SrvTarget { priority, weight, transport, addresses });
        }
    }

    /// Records of one type; empty on any error too, because the next step of RFC 3263 may still succeed.
    async fn records(&mut self, name: &Name, kind: RecordType) -> Vec<RData> {
        let Ok(found) = self.dns.lookup(name.clone(), kind).await else { return Vec::new() };
        self.until = Some(self.until.map_or(found.valid_until(), |until| until.min(found.valid_until())));
        let records = found.answers().iter().filter(|record| record.record_type() == kind);
        records.map(|record| record.data.clone()).collect()
    }
}

/// Default SRV names of a domain without NAPTR records (RFC 3263 section 4.1).
fn default_services(name: &Name, transports: &[Transport]) -> Vec<SrvName> {
    let service = |(rank, transport): (u16, &Transport)| {
        let prefix = match transport {
            Transport::Udp => "_sip._udp",
            Transport::Tcp => "_sip._tcp",
            _ => "_sips._tcp",
        };
        let name = Name::from_ascii(prefix).ok()?.append_domain(name).ok()?;
        Some(SrvName { rank, transport: *transport, name })
    };
    (0..).zip(transports).filter_map(service).collect()
}
