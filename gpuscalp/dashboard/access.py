"""Who may look, and who may command: names, origins, and the token.

Owns: the rules. A browser is asked to say where a request comes from; a page of somebody else, also one whose
name was made to point at this machine, is refused. Never: serves anything.
"""

from __future__ import annotations

import hmac
import ipaddress
import os
import secrets
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, final

from gpuscalp.errors import ConfigError, UsageError

TOKEN_FILE: Final = "dashboard.token"  # noqa: S105  # the name of a file
_LOOPBACK: Final = ("127.0.0.1", "localhost", "[::1]")
# Of each scheme the port that browsers leave out of Host and Origin.
_OWN_PORT: Final = {"http": 80, "https": 443}


@final
class Access:
    """The rules of one server.

    Parameters
    ----------
    token : of those who may command
    hosts : names with their ports, under which browsers reach the server
    """

    def __init__(self, token: str, hosts: Iterable[str]) -> None:
        self._token = token.encode()
        self._hosts = frozenset(host.lower() for host in hosts)

    def knows_host(self, headers: Mapping[str, str]) -> bool:
        """Whether a request names us: a foreign name that leads here is an attack on the browser."""
        host = headers.get("Host", "").lower()
        return any(_with_port(host, port) in self._hosts for port in _OWN_PORT.values())

    def is_fetched_by_us(self, headers: Mapping[str, str]) -> bool:
        """Whether it is not some other page that makes a browser fetch this: it would take our pages' places.

        Browsers say so where the name is loopback or the line is encrypted; programs say nothing.
        """
        return headers.get("Sec-Fetch-Site", "none") in ("none", "same-origin")

    def is_ours(self, headers: Mapping[str, str]) -> bool:
        """Whether a request that may change something comes from our own page."""
        scheme, _, name = headers.get("Origin", "").lower().partition("://")
        port = _OWN_PORT.get(scheme)
        if port is None:
            return False
        # A name without a port means another server for each scheme: what is ours by https is not by http.
        host = _with_port(headers.get("Host", "").lower(), port)
        return (
            _with_port(name, port) == host
            and host in self._hosts
            and headers.get("Sec-Fetch-Site", "same-origin") == "same-origin"
        )

    def may_command(self, headers: Mapping[str, str]) -> bool:
        """Whether a request bears the token. It comes in a header: addresses are kept in logs."""
        kind, _, given = headers.get("Authorization", "").partition(" ")
        # aiohttp hands over a byte that is not UTF-8 as a surrogate.
        spoken = given.strip().encode("utf-8", "surrogateescape")
        return kind == "Bearer" and hmac.compare_digest(spoken, self._token)


def hosts_of(address: str, port: int, names: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the names under which a server may be asked for.

    Parameters
    ----------
    address : that it listens on
    names : further ones; without a port they mean this one, and behind a proxy they need its. Needed for an
        address that is not loopback

    Raises
    ------
    UsageError    the address can be reached from elsewhere, and nobody has said under which name
    """
    further = tuple(_with_port(name, port) for name in names)
    try:
        loopback = ipaddress.ip_address(address).is_loopback
    except ValueError:
        raise UsageError("not an IP address", where="--address", value=address, fix="127.0.0.1") from None
    if not loopback and not further:
        raise UsageError(
            "others can reach this address, over a line that is not encrypted",
            where="--address",
            value=address,
            fix="leave it at 127.0.0.1 and use a tunnel (docs/dashboard.md), or say --reachable-as NAME too",
        )
    return tuple(f"{name}:{port}" for name in _LOOPBACK) + further


def _with_port(name: str, port: int) -> str:
    """Return a name with its port; one that has none gets this one."""
    return name if name.rpartition("]")[2].count(":") == 1 else f"{name}:{port}"


def open_token(session: Path) -> str:
    """Return the token of a session, made anew where there is none; its file is its owner's alone.

    It outlives the server, so that a page that was left open can go on.

    Raises
    ------
    ConfigError    others can read the file, or it is empty
    """
    path = session / TOKEN_FILE
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return _read_token(path)
    with os.fdopen(file, "w") as made:
        token = secrets.token_urlsafe(18)
        made.write(token + "\n")
    return token


def _read_token(path: Path) -> str:
    token, mode = path.read_text().strip(), stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077 or not token:
        raise ConfigError(
            "the token for stops is not its owner's alone"
            if mode & 0o077
            else "the token for stops is empty",
            where=str(path),
            value=f"mode {mode:04o}",
            fix="delete the file: another one is made",
        )
    return token
