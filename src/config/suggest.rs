//! What a person may have meant by a key that does not exist.

use toml::de::DeValue;

use super::keys::{SECTIONS, Section};

/// A hint for an unknown name at the top level.
pub(super) fn section(name: &str, value: &DeValue<'_>) -> String {
    let sections = SECTIONS.iter().map(|s| s.name);
    let in_brackets = || nearest(name, sections.clone()).map(|s| format!("[{s}]"));
    let meant = if value.is_table() {
        in_brackets()
    } else {
        elsewhere(name).map(str::to_owned).or_else(in_brackets)
    };
    match meant {
        Some(meant) => did_you_mean(&meant),
        None => format!("unknown; the sections are {}", sections.collect::<Vec<_>>().join(", ")),
    }
}

/// A hint for an unknown key of a section.
pub(super) fn key(section: &Section, name: &str) -> String {
    let siblings = || section.keys.iter().map(|k| k.name());
    if let Some(sibling) = nearest(name, siblings()) {
        return did_you_mean(&format!("{}.{sibling}", section.name));
    }
    match elsewhere(name) {
        Some(path) => did_you_mean(path),
        None => {
            let names = siblings().collect::<Vec<_>>().join(", ");
            format!("unknown key; [{}] has {names}", section.name)
        }
    }
}

/// A hint for an unknown member of an inline table.
pub(super) fn member(name: &str, members: &[&'static str]) -> String {
    match nearest(name, members.iter().copied()) {
        Some(meant) => did_you_mean(meant),
        None => format!("unknown key; expected {}", members.join(", ")),
    }
}

fn did_you_mean(meant: &str) -> String {
    format!("unknown key; did you mean {meant}?")
}

/// The path of a key of that name in any section: exactly, by the name it has
/// in turnserver.conf, or nearly.
fn elsewhere(name: &str) -> Option<&'static str> {
    let all = || SECTIONS.iter().flat_map(|s| s.keys.iter());
    let exact = all().find(|k| k.name() == name || k.path == name).map(|k| k.path);
    let foreign = || TURNSERVER_CONF.iter().find(|(old, _)| *old == name).map(|(_, path)| *path);
    let near = || {
        let name = nearest(name, all().map(|k| k.name()))?;
        all().find(|k| k.name() == name).map(|k| k.path)
    };
    exact.or_else(foreign).or_else(near)
}

/// Keys of coturn's turnserver.conf that people bring along.
const TURNSERVER_CONF: &[(&str, &str)] = &[
    ("allocation-default-address-family", "relay.default-family"),
    ("allowed-peer-ip", "peers.allow"),
    ("cpus", "workers.count"),
    ("denied-peer-ip", "peers.deny"),
    ("external-ip", "relay.addresses"),
    ("listening-ip", "listen.udp"),
    ("listening-port", "listen.udp"),
    ("log-min-level", "log.level"),
    ("lt-cred-mech", "auth.mode"),
    ("max-allocate-lifetime", "turn.max-lifetime"),
    ("max-allocate-timeout", "tcp.idle-timeout"),
    ("max-port", "relay.ports"),
    ("min-port", "relay.ports"),
    ("no-auth", "auth.mode"),
    ("no-software-attribute", "stun.software"),
    ("relay-ip", "relay.addresses"),
    ("relay-threads", "workers.count"),
    ("rest-api-separator", "auth.username-separator"),
    ("rfc3489-compatibility", "stun.rfc3489"),
    ("sock-buf-size", "relay.socket-recv-buffer"),
    ("stale-nonce", "auth.nonce-lifetime"),
    ("stateless-nonce-secret", "auth.nonce-key"),
    ("static-auth-secret", "auth.secrets"),
    ("stun-only", "auth.mode"),
    ("total-quota", "limits.allocations"),
    ("unauthorized-ratelimit-rps", "limits.answers-per-prefix"),
    ("use-auth-secret", "auth.secrets"),
    ("user", "auth.users"),
    ("user-quota", "limits.allocations-per-user"),
    ("verbose", "log.level"),
];

/// The candidate at the least distance, when that is at most a third of the name.
fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.replace('_', "-").to_ascii_lowercase();
    let limit = (name.chars().count() / 3).max(1);
    candidates
        .map(|candidate| (distance(&name, candidate), candidate))
        .filter(|(d, _)| *d <= limit)
        .min_by_key(|(d, _)| *d)
        .map(|(_, candidate)| candidate)
}

/// Optimal string alignment: insert, delete, replace, swap neighbours, at 1 each.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            row.push(best);
        }
        before = above;
        above = row;
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, d) in [
            ("", "", 0),
            ("", "abc", 3),
            ("ports", "prots", 1),
            ("port", "ports", 1),
            ("ca", "abc", 3),
        ] {
            assert_eq!(distance(a, b), d, "{a} {b}");
        }
    }

    #[test]
    fn every_old_name_points_to_a_key() {
        let paths: Vec<&str> = SECTIONS.iter().flat_map(|s| s.keys).map(|k| k.path).collect();
        for (old, path) in TURNSERVER_CONF {
            assert!(paths.contains(path), "{old} -> {path}");
        }
    }
}
