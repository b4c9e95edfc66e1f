"""Ports that a session opens on this machine, such as the one for metrics.

Owns: the check ``port``. Never: keeps one.
"""

from __future__ import annotations

import socket

from gpuscalp.doctor.check import Check, fail, ok, skip


def check_port(port: int | None, *, host: str = "127.0.0.1") -> Check:
    """Try to bind it; None or 0 where no certain port was asked for."""
    if not port:
        return skip("port", "no port is configured")
    value = {"host": host, "port": port}
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As servers do: a port that only waits for the end of an old connection is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            what = f"port {port} of {host} cannot be opened: {error.strerror}"
            return fail("port", what, "end the program that has it, or choose another port", value)
    return ok("port", f"port {port} of {host} is free", value)
