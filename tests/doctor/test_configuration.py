"""The configuration of a live session, and how a bad file is told."""

from __future__ import annotations

import pytest

from gpuscalp.config import LiveConfig
from gpuscalp.doctor.configuration import read_config


def test_without_a_file_the_defaults_are_taken():
    check, config = read_config(None, {})
    assert (check.status, config) == ("ok", LiveConfig())


def test_values_of_the_environment_without_a_file_are_refused_as_a_session_refuses_them():
    """The doctor applied them and `live` did not: it examined another configuration than the one that ran."""
    check, config = read_config(None, {"GPUSCALP__JOURNAL__SYNC_MS": "70"})
    assert (check.status, check.code, config) == ("fail", 4, None)
    assert "--config" in check.fix


def test_the_environment_overrules_the_file(tmp_path):
    path = tmp_path / "paper.toml"
    path.write_text(
        'broker = "paper"\n[feed]\nredundancy = 1\nstreams = ["aggTrade"]\n[journal]\nsync_ms = 50\n'
    )
    check, config = read_config(path, {"GPUSCALP__JOURNAL__SYNC_MS": "70"})
    assert check.status == "ok"
    assert config is not None
    assert (config.feed.redundancy, config.feed.streams, config.journal.sync_ms) == (1, ("aggTrade",), 70)


@pytest.mark.parametrize(
    ("text", "told", "fix"),
    [
        ("[feed]\nredundant = 2\n", "unknown key", "redundan"),
        ("[grid]\nframe_ms = 100\n", "unknown key", "known here"),
        ("[feed]\nredundancy = 9\n", "feed.redundancy", "correct"),
        ("[journal]\nsync_ms = 'x'\n", "journal.sync_ms", "correct"),
        ("[feed\n", "not a TOML file", "config init"),
        ("a = " + 5_000 * "1", "not a TOML file", "config init"),
        ("a = " + 5_000 * "[", "not a TOML file", "config init"),
    ],
)
def test_bad_file_fails_with_code_4_and_its_fix(tmp_path, text, told, fix):
    path = tmp_path / "bad.toml"
    path.write_text(text)
    check, config = read_config(path, {})
    assert (check.status, check.code, config) == ("fail", 4, None)
    assert told in check.what
    assert str(path) in check.what
    assert fix in (check.fix or "")


def test_missing_file_is_told(tmp_path):
    check, _ = read_config(tmp_path / "none.toml", {})
    assert (check.status, check.code) == ("fail", 4)
    assert "--config" in (check.fix or "")
