"""Who sends a request and whether it is theirs: key, signature, timestamp.

Owns: HMAC-SHA256, RSA and Ed25519 signatures over the request's parameters, and the window of timestamps.
Never: looks at what is asked. Source: Binance documentation, "General info", SIGNED endpoint security.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Final
from urllib.parse import unquote

from gpuscalp.exchange.params import Params
from gpuscalp.exchange.refusals import ApiError
from gpuscalp.exchange.users import User

_WINDOW_MS: Final = 5_000
_WINDOW_MAX_MS: Final = 60_000
_AHEAD_MS: Final = 1_000


def split_signature(query: str, body: str) -> tuple[str, str]:
    """Return what was signed, and the signature.

    The signed text is query and body as they were sent, put together without a sign between, less the
    parameter ``signature`` wherever it stands.
    """
    signature = ""
    kept = []
    for part in (query, body):
        fields = []
        for item in part.split("&"):
            if item.startswith("signature="):
                signature = unquote(item.removeprefix("signature="))
            elif item:
                fields.append(item)
        kept.append("&".join(fields))
    return "".join(kept), signature


def check_signature(user: User, payload: str, signature: str) -> None:
    """Check a signature by the kind of the user's key.

    Raises
    ------
    ApiError
        -1102 there is none, -1022 it is wrong
    """
    if not signature:
        raise ApiError(-1102, "signature")
    if user.secret.lstrip().startswith("-----BEGIN"):
        right = _verify_public(user.secret, payload.encode(), signature)
    else:
        expected = hmac.new(user.secret.encode(), payload.encode(), hashlib.sha256).hexdigest()
        right = hmac.compare_digest(expected.encode(), signature.lower().encode())
    if not right:
        raise ApiError(-1022)


def check_time(params: Params, clocks_ms: tuple[int, ...]) -> None:
    """Check the timestamp against the server's time.

    Parameters
    ----------
    clocks_ms : the time, or several times of which one has to fit: a replay at another speed than the world's
        has a clock of its own, and clients sign by either

    Raises
    ------
    ApiError
        -1102, -1131 or -1021
    """
    stamp = params.integer("timestamp")
    if stamp is None:
        raise ApiError(-1102, "timestamp")
    window = params.integer("recvWindow", _WINDOW_MS) or _WINDOW_MS
    if window > _WINDOW_MAX_MS:
        raise ApiError(-1131)
    if any(stamp < now + _AHEAD_MS and now - stamp <= window for now in clocks_ms):
        return
    if all(stamp >= now + _AHEAD_MS for now in clocks_ms):
        text = "Timestamp for this request was 1000ms ahead of the server's time."
        raise ApiError(-1021, message=text)
    raise ApiError(-1021)


def _verify_public(pem: str, payload: bytes, signature: str) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa

    try:
        raw = base64.b64decode(signature, validate=True)
    except ValueError:
        return False
    key = serialization.load_pem_public_key(pem.encode())
    try:
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(raw, payload)
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(raw, payload, padding.PKCS1v15(), hashes.SHA256())
        else:
            return False
    except InvalidSignature:
        return False
    return True
