"""Compiles a ``.cu`` file for the host: finds its entry points, rewrites what C++ lacks, calls ``g++``."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

SHIM_DIR = Path(__file__).parent
SOURCES = ("cuda_shim.h", "block_runner.h", "race_check.h", "race_check.cpp")

# -ffp-contract=off: the compiler's default would fuse a*b+c where the machine can. -fvisibility=hidden: two
# libraries loaded side by side must not share the scheduler's functions.
CXX_OPTIONS = (
    "-std=c++17",
    "-O2",
    "-ffp-contract=off",
    "-fno-fast-math",
    "-fno-strict-aliasing",
    "-fvisibility=hidden",
    "-shared",
    "-fPIC",
    "-Wall",
    "-Werror=uninitialized",
    "-Werror=return-type",
)
Watch = Literal["memory", "races"]
WATCH_OPTIONS: Mapping[Watch | None, tuple[str, ...]] = {
    None: (),
    # The first fault ends the process: a test runs these builds in a process of their own. -O0 leaves every
    # load to watch, and what watches them is compiled in a quarter of the time.
    "memory": (
        "-O0",
        "-g",
        "-fsanitize=address,undefined,float-cast-overflow",
        "-fno-sanitize-recover=all",
        "-fno-omit-frame-pointer",
    ),
    # The compiler's calls alone: race_check.cpp answers them, not the library that knows of real threads.
    "races": ("-O0", "-g", "-fsanitize=thread"),
}

Defines = Mapping[str, int | str]

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_ENTRY = re.compile(
    r"__global__\s+(?:__launch_bounds__\s*\(([^;{]*?)\)\s*)?void\s+"
    r"(?:__launch_bounds__\s*\(([^;{]*?)\)\s*)?([A-Za-z_]\w*)\s*\("
)
_DYNAMIC_SHARED = re.compile(
    r"extern\s+__shared__\s+(?:__align__\s*\(\s*\d+\s*\)\s*)?"
    r"([A-Za-z_][\w ]*?)\s+([A-Za-z_]\w*)\s*\[\s*\]\s*;"
)
_LINKAGE_BLOCK = re.compile(r'extern\s+"C"\s*\{')


class ShimError(Exception):
    """A kernel that cannot be built for, or launched on, the host; or one that misbehaved there."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry point as the source declares it; ``bounds`` is the text inside ``__launch_bounds__``."""

    name: str
    bounds: str | None


def compiler() -> str | None:
    """Return the path of ``g++`` on Linux, or ``None``."""
    # Elsewhere the name belongs to another compiler, whose objects have no sections of the shim's form.
    return shutil.which("g++") if sys.platform == "linux" else None


def entries_of(source: str) -> tuple[Entry, ...]:
    """Return the ``__global__`` functions of a source, in its order.

    Raises
    ------
    ShimError
        If one is declared in a form that is not understood, so that none is overlooked.
    """
    text = _without_comments(source)
    found = tuple(
        Entry(match[3], (match[1] or match[2] or "").split(",")[0].strip() or None)
        for match in _ENTRY.finditer(text)
    )
    if len(found) != text.count("__global__"):
        raise ShimError(
            'an entry point is declared in an unknown form; write extern "C" __global__ void name(…)'
        )
    return found


def translate(source: str, name: str) -> str:
    """Return the C++ text of a kernel: the shim, the source with its dynamic shared memory, the exports."""
    text = _without_comments(source)
    for match in _DYNAMIC_SHARED.finditer(text):
        before = _LINKAGE_BLOCK.sub("", text[: match.start()])
        if before.count("{") <= before.count("}"):
            raise ShimError(f"{name}: declare extern __shared__ inside the kernel, not at file scope")
    # The library's memory starts at another address in each launch, so the array becomes a pointer.
    text = _DYNAMIC_SHARED.sub(
        r"\1* const \2 = reinterpret_cast<\1*>(::shim::runner.dynamic_shared());", text
    )
    exports = [f"SHIM_ENTRY({entry.name}, {entry.bounds or 1024})" for entry in entries_of(source)]
    return "\n".join(['#include "cuda_shim.h"', f'#line 1 "{name}"', text, *exports, ""])


def build(source: str, name: str, *, defines: Defines | None = None, watch: Watch | None = None) -> Path:
    """Compile a kernel into a shared library and return its path; unchanged input is compiled once.

    ``watch``: build in the sanitizers of memory and undefined behaviour, or the check for races.

    Raises
    ------
    ShimError
        If there is no ``g++`` or it refuses the source; the message holds its log.
    """
    cxx = compiler()
    if cxx is None:
        raise ShimError("there is no g++ for Linux on this machine")
    options = (*CXX_OPTIONS, *WATCH_OPTIONS[watch], *define_options(defines))
    text = translate(source, name)
    digest = hashlib.sha256()
    for part in (_version(cxx), *options, *((SHIM_DIR / header).read_text() for header in SOURCES), text):
        digest.update(part.encode() + b"\0")
    library = _cache_dir() / f"{Path(name).stem}-{digest.hexdigest()[:24]}.so"
    if library.exists():
        return library
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        unit = Path(folder) / "unit.cpp"
        unit.write_text(text)
        made = Path(folder) / "unit.so"
        if watch == "races":
            compiled = Path(folder) / "unit.o"
            _run([cxx, *options, "-c", f"-I{SHIM_DIR}", str(unit), "-o", str(compiled)], name)
            runtime = str(SHIM_DIR / "race_check.cpp")
            _run([cxx, *CXX_OPTIONS, "-Wl,-z,defs", str(compiled), runtime, "-o", str(made)], name)
        else:
            _run([cxx, *options, f"-I{SHIM_DIR}", str(unit), "-o", str(made)], name)
        # Other test processes may build the same file: each renames a complete one into place.
        made.replace(library)
    return library


def define_options(defines: Defines | None) -> tuple[str, ...]:
    """Return ``-DNAME=VALUE`` options in the order of the names."""
    options = []
    for name, value in sorted((defines or {}).items()):
        assert _IDENTIFIER.fullmatch(name), name
        assert isinstance(value, int | str), (name, value)
        options.append(f"-D{name}={int(value) if isinstance(value, int) else value}")
    return tuple(options)


def _without_comments(source: str) -> str:
    """Blank out comments, keeping line numbers. Our kernels hold no string literals but ``"C"``."""
    return _COMMENT.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), source)


def with_lines(text: str, library: Path) -> str:
    """Return a message of ``race_check.cpp`` with a line of the source for each ``<offset>``."""

    def line(offset: re.Match[str]) -> str:
        command = ["addr2line", "-s", "-e", str(library), offset[1]]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()[
            0
        ]

    return re.sub(r"<(0x[0-9a-f]+)>", line, text)


def _run(command: Sequence[str], name: str) -> None:
    outcome = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    if outcome.returncode != 0:
        raise ShimError(f"{name} does not compile for the host:\n{outcome.stderr}")


@cache
def _version(cxx: str) -> str:
    return subprocess.run([cxx, "--version"], capture_output=True, text=True, check=True, timeout=60).stdout


def _cache_dir() -> Path:
    folder = Path(tempfile.gettempdir()) / f"gpuscalp-host-shim-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise ShimError(f"{folder} belongs to somebody else; a library from there would not be ours")
    return folder
