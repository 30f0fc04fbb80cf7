#!/usr/bin/env python3
"""Foreign clients against the server on loopback: coturn's tools, OpenSSL's, aioice.

A client's exit code proves little (coturn's ends with 0 after losing half of
its packets), so each case reads what the client says it sent and received.
"""

import re
import secrets
import socket
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "lab"))

from processes import Running, exit_on_signals, must_run, run  # noqa: E402
from report import Report, parse_arguments  # noqa: E402
from server import REPOSITORY, SECRET, Setup, start_server  # noqa: E402

LOOPBACK = ("127.0.0.1", "::1")
SECONDS_PER_CASE = 45
# coturn's client spends its time waiting, not working.
CASES_AT_ONCE = 4
MESSAGES_PER_SESSION = 5
# What the certificate is for, besides the loopback addresses.
HOST_NAME = "turn.example.org"
# coturn's client, 4.6, draws a version for each connection.
DRAWS_OF_A_VERSION = 8
# Lets OpenSSL's client speak versions that it would not by itself.
OLD = ("-cipher", "ALL:@SECLEVEL=0")


@dataclass(frozen=True)
class Outcome:
    """What became of a case; `evidence` is what the client printed last."""

    passed: bool
    detail: str
    evidence: str = ""


@dataclass(frozen=True)
class Target:
    """A running server, its certificate, and the echo that plays the peer."""

    port: int
    certificate: Path
    echo_port: int
    user: str
    password: str


def main():
    arguments = parse_arguments(__doc__)
    exit_on_signals()
    report = Report("interop")
    cases = [case for case in all_cases() if arguments.only in case.name]
    with ExitStack() as stack:
        try:
            servers = start_servers(stack, arguments.server, len(cases))
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
    if outcome.passed:
        report.ok(case.name, outcome.detail)
        return
    evidence = [outcome.evidence, f"  {server.name}, its last lines:", server.last_lines()]
    report.fail(case.name, outcome.detail, "\n".join(evidence))


# --- servers ---------------------------------------------------------------


