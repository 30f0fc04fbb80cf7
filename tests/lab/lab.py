#!/usr/bin/env python3
"""A small internet of network namespaces, with any kind of access at each end.

    a -- nat-a -- carrier-a -- internet -- carrier-b -- nat-b -- b
                                  |
                               server

A host has a private, a public or an IPv6 address, as its access says (nat.py).
`carrier-*` is a second router, or no more than a cable where one is enough.
The server has addresses for two servers that need a pair each.

By hand: lab.py up | down | nat a|b ACCESS | exec NAMESPACE COMMAND...
In a test: `with Lab() as lab: ...`, which has namespaces of its own.
"""

import os
import re
import shutil
import sys
import time
from contextlib import suppress
from itertools import zip_longest
from pathlib import Path

import nat
from processes import exit_on_signals, must_run, run

SIDES = ("a", "b")
SERVER_ADDRESSES = ("203.0.113.100", "203.0.113.101")
SERVER_ADDRESSES_V6 = ("2001:db8:ff::100", "2001:db8:ff::101")
# For a second server, to compare with the one under test.
OTHER_ADDRESSES = ("203.0.113.110", "203.0.113.111")
OTHER_ADDRESSES_V6 = ("2001:db8:ff::110", "2001:db8:ff::111")
PREFIX = "sturn-lab"
# Where `ip netns exec` looks for the files that differ in a namespace.
HOSTS_FILES = Path("/etc/netns")


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
            self.nat(side, "port-restricted")

    def down(self):
        for name in existing_namespaces():
            if re.fullmatch(re.escape(self.prefix) + "-" + _PLACE, name):
                take_down(name)

    def nat(self, side, access):
        """Gives `side` another access; all its mappings are forgotten.

        Returns how many seconds that took.
        """
        started = time.monotonic()
        chain = nat.routers(access)
        self._address_side(side, chain)
        rules = [
            nat.ruleset(each, place)
            for each, place in zip(chain, router_places(number(side), len(chain)))
        ]
        for name, text in zip_longest(("nat", "carrier"), rules, fillvalue="flush ruleset"):
            namespace = self.namespace(f"{name}-{side}")
            must_run(["nft", "-f", "-"], namespace=namespace, stdin=text)
            run(["conntrack", "--flush"], deadline=5, namespace=namespace)
        return time.monotonic() - started

    def name(self, names):
        """Lets processes of both sides find addresses by these names.

        Only those started afterwards: `ip netns exec` shows each its own hosts
        file. It keeps this machine's lines, since Firefox looks those up. Other
        questions are refused at once, instead of waiting for a server of names
        that is out of reach.
        """
        lines = "".join(f"{address} {name}\n" for name, address in names.items())
        for side in SIDES:
            folder = HOSTS_FILES / self.namespace(side)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "hosts").write_text(Path("/etc/hosts").read_text() + lines)
            (folder / "resolv.conf").write_text("nameserver 127.0.0.1\n")

    def _create_namespaces(self):
        place = self.namespace
        _ip(*(f"netns add {place(each)}" for each in PLACES))
        for each in PLACES:
            settings = SETTINGS if each in (*SIDES, "server") else SETTINGS + ROUTER_SETTINGS
            must_run(["sysctl", "-qw", *settings], namespace=place(each))
        _ip(
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
            *_new_switch(*ports),
            f"address add {GATEWAY}/24 dev switch",
            f"address add {GATEWAY_V6}/64 dev switch",
            *(f"route add {network('public', n)} via {wan(n)}" for n in NUMBERS),
            *(f"route add {network('ipv6', n)} via {wan_v6(n)}" for n in NUMBERS),
            inside=self.namespace("internet"),
        )
        _ip(
            *(f"address add {each}/24 dev eth0" for each in SERVER_ADDRESSES + OTHER_ADDRESSES),
            *(
                f"address add {each}/64 dev eth0"
                for each in SERVER_ADDRESSES_V6 + OTHER_ADDRESSES_V6
            ),
            *_default_routes(),
            inside=self.namespace("server"),
        )
        for side in SIDES:
            _ip(*_new_switch(), inside=self.namespace(f"carrier-{side}"))

    def _address_side(self, side, chain):
        n = number(side)
        inside = chain[0].type.inside
        _ip(
            "address flush dev eth0 scope global",
            f"address add {host(inside, n)}/{length(inside)} dev eth0",
            f"route replace default via {router(inside, n)}",
            inside=self.namespace(side),
        )
        uplink, carrier = _behind_a_carrier(n) if len(chain) == 2 else _on_the_internet(n)
        _ip(
            "address flush dev lan scope global",
            "address flush dev wan scope global",
            f"address add {router(inside, n)}/{length(inside)} dev lan",
            *uplink,
            inside=self.namespace(f"nat-{side}"),
        )
        _ip(
            "address flush dev lan scope global",
            "address flush dev wan scope global",
            *carrier,
            inside=self.namespace(f"carrier-{side}"),
        )


PLACES = ("a", "nat-a", "carrier-a", "internet", "carrier-b", "nat-b", "b", "server")
_PLACE = "(" + "|".join(PLACES) + ")"

# Each cable: a place and its interface, another place and its interface.
CABLES = (
    ("a", "eth0", "nat-a", "lan"),
    ("b", "eth0", "nat-b", "lan"),
    ("nat-a", "wan", "carrier-a", "lan"),
    ("nat-b", "wan", "carrier-b", "lan"),
    ("carrier-a", "wan", "internet", "to-a"),
    ("carrier-b", "wan", "internet", "to-b"),
    ("server", "eth0", "internet", "to-server"),
)

