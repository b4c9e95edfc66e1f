"""Where a user's own files lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpuscalp.errors import ConfigError
from gpuscalp.user import user_folder


def test_folder_is_below_the_variable_or_else_the_home(monkeypatch):
    monkeypatch.setenv("HOME", "/u/me")
    assert user_folder("XDG_CACHE_HOME", ".cache", {"XDG_CACHE_HOME": "/c"}) == Path("/c/gpuscalp")
    assert user_folder("XDG_CACHE_HOME", ".cache", {"XDG_CACHE_HOME": ""}) == Path("/u/me/.cache/gpuscalp")


def test_user_without_home_is_told_what_to_set(monkeypatch):
    """A number that no file of users knows, as in a container: most commands ended with a traceback."""
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("os.getuid", lambda: 4_000_000_000)
    assert user_folder("XDG_CACHE_HOME", ".cache", {"XDG_CACHE_HOME": "/c"}) == Path("/c/gpuscalp")
    with pytest.raises(ConfigError, match="no home") as refused:
        user_folder("XDG_CACHE_HOME", ".cache", {})
    assert refused.value.fix == "set HOME, or XDG_CACHE_HOME"
