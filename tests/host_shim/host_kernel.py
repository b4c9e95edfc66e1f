"""Launches the entry points of a kernel on NumPy arrays, with the checks that a GPU does not make.

Every array is copied into memory with guard bytes around it, so that a store past an end is found; what the
kernel may only read must come back unchanged; and every argument's type must be exactly the parameter's.
"""

from __future__ import annotations

import ctypes
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gpuscalp.ops.cuda_module import DEFAULT_DYNAMIC_SHARED_BYTES
from gpuscalp.ops.kernel_source import load_kernel_source
from tests.host_shim.build import Defines, ShimError, Watch, build, entries_of, with_lines

# As cudaMalloc; a vector load in a kernel may rely on it.
_ALIGNMENT = 256
_GUARD_BYTES = 256
# All bits set: NaN as a float, -1 as an integer, so a load past an end disturbs results as well.
_GUARD = 0xFF

_MAX_THREADS = 1024
_MAX_GRID = (2**31 - 1, 65535, 65535)
_MAX_BLOCK = (1024, 1024, 64)

# (stem, entry) -> launches in this process.
LAUNCHES: Counter[tuple[str, str]] = Counter()

Argument = npt.NDArray[Any] | np.generic


class _Launch(ctypes.Structure):
    """Mirror of shim::Launch in block_runner.h."""

    _fields_ = (
        ("grid", ctypes.c_uint32 * 3),
        ("block", ctypes.c_uint32 * 3),
        ("dynamic_shared_bytes", ctypes.c_uint64),
        ("seed", ctypes.c_int64),
    )


class HostKernel:
    """One ``.cu`` file, compiled for the host.

    Parameters
    ----------
    stem : str
        Name of the file in ``kernels/`` without its suffix.
    source : str, optional
        Text to use instead of that file's.
    defines : mapping, optional
        Preprocessor constants; the source has a default for each under ``#ifndef``.
    watch : {"memory", "races"}, optional
        ``memory``: with the address and undefined-behaviour sanitizers; the process must have been started
        with their runtime preloaded (see ``sanitized.py``). ``races``: two threads that access a byte with
        nothing to order them, one of them to store, are an error, in shared and in global memory.

    Raises
    ------
    ShimError
        If the source does not compile for the host.
    """

    def __init__(
        self,
        stem: str,
        *,
        source: str | None = None,
        defines: Defines | None = None,
        watch: Watch | None = None,
    ) -> None:
        text = load_kernel_source(stem) if source is None else source
        self.stem = stem
        self.entries = tuple(entry.name for entry in entries_of(text))
        self._path = build(text, f"{stem}.cu", defines=defines, watch=watch)
        self._library = ctypes.CDLL(str(self._path))
        self._watch = watch

    def signature(self, name: str) -> tuple[str, ...]:
        """Return one code per parameter.

        ``("*cf4", "*i8", "i4")`` are a pointer to const float32, a pointer to int64 and an int32.
        """
        if name not in self.entries:
            raise ShimError(f"{self.stem}.cu has no entry point {name!r}; it has {', '.join(self.entries)}")
        read = self._library[f"shim_signature_{name}"]
        read.restype = ctypes.c_char_p
        return tuple(read().decode().split())

    def launch(
        self,
        name: str,
        grid: Sequence[int],
        block: Sequence[int],
        args: Sequence[Argument],
        *,
        shared_bytes: int = 0,
        seed: int | None = None,
        max_shared_bytes: int = DEFAULT_DYNAMIC_SHARED_BYTES,
    ) -> None:
        """Run an entry point to its end; results are in the arrays afterwards.

        Parameters
        ----------
        name : str
            Entry point.
        grid, block : sequence of int
            One to three extents.
        args : sequence
            C-contiguous arrays for pointers, NumPy scalars for values, each of exactly the parameter's type.
        shared_bytes : int
            Dynamic shared memory of a block.
        seed : int, optional
            Shuffles the order of blocks and threads and changes the garbage in shared memory; ``None`` is the
            natural order. A correct kernel gives the same bits for every seed.
        max_shared_bytes : int
            More than 48 KiB must be asked for, as on a GPU.

        Raises
        ------
        ShimError
            If an argument or the launch geometry is wrong, threads diverge at a barrier, the kernel writes
            outside an array or into one it promised not to change. The arrays are then as they were.
        """
        codes = self.signature(name)
        if len(codes) != len(args):
            raise ShimError(f"{name} takes {len(codes)} arguments, {len(args)} given")
        how = _Launch(
            self._extents(name, "grid", grid, _MAX_GRID),
            self._extents(name, "block", block, _MAX_BLOCK),
            shared_bytes,
            -1 if seed is None else seed,
        )
        self._check_block(name, block)
        if not 0 <= shared_bytes <= max_shared_bytes:
            raise ShimError(f"{name}: {shared_bytes} bytes of shared memory, {max_shared_bytes} allowed")
        arrays: list[npt.NDArray[Any]] = []
        written: list[npt.NDArray[Any]] = []
        for argument, code in zip(args, codes, strict=True):
            _check_argument(name, argument, code)
            if isinstance(argument, np.ndarray):
                arrays.append(argument)
                if "*c" not in code:
                    written.append(argument)
        memory = _DeviceMemory(arrays, guarded=self._watch != "memory")
        try:
            pointers = [self._slot(memory, argument) for argument in args]
            fault = ctypes.create_string_buffer(512)
            # An array of no pointers is not allowed to have no element.
            slots = (ctypes.c_void_p * max(1, len(pointers)))(*map(ctypes.addressof, pointers))
            status = self._library[f"shim_launch_{name}"](
                ctypes.byref(how), slots, fault, ctypes.c_size_t(len(fault))
            )
            if status != 0:
                raise ShimError(f"{self.stem}.cu {name}, {with_lines(fault.value.decode(), self._path)}")
            memory.check(f"{self.stem}.cu {name}", written)
            for array in written:
                memory.copy_back(array)
        finally:
            memory.free()
        LAUNCHES[self.stem, name] += 1

    def _slot(self, memory: _DeviceMemory, argument: Argument) -> Any:
        """Return the ctypes object that the kernel's parameter is read from."""
        if isinstance(argument, np.ndarray):
            return ctypes.c_void_p(memory.address(argument))
        return ctypes.create_string_buffer(argument.tobytes(), argument.itemsize)

    def _check_block(self, name: str, block: Sequence[int]) -> None:
        threads = math.prod(block)
        bound = int(self._library[f"shim_max_threads_{name}"]())
        if threads > min(bound, _MAX_THREADS):
            raise ShimError(f"{name}: a block of {threads} threads, {min(bound, _MAX_THREADS)} allowed")

    def _extents(self, name: str, what: str, extents: Sequence[int], most: tuple[int, ...]) -> Any:
        full = (*extents, 1, 1, 1)[:3]
        if not 1 <= len(extents) <= 3 or any(not 1 <= e <= m for e, m in zip(full, most, strict=True)):
            raise ShimError(f"{name}: {what} {tuple(extents)} is outside 1 … {most}")
        return (ctypes.c_uint32 * 3)(*full)


