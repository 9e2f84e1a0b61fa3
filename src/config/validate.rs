//! Validation: turns the parsed file into a checked [`Config`], with every rule that serde cannot express.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use ipnet::IpNet;
use toml::Spanned;

use super::error::{ConfigError, Source};
use super::{
    Access, Algorithm, Api, Authenticate, Config, Data, Durability, History, Http, Limits, Listen, ListenTransport,
    Log, LogFormat, OnDamage, Presence, Profile, RateLimits, Sip, accounts, dns, hep, raw, tls,
};
use crate::package;

/// Checks a whole file, section by section in the order of the documentation.
pub(super) fn file(source: Source<'_>, raw: raw::File) -> Result<Config, ConfigError> {
    let sip = sip(source, &raw.sip, &raw.access)?;
    let tls = tls::section(source, raw.tls, raw.sip.listen.as_ref(), &sip.listen)?;
    let dns = dns::section(source, &raw.dns)?;
    let http = http(source, &raw.http)?;
    let presence = presence(source, &raw.presence)?;
    let limits = limits(source, &raw.limits)?;
    let rate_limits = rate_limits(source, &raw.rate_limits)?;
    let data = data(source, raw.data)?;
    let history = history(source, &raw.history)?;
    let access = access(source, &raw.access)?;
    let api = api(source, &raw.api)?;
    let log = log(source, raw.log)?;
    let (accounts, webhooks) = accounts::accounts(source, &raw.account)?;
    let mut warnings = Vec::new();
    let tokens = accounts::tokens(source, &raw.token, &accounts, &mut warnings)?;
    let hep = hep::section(source, raw.hep, &accounts)?;
    Ok(Config {
        sip,
        tls,
        dns,
        http,
        presence,
        limits,
        rate_limits,
        data,
        history,
        access,
        api,
        hep,
        log,
        tokens,
        accounts,
        webhooks,
        warnings,
    })
}

fn sip(source: Source<'_>, raw: &raw::Sip, access: &raw::Access) -> Result<Sip, ConfigError> {
    let advertise = raw.advertise.as_ref().map(|host| advertise(source, host)).transpose()?;
    let ws_origins = raw.ws_origins.iter().enumerate().map(|(i, written)| ws_origin(source, i, written));
    let ws_origins = ws_origins.collect::<Result<_, _>>()?;
    let Some(list) = &raw.listen else {
        let here = SocketAddr::from(([127, 0, 0, 1], 5060));
        let listen = [ListenTransport::Udp, ListenTransport::Tcp].map(|transport| Listen { transport, address: here });
        return Ok(Sip { listen: listen.to_vec(), advertise, ws_origins });
    };
    if list.get_ref().is_empty() {
        return Err(source.fault(
            list.span(),
            "sip.listen",
            "names no address; at least one is needed, such as \"udp://127.0.0.1:5060\"",
        ));
    }
    let mut listen = Vec::new();
    for (i, written) in list.get_ref().iter().enumerate() {
        let fault = |problem: String| source.fault(written.span(), format!("sip.listen[{i}]"), problem);
        let one = listen_address(written.get_ref()).map_err(fault)?;
        if one.address.ip().is_unspecified() && advertise.is_none() {
            return Err(fault(format!(
                "{} is a wildcard, which no peer can send to; set sip.advertise to the host name or address that \
                 goes into Via and Contact",
                one.address.ip()
            )));
        }
        let open = authenticate(source, access)? == Authenticate::Off && !access.allow_unauthenticated;
        if !one.address.ip().is_loopback() && open {
            return Err(fault(format!(
                "{one} is reachable from beyond this machine while access.authenticate is \"off\", so anybody could \
                 watch and publish; say access.authenticate = \"digest\", listen on a loopback address, or say \
                 access.allow_unauthenticated = true if something else keeps strangers out"
            )));
        }
        if listen.contains(&one) {
            return Err(fault(format!("{one} is listed twice")));
        }
        listen.push(one);
    }
    Ok(Sip { listen, advertise, ws_origins })
}

