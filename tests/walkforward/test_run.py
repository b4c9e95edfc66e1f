"""A whole walk-forward on a synthetic market: what it trains on, what it leaves, and going on with it."""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest

from gpuscalp.backtest import run_backtest
from gpuscalp.backtest.metrics import number, performance
from gpuscalp.bundle import read_contract
from gpuscalp.config import SplitConfig
from gpuscalp.errors import DataError, UsageError
from gpuscalp.schema import NS_PER_MS
from gpuscalp.train.run import core_count
from gpuscalp.walkforward import WalkForwardResult, compare_runs, walk_forward_archive
from gpuscalp.walkforward.judge import cost_table, judge
from gpuscalp.walkforward.plan import make_plan
from gpuscalp.walkforward.recorded import read_run
from gpuscalp.walkforward.work import TradeTask, TrainTask
from tests.walkforward.market import CONFIG, write_market


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    return write_market(tmp_path_factory.mktemp("market") / "archive", duration_s=150)


@pytest.fixture(scope="module")
def without_pictures_of_parts() -> Iterator[None]:
    """Half of the work here, and proved by tests/backtest and tests/train; worker processes draw them."""
    with pytest.MonkeyPatch.context() as patched:
        for module in ("backtest.figures", "train.report"):
            patched.setattr(f"gpuscalp.{module}.draw", lambda *_, **__: "")
        yield


@pytest.fixture(autouse=True)
def without_more_pictures(monkeypatch, result) -> None:
    """Draw the walk's own in ``result`` only."""
    monkeypatch.setattr("gpuscalp.walkforward.figures.draw", lambda *_, **__: "")


@pytest.fixture(scope="module")
def told() -> list:
    return []


@pytest.fixture(scope="module")
def result(archive, tmp_path_factory, told, without_pictures_of_parts) -> WalkForwardResult:
    return walk_forward_archive(
        archive,
        config=CONFIG,
        out=tmp_path_factory.mktemp("walk") / "one",
        device="cpu",
        processes=1,
        on_progress=lambda done, total=None, note="": told.append((done, total, note)),
    )


def test_directory_holds_models_runs_and_report(result):
    found = {path.relative_to(result.run_dir).as_posix() for path in result.run_dir.glob("*")}
    assert found == {"config.json", "models", "parts.json", "report.html", "result.json", "runs"}
    assert json.loads((result.run_dir / "result.json").read_text()) == result.summary
    names = sorted(path.name for path in (result.run_dir / "runs").iterdir())
    assert len(names) == 4
    assert {"base", "size-x50"} < set(names)
    for name in names:
        assert (result.run_dir / "runs" / name / "report.html").is_file()
    assert not list(result.run_dir.rglob("*.partial"))


def test_every_model_has_seen_its_past_only(result):
    steps = json.loads((result.run_dir / "config.json").read_text())["steps"]
    horizon_ns = CONFIG.train.label.horizon_ms * NS_PER_MS
    assert len(steps) == 3
    for before, after in itertools.pairwise(steps):
        assert before["test_end_ns"] == after["test_start_ns"]
    for step in steps:
        contract = read_contract(result.run_dir / "models" / "seed-7" / f"step-{step['index'] + 1:02d}")
        trained = contract.training.trained_on
        assert step["train_start_ns"] <= trained.start_ns
        assert trained.end_ns <= step["test_start_ns"] - horizon_ns
        # Nearly all of the past, or the test above would be met by training on nothing.
        assert trained.end_ns > step["test_start_ns"] - 5 * horizon_ns - 10**9


def test_run_of_a_step_is_the_backtest_of_its_model(archive, result, tmp_path):
    """The first stretch of the one account is what a backtest of the first bundle alone gives."""
    steps = json.loads((result.run_dir / "config.json").read_text())["steps"]
    alone = run_backtest(
        archive,
        result.run_dir / "models" / "seed-7" / "step-01",
        config=CONFIG.backtest,
        out=tmp_path / "alone",
        start_ns=steps[0]["test_start_ns"],
        end_ns=steps[0]["test_end_ns"],
    )
    whole = pq.read_table(Path(result.summary["base"]) / "trades.parquet").to_pylist()
    part = pq.read_table(alone.run_dir / "trades.parquet").to_pylist()
    closed = [trade for trade in part if trade["exit_reason"] != "end_of_data"]
    assert len(closed) >= 5
    assert closed == whole[: len(closed)]


