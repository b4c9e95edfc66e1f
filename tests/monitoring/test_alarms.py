"""When something is told: holding, grouping, repeating, the limit of messages. Time is a number here."""

from __future__ import annotations

import msgspec
import pytest
from prometheus_client.metrics_core import GaugeMetricFamily

from gpuscalp.config import NotifyConfig
from gpuscalp.monitoring.alarms import Alarm, Alarms, Change, Digest
from gpuscalp.monitoring.conditions import Condition
from gpuscalp.monitoring.expressions import Age, Beyond, Scrapes, Series

CONFIG = NotifyConfig(severity="info", group_s=10, repeat_s=600, max_per_hour=8)


def _condition(name: str, severity: str = "warning", hold_s: int = 0) -> Condition:
    test = Beyond(Series(name.lower()), ">", 0)
    return Condition(name, severity, test, "{symbol} of " + name, hold_s=hold_s)  # type: ignore[arg-type]


def _change(name: str, *, firing: bool = True, severity: str = "warning", symbol: str = "A") -> Change:
    return Change(Alarm(_condition(name, severity), (("symbol", symbol),), 0.0, 1.0), firing=firing)


class Story:
    """A digest, and what fires."""

    def __init__(self, **changes: object) -> None:
        self.digest = Digest(msgspec.structs.replace(CONFIG, **changes), "s1")
        self.firing: dict = {}

    def lost(self, message, now_s: float) -> None:
        """No channel has delivered it."""
        self.digest.take_back(message, self.firing, now_s)

    def at(self, now_s: float, *changes: Change):
        for change in changes:
            if change.firing:
                self.firing[change.alarm.key] = change.alarm
            else:
                self.firing.pop(change.alarm.key, None)
        self.digest.add(changes, now_s)
        return self.digest.due(self.firing, now_s)


def test_warnings_wait_for_each_other_and_come_as_one_message():
    story = Story()
    assert story.at(100, _change("Slow")) is None
    assert story.at(105, _change("Drift", symbol="B")) is None
    message = story.at(110)
    assert message is not None
    assert message.title == "gpuscalp s1: warning: Drift and 1 more"
    assert [line.split(":")[0] for line in message.body.splitlines()] == ["[warning] Drift", "[warning] Slow"]
    assert "B of Drift" in message.body
    assert story.at(200) is None, "it is told once"


def test_critical_alarm_goes_out_at_once_and_takes_along_what_waits():
    story = Story()
    assert story.at(100, _change("Slow")) is None
    message = story.at(101, _change("Halted", severity="critical"))
    assert message is not None
    assert message.severity == "critical"
    assert message.title == "gpuscalp s1: critical: Halted and 1 more"


def test_end_of_what_was_told_is_told():
    story = Story()
    story.at(100, _change("Halted", severity="critical"))
    assert story.at(150, _change("Halted", severity="critical", firing=False)) is None
    message = story.at(160)
    assert message is not None
    assert message.resolved
    assert message.title == "gpuscalp s1: over: Halted"
    assert message.body.startswith("Over: [critical] Halted: A of Halted")


def test_no_end_is_told_where_it_is_not_wanted_or_only_information():
    quiet = Story(resolved=False)
    quiet.at(100, _change("Halted", severity="critical"))
    assert quiet.at(150, _change("Halted", severity="critical", firing=False)) is None
    assert quiet.at(1_000) is None
    again = quiet.at(1_001, _change("Halted", severity="critical"))
    assert again is not None, "it is a new one"
    story = Story()
    assert story.at(100, _change("Started", severity="info")) is None
    assert story.at(110) is not None
    story.at(120, _change("Started", severity="info", firing=False))
    assert story.at(500) is None


def test_what_is_less_grave_than_wanted_is_not_told():
    story = Story(severity="critical")
    assert story.at(100, _change("Slow"), _change("Started", severity="info")) is None
    assert story.at(500) is None
    assert story.at(501, _change("Halted", severity="critical")) is not None


