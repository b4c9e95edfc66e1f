"""Secrets are taken out of text in every form in which they are written, and nothing else is."""

from __future__ import annotations

import html
import json
from pathlib import Path
from urllib.parse import quote

import pytest

from gpuscalp import redaction
from gpuscalp.config import LiveConfig, load
from gpuscalp.errors import ConfigError, FeedError
from gpuscalp.redaction import keep, keep_environment, redact
from gpuscalp.report import Section, render
from tests.planted import BY_PLACE, ENVIRONMENT, EVERYTHING, WORDS, words_in


@pytest.fixture(autouse=True)
def _forget(monkeypatch):
    monkeypatch.setattr(redaction, "_kept", ())


@pytest.mark.parametrize("place", BY_PLACE)
def test_secret_is_known_by_its_place(place):
    text = f"before {BY_PLACE[place]} behind"
    assert words_in(text), "nothing was planted"
    shown = redact(text)
    assert not words_in(shown), shown
    assert shown.startswith("before ")
    assert redact(shown) == shown


@pytest.mark.parametrize("form", [str, json.dumps, html.escape, lambda text: quote(text, safe=""), quote])
@pytest.mark.parametrize("name", ENVIRONMENT)
def test_secret_is_known_by_its_value_in_every_form(name, form):
    keep_environment(ENVIRONMENT)
    assert not words_in(redact(f"a {form(ENVIRONMENT[name])} b"))


def test_every_planted_word_is_searched_for():
    assert sorted(words_in(EVERYTHING)) == sorted(WORDS)


@pytest.mark.parametrize(
    "text",
    [
        "wss://fstream.binance.com/public/stream",
        "https://fapi.binance.com/fapi/v1/depth?symbol=BTCUSDT&limit=1000",
        '{"token_count": 3, "key": "value", "at": "2026-11-26T00:44:34.123456Z"}',
        "gs-cfb0c090-16 BTCUSDT@1795655277600000000",
        "http://127.0.0.1:9100/metrics",
        "sha256 " + "0123456789abcdef" * 4,
    ],
)
def test_what_is_no_secret_stays(text):
    assert redact(text) == text


def test_value_too_short_to_be_told_from_a_word_is_left_alone():
    keep(["live"])
    assert redact("a live session") == "a live session"


def test_variable_without_the_name_of_a_secret_is_none():
    keep_environment({"NUMBA_CACHE_DIR": "/var/cache/gpuscalp", "SSH_AGENT_PID": "1234567890"})
    assert redact("/var/cache/gpuscalp 1234567890") == "/var/cache/gpuscalp 1234567890"


def test_json_stays_json():
    keep_environment(ENVIRONMENT)
    body = {"all": EVERYTHING, "list": list(BY_PLACE.values()), "number": 1}
    assert json.loads(redact(json.dumps(body)))["number"] == 1


def test_errors_hold_no_secret():
    keep_environment(ENVIRONMENT)
    error = FeedError(EVERYTHING, where=EVERYTHING, value=EVERYTHING, fix=EVERYTHING)
    for text in (str(error), repr(error), json.dumps(error.to_dict()), str(error.value)):
        assert not words_in(text)
    assert not words_in(str(FeedError("x", value=[EVERYTHING])))


@pytest.mark.parametrize("place", [*BY_PLACE, *ENVIRONMENT])
def test_configuration_with_a_secret_is_refused_and_not_shown(place, tmp_path):
    secret = BY_PLACE.get(place) or ENVIRONMENT[place]
    path = tmp_path / "live.toml"
    path.write_text(f"[feed]\nredundant_urls = [{json.dumps(secret)}]\n")
    with pytest.raises(ConfigError, match="a secret in the configuration") as caught:
        load(LiveConfig, path, env=ENVIRONMENT)
    assert not words_in(str(caught.value))
    with pytest.raises(ConfigError) as caught:
        load(LiveConfig, None, env={**ENVIRONMENT, "GPUSCALP__FEED__REST_URL": secret})
    assert not words_in(str(caught.value))


def test_shipped_configuration_has_no_secret():
    root = Path(__file__).resolve().parent.parent
    assert load(LiveConfig, root / "configs" / "paper.toml", env=ENVIRONMENT) == LiveConfig()


def test_report_holds_no_secret():
    keep_environment(ENVIRONMENT)
    page = render(EVERYTHING, [Section(EVERYTHING, paragraphs=[EVERYTHING], warnings=[EVERYTHING])])
    assert not words_in(page)
    assert "</html>" in page
