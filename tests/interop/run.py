#!/usr/bin/env python3
"""Foreign clients against the server on loopback, over every transport they know.

coturn's tools, OpenSSL's, aioice, werift and pion; clients.py says how each is
run and judged.
"""

import base64
import secrets
import socket
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "lab"))

from clients import (  # noqa: E402
    HOST_NAME,
    OLD,
    Aioice,
    Pion,
    SClient,
    StunClient,
    Target,
    Uclient,
    UclientRefused,
    UclientSecure,
    UclientWrongPassword,
    Werift,
)
from processes import Running, exit_on_signals, must_run  # noqa: E402
from report import Report, parse_arguments  # noqa: E402
from server import SECRET, Setup, start_server  # noqa: E402

LOOPBACK = ("127.0.0.1", "::1")
# Most clients spend their time waiting, not working.
CASES_AT_ONCE = 6
# Those that coturn's client has built in for its tokens.
TOKEN_KEYS = (
    ("north", "A256GCM", base64.b64encode(b"01234567890123456789012345678901").decode()),
    ("union", "A128GCM", base64.b64encode(b"1234567890123456").decode()),
    ("oldempire", "A256GCM", base64.b64encode(b"12345678901234567890123456789012").decode()),
)


def main():
    arguments = parse_arguments(__doc__)
    exit_on_signals()
    report = Report("interop")
    cases = [case for case in all_cases(arguments.server) if arguments.only in case.name]
    with ExitStack() as stack:
        try:
            servers = start_servers(stack, arguments.server, cases)
        except RuntimeError as error:
            report.fail("start", str(error))
        else:
            run_cases(cases, servers, report)
    return report.close()


def run_cases(cases, servers, report):
    with ThreadPoolExecutor(CASES_AT_ONCE) as pool:
        running = []
        for index, case in enumerate(cases):
            server, targets = servers[case.auth]
            running.append((case, server, pool.submit(case.run, targets[index])))
        for case, server, future in running:
            record(report, case, server, future.result())


def record(report, case, server, outcome):
    report.tried(case.client, case.transport, outcome.passed, case.over_ipv6)
    if outcome.passed:
        report.ok(case.name, outcome.detail)
        return
    evidence = [outcome.evidence, f"  {server.name}, its last lines:", server.last_lines()]
    report.fail(case.name, outcome.detail, "\n".join(evidence))


# --- servers ---------------------------------------------------------------


def start_servers(stack, kind, cases):
    """By what they authenticate with, since coturn cannot do all at once."""
    directory = stack.enter_context(tempfile.TemporaryDirectory())
    echo_port = start_echo(stack)
    certificate = make_certificate(Path(directory))
    return {
        auth: start(stack, kind, auth, len(cases), echo_port, directory, certificate)
        for auth in sorted({case.auth for case in cases})
    }


def make_certificate(directory):
    """Files of a certificate that signed itself, and of its key."""
    chain, key = directory / "chain.pem", directory / "key.pem"
    must_run([
        *("openssl", "req", "-x509", "-nodes", "-days", "2", "-newkey", "rsa:2048"),
        *("-subj", f"/CN={HOST_NAME}"),
        *("-addext", f"subjectAltName=DNS:{HOST_NAME},IP:127.0.0.1,IP:::1"),
        *("-keyout", str(key), "-out", str(chain)),
    ])
    return chain, key


def start(stack, kind, auth, count, echo_port, directory, certificate):
    """One server, and for each case a target with a user of its own.

    The clients leave allocations behind, which must not count against the
    next case's quota.
    """
    port = free_port()
    run_id = secrets.token_hex(3)
    users = {f"u{index}-{run_id}": secrets.token_urlsafe(12) for index in range(count)}
    setup = Setup(
        listen=tuple((address, port) for address in LOOPBACK),
        relay_addresses=LOOPBACK,
        allow_peers=("127.0.0.0/8", "::1/128"),
        users=users,
        secrets=(SECRET,) if auth == "secret" else (),
        token_keys=TOKEN_KEYS if auth == "tokens" else (),
        certificate=certificate,
    )
    home = Path(directory, auth)
    home.mkdir()
    server = stack.enter_context(start_server(kind, setup, home))
    return server, [Target(port, certificate[0], echo_port, *user) for user in users.items()]


