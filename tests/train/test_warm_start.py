"""Training that goes on: the old trees stay as they were, and what would mislead is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from gpuscalp.bundle import load_bundle, read_contract
from gpuscalp.errors import UsageError
from gpuscalp.train import train
from gpuscalp.train import warm_start as module
from gpuscalp.train.verify import compare_members
from tests.train.market import FRAME_NS, GRAPH, FakeSource, quick_config

FRAMES = 1_500


class Later(FakeSource):
    """The same kind of market, after the first one has ended."""

    def _chunk(self, first, last):
        chunk = super()._chunk(first, last)
        shift = 2 * FRAMES * FRAME_NS
        return replace(chunk, frames=replace(chunk.frames, end_ns=chunk.frames.end_ns + shift))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a model, and one that goes on from it on later rows."""
    folder = tmp_path_factory.mktemp("warm")
    train(FakeSource(frame_count=FRAMES), quick_config(), folder / "old", device="cpu", threads=1)
    train(
        Later(frame_count=FRAMES, seed=4),
        quick_config(),
        folder / "new",
        device="cpu",
        threads=1,
        warm_start=folder / "old",
    )
    return folder / "old", folder / "new"


def test_old_trees_stay_and_new_ones_follow(trained):
    old, new = (load_bundle(path, graph=GRAPH) for path in trained)
    before, after = old.ensemble.forest, new.ensemble.forest
    rounds = [[each.rounds for each in bundle.contract.members] for bundle in (old, new)]
    assert all(ours > theirs for theirs, ours in zip(*rounds, strict=True))

    def trees(forest, member):
        own = np.flatnonzero(forest.tree_member == member)
        return [
            (forest.feature[at:end].tobytes(), forest.value[at:end].tobytes(), int(forest.tree_class[tree]))
            for tree in own
            for at, end in [(forest.tree_start[tree], forest.tree_start[tree + 1])]
        ]

    for member in range(before.member_count):
        kept = trees(before, member)
        assert trees(after, member)[: len(kept)] == kept
    x = new.contract.canary.x.array("float32", "canary")
    assert compare_members(trained[1], new.contract, after, x)[0] > 0, "its boosters say the same"


def test_contract_says_what_it_goes_on_from_and_since_when_it_has_seen_data(trained):
    old, new = (read_contract(path) for path in trained)
    assert new.training.continues == old.digest
    assert old.training.continues is msgspec.UNSET
    assert new.training.trained_on.start_ns == old.training.trained_on.start_ns
    assert new.training.trained_on.end_ns > old.training.trained_on.end_ns


def test_rows_that_the_model_has_seen_are_refused(trained, tmp_path):
    with pytest.raises(UsageError, match="before the model's training ends"):
        train(
            FakeSource(frame_count=FRAMES),
            quick_config(),
            tmp_path / "m",
            device="cpu",
            warm_start=trained[0],
        )
    assert not (tmp_path / "m").exists()


def test_model_of_another_venue_is_refused(trained, tmp_path):
    """Promotion refused it, and a training went on from it."""
    later = Later(frame_count=FRAMES, seed=4, venue="elsewhere")
    with pytest.raises(UsageError, match="the same venue only"):
        train(later, quick_config(), tmp_path / "m", device="cpu", warm_start=trained[0])
    assert later.walks == 0
    assert not (tmp_path / "m").exists()


def test_another_label_or_number_of_members_and_a_forest_that_is_too_large_are_refused(
    trained, tmp_path, monkeypatch
):
    config, swap = quick_config(), msgspec.structs.replace
    wrong = {
        "label": swap(config, label=swap(config.label, threshold_bps=9.0)),
        "number of members": swap(config, ensemble=swap(config.ensemble, members=7)),
    }
    for name, other in wrong.items():
        with pytest.raises(UsageError, match=name):
            train(Later(frame_count=FRAMES), other, tmp_path / "m", device="cpu", warm_start=trained[0])
    monkeypatch.setattr(module, "ROUNDS_MAX", config.booster.rounds)
    with pytest.raises(UsageError, match="rounds at most"):
        train(Later(frame_count=FRAMES), config, tmp_path / "m", device="cpu", warm_start=trained[0])
