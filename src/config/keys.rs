//! The table of keys: each once, with its kind and what to say about it.
//!
//! The default of a key is not here but in [`Config::default`].

use tracing_subscriber::EnvFilter;

use super::kind::address::{Hosts, Listens, Network, Servers};
use super::kind::backends::BackendList;
use super::kind::certificates::CertificateList;
use super::kind::ports::{Ports, TwoPorts};
use super::kind::secret::{OptionalSecret, SecretText};
use super::kind::tokens::TokenKeys;
use super::kind::users::Users;
use super::kind::{Choice, Count, Distinct, Flag, Kind, List, Seconds, Separator, Size, Text};
use super::problem::{At, Report};
use super::{
    AuthMode, Config, DEFAULT_PORT, DEFAULT_TLS_PORT, DefaultFamily, Expiry, LogFormat,
    PasswordAlgorithm, When,
};

/// A table of the file.
pub(super) struct Section {
    pub(super) name: &'static str,
    /// What it is about.
    pub(super) doc: &'static str,
    pub(super) keys: &'static [Key],
}

/// A key of the file.
pub(super) struct Key {
    /// Dotted path: section and name.
    pub(super) path: &'static str,
    /// What it sets, in a line.
    pub(super) doc: &'static str,
    /// What else is worth knowing; may be empty.
    pub(super) more: &'static str,
    /// A value to show besides the default; may be empty.
    pub(super) example: &'static str,
    /// Sets the key from a value, or reports why not.
    pub(super) read: fn(&mut Config, &At<'_>, &mut Report<'_>),
    /// The value in a config as TOML, secrets masked; `None` when unset.
    pub(super) write: fn(&Config) -> Option<String>,
}

impl Key {
    /// The path without the section.
    pub(super) fn name(&self) -> &'static str {
        self.path.split_once('.').map_or(self.path, |(_, name)| name)
    }
}

/// The section of that name.
pub(super) fn section(name: &str) -> Option<&'static Section> {
    SECTIONS.iter().find(|section| section.name == name)
}

/// One entry: path, field of the config, kind, documentation.
macro_rules! key {
    (
        $path:literal, $section:ident . $field:ident, $kind:expr,
        doc: $doc:literal
        $(, more: $more:literal)?
        $(, example: $example:literal)? $(,)?
    ) => {
        Key {
            path: $path,
            doc: $doc,
            more: concat!($($more)?),
            example: concat!($($example)?),
            read: |config, at, report| {
                if let Some(value) = $kind.read(at, report) {
                    config.$section.$field = value;
                }
            },
            write: |config| $kind.write(&config.$section.$field),
        }
    };
}

const ALGORITHMS: Choice<PasswordAlgorithm> =
    Choice(&[("sha-256", PasswordAlgorithm::Sha256), ("md5", PasswordAlgorithm::Md5)]);

/// Every section and key, in the order of the reference file.
pub(super) static SECTIONS: &[Section] = &[
    Section { name: "listen", doc: "Where clients reach the server.", keys: LISTEN },
    Section {
        name: "relay",
        doc: "Where relayed transport addresses come from: what peers see.",
        keys: RELAY,
    },
    Section {
        name: "auth",
        doc: "Who may use the relay. A file needs users, secrets, oauth-keys or mode = \"none\".",
        keys: AUTH,
    },
    Section { name: "stun", doc: "STUN details.", keys: STUN },
    Section {
        name: "nat-discovery",
        doc: "NAT behaviour discovery (RFC 5780): `sturn nat` and its like learn here what NAT they are \
              behind.",
        keys: NAT_DISCOVERY,
    },
    Section {
        name: "turn",
        doc: "Allocations: how long they live, and what they can do.",
        keys: TURN,
    },
    Section {
        name: "alternate",
        doc: "Other servers that take clients over from this one (RFC 8489 section 10).",
        keys: ALTERNATE,
    },
    Section {
        name: "limits",
        doc: "Upper bounds. What is over a bound is refused and counted.",
        keys: LIMITS,
    },
    Section {
        name: "peers",
        doc: "Which peers may be reached. Private, loopback, link-local, multicast and other special \
              networks and the server's own addresses are denied by default. The longest prefix \
              wins; deny wins ties. `sturn explain PEER` names the rule that decides.",
        keys: PEERS,
    },
    Section { name: "tls", doc: "TLS and DTLS.", keys: TLS },
    Section { name: "tcp", doc: "Client connections over TCP.", keys: TCP },
    Section { name: "udp", doc: "UDP sockets, those of clients and of peers.", keys: UDP },
    Section {
        name: "backends",
        doc: "Servers that get the TCP connections that are not for TURN, so that port 443 is shared with \
              the web. TLS is passed on as it came and ends there, with their certificates.",
        keys: BACKENDS,
    },
    Section { name: "workers", doc: "Threads.", keys: WORKERS },
    Section { name: "log", doc: "Log output, on standard error.", keys: LOG },
];

