"""The compiled CPU kernels: can they be kept, and are they there?

Owns: the check ``kernels``. Never: compiles one.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gpuscalp.doctor.check import Check, fail, ok, warn

# Stems of `gpuscalp/ops` that every session runs on a CPU: messages to ticks to frames to columns to margins.
# With each the command that compiles it.
_DEMO: Final = "gpuscalp demo"
NEEDED: Final[Mapping[str, str]] = {
    "wire": "gpuscalp bench ingest --messages 1000",
    "frames": _DEMO,
    "ladder": _DEMO,
    "context": _DEMO,
    "forest": _DEMO,
}


@dataclass(frozen=True, slots=True)
class KernelCache:
    """``refusal``: why nothing can be written there, or None; ``stems``: what is compiled for this Python."""

    folder: Path
    refusal: str | None
    stems: frozenset[str]


def read_kernel_cache(folder: Path | None = None) -> KernelCache:
    """Look at the folder of the present sources, or at the one that is named."""
    if folder is None:
        from gpuscalp.ops._numba import CACHE_FOLDER

        folder = CACHE_FOLDER
    tag = f".py{sys.version_info.major}{sys.version_info.minor}.nbi"
    stems = frozenset(path.name.partition(".")[0] for path in folder.glob(f"*/*{tag}"))
    return KernelCache(folder, _refusal(folder), stems)


def check_kernels(cache: KernelCache) -> Check:
    """Numba refuses to start where it cannot write its cache, and compiles for a minute into an empty one."""
    value = {"folder": str(cache.folder), "compiled": sorted(cache.stems)}
    if cache.refusal is not None:
        return fail(
            "kernels",
            f"compiled kernels cannot be kept in {cache.folder}: {cache.refusal}",
            "name a folder that can be written to with NUMBA_CACHE_DIR",
            value,
        )
    cold = [stem for stem in NEEDED if stem not in cache.stems]
    if cold:
        commands = dict.fromkeys(NEEDED[stem] for stem in cold)
        return warn(
            "kernels",
            f"not compiled yet: {', '.join(cold)}; the first session spends up to a minute on it",
            f"run {' and '.join(commands)} once, with the same NUMBA_CACHE_DIR and the same Python",
            value,
        )
    return ok("kernels", f"compiled, in {cache.folder}", value)


def _refusal(folder: Path) -> str | None:
    """Return why no file can be made in a folder, or in what would be its parent."""
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place):
            return None
    except OSError as error:
        return error.strerror or str(error)
