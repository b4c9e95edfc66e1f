"""What one check says, and what all of them say together.

Owns: the four statuses, their JSON, and which failure decides the exit code. Never: looks at a machine.

A check is made in two steps that stand side by side in the other files of this package: ``read_…`` or
``probe_…`` collects facts, ``check_…`` judges them. The judges are pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

from msgspec import Struct

from gpuscalp.errors import (
    ConfigError,
    DeadlineError,
    DeviceError,
    GpuscalpError,
    ModelError,
)

Status = Literal["ok", "warn", "fail", "skip"]

# Exit codes of failed checks, the most important first: without a configuration nothing else counts, a device
# or a model that cannot be used stays so, a server that does not answer may answer in a minute.
PRIORITY: Final = tuple(
    kind.exit_code for kind in (ConfigError, DeviceError, ModelError, DeadlineError, GpuscalpError)
)


class Check(Struct, frozen=True):
    """The outcome of one check.

    Attributes
    ----------
    name : stands in ``--json`` and never changes its meaning
    what : one sentence: what was found
    fix : how to mend it; None where there is nothing to mend
    value : the facts it was judged by, ready for JSON
    code : exit code of a failure; 0 for the other statuses
    """

    name: str
    status: Status
    what: str
    fix: str | None = None
    value: Any = None
    code: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return one entry of ``checks`` in the answer of ``doctor --json``."""
        return {
            "name": self.name,
            "status": self.status,
            "what": self.what,
            "fix": self.fix,
            "value": self.value,
        }


def ok(name: str, what: str, value: Any = None) -> Check:
    return Check(name, "ok", what, value=value)


def warn(name: str, what: str, fix: str, value: Any = None) -> Check:
    """A session would run, and worse than it could."""
    return Check(name, "warn", what, fix, value)


def skip(name: str, why: str, value: Any = None) -> Check:
    """It cannot be known here, or it was not asked for."""
    return Check(name, "skip", why, value=value)


def fail(
    name: str, what: str, fix: str, value: Any = None, *, kind: type[GpuscalpError] = GpuscalpError
) -> Check:
    """A session would not run, or must not. ``kind`` decides the exit code."""
    code = kind.exit_code if kind.exit_code in PRIORITY else GpuscalpError.exit_code
    return Check(name, "fail", what, fix, value, code)


def failed_by(name: str, error: GpuscalpError, *, fix: str) -> Check:
    """Return the failure that an error stands for; ``fix`` where it names none itself."""
    what = error.what if error.where is None else f"{error.what} ({error.where})"
    value = None if error.value is None else str(error.value)
    return fail(name, what, error.fix or fix, value, kind=type(error))


class Diagnosis(Struct, frozen=True):
    """All checks, in the order in which they are told."""

    checks: tuple[Check, ...]

    @property
    def status(self) -> Status:
        """The worst status; ``skip`` only where nothing at all was checked."""
        found = {check.status for check in self.checks}
        return next((status for status in _WORST_FIRST if status in found), "skip")

    @property
    def exit_code(self) -> int:
        """0 without a failure; else the code of the failed check that stands first in ``PRIORITY``."""
        return worst_code([check.code for check in self.checks if check.status == "fail"])

    def to_dict(self) -> dict[str, Any]:
        """Return what ``doctor --json`` prints."""
        return {
            "status": self.status,
            "code": self.exit_code,
            "checks": [check.to_dict() for check in self.checks],
        }


_WORST_FIRST: Final[tuple[Status, ...]] = ("fail", "warn", "ok")


def worst_code(codes: Sequence[int]) -> int:
    """Return the code that stands first in ``PRIORITY``; 0 for no codes."""
    return min(codes, key=PRIORITY.index, default=0)
