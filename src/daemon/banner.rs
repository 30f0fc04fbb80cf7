//! What a person sees who runs the server without a configuration.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::addresses::Addresses;
use super::start::Running;
use super::{Failure, settings};
use crate::auth::Secret;
use crate::config::{Config, Credential, User};
use crate::tls::Certificates;

/// A user made up for this run.
pub(super) struct Guest {
    name: String,
    password: Secret,
}

/// Adds a user with a random password to a configuration without users.
pub(super) fn invite_guest(config: &mut Config) -> Result<Guest, Failure> {
    let password = Secret::new(URL_SAFE_NO_PAD.encode(settings::random::<18>()?));
    let guest = Guest { name: "guest".to_owned(), password };
    config.auth.users.push(User {
        name: guest.name.clone(),
        credential: Credential::Password(guest.password.clone()),
    });
    Ok(guest)
}

/// Prints where the server is, who may use it, and what to paste into a page.
pub(super) fn print(guest: &Guest, config: &Config, running: &Running, addresses: &Addresses) {
    let mut text = String::from("\n  sturn serves STUN and TURN\n\n");
    let listeners = [
        ("udp", running.udp()),
        ("tcp", running.tcp()),
        ("dtls", running.dtls()),
        ("tls", running.tls()),
    ];
    // Writing to a string does not fail.
    for (protocol, listeners) in listeners {
        for address in listeners {
            let _ = writeln!(text, "    {protocol:<10}{address}");
        }
    }
    for certificate in running.certificates().into_iter().flat_map(Certificates::list) {
        let _ = writeln!(text, "    sha256    {}   (self-signed)", certificate.fingerprint);
    }
    for relay in &addresses.relay {
        let ports = config.relay.ports;
        let _ = writeln!(
            text,
            "    relay     {} ports {}-{}",
            relay.advertised,
            ports.first(),
            ports.last()
        );
    }
    let _ = writeln!(text, "    user      {}", guest.name);
    let _ = writeln!(text, "    password  {}   (made up for this run)", guest.password.expose());
    let _ = write!(text, "\n  For a page, as it is:\n\n{}\n", snippet(guest, running, addresses));
    text.push_str("  A lasting setup: conf/sturn.toml, and sturn serve --config FILE.\n\n");
    // Nobody to read it is no reason to stop.
    let _ = std::io::stdout().write_all(text.as_bytes());
    let _ = std::io::stdout().flush();
}

fn snippet(guest: &Guest, running: &Running, addresses: &Addresses) -> String {
    let host = addresses.relay.first().map_or(IpAddr::from([127, 0, 0, 1]), |r| r.advertised);
    let port_of = |listeners: &[SocketAddr]| {
        listeners.iter().find(|a| a.is_ipv4() == host.is_ipv4()).map(SocketAddr::port)
    };
    let mut urls = Vec::new();
    if let Some(port) = port_of(running.udp()) {
        urls.push(format!("turn:{}?transport=udp", SocketAddr::new(host, port)));
    }
    if let Some(port) = port_of(running.tcp()) {
        urls.push(format!("turn:{}?transport=tcp", SocketAddr::new(host, port)));
    }
    let urls: Vec<String> = urls.into_iter().map(|url| format!("\"{url}\"")).collect();
    format!(
        "    const pc = new RTCPeerConnection({{\n      iceServers: [{{\n        urls: [{}],\n        \
         username: \"{}\",\n        credential: \"{}\",\n      }}],\n    }});\n",
        urls.join(", "),
        guest.name,
        guest.password.expose()
    )
}
