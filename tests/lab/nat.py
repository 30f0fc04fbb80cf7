"""nftables rule sets that make a Linux router behave as each kind of NAT.

The types are named as people name them; the comments give the mapping and
filtering behaviour in the terms of RFC 4787. Linux keeps the source port when
it can, which gives one external port per internal endpoint; the cone types
build on that, the symmetric ones take it away.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Nat:
    """How one router translates UDP, and what it lets through."""

    # The statement that gives a packet its external source.
    translate: str = "masquerade"
    # Sets and maps that remember what was sent, and the rule that fills them.
    memory: str = ""
    remember: str = ""
    # Lets in what the connection tracker alone would refuse.
    admit: str = ""
    # What may leave the inside; everything, unless a firewall says otherwise.
    outbound: str = "iifname lan accept"


_ENDPOINTS = """
    map endpoints {
        type inet_service : ipv4_addr . inet_service
        flags dynamic; timeout 120s; size 65535
    }
"""
_CONTACTED = """
    set contacted {
        type ipv4_addr . inet_service
        flags dynamic; timeout 120s; size 65535
    }
"""
_REMEMBER_ENDPOINT = "update @endpoints { udp sport : ip saddr . udp sport }"
_REMEMBER_CONTACT = "update @contacted { ip daddr . udp sport }"
_TO_ENDPOINT = "dnat ip to udp dport map @endpoints"

TYPES = {
    # Endpoint-independent mapping and filtering.
    "full-cone": Nat(
        memory=_ENDPOINTS,
        remember=_REMEMBER_ENDPOINT,
        admit=_TO_ENDPOINT,
    ),
    # Endpoint-independent mapping, address-dependent filtering.
    "address-restricted": Nat(
        memory=_ENDPOINTS + _CONTACTED,
        remember=f"{_REMEMBER_ENDPOINT} {_REMEMBER_CONTACT}",
        admit=f"ip saddr . udp dport @contacted {_TO_ENDPOINT}",
    ),
    # Endpoint-independent mapping, address- and port-dependent filtering.
    "port-restricted": Nat(),
    # Address- and port-dependent mapping and filtering: a new random port for
    # every destination.
    "symmetric": Nat(translate="masquerade random,fully-random"),
    # Address-dependent mapping: the port is a hash of the internal port and
    # the destination's address, so it ignores the destination's port.
    "symmetric-address-dependent": Nat(
        translate="snat ip to {wan} : jhash ip daddr . udp sport mod 20000 seed 0x5eed offset 20000",
    ),
    # A firewall that knows only the web.
    "udp-blocked": Nat(outbound="iifname lan tcp dport 443 accept"),
}


def ruleset(name, wan, inside):
    """The whole rule set of a router with interfaces `lan` and `wan`.

    `wan` is its external address, `inside` the network behind it.
    """
    nat = TYPES[name]
    leaving = f"oifname wan ip saddr {inside}"
    arriving = f"iifname wan ip daddr {wan} meta l4proto udp"
    return f"""
flush ruleset
table ip nat {{
    {nat.memory}
    chain c_admit {{
        type nat hook prerouting priority dstnat
        {f"{arriving} {nat.admit}" if nat.admit else ""}
    }}
    chain c_remember {{
        type filter hook postrouting priority srcnat - 10
        {f"{leaving} meta l4proto udp {nat.remember}" if nat.remember else ""}
    }}
    chain c_translate {{
        type nat hook postrouting priority srcnat
        {leaving} meta l4proto udp {nat.translate.format(wan=wan)}
        {leaving} masquerade
    }}
    chain c_forward {{
        type filter hook forward priority filter; policy drop
        ct state established,related accept
        ct status dnat accept
        {nat.outbound}
    }}
    # A stray packet to the router itself would take a port in the connection
    # tracker, and the next mapping would have to move to another.
    chain c_input {{
        type filter hook input priority filter
        iifname wan meta l4proto udp ct state new drop
    }}
}}
"""
