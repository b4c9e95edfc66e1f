"""Secrets are taken out of text in every form in which they are written, and nothing else is."""

from __future__ import annotations

import ast
import html
import json
from pathlib import Path
from urllib.parse import quote

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gpuscalp import redaction
from gpuscalp.config import LiveConfig, load
from gpuscalp.errors import ConfigError, FeedError
from gpuscalp.redaction import keep, keep_environment, redact, without_secrets
from gpuscalp.report import Section, render
from gpuscalp.worker import WorkerSpec
from gpuscalp.worker.process import environment_of
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


@pytest.mark.parametrize("form", [str, json.dumps, repr, lambda text: text.replace("\n", " | "), str.split])
def test_key_of_several_lines_is_known_however_they_are_broken(form):
    """A log has " | " for the end of a line: the private key stood in it in full."""
    key = "-----BEGIN PRIVATE KEY-----\nMC4HOOPOE\r\n MC5/CRAKE= \n-----END PRIVATE KEY-----\n"
    keep_environment({"BINANCE_API_SECRET": key})
    shown = redact(f"refused: {form(key)}")
    assert "HOOPOE" not in shown
    assert "CRAKE" not in shown
    assert redact("-----BEGIN PRIVATE KEY-----") == "-----BEGIN PRIVATE KEY-----"


def test_value_that_ends_with_a_line_is_known_without_it():
    """Such is the usual secret of Kubernetes that was made from a file."""
    keep_environment({"BINANCE_API_SECRET": "k2CORNCRAKEk2\n", "SHORT_TOKEN": "live\n\n\n\n"})
    assert redact("bad key k2CORNCRAKEk2 given live") == "bad key *** given live"


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


@pytest.mark.parametrize(
    "name",
    [
        *("PGPASSWORD", "DBPASSWD", "APISECRET", "MYSECRET", "SECRETKEY", "DBTOKEN", "MYAPIKEY", "API_KEY2"),
        *("GPGPASSPHRASE", "SLACKWEBHOOK", "SLACKWEBHOOKURL", "PGCREDENTIALS", "SENTRY_DSN", "SIGNING_KEY"),
    ],
)
def test_name_of_a_secret_may_be_part_of_a_longer_word(name):
    """A word of the list was known at the beginning of a name or behind an underscore alone."""
    keep_environment({name: "hunter2longer!"})
    assert redact("/nonexist/hunter2longer!") == "/nonexist/***"
    keep_environment({name: "gpuscalp"})
    assert redact("gpuscalp_frames_total gpuscalp") == "gpuscalp_frames_total ***"
    assert redaction.ordinary_names({name: "gpuscalp"}) == [name]


@pytest.mark.parametrize("name", ["MONKEY", "KEYBOARD_LAYOUT", "TOKENIZERS_CACHE", "SECRETARY", "XDSN"])
def test_name_that_only_sounds_like_a_secret_is_none(name):
    keep_environment({name: "/var/cache/of-this-1"})
    assert redact("/var/cache/of-this-1") == "/var/cache/of-this-1"


def test_process_that_a_session_starts_has_no_keys():
    """Whoever trained or predicted had the account's in its memory, which a dump of it shows."""
    ours = {"PATH": "/bin", "NOTIFY_SOCKET": "/run/n", "CUDA_VISIBLE_DEVICES": "0", "GPUSCALP_REGISTRY": "/r"}
    urls = {"HTTPS_PROXY": "http://127.0.0.1:1"}
    secrets = {
        **ENVIRONMENT,
        "GPUSCALP_NOTIFY_URLS": "tgram://1/2",
        "DATABASE_URL": "postgres://u:pw@host/db",
    }
    assert without_secrets({**secrets, **ours, **urls}) == ours | urls
    worker = WorkerSpec("", (), "cpu", 0, (0, 1), "forest", 1)
    assert not words_in(str(environment_of(worker, ENVIRONMENT | urls)))


def test_every_process_that_the_package_starts_is_without_them():
    root = Path(redaction.__file__).parent
    starts = []
    for path in root.rglob("*.py"):
        for call in (each for each in ast.walk(ast.parse(path.read_text())) if isinstance(each, ast.Call)):
            if ast.unparse(call.func) in ("subprocess.Popen", "subprocess.run"):
                given = [ast.unparse(each.value) for each in call.keywords if each.arg == "env"]
                starts.append((path.name, call.lineno, *given))
    assert len(starts) >= 7
    known = ("without_secrets(os.environ)", "environment_of(spec, os.environ)")
    assert [each for each in starts if not "".join(map(str, each[2:])).startswith(known)] == []


