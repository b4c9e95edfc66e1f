"""Something that nobody expected leaves one file behind, which tells enough and no secret."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from gpuscalp import crash
from gpuscalp.crash import FOLDER_VARIABLE, report_of, reported, write_report
from gpuscalp.errors import FeedError
from gpuscalp.redaction import keep_environment
from tests.planted import ENVIRONMENT, EVERYTHING, files_with_words, words_in


def failed() -> Exception:
    try:
        raise KeyError(EVERYTHING)
    except KeyError as error:
        return error


def test_report_tells_what_happened_where_and_with_what(tmp_path, monkeypatch):
    keep_environment(ENVIRONMENT)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {3}, raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    config = tmp_path / "live.toml"
    config.write_text("")
    path = write_report(failed(), tmp_path / "crashes", argv=["live", "--config", str(config), EVERYTHING])
    assert path is not None
    report = json.loads(path.read_text())
    assert report["error"]["kind"] == "KeyError"
    assert "in failed" in report["error"]["traceback"]
    # The digest of nothing begins so, as sha256sum prints it.
    assert report["config"]["sha256"].startswith("e3b0c44298fc1c149afbf4c8996fb924")
    assert report["argv"][:2] == ["live", "--config"]
    assert report["versions"]["gpuscalp"]
    assert report["versions"]["cpus"] == 1, "those that it may use"
    assert report["session"] is None
    assert files_with_words(tmp_path) == {}


def test_session_that_cannot_be_read_is_said_and_the_rest_is_told(tmp_path):
    path = write_report(failed(), tmp_path / "crashes", argv=[], session=tmp_path)
    assert path is not None
    report = json.loads(path.read_text())
    assert "UsageError" in report["session"]["error"]
    assert "IndexError" in report["journal"]["error"]


def test_only_what_nobody_expected_is_reported(tmp_path):
    for error in (FeedError("known"), OSError(28, "full")):
        with pytest.raises(type(error)), reported(tmp_path, list):
            raise error
    assert not (tmp_path / "crashes").exists()
    with pytest.raises(ZeroDivisionError) as caught, reported(tmp_path, list):
        raise ZeroDivisionError
    (path,) = (tmp_path / "crashes").iterdir()
    assert report_of(caught.value, []) == path, "one report, not two"


def test_newest_reports_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(crash, "_KEPT", 3)
    paths = [write_report(failed(), tmp_path, argv=[]) for _ in range(5)]
    assert sorted(tmp_path.iterdir()) == paths[2:]


def test_folder_that_cannot_be_written_hides_nothing(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "file" / "below"))
    assert report_of(failed(), []) is None


def test_user_without_home_gets_the_report_too(tmp_path, monkeypatch):
    """The look for a place failed, and hid the error that was to be reported."""
    for name in (FOLDER_VARIABLE, "XDG_STATE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 4_000_000_000)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    path = report_of(failed(), [])
    assert path is not None
    assert path.parent == tmp_path / "gpuscalp-crashes-4000000000"


@pytest.mark.parametrize("planted", ["a link", "a link to nothing", "of everybody", "a file"])
def test_place_that_somebody_else_has_prepared_is_not_written_to(tmp_path, monkeypatch, planted):
    """Without a home the report goes below /tmp, under a name that can be foretold: whoever made a link of it
    had reports written, and older ones removed, where it led to."""
    for name in (FOLDER_VARIABLE, "XDG_STATE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 4_000_000_000)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    elsewhere, place = tmp_path / "elsewhere", tmp_path / "gpuscalp-crashes-4000000000"
    elsewhere.mkdir()
    if planted == "a file":
        place.write_text("")
    elif planted == "of everybody":
        place.mkdir()
        place.chmod(0o777)
    else:
        place.symlink_to(elsewhere if planted == "a link" else tmp_path / "nothing")
    path = report_of(failed(), [])
    assert path is not None
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert path.parent not in (place, elsewhere)
    assert not list(elsewhere.iterdir())
    assert not (tmp_path / "nothing").exists()


def test_report_is_written_to_the_file_that_was_made(tmp_path, monkeypatch):
    """It was made, closed, and opened again by its name, which may lead elsewhere by then."""
    precious = tmp_path / "precious"
    precious.write_text("mine")
    opened = os.open

    def exchange(path, *words, **named):
        file = opened(path, *words, **named)
        if Path(path).parent == tmp_path / "reports":
            modes.append(os.fstat(file).st_mode & 0o777)
            Path(path).unlink()
            Path(path).symlink_to(precious)
        return file

    modes: list[int] = []
    monkeypatch.setattr(os, "open", exchange)
    assert write_report(failed(), tmp_path / "reports", argv=[]) is not None
    assert precious.read_text() == "mine"
    assert modes == [0o600]


def test_command_names_the_report(cli, monkeypatch, tmp_path):
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    for name, value in ENVIRONMENT.items():
        if name != "HTTPS_PROXY":
            monkeypatch.setenv(name, value)

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError(EVERYTHING)

    monkeypatch.setattr("gpuscalp.live.control.ask", broken)
    answer = cli("status", "nowhere", "--json")
    assert answer.code == 1
    (path,) = tmp_path.iterdir()
    assert str(path) in json.loads(answer.stdout)["error"]["fix"]
    assert not words_in(answer.stdout + answer.stderr)
    assert "Traceback" in answer.stderr
    assert files_with_words(tmp_path) == {}
    assert isinstance(path, Path)