# Set before there are interfaces: no second of waiting, at each new address,
# for a neighbour that has the same.
SETTINGS = ("net.ipv6.conf.default.accept_dad=0",)
ROUTER_SETTINGS = (
    "net.ipv4.ip_forward=1",
    "net.ipv6.conf.all.forwarding=1",
    "net.ipv4.conf.all.rp_filter=0",
    # Packets that hairpin leave where they came from, which is as it should be.
    "net.ipv4.conf.all.send_redirects=0",
    "net.ipv4.conf.default.send_redirects=0",
)


# --- addresses of side 1 and side 2 ------------------------------------------

NUMBERS = (1, 2)
GATEWAY = "203.0.113.1"
GATEWAY_V6 = "2001:db8:ff::1"

# What is behind a router: there it is number 1, and what it serves number 2.
NETWORKS = {
    "private": (("192.168.1.", "192.168.2."), 24),
    "carrier": (("100.64.1.", "100.64.2."), 24),
    "public": (("198.51.100.", "192.0.2."), 24),
    "ipv6": (("2001:db8:1::", "2001:db8:2::"), 64),
}
# All addresses that others see a side by.
SEEN_FROM_OUTSIDE = ("203.0.113.0/24", "198.51.100.0/24", "192.0.2.0/24", "2001:db8::/32")


def number(side):
    return SIDES.index(side) + 1


def wan(n):
    return f"203.0.113.{n}0"


def wan_v6(n):
    return f"2001:db8:ff::{n}0"


def carrier_wan(n):
    return f"203.0.113.{n}5"


def router(inside, n):
    return NETWORKS[inside][0][n - 1] + "1"


def host(inside, n):
    return NETWORKS[inside][0][n - 1] + "2"


def length(inside):
    return NETWORKS[inside][1]


def network(inside, n):
    start = NETWORKS[inside][0][n - 1]
    return f"{start}{'' if start.endswith(':') else '0'}/{length(inside)}"


def own(external):
    """The next address after an external one, which a one-to-one NAT gives away."""
    return external[:-1] + str(int(external[-1]) + 1)


def router_places(n, count):
    """Where each of `count` routers stands, the one next to the host first."""
    externals = [host("carrier", n), carrier_wan(n)] if count == 2 else [wan(n)]
    return [
        nat.Place(external, network(inside, n), own(external), host(inside, n))
        for external, inside in zip(externals, ("private", "carrier"))
    ]


def _on_the_internet(n):
    """What is set up at nat-* and at carrier-*, which joins it to the internet."""
    uplink = (
        f"address add {wan(n)}/24 dev wan",
        f"address add {own(wan(n))}/24 dev wan",
        f"address add {wan_v6(n)}/64 dev wan",
        *_default_routes(),
    )
    return uplink, ("link set lan master switch", "link set wan master switch")


def _behind_a_carrier(n):
    bits = length("carrier")
    uplink = (
        f"address add {host('carrier', n)}/{bits} dev wan",
        f"address add {own(host('carrier', n))}/{bits} dev wan",
        f"route replace default via {router('carrier', n)}",
    )
    carrier = (
        "link set lan nomaster",
        "link set wan nomaster",
        f"address add {router('carrier', n)}/{bits} dev lan",
        f"address add {carrier_wan(n)}/24 dev wan",
        f"address add {own(carrier_wan(n))}/24 dev wan",
        f"route replace default via {GATEWAY}",
    )
    return uplink, carrier


def _default_routes():
    return f"route replace default via {GATEWAY}", f"route replace default via {GATEWAY_V6}"


def _new_switch(*ports):
    return (
        "link add switch type bridge forward_delay 0 mcast_snooping 0",
        "link set switch up",
        *(f"link set {port} master switch" for port in ports),
    )


# --- namespaces ----------------------------------------------------------------


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
    shutil.rmtree(HOSTS_FILES / namespace, ignore_errors=True)
    with suppress(OSError):  # another lab has its files there, or nobody had
        HOSTS_FILES.rmdir()


def take_down_abandoned_labs():
    """Removes the namespaces of runs that were killed before they could."""
    for name in existing_namespaces():
        owner = re.fullmatch(rf"{PREFIX}-(\d+)-{_PLACE}", name)
        if owner and not is_running(owner[1]):
            take_down(name)


def is_running(pid):
    """A process that was killed, but not yet waited for, has no command line."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return False


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
        case ["nat", side, access] if side in SIDES:
            try:
                print(f"{access} in {lab.nat(side, access):.2f} s")
            except ValueError as error:
                print(error, file=sys.stderr)
                return 64
        case ["exec", place, *command] if place in PLACES and command:
            enter = ["ip", "netns", "exec", lab.namespace(place)]
            os.execvp("ip", [*enter, *command])
        case _:
            print(__doc__, file=sys.stderr)
            print(f"NAMESPACE: {', '.join(PLACES)}", file=sys.stderr)
            print("ACCESS: TYPE[+hairpin][/TYPE[+hairpin]]", file=sys.stderr)
            print(f"TYPE: {', '.join(nat.TYPES)}", file=sys.stderr)
            return 64
    return 0


if __name__ == "__main__":
    exit_on_signals()
    sys.exit(main(sys.argv[1:]))
