//! The configuration as a person meets it: what is accepted, what is refused,
//! and in which words.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use sturn::config::{
    AuthMode, CertificateFiles, Config, Credential, DefaultFamily, Expiry, HostAddress, LoadError,
    LogFormat, PasswordAlgorithm, Problems, TokenKeyBytes, When, full_file,
};

const STUN_ONLY: &str = "[auth]\nmode = \"none\"\n";

fn parse(text: &str) -> Result<Config, Problems> {
    Config::parse(text, Path::new("sturn.toml"))
}

/// The problems of `text`, one line each.
fn refused(text: &str) -> Vec<String> {
    match parse(text) {
        Ok(config) => panic!("accepted: {text}\n{config:?}"),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

/// A config that is valid but for `line` in `section`, and the line's number.
fn with(section: &str, line: &str) -> (String, usize) {
    if section == "auth" {
        (format!("[auth]\nsecrets = [\"s3cret\"]\n{line}\n"), 3)
    } else {
        (format!("{STUN_ONLY}[{section}]\n{line}\n"), 4)
    }
}

/// Section, line, key in the problem, the rest of the problem.
const REFUSALS: &[(&str, &str, &str, &str)] = &[
    (
        "tls",
        "certificates = [\"chain.pem\"]",
        "tls.certificates[0]",
        "\"chain.pem\": expected { chain = \"fullchain.pem\", key = \"privkey.pem\" }",
    ),
    (
        "tls",
        "certificates = [{ chain = \"a\" }]",
        "tls.certificates[0]",
        "{ chain = \"a\" }: expected { chain = \"fullchain.pem\", key = \"privkey.pem\" }",
    ),
    (
        "tls",
        "certificates = [{ chian = \"a\", key = \"b\" }]",
        "tls.certificates[0].chian",
        "unknown key; did you mean chain?",
    ),
    (
        "tls",
        "certificates = [{ chain = \"a\", key = 1 }]",
        "tls.certificates[0].key",
        "1: expected the path of a file",
    ),
    (
        "tcp",
        "proxies = [\"10.0.0.1/8\"]",
        "tcp.proxies[0]",
        "\"10.0.0.1/8\": expected the network \"10.0.0.0/8\", or \"10.0.0.1/32\" for the host",
    ),
    (
        "listen",
        "udp = [\"1.2.3.4:0\"]",
        "listen.udp[0]",
        "\"1.2.3.4:0\": expected a port from 1 to 65535",
    ),
    ("listen", "udp = [0]", "listen.udp[0]", "0: expected a port from 1 to 65535"),
    ("listen", "udp = [65536]", "listen.udp[0]", "65536: expected a port from 1 to 65535"),
    (
        "listen",
        "tcp = [\":\"]",
        "listen.tcp[0]",
        "\":\": expected \"ADDRESS:PORT\", an address or a port, such as \"0.0.0.0:3478\", \"[::]:3478\" or 3478",
    ),
    (
        "listen",
        "tcp = [true]",
        "listen.tcp[0]",
        "true: expected \"ADDRESS:PORT\", an address or a port, such as \"0.0.0.0:3478\", \"[::]:3478\" or 3478",
    ),
    (
        "listen",
        "udp = [\"::1\", \"[::1]:3478\"]",
        "listen.udp[1]",
        "\"[::1]:3478\": [::1]:3478 is given twice",
    ),
    (
        "listen",
        "udp = [\"224.0.0.1\"]",
        "listen.udp[0]",
        "\"224.0.0.1\": expected a unicast address",
    ),
    (
        "listen",
        "udp = [\"[::ffff:1.2.3.4]:99\"]",
        "listen.udp[0]",
        "\"[::ffff:1.2.3.4]:99\": expected \"1.2.3.4:99\"",
    ),
    (
        "listen",
        "udp = \"0.0.0.0\"",
        "listen.udp",
        "expected a list of addresses such as [\"0.0.0.0:3478\", \"[::]:3478\"]",
    ),
    (
        "relay",
        "ports = \"4915-\"",
        "relay.ports",
        "\"4915-\": expected a range such as \"49152-65535\": from 1024, lower end first, at least two ports",
    ),
    (
        "relay",
        "ports = \"80-2000\"",
        "relay.ports",
        "\"80-2000\": expected a range such as \"49152-65535\": from 1024, lower end first, at least two ports",
    ),
    (
        "relay",
        "ports = \"5000-5000\"",
        "relay.ports",
        "\"5000-5000\": expected a range such as \"49152-65535\": from 1024, lower end first, at least two ports",
    ),
    (
        "relay",
        "ports = \"6000-5000\"",
        "relay.ports",
        "\"6000-5000\": expected a range such as \"49152-65535\": from 1024, lower end first, at least two ports",
    ),
    (
        "relay",
        "ports = \"+5000-6000\"",
        "relay.ports",
        "\"+5000-6000\": expected a range such as \"49152-65535\": from 1024, lower end first, at least two ports",
    ),
    (
        "relay",
        "default-family = \"ipv6\"",
        "relay.default-family",
        "\"ipv6\": expected \"ipv4\" or \"client\"",
    ),
    (
        "relay",
        "addresses = [\"::\"]",
        "relay.addresses[0]",
        "\"::\": expected the address of one host, not a wildcard or a group",
    ),
    (
        "relay",
        "addresses = [\"ff02::1\"]",
        "relay.addresses[0]",
        "\"ff02::1\": expected the address of one host, not a wildcard or a group",
    ),
    (
        "relay",
        "addresses = [\"10.0.0.1\", \"10.0.0.1\"]",
        "relay.addresses[1]",
        "\"10.0.0.1\": 10.0.0.1 is given twice",
    ),
    (
        "relay",
        "addresses = [{ advertise = \"10.0.0.1\" }]",
        "relay.addresses[0]",
        "{ advertise = \"10.0.0.1\" }: expected an address such as \"192.0.2.1\" or { address = \"10.0.0.5\", advertise = \"203.0.113.5\" }",
    ),
    (
        "relay",
        "addresses = [{ address = \"10.0.0.1\", advertise = \"2001:db8::1\" }]",
        "relay.addresses[0]",
        "{ address = \"10.0.0.1\", advertise = \"2001:db8::1\" }: expected two addresses of the same family",
    ),
    (
        "relay",
        "addresses = [{ address = \"10.0.0.1\", public = \"192.0.2.1\" }]",
        "relay.addresses[0].public",
        "unknown key; expected address, advertise",
    ),
    (
        "relay",
        "socket-recv-buffer = \"64KB\"",
        "relay.socket-recv-buffer",
        "\"64KB\": expected a size from \"4KiB\" to \"1GiB\", such as \"512KiB\", or 0",
    ),
    (
        "relay",
        "socket-send-buffer = 65536",
        "relay.socket-send-buffer",
        "65536: expected a size from \"4KiB\" to \"1GiB\", such as \"512KiB\", or 0",
    ),
    ("auth", "mode = \"open\"", "auth.mode", "\"open\": expected \"long-term\" or \"none\""),
    (
        "auth",
        "realm = \"\"",
        "auth.realm",
        "\"\": expected 1 to 127 characters without quotes, backslashes and control characters",
    ),
    (
        "auth",
        "realm = 'a\"b'",
        "auth.realm",
        "'a\"b': expected 1 to 127 characters without quotes, backslashes and control characters",
    ),
    (
        "auth",
        "nonce-lifetime = 3600",
        "auth.nonce-lifetime",
        "3600: expected a duration from \"1s\" to \"24h\", such as \"90s\" or \"1h30m\"",
    ),
    (
        "auth",
        "nonce-lifetime = \"1500ms\"",
        "auth.nonce-lifetime",
        "\"1500ms\": expected a duration from \"1s\" to \"24h\", such as \"90s\" or \"1h30m\"",
    ),
    (
        "auth",
        "nonce-key = \"fifteen-letters\"",
        "auth.nonce-key",
        "the secret is too short: expected at least 16 characters",
    ),
    (
        "auth",
        "expiry = \"never\"",
        "auth.expiry",
        "\"never\": expected \"allocate\" or \"refresh\"",
    ),
    (
        "auth",
        "password-algorithms = []",
        "auth.password-algorithms",
        "[]: expected a list of at least one entry, each \"sha-256\" or \"md5\"",
    ),
    (
        "auth",
        "password-algorithms = [\"md5\", \"md5\"]",
        "auth.password-algorithms[1]",
        "\"md5\": given twice",
    ),
    (
        "auth",
        "password-algorithms = [\"sha256\"]",
        "auth.password-algorithms[0]",
        "\"sha256\": expected \"sha-256\" or \"md5\"",
    ),
    (
        "auth",
        "username-separator = \"::\"",
        "auth.username-separator",
        "\"::\": expected one character that is neither a digit nor a control character",
    ),
    (
        "auth",
        "username-separator = \"7\"",
        "auth.username-separator",
        "\"7\": expected one character that is neither a digit nor a control character",
    ),
    ("auth", "users = [{ password = \"x\" }]", "auth.users[0]", "expected a name: name = \"…\""),
    (
        "auth",
        "users = [{ name = \"a\" }]",
        "auth.users[0]",
        "expected password = \"…\", or key or key-sha256",
    ),
    (
        "auth",
        "users = [\"alice:hunter2\"]",
        "auth.users[0]",
        "expected { name = \"…\", password = \"…\" }",
    ),
    (
        "auth",
        "users = [{ name = \"a\\nb\", password = \"x\" }]",
        "auth.users[0].name",
        "\"a\\nb\": expected a name of 1 to 508 bytes without control characters",
    ),
    (
        "auth",
        "users = [{ name = \"a\", key = \"0x1234\" }]",
        "auth.users[0].key",
        "expected 32 hexadecimal digits",
    ),
    (
        "auth",
        "users = [{ name = \"a\", key-sha256 = \"1234\" }]",
        "auth.users[0].key-sha256",
        "expected 64 hexadecimal digits",
    ),
    (
        "auth",
        "users = [{ name = \"a\", password = \"x\", key = \"0x00112233445566778899aabbccddeeff\" }]",
        "auth.users[0]",
        "expected a password or keys, not both",
    ),
    (
        "auth",
        "users = [{ name = \"a\", passwd = \"x\" }]",
        "auth.users[0].passwd",
        "unknown key; did you mean password?",
    ),
    (
        "auth",
        "users = [{ name = \"a\", password = \"x\" }, { name = \"a\", password = \"y\" }]",
        "auth.users[1]",
        "user \"a\" is already on line 3",
    ),
    (
        "auth",
        "oauth-keys = [{ id = \"a\", key = \"not base64\", algorithm = \"A128GCM\" }]",
        "auth.oauth-keys[0].key",
        "expected base64",
    ),
    (
        "auth",
        "oauth-keys = [{ id = \"a\", key = \"MDEyMzQ1Njc4OWFiY2RlZg==\", algorithm = \"A256GCM\" }]",
        "auth.oauth-keys[0]",
        "the key has 16 bytes: expected 32 bytes for A256GCM",
    ),
    (
        "auth",
        "oauth-keys = [{ id = \"a\", key = \"MDEyMzQ1Njc4OWFiY2RlZg==\", algorithm = \"A128CBC\" }]",
        "auth.oauth-keys[0].algorithm",
        "\"A128CBC\": expected \"A128GCM\" or \"A256GCM\"",
    ),
    (
        "auth",
        "oauth-keys = [{ id = \"a\", key = \"MDEyMzQ1Njc4OWFiY2RlZg==\" }]",
        "auth.oauth-keys[0]",
        "expected { id = \"…\", key = \"BASE64\", algorithm = \"A256GCM\" }",
    ),
    (
        "auth",
        "oauth-keys = [{ id = \"a\", key = \"MDEyMzQ1Njc4OWFiY2RlZg==\", algorithm = \"A128GCM\", not-after = 2024-03-01 }]",
        "auth.oauth-keys[0].not-after",
        "2024-03-01: expected a time such as 2027-01-31T00:00:00Z, without quotes",
    ),
    (
        "auth",
        "oauth-keys = [{ id = \"a\", key = \"MDEyMzQ1Njc4OWFiY2RlZg==\", algorithm = \"A128GCM\" }]",
        "auth.oauth-keys",
        "given without auth.oauth-server-name, the name that tokens are made for",
    ),
    (
        "auth",
        "oauth-server-name = \"turn.example.org\"",
        "auth.oauth-server-name",
        "given without auth.oauth-keys",
    ),
    ("stun", "rfc3489 = \"yes\"", "stun.rfc3489", "\"yes\": expected true or false"),
    (
        "turn",
        "default-lifetime = \"2h\"",
        "turn.default-lifetime",
        "\"2h\": expected at most turn.max-lifetime, \"1h\"",
    ),
    (
        "turn",
        "max-lifetime = \"5m\"",
        "turn.max-lifetime",
        "\"5m\": expected at least turn.default-lifetime, \"10m\"",
    ),
    (
        "turn",
        "max-lifetime = \"30h\"",
        "turn.max-lifetime",
        "\"30h\": expected a duration from \"1s\" to \"24h\", such as \"90s\" or \"1h30m\"",
    ),
    (
        "alternate",
        "servers = [3478]",
        "alternate.servers[0]",
        "3478: expected \"ADDRESS:PORT\" or an address, such as \"203.0.113.9:3478\" or \"[2001:db8::9]\"",
    ),
    (
        "alternate",
        "servers = [\"0.0.0.0\"]",
        "alternate.servers[0]",
        "\"0.0.0.0\": expected the address and port of another server",
    ),
    (
        "alternate",
        "tls-servers = [\"203.0.113.9\", \"203.0.113.9:5349\"]",
        "alternate.tls-servers[1]",
        "\"203.0.113.9:5349\": 203.0.113.9:5349 is given twice",
    ),
    (
        "alternate",
        "domain = \"turn..example\"",
        "alternate.domain",
        "\"turn..example\": expected a domain name, or \"\" for none",
    ),
    (
        "alternate",
        "when = \"always\"",
        "alternate.when",
        "\"always\": nowhere to send clients: give alternate.servers or alternate.tls-servers an address",
    ),
    (
        "limits",
        "allocations = 0",
        "limits.allocations",
        "0: expected a whole number from 1 to 16000000",
    ),
    (
        "limits",
        "permissions = 1.5",
        "limits.permissions",
        "1.5: expected a whole number from 1 to 65535",
    ),
    (
        "limits",
        "channels = 4097",
        "limits.channels",
        "4097: expected a whole number from 1 to 4096",
    ),
    (
        "limits",
        "connections = \"many\"",
        "limits.connections",
        "\"many\": expected a whole number from 1 to 1000000",
    ),
    (
        "limits",
        "answers-per-prefix = -1",
        "limits.answers-per-prefix",
        "-1: expected a whole number from 0 to 1000000",
    ),
    (
        "peers",
        "allow = [\"10.0.0.1/8\"]",
        "peers.allow[0]",
        "\"10.0.0.1/8\": expected the network \"10.0.0.0/8\", or \"10.0.0.1/32\" for the host",
    ),
    (
        "peers",
        "deny = [\"example.org\"]",
        "peers.deny[0]",
        "\"example.org\": expected a network such as \"10.0.0.0/8\" or an address",
    ),
    (
        "peers",
        "deny = [\"10.0.0.0/33\"]",
        "peers.deny[0]",
        "\"10.0.0.0/33\": expected a network such as \"10.0.0.0/8\" or an address",
    ),
    (
        "peers",
        "deny = [\"10.0.0.1-10.0.0.9\"]",
        "peers.deny[0]",
        "\"10.0.0.1-10.0.0.9\": expected a network such as \"10.0.0.0/8\" or an address",
    ),
    (
        "peers",
        "allow = [\"::ffff:10.0.0.0/104\"]",
        "peers.allow[0]",
        "\"::ffff:10.0.0.0/104\": expected \"10.0.0.0/8\"",
    ),
    (
        "nat-discovery",
        "addresses = [\"192.0.2.1\", \"192.0.2.1\"]",
        "nat-discovery.addresses[1]",
        "\"192.0.2.1\": 192.0.2.1 is given twice",
    ),
    (
        "nat-discovery",
        "ports = [3478, 3478]",
        "nat-discovery.ports",
        "[3478, 3478]: expected two different ports such as [3478, 3479]",
    ),
    (
        "nat-discovery",
        "ports = [0, 3478]",
        "nat-discovery.ports",
        "[0, 3478]: expected two different ports such as [3478, 3479]",
    ),
    (
        "nat-discovery",
        "ports = [1, 2, 3]",
        "nat-discovery.ports",
        "[1, 2, 3]: expected two different ports such as [3478, 3479]",
    ),
    (
        "nat-discovery",
        "addresses = [\"192.0.2.1\", \"192.0.2.2\", \"192.0.2.3\"]",
        "nat-discovery.addresses",
        "3 IPv4 addresses: expected at most two of a family",
    ),
    (
        "nat-discovery",
        "addresses = [\"2001:db8::1\", \"fe80::1\"]",
        "nat-discovery.addresses",
        "\"fe80::1\": link-local addresses are of no use to clients elsewhere",
    ),
    (
        "tcp",
        "idle-timeout = \"0s\"",
        "tcp.idle-timeout",
        "\"0s\": expected a duration from \"1s\" to \"24h\", such as \"90s\" or \"1h30m\"",
    ),
    (
        "tcp",
        "queue = \"64KiB\"",
        "tcp.queue",
        "\"64KiB\": expected a size from \"128KiB\" to \"64MiB\", such as \"512KiB\"",
    ),
    (
        "tcp",
        "queue = 0",
        "tcp.queue",
        "0: expected a size from \"128KiB\" to \"64MiB\", such as \"512KiB\"",
    ),
    ("workers", "count = 2000", "workers.count", "2000: expected a whole number from 0 to 1024"),
    (
        "log",
        "level = \"inof\"",
        "log.level",
        "\"inof\": expected error, warn, info, debug or trace, or directives such as \"info,sturn::turn=debug\"",
    ),
    ("log", "format = \"xml\"", "log.format", "\"xml\": expected \"text\" or \"json\""),
];

#[test]
fn a_wrong_value_is_named_with_line_key_value_and_expectation() {
    for (section, line, key, rest) in REFUSALS {
        let (text, number) = with(section, line);
        let expected = format!("sturn.toml:{number}: {key}: {rest}");
        let problems = refused(&text);
        assert_eq!(problems.len(), 1, "{text}\n{problems:#?}");
        assert_eq!(problems[0], expected);
    }
}

#[test]
fn a_long_value_is_cut() {
    let problems = refused(&format!("{STUN_ONLY}[log]\nformat = \"{}\"\n", "é".repeat(500)));
    let expected = format!("log.format: \"{}…: expected \"text\" or \"json\"", "é".repeat(59));
    assert_eq!(problems, [format!("sturn.toml:4: {expected}")]);
}

#[test]
fn an_unknown_key_gets_a_hint() {
    for (text, expected) in [
        (
            "[relay]\nprots = \"5000-6000\"",
            ":2: relay.prots: unknown key; did you mean relay.ports?",
        ),
        (
            "[tcp]\nidle_timeout = \"1m\"",
            ":2: tcp.idle_timeout: unknown key; did you mean tcp.idle-timeout?",
        ),
        ("[stun]\nrealm = \"x\"", ":2: stun.realm: unknown key; did you mean auth.realm?"),
        ("ports = \"5000-6000\"", ":1: ports: unknown key; did you mean relay.ports?"),
        ("listening-port = 3478", ":1: listening-port: unknown key; did you mean listen.udp?"),
        (
            "static-auth-secret = \"s\"",
            ":1: static-auth-secret: unknown key; did you mean auth.secrets?",
        ),
        ("[relai]\n", ":1: relai: unknown key; did you mean [relay]?"),
        ("lisen = 3", ":1: lisen: unknown key; did you mean [listen]?"),
        ("[workers]\nzzzz = 1", ":2: workers.zzzz: unknown key; [workers] has count"),
        (
            "[zzzz]\n",
            ":1: zzzz: unknown; the sections are listen, relay, auth, stun, nat-discovery, turn, alternate, limits, peers, tls, tcp, udp, workers, log",
        ),
        ("relay.prots = \"5000-6000\"", ":1: relay.prots: unknown key; did you mean relay.ports?"),
    ] {
        // Last, so that the lines stay: credentials are not what is tested here.
        let problems = refused(&format!("{text}\n{STUN_ONLY}"));
        assert_eq!(problems, [format!("sturn.toml{expected}")], "{text}");
    }
}

#[test]
fn every_problem_is_reported_in_the_order_of_the_lines() {
    let text = "\
[listen]
udp = [\"1.2.3.4:0\", \"nonsense\"]
[auth]
realm = \"\"
users = [{ name = \"a\" }]
[relay]
ports = \"1-2\"
prots = 3
[turn]
default-lifetime = \"2h\"
[log]
format = \"xml\"
";
    let keys: Vec<(usize, String)> =
        parse(text).unwrap_err().iter().map(|p| (p.line.unwrap(), p.key.clone())).collect();
    let expected = [
        (2, "listen.udp[0]"),
        (2, "listen.udp[1]"),
        (4, "auth.realm"),
        (5, "auth.users[0]"),
        (7, "relay.ports"),
        (8, "relay.prots"),
        (10, "turn.default-lifetime"),
        (12, "log.format"),
    ];
    assert_eq!(keys, expected.map(|(line, key)| (line, key.to_owned())));
}

#[test]
fn what_is_not_toml_names_the_line() {
    let problems = refused("[auth]\nmode = \"none\"\n[listen]\nudp = [\n\"0.0.0.0\"\n");
    assert!(problems[0].starts_with("sturn.toml:5: not TOML: "), "{problems:?}");
    // The syntax of turnserver.conf.
    let problems = refused("realm=example.org\n");
    assert!(problems[0].starts_with("sturn.toml:1: not TOML: string values must be quoted"));
    let problems = refused("[auth]\nmode = \"none\"\nmode = \"none\"\n");
    assert_eq!(problems, ["sturn.toml:3: not TOML: duplicate key"]);
}

#[test]
fn without_credentials_a_file_is_refused_unless_it_says_so() {
    let no_credentials = "auth: no credentials: give auth.users, auth.secrets or auth.oauth-keys, \
                          or say auth.mode = \"none\" for STUN only";
    assert_eq!(refused(""), [format!("sturn.toml: {no_credentials}")]);
    assert_eq!(refused("[log]\n[auth]\n"), [format!("sturn.toml:2: {no_credentials}")]);
    assert_eq!(parse(STUN_ONLY).unwrap().auth.mode, AuthMode::None);
    assert_eq!(
        refused("[auth]\nmode = \"none\"\nsecrets = [\"s\"]\n"),
        [
            "sturn.toml:3: auth.secrets: given, but auth.mode = \"none\" ignores them: remove one of both"
        ]
    );
}

#[test]
fn rules_between_keys() {
    assert_eq!(
        refused(&format!("{STUN_ONLY}[listen]\nudp = []\ntcp = []\n")),
        [
            "sturn.toml:3: listen: nothing to listen on: give listen.udp or listen.tcp an address, or listen.tls one and tls.certificates"
        ]
    );
    assert_eq!(
        refused(&format!(
            "{STUN_ONLY}[peers]\nallow = [\"10.0.0.0/8\"]\ndeny = [\"10.0.0.0/8\"]\n"
        )),
        [
            "sturn.toml:4: peers.allow: \"10.0.0.0/8\": also in peers.deny, which wins: remove one of both"
        ]
    );
}

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

const EVERY_KEY: &str = r#"
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
connections = 5
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
[workers]
count = 4
[log]
level = "warn,sturn=debug"
format = "json"
"#;

#[test]
fn secrets_come_from_files_and_from_the_environment() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("secret"), "from-a-file\n").unwrap();
    std::fs::write(dir.path().join("empty"), "\n").unwrap();
    std::fs::write(dir.path().join("lines"), "a\nb\n").unwrap();
    std::fs::write(dir.path().join("binary"), b"\xff\xfe").unwrap();
    // Cargo sets this one for every test.
    let text = "[auth]\nsecrets = [{ file = \"secret\" }, { env = \"CARGO_PKG_NAME\" }]\n";
    let file = dir.path().join("sturn.toml");
    let config = Config::parse(text, &file).unwrap();
    let secrets: Vec<&str> = config.auth.secrets.iter().map(|s| s.expose()).collect();
    assert_eq!(secrets, ["from-a-file", "sturn"]);

    let path = |name: &str| dir.path().join(name).display().to_string();
    for (secret, expected) in [
        (
            "{ file = \"nope\" }",
            format!("file {}: No such file or directory (os error 2)", path("nope")),
        ),
        ("{ file = \"empty\" }", format!("file {}: the secret is empty", path("empty"))),
        (
            "{ file = \"lines\" }",
            format!("file {}: the secret has control characters or several lines", path("lines")),
        ),
        ("{ file = \"binary\" }", format!("file {}: not UTF-8 text", path("binary"))),
        ("{ file = \".\" }", format!("file {}: Is a directory (os error 21)", path("."))),
        (
            "{ env = \"STURN_IS_NOT_SET\" }",
            "environment variable STURN_IS_NOT_SET is not set".into(),
        ),
        (
            "{ file = \"a\", env = \"B\" }",
            "expected a string, { file = \"/path\" } or { env = \"NAME\" }".into(),
        ),
        ("{ environment = \"B\" }", "unknown key; expected file, env".into()),
        ("\"\"", "the secret is empty".into()),
    ] {
        let problems = Config::parse(&format!("[auth]\nsecrets = [{secret}]"), &file).unwrap_err();
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(lines, [format!("{}:2: auth.secrets[0]: {expected}", file.display())]);
    }
}

#[test]
fn no_output_shows_a_secret() {
    let shown = format!("{:?}", parse(EVERY_KEY).unwrap());
    for secret in ["hunter2", "0123456789abcdef", "\"old\"", "\"new\"", "17, 34"] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
    // Wrong in every way a secret can be wrong, and beside it.
    for text in [
        "auth = \"hunter2\"",
        "secrets = \"hunter2\"",
        "[auth]\nsecrets = \"hunter2\"",
        "[auth]\nsecrets = [[\"hunter2\"]]",
        "[auth]\nsecrets = [\"hunter2\\u0007\"]",
        "[auth]\nsecrets = [{ fil = \"hunter2\" }]",
        "[auth]\nnonce-key = \"hunter2\"",
        "[auth]\npassword = \"hunter2\"",
        "[auth]\nusers = \"a:hunter2\"",
        "[auth]\nusers = [\"a:hunter2\"]",
        "[auth]\nusers = [{ password = \"hunter2\" }]",
        "[auth]\nusers = [{ name = \"a\", key = \"hunter2\" }]",
        "[auth]\nusers = [{ name = \"a\", passwort = \"hunter2\" }]",
        "[auth]\nusers = [{ name = \"a\", password = \"hunter2\", key = \"hunter2\" }]",
        "[auth]\noauth-keys = \"hunter2\"",
        "[auth]\noauth-keys = [{ id = \"a\", key = \"hunter2\" }]",
        "[auth]\nsecrets = [\"hunter2]",
        "[auth]\nsecrets = [hunter2]",
    ] {
        let problems = parse(text).unwrap_err();
        let shown = format!("{problems}{problems:?}");
        assert!(!shown.contains("hunter2"), "{text}\n{shown}");
    }
}

#[test]
fn notes_tell_what_may_surprise() {
    let notes = parse(EVERY_KEY).unwrap().notes();
    assert_eq!(
        notes,
        [
            "user \"bob\" has no key-sha256: clients that choose SHA-256 cannot authenticate as this user",
            "user \"carol\" has no key: clients that choose MD5 cannot authenticate as this user",
        ]
    );
    let text = "[auth]\nsecrets = [\"s\"]\npassword-algorithms = [\"sha-256\"]\n";
    assert!(parse(text).unwrap().notes()[0].contains("without \"md5\""));
    assert!(Config::default().notes().is_empty());
    let text = "[auth]\nmode = \"none\"\n[nat-discovery]\naddresses = [\"192.0.2.1\", \"2001:db8::1\", \"2001:db8::2\"]\n";
    let notes = parse(text).unwrap().notes();
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(notes[0].contains("one IPv4 address"), "{notes:?}");
}

#[test]
fn nat_discovery_listens_where_nobody_does_yet() {
    let listeners = |listen: &str| {
        let text = format!(
            "[auth]\nmode = \"none\"\n[listen]\n{listen}\n[nat-discovery]\naddresses = [\"192.0.2.1\", \"192.0.2.2\"]\n"
        );
        let config = parse(&text).unwrap();
        let texts =
            |list: Vec<SocketAddr>| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        (texts(config.udp_listeners()), texts(config.tcp_listeners()))
    };
    let four = ["192.0.2.1:3478", "192.0.2.1:3479", "192.0.2.2:3478", "192.0.2.2:3479"];
    assert_eq!(
        listeners("udp = [\"192.0.2.2:3479\"]\ntcp = []"),
        (["192.0.2.2:3479", four[0], four[1], four[2]].map(str::to_owned).into(), vec![])
    );
    // A listener on every address of the family covers the port; one of the other does not.
    let (udp, tcp) = listeners("udp = [\"0.0.0.0:3478\", \"[::]:3479\"]\ntcp = [443]");
    assert_eq!(udp, ["0.0.0.0:3478", "[::]:3479", four[1], four[3]]);
    assert_eq!(tcp, ["0.0.0.0:443", "[::]:443", four[0], four[1], four[2], four[3]]);
}

#[test]
fn ports_for_tls_alone_are_those_that_nothing_else_has() {
    let listeners = |text: &str| {
        let config = parse(&format!("[auth]\nmode = \"none\"\n{text}")).unwrap();
        let texts =
            |list: Vec<SocketAddr>| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        (texts(config.tls_listeners()), texts(config.dtls_listeners()))
    };
    let none: Vec<String> = Vec::new();
    const CERTIFICATE: &str = "[tls]\ncertificates = [{ chain = \"c\", key = \"k\" }]\n";
    let with = |rest: &str, listen: &str| listeners(&format!("{CERTIFICATE}{rest}{listen}"));
    let default = ["0.0.0.0:5349", "[::]:5349"].map(str::to_owned).to_vec();
    assert_eq!(listeners("[listen]\ntls = [443]\n"), (none.clone(), none.clone()));
    assert_eq!(with("", ""), (default.clone(), default.clone()));
    assert_eq!(with("dtls = false\n", ""), (default, none));
    let (tls, dtls) = with("", "[listen]\ntcp = [5349]\ntls = [5349, 443]\n");
    assert_eq!(tls, ["0.0.0.0:443", "[::]:443"]);
    assert_eq!(dtls, ["0.0.0.0:5349", "[::]:5349", "0.0.0.0:443", "[::]:443"]);
    let (tls, _) = with("", "[listen]\ntcp = []\nudp = []\ntls = [\"192.0.2.1\"]\n");
    assert_eq!(tls, ["192.0.2.1:5349"]);
}

#[test]
fn a_port_for_tls_without_a_certificate_is_worth_a_note() {
    let notes = |text: &str| parse(&format!("{STUN_ONLY}{text}")).unwrap().notes();
    let told = notes("[listen]\ntls = [443]\n");
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("TLS and DTLS need tls.certificates"), "{told:?}");
    assert_eq!(notes("[listen]\ntls = [443]\n[tls]\nself-signed = true\n"), [""; 0]);
}

#[test]
fn nat_discovery_needs_udp() {
    let text = "[auth]\nmode = \"none\"\n[listen]\nudp = []\n[nat-discovery]\naddresses = [\"192.0.2.1\"]\n";
    let problems = refused(text);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(
        problems[0].ends_with("NAT discovery is for UDP, and listen.udp is empty"),
        "{problems:?}"
    );
}

#[test]
fn users_may_be_tables_of_their_own() {
    let text = "[[auth.users]]\nname = \"a\"\npassword = \"x\"\n\n[[auth.users]]\nname = \"b\"\npassword = \"\"\n";
    assert_eq!(refused(text), ["sturn.toml:7: auth.users[1].password: the secret is empty"]);
    let config = parse(&text.replace("\"\"", "\"y\"")).unwrap();
    assert_eq!(config.auth.users.len(), 2);
}

#[test]
fn editors_of_other_systems_are_welcome() {
    let text = format!("\u{feff}{}", STUN_ONLY.replace('\n', "\r\n"));
    assert_eq!(parse(&text).unwrap().auth.mode, AuthMode::None);
    let text = format!("{text}[relay]\r\nports = \"1\"\r\n");
    assert!(refused(&text)[0].starts_with("sturn.toml:4: relay.ports: \"1\": "));
}

#[test]
fn files_that_cannot_be_read_and_files_that_are_not_text() {
    let dir = tempfile::tempdir().unwrap();
    for path in [dir.path().to_owned(), dir.path().join("nope")] {
        let error = Config::load(&path).unwrap_err();
        assert!(matches!(error, LoadError::Unreadable { .. }), "{error}");
        assert!(error.to_string().starts_with(&format!("{}: ", path.display())), "{error}");
    }
    let path = dir.path().join("binary");
    std::fs::write(&path, b"[auth]\n# \xff\n").unwrap();
    let error = Config::load(&path).unwrap_err();
    assert_eq!(error.to_string(), format!("{}:2: expected UTF-8 text", path.display()));
}

fn conf(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// `#key = value`, unlike the `# words` of the documentation.
fn is_default(line: &str) -> bool {
    line.starts_with('#') && !line.starts_with("# ") && line.len() > 1
}

/// The file with every default in force.
fn uncommented(text: &str) -> String {
    let lines = text.lines().map(|l| if is_default(l) { &l[1..] } else { l });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_reference_file_is_what_the_table_says() {
    assert!(
        conf("sturn.full.toml") == full_file(),
        "conf/sturn.full.toml is old: sturn check --print-full > conf/sturn.full.toml"
    );
}

#[test]
fn the_reference_file_lacks_nothing_but_credentials() {
    let problems = refused(&conf("sturn.full.toml"));
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert!(problems[0].contains("auth: no credentials"), "{problems:?}");
}

#[test]
fn the_defaults_of_the_reference_file_are_the_embedded_ones() {
    let text = uncommented(&conf("sturn.full.toml"));
    let text = text.replace("\nsecrets = []\n", "\nsecrets = [\"s\"]\n");
    let mut config = parse(&text).unwrap();
    assert_eq!(config.auth.secrets.len(), 1);
    config.auth.secrets.clear();
    assert_eq!(config, Config::default());
}

#[test]
fn the_examples_of_the_reference_file_are_valid() {
    let mut examples = 0;
    let dir = tempfile::tempdir().unwrap();
    for name in ["secret", "alice.password", "nonce-key"] {
        std::fs::write(dir.path().join(name), "0123456789abcdef").unwrap();
    }
    let key = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    std::fs::write(dir.path().join("north.key"), key).unwrap();
    let mut section = String::new();
    for line in conf("sturn.full.toml").lines() {
        if line.starts_with('[') {
            section = line.to_owned();
        }
        let Some(example) = line.strip_prefix("# Example: ") else { continue };
        // Set by cargo for every test.
        let example = example.replace("STURN_SECRET", "CARGO_PKG_NAME");
        let text = match section.as_str() {
            "[auth]" if example.starts_with("secrets") => format!("[auth]\n{example}"),
            // One makes no sense without the other.
            "[auth]" if example.starts_with("oauth-keys") => {
                format!("[auth]\noauth-server-name = \"turn.example.org\"\n{example}")
            }
            "[auth]" if example.starts_with("oauth-server-name") => {
                format!(
                    "[auth]\noauth-keys = [{{ id = \"a\", key = \"{key}\", algorithm = \"A256GCM\" }}]\n{example}"
                )
            }
            "[auth]" => format!("[auth]\nsecrets = [\"s\"]\n{example}"),
            _ => format!("{STUN_ONLY}{section}\n{example}"),
        };
        if let Err(problems) = Config::parse(&text, &dir.path().join("sturn.toml")) {
            panic!("{line}\n{problems}");
        }
        examples += 1;
    }
    assert!(examples >= 8, "only {examples} examples");
}

#[test]
fn the_first_file_is_valid_and_so_is_what_it_suggests() {
    let text = conf("sturn.toml");
    assert_eq!(parse(&text).unwrap().auth.mode, AuthMode::None);
    let dir = tempfile::tempdir().unwrap();
    for name in ["secret", "alice.password"] {
        std::fs::write(dir.path().join(name), "s").unwrap();
    }
    let all = uncommented(&text)
        .replace("mode = \"none\"\n", "")
        .replace("/etc/sturn/", &format!("{}/", dir.path().display()));
    let config = parse(&all).unwrap();
    assert_eq!((config.auth.users.len(), config.auth.secrets.len()), (1, 1));
    assert_eq!((config.relay.addresses.len(), config.peers.allow.len()), (1, 1));
    assert_eq!(config.tls.certificates.len(), 1);
}

proptest! {
    /// Any text gives a config or problems whose lines exist; never a panic.
    #[test]
    fn any_text_is_answered(
        cuts in proptest::collection::vec((any::<prop::sample::Index>(), "[\\[\\]{}\"'=.,#\\\\\n a-z0-9é]{0,6}"), 1..8),
    ) {
        let mut text = EVERY_KEY.to_owned();
        for (place, new) in cuts {
            let chars: Vec<char> = text.chars().collect();
            let at = place.index(chars.len());
            let rest = &chars[(at + new.len() / 2).min(chars.len())..];
            text = chars[..at].iter().collect::<String>() + &new + &rest.iter().collect::<String>();
        }
        if let Err(problems) = parse(&text) {
            prop_assert!(problems.len() > 0);
            let lines = text.matches('\n').count() + 1;
            for problem in &problems {
                prop_assert!(problem.line.is_none_or(|line| (1..=lines).contains(&line)));
                prop_assert_eq!(problem.to_string().lines().count(), 1);
            }
        }
    }
}
