"""Notifications as people get them: HTTP and SMTP receivers on loopback, and what happens without them."""

from __future__ import annotations

import asyncio
import email
import json
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiosmtpd.controller import Controller
from prometheus_client.metrics_core import CounterMetricFamily

from gpuscalp.config import FeedConfig, LiveConfig, MetricsConfig, NotifyConfig
from gpuscalp.doctor.operation import check_notify
from gpuscalp.errors import ConfigError, GpuscalpError, JournalError, ModelError, UsageError
from gpuscalp.live.directory import create, lock
from gpuscalp.live.observed import observed
from gpuscalp.live.onlookers import Onlookers
from gpuscalp.live.probes import Pulse
from gpuscalp.live.run import run_live
from gpuscalp.monitoring.alarms import Message
from gpuscalp.monitoring.channel import open_channels, read_urls
from gpuscalp.monitoring.notifier import Notifier
from tests.live.sessions import instruments, write_eager_bundle
from tests.monitoring.notifying import CONFIG, HELLO, SECRET, Session, running
from tests.monitoring.receivers import PATIENCE_S, Webhook, webhook
from tests.ports import free_port
from tests.waiting import until


@pytest.fixture
def hook() -> Iterator[Webhook]:
    with webhook() as found:
        yield found


def test_alert_and_its_end_arrive_at_a_webhook(hook):
    session = Session()
    with running(hook.url(SECRET), session=session) as notifier:
        session.halted = 1
        until(lambda: hook.got, "the alert")
        session.halted = 0
        until(lambda: len(hook.got) == 2, "its end")
        until(lambda: notifier.counts["JSON", "sent"] == 2, "the count")
    first, second = hook.got
    assert first["title"] == "gpuscalp s1: critical: GpuscalpHalted"
    assert "[critical] GpuscalpHalted: The risk gate is halted: no order passes." in first["message"]
    assert "docs/alerts.md#gpuscalphalted" in first["message"]
    assert first["type"] == "failure"
    assert second["title"] == "gpuscalp s1: over: GpuscalpHalted"
    assert second["type"] == "success"


def test_alert_arrives_as_mail():
    got: list[email.message.Message] = []

    class Keeper:
        async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802
            got.append(email.message_from_bytes(envelope.content))
            return "250 OK"

    port = free_port()
    server = Controller(Keeper(), hostname="127.0.0.1", port=port)
    server.start()
    session = Session()
    try:
        url = f"mailto://127.0.0.1:{port}?from=me@here.example&to=you@there.example&mode=insecure"
        with running(url, session=session):
            session.drawdown = 0.06
            until(lambda: got, "the mail")
    finally:
        server.stop()
    (mail,) = got
    assert "you@there.example" in mail["To"]
    assert mail["Subject"] == "gpuscalp s1: critical: GpuscalpDrawdown"
    text = "".join(part.get_payload(decode=True).decode() for part in mail.walk() if not part.is_multipart())
    assert "The drawdown is above 5 %." in text


def test_message_is_tried_again_and_given_up_and_other_services_get_it(hook, caplog):
    with webhook() as broken, caplog.at_level(logging.DEBUG):
        broken.status = 500
        with running(broken.url(SECRET), hook.url(SECRET)) as notifier:
            notifier.say(HELLO)
            until(lambda: notifier.counts["JSON", "dropped"] == 1, "the end of the tries")
        assert len(broken.got) == 3
    assert [each["title"] for each in hook.got] == ["A title"]
    assert notifier.counts == {("JSON", "sent"): 1, ("JSON", "failed"): 3, ("JSON", "dropped"): 1}
    (said,) = (each for each in caplog.records if each.name == "gpuscalp.session")  # of three tries
    assert said.levelname == "WARNING"
    assert "could not be delivered: JSON: " in said.getMessage()
    assert "500" in said.getMessage()
    assert SECRET not in caplog.text
    (metric,) = notifier.collect()
    told = {sample.labels["result"]: sample.value for sample in metric.samples}
    assert told == {"sent": 1, "failed": 3, "dropped": 1}


def test_message_arrives_when_the_service_is_there_again(hook):
    hook.status = 503
    with running(hook.url(SECRET)) as notifier:
        notifier.say(HELLO)
        until(lambda: notifier.counts["JSON", "failed"], "a failure")
        hook.status = 200
        until(lambda: notifier.counts["JSON", "sent"] == 1, "the message")
    assert notifier.counts["JSON", "dropped"] == 0