fn listen_address(written: &str) -> Result<Listen, String> {
    const ALLOWED: &str =
        "allowed: \"udp://ADDRESS:PORT\", and the same with tcp, tls, ws and wss; an IPv6 address in brackets";
    let Some((scheme, rest)) = written.split_once("://") else {
        return Err(format!("\"{written}\" has no transport before \"://\"; {ALLOWED}"));
    };
    let transport = match scheme {
        "udp" => ListenTransport::Udp,
        "tcp" => ListenTransport::Tcp,
        "tls" => ListenTransport::Tls,
        "ws" => ListenTransport::Ws,
        "wss" => ListenTransport::Wss,
        _ => return Err(format!("\"{scheme}\" is no transport; {ALLOWED}")),
    };
    let address = rest.parse().map_err(|_| format!("\"{rest}\" is not an IP address and a port; {ALLOWED}"))?;
    Ok(Listen { transport, address })
}

/// Checks a web origin as browsers send it (RFC 6454 section 6.1). Returns it in lower case; it has no path.
fn ws_origin(source: Source<'_>, i: usize, written: &Spanned<String>) -> Result<String, ConfigError> {
    let origin = written.get_ref();
    match origin.split_once("://") {
        Some((scheme, host)) if !scheme.is_empty() && !host.is_empty() && !host.contains('/') => {
            Ok(origin.to_ascii_lowercase())
        }
        _ => Err(source.fault(
            written.span(),
            format!("sip.ws_origins[{i}]"),
            format!("\"{origin}\" is no origin of a web page, such as \"https://phone.acme.test\""),
        )),
    }
}

fn advertise(source: Source<'_>, written: &Spanned<String>) -> Result<String, ConfigError> {
    let fault = |problem: String| source.fault(written.span(), "sip.advertise", problem);
    let host = written.get_ref().as_str();
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    match bare.parse::<IpAddr>() {
        Ok(ip) if ip.is_unspecified() => {
            Err(fault(format!("{ip} is a wildcard; name an address that peers can send to")))
        }
        Ok(IpAddr::V6(ip)) => Ok(format!("[{ip}]")),
        Ok(IpAddr::V4(ip)) if bare == host => Ok(ip.to_string()),
        _ if is_host_name(host) => Ok(host.to_owned()),
        _ => Err(fault(format!("\"{host}\" is neither an IP address nor a host name (and takes no port)"))),
    }
}

/// Approximates `hostname` of RFC 3261 section 25.1: labels of letters, digits and inner hyphens; the last one is not a
/// number.
fn is_host_name(host: &str) -> bool {
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    let last = host.rsplit('.').next().unwrap_or_default();
    host.len() <= 253 && host.split('.').all(label) && last.starts_with(|c: char| c.is_ascii_alphabetic())
}

fn http(source: Source<'_>, raw: &raw::Http) -> Result<Http, ConfigError> {
    let listen = match &raw.listen {
        None => SocketAddr::from(([127, 0, 0, 1], 8000)),
        Some(written) => written.get_ref().parse().map_err(|_| {
            let problem = format!(
                "\"{}\" is not an IP address and a port, such as \"127.0.0.1:8000\" or \"[::1]:8000\"",
                written.get_ref()
            );
            source.fault(written.span(), "http.listen", problem)
        })?,
    };
    Ok(Http { listen })
}

fn presence(source: Source<'_>, raw: &raw::Presence) -> Result<Presence, ConfigError> {
    // RFC 6665 section 4.2.1.1: only an expiry below one hour may be refused as too short.
    let min_expires = number(source, "presence.min_expires", &raw.min_expires, 60, 1..=3_600)?;
    let max_expires = number(source, "presence.max_expires", &raw.max_expires, 3_600, 1..=604_800)?;
    if min_expires > max_expires {
        let written = raw.max_expires.as_ref().or(raw.min_expires.as_ref());
        let span = written.map(Spanned::span).unwrap_or_default();
        let key = if raw.max_expires.is_some() { "presence.max_expires" } else { "presence.min_expires" };
        return Err(source.fault(
            span,
            key,
            format!("min_expires ({min_expires}) is above max_expires ({max_expires})"),
        ));
    }
    let min_notify_interval_ms =
        number(source, "presence.min_notify_interval_ms", &raw.min_notify_interval_ms, 0, 0..=60_000)?;
    let packages = match &raw.packages {
        None => (0..package::REGISTRY.len()).map(|i| package::PackageId(i as u8)).collect(),
        Some(list) => packages(source, list)?,
    };
    let large_over_tcp = match &raw.oversize_notify {
        None => true,
        Some(written) => match written.get_ref().as_str() {
            "tcp" => true,
            "udp" => false,
            other => {
                let problem = format!("\"{other}\" is no way for large NOTIFYs; allowed: \"tcp\", \"udp\"");
                return Err(source.fault(written.span(), "presence.oversize_notify", problem));
            }
        },
    };
    Ok(Presence { min_expires, max_expires, min_notify_interval_ms, packages, large_over_tcp })
}

