"""What the word for a model means: ``@champion``, the beginning of a digest, or a path.

Owns: the one place that turns such a word into a path.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from gpuscalp.errors import UsageError
from gpuscalp.registry.history import ALIASES, Alias
from gpuscalp.registry.store import Registry, registry_path

_PREFIX: Final = re.compile("[0-9a-f]{4,64}")
_SHOWN_MAX: Final = 8
SHORT: Final = 12


def model_path(text: str, *, registry: Path | None = None, must_exist: bool = True) -> Path:
    """Return the path of the model that is meant.

    Parameters
    ----------
    text : ``@`` and an alias, a path, or four or more hexadecimal digits that a digest begins with; a path
        that exists is never taken for a digest
    registry : None: the default one
    must_exist : False takes any other word for a path, for who tells himself that nothing is there

    Raises
    ------
    UsageError
        no such alias, or it points nowhere; no digest, or more than one, begins like this, and no such path
    """
    where = Registry(registry or registry_path())
    if text.startswith("@"):
        return where.bundle_path(aliased(where, text))
    if Path(text).exists() or not (must_exist or _PREFIX.fullmatch(text)):
        return Path(text)
    return where.bundle_path(_beginning_with(where, text))


def digest_of(registry: Registry, text: str) -> str:
    """Return the digest of a model of a registry, which must be there.

    Raises
    ------
    UsageError
        it is not in the registry
    """
    digest = aliased(registry, text) if text.startswith("@") else _beginning_with(registry, text)
    if not registry.bundle_path(digest).is_dir():
        raise _unknown(registry, text, "the bundle is gone from the registry")
    return digest


def alias_named(text: str) -> Alias:
    """Return an alias, with or without its ``@``.

    Raises
    ------
    UsageError
        there is no such alias
    """
    for alias in ALIASES:
        if text.removeprefix("@") == alias:
            return alias
    raise UsageError("no such alias", value=text, fix=f"one of {', '.join('@' + a for a in ALIASES)}")


def aliased(registry: Registry, text: str) -> str:
    """Return the digest that an alias points to.

    Raises
    ------
    UsageError
        there is no such alias, or it points nowhere
    """
    state = registry.history().state()
    digest = state.current(alias_named(text))
    if digest is not None:
        return digest
    set_ones = [f"@{alias}" for alias in ALIASES if state.current(alias)]
    raise UsageError(
        "the alias points nowhere yet",
        where=str(registry.path),
        value=text,
        fix=f"gpuscalp model promote sets it; set are: {', '.join(set_ones) or 'none'}",
    )


def _beginning_with(registry: Registry, prefix: str) -> str:
    digests = registry.digests()
    found = [digest for digest in digests if digest.startswith(prefix)]
    if len(found) == 1 and _PREFIX.fullmatch(prefix):
        return found[0]
    if len(found) > 1:
        raise UsageError(
            "several models begin like this",
            where=str(registry.path),
            value=prefix,
            fix=f"write more of it: {_some(found, _apart(found))}",
        )
    if Path(prefix).exists():
        raise UsageError(
            "this model is not in the registry yet",
            where=str(registry.path),
            value=prefix,
            fix=f"gpuscalp model add {prefix}, then the digest that it prints",
        )
    raise _unknown(registry, prefix, "no model of this name: neither a path nor the beginning of a digest")


def _unknown(registry: Registry, text: str, what: str) -> UsageError:
    names = _some(registry.digests(), SHORT)
    return UsageError(
        what,
        where=str(registry.path),
        value=text,
        fix=f"the registry has {names}" if names else "the registry is empty: gpuscalp model add BUNDLE",
    )


def _apart(digests: list[str]) -> int:
    """Return how many digits tell the digests apart, at least ``SHORT``."""
    length = SHORT
    while len({digest[:length] for digest in digests}) < len(digests):
        length += 1
    return length


def _some(digests: list[str], length: int) -> str:
    more = f" and {len(digests) - _SHOWN_MAX} more" if len(digests) > _SHOWN_MAX else ""
    return ", ".join(digest[:length] for digest in digests[:_SHOWN_MAX]) + more