def test_what_flickers_while_it_waits_is_told_as_such():
    story = Story()
    story.at(100, _change("Slow"))
    story.at(103, _change("Slow", firing=False))
    message = story.at(110)
    assert message is not None
    assert message.body.startswith("Came and went: [warning] Slow")


def test_what_is_back_before_its_end_was_told_goes_on_untold():
    story = Story()
    story.at(100, _change("Slow"))
    assert story.at(110) is not None
    story.at(120, _change("Slow", firing=False))
    story.at(121, _change("Slow"))
    assert story.at(140) is None


def test_critical_alarm_that_goes_on_is_told_again_and_a_warning_is_not():
    story = Story()
    story.at(100, _change("Slow"), _change("Halted", severity="critical"))
    assert story.at(699) is None
    again = story.at(700)
    assert again is not None
    assert "Halted" in again.body
    assert "Slow" not in again.body
    assert story.at(701) is None


def test_messages_are_limited_nothing_is_lost_and_some_are_kept_for_critical_alarms():
    """Eight an hour: six for all, two more for critical ones; then everything waits for the hour to pass."""
    story = Story(repeat_s=1e6)
    sent = []
    for index in range(50):
        now_s = 1_000 + 20 * index
        sent.append(story.at(now_s, _change(f"W{index}")))
    told = [message for message in sent if message is not None]
    assert len(told) == 6
    critical = [
        story.at(2_000 + index, _change("C", severity="critical", symbol=f"S{index}")) for index in (1, 2)
    ]
    assert None not in critical
    assert story.at(2_003, _change("C", severity="critical", symbol="S3")) is None
    later = None
    at_s = 2_004
    while later is None:
        at_s += 10
        assert at_s < 1_000 + 3_700, "an hour later at the latest"
        later = story.at(at_s)
    assert "S3 of C" in later.body
    everything = [line for each in (*told, *critical, later) for line in each.body.splitlines()]
    more = sum(int(line.split()[2]) for line in everything if line.startswith("… and"))
    assert len([line for line in everything if line.startswith("[")]) + more == 53
    assert len(later.body.splitlines()) <= 21


def test_critical_alarm_that_was_not_told_within_the_hour_waits_for_no_limit():
    """A few streams that came and went took all messages: a halt was told 39 minutes late."""
    story = Story(repeat_s=1e6)
    silent = [_change("DataSilent", severity="critical", symbol=f"S{index}") for index in range(9)]
    told = [story.at(1_000 + index, change) for index, change in enumerate(silent)]
    assert [message is not None for message in told] == [True] * 8 + [False]
    first = story.at(3_001, _change("Halted", severity="critical"))
    assert "A of Halted" in first.body
    assert "S8 of DataSilent" in first.body, "it takes along what waits"
    assert story.at(3_002, _change("Halted", severity="critical", symbol="B")) is None, "once an hour"
    story.lost(first, 3_090)
    assert "A of Halted" in story.at(3_090).body, "nobody has been told"


def test_message_that_is_cut_names_every_condition():
    """Of 25 symbols that were silent twenty were named, and not that the gate was halted."""
    story = Story()
    silent = [_change("DataSilent", severity="critical", symbol=f"S{index}") for index in range(25)]
    message = story.at(100, *silent, _change("Halted", severity="critical", symbol="Z"))
    assert "Z of Halted" in message.body
    assert message.body.endswith("… and 6 more")


# What nobody got


def test_alarms_of_a_message_that_was_lost_are_told_again():
    """They were taken for told: a critical one was silent for an hour, a warning for ever."""
    story = Story()
    lost = story.at(100, _change("Halted", severity="critical"), _change("Slow"))
    assert story.at(190) is None
    story.lost(lost, 190)
    again = story.at(190)
    assert [line.split(":")[0] for line in again.body.splitlines()] == ["[critical] Halted", "[warning] Slow"]
    assert "since 190 s" not in again.body
    assert "since 3 min" in again.body, "as it is now"
    assert story.at(789) is None
    assert story.at(790) is not None, "repeated from then on"