def test_password_of_a_url_is_known_as_it_is_typed():
    """`p%40ssw0rd99` was taken out and `p@ssw0rd99`, which is the password, was not."""
    keep_environment({"HTTPS_PROXY": "http://someone:p%40ssw0rd99@127.0.0.1:1"})
    for form in (str, json.dumps, html.escape, quote):
        assert "ssw0rd99" not in redact(f"refused: {form('p@ssw0rd99')}, again"), form
    assert "ssw0rd99" not in redact("refused: p%40ssw0rd99")


def test_json_stays_json():
    keep_environment(ENVIRONMENT)
    body = {"all": EVERYTHING, "list": list(BY_PLACE.values()), "number": 1}
    assert json.loads(redact(json.dumps(body)))["number"] == 1


@pytest.mark.parametrize(
    "value", ["gpuscalp", "Staple_Horse", "12345678", "-1234.5678", "123456789012345678901"]
)
def test_ordinary_value_is_taken_out_where_it_stands_alone(value):
    keep_environment({"DB_PASSWORD": value})
    for text in (
        value,
        f"password {value}, refused",
        f"https://host/login?p={value}&q=1",
        f"X-Key: {value}",
        quote(f"at=\n{value}&", safe=""),
        quote(quote(f"at={value}\n", safe=""), safe=""),
        json.dumps({"said": f"it was\n{value}"}),
        json.dumps(json.dumps({"said": [value], "more": f"é{value}"})),
        repr([value, f"\x00{value}\t"]),
        html.escape(f'"{value}" & more'),
        f'health_reason{{reason="{value}"}} 1',
    ):
        assert value not in redact(text), text
        if '"' in text:
            assert value not in redact(text, encoded=True), text
    assert redact(redact(value)) == redact(value) == redaction.HIDDEN


def test_ordinary_value_leaves_names_and_numbers_whole():
    """Every name in the page of metrics had lost its beginning, and a number of JSON its middle."""
    keep(["gpuscalp", "12345678", "positions", "histogram"])
    data = {
        "positions": ["gpuscalp"],
        "free": 51234567812,
        "same": 12345678,
        "ratio": 0.12345678,
        "gpuscalp": {},
    }
    body = json.dumps({**data, "note": 'said "positions": \\'})
    shown = json.loads(redact(body, encoded=True))
    assert shown == {**data, "positions": ["***"], "note": 'said "***": \\'}
    page = (
        "# HELP gpuscalp_build_info What gpuscalp is.\n# TYPE gpuscalp_build_info gauge\n"
        'gpuscalp_build_info{positions="1 gpuscalp",version="a\\"gpuscalp"} 12345678.0\n'
        "# HELP gpuscalp_took_seconds x\n# TYPE gpuscalp_took_seconds histogram\n"
        'gpuscalp_took_seconds_bucket{le="+Inf"} 1.0\ngpuscalp_took_seconds_count 1.0\n'
    )
    first, second = text_string_to_metric_families(redact(page, encoded=True))
    assert (first.name, second.name, second.type) == (
        "gpuscalp_build_info",
        "gpuscalp_took_seconds",
        "histogram",
    )
    (sample,) = first.samples
    assert sample.labels == {"positions": "1 ***", "version": 'a"***'}
    assert sample.value == 12_345_678
    assert (
        redact("gpuscalp_frames_total 1.12345678 912345678") == "gpuscalp_frames_total 1.12345678 912345678"
    )


def test_key_is_taken_out_within_a_longer_word():
    key = ENVIRONMENT["BINANCE_API_KEY"]
    keep([key, "abcdefghijklmnopqrstuvwxyz", "a" * 10 + "1"])
    for encoded in (False, True):
        assert not words_in(redact(f'{{"x{key}y": "z_{key}_z"}}', encoded=encoded))
        assert redact("xabcdefghijklmnopqrstuvwxyzx", encoded=encoded) == "x***x"
        assert redact("xaaaaaaaaaa1x", encoded=encoded) == "x***x"


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