def test_service_that_hangs_holds_up_nobody(hook):
    """It says nothing for longer than the session waits at its end."""
    hook.hold = threading.Event()
    with running(hook.url(SECRET), end_s=0.2) as notifier:
        notifier.say(HELLO)
        until(lambda: notifier._thread.is_alive() and not notifier._said, "the try")
        began = time.monotonic()
        notifier.say(HELLO)
        notifier.stop()
        # Whoever waited for the service would wait for as long as it has patience.
        assert time.monotonic() - began < PATIENCE_S / 2, "nobody waits for the network"
        assert notifier._thread.daemon, "else the process could not end"
        (courier,) = notifier._couriers
        assert courier.thread.daemon
    hook.hold.set()
    for thread in (notifier._thread, courier.thread):
        thread.join(20)
        assert not thread.is_alive()


def test_service_that_is_not_there_is_counted(caplog):
    port = free_port()
    with running(f"json://{SECRET}@127.0.0.1:{port}/{SECRET}") as notifier:
        notifier.say(HELLO)
        until(lambda: notifier.counts["JSON", "dropped"] == 1, "the end of the tries")
    assert "could not be delivered: JSON: " in caplog.text
    assert SECRET not in caplog.text


def test_defect_in_what_is_read_does_not_end_the_thread_and_is_counted(hook):
    """A number that nobody read had it: nothing was sent, nothing logged, and no alert saw it."""
    session, onlookers = Session(), Onlookers()
    with running(hook.url(SECRET), session=session, onlookers=onlookers):
        session.defect = True
        until(lambda: onlookers.status()["errors"], "the defect")
        assert onlookers.status()["last"] == {"notifier": "RuntimeError: a defect of ours"}
        session.defect, session.halted = False, 1
        until(lambda: hook.got, "the alert")


def test_clock_that_goes_back_does_no_harm(hook):
    """Nothing had been looked at until it came to where it had been."""
    now = [1_000_000.0]
    session, onlookers = Session(), Onlookers()
    with running(hook.url(SECRET), session=session, onlookers=onlookers, clock=lambda: now[0]) as notifier:
        session.halted = 1
        until(lambda: hook.got, "the alert")
        now[0] -= 5_000
        session.halted = 0
        until(lambda: len(hook.got) == 2, "its end")
        hook.status = 500
        notifier.say(HELLO)
        until(lambda: notifier.counts["JSON", "dropped"] == 1, "all of its tries")
        assert onlookers.status()["errors"] == 0


def test_what_is_said_waits_in_a_bounded_queue_and_only_if_grave_enough(hook):
    hook.status = 500
    notifier = Notifier(open_channels([hook.url(SECRET)]), CONFIG, "s1", Session().collect, Onlookers().run)
    notifier.say(Message("t", "b", "info"))
    assert not notifier._said
    for _ in range(500):
        notifier.say(HELLO)
    assert len(notifier._said) == 50


def test_rise_is_seen_for_as_long_as_its_condition_looks_back():
    """Five minutes were kept: a rollback was over after them, for Prometheus after a quarter of an hour."""
    rollbacks = 0

    def collect() -> Iterator[CounterMetricFamily]:
        yield CounterMetricFamily("gpuscalp_model_rollbacks", "", value=rollbacks)

    notifier = Notifier((), CONFIG, "s1", collect, Onlookers().run)
    fired = []
    for at_s in range(0, 1_000, 5):
        rollbacks = int(at_s >= 50)
        notifier._look(at_s)
        fired += [at_s] * bool(notifier._alarms.firing)
    assert fired == list(range(50, 950, 5))


# Where the URLs come from


def test_urls_come_from_the_environment_and_from_a_file(tmp_path):
    file = tmp_path / "notify"
    file.write_text("# of the desk\n\njson://one\n  json://two  \n")
    file.chmod(0o600)
    environment = {"GPUSCALP_NOTIFY_URLS": " json://three  json://four ", "GPUSCALP_NOTIFY_FILE": str(file)}
    assert read_urls(environment) == ["json://three", "json://four", "json://one", "json://two"]
    assert read_urls({}) == []


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620])
def test_file_that_others_may_read_or_write_is_refused(tmp_path, mode):
    file = tmp_path / "notify"
    file.write_text(f"json://{SECRET}\n")
    file.chmod(mode)
    with pytest.raises(ConfigError) as caught:
        read_urls({"GPUSCALP_NOTIFY_FILE": str(file)})
    assert f"{mode:04o}" in str(caught.value.value)
    assert SECRET not in str(caught.value)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        read_urls({"GPUSCALP_NOTIFY_FILE": str(tmp_path / "none")})


