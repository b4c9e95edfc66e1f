"""Compiles ahead what a session would compile at its first start: CUDA for any GPU, the CPU's for this one.

Owns: which kernels those are, and what is told about them. Never: launches a CUDA kernel; CUDA sources are
compiled without a GPU.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from gpuscalp.device import describe
from gpuscalp.errors import UsageError
from gpuscalp.ops.cuda_module import compile_kernel, is_compiled, known_archs, target_of
from gpuscalp.ops.kernel_cache import cache_folder, clear_entries, list_entries, load_entry
from gpuscalp.ops.kernel_source import kernel_stems
from gpuscalp.process_pool import process_pool
from gpuscalp.progress import Progress, silent
from gpuscalp.times import utc

_REGISTERS: Final = re.compile(r"Used (\d+) registers")
_SPILLS: Final = re.compile(r"(\d+) bytes spill stores, (\d+) bytes spill loads")


@dataclass(frozen=True, slots=True)
class WarmKernel:
    """One source for one architecture.

    Attributes
    ----------
    bytes : of machine code; of PTX where the card is newer than the compiler
    registers : of a thread, the most that an entry point takes; None for PTX
    spill_bytes : of registers that did not fit, over all entry points; None for PTX
    cached : it was there already
    kept : it is there now; False where nothing could be written
    """

    kernel: str
    arch: str
    bytes: int
    registers: int | None
    spill_bytes: int | None
    seconds: float
    cached: bool
    kept: bool


def compile_all(archs: Sequence[str] = (), *, told: Progress) -> dict[str, Any]:
    """Compile what is named, or else everything that a session on this machine needs.

    Parameters
    ----------
    archs : digits of compute capabilities, such as "90": CUDA for these and nothing else; none: the CPU's
        kernels and, where a GPU can be used, CUDA for it

    Returns
    -------
    dict: ``folder``, ``kernels`` (see ``WarmKernel``), ``cpu``: folder and seconds, or None

    Raises
    ------
    UsageError     NVRTC does not compile for one of ``archs``
    DeviceError    CuPy or NVRTC is missing, or a source does not compile
    """
    targets = _named(archs) if archs else _present()
    total = len(targets) * len(kernel_stems()) + (not archs)
    kernels: list[WarmKernel] = []
    for arch, binary in targets:
        for stem in kernel_stems():
            told(len(kernels), total, f"{stem} for {arch}")
            kernels.append(compile_cuda(stem, arch, binary=binary))
    cpu = None
    if not archs:
        told(len(kernels), total, "the CPU's, up to a minute")
        cpu = compile_cpu()
    told(total, total)
    return {"folder": cache_folder(), "kernels": [asdict(kernel) for kernel in kernels], "cpu": cpu}


def compile_cuda(stem: str, arch: str, *, binary: bool = True) -> WarmKernel:
    """Compile one CUDA source into the cache."""
    cached = is_compiled(stem, arch=arch, binary=binary)
    begin_s = time.perf_counter()
    made = compile_kernel(stem, arch=arch, binary=binary)
    seconds = time.perf_counter() - begin_s
    used = [int(count) for count in _REGISTERS.findall(made.log)]
    spills = [int(count) for pair in _SPILLS.findall(made.log) for count in pair]
    return WarmKernel(
        stem,
        arch,
        len(made.binary),
        max(used) if used else None,
        sum(spills) if used else None,
        round(seconds, 3),
        cached,
        cached or is_compiled(stem, arch=arch, binary=binary),
    )


def compile_missing(*, told: Progress = silent) -> None:
    """Compile the CPU's kernels for a session that is about to connect, unless they are there.

    It would do so at its first messages else, and the market would not wait for it.
    """
    from gpuscalp.ops._numba import compiled_mark

    if compiled_mark().exists():
        return
    told(0, None, "compiling kernels for this processor, once: up to a minute")
    compile_cpu()


def compile_cpu() -> dict[str, Any]:
    """Compile the CPU's kernels, in a process of its own: an interrupt is lost in LLVM's callbacks.

    Raises
    ------
    GpuscalpError    memory ran out, or the process died
    """
    from gpuscalp.ops._numba import CACHE_FOLDER

    begin_s = time.perf_counter()
    with (
        tempfile.TemporaryDirectory(prefix="gpuscalp-warm-") as folder,
        process_pool(1, where="kernels", fix="free some memory, then run the command again") as submit,
    ):
        submit(use_kernels, Path(folder)).result()
    return {"folder": CACHE_FOLDER, "seconds": round(time.perf_counter() - begin_s, 3)}


def use_kernels(folder: Path) -> None:
    """Run a few frames of a session, messages to orders, in an empty folder: what it uses is compiled."""
    from gpuscalp.bench import frame_close
    from gpuscalp.drift.guard import Guard
    from gpuscalp.ops._numba import compiled_mark
    from gpuscalp.ops.formula_program import Code, FormulaProgram
    from gpuscalp.ops.formulas import formulas

    frame_close.measure(folder, symbols=8, rate=400, frames=2, warm_up=1, rounds=1)
    # Of a model with a reference, and of one with a formula: that one has neither.
    one = np.ones((1, 1), np.float32)
    Guard(np.zeros(1, np.int32), one[0], one[0], one, 1.0).mark(one, np.zeros(1, np.uint32))
    program = FormulaProgram(np.array([[0, 0, 1]], np.int64), np.array([[Code.NUMBER, 0]], np.int64), one[0])
    for symbols in (1, 2):  # the arrays of one are another type
        formulas(program, np.ones((symbols, 2, 1), np.float32))
    compiled_mark().touch()


def describe_cache(*, clear: bool = False) -> dict[str, Any]:
    """Return what the cache of CUDA kernels holds; with ``clear`` delete it then.

    Returns
    -------
    dict: ``folder``, ``bytes``, ``entries`` (``kernel, target, bytes, written, whole``), ``cleared``: how
    many were deleted
    """
    folder = cache_folder()
    found = list_entries(folder)
    entries = [
        {
            "kernel": entry.title,
            "target": entry.target,
            "bytes": entry.bytes,
            "written": utc(entry.written_ns),
            "whole": load_entry(entry.path) is not None,
        }
        for entry in found
    ]
    return {
        "folder": folder,
        "bytes": sum(entry.bytes for entry in found),
        "entries": entries,
        "cleared": clear_entries(folder) if clear else 0,
    }


def _named(archs: Sequence[str]) -> list[tuple[str, bool]]:
    known = [str(arch) for arch in known_archs()]
    for arch in archs:
        if arch not in known:
            raise UsageError(
                "NVRTC does not compile for this architecture",
                where="--arch",
                value=arch,
                fix=f"digits of a compute capability, one of {', '.join(known)}",
            )
    return [(arch, True) for arch in dict.fromkeys(archs)]


def _present() -> list[tuple[str, bool]]:
    """Return the target of the GPU that a session would use, if there is one."""
    cuda: Any = describe()["cuda"]
    if not cuda["usable"]:
        return []
    return [target_of(cuda["compute_capability"].replace(".", ""))]
