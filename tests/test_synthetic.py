"""The synthetic market: what it promises about its rows, its statistics, and its one secret.

Statistical tests are of fixed seeds, so they pass or fail for good; their tolerances are some four standard
errors of the quantity at the length of market used.
"""

from __future__ import annotations

import hashlib
import itertools

import msgspec
import numpy as np
import pytest
from scipy import stats

from gpuscalp.archive import Archive
from gpuscalp.errors import ArchiveError, ConfigError
from gpuscalp.schema import BOOK_LEVELS, E8, NS_PER_S, TickKind
from gpuscalp.synthetic import VENUE, FlowSpec, MarketSpec, instruments, slices, ticks, write

REPLACE = msgspec.structs.replace
HOUR = MarketSpec(seed=11, duration_s=3_600)
HOUR_WITHOUT_LAG = REPLACE(HOUR, lag_strength=0.0)
SHORT = MarketSpec(seed=3, duration_s=90, slice_s=30)


@pytest.fixture(scope="module")
def hour():
    return joined(HOUR)


@pytest.fixture(scope="module")
def hour_without_lag():
    return joined(HOUR_WITHOUT_LAG)


def joined(spec):
    """Return the rows of the whole market: for each symbol, kind → column → array."""
    pieces = list(slices(spec))
    return [
        {
            kind: {
                name: np.concatenate([getattr(piece[symbol], kind)[name] for piece in pieces])
                for name in first
            }
            for kind in ("trades", "quotes", "books", "marks")
            for first in [getattr(pieces[0][symbol], kind)]
        }
        for symbol in range(len(spec.symbols))
    ]


def digest(array):
    return hashlib.sha256(array.tobytes()).hexdigest()


def mids_on_grid(rows, spec, step_ms):
    """Return bid + ask at every grid point: the last quote at or before it."""
    quotes = rows["quotes"]
    grid = np.arange(spec.start_ns, spec.start_ns + spec.duration_s * NS_PER_S, step_ms * 1_000_000)
    last = np.searchsorted(quotes["exch_ns"], grid, side="right") - 1
    return (quotes["bid_px"] + quotes["ask_px"])[last].astype(float)


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
    with pytest.raises(ArchiveError, match="not an archive"):
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


# ---- the order flow ---------------------------------------------------------------------------------------


def orders(rows):
    """Return times in s and sides (0 sell, 1 buy) of the leader's orders: the first trade of each."""
    trades = rows["trades"]
    first = np.concatenate([[True], np.diff(trades["exch_ns"]) > 0])
    return (trades["exch_ns"][first] - HOUR.start_ns) / 1e9, (trades["side"][first] > 0).astype(int)


def test_order_rate_is_the_stationary_one(hour):
    times, _ = orders(hour[0])
    # The count of T seconds has a variance near rate·T/(1-n)²: 14 Hz, n = 0.86, 3,600 s give a standard
    # deviation of 0.45 Hz.
    assert len(times) / HOUR.duration_s == pytest.approx(HOUR.symbols[0].orders_hz, abs=1.8)


def test_leader_s_orders_are_the_hawkes_process_that_the_spec_says(hour):
    """Time change (Papangelou 1972): the compensator between events is standard exponential, each side alone.

    Computed here by a recursion of its own over the recorded events; wrong decay, weight or side fails.
    """
    flow = HOUR.flow
    times, sides = orders(hour[0])
    base = HOUR.symbols[0].orders_hz / 2 * (1 - flow.branching_ratio)
    decay, same, cross = np.array(flow.decay_hz), np.array(flow.same_side), np.array(flow.cross_side)
    excitation = np.tile(HOUR.symbols[0].orders_hz / 2 * (same + cross), (2, 1))
    compensator = np.zeros(2)
    gaps: tuple[list[float], list[float]] = ([], [])
    before = 0.0
    for time, side in zip(times, sides, strict=True):
        fade = np.exp(-decay * (time - before))
        compensator += base * (time - before) + (excitation * (1 - fade) / decay).sum(axis=1)
        excitation *= fade
        gaps[side].append(compensator[side])
        compensator[side] = 0.0
        excitation[side] += decay * same
        excitation[1 - side] += decay * cross
        before = time
    for side in (0, 1):
        assert stats.kstest(gaps[side], "expon").pvalue > 1e-3
        later = np.array(gaps[side])
        assert abs(np.corrcoef(later[:-1], later[1:])[0, 1]) < 4 / np.sqrt(len(later))


