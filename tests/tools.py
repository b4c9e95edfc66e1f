"""Programs of other projects that some tests need."""

from __future__ import annotations

import os
import shutil

import pytest


def tool(name: str) -> str:
    """Return the path of a program; skip the test where it is missing, fail it in continuous integration."""
    path = shutil.which(name)
    if path is None:
        reason = f"{name} is not installed (Debian's package prometheus brings it)"
        if os.environ.get("CI"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return path
