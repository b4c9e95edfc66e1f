"""``gpuscalp model …`` and ``--model`` as commands."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from gpuscalp.bundle import read_contract
from gpuscalp.cli.words import model_of_session
from gpuscalp.registry import Registry
from gpuscalp.registry.comparison import compare_models


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The default registry of the test."""
    monkeypatch.setenv("GPUSCALP_REGISTRY", str(tmp_path / "models"))
    return tmp_path / "models"


def answer(result) -> dict:
    assert result.code == 0, (result.stdout, result.stderr)
    return json.loads(result.stdout)


def test_life_of_two_models(cli, folder, real):
    a = answer(cli("model", "add", real["a"], "--why", "the first", "--json"))
    assert a == {
        "digest": read_contract(real["a"]).digest,
        "new": True,
        "path": str(folder / "bundles" / a["digest"]),
    }
    assert not answer(cli("model", "add", real["a"], "--json"))["new"]
    b = answer(cli("model", "add", real["b"], "--json"))
    for model in (a, b):
        answer(cli("model", "promote", model["digest"][:8], "--device", "cpu", "--why", "w", "--json"))
    listed = answer(cli("model", "list", "--history", "2", "--json"))
    assert listed["aliases"] == {"champion": b["digest"], "candidate": None, "shadow": None}
    assert {row["digest"] for row in listed["models"]} == {a["digest"], b["digest"]}
    (row,) = [row for row in listed["models"] if row["digest"] == a["digest"]]
    assert row["why"] == "the first"
    assert row["metrics"] == read_contract(real["a"]).training.metrics
    assert [act["to"] for act in listed["history"]] == [a["digest"], b["digest"]]
    assert answer(cli("model", "show", "@champion", "--json"))["digest"] == b["digest"]
    assert answer(cli("model", "verify", "@champion", "--device", "cpu", "--json"))["verified"]
    assert answer(cli("model", "verify", "--device", "cpu", "--json"))["models"] == 2
    assert answer(cli("model", "rollback", "--device", "cpu", "--json"))["to"] == a["digest"]
    assert answer(cli("model", "prune", "--json"))["unused"] == [b["digest"]]
    assert answer(cli("model", "pin", b["digest"][:8], "--json"))["pinned"]
    assert answer(cli("model", "prune", "--json"))["unused"] == []
    assert not answer(cli("model", "pin", b["digest"][:8], "--off", "--json"))["pinned"]
    assert answer(cli("model", "prune", "--yes", "--json"))["removed"]
    assert Registry(folder).digests() == [a["digest"]]


def test_people_are_told_the_same(cli, folder, real):
    digest = answer(cli("model", "add", real["a"], "--json"))["digest"][:12]
    assert "nowhere before" in cli("model", "promote", digest, "--device", "cpu").stdout
    listed = cli("model", "list", "--history", "9").stdout
    for text in (digest, "@champion", "BTCUSDT", "promote", str(folder)):
        assert text in listed
    assert "follow from each other" in cli("model", "verify", "--device", "cpu").stdout
    assert "@champion" in cli("model", "prune").stdout
    assert f"{digest[:12]} already" in cli("model", "promote", "@champion", "--device", "cpu").stdout


def test_promotion_that_fails_a_check_exits_8_and_wrong_words_exit_2(cli, folder, tiny):
    digest = answer(cli("model", "add", next(iter(tiny.values())), "--json"))["digest"]
    assert cli("model", "promote", digest[:9], "--device", "cpu").code == 8
    assert cli("model", "rollback").code == 8
    assert cli("model", "promote", digest[:9], "--alias", "winner").code == 2
    assert cli("model", "promote", "@champion").code == 2
    assert cli("model", "list", "--registry", folder / "elsewhere", "--json").code == 0
    assert answer(cli("model", "list", "--registry", folder / "elsewhere", "--json"))["models"] == []


@pytest.mark.parametrize(("words", "code"), [(("rollback",), 2), (("prune", "--yes"), 0)])
def test_misspelt_registry_is_not_made_by_what_adds_nothing(cli, tmp_path, words, code):
    """Both made one where they were pointed to: in a session its lock was that of the session."""
    session = tmp_path / "session"
    session.mkdir()
    (session / "lock").write_text("1234")
    for path in (session, tmp_path / "rigistry"):
        assert cli("model", *words, "--registry", path, "--json").code == code
    assert sorted(each.name for each in tmp_path.rglob("*")) == ["lock", "session"]


