//! What only several keys together can get wrong.

use std::net::IpAddr;

use super::problem::Report;
use super::{AuthMode, Config, Credential, Listen, PasswordAlgorithm, When, format_duration};

/// Checks a config whose keys were each read. A rule is silent when a key it
/// needs was refused already.
pub(super) fn check(config: &Config, report: &mut Report<'_>) {
    credentials(config, report);
    tokens(config, report);
    lifetimes(config, report);
    listens(config, report);
    nat_discovery(config, report);
    alternate(config, report);
    backends(config, report);
    peers(config, report);
}

/// Never an open relay, never credentials that are ignored.
fn credentials(config: &Config, report: &mut Report<'_>) {
    let auth = &config.auth;
    let given = [
        ("auth.users", auth.users.len()),
        ("auth.secrets", auth.secrets.len()),
        ("auth.oauth-keys", auth.oauth_keys.len()),
    ];
    if report.is_refused("auth.mode") || given.iter().any(|(key, _)| report.is_refused(key)) {
        return;
    }
    match auth.mode {
        AuthMode::LongTerm if given.iter().all(|(_, count)| *count == 0) => report.refuse_key(
            "auth",
            None,
            "no credentials: give auth.users, auth.secrets or auth.oauth-keys, or say auth.mode = \"none\" for STUN only",
        ),
        AuthMode::LongTerm => {}
        AuthMode::None => {
            for (key, count) in given {
                if count > 0 {
                    report.refuse_key(key, None, "given, but auth.mode = \"none\" ignores them: remove one of both");
                }
            }
        }
    }
}

/// Tokens are sealed for a server by its name.
fn tokens(config: &Config, report: &mut Report<'_>) {
    const NAME: &str = "auth.oauth-server-name";
    let auth = &config.auth;
    if report.is_refused("auth.oauth-keys") || report.is_refused(NAME) {
        return;
    }
    match (auth.oauth_keys.is_empty(), auth.oauth_server_name.is_empty()) {
        (false, true) => report.refuse_key(
            "auth.oauth-keys",
            None,
            "given without auth.oauth-server-name, the name that tokens are made for",
        ),
        (true, false) => report.refuse_key(NAME, None, "given without auth.oauth-keys"),
        _ => {}
    }
}

fn lifetimes(config: &Config, report: &mut Report<'_>) {
    let turn = &config.turn;
    let refused =
        ["turn.default-lifetime", "turn.max-lifetime"].iter().any(|k| report.is_refused(k));
    if refused || turn.default_lifetime <= turn.max_lifetime {
        return;
    }
    let (shortest, longest) =
        (format_duration(turn.default_lifetime), format_duration(turn.max_lifetime));
    if report.line("turn.max-lifetime").is_some() {
        report.refuse_key(
            "turn.max-lifetime",
            Some(format!("\"{longest}\"")),
            format!("expected at least turn.default-lifetime, \"{shortest}\""),
        );
    } else {
        report.refuse_key(
            "turn.default-lifetime",
            Some(format!("\"{shortest}\"")),
            format!("expected at most turn.max-lifetime, \"{longest}\""),
        );
    }
}

fn listens(config: &Config, report: &mut Report<'_>) {
    let keys = ["listen.udp", "listen.tcp", "listen.tls", "tls.certificates"];
    let refused = keys.iter().any(|key| report.is_refused(key));
    let plain = [&config.listen.udp, &config.listen.tcp];
    if !refused && plain.iter().all(|list| list.is_empty()) && config.tls_listeners().is_empty() {
        report.refuse_key(
            "listen",
            None,
            "nothing to listen on: give listen.udp or listen.tcp an address, or listen.tls one and \
             tls.certificates",
        );
    }
}