def test_steps_add_up_to_one_account(result):
    summary = result.summary
    run = read_run(Path(summary["base"]))
    assert sum(row["trades"] for row in summary["steps"]) == summary["trades"] == len(run.trades) > 30
    for name in ("pnl_usdt", "gross_usdt", "delay_usdt", "impact_usdt", "spread_usdt"):
        assert sum(row[name] for row in summary["steps"]) == pytest.approx(run.summary[name], abs=1e-6)
    assert summary["pnl_low_usdt"] < summary["pnl_usdt"] < summary["pnl_high_usdt"]
    assert run.summary["in_sample_share"] == 0
    assert not any("IN-SAMPLE" in text for text in summary["warnings"])
    assert summary["trials"] == 3
    assert run.summary["trials"] == 3
    assert sum(summary["overfitting"]["chosen"].values()) == 6


def test_last_step_has_what_is_closed_at_the_end(archive, result):
    """An archive that goes on to the last border: what is held is closed a nanosecond after it."""
    plan = make_plan(archive, CONFIG, device="cpu", threads=1)
    run = read_run(Path(result.summary["base"]))
    known = run.time_ns <= plan.end_ns
    closed = dataclasses.replace(
        run,
        time_ns=np.append(run.time_ns[known], plan.end_ns + 1),
        equity_usdt=np.append(run.equity_usdt[known], run.equity_usdt[known][-1] - 7.0),
    )
    before = [step["pnl_usdt"] for step in result.summary["steps"]]
    found = [step["pnl_usdt"] for step in judge(plan, [(plan.runs[0], closed)], None).steps]
    assert found[:-1] == before[:-1]
    assert sum(found) == pytest.approx(closed.equity_usdt[-1] - run.summary["start_usdt"], abs=1e-9)


def test_honest_signals_are_clean(result):
    assert result.summary["look_ahead"] == {"step-01": {}, "step-02": {}, "step-03": {}}
    assert result.summary["look_ahead_unseen"] == {"step-01": [], "step-02": [], "step-03": []}


def test_costs_of_the_same_trades_are_those_of_a_run_at_another_fee(archive, result, tmp_path):
    """Sizes and entries here do not hang on the fee, so the closed form has to give what is traded."""
    plan = make_plan(archive, CONFIG, device="cpu", threads=1)
    fee = 3.0
    cost = msgspec.structs.replace(CONFIG.backtest.cost, taker_fee_bps=fee)
    again = run_backtest(
        archive,
        plan.schedule(result.run_dir, 7),
        config=msgspec.structs.replace(CONFIG.backtest, cost=cost),
        out=tmp_path / "dear",
        start_ns=plan.start_ns,
        end_ns=plan.end_ns,
    )
    base = read_run(Path(result.summary["base"])).trades
    dear = read_run(again.run_dir).trades
    assert (base.entry_ns == dear.entry_ns).all()
    table = cost_table(base, [CONFIG.backtest.cost.taker_fee_bps, fee, fee - 1], [0.0, 1.0])
    assert table[0, 0] == pytest.approx(base.pnl.sum(), abs=1e-6)
    assert table[1, 0] == pytest.approx(dear.pnl.sum(), abs=1e-6)
    assert table[2, 1] == pytest.approx(table[1, 0])


def test_larger_orders_pay_more_and_are_left_unfilled(result):
    one, large = result.summary["capacity"]
    assert (one["size"], large["size"]) == (1.0, 50.0)
    assert large["turnover_usdt"] > 10 * one["turnover_usdt"]
    assert large["impact_bps"] < one["impact_bps"] <= 0
    assert large["spread_bps"] == pytest.approx(one["spread_bps"], rel=0.1)
    assert large["pnl_bps"] < one["pnl_bps"]


def test_report_shows_the_pictures_and_claims_nothing(result):
    page = result.report.read_text(encoding="utf-8")
    for heading in (
        "All steps together", "Step by step", "Choice and luck", "Against random entries",
        "Sensitivity to costs", "Capacity", "Assumptions",
    ):  # fmt: skip
        assert f"<h2>{heading}</h2>" in page
    assert page.count("<svg") == 5
    assert "no figure here shows that the strategy earns money" in " ".join(page.split())
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_progress_goes_up_to_the_end(told):
    shares = [done / total for done, total, _ in told if total]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_resumed_walk_keeps_what_is_finished_and_gives_the_same(archive, result, tmp_path, monkeypatch):
    out = tmp_path / "again"
    shutil.copytree(result.run_dir, out)
    (out / "result.json").unlink()
    parts = json.loads((out / "parts.json").read_text())
    lost = ["models/seed-7/step-03", "runs/base"]
    (out / "parts.json").write_text(json.dumps({name: parts[name] for name in parts if name not in lost}))
    shutil.rmtree(out / lost[0])
    (out / "runs" / "base" / "equity.parquet").write_bytes(b"cut short")
    (out / "runs" / ".base.1.partial").mkdir()
    trained = []
    call = TrainTask.__call__
    monkeypatch.setattr(
        TrainTask, "__call__", lambda task, *rest: (trained.append(task.step.index), call(task, *rest))
    )
    again = walk_forward_archive(
        archive, config=CONFIG, out=out, resume=True, device="cpu", processes=1
    ).summary
    assert trained == [2]
    assert again["kept"] == 5
    for name in ("steps", "pnl_usdt", "runs", "overfitting", "random_entries", "capacity", "config_hash"):
        assert again[name] == result.summary[name]
    assert not list(out.rglob("*.partial"))


