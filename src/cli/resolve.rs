//! From the URI of a server to transport addresses, for the tools (RFC 5928).
//!
//! 1. An address in the URI is taken as it is.
//! 2. A name with a port is looked up (A and AAAA).
//! 3. A name without one is looked up in SRV records, one service for each
//!    transport that the URI allows.
//! 4. Without SRV records the name is looked up and the default port is taken.
//!
//! NAPTR records (RFC 5928 section 4) are not asked for: they would only narrow
//! the transports, and a tool tries all of them.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{Name, RData, RecordType};

use crate::client::{Host, Scheme, Uri};
use crate::net::{Family, Transport};

/// How long one question to one name server may take, in tools that a person waits for.
const QUESTION: Duration = Duration::from_secs(2);
/// How often a question is asked again that got no answer.
const RETRIES: usize = 1;

/// Ways to one server that are tried: whoever writes the records of a name chooses how
/// many there are, and against whom.
const MOST_TARGETS: usize = 16;
/// SRV records of one service whose targets are looked up, the preferred ones.
const MOST_RECORDS: usize = 8;

/// Looks names up.
pub(super) struct Resolver {
    dns: TokioResolver,
    /// The only family that is wanted.
    family: Option<Family>,
}

/// Where a server is.
#[derive(Debug)]
pub(super) struct Resolution {
    /// In the order in which they are to be tried, each once; never empty.
    pub(super) targets: Vec<Target>,
    /// What SRV records had to do with it.
    pub(super) srv: Srv,
    /// Whether there are more ways than a tool goes.
    pub(super) more: bool,
}

/// One way to a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// How.
    pub(super) transport: Transport,
    /// Where.
    pub(super) address: SocketAddr,
    /// The SRV record it came from.
    pub(super) via: Option<Via>,
}

/// An SRV record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Via {
    /// Service and protocol: `_turn._udp`.
    pub(super) service: &'static str,
    /// The target.
    pub(super) host: String,
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.service, self.host)
    }
}

/// Whether SRV records were asked for and found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Srv {
    /// The URI names a port or an address.
    NotAsked,
    /// There are none.
    None,
    /// The name server has not answered about them.
    Unanswered(String),
    /// There are, and the addresses come from them.
    Used,
}

/// Why a name leads nowhere.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ResolveError {
    /// There is no such name, or it has no address.
    NotFound(String),
    /// It has addresses, but none of the wanted family; or the literal is of the other.
    OtherFamily(String, Family),
    /// The name server did not answer or answered with an error.
    Dns(String, String),
}

impl fmt::Display for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound(name) => write!(f, "{name} has no address"),
            Self::OtherFamily(name, family) => write!(f, "{name} has no {family} address"),
            Self::Dns(name, why) => write!(f, "looking up {name} failed: {why}"),
        }
    }
}

impl Resolution {
    fn of(mut targets: Vec<Target>, srv: Srv, more: bool) -> Self {
        let more = more || targets.len() > MOST_TARGETS;
        targets.truncate(MOST_TARGETS);
        Self { targets, srv, more }
    }
}

impl Resolver {
    /// A resolver that reads the system's hosts file and asks `server`, or else the
    /// system's name servers; for addresses of one family or of both.
    ///
    /// # Errors
    /// What is wrong, in words, when the resolver cannot be made.
    pub(super) fn new(server: Option<SocketAddr>, family: Option<Family>) -> Result<Self, String> {
        let provider = TokioRuntimeProvider::default();
        let mut builder = match server {
            Some(server) => TokioResolver::builder_with_config(only(server), provider),
            // Without a resolv.conf there are still literal addresses and the hosts file.
            None => TokioResolver::builder_tokio().unwrap_or_else(|_| {
                TokioResolver::builder_with_config(ResolverConfig::default(), provider)
            }),
        };
        set_options(builder.options_mut(), family);
        let dns = builder.build().map_err(|error| error.to_string())?;
        Ok(Self { dns, family })
    }

    /// All ways to the server of a URI.
    ///
    /// # Errors
    /// [`ResolveError`], when there is none.
    pub(super) async fn resolve(&self, uri: &Uri) -> Result<Resolution, ResolveError> {
        let transports = transports(uri);
        let name = match &uri.host {
            Host::Ip(ip) => return self.literal(*ip, uri, &transports),
            Host::Name(name) => name,
        };
        let (found, srv, more) = match uri.port {
            Some(_) => (Vec::new(), Srv::NotAsked, false),
            None => self.services(name, uri).await,
        };
        if !found.is_empty() {
            return Ok(Resolution::of(found, Srv::Used, more));
        }
        let ips = self.addresses(name).await?;
        let targets = cross(&ips, uri.port_or_default(), &transports);
        Ok(Resolution::of(targets, srv, false))
    }

