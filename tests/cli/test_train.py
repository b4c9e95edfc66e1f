"""``train`` and ``model`` as commands, on a small archive."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import msgspec
import pytest

from gpuscalp.archive import Archive
from gpuscalp.bundle import read_contract
from gpuscalp.bundle_files import file_spec
from gpuscalp.contract import encode
from gpuscalp.schema import NS_PER_S
from gpuscalp.synthetic import MarketSpec, write
from gpuscalp.synthetic.spec import DEFAULT_SYMBOLS
from gpuscalp.times import iso, utc

replace = msgspec.structs.replace

CONFIG = """
venue = "synthetic"
[label]
horizon_ms = 500
[split]
folds = 2
[booster]
rounds = 8
eta = 0.3
max_depth = 3
max_bin = 32
[ensemble]
members = 2
"""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("train") / "archive"
    write(MarketSpec(duration_s=150, symbols=DEFAULT_SYMBOLS[:2]), path)
    return path


@pytest.fixture(scope="module")
def config(archive: Path) -> Path:
    path = archive.parent / "train.toml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def made(archive: Path, config: Path) -> Path:
    """A bundle trained by the function below the command, for the commands that read one."""
    from gpuscalp.train import train_archive

    return train_archive(archive, archive.parent / "made", config=config, device="cpu", threads=1).bundle


@pytest.fixture
def bundle(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "bundle"))


def test_train_writes_a_bundle_and_answers_with_the_promised_keys(cli, archive, config, tmp_path):
    result = cli(
        "train",
        archive,
        "--config",
        config,
        "--out",
        tmp_path / "b",
        "--device",
        "cpu",
        "--threads",
        1,
        "--json",
    )
    assert result.code == 0, result.stderr
    answer = json.loads(result.stdout)
    assert answer["bundle"] == str(tmp_path / "b")
    assert answer["rows"] > 500
    assert len(answer["folds"]) == 2
    for fold in answer["folds"]:
        interval = [fold[name] for name in ("ic_low", "ic", "ic_high")]
        assert interval == ([None] * 3 if fold["ic"] is None else sorted(interval))
        assert fold["log_loss"] > 0.0
        assert fold["base_log_loss"] > 0.0
    assert answer["folds"][1]["ic"] is not None, "the fold with the longer train interval splits"
    assert answer["seconds"] > 0.0
    assert answer["peak_rss_mb"] > 50.0
    assert not any("leader" in warning for warning in answer["warnings"])
    assert (tmp_path / "b" / "report.html").stat().st_size > 10_000


def test_train_prints_a_table_with_the_way_to_the_report(cli, archive, config, tmp_path):
    result = cli(
        "train", archive, "--config", config, "--out", tmp_path / "b", "--symbols", "ETHUSDT", "--seed", 3
    )
    assert result.code == 0, result.stderr
    assert "report.html" in result.stdout
    assert "base rate" in result.stdout
    assert "sound rows without a label" in result.stdout
    assert "The leader BTCUSDT is not among the symbols: 10 columns" in " ".join(result.stdout.split())
    contract = json.loads((tmp_path / "b" / "contract.json").read_text())
    assert contract["training"]["symbols"] == ["ETHUSDT"]
    assert contract["members"][0]["seed"] == 3_000


@pytest.mark.parametrize(
    ("words", "code", "what"),
    [
        (["--venue", "binance_spot"], 2, "no such venue"),
        (["--symbols", "DOGEUSDT"], 2, "no such symbol"),
        (["--seed", "-1"], 2, "--seed"),
        (["--from", "yesterday"], 2, "not a time"),
        (["--from", "2030-01-01"], 2, "nothing in the range"),
    ],
)
def test_train_refuses_what_makes_no_sense(cli, archive, config, tmp_path, words, code, what):
    result = cli(
        "train", archive, "--config", config, "--out", tmp_path / "b", "--device", "cpu", *words, "--json"
    )
    error = json.loads(result.stdout)["error"]
    assert (result.code, error["code"]) == (code, code)
    assert what in error["what"]
    assert not (tmp_path / "b").exists()


def test_train_refuses_a_leader_that_is_not_there(cli, archive, config, tmp_path, monkeypatch):
    monkeypatch.setenv("GPUSCALP__FEATURES__LEADER", "DOGEUSDT")
    result = cli("train", archive, "--config", config, "--out", tmp_path / "b", "--device", "cpu", "--json")
    error = json.loads(result.stdout)["error"]
    assert (result.code, error["where"], error["value"]) == (2, "features.leader", "DOGEUSDT")


@pytest.mark.parametrize(
    "words",
    [
        ("train", "{archive}", "--config", "{config}", "--device", "cpu", "--out", "{out}"),
        ("backtest", "{archive}", "--model", "{made}", "--out", "{out}"),
        ("drift", "{made}", "{archive}", "--out", "{out}"),
        ("features", "plot", "{archive}", "--columns", "price.move.8", "--out", "{out}"),
        ("data", "export", "{archive}", "--format", "hftbacktest", "--out", "{out}"),
        ("nautilus", "export", "{archive}", "{out}"),
    ],
    ids=lambda words: words[0],
)
def test_range_that_ends_before_it_begins_is_wrong_usage(cli, archive, config, made, tmp_path, words):
    """``train`` blamed the data, with code 1; the exports wrote nothing, with code 0."""
    if words[0] == "nautilus":
        pytest.importorskip("nautilus_trader")
    first_ns, _ = Archive.open(archive).time_range("synthetic")
    start, end = iso(first_ns + 100 * NS_PER_S), iso(first_ns + 40 * NS_PER_S)
    out = tmp_path / "out.svg"
    places = {"archive": archive, "config": config, "made": made, "out": out}
    result = cli(*(word.format(**places) for word in words), "--from", start, "--to", end, "--json")
    error = json.loads(result.stdout)["error"]
    assert (result.code, error["where"]) == (2, str(archive))
    assert "nothing in the range" in error["what"]
    assert error["value"] == f"{utc(first_ns + 100 * NS_PER_S)} … {utc(first_ns + 40 * NS_PER_S)}"
    assert not out.exists()


@pytest.mark.parametrize(
    ("option", "shown"),
    [
        ("--from=9999-12-31T23:59:59-23:59", "253402387139000000000 ns …"),
        ("--to=0001-01-01T00:00+23:59", "ns"),
    ],
)
def test_time_that_no_calendar_has_is_told_in_ns(cli, archive, config, tmp_path, option, shown):
    """With a zone a time can lie before the year 1, or after 9999: to say so was a traceback."""
    result = cli("train", archive, "--config", config, "--out", tmp_path / "b", option, "--json")
    error = json.loads(result.stdout)["error"]
    assert (result.code, error["where"]) == (2, str(archive))
    assert shown in error["value"]


def test_train_refuses_a_short_embargo_as_a_configuration_error(cli, archive, config, tmp_path):
    path = tmp_path / "short.toml"
    path.write_text(CONFIG.replace("folds = 2", "folds = 2\nembargo_ms = 100"))
    result = cli("train", archive, "--config", path, "--out", tmp_path / "b", "--device", "cpu", "--json")
    assert result.code == 4
    assert "embargo" in json.loads(result.stdout)["error"]["what"]


def test_show_says_what_a_bundle_is(cli, made):
    answer = json.loads(cli("model", "show", made, "--json").stdout)
    assert answer["symbols"] == ["BTCUSDT", "ETHUSDT"]
    assert answer["members"] == 2
    assert len(answer["column_names"]) == answer["columns"] > 100
    assert set(answer["metrics"]) >= {"log_loss", "base_log_loss", "ic", "ic_low", "ic_high"}
    assert "graph hash" in cli("model", "show", made).stdout


def test_verify_compares_forest_and_xgboost_to_the_bit(cli, made):
    result = cli("model", "verify", made, "--device", "cpu", "--json")
    assert result.code == 0, result.stdout + result.stderr
    answer = json.loads(result.stdout)
    assert answer["verified"] is True
    assert answer["differing"] == 0
    assert answer["margins"] == 2 * 4_096 * 3
    assert "0 of 24,576 margins differ" in cli("model", "verify", made, "--device", "cpu").stdout


def swap_columns(bundle: Path) -> None:
    contract = json.loads((bundle / "contract.json").read_text())
    columns = contract["columns"]
    columns[3], columns[9] = columns[9], columns[3]
    (bundle / "contract.json").write_text(json.dumps(contract))


def change_window(bundle: Path) -> None:
    contract = json.loads((bundle / "contract.json").read_text())
    contract["columns"][5]["window"] *= 2
    (bundle / "contract.json").write_text(json.dumps(contract))


def change_dtype(bundle: Path) -> None:
    contract = json.loads((bundle / "contract.json").read_text())
    contract["dtype"] = "float64"
    (bundle / "contract.json").write_text(json.dumps(contract))


def truncate_member(bundle: Path) -> None:
    member = bundle / "members" / "member_01.ubj"
    member.write_bytes(member.read_bytes()[:-100])


def change_grid(bundle: Path) -> None:
    contract = json.loads((bundle / "contract.json").read_text())
    contract["training"]["config"]["grid"]["frame_ms"] = 50
    (bundle / "contract.json").write_text(json.dumps(contract))


@pytest.mark.parametrize(
    ("damage", "kind", "what"),
    [
        (swap_columns, "FeatureMismatchError", "another order"),
        (change_window, "FeatureMismatchError", "another window"),
        (change_grid, "FeatureMismatchError", "computes them differently"),
        (change_dtype, "FeatureMismatchError", "another dtype"),
        (truncate_member, "MemberError", "cut short"),
    ],
)
def test_damaged_bundle_is_refused_in_its_own_words_with_code_8(cli, bundle, damage, kind, what):
    damage(bundle)
    result = cli("model", "verify", bundle, "--device", "cpu", "--json")
    error = json.loads(result.stdout)["error"]
    assert result.code == error["code"] == 8
    assert error["kind"] == kind
    assert what in error["what"]


def replace_first_member(bundle: Path, data: bytes) -> None:
    """Put another file in the first member's place, of which all digests are right."""
    contract = read_contract(bundle)
    first = contract.members[0]
    (bundle / first.file.path).write_bytes(data)
    members = (msgspec.structs.replace(first, file=file_spec(first.file.path, data)), *contract.members[1:])
    (bundle / "contract.json").write_bytes(
        encode(msgspec.structs.replace(contract, members=members).sealed())
    )


