"""What a word means where a model is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpuscalp.errors import UsageError
from gpuscalp.registry import Registry, model_path, registry_path
from gpuscalp.registry.names import digest_of


@pytest.fixture
def registry(tmp_path) -> Registry:
    """Three digests, two of which begin alike; what lies under them is nobody's business here."""
    made = Registry(tmp_path / "models")
    for digest in ("abcd1" + "0" * 59, "abcd2" + "0" * 59, "12345678" + "f" * 56):
        made.bundle_path(digest).mkdir(parents=True)
    with made.writing() as writer:
        writer.promote("champion", "12345678" + "f" * 56)
    return made


def test_default_folder_follows_the_environment(tmp_path):
    assert registry_path({}) == Path("~/.local/share/gpuscalp/models").expanduser()
    assert registry_path({"XDG_DATA_HOME": "/data"}) == Path("/data/gpuscalp/models")
    assert registry_path({"XDG_DATA_HOME": "/data", "GPUSCALP_REGISTRY": "/r"}) == Path("/r")


@pytest.mark.parametrize(
    ("word", "digest"),
    [
        ("@champion", "12345678" + "f" * 56),
        ("1234", "12345678" + "f" * 56),
        ("12345678" + "f" * 56, "12345678" + "f" * 56),
        ("abcd2", "abcd2" + "0" * 59),
    ],
)
def test_alias_and_beginning_of_a_digest_lead_into_the_registry(registry, word, digest):
    assert model_path(word, registry=registry.path) == registry.path / "bundles" / digest


def test_path_stays_a_path_even_if_it_looks_like_a_digest(registry, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("abcd", "some/abcd1", "abc"):
        (tmp_path / name).mkdir(parents=True)
    assert model_path("abcd", registry=registry.path) == Path("abcd")
    assert model_path("some/abcd1", registry=registry.path) == Path("some/abcd1")
    assert model_path("abc", registry=registry.path) == Path("abc")


@pytest.mark.parametrize(
    ("word", "what", "named"),
    [
        ("abcd", "several models", ["abcd10000000", "abcd20000000"]),
        ("ffff", "no model of this name", ["12345678ffff", "abcd10000000", "abcd20000000"]),
        ("12345678zz", "no model of this name", ["12345678ffff", "abcd10000000", "abcd20000000"]),
        ("runs/nope", "no model of this name", ["12345678ffff"]),
        ("@shadow", "points nowhere", ["@champion"]),
        ("@chanpion", "no such alias", ["@champion", "@candidate", "@shadow"]),
    ],
)
def test_word_that_means_nothing_is_refused_with_the_candidates(registry, word, what, named):
    with pytest.raises(UsageError, match=what) as caught:
        model_path(word, registry=registry.path)
    assert caught.value.exit_code == 2
    for name in named:
        assert name in str(caught.value.fix)


def test_bundle_that_is_not_in_the_registry_has_to_be_added_first(registry, tmp_path):
    """It was called neither a path nor a digest, and was a path."""
    bundle = tmp_path / "other-bundle"
    bundle.mkdir()
    with pytest.raises(UsageError, match="not in the registry yet") as caught:
        digest_of(registry, str(bundle))
    assert f"gpuscalp model add {bundle}" in str(caught.value.fix)


def test_many_candidates_are_counted_and_not_all_named(tmp_path):
    registry = Registry(tmp_path)
    for index in range(20):
        registry.bundle_path(f"{index:064x}").mkdir(parents=True)
    with pytest.raises(UsageError) as caught:
        model_path("0000", registry=tmp_path)
    assert "and 12 more" in str(caught.value.fix)
    shown = str(caught.value.fix).partition(": ")[2].partition(" and ")[0].split(", ")
    assert len(set(shown)) == 8, "what is shown tells them apart"


def test_empty_registry_says_how_to_fill_it(tmp_path):
    with pytest.raises(UsageError) as caught:
        model_path("abcdef", registry=tmp_path / "none")
    assert "model add" in str(caught.value.fix)
    assert not (tmp_path / "none").exists(), "looking changes nothing"
