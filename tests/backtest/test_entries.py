"""Rows behind entries: the right row, whatever the chunks; members one by one; what is usual for a column."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from gpuscalp.backtest import entries as module
from gpuscalp.backtest.entries import Entries, importance_ranks, strongest
from gpuscalp.contract import ColumnSpec
from gpuscalp.ensemble import Ensemble, Signals
from gpuscalp.schema import FeatureChunk, FrameBlock
from tests.backtest.market import MS, NOW, order
from tests.test_ensemble import COLUMNS, ensemble_of, stumps

SYMBOLS, FRAMES = 2, 50
SPECS = [ColumnSpec(f"c{index}", "bps", 1, 1, "test") for index in range(COLUMNS)]


def features(seed: int = 3) -> np.ndarray:
    """float32[S, F, T]."""
    return np.random.default_rng(seed).standard_normal((SYMBOLS, COLUMNS, FRAMES)).astype(np.float32)


def feed(target: Entries, ensemble: Ensemble, x: np.ndarray, sizes: list[int], wanted: list[tuple]) -> None:
    """Give chunks of these sizes, after asking for (symbol, frame) of each."""
    first = 0
    for size in sizes:
        part = x[:, :, first : first + size].copy()
        end_ns = NOW + 100 * MS * np.arange(first, first + size, dtype=np.int64)
        for symbol, frame in wanted:
            if first <= frame < first + size:
                target.want(order(1, 1.0, symbol_index=symbol, decided_ms=100.0 * frame))
        blank = np.zeros((size, SYMBOLS))
        block = FrameBlock(end_ns, blank[:, :, None], blank, blank, blank, blank)  # type: ignore[arg-type]
        signals: list[Signals] = [ensemble.predict(np.ascontiguousarray(rows.T)) for rows in part]
        target.add(ensemble, FeatureChunk(block, part), signals)
        part[:] = 7.0  # a chunk's memory may be used again
        first += size


class _Trade:
    def __init__(self, symbol: int, frame: int) -> None:
        self.symbol_index, self.entry_decided_ns = symbol, NOW + 100 * MS * frame


@pytest.mark.parametrize("sizes", [[50], [1] * 50, [7, 20, 23]])
def test_row_is_that_of_the_decision_and_members_are_predicted_alone(sizes: list[int]) -> None:
    ensemble, x = ensemble_of(stumps()), features()
    kept = Entries(SPECS, {})
    wanted = [(0, 0), (1, 0), (1, 19), (0, 49)]
    feed(kept, ensemble, x, sizes, wanted)
    for symbol, frame in wanted:
        row = kept.row(_Trade(symbol, frame))  # type: ignore[arg-type]
        np.testing.assert_array_equal(row.features, x[symbol, :, frame])
        said = ensemble.predict(np.ascontiguousarray(x[symbol, :, frame][None]))
        np.testing.assert_array_equal(row.probability, said.probability[0])
        # Vector scaling of each member's softmax, by the textbook.
        margins = said.margins[:, 0].astype(np.float64)
        logs = margins - np.log(np.exp(margins).sum(axis=1, keepdims=True))
        scaled = np.exp(ensemble.calibration.scale * logs + ensemble.calibration.bias)
        np.testing.assert_allclose(row.members, scaled / scaled.sum(axis=1, keepdims=True), rtol=1e-12)


def test_what_is_usual_does_not_depend_on_the_chunks_and_leaves_out_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_SAMPLE_ROWS_MAX", 30)
    ensemble, x = ensemble_of(stumps()), features()
    x[:, 1, ::2] = np.nan
    x[:, 2] = 4.0
    x[0, 3], x[1, 3] = 0.0, np.where(np.arange(FRAMES) % 16 == 0, 8.0, 0.0)
    found = []
    for sizes in ([50], [1] * 50, [7, 20, 23]):
        kept = Entries(SPECS, {})
        feed(kept, ensemble, x, sizes, [])
        found.append(kept.usual())
    # 50 frames in at most 15 places: every fourth one, of both symbols.
    rows = x[:, :, ::4].transpose(2, 0, 1).reshape(-1, COLUMNS).astype(np.float64)
    for usual in found:
        assert usual.row_count == len(rows) == 26
        assert usual.median[0] == np.median(rows[:, 0])
        low, high = np.quantile(rows[:, 0], (0.25, 0.75))
        assert usual.spread[0] == pytest.approx(high - low)
        assert np.isnan(usual.median[1])
        assert np.isnan(usual.spread[1])
        # Constant: no distance is known. Hardly ever another value: the quartiles are equal.
        assert (usual.median[2], np.isnan(usual.spread[2])) == (4.0, True)
        assert usual.spread[3] == pytest.approx(rows[:, 3].std())
        distance = usual.distance(np.array([usual.median[0] + 2 * usual.spread[0], 1, 4, 8], np.float32))
        assert distance[0] == pytest.approx(2.0, rel=1e-5)
        assert np.isnan(distance[1:3]).all()


def test_columns_are_shown_by_importance_and_else_by_how_unusual_they_are() -> None:
    distance = np.array([0.1, -5.0, np.nan, 3.0, 0.0])
    assert strongest([None] * 5, distance) == [1, 3, 0, 4, 2]
    assert strongest([2, None, None, None, 1], distance) == [4, 0, 1, 3, 2]


def test_ranks_come_from_the_bundle_where_it_has_them(tmp_path: Path) -> None:
    assert importance_ranks(tmp_path) == {}
    listed = [{"name": "b", "gain": 0.5, "permutation": 0.1}, {"name": "a", "gain": 0.5, "permutation": None}]
    (tmp_path / "result.json").write_text(json.dumps({"importance": listed}))
    assert importance_ranks(tmp_path) == {"b": 1, "a": 2}
    (tmp_path / "result.json").write_text("{")
    assert importance_ranks(tmp_path) == {}
