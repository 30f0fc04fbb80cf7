#!/usr/bin/env python3
"""Waits until STUN servers answer: stun.py SECONDS udp|tcp:ADDRESS:PORT...

A Binding request needs no credentials, so its answer is the sign, common to
all servers, that a listener is up.
"""

import os
import socket
import sys
import time

BINDING_REQUEST = 0x0001
BINDING_SUCCESS = 0x0101
MAGIC_COOKIE = 0x2112A442
SECONDS_PER_TRY = 0.25


def main(seconds, *endpoints):
    deadline = time.monotonic() + float(seconds)
    for endpoint in endpoints:
        transport, rest = endpoint.split(":", 1)
        address, port = rest.rsplit(":", 1)
        while not answers(transport, address, int(port)):
            if time.monotonic() > deadline:
                return f"no STUN answer from {endpoint}"
    return 0


def answers(transport, address, port):
    """Whether one Binding request is answered, within SECONDS_PER_TRY."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM
    transaction = os.urandom(12)
    request = header(BINDING_REQUEST, transaction)
    tried = time.monotonic()
    with socket.socket(family, kind) as client:
        client.settimeout(SECONDS_PER_TRY)
        try:
            client.connect((address, port))
            client.send(request)
            answer = client.recv(1500)
        except OSError:
            # A refusal comes at once: do not ask again in a tight loop.
            time.sleep(max(0, tried + SECONDS_PER_TRY / 5 - time.monotonic()))
            return False
    is_success = answer[:2] == BINDING_SUCCESS.to_bytes(2, "big")
    return is_success and answer[8:20] == transaction


def header(message_type, transaction):
    return (
        message_type.to_bytes(2, "big")
        + (0).to_bytes(2, "big")
        + MAGIC_COOKIE.to_bytes(4, "big")
        + transaction
    )


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