    /// The addresses of a name, IPv4 first.
    ///
    /// # Errors
    /// [`ResolveError`], when there is none.
    pub(super) async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, ResolveError> {
        match self.dns.lookup_ip(name).await {
            Ok(found) => {
                let mut ips: Vec<IpAddr> = found.iter().collect();
                ips.sort_unstable();
                ips.dedup();
                Some(ips).filter(|ips| !ips.is_empty()).ok_or_else(|| self.nothing(name))
            }
            // The name itself does not exist, so no other family has it either.
            Err(error) if error.is_nx_domain() => Err(ResolveError::NotFound(name.to_owned())),
            Err(error) if error.is_no_records_found() => Err(self.nothing(name)),
            Err(error) => Err(ResolveError::Dns(name.to_owned(), error.to_string())),
        }
    }

    fn nothing(&self, name: &str) -> ResolveError {
        match self.family {
            Some(family) => ResolveError::OtherFamily(name.to_owned(), family),
            None => ResolveError::NotFound(name.to_owned()),
        }
    }

    fn literal(
        &self,
        ip: IpAddr,
        uri: &Uri,
        transports: &[Transport],
    ) -> Result<Resolution, ResolveError> {
        match self.family {
            Some(family) if family != Family::of(ip) => {
                Err(ResolveError::OtherFamily(ip.to_string(), family))
            }
            _ => {
                let targets = cross(&[ip], uri.port_or_default(), transports);
                Ok(Resolution::of(targets, Srv::NotAsked, false))
            }
        }
    }

    /// What the SRV records of all services lead to, and whether some were left out.
    async fn services(&self, name: &str, uri: &Uri) -> (Vec<Target>, Srv, bool) {
        let mut targets = Vec::new();
        let mut outcome = Srv::None;
        let mut more = false;
        for (service, transport) in services(uri) {
            let records = match self.records(&format!("{service}.{name}.")).await {
                Ok(records) => records,
                Err(why) => {
                    outcome = Srv::Unanswered(why);
                    continue;
                }
            };
            more |= records.len() > MOST_RECORDS;
            for record in records.into_iter().take(MOST_RECORDS) {
                let host = record.target.to_utf8();
                let host = host.trim_end_matches('.');
                // A target without an address is as good as no record.
                for ip in self.addresses(host).await.unwrap_or_default() {
                    let address = SocketAddr::new(ip, record.port);
                    let via = Some(Via { service, host: host.to_owned() });
                    let is_known = |t: &Target| (t.transport, t.address) == (transport, address);
                    if !targets.iter().any(is_known) {
                        targets.push(Target { transport, address, via });
                    }
                }
            }
        }
        (targets, outcome, more)
    }

    /// The SRV records of one service, the preferred one first.
    async fn records(&self, name: &str) -> Result<Vec<SRV>, String> {
        let name = Name::from_utf8(name).map_err(|error| error.to_string())?;
        match self.dns.lookup(name, RecordType::SRV).await {
            Ok(found) => {
                let records = found.answers().iter().filter_map(|record| match &record.data {
                    // The root as target says that there is no such service (RFC 2782);
                    // port 0 leads nowhere.
                    RData::SRV(srv) if !srv.target.is_root() && srv.port != 0 => Some(srv.clone()),
                    _ => None,
                });
                let mut records: Vec<SRV> = records.collect();
                records.sort_by_key(|srv| (srv.priority, u16::MAX - srv.weight));
                Ok(records)
            }
            Err(error) if error.is_nx_domain() || error.is_no_records_found() => Ok(Vec::new()),
            Err(error) => Err(error.to_string()),
        }
    }
}

fn only(server: SocketAddr) -> ResolverConfig {
    let mut name_server = NameServerConfig::udp_and_tcp(server.ip());
    for connection in &mut name_server.connections {
        connection.port = server.port();
    }
    ResolverConfig::from_name_servers(vec![name_server])
}

fn set_options(options: &mut ResolverOpts, family: Option<Family>) {
    options.timeout = QUESTION;
    options.attempts = RETRIES;
    options.ip_strategy = match family {
        Some(Family::V4) => LookupIpStrategy::Ipv4Only,
        Some(Family::V6) => LookupIpStrategy::Ipv6Only,
        None => LookupIpStrategy::Ipv4AndIpv6,
    };
}

