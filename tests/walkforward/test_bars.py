"""What a walk-forward must not miss: chance loses its costs, and who sees the future is found out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from gpuscalp.archive import Archive
from gpuscalp.backtest.run import Predictor
from gpuscalp.config import CostConfig, GridConfig, LabelConfig, WalkForwardConfig
from gpuscalp.ensemble import Signals
from gpuscalp.pipeline import FeaturePipeline
from gpuscalp.schema import NS_PER_MS, FeatureChunk
from gpuscalp.stats import Interval, stationary_bootstrap
from gpuscalp.walkforward import walk_forward_archive
from gpuscalp.walkforward.recorded import read_run
from tests.walkforward.market import CONFIG, write_market

# One account, nothing tried: the bars are about the signals.
ALONE: WalkForwardConfig = msgspec.structs.replace(
    CONFIG,
    steps=msgspec.structs.replace(CONFIG.steps, folds=2, min_train_fraction=0.5),
    tried=type(CONFIG.tried)(),
    judge=msgspec.structs.replace(CONFIG.judge, sizes=()),
)


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    """Copies of the leader's moves whose direction is a coin's: nothing can be known."""
    return write_market(tmp_path_factory.mktemp("market") / "archive", lag_strength=0.0)


def _peeking(self: FeaturePipeline, ticks) -> Iterator[FeatureChunk]:
    """Yield features that are a frame too early: each frame has those of the next."""
    last: FeatureChunk | None = None
    for chunk in _batch(self, ticks):
        if last is not None:
            yield FeatureChunk(last.frames, _moved(last.features, chunk.features[:, :, :1]))
        last = FeatureChunk(chunk.frames, chunk.features.copy())
    if last is not None:
        yield FeatureChunk(last.frames, _moved(last.features, last.features[:, :, -1:]))


def _moved(features: np.ndarray, after: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.concatenate([features[:, :, 1:], after], axis=2))


_batch = FeaturePipeline.batch


@pytest.mark.thorough
def test_strategy_that_peeks_one_frame_ahead_earns_more_and_is_caught(archive, tmp_path, monkeypatch):
    # A frame of half a second is worth more than the spread to who sees it coming.
    train = msgspec.structs.replace(
        ALONE.train,
        stride_frames=1,
        grid=GridConfig(frame_ms=500),
        label=LabelConfig(horizon_ms=500, threshold_bps=0.3),
    )
    backtest = msgspec.structs.replace(ALONE.backtest, cost=CostConfig(taker_fee_bps=0.0))
    config = msgspec.structs.replace(ALONE, train=train, backtest=backtest)
    honest = walk_forward_archive(archive, config=config, out=tmp_path / "honest", device="cpu", processes=1)
    monkeypatch.setattr(FeaturePipeline, "batch", _peeking)
    leaky = walk_forward_archive(archive, config=config, out=tmp_path / "leaky", device="cpu", processes=1)

    def pnl(found) -> tuple[int, Interval]:
        trades = read_run(Path(found.summary["base"])).trades
        rng = np.random.default_rng(3)
        return len(trades), stationary_bootstrap(trades.pnl, lambda x: float(x.sum()), rng=rng)

    count, earned = pnl(leaky)
    assert count > 30
    assert earned.low > 0
    # Nothing can be known here: without the peek the spread is lost.
    assert pnl(honest)[1].high < 0
    assert leaky.summary["random_entries"]["p_value"] < 0.01
    assert honest.summary["look_ahead"] == {"step-01": {}, "step-02": {}}
    for columns in leaky.summary["look_ahead"].values():
        assert any(name.startswith("signal.") for name in columns)
    assert leaky.summary["warnings"][0].startswith("LOOK-AHEAD: in step-01")
    assert not any(text.startswith("LOOK-AHEAD") for text in honest.summary["warnings"])
    assert "LOOK-AHEAD" in leaky.report.read_text(encoding="utf-8")


def test_random_signals_lose_about_their_costs_at_the_paper_broker(archive, tmp_path, monkeypatch):
    """Through strategy, risk gate and broker: what the mid did contains zero, the loss is what was paid."""

    def coin(self: Predictor, ensemble, chunk: FeatureChunk) -> list[Signals]:
        rng = np.random.default_rng(int(chunk.frames.end_ns[0]) % 2**32)
        count, found = len(chunk.frames), []
        for _ in chunk.features:
            side = rng.choice([-1.0, 1.0], count)
            sure = np.stack([side < 0, side == 0, side > 0], axis=-1).astype(np.float64)
            margins = np.zeros((1, count, 3), np.float32)
            found.append(Signals(sure, np.ones(count), np.zeros(count), 5.0 * side, margins, sure))
        return found

    monkeypatch.setattr(Predictor, "__call__", coin)
    found = walk_forward_archive(archive, config=ALONE, out=tmp_path / "coin", device="cpu", processes=1)
    trades = read_run(Path(found.summary["base"])).trades
    assert len(trades) > 100
    rng = np.random.default_rng(3)
    moved = stationary_bootstrap(trades.gross + trades.delay, lambda x: float(x.sum()), rng=rng)
    assert moved.low < 0 < moved.high
    paid = float(trades.spread.sum() - trades.fees.sum())
    net = stationary_bootstrap(trades.pnl, lambda x: float(x.sum()), rng=rng)
    assert paid < 0
    assert net.low < paid < net.high < 0
    # The cheap fills of the comparison say the same of chance: the run is one draw among others.
    against = found.summary["random_entries"]
    assert against["p_value"] > 0.02
    assert against["mean_usdt"] == pytest.approx(-against["costs_usdt"], rel=0.25)
    assert against["high_usdt"] < 0


def test_training_that_reads_into_the_embargo_is_refused(archive, tmp_path, monkeypatch):
    """A label that reads past the end of the training: the model is not kept, and the walk ends."""
    from gpuscalp.errors import ModelError
    from gpuscalp.train.source import ArchiveSource

    opened = ArchiveSource.open.__func__

    def careless(cls, archive: Archive, config, *, end_ns=None, **rest):
        late = None if end_ns is None else end_ns + 2_000 * NS_PER_MS
        return opened(cls, archive, config, end_ns=late, **rest)

    monkeypatch.setattr(ArchiveSource, "open", classmethod(careless))
    with pytest.raises(ModelError, match="reach into the embargo"):
        walk_forward_archive(archive, config=ALONE, out=tmp_path / "out", device="cpu", processes=1)
    assert not list((tmp_path / "out" / "models").rglob("contract.json"))
