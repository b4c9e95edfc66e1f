"""The synthetic market's statistics, and its one secret.

Statistical tests are of fixed seeds, so they pass or fail for good; their tolerances are some four standard
errors of the quantity at the length of market used.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from gpuscalp.schema import NS_PER_S
from gpuscalp.synthetic import MarketSpec
from tests.synthetic_rows import HOUR, HOUR_WITHOUT_LAG, joined, mids_on_grid


@pytest.fixture(scope="module")
def hour():
    return joined(HOUR)


@pytest.fixture(scope="module")
def hour_without_lag():
    return joined(HOUR_WITHOUT_LAG)


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
    for with_lag, without in list(zip(hour, hour_without_lag, strict=True))[1:]:
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
