"""One damaged price is put aside at import, and does not make a symbol unreadable."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuscalp.archive import Archive
from gpuscalp.archive.ingest import import_sources
from gpuscalp.archive.price_range import PriceRange
from gpuscalp.errors import DecodeError
from gpuscalp.feeds.messages import DepthSnapshot, MarkPrice, Ticker
from tests.archive import market

VENUE = "binance_usdm"
REASON = "price does not fit in 32 bits of ticks beside those before it"


@given(
    st.lists(st.integers(0, 60).flatmap(lambda bits: st.integers(1 << bits, 2 << bits)), max_size=20),
    st.integers(0, 1 << 40),
)
def test_what_is_taken_fits_and_what_is_refused_would_not(prices: list[int], unit_e8: int) -> None:
    checked, taken = PriceRange(unit_e8), [unit_e8]
    for price in prices:
        with_it = [*taken, price]
        fits = max(with_it) // math.gcd(*with_it) < 2**31
        ticker = Ticker("BTCUSDT", 0, 1, price, 1, 0, 0)
        if fits:
            checked.check(ticker)
            taken = with_it
        else:
            with pytest.raises(DecodeError, match=REASON):
                checked.check(ticker)


def test_levels_count_and_marks_do_not() -> None:
    checked = PriceRange(0)
    checked.check(DepthSnapshot("BTCUSDT", 0, 1, [], []))
    checked.check(DepthSnapshot("BTCUSDT", 0, 1, [(100 * 10**8, 1)], [(101 * 10**8, 1)]))
    checked.check(MarkPrice("BTCUSDT", 0, 100 * 10**8 + 1, 0, 0, 0))
    for bids, asks in (([(100 * 10**8 + 1, 1)], []), ([], [(100 * 10**8 + 1, 1)])):
        with pytest.raises(DecodeError, match="32 bits"):
            checked.check(DepthSnapshot("BTCUSDT", 0, 1, bids, asks))


@pytest.mark.parametrize("damaged", [b'"10010000000.0"', b'"100.10000001"'], ids=["too large", "too fine"])
def test_damaged_price_is_a_reject_and_the_rest_can_be_read(tmp_path: Path, damaged: bytes) -> None:
    lines = market.lines(300)
    assert b'"p":"100.1"' in lines[150]
    spoilt = [*lines[:150], lines[150].replace(b'"100.1"', damaged), *lines[151:]]
    report = import_sources([market.write(tmp_path / "a.gz", spoilt)], tmp_path / "archive")
    assert report.sources[0].rejects == {REASON: 1}
    archive = Archive.open(tmp_path / "archive")
    import_sources([market.write(tmp_path / "b.gz", lines[:150] + lines[151:])], tmp_path / "sound")
    (instrument,) = archive.instruments(VENUE)
    assert instrument.tick_size_e8 == 10**7
    sound = Archive.open(tmp_path / "sound")
    read, expected = (np.concatenate(list(each.tick_batches(VENUE))) for each in (archive, sound))
    assert read.tobytes() == expected.tobytes()


def test_price_has_to_fit_those_of_earlier_imports(tmp_path: Path) -> None:
    days = market.lines(1_800)
    import_sources([market.write(tmp_path / "a.gz", days[:901])], tmp_path / "archive")
    late = [line.replace(b'"p":"100.1"', b'"p":"100.10000001"') for line in days[903:904]]
    assert late != days[903:904]
    report = import_sources([market.write(tmp_path / "b.gz", late)], tmp_path / "archive")
    assert report.sources[0].rejects == {REASON: 1}
