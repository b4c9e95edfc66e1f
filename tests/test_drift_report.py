"""The picture of `gpuscalp drift`: what is in it, and that nothing of it lies outside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from gpuscalp.drift.alarm import BLOCKS_BETWEEN_ALARMS
from gpuscalp.drift_report import _draw, _draw_alarm, _draw_auc, drift
from gpuscalp.errors import UsageError

AUC = {"auc": 0.55, "low": 0.12, "high": 1.08, "floor": 0.52, "floor_max": 0.58, "stands_out": False}
NS = 1_000_000_000


def group(auc: dict[str, Any] | None) -> dict[str, Any]:
    return {"psi": 0.1, "psi_low": 0.05, "psi_high": 0.2, "psi_largest": 0.3, "column": "a.b", "auc": auc}


def alarm(*evidence: float) -> dict[str, Any]:
    starts = [1_700_000_000 * NS + step * 60 * NS for step in range(len(evidence))]
    return {
        "evidence": list(evidence), "start_ns": starts, "block_s": 60.0, "threshold": BLOCKS_BETWEEN_ALARMS,
    }  # fmt: skip


@pytest.mark.parametrize("auc", [None, AUC])
@pytest.mark.parametrize("blocks", [None, (), (2.0,), (2.0, 1e6)])
def test_picture_has_a_panel_for_what_there_is_and_no_other(
    tmp_path: Path, auc: dict[str, Any] | None, blocks: tuple[float, ...] | None
) -> None:
    told = None if blocks is None else alarm(*blocks)
    _draw({"groups": {"a": group(auc), "b": group(auc)}, "alarm": told}, tmp_path / "drift.svg")
    picture = (tmp_path / "drift.svg").read_text()
    assert "mean stability index, 95 %; dashed: 0.25" in picture
    assert ("AUC of telling" in picture) == (auc is not None)
    assert ("evidence of drift" in picture) == bool(blocks)


def test_whole_intervals_lie_in_the_picture() -> None:
    """Its limits were 0.3 and 1, whatever the intervals were."""
    panel = Figure().subplots()
    _draw_auc(panel, [1, 0], [AUC, None])
    low, high = panel.get_xlim()
    assert low < AUC["low"]
    assert high > AUC["high"]


def test_single_block_of_evidence_is_a_line() -> None:
    """A step without an end has no length: the panel was empty."""
    panel = Figure().subplots()
    _draw_alarm(panel, alarm(2.0))
    time, evidence = panel.lines[0].get_data()
    assert (time[-1] - time[0]).astype("timedelta64[ms]").astype(int) == 60_000
    assert evidence.tolist() == [2.0, 2.0]


def test_picture_of_another_type_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown type of picture"):
        drift(tmp_path / "model", tmp_path / "archive", out=tmp_path / "drift.html")