def start_echo(stack):
    port = free_port()
    listen = [word for address in LOOPBACK for word in ("-L", address)]
    stack.enter_context(Running(["turnutils_peer", *listen, "-p", str(port)], deadline=600))
    return port


def free_port():
    """A port that is free over UDP and TCP, IPv4 and IPv6, now.

    coturn also takes the one above it.
    """
    while True:
        port = secrets.randbelow(12_000) + 20_000
        try:
            for each in (port, port + 1):
                for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                    for family, address in zip((socket.AF_INET, socket.AF_INET6), LOOPBACK):
                        with socket.socket(family, kind) as probe:
                            probe.bind((address, each))
            return port
        except OSError:
            continue


# --- what is tested --------------------------------------------------------


def all_cases(kind):
    """coturn has the keys of tokens in a database, which this does not fill."""
    cases = coturn_cases() + pair_cases() + openssl_cases()
    return [case for case in cases if kind == "sturn" or case.auth != "tokens"]


def coturn_cases():
    return [
        Uclient("udp", ("-X", "-g")),
        Uclient("udp no-rtcp", ("-c",), sessions=1),
        Uclient("udp send-indications", ("-s",)),
        Uclient("udp client-to-client", ("-y",), sessions=4),
        Uclient("udp client-to-client send-indications", ("-y", "-s"), sessions=4),
        Uclient("udp ipv6-server", ("-X",), server="::1"),
        Uclient("udp ipv6-relay", ("-x",), peer="::1"),
        Uclient("udp ipv6-both", ("-x",), server="::1", peer="::1"),
        Uclient("udp dual-allocation", ("-Z",), sessions=1),
        Uclient("udp padded-channel-data", ("-D",)),
        Uclient("udp extra-requests", ("-G",)),
        Uclient("udp many-clients", ("-m", "10", "-c"), sessions=10),
        Uclient("udp large-messages", ("-l", "1200")),
        Uclient("udp time-limited", (), auth="secret"),
        Uclient("tcp", ("-t",)),
        Uclient("tcp send-indications", ("-t", "-s")),
        Uclient("tcp client-to-client", ("-t", "-y"), sessions=4),
        Uclient("tcp client-to-client send-indications", ("-t", "-y", "-s"), sessions=4),
        Uclient("tcp ipv6-server", ("-t", "-X"), server="::1"),
        Uclient("tcp ipv6-relay", ("-t", "-x"), peer="::1"),
        Uclient("tcp dual-allocation", ("-t", "-Z"), sessions=1),
        Uclient("tcp time-limited", ("-t",), auth="secret"),
        UclientSecure("tls", ("-t", "-S")),
        UclientSecure("tls client-to-client", ("-t", "-S", "-y"), sessions=4),
        UclientSecure("tls ipv6-both", ("-t", "-S", "-x"), server="::1", peer="::1"),
        UclientSecure("tls dual-allocation", ("-t", "-S", "-Z"), sessions=1),
        UclientSecure("tls time-limited", ("-t", "-S"), auth="secret"),
        UclientSecure("dtls", ("-S",)),
        UclientSecure("dtls client-to-client", ("-S", "-y"), sessions=4),
        UclientSecure("dtls ipv6-both", ("-S", "-x"), server="::1", peer="::1"),
        UclientSecure("dtls dual-allocation", ("-S", "-Z"), sessions=1),
        UclientSecure("dtls time-limited", ("-S",), auth="secret"),
        Uclient("tcp-relay", ("-t", "-T", "-y", "-c"), sessions=2),
        Uclient("tcp-relay ipv6-both", ("-t", "-T", "-y", "-c", "-x"), sessions=2, server="::1"),
        UclientSecure("tcp-relay over tls", ("-t", "-T", "-S", "-y", "-c"), sessions=2),
        Uclient("udp mobility", ("-M", "-y"), sessions=4),
        Uclient("tcp mobility", ("-t", "-M", "-y"), sessions=4),
        UclientSecure("tls mobility", ("-t", "-S", "-M", "-c"), sessions=1),
        UclientSecure("dtls mobility", ("-S", "-M", "-c"), sessions=1),
        # Each of its connections draws a key; with RTCP it would need one for two.
        Uclient("udp token", ("-J", "-y", "-c"), auth="tokens"),
        Uclient("tcp token", ("-J", "-t", "-y", "-c"), auth="tokens"),
        UclientSecure("tls token", ("-J", "-t", "-S", "-y", "-c"), auth="tokens"),
        UclientSecure("dtls token", ("-J", "-S", "-y", "-c"), auth="tokens"),
        Uclient("tcp-relay token", ("-J", "-t", "-T", "-y", "-c"), auth="tokens"),
        UclientRefused("second-channel-to-a-peer", ("-N",), error="channel bind: error 400 ("),
        UclientWrongPassword("udp wrong-password", ()),
        UclientWrongPassword("tcp wrong-password", ("-t",)),
        UclientWrongPassword("udp wrong-secret", (), auth="secret"),
        StunClient("127.0.0.1", "IPv4"),
        StunClient("::1", "IPv6"),
    ]