def test_file_that_is_not_utf_8_is_named_and_not_shown(tmp_path, cli, monkeypatch):
    # It was a traceback, and the doctor ended without its report.
    file = tmp_path / "notify"
    file.write_bytes(f"json://büro:{SECRET}@localhost\n".encode("latin-1"))
    file.chmod(0o600)
    monkeypatch.setenv("GPUSCALP_NOTIFY_FILE", str(file))
    with pytest.raises(ConfigError, match="not UTF-8") as caught:
        read_urls(os.environ)
    assert caught.value.value == str(file)
    done = cli("notify", "test", "--json")
    assert done.code == json.loads(done.stdout)["error"]["code"] == 4
    found = check_notify(os.environ)
    assert (found.status, found.code) == ("fail", 4)
    for told in (str(caught.value), done.stdout + done.stderr, json.dumps(found.to_dict())):
        assert SECRET not in told


@pytest.mark.parametrize("url", [f"nothing://{SECRET}", f"{SECRET}", f"tgram://{SECRET}"])
def test_url_that_apprise_does_not_know_is_refused_without_showing_it(url):
    with pytest.raises(ConfigError) as caught:
        open_channels(["json://localhost", url])
    assert "number 2" in str(caught.value.where)
    assert SECRET not in str(caught.value)


def test_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "apprise", None)
    assert open_channels([]) == []
    with pytest.raises(ConfigError) as caught:
        open_channels(["json://localhost"])
    assert "EXTRAS=notify" in str(caught.value.fix)


def test_urls_of_the_documentation_are_such_that_apprise_knows():
    text = (Path(__file__).resolve().parents[2] / "docs" / "alerts.md").read_text()
    urls = re.findall(r"\| `(\w+://[^`]+)` \|", text)
    assert len(urls) == 4
    real = {
        "BOT_TOKEN": "123456789:abcdefg_hijklmnop",
        "CHAT_ID": "12315544",
        "TOKEN_A/TOKEN_B/TOKEN_C": "T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ",
        "SERVER": "mail.here.example",
        "HERE": "here.example",
        "THERE": "there.example",
    }
    for placeholder, value in real.items():
        urls = [url.replace(placeholder, value) for url in urls]
    assert [each.service for each in open_channels(urls)] == ["Telegram", "Slack", "E-Mail", "JSON"]


# The command, and a session


def test_command_says_what_became_of_a_test_message(hook, cli, monkeypatch):
    with webhook() as broken:
        broken.status = 403
        monkeypatch.setenv("GPUSCALP_NOTIFY_URLS", f"{hook.url(SECRET)} {broken.url(SECRET)}")
        done = cli("notify", "test", "--json")
    assert done.code == 1
    answer = json.loads(done.stdout)
    assert answer["failed"] == 1
    assert answer["channels"][0] == {"service": "JSON", "failure": None}
    assert "403" in answer["channels"][1]["failure"]
    assert SECRET not in done.stdout + done.stderr
    assert hook.got[0]["title"] == "gpuscalp: a test"
    monkeypatch.setenv("GPUSCALP_NOTIFY_URLS", hook.url(SECRET))
    done = cli("notify", "test")
    assert (done.code, done.stdout) == (0, "JSON: delivered\n")


def test_command_without_anybody_to_tell_is_a_matter_of_configuration(cli, monkeypatch):
    for name in ("GPUSCALP_NOTIFY_URLS", "GPUSCALP_NOTIFY_FILE"):
        monkeypatch.delenv(name, raising=False)
    assert cli("notify", "test").code == 4


def _observed(tmp_path: Any, hook: Webhook, **notify: Any) -> Any:
    config = LiveConfig(metrics=MetricsConfig(port=0), notify=NotifyConfig(**notify))
    environment = {"GPUSCALP_NOTIFY_URLS": hook.url(SECRET)}
    return observed(
        tmp_path / "s7", config, dict, dict, tuple, Pulse(0), Onlookers(), environment=environment
    )


