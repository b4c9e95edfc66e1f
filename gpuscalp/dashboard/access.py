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
from urllib.parse import urlsplit

from gpuscalp.errors import ConfigError, UsageError

TOKEN_FILE: Final = "dashboard.token"  # noqa: S105  # the name of a file
_LOOPBACK: Final = ("127.0.0.1", "localhost", "[::1]")


@final
class Access:
    """The rules of one server.

    Parameters
    ----------
    token : of those who may command
    hosts : names, with ports where they are not the scheme's own, under which browsers reach the server
    """

    def __init__(self, token: str, hosts: Iterable[str]) -> None:
        self._token = token.encode()
        self._hosts = frozenset(host.lower() for host in hosts)

    def knows_host(self, headers: Mapping[str, str]) -> bool:
        """Whether a request names us: a foreign name that leads here is an attack on the browser."""
        return headers.get("Host", "").lower() in self._hosts

    def is_ours(self, headers: Mapping[str, str]) -> bool:
        """Whether a request that may change something comes from our own page."""
        origin = urlsplit(headers.get("Origin", ""))
        return (
            origin.scheme in ("http", "https")
            and origin.netloc.lower() == headers.get("Host", "").lower()
            and headers.get("Sec-Fetch-Site", "same-origin") == "same-origin"
        )

    def may_command(self, headers: Mapping[str, str]) -> bool:
        """Whether a request bears the token. It comes in a header: addresses are kept in logs."""
        kind, _, given = headers.get("Authorization", "").partition(" ")
        return kind == "Bearer" and hmac.compare_digest(given.strip().encode(), self._token)


def hosts_of(address: str, port: int, names: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the names under which a server may be asked for.

    Parameters
    ----------
    address : that it listens on
    names : further ones; without a port they mean this one. Needed for an address that is not loopback

    Raises
    ------
    UsageError    the address can be reached from elsewhere, and nobody has said under which name
    """
    further = tuple(name if _has_port(name) else f"{name}:{port}" for name in names)
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


def _has_port(name: str) -> bool:
    return name.rpartition("]")[2].count(":") == 1


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