def pair_cases():
    transports = ("UDP", "TCP", "TLS")
    over_ipv4 = [pair(each) for pair in (Aioice, Werift, Pion) for each in transports]
    over_ipv6 = [pair(each, server="::1") for pair in (Aioice, Werift) for each in transports]
    return over_ipv4 + over_ipv6


def openssl_cases():
    verified, refused = "Verification: OK", ("SSL alert number",)
    return [
        SClient("tls 1.2", ("-tls1_2",), (verified, "TLSv1.2")),
        SClient("tls 1.3", ("-tls1_3",), (verified, "TLSv1.3")),
        SClient("tls 1.3 ipv6-server", ("-tls1_3",), (verified, "TLSv1.3"), server="::1"),
        SClient("tls alpn", ("-alpn", "h2,stun.turn"), ("ALPN protocol: stun.turn",)),
        SClient("tls other alpn", ("-alpn", "h2"), (verified, "No ALPN negotiated")),
        SClient("tls 1.1", ("-tls1_1", *OLD), refused, refused=True),
        *cipher_cases("tls", "-tls1_2"),
        SClient("dtls 1.2", ("-dtls1_2",), (verified, "DTLSv1.2")),
        SClient("dtls 1.2 ipv6-server", ("-dtls1_2",), (verified, "DTLSv1.2"), server="::1"),
        SClient("dtls alpn", ("-dtls", "-alpn", "stun.turn"), ("ALPN protocol: stun.turn",)),
        SClient("dtls 1.0", ("-dtls1", *OLD), refused, refused=True),
        *cipher_cases("dtls", "-dtls1_2"),
    ]


def cipher_cases(name, version):
    """Forward secrecy and authenticated encryption, and nothing without them."""
    served = ("ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-CHACHA20-POLY1305")
    # Without forward secrecy; without authenticated encryption; without encryption.
    weak = ("AES128-GCM-SHA256", "ECDHE-RSA-AES128-SHA", "NULL:aNULL")
    return [
        *(
            SClient(f"{name} {each}", (version, "-cipher", each), (f"Cipher is {each}",))
            for each in served
        ),
        *(
            SClient(
                f"{name} {each}",
                (version, "-cipher", f"{each}:@SECLEVEL=0"),
                ("SSL alert number",),
                refused=True,
            )
            for each in weak
        ),
    ]


if __name__ == "__main__":
    sys.exit(main())
