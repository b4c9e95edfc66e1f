"""Trades of which a file tells only when they were made: when a session could have heard of them."""

from __future__ import annotations

import gzip
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpuscalp.archive import Archive
from gpuscalp.archive.info import describe
from gpuscalp.archive.ingest import import_sources
from gpuscalp.archive.verify import verify
from gpuscalp.cli.data import _import_text, _info_table
from gpuscalp.errors import UsageError
from tests.archive import market

VENUE = "binance_usdm"
HEADER = "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker"
# Recordings with aggTrades, all of 2021.
RECORDED = ("cryptofeed_BINANCE_FUTURES-1125a2.0.gz", "cryptofeed_BINANCE_FUTURES.ws.1.0.gz")


def agg_trades(path: Path) -> list[dict[str, Any]]:
    """Return the aggTrades of a recording, without any code of ours."""
    found = []
    with gzip.open(path, "rt") as lines:
        for line in lines:
            if '"e":"aggTrade"' in line:
                found.append(json.loads(line[line.index("{") :])["data"])
    return found


@pytest.mark.parametrize("name", RECORDED)
def test_no_published_trade_is_heard_of_before_a_session_heard_of_it(
    recordings: Path, tmp_path: Path, name: str
) -> None:
    """A published file of the same trades told them about 150 ms before the stream did."""
    trades = agg_trades(recordings / "usdm" / name)
    for symbol in sorted({each["s"] for each in trades}):
        own = [each for each in trades if each["s"] == symbol]
        rows = [
            ",".join(str(each[key]) for key in ("a", "p", "q", "f", "l", "T", "m"))
            for each in sorted(own, key=lambda each: each["a"])
        ]
        path = tmp_path / "um" / f"{symbol}-aggTrades-2021-07-22.csv"
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join([HEADER, *rows]) + "\n")
        import_sources([path], tmp_path / "published", strict=True)
        ticks = np.concatenate(list(Archive.open(tmp_path / "published").tick_batches(VENUE, (symbol,))))
        sent_ns = [each["E"] * 10**6 for each in sorted(own, key=lambda each: each["a"])]
        assert (ticks["exch_ns"] >= sent_ns).all()
        assert (ticks["recv_ns"] >= sent_ns).all()
        # Nor much later than the slowest of them.
        assert (ticks["exch_ns"] - sent_ns).min() < 50 * 10**6


@pytest.mark.parametrize("name", RECORDED)
def test_an_import_tells_how_long_after_their_trade_aggregates_were_sent(
    recordings: Path, tmp_path: Path, name: str
) -> None:
    lags_ms = sorted(each["E"] - each["T"] for each in agg_trades(recordings / "usdm" / name))
    answer = import_sources([recordings / "usdm" / name], tmp_path / "archive").to_dict()
    found = answer["agg_trade_lag_ms"]
    assert (found["trades"], found["largest"]) == (len(lags_ms), lags_ms[-1])
    assert found["p50"] == statistics.median_low(lags_ms)
    for part in (95, 99):
        assert sum(lag <= found[f"p{part}"] for lag in lags_ms) >= len(lags_ms) * part / 100
        assert sum(lag < found[f"p{part}"] for lag in lags_ms) < len(lags_ms) * part / 100
    assert f"sent {found['p50']} ms after their trade in the median" in _text(answer)
    assert "dated" not in _text(answer)


def test_recordings_without_aggregates_tell_no_lag(tmp_path: Path) -> None:
    source = market.write(tmp_path / "a.gz", market.lines(30))
    answer = import_sources([source], tmp_path / "archive").to_dict()
    assert answer["agg_trade_lag_ms"] is None
    assert "aggTrades" not in _text(answer)


@pytest.fixture
def published(tmp_path: Path) -> Path:
    path = tmp_path / "um" / "BTCUSDT-aggTrades-2024-07-18.csv"
    path.parent.mkdir()
    path.write_text(f"{HEADER}\n1,100.5,2,1,1,1721347022504,true\n2,100.6,2,2,2,1721347022604,true\n")
    return path


def test_the_delay_is_kept_and_told(published: Path, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    recording = market.write(tmp_path / "a.gz", market.lines(30, symbol="ETHUSDT"))
    answer = import_sources([published, recording], archive, trade_delay_ms=160).to_dict()
    assert "trades dated 160 ms after they were made: 1 files" in _text(answer)
    told = describe(archive)
    assert [each["trade_delays_ms"] for each in told["symbols"]] == [(160.0,), ()]
    lines = [each for each in _info_table(told).renderables if isinstance(each, str)]  # type: ignore[attr-defined]
    assert lines[-1] == "BTCUSDT: trades of files dated 160 ms after they were made"
    assert verify(archive).to_dict()["trade_delays_ms"] == {"binance_usdm BTCUSDT": (160.0,)}
    manifest = Archive.open(archive).manifest
    assert manifest.trade_delays_ms(VENUE) == manifest.trade_delays_ms(VENUE, ("BTCUSDT",)) == (160.0,)
    assert manifest.trade_delays_ms(VENUE, ("ETHUSDT",)) == ()


def test_the_same_file_under_another_delay_is_refused(published: Path, tmp_path: Path) -> None:
    """It would be left alone as imported before, and keep times that nobody asks for."""
    import_sources([published], tmp_path / "archive", trade_delay_ms=160)
    assert import_sources([published], tmp_path / "archive", trade_delay_ms=160).skipped == [str(published)]
    with pytest.raises(UsageError, match="dated 160 ms after") as refused:
        import_sources([published], tmp_path / "archive")
    assert (refused.value.where, refused.value.value) == (str(published), "200 ms are asked for")


def _text(answer: dict[str, Any]) -> str:
    return _import_text({"archive": "x", **answer})
