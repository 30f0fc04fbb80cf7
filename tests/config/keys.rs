//! Every key, set to something else than its default.

use std::net::SocketAddr;
use std::time::Duration;

use sturn::config::{
    Backend, CertificateFiles, Config, Credential, DefaultFamily, Expiry, HostAddress, LogFormat,
    PasswordAlgorithm, ProxyProtocol, TokenKeyBytes, When, full_file,
};

use crate::parse;
use crate::reference::is_default;

#[test]
fn every_key_can_be_set() {
    let config = parse(EVERY_KEY).unwrap();
    let addresses =
        |texts: &[&str]| -> Vec<SocketAddr> { texts.iter().map(|t| t.parse().unwrap()).collect() };
    assert_eq!(
        config.listen.udp,
        addresses(&["192.0.2.1:3478", "[2001:db8::1]:3478", "0.0.0.0:3479", "[::]:3479"])
    );
    assert_eq!(config.listen.tcp, addresses(&["0.0.0.0:443", "[::]:443"]));
    let tls = addresses(&["192.0.2.1:5349", "0.0.0.0:8443", "[::]:8443"]);
    assert_eq!(config.listen.tls, tls);
    let relay = |address: &str, advertise: &str| HostAddress {
        address: address.parse().unwrap(),
        advertise: advertise.parse().unwrap(),
    };
    assert_eq!(
        config.relay.addresses,
        [relay("10.0.0.5", "203.0.113.5"), relay("2001:db8::5", "2001:db8::5")]
    );
    assert_eq!((config.relay.ports.first(), config.relay.ports.last()), (5000, 5001));
    assert_eq!(config.relay.ports.count(), 2);
    assert_eq!(config.relay.default_family, DefaultFamily::Client);
    assert!(config.relay.tcp);
    assert_eq!(config.limits.peer_connections, 7);
    assert_eq!(config.limits.all_peer_connections, 8);
    assert_eq!(config.relay.socket_recv_buffer, 524_288);
    assert_eq!(config.relay.socket_send_buffer, 1_048_576);
    let auth = &config.auth;
    assert_eq!(auth.realm, "example.org");
    assert_eq!(auth.users.len(), 3);
    let Credential::Password(password) = &auth.users[0].credential else { panic!() };
    assert_eq!((auth.users[0].name.as_str(), password.expose()), ("alice", "hunter2"));
    let Credential::Keys { md5: Some(md5), sha256: None } = &auth.users[1].credential else {
        panic!()
    };
    assert_eq!(md5.expose()[..2], [0x00, 0x11]);
    let Credential::Keys { md5: None, sha256: Some(sha256) } = &auth.users[2].credential else {
        panic!()
    };
    assert_eq!(sha256.expose()[31], 0xff);
    assert_eq!(auth.secrets.iter().map(|s| s.expose()).collect::<Vec<_>>(), ["new", "old"]);
    let north = &auth.oauth_keys[0];
    let TokenKeyBytes::A128Gcm(key) = north.key else { panic!() };
    assert_eq!((north.id.as_str(), key.expose()), ("north", b"0123456789abcdef"));
    assert_eq!((north.not_before, north.not_after), (1_700_000_000, 1_709_251_200));
    let south = &auth.oauth_keys[1];
    assert!(matches!(south.key, TokenKeyBytes::A256Gcm(_)));
    assert_eq!((south.not_before, south.not_after), (0, u64::MAX));
    assert_eq!(auth.oauth_server_name, "turn.example.org");
    assert_eq!(auth.nonce_lifetime, Duration::from_secs(5400));
    assert_eq!(auth.nonce_key.as_ref().unwrap().expose(), "0123456789abcdef");
    assert_eq!(auth.expiry, Expiry::Refresh);
    assert_eq!(auth.password_algorithms, [PasswordAlgorithm::Md5, PasswordAlgorithm::Sha256]);
    assert_eq!(auth.username_separator, '|');
    assert!(config.stun.rfc3489 && !config.stun.software);
    let discovery = &config.nat_discovery;
    assert_eq!(
        discovery.addresses,
        [relay("10.0.0.6", "203.0.113.6"), relay("10.0.0.7", "203.0.113.7")]
    );
    assert_eq!(discovery.ports, [3478, 3480]);
    assert!(config.turn.rfc5766_channels && config.turn.mobility);
    assert_eq!(config.turn.default_lifetime, Duration::from_secs(300));
    assert_eq!(config.turn.max_lifetime, Duration::from_secs(7200));
    let alternate = &config.alternate;
    assert_eq!(alternate.servers, addresses(&["203.0.113.9:3479", "[2001:db8::9]:3478"]));
    assert_eq!(alternate.tls_servers, addresses(&["203.0.113.9:5349"]));
    assert_eq!((alternate.domain.as_str(), alternate.when), ("turn2.example.org", When::Always));
    let limits = &config.limits;
    assert_eq!(
        [limits.allocations, limits.allocations_per_user, limits.permissions, limits.channels],
        [1, 2, 3, 4]
    );
    assert_eq!([limits.connections, limits.pending_requests, limits.answers_per_prefix], [5, 6, 0]);
    assert_eq!(
        config.peers.allow,
        ["10.20.0.0/16".parse().unwrap(), "10.0.0.1/32".parse().unwrap()]
    );
    assert_eq!(config.peers.deny, ["2001:db8::/32".parse().unwrap()]);
    let files = |chain: &str, key: &str| CertificateFiles { chain: chain.into(), key: key.into() };
    assert_eq!(config.tls.certificates, [files("chain.pem", "/etc/key.pem")]);
    assert!(config.tls.self_signed && !config.tls.dtls);
    assert_eq!(config.tls.handshake_timeout, Duration::from_secs(9));
    assert_eq!(config.tls.handshakes, 7);
    assert_eq!(
        config.tcp.proxies,
        ["10.0.0.2/32".parse().unwrap(), "2001:db8::/32".parse().unwrap()]
    );
    assert_eq!(config.tcp.idle_timeout, Duration::from_secs(90));
    assert_eq!(config.tcp.frame_timeout, Duration::from_secs(5));
    assert_eq!(config.tcp.queue, 131_072);
    check_backends(&config);
    assert_eq!(config.workers.count, 4);
    assert_eq!(
        (config.log.level.as_str(), config.log.format),
        ("warn,sturn=debug", LogFormat::Json)
    );
    // A key that is forgotten above would keep its default.
    for line in full_file().lines().filter(|line| is_default(line)) {
        let name = line[1..].split(" = ").next().unwrap();
        assert!(EVERY_KEY.contains(&format!("{name} = ")), "{name} is not set");
    }
}