def test_market_shows_the_stylised_facts(hour):
    """Within the ranges that liquid perpetual futures show; stated in docs/demo.md."""
    for item, rows in zip(HOUR.symbols, hour, strict=True):
        quotes = rows["quotes"]
        length = np.diff(quotes["exch_ns"])
        spread = (quotes["ask_px"] - quotes["bid_px"])[:-1]
        assert length[spread <= 2].sum() / length.sum() > 0.85  # spread of one or two ticks
        side = rows["trades"]["side"].astype(float)
        assert np.corrcoef(side[:-1], side[1:])[0, 1] > 0.1  # signs come in runs
        counts = np.bincount(
            (rows["trades"]["exch_ns"] - HOUR.start_ns) // NS_PER_S, minlength=HOUR.duration_s
        )
        assert counts.var() / counts.mean() > 2  # bursts; a Poisson process has 1
        mid = mids_on_grid(rows, HOUR, 1_000)
        returns = np.diff(mid) / mid[:-1] * 1e4
        assert stats.kurtosis(returns) > 1  # fat tails; a normal law has 0
        assert 0.5 < returns.std() < 3.0, item.symbol  # bps in one second
        busy = counts.reshape(-1, 10).sum(axis=1)
        assert np.corrcoef(busy[:-1], busy[1:])[0, 1] > 0.2  # busy times last
        # Orders move the price their way while they happen …
        flow = np.zeros(HOUR.duration_s)
        np.add.at(flow, (rows["trades"]["exch_ns"] - HOUR.start_ns) // NS_PER_S, side)
        assert np.corrcoef(flow[1:-1], returns[1:])[0, 1] > 0.2


# ---- nothing to find, but the lag -------------------------------------------------------------------------

STEP_MS = 100


def predictors(all_rows, spec, symbol):
    """Return what a model might try at each grid point, from rows up to it, named."""
    rows, leader = all_rows[symbol], all_rows[0]
    mid, leader_mid = mids_on_grid(rows, spec, STEP_MS), mids_on_grid(leader, spec, STEP_MS)
    grid = np.arange(len(mid)) * STEP_MS * 1_000_000 + spec.start_ns
    quotes, trades, books = rows["quotes"], rows["trades"], rows["books"]
    last = np.searchsorted(quotes["exch_ns"], grid, side="right") - 1
    signed = np.concatenate([[0], np.cumsum(trades["side"])])
    volume = np.concatenate([[0], np.cumsum(trades["side"] * trades["lots"])])
    traded = np.searchsorted(trades["exch_ns"], grid, side="right")
    queue = [quotes[name][last].astype(float) for name in ("bid_lots", "ask_lots")]
    depth = [books[name].sum(axis=1).astype(float) for name in ("bid_lots", "ask_lots")]
    book = np.searchsorted(books["exch_ns"], grid, side="right") - 1

    def past(series, steps):
        return series - np.concatenate([np.full(steps, series[0]), series[:-steps]])

    return mid, {
        "own return, 100 ms": past(mid, 1),
        "own return, 1 s": past(mid, 10),
        "own return, 5 s": past(mid, 50),
        "leader's return, 300 ms": past(leader_mid, 3),
        "leader's return, 1 s": past(leader_mid, 10),
        "signed trades, 300 ms": past(signed[traded].astype(float), 3),
        "signed trades, 3 s": past(signed[traded].astype(float), 30),
        "signed volume, 1 s": past(volume[traded].astype(float), 10),
        "queue imbalance": (queue[0] - queue[1]) / (queue[0] + queue[1]),
        "depth imbalance": ((depth[0] - depth[1]) / (depth[0] + depth[1]))[book],
        "parity of the mid": mid % 2 - 0.5,
    }


def scores(all_rows, spec, horizon_ms):
    """Return t statistics of slope for every symbol and predictor, on returns that do not overlap."""
    found = {}
    steps = horizon_ms // STEP_MS
    for symbol in range(len(spec.symbols)):
        mid, columns = predictors(all_rows, spec, symbol)
        chosen = np.arange(60, len(mid) - steps, steps)
        forward = mid[chosen + steps] - mid[chosen]
        for name, values in columns.items():
            x = values[chosen] - values[chosen].mean()
            # White's standard error: volatility clusters, and large predictors come with large returns.
            found[symbol, name] = (x * forward).sum() / np.sqrt((x * x * forward * forward).sum())
    return found


@pytest.mark.parametrize("horizon_ms", [100, 300, 1_000])
def test_forward_returns_cannot_be_predicted_without_the_lag(hour_without_lag, horizon_ms):
    """44 statistics, nearly independent standard normals: one above 4 has a probability of 0.3 %."""
    found = scores(hour_without_lag, HOUR_WITHOUT_LAG, horizon_ms)
    worst = max(found, key=lambda key: abs(found[key]))
    assert abs(found[worst]) < 4, (worst, found[worst])
    squares = sum(value**2 for value in found.values())
    assert squares < stats.chi2.ppf(0.999, len(found))


@pytest.mark.parametrize("horizon_ms", [100, 300, 1_000])
def test_leader_cannot_be_predicted_with_the_lag_either(hour, horizon_ms):
    found = scores(hour, HOUR, horizon_ms)
    assert max(abs(value) for (symbol, _), value in found.items() if symbol == 0) < 4


def test_leader_s_last_300_ms_predict_every_follower(hour):
    found = scores(hour, HOUR, 300)
    for symbol in range(1, len(HOUR.symbols)):
        assert found[symbol, "leader's return, 300 ms"] > 20
    for symbol in range(1, len(HOUR.symbols)):
        mid, columns = predictors(hour, HOUR, symbol)
        x, forward = columns["leader's return, 300 ms"][60:-3], mid[63:] - mid[60:-3]
        assert np.corrcoef(x, forward)[0, 1] > 0.35


@pytest.mark.parametrize("lag_ms", [100, 300, 800])
def test_copies_come_after_exactly_the_lag(lag_ms):
    spec = MarketSpec(seed=5, duration_s=1_200, lag_ms=lag_ms)
    rows = joined(spec)
    step_ms = 20
    leader, follower = (np.diff(mids_on_grid(rows[symbol], spec, step_ms)) for symbol in (0, 1))
    lags = np.arange(2_000 // step_ms)
    correlation = [np.corrcoef(leader[: len(leader) - lag], follower[lag:])[0, 1] for lag in lags]
    assert lags[int(np.argmax(correlation))] * step_ms == lag_ms
    elsewhere = np.delete(correlation, [lag_ms // step_ms - 1, lag_ms // step_ms, lag_ms // step_ms + 1])
    assert max(correlation) > 0.25
    assert np.abs(elsewhere).max() < 0.03


def test_removing_the_lag_changes_directions_and_nothing_else(hour, hour_without_lag):
    """The flow is so bursty that counts of an hour differ by some 7 % between equal laws."""
    np.testing.assert_array_equal(hour[0]["quotes"]["bid_px"], hour_without_lag[0]["quotes"]["bid_px"])
    for with_lag, without in itertools.islice(zip(hour, hour_without_lag, strict=True), 1, None):
        volatility = [np.diff(mids_on_grid(rows, HOUR, 1_000)).std() for rows in (with_lag, without)]
        assert volatility[0] == pytest.approx(volatility[1], rel=0.12)
        trade_count = [len(rows["trades"]["seq"]) for rows in (with_lag, without)]
        assert trade_count[0] == pytest.approx(trade_count[1], rel=0.3)


def test_lag_strength_is_the_correlation_of_the_signs():
    """The copies are recognised by their time: the leader's move, exactly one lag before."""
    spec = MarketSpec(seed=8, duration_s=1_800, lag_strength=0.5)
    rows = joined(spec)
    leader, follower = rows[0], rows[1]
    moved = leader["trades"]
    sign_at = dict(zip(moved["exch_ns"] + spec.lag_ms * 1_000_000, moved["side"], strict=True))
    trades = follower["trades"]
    pairs = [
        sign_at[at] * side
        for at, side in zip(trades["exch_ns"], trades["side"], strict=True)
        if at in sign_at
    ]
    assert len(pairs) > 1_000
    assert np.mean(pairs) == pytest.approx(0.5, abs=4 / np.sqrt(len(pairs)))


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
