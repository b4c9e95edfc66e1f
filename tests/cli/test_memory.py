"""What a command says where memory ran out."""

from __future__ import annotations

import errno
import json
from types import SimpleNamespace
from typing import Any

import pytest

from gpuscalp.cli import run


@pytest.mark.parametrize(
    ("error", "value"),
    [
        (MemoryError(), None),
        (MemoryError("Unable to allocate 9 TiB"), "Unable to allocate 9 TiB"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "[Errno 12] Cannot allocate memory"),
    ],
)
def test_lack_of_memory_is_no_defect(
    error: Exception, value: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A table that was larger than the machine was a traceback, and to be reported."""

    def fail(**_: Any) -> None:
        raise error

    monkeypatch.setattr("gpuscalp.cli.command_tree", lambda: SimpleNamespace(main=fail))
    assert run(["features", "compute", "archive", "--json"]) == 1
    shown = capsys.readouterr()
    told = json.loads(shown.out)["error"]
    assert (told["what"], told["value"], shown.err) == ("memory ran out", value, "")
    assert "shorter range" in told["fix"]
