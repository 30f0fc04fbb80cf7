#!/usr/bin/env python3
"""A small internet of network namespaces, with a NAT of any type at each end.

    a -- nat-a --.                     .-- nat-b -- b
    192.168.1.2   203.0.113.10 (internet) 203.0.113.20   192.168.2.2
                               |
                             server  203.0.113.100, 203.0.113.101

By hand: lab.py up | down | nat a|b TYPE | exec NAMESPACE COMMAND...
In a test: `with Lab() as lab: ...`, which has namespaces of its own.
"""

import os
import re
import sys

import nat
from processes import exit_on_signals, must_run, run

SIDES = ("a", "b")
SERVER_ADDRESSES = ("203.0.113.100", "203.0.113.101")
GATEWAY = "203.0.113.1"
PREFIX = "sturn-lab"


class Lab:
    """The namespaces of one run; use as a context manager."""

    def __init__(self, prefix=f"{PREFIX}-{os.getpid()}"):
        self.prefix = prefix

    def __enter__(self):
        take_down_abandoned_labs()
        try:
            self.up()
        except BaseException:
            self.down()
            raise
        return self

    def __exit__(self, *_):
        self.down()

    def namespace(self, place):
        """The name, for `ip netns`, of a place in the drawing above."""
        return f"{self.prefix}-{place}"

    def up(self):
        self.down()
        self._create_namespaces()
        self._address_the_internet()
        for side in SIDES:
            self._address_side(side)
            self.nat(side, "port-restricted")

    def down(self):
        for name in existing_namespaces():
            if re.fullmatch(re.escape(self.prefix) + "-" + _PLACE, name):
                take_down(name)

    def nat(self, side, kind):
        """Makes the router of `side` a NAT of another type; forgets mappings."""
        router = self.namespace(f"nat-{side}")
        rules = nat.ruleset(kind, wan_address(side), f"192.168.{number(side)}.0/24")
        must_run(["nft", "-f", "-"], namespace=router, stdin=rules)
        run(["conntrack", "--flush"], deadline=5, namespace=router)

    def _create_namespaces(self):
        place = self.namespace
        _ip(
            *(f"netns add {place(each)}" for each in PLACES),
            *(
                f"link add {end} netns {place(near)} type veth peer name {port} netns {place(far)}"
                for near, end, far, port in CABLES
            ),
        )
        for each in PLACES:
            ends = [end for near, end, _, _ in CABLES if near == each]
            ports = [port for _, _, far, port in CABLES if far == each]
            _ip(*(f"link set {link} up" for link in ("lo", *ends, *ports)), inside=place(each))

    def _address_the_internet(self):
        ports = [port for _, _, far, port in CABLES if far == "internet"]
        _ip(
            "link add bridge type bridge forward_delay 0",
            "link set bridge up",
            f"address add {GATEWAY}/24 dev bridge",
            *(f"link set {port} master bridge" for port in ports),
            inside=self.namespace("internet"),
        )
        _ip(
            *(f"address add {each}/24 dev eth0" for each in SERVER_ADDRESSES),
            f"route add default via {GATEWAY}",
            inside=self.namespace("server"),
        )

    def _address_side(self, side):
        network = f"192.168.{number(side)}"
        router = self.namespace(f"nat-{side}")
        _ip(
            f"address add {network}.2/24 dev eth0",
            f"route add default via {network}.1",
            inside=self.namespace(side),
        )
        _ip(
            f"address add {network}.1/24 dev lan",
            f"address add {wan_address(side)}/24 dev wan",
            f"route add default via {GATEWAY}",
            inside=router,
        )
        settings = ("net.ipv4.ip_forward=1", "net.ipv4.conf.all.rp_filter=0")
        must_run(["sysctl", "-qw", *settings], namespace=router)


PLACES = ("a", "nat-a", "internet", "nat-b", "b", "server")
_PLACE = "(" + "|".join(PLACES) + ")"

# Each cable: a place and its interface, another place and its interface.
CABLES = (
    ("a", "eth0", "nat-a", "lan"),
    ("b", "eth0", "nat-b", "lan"),
    ("nat-a", "wan", "internet", "to-nat-a"),
    ("nat-b", "wan", "internet", "to-nat-b"),
    ("server", "eth0", "internet", "to-server"),
)


def number(side):
    return SIDES.index(side) + 1


def wan_address(side):
    return f"203.0.113.{number(side)}0"


def existing_namespaces():
    listing = must_run(["ip", "netns", "list"])
    return [line.split()[0] for line in listing.splitlines() if line.strip()]


def take_down(namespace):
    """Ends what still runs in a namespace and removes it."""
    for pid in run(["ip", "netns", "pids", namespace], deadline=5).output.split():
        try:
            os.kill(int(pid), 9)
        except (ProcessLookupError, ValueError):
            pass
    run(["ip", "netns", "delete", namespace], deadline=5)


def take_down_abandoned_labs():
    """Removes the namespaces of runs that were killed before they could."""
    for name in existing_namespaces():
        owner = re.fullmatch(rf"{PREFIX}-(\d+)-{_PLACE}", name)
        if owner and not os.path.exists(f"/proc/{owner[1]}"):
            take_down(name)


def _ip(*commands, inside=None):
    where = ["-netns", inside] if inside else []
    must_run(["ip", *where, "-batch", "-"], stdin="\n".join(commands) + "\n")


def main(arguments):
    lab = Lab(PREFIX)
    match arguments:
        case ["up"]:
            lab.up()
        case ["down"]:
            lab.down()
        case ["nat", side, kind] if side in SIDES and kind in nat.TYPES:
            lab.nat(side, kind)
        case ["exec", place, *command] if place in PLACES and command:
            enter = ["ip", "netns", "exec", lab.namespace(place)]
            os.execvp("ip", [*enter, *command])
        case _:
            print(__doc__, file=sys.stderr)
            print(f"NAMESPACE: {', '.join(PLACES)}\nTYPE: {', '.join(nat.TYPES)}", file=sys.stderr)
            return 64
    return 0


if __name__ == "__main__":
    exit_on_signals()
    sys.exit(main(sys.argv[1:]))
