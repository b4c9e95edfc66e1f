"""Parts of a benchmark: one that fails is in the result with its error, and the others run all the same."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any


def attempt(name: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what a part has measured, or ``failed`` with its error."""
    print(f"{name} …", file=sys.stderr)
    try:
        return measure()
    except Exception as error:  # a defect here must not take the hours of the others with it
        traceback.print_exc()
        return {"failed": f"{type(error).__name__}: {error}"}


def failures(result: Mapping[str, Any]) -> list[str]:
    """Return the errors of all parts, of parts of parts too."""
    found = [result["failed"]] if isinstance(result.get("failed"), str) else []
    return found + [text for part in result.values() if isinstance(part, Mapping) for text in failures(part)]
