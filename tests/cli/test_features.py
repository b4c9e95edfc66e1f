"""``gpuscalp features`` as it is typed, on an archive of the synthetic market."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from gpuscalp import leakage as leakage_module
from gpuscalp import parity as parity_module
from gpuscalp.config import FeatureConfig, GridConfig
from gpuscalp.features import FeatureGraph
from gpuscalp.pipeline import FeaturePipeline
from gpuscalp.synthetic import MarketSpec, instruments, ticks, write

ROOT = Path(__file__).resolve().parent.parent.parent
SPEC = MarketSpec(duration_s=150, slice_s=150)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("features") / "archive"
    write(SPEC, path)
    return path


def answer(result):
    assert result.code == 0, result.stderr + result.stdout
    return json.loads(result.stdout)


def test_list_gives_every_column_and_the_hash(cli):
    graph = FeatureGraph(GridConfig(), FeatureConfig())
    found = answer(cli("features", "list", "--json"))
    assert found["hash"] == graph.hash
    assert [row["name"] for row in found["features"]] == list(graph.names)
    assert set(found["features"][0]) == {"name", "unit", "window", "warm_up", "source"}


def test_list_as_a_table_names_every_column(cli):
    result = cli("features", "list", "--columns", "time.*")
    assert result.code == 0
    assert "time.to_funding" in result.stdout
    assert "price.move.8" not in result.stdout


def test_list_compiles_nothing():
    code = (
        "import sys; from gpuscalp.cli import run; run(['features', 'list', '--json']);"
        "sys.exit(any(name in sys.modules for name in ('numba', 'pyarrow', 'scipy', 'xgboost')))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert done.returncode == 0


def test_compute_writes_what_the_pipeline_gives(cli, archive, tmp_path):
    out = tmp_path / "features.parquet"
    found = answer(cli("features", "compute", archive, "--out", out, "--device", "cpu", "--json"))
    table = pq.read_table(out)
    pipeline = FeaturePipeline(grid=GridConfig(), features=FeatureConfig(), instruments=instruments(SPEC))
    chunks = list(pipeline.batch([ticks(SPEC)]))
    end_ns = np.concatenate([chunk.frames.end_ns for chunk in chunks])
    values = np.concatenate([chunk.features for chunk in chunks], axis=2)

    assert found["rows"] == table.num_rows == len(end_ns) * 4
    assert table.column_names == ["symbol", "end_ns", "quality", "mid", *pipeline.graph.names]
    # The archive lists symbols sorted, the spec its leader first.
    order = np.argsort([item.symbol for item in SPEC.symbols])
    assert table["symbol"].to_pylist()[:4] == sorted(item.symbol for item in SPEC.symbols)
    assert table["end_ns"].to_numpy().tolist() == np.repeat(end_ns, 4).tolist()
    for name in ("price.move.32", "flow.imbalance.8", "time.hour_sin"):
        wanted = values[order, pipeline.graph.index(name)].T.ravel()
        assert table[name].to_numpy().tobytes() == wanted.tobytes(), name
    bid, ask = (
        np.concatenate([getattr(c.frames, f) for c in chunks])[:, order] for f in ("bid_px", "ask_px")
    )
    size = np.array([instruments(SPEC)[i].tick_size for i in order])
    mid = table["mid"].to_numpy().reshape(-1, 4)
    quoted = bid > 0
    assert (mid[quoted] == ((bid + ask) * 0.5 * size)[quoted]).all()
    assert np.isnan(mid[~quoted]).all()
    assert json.loads(table.schema.metadata[b"gpuscalp"])["hash"] == pipeline.graph.hash


def test_compute_takes_columns_and_symbols(cli, archive, tmp_path):
    out = tmp_path / "some.parquet"
    words = (
        "--symbols",
        "ETHUSDT,BTCUSDT",
        "--columns",
        "price.move.*,time.hour_sin",
        "--columns",
        "market.*",
    )
    found = answer(cli("features", "compute", archive, "--out", out, *words, "--json"))
    table = pq.read_table(out)
    assert found["symbols"] == ["ETHUSDT", "BTCUSDT"]
    assert table.column_names[4:] == [
        *(f"price.move.{w}" for w in (2, 4, 8, 32, 128, 512)),
        "market.price.move.8",
        "market.price.move.32",
        "time.hour_sin",
    ]


def test_compute_that_fails_leaves_no_file(cli, archive, tmp_path):
    result = cli(
        "features", "compute", archive, "--out", tmp_path / "x.parquet", "--columns", "nope", "--json"
    )
    assert result.code == 2
    assert json.loads(result.stdout)["error"]["value"] == "nope"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_plot_draws_a_picture(cli, archive, tmp_path, suffix):
    out = tmp_path / f"picture.{suffix}"
    words = ("--columns", "price.zscore.32,ofi_kusdt.mean.8", "--symbol", "ETHUSDT")
    found = answer(cli("features", "plot", archive, "--out", out, *words, "--json"))
    assert found["columns"] == ["ofi_kusdt.mean.8", "price.zscore.32"]
    start = out.read_bytes()[:200]
    assert b"PNG" in start if suffix == "png" else b"<svg" in out.read_bytes()
    assert suffix == "png" or b">USDT<" in out.read_bytes(), "the price had no unit"


def test_plot_of_a_range_has_only_its_frames(cli, archive, tmp_path):
    import datetime

    start = datetime.datetime.fromtimestamp(SPEC.start_ns / 1e9 + 100, datetime.UTC)
    end = start + datetime.timedelta(seconds=20)
    words = ("--columns", "price.move.8", "--from", start.isoformat(), "--to", end.isoformat())
    found = answer(cli("features", "plot", archive, "--out", tmp_path / "p.svg", *words, "--json"))
    assert 195 <= found["frames"] <= 200


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("--columns", "price.*"), "too many columns"),
        (("--columns", "nope"), "matches no column"),
        (("--columns", "price.move.8", "--symbol", "NOPE"), "no such symbol"),
        (("--columns", "price.move.8", "--from", "soon"), "not a time"),
    ],
)
def test_plot_refuses_what_cannot_be_drawn(cli, archive, tmp_path, words, what):
    result = cli("features", "plot", archive, "--out", tmp_path / "p.png", *words, "--json")
    assert result.code == 2
    assert what in json.loads(result.stdout)["error"]["what"]


def test_parity_gives_the_counts(cli, archive):
    found = answer(cli("features", "parity", archive, "--splits", 2, "--max-ticks", 3_000, "--json"))
    assert (found["splits"], found["differing"]) == (2, 0)
    assert found["values"] > 0
    assert (found["ticks"], found["complete"]) == (3_000, False)


def test_parity_in_words_says_what_was_not_run(cli, archive):
    result = cli("features", "parity", archive, "--splits", 1, "--max-ticks", 2_000)
    assert result.code == 0
    assert "the same bits" in result.stdout
    assert "the first 2,000 ticks" in result.stdout


def test_parity_with_differing_bits_leaves_with_code_7(cli, archive, monkeypatch):
    monkeypatch.setattr(parity_module, "_differing", lambda got, wanted: np.ones(wanted.shape, bool))
    result = cli("features", "parity", archive, "--splits", 1, "--max-ticks", 2_000, "--json")
    assert result.code == 7
    found = json.loads(result.stdout)
    assert found["differing"] == found["values"] > 0


@pytest.mark.parametrize(("evidence", "code"), [("row 3", 0), (None, 7)], ids=["caught", "missed"])
def test_leakage_gives_the_counts_and_leaves_with_code_7_if_a_leak_is_missed(
    cli, archive, monkeypatch, evidence, code
):
    """What is counted is tested in tests/leakage: here is a report that took no time."""

    def made(excerpt, *, cuts, seed, **_):
        return leakage_module.LeakageReport(
            excerpt.to_dict(), "aa", cuts=cuts, futures=3, folds=4, folds_configured=5, seed=seed,
            planted={"a window that is centred": evidence},
            shipped=[leakage_module.Finding("features", ("price.move.8",), 1_234)],
        )  # fmt: skip

    monkeypatch.setattr(leakage_module, "check_leakage", made)
    words = ("features", "leakage", archive, "--symbols", "BTCUSDT,ETHUSDT", "--cuts", 2)
    result = cli(*words, "--json")
    assert result.code == code
    found = json.loads(result.stdout)
    assert (found["planted"], found["caught"]) == (1, int(code == 0))
    assert (found["symbols"], found["cuts"], found["seed"]) == (["BTCUSDT", "ETHUSDT"], 2, 7)
    told = cli(*words).stdout
    assert ("MISSED" in told) == (code == 7)
    assert "Training rows of 4 folds instead of 5" in told


def test_archive_that_is_none_is_refused(cli, tmp_path):
    result = cli("features", "parity", tmp_path, "--json")
    assert result.code == 2
    assert json.loads(result.stdout)["error"]["kind"] == "UsageError"


def test_example_of_the_documentation_catches_its_leak(archive, monkeypatch, capsys):
    text = (ROOT / "docs" / "features.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(archive.parent)
    exec(compile(code, "docs/features.md", "exec"), {})
    assert "'gradient': 'row [" in capsys.readouterr().out