def test_comparison_shows_what_differs_and_all_figures(real):
    found = compare_models(real["a"], real["b"])
    a, b = (json.loads((real[name] / "result.json").read_bytes()) for name in "ab")
    differing = {row["name"]: (row["a"], row["b"]) for row in found["configuration"]}
    assert differing == {"ensemble.seed": (1, 2), "booster.max_depth": (3, 2)}
    assert (found["same_data"], found["same_columns"]) == (True, True)
    folds = {row["name"]: (row["a"], row["b"]) for row in found["folds"]}
    assert folds["fold 2: log_loss"] == (a["folds"][1]["log_loss"], b["folds"][1]["log_loss"])
    metrics = {row["name"]: (row["a"], row["b"]) for row in found["metrics"]}
    assert metrics["ic"] == (a["overall"]["ic"], b["overall"]["ic"])
    calibration = {row["name"]: (row["a"], row["b"]) for row in found["calibration"]}
    assert calibration["scale UP"] == (a["calibration"]["scale"][2], b["calibration"]["scale"][2])
    gains = [{item["name"]: item["gain"] for item in each["importance"]} for each in (a, b)]
    strongest = max(gains[0].keys() | gains[1].keys(), key=lambda n: max(g.get(n, 0.0) for g in gains))
    first = found["importance"][0]
    assert first == {"name": strongest, "a": gains[0].get(strongest, 0), "b": gains[1].get(strongest, 0)}


def test_comparison_says_where_data_or_columns_are_others(cli, real, tiny):
    text = cli("model", "compare", real["a"], real["narrow"]).stdout
    assert "fold 2: log loss" in text
    assert "columns differ" in text
    assert "no comparison" not in text
    assert "no comparison" in cli("model", "compare", real["a"], next(iter(tiny.values()))).stdout


