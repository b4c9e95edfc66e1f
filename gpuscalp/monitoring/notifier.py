"""Tells somebody what is wrong with a session, from a thread of its own.

Owns: when it looks and retries (by the monotonic clock: the other one may be set), what is counted. Nothing
here may hold up or end a session: no call waits for a network, nothing raises, the thread is a daemon, and
the end of a session waits for it some seconds at most.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, final

from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from gpuscalp.config import NotifyConfig
from gpuscalp.monitoring.alarms import Alarms, Digest, Message
from gpuscalp.monitoring.channel import Channel
from gpuscalp.monitoring.conditions import CONDITIONS, SEVERITIES
from gpuscalp.monitoring.expressions import Scrapes

_RETRIES_S: Final = (5.0, 20.0, 60.0)
_WAITING_MAX: Final = 50  # messages, over all channels
_RESULTS: Final = ("sent", "failed", "dropped")


@dataclass
class _Owed:
    """A message that a channel has not taken yet."""

    channel: Channel
    message: Message
    due_s: float
    tries: int = 0


@final
class Notifier(Collector):
    """Looks at the metrics of a session and sends what is to be told, from ``start`` to ``stop``.

    Parameters
    ----------
    channels : not empty
    who : the session's name, for titles
    collect : returns the metrics of the session, now
    clock : Unix seconds, for the age of what metrics tell
    end_s : how long ``stop`` waits for the last message

    Attributes
    ----------
    counts : (service, result) → messages; result is ``sent``, ``failed`` (one try) or ``dropped`` (given up)
    last_failure : what a channel said last, without anything secret
    """

    def __init__(
        self,
        channels: Sequence[Channel],
        config: NotifyConfig,
        who: str,
        collect: Callable[[], Iterable[Metric]],
        *,
        clock: Callable[[], float] = time.time,
        end_s: float = 3.0,
        retries_s: Sequence[float] = _RETRIES_S,
    ) -> None:
        self._channels, self._config, self._collect, self._clock = channels, config, collect, clock
        self._end_s, self._retries_s = end_s, retries_s
        self._alarms = Alarms(CONDITIONS)
        self._scrapes = Scrapes(self._alarms.ranges)
        self._digest = Digest(config, who)
        self._owed: deque[_Owed] = deque()
        self._said: deque[Message] = deque(maxlen=_WAITING_MAX)
        self.counts: Counter[tuple[str, str]] = Counter()
        self.defects = 0
        self.last_failure = ""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="notify", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def say(self, message: Message) -> None:
        """Send a message that no condition stands for, if it is grave enough; without waiting."""
        if SEVERITIES.index(message.severity) <= SEVERITIES.index(self._config.severity):
            self._said.append(message)

    def stop(self) -> None:
        """Send what is left, for at most ``end_s``; whatever is not out by then is given up."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(self._end_s)

    def collect(self) -> Iterable[Metric]:
        metric = CounterMetricFamily(
            "gpuscalp_notifications", "Messages to people.", labels=("service", "result")
        )
        for service in sorted({each.service for each in self._channels}):
            for result in _RESULTS:
                metric.add_metric([service, result], self.counts[service, result])
        yield metric

    def _run(self) -> None:
        look_s = 0.0
        while True:
            ending = self._stopping.is_set()
            now_s = time.monotonic()
            try:
                if ending or now_s >= look_s:
                    look_s = now_s + self._config.every_s
                    self._look(now_s)
                self._send(now_s, last=ending)
            except Exception:  # a defect of ours must not end a session
                self.defects += 1
            if ending:
                return
            self._stopping.wait(min(1.0, self._config.every_s))

    def _look(self, now_s: float) -> None:
        """Judge the conditions, and owe every channel what is to be told of them."""
        self._scrapes.add(now_s, self._collect(), unix_s=self._clock())
        self._digest.add(self._alarms.observe(self._scrapes), now_s)
        message = self._digest.due(self._alarms.firing, now_s)
        if message is not None:
            self._owe(message, now_s)

    def _owe(self, message: Message, now_s: float) -> None:
        for channel in self._channels:
            if len(self._owed) == _WAITING_MAX:
                self.counts[self._owed.popleft().channel.service, "dropped"] += 1
            self._owed.append(_Owed(channel, message, now_s))

    def _send(self, now_s: float, *, last: bool) -> None:
        while self._said:
            self._owe(self._said.popleft(), now_s)
        for _ in range(len(self._owed)):
            owed = self._owed.popleft()
            if owed.due_s > now_s and not last:
                self._owed.append(owed)
                continue
            failure = owed.channel.send(owed.message)
            service = owed.channel.service
            if failure is None:
                self.counts[service, "sent"] += 1
                continue
            self.counts[service, "failed"] += 1
            self.last_failure = f"{service}: {failure}"
            if owed.tries == len(self._retries_s) or last:
                self.counts[service, "dropped"] += 1
            else:
                owed.due_s, owed.tries = now_s + self._retries_s[owed.tries], owed.tries + 1
                self._owed.append(owed)
