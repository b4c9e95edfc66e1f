"""Programs of other projects that some tests need."""

from __future__ import annotations

import os
import shutil

import pytest

from gpuscalp.errors import ConfigError
from gpuscalp.nautilus.installed import require


def tool(name: str) -> str:
    """Return the path of a program; skip the test where it is missing, fail it in continuous integration."""
    path = shutil.which(name)
    if path is None:
        reason = f"{name} is not installed (Debian's package prometheus brings it)"
        if os.environ.get("CI"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return path


def no_nautilus(least: str) -> str:
    """Return why there is no NautilusTrader of that version or a newer one; "" where there is."""
    try:
        require(least)
    except ConfigError as error:
        return f"{error.what} (extra nautilus; 1.231 needs Python 3.12 or newer)"
    return ""
