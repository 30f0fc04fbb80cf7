#!/usr/bin/env python3
"""Two headless browsers behind NATs hold a video call through the server.

Chromium and Firefox, with themselves and with each other. Both sides may use
relayed candidates only. A call passes when each side has decoded FRAMES frames
of the other's video, over the transport the case asks for.
"""

import base64
import hashlib
import hmac
import json
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from lab import SERVER_ADDRESSES, SERVER_ADDRESSES_V6, Lab
from processes import exit_on_signals, must_run, run
from report import Report, parse_arguments
from server import REPOSITORY, SECRET, Setup, start_server

SERVER, SERVER_V6 = SERVER_ADDRESSES[0], SERVER_ADDRESSES_V6[0]
# What both sides' hosts files call the server.
SERVER_NAME, OTHER_NAME = "turn.lab.test", "other.lab.test"
USER, PASSWORD = "browser", "password of the browser"
FRAMES = 30
# From the first browser's start to the last frame.
SECONDS_PER_CALL = 60


@dataclass(frozen=True)
class End:
    """One end of a call: its NAT, the TURN server it is told, what it must use."""

    nat: str
    url: str
    relay_protocol: str
    browser: str = "chromium"

    @property
    def name(self):
        return self.browser.capitalize()

    @property
    def over_ipv6(self):
        return SERVER_V6 in self.url


@dataclass(frozen=True)
class Case:
    name: str
    a: End
    b: End
    time_limited: bool = True
    # Whom the server's certificate is for; the browsers trust its authority.
    certified: str = ""

    @property
    def ends(self):
        return {"a": self.a, "b": self.b}


def firefox(end):
    return replace(end, browser="firefox")


OVER_UDP = End("symmetric", f"turn:{SERVER}:3478?transport=udp", "udp")
OVER_TCP = End("symmetric", f"turn:{SERVER}:3478?transport=tcp", "tcp")
OVER_UDP_V6 = End("ipv6-firewall", f"turn:[{SERVER_V6}]:3478?transport=udp", "udp")
OVER_TCP_V6 = End("ipv6-firewall", f"turn:[{SERVER_V6}]:3478?transport=tcp", "tcp")
# Nothing but TCP to port 443 leaves these networks.
WEB_ONLY = End("udp-blocked", f"turn:{SERVER}:443?transport=tcp", "tcp")
WEB_ONLY_TLS = End("udp-blocked", f"turns:{SERVER}:443?transport=tcp", "tls")
# Firefox takes no certificate for an address, so it needs the name.
WEB_ONLY_NAME = End("udp-blocked", f"turns:{SERVER_NAME}:443?transport=tcp", "tls")

CASES = (
    Case("chromium-chromium udp static-user", OVER_UDP, OVER_UDP, time_limited=False),
    Case("chromium-chromium udp-tcp ipv6-server", OVER_UDP_V6, OVER_TCP_V6),
    Case("chromium-firefox tcp443-udp", WEB_ONLY, firefox(OVER_UDP)),
    Case(
        "chromium-firefox turns443-udp by-address",
        WEB_ONLY_TLS,
        firefox(OVER_UDP),
        certified=SERVER,
    ),
    Case(
        "chromium-firefox turns443-turns443 by-name",
        WEB_ONLY_NAME,
        firefox(WEB_ONLY_NAME),
        certified=SERVER_NAME,
    ),
    Case(
        "firefox-firefox turns443-tcp by-name",
        firefox(WEB_ONLY_NAME),
        firefox(OVER_TCP),
        certified=SERVER_NAME,
    ),
)

# Browsers take no certificate for another name, and say so.
REFUSED = Case(
    "chromium-firefox turns443 wrong-name refused",
    WEB_ONLY_NAME,
    firefox(WEB_ONLY_NAME),
    certified=OTHER_NAME,
)


def main():
    arguments = parse_arguments(__doc__)
    exit_on_signals()
    report = Report("call")
    with Lab() as lab:
        lab.name({SERVER_NAME: SERVER})
        for case in (*CASES, REFUSED):
            if arguments.only in case.name:
                hold_call(lab, arguments.server, case, report)
    return report.close()


def hold_call(lab, server_kind, case, report):
    for side, end in case.ends.items():
        lab.nat(side, end.nat)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        try:
            certificate = certify(case.certified, Path(directory)) if case.certified else ()
            setup = server_setup(case, certificate)
            with start_server(
                server_kind, setup, directory, lab.namespace("server")
            ) as server:
                called = run(
                    ["node", str(REPOSITORY / "tests/lab/call.mjs")],
                    deadline=SECONDS_PER_CALL + 20,
                    stdin=json.dumps(job(lab, case, directory)),
                )
                judge(case, called, server, report)
        except RuntimeError as error:
            report.fail(case.name, str(error))