def test_end_of_a_session_is_told_with_its_reason(hook, tmp_path):
    around = _observed(tmp_path, hook, severity="info")
    with around:
        pass
    assert [each["title"] for each in hook.got] == ["gpuscalp s7: the session ended"]


def test_stop_is_not_told_where_only_trouble_is_wanted_and_a_failure_is(hook, tmp_path):
    around = _observed(tmp_path, hook)
    with around:
        pass
    assert hook.got == []
    around = _observed(tmp_path, hook)
    with pytest.raises(JournalError), around:
        raise JournalError("the disk is full", where="/secret/place")
    (message,) = hook.got
    assert message["title"] == "gpuscalp s7: critical: the session failed"
    assert message["message"] == "It ended: the disk is full"


@pytest.mark.parametrize("stop", [KeyboardInterrupt, asyncio.CancelledError])
def test_start_that_somebody_stops_is_no_failure(hook, tmp_path, stop):
    """Ctrl-C while the journal was repeated was told of as "critical: the session failed"."""
    with pytest.raises(stop), _observed(tmp_path, hook, severity="info"):
        raise stop
    (message,) = hook.got
    assert message["title"] == "gpuscalp s7: the session ended"
    assert "stopped" in message["message"]


@pytest.mark.parametrize("runs", [True, False])
def test_start_by_mistake_is_no_failure_of_the_session_that_runs(hook, tmp_path, monkeypatch, runs):
    """A second start told everybody "critical: the session failed" in the name of the one that ran."""
    path = tmp_path / "s7"
    create(path, LiveConfig(), write_eager_bundle(tmp_path / "bundle"), instruments(), now_ns=1)
    (path / "bundle" / "contract.json").unlink()  # of what the start fails that has the lock
    monkeypatch.setenv("GPUSCALP_NOTIFY_URLS", hook.url(SECRET))
    held = lock(path) if runs else None
    with pytest.raises(UsageError if runs else ModelError) as told:
        run_live(path, None, seconds=1.0)
    assert ("another process runs" in told.value.what) == runs
    assert [each["title"] for each in hook.got] == ["gpuscalp s7: critical: the session failed"][runs:]
    if held is not None:
        os.close(held)
    os.close(lock(path))  # nobody else has it any more


@pytest.mark.parametrize("known", [True, False])
def test_start_that_is_refused_is_told_where_there_is_a_session(hook, tmp_path, monkeypatch, known):
    """After a kill the start again was refused, and nobody was told: positions stayed, and no process."""
    path = tmp_path / "s7"
    bundle = write_eager_bundle(tmp_path / "bundle")
    if known:
        create(path, LiveConfig(), bundle, instruments(), now_ns=1)
    monkeypatch.setenv("GPUSCALP_NOTIFY_URLS", hook.url(SECRET))
    away = msgspec.structs.replace(LiveConfig(), feed=FeedConfig(rest_url="http://127.0.0.1:1"))
    with pytest.raises(GpuscalpError) as told:
        run_live(path, away, model=bundle, device="cpu", seconds=1.0)
    refused = "critical: the session failed", "It ended: the session was begun with another configuration"
    assert isinstance(told.value, ConfigError) == known
    assert [each["title"] for each in hook.got] == [f"gpuscalp s7: {refused[0]}"] * known
    assert [each["message"] for each in hook.got] == [refused[1]] * known


@pytest.mark.parametrize("runs", [True, False])
def test_command_that_cannot_start_a_session_again_tells_it(hook, tmp_path, cli, monkeypatch, runs):
    """Real orders have to be confirmed at every start; whoever forgets it where nobody looks is told."""
    path = tmp_path / "s7"
    config = LiveConfig(broker="nautilus")
    create(path, config, write_eager_bundle(tmp_path / "bundle"), instruments(), now_ns=1)
    monkeypatch.setenv("GPUSCALP_NOTIFY_URLS", hook.url(SECRET))
    held = lock(path) if runs else None
    assert cli("live", "--session", path).code == UsageError.exit_code
    assert [each["message"] for each in hook.got] == ["It ended: this sends orders to an account"][runs:]
    if held is not None:
        os.close(held)


def test_nothing_is_started_where_nobody_wants_anything(tmp_path):
    before = threading.active_count()
    with observed(tmp_path, LiveConfig(), dict, dict, tuple, Pulse(0), Onlookers(), environment={}):
        assert threading.active_count() == before