fn packages(source: Source<'_>, list: &Spanned<Vec<Spanned<String>>>) -> Result<Vec<package::PackageId>, ConfigError> {
    if list.get_ref().is_empty() {
        return Err(source.fault(list.span(), "presence.packages", "names no event package; at least one is needed"));
    }
    let mut ids = Vec::new();
    for (i, name) in list.get_ref().iter().enumerate() {
        let fault = |problem: String| source.fault(name.span(), format!("presence.packages[{i}]"), problem);
        let Some(id) = package::by_name(name.get_ref()) else {
            let known: Vec<String> = package::REGISTRY.iter().map(|p| format!("\"{}\"", p.name())).collect();
            return Err(fault(format!("\"{}\" is no event package; allowed: {}", name.get_ref(), known.join(", "))));
        };
        if ids.contains(&id) {
            return Err(fault(format!("\"{}\" is listed twice", name.get_ref())));
        }
        ids.push(id);
    }
    Ok(ids)
}

/// Checks `[history]`. The highest value takes about 5 GB.
fn history(source: Source<'_>, raw: &raw::History) -> Result<History, ConfigError> {
    let default = History::default().exchanges;
    let exchanges = number(source, "history.exchanges", &raw.exchanges, default, 0..=100_000_000)?;
    Ok(History { exchanges })
}

fn limits(source: Source<'_>, raw: &raw::Limits) -> Result<Limits, ConfigError> {
    // The upper bound is far more than a machine can hold; it keeps sums of limits from overflowing.
    const COUNT: RangeInclusive<i64> = 1..=100_000_000;
    let default = Limits::default();
    let count = |key: &str, written, default: usize| number(source, &format!("limits.{key}"), written, default, COUNT);
    Ok(Limits {
        subscriptions: count("subscriptions", &raw.subscriptions, default.subscriptions)?,
        subscriptions_per_account: count(
            "subscriptions_per_account",
            &raw.subscriptions_per_account,
            default.subscriptions_per_account,
        )?,
        subscriptions_per_device: count(
            "subscriptions_per_device",
            &raw.subscriptions_per_device,
            default.subscriptions_per_device,
        )?,
        watchers_per_presentity: count(
            "watchers_per_presentity",
            &raw.watchers_per_presentity,
            default.watchers_per_presentity,
        )?,
        publications_per_presentity: count(
            "publications_per_presentity",
            &raw.publications_per_presentity,
            default.publications_per_presentity,
        )?,
        presentities_per_account: count(
            "presentities_per_account",
            &raw.presentities_per_account,
            default.presentities_per_account,
        )?,
        tcp_connections: count("tcp_connections", &raw.tcp_connections, default.tcp_connections)?,
        tcp_connections_per_address: count(
            "tcp_connections_per_address",
            &raw.tcp_connections_per_address,
            default.tcp_connections_per_address,
        )?,
        tcp_idle_seconds: number(
            source,
            "limits.tcp_idle_seconds",
            &raw.tcp_idle_seconds,
            default.tcp_idle_seconds,
            1..=604_800,
        )?,
        http_connections: count("http_connections", &raw.http_connections, default.http_connections)?,
        event_streams: count("event_streams", &raw.event_streams, default.event_streams)?,
        http_connections_per_address: count(
            "http_connections_per_address",
            &raw.http_connections_per_address,
            default.http_connections_per_address,
        )?,
        event_streams_per_account: count(
            "event_streams_per_account",
            &raw.event_streams_per_account,
            default.event_streams_per_account,
        )?,
        event_streams_per_address: count(
            "event_streams_per_address",
            &raw.event_streams_per_address,
            default.event_streams_per_address,
        )?,
        listings: count("listings", &raw.listings, default.listings)?,
        listings_per_account: count("listings_per_account", &raw.listings_per_account, default.listings_per_account)?,
        listings_per_address: count("listings_per_address", &raw.listings_per_address, default.listings_per_address)?,
        traces: count("traces", &raw.traces, default.traces)?,
        traces_per_account: count("traces_per_account", &raw.traces_per_account, default.traces_per_account)?,
    })
}

