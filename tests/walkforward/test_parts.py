"""The list of finished parts."""

from __future__ import annotations

import pytest

from gpuscalp.errors import DataError
from gpuscalp.walkforward.parts import Parts


def test_part_that_is_not_there_is_not_noted_as_finished(tmp_path):
    """Noted with no files it was passed over by every later call, which then found no bundle."""
    (tmp_path / "models" / "step-01").mkdir(parents=True)
    parts = Parts(tmp_path)
    for name in ("step-01", "step-02"):
        with pytest.raises(DataError, match="missing or empty"):
            parts.add(tmp_path / "models" / name)
        assert not parts.finished(tmp_path / "models" / name)