fn nat_discovery(config: &Config, report: &mut Report<'_>) {
    const KEY: &str = "nat-discovery.addresses";
    let addresses = &config.nat_discovery.addresses;
    if report.is_refused(KEY) || addresses.is_empty() {
        return;
    }
    if let Some(link_local) = addresses.iter().find(|a| is_link_local(a.address)) {
        report.refuse_key(
            KEY,
            Some(format!("\"{}\"", link_local.address)),
            "link-local addresses are of no use to clients elsewhere",
        );
    }
    for (family, count) in families(config) {
        if count > 2 {
            report.refuse_key(
                KEY,
                None,
                format!("{count} {family} addresses: expected at most two of a family"),
            );
        }
    }
    if !report.is_refused("listen.udp") && config.listen.udp.is_empty() {
        report.refuse_key(KEY, None, "NAT discovery is for UDP, and listen.udp is empty");
    }
}

fn alternate(config: &Config, report: &mut Report<'_>) {
    let refused =
        ["alternate.servers", "alternate.tls-servers"].iter().any(|key| report.is_refused(key));
    let alternate = &config.alternate;
    let nowhere = alternate.servers.is_empty() && alternate.tls_servers.is_empty();
    if !refused && nowhere && alternate.when == When::Always {
        report.refuse_key(
            "alternate.when",
            Some("\"always\"".to_owned()),
            "nowhere to send clients: give alternate.servers or alternate.tls-servers an address",
        );
    }
}

/// A connection that is passed to ourselves would be passed on for ever.
fn backends(config: &Config, report: &mut Report<'_>) {
    let keys = ["backends.servers", "listen.tcp", "listen.tls", "tls.certificates"];
    if keys.iter().any(|key| report.is_refused(key)) {
        return;
    }
    for (index, backend) in config.backends.servers.iter().enumerate() {
        if config.listens_at(backend.address, |ip| ip.is_loopback()) {
            report.refuse_key(
                &format!("backends.servers[{index}].address"),
                Some(format!("\"{}\"", backend.address)),
                "this server listens there itself: expected the address of another one",
            );
        }
    }
}

fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

/// How many addresses of each family NAT discovery has.
fn families(config: &Config) -> [(&'static str, usize); 2] {
    let v4 = config.nat_discovery.addresses.iter().filter(|a| a.address.is_ipv4()).count();
    [("IPv4", v4), ("IPv6", config.nat_discovery.addresses.len() - v4)]
}

fn peers(config: &Config, report: &mut Report<'_>) {
    for net in config.peers.allow.iter().filter(|net| config.peers.deny.contains(net)) {
        report.refuse_key(
            "peers.allow",
            Some(format!("\"{net}\"")),
            "also in peers.deny, which wins: remove one of both",
        );
    }
}

/// What is valid but may surprise.
pub(super) fn notes(config: &Config) -> Vec<String> {
    let auth = &config.auth;
    let mut notes = Vec::new();
    for (family, _) in families(config).into_iter().filter(|(_, count)| *count == 1) {
        notes.push(format!(
            "nat-discovery.addresses has one {family} address: clients learn their address there, and \
             need a second one of this host to learn what NAT they are behind"
        ));
    }
    if config.listen.tls != Listen::default().tls && !config.serves_tls() {
        notes.push(
            "listen.tls is given, but nothing listens there: TLS and DTLS need tls.certificates"
                .to_owned(),
        );
    }
    if auth.mode == AuthMode::None {
        return notes;
    }
    let offers = |algorithm| auth.password_algorithms.contains(&algorithm);
    if !offers(PasswordAlgorithm::Md5) {
        notes.push(
            "auth.password-algorithms is without \"md5\": clients older than RFC 8489, browsers among \
             them, cannot authenticate"
                .to_owned(),
        );
    }
    for user in &auth.users {
        let Credential::Keys { md5, sha256 } = &user.credential else { continue };
        let lacks = [
            (PasswordAlgorithm::Md5, md5.is_none(), "key", "MD5"),
            (PasswordAlgorithm::Sha256, sha256.is_none(), "key-sha256", "SHA-256"),
        ];
        for (algorithm, missing, member, name) in lacks {
            if missing && offers(algorithm) {
                notes.push(format!(
                    "user {:?} has no {member}: clients that choose {name} cannot authenticate as this user",
                    user.name
                ));
            }
        }
    }
    notes
}
