"""Who stands between us and a URL: a proxy of the environment, an authority that vouches for a server.

Owns: reading ``HTTPS_PROXY``, ``HTTP_PROXY`` and ``NO_PROXY``. Never: sends a request to this machine through
a proxy.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

UNPROVED: Final = "the server cannot prove that it is who it should be"
UNPROVED_FIX: Final = (
    "look at the URL and this machine's clock; SSL_CERT_FILE names the authority of a proxy that reads along"
)


def proxy_of(url: str) -> str | None:
    """Return the proxy for a URL, None where it is reached directly."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if host in ("localhost", "127.0.0.1", "::1") or proxy_bypass(host):
        return None
    return getproxies().get(parts.scheme)
