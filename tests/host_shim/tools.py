"""What the kernel tests need beside Python, and what its absence means."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def skip_without(reason: str) -> NoReturn:
    """Skip the running test; in continuous integration fail it, where a skip would pass for a check."""
    if os.environ.get("CI"):
        pytest.fail(f"CI is set, but {reason}", pytrace=False)
    pytest.skip(reason)
