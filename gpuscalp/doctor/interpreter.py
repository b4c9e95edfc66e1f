"""The Python that runs this: its version and its width.

Owns: the check ``python``. Never: looks at packages (``gpuscalp.doctor.packages``).
"""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass
from typing import Final

from gpuscalp.doctor.check import Check, fail, ok

# As pyproject.toml says; written here because a checkout that runs uninstalled has no metadata.
OLDEST: Final = (3, 11)
NEWEST: Final = (3, 13)


@dataclass(frozen=True, slots=True)
class Interpreter:
    """``version``: major, minor, micro; ``pointer_bits``: 64 or 32."""

    implementation: str
    version: tuple[int, int, int]
    pointer_bits: int


def read_interpreter() -> Interpreter:
    """Return the facts about the running interpreter."""
    info = sys.version_info
    return Interpreter(
        sys.implementation.name, (info.major, info.minor, info.micro), 8 * struct.calcsize("P")
    )


def check_python(found: Interpreter) -> Check:
    """Refuse what the package was never tested on."""
    title = f"{found.implementation} {'.'.join(map(str, found.version))}, {found.pointer_bits} bit"
    value = {
        "implementation": found.implementation,
        "version": list(found.version),
        "pointer_bits": found.pointer_bits,
    }
    supported = f"CPython {OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]}, 64 bit"
    if (
        found.implementation == "cpython"
        and OLDEST <= found.version[:2] <= NEWEST
        and found.pointer_bits == 64
    ):
        return ok("python", title, value)
    fix = (
        f"install {supported}, and make the environment anew: make setup PYTHON=python{NEWEST[0]}.{NEWEST[1]}"
    )
    return fail("python", f"{title} is not supported: {supported}", fix, value)
