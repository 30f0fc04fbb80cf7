//! Servers that connections are passed to when they are not for TURN.

use std::net::SocketAddr;

use toml::de::DeValue;

use super::address::Server;
use super::{Choice, Flag, Kind, List, Text, quoted, read_items, write_items};
use crate::config::problem::{At, Report};
use crate::config::{document, suggest};

/// A server behind this one, and what is passed to it: TLS by name and application
/// protocol, plain connections, or both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Where it listens.
    pub address: SocketAddr,
    /// The server names of TLS connections, in lower case; `*.` stands for one label,
    /// `*` alone for every name without a certificate here. Empty: any or none.
    pub names: Vec<String>,
    /// The application protocols of TLS connections, one of which the client offers.
    /// Empty: any or none.
    pub alpn: Vec<String>,
    /// Whether it gets what is neither TLS nor STUN.
    pub plain: bool,
    /// The PROXY protocol header that tells it the client's address.
    pub proxy_protocol: Option<ProxyProtocol>,
}

/// A version of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// Version 1, text.
    V1,
    /// Version 2, binary.
    V2,
}

/// A list of backends.
pub(crate) struct BackendList;

const SHAPE: &str = "{ names = [\"www.example.org\"], address = \"127.0.0.1:8443\" }";

const MEMBERS: [&str; 5] = ["address", "names", "alpn", "plain", "proxy-protocol"];

const NAMES: List<Text> = List {
    item: Text {
        expected: "a host name such as \"www.example.org\", \"*.example.org\" or \"*\"",
        valid: is_name,
    },
};

const PROTOCOLS: List<Text> = List {
    item: Text {
        expected: "an application protocol such as \"h2\" or \"http/1.1\", and not one of TURN",
        valid: is_protocol,
    },
};

const PROXY_PROTOCOL: Choice<Option<ProxyProtocol>> =
    Choice(&[("off", None), ("v1", Some(ProxyProtocol::V1)), ("v2", Some(ProxyProtocol::V2))]);

impl Kind for BackendList {
    type Value = Vec<Backend>;

    fn expected(&self) -> String {
        format!("a list, each entry such as {SHAPE}")
    }

    fn read(&self, at: &At<'_>, report: &mut Report<'_>) -> Option<Self::Value> {
        let mut plain = false;
        read_items(self, at, report, |item, report| {
            let backend = read_entry(item, report)?;
            if backend.plain && std::mem::replace(&mut plain, true) {
                report.refuse(item, "plain = true is given twice: the first gets everything");
                return None;
            }
            Some(backend)
        })
    }

    fn write(&self, value: &Self::Value) -> Option<String> {
        Some(write_items(value.iter().map(|backend| {
            let mut members = vec![format!("address = {}", quoted(&backend.address.to_string()))];
            let lists =
                [("names", NAMES.write(&backend.names)), ("alpn", PROTOCOLS.write(&backend.alpn))];
            members.extend(
                lists.into_iter().filter_map(|(name, list)| Some(format!("{name} = {}", list?))),
            );
            members.push(format!("plain = {}", backend.plain));
            let proxy_protocol = PROXY_PROTOCOL.write(&backend.proxy_protocol);
            members.extend(proxy_protocol.map(|word| format!("proxy-protocol = {word}")));
            format!("{{ {} }}", members.join(", "))
        })))
    }
}

fn read_entry(at: &At<'_>, report: &mut Report<'_>) -> Option<Backend> {
    let DeValue::Table(table) = at.value else {
        report.refuse(at, format!("expected {SHAPE}"));
        return None;
    };
    let (mut names, mut alpn) = (Some(Vec::new()), Some(Vec::new()));
    let (mut plain, mut proxy_protocol) = (Some(false), Some(None));
    let (mut address, mut sound) = (None, true);
    for (name, value) in table {
        let member = document::at(format!("{}.{}", at.key, name.get_ref()), value);
        report.saw(&member.key, &member.span);
        match name.get_ref().as_ref() {
            "address" => address = Some(Server.read(&member, report)),
            "names" => names = NAMES.read(&member, report),
            "alpn" => alpn = PROTOCOLS.read(&member, report),
            "plain" => plain = Flag.read(&member, report),
            "proxy-protocol" => proxy_protocol = PROXY_PROTOCOL.read(&member, report),
            other => {
                report.refuse_at(name.span().start, &member.key, suggest::member(other, &MEMBERS));
                sound = false;
            }
        }
    }
    let Some(address) = address.filter(|_| sound) else {
        if sound {
            report.refuse(at, format!("no address: expected an entry such as {SHAPE}"));
        }
        return None;
    };
    let names = names?.iter().map(|name| name.to_ascii_lowercase()).collect::<Vec<_>>();
    let backend = Backend {
        address: address?,
        names,
        alpn: alpn?,
        plain: plain?,
        proxy_protocol: proxy_protocol?,
    };
    if backend.names.is_empty() && backend.alpn.is_empty() && !backend.plain {
        report.refuse(at, "gets nothing: give names, alpn or plain = true");
        return None;
    }
    Some(backend)
}

fn is_name(name: &str) -> bool {
    let host = name.strip_prefix("*.").unwrap_or(name);
    let fine = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let label = |label: &str| (1..=63).contains(&label.len()) && label.chars().all(fine);
    name == "*" || name.len() <= 253 && host.split('.').all(label)
}

/// Protocols of TURN (RFC 7443) never get as far as a backend.
fn is_protocol(name: &str) -> bool {
    (1..=255).contains(&name.len()) && !["stun.turn", "stun.nat-discovery"].contains(&name)
}
