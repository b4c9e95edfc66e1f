"""Where long work will leave its result is looked at before it begins."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpuscalp.cli import SYSTEM_FIXES
from gpuscalp.config import WalkForwardConfig
from gpuscalp.files import make_writable
from gpuscalp.train import train
from gpuscalp.walkforward import walk_forward_archive
from tests.train.market import FakeSource, quick_config

# Not even root can make anything there, in /proc itself or below it.
NOWHERE = Path("/proc/nowhere")


def test_folder_is_made_and_left_empty(tmp_path: Path) -> None:
    make_writable(tmp_path / "new" / "folder")
    make_writable(tmp_path / "new" / "folder")
    assert list((tmp_path / "new" / "folder").iterdir()) == []


@pytest.mark.parametrize("folder", [NOWHERE.parent, NOWHERE, NOWHERE / "deep"])
def test_folder_that_cannot_be_written_to_is_named(folder: Path) -> None:
    with pytest.raises(OSError, match="/proc") as caught:
        make_writable(folder)
    assert Path(caught.value.filename) in (folder, NOWHERE)
    assert caught.value.errno in SYSTEM_FIXES


@pytest.mark.parametrize("out", [NOWHERE, NOWHERE / "bundle"])
def test_training_finds_a_place_that_cannot_be_written_to_before_any_work(out: Path) -> None:
    """It was found behind two minutes of training, which were lost."""
    source = FakeSource()
    with pytest.raises(OSError, match="/proc"):
        train(source, quick_config(), out, device="cpu")
    assert source.walks == 0


def test_walk_finds_a_place_that_cannot_be_written_to_before_it_opens_the_archive(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="/proc"):
        walk_forward_archive(tmp_path / "none", config=WalkForwardConfig(), out=NOWHERE / "walk")
