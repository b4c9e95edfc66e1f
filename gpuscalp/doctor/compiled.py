"""The compiled kernels: are they there, and can those of a GPU be kept?

Owns: the checks ``kernels``, of the CPU's, and ``cuda_kernels``. Never: compiles one.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from gpuscalp.doctor.check import Check, ok, skip, warn


@dataclass(frozen=True, slots=True)
class KernelCache:
    """``compiled``: all that a session runs is."""

    folder: Path
    compiled: bool


def read_kernel_cache() -> KernelCache:
    """Look for the kernels of the present sources, for this Python and this processor."""
    from gpuscalp.ops._numba import CACHE_FOLDER, compiled_mark

    return KernelCache(CACHE_FOLDER, compiled_mark().exists())


def check_kernels(cache: KernelCache) -> Check:
    """Numba compiles for a minute into an empty cache; where it may not write, no command gets here."""
    value = {"folder": str(cache.folder), "compiled": cache.compiled}
    if not cache.compiled:
        return warn(
            "kernels",
            "not all compiled yet for this processor and this Python: the next session does that before it"
            " connects, for up to a minute",
            "run gpuscalp kernels compile once, with the same NUMBA_CACHE_DIR and the same Python",
            value,
        )
    return ok("kernels", f"compiled, in {cache.folder}", value)


@dataclass(frozen=True, slots=True)
class CudaCache:
    """``target``: what the GPU's code is made for; ``cold``: stems that are not compiled for it."""

    folder: Path
    refusal: str | None
    target: str
    cold: tuple[str, ...]


def read_cuda_cache(capability: str) -> CudaCache:
    """Look for the CUDA kernels of a card of this compute capability, such as "9.0"."""
    from gpuscalp.ops.cuda_module import is_compiled, target_of
    from gpuscalp.ops.kernel_cache import cache_folder
    from gpuscalp.ops.kernel_source import kernel_stems

    arch, binary = target_of(capability.replace(".", ""))
    cold = tuple(stem for stem in kernel_stems() if not is_compiled(stem, arch=arch, binary=binary))
    folder = cache_folder()
    return CudaCache(folder, _refusal(folder), f"{'sm' if binary else 'compute'}_{arch}", cold)


def check_cuda_kernels(cache: CudaCache | None) -> Check:
    """Judge the CUDA kernels; None where no GPU is used. Without a cache every start compiles for seconds."""
    if cache is None:
        return skip("cuda_kernels", "no GPU is used")
    value = {"folder": str(cache.folder), "target": cache.target, "cold": list(cache.cold)}
    if not cache.cold:
        return ok("cuda_kernels", f"compiled for {cache.target}, in {cache.folder}", value)
    what = f"not compiled for {cache.target}: {', '.join(cache.cold)}"
    if cache.refusal is not None:
        return warn(
            "cuda_kernels",
            f"{what}; nothing can be kept in {cache.folder} ({cache.refusal}): every start compiles them",
            "name a folder that can be written to with GPUSCALP_KERNEL_CACHE",
            value,
        )
    return warn("cuda_kernels", f"{what}; the first start does", "run gpuscalp kernels compile once", value)


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