fn rate_limits(source: Source<'_>, raw: &raw::RateLimits) -> Result<RateLimits, ConfigError> {
    let default = RateLimits::default();
    let rate = |key: &str, written, default: u32| {
        number(source, &format!("rate_limits.{key}"), written, default, 0..=i64::from(RateLimits::MAX))
    };
    Ok(RateLimits {
        verified_source: rate("verified_source", &raw.verified_source, default.verified_source)?,
        unverified_source: rate("unverified_source", &raw.unverified_source, default.unverified_source)?,
        per_address: rate("per_address", &raw.per_address, default.per_address)?,
        unverified_total: rate("unverified_total", &raw.unverified_total, default.unverified_total)?,
    })
}

fn data(source: Source<'_>, raw: raw::Data) -> Result<Data, ConfigError> {
    let dir = match raw.dir {
        None => "lamplighter-data".into(),
        Some(dir) if dir.get_ref().as_os_str().is_empty() => {
            return Err(source.fault(dir.span(), "data.dir", "is empty; name a directory"));
        }
        Some(dir) => dir.into_inner(),
    };
    let durability = match &raw.durability {
        None => Durability::Strict,
        Some(written) => match written.get_ref().as_str() {
            "strict" => Durability::Strict,
            "relaxed" => Durability::Relaxed,
            "memory" => Durability::Memory,
            other => {
                let problem = format!("\"{other}\" is no durability; allowed: \"strict\", \"relaxed\", \"memory\"");
                return Err(source.fault(written.span(), "data.durability", problem));
            }
        },
    };
    let on_damage = match &raw.on_damage {
        None => OnDamage::Refuse,
        Some(written) => match written.get_ref().as_str() {
            "refuse" => OnDamage::Refuse,
            "repair" => OnDamage::Repair,
            other => {
                let problem = format!("\"{other}\" is nothing to do about damage; allowed: \"refuse\", \"repair\"");
                return Err(source.fault(written.span(), "data.on_damage", problem));
            }
        },
    };
    Ok(Data { dir, durability, on_damage })
}

fn access(source: Source<'_>, raw: &raw::Access) -> Result<Access, ConfigError> {
    let authenticate = authenticate(source, raw)?;
    let algorithms = algorithms(source, raw)?;
    let trusted_proxies = match &raw.trusted_proxies {
        // The built-in default trusts only this machine, as the example file does.
        None => vec![IpNet::new_assert(IpAddr::from([127, 0, 0, 0]), 8)],
        Some(list) => {
            let network = |(i, written): (usize, &Spanned<String>)| {
                let text = written.get_ref();
                text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).map_err(|_| {
                    let problem = format!("\"{text}\" is neither a network such as \"10.0.0.0/8\" nor an IP address");
                    source.fault(written.span(), format!("access.trusted_proxies[{i}]"), problem)
                })
            };
            list.iter().enumerate().map(network).collect::<Result<_, _>>()?
        }
    };
    let identity_header = match &raw.identity_header {
        None => "P-Asserted-Identity".to_owned(),
        Some(written) if crate::sip::wire::is_token(written.get_ref()) => written.get_ref().clone(),
        Some(written) => {
            let problem = format!("\"{}\" is no name of a header, such as \"P-Asserted-Identity\"", written.get_ref());
            return Err(source.fault(written.span(), "access.identity_header", problem));
        }
    };
    Ok(Access {
        authenticate,
        algorithms,
        trusted_proxies,
        identity_header,
        allow_unauthenticated: raw.allow_unauthenticated,
    })
}