static LISTEN: &[Key] = &[
    key!(
        "listen.udp", listen.udp, Listens { port: DEFAULT_PORT },
        doc: "Transport addresses for clients over UDP.",
        more: "An address without a port gets 3478; a port without an address means both families.",
        example: "[\"192.0.2.1\", \"[2001:db8::1]:443\", 3479]",
    ),
    key!(
        "listen.tcp", listen.tcp, Listens { port: DEFAULT_PORT },
        doc: "Transport addresses for clients over TCP, written the same way.",
        more: "[] turns TCP off. With certificates these also take TLS, and those of listen.udp DTLS.",
    ),
    key!(
        "listen.tls", listen.tls, Listens { port: DEFAULT_TLS_PORT },
        doc: "Transport addresses for TLS over TCP and DTLS over UDP and nothing else, once there are \
              certificates.",
        more: "An address without a port gets 5349.",
        example: "[443, \"192.0.2.1\"]",
    ),
];

static RELAY: &[Key] = &[
    key!(
        "relay.addresses", relay.addresses, Hosts,
        doc: "Addresses of this host to relay on.",
        more: "Empty: find them at start. Behind 1:1 NAT (most clouds) give the address of the host and \
               the public one that clients are told.",
        example: "[{ address = \"10.0.0.5\", advertise = \"203.0.113.5\" }, \"2001:db8::5\"]",
    ),
    key!(
        "relay.ports", relay.ports, Ports,
        doc: "UDP ports of relayed transport addresses, both ends included.",
        more: "An allocation takes one port of each of its addresses. Open the range in the firewall.",
    ),
    key!(
        "relay.default-family", relay.default_family,
        Choice(&[("ipv4", DefaultFamily::Ipv4), ("client", DefaultFamily::Client)]),
        doc: "Family of an allocation whose client asks for none: \"ipv4\", or \"client\" for the family \
              the client came by.",
    ),
    key!(
        "relay.tcp", relay.tcp, Flag,
        doc: "Relay TCP connections with peers too (RFC 6062), on the same ports.",
        more: "Browsers do not use it. Peers are those of [peers], over TCP.",
    ),
    key!(
        "relay.socket-recv-buffer", relay.socket_recv_buffer,
        Size { min: 4096, max: 1 << 30, or_zero: true },
        doc: "Receive buffer of each relay socket; 0 is the system's default.",
        example: "\"512KiB\"",
    ),
    key!(
        "relay.socket-send-buffer", relay.socket_send_buffer,
        Size { min: 4096, max: 1 << 30, or_zero: true },
        doc: "Send buffer of each relay socket; 0 is the system's default.",
    ),
];

