"""What the examination for look-ahead reaches: also the columns that take long to have a value."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from gpuscalp.archive import Archive
from gpuscalp.config import FeatureConfig
from gpuscalp.contract import Interval
from gpuscalp.features import FeatureGraph
from gpuscalp.leakage import Finding
from gpuscalp.pipeline import FeaturePipeline
from gpuscalp.schema import NS_PER_S, FeatureChunk
from gpuscalp.walkforward.look_ahead import examine_step
from gpuscalp.walkforward.plan import Plan, Step, runs_of
from tests.handmade import follows, write_handmade
from tests.walkforward.market import CONFIG, write_market

# Warm after 51 s of 100 ms; the ticks that are examined last for some 45 s.
SLOW = "price.move.512"


@pytest.fixture(scope="module")
def examined(tmp_path_factory):
    """Return a function from the seconds before the stretch to what was found in it."""
    folder = tmp_path_factory.mktemp("look-ahead")
    archive = write_market(folder / "archive", duration_s=120)
    symbols = ("BTCUSDT", "ETHUSDT")
    train = msgspec.structs.replace(CONFIG.train, symbols=symbols, features=FeatureConfig(leader="BTCUSDT"))
    config = msgspec.structs.replace(CONFIG, train=train)
    bundle = write_handmade(
        folder / "bundle", train, lambda names: follows(0, len(names), 1.0), trained_on=Interval(0, 1)
    )
    first_ns, last_ns = Archive.open(archive).time_range("synthetic", symbols)

    def examine(before_s: int) -> Finding:
        start_ns = first_ns + before_s * NS_PER_S
        step = Step(0, first_ns, start_ns, start_ns, last_ns)
        plan = Plan(archive, config, symbols, "cpu", (step,), runs_of(config), data_digest="")
        return examine_step(plan, step, bundle, threads=1)

    return examine


def test_leak_in_a_column_of_a_long_window_is_found(examined, monkeypatch):
    """Read from the stretch on only, the column was missing with every future, and passed for examined."""
    honest = examined(60)
    assert honest.leaks == {}
    assert honest.unseen == ()
    batch = FeaturePipeline.batch

    def peeking(self: FeaturePipeline, ticks) -> Iterator[FeatureChunk]:
        for chunk in batch(self, ticks):
            features, column = chunk.features.copy(), self.graph.index(SLOW)
            features[:, column, :-1] = chunk.features[:, column, 1:]
            yield FeatureChunk(chunk.frames, features)

    monkeypatch.setattr(FeaturePipeline, "batch", peeking)
    assert set(examined(60).leaks) == {SLOW}


def test_columns_without_a_value_do_not_count_as_examined(examined):
    found = examined(0)
    assert found.leaks == {}
    columns = FeatureGraph(CONFIG.train.grid, FeatureConfig(leader="BTCUSDT")).columns
    assert set(found.unseen) == {column.name for column in columns if column.warm_up > 500} > {SLOW}