@pytest.mark.parametrize(
    "words",
    [
        ("backtest", "ARCHIVE"),
        ("live", "--session", "OUT"),
        ("replay", "ARCHIVE", "--session", "OUT"),
        ("doctor", "--offline"),
        ("nautilus", "backtest", "ARCHIVE"),
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_every_command_with_a_model_looks_into_the_registry(cli, folder, tmp_path, words):
    words = [{"ARCHIVE": tmp_path, "OUT": tmp_path / "out"}.get(word, word) for word in words]
    result = cli(*words, "--model", "@candidate", "--json")
    assert result.code == 2, result.stdout
    error = json.loads(result.stdout)["error"]
    assert (error["value"], error["where"]) == ("@candidate", str(folder))
    assert not (tmp_path / "out").exists()


def test_backtest_trades_with_the_champion(cli, folder, real, tmp_path):
    digest = answer(cli("model", "add", real["a"], "--json"))["digest"]
    answer(cli("model", "promote", digest[:8], "--device", "cpu", "--json"))
    archive = real["a"].parent / "archive"
    words = ("backtest", archive, "--threads", "1", "--json")
    runs = [
        answer(cli(*words, "--out", tmp_path / name, "--model", model))
        for name, model in (("champion", "@champion"), ("prefix", digest[:9]), ("path", real["a"]))
    ]
    assert [run["bundle_digest"] for run in runs] == [digest] * 3
    assert len({json.dumps([run["predictions"], run["intents"], run["pnl_usdt"]]) for run in runs}) == 1


def test_alias_that_moves_does_not_keep_a_session_from_going_on(folder, real, tmp_path):
    # A unit file names @champion at every start; after a promotion the restart was refused as another model.
    registry = Registry(folder)
    with registry.writing() as writer:
        digest, _ = writer.add(real["a"])
        writer.promote("champion", digest)
    session = tmp_path / "session"
    assert model_of_session("@champion", session) == registry.bundle_path(digest)
    session.mkdir()
    (session / "session.json").write_text("{}")
    assert model_of_session("@champion", session) is None
    assert model_of_session(digest[:6], session) == registry.bundle_path(digest), "a digest cannot move"
    assert model_of_session(None, session) is None


def test_training_can_register_its_bundle(cli, folder, real, tmp_path):
    parent = real["a"].parent
    made = answer(
        cli(
            *("train", parent / "archive", "--config", parent / "train.toml", "--out", tmp_path / "out"),
            *("--seed", "1", "--device", "cpu", "--threads", "1", "--register", "--json"),
        )
    )
    assert made["registered"] == read_contract(real["a"]).digest
    assert Registry(folder).digests() == [made["registered"]]


@pytest.mark.parametrize("words", [("train", "--out", "bundle"), ("tune", "--trials", "1")], ids=" ".join)
def test_registry_that_cannot_be_written_is_told_before_a_training(cli, tmp_path, words):
    """It was after the training, whose answer was a refusal of the system then."""
    (tmp_path / "models").write_text("a file")
    command, *options = words
    place = ("--register", "--registry", tmp_path / "models", "--json")
    result = cli(command, tmp_path / "no archive", *options, *place)
    assert result.code == 2
    told = json.loads(result.stdout)["error"]
    assert (told["what"], told["value"]) == ("the registry cannot be written", "Not a directory")


@pytest.mark.parametrize(
    "words",
    [
        ("model", "show", "NOPE"),
        ("model", "show", "9b1416zz"),
        ("model", "verify", "NOPE"),
        ("model", "add", "NOPE"),
        ("drift", "NOPE", "ARCHIVE"),
        ("use", "OUT", "NOPE"),
        ("backtest", "ARCHIVE", "--model", "NOPE"),
        ("live", "--session", "OUT", "--model", "NOPE"),
    ],
    ids=" ".join,
)
def test_model_that_is_not_there_is_wrong_usage(cli, folder, tmp_path, words):
    """It was taken for one that must not be used."""
    places = {"ARCHIVE": tmp_path, "OUT": tmp_path / "out", "NOPE": tmp_path / "nope"}
    result = cli(*(places.get(word, word) for word in words), "--json")
    assert result.code == 2, result.stdout
    told = json.loads(result.stdout)["error"]
    assert {told["value"], told["where"]} & {str(tmp_path / "nope"), "9b1416zz"}


def test_bundle_that_is_damaged_must_not_be_used(cli, folder, tmp_path):
    (tmp_path / "empty").mkdir()
    assert cli("model", "show", tmp_path / "empty").code == 8


@pytest.mark.parametrize("there", ["nothing", "a bundle", "bundles without a history"])
def test_registry_that_is_not_there_is_not_good(cli, folder, real, tmp_path, there):
    """A restored registry is proved by this command: a misspelt path passed."""
    path = real["a"] if there == "a bundle" else tmp_path / "elsewhere"
    if there == "bundles without a history":
        answer(cli("model", "add", real["a"], "--registry", path, "--json"))
        (path / "history.jsonl").unlink()
    result = cli("model", "verify", "--registry", path, "--device", "cpu", "--json")
    assert result.code == 2
    assert json.loads(result.stdout)["error"]["where"] == str(path / "history.jsonl")


def test_strays_are_told_and_neither_counted_nor_removed(cli, folder, real):
    """A bundle that was copied in by hand was removed as unused, and then the history could not be read."""
    digest = answer(cli("model", "add", real["a"], "--json"))["digest"]
    strays = [folder / "bundles" / name for name in (".DS_Store", "lost+found", "mymodel")]
    for stray in strays[1:]:
        shutil.copytree(real["b"], stray)
    strays[0].write_bytes(b"")
    for words in (("list",), ("prune",), ("prune", "--yes")):
        assert answer(cli("model", *words, "--json"))["strays"] == ["lost+found", "mymodel"]
        assert "not of the registry, left alone: bundles/mymodel" in cli("model", *words).stdout
        assert all(stray.exists() for stray in strays)
    assert Registry(folder).digests() == []
    assert [act.action for act in Registry(folder).history().acts] == ["add", "prune"]
    assert answer(cli("model", "verify", "--device", "cpu", "--json"))["acts"] == 2
    assert answer(cli("model", "add", real["a"], "--json"))["digest"] == digest
