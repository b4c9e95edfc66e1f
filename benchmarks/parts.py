"""Parts of a benchmark: one that fails is in the result with its error, and the others run all the same.

What has been measured is kept after each of them: a run that is ended in one keeps those before it.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Collection, Mapping
from typing import Any

# Told what there is, after each part.
Keep = Callable[[dict[str, Any]], None]


def attempt(name: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what a part has measured, or ``failed`` with its error."""
    print(f"{name} …", file=sys.stderr)
    try:
        return measure()
    except Exception as error:  # a defect here must not take the hours of the others with it
        traceback.print_exc()
        return {"failed": f"{type(error).__name__}: {error}"}


def attempt_each(
    name: str,
    parts: Mapping[str, Callable[[], dict[str, Any]]],
    *,
    only: Collection[str] = (),
    keep: Keep | None = None,
) -> dict[str, Any]:
    """Attempt the parts of a benchmark, or ``only`` some, in their order; return what they have measured."""
    result: dict[str, Any] = {}
    for part, measure in parts.items():
        if part in only or not only:
            result[part] = attempt(f"{name}: {part}", measure)
            if keep is not None:
                keep(result)
    return result


def failures(result: Mapping[str, Any]) -> list[str]:
    """Return the errors of all parts, of parts of parts too."""
    found = [result["failed"]] if isinstance(result.get("failed"), str) else []
    return found + [text for part in result.values() if isinstance(part, Mapping) for text in failures(part)]
