//! From the configuration to what cores and workers take.

use std::io;
use std::sync::Arc;

use super::Failure;
use super::addresses::Addresses;
use super::exit::Exit;
use crate::auth::{Algorithm, Directory, StoredKeys, TokenAlgorithm, TokenKey, Tokens, User};
use crate::config::{self, AuthMode, Config, Credential, ProxyProtocol, TokenKeyBytes};
use crate::front::proxy::Version;
use crate::front::route::Rule;
use crate::net::HashSeed;
use crate::turn::policy::{OwnAddresses, Policy};
use crate::turn::{
    Alternates, AuthSettings, DefaultFamily, Discovery, ExpiryCheck, HostAddress, Lifetimes,
    Limits, Redirect, RelaySettings, Settings,
};
use crate::worker::{Backend, BackendLimits, DtlsLimits, StreamLimits};

/// The settings of every core; `shards` share the bounds that are for the server,
/// `peer_connections` among them.
pub(super) fn core(
    config: &Config,
    addresses: &Addresses,
    peer_connections: u32,
    shards: u32,
    seed: HashSeed,
) -> Result<Settings, Failure> {
    let limits = &config.limits;
    Ok(Settings {
        auth: auth(&config.auth, seed)?,
        lifetimes: Lifetimes {
            default: config.turn.default_lifetime,
            max: config.turn.max_lifetime,
            ..Lifetimes::default()
        },
        limits: Limits {
            allocations: limits.allocations.div_ceil(shards) as usize,
            allocations_per_user: limits.allocations_per_user,
            permissions: limits.permissions as usize,
            channels: limits.channels as usize,
            peer_connections: limits.peer_connections as usize,
            all_peer_connections: peer_connections.div_ceil(shards) as usize,
            pending: limits.pending_requests.div_ceil(shards) as usize,
            // Zero stays zero: no limit.
            answers_per_prefix: limits.answers_per_prefix.div_ceil(shards),
        },
        relay: RelaySettings {
            addresses: addresses.relay.clone(),
            ports: config.relay.ports.first()..=config.relay.ports.last(),
            default_family: match config.relay.default_family {
                config::DefaultFamily::Ipv4 => DefaultFamily::V4,
                config::DefaultFamily::Client => DefaultFamily::Client,
            },
            tcp: config.relay.tcp,
        },
        policy: policy(config, addresses),
        discovery: discovery(config),
        alternates: alternates(&config.alternate),
        mobility: if config.turn.mobility { Some(random::<32>()?.into()) } else { None },
        rfc3489: config.stun.rfc3489,
        rfc5766_channels: config.turn.rfc5766_channels,
        software: config.stun.software.then(|| concat!("sturn ", env!("CARGO_PKG_VERSION")).into()),
    })
}

fn discovery(config: &Config) -> Option<Discovery> {
    let config::NatDiscovery { addresses, ports } = &config.nat_discovery;
    let addresses: Vec<_> = addresses.iter().map(host_address).collect();
    (!addresses.is_empty()).then_some(Discovery { addresses, ports: *ports })
}

fn alternates(alternate: &config::Alternate) -> Option<Alternates> {
    let config::Alternate { servers, tls_servers, domain, when } = alternate;
    let some = !servers.is_empty() || !tls_servers.is_empty();
    some.then(|| Alternates {
        servers: servers.clone(),
        tls_servers: tls_servers.clone(),
        domain: (!domain.is_empty()).then(|| domain.as_str().into()),
        redirect: match when {
            config::When::Draining => Redirect::Draining,
            config::When::Always => Redirect::Always,
        },
    })
}

/// An address of the configuration, as the core names it.
pub(super) fn host_address(address: &config::HostAddress) -> HostAddress {
    HostAddress { local: address.address, advertised: address.advertise }
}

/// The peer policy.
pub(super) fn policy(config: &Config, addresses: &Addresses) -> Policy {
    let listeners = config
        .udp_listeners()
        .into_iter()
        .chain(config.tcp_listeners())
        .chain(config.tls_listeners())
        .chain(config.dtls_listeners());
    let own = OwnAddresses {
        relays: addresses.relay.clone(),
        others: addresses.own.clone(),
        listener_ports: listeners.map(|addr| addr.port()).collect(),
    };
    let ports = config.relay.ports.first()..=config.relay.ports.last();
    Policy::new(&config.peers.allow, &config.peers.deny, &own, ports)
}

/// How each worker treats stream clients.
pub(super) fn streams(config: &Config, connections: u32, shards: u32) -> StreamLimits {
    StreamLimits {
        connections: connections.div_ceil(shards) as usize,
        idle: config.tcp.idle_timeout,
        frame: config.tcp.frame_timeout,
        handshake: config.tls.handshake_timeout,
        queue: config.tcp.queue,
        proxies: config.tcp.proxies.clone(),
    }
}

