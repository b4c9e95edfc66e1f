"""What may be promoted, what can be gone back to, and what prune may take."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest

from gpuscalp.bundle import read_contract
from gpuscalp.contract import Block, encode
from gpuscalp.errors import CanaryError, FeatureMismatchError, MemberError, ModelError
from gpuscalp.registry import Registry
from gpuscalp.registry.history import Act
from gpuscalp.registry.listing import verify_registry
from gpuscalp.registry.promotion import promote, prune, rollback
from gpuscalp.registry.store import note_session

HOUR_NS = 3_600 * 1_000_000_000


@pytest.fixture
def registry(tmp_path) -> Registry:
    return Registry(tmp_path / "models", clock=lambda: 1, who="test")


def added(registry: Registry, *bundles: Path) -> list[str]:
    with registry.writing() as writer:
        return [writer.add(bundle)[0] for bundle in bundles]


def planted(registry: Registry, bundle: Path, **changes: object) -> str:
    """Put a bundle with a changed contract under a digest that fits: ``add`` would not let all of them in."""
    contract = msgspec.structs.replace(read_contract(bundle), **changes).sealed()
    target = registry.bundle_path(contract.digest)
    shutil.copytree(bundle, target)
    (target / "contract.json").write_bytes(encode(contract))
    return contract.digest


def refusal(registry: Registry, digest: str) -> ModelError:
    before = registry.history().acts
    with pytest.raises(ModelError) as caught:
        promote(registry, digest, "champion", why="", device="cpu")
    assert caught.value.exit_code == 8
    assert registry.history().acts == before
    return caught.value


def test_promotion_and_rollback_walk_along_the_history(registry, real):
    a, b = added(registry, real["a"], real["b"])
    for digest, before in ((a, None), (b, a), (a, b)):
        answer = promote(registry, digest, "champion", why="try", device="cpu")
        assert (answer["from"], answer["to"], answer["changed"]) == (before, digest, True)
    assert not promote(registry, a, "champion", why="again", device="cpu")["changed"]
    assert [rollback(registry, "champion", why="", device="cpu")["to"] for _ in range(2)] == [b, a]
    with pytest.raises(ModelError, match="no earlier model") as caught:
        rollback(registry, "champion", why="", device="cpu")
    assert caught.value.exit_code == 8
    acts = [act for act in registry.history().acts if act.alias == "champion"]
    assert [(act.action, act.old, act.new) for act in acts] == [
        ("promote", None, a),
        ("promote", a, b),
        ("promote", b, a),
        ("rollback", a, b),
        ("rollback", b, a),
    ]


def test_damaged_file_is_refused(registry, real):
    (a,) = added(registry, real["a"])
    forest = registry.bundle_path(a) / "forest.npz"
    forest.chmod(0o644)
    forest.write_bytes(forest.read_bytes()[:-1])
    assert isinstance(refusal(registry, a), MemberError)


def test_answers_that_this_machine_does_not_give_are_refused(registry, real):
    canary = read_contract(real["a"]).canary
    margins = canary.margins.array("float32", "canary")
    margins[0, 5, 1] = np.nextafter(margins[0, 5, 1], np.float32(9))
    digest = planted(registry, real["a"], canary=msgspec.structs.replace(canary, margins=Block.of(margins)))
    assert isinstance(refusal(registry, digest), CanaryError)


def test_columns_of_another_version_are_refused(registry, real):
    digest = planted(registry, real["a"], graph_hash="0" * 64)
    assert isinstance(refusal(registry, digest), FeatureMismatchError)


@pytest.mark.parametrize("gone", [{"ic": None}, {"log_loss": None}])
def test_missing_figures_are_refused_by_name(registry, real, gone):
    training = read_contract(real["a"]).training
    training = msgspec.structs.replace(training, metrics=training.metrics | gone)
    error = refusal(registry, planted(registry, real["a"], training=training))
    assert "figures" in error.what
    assert error.value == next(iter(gone))


def test_bundle_under_another_digest_is_refused(registry, real):
    shutil.copytree(real["a"], registry.bundle_path("0" * 64))
    assert "its name" in refusal(registry, "0" * 64).what


def test_other_columns_than_the_present_model_has_are_refused_unless_told(registry, real):
    a, narrow = added(registry, real["a"], real["narrow"])
    promote(registry, a, "champion", why="", device="cpu")
    error = refusal(registry, narrow)
    assert isinstance(error, FeatureMismatchError)
    assert "graph hash" in error.what
    assert promote(registry, narrow, "shadow", why="", device="cpu")["changed"], "nothing to differ from"
    promote(registry, narrow, "champion", why="", device="cpu", other_columns=True)
    assert registry.history().state().current("champion") == narrow


def test_rollback_checks_where_it_goes(registry, real):
    a, b = added(registry, real["a"], real["b"])
    for digest in (a, b):
        promote(registry, digest, "champion", why="", device="cpu")
    shutil.rmtree(registry.bundle_path(a))
    with pytest.raises(ModelError, match="no bundle here"):
        rollback(registry, "champion", why="", device="cpu")
    assert registry.history().state().current("champion") == b


def test_whole_registry_is_verified(registry, real, tiny):
    a, _ = added(registry, real["a"], next(iter(tiny.values())))
    promote(registry, a, "champion", why="", device="cpu")
    answer = verify_registry(registry, device="cpu")
    assert (answer["models"], answer["acts"]) == (2, 3)
    assert list(answer["unfit"]) == [next(iter(tiny))], "its columns are of no real graph"
    (registry.bundle_path(a) / "forest.npz").unlink()
    with pytest.raises(ModelError, match="1 fault") as caught:
        verify_registry(registry, device="cpu")
    assert a[:12] in str(caught.value.value)
    shutil.rmtree(registry.bundle_path(a))
    with pytest.raises(ModelError) as caught:
        verify_registry(registry, device="cpu")
    assert "@champion points to" in str(caught.value.value)


# Prune ------------------------------------------------------------------------------------------------------


def test_prune_keeps_what_an_alias_a_pin_or_a_session_needs(registry, tiny, tmp_path):
    first, second, third = added(registry, *tiny.values())
    with registry.writing() as writer:
        writer.promote("champion", first)
    session = tmp_path / "session"
    note_session(registry.bundle_path(second), session, now_ns=1)
    kept = {each["digest"]: each["because"] for each in prune(registry, now_ns=2, really=False)["kept"]}
    assert kept == {first: "@champion", second: f"session {session}"}
    assert prune(registry, now_ns=1 + HOUR_NS, really=False)["unused"] == sorted([second, third])
    shutil.copytree(registry.bundle_path(second), session / "bundle")
    assert prune(registry, now_ns=1 + HOUR_NS, really=False)["unused"] == [third]
    assert registry.digests() == sorted(tiny), "nothing is removed unless it is said"
    assert prune(registry, now_ns=1 + HOUR_NS, really=True)["unused"] == [third]
    assert registry.digests() == sorted([first, second])
    last: Act = registry.history().acts[-1]
    assert (last.action, last.old, last.new) == ("prune", third, None)


def test_prune_keeps_what_a_rollback_would_go_to_and_nothing_older(registry, tiny):
    first, second, third = added(registry, *tiny.values())
    with registry.writing() as writer:
        for digest in (first, second, third):
            writer.promote("shadow", digest)
    answer = prune(registry, now_ns=2, really=True)
    assert answer["unused"] == [first]
    kept = {each["digest"]: each["because"] for each in answer["kept"]}
    assert kept == {second: "before @shadow", third: "@shadow"}


def test_session_of_a_bundle_outside_is_nobody_s_business(registry, tiny, tmp_path):
    first = next(iter(tiny.values()))
    added(registry, first)
    note_session(first, tmp_path / "session", now_ns=1)
    assert [act.action for act in registry.history().acts] == ["add"]


def test_new_session_is_noted_before_its_bundle_is_copied(registry, tiny, tmp_path, monkeypatch):
    from gpuscalp.config import LiveConfig
    from gpuscalp.live import directory

    (first,) = added(registry, next(iter(tiny.values())))
    seen = []

    def copytree(_, target, **__):
        seen.append(registry.history().acts[-1])
        target.mkdir()

    monkeypatch.setattr(directory.shutil, "copytree", copytree)
    directory.create(tmp_path / "s", LiveConfig(), registry.bundle_path(first), (), now_ns=5)
    assert [(act.action, act.new, act.session) for act in seen] == [("use", first, str(tmp_path / "s"))]
