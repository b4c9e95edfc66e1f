"""Which conditions hold for long enough to be told, and what is put into one message.

Owns: the way from pending to firing to resolved, grouping, repeating, and the limit of messages. Pure: time
comes with the scrapes. Never: sends anything.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, final

from gpuscalp.config import NotifyConfig
from gpuscalp.monitoring.conditions import SEVERITIES, Condition, Severity
from gpuscalp.monitoring.expressions import Labels, Ranges, Scrapes, merged

_HOUR_S: Final = 3_600.0
_LINES_MAX: Final = 20  # of one message


@final
@dataclass(frozen=True)
class Alarm:
    """A condition that holds for one series, since an instant (of the scrapes), with its newest value."""

    condition: Condition
    labels: Labels
    since_s: float
    value: float

    @property
    def key(self) -> tuple[str, Labels]:
        return self.condition.name, self.labels

    def sentence(self) -> str:
        """Return what is wrong, with the names of what it is about."""
        known = dict(self.labels)
        fields = {name for _, name, _, _ in string.Formatter().parse(self.condition.what) if name}
        return self.condition.what.format_map({name: known.get(name) or "?" for name in fields})


@final
@dataclass(frozen=True)
class Change:
    """An alarm that has begun or has ended."""

    alarm: Alarm
    firing: bool


@final
@dataclass(frozen=True)
class Told:
    """What a message tells of: what has begun, what came and went, what is over; and when it was made."""

    at_s: float
    begun: tuple[Alarm, ...]
    passed: tuple[Alarm, ...]
    over: tuple[Alarm, ...]


@final
@dataclass(frozen=True)
class Message:
    """What is sent. ``resolved``: it tells of nothing but what is over; ``told``: None without conditions."""

    title: str
    body: str
    severity: Severity
    resolved: bool = False
    told: Told | None = None


@final
class Alarms:
    """What is pending and what is firing.

    Parameters
    ----------
    conditions : to look at
    """

    def __init__(self, conditions: Iterable[Condition]) -> None:
        self._conditions = tuple(conditions)
        self._pending: dict[tuple[str, Labels], float] = {}
        self.firing: dict[tuple[str, Labels], Alarm] = {}

    @property
    def ranges(self) -> Ranges:
        """What is read, and how far back."""
        return merged(each.ranges() for each in self._conditions)

    def observe(self, scrapes: Scrapes) -> list[Change]:
        """Return what has begun and what has ended with the newest scrape."""
        now_s, changes, seen = scrapes.now_s, [], set()
        for condition in self._conditions:
            for labels, value in condition.read(scrapes).items():
                key = (condition.name, labels)
                seen.add(key)
                since_s = self._pending.setdefault(key, now_s)
                if now_s - since_s < condition.hold_s:
                    continue
                alarm = Alarm(condition, labels, since_s, value)
                if key not in self.firing:
                    changes.append(Change(alarm, firing=True))
                self.firing[key] = alarm
        for key in [key for key in self._pending if key not in seen]:
            del self._pending[key]
            if (alarm_over := self.firing.pop(key, None)) is not None:
                changes.append(Change(alarm_over, firing=False))
        return changes


@final
class Digest:
    """Gathers changes, and says when a message is due and what it says.

    A critical alert is due at once, everything else after ``group_s``. Above ``max_per_hour`` messages
    changes wait and are told together later: what came and went meanwhile as such. No alert waits that is
    critical and of a name of which nothing critical was told within the hour: others that come and go keep
    it from nobody. Nothing is lost, and what was in a message that nobody got (``take_back``) is told again.

    Parameters
    ----------
    who : the session's name, for the title
    """

    def __init__(self, config: NotifyConfig, who: str) -> None:
        self._config, self._who = config, who
        rank = SEVERITIES.index(config.severity)
        self._wanted = frozenset(SEVERITIES[: rank + 1])
        self._begun: dict[tuple[str, Labels], Alarm] = {}
        self._over: dict[tuple[str, Labels], Alarm] = {}
        self._passed: dict[tuple[str, Labels], Alarm] = {}  # came and went untold
        self._told: dict[tuple[str, Labels], float] = {}  # firing, and when it was last told
        self._waiting_s: float | None = None
        # Messages of the last hour: when each was made, and of which critical names it told.
        self._sent: dict[float, frozenset[str]] = {}

    def add(self, changes: Iterable[Change], now_s: float) -> None:
        """Take in what has changed."""
        for change in changes:
            alarm, key = change.alarm, change.alarm.key
            if alarm.condition.severity not in self._wanted:
                continue
            if change.firing:
                if self._over.pop(key, None) is None or key not in self._told:
                    self._begun[key] = alarm  # else: over and there again, untold; it goes on
            elif self._begun.pop(key, None) is not None:
                self._passed[key] = alarm
            elif self._tells_end(alarm):
                self._over[key] = alarm
            else:
                self._told.pop(key, None)
        self._wait(now_s)

    def take_back(self, message: Message, firing: Mapping[tuple[str, Labels], Alarm], now_s: float) -> None:
        """Owe again what a message told that nobody got, as it is now. It does not count for the limit.

        Parameters
        ----------
        firing : everything that fires
        """
        told = message.told
        if told is None:
            return
        self._sent.pop(told.at_s, None)
        for alarm in told.begun:
            key = alarm.key
            if self._told.get(key) == told.at_s:
                del self._told[key]
                if key in self._over:
                    self._passed[key] = self._over.pop(key)
                else:
                    self._begun[key] = firing.get(key, alarm)
            elif key not in firing and not self._tells_end(alarm):
                self._passed[key] = alarm  # else: what is over has its own message
        self._passed |= {each.key: each for each in told.passed}
        self._over |= {each.key: each for each in told.over if each.key not in firing}
        self._wait(now_s)

    def _tells_end(self, alarm: Alarm) -> bool:
        return self._config.resolved and alarm.condition.severity != "info"

    def _wait(self, now_s: float) -> None:
        if not (self._begun or self._over or self._passed):
            self._waiting_s = None
        elif self._waiting_s is None:
            self._waiting_s = now_s

    def due(self, firing: dict[tuple[str, Labels], Alarm], now_s: float) -> Message | None:
        """Return the message that has to go out now.

        Parameters
        ----------
        firing : everything that fires
        """
        self._repeat(firing, now_s)
        if self._waiting_s is None:
            return None
        critical = (each.condition for each in self._begun.values() if each.condition.severity == "critical")
        grave = frozenset(each.name for each in critical)
        if not grave and now_s - self._waiting_s < self._config.group_s:
            return None
        self._sent = {at_s: names for at_s, names in self._sent.items() if at_s > now_s - _HOUR_S}
        allowed = self._config.max_per_hour if grave else self._config.max_per_hour * 3 // 4
        if len(self._sent) >= allowed and grave <= frozenset().union(*self._sent.values()):
            return None
        self._sent[now_s] = grave
        return self._message(now_s)

    def _repeat(self, firing: dict[tuple[str, Labels], Alarm], now_s: float) -> None:
        for key, told_s in self._told.items():
            alarm = firing.get(key)
            if (
                alarm is not None
                and alarm.condition.severity == "critical"
                and now_s - told_s >= self._config.repeat_s
            ):
                self._begun[key] = alarm
                self._waiting_s = now_s if self._waiting_s is None else self._waiting_s

    def _message(self, now_s: float) -> Message:
        lines = [
            *(_line("", each, now_s) for each in _sorted(self._begun)),
            *(_line("Came and went: ", each, now_s) for each in _sorted(self._passed)),
            *(_line("Over: ", each, now_s) for each in _sorted(self._over)),
        ]
        if len(lines) > _LINES_MAX:
            lines[_LINES_MAX:] = [f"… and {len(lines) - _LINES_MAX} more"]
        told = [*_sorted(self._begun), *_sorted(self._passed)]
        resolved = not told
        named = told or _sorted(self._over)
        severity = named[0].condition.severity
        first, count = named[0].condition.name, len(named)
        word = "over" if resolved else severity
        title = f"gpuscalp {self._who}: {word}: {first}" + (f" and {count - 1} more" if count > 1 else "")
        told_of = Told(now_s, *(tuple(each.values()) for each in (self._begun, self._passed, self._over)))
        for key in self._over:
            self._told.pop(key, None)
        self._told |= dict.fromkeys(self._begun, now_s)
        self._begun, self._over, self._passed, self._waiting_s = {}, {}, {}, None
        return Message(title, "\n".join(lines), severity, resolved, told_of)


def _sorted(alarms: dict[tuple[str, Labels], Alarm]) -> list[Alarm]:
    """Return alarms, the gravest and oldest first; of each condition one before the others of any.

    A message is cut: what many symbols have must not keep another condition out of it.
    """
    ordered = sorted(alarms.values(), key=lambda each: (each.since_s, each.key))
    first = {each.condition.name: each for each in reversed(ordered)}
    return sorted(
        ordered,
        key=lambda each: (SEVERITIES.index(each.condition.severity), first[each.condition.name] is not each),
    )


def _line(prefix: str, alarm: Alarm, now_s: float) -> str:
    seconds = max(0, round(now_s - alarm.since_s))
    lasted = f"{seconds} s" if seconds < 120 else f"{seconds // 60} min"
    return (
        f"{prefix}[{alarm.condition.severity}] {alarm.condition.name}: {alarm.sentence()}"
        f" (value {alarm.value:.6g}, since {lasted}; docs/alerts.md#{alarm.condition.name.lower()})"
    )
