"""Every error that gpuscalp raises, as one family with stable exit codes.

    GpuscalpError               exit 1
    ├── UsageError              exit 2   the request makes no sense or names something that is not there
    │   └── UnusableSourceError
    ├── NotRunningError         exit 3
    ├── ConfigError             exit 4
    ├── DeadlineError           exit 5
    │   └── StartingError
    ├── DeviceError             exit 6
    │   └── KernelNotFoundError
    ├── ParityError             exit 7   bits differ, or a feature saw the future
    ├── ModelError              exit 8   a bundle that must not be used
    │   ├── FeatureMismatchError
    │   ├── MemberError
    │   └── CanaryError
    ├── RiskHaltedError         exit 9
    ├── ExecutionError          exit 1   an order was told what cannot happen to it
    ├── TrackingError           exit 1   MLflow's server or store cannot be used as asked
    └── DataError               exit 1
        ├── ShapeError                   an array of the wrong shape or dtype
        ├── DecodeError                  a message that cannot be read
        ├── ArchiveError                 an archive that is damaged or incomplete
        ├── JournalError                 a journal that is damaged, or a disk that refuses it
        └── FeedError                    a venue's server that cannot be used as asked

A message never shows a secret (gpuscalp.redaction), whatever it was made of.

The venue sending nonsense is a ``DecodeError`` and survivable; our own mistakes are ``assert``.
"""

from __future__ import annotations

import errno
from typing import Any, Final

from gpuscalp.redaction import redact

# What decoding raises of bytes that are no such document: msgspec's errors and that of a text that is not
# UTF-8 are ValueErrors, and what is nested too deep is the third kind.
UNREADABLE: Final = (ValueError, RecursionError)


class GpuscalpError(Exception):
    """Root of the family.

    Parameters
    ----------
    what : str
        One sentence: what is wrong.
    where : str, optional
        File, line, field, column or command the fault was found in.
    value : object, optional
        The offending value, as found.
    fix : str, optional
        What the reader can do about it.
    """

    exit_code: int = 1

    def __init__(
        self, what: str, *, where: str | None = None, value: object = None, fix: str | None = None
    ) -> None:
        super().__init__(redact(what))
        self.what = redact(what)
        self.where = None if where is None else redact(where)
        self.value = redact(value) if isinstance(value, str) else value
        self.fix = None if fix is None else redact(fix)

    def __str__(self) -> str:
        parts = [self.what]
        if self.where is not None:
            parts.append(f"where: {self.where}")
        if self.value is not None:
            parts.append(redact(f"value: {self.value!r}"))
        if self.fix is not None:
            parts.append(f"fix: {self.fix}")
        return "; ".join(parts)

    def to_dict(self) -> dict[str, object]:
        """Return the body of ``{"error": …}`` that every command prints with ``--json``."""
        return {
            "code": self.exit_code,
            "kind": type(self).__name__,
            "what": self.what,
            "where": self.where,
            "value": None if self.value is None else redact(str(self.value)),
            "fix": self.fix,
        }


class UsageError(GpuscalpError):
    exit_code = 2


class UnusableSourceError(UsageError):
    """A market data file of a known kind that an archive cannot be made of."""


class NotRunningError(GpuscalpError):
    exit_code = 3


class ConfigError(GpuscalpError):
    exit_code = 4


class DeadlineError(GpuscalpError):
    exit_code = 5


class StartingError(DeadlineError):
    """A process holds a session and takes no commands yet: most often it still repeats its journal."""


class DeviceError(GpuscalpError):
    exit_code = 6


class KernelNotFoundError(DeviceError):
    """The CUDA source of a kernel is neither in the package nor in the checkout."""


class ParityError(GpuscalpError):
    exit_code = 7


class ModelError(GpuscalpError):
    exit_code = 8


class FeatureMismatchError(ModelError):
    """The columns, windows, dtype or symbols of a bundle are not those of the running graph."""


class MemberError(ModelError):
    """A member file is missing, truncated or not the one the contract was written for."""


class CanaryError(ModelError):
    """The bundle does not reproduce its own expected outputs on this device."""


class RiskHaltedError(GpuscalpError):
    exit_code = 9


class ExecutionError(GpuscalpError):
    """An order, or a broker, was used against its rules; nothing was changed by it."""


class UnprotectedError(GpuscalpError):
    """A session has ended, and left at the exchange what nothing protects."""

    @classmethod
    def of(cls, left: str, session: object, failure: BaseException | None) -> UnprotectedError:
        """Say what is left, and what the session has failed of, if it has."""
        why = "" if failure is None else f"; it had failed: {failure}"
        return cls(
            f"the session has ended, and what is open at the exchange may have no stop{why}",
            where=str(session),
            value=left,
            fix="start the session again, or close it by hand at the exchange",
        )


class TrackingError(GpuscalpError):
    """MLflow's server or store cannot be used as asked."""


class DataError(GpuscalpError):
    pass


class ShapeError(DataError):
    pass


class DecodeError(DataError):
    pass


class ArchiveError(DataError):
    pass


class JournalError(DataError):
    pass


class FeedError(DataError):
    pass


def from_dict(told: dict[str, Any]) -> GpuscalpError:
    """Return the error that another process has told as ``to_dict``; the root's if its class is unknown."""
    named = globals().get(told["kind"])
    kind = named if isinstance(named, type) and issubclass(named, GpuscalpError) else GpuscalpError
    return kind(told["what"], where=told["where"], value=told["value"], fix=told["fix"])


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether memory ran out: in Python, in the system, or in XGBoost, which has one class for all."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    # By its name: whoever asks may not have loaded the library.
    foreign = type(error).__name__ == "XGBoostError" and "bad_alloc" in str(error)
    return foreign or isinstance(error, MemoryError)
