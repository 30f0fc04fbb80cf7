//! What a run is made of: settings, users and addresses, drawn from the seed.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use sturn::auth::{Algorithm, Directory, Secret, StoredKeys, User, time_limited};
use sturn::net::HashSeed;
use sturn::turn::policy::{OwnAddresses, Policy};
use sturn::turn::{
    Alternates, AuthSettings, DefaultFamily, ExpiryCheck, HostAddress, Lifetimes, Limits, Redirect,
    RelaySettings, Settings,
};

use crate::rng::Rng;
use crate::token::{self, Holder};

pub const REALM: &str = "sim.example";
pub const START_UNIX: u64 = 1_700_000_000;
/// Lies among the relay ports, so that the policy's exception is met.
pub const LISTENER_PORT: u16 = 50_003;
const SECRET: &str = "a shared secret";

/// How a user proves itself, and what the model may expect of that.
#[derive(Clone, Debug)]
pub struct Credential {
    pub name: String,
    pub password: String,
    /// The name that counts for the quota.
    pub quota: String,
    pub worth: Worth,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worth {
    /// Always accepted.
    Good,
    /// Accepted until that time (seconds since the epoch).
    Until(u64),
    /// Comes with an access token, accepted until that time.
    Token(u64),
    /// Accepted when the lookup says so.
    External,
    /// Never accepted: the password is wrong, or nobody has that name.
    Bad,
}

/// Everything that stays the same during a run.
pub struct Setup {
    pub settings: Arc<Settings>,
    pub shards: u16,
    pub hash_seed: HashSeed,
    pub credentials: Vec<Credential>,
    /// Whoever has the credential with a token.
    pub holder: Option<Holder>,
    /// Peers with a host behind them, one IP address with two ports among them.
    pub peers: Vec<SocketAddr>,
    /// Addresses that policy refuses.
    pub denied: Vec<SocketAddr>,
    /// In thousandths.
    pub loss: u64,
    pub shell_failures: u64,
}

impl Setup {
    pub fn new(rng: &mut Rng, hash_seed: HashSeed) -> Self {
        let mut credentials = credentials(rng);
        let relay = relay_settings(rng);
        let lifetime = rng.permille(500).then(|| rng.pick(&[1500, 3_000_000]));
        credentials.extend(lifetime.map(token_credential));
        let auth = auth_settings(rng, &credentials, hash_seed);
        let algorithm = auth.algorithms[0];
        let settings = Settings {
            auth,
            lifetimes: lifetimes(rng),
            limits: limits(rng),
            policy: policy(&relay),
            relay,
            discovery: None,
            alternates: rng.permille(500).then(|| alternates(rng)),
            mobility: rng.permille(600).then(|| b"sim tickets".as_slice().into()),
            rfc3489: rng.permille(500),
            rfc5766_channels: rng.permille(500),
            software: rng.permille(500).then(|| "sturn sim".into()),
        };
        let list = |list: &[&str]| list.iter().map(|a| a.parse().unwrap()).collect();
        Self {
            settings: Arc::new(settings),
            shards: rng.within(1..5) as u16,
            hash_seed,
            credentials,
            holder: lifetime.map(|lifetime| Holder::new(lifetime, algorithm)),
            peers: list(&[
                "9.9.9.1:1000",
                "9.9.9.1:1001",
                "9.9.9.2:1000",
                "[2606:4700::1]:1000",
                "[2606:4700::2]:2000",
            ]),
            denied: list(&["10.1.2.3:1000", "127.0.0.1:3478", "[fe80::1]:1000", "9.9.8.8:1"]),
            loss: rng.pick(&[0, 50, 200]),
            shell_failures: rng.pick(&[0, 100, 300]),
        }
    }

    pub fn is_denied(&self, ip: IpAddr) -> bool {
        self.denied.iter().any(|denied| denied.ip() == ip)
    }

    pub fn is_relay(&self, ip: IpAddr) -> bool {
        let mut addresses = self.settings.relay.addresses.iter();
        addresses.any(|relay| relay.local == ip || relay.advertised == ip)
    }

    pub fn is_relay_port(&self, port: u16) -> bool {
        self.ports().contains(&port) && port != LISTENER_PORT
    }

    pub fn ports(&self) -> RangeInclusive<u16> {
        self.settings.relay.ports.clone()
    }

    /// The address that a relayed transport address of this host is known by.
    pub fn advertised_of(&self, local: SocketAddr) -> Option<SocketAddr> {
        let relay = self.settings.relay.addresses.iter().find(|r| r.local == local.ip())?;
        Some(SocketAddr::new(relay.advertised, local.port()))
    }

