//! Files with something wrong in them, and rules between keys.

use sturn::config::AuthMode;

use crate::{STUN_ONLY, parse, refused};

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
            ":1: zzzz: unknown; the sections are listen, relay, auth, stun, nat-discovery, turn, alternate, limits, peers, tls, tcp, udp, backends, workers, log",
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
fn backends_may_be_tables_and_are_never_this_server() {
    let table = |address: &str| {
        format!(
            "{STUN_ONLY}[listen]\ntcp = [\"192.0.2.1:443\", \"[::]:80\"]\n\
             [[backends.servers]]\naddress = \"192.0.2.1:8443\"\nnames = [\"a.test\"]\n\
             [[backends.servers]]\nplain = true\naddress = \"{address}\"\n"
        )
    };
    // Another port, another address, another family than the one listened on.
    for address in ["192.0.2.1:444", "127.0.0.1:443", "127.0.0.1:80", "[2001:db8::1]:80"] {
        let config = parse(&table(address)).unwrap();
        assert_eq!(config.backends.servers.len(), 2);
        assert_eq!(config.backends.servers[1].address, address.parse().unwrap());
    }
    for address in ["192.0.2.1:443", "[::1]:80"] {
        assert_eq!(
            refused(&table(address)),
            [format!(
                "sturn.toml:10: backends.servers[1].address: \"{address}\": this server listens \
                 there itself: expected the address of another one"
            )]
        );
    }
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