static AUTH: &[Key] = &[
    key!(
        "auth.mode", auth.mode,
        Choice(&[("long-term", AuthMode::LongTerm), ("none", AuthMode::None)]),
        doc: "\"long-term\": users and time-limited credentials. \"none\": STUN only, every TURN request \
              is refused.",
    ),
    key!(
        "auth.realm", auth.realm,
        Text {
            expected: "1 to 127 characters without quotes, backslashes and control characters",
            valid: realm_is_valid,
        },
        doc: "The realm clients are told. Keys made from passwords contain it: do not change it later.",
        example: "\"example.org\"",
    ),
    key!(
        "auth.users", auth.users, Users,
        doc: "Users known by name, each with a password or with keys made from it.",
        more: "A key is MD5(name:realm:password) as 32 hexadecimal digits, a key-sha256 the same with \
               SHA-256 and 64 digits.",
        example: "[{ name = \"alice\", password = { file = \"alice.password\" } }]",
    ),
    key!(
        "auth.secrets", auth.secrets, List { item: SecretText { min: 1 } },
        doc: "Secrets shared with the services that issue time-limited credentials.",
        more: "All are accepted and `sturn credentials` issues with the first, so a secret is replaced by \
               putting the new one in front. A secret is a string, or it is read from a file or from the \
               environment as below; a relative path starts at the directory of this file.",
        example: "[{ file = \"secret\" }, { env = \"STURN_SECRET\" }]",
    ),
    key!(
        "auth.oauth-keys", auth.oauth_keys, TokenKeys,
        doc: "Keys shared with authorization servers that hand out tokens (RFC 7635).",
        more: "A key is base64, inline, from a file or from the environment: 16 bytes for A128GCM, 32 for \
               A256GCM. With not-before and not-after, times such as 2027-01-31T00:00:00Z, it is good for \
               tokens made in between.",
        example: "[{ id = \"north\", key = { file = \"north.key\" }, algorithm = \"A256GCM\" }]",
    ),
    key!(
        "auth.oauth-server-name", auth.oauth_server_name,
        Text { expected: "at most 255 characters without control characters", valid: is_server_name },
        doc: "The name under which authorization servers know this server; tokens are sealed for it.",
        example: "\"turn.example.org\"",
    ),
    key!(
        "auth.nonce-lifetime", auth.nonce_lifetime, Seconds { min: 1, max: 86_400 },
        doc: "How long a nonce is accepted. A client with an older one gets 438 and goes on with a new one.",
    ),
    key!(
        "auth.nonce-key", auth.nonce_key, OptionalSecret { min: 16 },
        doc: "Key of the nonces, at least 16 characters; random for each start when unset.",
        more: "Servers that share an address behind a load balancer need the same one.",
        example: "{ file = \"nonce-key\" }",
    ),
    key!(
        "auth.expiry", auth.expiry,
        Choice(&[("allocate", Expiry::Allocate), ("refresh", Expiry::Refresh)]),
        doc: "What the expiry of a time-limited credential ends: \"allocate\" refuses new allocations, \
              \"refresh\" also refuses to refresh those it made.",
    ),
    key!(
        "auth.password-algorithms", auth.password_algorithms, Distinct { item: ALGORITHMS },
        doc: "Password algorithms offered to clients, the preferred one first.",
        more: "Without \"md5\" only clients that know RFC 8489 can authenticate; browsers today cannot.",
    ),
    key!(
        "auth.username-separator", auth.username_separator, Separator,
        doc: "Character between expiry and user in the username of a time-limited credential.",
    ),
];

static STUN: &[Key] = &[
    key!(
        "stun.rfc3489", stun.rfc3489, Flag,
        doc: "Answer Binding requests of RFC 3489 clients, which have no magic cookie.",
    ),
    key!(
        "stun.software", stun.software, Flag,
        doc: "Send the SOFTWARE attribute: name and version of this server.",
    ),
];

static NAT_DISCOVERY: &[Key] = &[
    key!(
        "nat-discovery.addresses", nat_discovery.addresses, Hosts,
        doc: "Two addresses of this host, of each family; clients are answered from the other one on request.",
        more: "Empty turns NAT discovery off. Behind 1:1 NAT give the address of the host and the public one.",
        example: "[\"192.0.2.1\", \"192.0.2.2\"]",
    ),
    key!(
        "nat-discovery.ports", nat_discovery.ports, TwoPorts,
        doc: "Two ports; each address listens on both, over UDP and over TCP unless listen.tcp is empty.",
    ),
];