fn algorithms(source: Source<'_>, raw: &raw::Access) -> Result<Vec<Algorithm>, ConfigError> {
    let Some(list) = &raw.algorithms else { return Ok(Algorithm::ALL.to_vec()) };
    if list.get_ref().is_empty() {
        let problem = "names no algorithm; allowed: \"SHA-256\", \"MD5\"";
        return Err(source.fault(list.span(), "access.algorithms", problem));
    }
    let mut chosen = Vec::new();
    for (i, written) in list.get_ref().iter().enumerate() {
        let fault = |problem: String| source.fault(written.span(), format!("access.algorithms[{i}]"), problem);
        let name = written.get_ref();
        let known = Algorithm::ALL.into_iter().find(|known| known.name() == name);
        let known = known.ok_or_else(|| fault(format!("\"{name}\" is not known; allowed: \"SHA-256\", \"MD5\"")))?;
        if chosen.contains(&known) {
            return Err(fault(format!("{name} is listed twice")));
        }
        chosen.push(known);
    }
    Ok(chosen)
}

fn authenticate(source: Source<'_>, raw: &raw::Access) -> Result<Authenticate, ConfigError> {
    let Some(written) = &raw.authenticate else { return Ok(Authenticate::Off) };
    match written.get_ref().as_str() {
        "off" => Ok(Authenticate::Off),
        "digest" => Ok(Authenticate::Digest),
        other => {
            let problem = format!("\"{other}\" is no way to authenticate; allowed: \"digest\", \"off\"");
            Err(source.fault(written.span(), "access.authenticate", problem))
        }
    }
}

fn api(source: Source<'_>, raw: &raw::Api) -> Result<Api, ConfigError> {
    if let Some(written) = &raw.profile {
        let problem = match written.get_ref().as_str() {
            "3.22" => None,
            known @ ("4.3" | "5.x") => Some(format!("\"{known}\" is not available yet; allowed: \"3.22\"")),
            other => Some(format!("\"{other}\" is no profile; allowed: \"3.22\"")),
        };
        if let Some(problem) = problem {
            return Err(source.fault(written.span(), "api.profile", problem));
        }
    }
    Ok(Api { profile: Profile::V3_22, strict_compat: raw.strict_compat })
}

fn log(source: Source<'_>, raw: raw::Log) -> Result<Log, ConfigError> {
    let format = match raw.format.as_ref().map(|written| (written, written.get_ref().as_str())) {
        None | Some((_, "text")) => LogFormat::Text,
        Some((_, "json")) => LogFormat::Json,
        Some((written, other)) => {
            let problem = format!("\"{other}\" is no format; allowed: \"text\", \"json\"");
            return Err(source.fault(written.span(), "log.format", problem));
        }
    };
    let Some(written) = raw.level else { return Ok(Log { level: "info".to_owned(), format }) };
    if let Err(error) = crate::logging::check(written.get_ref()) {
        let problem = format!(
            "\"{}\" is no filter ({error}); allowed: \"error\", \"warn\", \"info\", \"debug\", \"trace\", or \
             \"info,lamplighter::api=debug\" and the like",
            written.get_ref()
        );
        return Err(source.fault(written.span(), "log.level", problem));
    }
    Ok(Log { level: written.into_inner(), format })
}

/// A number within its range; the default if the key is absent.
pub(super) fn number<T: TryFrom<i64>>(
    source: Source<'_>,
    key: &str,
    written: &Option<Spanned<i64>>,
    default: T,
    allowed: RangeInclusive<i64>,
) -> Result<T, ConfigError> {
    let Some(written) = written else { return Ok(default) };
    let value = *written.get_ref();
    let in_range = allowed.contains(&value).then_some(value).and_then(|value| T::try_from(value).ok());
    in_range.ok_or_else(|| {
        let problem = format!("{value} is out of range; allowed: {} to {}", allowed.start(), allowed.end());
        source.fault(written.span(), key, problem)
    })
}

/// Set of values seen, for reporting duplicates.
pub(super) struct Unique(HashSet<String>);

impl Unique {
    pub(super) fn new() -> Self {
        Self(HashSet::new())
    }

    /// Inserts `text`; false if it was there already.
    pub(super) fn first(&mut self, text: &str) -> bool {
        self.0.insert(text.to_owned())
    }
}