/// Where connections go that are not for TURN.
pub(super) fn backends(config: &Config) -> Arc<[Backend]> {
    let backend = |backend: &config::Backend| {
        let rule = Rule {
            names: backend.names.clone(),
            protocols: backend.alpn.iter().map(|name| name.as_bytes().to_vec()).collect(),
            plain: backend.plain,
        };
        let proxy = backend.proxy_protocol.map(|version| match version {
            ProxyProtocol::V1 => Version::V1,
            ProxyProtocol::V2 => Version::V2,
        });
        Backend::new(rule, backend.address, proxy)
    };
    config.backends.servers.iter().map(backend).collect()
}

/// How each worker passes them on.
pub(super) fn passing(config: &Config, connections: u32, shards: u32) -> BackendLimits {
    BackendLimits {
        connections: connections.div_ceil(shards) as usize,
        connect: config.backends.connect_timeout,
        idle: config.backends.idle_timeout,
    }
}

/// How each worker treats DTLS clients.
pub(super) fn dtls(
    config: &Config,
    connections: u32,
    shards: u32,
    cookie_secret: [u8; 32],
) -> DtlsLimits {
    DtlsLimits {
        sessions: connections.div_ceil(shards) as usize,
        handshakes: config.tls.handshakes.div_ceil(shards) as usize,
        handshake: config.tls.handshake_timeout,
        cookie_secret,
    }
}

fn auth(auth: &config::Auth, seed: HashSeed) -> Result<AuthSettings, Failure> {
    let directory = match auth.mode {
        AuthMode::None => None,
        AuthMode::LongTerm => Some(Arc::new(directory(auth, seed))),
    };
    let nonce_secret: Box<[u8]> = match &auth.nonce_key {
        Some(key) => key.expose().as_bytes().into(),
        None => random::<32>()?.into(),
    };
    Ok(AuthSettings {
        directory,
        tokens: tokens(auth),
        external: false,
        algorithms: auth
            .password_algorithms
            .iter()
            .map(|algorithm| match algorithm {
                config::PasswordAlgorithm::Md5 => Algorithm::Md5,
                config::PasswordAlgorithm::Sha256 => Algorithm::Sha256,
            })
            .collect(),
        nonce_secret,
        nonce_lifetime: auth.nonce_lifetime,
        expiry: match auth.expiry {
            config::Expiry::Allocate => ExpiryCheck::Allocate,
            config::Expiry::Refresh => ExpiryCheck::Refresh,
        },
    })
}

fn tokens(auth: &config::Auth) -> Option<Arc<Tokens>> {
    let keys: Vec<TokenKey> = auth
        .oauth_keys
        .iter()
        .map(|key| {
            let (algorithm, bytes) = match &key.key {
                TokenKeyBytes::A128Gcm(bytes) => (TokenAlgorithm::A128Gcm, &bytes.expose()[..]),
                TokenKeyBytes::A256Gcm(bytes) => (TokenAlgorithm::A256Gcm, &bytes.expose()[..]),
            };
            TokenKey::new(&key.id, algorithm, bytes, key.not_before..=key.not_after)
                .expect("the type of the key has the length that its algorithm takes")
        })
        .collect();
    (!keys.is_empty()).then(|| Arc::new(Tokens::new(&auth.oauth_server_name, keys)))
}

fn directory(auth: &config::Auth, seed: HashSeed) -> Directory {
    let users = auth
        .users
        .iter()
        .map(|user| {
            let keys = match &user.credential {
                Credential::Password(password) => {
                    StoredKeys::from_password(&user.name, &auth.realm, password.expose())
                }
                Credential::Keys { md5, sha256 } => StoredKeys {
                    md5: md5.map(|key| *key.expose()),
                    sha256: sha256.map(|key| *key.expose()),
                },
            };
            User { name: user.name.as_str().into(), keys }
        })
        .collect();
    Directory::new(&auth.realm, users, auth.secrets.clone(), auth.username_separator, seed)
}

/// Random bytes of the system.
pub(super) fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::new(Exit::OsError, format!("no random numbers: {error}")))?;
    Ok(bytes)
}

/// One worker per CPU, unless the configuration says otherwise.
pub(super) fn worker_count(config: &Config) -> u32 {
    let cpus = || std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
    if config.workers.count == 0 { cpus() } else { config.workers.count }
}

/// A size of zero means the system's default.
pub(super) fn buffer(bytes: usize) -> Option<usize> {
    (bytes != 0).then_some(bytes)
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::new(Exit::OsError, error.to_string())
    }
}