/// The transports that a URI allows without SRV records, the preferred one first.
/// `turn:` without `?transport=` means both; public STUN servers speak UDP only.
fn transports(uri: &Uri) -> Vec<Transport> {
    match (uri.transport(), uri.scheme) {
        (Some(transport), _) => vec![transport],
        (None, Scheme::Stun) => vec![Transport::Udp],
        (None, Scheme::Turn) => vec![Transport::Udp, Transport::Tcp],
        (None, Scheme::Stuns | Scheme::Turns) => vec![Transport::Tls],
    }
}

/// The SRV services of a URI (RFC 5928 section 3, RFC 8489 section 8.1).
fn services(uri: &Uri) -> Vec<(&'static str, Transport)> {
    let all: &[(&str, Transport)] = match uri.scheme {
        Scheme::Stun => &[("_stun._udp", Transport::Udp), ("_stun._tcp", Transport::Tcp)],
        Scheme::Stuns => &[("_stuns._tcp", Transport::Tls)],
        Scheme::Turn => &[("_turn._udp", Transport::Udp), ("_turn._tcp", Transport::Tcp)],
        Scheme::Turns => &[("_turns._tcp", Transport::Tls), ("_turns._udp", Transport::Dtls)],
    };
    let wanted = uri.transport();
    let allowed = |(_, transport): &(&str, Transport)| wanted.is_none_or(|t| t == *transport);
    all.iter().copied().filter(allowed).collect()
}

/// Each address by each transport.
fn cross(ips: &[IpAddr], port: u16, transports: &[Transport]) -> Vec<Target> {
    let one =
        |ip: IpAddr, transport| Target { transport, address: SocketAddr::new(ip, port), via: None };
    ips.iter().flat_map(|ip| transports.iter().map(move |transport| one(*ip, *transport))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap().block_on(future)
    }

    fn resolve(uri: &str, family: Option<Family>) -> Result<Vec<String>, ResolveError> {
        block_on(async {
            // Nobody listens on the discard port: what does not need DNS works without.
            let resolver = Resolver::new(Some("127.0.0.1:9".parse().unwrap()), family).unwrap();
            let found = resolver.resolve(&uri.parse().unwrap()).await?;
            assert!(!found.targets.is_empty());
            Ok(found.targets.iter().map(|t| format!("{} {}", t.transport, t.address)).collect())
        })
    }

    #[test]
    fn literal_addresses_need_no_dns() {
        for (uri, expected) in [
            ("turn:192.0.2.1", &["udp 192.0.2.1:3478", "tcp 192.0.2.1:3478"][..]),
            ("turn:192.0.2.1:99?transport=tcp", &["tcp 192.0.2.1:99"]),
            ("turns:[2001:db8::1]", &["tls [2001:db8::1]:5349"]),
            ("turns:192.0.2.1?transport=udp", &["dtls 192.0.2.1:5349"]),
            ("stun:192.0.2.1", &["udp 192.0.2.1:3478"]),
            ("stuns:192.0.2.1", &["tls 192.0.2.1:5349"]),
        ] {
            assert_eq!(resolve(uri, None).unwrap(), expected, "{uri}");
        }
    }

    #[test]
    fn a_literal_of_the_other_family() {
        let error = resolve("turn:192.0.2.1", Some(Family::V6)).unwrap_err();
        assert_eq!(error, ResolveError::OtherFamily("192.0.2.1".into(), Family::V6));
    }

    #[test]
    fn names_in_the_hosts_file_need_no_dns() {
        let found = resolve("turn:localhost:7?transport=udp", Some(Family::V4)).unwrap();
        assert_eq!(found, ["udp 127.0.0.1:7"]);
    }

    #[test]
    fn a_silent_name_server_is_not_the_same_as_no_such_name() {
        let error = resolve("turn:turn.example.org:7", None).unwrap_err();
        assert!(matches!(error, ResolveError::Dns(..)), "{error:?}");
    }

    #[test]
    fn each_scheme_has_its_services() {
        let names = |uri: &str| -> Vec<&str> {
            services(&uri.parse().unwrap()).into_iter().map(|(name, _)| name).collect()
        };
        assert_eq!(names("stun:h"), ["_stun._udp", "_stun._tcp"]);
        assert_eq!(names("stuns:h"), ["_stuns._tcp"]);
        assert_eq!(names("turn:h"), ["_turn._udp", "_turn._tcp"]);
        assert_eq!(names("turn:h?transport=tcp"), ["_turn._tcp"]);
        assert_eq!(names("turns:h"), ["_turns._tcp", "_turns._udp"]);
        assert_eq!(names("turns:h?transport=udp"), ["_turns._udp"]);
    }
}