def start_servers(stack, kind, count):
    """By what they authenticate with, since coturn cannot do both at once."""
    directory = stack.enter_context(tempfile.TemporaryDirectory())
    echo_port = start_echo(stack)
    certificate = make_certificate(Path(directory))
    return {
        auth: start(stack, kind, auth, count, echo_port, directory, certificate)
        for auth in ("users", "secret")
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


# --- coturn's client -------------------------------------------------------


@dataclass(frozen=True)
class Uclient:
    """turnutils_uclient sends through the relay and counts what comes back.

    `sessions` is how many it opens: one with RTCP doubles, client-to-client
    doubles again.
    """

    case: str
    options: tuple
    sessions: int = 2
    server: str = "127.0.0.1"
    peer: str = "127.0.0.1"
    auth: str = "users"

    @property
    def name(self):
        return f"uclient {self.case}"

    def command(self, target, options=None, password=None):
        if self.auth == "secret":
            credentials = ["-u", target.user, "-W", password or SECRET]
        else:
            credentials = ["-u", target.user, "-w", password or target.password]
        return [
            "turnutils_uclient",
            *credentials,
            *("-n", str(MESSAGES_PER_SESSION)),
            *("-e", self.peer, "-r", str(target.echo_port)),
            *("-p", str(target.port)),
            *(self.options if options is None else options),
            self.server,
        ]

    def run(self, target):
        return self.judge(run(self.command(target), SECONDS_PER_CASE))

    def judge(self, ended):
        wanted = self.sessions * MESSAGES_PER_SESSION
        sent, received = totals(ended.output)
        lossless = "Total lost packets 0 (" in ended.output
        passed = ended.code == 0 and lossless and sent == received == wanted
        detail = f"{received}/{wanted}"
        if not passed:
            detail += f", sent {sent}, {ended.ending}"
        return Outcome(passed, detail, ended.last_lines())


@dataclass(frozen=True)
class UclientSecure(Uclient):
    """Over TLS or DTLS, run until the client chose a version that is served.

    It draws one at random for each connection and tries again when refused, but
    not for ever; half of those it knows nobody should speak any more.
    """

    def run(self, target):
        command = self.command(target, options=("-v", *self.options))
        for _ in range(DRAWS_OF_A_VERSION):
            ended = run(command, SECONDS_PER_CASE)
            outcome = self.judge(ended)
            agreed = sorted(set(re.findall(r"method=(D?TLSv[0-9.]+)", ended.output)))
            if outcome.passed or " alert " not in ended.output:
                break
        passed = outcome.passed and bool(agreed)
        detail = " ".join([outcome.detail, *agreed])
        return replace(outcome, passed=passed, detail=detail)


@dataclass(frozen=True)
class UclientRefused(Uclient):
    """A request that the server must refuse with `error`."""

    error: str = ""
    auth: str = "users"

    def run(self, target):
        ended = run(self.command(target), SECONDS_PER_CASE)
        passed = self.error in ended.output and delivered_nothing(ended)
        return Outcome(passed, "refused" if passed else ended.ending, ended.last_lines())


@dataclass(frozen=True)
class UclientWrongPassword(Uclient):
    """Must get no allocation. Versions of the client give up or try forever."""

    def run(self, target):
        command = self.command(target, options=("-v", *self.options), password="not the password")
        ended = run(command, deadline=5)
        answered = "allocate response received" in ended.output
        allocated = "IPv4. Received relay addr" in ended.output
        passed = answered and not allocated and delivered_nothing(ended)
        detail = "refused" if passed else f"answered={answered} allocated={allocated}"
        return Outcome(passed, detail, ended.last_lines())


def totals(output):
    """The last count of messages sent and received; the earlier ones are partial."""
    counts = re.findall(r"start_mclient: tot_send_msgs=(\d+), tot_recv_msgs=(\d+)", output)
    return tuple(int(count) for count in counts[-1]) if counts else (0, 0)


def delivered_nothing(ended):
    return ended.code != 0 and totals(ended.output) == (0, 0)


# --- other clients ---------------------------------------------------------


@dataclass(frozen=True)
class StunClient:
    """turnutils_stunclient asks for its own address."""

    server: str
    family: str
    auth: str = "users"

    @property
    def name(self):
        return f"stunclient {self.family}"

    def run(self, target):
        ended = run(["turnutils_stunclient", "-p", str(target.port), self.server], deadline=10)
        mapped = f"{self.family}. UDP reflexive addr: {self.server}:"
        passed = ended.code == 0 and mapped in ended.output
        return Outcome(passed, "1/1" if passed else f"0/1, {ended.ending}", ended.last_lines())


@dataclass(frozen=True)
class Aioice:
    """Two aioice agents, relay to relay; see aioice_pair.py."""

    transport: str
    server: str = "127.0.0.1"
    auth: str = "users"

    @property
    def name(self):
        return f"aioice {self.transport}"

    def run(self, target):
        python = REPOSITORY / ".cache/venv/bin/python"
        where = [self.transport, self.server, str(target.port)]
        who = [target.user, target.password]
        trust = str(target.certificate)
        command = [str(python), str(HERE / "aioice_pair.py"), *where, *who, trust]
        ended = run(command, SECONDS_PER_CASE)
        counted = re.search(r"received (\d+/\d+)", ended.output)
        detail = counted[1] if counted else ended.ending
        return Outcome(ended.code == 0 and bool(counted), detail, ended.last_lines())


@dataclass(frozen=True)
class SClient:
    """OpenSSL's own client shakes hands and verifies the certificate."""

    case: str
    options: tuple
    expected: tuple
    refused: bool = False
    auth: str = "users"

    @property
    def name(self):
        return f"s_client {self.case}"

    def run(self, target):
        command = [
            *("openssl", "s_client", "-connect", f"127.0.0.1:{target.port}"),
            *("-CAfile", str(target.certificate), "-verify_return_error"),
            *("-servername", HOST_NAME, "-verify_hostname", HOST_NAME),
            *self.options,
        ]
        ended = run(command, deadline=10, stdin="")
        missing = [text for text in self.expected if text not in ended.output]
        passed = not missing and (ended.code != 0) == self.refused
        detail = "refused" if self.refused else "verified"
        if not passed:
            detail = f"{ended.ending}, without {missing}"
        return Outcome(passed, detail, ended.last_lines())


# --- what is tested --------------------------------------------------------


def all_cases():
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
        Uclient("tcp time-limited", ("-t",), auth="secret"),
        UclientSecure("tls", ("-t", "-S")),
        UclientSecure("tls client-to-client", ("-t", "-S", "-y"), sessions=4),
        UclientSecure("tls ipv6-both", ("-t", "-S", "-x"), server="::1", peer="::1"),
        UclientSecure("dtls", ("-S",)),
        UclientSecure("dtls client-to-client", ("-S", "-y"), sessions=4),
        UclientSecure("dtls ipv6-both", ("-S", "-x"), server="::1", peer="::1"),
        Uclient("tcp-relay", ("-t", "-T", "-y", "-c"), sessions=2),
        UclientSecure("tcp-relay over tls", ("-t", "-T", "-S", "-y", "-c"), sessions=2),
        Uclient("udp mobility", ("-M", "-y"), sessions=4),
        Uclient("tcp mobility", ("-t", "-M", "-y"), sessions=4),
        UclientRefused("second-channel-to-a-peer", ("-N",), error="channel bind: error 400 ("),
        UclientWrongPassword("udp wrong-password", ()),
        UclientWrongPassword("tcp wrong-password", ("-t",)),
        UclientWrongPassword("udp wrong-secret", (), auth="secret"),
        StunClient("127.0.0.1", "IPv4"),
        StunClient("::1", "IPv6"),
        Aioice("udp"),
        Aioice("tcp"),
        Aioice("tls"),
        SClient("tls 1.2", ("-tls1_2",), ("Verification: OK", "TLSv1.2")),
        SClient("tls 1.3", ("-tls1_3",), ("Verification: OK", "TLSv1.3")),
        SClient("tls alpn", ("-alpn", "h2,stun.turn"), ("ALPN protocol: stun.turn",)),
        SClient("tls other alpn", ("-alpn", "h2"), ("Verification: OK", "No ALPN negotiated")),
        SClient("tls 1.1", ("-tls1_1", *OLD), ("SSL alert number",), refused=True),
        SClient("dtls 1.2", ("-dtls1_2",), ("Verification: OK", "DTLSv1.2")),
        SClient("dtls alpn", ("-dtls", "-alpn", "stun.turn"), ("ALPN protocol: stun.turn",)),
        SClient("dtls 1.0", ("-dtls1", *OLD), ("SSL alert number",), refused=True),
    ]


if __name__ == "__main__":
    sys.exit(main())
