"""The foreign clients: how each is run, and what it must have said in the end.

A client's exit code proves little (coturn's ends with 0 after losing half of
its packets), so each case reads what the client says it sent and received.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path

from processes import run
from server import REPOSITORY, SECRET, join

HERE = Path(__file__).resolve().parent
CACHE = REPOSITORY / ".cache"
SECONDS_PER_CASE = 45
MESSAGES_PER_SESSION = 5
# What the certificate is for, besides the loopback addresses.
HOST_NAME = "turn.example.org"
# coturn's client, 4.6, draws a version for each connection.
DRAWS_OF_A_VERSION = 10
# Lets OpenSSL's client speak versions that it would not by itself.
OLD = ("-cipher", "ALL:@SECLEVEL=0")


@dataclass(frozen=True)
class Outcome:
    """What became of a case; `evidence` is what the client printed last."""

    passed: bool
    detail: str
    evidence: str = ""


@dataclass(frozen=True)
class Case:
    """One client that does one thing.

    `client` and `transport` are the row and the column of the table that
    `scripts/test` prints, `auth` is which server it is for.
    """

    @property
    def over_ipv6(self):
        return ":" in self.server


@dataclass(frozen=True)
class Target:
    """A running server, its certificate, and the echo that plays the peer."""

    port: int
    certificate: Path
    echo_port: int
    user: str
    password: str


# --- coturn's client -------------------------------------------------------

# By whether it is told to use a stream, and to secure it.
UCLIENT_TRANSPORTS = {
    (False, False): "UDP",
    (True, False): "TCP",
    (True, True): "TLS",
    (False, True): "DTLS",
}


@dataclass(frozen=True)
class Uclient(Case):
    """turnutils_uclient sends through the relay and counts what comes back.

    `sessions` is how many it opens: one with RTCP doubles, client-to-client
    doubles again.
    """

    client = "turnutils_uclient"

    case: str
    options: tuple
    sessions: int = 2
    server: str = "127.0.0.1"
    peer: str = "127.0.0.1"
    auth: str = "users"

    @property
    def name(self):
        return f"uclient {self.case}"

    @property
    def transport(self):
        if "-T" in self.options:
            return "TCP relay"
        return UCLIENT_TRANSPORTS["-t" in self.options, "-S" in self.options]

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
    not for ever, and not at all when it reconnects after a move; half of those it
    knows nobody should speak any more.
    """

    def run(self, target):
        command = self.command(target, options=("-v", *self.options))
        for _ in range(DRAWS_OF_A_VERSION):
            ended = run(command, SECONDS_PER_CASE)
            outcome = self.judge(ended)
            agreed = sorted(set(re.findall(r"method=(D?TLSv[0-9.]+)", ended.output)))
            refused = " alert " in ended.output or ended.output.endswith("send: Success\n")
            if outcome.passed or not refused:
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
class StunClient(Case):
    """turnutils_stunclient asks for its own address."""

    client = "turnutils_stunclient"
    transport = "UDP"
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
class Pair(Case):
    """Two agents of a library, relay to relay; each has a program of its own.

    All programs take the same arguments and print `received N/M`.
    """

    transport: str
    server: str = "127.0.0.1"
    auth: str = "users"

    @property
    def name(self):
        return f"{self.client} {self.transport.lower()}{' ipv6-server' * self.over_ipv6}"

    def run(self, target):
        trust = str(target.certificate)
        command = [
            *map(str, self.program),
            *(self.transport.lower(), self.server, str(target.port)),
            *(target.user, target.password, trust),
        ]
        # Node takes whom to trust from its environment only.
        ended = run(command, SECONDS_PER_CASE, environment={"NODE_EXTRA_CA_CERTS": trust})
        counted = re.search(r"received (\d+)/(\d+)", ended.output)
        passed = ended.code == 0 and bool(counted) and 0 < int(counted[1]) == int(counted[2])
        detail = counted[0].removeprefix("received ") if counted else ended.ending
        return Outcome(passed, detail, ended.last_lines())


class Aioice(Pair):
    client = "aioice"
    program = (CACHE / "venv/bin/python", HERE / "aioice_pair.py")


class Werift(Pair):
    client = "werift"
    program = ("node", HERE / "werift_pair.mjs", CACHE / "node/package.json")


class Pion(Pair):
    """Looks its server up over IPv4 only."""

    client = "pion"
    program = (CACHE / "pion/pion_pair",)


@dataclass(frozen=True)
class SClient(Case):
    """OpenSSL's own client shakes hands and verifies the certificate."""

    client = "openssl s_client"
    case: str
    options: tuple
    expected: tuple
    refused: bool = False
    server: str = "127.0.0.1"
    auth: str = "users"

    @property
    def name(self):
        return f"s_client {self.case}"

    @property
    def transport(self):
        return "DTLS" if self.options[0].startswith("-dtls") else "TLS"

    def run(self, target):
        command = [
            *("openssl", "s_client", "-connect", join((self.server, target.port))),
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