static TURN: &[Key] = &[
    key!(
        "turn.default-lifetime", turn.default_lifetime, Seconds { min: 1, max: 86_400 },
        doc: "Lifetime of an allocation whose client asks for none, and the least that is granted.",
    ),
    key!(
        "turn.max-lifetime", turn.max_lifetime, Seconds { min: 1, max: 86_400 },
        doc: "The longest lifetime that is granted; the client refreshes before it ends.",
    ),
    key!(
        "turn.rfc5766-channels", turn.rfc5766_channels, Flag,
        doc: "Let clients of RFC 5766 bind channels 0x5000 to 0x7FFF, which RFC 8656 reserves.",
    ),
    key!(
        "turn.mobility", turn.mobility, Flag,
        doc: "Let allocations follow clients whose address or transport changes (RFC 8016).",
        more: "A client that asks for it keeps its allocation when its connection ends, until the lifetime \
               is over.",
    ),
];

static ALTERNATE: &[Key] = &[
    key!(
        "alternate.servers", alternate.servers, Servers { default_port: DEFAULT_PORT },
        doc: "Where clients over UDP and TCP are sent, to each server of their address family in turn.",
        more: "A client keeps its transport. Of a family without a server nobody is sent away.",
        example: "[\"203.0.113.9:3478\", \"[2001:db8::9]:3478\"]",
    ),
    key!(
        "alternate.tls-servers", alternate.tls_servers, Servers { default_port: DEFAULT_TLS_PORT },
        doc: "The same for clients over TLS and DTLS; the port is 5349 where none is given.",
    ),
    key!(
        "alternate.domain", alternate.domain,
        Text { expected: "a domain name, or \"\" for none", valid: is_domain_or_empty },
        doc: "The name in the certificate of tls-servers, when it is another one than this server's.",
        example: "\"turn2.example.org\"",
    ),
    key!(
        "alternate.when", alternate.when,
        Choice(&[("draining", When::Draining), ("always", When::Always)]),
        doc: "When new allocations are sent there: while this server drains, or always.",
    ),
];

static LIMITS: &[Key] = &[
    key!(
        "limits.allocations", limits.allocations, Count { min: 1, max: 16_000_000 },
        doc: "Allocations in all, in equal shares for the workers.",
    ),
    key!(
        "limits.allocations-per-user", limits.allocations_per_user, Count { min: 0, max: 16_000_000 },
        doc: "Allocations of one user; 0 is no limit.",
        more: "A browser makes one for each interface and transport. In time-limited credentials the \
               user is the part after the separator.",
    ),
    key!(
        "limits.permissions", limits.permissions, Count { min: 1, max: 65_535 },
        doc: "Permissions of one allocation: peers' addresses it may exchange data with.",
    ),
    key!(
        "limits.channels", limits.channels, Count { min: 1, max: 4096 },
        doc: "Channels of one allocation.",
    ),
    key!(
        "limits.peer-connections", limits.peer_connections, Count { min: 1, max: 65_535 },
        doc: "Connections of one allocation with peers over TCP.",
    ),
    key!(
        "limits.all-peer-connections", limits.all_peer_connections, Count { min: 1, max: 1_000_000 },
        doc: "Connections with peers over TCP in all, in equal shares for the workers.",
        more: "One user has at most half of each share. A connection takes up to five descriptors, besides \
               that of the client.",
    ),
    key!(
        "limits.connections", limits.connections, Count { min: 1, max: 1_000_000 },
        doc: "Client connections over TCP in all, in equal shares for the workers.",
    ),
    key!(
        "limits.backend-connections", limits.backend_connections, Count { min: 1, max: 1_000_000 },
        doc: "Those of limits.connections that are passed to backends, in equal shares for the workers.",
    ),
    key!(
        "limits.pending-requests", limits.pending_requests, Count { min: 1, max: 65_536 },
        doc: "Requests that wait for something else than the client, such as a relay socket.",
    ),
    key!(
        "limits.answers-per-prefix", limits.answers_per_prefix, Count { min: 0, max: 1_000_000 },
        doc: "Answers a second to unauthenticated UDP requests from one source prefix (IPv4 /24, IPv6 /48), \
              in bursts of up to twice as many; 0 is no limit.",
        more: "Bounds what forged requests can make this server send to a victim.",
    ),
];

