"""The server under test: what the tests ask of it, and how to start it.

`start_server` is the only place that knows one server from another. sturn is
the one that counts; coturn tells whether a failure is the server's or the
test's.
"""

import json
import os
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from processes import Running, run

REPOSITORY = Path(__file__).resolve().parents[2]
KINDS = ("sturn", "coturn")
REALM = "lab.test"
SECRET = "a-shared-secret-of-the-tests"
# coturn takes the port above its own.
DISCOVERY_PORTS = (3478, 3479)
SECONDS_TO_START = 15
SECONDS_TO_LIVE = 900


@dataclass(frozen=True)
class Setup:
    """What a test needs of a server, in no server's own words.

    `listen` are (address, port) pairs, served over UDP and TCP alike; those in
    `listen_tcp` over TCP only. With a `certificate`, files of chain and key, the
    same ports take TLS and DTLS. `token_keys` are (id, algorithm, key in base64) of
    an authorization server; only sturn can be given those. With `discovery`, pairs
    of addresses that are in `listen`, the server helps clients of RFC 5780 and
    RFC 3489, on these and on DISCOVERY_PORTS.
    """

    listen: tuple
    relay_addresses: tuple
    allow_peers: tuple
    users: dict = field(default_factory=dict)
    secrets: tuple = ()
    token_keys: tuple = ()
    listen_tcp: tuple = ()
    discovery: tuple = ()
    certificate: tuple = ()


@contextmanager
def start_server(kind, setup, directory, namespace=None):
    """Runs a server until the block ends; enters it once the server answers."""
    command = server_command(kind, setup, Path(directory))
    with Running(command, SECONDS_TO_LIVE, namespace) as server:
        _wait_until_it_answers(server, setup, namespace)
        yield server


def server_command(kind, setup, directory):
    if kind == "coturn":
        return ["turnserver", *coturn_args(setup, directory)]
    config = directory / "sturn.toml"
    config.write_text(sturn_config(setup))
    return [sturn_binary(), "serve", "--config", str(config)]


def sturn_binary():
    return os.environ.get("STURN") or str(REPOSITORY / "target" / "release" / "sturn")


def sturn_config(setup):
    # JSON's strings and arrays of strings are TOML's too.
    users = ", ".join(
        f"{{ name = {json.dumps(name)}, password = {json.dumps(password)} }}"
        for name, password in setup.users.items()
    )
    return f"""\
[listen]
udp = {json.dumps([join(each) for each in setup.listen])}
tcp = {json.dumps([join(each) for each in setup.listen + setup.listen_tcp])}
tls = []

[relay]
addresses = {json.dumps(list(setup.relay_addresses))}
tcp = true

[auth]
realm = {json.dumps(REALM)}
users = [{users}]
secrets = {json.dumps(list(setup.secrets))}
{sturn_tokens(setup) if setup.token_keys else ""}
[turn]
# turnutils_uclient binds any channel that RFC 5766 knew.
rfc5766-channels = true
mobility = true

[peers]
allow = {json.dumps(list(setup.allow_peers))}
{sturn_tls(setup) if setup.certificate else ""}{sturn_discovery(setup) if setup.discovery else ""}"""


def sturn_tokens(setup):
    words = ((json.dumps(word) for word in key) for key in setup.token_keys)
    keys = ", ".join(
        f"{{ id = {name}, algorithm = {algorithm}, key = {key} }}" for name, algorithm, key in words
    )
    return f"""\
oauth-server-name = {json.dumps(REALM)}
oauth-keys = [{keys}]
"""


def sturn_tls(setup):
    chain, key = (json.dumps(str(each)) for each in setup.certificate)
    return f"""
[tls]
certificates = [{{ chain = {chain}, key = {key} }}]
"""


def sturn_discovery(setup):
    return f"""
[nat-discovery]
addresses = {json.dumps(list(setup.discovery))}
ports = {json.dumps(list(DISCOVERY_PORTS))}

[stun]
rfc3489 = true
"""


def coturn_args(setup, directory):
    """coturn allows all these peers but loopback by itself.

    It wants one port for all addresses, and with a secret it ignores users.
    """
    addresses = [address for address, _ in setup.listen]
    (port,) = {port for _, port in setup.listen}
    auth = ["--use-auth-secret"] if setup.secrets else ["--lt-cred-mech"]
    tls = ["--no-tls", "--no-dtls"]
    if setup.certificate:
        chain, key = setup.certificate
        tls = [f"--cert={chain}", f"--pkey={key}", f"--tls-listening-port={port}"]
    return [
        "-n",
        "--no-cli",
        *tls,
        "--fingerprint",
        "--allow-loopback-peers",
        "--mobility",
        *auth,
        f"--realm={REALM}",
        f"--listening-port={port}",
        *(f"--listening-ip={each}" for each in addresses),
        *(f"--aux-server={join(each)}" for each in setup.listen_tcp),
        *(f"--relay-ip={each}" for each in setup.relay_addresses),
        *(f"--static-auth-secret={each}" for each in setup.secrets),
        *(f"--user={name}:{password}" for name, password in setup.users.items()),
        "--log-file=stdout",
        "--simple-log",
        f"--pidfile={directory / 'coturn.pid'}",
        f"--userdb={directory / 'coturn.db'}",
    ]


def join(endpoint):
    address, port = endpoint
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _wait_until_it_answers(server, setup, namespace):
    program = str(Path(__file__).with_name("stun.py"))
    discovery = ((address, port) for address in setup.discovery for port in DISCOVERY_PORTS)
    endpoints = [
        *(f"udp:{address}:{port}" for address, port in (*setup.listen, *discovery)),
        *(f"tcp:{address}:{port}" for address, port in setup.listen + setup.listen_tcp),
    ]
    deadline = time.monotonic() + SECONDS_TO_START
    while True:
        # Asked in short rounds, so that a server that ended is noticed at once.
        asked = run([sys.executable, program, "2", *endpoints], deadline=5, namespace=namespace)
        if asked.code == 0:
            return
        if server.has_ended or time.monotonic() > deadline:
            how = "ended" if server.has_ended else "did not answer"
            raise RuntimeError(
                f"{server.name} {how}: {asked.output.strip()}\n{server.last_lines()}"
            )
