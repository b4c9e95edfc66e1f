"""The list of finished parts, and the file that a walk begins with."""

from __future__ import annotations

import pytest

from gpuscalp.errors import DataError, UsageError
from gpuscalp.files import pretty
from gpuscalp.walkforward.parts import Parts
from gpuscalp.walkforward.run import _opened


def test_part_that_is_not_there_is_not_noted_as_finished(tmp_path):
    """Noted with no files it was passed over by every later call, which then found no bundle."""
    (tmp_path / "models" / "step-01").mkdir(parents=True)
    parts = Parts(tmp_path)
    for name in ("step-01", "step-02"):
        with pytest.raises(DataError, match="missing or empty"):
            parts.add(tmp_path / "models" / name)
        assert not parts.finished(tmp_path / "models" / name)


def test_walk_that_was_killed_while_it_wrote_its_first_file_is_begun_anew(tmp_path):
    """It could neither be gone on with nor be begun again."""
    frozen, file = {"hash": "one", "threads": 2}, tmp_path / "config.json"
    for written in (0, 7):
        file.write_bytes(pretty(frozen)[:written])
        with _opened(tmp_path, frozen, resume=True):
            assert file.read_bytes() == pretty(frozen)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "forest.npz").write_bytes(b"trees")
    Parts(tmp_path).add(tmp_path / "models")
    # Where parts are finished it was written whole, so this is damage.
    file.write_bytes(b"{")
    with pytest.raises(UsageError, match="another walk-forward"), _opened(tmp_path, frozen, resume=True):
        pass