static PEERS: &[Key] = &[
    key!(
        "peers.allow", peers.allow, List { item: Network },
        doc: "Networks to allow although they are denied by default.",
        example: "[\"10.20.0.0/16\", \"fd12:3456::/32\"]",
    ),
    key!(
        "peers.deny", peers.deny, List { item: Network },
        doc: "Networks to deny although they are allowed by default.",
        example: "[\"203.0.113.0/24\", \"198.51.100.7\"]",
    ),
];

static TLS: &[Key] = &[
    key!(
        "tls.certificates", tls.certificates, CertificateList,
        doc: "Certificate chains and their private keys, in PEM.",
        more: "A client gets the first for the name that it asks for, and the very first when none fits. A \
               relative path starts at the directory of this file.",
        example: "[{ chain = \"fullchain.pem\", key = \"privkey.pem\" }]",
    ),
    key!(
        "tls.self-signed", tls.self_signed, Flag,
        doc: "Without certificates, serve with one made at start. Browsers refuse it; its fingerprint is in \
              the log.",
    ),
    key!("tls.dtls", tls.dtls, Flag, doc: "Serve DTLS over UDP besides TLS over TCP."),
    key!(
        "tls.handshake-timeout", tls.handshake_timeout, Seconds { min: 1, max: 300 },
        doc: "How long a TLS or DTLS handshake may take.",
    ),
    key!(
        "tls.handshakes", tls.handshakes, Count { min: 1, max: 1_000_000 },
        doc: "DTLS handshakes in progress, in equal shares for the workers.",
        more: "A client without the right cookie has none and costs nothing.",
    ),
];

static TCP: &[Key] = &[
    key!(
        "tcp.proxies", tcp.proxies, List { item: Network },
        doc: "Load balancers whose PROXY protocol headers (versions 1 and 2) name the clients.",
        more: "From elsewhere such a header ends the connection.",
        example: "[\"10.0.0.2\", \"10.1.0.0/24\"]",
    ),
    key!(
        "tcp.idle-timeout", tcp.idle_timeout, Seconds { min: 1, max: 86_400 },
        doc: "Close a connection that has been without an allocation for that long.",
    ),
    key!(
        "tcp.frame-timeout", tcp.frame_timeout, Seconds { min: 1, max: 3600 },
        doc: "Close a connection when a message that began to arrive is not complete after that long.",
    ),
    key!(
        "tcp.queue", tcp.queue, Size { min: 128 << 10, max: 64 << 20, or_zero: false },
        doc: "Bound of each connection's output queue. A client slower than its peers loses the oldest data.",
    ),
];

static UDP: &[Key] = &[key!(
    "udp.offload", udp.offload, Flag,
    doc: "Pass datagrams that belong together to and from the kernel as one (UDP GSO and GRO).",
    more: "Bursts cost a fraction of the CPU time then; turn it off where a network driver gets it wrong.",
)];