def _check_argument(name: str, argument: Argument, code: str) -> None:
    """Raise unless an argument is exactly what its parameter takes."""
    pointer = code.startswith("*")
    wanted = code.lstrip("*c") if pointer else code
    if isinstance(argument, np.ndarray) != pointer or not isinstance(argument, np.ndarray | np.generic):
        given = type(argument).__name__
        raise ShimError(f"{name}: parameter {code} given a {given}; arrays for *, NumPy scalars else")
    given = f"{argument.dtype.kind}{argument.dtype.itemsize}"
    structure = wanted == f"s{argument.dtype.itemsize}"
    if given != wanted and not structure:
        raise ShimError(f"{name}: parameter {code} given {argument.dtype}")
    if not isinstance(argument, np.ndarray):
        return
    if not argument.flags.c_contiguous:
        raise ShimError(f"{name}: parameter {code} given an array that is not C-contiguous")
    if "*c" not in code and not argument.flags.writeable:
        raise ShimError(f"{name}: parameter {code} given a read-only array")


class _DeviceMemory:
    """Copies of the arguments' arrays; arrays that overlap keep doing so.

    Guarded: inside larger blocks whose surplus is checked afterwards. Otherwise each block has exactly the
    array's size and comes from ``malloc``, whose surroundings the address sanitizer watches.
    """

    def __init__(self, arrays: Sequence[npt.NDArray[Any]], *, guarded: bool) -> None:
        self._guarded = guarded
        self._libc = ctypes.CDLL(None)
        self._libc.free.argtypes = (ctypes.c_void_p,)
        # [host start, host end, address of the copy, address to free]
        self._regions: list[tuple[int, int, int, int]] = []
        for start, end in _merged([(a.ctypes.data, a.ctypes.data + a.nbytes) for a in arrays if a.nbytes]):
            margin = _GUARD_BYTES if guarded else 0
            base = self._allocate(end - start + 2 * margin)
            ctypes.memset(base, _GUARD, end - start + 2 * margin)
            ctypes.memmove(base + margin, start, end - start)
            self._regions.append((start, end, base + margin, base))

    def _allocate(self, size: int) -> int:
        address = ctypes.c_void_p()
        status = self._libc.posix_memalign(
            ctypes.byref(address), ctypes.c_size_t(_ALIGNMENT), ctypes.c_size_t(size)
        )
        if status != 0 or address.value is None:
            raise MemoryError
        return address.value

    def address(self, array: npt.NDArray[Any]) -> int:
        """Return the copy's address; 0 for an empty array, as CuPy passes it."""
        if array.nbytes == 0:
            return 0
        for start, end, copy, _ in self._regions:
            if start <= array.ctypes.data < end:
                return copy + array.ctypes.data - start
        raise AssertionError("an array that was not registered")

    def copy_back(self, array: npt.NDArray[Any]) -> None:
        if array.nbytes:
            ctypes.memmove(array.ctypes.data, self.address(array), array.nbytes)

    def check(self, where: str, written: Sequence[npt.NDArray[Any]]) -> None:
        """Raise if a guard was overwritten, or anything outside the arrays that may be written."""
        spans = [(a.ctypes.data, a.ctypes.data + a.nbytes) for a in written if a.nbytes]
        guard = bytes([_GUARD]) * _GUARD_BYTES
        for start, end, copy, base in self._regions:
            size = end - start
            if self._guarded and (
                ctypes.string_at(base, _GUARD_BYTES) != guard
                or ctypes.string_at(copy + size, _GUARD_BYTES) != guard
            ):
                raise ShimError(f"{where}: wrote outside an array of {size} bytes")
            changed = np.frombuffer(ctypes.string_at(start, size), np.uint8) != np.frombuffer(
                ctypes.string_at(copy, size), np.uint8
            )
            for first, last in spans:
                changed[max(first - start, 0) : max(last - start, 0)] = False
            if changed.any():
                raise ShimError(f"{where}: changed an array of {size} bytes that it takes as const")

    def free(self) -> None:
        for *_, base in self._regions:
            self._libc.free(base)
        self._regions.clear()


def _merged(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Join spans that overlap; arrays that only touch stay apart, each with its own guards."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
