"""Ports that a session opens on this machine, such as the one for metrics.

Owns: the check ``port``. Never: keeps one.
"""

from __future__ import annotations

import errno
import http.client
import json
import socket
from typing import Final

from gpuscalp.doctor.check import Check, fail, ok, skip

_PATIENCE_S: Final = 2.0
_ANYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104  # asked, not opened


def check_port(port: int | None, *, host: str = "127.0.0.1", running: bool = False) -> Check:
    """Try to bind it; None or 0 where no certain port was asked for.

    Parameters
    ----------
    running : a process runs the session that is asked about, and may have the port: nobody else may
    """
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
            if running and error.errno == errno.EADDRINUSE and _answers(host, port):
                return ok("port", f"port {port} of {host} is the one of the session, which runs", value)
            what = f"port {port} of {host} cannot be opened: {error.strerror}"
            return fail("port", what, "end the program that has it, or choose another port", value)
    return ok("port", f"port {port} of {host} is free", value)


def _answers(host: str, port: int) -> bool:
    """Whether a session of ours answers there (docs/operations.md#health)."""
    connection = http.client.HTTPConnection(_ANYWHERE.get(host, host), port, timeout=_PATIENCE_S)
    try:
        connection.request("GET", "/healthz")
        found = json.loads(connection.getresponse().read(65_536))
    except (OSError, ValueError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return isinstance(found, dict) and {"ok", "phase", "reasons"} <= found.keys()