    /// The address on this host that an advertised one stands for.
    pub fn local_of(&self, advertised: SocketAddr) -> Option<SocketAddr> {
        let mut addresses = self.settings.relay.addresses.iter();
        let relay = addresses.find(|r| r.advertised == advertised.ip())?;
        Some(SocketAddr::new(relay.local, advertised.port()))
    }
}

/// That of a client with a token.
fn token_credential(lifetime: u32) -> Credential {
    let name = token::KEY_NAME.to_owned();
    let worth = Worth::Token(Holder::expiry(lifetime));
    Credential { quota: name.clone(), name, password: token::PASSWORD.to_owned(), worth }
}

fn credentials(rng: &mut Rng) -> Vec<Credential> {
    let plain = |name: &str, password: &str, worth| Credential {
        name: name.to_owned(),
        password: password.to_owned(),
        quota: name.to_owned(),
        worth,
    };
    let mut list = vec![
        plain("alice", "wonderland", Worth::Good),
        plain("bob", "builder", Worth::Good),
        plain("ext1", "outside", Worth::External),
        plain("alice", "wrong", Worth::Bad),
        plain("nobody", "nothing", Worth::Bad),
    ];
    if rng.permille(500) {
        for lifetime in [1500, 10_000_000] {
            let expires = START_UNIX + lifetime;
            let mac = rng.pick(&time_limited::Mac::ALL);
            let (name, password) = time_limited::issue(SECRET, "carol", expires, mac, ':');
            let worth = Worth::Until(expires);
            list.push(Credential { name, password, quota: "carol".to_owned(), worth });
        }
    }
    list
}

fn auth_settings(rng: &mut Rng, credentials: &[Credential], seed: HashSeed) -> AuthSettings {
    let users = credentials.iter().filter(|c| c.worth == Worth::Good).map(|c| User {
        name: c.name.as_str().into(),
        keys: StoredKeys::from_password(&c.name, REALM, &c.password),
    });
    let secrets = credentials.iter().any(|c| matches!(c.worth, Worth::Until(_)));
    let secrets = secrets.then(|| Secret::new(SECRET)).into_iter().collect();
    let tokens = credentials.iter().any(|c| matches!(c.worth, Worth::Token(_)));
    let directory = Directory::new(REALM, users.collect(), secrets, ':', seed);
    AuthSettings {
        directory: Some(Arc::new(directory)),
        tokens: tokens.then(|| Arc::new(Holder::tokens())),
        external: true,
        algorithms: rng.pick(&[
            vec![Algorithm::Md5, Algorithm::Sha256],
            vec![Algorithm::Sha256, Algorithm::Md5],
            vec![Algorithm::Md5],
        ]),
        nonce_secret: b"sim".as_slice().into(),
        nonce_lifetime: Duration::from_secs(rng.pick(&[60, 600, 3600])),
        expiry: rng.pick(&[ExpiryCheck::Allocate, ExpiryCheck::Refresh]),
    }
}

fn relay_settings(rng: &mut Rng) -> RelaySettings {
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let v6 = HostAddress { local: ip("2606:4700:1::5"), advertised: ip("2606:4700:1::5") };
    // Half of the runs are behind 1:1 NAT.
    let local = if rng.permille(500) { ip("10.0.0.5") } else { ip("8.8.4.4") };
    let mut addresses = vec![HostAddress { local, advertised: ip("8.8.4.4") }];
    if rng.permille(750) {
        addresses.push(v6);
    }
    RelaySettings {
        addresses,
        ports: 50_000..=50_000 + rng.pick(&[30, 30, 12]),
        default_family: rng.pick(&[DefaultFamily::V4, DefaultFamily::Client]),
        tcp: rng.permille(600),
    }
}

/// Where clients are sent while this server drains; not everybody has somewhere to go.
fn alternates(rng: &mut Rng) -> Alternates {
    let list = |list: &[&str]| list.iter().map(|a| a.parse().unwrap()).collect();
    let both = ["8.8.5.1:3478", "[2606:4700:1::6]:3478", "8.8.5.2:3478"];
    Alternates {
        servers: list(&both[..rng.pick(&[1, 3])]),
        tls_servers: list(&both[..rng.pick(&[0, 1, 2])]),
        domain: None,
        redirect: Redirect::Draining,
    }
}

fn lifetimes(rng: &mut Rng) -> Lifetimes {
    Lifetimes {
        default: Duration::from_secs(rng.pick(&[600, 60, 900])),
        max: Duration::from_secs(rng.pick(&[3600, 1000])),
        ..Lifetimes::default()
    }
}

fn limits(rng: &mut Rng) -> Limits {
    Limits {
        allocations: rng.pick(&[100, 100, 3]),
        allocations_per_user: rng.pick(&[0, 1, 2, 3]),
        permissions: rng.pick(&[256, 4]),
        channels: rng.pick(&[256, 3]),
        peer_connections: rng.pick(&[4, 1]),
        all_peer_connections: 10,
        pending: rng.pick(&[1024, 2]),
        answers_per_prefix: rng.pick(&[0, 500, 2]),
    }
}

fn policy(relay: &RelaySettings) -> Policy {
    let own = OwnAddresses {
        relays: relay.addresses.clone(),
        others: Vec::new(),
        listener_ports: vec![LISTENER_PORT],
    };
    let deny = ["9.9.8.0/24".parse().unwrap()];
    Policy::new(&[], &deny, &own, relay.ports.clone())
}