def certify(subject, directory):
    """A private authority, trusted by browsers whose home is `directory`, and a
    certificate of it for an address or a name: the files of chain and key."""
    names = ("ca.pem", "ca.key", "chain.pem", "key.pem")
    authority, authority_key, chain, key = (str(directory / name) for name in names)
    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
    make = ("openssl", "req", "-x509", *new_key)
    must_run([*make, "-subj", "/CN=lab authority", "-keyout", authority_key, "-out", authority])
    kind = "IP" if subject[0].isdigit() else "DNS"
    signed_by = ("-CA", authority, "-CAkey", authority_key, "-addext")
    for_subject = (f"subjectAltName={kind}:{subject}", "-addext", "basicConstraints=CA:FALSE")
    must_run([*make, "-subj", "/CN=turn", *signed_by, *for_subject, "-keyout", key, "-out", chain])
    database = trusted_by_browsers(directory)
    database.mkdir(parents=True)
    certutil = ("certutil", "-d", f"sql:{database}")
    must_run([*certutil, "-N", "--empty-password"])
    must_run([*certutil, "-A", "-t", "C,,", "-n", "lab authority", "-i", authority])
    return chain, key


def trusted_by_browsers(directory):
    """Where Chromium, with `directory` as its home, looks for authorities."""
    return Path(directory) / ".pki" / "nssdb"


def server_setup(case, certificate):
    return Setup(
        listen=((SERVER, 3478), (SERVER_V6, 3478)),
        listen_tcp=((SERVER, 443),),
        relay_addresses=(SERVER,),
        # The two relayed addresses, which are each other's peers.
        allow_peers=(f"{SERVER}/32",),
        users={USER: PASSWORD},
        secrets=(SECRET,) if case.time_limited else (),
        certificate=certificate,
    )


def job(lab, case, directory):
    name, password = time_limited_credentials() if case.time_limited else (USER, PASSWORD)
    return {
        "seconds": SECONDS_PER_CALL,
        "frames": 0 if case is REFUSED else FRAMES,
        "sides": {
            side: {
                "namespace": lab.namespace(side),
                "driver": str(REPOSITORY / ".cache/node/package.json"),
                "browser": end.browser,
                "directory": directory,
                "trusted": str(trusted_by_browsers(directory)) if case.certified else None,
                "iceServers": [{"urls": [end.url], "username": name, "credential": password}],
            }
            for side, end in case.ends.items()
        },
    }


def time_limited_credentials():
    """A user name that expires in ten minutes, and its password."""
    name = f"{int(time.time()) + 600}:{USER}"
    code = hmac.new(SECRET.encode(), name.encode(), hashlib.sha1).digest()
    return name, base64.b64encode(code).decode()


def judge(case, called, server, report):
    """Each side counts for its browser in the table, both for the case."""
    try:
        result = json.loads(called.output.splitlines()[-1])
    except (IndexError, ValueError):
        result = {"error": f"the browsers' driver {called.ending}", "sides": {}}
    is_right, wanted = (is_refused, "refused") if case is REFUSED else (is_relayed, "relayed")
    sides = result["sides"]
    right = {side: is_right(end, sides.get(side, {})) for side, end in case.ends.items()}
    for side, end in case.ends.items():
        report.tried(end.name, end.relay_protocol.upper(), right[side], end.over_ipv6)
    wrong = [f"side {side} is not {wanted}" for side in right if not right[side]]
    if wrong or result["error"]:
        detail = "; ".join([*wrong, *filter(None, [result["error"]])])
        report.fail(case.name, detail, evidence(sides, called, server))
    else:
        report.ok(case.name, "; ".join(f"{side}: {summary(sides[side])}" for side in sides))


def is_relayed(end, side):
    return (
        side.get("local") == side.get("remote") == "relay"
        and side["relayProtocol"] == end.relay_protocol
        and side["frames"] >= FRAMES
    )


def is_refused(_, side):
    """It tried, as it says, and got no relayed address."""
    # 701: the server could not be reached; browsers tell pages no more.
    return side.get("candidates") == 0 and any("error 701" in line for line in side["log"])


def summary(side):
    if not side["local"]:
        return f"{side['version']} refuses the certificate"
    return (
        f"{side['version']} {side['local']}-{side['remote']} over {side['relayProtocol']}, "
        f"{side['frames']} frames, connected in {side['connectedAfter']} ms"
    )


def evidence(sides, called, server):
    lines = []
    for name, side in sides.items():
        state = f"{side.get('state')}, {side.get('frames')} frames"
        lines.append(f"  side {name}, {side['version']}: {state}")
        lines += [f"    | {line}" for line in side["log"]]
    if not sides:
        lines += ["  the driver, its last lines:", called.last_lines()]
    lines += [f"  {server.name}, its last lines:", server.last_lines()]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
