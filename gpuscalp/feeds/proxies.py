"""Which proxy the environment names for a URL.

Owns: reading ``HTTPS_PROXY``, ``HTTP_PROXY`` and ``NO_PROXY``. Never: sends a request to this machine through
a proxy.
"""

from __future__ import annotations

from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass


def proxy_of(url: str) -> str | None:
    """Return the proxy for a URL, None where it is reached directly."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if host in ("localhost", "127.0.0.1", "::1") or proxy_bypass(host):
        return None
    return getproxies().get(parts.scheme)
