"""The synthetic market: what it promises about its rows, its archive and its refusals.

Its statistics, and its one secret, are in test_synthetic_statistics.py.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from gpuscalp.archive import Archive
from gpuscalp.errors import ConfigError, UsageError
from gpuscalp.schema import BOOK_LEVELS, E8, NS_PER_S, TickKind
from gpuscalp.synthetic import VENUE, FlowSpec, MarketSpec, instruments, slices, ticks, write
from tests.synthetic_rows import HOUR, REPLACE, joined, mids_on_grid

SHORT = MarketSpec(seed=3, duration_s=90, slice_s=30)


@pytest.fixture(scope="module")
def hour():
    return joined(HOUR)


def digest(array):
    return hashlib.sha256(array.tobytes()).hexdigest()


# ---- rows -------------------------------------------------------------------------------------------------


def test_ticks_are_those_of_the_seed():
    """Pinned: a change of one bit here is another market for everyone who quotes a seed."""
    market = ticks(SHORT)
    again = ticks(SHORT)
    assert digest(market) == digest(again)
    assert digest(market) != digest(ticks(REPLACE(SHORT, seed=4)))
    assert (len(market), digest(market)[:16]) == (15_321, "d10b3c818b070455")


@pytest.mark.parametrize("slice_s", [1, 7, 90, 1_000])
def test_slices_of_any_length_give_the_same_market(slice_s):
    assert digest(ticks(REPLACE(SHORT, slice_s=slice_s))) == digest(ticks(SHORT))


def test_symbols_do_not_depend_on_those_behind_them():
    all_four = joined(SHORT)
    first_two = joined(REPLACE(SHORT, symbols=SHORT.symbols[:2]))
    for four, two in zip(all_four, first_two, strict=False):
        for kind, columns in two.items():
            for name, values in columns.items():
                np.testing.assert_array_equal(four[kind][name], values)


def test_ticks_come_in_arrival_order_and_inside_the_time(hour):
    market = ticks(SHORT)
    end_ns = SHORT.start_ns + SHORT.duration_s * NS_PER_S
    assert (np.diff(market["recv_ns"]) >= 0).all()
    assert market["exch_ns"].min() == SHORT.start_ns
    assert market["exch_ns"].max() < end_ns
    assert set(np.unique(market["kind"])) == {TickKind.TRADE, TickKind.QUOTE, TickKind.BOOK, TickKind.MARK}
    assert (market["quality"] == 0).all()
    for rows in hour:
        for columns in rows.values():
            delay_ns = columns["recv_ns"] - columns["exch_ns"]
            assert delay_ns.min() >= HOUR.latency_ms * 1e6
            # In order within a symbol, so one late message holds up the next; below the grid's lateness.
            assert delay_ns.max() < 20e6
        stamps = np.concatenate(
            [np.stack([c["seq"], c["exch_ns"], c["recv_ns"]]) for c in rows.values()], axis=1
        )
        stamps = stamps[:, np.argsort(stamps[0])]
        assert (np.diff(stamps[0]) == 1).all()
        assert (np.diff(stamps[1:]) >= 0).all()


def test_quotes_and_books_never_cross_and_agree(hour):
    for rows in hour:
        quotes, books = rows["quotes"], rows["books"]
        assert (quotes["bid_px"] < quotes["ask_px"]).all()
        assert min(quotes["bid_lots"].min(), quotes["ask_lots"].min()) >= 1
        assert (quotes["ask_px"] - quotes["bid_px"]).max() <= HOUR.flow.spread_cap_ticks
        assert books["bid_lots"].shape == books["ask_lots"].shape == (len(books["seq"]), BOOK_LEVELS)
        assert min(books["bid_lots"].min(), books["ask_lots"].min()) >= 1
        last = np.searchsorted(quotes["seq"], books["seq"]) - 1
        for name in ("bid_px", "ask_px"):
            np.testing.assert_array_equal(books[name], quotes[name][last])
        for name in ("bid_lots", "ask_lots"):
            np.testing.assert_array_equal(books[name][:, 0], quotes[name][last])


def test_trades_happen_at_the_quote_and_use_up_its_queue(hour):
    """Every trade at the best price leaves the queue smaller by what was traded, or gone."""
    for rows in hour:
        trades, quotes = rows["trades"], rows["quotes"]
        before = np.searchsorted(quotes["seq"], trades["seq"]) - 1
        after = before + 1
        bought = trades["side"] == 1
        best = np.where(bought, quotes["ask_px"][before], quotes["bid_px"][before])
        queue = np.where(bought, quotes["ask_lots"][before], quotes["bid_lots"][before])
        best_after = np.where(bought, quotes["ask_px"][after], quotes["bid_px"][after])
        queue_after = np.where(bought, quotes["ask_lots"][after], quotes["bid_lots"][after])
        away = (trades["px"] - best) * trades["side"]
        assert away.min() == 0  # never better than the quote
        first = away == 0
        assert (trades["lots"][first] <= queue[first]).all()
        stays = first & (best_after == best)
        eaten = queue[stays] - trades["lots"][stays]
        np.testing.assert_array_equal(queue_after[stays][eaten >= 2], eaten[eaten >= 2])
        swept = first & (best_after != best)
        np.testing.assert_array_equal(trades["lots"][swept], queue[swept])
        # A trade never passes the price that it leaves behind.
        assert ((best_after - trades["px"]) * trades["side"]).min() >= 0


def test_marks_follow_the_mid_and_funding_its_hours(hour):
    for item, rows in zip(HOUR.symbols, hour, strict=True):
        marks = rows["marks"]
        assert len(marks["seq"]) == HOUR.duration_s
        mid = mids_on_grid(rows, HOUR, 1_000) * item.tick_size_e8 / 2
        assert np.abs(marks["mark_price_e8"] / mid - 1).max() < 3e-3
        until = marks["next_funding_ns"] - marks["exch_ns"]
        assert until.min() > 0
        assert until.max() <= 8 * 3_600 * NS_PER_S
        assert len(np.unique(marks["next_funding_ns"])) == 2  # 08:00 and 16:00
        assert len(np.unique(marks["funding_rate_e8"])) == 2
        assert np.abs(marks["funding_rate_e8"]).max() <= 20_000


# ---- archive ----------------------------------------------------------------------------------------------


def test_archive_reads_back_as_the_ticks_in_memory(tmp_path):
    # Two seconds before midnight UTC: two day folders.
    spec = REPLACE(SHORT, start_ns=(1_704_153_600 - 2) * NS_PER_S, duration_s=20, slice_s=9)
    seconds = []
    rows = write(spec, tmp_path / "archive", on_second=seconds.append)
    archive = Archive.open(tmp_path / "archive")
    symbols = [item.symbol for item in spec.symbols]
    read = np.concatenate(list(archive.tick_batches(VENUE, symbols, max_ticks=1_000)))
    assert seconds == [9, 18, 20]
    assert rows == len(read)
    assert digest(read) == digest(ticks(spec))
    assert archive.instruments(VENUE, symbols) == instruments(spec)
    assert len(list((tmp_path / "archive").rglob("date=*"))) == 2 * len(symbols)


def test_write_refuses_a_directory_that_is_no_archive(tmp_path):
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(UsageError, match="not an archive"):
        write(SHORT, tmp_path)
    assert (tmp_path / "letter.txt").read_text() == "mine"


def test_two_writes_of_a_spec_give_equal_files(tmp_path):
    spec = REPLACE(SHORT, duration_s=5)
    found = []
    for name in ("a", "b"):
        write(spec, tmp_path / name)
        files = sorted((tmp_path / name).rglob("*.parquet"))
        found.append([(path.relative_to(tmp_path / name), path.read_bytes()) for path in files])
    assert found[0] == found[1]


# ---- refusals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"symbols": ()}, "needs symbols"),
        ({"symbols": MarketSpec().symbols[:1] * 2}, "each once"),
        ({"flow": FlowSpec(same_side=(0.6, 0.3, 0.0))}, "branching ratio"),
        ({"flow": FlowSpec(decay_hz=(1.0,))}, "every kernel"),
        ({"symbols": (REPLACE(MarketSpec().symbols[0], price_e8=3 * E8),)}, "multiple of the tick"),
        ({"symbols": (REPLACE(MarketSpec().symbols[0], price_e8=4 * E8),)}, "reach zero"),
    ],
)
def test_spec_that_is_no_market_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        MarketSpec(**change)


@pytest.mark.parametrize(
    "change", [{"lag_strength": 1.5}, {"duration_s": 0}, {"jitter_ms": -1.0}, {"seed": -1}]
)
def test_field_out_of_range_is_refused_before_anything_is_drawn(change):
    with pytest.raises(ConfigError):
        next(slices(MarketSpec(**change)))
