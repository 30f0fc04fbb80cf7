"""Ways for a host to reach the internet, and nftables rule sets that make them.

The types are named as people name them; their behaviour is in the terms of RFC
4787. Linux keeps the source port when it can, which gives one external port
per internal endpoint; the cone types build on that, the symmetric ones take it
away.

An access is written `TYPE[+hairpin][/TYPE[+hairpin]]`: the router next to the
host first, so `full-cone/symmetric` is a full cone at home behind a symmetric
NAT of the carrier.
"""

from dataclasses import dataclass

ENDPOINT_INDEPENDENT = "endpoint-independent"
ADDRESS_DEPENDENT = "address-dependent"
ADDRESS_AND_PORT_DEPENDENT = "address-and-port-dependent"
# From the friendliest to the strictest.
STRICTNESS = (ENDPOINT_INDEPENDENT, ADDRESS_DEPENDENT, ADDRESS_AND_PORT_DEPENDENT)


@dataclass(frozen=True)
class Type:
    """What one router does with UDP, and the rules that make it do so."""

    mapping: str = ENDPOINT_INDEPENDENT
    filtering: str = ADDRESS_AND_PORT_DEPENDENT
    # The hosts behind it: "private" ones are translated, "public" and "ipv6"
    # ones routed.
    inside: str = "private"
    # The address that outsiders know the host by.
    external: str = "{wan}"
    # Gives a packet its external source.
    translate: str = "masquerade"
    # Sets and maps that remember what was sent, and the rule that fills them.
    memory: str = ""
    remember: str = ""
    # Finds the host of a packet from outside, where the connection tracker
    # alone would refuse it; and of one from inside, if the router can hairpin.
    admit: str = ""
    turn_back: str = ""
    # What may leave the inside, and what may come in unasked.
    outbound: str = "accept"
    inbound: str = "drop"

    @property
    def translates(self):
        return self.inside == "private"


@dataclass(frozen=True)
class Router:
    """A type, and whether hosts behind it reach each other by its outside."""

    type: Type
    hairpin: bool = False


@dataclass(frozen=True)
class Place:
    """Where a router stands: its external address, the network behind it.

    `own` is the external address that a one-to-one NAT gives to `host`.
    """

    wan: str
    inside: str
    own: str
    host: str


@dataclass(frozen=True)
class Behaviour:
    """What a host sees of all the routers before it, as a judge should say it.

    `hairpin` is None where there is no translation that it could pass.
    """

    # RFC 3489's name, or what becomes of UDP.
    kind: str
    mapping: str | None = None
    filtering: str | None = None
    hairpin: bool | None = None

    @property
    def passes_udp(self):
        return self.kind not in ("udp-blocked", "silent")

    def __str__(self):
        return describe(self.kind, self.mapping, self.filtering, self.hairpin)


_SHORT = {
    ENDPOINT_INDEPENDENT: "EI",
    ADDRESS_DEPENDENT: "AD",
    ADDRESS_AND_PORT_DEPENDENT: "APD",
}


def describe(kind, mapping, filtering, hairpin):
    """As short as a table wants it: `symmetric APD/APD`; what is None is left out."""
    behaviours = "/".join(_SHORT.get(each, str(each)) for each in (mapping, filtering) if each)
    return " ".join(filter(None, (kind, behaviours, "hairpin" if hairpin else "")))


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
_TO_HOST = "dnat ip to {host}"

TYPES = {
    "full-cone": Type(
        filtering=ENDPOINT_INDEPENDENT,
        memory=_ENDPOINTS,
        remember=_REMEMBER_ENDPOINT,
        admit=_TO_ENDPOINT,
        turn_back=_TO_ENDPOINT,
    ),
    "address-restricted": Type(
        filtering=ADDRESS_DEPENDENT,
        memory=_ENDPOINTS + _CONTACTED,
        remember=f"{_REMEMBER_ENDPOINT} {_REMEMBER_CONTACT}",
        admit=f"ip saddr . udp dport @contacted {_TO_ENDPOINT}",
        turn_back=_TO_ENDPOINT,
    ),
    "port-restricted": Type(
        memory=_ENDPOINTS,
        remember=_REMEMBER_ENDPOINT,
        turn_back=_TO_ENDPOINT,
    ),
    # A new random port for every destination.
    "symmetric": Type(
        mapping=ADDRESS_AND_PORT_DEPENDENT,
        translate="masquerade random,fully-random",
    ),
    # The port is a hash of the internal port and the destination's address, so
    # it ignores the destination's port.
    "symmetric-address-dependent": Type(
        mapping=ADDRESS_DEPENDENT,
        translate="snat ip to {wan} : jhash ip daddr . udp sport mod 20000 seed 0x5eed offset 20000",
    ),
    # An external address of the host's own: no port changes, all comes in.
    "one-to-one": Type(
        filtering=ENDPOINT_INDEPENDENT,
        external="{own}",
        translate="snat ip to {own}",
        admit=_TO_HOST,
        turn_back=_TO_HOST,
    ),
    # A firewall that knows only the web, and one that drops everything.
    "udp-blocked": Type(outbound="tcp dport 443 accept"),
    "silent": Type(outbound="drop"),
    # No translation: a public address, with or without a stateful firewall.
    "open": Type(filtering=ENDPOINT_INDEPENDENT, inside="public", inbound="accept"),
    "firewall": Type(inside="public"),
    "ipv6-open": Type(filtering=ENDPOINT_INDEPENDENT, inside="ipv6", inbound="accept"),
    "ipv6-firewall": Type(inside="ipv6"),
}