def test_member_of_another_training_is_found_by_verify(made, bundle):
    """Files and digests fit, the canary too: only XGBoost itself shows that the member is another one."""
    from gpuscalp.errors import MemberError
    from gpuscalp.train.verify import verify_bundle

    replace_first_member(bundle, (bundle / read_contract(bundle).members[1].file.path).read_bytes())
    with pytest.raises(MemberError, match="does not give the margins"):
        verify_bundle(bundle, device="cpu")


def test_member_that_would_end_the_process_is_refused_with_code_8(cli, bundle):
    """XGBoost's parser overflowed the stack: `model verify` was gone with a segmentation fault."""
    name = b"L" + bytes(7) + b"\x01a"
    replace_first_member(bundle, b"{" + name + b"[" * 200_000 + b"]" * 200_000 + b"}")
    result = cli("model", "verify", bundle, "--device", "cpu", "--json")
    error = json.loads(result.stdout)["error"]
    assert result.code == error["code"] == 8
    assert error["kind"] == "MemberError"
    assert "nested more than" in error["value"]


def test_drift_compares_an_archive_with_the_training(cli, archive, made, tmp_path):
    other = tmp_path / "other"
    symbols = [replace(each, queue_lots_median=each.queue_lots_median // 3) for each in DEFAULT_SYMBOLS[:2]]
    write(MarketSpec(seed=8, duration_s=150, symbols=tuple(symbols)), other)
    same, changed = (
        json.loads(cli("drift", made, path, "--out", tmp_path / "drift.svg", "--json").stdout)
        for path in (archive, other)
    )
    assert same["rows"] > 1_000
    assert set(same) == set(changed)
    flow = [answer["groups"]["flow_kusdt"] for answer in (same, changed)]
    assert flow[0]["psi"] < 0.1 < 0.5 < flow[1]["psi"]
    assert flow[1]["psi_low"] is None, "of one stretch of time there is no interval"
    assert flow[1]["auc"]["auc"] > flow[0]["auc"]["auc"]
    assert 0.0 <= same["outliers"] < 0.02
    assert same["alarm"] is None, "two minutes are no blocks"
    picture = (tmp_path / "drift.svg").read_text()
    assert "<svg" in picture
    # A panel without anything in it, an interval that is not known, and a line that nobody named.
    assert "evidence of drift" not in picture
    assert "mean stability index; dashed: 0.25, a drift by rule of thumb" in picture
    text = cli("drift", made, other).stdout
    assert "too short for a drift flag" in text
    assert re.search(r"Outliers: \d+\.\d\d% of them", text)
    assert "flow_kusdt" in text


def test_drift_of_a_model_that_does_not_know_its_rows_is_refused(cli, archive, bundle):
    contract = read_contract(bundle)
    plain = msgspec.structs.replace(contract, reference=msgspec.UNSET).sealed()
    (bundle / "contract.json").write_bytes(encode(plain))
    answer = cli("drift", bundle, archive, "--json")
    assert answer.code == 8
    assert "no reference of its training rows" in json.loads(answer.stdout)["error"]["what"]
