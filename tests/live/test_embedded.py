"""What the market of an embedded exchange is called."""

from __future__ import annotations

from pathlib import Path

from gpuscalp.live.embedded import market_of
from gpuscalp.rehearsal import open_source
from gpuscalp.synthetic import MarketSpec, write


def test_a_market_that_is_made_up_is_called_so_from_an_archive_too(tmp_path: Path) -> None:
    write(MarketSpec(seed=3, duration_s=2), tmp_path / "archive")
    assert market_of(open_source()) == "synthetic"
    assert market_of(open_source(archive=tmp_path / "archive")) == "synthetic"


def test_a_market_that_was_recorded_is_not_called_made_up(recordings: Path) -> None:
    path = recordings / "usdm" / "btcusdt_20240718.gz"
    assert market_of(open_source(recordings=[path])) == "replayed"
