"""Ports for servers that tests name in advance.

A port that the kernel has given out and taken back may go to any connection before the server binds it. Ports
below the kernel's range (/proc/sys/net/ipv4/ip_local_port_range) go to nobody who does not ask for them; each
process of a parallel run has a block of its own.
"""

import itertools
import os
import socket

_FIRST, _LAST = 20_000, 32_000
_BLOCK = 400
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_start = _FIRST + _worker * _BLOCK % (_LAST - _FIRST)
_ports = itertools.cycle(range(_start, _start + _BLOCK))


def free_port() -> int:
    """Return a loopback port that nobody listens on now, and that no other test is given."""
    for port in itertools.islice(_ports, _BLOCK):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError(f"every port from {_start} to {_start + _BLOCK - 1} is taken")