def test_cancelled_walk_leaves_what_was_finished(archive, result, tmp_path, monkeypatch):
    out = tmp_path / "cancelled"
    shutil.copytree(result.run_dir, out)
    (out / "parts.json").write_text(
        json.dumps(
            {
                name: files
                for name, files in json.loads((out / "parts.json").read_text()).items()
                if name.startswith("models")
            }
        )
    )
    call = TradeTask.__call__

    def impatient(task: TradeTask, *rest) -> None:
        if task.run.kind == "tried":
            # Another one would delete what this one is writing, and note what is not there.
            with pytest.raises(UsageError, match="another process works on this walk-forward"):
                walk_forward_archive(archive, config=CONFIG, out=out, resume=True, device="cpu", processes=1)
            raise KeyboardInterrupt
        call(task, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(TradeTask, "__call__", impatient)
        with pytest.raises(KeyboardInterrupt):
            walk_forward_archive(archive, config=CONFIG, out=out, resume=True, device="cpu", processes=1)
    kept = json.loads((out / "parts.json").read_text())
    assert [name for name in kept if name.startswith("runs")] == ["runs/base"]
    again = walk_forward_archive(archive, config=CONFIG, out=out, resume=True, device="cpu", processes=1)
    assert again.summary["kept"] == 4
    assert again.summary["runs"] == result.summary["runs"]


def test_error_of_a_worker_process_is_told_whole(archive, tmp_path):
    train = msgspec.structs.replace(CONFIG.train, split=SplitConfig(folds=50))
    with pytest.raises(DataError, match="too short for the label horizon") as caught:
        walk_forward_archive(
            archive,
            config=msgspec.structs.replace(CONFIG, train=train),
            out=tmp_path / "out",
            device="cpu",
            processes=2,
        )
    assert caught.value.where.startswith("fold ")
    assert "split.folds" in caught.value.fix


def test_rolling_steps_forget_the_beginning(archive):
    rolling = msgspec.structs.replace(CONFIG.steps, mode="rolling")
    plan = make_plan(archive, msgspec.structs.replace(CONFIG, steps=rolling), device="cpu", threads=1)
    starts = [step.train_start_ns for step in plan.steps]
    assert starts == sorted(set(starts))
    lengths = [step.train_end_ns - step.train_start_ns for step in plan.steps]
    assert max(lengths) - min(lengths) < 0.1 * max(lengths)
    anchored = make_plan(archive, CONFIG, device="cpu", threads=1)
    assert {step.train_start_ns for step in anchored.steps} == {starts[0]}


def test_changed_part_is_refused(archive, result, tmp_path):
    out = tmp_path / "changed"
    shutil.copytree(result.run_dir, out)
    (out / "models" / "seed-7" / "step-02" / "report.html").write_text("mine")
    with pytest.raises(DataError, match="changed after it was written") as caught:
        walk_forward_archive(archive, config=CONFIG, out=out, resume=True, device="cpu", processes=1)
    assert caught.value.value == "report.html"


def test_directory_of_another_walk_is_refused(archive, result, tmp_path):
    other = msgspec.structs.replace(CONFIG, judge=msgspec.structs.replace(CONFIG.judge, seed=8))
    with pytest.raises(UsageError, match="another walk-forward"):
        walk_forward_archive(archive, config=other, out=result.run_dir, resume=True, device="cpu")
    with pytest.raises(UsageError, match="taken"):
        walk_forward_archive(archive, config=CONFIG, out=result.run_dir, device="cpu")
    with pytest.raises(UsageError, match="no walk-forward here"):
        walk_forward_archive(archive, config=CONFIG, out=tmp_path, resume=True, device="cpu")


def test_walk_is_not_gone_on_with_by_what_may_train_another_model(archive, result, monkeypatch):
    """One hash stood for models of two XGBoosts."""
    monkeypatch.setattr("gpuscalp.walkforward.plan.versions", lambda: (("xgboost", "9.9.9"),))
    with pytest.raises(UsageError, match="device or a version differ"):
        walk_forward_archive(
            archive, config=CONFIG, out=result.run_dir, resume=True, device="cpu", processes=1
        )


def test_walk_is_gone_on_with_by_other_processes_and_trains_with_the_threads_of_its_beginning(
    archive, result, tmp_path, monkeypatch
):
    """It was refused, though fewer processes are what helps where memory has run out."""
    out = tmp_path / "fewer"
    shutil.copytree(result.run_dir, out)
    parts = json.loads((out / "parts.json").read_text())
    lost = "models/seed-7/step-02"
    (out / "parts.json").write_text(json.dumps({name: parts[name] for name in parts if name != lost}))
    half = out / "models" / "seed-7" / ".step-02.half"
    half.mkdir()
    threads = []
    call = TrainTask.__call__
    monkeypatch.setattr(
        TrainTask, "__call__", lambda task, each, *rest: (threads.append(each), call(task, each, *rest))
    )
    monkeypatch.setattr("gpuscalp.walkforward.run.core_count", lambda: 3 * core_count())
    again = walk_forward_archive(archive, config=CONFIG, out=out, resume=True, device="cpu", processes=1)
    assert threads == [core_count()] == [json.loads((out / "config.json").read_text())["threads"]]
    assert again.summary["config_hash"] == result.summary["config_hash"]
    assert read_contract(out / lost).digest == read_contract(result.run_dir / lost).digest
    assert not half.exists()


def test_several_processes_give_the_trades_of_one(archive, result, tmp_path):
    """Runs only: the models are kept."""
    out = tmp_path / "several"
    shutil.copytree(result.run_dir, out)
    parts = json.loads((out / "parts.json").read_text())
    made = ("runs/base", "runs/size-x50")
    (out / "parts.json").write_text(json.dumps({name: parts[name] for name in parts if name not in made}))
    again = walk_forward_archive(archive, config=CONFIG, out=out, resume=True, device="cpu", processes=2)
    assert again.summary["kept"] == 5
    for name in made:
        for file in ("trades.parquet", "equity.parquet"):
            assert (out / name / file).read_bytes() == (result.run_dir / name / file).read_bytes()


def test_command_compares_recorded_runs(cli, result, tmp_path):
    runs = sorted((result.run_dir / "runs").iterdir())[:3]
    answer = cli("walkforward", "pbo", *runs, "--blocks", "4", "--json")
    assert answer.code == 0, answer.stderr
    found = json.loads(answer.stdout)
    assert found["overfitting"]["combinations"] == 6
    assert 0 <= found["overfitting"]["probability"] <= 1
    assert [row["run"] for row in found["runs"]] == [str(path) for path in runs]
    assert found["trials"] == 3
    assert "Probability of backtest overfitting" in cli("walkforward", "pbo", *runs, "--blocks", "4").stdout
    for folder in (tmp_path, result.run_dir):  # nothing, and the walk-forward around the runs
        assert "a finished backtest (code 2)" in cli("walkforward", "pbo", folder, runs[0]).stderr


def test_recorded_runs_count_what_was_tried_for_them(result, tmp_path):
    """Two runs of a search of 400 were deflated as if two had been tried."""
    paths = []
    for name, trials in (("base", 400), ("size-x50", 3)):
        paths.append(tmp_path / name)
        shutil.copytree(result.run_dir / "runs" / name, paths[-1])
        summary = json.loads((paths[-1] / "result.json").read_text()) | {"trials": trials}
        (paths[-1] / "result.json").write_text(json.dumps(summary))
    found = compare_runs(paths, blocks=4)
    assert found["trials"] == 400
    for row, path in zip(found["runs"], paths, strict=True):
        run = read_run(path)
        told = {"start_usdt": run.summary["start_usdt"], "results": run.summary["trades_apart"]}
        wanted, kinder = (performance(run.time_ns, run.equity_usdt, trials=n, **told) for n in (400, 2))
        assert row["deflated_sharpe"] == number(wanted.deflated)
        assert row["deflated_sharpe"] < 0.9 * number(kinder.deflated)


def test_command_goes_on_with_a_walk_and_prints_it(cli, archive, result, tmp_path, monkeypatch):
    """The configuration comes from the test: TOML would have to spell all of it out."""
    monkeypatch.setattr("gpuscalp.config.load", lambda kind, path, **rest: CONFIG)
    out = tmp_path / "walk"
    shutil.copytree(result.run_dir, out)
    words = ("walkforward", "run", archive, "--out", out, "--resume", "--device", "cpu", "--processes", "1")
    answer = cli(*words, "--json")
    assert answer.code == 0, answer.stderr
    found = json.loads(answer.stdout)
    assert found["kept"] == 7
    assert found["pnl_usdt"] == result.summary["pnl_usdt"]
    shown = cli(*words).stdout
    for words_shown in ("break-even fee per side, bps", "p-value against random entries", "SYNTHETIC"):
        assert words_shown in shown


def test_command_says_what_is_wrong(cli, tmp_path):
    answer = cli("walkforward", "run", tmp_path / "none", "--out", tmp_path / "out", "--json")
    assert answer.code != 0
    assert json.loads(answer.stdout)["error"]["what"]
    assert not (tmp_path / "out").exists()
