"""A model version becomes a bundle of the registry.

Owns: which version a word means, and that nothing is taken over but what its digest says.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any, Final

from gpuscalp.bundle import read_contract
from gpuscalp.errors import ModelError, UsageError
from gpuscalp.registry import Registry
from gpuscalp.registry.names import SHORT
from gpuscalp.tracking.connection import Target, connected
from gpuscalp.tracking.contents import DIGEST

_WORD: Final = re.compile(r"(?:models:/)?(?P<name>[^/:@'\"`%]*)(?:@(?P<alias>[\w.-]+)|/(?P<version>\d+))?")
_SHOWN_MAX: Final = 8
_DIGITS: Final = re.compile("[0-9a-f]{4,64}")


def pull(word: str, target: Target, *, registry: Registry) -> dict[str, Any]:
    """Fetch a model version and add its bundle to the registry, after the checks of ``model add``.

    Parameters
    ----------
    word : ``@champion``, ``NAME@champion``, ``NAME/3``, ``NAME`` (its newest version), each also behind
        ``models:/``; or the beginning of a digest. Without a name the one of the target
    registry : no alias of it is moved

    Returns
    -------
    dict for ``model pull --json``; ``new`` whether the registry did not have it

    Raises
    ------
    UsageError       there is no such version
    ModelError       it is no bundle, another one than it says, damaged, or does not give its stored answers
    TrackingError    MLflow cannot be used
    """
    with tempfile.TemporaryDirectory(prefix="gpuscalp-pull-") as scratch:
        with connected(target) as client:
            version = _find(client, target, word)
            where = f"{version.name} version {version.version}"
            digest = version.tags.get(DIGEST)
            if digest is None:
                raise ModelError(
                    "the model version was not made by gpuscalp",
                    where=where,
                    fix="gpuscalp model push makes one that can be pulled",
                )
            path = _download(client, target, version, scratch)
        found = read_contract(path).digest
        if found != digest:
            raise ModelError(
                "the model version holds another bundle than its tag says",
                where=where,
                value=f"{found[:SHORT]}, the tag says {digest[:SHORT]}",
                fix="do not use it; push the bundle again",
            )
        with registry.writing() as writer:
            _, new = writer.add(path, why=f"pulled {where} from {target.uri}")
    return {
        "tracking": target.shown,
        "model": version.name,
        "version": int(version.version),
        "run_id": version.run_id,
        "digest": digest,
        "new": new,
        "path": str(registry.bundle_path(digest)),
    }


def _download(client: Any, target: Target, version: Any, scratch: str) -> Path:
    from mlflow.artifacts import download_artifacts

    uri = client.get_model_version_download_uri(version.name, version.version)
    return Path(download_artifacts(artifact_uri=uri, dst_path=scratch, tracking_uri=target.uri))


def _find(client: Any, target: Target, word: str) -> Any:
    """Return the version that a word means."""
    if _DIGITS.fullmatch(word):
        found = [v for v in _versions(client, target.name) if v.tags.get(DIGEST, "").startswith(word)]
        if len({version.tags[DIGEST] for version in found}) > 1:
            raise UsageError(
                "several models begin like this", where=target.uri, value=word, fix="write more of it"
            )
        if found:
            return found[0]
    match = _WORD.fullmatch(word)
    if match is None:
        raise UsageError(
            "not a model version", value=word, fix="@champion, NAME@champion, NAME/3, NAME or a digest"
        )
    name = match["name"] or target.name
    versions = _versions(client, name)
    aliases = client.get_registered_model(name).aliases if versions else {}
    number = aliases.get(match["alias"]) if match["alias"] else match["version"]
    for version in versions:  # the newest first
        if not (match["alias"] or match["version"]) or str(version.version) == str(number):
            return version
    known = [f"@{alias}" for alias in sorted(aliases)] + [
        f"{name}/{v.version}" for v in versions[:_SHOWN_MAX]
    ]
    raise UsageError(
        "no such model version",
        where=target.uri,
        value=word,
        fix=f"{name} has {', '.join(known)}" if known else "gpuscalp model push makes one",
    )


def _versions(client: Any, name: str) -> list[Any]:
    """Return the versions of a registered model, the newest first; none where it is not there."""
    return list(client.search_model_versions(f"name = '{name}'", order_by=["version_number DESC"]))
