"""Instants as text, and back.

Owns: the forms in which commands take a time and show one. Within the program time is int64 ns, UTC.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from gpuscalp.errors import UsageError

# Not of gpuscalp.schema: a command that only prints its help pays for NumPy.
_NS_PER_S: Final = 1_000_000_000


def parse_time(text: str | None, where: str) -> int | None:
    """Return an ISO time as ns since 1970; a time without a zone is UTC.

    Parameters
    ----------
    where : the option or key that it is the value of

    Raises
    ------
    UsageError
        it is no ISO time
    """
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            "not a time", where=where, value=text, fix="write it as 2024-07-18 or 2024-07-18T23:58:30"
        ) from None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    whole = round(moment.timestamp() * 1e6)  # a float64 of seconds holds microseconds, not nanoseconds
    return whole * 1_000


def require_ns(**times: object) -> None:
    """Refuse a time that is no integer; None is one that is open.

    Parameters
    ----------
    times : by the names of the arguments, as the caller of a public function wrote them

    Raises
    ------
    UsageError
    """
    for name, time in times.items():
        if time is not None and not hasattr(time, "__index__"):
            raise UsageError(
                "a time is an integer: nanoseconds since 1970, UTC",
                where=name,
                value=f"{time!r} ({type(time).__name__})",
                fix='of a text it is pandas.Timestamp("2024-07-18 23:58:30", tz="UTC").value, '
                "of a pandas.Timestamp its value",
            )


def utc(time_ns: int) -> str:
    """Return an instant for people, in whole seconds: ``2024-07-18 23:58:30``."""
    moment = _moment(time_ns)
    return f"{time_ns} ns" if moment is None else moment.strftime("%Y-%m-%d %H:%M:%S")


def iso(time_ns: int) -> str:
    """Return an instant for programs, in whole seconds: ``2024-07-18T23:58:30+00:00``."""
    moment = _moment(time_ns)
    return f"{time_ns} ns" if moment is None else moment.isoformat()


def _moment(time_ns: int) -> datetime | None:
    """Return an instant in whole seconds; None beyond the years 1 to 9999, which a caller may ask for."""
    try:
        return datetime.fromtimestamp(time_ns // _NS_PER_S, UTC)
    except (OverflowError, ValueError):
        return None