def test_warning_of_a_message_that_was_lost_waits_for_others_again():
    story = Story()
    story.at(100, _change("Slow"))
    story.lost(story.at(110), 200)
    assert story.at(209) is None
    assert "[warning] Slow" in story.at(210).body


@pytest.mark.parametrize("resolved", [True, False])
def test_alarm_that_ended_before_its_message_was_lost_came_and_went(resolved):
    story = Story(resolved=resolved)
    lost = story.at(100, _change("Halted", severity="critical"))
    assert story.at(185, _change("Halted", severity="critical", firing=False)) is None
    story.lost(lost, 186)
    message = story.at(196)
    assert message.body.startswith("Came and went: [critical] Halted")
    assert len(message.body.splitlines()) == 1
    assert "Halted" in story.at(300, _change("Halted", severity="critical")).body, "it is a new one"


def test_end_that_was_lost_is_told_again():
    story = Story()
    story.at(100, _change("Halted", severity="critical"))
    story.at(150, _change("Halted", severity="critical", firing=False))
    lost = story.at(160)
    story.lost(lost, 250)
    message = story.at(260)
    assert (message.title, message.resolved) == ("gpuscalp s1: over: Halted", True)
    assert story.at(400) is None


def test_alarm_whose_end_was_lost_is_told_when_it_is_back():
    """As over and there again it would go on untold, and nobody may have heard of it at all."""
    story = Story()
    first = story.at(100, _change("Slow"), _change("Halted", severity="critical"))
    story.at(101, _change("Halted", severity="critical", firing=False))
    end = story.at(111)
    story.lost(first, 186)
    story.lost(end, 196)
    message = story.at(197, _change("Halted", severity="critical"))
    assert message.body.splitlines()[0].startswith("[critical] Halted")
    assert "[warning] Slow" in message.body
    assert "Over" not in message.body


def test_alarm_that_another_message_has_told_meanwhile_is_not_told_twice():
    story = Story()
    first = story.at(100, _change("Halted", severity="critical"))
    story.at(101, _change("Halted", severity="critical", firing=False))
    end = story.at(111)
    assert end.resolved
    assert story.at(120, _change("Halted", severity="critical")) is not None
    story.lost(first, 186)
    story.lost(end, 196)
    assert story.at(300) is None


def test_messages_that_were_lost_do_not_count_for_the_limit():
    """Eight an hour are allowed; an outage of half an hour would have been followed by silence."""
    story = Story()
    message = story.at(100, _change("Halted", severity="critical"))
    for now_s in range(185, 2_000, 85):
        story.lost(message, now_s)
        message = story.at(now_s)
        assert message is not None


def test_age_is_by_the_clock_that_the_instant_is_of():
    scrapes = Scrapes({"said_at": 0})
    metric = GaugeMetricFamily("said_at", "", value=1_700_000_000)
    scrapes.add(5, [metric], unix_s=1_700_000_012)
    assert Age(Series("said_at")).read(scrapes) == {(): 12}


@pytest.mark.parametrize("hold_s", [0, 10])
def test_condition_has_to_hold_without_a_break(hold_s):
    alarms = Alarms([_condition("Slow", hold_s=hold_s)])
    scrapes = Scrapes(alarms.ranges)

    class Told:
        def __init__(self, value: float) -> None:
            self.name = "slow"
            self.samples = [self]
            self.labels, self.value = {"symbol": "A"}, value

    found = []
    for at_s, value in ((0, 1), (5, 1), (10, 0), (15, 1), (20, 1), (25, 1), (30, 0)):
        scrapes.add(at_s, [Told(value)], unix_s=0.0)  # type: ignore[list-item]
        found += [(at_s, each.firing) for each in alarms.observe(scrapes)]
    assert found == (
        [(25, True), (30, False)] if hold_s else [(0, True), (10, False), (15, True), (30, False)]
    )
