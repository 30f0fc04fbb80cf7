//! Which backend a connection is for that is not for TURN.
//!
//! Over TLS, by the ClientHello, the first that applies:
//!
//! 1. it offers an application protocol of TURN (RFC 7443): it is ours, whatever
//!    name it asks for;
//! 2. a rule takes its name and its protocols: the backend of the first such rule;
//! 3. it is ours. Browsers' WebRTC says neither more nor less than the name of the
//!    TURN server.
//!
//! Without TLS: what begins with neither STUN nor a PROXY header goes to the backend of
//! the first rule for plain connections.

use super::client_hello::ClientHello;

/// What one backend takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// The server names, in lower case; empty is any, or none. `*.example.org` is each
    /// name with one label more, and [`ANY_OTHER`] any that is not our own.
    pub names: Vec<String>,
    /// The application protocols of which a client offers at least one; empty is any,
    /// or none.
    pub protocols: Vec<Vec<u8>>,
    /// Connections without TLS.
    pub plain: bool,
}

/// Stands for every name that the server has no certificate for.
pub const ANY_OTHER: &str = "*";

impl Rule {
    /// Whether it is about TLS: one that says nothing about a ClientHello takes none.
    pub fn takes_tls(&self) -> bool {
        !self.names.is_empty() || !self.protocols.is_empty()
    }

    fn takes(&self, hello: &ClientHello, is_own: impl Fn(&str) -> bool) -> bool {
        let offered = self.protocols.is_empty()
            || self.protocols.iter().any(|protocol| hello.alpn.contains(protocol));
        self.takes_tls() && offered && self.takes_name(hello, is_own)
    }

    fn takes_name(&self, hello: &ClientHello, is_own: impl Fn(&str) -> bool) -> bool {
        if self.names.is_empty() {
            return true;
        }
        let Some(wanted) = &hello.server_name else { return false };
        self.names.iter().any(|name| match name.as_str() {
            ANY_OTHER => !is_own(wanted),
            name => is_for(name, wanted),
        })
    }
}

/// The index of the rule that takes a TLS connection; `None` when it is ours. `ours`
/// are the application protocols of TURN, and `is_own` tells the names that the server
/// has a certificate for.
pub fn of_hello<'a>(
    rules: impl IntoIterator<Item = &'a Rule>,
    hello: &ClientHello,
    ours: &[&[u8]],
    is_own: impl Fn(&str) -> bool,
) -> Option<usize> {
    if hello.alpn.iter().any(|offered| ours.contains(&&offered[..])) {
        return None;
    }
    rules.into_iter().position(|rule| rule.takes(hello, &is_own))
}

/// The index of the rule that takes a connection without TLS that is not for TURN.
pub fn of_plain<'a>(rules: impl IntoIterator<Item = &'a Rule>) -> Option<usize> {
    rules.into_iter().position(|rule| rule.plain)
}

/// Whether `name`, in lower case and perhaps with `*.` in front, is for `wanted`. The
/// asterisk stands for one label (RFC 6125 section 6.4.3).
pub fn is_for(name: &str, wanted: &str) -> bool {
    let wanted = wanted.strip_suffix('.').unwrap_or(wanted);
    match (name.strip_prefix("*."), wanted.split_once('.')) {
        (Some(parent), Some((label, of_wanted))) => !label.is_empty() && parent == of_wanted,
        (Some(_), None) => false,
        (None, _) => name == wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: [&[u8]; 2] = [b"stun.turn", b"stun.nat-discovery"];

    fn rule(names: &[&str], protocols: &[&str]) -> Rule {
        Rule {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            protocols: protocols.iter().map(|name| name.as_bytes().to_vec()).collect(),
            plain: false,
        }
    }

    fn route(rules: &[Rule], name: Option<&str>, protocols: &[&str]) -> Option<usize> {
        let hello = ClientHello {
            server_name: name.map(str::to_owned),
            alpn: protocols.iter().map(|name| name.as_bytes().to_vec()).collect(),
        };
        of_hello(rules, &hello, &OURS, |name| name == "turn.example.org")
    }

    #[test]
    fn names_go_where_they_are_named() {
        let rules = [rule(&["www.example.org"], &[]), rule(&["*.example.org", "b.test"], &[])];
        for (name, expected) in [
            ("www.example.org", Some(0)),
            ("www.example.org.", Some(0)),
            ("blog.example.org", Some(1)),
            // Named by a backend, although there is a certificate for it here.
            ("turn.example.org", Some(1)),
            ("b.test", Some(1)),
            ("example.org", None),
            (".example.org", None),
            ("a.b.example.org", None),
            ("org", None),
            ("c.test", None),
        ] {
            assert_eq!(route(&rules, Some(name), &[]), expected, "{name}");
        }
        assert_eq!(route(&rules, None, &["h2"]), None);
    }

    #[test]
    fn protocols_of_turn_win_over_any_rule() {
        let rules = [rule(&["www.example.org", "*"], &[]), rule(&[], &["h2", "stun.turn"])];
        for ours in ["stun.turn", "stun.nat-discovery"] {
            assert_eq!(route(&rules, Some("www.example.org"), &["h2", ours]), None);
        }
    }

    #[test]
    fn browsers_web_and_webrtc_are_told_apart_under_one_name() {
        let rules = [rule(&[], &["h2", "http/1.1"])];
        assert_eq!(route(&rules, Some("turn.example.org"), &["h2", "http/1.1"]), Some(0));
        assert_eq!(route(&rules, None, &["http/1.1"]), Some(0));
        assert_eq!(route(&rules, Some("turn.example.org"), &[]), None);
        assert_eq!(route(&rules, Some("turn.example.org"), &["webrtc"]), None);
    }

    #[test]
    fn a_rule_with_names_and_protocols_wants_both() {
        let rules = [rule(&["www.example.org"], &["h2"])];
        assert_eq!(route(&rules, Some("www.example.org"), &["h2"]), Some(0));
        assert_eq!(route(&rules, Some("www.example.org"), &["http/1.1"]), None);
        assert_eq!(route(&rules, Some("b.test"), &["h2"]), None);
    }

    #[test]
    fn an_asterisk_is_every_name_but_our_own() {
        let rules = [rule(&["*"], &[])];
        assert_eq!(route(&rules, Some("any.test"), &[]), Some(0));
        assert_eq!(route(&rules, Some("turn.example.org"), &[]), None);
        assert_eq!(route(&rules, None, &[]), None);
    }

    #[test]
    fn a_rule_for_plain_connections_alone_takes_no_tls() {
        let rules = [Rule { plain: true, ..Rule::default() }, rule(&["a.test"], &[])];
        assert_eq!(route(&rules, Some("a.test"), &[]), Some(1));
        assert_eq!(route(&rules, Some("b.test"), &["h2"]), None);
        assert_eq!(of_plain(&rules), Some(0));
        assert_eq!(of_plain(&rules[1..]), None);
    }
}
