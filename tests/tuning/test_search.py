"""The search: the same trials whatever ends first and wherever the driver dies; rungs; what the log bears."""

from __future__ import annotations

import json
import statistics

import numpy as np
import pytest

pytest.importorskip("optuna", reason="extra ray is not installed")

from gpuscalp.config import DimensionConfig, ScoreConfig, TuneConfig
from gpuscalp.errors import DataError, UsageError
from gpuscalp.tuning.report import warnings_of
from gpuscalp.tuning.search import best_of, rung_rounds
from gpuscalp.tuning.trials import TRIALS_FILE, TrialLog
from tests.tuning.pools import SPACE, KilledError, Shuffled, run, told_of


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    pool = Shuffled(np.random.default_rng(0))
    return run(folder, pool), pool, folder


@pytest.mark.parametrize("seed", range(4))
def test_kills_and_order_of_completion_change_nothing_and_lose_nothing(plain, tmp_path, seed):
    expected, _, _ = plain
    rng = np.random.default_rng(seed)
    made: list[tuple[int, int]] = []
    file = tmp_path / TRIALS_FILE
    found = None
    while found is None:
        pool = Shuffled(rng, lives=int(rng.integers(0, 12)))
        before = file.read_bytes() if file.exists() else b""
        try:
            found = run(tmp_path, pool)
        except KilledError:
            # What the driver was writing when it died.
            with file.open("ab") as handle:
                handle.write(b'{"line":"rung","trial":3,"ru'[: int(rng.integers(0, 28))])
        assert file.read_bytes().startswith(before[: before.rfind(b"\n") + 1])
        made += pool.made
    assert len(made) == len(set(made)), "a finished rung was made again"
    assert told_of(found) == told_of(expected)
    assert best_of(found).number == best_of(expected).number


def test_another_seed_makes_other_trials(plain, tmp_path):
    found = run(tmp_path, Shuffled(np.random.default_rng(0)), seed=8)
    # Trial 0 is the configuration as it stands.
    assert found[0].params == plain[0][0].params
    assert all(a.params != b.params for a, b in zip(found[1:], plain[0][1:], strict=True))


def test_rungs_take_the_best_third_of_each_generation(plain):
    trials, _, folder = plain
    lines = [json.loads(line) for line in (folder / TRIALS_FILE).read_text().splitlines()]
    score: dict[tuple[int, int], tuple[float, float]] = {}
    for line in (line for line in lines if line["line"] == "rung"):
        key = line["trial"], line["rung"]
        assert key not in score
        assert line["rounds"] == (10, 30, 90)[line["rung"]]
        if line["failure"] is None:
            net = [fold["net_bps"] / fold["symbol_hours"] for fold in line["folds"]]
            gain = [1 - fold["log_loss"] / fold["base_log_loss"] for fold in line["folds"]]
            score[key] = statistics.mean(net) - statistics.stdev(net), statistics.mean(gain)
    for first, size in ((0, 9), (9, 9), (18, 9), (27, 3)):
        numbers = set(range(first, first + size))
        for rung, count in ((1, -(-size // 3)), (2, -(-size // 9))):
            ranked = sorted(
                ((score[n, rung - 1], -n) for n in numbers if (n, rung - 1) in score), reverse=True
            )
            wanted = {-n for _, n in ranked[:count]} | ({0} if first == 0 else set())
            reached = {line["trial"] for line in lines if line["line"] == "rung" and line["rung"] == rung}
            assert reached & numbers == wanted
            numbers = wanted
        finished = {n for n in numbers if (n, 2) in score}
        assert {t.number for t in trials[first : first + size] if t.finished} == finished
    assert {trial.state for trial in trials} == {"finished", "stopped", "failed"}
    wanted = max((score[t.number, 2], -t.number) for t in trials if t.finished)
    assert best_of(trials).number == -wanted[1]


def test_search_learns_from_what_it_has_seen(tmp_path):
    # The made-up net return grows with eta: after the random generation its values are larger.
    trials = run(tmp_path, Shuffled(np.random.default_rng(0)), trials=81)
    early = np.log([trial.params["booster.eta"] for trial in trials[1:9]])
    late = np.log([trial.params["booster.eta"] for trial in trials[-27:]])
    assert late.mean() > early.mean() + 0.5


def test_more_trials_begin_with_the_same_ones(tmp_path):
    rng = np.random.default_rng(1)
    run(tmp_path, Shuffled(rng), trials=18)
    more = Shuffled(rng)
    found = run(tmp_path, more, trials=27)
    assert min(trial for trial, _ in more.made) == 18
    assert told_of(found)[:18] == told_of(run(tmp_path / "..", Shuffled(rng), trials=27))[:18]


@pytest.mark.parametrize("trials", [12, 25])
def test_number_of_trials_that_those_made_are_no_beginning_of_is_refused(tmp_path, trials):
    run(tmp_path, Shuffled(np.random.default_rng(1)), trials=20)
    with pytest.raises(UsageError, match="would not begin with the trials that were made"):
        run(tmp_path, Shuffled(np.random.default_rng(1)), trials=trials)


def test_rungs_end_with_all_rounds_and_have_no_doubles():
    from gpuscalp.config import SearchConfig

    assert rung_rounds(SearchConfig(rungs=3, reduction=3), 300) == (34, 100, 300)
    assert rung_rounds(SearchConfig(rungs=4, reduction=3), 4) == (1, 2, 4)
    assert rung_rounds(SearchConfig(rungs=1), 50) == (50,)


def test_label_that_log_loss_has_chosen_is_warned_of(plain):
    def said(metric: str, **space: DimensionConfig) -> str:
        config = TuneConfig(space=space or SPACE, score=ScoreConfig(metric))
        return " ".join(warnings_of(plain[0], best_of(plain[0]), config, "binance_usdm"))

    assert "volatility" in said("log_loss")
    assert "volatility" not in said("net")
    assert "volatility" not in said("log_loss", **{"booster.eta": SPACE["booster.eta"]})


def test_two_drivers_at_once_are_refused(tmp_path):
    with TrialLog(tmp_path), pytest.raises(UsageError, match="another process"):
        TrialLog(tmp_path)


def test_changed_line_is_refused(plain, tmp_path):
    lines = (plain[2] / TRIALS_FILE).read_bytes().splitlines(keepends=True)
    (tmp_path / TRIALS_FILE).write_bytes(lines[0] + lines[1].replace(b"rounds", b"wounds") + lines[2])
    with pytest.raises(DataError, match="not a line") as caught:
        TrialLog(tmp_path)
    assert "line 2" in str(caught.value)