fn check_backends(config: &Config) {
    let web = Backend {
        address: "127.0.0.1:9443".parse().unwrap(),
        names: vec!["www.example.org".into(), "*.example.org".into()],
        alpn: vec!["h2".into()],
        plain: false,
        proxy_protocol: Some(ProxyProtocol::V2),
    };
    let plain = Backend {
        address: "[::1]:8080".parse().unwrap(),
        names: vec![],
        alpn: vec![],
        plain: true,
        proxy_protocol: None,
    };
    assert_eq!(config.backends.servers, [web, plain]);
    assert_eq!(config.backends.connect_timeout, Duration::from_secs(3));
    assert_eq!(config.backends.idle_timeout, Duration::from_secs(7200));
    assert_eq!(config.limits.backend_connections, 8);
}

pub(crate) const EVERY_KEY: &str = r#"
[listen]
udp = ["192.0.2.1", "[2001:db8::1]", ":3479"]
tcp = [443]
tls = ["192.0.2.1", 8443]
[relay]
addresses = [{ address = "10.0.0.5", advertise = "203.0.113.5" }, "2001:db8::5"]
ports = "5000-5001"
default-family = "client"
tcp = true
socket-recv-buffer = "512KiB"
socket-send-buffer = "1MiB"
[auth]
mode = "long-term"
realm = "example.org"
users = [
    { name = "alice", password = "hunter2" },
    { name = "bob", key = "0x00112233445566778899AABBccddeeff" },
    { name = "carol", key-sha256 = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff" },
]
secrets = ["new", "old"]
oauth-keys = [
    { id = "north", key = "MDEyMzQ1Njc4OWFiY2RlZg==", algorithm = "A128GCM", not-before = 2023-11-14T22:13:20Z, not-after = 2024-03-01T00:00:00Z },
    { id = "south", key = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=", algorithm = "A256GCM" },
]
oauth-server-name = "turn.example.org"
nonce-lifetime = "1h30m"
nonce-key = "0123456789abcdef"
expiry = "refresh"
password-algorithms = ["md5", "sha-256"]
username-separator = "|"
[stun]
rfc3489 = true
software = false
[nat-discovery]
addresses = [
    { address = "10.0.0.6", advertise = "203.0.113.6" },
    { address = "10.0.0.7", advertise = "203.0.113.7" },
]
ports = [3478, 3480]
[turn]
default-lifetime = "5m"
max-lifetime = "2h"
rfc5766-channels = true
mobility = true
[alternate]
servers = ["203.0.113.9:3479", "[2001:db8::9]"]
tls-servers = ["203.0.113.9"]
domain = "turn2.example.org"
when = "always"
[limits]
allocations = 1
allocations-per-user = 2
permissions = 3
channels = 4
peer-connections = 7
all-peer-connections = 8
connections = 5
backend-connections = 8
pending-requests = 6
answers-per-prefix = 0
[peers]
allow = ["10.20.0.0/16", "10.0.0.1"]
deny = ["2001:db8::/32"]
[tls]
certificates = [{ chain = "chain.pem", key = "/etc/key.pem" }]
self-signed = true
dtls = false
handshake-timeout = "9s"
handshakes = 7
[tcp]
proxies = ["10.0.0.2", "2001:db8::/32"]
idle-timeout = "90s"
frame-timeout = "5s"
queue = "128KiB"
[udp]
offload = false
[backends]
servers = [
    { names = ["WWW.example.org", "*.example.org"], alpn = ["h2"], address = "127.0.0.1:9443", proxy-protocol = "v2" },
    { plain = true, address = "[::1]:8080" },
]
connect-timeout = "3s"
idle-timeout = "2h"
[workers]
count = 4
[log]
level = "warn,sturn=debug"
format = "json"
"#;
