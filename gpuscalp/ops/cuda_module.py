"""Compiles ``kernels/*.cu`` and loads them; the one place that knows a compiler option.

Owns the options that keep the bits (no fused multiply-add, IEEE division and square root, denormals kept),
what they make of a source (kept on disk by ``kernel_cache``) and the modules loaded so far. Never launches a
kernel and never falls back.

CuPy's ``RawModule`` is not used: for source code it appends ``-ftz=true`` behind the caller's options (seen
in CuPy 14.2, ``compiler.py``), and the last one wins, so every float32 kernel would flush denormals to zero
and differ from its CPU twin. Here NVRTC is called directly and CuPy gets the finished binary.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec

from gpuscalp.device import import_cupy, nvrtc_version
from gpuscalp.errors import DeviceError
from gpuscalp.ops.kernel_cache import cache_folder, entry_path, load_entry, store_entry
from gpuscalp.ops.kernel_source import load_kernel_source

NVRTC_OPTIONS = (
    "--std=c++17",
    "--fmad=false",
    "--prec-div=true",
    "--prec-sqrt=true",
    "--ftz=false",
)

# What a block may use without asking; more must be named when the function is fetched.
DEFAULT_DYNAMIC_SHARED_BYTES = 48 * 1024


@dataclass(frozen=True, slots=True)
class CompiledSource:
    """What NVRTC made of one source for one architecture.

    Parameters
    ----------
    binary : bytes
        A cubin; PTX where the device is newer than every architecture that this NVRTC knows.
    ptx : str
        The intermediate code, for tests and for the curious.
    log : str
        Messages of the compiler, with registers and spills of every entry point.
    """

    binary: bytes
    ptx: str
    log: str


class Kernel(Protocol):
    """An entry point; called like CuPy's kernels.

    Scalars must be NumPy scalars of the parameter's exact type: a Python ``int`` would be passed as 64 bits.
    """

    def __call__(
        self, grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...], *, shared_mem: int = 0
    ) -> None: ...


class KernelModule(Protocol):
    """The entry points of one compiled source on one device."""

    def get_function(self, name: str, *, max_dynamic_shared_bytes: int = ...) -> Kernel: ...


def load_module(stem: str) -> KernelModule:
    """Return ``kernels/<stem>.cu``, compiled for and loaded on the current device.

    Parameters
    ----------
    stem : str
        Name of the kernel file without its suffix.

    Returns
    -------
    KernelModule
        The same object for the same source and device; it lives as long as the process.

    Raises
    ------
    DeviceError
        If there is no CuPy, or the source does not compile (``value`` is the log) or load.
    KernelNotFoundError
        If there is no such source.
    """
    cupy = import_cupy()
    device_index = int(cupy.cuda.runtime.getDevice())
    key = (stem, device_index)
    with _LOCK:
        module = _MODULES.get(key)
        if module is None:
            module = _MODULES[key] = _build(cupy, stem)
    return module


def compile_kernel(stem: str, *, arch: str, binary: bool = True) -> CompiledSource:
    """Return ``kernels/<stem>.cu`` compiled, from the disk if this compiler has made it before.

    Parameters and errors are those of ``compile_source``, and KernelNotFoundError.
    """
    path, source = _entry(stem, arch=arch, binary=binary)
    kept = load_entry(path)
    if kept is not None:
        return msgspec.msgpack.decode(kept, type=CompiledSource)
    compiled = compile_source(source, f"{stem}.cu", arch=arch, binary=binary)
    store_entry(path, msgspec.msgpack.encode(compiled))
    return compiled


def is_compiled(stem: str, *, arch: str, binary: bool = True) -> bool:
    """Say whether ``compile_kernel`` would find a source on the disk."""
    path, _ = _entry(stem, arch=arch, binary=binary)
    return load_entry(path) is not None


def compile_source(source: str, name: str, *, arch: str, binary: bool = True) -> CompiledSource:
    """Compile CUDA C++ with NVRTC; needs no GPU and no driver.

    Parameters
    ----------
    source : str
        The whole text; there is no include path.
    name : str
        Stands in messages, for instance ``"forest.cu"``.
    arch : str
        Digits of a compute capability: ``"90"`` is 9.0, ``"120"`` is 12.0.
    binary : bool
        False makes PTX only, which a newer driver finishes itself.

    Raises
    ------
    DeviceError
        If NVRTC is missing or refuses the source; then ``value`` is its log.
    """
    nvrtc = import_cupy().cuda.nvrtc
    target = _target_name(arch, binary)
    try:
        program = nvrtc.createProgram(source, name, [], [])
    except Exception as error:
        # A missing libnvrtc arrives as RuntimeError, ImportError or an error of cuda-pathfinder, by version.
        raise DeviceError(
            "NVRTC cannot be loaded",
            where="libnvrtc",
            value=error,
            fix="make setup DEVICE=cuda13 or DEVICE=cuda12 in the checkout",
        ) from error
    try:
        nvrtc.compileProgram(program, _options(target, binary))
        ptx = _text(nvrtc.getPTX(program))
        made = nvrtc.getCUBIN(program) if binary else ptx.encode()
        log = _text(nvrtc.getProgramLog(program))
        # Two compilations differ in nothing else: without it an image can be made twice with the same bytes.
        told = [line for line in log.splitlines() if "Compile time" not in line]
        return CompiledSource(made, ptx, "\n".join(told))
    except nvrtc.NVRTCError as error:
        raise DeviceError(
            f"{name} does not compile for {target}",
            where=name,
            value=_text(nvrtc.getProgramLog(program)) or error,
            fix="a released kernel always compiles: check that NVRTC and gpuscalp were not edited or mixed",
        ) from error
    finally:
        nvrtc.destroyProgram(program)


class _CudaModule:
    """A module of CuPy whose functions are looked up once."""

    def __init__(self, cupy: Any, module: Any, stem: str) -> None:
        self._cupy = cupy
        self._module = module
        self._stem = stem
        self._functions: dict[str, Any] = {}
        self._shared_bytes: dict[str, int] = {}

    def get_function(
        self, name: str, *, max_dynamic_shared_bytes: int = DEFAULT_DYNAMIC_SHARED_BYTES
    ) -> Kernel:
        function = self._functions.get(name)
        if function is None:
            function = self._functions[name] = self._fetch(name)
        # The limit is the function's, whoever asks: it is only ever raised.
        if max_dynamic_shared_bytes > self._shared_bytes.get(name, DEFAULT_DYNAMIC_SHARED_BYTES):
            self._allow(name, function, max_dynamic_shared_bytes)
            self._shared_bytes[name] = max_dynamic_shared_bytes
        return function  # type: ignore[no-any-return]

    def _fetch(self, name: str) -> Any:
        try:
            return self._module.get_function(name)
        except self._cupy.cuda.driver.CUDADriverError as error:
            raise DeviceError(
                f"entry point {name!r} cannot be used",
                where=f"{self._stem}.cu",
                value=error,
                fix="the kernel and its launcher are of different versions: reinstall gpuscalp",
            ) from error

    def _allow(self, name: str, function: Any, shared_bytes: int) -> None:
        driver = self._cupy.cuda.driver
        try:
            attribute = driver.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            driver.funcSetAttribute(function.ptr, attribute, shared_bytes)
        except driver.CUDADriverError as error:
            raise DeviceError(
                f"a block of {name!r} needs {shared_bytes} bytes of shared memory, more than this GPU gives",
                where=f"{self._stem}.cu",
                value=error,
                fix="use shorter windows, or --device cpu",
            ) from error


_LOCK = threading.Lock()
_MODULES: dict[tuple[str, int], KernelModule] = {}


def _build(cupy: Any, stem: str) -> KernelModule:
    capability = str(cupy.cuda.Device().compute_capability)
    arch, binary = target_of(capability)
    compiled = compile_kernel(stem, arch=arch, binary=binary)
    module = cupy.cuda.Module()
    try:
        module.load(compiled.binary)
    except cupy.cuda.driver.CUDADriverError as error:
        raise DeviceError(
            f"the driver refuses {stem}.cu",
            where=f"compute capability {capability}",
            value=error,
            fix="update the NVIDIA driver, or use --device cpu",
        ) from error
    return _CudaModule(cupy, module, stem)


def known_archs() -> list[int]:
    """Return the architectures that NVRTC compiles for, ascending: 75 is compute capability 7.5.

    Raises
    ------
    DeviceError    CuPy or NVRTC is missing
    """
    nvrtc_version()
    return sorted(int(arch) for arch in import_cupy().cuda.nvrtc.getSupportedArchs())


def target_of(capability: str) -> tuple[str, bool]:
    """Return the architecture to compile for and whether to make machine code.

    A card newer than NVRTC gets PTX of the newest architecture known, which its driver finishes.

    Parameters
    ----------
    capability : digits of the card's compute capability, such as "90"

    Raises
    ------
    DeviceError    the card is older than all that NVRTC compiles for
    """
    wanted, known = int(capability), known_archs()
    if wanted in known:
        return capability, True
    older = [arch for arch in known if arch < wanted]
    if not older:
        raise DeviceError(
            "the GPU is too old for this NVRTC",
            where="compute capability",
            value=capability,
            fix=f"NVRTC compiles for {known[0]} and newer: make setup DEVICE=cuda12, or use --device cpu",
        )
    return str(older[-1]), False


def _entry(stem: str, *, arch: str, binary: bool) -> tuple[Path, str]:
    """Return where a compiled source is kept, and the source."""
    source, target = load_kernel_source(stem), _target_name(arch, binary)
    parts = (source, nvrtc_version(), *_options(target, binary))
    return entry_path(cache_folder(), stem, target, parts), source


def _target_name(arch: str, binary: bool) -> str:
    return f"{'sm' if binary else 'compute'}_{arch}"


def _options(target: str, binary: bool) -> tuple[str, ...]:
    verbose = ("--ptxas-options=-v",) if binary else ()
    return (f"--gpu-architecture={target}", *NVRTC_OPTIONS, *verbose)


def _text(message: str | bytes) -> str:
    """Return NVRTC's strings without the byte 0 that ends them; CuPy gives some of them as bytes."""
    return (message.decode() if isinstance(message, bytes) else message).rstrip("\0\n ")