static BACKENDS: &[Key] = &[
    key!(
        "backends.servers", backends.servers, BackendList,
        doc: "The servers; a connection goes to the first that takes it. Also written [[backends.servers]].",
        more: "names are the server names that TLS clients ask for (\"*.example.org\" is one label more, \
               \"*\" every name without a certificate here), alpn the protocols of which they offer one; \
               with both, both count. A client that offers stun.turn or stun.nat-discovery is never passed \
               on, nor is one that no entry takes. WebRTC in browsers asks for the name of the TURN server \
               and offers no protocol. plain = true gets what is neither TLS nor STUN. proxy-protocol \
               (\"off\", \"v1\", \"v2\") tells the server the client's address.",
        example: "[{ alpn = [\"h2\", \"http/1.1\"], address = \"127.0.0.1:8443\", proxy-protocol = \"v2\" }]",
    ),
    key!(
        "backends.connect-timeout", backends.connect_timeout, Seconds { min: 1, max: 300 },
        doc: "How long connecting to a backend may take; then the client's connection is closed.",
    ),
    key!(
        "backends.idle-timeout", backends.idle_timeout, Seconds { min: 1, max: 86_400 },
        doc: "Close a passed connection on which neither side has said anything for that long.",
    ),
];

static WORKERS: &[Key] = &[key!(
    "workers.count", workers.count, Count { min: 0, max: 1024 },
    doc: "Worker threads; 0 is one for each CPU this process may use.",
)];

static LOG: &[Key] = &[
    key!(
        "log.level", log.level,
        Text {
            expected: "error, warn, info, debug or trace, or directives such as \"info,sturn::turn=debug\"",
            valid: log_level_is_valid,
        },
        doc: "error, warn, info, debug or trace, or filter directives.",
        more: "At info, addresses of clients appear where an allocation begins and ends, nowhere else.",
        example: "\"info,sturn::turn=debug\"",
    ),
    key!(
        "log.format", log.format, Choice(&[("text", LogFormat::Text), ("json", LogFormat::Json)]),
        doc: "\"text\" for people, \"json\" for one JSON object a line.",
    ),
];

/// RFC 8489 section 14.9: fewer than 128 characters; with at most 4 bytes each
/// the 763 bytes are never exceeded. It is sent in a quoted-string's grammar.
fn realm_is_valid(realm: &str) -> bool {
    let fits = (1..=127).contains(&realm.chars().count());
    fits && !realm.chars().any(|c| c.is_control() || c == '"' || c == '\\')
}

fn is_server_name(name: &str) -> bool {
    name.chars().count() <= 255 && !name.chars().any(char::is_control)
}

/// Letters, digits, hyphens and dots, no empty label, at most 253 characters.
fn is_domain_or_empty(domain: &str) -> bool {
    let fine = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let label = |l: &str| (1..=63).contains(&l.len()) && l.chars().all(fine);
    domain.is_empty() || domain.len() <= 253 && domain.split('.').all(label)
}

/// A level, or directives that each say what they are about: a lone word that
/// is no level would be taken for a module name and switch the log off.
fn log_level_is_valid(level: &str) -> bool {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let mut parts = level.split(',');
    let each_is_clear = parts.all(|part| LEVELS.contains(&part) || part.contains(['=', '[']));
    each_is_clear && EnvFilter::builder().parse(level).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_unique_and_in_their_section() {
        let mut seen = Vec::new();
        for section in SECTIONS {
            for key in section.keys {
                assert_eq!(key.path.split_once('.').unwrap().0, section.name);
                assert!(!seen.contains(&key.path), "{} twice", key.path);
                seen.push(key.path);
            }
        }
    }

    #[test]
    fn docs_are_sentences() {
        for key in SECTIONS.iter().flat_map(|s| s.keys) {
            for text in [key.doc, key.more].iter().filter(|t| !t.is_empty()) {
                assert!(text.ends_with('.'), "{}: {text}", key.path);
                assert!(!text.contains("  "), "{}: {text}", key.path);
            }
        }
    }

    #[test]
    fn a_log_level_that_is_a_slip_is_refused() {
        for good in ["info", "off", "info,sturn::turn=debug", "warn,sturn=trace", "[span]=debug"] {
            assert!(log_level_is_valid(good), "{good}");
        }
        for bad in ["", "inof", "info,", "verbose", "sturn=loud", "INFO", "warn, sturn=trace"] {
            assert!(!log_level_is_valid(bad), "{bad}");
        }
    }
}
