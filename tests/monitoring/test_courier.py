"""A channel that hangs or fails keeps messages from nobody else."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from gpuscalp.live.onlookers import Onlookers
from gpuscalp.monitoring.alarms import Message
from gpuscalp.monitoring.channel import AppriseChannel, open_channels
from gpuscalp.monitoring.courier import WAITING_MAX, Courier
from gpuscalp.monitoring.notifier import Notifier
from tests.monitoring.notifying import CONFIG, HELLO, SECRET, Session, running
from tests.monitoring.receivers import PATIENCE_S, Webhook, webhook
from tests.waiting import until


@pytest.fixture
def hook() -> Iterator[Webhook]:
    with webhook() as found:
        yield found


class Hanging:
    """A service that says nothing before it is set free."""

    service = "Hanging"

    def __init__(self) -> None:
        self.free = threading.Event()

    def send(self, _: Message) -> str | None:
        self.free.wait()
        return "it has hung"


def test_service_that_hangs_keeps_the_last_message_from_nobody_else(hook):
    """All channels had one thread: those behind one that hung were not told that the session had failed."""
    hanging, (healthy,) = Hanging(), open_channels([hook.url(SECRET)])
    notifier = Notifier([hanging, healthy], CONFIG, "s1", Session().collect, Onlookers().run, end_s=0.1)
    notifier.start()
    try:
        notifier.say(HELLO)
        began = time.monotonic()
        notifier.stop()
        assert time.monotonic() - began < PATIENCE_S / 2
        until(lambda: hook.got, "the message")
    finally:
        hanging.free.set()
    assert [each["title"] for each in hook.got] == ["A title"]


def test_service_that_hangs_delays_no_alert_to_another():
    """Messages that waited for a channel that hung, and their tries, came before the alert."""
    told: list[str] = []

    class Prompt:
        service = "Prompt"

        def send(self, message: Message) -> str | None:
            told.append(message.title)
            return None

    session, hanging = Session(), Hanging()
    notifier = Notifier([hanging, Prompt()], CONFIG, "s1", session.collect, Onlookers().run, end_s=0.0)
    notifier.start()
    try:
        notifier.say(Message("first", "", "warning"))
        until(lambda: told == ["first"], "the first message")
        session.halted = 1
        until(lambda: len(told) == 2, "the alert")
    finally:
        notifier.stop()
        hanging.free.set()
    assert told[1] == "gpuscalp s1: critical: GpuscalpHalted"


def test_critical_message_passes_those_that_wait_for_the_same_service(hook):
    hook.hold = threading.Event()
    with running(hook.url(SECRET)) as notifier:
        notifier.say(Message("w1", "b", "warning"))
        (courier,) = notifier._couriers
        until(lambda: not notifier._said and not courier._owed, "the first one in its hands")
        for title, severity in (("w2", "warning"), ("c1", "critical"), ("w3", "warning"), ("c2", "critical")):
            notifier.say(Message(title, "b", severity))  # type: ignore[arg-type]
        until(lambda: len(courier._owed) == 4, "the others")
        hook.hold.set()
        until(lambda: notifier.counts["JSON", "sent"] == 5, "all of them")
    assert [each["title"] for each in hook.got] == ["w1", "c1", "c2", "w2", "w3"]


def test_what_waits_for_a_service_is_bounded_also_with_what_comes_back_from_a_try():
    hanging = Hanging()
    courier = Courier(hanging, (1_000.0,))
    lost: list[bool] = []
    courier.start()
    courier.owe(HELLO, lost.append)
    until(lambda: not courier._owed, "the first one in its hands")
    for _ in range(WAITING_MAX):
        courier.owe(HELLO, lost.append)
    hanging.free.set()
    until(lambda: courier.counts["failed"] == WAITING_MAX + 1, "a try of each")
    for _ in range(200):
        courier.owe(HELLO, lost.append)
    courier.end()
    courier.thread.join(PATIENCE_S)
    assert len(lost) == WAITING_MAX + 201, "each is settled once"
    assert not any(lost)
    assert courier.counts["dropped"] == len(lost)


class Faulty:
    """A service that takes nothing while it is down."""

    service = "Faulty"

    def __init__(self, *, down: bool) -> None:
        self.down, self.tries = down, 0
        self.titles: list[str] = []

    def send(self, message: Message) -> str | None:
        self.tries += 1
        if self.down:
            return "it is down"
        self.titles.append(message.title)
        return None


def test_alert_outlives_an_outage_that_is_longer_than_all_tries_of_a_message():
    """It was silent for an hour after it, and a warning for ever."""
    session, service = Session(), Faulty(down=True)
    notifier = Notifier([service], CONFIG, "s1", session.collect, Onlookers().run, retries_s=(0.01,))
    notifier.start()
    try:
        session.halted = 1
        until(lambda: service.tries >= 7, "four messages")
        service.down = False
        until(lambda: service.titles, "the alert")
        tries = service.tries
        time.sleep(5 * CONFIG.every_s)
    finally:
        notifier.stop()
    assert service.titles == ["gpuscalp s1: critical: GpuscalpHalted"]
    assert service.tries == tries, "once it is told, it is told"
    assert notifier.counts["Faulty", "dropped"] >= 3


def test_alert_that_one_service_has_taken_is_not_told_again_for_another():
    session, up, down = Session(), Faulty(down=False), Faulty(down=True)
    notifier = Notifier([up, down], CONFIG, "s1", session.collect, Onlookers().run, retries_s=(0.01,))
    notifier.start()
    try:
        session.halted = 1
        until(lambda: down.tries == 2, "the end of the tries")
        time.sleep(5 * CONFIG.every_s)
    finally:
        notifier.stop()
    assert (len(up.titles), down.tries) == (1, 2)


def test_services_that_fail_at_once_give_each_its_own_reason(hook):
    """What apprise says was heard by whoever listened first: the other one gave no reason."""
    both = threading.Barrier(2)

    class Meeting:
        """Both are listening before either speaks, and until both have spoken."""

        def __init__(self, plugin: Any) -> None:
            self._plugin, self.service_name = plugin, plugin.service_name

        def notify(self, **message: Any) -> bool:
            both.wait(PATIENCE_S)
            sent = self._plugin.notify(**message)
            both.wait(PATIENCE_S)
            return bool(sent)

    failures: dict[int, str | None] = {}

    def send(status: int, url: str) -> None:
        (opened,) = open_channels([url])
        failures[status] = AppriseChannel(Meeting(opened._plugin), url).send(HELLO)  # type: ignore[attr-defined]

    with webhook() as other:
        hook.status, other.status = 403, 500
        hooks = (hook, other)
        threads = [threading.Thread(target=send, args=(each.status, each.url(SECRET))) for each in hooks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
    assert sorted(failures) == [403, 500]
    for status, failure in failures.items():
        assert failure is not None
        assert f"error={status}" in failure
