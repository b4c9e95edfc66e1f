"""The one set of Numba flags. No fastmath, no contraction: the bits are a contract."""

from __future__ import annotations

import hashlib
import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import numba
from numba.core import event
from numba.core.registry import cpu_target

from gpuscalp.errors import GpuscalpError
from gpuscalp.user import user_folder

Function = TypeVar("Function", bound=Callable[..., Any])


def _cache_folder() -> str:
    """Return a folder for compiled code that changes with the sources of this package.

    Numba's own cache looks only at the file of the outermost function: it would go on using a kernel whose
    callee in another file has changed.
    """
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    base = Path(numba.config.CACHE_DIR or user_folder("XDG_CACHE_HOME", ".cache") / "numba")
    return str(base / digest.hexdigest()[:16])


# Where the compiled code of the present sources is kept. `gpuscalp doctor` looks into it.
CACHE_FOLDER: Final = Path(_cache_folder())
numba.config.CACHE_DIR = str(CACHE_FOLDER)

_LOG: Final = logging.getLogger(__name__)


def compiled_mark() -> Path:
    """Return the file that says that what a session runs on a CPU is compiled (``gpuscalp.warm``).

    Numba compiles anew where the processor, the versions, or place and time of a file of the sources are
    others, although code of the same names lies there. So all of them make the name of this file.
    """
    made_of: list[object] = [
        sys.version,
        numba.__version__,
        cpu_target.target_context.codegen().magic_tuple(),
    ]
    for path in sorted(Path(__file__).parent.glob("*.py")):
        made_of.append((str(path), path.stat().st_mtime_ns))
    return CACHE_FOLDER / f"session-{hashlib.sha256(repr(made_of).encode()).hexdigest()[:16]}"


class _Compilation(event.Listener):  # type: ignore[misc]  # of Numba, which has no types
    """Says once in a process that something is compiled: what is in the cache is not."""

    told = False

    def on_start(self, _: object) -> None:
        if not self.told:
            self.told = True
            _LOG.info("Compiling kernels for this processor, once: it may take a minute")

    def on_end(self, _: object) -> None:
        pass


event.register("numba:compile", _Compilation())


def jit(function: Function) -> Function:
    """Compile with IEEE semantics, without the GIL, cached on disk."""
    return _compiled(function)


def bare(function: Function) -> Function:
    """Compile as ``jit`` does what makes no array, and put it wherever compiled code calls it.

    For what handles one row of the market: Numba counts references to each array that goes into a call or a
    view, by atomic instructions that take longer than such a function. Without Numba's allocator there are
    none; and a call hands over ten numbers for each array.
    """
    return _compiled(function, _nrt=False, inline="always")


def aside(function: Function) -> Function:
    """Compile as ``bare`` does, but once: for what is long and seldom called, by several."""
    return _compiled(function, _nrt=False)


def _compiled(function: Function, **flags: Any) -> Function:
    """Compile a function, or refuse where that cannot be kept.

    ``error_model="numpy"`` keeps division free of a zero check that would raise; LLVM vectorises the loops
    only without that branch.
    """
    flags |= {"nogil": True, "fastmath": False, "error_model": "numpy", "boundscheck": False}
    with suppress(RuntimeError):  # it finds no place at all
        compiled = numba.njit(cache=True, **flags)(function)
        # Where it may not write, Numba goes on beside the sources: what is out of date there is never missed.
        if numba.config.DISABLE_JIT or Path(compiled.stats.cache_path).is_relative_to(CACHE_FOLDER):
            return cast(Function, compiled)
    raise GpuscalpError(
        "compiled kernels cannot be kept",
        where=str(CACHE_FOLDER),
        fix="name a folder that can be written to with NUMBA_CACHE_DIR",
    )
