"""Which test executes which entry point. A kernel that nobody executes fails the table test."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec

from tests.host_shim.host_kernel import LAUNCHES

P = ParamSpec("P")

# (stem, entry) -> names of the tests that execute it
COVERED: dict[tuple[str, str], list[str]] = {}


def covers(stem: str, *entries: str) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Declare that every run of a test launches ``entries`` of ``kernels/<stem>.cu`` on the host.

    The promise is checked: a run that passes without having launched one of them fails.
    """

    def mark(test: Callable[P, None]) -> Callable[P, None]:
        for entry in entries:
            COVERED.setdefault((stem, entry), []).append(getattr(test, "__name__", "?"))

        @functools.wraps(test)
        def run(*args: P.args, **kwargs: P.kwargs) -> None:
            before = LAUNCHES.copy()
            test(*args, **kwargs)
            idle = [entry for entry in entries if LAUNCHES[stem, entry] == before[stem, entry]]
            assert not idle, f"{stem}.cu: never launched: {', '.join(idle)}"

        return run

    return mark
