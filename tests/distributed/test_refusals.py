"""What is refused before a cluster is there: no Ray, an address without workers, other data or programs."""

from __future__ import annotations

from dataclasses import replace
from importlib import metadata

import pytest

from gpuscalp.archive import Archive
from gpuscalp.config import TrainConfig
from gpuscalp.distributed.job import Job, versions
from gpuscalp.errors import ConfigError, UsageError
from gpuscalp.ray_cluster import import_ray
from gpuscalp.synthetic import VENUE, MarketSpec, write
from gpuscalp.synthetic.spec import DEFAULT_SYMBOLS


def test_missing_ray_is_named_with_the_way_to_get_it(monkeypatch):
    def version(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    with pytest.raises(ConfigError, match="Ray is not installed") as caught:
        import_ray()
    assert "EXTRAS=ray" in caught.value.fix


def test_address_without_workers_is_refused(cli, tmp_path):
    answer = cli("train", tmp_path, "--out", tmp_path / "m", "--address", "auto")
    assert answer.code == 2
    assert "--workers" in answer.stderr


@pytest.fixture(scope="module")
def job(tmp_path_factory) -> Job:
    path = tmp_path_factory.mktemp("job") / "archive"
    write(MarketSpec(duration_s=2, symbols=DEFAULT_SYMBOLS[:1]), path)
    archive = Archive.open(path)
    first, last = archive.time_range(VENUE)
    digest = archive.digest(VENUE, archive.symbols(VENUE), first, last)
    return Job(path, TrainConfig(venue=VENUE), None, None, digest, versions(), "cpu", 1)


def test_worker_with_the_same_data_and_programs_opens_the_recording(job):
    assert job.open().symbols == ("BTCUSDT",)


def test_worker_with_other_data_or_none_refuses(job):
    with pytest.raises(UsageError, match="another archive under this path"):
        replace(job, digest="0" * 64).open()
    with pytest.raises(UsageError, match="cannot open the archive"):
        replace(job, archive=job.archive / "nowhere").open()


def test_worker_with_other_versions_refuses(job):
    others = tuple((name, "1.0" if name == "xgboost" else found) for name, found in job.versions)
    with pytest.raises(UsageError, match="other versions") as caught:
        replace(job, versions=others).open()
    assert "xgboost" in caught.value.value
    assert "instead of 1.0" in caught.value.value