def routers(access):
    """The routers of an access, the one next to the host first."""
    chain = [_router(part) for part in access.split("/")]
    if len(chain) > 2 or (len(chain) == 2 and not all(each.type.translates for each in chain)):
        raise ValueError(f"{access}: two routers at most, and two only if both translate")
    return chain


def behaviour(access):
    """What a host with this access finds, for a judge to be compared with."""
    chain = routers(access)
    for name in "silent", "udp-blocked":
        if any(each.type is TYPES[name] for each in chain):
            return Behaviour(name)
    mapping = max((each.type.mapping for each in chain), key=STRICTNESS.index)
    filtering = max((each.type.filtering for each in chain), key=STRICTNESS.index)
    translates = chain[0].type.translates
    return Behaviour(
        _classic_name(translates, mapping, filtering),
        mapping,
        filtering,
        _hairpins(chain) if translates else None,
    )


def ruleset(router, place):
    """The whole rule set of a router with interfaces `lan` and `wan`."""
    if not router.type.translates:
        return _ruleset_without_nat(router.type)
    kind = router.type
    names = {"wan": place.wan, "own": place.own, "host": place.host}
    external = kind.external.format(**names)
    admit = kind.admit.format(**names)
    turn_back = kind.turn_back.format(**names) if router.hairpin else ""
    leaving = f"oifname wan ip saddr {place.inside}"
    coming_back = f"iifname lan oifname lan ip saddr {place.inside}"
    return f"""
flush ruleset
table ip nat {{
    {kind.memory}
    chain c_admit {{
        type nat hook prerouting priority dstnat
        {f"iifname wan ip daddr {external} meta l4proto udp {admit}" if admit else ""}
        {f"iifname lan ip daddr {external} meta l4proto udp {turn_back}" if turn_back else ""}
    }}
    chain c_remember {{
        type filter hook postrouting priority srcnat - 10
        {f"{leaving} meta l4proto udp {kind.remember}" if kind.remember else ""}
    }}
    chain c_translate {{
        type nat hook postrouting priority srcnat
        {leaving} meta l4proto udp {kind.translate.format(**names)}
        {leaving} snat ip to {external}
        {f"{coming_back} snat ip to {external}" if turn_back else ""}
    }}
    chain c_forward {{
        type filter hook forward priority filter; policy drop
        ct state established,related accept
        ct status dnat accept
        iifname lan {kind.outbound}
    }}
    # A stray packet to the router itself would take a port in the connection
    # tracker, and the next mapping would have to move to another.
    chain c_input {{
        type filter hook input priority filter
        iifname wan meta l4proto udp ct state new drop
    }}
}}
"""


def _router(text):
    name, plus, option = text.partition("+")
    if name not in TYPES or (plus and option != "hairpin"):
        raise ValueError(f"{text} is no type of access; there are: {', '.join(TYPES)}")
    if plus and not TYPES[name].turn_back:
        raise ValueError(f"{text}: only types with one mapping per endpoint can hairpin")
    return Router(TYPES[name], hairpin=bool(plus))


def _classic_name(translates, mapping, filtering):
    """RFC 3489's name, section 5."""
    if not translates:
        return "open-internet" if filtering == ENDPOINT_INDEPENDENT else "firewall"
    if mapping != ENDPOINT_INDEPENDENT:
        return "symmetric"
    return {
        ENDPOINT_INDEPENDENT: "full-cone",
        ADDRESS_DEPENDENT: "restricted-cone",
        ADDRESS_AND_PORT_DEPENDENT: "port-restricted-cone",
    }[filtering]


def _hairpins(chain):
    """The outermost router turns a packet back; the others must let it in.

    It comes from an address that its receiver has never sent to.
    """
    *inner, outer = chain
    return outer.hairpin and all(each.type.filtering == ENDPOINT_INDEPENDENT for each in inner)


def _ruleset_without_nat(kind):
    return f"""
flush ruleset
table inet firewall {{
    chain c_forward {{
        type filter hook forward priority filter; policy drop
        ct state established,related accept
        iifname lan {kind.outbound}
        iifname wan {kind.inbound}
    }}
}}
"""
