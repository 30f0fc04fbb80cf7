//! Values that are refused, and in which words.

use crate::{STUN_ONLY, refused, with};

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
    (
        "backends",
        "servers = [\"127.0.0.1:80\"]",
        "backends.servers[0]",
        "\"127.0.0.1:80\": expected { names = [\"www.example.org\"], address = \"127.0.0.1:8443\" }",
    ),
    (
        "backends",
        "servers = [{ plain = true }]",
        "backends.servers[0]",
        "{ plain = true }: no address: expected an entry such as { names = [\"www.example.org\"], address = \"127.0.0.1:8443\" }",
    ),
    (
        "backends",
        "servers = [{ address = \"127.0.0.1:80\" }]",
        "backends.servers[0]",
        "{ address = \"127.0.0.1:80\" }: gets nothing: give names, alpn or plain = true",
    ),
    (
        "backends",
        "servers = [{ name = [\"a.test\"], address = \"127.0.0.1:80\" }]",
        "backends.servers[0].name",
        "unknown key; did you mean names?",
    ),
    (
        "backends",
        "servers = [{ plain = true, address = \"localhost:80\" }]",
        "backends.servers[0].address",
        "\"localhost:80\": expected the address and port of another server, such as \"127.0.0.1:8443\" or \"[::1]:8443\"",
    ),
    (
        "backends",
        "servers = [{ plain = true, address = \"0.0.0.0:80\" }]",
        "backends.servers[0].address",
        "\"0.0.0.0:80\": expected the address and port of another server, such as \"127.0.0.1:8443\" or \"[::1]:8443\"",
    ),
    (
        "backends",
        "servers = [{ names = [\"*.*.test\"], address = \"127.0.0.1:80\" }]",
        "backends.servers[0].names[0]",
        "\"*.*.test\": expected a host name such as \"www.example.org\", \"*.example.org\" or \"*\"",
    ),
    (
        "backends",
        "servers = [{ alpn = [\"h2\", \"stun.turn\"], address = \"127.0.0.1:80\" }]",
        "backends.servers[0].alpn[1]",
        "\"stun.turn\": expected an application protocol such as \"h2\" or \"http/1.1\", and not one of TURN",
    ),
    (
        "backends",
        "servers = [{ plain = true, address = \"127.0.0.1:80\", proxy-protocol = \"v3\" }]",
        "backends.servers[0].proxy-protocol",
        "\"v3\": expected \"off\" or \"v1\" or \"v2\"",
    ),
    (
        "backends",
        "servers = [{ plain = true, address = \"127.0.0.1:80\" }, { plain = true, address = \"127.0.0.1:81\" }]",
        "backends.servers[1]",
        "{ plain = true, address = \"127.0.0.1:81\" }: plain = true is given twice: the first gets everything",
    ),
    (
        "backends",
        "servers = [{ plain = true, address = \"127.0.0.1:3478\" }]",
        "backends.servers[0].address",
        "\"127.0.0.1:3478\": this server listens there itself: expected the address of another one",
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
